// One connection to another server of the cluster: handshake, interest both ways, messages both ways.
//
// Owned by its shard, like any session. Life: CONNECT and INFO are exchanged (who speaks first depends on who dialled,
// on pooling and on compression; parity.md 5.1-02 and 5.7-03), then the mesh is asked to register the connection, and
// only when it has answered does the session read on: it knows then which accounts it carries. From there it listens to
// the shard's replica of the interest of clients and leafnodes and tells the peer (RS+ and RS-, LS+ and LS- for
// leafnodes), puts the peer's interest into the index (sides kRoutes and kRoutedLeafs), and passes messages on.
//
// One hop: what comes from a route goes to clients and leafnodes only, and no route is told of another's interest;
// core/interest.h sees to both. Source: nats-server's server/route.go; parity.md section 5.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cluster/compression.h"
#include "cluster/peer_info.h"
#include "cluster/peer_link.h"
#include "core/interest.h"

namespace peregrine::cluster {

class Mesh;

// How a connection came to be, and so who dials again when it goes.
struct RouteOrigin {
  bool solicited = false;   // we dialled
  bool configured = false;  // its URL stands in cluster.routes; else gossip told us, or the other side dialled
  bool retry = false;       // a duplicate was closed in its favour: dial again whatever else is said here
  bool once = false;        // to fill a gap: refused before it was registered, it is not dialled again
  config::Url url;
  std::string account;  // it is that account's own route
  int64_t gossip_mode = 0;
};

class RouteSession final : public PeerLink, private core::InterestListener {
 public:
  RouteSession(core::Shard& shard, Mesh& mesh, net::Opened opened, RouteOrigin origin);

  void start();

  // --- answers of the mesh, on this shard's thread ---
  struct Registration {
    int pool_index = 0;  // -1: an account's own route
    bool no_pool = false;
    bool grow = false;  // dial the pool's next connection when a PONG has shown that this one is good
  };
  void registered(const Registration& registration);
  void refused(core::CloseReason reason, const std::string& error, bool no_reconnect);
  void name_judged(bool accepted);
  void set_origin(bool solicited, bool configured);
  // That account gets a route of its own at the peer's wish: nothing of it on this one any more.
  void give_up_account(const std::string& account);
  void say(std::string_view line) { send_line(line); }

  bool is_registered() const { return registered_; }
  bool describe(core::RouteRow& row, bool subs) const override;

 private:
  // PeerLink
  void on_secured() override;
  void on_wrong_name() override;
  void on_operation(const PeerOperation& operation) override;
  bool continues_run(const PeerOperation& operation) override;
  void on_pong() override;
  void on_going() override;
  std::string_view error_word() const override { return "Route"; }

  // Session: messages out
  bool accepts(const core::Message& message, const core::Subscription& sub) override;
  void message_line(std::string& line, const core::Account& account, const core::Message& message,
                    const core::PeerTarget& target) override;

  // InterestListener: our interest out
  core::SideSet listens_to() const override;
  bool listens_to(const core::Account& account) const override;
  void interest_changed(core::Account& account, core::Side side, std::string_view subject, std::string_view queue,
                        core::OriginId origin) override;
  bool ready_for_replay() const override;
  void replay_done() override { telling_again_ = false; }

  // --- handshake
  void send_connect();
  void send_info(std::string_view mode, int pool_index);
  void on_connect(std::string_view json);
  void check_password(const PeerConnect& connect);
  void connect_accepted(const PeerConnect& connect);
  void finish_connect();
  void on_info(std::string_view json);
  void on_first_info();
  bool agree_on_compression();
  void on_later_info(PeerInfo info);
  void ask_to_register();

  // --- interest and messages in
  void on_sub(const PeerOperation& operation, bool leaf);
  void on_unsub(const PeerOperation& operation, bool leaf);
  void on_message(const PeerOperation& operation);
  // The account a line speaks of, null if this server has none of that name.
  core::Account* find_account(std::string_view name);
  bool carries(std::string_view account) const;
  // Of the leafnode cluster somebody there stands for; its name is kept for /routez.
  core::OriginId origin_of(std::string_view cluster);
  void tell(const core::Account& account, std::string_view verb, std::string_view origin, std::string_view subject,
            std::string_view queue, uint32_t weight);

  static constexpr size_t kReplayPending = 1024 * 1024;  // bytes that wait before the replay of our interest pauses

  Mesh& mesh_;
  RouteOrigin origin_;
  std::string dialled_;  // with TLS: the host
  PeerInfo remote_;
  std::string remote_id_;
  bool connected_ = false;      // CONNECT was accepted, or we are the side that sends it
  bool info_received_ = false;  // the first one; what comes later are updates
  bool registered_ = false;
  bool no_reconnect_ = false;
  bool negotiated_ = false;
  bool grow_ = false;
  bool no_pool_ = false;
  int pool_index_ = -1;
  bool lnoc_ = false, lnocu_ = false;
  std::string compression_;
  CompressionFilter* s2_ = nullptr;
  std::unique_ptr<PeerConnect> pending_connect_;  // while the mesh judges its cluster name
  bool pending_info_ = false;

  std::vector<std::string> given_up_;
  core::ToldInterest told_;
  bool telling_again_ = false;           // also what told_ says it knows
  mutable std::vector<int8_t> carried_;  // by account number: 0 unknown, 1 yes, -1 no
  std::unordered_map<core::OriginId, std::string> origins_;
  core::OriginId last_origin_ = core::kNoOrigin;
  std::string account_name_;                   // of the last line
  core::Account* account_ = nullptr;           // and what it stands for
  std::vector<std::string> unknown_accounts_;  // said in the log already
};

}  // namespace peregrine::cluster
