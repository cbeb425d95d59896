// The other clusters: which there are, whom to dial there and when again, and what our own cluster is told of them.
//
// Like the mesh (mesh.h): the state lives on shard 0's thread ("home"), sessions of other shards post to it; what they
// read without asking is immutable (settings) or copied under a lock that is taken once per handshake (INFO). Exactly
// one outbound connection per other cluster; inbound ones are as many as the others wish.
//
// Discovery: clusters are configured, or named by an inbound connection, by gossip of a peer, or by a member of our own
// cluster; the latter three are implicit and given up after connect_retries. Configured ones are tried for ever, and
// not before kSolicitDelayNs, so that our cluster can form and show all its URLs first. Lifetime: as the mesh's.
// Source: nats-server's server/gateway.go; parity.md sections 6.1, 6.2, 6.5.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/dialer.h"
#include "cluster/gateway_session.h"
#include "cluster/gateway_settings.h"
#include "core/server.h"
#include "core/timer_wheel.h"
#include "net/reactor.h"

namespace peregrine::cluster {

struct GatewayPlan {
  std::string host;  // as others reach us
  int port = 0;
  PeerTls tls;
};

class Gateways {
 public:
  static constexpr int64_t kSolicitDelayNs = 1'000'000'000;

  Gateways(core::Server& server, Dialer& dialer, GatewayPlan plan, uint64_t seed);

  void start();
  void stop();
  // Makes sessions of accepted connections; any shard.
  net::OpenSession opener();

  // --- the cluster's side, on shard 0's thread
  // Set before start(): says an INFO line to every other server of this cluster.
  std::function<void(const std::string&)> tell_routes;
  // What a server that joins the cluster has to be told.
  std::vector<std::string> lines_for_route() const;
  // The gateway URLs and names of the other members of this cluster.
  void set_cluster_urls(const std::vector<std::string>& urls);
  void set_cluster_names(std::set<std::string> names);

  // --- any thread
  const GatewaySettings& settings() const { return settings_; }
  const std::string& server_id() const { return server_.identity.id; }
  std::string url() const;
  std::string info_line() const;
  bool is_configured(std::string_view name) const;
  bool is_own_server(std::string_view name) const;
  // A cluster of that name exists; its URLs. From gossip, or from a member of this cluster.
  void heard_of(std::string name, std::vector<std::string> urls);
  // A leafnode of that account has connected: older peers have to say what they want of it, without being guessed at.
  void leafnode_connected(const std::string& account);

  // --- gateway sessions, on their shard
  bool register_outbound(GatewaySession& session);
  void register_inbound(GatewaySession& session, const PeerInfo& info);
  void learn_urls(std::string name, std::vector<std::string> urls);
  void tell_cluster(std::string name, std::vector<std::string> urls);
  void farewell(GatewaySession& session, bool registered);
  // Outbound sessions only: they live on shard 0.
  std::string tls_name(std::string_view gateway, const std::string& host) const;
  void forget_tls_name(std::string_view gateway, const std::string& host);
  const std::set<std::string>& accounts_with_leafnodes() const { return leafnode_accounts_; }

 private:
  struct Ref {
    uint32_t shard;
    uint64_t cid;
  };
  // Another cluster.
  struct Remote {
    std::string name;
    bool implicit;
    std::vector<config::Url> configured;
    std::map<std::string, config::Url> urls;  // by host:port: configured and learnt
    uint64_t outbound = 0;                    // cid of the registered session
    bool trying = false;                      // dialling, or waiting to
    bool first = true;                        // has never been reached
    int attempts = 0;
    int64_t delay_ns;
    std::vector<config::Url> order;  // of this attempt, what is left
    ServerName tls_name;
    core::Timer timer;
    Gateways* gateways;
  };

  core::Shard& home() const { return *server_.shards[0]; }
  void on_home(std::function<void()> what);
  void rebuild_info();
  void add_implicit(const std::string& name, const std::vector<std::string>& urls);
  void solicit(Remote& remote, int64_t delay_ns);
  void attempt(Remote& remote);
  void try_next(Remote& remote);
  void dial_failed(const std::string& name, const config::Url& url, const std::string& why);
  void attempt_failed(Remote& remote);
  bool has_inbound(const std::string& name) const;
  bool report(const Remote& remote) const;
  static void add_url(Remote& remote, const std::string& text, const config::Url& url);

  core::Server& server_;
  Dialer& dialer_;
  const GatewayPlan plan_;
  const GatewaySettings settings_;
  std::atomic<bool> stopping_{false};

  mutable std::mutex mutex_;
  std::string info_line_;
  std::set<std::string> cluster_names_;

  // --- home's
  core::Random random_;
  std::set<std::string> cluster_urls_;  // of the other members
  std::set<std::string> leafnode_accounts_;
  std::map<std::string, std::unique_ptr<Remote>, std::less<>> remotes_;
  std::map<uint64_t, std::pair<Ref, std::string>> inbound_;  // by cid: where, and the cluster's name
};

}  // namespace peregrine::cluster
