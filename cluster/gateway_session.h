// One gateway connection, in one of its two roles.
//
// Owned by its shard, like any session. Messages travel one way, interest the other:
//   outbound  we dialled: the peer tells us what its cluster wants (RS+ and RS-, into side kGateways), we send
//   messages.
//             All outbound connections live on shard 0, so that a queue group's message can be given to the nearest
//             cluster: only one shard has to know all distances. Other shards reach them by the ring, as any peer.
//   inbound   we accepted: we tell the peer what our cluster wants, clients, leafnodes and routes together, and take
//             messages for them.
// Interest modes: since nats-server 2.9 both sides announce interest-only mode (gateway_iom), every account is switched
// at once (gateway_cmd 2, RS+ ..., 3), and a peer that knows nothing of an account takes it for not interested. Inbound
// we do that whatever the peer announces: older ones understand the commands, too. Outbound to an older peer is
// optimistic until that peer switches an account itself: everything is sent (a subscription to all, with an origin of
// its own), but for subjects it has answered with RS- and accounts it has answered with A-. It switches after 1000 RS-,
// or when a leafnode of ours connects, whom a guess would mislead.
//
// Mapped replies (core/gateway_reply.h): outbound writes the way back into the reply of a request whose inbox is young;
// inbound takes such a subject apart, delivers it, or passes it on to the server of the cluster that it names.
// Source: nats-server's server/gateway.go; parity.md section 6.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "cluster/gateway_settings.h"
#include "cluster/peer_info.h"
#include "cluster/peer_link.h"
#include "core/interest.h"
#include "core/snapshot.h"

namespace peregrine::cluster {

class Gateways;

enum class InterestMode : uint8_t { kOptimistic, kTransitioning, kInterestOnly };
std::string_view text(InterestMode mode);

class GatewaySession final : public PeerLink, private core::InterestListener {
 public:
  GatewaySession(core::Shard& shard, Gateways& gateways, net::Opened opened);                 // inbound
  GatewaySession(core::Shard& shard, Gateways& gateways, net::Opened opened, std::string to,  // outbound
                 config::Url url);

  void start();
  bool outbound() const { return outbound_; }
  const std::string& gateway_name() const { return name_; }
  void say(std::string_view line) { send_line(line); }
  // Outbound: a leafnode of this account is connected to us. A peer in optimistic mode is asked to tell all interest.
  void leafnode_connected(const std::string& account);

  bool describe(core::GatewayRow& row, const core::GatewayzQuery& query) const override;
  using PeerLink::describe;

 private:
  // PeerLink
  void on_secured() override;
  void on_wrong_name() override;
  void on_operation(const PeerOperation& operation) override;
  bool continues_run(const PeerOperation& operation) override {
    return adds_to_run(operation, PeerVerb::kRoutedMessage, 2);
  }
  void on_pong() override;
  bool is_stranger() const override { return !outbound_ && !connected_; }
  void on_going() override;
  std::string_view error_word() const override { return "Gateway"; }
  const std::string& closing_name() const override { return server_name_.empty() ? remote_name_ : server_name_; }

  // Session: messages out
  bool accepts(const core::Message& message, const core::Subscription& sub) override;
  void message_line(std::string& line, const core::Account& account, const core::Message& message,
                    const core::PeerTarget& target) override;

  // InterestListener: our cluster's interest out
  core::SideSet listens_to() const override;
  bool listens_to(const core::Account& account) const override;
  void interest_changed(core::Account& account, core::Side side, std::string_view subject, std::string_view queue,
                        core::OriginId origin) override;
  bool ready_for_replay() const override;
  void replay_done() override;

  void on_info(std::string_view json);
  void on_outbound_info(const PeerInfo& info, bool first);
  void on_inbound_info(const PeerInfo& info);
  void on_connect(std::string_view json);
  void accepted(const PeerConnect& connect);
  void on_command(const PeerInfo& info);
  void on_sub(const PeerOperation& operation);
  void on_unsub(const PeerOperation& operation);
  void on_message(const PeerOperation& operation);
  void on_account_wanted(std::string_view name, bool wanted);
  void answer_no_account(std::string_view name);
  void guess(core::Account& account);
  void stop_guessing(core::Account& account);
  bool optimistic(const core::Account& account) const;
  void announce_account(const std::string& account, int command);
  void note_mode(const std::string& account, int64_t command);
  void refuse_interest(std::string_view verb);
  core::Account* find_account(std::string_view name);
  bool reply_needs_a_way_back(const core::Account& account, std::string_view reply) const;

  static constexpr size_t kReplayPending = 1024 * 1024;  // bytes that wait before the replay of our interest pauses
  static constexpr size_t kMostAccounts = 1024;          // whose modes are remembered
  static constexpr size_t kMostUnwanted = 1 << 16;       // RS- of one account remembered; nats-server sends 1000

  Gateways& gateways_;
  const bool outbound_;
  std::string name_;         // of the peer's cluster
  std::string server_name_;  // its own
  config::Url url_;          // outbound: what was dialled
  bool connected_ = false;
  bool info_received_ = false;
  bool registered_ = false;
  bool old_prefix_ = false;  // the peer knows only $GR.
  bool replayed_ = false;
  bool interest_only_ = true;  // outbound: the peer says all it wants, from the start

  core::ToldInterest told_;
  std::map<std::string, InterestMode, std::less<>> modes_;  // by account: what we announced, or were
  // Outbound, of an account the peer has not switched.
  struct Guess {
    core::Subscription* everything = nullptr;  // null after A-
    std::unordered_set<std::string> unwanted;  // after RS-
  };
  std::map<uint32_t, Guess> guesses_;  // by account number
};

// A message of a peer whose subject is a mapped reply (is_gateway_reply): taken apart, delivered here or passed on
// towards the server it names. `from` is a gateway or route session; true if anybody took it.
bool deliver_gateway_reply(const GatewaySettings& settings, core::Session& from, core::Account& account,
                           core::Message message);

}  // namespace peregrine::cluster
