// Loads that are not about messages: subscriptions coming and going, connections that do nothing.
#include <sys/epoll.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "bench/load_runs.h"

namespace peregrine::bench {

using nlohmann::json;

namespace {

// SUB and UNSUB of ever new inbox-like subjects on one connection, with a message now and then to one that is alive.
// Each message must arrive at exactly that subscription: SUB counts from the next line on, UNSUB too.
class ChurnRun {
 public:
  ChurnRun(const Environment& env, const ChurnPlan& plan) : env_(env), plan_(plan), connection_(env.target, "") {
    if (env.target.raw) throw Failure("the relay knows no subscriptions");
  }

  json run() {
    for (uint64_t id = 0; id < plan_.live; ++id) append_sub(id);
    next_id_ = plan_.live;
    connection_.write_all(out_);
    connection_.flush();
    out_.clear();

    const uint64_t begin_at = now_ns() + static_cast<uint64_t>(env_.warmup_s * 1e9);
    const uint64_t end_at = begin_at + static_cast<uint64_t>(env_.duration_s * 1e9);
    while (now_ns() < begin_at) turn();
    const Sample begin = env_.probe.sample();
    const uint64_t done_at_begin = done_, received_at_begin = received_;
    while (now_ns() < end_at) turn();
    const Sample end = env_.probe.sample();
    const uint64_t batches = done_ - done_at_begin;
    const uint64_t messages_out = received_ - received_at_begin;
    while (done_ < sent_) {
      if (!read()) usleep(100);
      if (now_ns() > end_at + 10'000'000'000u) throw Failure("batches were never confirmed");
    }
    if (!expected_.empty())
      throw Failure("lost " + std::to_string(expected_.size()) + " messages to live subscriptions");

    const double operations = static_cast<double>(batches) * 2 * plan_.pairs;
    json window = window_json(env_, begin, end, operations + static_cast<double>(messages_out),
                              static_cast<double>(messages_out));
    window["operations"] = operations;
    window["operations_per_second"] = operations / window["seconds"].get<double>();
    return {{"window", window},
            {"verified", {{"received", received_}, {"count", true}, {"order", true}, {"content", true}}},
            {"server_info", json::parse(connection_.server_info(), nullptr, false)}};
  }

 private:
  static std::string subject(uint64_t id) {
    char text[48];
    const int n =
        std::snprintf(text, sizeof text, "_INBOX.Churn%08llx.%016llx", static_cast<unsigned long long>(id & 0xFF),
                      static_cast<unsigned long long>(id * 0x9E3779B97F4A7C15u));
    return {text, static_cast<size_t>(n)};
  }
  void append_sub(uint64_t id) { out_ += "SUB " + subject(id) + " " + std::to_string(id + 1) + "\r\n"; }

  void append_batch() {
    for (uint32_t i = 0; i < plan_.pairs; ++i) {
      append_sub(next_id_);
      out_ += "UNSUB " + std::to_string(next_id_ - plan_.live + 1) + "\r\n";
      if (plan_.publish_every && i % plan_.publish_every == 0) {
        // In turn: the one just subscribed, the oldest still alive, and the one just unsubscribed (which must stay
        // silent).
        const uint64_t which = turn_count_++ % 3;
        const uint64_t id = which == 0 ? next_id_ : which == 1 ? next_id_ - plan_.live + 1 : next_id_ - plan_.live;
        const std::string name = subject(id);
        out_ += "PUB " + name + " 16\r\nchurn payload 16\r\n";
        if (which != 2)
          expected_.push_back("MSG " + name + " " + std::to_string(id + 1) + " 16\r\nchurn payload 16\r\n");
      }
      ++next_id_;
    }
    out_ += "PING\r\n";
    ++sent_;
  }

  void turn() {
    while (out_.empty() && sent_ - done_ < plan_.batches_in_flight) append_batch(), write();
    if (!out_.empty()) write();
    if (!read()) {
      epoll_event e{};
      if (!epoll_) {
        epoll_ = epoll_create1(EPOLL_CLOEXEC);
        e.events = EPOLLIN;
        epoll_ctl(epoll_, EPOLL_CTL_ADD, connection_.fd(), &e);
      }
      epoll_wait(epoll_, &e, 1, 50);
    }
  }

  void write() { out_.erase(0, connection_.write_some(out_.data(), out_.size())); }

  bool read() {
    char buffer[64 * 1024];
    const size_t n = connection_.read_some(buffer, sizeof buffer);
    if (n == 0) return false;
    in_.append(buffer, n);
    size_t at = 0;
    while (at < in_.size()) {
      if (in_[at] == 'M') {
        if (expected_.empty()) throw Failure("a message nobody is subscribed to: " + in_.substr(at, 80));
        const std::string& want = expected_.front();
        if (in_.size() - at < want.size()) break;
        if (in_.compare(at, want.size(), want) != 0)
          throw Failure("expected " + want + ", got " + in_.substr(at, want.size()));
        at += want.size();
        expected_.pop_front();
        ++received_;
        continue;
      }
      const size_t newline = in_.find('\n', at);
      if (newline == std::string::npos) break;
      const std::string_view line(in_.data() + at, newline - at);
      if (line.starts_with("PONG")) ++done_;
      else if (line.starts_with("PING")) out_ += "PONG\r\n";
      else if (!line.starts_with("INFO")) throw Failure("unexpected: " + std::string(line.substr(0, 120)));
      at = newline + 1;
    }
    in_.erase(0, at);
    return true;
  }

  const Environment& env_;
  const ChurnPlan plan_;
  Connection connection_;
  int epoll_ = 0;
  std::string out_, in_;
  std::deque<std::string> expected_;
  uint64_t next_id_ = 0, turn_count_ = 0, sent_ = 0, done_ = 0, received_ = 0;
};

}  // namespace

json run_churn(const Environment& env, const ChurnPlan& plan) { return ChurnRun(env, plan).run(); }

namespace {

// Connections as real clients keep them: nothing of their own, but every PING gets its PONG.
class IdleCrowd {
 public:
  IdleCrowd() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~IdleCrowd() { close(epoll_); }

  void dial(const Target& target) {
    connections_.push_back(std::make_unique<Connection>(target, "sub 0"));
    epoll_event e{};
    e.events = EPOLLIN;
    e.data.ptr = connections_.back().get();
    epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_.back()->fd(), &e);
  }

  void live(double seconds) {
    const uint64_t until = now_ns() + static_cast<uint64_t>(seconds * 1e9);
    for (uint64_t now; (now = now_ns()) < until;) {
      epoll_event events[64];
      const int n = epoll_wait(epoll_, events, 64, static_cast<int>((until - now) / 1'000'000) + 1);
      for (int i = 0; i < n; ++i) answer(*static_cast<Connection*>(events[i].data.ptr));
    }
  }

  // Alive, not merely connected: every hundredth is asked.
  void check() {
    for (size_t i = 0; i < connections_.size(); i += 100) connections_[i]->flush();
  }

  const std::string& server_info() const { return connections_[0]->server_info(); }

 private:
  static void answer(Connection& connection) {
    char buffer[16 * 1024];
    const std::string_view text(buffer, connection.read_some(buffer, sizeof buffer));
    if (text.find("-ERR") != text.npos) throw Failure("an idle connection was told " + std::string(text));
    for (size_t at = 0; (at = text.find("PING\r\n", at)) != text.npos; at += 6) connection.write_all("PONG\r\n");
  }

  int epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace

json run_idle(const Environment& env, const IdlePlan& plan) {
  IdleCrowd crowd;
  crowd.dial(env.target);  // brings up what a server builds once; not counted
  crowd.live(0.2);
  const Memory before = env.probe.memory();
  const Sample dial_begin = env.probe.sample();
  for (uint32_t i = 0; i < plan.connections; ++i) {
    crowd.dial(env.target);
    if (i % 256 == 255) crowd.live(0);
  }
  const Sample dial_end = env.probe.sample();
  crowd.live(plan.settle_s);
  const Memory after = env.probe.memory();
  const Sample begin = env.probe.sample();
  crowd.live(env.duration_s);
  const Sample end = env.probe.sample();

  json result = {{"window", window_json(env, begin, end, 0, 0)}};
  if (plan.connections > 0) {
    result["dialling"] = window_json(env, dial_begin, dial_end, plan.connections, 0);
    result["memory"] = memory_json(before, after, plan.connections);
    if (!env.target.raw) crowd.check();
  }
  if (!env.target.raw) result["server_info"] = json::parse(crowd.server_info(), nullptr, false);
  return result;
}

}  // namespace peregrine::bench
