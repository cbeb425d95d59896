// The walk of a message through one shard, without a network: bytes in, parse, match, deliver, bytes out.
//
//   walk [SCENARIO] [MESSAGES]     nanoseconds per published message and per message in and out, for one scenario or
//   all
//
// Meant for counting instructions, which noise does not touch:
//   valgrind --tool=callgrind --callgrind-out-file=out --toggle-collect='*ClientSession::feed*' build/bench/walk fan-1
//   100000
// and the inclusive count of feed divided by MESSAGES. The table in bench/README.md is made that way.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/client_session.h"
#include "core/shard.h"

namespace {

using namespace peregrine;

class Inline final : public core::Workers {
 public:
  void run(std::function<void()> work) override { work(); }
};

class Walk {
 public:
  explicit Walk(uint32_t shards = 1)
      : server_({}, {.id = "NBENCH", .name = "bench"}, {1, 2}, log_, workers_), rings_(shards, 1 << 18, 1 << 20) {
    for (uint32_t n = 0; n < shards; ++n) {
      shards_.push_back(std::make_unique<core::Shard>(server_, n, shards, &rings_, 42 + n, now_ns_, now_ns_));
      shards_.back()->set_waker([] {});
      server_.shards.push_back(shards_.back().get());
    }
  }

  core::Session& connect(const std::string& text) {
    shards_[0]->begin_turn(now_ns_, now_ns_);
    core::Session& session = *shards_[0]->open_client(conns_++, "127.0.0.1", 1);
    session.feed("CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n" + text);
    end();
    return session;
  }

  void feed(core::Session& from, std::string_view bytes) {
    now_ns_ += 100'000;
    shards_[0]->begin_turn(now_ns_, now_ns_);
    from.feed(bytes);
    end();
  }

  // The other shards take what has crossed.
  void others() {
    for (size_t n = 1; n < shards_.size(); ++n) {
      shards_[n]->begin_turn(now_ns_, now_ns_);
      shards_[n]->drain_rings();
      shards_[n]->end_turn();
    }
  }

 private:
  void end() {
    core::Shard& shard = *shards_[0];
    shard.end_turn();
    for (core::Session* session : shard.dirty()) {
      session->dirty = false;
      while (!session->outbox.empty()) {
        iovec iov[64];
        const size_t n = session->outbox.gather(iov, 64, 512 * 1024);
        size_t bytes = 0;
        for (size_t i = 0; i < n; ++i) bytes += iov[i].iov_len;
        session->outbox.consume(bytes);
      }
    }
    shard.dirty().clear();
  }

  core::NullLog log_;
  Inline workers_;
  core::Server server_;
  int64_t now_ns_ = 1'000'000'000;
  core::RingMatrix rings_;
  std::vector<std::unique_ptr<core::Shard>> shards_;
  uint32_t conns_ = 0;
};

std::string subject(int n) {
  std::string digits = std::to_string(n);
  return "bench." + std::string(7 - digits.size(), '0') + digits;
}

struct Scenario {
  const char* name;
  int subscribers;
  int subjects;           // messages go round them
  const char* subscribe;  // "": each subject; else this pattern, queue name included
  int payload;            // bytes; 0 = varying around 16
  bool reply;
};

constexpr Scenario kScenarios[] = {
    {"sink", 0, 1, "", 16, false},
    {"fan-1", 1, 1, "", 16, false},
    {"fan-1-1024", 1, 1, "", 1024, false},
    {"sizes", 1, 1, "", 0, false},
    {"subjects-16", 1, 16, "", 16, false},
    {"subjects-4096", 1, 4096, "", 16, false},
    {"wildcard", 1, 100, "bench.*", 16, false},
    {"queue-10", 10, 1, "bench.0000000 q", 16, false},
    {"fan-10", 10, 1, "", 16, false},
    {"fan-100", 100, 1, "", 16, false},
    {"fan-10-1024", 10, 1, "", 1024, false},
    {"request", 1, 1, "", 16, true},
    {"million", 10, 1000000, "", 16, false},
};

void run(const Scenario& s, int messages) {
  Walk walk;
  for (int i = 0; i < s.subscribers; ++i) {
    std::string text;
    if (*s.subscribe != 0) {
      text = "SUB " + std::string(s.subscribe) + " 1\r\n";
    } else {
      const bool divided = s.subjects > 1;
      for (int n = 0; n < s.subjects; ++n) {
        if (!divided || n % s.subscribers == i) text += "SUB " + subject(n) + " " + std::to_string(n + 1) + "\r\n";
      }
    }
    walk.connect(text);
  }
  core::Session& from = walk.connect("");
  // About 64 KiB at a time, as a busy connection's input comes; different ones, so that nothing is learnt by heart.
  std::vector<std::string> inputs(s.subjects >= 1000000 ? 64 : 4);
  int per_input = 0;
  unsigned seed = 1;
  for (std::string& input : inputs) {
    per_input = 0;
    while (input.size() < 65536 || per_input % 1024 != 0) {
      seed = seed * 1103515245 + 12345;
      const int n = s.subjects >= 1000000 ? static_cast<int>((seed >> 4) % static_cast<unsigned>(s.subjects))
                                          : per_input % s.subjects;
      const size_t size = s.payload != 0 ? static_cast<size_t>(s.payload) : 8 + (seed >> 16) % 17;
      input += "PUB " + subject(n) + (s.reply ? " _INBOX.abcdefghijkl.1" : "") + " " + std::to_string(size) + "\r\n" +
               std::string(size, 'x') + "\r\n";
      ++per_input;
      if (s.payload >= 1024 && input.size() >= 65536) break;
    }
  }
  double best = 1e30;
  const int rounds = 5;
  for (int r = 0; r < rounds; ++r) {
    const auto start = std::chrono::steady_clock::now();
    int done = 0;
    for (size_t at = 0; done < messages / rounds || done == 0; at = (at + 1) % inputs.size()) {
      walk.feed(from, inputs[at]);
      done += per_input;
    }
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count() / done);
  }
  const int out = *s.subscribe != 0 || s.subjects > 1 ? 1 : s.subscribers;
  std::printf("%-14s %8.1f ns per message published, %6.1f per message in and out\n", s.name, best, best / (1 + out));
}

// SUB and UNSUB of ever new inboxes while 1024 are alive, or none: then each pair comes and goes at once. What it costs
// the shard of the client, and the other shards.
void run_churn(const char* name, uint32_t shards, uint64_t live, int operations) {
  constexpr int kPairs = 64;
  Walk walk(shards);
  const auto sub = [](std::string& to, uint64_t id) {
    char text[96];
    std::snprintf(text, sizeof text, "SUB _INBOX.Churn%08llx.%016llx %llu\r\n",
                  static_cast<unsigned long long>(id & 0xFF), static_cast<unsigned long long>(id * 0x9E3779B97F4A7C15u),
                  static_cast<unsigned long long>(id + 1));
    to += text;
  };
  std::string input;
  uint64_t next = 0;
  for (; next < live; ++next) sub(input, next);
  core::Session& from = walk.connect(input);
  walk.others();
  double here = 1e30, there = 1e30;
  const int rounds = 5;
  for (int r = 0; r < rounds; ++r) {
    std::chrono::duration<double, std::nano> took_here{}, took_there{};
    int done = 0;
    for (; done < operations / rounds || done == 0; done += 2 * kPairs) {
      input.clear();
      for (int i = 0; i < kPairs; ++i, ++next) {
        sub(input, next);
        input += "UNSUB " + std::to_string(next - live + 1) + "\r\n";
      }
      const auto start = std::chrono::steady_clock::now();
      walk.feed(from, input);
      const auto middle = std::chrono::steady_clock::now();
      walk.others();
      took_here += middle - start;
      took_there += std::chrono::steady_clock::now() - middle;
    }
    here = std::min(here, took_here.count() / done);
    there = std::min(there, took_there.count() / done);
  }
  std::printf("%-14s %8.1f ns per SUB or UNSUB, %6.1f more on the other shards\n", name, here, there);
}

struct Churn {
  const char* name;
  uint32_t shards;
  uint64_t live;
};
constexpr Churn kChurns[] = {{"churn-1", 1, 1024}, {"churn-2", 2, 1024}, {"churn-2-brief", 2, 0}, {"churn-4", 4, 1024}};

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "all";
  const int messages = argc > 2 ? std::atoi(argv[2]) : 1'000'000;
  for (const Scenario& s : kScenarios) {
    if (name == s.name || (name == "all" && (argc > 3 || s.subjects < 1000000))) run(s, messages);
  }
  for (const Churn& c : kChurns) {
    if (name == c.name || name == "all") run_churn(c.name, c.shards, c.live, messages);
  }
  return 0;
}
