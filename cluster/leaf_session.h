// One leafnode connection: handshake, interest told and taken, messages both ways.
//
// Owned by its shard, on its thread. Two things are told apart: who made the connection (the solicitor has a
// LeafRemote) and who is the hub of it (normally the acceptor; `hub: true` of a remote swaps that). The role decides
// what is told and where messages go (core/interest.h): what our hub wants is kHubs, what our leafnodes want is kLeafs.
//
//   acceptor: INFO ... CONNECT -> INFO {connect_info}, LS+ ...        compression, if both want it, is settled between
//   solicitor: INFO -> CONNECT, INFO {connect_info} -> LS+ ...        the first INFO and CONNECT by one INFO each
//
// TLS, if either side wants it, begins behind the acceptor's first INFO, which is in clear; with handshake_first on
// both sides before it.
//
// All remote connections of one cluster are one origin: nothing that came from it, messages and interest alike, goes
// back to any of them. A loop shows when our own loop subject comes back as interest. Violations of what the hub's
// configuration allows close the connection there; a spoke knows its permissions (INFO import and export) and keeps to
// them. Source: nats-server's server/leafnode.go; parity.md section 7.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "cluster/compression.h"
#include "cluster/leaf_connect.h"
#include "cluster/leaf_nodes.h"
#include "cluster/leaf_permissions.h"
#include "cluster/peer_link.h"
#include "core/hash.h"
#include "core/interest.h"

namespace peregrine::cluster {

class LeafRemote;

class LeafSession final : public PeerLink, public core::InterestListener {
 public:
  // `remote`: null for a connection that was accepted.
  LeafSession(LeafNodes& nodes, core::Shard& shard, net::Opened opened, LeafRemote* remote);
  ~LeafSession() override;

  void start();
  // INFO because something has changed; `line` with its CRLF.
  void announce(const std::string& line);

  bool up() const { return stage_ == Stage::kUp; }
  bool spoke() const { return spoke_; }
  bool isolated() const { return isolated_; }
  const std::string& compression_mode() const { return compression_; }
  void describe(core::ConnRow& row, bool subs) const override;

  // --- Session: messages out ---
  bool accepts(const core::Message& message, const core::Subscription& sub) override;
  void message_line(std::string& to, const core::Account& account, const core::Message& message,
                    const core::PeerTarget& target) override;

  // --- InterestListener: what we want, told to the other side ---
  core::SideSet listens_to() const override { return core::kAllSides; }
  bool listens_to(const core::Account& account) const override { return &account == this->account; }
  void interest_changed(core::Account& account, core::Side side, std::string_view subject, std::string_view queue,
                        core::OriginId origin) override;
  bool ready_for_replay() const override;

 protected:
  void on_operation(const PeerOperation& operation) override;
  bool continues_run(const PeerOperation& operation) override {
    return adds_to_run(operation, PeerVerb::kLeafMessage, 1);
  }
  void on_secured() override;
  void on_wrong_name() override;
  void on_error(std::string_view text) override;
  void on_pong() override;
  bool is_stranger() const override { return stage_ == Stage::kAwaitConnect; }
  void on_going() override;
  std::string_view error_word() const override { return "Leafnode"; }

 private:
  enum class Stage : uint8_t { kAwaitInfo, kAwaitConnect, kAuthenticating, kAwaitConnectInfo, kUp };

  bool accepted() const { return remote_ == nullptr; }
  core::Side side() const { return spoke_ ? core::Side::kHubs : core::Side::kLeafs; }
  void arm_stage_timer(int64_t in_ns);
  void on_stage_timeout();

  // --- handshake ---
  PeerInfo own_info() const;
  void wait_for_info();
  void greet();
  std::string info_line(const PeerInfo& info) const;
  void send_info(const PeerInfo& info);
  void on_info(std::string_view json);
  void on_first_info(const PeerInfo& info);
  void on_connect_info(const PeerInfo& info);
  void use_permissions(const PeerInfo& info);
  // Settles compression; true if the connection was switched to it.
  bool negotiate(std::string_view theirs);
  std::string_view wanted_compression() const;
  std::string_view auto_compression(int64_t rtt_ns) const;
  void send_connect();
  void on_connect(std::string_view json);
  void on_authenticated(const core::Identity& identity);
  void refuse_credentials();
  void refuse(std::string_view text, core::CloseReason reason);
  void come_up();
  void deny_jetstream();

  // --- traffic ---
  void on_message(const PeerOperation& operation);
  void on_sub(const PeerOperation& operation);
  void on_unsub(const PeerOperation& operation);
  void on_loop(bool tell);
  void permission_violation(std::string_view what, std::string_view subject);
  void tell(std::string_view subject, std::string_view queue, uint32_t weight);
  uint64_t told_key(std::string_view subject, std::string_view queue) const {
    return queue.empty() ? told_hash_(subject) : told_hash_(subject) * 3 + told_hash_(queue, 1);
  }

  LeafNodes& nodes_;
  LeafRemote* const remote_;
  Stage stage_;
  bool spoke_;
  bool isolated_;
  bool compression_settled_ = false;
  bool registered_ = false;
  bool greeted_ = false;                  // accepted: the first INFO is out
  std::unique_ptr<PeerInfo> first_info_;  // solicited, while the handshake that it asked for goes on
  LeafConnect connect_;                   // what the solicitor said; ours if we are it
  std::string nonce_;
  std::string remote_cluster_;  // and its id, kNoOrigin without one
  core::OriginId origin_ = core::kNoOrigin;
  std::string compression_;
  CompressionFilter* s2_ = nullptr;  // the session's filter, once there is one
  LeafPermissions allowed_;
  std::string loop_subject_;
  core::ToldInterest told_;
  const core::KeyedHash told_hash_;
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  // Plain subjects that are told as long as the connection lives: the loop subject, sources of mappings.
  std::unordered_set<std::string, TextHash, std::equal_to<>> always_;
  core::Timer stage_timer_;
};

}  // namespace peregrine::cluster
