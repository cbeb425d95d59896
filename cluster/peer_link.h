// What routes, gateways and leafnodes do alike on their connection: the loop over operations, PING and staleness, the
// deadlines for credentials and for writing, waiting for an answer from elsewhere, and going with a reason.
//
// Owned by its shard, on its thread, like any session. A derived class says what operations mean (on_operation) and
// sets the clocks going when its protocol allows: until then no PING is sent. Two things stop the input for a while,
// both by not reading and keeping what was read already: wait_for_answer() (the mesh on another shard has to decide
// something), and a slice of interest being used up, because a peer may send a million RS+ at once and a turn must stay
// short. A connection that is to be TLS says nothing and hears nothing from start_tls() until on_secured().
// Source: nats-server's server/client.go; parity.md sections 1.6, 1.8, 5.6.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "cluster/peer_parser.h"
#include "core/peer_session.h"
#include "core/shard.h"
#include "net/reactor.h"
#include "net/tls/filter.h"

namespace peregrine::cluster {

// Of one kind of peer; 0 = not at all.
struct PeerClocks {
  int64_t ping_interval_ns = 0;
  int ping_max = 2;
  int64_t write_deadline_ns = 0;
  bool close_on_write_deadline = false;  // else it is counted and said, and the peer may catch up
  int64_t auth_timeout_ns = 0;           // for connected() to be called, counted from the start
};

class PeerLink : public core::PeerSession, private net::tls::Owner {
 public:
  PeerLink(core::Shard& shard, core::SessionKind kind, net::Opened opened, const PeerClocks& clocks);

  void feed(std::string_view bytes) final;
  void take_up() final;
  void on_timer() final;
  void arm_timer() final;
  std::string label() const override;
  void describe(core::ConnRow& row, bool subs) const override;

  // The answer is there: input goes on with what has waited.
  void go_on();
  // "-ERR '<text>'", the same in the log, closed.
  void fail(std::string_view text, core::CloseReason reason);

  int64_t rtt_ns() const { return rtt_ns_; }
  const std::string& remote_name() const { return remote_name_; }

 protected:
  // A message that may be one more of the run that is open: false if it is not.
  virtual bool continues_run(const PeerOperation&) { return false; }
  // PING, PONG and +OK do not come here. No run is open; a message may open one.
  virtual void on_operation(const PeerOperation& operation) = 0;
  // -ERR. As it stands: said in the log and closed.
  virtual void on_error(std::string_view text);
  virtual void on_pong() {}
  // We accepted, and the peer has not said who it is: what it says instead, complete or not, ends it.
  virtual bool is_stranger() const { return false; }
  // Called once when the session begins to go, before its interest is withdrawn.
  virtual void on_going() = 0;
  virtual std::string_view error_word() const = 0;  // "Route": "Route Error 'x'"
  // What the log calls the other side when the connection closes.
  virtual const std::string& closing_name() const { return remote_name_; }

  void on_detach() final;

  // --- TLS ---
  // The handshake begins, what is in the outbox leaves in clear. `server`: whose certificate we expect, if it was us
  // who dialled, else empty. The deadline for credentials counts from its end.
  void start_tls(std::shared_ptr<const net::tls::Context> context, std::string server);
  virtual void on_secured() {}
  // The certificate is good, but not for the name we dialled by.
  virtual void on_wrong_name() {}
  bool secured() const { return tls_ != nullptr && tls_->established(); }
  // Whether the certificate it has shown is for the host of one of these URLs (verify_cert_and_check_known_urls).
  bool shows_certificate_of(const std::vector<config::Url>& urls) const;
  // The peer has not even begun with its part of the handshake.
  bool tls_untouched() const { return tls_ != nullptr && tls_->untouched(); }
  void mark_tls_first() { tls_->mark_first(); }
  // In front of a handshake that nobody has begun.
  void send_in_clear(std::string_view line);

  // --- the clocks ---
  // Until start_pings(): closed as stale after ping_interval x (ping_max + 1) of handshake.
  void watch_handshake();
  void start_pings();
  void ping_now();
  void credentials_accepted();  // the auth timeout is off
  bool authenticated() const { return auth_deadline_ns_ == INT64_MAX; }

  // --- the input ---
  // Stops until go_on().
  void wait_for_answer();
  bool waiting() const { return held_by(core::kHoldPeer) || held_by(core::kHoldTurn); }
  // An operation that changes the index has been done; after enough of them the rest waits for another turn.
  void count_interest() { enough_interest_ = shard.count_index_change(); }
  // What follows in the input is for `filter` to decode, and what is sent from now on for it to encode.
  void switch_to(std::unique_ptr<core::Filter> filter);

  void send_line(std::string_view line);  // with its CRLF; traced
  void trace_in(const PeerOperation& operation);

  // Of the message in hand: its line and payload lie in one piece in what was received, and what follows there begins
  // with the first `alike` bytes of the line again.
  bool lies_whole(const PeerOperation& operation) const;
  bool repeats(const PeerOperation& operation, size_t alike) const;
  const char* line_of(const PeerOperation& operation) const { return operation.text.data() - kMessageVerb; }
  static constexpr size_t kMessageVerb = 5;  // "RMSG "
  // From the verb on, as far as the line is known.
  static std::string input_of(const PeerOperation& operation);

  // A message without reply, queue groups and headers: if more like it follow, they are delivered together, and it is
  // the first of them (core/run.h). `sides`: of a leafnode, where its messages may go.
  bool opens_run(const PeerOperation& operation, core::Account& account, std::string_view subject,
                 core::SideSet sides = core::kClientsOnly);
  // One more of them, if it is such a message: of that verb, and of so many tokens, the last of which is the subject.
  bool adds_to_run(const PeerOperation& operation, PeerVerb verb, size_t tokens);

  // One more subscription in that account. False: it has too many, and was cut off.
  bool may_want_more(const core::Account& account);

  // Of a message between servers, what stands behind its subject: nothing, "reply", "+ reply queue...", "| queue...".
  // False: none of these.
  static bool read_receivers(std::span<const std::string_view> tokens, core::Message& message);

  void protocol_violation(std::string_view what);  // said in the log and closed, without -ERR
  void unknown_operation(std::string_view input);  // which begins with it; said in the log and to the peer, closed
  void auth_violation(std::string_view user);      // likewise
  void log_error_of_peer(std::string_view text);

  std::string remote_name_;
  PeerParser::Limits limits_;
  bool awaits_connect_ = false;  // whatever else comes first, be it a PING, is not even looked at

 private:
  void tls_established() final;
  void tls_failed(const net::tls::Failure& failure) final;
  void tls_ended() final;

  std::string_view work_on(std::string_view in);
  std::string_view think(std::string_view in);
  void parse_failed(PeerStatus status, std::string_view rest);
  void on_ping_due(int64_t now);

  const PeerClocks clocks_;
  PeerParser parser_;
  std::string backlog_;    // input that waits,
  size_t backlog_at_ = 0;  // from here on
  std::string decoded_;    // what came in one piece with the switch to a filter
  std::string_view rest_;  // of the input being worked on, behind the operation in hand
  bool enough_interest_ = false;
  bool thinking_ = false;
  core::Filter* switched_ = nullptr;  // since the operation in hand
  net::tls::Filter* tls_ = nullptr;
  uint32_t singly_ = 0;  // messages before the next try at a run
  bool slow_ = false;    // a slow consumer, already said
  uint8_t pings_out_ = 0;
  int64_t ping_due_ns_ = INT64_MAX;
  int64_t ping_sent_ns_ = 0;
  int64_t rtt_ns_ = 0;
  int64_t auth_deadline_ns_ = INT64_MAX;
  int64_t handshake_deadline_ns_ = INT64_MAX;
  int64_t tls_deadline_ns_ = INT64_MAX;
  int64_t ended_ns_ = INT64_MAX;  // the peer has ended TLS
};

}  // namespace peregrine::cluster
