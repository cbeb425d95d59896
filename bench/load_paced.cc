// Open-loop latency: messages leave on a timetable, whatever the server does, and are measured from when they SHOULD
// have left.
//
// So a server that stalls for 10 ms pays for all messages of these 10 ms (no coordinated omission), whether they waited
// in the server, in a socket or in this generator because a socket was full.
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "bench/load_histogram.h"
#include "bench/load_runs.h"

namespace peregrine::bench {

using nlohmann::json;

namespace {

class PacedRun {
 public:
  PacedRun(const Environment& env, const PacedPlan& plan)
      : env_(env),
        plan_(plan),
        layout_(plan.payload_bytes, 1, SubjectChoice::kPublisher, 0, env.target.raw),
        scratch_(256 * 1024 + 8192),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    prctl(PR_SET_TIMERSLACK, 1);  // the default of 50 us would be added to every timed sleep
  }
  ~PacedRun() { close(epoll_); }

  json run() {
    for (uint32_t i = 0; i < plan_.subscribers; ++i) {
      Subscriber::Options o;
      o.id = i;
      subscribers_.push_back(std::make_unique<Subscriber>(layout_, o, env_.receivers, "sub 0"));
      if (!env_.target.raw) {
        subscribers_[i]->connection().write_all("SUB " + layout_.subject(0) + " 1\r\n");
        subscribers_[i]->connection().flush();
        if (env_.split) {
          Connection elsewhere(env_.target, "");
          subscribers_[i]->connection().await_delivery_from(elsewhere, "bench.await." + std::to_string(i));
        }
      }
      watch(subscribers_[i]->connection().fd(), i + 1);
    }
    publisher_ = std::make_unique<Publisher>(layout_, Publisher::Options{}, env_.target, "pub 0 1 all 0");
    watch(publisher_->connection().fd(), 0);
    arrived_.resize(1);
    drive();

    json window = window_json(env_, begin_, end_, static_cast<double>(sent_at_end_ - sent_at_begin_),
                              static_cast<double>(received_at_end_ - received_at_begin_));
    json result = {
        {"window", window},
        {"latency", latency_json(histogram_)},
        {"lateness", latency_json(lateness_)},  // of the generator itself: how far behind its timetable it wrote
        {"verified",
         {{"sent", publisher_->completed()},
          {"received", arrived_[0]},
          {"count", true},
          {"order", true},
          {"content", true}}}};
    if (!env_.target.raw)
      result["server_info"] = json::parse(subscribers_[0]->connection().server_info(), nullptr, false);
    return result;
  }

 private:
  void watch(int fd, uint64_t tag) {
    epoll_event e{};
    e.events = tag ? EPOLLIN : (EPOLLIN | EPOLLOUT | EPOLLET);
    e.data.u64 = tag;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) != 0) throw Failure("epoll_ctl failed");
  }

  uint64_t due_at(uint64_t sequence) const {
    return start_ns_ + static_cast<uint64_t>(static_cast<double>(sequence) * interval_ns_);
  }

  void receive(Subscriber& s) {
    const uint64_t first = s.next(0);
    if (s.readable(scratch_, arrived_.data()) == 0) return;
    const uint64_t now = now_ns();
    for (uint64_t q = first; q < s.next(0); ++q) {
      const uint64_t due = due_at(q);
      if (due >= measure_from_ns_ && due < measure_to_ns_) histogram_.record(now > due ? now - due : 0);
    }
  }

  void turn(uint64_t wake_at_ns) {
    timespec timeout{0, 0};
    const uint64_t now = now_ns();
    if (!plan_.spin && wake_at_ns > now) {
      timeout.tv_sec = static_cast<time_t>((wake_at_ns - now) / 1'000'000'000u);
      timeout.tv_nsec = static_cast<long>((wake_at_ns - now) % 1'000'000'000u);
    }
    epoll_event events[64];
    const int n = epoll_pwait2(epoll_, events, 64, &timeout, nullptr);
    for (int k = 0; k < n; ++k) {
      const uint64_t tag = events[k].data.u64;
      if (tag) {
        receive(*subscribers_[tag - 1]);
      } else {
        if (events[k].events & EPOLLIN) publisher_->readable();
        if (events[k].events & EPOLLOUT) publisher_->writable();
      }
    }
  }

  void drive() {
    interval_ns_ = 1e9 / plan_.rate;
    start_ns_ = now_ns() + 1'000'000;
    measure_from_ns_ = start_ns_ + static_cast<uint64_t>(env_.warmup_s * 1e9);
    measure_to_ns_ = measure_from_ns_ + static_cast<uint64_t>(env_.duration_s * 1e9);
    const uint64_t total = static_cast<uint64_t>((env_.warmup_s + env_.duration_s) * plan_.rate);
    uint64_t due = 0;  // messages whose time has come
    bool begun = false;
    const auto received = [this] { return arrived_[0]; };
    while (due < total || publisher_->completed() < due) {
      const uint64_t now = now_ns();
      if (!begun && now >= measure_from_ns_) {
        begun = true;
        begin_ = env_.probe.sample();
        sent_at_begin_ = publisher_->completed();
        received_at_begin_ = received();
        continue;  // sampling took a moment
      }
      if (now >= start_ns_)
        due = std::min(total, static_cast<uint64_t>(static_cast<double>(now - start_ns_) / interval_ns_) + 1);
      if (const uint64_t from = publisher_->completed(); from < due && !publisher_->blocked()) {
        if (due_at(from) >= measure_from_ns_) lateness_.record(now - std::min(now, due_at(from)));
        publisher_->pump(due, 16);
      }
      turn(due < total ? due_at(due) : now + 1'000'000);
    }
    end_ = env_.probe.sample();
    sent_at_end_ = publisher_->completed();
    received_at_end_ = received();
    const uint64_t expected = total * plan_.subscribers;
    const uint64_t deadline = now_ns() + 10'000'000'000u;
    while (received() < expected && now_ns() < deadline) turn(now_ns() + 1'000'000);
    if (received() != expected)
      throw Failure("lost " + std::to_string(expected - received()) + " of " + std::to_string(expected) + " messages");
  }

  const Environment& env_;
  const PacedPlan plan_;
  Layout layout_;
  std::vector<char> scratch_;
  std::vector<uint64_t> arrived_;
  int epoll_;
  std::vector<std::unique_ptr<Subscriber>> subscribers_;
  std::unique_ptr<Publisher> publisher_;
  double interval_ns_ = 0;
  uint64_t start_ns_ = 0, measure_from_ns_ = 0, measure_to_ns_ = UINT64_MAX;
  Histogram histogram_, lateness_;
  Sample begin_, end_;
  uint64_t sent_at_begin_ = 0, sent_at_end_ = 0, received_at_begin_ = 0, received_at_end_ = 0;
};

}  // namespace

json run_paced(const Environment& env, const PacedPlan& plan) { return PacedRun(env, plan).run(); }

}  // namespace peregrine::bench
