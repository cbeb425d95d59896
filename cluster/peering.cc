#include "cluster/peering.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "config/url.h"
#include "net/socket.h"

namespace peregrine::cluster {

Peering::Peering(core::Server& server, const net::BackendChoice& choice, uint32_t shards, uint64_t seed)
    : server_(server),
      options_(server.options),
      choice_(choice),
      shards_(shards),
      seed_(seed),
      dialer_(server, [this](uint32_t shard) -> net::Reactor& { return broker_->reactor(shard); }) {}

std::string Peering::host_or_default(const std::string& host) { return host.empty() ? config::kDefaultHost : host; }

// Where others reach a listener on `host`: the kernel's addresses, or the backend's own.
std::vector<std::string> Peering::reachable_addresses(const std::string& host) const {
  if (choice_.addresses.empty()) return net::reachable_addresses(host);
  return net::is_any_address(host) ? choice_.addresses : std::vector<std::string>{host};
}

// Where clients reach this server, as the other members tell theirs.
std::vector<std::string> Peering::client_urls() const {
  const core::ServerInfo info = server_.info();
  if (!options_.client_advertise.empty()) return {net::host_and_port(info.host, info.port)};
  std::vector<std::string> urls;
  for (const std::string& address : reachable_addresses(options_.host))
    urls.push_back(net::host_and_port(address, options_.port));
  return urls;
}

GatewayPlan Peering::plan_gateways() const {
  if (!options_.gateway.advertise.empty()) {
    const config::Listen shown = config::advertised(options_.gateway.advertise, gateway_.port);
    return {shown.host, shown.port, tls_};
  }
  const std::string host = host_or_default(options_.gateway.host);
  const std::vector<std::string> reachable = reachable_addresses(host);
  return {reachable.empty() ? host : reachable.front(), gateway_.port, tls_};
}

MeshPlan Peering::plan_mesh() const {
  MeshPlan plan;
  plan.port = routes_.port;
  plan.tls = tls_.routes;
  plan.shards = static_cast<int>(shards_);
  plan.client_urls = client_urls();
  if (gateways_ != nullptr) plan.gateway_url = gateways_->url();
  if (leafs_ != nullptr && !options_.leafnodes.no_advertise) plan.leafnode_url = leafs_->own_url();
  for (const std::string& address : choice_.addresses.empty() ? net::interface_addresses() : choice_.addresses)
    plan.own_addresses.push_back(net::host_and_port(address, routes_.port));
  return plan;
}

std::string Peering::listen(const char* what, const std::string& host, int port, net::Listeners& to) {
  auto opened = choice_.open(host_or_default(host), port, static_cast<int>(shards_));
  if (!opened) return fmt::format("Error listening on {} port: {} - {}", what, port, opened.error());
  to = std::move(*opened);
  return "";
}

std::string Peering::open() {
  config::Findings unreadable;
  tls_ = PeerTls::load(options_, unreadable);
  if (!unreadable.errors.empty()) return unreadable.errors.front().text;
  std::string error;
  const auto& [gateway, leafnodes, cluster] = std::tie(options_.gateway, options_.leafnodes, options_.cluster);
  if (!gateway.name.empty() && gateway.port != 0) {
    if (error = listen("gateway", gateway.host, gateway.port, gateway_); !error.empty()) return error;
    gateways_ = std::make_unique<Gateways>(server_, dialer_, plan_gateways(), seed_);
  }
  if (leafnodes.port != 0) {
    if (error = listen("leafnode", leafnodes.host, leafnodes.port, leaf_); !error.empty()) return error;
  }
  if (leafnodes.defined) {
    leafs_ = std::make_unique<LeafNodes>(
        server_, dialer_, leaf_.port, choice_.addresses.empty() ? std::string() : choice_.addresses.front(), tls_,
        [this] { return mesh_ != nullptr ? mesh_->cluster_name() : options_.cluster.name; });
  }
  if (cluster.port != 0) {
    if (error = listen("router", cluster.host, cluster.port, routes_); !error.empty()) return error;
    mesh_ = std::make_unique<Mesh>(server_, dialer_, plan_mesh(), seed_);
  }
  if (leafs_ != nullptr && gateways_ != nullptr)
    leafs_->on_connected = [this](const std::string& account) { gateways_->leafnode_connected(account); };
  if (mesh_ != nullptr && leafs_ != nullptr)
    mesh_->on_leafnode_urls = [this](const std::vector<std::string>& urls) { leafs_->set_cluster_urls(urls); };
  if (mesh_ != nullptr && gateways_ != nullptr) {
    mesh_->gateways = gateways_.get();
    mesh_->on_gateway_urls = [this](const std::vector<std::string>& urls) { gateways_->set_cluster_urls(urls); };
    gateways_->tell_routes = [this](const std::string& line) { mesh_->tell_members(line); };
  }
  return "";
}

void Peering::add_listeners(net::BrokerPlan& plan) {
  if (mesh_ != nullptr) plan.peer_listeners.push_back({routes_.fds, mesh_->opener()});
  if (gateways_ != nullptr) plan.peer_listeners.push_back({gateway_.fds, gateways_->opener()});
  if (leaf_.port != 0) plan.peer_listeners.push_back({leaf_.fds, leafs_->opener()});
}

void Peering::warn_if_insecure(const std::optional<config::Tls>& listener, bool remotes, std::string_view what) const {
  if (!remotes && !(listener && listener->insecure)) return;
  server_.log.warn("TLS certificate chain and hostname of solicited {} will not be verified. DO NOT USE IN PRODUCTION!",
                   what);
}

void Peering::start_leafnodes() {
  const config::LeafNodes& leafnodes = options_.leafnodes;
  warn_if_insecure(leafnodes.tls,
                   std::any_of(leafnodes.remotes.begin(), leafnodes.remotes.end(),
                               [](const config::RemoteLeaf& each) { return each.tls && each.tls->insecure; }),
                   "leafnodes");
  if (leaf_.port != 0)
    server_.log.info("Listening for leafnode connections on {}", net::host_and_port(leaf_host(), leaf_.port));
  if (leaf_.port != 0 && !options_.leafnodes.advertise.empty())
    server_.log.info("Advertise address for leafnode is set to {}", leafs_->own_url());
  if (leafs_ != nullptr) leafs_->connect_remotes();
}

void Peering::start_clusters() {
  if (mesh_ != nullptr) {
    server_.log.info("Cluster name is {}", mesh_->cluster_name());
    if (mesh_->name_is_dynamic()) server_.log.warn("Cluster name was dynamically generated, consider setting one");
    server_.log.info("Listening for route connections on {}", net::host_and_port(route_host(), routes_.port));
    warn_if_insecure(options_.cluster.tls, false, "routes");
    mesh_->start();
  }
  if (gateways_ != nullptr) {
    const std::string host = host_or_default(options_.gateway.host);
    server_.log.info("Listening for gateways connections on {}", net::host_and_port(host, gateway_.port));
    const auto& remotes = options_.gateway.gateways;
    warn_if_insecure(options_.gateway.tls,
                     std::any_of(remotes.begin(), remotes.end(),
                                 [](const config::RemoteGateway& each) { return each.tls && each.tls->insecure; }),
                     "gateways");
    gateways_->start();
  }
}

void Peering::enter_lame_duck() {
  if (mesh_ != nullptr) mesh_->enter_lame_duck();
}

void Peering::stop() {
  if (gateways_ != nullptr) gateways_->stop();
  if (mesh_ != nullptr) mesh_->stop();
  if (leafs_ != nullptr) leafs_->stop();
}

std::string Peering::gateway_host() const { return gateways_ == nullptr ? "" : plan_gateways().host; }

}  // namespace peregrine::cluster
