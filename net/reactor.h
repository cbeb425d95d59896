// The loop of one core: poll, think, flush. Start reading here.
//
// A message, from NIC to subscriber: backend.acquire() collects received bytes -> shard.drain_rings() brings interest
// and messages of the other shards up to date -> session.feed() parses, matches and delivers into outboxes and rings ->
// shard.end_turn() publishes the rings -> flush() offers each dirty session's outbox to the backend, once ->
// backend.flush(), one system call. The order is the proof of design.md section 4; do not rearrange it.
//
// Owns the backend and maps its connections to sessions. One thread runs it, pinned if main says so. Idle: after work
// the loop spins for up to spin_ns if that has paid lately, then parks in the backend until bytes, a wake-up or the
// next timer; an idle broker costs nothing. Whoever else wants the core gets it between two looks: it may be the client
// that is waited for. Flooded with small writes, the loop lets input gather between turns (pacer.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/options.h"
#include "core/shard.h"
#include "net/backend.h"
#include "net/lull.h"
#include "net/pacer.h"
#include "net/spin_judge.h"

namespace peregrine::net {

namespace tls {
class Clients;
}

// Of a connection that has just been accepted or dialled.
struct Opened {
  ConnId conn;
  std::string ip;  // the remote end
  uint16_t port;
};

// Makes the session of a new connection and hands it to the shard (Shard::adopt). Null: not wanted, it is cut.
using OpenSession = std::function<core::Session*(core::Shard&, Opened)>;
// The same for one that was dialled; `error` (positive errno, 0 = connected) says why it failed: then the answer must
// be null.
using OnDialed = std::function<core::Session*(core::Shard&, Opened, int error)>;

class Reactor final : public core::Carrier {
 public:
  // `wall_clock` gives nanoseconds since the Unix epoch (a simulation gives its own).
  Reactor(core::Shard& shard, std::unique_ptr<Backend> backend, config::Idle idle, int64_t spin_ns,
          std::function<int64_t()> wall_clock);
  ~Reactor() {
    shard_.pool().set_lender(nullptr);
    shard_.set_carrier(nullptr);
  }

  // Accepts connections from a listening socket, which it owns from now on. Call these on the reactor's thread.
  // Listener 0 is the clients' one.
  static constexpr uint32_t kClientListener = 0;
  int listen(int fd, uint32_t listener, OpenSession open);
  // `tls`: null = in clear; must outlive the reactor.
  int listen_for_clients(int fd, const tls::Clients* tls = nullptr);
  void stop_listening(uint32_t listener = kClientListener) { backend_->stop_listening(listener); }
  // Opens a connection to a numeric address; `then` is called exactly once, in a later turn.
  void dial(const Address& to, int64_t timeout_ns, OnDialed then);

  // One turn; true if it did anything.
  bool turn();
  // Turns and parks until stop().
  void run();
  void stop() {  // any thread
    stop_.store(true, std::memory_order_relaxed);
    shard_.wake();
    backend_->wake();
  }

  Backend& backend() { return *backend_; }
  core::Shard& shard() { return shard_; }

  bool can_carry() const override { return backend_->can_give(); }
  int64_t core_time_ns() const override { return backend_->core_time_ns(); }
  std::unique_ptr<core::CarriedConnection> give(core::Session& session) override;
  uint32_t take(std::unique_ptr<core::CarriedConnection> connection) override;
  void bind(core::Session& session) override;

 private:
  static constexpr int64_t kAcceptReportNs = 1'000'000'000;
  static constexpr size_t kSendEntries = 64;
  static constexpr size_t kMostReferred = 64 * 1024;  // of what a filter gathered: one payload in it would keep it all
  static constexpr size_t kSendBytes =
      512 * 1024;  // what one send may have in flight; about what stays in the L2 cache

  void on_event(const Event& event);
  void feed(core::Session& session, const Event& event);
  bool feed_in_place(core::Session& session, core::Filter& filter, const Event& event);
  void take(core::Session& session, const Event& event);
  void enter(const Event& event, const std::function<core::Session*(Opened)>& open);
  void make_room(ConnId conn);
  void report_accept_errors();
  void flush();
  void flush_session(core::Session& session);

  core::Shard& shard_;
  std::unique_ptr<Backend> backend_;
  const config::Idle idle_;
  const int64_t spin_ns_;
  SpinJudge spin_{spin_ns_}, crossing_spin_{spin_ns_};
  Pacer pacer_;
  Lull lull_;
  TurnInput input_;                          // of this turn
  const core::Session* last_fed_ = nullptr;  // in this turn
  std::function<int64_t()> wall_clock_;
  std::vector<core::Session*> by_conn_;
  std::vector<OpenSession> openers_;  // by listener
  std::unordered_map<uint64_t, OnDialed> dialing_;
  uint64_t next_dial_ = 1;
  std::vector<Event> events_;
  uint64_t accept_errors_told_ = 0;
  int64_t accept_report_ns_ = 0;
  std::vector<core::Session*> flushing_;
  std::string plain_;  // of a filter
  std::atomic<bool> stop_{false};
};

}  // namespace peregrine::net
