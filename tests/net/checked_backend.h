// Test equipment: a backend whose event stream is held against the contract in net/backend.h, and plain blocking peers.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "net/backend.h"
#include "net/listener.h"
#include "net/socket.h"

namespace peregrine::net::testing {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kPatience = 20'000 * kMs;  // far more than any step needs, also with sanitizers on a busy machine

// Runs turns and checks every event: order, exactly one kClosed, nothing after it, kSent only for a send in flight.
class CheckedBackend {
 public:
  struct Conn {
    bool open = false;
    bool sending = false;  // kPending or kBlocked until kSent or kWritable
    bool blocked = false;
    bool failed = false;  // only kData and kClosed may follow
    uint64_t data_turn = 0;
    size_t received = 0;
    std::string bytes;     // kept when `keep` is on
    uint64_t offered = 0;  // bytes of the send in flight
  };

  explicit CheckedBackend(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}

  Backend& operator*() { return *backend_; }
  Backend* operator->() { return backend_.get(); }
  Conn& conn(ConnId id) { return conns_[id]; }
  size_t open_conns() const { return open_; }

  std::function<void(const Event&)> on_event;  // after the checks; kData is released when it returns, unless hold_data
  bool hold_data = false;
  bool keep = true;
  int64_t gather_ns = 0;       // after two of three turns that brought something
  int64_t park_ns = 10 * kMs;  // at most this long per park(), since the peers live on the same thread
  std::vector<ConnId> accepted, dialed, closed;
  std::vector<int> closed_errors;
  std::vector<Event> dial_failed;
  std::vector<Event> held;
  size_t last_bytes = 0;  // received by the last turn

  // acquire, look, flush
  size_t turn() {
    events_.clear();
    ++turns_;
    backend_->acquire(events_);
    last_bytes = 0;
    for (const Event& event : events_) check(event);
    backend_->flush();
    if (gather_ns > 0 && !events_.empty() && turns_ % 3 != 0) backend_->gather(gather_ns);
    return events_.size();
  }

  // Turns and parks until `done`; false if it never is.
  bool run_until(const std::function<bool()>& done, int64_t patience_ns = kPatience) {
    const int64_t until = backend_->now_ns() + patience_ns;
    while (!done()) {
      if (backend_->now_ns() > until) return false;
      if (turn() == 0 && !done()) backend_->park(std::min(until, backend_->now_ns() + park_ns));
    }
    return true;
  }
  void run_for(int64_t ns) {
    const int64_t until = backend_->now_ns() + ns;
    while (backend_->now_ns() < until) {
      if (turn() == 0) backend_->park(std::min(until, backend_->now_ns() + park_ns));
    }
  }

  SendResult send(ConnId id, std::span<const iovec> iov) {
    Conn& conn = conns_[id];
    EXPECT_FALSE(conn.sending) << "test bug: one send at a time";
    const SendResult result = backend_->send(id, iov);
    conn.offered = 0;
    for (const iovec& piece : iov) conn.offered += piece.iov_len;
    switch (result.status) {
      case SendResult::Status::kDone:
        EXPECT_GT(result.bytes, 0u);
        EXPECT_LE(result.bytes, conn.offered);
        break;
      case SendResult::Status::kPending:
        conn.sending = true;
        break;
      case SendResult::Status::kBlocked:
        conn.sending = conn.blocked = true;
        break;
      case SendResult::Status::kFailed:
        EXPECT_LT(result.error, 0);
        conn.failed = true;
        break;
    }
    return result;
  }
  std::unique_ptr<core::CarriedConnection> give(ConnId id) {
    auto carried = backend_->give(id);
    if (carried != nullptr) {
      EXPECT_FALSE(conns_[id].sending);
      conns_[id].open = false;
      closed_turn_[id] = turns_;
      --open_;
    }
    return carried;
  }
  ConnId take(std::unique_ptr<core::CarriedConnection> carried) {
    const ConnId id = backend_->take(std::move(carried));
    Conn& conn = conns_[id];
    EXPECT_FALSE(conn.open) << "conn " << id << " given out twice";
    EXPECT_NE(closed_turn_[id], turns_) << "conn " << id << " reused within a turn";
    conn = Conn();
    conn.open = true;
    ++open_;
    return id;
  }
  SendResult send(ConnId id, std::string_view bytes) {
    const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    return send(id, {&piece, 1});
  }

 private:
  void check(const Event& event) {
    using Kind = Event::Kind;
    if (event.kind == Kind::kDialFailed) {
      EXPECT_LT(event.error, 0);
      EXPECT_EQ(event.conn, kNoConn);
      dial_failed.push_back(event);
      if (on_event) on_event(event);
      return;
    }
    ASSERT_NE(event.conn, kNoConn);
    Conn& conn = conns_[event.conn];
    if (event.kind == Kind::kAccepted || event.kind == Kind::kDialed) {
      EXPECT_FALSE(conn.open) << "conn " << event.conn << " given out twice";
      EXPECT_NE(closed_turn_[event.conn], turns_) << "conn " << event.conn << " reused within a turn";
      conn = Conn();
      conn.open = true;
      ++open_;
      (event.kind == Kind::kAccepted ? accepted : dialed).push_back(event.conn);
    } else {
      ASSERT_TRUE(conn.open) << "event " << static_cast<int>(event.kind) << " of a connection that is not open";
    }
    switch (event.kind) {
      case Kind::kData:
        ASSERT_GT(event.size, 0u);
        conn.data_turn = turns_;
        conn.received += event.size;
        last_bytes += event.size;
        if (keep) conn.bytes.append(event.data, event.size);
        break;
      case Kind::kSent:
        EXPECT_TRUE(conn.sending && !conn.blocked) << "kSent without a send in flight";
        conn.sending = false;
        if (event.error == 0) {
          EXPECT_GT(event.size, 0u);
          EXPECT_LE(event.size, conn.offered);
        } else {
          conn.failed = true;
        }
        break;
      case Kind::kWritable:
        EXPECT_TRUE(conn.blocked) << "kWritable without kBlocked";
        conn.blocked = conn.sending = false;
        break;
      case Kind::kClosed:
        EXPECT_LE(event.error, 0);
        EXPECT_NE(conn.data_turn, turns_) << "kClosed in the acquire() of the last kData";
        conn.open = false;
        closed_turn_[event.conn] = turns_;
        --open_;
        closed.push_back(event.conn);
        closed_errors.push_back(event.error);
        break;
      default:
        break;
    }
    if (on_event) on_event(event);
    if (event.kind != Kind::kData) return;
    if (hold_data) {
      held.push_back(event);
    } else {
      backend_->release(event);
    }
  }

  std::unique_ptr<Backend> backend_;
  std::map<ConnId, Conn> conns_;
  std::map<ConnId, uint64_t> closed_turn_;
  std::vector<Event> events_;
  uint64_t turns_ = 0;
  size_t open_ = 0;
};

// A kernel socket connected to 127.0.0.1 or ::1, non-blocking once connected.
inline Fd connect_to(int port, const char* host = "127.0.0.1") {
  const auto address = SocketAddress::parse({host, static_cast<uint16_t>(port)});
  Fd fd(socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(fd.get(), address->data(), address->size()) != 0) return Fd();
  set_nonblocking(fd.get());
  return fd;
}

// What can be read now, appended; false at end of stream or error.
inline bool read_some(int fd, std::string& into, size_t at_most = 1 << 20) {
  std::string chunk(at_most, 0);
  const ssize_t n = recv(fd, chunk.data(), chunk.size(), MSG_DONTWAIT);
  if (n > 0) into.append(chunk.data(), static_cast<size_t>(n));
  return n > 0 || (n < 0 && errno == EAGAIN);
}

inline size_t write_some(int fd, std::string_view bytes) {
  const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  return n > 0 ? static_cast<size_t>(n) : 0;
}

}  // namespace peregrine::net::testing
