// What the subject index costs: a match hot and cold, with patterns about, churn, and bytes per subscription.
//
//   sublist_bench --benchmark_filter='/1000000'      without the 10 M runs, which want 2 GB
//
// "cold" walks the subjects in random order, so that each match finds its slot and entry out of the caches; `prepared`
// does the same with prepare() and prefetch() called some messages ahead, as a parser can that has a batch in front of
// it. The time includes reading the subscription found, as a delivery would.

#include <benchmark/benchmark.h>

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/sublist.h"

namespace {

using peregrine::core::HashKey;
using peregrine::core::Match;
using peregrine::core::Sublist;
using peregrine::core::Subscription;

constexpr HashKey kKey{0x1122334455667788, 0x99AABBCCDDEEFF00};

// CPU time of this thread: being preempted is not the index's stall.
int64_t thread_ns() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

// 22 bytes, 5 tokens, all different: the multiplication is a bijection on 44 bits.
std::string subject_at(uint64_t n) {
  const uint64_t mixed = (n * 0x9E3779B97F5ULL) & ((uint64_t{1} << 44) - 1);
  char text[40];
  std::snprintf(text, sizeof(text), "ords.%04x.%03x.%04x.new", static_cast<unsigned>(mixed >> 28),
                static_cast<unsigned>(mixed >> 16 & 0xFFF), static_cast<unsigned>(mixed & 0xFFFF));
  return text;
}

// Every fifth subscription is a pattern, of fifteen shapes.
std::string mixed_at(uint64_t n) {
  const std::string subject = subject_at(n);
  if (n % 5 != 0) return subject;
  std::vector<std::string> tokens{subject.substr(0, 4), subject.substr(5, 4), subject.substr(10, 3),
                                  subject.substr(14, 4), subject.substr(19, 3)};
  static constexpr const char* kShapes[] = {"llll*", "lll*l", "ll*ll", "l*lll", "lll**", "ll**l", "ll*l*", "l*ll*",
                                            "l*l*l", "llll>", "lll*>", "ll*l>", "l*ll>", "*llll", "*lll*"};
  const std::string shape = kShapes[n / 5 % 15];
  std::string pattern;
  for (size_t i = 0; i < 5; i++) {
    if (i > 0) pattern += '.';
    pattern += shape[i] == 'l' ? tokens[i] : std::string(1, shape[i]);
  }
  return pattern;
}

struct Filled {
  Filled(uint64_t count, bool mixed) : index(kKey, 0, 1) {
    subjects.reserve(count * 22);
    subs.reserve(count);
    for (uint64_t n = 0; n < count; n++) subs.push_back(std::make_unique<Subscription>(nullptr, "1"));
    for (uint64_t n = 0; n < count; n++) {
      const std::string subject = subject_at(n);
      subjects += subject;
      const std::string subscribed = mixed ? mixed_at(n) : subject;
      const int64_t before = thread_ns();
      index.insert(*subs[n], subscribed, {});
      worst_ns = std::max(worst_ns, thread_ns() - before);
    }
    std::mt19937_64 random(1);
    order.resize(1 << 20);
    for (uint32_t& each : order) each = static_cast<uint32_t>(random() % count);
  }
  ~Filled() {
    for (auto& sub : subs) index.remove(*sub);
  }
  std::string_view subject(uint64_t n) const { return std::string_view(subjects).substr(n * 22, 22); }

  Sublist index;
  std::vector<std::unique_ptr<Subscription>> subs;
  std::string subjects;
  std::vector<uint32_t> order;
  int64_t worst_ns = 0;
};

// One data set at a time: the 10 M ones are large.
Filled& filled(uint64_t count, bool mixed) {
  static std::unique_ptr<Filled> current;
  static std::pair<uint64_t, bool> which;
  if (current == nullptr || which != std::pair(count, mixed)) {
    current.reset();
    current = std::make_unique<Filled>(count, mixed);
    which = {count, mixed};
  }
  return *current;
}

void report(benchmark::State& state, const Filled& data) {
  const auto stats = data.index.stats();
  state.counters["B/sub"] =
      static_cast<double>(stats.memory_bytes) / static_cast<double>(data.subs.size()) + sizeof(Subscription);
  state.counters["worst_insert_us"] = static_cast<double>(data.worst_ns) / 1000;
  state.counters["hit_rate"] =
      static_cast<double>(stats.cache_hits) / static_cast<double>(std::max<uint64_t>(stats.num_matches, 1));
}

void look_at(const Match& match) {
  for (Subscription* sub : match.plain) sub->delivered++;
}

void walk(benchmark::State& state, bool mixed, uint32_t working_set) {
  Filled& data = filled(static_cast<uint64_t>(state.range(0)), mixed);
  const uint32_t mask = working_set - 1;
  // The subjects themselves would come from a receive buffer: side by side.
  std::string texts;
  for (uint32_t i = 0; i < working_set; i++) texts += data.subject(data.order[i]);
  const auto text = [&](uint32_t i) { return std::string_view(texts.data() + (i & mask) * 22, 22); };
  for (uint32_t i = 0; i < 3 * working_set; i++) look_at(data.index.match(text(i)));
  uint32_t i = 0;
  for (auto _ : state) {
    const Match match = data.index.match(text(i++));
    look_at(match);
    benchmark::DoNotOptimize(match);
  }
  report(state, data);
}

// A million different subjects in random order, read from a buffer as a batch of PUBs would be.
void cold(benchmark::State& state, bool mixed, bool prepared) {
  Filled& data = filled(static_cast<uint64_t>(state.range(0)), mixed);
  std::string texts;
  for (const uint32_t each : data.order) texts += data.subject(each);
  const auto mask = static_cast<uint32_t>(data.order.size()) - 1;
  const auto text = [&](uint32_t i) { return std::string_view(texts.data() + size_t{i & mask} * 22, 22); };
  uint32_t i = 0;
  if (!prepared) {
    for (auto _ : state) look_at(data.index.match(text(i++)));
  } else {
    // Eight messages ahead the slot, four ahead the entry.
    uint64_t hashes[8];
    for (uint32_t n = 0; n < 8; n++) hashes[n] = data.index.prepare(text(n));
    for (auto _ : state) {
      const uint64_t hash = hashes[i & 7];
      hashes[i & 7] = data.index.prepare(text(i + 8));
      data.index.prefetch(hashes[(i + 4) & 7]);
      look_at(data.index.match(text(i++), hash));
    }
  }
  report(state, data);
}

void BM_hot_literals(benchmark::State& state) { walk(state, false, 16); }
void BM_4096_subjects(benchmark::State& state) { walk(state, false, 4096); }
void BM_cold_literals(benchmark::State& state) { cold(state, false, false); }
void BM_cold_literals_prepared(benchmark::State& state) { cold(state, false, true); }
void BM_hot_mixed(benchmark::State& state) { walk(state, true, 16); }
void BM_4096_mixed(benchmark::State& state) { walk(state, true, 4096); }
void BM_cold_mixed(benchmark::State& state) { cold(state, true, false); }

// One insert and one remove of short-lived inboxes, 256 of which are alive at any time, among the others.
void churn(benchmark::State& state, bool mixed) {
  Filled& data = filled(static_cast<uint64_t>(state.range(0)), mixed);
  std::vector<std::string> inboxes;
  std::vector<std::unique_ptr<Subscription>> subs;
  for (int i = 0; i < 1024; i++) {
    inboxes.push_back("_INBOX.Qd0Xy8wKjP1f" + std::to_string(1000 + i) + (mixed && i % 5 == 0 ? ".*" : ""));
    subs.push_back(std::make_unique<Subscription>(nullptr, "1"));
  }
  for (uint32_t i = 0; i < 256; i++) data.index.insert(*subs[i], inboxes[i], {});
  uint32_t i = 256;
  for (auto _ : state) {
    data.index.insert(*subs[i & 1023], inboxes[i & 1023], {});
    data.index.remove(*subs[(i - 256) & 1023]);
    i++;
  }
  for (auto& sub : subs) {
    if (sub->entry != 0) data.index.remove(*sub);
  }
  report(state, data);
}
void BM_churn_literals(benchmark::State& state) { churn(state, false); }
void BM_churn_mixed(benchmark::State& state) { churn(state, true); }

// Replaces random ones of the large set: cold churn.
void BM_churn_cold(benchmark::State& state) {
  Filled& data = filled(static_cast<uint64_t>(state.range(0)), false);
  const uint32_t mask = static_cast<uint32_t>(data.order.size()) - 1;
  uint32_t i = 0;
  for (auto _ : state) {
    const uint32_t n = data.order[i++ & mask];
    data.index.remove(*data.subs[n]);
    data.index.insert(*data.subs[n], data.subject(n), {});
  }
  report(state, data);
}

// What a literal costs each other shard, in time and memory: its hash comes and goes among many.
void BM_remote_churn(benchmark::State& state) {
  const auto count = static_cast<uint64_t>(state.range(0));
  Sublist index(kKey, 0, 1);
  const auto hash_at = [](uint64_t n) {
    n = (n ^ n >> 31) * 0x9E3779B97F4A7C15ULL;
    return (n ^ n >> 29) * 0xBF58476D1CE4E5B9ULL;
  };
  const auto empty = static_cast<double>(index.stats().memory_bytes);
  for (uint64_t n = 0; n < count; n++) index.set_remote_literal(1, hash_at(n), true);
  state.counters["B/sub"] = (static_cast<double>(index.stats().memory_bytes) - empty) / static_cast<double>(count);
  uint64_t n = 0;
  for (auto _ : state) {
    index.set_remote_literal(1, hash_at(n), false);
    index.set_remote_literal(1, hash_at(n + count), true);
    n++;
  }
}

// Nobody listens: an empty account, and one with others' subscriptions.
void BM_no_interest(benchmark::State& state) {
  Sublist index(kKey, 0, 1);
  for (auto _ : state) benchmark::DoNotOptimize(index.match("orders.new.berlin.17"));
}

// 4096 subjects, each with one subscriber, nothing else.
void BM_4096_of_4096(benchmark::State& state) {
  Sublist index(kKey, 0, 1);
  std::vector<std::unique_ptr<Subscription>> subs;
  std::string texts;
  for (uint32_t i = 0; i < 4096; i++) {
    subs.push_back(std::make_unique<Subscription>(nullptr, "1"));
    index.insert(*subs.back(), subject_at(i), {});
  }
  std::mt19937_64 random(1);
  for (uint32_t i = 0; i < 4096; i++) texts += subject_at(random() % 4096);
  uint32_t i = 0;
  for (auto _ : state) look_at(index.match({texts.data() + (i++ & 4095) * 22, 22}));
  for (auto& sub : subs) index.remove(*sub);
}

// One subscriber of `orders.>`, 4096 subjects.
void BM_pattern_only_4096(benchmark::State& state) {
  Sublist index(kKey, 0, 1);
  Subscription sub(nullptr, "1");
  index.insert(sub, "orders.>", {});
  std::vector<std::string> subjects;
  for (int i = 0; i < 4096; i++) subjects.push_back("orders.berlin." + std::to_string(i));
  uint32_t i = 0;
  for (auto _ : state) look_at(index.match(subjects[i++ & 4095]));
  index.remove(sub);
}

}  // namespace

#define MILLION(name) BENCHMARK(name)->Arg(1000000)
MILLION(BM_hot_literals);
MILLION(BM_4096_subjects);
MILLION(BM_cold_literals);
MILLION(BM_cold_literals_prepared);
MILLION(BM_churn_literals);
MILLION(BM_churn_cold);
MILLION(BM_hot_mixed);
MILLION(BM_4096_mixed);
MILLION(BM_cold_mixed);
MILLION(BM_churn_mixed);
MILLION(BM_remote_churn);
BENCHMARK(BM_hot_literals)->Arg(10000000);
BENCHMARK(BM_cold_literals)->Arg(10000000);
BENCHMARK(BM_cold_literals_prepared)->Arg(10000000);
BENCHMARK(BM_churn_literals)->Arg(10000000);
BENCHMARK(BM_churn_cold)->Arg(10000000);
BENCHMARK(BM_hot_mixed)->Arg(10000000);
BENCHMARK(BM_4096_mixed)->Arg(10000000);
BENCHMARK(BM_cold_mixed)->Arg(10000000);
BENCHMARK(BM_churn_mixed)->Arg(10000000);
BENCHMARK(BM_remote_churn)->Arg(10000000);
BENCHMARK(BM_no_interest);
BENCHMARK(BM_4096_of_4096);
BENCHMARK(BM_pattern_only_4096);

BENCHMARK_MAIN();
