// Throughput: publishers as fast as the window allows, every message checked at every receiver.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "bench/load_runs.h"

namespace peregrine::bench {

using nlohmann::json;

namespace {

constexpr size_t kScratchBytes = 256 * 1024 + 8192;
constexpr uint64_t kDrainTimeoutNs = 10'000'000'000;  // without any progress
constexpr int kSubscribeTimeoutMs = 120'000;          // a million of them on a busy machine
constexpr uint64_t kSubscriberTag = 1ull << 32;

// Published bytes. 1 MiB keeps any server busy; what is not fanned out gains nothing from more and loses the caches. A
// fan-out multiplies it: 256 KiB per receiver is enough for long writes.
uint64_t default_window_bytes(const StreamPlan& plan) {
  const bool fanned = plan.shape == Shape::kFanOut && plan.subscribers > 1;
  return std::max<uint64_t>(fanned ? 256 * 1024 : 1024 * 1024, 4ull * plan.payload_bytes);
}

class StreamRun {
 public:
  StreamRun(const Environment& env, const StreamPlan& plan)
      : env_(env),
        plan_(plan),
        layout_(plan.payload_bytes, plan.subjects, plan.choice, subjects_per_sid(plan), env.target.raw,
                plan.publishers),
        scratch_(kScratchBytes),
        arrived_(plan.publishers, 0),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    const bool self_describing = plan.payload_bytes >= 16;
    if (!self_describing && (plan.publishers > 1 || plan.subjects > 1 || plan.shape == Shape::kShare)) {
      throw Failure("payloads below 16 bytes need one publisher, one subject and no queue group");
    }
    if (plan.publishers > 65'535) throw Failure("at most 65535 publishers");
    window_bytes_ = plan.window_bytes ? plan.window_bytes : default_window_bytes(plan);
  }
  ~StreamRun() { close(epoll_); }

  json run() {
    connect_subscribers();
    json subscriptions;
    if (plan_.shape != Shape::kSink && !env_.target.raw) subscriptions = subscribe();
    connect_publishers();
    drive();
    verify();

    json out = window_json(env_, begin_, end_, static_cast<double>(sent_at_end_ - sent_at_begin_),
                           static_cast<double>(received_at_end_ - received_at_begin_));
    out["bytes_in_per_second"] = out["messages_in"].get<double>() * plan_.payload_bytes / out["seconds"].get<double>();
    out["bytes_out_per_second"] =
        out["messages_out"].get<double>() * plan_.payload_bytes / out["seconds"].get<double>();
    json result = {{"window", out}, {"window_bytes", window_bytes_}};
    if (!subscriptions.is_null() && plan_.count_subscriptions) result["subscriptions"] = subscriptions;
    uint64_t received = 0, reads = 0, writes = 0, least = UINT64_MAX, most = 0;
    for (const auto& s : subscribers_) {
      received += s->received();
      reads += s->reads();
      least = std::min(least, s->received());
      most = std::max(most, s->received());
    }
    for (const auto& p : publishers_) writes += p->writes();
    result["verified"] = {
        {"sent", total_completed()}, {"received", received}, {"count", true}, {"order", true}, {"content", true}};
    result["generator"] = {{"writes", writes}, {"reads", reads}};
    if (plan_.shape == Shape::kShare)
      result["verified"]["share_least"] = least, result["verified"]["share_most"] = most;
    if (!subscribers_.empty() && !env_.target.raw) result["server_info"] = json::parse(info_, nullptr, false);
    else if (!info_.empty()) result["server_info"] = json::parse(info_, nullptr, false);
    return result;
  }

 private:
  static uint32_t subjects_per_sid(const StreamPlan& plan) {
    if (plan.subjects == 1 || plan.wildcard || plan.shape == Shape::kPairs || plan.shape == Shape::kSink) return 0;
    return plan.shape == Shape::kShare && !plan.queue ? std::max(plan.subscribers, 1u) : 1;
  }

  void connect_subscribers() {
    if (plan_.shape == Shape::kSink) return;
    for (uint32_t i = 0; i < plan_.subscribers; ++i) {
      Subscriber::Options o;
      o.id = i;
      o.publishers = plan_.publishers;
      o.order = plan_.shape == Shape::kShare ? Subscriber::Order::kIncreasing : Subscriber::Order::kExact;
      if (plan_.shape == Shape::kPairs) o.only_publisher = i;
      const std::string channel = std::to_string(plan_.shape == Shape::kPairs ? i : 0);
      subscribers_.push_back(std::make_unique<Subscriber>(layout_, o, env_.receivers, "sub " + channel));
      watch(subscribers_.back()->connection().fd(), kSubscriberTag | i, EPOLLIN);
    }
    if (!subscribers_.empty()) info_ = subscribers_[0]->connection().server_info();
  }

  // Subject indexes receiver `i` has to subscribe to; empty for "the pattern".
  std::vector<uint32_t> literals_of(uint32_t i) const {
    std::vector<uint32_t> mine;
    if (plan_.wildcard) return mine;
    if (plan_.shape == Shape::kPairs) return {plan_.subjects == 1 ? 0 : i};
    const bool divided = plan_.shape == Shape::kShare && !plan_.queue;
    for (uint32_t s = 0; s < plan_.subjects; ++s) {
      if (!divided || s % plan_.subscribers == i) mine.push_back(s);
    }
    return mine;
  }

  json subscribe() {
    const std::string queue = plan_.queue ? " workers" : "";
    std::vector<std::string> text(subscribers_.size());
    uint64_t count = 0;
    for (uint32_t i = 0; i < subscribers_.size(); ++i) {
      if (plan_.wildcard) {
        text[i] = "SUB " + layout_.wildcard() + queue + " 1\r\n";
        ++count;
      }
      for (uint32_t s : literals_of(i)) {
        text[i] += "SUB " + layout_.subject(s) + queue + " " + layout_.sid(s) + "\r\n";
        ++count;
      }
    }
    const Memory memory_before = env_.probe.memory();
    const Sample begin = env_.probe.sample();
    // Chunks in turn, so that a server with several cores may use them.
    constexpr size_t kChunk = 64 * 1024;
    bool more = true;
    for (size_t at = 0; more; at += kChunk) {
      more = false;
      for (size_t i = 0; i < text.size(); ++i) {
        if (at >= text[i].size()) continue;
        subscribers_[i]->connection().write_all(std::string_view(text[i]).substr(at, kChunk));
        more = true;
      }
    }
    for (auto& s : subscribers_) s->connection().flush(kSubscribeTimeoutMs);
    if (env_.split) {
      Connection elsewhere(env_.target, "", kSubscribeTimeoutMs);
      for (size_t i = 0; i < subscribers_.size(); ++i)
        subscribers_[i]->connection().await_delivery_from(elsewhere, "bench.await." + std::to_string(i));
    }
    const Sample end = env_.probe.sample();
    if (!plan_.count_subscriptions) return {};
    usleep(1'000'000);  // what a collector or a purge gives back within a second counts as given back
    json out = window_json(env_, begin, end, static_cast<double>(count), 0);
    out["milliseconds"] = static_cast<double>(end.wall_ns - begin.wall_ns) / 1e6;
    out["memory"] = memory_json(memory_before, env_.probe.memory(), static_cast<double>(count));
    return out;
  }

  void connect_publishers() {
    const uint64_t frame = layout_.sent_frame_bytes();
    window_ = std::max<uint64_t>(2, window_bytes_ / frame / plan_.publishers);
    // Credit is used in lumps: dribbling out single messages as they are confirmed would measure system calls.
    lump_ = plan_.own_write ? 1 : std::max<uint64_t>(1, window_ / 8);
    for (uint32_t i = 0; i < plan_.publishers; ++i) {
      Publisher::Options o;
      o.id = i;
      o.own_write = plan_.own_write;
      if (plan_.shape == Shape::kSink) o.ack_every = static_cast<uint32_t>(std::max<uint64_t>(1, window_ / 4));
      const std::string channel = std::to_string(plan_.shape == Shape::kPairs ? i : 0);
      const char* mode = plan_.shape == Shape::kShare ? "spread" : "all";
      // The relay keeps frames whole only where several publishers or several receivers would tear them.
      const bool whole = plan_.shape == Shape::kShare || (plan_.shape == Shape::kFanOut && plan_.publishers > 1);
      publishers_.push_back(std::make_unique<Publisher>(layout_, o, env_.target,
                                                        "pub " + channel + " " + std::to_string(whole ? frame : 1) +
                                                            " " + mode + " " + std::to_string(o.ack_every * frame)));
      watch(publishers_.back()->connection().fd(), i, EPOLLIN | EPOLLOUT | EPOLLET);
    }
    if (info_.empty()) info_ = publishers_[0]->connection().server_info();
  }

  void watch(int fd, uint64_t tag, uint32_t events) {
    epoll_event e{};
    e.events = events;
    e.data.u64 = tag;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) != 0) throw Failure("epoll_ctl failed");
  }

  uint64_t confirmed(uint32_t publisher) const {
    switch (plan_.shape) {
      case Shape::kSink:
        return publishers_[publisher]->acknowledged();
      case Shape::kShare:
      case Shape::kPairs:
        return arrived_[publisher];
      case Shape::kFanOut: {
        if (subscribers_.size() == 1) return arrived_[publisher];
        uint64_t least = UINT64_MAX;
        for (const auto& s : subscribers_) least = std::min(least, s->next(publisher));
        return least;
      }
    }
    return 0;
  }

  uint64_t total_completed() const {
    uint64_t n = 0;
    for (const auto& p : publishers_) n += plan_.shape == Shape::kSink ? p->acknowledged() : p->completed();
    return n;
  }
  uint64_t total_received() const {
    uint64_t n = 0;
    for (uint64_t a : arrived_) n += a;
    return n;
  }

  // One round: everyone with credit writes a little. Returns whether somebody could go on at once.
  bool pump_all() {
    bool more = false;
    const uint32_t writes = plan_.own_write ? 64 : 1;
    for (auto& p : publishers_) {
      if (p->blocked()) continue;
      const uint64_t room = confirmed(p->id()) + window_;
      if (stopping_) {
        p->pump(p->completed(), writes);  // finishes what is half written, answers PING
        more |= !p->idle() && !p->blocked();
        continue;
      }
      if (p->idle() && room < p->completed() + lump_) continue;
      p->pump(room, writes);
      more |= !p->blocked() && p->completed() < room;
    }
    return more;
  }

  void turn(int timeout_ms) {
    epoll_event events[256];
    const int n = epoll_wait(epoll_, events, 256, timeout_ms);
    for (int i = 0; i < n; ++i) {
      const uint64_t tag = events[i].data.u64;
      if (tag & kSubscriberTag) {
        subscribers_[tag & 0xFFFF'FFFFu]->readable(scratch_, arrived_.data());
      } else {
        Publisher& p = *publishers_[tag];
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) p.readable();
        if (events[i].events & EPOLLOUT) p.writable();
      }
    }
  }

  void drive() {
    const uint64_t start = now_ns();
    const uint64_t begin_at = start + static_cast<uint64_t>(env_.warmup_s * 1e9);
    const uint64_t end_at = begin_at + static_cast<uint64_t>(env_.duration_s * 1e9);
    bool begun = false;
    for (;;) {
      const uint64_t now = now_ns();
      if (!begun && now >= begin_at) {
        begun = true;
        begin_ = env_.probe.sample();
        sent_at_begin_ = total_completed();
        received_at_begin_ = total_received();
      }
      if (now >= end_at) break;
      const bool more = pump_all();
      turn(more ? 0 : 100);
    }
    end_ = env_.probe.sample();
    sent_at_end_ = total_completed();
    received_at_end_ = total_received();
    drain();
  }

  bool drained() const {
    for (const auto& p : publishers_) {
      if (!p->idle()) return false;
      if (plan_.shape == Shape::kSink) continue;
      if (confirmed(p->id()) < p->completed()) return false;
    }
    return true;
  }

  void drain() {
    stopping_ = true;
    uint64_t deadline = now_ns() + kDrainTimeoutNs;
    for (uint64_t last = 0; !drained() && now_ns() < deadline;) {
      const bool more = pump_all();
      turn(more ? 0 : 20);
      if (const uint64_t progress = total_received() + total_completed(); progress != last) {
        last = progress;
        deadline = now_ns() + kDrainTimeoutNs;
      }
    }
    if (plan_.shape == Shape::kSink) return;
    // Whatever comes now was not asked for: a duplicate.
    for (int i = 0; i < 3; ++i) turn(10);
  }

  void check_moved(uint64_t messages) const {
    if (messages == 0)
      throw Failure("nothing moved in the measured window (what was sent before and after it arrived)");
  }

  void verify() {
    if (plan_.shape == Shape::kSink) return check_moved(sent_at_end_ - sent_at_begin_);
    uint64_t lost = 0;
    for (const auto& p : publishers_) {
      const uint64_t got = confirmed(p->id());
      if (got > p->completed()) throw Failure("more received than sent");
      lost += p->completed() - got;
    }
    if (lost > 0)
      throw Failure("lost " + std::to_string(lost) + " of " + std::to_string(total_completed()) + " messages");
    check_moved(received_at_end_ - received_at_begin_);
    if (plan_.shape != Shape::kShare) return;
    uint64_t sum_sent = 0, sum_received = 0;
    for (const auto& p : publishers_) {
      for (uint64_t q = 0; q < p->completed(); ++q) sum_sent += Layout::mix(q | static_cast<uint64_t>(p->id()) << 48);
    }
    for (const auto& s : subscribers_) sum_received += s->sum();
    if (sum_sent != sum_received)
      throw Failure("the right number of messages, but not the right ones (duplicates hide losses)");
  }

  const Environment& env_;
  const StreamPlan plan_;
  Layout layout_;
  std::vector<char> scratch_;
  std::vector<uint64_t> arrived_;
  int epoll_;
  uint64_t window_bytes_ = 0;
  uint64_t window_ = 0;  // messages per publisher
  uint64_t lump_ = 1;
  bool stopping_ = false;
  std::vector<std::unique_ptr<Subscriber>> subscribers_;
  std::vector<std::unique_ptr<Publisher>> publishers_;
  std::string info_;
  Sample begin_, end_;
  uint64_t sent_at_begin_ = 0, sent_at_end_ = 0, received_at_begin_ = 0, received_at_end_ = 0;
};

}  // namespace

json run_stream(const Environment& env, const StreamPlan& plan) { return StreamRun(env, plan).run(); }

}  // namespace peregrine::bench
