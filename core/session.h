// Our end of any connection: what a client, and later a route, a gateway and a leafnode, have in common.
//
// Belongs to one shard from accept to close; only that shard's thread touches it. Sans-I/O: bytes come in by feed(),
// leave by the outbox; the reactor moves them (net/reactor.h). A session never closes itself in the middle of
// something: close() marks it, the shard takes it apart at the end of the turn, the reactor sends what is left (an
// -ERR, say) and closes the connection. Lifetime: made by Shard::open_client; destroyed when the backend has let go of
// the connection (gone) and its subscriptions are withdrawn (detached), whichever comes last.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/filter.h"
#include "core/interest.h"
#include "core/outbox.h"
#include "core/permissions.h"
#include "core/placement.h"
#include "core/protocol.h"
#include "core/snapshot.h"
#include "core/timer_wheel.h"

namespace peregrine::core {

class Account;
class Shard;
class Subscription;
struct Message;
struct PeerTarget;

// Reasons not to read from a connection now; reading goes on when none is left.
enum Hold : uint8_t {
  kHoldStalled = 1,  // it feeds a subscriber that can not keep up
  kHoldAuth = 2,     // its credentials are being compared on a worker
  kHoldRing = 4,     // records it caused wait in an overflow list (design.md section 4, rule 2)
  kHoldPaced = 8,    // it feeds a subscriber that is busy taking what it has (Shard::pace)
  kHoldPeer = 16,    // a peer: an answer is awaited
  kHoldTurn = 32,    // it has sent more changes of the index than one turn has time for (Shard::wait_for_turn)
  kHoldMoving = 64,  // it changes shards (placement.h)
};

class Session {
 public:
  Session(Shard& shard, SessionKind kind, uint64_t cid, uint32_t conn, std::string ip, uint16_t port);
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Bytes from the network. The view is only good during the call.
  virtual void feed(std::string_view bytes) = 0;
  // Its turn has come (kHoldTurn): goes on with the input it has kept.
  virtual void take_up() {}
  // The session's timer has fired: does what is due and arms it again.
  virtual void on_timer() = 0;
  virtual void arm_timer() = 0;
  // Takes a slice of the session apart after close(): at most so many subscriptions. True when nothing is left.
  virtual bool detach_slice(size_t most) = 0;
  // The row of /connz; `row.subs` only if `subs`.
  virtual void describe(ConnRow& row, bool subs) const = 0;
  virtual size_t subscription_count() const = 0;

  // `sub` is about to be destroyed: the session's own tables forget it.
  virtual void forget(Subscription& sub) = 0;

  // Clients: they were shown the plain form of this mapped reply (gateway_reply.h).
  virtual void remember_reply(std::string_view) {}

  // --- peers only (kind != kClient) ---
  // May this message go to the peer for this interest? Delivery has seen to the rules of interest.h already.
  virtual bool accepts(const Message&, const Subscription&) { return true; }
  // Appends the control line of a message, CRLF included; the payload follows (without its header block unless
  // `headers`).
  virtual void message_line(std::string&, const Account&, const Message&, const PeerTarget&) {}

  // Marks the session for closing; the first reason stays. `abort`: what is pending is thrown away.
  void close(CloseReason reason, bool abort = false);
  bool closing() const { return close_reason_ != CloseReason::kNone; }
  CloseReason close_reason() const { return close_reason_; }
  bool abort() const { return abort_; }
  bool gone() const { return gone_; }  // the backend has let go of the connection

  void send(std::string_view bytes);
  // "-ERR '<text>'\r\n"
  void send_error(std::string_view text);

  // From here on `filter` stands between this session and its connection, or the filter that it has (filter.h).
  void set_filter(std::unique_ptr<Filter> filter);
  Filter* filter() const { return filter_.get(); }
  // What the connection is offered, and what is left to send in all.
  Outbox& wire() { return filter_ == nullptr ? outbox : filter_->wire; }
  bool nothing_to_send() const { return outbox.empty() && (filter_ == nullptr || filter_->wire.empty()); }

  // Output waits for the network since now, unless it did already: the write deadline counts.
  void output_waits();
  void output_moved() { blocked_since_ns = 0; }

  void hold(Hold why);
  void unhold(Hold why);
  bool held() const { return holds_ != 0; }
  bool held_by(Hold why) const { return (holds_ & why) != 0; }
  bool held_only_by(Hold why) const { return holds_ == why; }

  // The "<ip>:<port> - cid:<n>" of log lines, and behind it who the peer says it is.
  virtual std::string label() const;
  const std::string& ip() const { return ip_; }
  uint16_t port() const { return port_; }

  // --- read by delivery for every message ---
  Shard& shard;
  const uint64_t cid;
  const SessionKind kind;
  bool echo = true;
  bool headers = false;
  bool dirty = false;  // in the shard's list of sessions to flush
  bool no_responders = false;
  Outbox outbox;
  Account* account = nullptr;                    // null until authenticated
  std::unique_ptr<PermissionState> permissions;  // null = everything
  Traffic traffic;                               // in: from the peer
  uint64_t stalls = 0;
  uint64_t target_serial = 0;  // peers: the last message it is a target of; clients: the last run that dealt to it,
  uint32_t target_index = 0;   // and which one (delivery.h, deal.h)
  int64_t peer_rtt_ns = 0;     // gateways: the nearest is asked first; 0 = not measured yet
  std::unique_ptr<Heading> heading;  // Placement's; publishers whose messages cross

  // --- the reactor's ---
  const uint32_t conn;           // the backend's name for the connection
  bool sending = false;          // a send is in flight or blocked: do not offer more
  bool reading = true;           // what the backend was told last
  bool close_told = false;       // the backend was told to close
  int64_t blocked_since_ns = 0;  // output has been waiting since, without progress; 0 = not waiting

 protected:
  Timer timer_;
  int64_t start_wall_ns_;
  int64_t start_ns_;
  int64_t last_activity_ns_;

 private:
  friend class Shard;
  std::string ip_;
  uint16_t port_;
  uint8_t holds_ = 0;
  CloseReason close_reason_ = CloseReason::kNone;
  std::unique_ptr<Filter> filter_;
  bool abort_ = false;
  bool gone_ = false;
  std::unique_ptr<std::vector<SubRow>> last_subs_;  // when it closed; for /connz?state=closed
  bool detached_ = false;                           // nothing of it is left in the index
  size_t table_index_ = 0;                          // place in Shard::sessions_
};

}  // namespace peregrine::core
