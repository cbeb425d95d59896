// Request/reply in a closed loop: each requester keeps `depth` requests in flight and measures each round trip.
//
// Inboxes look like those of the real clients: one wildcard subscription per requester, a new last token per request.
// Every reply must carry the payload of its request, on the subject asked for, and in order.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "bench/load_histogram.h"
#include "bench/load_runs.h"

namespace peregrine::bench {

using nlohmann::json;

namespace {

constexpr uint64_t kResponderTag = 1ull << 32;
constexpr size_t kTokenDigits = 8;
constexpr char kHex[] = "0123456789abcdef";

void write_hex(char* to, uint64_t value, size_t digits) {
  for (size_t i = digits; i-- > 0; value >>= 4) to[i] = kHex[value & 15];
}

// Inbox of requester r: as long as those made from a NUID.
std::string inbox_of(uint32_t requester) {
  std::string inbox = "_INBOX.LoadRequester0000000000";
  write_hex(inbox.data() + inbox.size() - 8, requester, 8);
  return inbox;
}

// An end of a conversation in fixed frames: bytes in, bytes waiting to go out.
struct End {
  explicit End(const Target& target, const std::string& introduction) : connection(target, introduction) {}

  void send(std::string_view bytes) {
    if (out.empty()) bytes.remove_prefix(connection.write_some(bytes.data(), bytes.size()));
    out.append(bytes);
  }
  void writable() {
    if (!out.empty()) out.erase(0, connection.write_some(out.data(), out.size()));
  }
  // Calls on_frame(frame) for every whole message; other operations are dealt with here.
  template <class OnFrame>
  void readable(std::vector<char>& scratch, size_t frame_bytes, OnFrame on_frame) {
    std::memcpy(scratch.data(), carry.data(), carry.size());
    const size_t n = carry.size() + connection.read_some(scratch.data() + carry.size(), scratch.size() - carry.size());
    const char* p = scratch.data();
    const char* const end = p + n;
    while (p != end) {
      if (*p == 'M') {
        if (static_cast<size_t>(end - p) < frame_bytes) break;
        on_frame(p);
        p += frame_bytes;
        continue;
      }
      const char* newline = static_cast<const char*>(std::memchr(p, '\n', static_cast<size_t>(end - p)));
      if (!newline) break;
      const std::string_view line(p, static_cast<size_t>(newline - p));
      if (line.starts_with("PING")) send("PONG\r\n");
      else if (!line.starts_with("INFO") && !line.starts_with("PONG") && !line.starts_with("+OK")) {
        throw Failure("unexpected: " + std::string(line.substr(0, 120)));
      }
      p = newline + 1;
    }
    carry.assign(p, static_cast<size_t>(end - p));
  }

  Connection connection;
  std::string out, carry;
};

struct Requester {
  explicit Requester(End e, uint32_t depth) : end(std::move(e)), sent_at_ns(depth) {}
  End end;
  uint64_t sent = 0, answered = 0;
  std::vector<uint64_t> sent_at_ns;  // ring by sequence number; replies come in order
};

class RequestRun {
 public:
  RequestRun(const Environment& env, const RequestPlan& plan)
      : env_(env), plan_(plan), scratch_(256 * 1024), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (plan.payload_bytes < 16) throw Failure("request payloads need 16 bytes");
    const std::string size = std::to_string(plan.payload_bytes) + "\r\n";
    const std::string reply = inbox_of(0) + ".00000000";
    // What the responder sees, what it sends back, what the requester sees.
    request_in_ = "MSG bench.service 1 " + reply + " " + size;
    answer_out_ = "PUB " + reply + " " + size;
    answer_in_ = "MSG " + reply + " 1 " + size;
    request_out_ = "PUB bench.service " + reply + " " + size;
    if (env.target.raw) request_out_ = request_in_, answer_out_ = answer_in_;
    body_.resize(plan.payload_bytes);
    for (size_t i = 0; i < body_.size(); ++i) body_[i] = static_cast<char>(i * 31 + 7);
  }
  ~RequestRun() { close(epoll_); }

  json run() {
    connect();
    drive();
    const double round_trips = static_cast<double>(done_at_end_ - done_at_begin_);
    if (round_trips == 0) throw Failure("no request was answered in the measured window");
    // Two messages in and two out for every round trip.
    json window = window_json(env_, begin_, end_, 2 * round_trips, 2 * round_trips);
    window["round_trips"] = round_trips;
    window["round_trips_per_second"] = round_trips / window["seconds"].get<double>();
    if (env_.probe.has_server()) window["cpu_ns_per_round_trip"] = window["server_cpu_ns"].get<double>() / round_trips;
    json result = {{"window", window},
                   {"latency", latency_json(histogram_)},
                   {"verified", {{"answered", done_}, {"count", true}, {"order", true}, {"content", true}}}};
    if (!env_.target.raw) result["server_info"] = json::parse(responders_[0]->connection.server_info(), nullptr, false);
    return result;
  }

 private:
  void connect() {
    for (uint32_t i = 0; i < plan_.responders; ++i) {
      // The relay routes answers by the publisher number in the payload's first word.
      const size_t route_at = answer_out_.size() + 6;
      responders_.push_back(std::make_unique<End>(
          env_.receivers, "responder " + std::to_string(frame(answer_out_)) + " " + std::to_string(route_at)));
      if (!env_.target.raw) {
        responders_[i]->connection.write_all(plan_.responders > 1 ? "SUB bench.service workers 1\r\n"
                                                                  : "SUB bench.service 1\r\n");
        responders_[i]->connection.flush();
      }
      watch(responders_[i]->connection.fd(), kResponderTag | i);
    }
    for (uint32_t i = 0; i < plan_.requesters; ++i) {
      requesters_.push_back(std::make_unique<Requester>(
          End(env_.target, "requester " + std::to_string(i) + " " + std::to_string(frame(request_out_))), plan_.depth));
      End& end = requesters_[i]->end;
      if (!env_.target.raw) {
        end.connection.write_all("SUB " + inbox_of(i) + ".* 1\r\n");
        end.connection.flush();
      }
      watch(end.connection.fd(), i);
    }
    if (env_.split) await_interest();
  }

  // Requests travel one way, answers the other: each side waits for its own interest to have arrived.
  void await_interest() {
    Connection here(env_.target, ""), there(env_.receivers, "");
    for (uint32_t i = 0; i < plan_.responders; ++i)
      responders_[i]->connection.await_delivery_from(here, "bench.await.r" + std::to_string(i));
    for (uint32_t i = 0; i < plan_.requesters; ++i)
      requesters_[i]->end.connection.await_delivery_from(there, "bench.await.q" + std::to_string(i));
  }

  size_t frame(const std::string& line) const { return line.size() + plan_.payload_bytes + 2; }

  void watch(int fd, uint64_t tag) {
    epoll_event e{};
    e.events = EPOLLIN | EPOLLOUT | EPOLLET;
    e.data.u64 = tag;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) != 0) throw Failure("epoll_ctl failed");
  }

  void ask(uint32_t i) {
    Requester& r = *requesters_[i];
    text_ = request_out_;
    const size_t reply_at =
        (env_.target.raw ? std::string_view("MSG bench.service 1 ") : std::string_view("PUB bench.service ")).size();
    const std::string inbox = inbox_of(i);
    text_.replace(reply_at, inbox.size(), inbox);
    write_hex(text_.data() + reply_at + inbox.size() + 1, r.sent, kTokenDigits);
    const size_t payload_at = text_.size();
    text_.append(body_);
    Layout::write_head(text_.data() + payload_at, i, r.sent, 0);
    text_ += "\r\n";
    r.sent_at_ns[r.sent % plan_.depth] = now_ns();
    ++r.sent;
    ++in_flight_;
    r.end.send(text_);
  }

  // The responder's turn: all requests that have come are answered in one write, as every client library does.
  void respond(End& end) {
    text_.clear();
    constexpr size_t kReplyAt = sizeof("MSG bench.service 1 ") - 1;
    const size_t reply_bytes = inbox_of(0).size() + 1 + kTokenDigits;
    end.readable(scratch_, frame(request_in_), [&](const char* p) {
      if (std::memcmp(p, request_in_.data(), kReplyAt) != 0) throw Failure("a request came out with another line");
      const size_t at = text_.size();
      text_ += answer_out_;
      text_.replace(at + 4, reply_bytes, p + kReplyAt, reply_bytes);
      text_.append(p + request_in_.size(), plan_.payload_bytes + 2);
    });
    if (!text_.empty()) end.send(text_);
  }

  void answered(uint32_t i) {
    Requester& r = *requesters_[i];
    uint32_t again = 0;
    const uint64_t first = r.answered;
    r.end.readable(scratch_, frame(answer_in_), [&](const char* p) {
      check_answer(p, i, r.answered);
      ++r.answered;
      ++again;
    });
    const uint64_t now = now_ns();
    for (uint64_t q = first; q < r.answered; ++q) {
      if (measuring_) histogram_.record(now - r.sent_at_ns[q % plan_.depth]);
    }
    done_ += again;
    in_flight_ -= again;
    if (stopping_) return;
    for (uint32_t k = 0; k < again; ++k) ask(i);
  }

  void check_answer(const char* p, uint32_t i, uint64_t sequence) const {
    char line[256];
    const std::string inbox = inbox_of(i);
    std::memcpy(line, answer_in_.data(), answer_in_.size());
    std::memcpy(line + 4, inbox.data(), inbox.size());
    write_hex(line + 4 + inbox.size() + 1, sequence, kTokenDigits);
    char head[16];
    Layout::write_head(head, i, sequence, 0);
    const char* payload = p + answer_in_.size();
    if (std::memcmp(p, line, answer_in_.size()) != 0 || std::memcmp(payload, head, 16) != 0 ||
        std::memcmp(payload + 16, body_.data() + 16, body_.size() - 16) != 0) {
      throw Failure("requester " + std::to_string(i) + ": answer " + std::to_string(sequence) +
                    " is not the one expected: " + std::string(p, answer_in_.size() - 2));
    }
  }

  void turn(int timeout_ms) {
    epoll_event events[256];
    const int n = epoll_wait(epoll_, events, 256, timeout_ms);
    for (int k = 0; k < n; ++k) {
      const uint64_t tag = events[k].data.u64;
      const uint32_t i = static_cast<uint32_t>(tag);
      End& end = tag & kResponderTag ? *responders_[i] : requesters_[i]->end;
      if (events[k].events & EPOLLOUT) end.writable();
      if (!(events[k].events & (EPOLLIN | EPOLLERR | EPOLLHUP))) continue;
      if (tag & kResponderTag) respond(end);
      else answered(i);
    }
  }

  void drive() {
    for (uint32_t i = 0; i < plan_.requesters; ++i) {
      for (uint32_t d = 0; d < plan_.depth; ++d) ask(i);
    }
    const uint64_t begin_at = now_ns() + static_cast<uint64_t>(env_.warmup_s * 1e9);
    const uint64_t end_at = begin_at + static_cast<uint64_t>(env_.duration_s * 1e9);
    while (now_ns() < begin_at) turn(100);
    begin_ = env_.probe.sample();
    done_at_begin_ = done_;
    measuring_ = true;
    while (now_ns() < end_at) turn(100);
    measuring_ = false;
    end_ = env_.probe.sample();
    done_at_end_ = done_;
    stopping_ = true;
    const uint64_t deadline = now_ns() + 5'000'000'000u;
    while (in_flight_ > 0 && now_ns() < deadline) turn(20);
    if (in_flight_ > 0) throw Failure(std::to_string(in_flight_) + " requests were never answered");
  }

  const Environment& env_;
  const RequestPlan plan_;
  std::vector<char> scratch_;
  int epoll_;
  std::string request_out_, request_in_, answer_out_, answer_in_, body_, text_;
  std::vector<std::unique_ptr<End>> responders_;
  std::vector<std::unique_ptr<Requester>> requesters_;
  Histogram histogram_;
  bool measuring_ = false, stopping_ = false;
  uint64_t done_ = 0, in_flight_ = 0, done_at_begin_ = 0, done_at_end_ = 0;
  Sample begin_, end_;
};

}  // namespace

json run_request(const Environment& env, const RequestPlan& plan) { return RequestRun(env, plan).run(); }

}  // namespace peregrine::bench
