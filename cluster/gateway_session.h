// One gateway connection, in one of its two roles.
//
// Owned by its shard, like any session. Messages travel one way, interest the other:
//   outbound  we dialled: the peer tells us what its cluster wants (RS+ and RS-, into side kGateways), we send
//   messages.
//             All outbound connections live on shard 0, so that a queue group's message can be given to the nearest
//             cluster: only one shard has to know all distances. Other shards reach them by the ring, as any peer.
//   inbound   we accepted: we tell the peer what our cluster wants, clients, leafnodes and routes together, and take
//             messages for them.
// Interest-only mode throughout: since nats-server 2.9 both sides announce it (gateway_iom), every account is switched
// at once, and a peer that knows nothing of an account takes it for not interested. A peer that does not announce it is
// told every account just the same, and of its own interest we believe only what it says.
//
// Mapped replies (core/gateway_reply.h): outbound writes the way back into the reply of a request whose inbox is young;
// inbound takes such a subject apart, delivers it, or passes it on to the server of the cluster that it names.
// Source: nats-server's server/gateway.go; parity.md section 6.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
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

  bool describe(core::GatewayRow& row, const core::GatewayzQuery& query) const override;
  using PeerLink::describe;

 private:
  // PeerLink
  void on_operation(const PeerOperation& operation) override;
  void on_pong() override;
  void on_going() override;
  std::string_view error_word() const override { return "Gateway"; }

  // Session: messages out
  void message_line(std::string& line, const core::Account& account, const core::Message& message,
                    const core::PeerTarget& target) override;

  // InterestListener: our cluster's interest out
  core::SideSet listens_to() const override;
  bool listens_to(const core::Account& account) const override;
  void interest_changed(core::Account& account, core::Side side, std::string_view subject,
                        std::string_view queue) override;
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
  void announce_account(const std::string& account, int command);
  core::Account* find_account(std::string_view name);
  bool reply_needs_a_way_back(const core::Account& account, std::string_view reply) const;

  static constexpr size_t kMostInterest = 1 << 24;       // of one peer
  static constexpr size_t kReplayPending = 1024 * 1024;  // bytes that wait before the replay of our interest pauses
  static constexpr size_t kMostAccounts = 1024;          // whose modes are remembered

  Gateways& gateways_;
  const bool outbound_;
  std::string name_;  // of the peer's cluster
  config::Url url_;   // outbound: what was dialled
  bool connected_ = false;
  bool info_received_ = false;
  bool registered_ = false;
  bool old_prefix_ = false;  // the peer knows only $GR.
  bool replayed_ = false;

  core::ToldInterest told_;
  std::map<std::string, InterestMode, std::less<>> modes_;  // by account: what we announced, or were
  std::vector<std::string_view> queues_;                    // of the message in hand
};

// A message of a peer whose subject is a mapped reply (is_gateway_reply): taken apart, delivered here or passed on
// towards the server it names. `from` is a gateway or route session; true if anybody took it.
bool deliver_gateway_reply(const GatewaySettings& settings, core::Session& from, core::Account& account,
                           core::Message message);

}  // namespace peregrine::cluster
