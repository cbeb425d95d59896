// The part of the mesh that passes on what it knows: the members to each other, and their addresses to clients,
// leafnodes and gateways.
#include <algorithm>
#include <set>

#include "cluster/gateways.h"
#include "cluster/mesh.h"
#include "core/shard.h"

namespace peregrine::cluster {
namespace {

constexpr int64_t kGossipSettlesNs = 3'000'000'000;
constexpr uint64_t kGossipJitterNs = 1'000'000'000;  // so that those who tell the same do not do it in step

}  // namespace

// Gossip: the others are told of a remote that is new to us, each in the way that keeps the news from going round.
void Mesh::forward(const PeerInfo& info, const RouteOrigin& origin) {
  const bool from_gossip = origin.solicited && !origin.configured;
  if ((from_gossip && origin.gossip_mode != kGossipOverride) || info.gossip_mode == kGossipDisabled)
    return keep_news(info);
  tell_others(info, [&](const Member& to) -> int64_t {
    if (origin.solicited ? origin.configured : to.origin.configured) return kGossipOverride;
    return origin.solicited ? 0 : kGossipDisabled;
  });
}

template <class Mode>
void Mesh::tell_others(PeerInfo info, Mode&& gossip_mode) {
  info.nonce.clear();
  const auto send = [&](const Member& to) {
    if (to.remote_id == info.server_id) return;
    if (!info.route_account.empty() && to.no_pool) return;
    info.gossip_mode = gossip_mode(to);
    tell(to.ref, [line = info_line(info)](RouteSession& session) { session.say(line); });
  };
  const auto routes = account_routes_.find(info.route_account);
  if (!info.route_account.empty() && routes != account_routes_.end()) {
    for (const auto& [id, member] : routes->second) send(*member);
  }
  for_each_remote([&](const Member& member) {
    if (!info.route_account.empty() && routes != account_routes_.end() && routes->second.contains(member.remote_id))
      return;
    send(member);
  });
}

// Whoever heard of a remote takes for granted that the others did, too, and tells nobody. But of two servers that join
// at the same time by different neighbours only the other's neighbour is told, and they never hear of each other;
// nats-server leaves it at that. Here the news is told after all, once, when the first gossip must have arrived: it
// means nothing to those who know, and whoever dials because of it keeps it in turn.
void Mesh::keep_news(const PeerInfo& info) {
  const int64_t due = home().now_ns() + kGossipSettlesNs + static_cast<int64_t>(random_.below(kGossipJitterNs));
  news_.insert_or_assign({info.route_account, info.server_id}, News{info, due});
  if (news_.size() == 1)
    home().timers().arm(news_timer_, due, this, [](void* self) { static_cast<Mesh*>(self)->tell_kept_news(); });
}

void Mesh::tell_kept_news() {
  int64_t next = INT64_MAX;
  for (auto at = news_.begin(); at != news_.end();) {
    if (at->second.due_ns > home().now_ns()) {
      next = std::min(next, at->second.due_ns);
      ++at;
      continue;
    }
    const auto& [account, remote_id] = at->first;
    const auto routes = account_routes_.find(account);
    const bool there = account.empty() ? remotes_.contains(remote_id)
                                       : routes != account_routes_.end() && routes->second.contains(remote_id);
    if (there) tell_others(std::move(at->second.info), [](const Member&) { return kGossipDisabled; });
    at = news_.erase(at);
  }
  if (next != INT64_MAX)
    home().timers().arm(news_timer_, next, this, [](void* self) { static_cast<Mesh*>(self)->tell_kept_news(); });
}

void Mesh::tell_members(const std::string& line) {
  for_each_remote(
      [&](const Member& member) { tell(member.ref, [line](RouteSession& session) { session.say(line); }); });
}

void Mesh::announce_names() {
  std::set<std::string> names;
  for_each_remote([&](const Member& member) { names.insert(member.remote_name); });
  gateways->set_cluster_names(std::move(names));
}

bool Mesh::count_urls(UrlCounts& counts, const std::vector<std::string>& urls, bool add) {
  bool changed = false;
  for (const std::string& url : urls) {
    if (add) {
      changed |= ++counts[url] == 1;
    } else if (const auto at = counts.find(url); at != counts.end() && --at->second == 0) {
      counts.erase(at);
      changed = true;
    }
  }
  return changed;
}

void Mesh::announce(const UrlCounts& counts, const std::function<void(const std::vector<std::string>&)>& to) const {
  if (!to) return;
  std::vector<std::string> urls;
  for (const auto& [url, count] : counts) urls.push_back(url);
  to(urls);
}

void Mesh::announce_client_urls() {
  if (server_.options.cluster.no_advertise) return;
  server_.change_info([&](core::ServerInfo& info) {
    info.connect_urls.clear();
    if (!info.lame_duck) info.connect_urls = plan_.client_urls;
    for (const auto& [url, count] : client_urls_) {
      if (std::find(info.connect_urls.begin(), info.connect_urls.end(), url) == info.connect_urls.end())
        info.connect_urls.push_back(url);
    }
  });
  for (core::Shard* shard : server_.shards) {
    shard->post([](core::Shard& on) {
      on.announce_info();
      return true;
    });
  }
}

void Mesh::enter_lame_duck() {
  on_home([this] {
    lame_duck_ = true;
    PeerInfo news = info();
    news.ldm = true;
    for_each_remote([&](const Member& member) {
      tell(member.ref, [line = info_line(news)](RouteSession& session) { session.say(line); });
    });
    announce_client_urls();
  });
}

void Mesh::remote_in_lame_duck(RouteRef ref) {
  on_home([this, ref] {
    const auto at = members_.find(ref.cid);
    if (at == members_.end()) return;
    // Its clients are to go elsewhere; the URLs do not come back with its last connection's end a second time.
    const auto remote = remotes_.find(at->second->remote_id);
    std::vector<std::string> gone;
    if (remote == remotes_.end()) return;
    for (Member* each : remote->second) {
      if (each == nullptr) continue;
      if (gone.empty()) gone = each->connect_urls;
      each->connect_urls.clear();
    }
    if (count_urls(client_urls_, gone, false)) announce_client_urls();
  });
}

}  // namespace peregrine::cluster
