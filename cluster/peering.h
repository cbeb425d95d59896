// Everything that connects this server to other servers, as one thing for main to open, start and stop: the mesh of
// routes, gateways, leafnodes, and the dialer they share. Which of them exist is what the options say.
//
// Made on the main thread after the server and before the broker; outlives the broker, because sessions say goodbye
// here. Order of calls: open(), add_listeners(), run_on() once the broker exists, start_leafnodes() and
// start_clusters() once it runs, stop() before it stops. All on the control thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/dialer.h"
#include "cluster/gateways.h"
#include "cluster/leaf_nodes.h"
#include "cluster/mesh.h"
#include "cluster/peer_tls.h"
#include "core/server.h"
#include "net/backend_choice.h"
#include "net/broker.h"
#include "net/listener.h"

namespace peregrine::cluster {

class Peering {
 public:
  // `choice` must outlive it. `seed`: for pauses and orders, which are random so that servers do not act in step.
  Peering(core::Server& server, const net::BackendChoice& choice, uint32_t shards, uint64_t seed);

  // Binds the ports asked for. "" or why not, as nats-server says it.
  std::string open();
  void add_listeners(net::BrokerPlan& plan);
  // The broker whose shards dial.
  void run_on(net::Broker& broker) { broker_ = &broker; }

  // In nats-server's order: leafnodes before clients are told to come, clusters when the server is ready.
  void start_leafnodes();
  void start_clusters();
  void enter_lame_duck();
  void stop();

  // 0 = no such listener.
  int route_port() const { return routes_.port; }
  int gateway_port() const { return gateway_.port; }
  int leaf_port() const { return leaf_.port; }
  std::string route_host() const { return host_or_default(options_.cluster.host); }
  std::string leaf_host() const { return host_or_default(options_.leafnodes.host); }
  const PeerTls& tls() const { return tls_; }
  // As other clusters reach this server; empty without gateways.
  std::string gateway_host() const;

 private:
  static std::string host_or_default(const std::string& host);
  std::vector<std::string> reachable_addresses(const std::string& host) const;
  std::vector<std::string> client_urls() const;
  GatewayPlan plan_gateways() const;
  MeshPlan plan_mesh() const;
  void warn_if_insecure(const std::optional<config::Tls>& listener, bool remotes, std::string_view what) const;
  std::string listen(const char* what, const std::string& host, int port, net::Listeners& to);

  core::Server& server_;
  const config::Options& options_;
  const net::BackendChoice& choice_;
  const uint32_t shards_;
  const uint64_t seed_;
  net::Broker* broker_ = nullptr;
  Dialer dialer_;
  PeerTls tls_;
  net::Listeners routes_, gateway_, leaf_;
  std::unique_ptr<Gateways> gateways_;
  std::unique_ptr<LeafNodes> leafs_;
  std::unique_ptr<Mesh> mesh_;
};

}  // namespace peregrine::cluster
