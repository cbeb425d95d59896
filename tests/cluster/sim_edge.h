// Super-clusters with leafnodes at their edges on the simulated network: brokers with routes, gateways and leafnode
// connections. What every server knows of what is behind each of its links can be compared with what is wanted there.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cluster/dialer.h"
#include "cluster/gateway_session.h"
#include "cluster/gateways.h"
#include "cluster/leaf_nodes.h"
#include "cluster/leaf_session.h"
#include "cluster/mesh.h"
#include "cluster/route_session.h"
#include "tests/cluster/sim_shared.h"

namespace peregrine::cluster::testing {

inline std::string cluster_of(int n) { return "C" + std::to_string(n); }

using Interest = std::set<std::string>;  // "subject" or "subject queue", without the servers' own

inline void add_interest(Interest& to, std::string_view subject, std::string_view queue) {
  if (subject.starts_with('$') || subject.starts_with("_GR_")) return;
  to.insert(std::string(subject) + (queue.empty() ? "" : " " + std::string(queue)));
}
inline std::string to_text(const Interest& interest) {
  std::string text = "{";
  for (const std::string& each : interest) text += each + ", ";
  return text + "}";
}

// One server. Which links it has is in its options.
class EdgeNode {
 public:
  EdgeNode(sim::Network& network, sim::Scheduler& scheduler, const std::string& host, uint32_t shards,
           config::Options options, const std::string& id)
      : broker(network, scheduler, host, shards, std::move(options), 16 * 1024, id),
        dialer(broker.server, [this](uint32_t n) -> net::Reactor& { return broker.reactor(n); }) {
    const config::Options& all = broker.server.options;
    const auto listen = [&](uint16_t port, uint32_t kind, const net::OpenSession& opener) {
      const std::vector<int> fds = network.listen(host, port, static_cast<int>(shards));
      for (uint32_t n = 0; n < shards; ++n) broker.reactor(n).listen(fds[n], kind, opener);
    };
    if (all.gateway.port != 0) {
      gateways =
          std::make_unique<Gateways>(broker.server, dialer, GatewayPlan{host, kGatewayPort}, network.random().next());
      listen(kGatewayPort, 2, gateways->opener());
    }
    leafs = std::make_unique<LeafNodes>(broker.server, dialer, kLeafPort, host, PeerTls{}, [this] {
      return mesh != nullptr ? mesh->cluster_name() : broker.server.options.cluster.name;
    });
    listen(kLeafPort, 3, leafs->opener());
    if (all.cluster.port != 0) {
      MeshPlan plan{.port = kRoutePort, .client_urls = {host + ":4222"}, .own_addresses = {host + ":6222"}};
      plan.leafnode_url = leafs->own_url();
      if (gateways != nullptr) plan.gateway_url = gateways->url();
      mesh = std::make_unique<Mesh>(broker.server, dialer, std::move(plan), network.random().next());
      listen(kRoutePort, 1, mesh->opener());
      mesh->on_leafnode_urls = [this](const std::vector<std::string>& urls) { leafs->set_cluster_urls(urls); };
      if (gateways != nullptr) {
        mesh->gateways = gateways.get();
        mesh->on_gateway_urls = [this](const std::vector<std::string>& urls) { gateways->set_cluster_urls(urls); };
        gateways->tell_routes = [this](const std::string& line) { mesh->tell_members(line); };
      }
      mesh->start();
    }
    if (gateways != nullptr) {
      leafs->on_connected = [this](const std::string& account) { gateways->leafnode_connected(account); };
      gateways->start();
    }
    leafs->connect_remotes();
  }
  ~EdgeNode() {
    if (mesh != nullptr) mesh->stop();
    if (gateways != nullptr) gateways->stop();
    leafs->stop();
    broker.crash();
  }

  template <class What>
  void for_each_session(What&& what) {
    for (uint32_t n = 0; n < broker.shards(); ++n) {
      for (const core::Session* session : broker.shard(n).sessions()) {
        if (!session->closing()) what(broker.shard(n), *session);
      }
    }
  }

  // What its clients want.
  Interest wanted() {
    Interest out;
    for (uint32_t n = 0; n < broker.shards(); ++n) {
      broker.shard(n)
          .account(core::kGlobalAccount)
          .sublist.for_each_interest(
              [&](std::string_view subject, std::string_view queue, uint32_t) { add_interest(out, subject, queue); });
    }
    return out;
  }

  net::testing::SimBroker broker;
  Dialer dialer;
  std::unique_ptr<Mesh> mesh;
  std::unique_ptr<Gateways> gateways;
  std::unique_ptr<LeafNodes> leafs;
};

// Where a server stands: in a cluster, or as a leafnode of another server (or of a whole cluster, whichever of its
// servers it finds).
struct Place {
  int cluster = -1;          // -1: a leafnode
  std::vector<size_t> hubs;  // of a leafnode: the servers it may connect to
};

class Edge {
 public:
  Edge(uint64_t seed, sim::Options options, std::vector<Place> places)
      : network(seed, options), scheduler(network), places(std::move(places)), nodes(this->places.size()) {}
  ~Edge() { nodes.clear(); }

  void start(size_t n, uint32_t shards, config::Options options) {
    nodes[n] = std::make_unique<EdgeNode>(network, scheduler, host_of(n), shards, std::move(options),
                                          "N" + host_of(n) + "#" + std::to_string(++starts_));
  }
  void crash(size_t n) { nodes[n].reset(); }

  // A leafnode, and what hangs off it.
  std::set<size_t> subtree(size_t leaf) const {
    std::set<size_t> out{leaf};
    for (size_t n = leaf + 1; n < places.size(); ++n) {
      if (places[n].cluster < 0 && out.contains(places[n].hubs[0])) out.insert(n);
    }
    return out;
  }
  // A cluster, and all its leafnodes with what hangs off them.
  std::set<size_t> behind(int cluster) const {
    std::set<size_t> out;
    for (size_t n = 0; n < places.size(); ++n) {
      if (places[n].cluster == cluster || (places[n].cluster < 0 && out.contains(places[n].hubs[0]))) out.insert(n);
    }
    return out;
  }
  // Servers are named after their hosts.
  static size_t place_of(const LeafSession& leaf) {
    return static_cast<size_t>(std::atoi(leaf.remote_name().c_str() + 7)) - 1;
  }
  Interest wanted_by(const std::function<bool(size_t)>& includes) {
    Interest out;
    for (size_t n = 0; n < nodes.size(); ++n) {
      if (includes(n)) out.merge(nodes[n]->wanted());
    }
    return out;
  }

  // All servers run; every link is there, once; behind every link is known to be wanted exactly what is. "" or what is
  // not so.
  std::string disagreement() {
    int clusters = 0;
    std::map<int, size_t> sizes;
    for (const Place& place : places) {
      if (place.cluster >= 0) ++sizes[place.cluster];
      clusters = std::max(clusters, place.cluster + 1);
    }
    // Which server each leafnode hangs off: a hub's clients and those of its leafnodes are what its routes tell.
    std::map<std::string, std::set<size_t>> at;  // by server id
    for (size_t n = 0; n < nodes.size(); ++n) {
      std::set<size_t>& here = at[nodes[n]->broker.server.identity.id];
      here.insert(n);
      nodes[n]->for_each_session([&](core::Shard&, const core::Session& session) {
        if (session.kind != core::SessionKind::kLeaf) return;
        const auto& leaf = static_cast<const LeafSession&>(session);
        if (leaf.up() && !leaf.spoke()) here.merge(subtree(place_of(leaf)));
      });
    }
    std::map<std::pair<int, std::string>, size_t> inbound;
    std::map<size_t, size_t> links_up;  // leafnode connections by leafnode, as hubs see them
    std::string wrong;
    for (size_t n = 0; n < nodes.size() && wrong.empty(); ++n) {
      std::map<std::string, size_t> outbound;
      std::map<std::string, Interest> routed;
      size_t to_hubs = 0, routes = 0;
      nodes[n]->for_each_session([&](core::Shard& shard, const core::Session& session) {
        const std::string who = host_of(n) + ": ";
        if (session.kind == core::SessionKind::kRoute) {
          core::RouteRow row;
          const auto& route = static_cast<const RouteSession&>(session);
          if (!route.describe(row, false)) {
            wrong = who + "an unregistered route";
            return;
          }
          ++routes;
          Interest& known = routed[row.remote_id];
          for (const core::Subscription* sub : route.interest()) {
            core::Account& account = shard.account(sub->peer_place().account);
            add_interest(known, account.side(sub->side).subject_of(*sub), account.side(sub->side).queue_of(*sub));
          }
        }
        if (session.kind == core::SessionKind::kGateway) {
          core::GatewayRow row;
          if (!static_cast<const GatewaySession&>(session).describe(row, {.accounts = true, .subs = true})) {
            wrong = who + "an unregistered gateway connection";
            return;
          }
          if (!row.outbound) {
            ++inbound[{places[n].cluster, row.name}];
            return;
          }
          ++outbound[row.name];
          Interest known;
          for (const auto& account : row.accounts) {
            for (const core::SubRow& sub : account.subs) add_interest(known, sub.subject, sub.queue);
          }
          const std::set<size_t> there = behind(std::atoi(row.name.c_str() + 1));
          const Interest wants = wanted_by([&](size_t other) { return there.contains(other); });
          if (known != wants) wrong = who + row.name + " wants " + to_text(known) + " instead of " + to_text(wants);
        }
        if (session.kind == core::SessionKind::kLeaf) {
          const auto& leaf = static_cast<const LeafSession&>(session);
          if (!leaf.up()) {
            wrong = who + "a leafnode connection that is not up";
            return;
          }
          Interest known;
          for (const core::Subscription* sub : leaf.interest()) {
            core::Account& account = shard.account(sub->peer_place().account);
            add_interest(known, account.side(sub->side).subject_of(*sub), account.side(sub->side).queue_of(*sub));
          }
          std::set<size_t> there;
          if (leaf.spoke()) {
            ++to_hubs;
            there = subtree(n);
          } else {
            const size_t other = place_of(leaf);
            ++links_up[other];
            there = subtree(other);
          }
          const Interest wants = wanted_by([&](size_t other) { return there.contains(other) != leaf.spoke(); });
          if (known != wants)
            wrong = who + "leafnode link with " + leaf.remote_name() + " knows " + to_text(known) + " instead of " +
                    to_text(wants);
        }
      });
      if (!wrong.empty()) return wrong;
      const Place& place = places[n];
      if (to_hubs != (place.cluster < 0 ? 1u : 0u)) return host_of(n) + ": " + std::to_string(to_hubs) + " hubs";
      if (place.cluster < 0) continue;
      // Pooled connections, and one for $SYS; each route is there from both sides.
      if (routes != (sizes[place.cluster] - 1) * 4) return host_of(n) + ": " + std::to_string(routes) + " routes";
      for (const auto& [id, known] : routed) {
        const Interest wants = wanted_by([&](size_t other) { return at[id].contains(other); });
        if (known != wants)
          return host_of(n) + ": route to " + id + " knows " + to_text(known) + " instead of " + to_text(wants);
      }
      if (clusters > 1 && outbound.size() != static_cast<size_t>(clusters) - 1)
        return host_of(n) + ": " + std::to_string(outbound.size()) + " outbound gateways";
      for (const auto& [name, count] : outbound) {
        if (count != 1) return host_of(n) + ": " + std::to_string(count) + " outbound gateways to " + name;
      }
    }
    for (size_t n = 0; n < places.size(); ++n) {
      if (places[n].cluster < 0 && links_up[n] != 1)
        return host_of(n) + " is the leafnode of " + std::to_string(links_up[n]) + " servers";
    }
    for (int here = 0; here < clusters; ++here) {
      for (int other = 0; other < clusters; ++other) {
        if (here != other && inbound[{here, cluster_of(other)}] != sizes[other]) {
          return cluster_of(here) + ": " + std::to_string(inbound[{here, cluster_of(other)}]) +
                 " inbound connections from " + cluster_of(other);
        }
      }
    }
    return wrong;
  }
  bool agree_within(int64_t ns) {
    return testing::agree_within(network, scheduler, ns, [&] { return disagreement(); });
  }

  sim::Network network;
  sim::Scheduler scheduler;
  const std::vector<Place> places;
  std::vector<std::unique_ptr<EdgeNode>> nodes;

 private:
  int starts_ = 0;
};

}  // namespace peregrine::cluster::testing
