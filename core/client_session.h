// An end user's connection: CONNECT, PUB, HPUB, SUB, UNSUB, PING.
//
// Life: start() sends INFO; with authorization the first verb must be CONNECT within the auth timeout; from then on any
// verb. Every answer is what nats-server would send (texts in protocol.h); what closes a connection and with which
// reason follows parity.md sections 1.1 to 1.13. Source: nats-server's server/client.go and server/parser.go.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/auth.h"
#include "core/gateway_reply.h"
#include "core/parser.h"
#include "core/session.h"
#include "core/sid_table.h"

namespace peregrine::core {

// What a client is wherever it is: a change of shards takes it along as a whole (client_luggage.h). What belongs to a
// place (subscriptions, input that waits) is in the session itself.
struct ClientState {
  // Only if credentials are asked for.
  struct Login {
    std::string user;         // who it turned out to be
    Credentials credentials;  // a second CONNECT may leave out what the first one said
  };
  // What CONNECT said that is not needed per message.
  struct Connected {
    std::string name, lang, version;
    std::unique_ptr<Login> login;
  };

  Parser parser_;
  std::unique_ptr<Connected> connected_;
  std::unique_ptr<GatewayReplies> gateway_replies_;
  bool verbose_ = true;  // until CONNECT says otherwise
  bool pedantic_ = true;
  bool connect_received_ = false;
  bool authenticated_ = false;
  bool first_pong_sent_ = false;
  bool counted_ = false;  // in the account's connections
  uint8_t pings_out_ = 0;
  uint16_t info_serial_ = 0;  // of the INFO it was told last
  int protocol_ = 0;
  int64_t ping_due_ns_ = INT64_MAX;
  int64_t ping_sent_ns_ = 0;
  int64_t last_in_ns_ = 0;  // data or a PING: no need to ping soon
  int64_t rtt_ns_ = 0;
  int64_t rtt_at_ns_ = 0;
};

class ClientSession final : public Session, private ClientState {
 public:
  ClientSession(Shard& shard, uint64_t cid, uint32_t conn, std::string ip, uint16_t port);
  ~ClientSession() override;

  // --- changing shards (placement.h) ---
  struct Luggage;
  // Nobody addresses it, and it is in no state that belongs to this shard.
  bool can_move() const;
  // Everything of it. What remains is to be destroyed without a word.
  std::unique_ptr<Luggage> pack();
  // The same client on another shard, by another name of its connection; arrived() when it can be read from.
  ClientSession(Shard& shard, uint32_t conn, std::unique_ptr<Luggage> from);
  void arrived();

  void start();
  void feed(std::string_view bytes) override;
  void take_up() override;
  void on_timer() override;
  void arm_timer() override;
  bool detach_slice(size_t most) override;
  void describe(ConnRow& row, bool subs) const override;
  size_t subscription_count() const override { return sids_.size(); }
  std::string label() const override;
  void remember_reply(std::string_view mapped) override;

  void announce_info();
  // Nobody takes the request: a 503 on the requester's own subscription of the reply subject.
  void send_no_responders(std::string_view subject, std::string_view reply);
  void forget(Subscription& sub) override;
  template <class Visit>
  void for_each_subscription(Visit&& visit) const {
    sids_.for_each(pool(), visit);
  }
  const std::string& user() const;

 private:
  const SubscriptionPool& pool() const;  // where sids_ points to

  void on_connect(std::string_view json);
  void on_authenticated(Identity identity);
  std::string_view think(std::string_view in);
  void keep(std::string_view rest);
  bool may_run(const Operation& operation) const;
  ParseStatus publish_ahead(std::string_view& in, const ParserLimits& limits, Operation& operation);
  void on_pub(const Operation& operation);
  bool take_interest(std::string_view& in, const ParserLimits& limits, Operation& operation);
  bool may_subscribe(const Operation& operation);
  void on_sub(const Operation& operation);
  void on_unsub(const Operation& operation);
  void on_ping();
  void on_pong();
  void fail(ParseStatus status, const Operation& operation);
  void auth_violation(const Credentials& credentials);
  void permission_violation(std::string_view what, std::string_view subject, std::string_view queue,
                            std::string_view sid);
  void answer(std::string_view line);
  void refuse(std::string_view text);
  void trace_removal(const Subscription& sub) const;
  void trace_delsub(const Subscription& sub) const;
  void trace_unsub(const Operation& operation) const;
  void bind(Identity identity);
  ParserLimits limits() const;
  Connected& connected();
  Login& login();

  SidTable sids_;
  // Input that waits for the outcome of a bcrypt comparison, or for a turn with more time; from `at` on.
  struct Backlog {
    std::string bytes;
    size_t at = 0;
  };
  std::unique_ptr<Backlog> backlog_;

  bool suspended_ = false;  // a worker compares the password
  bool packed_ = false;     // it goes on elsewhere
};

}  // namespace peregrine::core
