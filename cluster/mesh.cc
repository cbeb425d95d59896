#include "cluster/mesh.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cluster/gateways.h"
#include "config/url.h"
#include "core/go_format.h"
#include "core/shard.h"
#include "net/socket.h"

namespace peregrine::cluster {
namespace {

using core::CloseReason;

// As nats-server's: 22 characters of base 62.
std::string random_name(core::Random& random) {
  static constexpr char kDigits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string name;
  for (int n = 0; n < 22; ++n) name += kDigits[random.below(62)];
  return name;
}

// A mode as the accepting side's INFO names it.
bool needs_negotiation(std::string_view mode) {
  return !mode.empty() && mode != compression::kOff && mode != compression::kNotSupported;
}

}  // namespace

Mesh::Mesh(core::Server& server, Dialer& dialer, MeshPlan plan, uint64_t seed)
    : server_(server),
      dialer_(dialer),
      plan_(std::move(plan)),
      settings_(server.options, plan_.tls, plan_.shards),
      random_(seed) {
  server.tells_origins = true;
  const config::Options& options = server_.options;
  dynamic_ = options.cluster.name.empty() && options.gateway.name.empty();
  name_ = !options.cluster.name.empty() ? options.cluster.name : options.gateway.name;
  if (dynamic_) name_ = random_name(random_);

  info_.server_id = server_.identity.id;
  info_.server_name = server_.identity.name;
  info_.version = server_.identity.version;
  info_.proto = kPeerProtocol;
  info_.go = server_.identity.go;
  info_.host = options.cluster.host.empty() ? config::kDefaultHost : options.cluster.host;
  info_.port = plan_.port;
  if (!options.cluster.advertise.empty()) {
    const config::Listen shown = config::advertised(options.cluster.advertise, plan_.port);
    info_.host = shown.host;
    info_.port = shown.port;
    info_.ip = fmt::format("nats-route://{}/", net::host_and_port(info_.host, static_cast<int>(info_.port)));
  }
  info_.headers = settings_.headers;
  info_.auth_required = !settings_.user.empty();
  info_.tls_required = info_.tls_verify = settings_.tls != nullptr;
  for (const config::Url& url : options.cluster.routes) tls_name_.learn(url.host);
  info_.max_payload = options.max_payload;
  info_.import_subjects = settings_.import_subjects;
  info_.export_subjects = settings_.export_subjects;
  info_.lnoc = info_.lnocu = true;
  if (settings_.pooled()) info_.route_pool_size = settings_.configured_pool_size;
  info_.shards = settings_.shards;
  if (!options.cluster.no_advertise) info_.connect_urls = plan_.client_urls;
  info_.gateway_url = plan_.gateway_url;
  if (!plan_.leafnode_url.empty()) info_.leafnode_urls = {plan_.leafnode_url};
  for (const std::string& account : settings_.own_route) account_routes_[account];
  server_.change_info([&](core::ServerInfo& info) {
    info.cluster = name_;
    info.cluster_dynamic = dynamic_;
  });
}

void Mesh::start() {
  on_home([this] {
    for (const config::Url& url : server_.options.cluster.routes) {
      solicit({.solicited = true, .configured = true, .url = url}, true, 0);
    }
    for (const std::string& account : settings_.own_route) {
      for (const config::Url& url : server_.options.cluster.routes) {
        solicit({.solicited = true, .configured = true, .url = url, .account = account}, true, 0);
      }
    }
  });
}

void Mesh::stop() {
  stopping_.store(true, std::memory_order_relaxed);
  on_home([this] {
    attempts_.clear();
    news_.clear();
    news_timer_.cancel();
  });
}

net::OpenSession Mesh::opener() {
  return [this](core::Shard& shard, net::Opened opened) -> core::Session* {
    if (stopping()) return nullptr;
    auto session = std::make_unique<RouteSession>(shard, *this, std::move(opened), RouteOrigin{});
    RouteSession* raw = session.get();
    shard.adopt(std::move(session));
    raw->start();
    return raw;
  };
}

PeerInfo Mesh::info() const {
  std::lock_guard lock(name_mutex_);
  PeerInfo info = info_;
  info.cluster = name_;
  info.cluster_dynamic = dynamic_;
  return info;
}

std::string Mesh::cluster_name() const {
  std::lock_guard lock(name_mutex_);
  return name_;
}

std::string Mesh::tls_name(const std::string& host) const {
  std::lock_guard lock(tls_mutex_);
  return tls_name_.of(host);
}

void Mesh::forget_tls_name(const std::string& host) {
  std::lock_guard lock(tls_mutex_);
  tls_name_.forget_if_used(host);
}

bool Mesh::name_is_dynamic() const {
  std::lock_guard lock(name_mutex_);
  return dynamic_;
}

void Mesh::on_home(std::function<void()> what) {
  home().post([what = std::move(what)](core::Shard&) {
    what();
    return true;
  });
}

void Mesh::tell(RouteRef ref, std::function<void(RouteSession&)> what) {
  server_.shards[ref.shard]->post([cid = ref.cid, what = std::move(what)](core::Shard& on) {
    core::Session* session = on.find(cid);
    if (session != nullptr && !session->closing()) what(*static_cast<RouteSession*>(session));
    return true;
  });
}

// ---------------------------------------------------------------------------------------------------- registering

void Mesh::hello(Hello hello) {
  if (stopping()) return;
  hello.dialled = hello.origin.solicited;
  on_home([this, hello = std::move(hello)]() mutable { add(std::move(hello)); });
}

void Mesh::add(Hello hello) {
  PeerInfo& info = hello.info;
  RouteOrigin& origin = hello.origin;
  if (stopping()) return refuse(hello.ref, CloseReason::kServerShutdown, {}, true);
  bool pool = info.route_pool_size > 0;
  bool no_pool = false;
  if (!origin.account.empty() && !settings_.knows(origin.account)) {
    return refuse(hello.ref, CloseReason::kMissingAccount,
                  fmt::format("Unable to lookup account {}: account missing", core::quote(origin.account)), false);
  }
  // Servers may be configured differently: as many connections as the larger one wants.
  const int size = static_cast<int>(std::max<int64_t>(settings_.pool_size(info.shards), info.route_pool_size));
  std::string error;
  if (!pool || !settings_.pooled()) {
    if (!origin.account.empty()) {
      return refuse(hello.ref, CloseReason::kProtocolViolation,
                    fmt::format("Not possible to have a dedicated route for account {} between those servers",
                                core::quote(origin.account)),
                    true);
    }
    pool = false;
    no_pool = true;
  } else if (info.route_pool_size > kMostPoolSize) {
    error = fmt::format("Invalid route pool size: {}", info.route_pool_size);
  } else if (origin.solicited) {
    if (info.route_pool_idx != 0)
      error = fmt::format("Route pool index should not be set but is set to {}", info.route_pool_idx);
  } else if (info.route_pool_idx < 0 || info.route_pool_idx >= size) {
    error = fmt::format("Invalid route pool index: {} - pool size is {}", info.route_pool_idx, info.route_pool_size);
  }
  if (!error.empty()) return refuse(hello.ref, CloseReason::kProtocolViolation, std::move(error), false);
  if (!origin.account.empty()) return add_account_route(std::move(hello));

  int index = -1;
  size_t connections = 0;
  const auto known = remotes_.find(info.server_id);
  Member* stays = nullptr;
  if (known == remotes_.end()) {
    index = no_pool ? 0 : static_cast<int>(info.route_pool_idx);
  } else if (pool) {
    Pool& members = known->second;
    if (members.size() < static_cast<size_t>(size)) members.resize(static_cast<size_t>(size));
    if (!origin.solicited) {
      index = static_cast<int>(info.route_pool_idx);
      if (Member*& place = members[static_cast<size_t>(index)]; place != nullptr) {
        if (!gives_way(place, hello)) return refuse_duplicate(place, hello, false);
        give_way(std::exchange(place, nullptr), hello);
      }
      for (Member* each : members) {
        if (each == nullptr || !each->origin.solicited) continue;
        origin.solicited = true;
        origin.url = each->origin.url;
        origin.configured |= each->origin.configured;
        break;
      }
    } else {
      for (Member* each : members) make_solicited(each, origin.url, origin.configured);
      for (size_t n = 0; n < members.size() && index < 0; ++n) {
        if (members[n] == nullptr) index = static_cast<int>(n);
      }
    }
    for (const Member* each : members) connections += each != nullptr ? 1 : 0;
    if (index < 0) {
      server_.log.debug("Route pool size reached, closing extra connection to {}", core::quote(info.server_id));
      return refuse_duplicate(nullptr, hello, true);
    }
  } else {
    for (Member* each : known->second) {
      if (each != nullptr && stays == nullptr) stays = each;
    }
    return refuse_duplicate(stays, hello, no_pool);
  }

  Pool& members = remotes_[info.server_id];
  if (members.size() < static_cast<size_t>(size)) members.resize(static_cast<size_t>(size));
  Member& member = enroll(hello, index, no_pool);
  members[static_cast<size_t>(index)] = &member;
  ++connections;
  server_.log.debug("Registering remote route {}", core::quote(info.server_id));
  RouteSession::Registration registration;
  registration.pool_index = index;
  registration.no_pool = no_pool;
  registration.grow = pool && hello.info.route_pool_size > 0 && member.origin.solicited && hello.origin.solicited &&
                      connections < static_cast<size_t>(size);
  tell(hello.ref, [registration](RouteSession& session) { session.registered(registration); });
  show_origin(member);
  if (!pool || connections == 1) first_of_remote(member, std::move(info));
  if (pool && connections == 1 && member.origin.solicited && !member.origin.configured) see_to_other_routes(member);
}

void Mesh::add_account_route(Hello hello) {
  const std::string& account = hello.origin.account;
  const auto routes = account_routes_.find(account);
  if (routes == account_routes_.end()) {
    return refuse(hello.ref, CloseReason::kProtocolViolation,
                  fmt::format("No route for account {}", core::quote(account)), false);
  }
  Member*& place = routes->second[hello.info.server_id];
  if (place != nullptr) {
    if (!gives_way(place, hello)) return refuse_duplicate(place, hello, true);
    give_way(std::exchange(place, nullptr), hello);
  }
  Member& member = enroll(hello, -1, false);
  place = &member;
  server_.log.debug("Registering remote route {} for account {}", core::quote(hello.info.server_id),
                    core::quote(account));
  tell(hello.ref, [](RouteSession& session) { session.registered({.pool_index = -1}); });
  show_origin(member);
  if (routes->second.size() > 1) forward(std::move(hello.info), member.origin);
  if (member.origin.solicited && !member.origin.configured) see_to_other_routes(member);
}

// Two servers that dial each other at the same time register each its own connection, and each finds the other's a
// duplicate: both would go, again and again where a round trip takes longer than the pauses differ. A nats-server that
// has chosen this place for its connection had not registered ours there, and never will, so ours goes. (Unless it says
// who it is before it knows who we are: for an account's own route, with nothing to settle before.) Of two Peregrines
// the one with the lower id has dialled the connection that stays.
bool Mesh::gives_way(const Member* ours, const Hello& hello) const {
  if (!ours->dialled || hello.dialled) return false;
  if (hello.info.shards != 0) return hello.info.server_id < server_id();
  return hello.origin.account.empty() || ours->remote_settles;
}

void Mesh::give_way(Member* ours, Hello& hello) {
  server_.log.debug("Detected duplicate remote route {}", core::quote(hello.info.server_id));
  RouteOrigin& origin = hello.origin;
  origin.solicited = true;
  origin.url = ours->origin.url;
  origin.configured |= ours->origin.configured;
  origin.retry = true;
  if (origin.account.empty()) {
    const auto& pool = remotes_[ours->remote_id];
    const bool only = std::all_of(pool.begin(), pool.end(), [](const Member* each) { return each == nullptr; });
    if (only) last_of_remote(*ours);  // what follows is the first one again
  }
  const RouteRef ref = ours->ref;
  members_.erase(ref.cid);
  refuse(ref, CloseReason::kDuplicateRoute, {}, true);
}

Mesh::Member& Mesh::enroll(Hello& hello, int pool_index, bool no_pool) {
  auto& place = members_[hello.ref.cid];
  place = std::make_unique<Member>();
  place->ref = hello.ref;
  place->origin = hello.origin;
  place->remote_id = hello.info.server_id;
  place->remote_name = hello.info.server_name;
  place->pool_index = pool_index;
  place->no_pool = no_pool;
  place->dialled = hello.dialled;
  place->remote_settles = hello.dialled && needs_negotiation(hello.info.compression);
  place->connect_urls = hello.info.connect_urls;
  place->gateway_url = hello.info.gateway_url;
  if (hello.info.leafnode_urls.size() == 1) place->leafnode_url = hello.info.leafnode_urls[0];
  return *place;
}

void Mesh::refuse(RouteRef ref, CloseReason reason, std::string error, bool no_reconnect) {
  tell(ref, [reason, error = std::move(error), no_reconnect](RouteSession& session) {
    session.refused(reason, error, no_reconnect);
  });
}

// The connection that stays inherits what the other one was there for. Its `retry`: each side may have kept a different
// one of the two, and then both go.
void Mesh::refuse_duplicate(Member* stays, const Hello& hello, bool no_reconnect) {
  server_.log.debug("Detected duplicate remote route {}", core::quote(hello.info.server_id));
  if (stays != nullptr) {
    if (hello.origin.solicited && !stays->origin.solicited) {
      stays->origin.solicited = true;
      stays->origin.url = hello.origin.url;
    }
    stays->origin.configured |= hello.origin.configured;
    stays->origin.retry = true;
    show_origin(*stays);
  }
  refuse(hello.ref, CloseReason::kDuplicateRoute, {}, no_reconnect);
}

void Mesh::make_solicited(Member* member, const config::Url& url, bool configured) {
  if (member == nullptr) return;
  // A configured URL is worth more than one learnt by gossip: only that is dialled for ever.
  if (!member->origin.solicited || (configured && !member->origin.configured)) member->origin.url = url;
  member->origin.solicited = true;
  member->origin.configured |= configured;
  show_origin(*member);
}

void Mesh::show_origin(const Member& member) {
  tell(member.ref, [solicited = member.origin.solicited, configured = member.origin.configured](RouteSession& session) {
    session.set_origin(solicited, configured);
  });
}

void Mesh::first_of_remote(Member& member, PeerInfo info) {
  if (gateways != nullptr) {
    announce_names();
    for (const std::string& line : gateways->lines_for_route()) {
      tell(member.ref, [line](RouteSession& session) { session.say(line); });
    }
  }
  if (!member.gateway_url.empty() && count_urls(gateway_urls_, {member.gateway_url}, true))
    announce(gateway_urls_, on_gateway_urls);
  if (remotes_.size() > 1) forward(info, member.origin);
  if (count_urls(client_urls_, member.connect_urls, true)) announce_client_urls();
  if (!member.leafnode_url.empty() && count_urls(leafnode_urls_, {member.leafnode_url}, true))
    announce(leafnode_urls_, on_leafnode_urls);
}

// ---------------------------------------------------------------------------------------------------- going

void Mesh::farewell(Farewell farewell) {
  if (stopping()) return;
  on_home([this, farewell = std::move(farewell)] { remove(farewell); });
}

void Mesh::remove(const Farewell& farewell) {
  if (stopping()) return;
  const auto at = members_.find(farewell.ref.cid);
  if (at == members_.end()) {
    if (!farewell.no_reconnect && !farewell.origin.once) reconnect(farewell.origin, farewell.remote_id);
    return;
  }
  const std::unique_ptr<Member> member = std::move(at->second);
  members_.erase(at);
  if (!member->origin.account.empty()) {
    account_routes_[member->origin.account].erase(member->remote_id);
  } else {
    const auto remote = remotes_.find(member->remote_id);
    Pool& pool = remote->second;
    pool[static_cast<size_t>(member->pool_index)] = nullptr;
    if (std::all_of(pool.begin(), pool.end(), [](const Member* each) { return each == nullptr; })) {
      remotes_.erase(remote);
      last_of_remote(*member);
      // It had no pools; what comes back at its place may have: one connection was all there was to lose, so the others
      // would never be asked for.
      if (member->no_pool && settings_.pooled()) {
        RouteOrigin again = member->origin;
        if (settings_.pool_size() > 1) solicit(again, true, 0);
        for (const auto& [account, routes] : account_routes_) {
          again.account = account;
          solicit(again, true, 0);
        }
      }
    }
  }
  if (!farewell.no_reconnect) reconnect(member->origin, member->remote_id);
}

void Mesh::last_of_remote(const Member& member) {
  if (gateways != nullptr) announce_names();
  if (count_urls(client_urls_, member.connect_urls, false)) announce_client_urls();
  if (!member.gateway_url.empty() && count_urls(gateway_urls_, {member.gateway_url}, false))
    announce(gateway_urls_, on_gateway_urls);
  if (!member.leafnode_url.empty() && count_urls(leafnode_urls_, {member.leafnode_url}, false))
    announce(leafnode_urls_, on_leafnode_urls);
}

// ---------------------------------------------------------------------------------------------------- the cluster's
// name

void Mesh::judge_name(RouteRef ref, std::string name, bool dynamic, bool for_good, std::string remote_id) {
  on_home([this, ref, name = std::move(name), dynamic, for_good, remote_id = std::move(remote_id)] {
    const std::string ours = cluster_name();
    bool accepted = name == ours;
    if (!accepted && name_is_dynamic() && (!dynamic || ours < name)) {
      take_name(name, for_good && !dynamic, remote_id);
      accepted = true;
    }
    tell(ref, [accepted](RouteSession& session) { session.name_judged(accepted); });
  });
}

// Everybody who knows us under the other name goes, and comes back.
void Mesh::take_name(const std::string& name, bool for_good, const std::string& keep) {
  {
    std::lock_guard lock(name_mutex_);
    name_ = name;
    if (for_good) dynamic_ = false;
  }
  server_.change_info([&](core::ServerInfo& info) {
    info.cluster = name;
    info.cluster_dynamic = name_is_dynamic();
  });
  server_.log.info("Cluster name updated to {}", name);
  for (const auto& [cid, member] : members_) {
    if (member->remote_id == keep) continue;
    tell(member->ref, [](RouteSession& session) { session.close(CloseReason::kClusterNameConflict); });
  }
}

// A peer gives an account a route of its own while both run: nothing of it on the pool from now on.
void Mesh::account_moves(RouteRef ref, PeerInfo info) {
  on_home([this, ref, info = std::move(info)]() mutable {
    const std::string account = info.route_account;
    account_routes_[account];
    for (const auto& [cid, member] : members_) {
      if (member->no_pool || !member->origin.account.empty()) continue;
      tell(member->ref, [account](RouteSession& session) { session.give_up_account(account); });
    }
    info.route_account.clear();
    tell(ref, [line = info_line(info)](RouteSession& session) { session.say(line); });
  });
}

}  // namespace peregrine::cluster
