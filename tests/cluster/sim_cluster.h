// Whole servers of a cluster on the simulated network: brokers with their meshes, that crash, come back and lose each
// other. What they know of each other can be compared from outside.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cluster/dialer.h"
#include "cluster/mesh.h"
#include "cluster/route_session.h"
#include "tests/cluster/sim_shared.h"

namespace peregrine::cluster::testing {

// One server.
class Node {
 public:
  Node(sim::Network& network, sim::Scheduler& scheduler, const std::string& host, uint32_t shards,
       config::Options options, const std::string& id)
      : broker(network, scheduler, host, shards, with_cluster(std::move(options), host), 16 * 1024, id),
        dialer(broker.server, [this](uint32_t n) -> net::Reactor& { return broker.reactor(n); }),
        mesh(broker.server, dialer,
             {.port = kRoutePort, .client_urls = {host + ":4222"}, .own_addresses = {host + ":6222"}},
             network.random().next()) {
    const std::vector<int> fds = network.listen(host, kRoutePort, static_cast<int>(shards));
    for (uint32_t n = 0; n < shards; ++n) broker.reactor(n).listen(fds[n], 1, mesh.opener());
    mesh.start();
  }
  ~Node() {
    mesh.stop();
    broker.crash();
  }

  // Registered routes, by the other side's id: how many, and what their interest is ("side account subject
  // queue=weight").
  struct Remote {
    size_t pooled = 0, own = 0;
    std::multiset<std::string> interest;
  };
  std::map<std::string, Remote> remotes() {
    std::map<std::string, Remote> out;
    for (uint32_t n = 0; n < broker.shards(); ++n) {
      for (const core::Session* session : broker.shard(n).sessions()) {
        if (session->kind != core::SessionKind::kRoute || session->closing()) continue;
        core::RouteRow row;
        const auto& route = static_cast<const RouteSession&>(*session);
        if (!route.describe(row, true)) continue;
        Remote& to = out[row.remote_id];
        ++(row.account.empty() ? to.pooled : to.own);
        for (const core::Subscription* sub : route.interest()) {
          core::Account& account = broker.shard(n).account(sub->peer_place().account);
          const core::Sublist& side = account.side(sub->side);
          const std::string queue(side.queue_of(*sub));
          to.interest.insert(account.name + " " + std::string(side.subject_of(*sub)) +
                             (queue.empty() ? "" : " " + queue + "=" + std::to_string(sub->weight())));
        }
      }
    }
    return out;
  }
  size_t route_sessions() {
    size_t n = 0;
    for (uint32_t s = 0; s < broker.shards(); ++s) {
      for (const core::Session* session : broker.shard(s).sessions()) n += session->kind == core::SessionKind::kRoute;
    }
    return n;
  }
  // What its clients want, in the same words.
  std::multiset<std::string> wanted() {
    std::map<std::string, uint64_t> sum;
    for (uint32_t n = 0; n < broker.shards(); ++n) {
      core::Account& account = broker.shard(n).account(core::kGlobalAccount);
      account.sublist.for_each_interest([&](std::string_view subject, std::string_view queue, uint32_t weight) {
        sum[account.name + " " + std::string(subject) + (queue.empty() ? "" : " " + std::string(queue))] +=
            queue.empty() ? 0 : weight;
      });
    }
    std::multiset<std::string> out;
    for (const auto& [text, weight] : sum) out.insert(weight == 0 ? text : text + "=" + std::to_string(weight));
    return out;
  }

  net::testing::SimBroker broker;
  Dialer dialer;
  Mesh mesh;

 private:
  static config::Options with_cluster(config::Options options, const std::string& host) {
    options.cluster.defined = true;
    options.cluster.host = host;
    options.cluster.port = kRoutePort;
    return options;
  }
};

// Several of them, each with the same configuration but for its routes.
class Cluster {
 public:
  explicit Cluster(uint64_t seed, sim::Options options) : network(seed, options), scheduler(network) {}
  ~Cluster() { nodes.clear(); }

  void start(size_t n, uint32_t shards, config::Options options) {
    if (nodes.size() <= n) nodes.resize(n + 1);
    nodes[n] = std::make_unique<Node>(network, scheduler, host_of(n), shards, std::move(options),
                                      "N" + host_of(n) + "#" + std::to_string(++starts_));
  }
  void crash(size_t n) { nodes[n].reset(); }

  // Everybody knows everybody, with `pooled` connections and one for $SYS, nothing else is open, and what each knows of
  // another's interest is what that one's clients want. "" or what is not so.
  std::string disagreement(size_t pooled, size_t own = 1) {
    for (const auto& a : nodes) {
      if (a == nullptr) continue;
      const auto remotes = a->remotes();
      size_t connections = 0;
      for (const auto& b : nodes) {
        if (b == nullptr || a == b) continue;
        const std::string& id = b->broker.server.identity.id;
        const std::string who = a->broker.server.identity.id + " of " + id + ": ";
        const auto at = remotes.find(id);
        if (at == remotes.end()) return who + "not connected";
        if (at->second.pooled != pooled || at->second.own != own) {
          return who + std::to_string(at->second.pooled) + " + " + std::to_string(at->second.own) + " connections";
        }
        connections += pooled + own;
        if (const auto wanted = b->wanted(); at->second.interest != wanted) {
          std::string text = who + "knows {";
          for (const std::string& each : at->second.interest) text += each + ", ";
          text += "} instead of {";
          for (const std::string& each : wanted) text += each + ", ";
          return text + "}";
        }
      }
      if (remotes.size() + 1 != static_cast<size_t>(std::count_if(nodes.begin(), nodes.end(),
                                                                  [](const auto& each) { return each != nullptr; }))) {
        return a->broker.server.identity.id + ": knows somebody who is gone";
      }
      if (a->route_sessions() != connections)
        return a->broker.server.identity.id + ": " + std::to_string(a->route_sessions()) + " sessions for " +
               std::to_string(connections) + " connections";
    }
    return "";
  }
  bool agree_within(int64_t ns, size_t pooled, size_t own = 1) {
    return testing::agree_within(network, scheduler, ns, [&] { return disagreement(pooled, own); });
  }

  sim::Network network;
  sim::Scheduler scheduler;
  std::vector<std::unique_ptr<Node>> nodes;

 private:
  int starts_ = 0;
};

}  // namespace peregrine::cluster::testing
