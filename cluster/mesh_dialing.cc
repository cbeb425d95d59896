// The half of the mesh that dials: configured routes for ever, learnt ones as often as connect_retries allows.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "cluster/mesh.h"
#include "config/url.h"
#include "core/shard.h"
#include "net/socket.h"

namespace peregrine::cluster {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kDialTimeoutNs = kSecondNs;
constexpr int64_t kRetryNs = kSecondNs;
constexpr int64_t kLongestRetryNs = 30 * kSecondNs;
constexpr int64_t kReconnectNs = kSecondNs;
constexpr int64_t kOtherRoutesNs = 2 * kSecondNs;
constexpr uint64_t kReconnectJitterNs = 100'000'000;  // so that two that lost each other do not dial in step

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

void Mesh::solicit(RouteOrigin origin, bool first, int64_t delay_ns, std::string remote_id) {
  if (stopping() || origin.url.host.empty()) return;
  origin.solicited = true;
  origin.retry = false;
  auto attempt = std::make_unique<Attempt>();
  attempt->id = next_attempt_++;
  attempt->origin = std::move(origin);
  attempt->first = first;
  attempt->remote_id = std::move(remote_id);
  attempt->delay_ns = kRetryNs;
  attempt->mesh = this;
  Attempt& raw = *attempt;
  attempts_.emplace(raw.id, std::move(attempt));
  if (delay_ns == 0) return try_to_reach(raw.id);
  home().timers().arm(raw.timer, home().now_ns() + delay_ns, &raw, [](void* context) {
    auto* due = static_cast<Attempt*>(context);
    due->mesh->try_to_reach(due->id);
  });
}

bool Mesh::is_connected(const std::string& remote_id) const {
  return remotes_.contains(remote_id) ||
         std::any_of(account_routes_.begin(), account_routes_.end(),
                     [&](const auto& routes) { return routes.second.contains(remote_id); });
}

bool Mesh::still_wanted(const Attempt& attempt) const {
  const RouteOrigin& origin = attempt.origin;
  const auto own = account_routes_.find(origin.account);
  if (!origin.account.empty() && own == account_routes_.end()) return false;
  if (!attempt.remote_id.empty()) {
    const bool there =
        origin.account.empty() ? remotes_.contains(attempt.remote_id) : own->second.contains(attempt.remote_id);
    if (there || !is_connected(attempt.remote_id)) return false;
  }
  const auto& routes = server_.options.cluster.routes;
  return !origin.configured || std::find(routes.begin(), routes.end(), origin.url) != routes.end();
}

void Mesh::try_to_reach(uint64_t id) {
  const auto at = attempts_.find(id);
  if (at == attempts_.end()) return;
  const RouteOrigin& origin = at->second->origin;
  if (stopping() || !still_wanted(*at->second)) {
    attempts_.erase(at);
    return;
  }
  DialTarget target{origin.url.host, static_cast<uint16_t>(origin.url.port), plan_.own_addresses};
  const uint32_t shard = next_shard_++ % static_cast<uint32_t>(server_.shards.size());
  server_.log.debug("Trying to connect to route on {}", net::host_and_port(target.host, target.port));
  dialer_.dial(shard, std::move(target), kDialTimeoutNs,
               [this, id, origin](core::Shard& on, net::Opened opened, const DialError& error) -> core::Session* {
                 if (stopping()) return nullptr;
                 if (!error.text.empty()) {
                   on_home([this, id, error] { dial_failed(id, error); });
                   return nullptr;
                 }
                 on_home([this, id] { attempts_.erase(id); });
                 auto session = std::make_unique<RouteSession>(on, *this, std::move(opened), origin);
                 RouteSession* raw = session.get();
                 on.adopt(std::move(session));
                 raw->start();
                 return raw;
               });
}

void Mesh::dial_failed(uint64_t id, const DialError& error) {
  const auto at = attempts_.find(id);
  if (at == attempts_.end()) return;
  Attempt& attempt = *at->second;
  if (error.only_ourself) {
    attempts_.erase(at);
    return;
  }
  const config::Options& options = server_.options;
  const int64_t reports = attempt.first ? options.connect_error_reports : options.reconnect_error_reports;
  ++attempt.failures;
  const bool report = attempt.failures == 1 || (reports > 0 && attempt.failures % reports == 0);
  server_.log.log(report ? core::LogLevel::kError : core::LogLevel::kDebug,
                  "Error trying to connect to route (attempt {}): {}", attempt.failures, error.text);
  if (attempt.failures == 1 && attempt.origin.configured) hint_at_other_port();
  if (!attempt.origin.configured && attempt.failures > options.cluster.connect_retries) {
    attempts_.erase(at);
    return;
  }
  home().timers().arm(attempt.timer, home().now_ns() + attempt.delay_ns, &attempt, [](void* context) {
    auto* due = static_cast<Attempt*>(context);
    due->mesh->try_to_reach(due->id);
  });
  if (options.cluster.connect_backoff) attempt.delay_ns = std::min(2 * attempt.delay_ns, kLongestRetryNs);
}

// Servers of a cluster often share one file: then a listener on one port and routes to another one never meet.
void Mesh::hint_at_other_port() {
  const auto& routes = server_.options.cluster.routes;
  if (hinted_ || plan_.port == 0 || !remotes_.empty()) return;
  if (std::any_of(routes.begin(), routes.end(), [&](const config::Url& url) { return url.port == plan_.port; })) return;
  hinted_ = true;
  server_.log.warn(
      "This server listens for routes on port {}, but all its routes go to other ports: if the servers of the cluster "
      "share these settings, they do not find each other",
      plan_.port);
}

void Mesh::reconnect(const RouteOrigin& origin, const std::string& remote_id) {
  if (!origin.solicited && !origin.retry) return;
  if (remote_id == server_.identity.id) {
    server_.log.debug("Detected route to self, ignoring {}", net::host_and_port(origin.url.host, origin.url.port));
    return;
  }
  // Without pools one connection is enough: if there is one, it takes over the other's duty.
  if (const auto remote = remotes_.find(remote_id);
      origin.account.empty() && !settings_.pooled() && remote != remotes_.end()) {
    if (origin.solicited) make_solicited(remote->second[0], origin.url, origin.configured);
    server_.log.debug("Not attempting reconnect for solicited route, already connected to \"{}\"", remote_id);
    return;
  }
  server_.log.debug("Attempting reconnect for solicited route \"{}\"",
                    net::host_and_port(origin.url.host, origin.url.port));
  RouteOrigin again = origin;
  // The remote may have come back as a new server while others could not be told of it, so whoever reaches it tells
  // them again. nats-server takes this for gossip and keeps it to itself: two servers that were both away, the one
  // restarted and the other cut off, may never hear of each other there.
  again.gossip_mode = origin.configured ? 0 : kGossipOverride;
  const auto jitter = static_cast<int64_t>(random_.below(kReconnectJitterNs)) + 1;
  // What filled a gap looks whether there is one again; never at once, for the remote may take such routes apart.
  if (origin.once) return solicit(std::move(again), false, jitter + kOtherRoutesNs, remote_id);
  solicit(std::move(again), false, jitter + (origin.configured ? kReconnectNs : 0));
}

// The pool and the accounts' own routes spread by gossip each for itself, and two servers that meet while their
// neighbours still introduce them may miss one or the other. Whoever dialled the remote, told by gossip, looks again
// when the dust has settled.
void Mesh::see_to_other_routes(const Member& member) {
  const auto look_again = [&](const std::string& account) {
    const bool will = std::any_of(attempts_.begin(), attempts_.end(), [&](const auto& each) {
      return each.second->remote_id == member.remote_id && each.second->origin.account == account;
    });
    if (will) return;
    RouteOrigin origin = member.origin;
    origin.account = account;
    origin.once = true;  // the remote may not have a route of that account's own
    solicit(std::move(origin), true, kOtherRoutesNs + static_cast<int64_t>(random_.below(kReconnectJitterNs)),
            member.remote_id);
  };
  if (!member.origin.account.empty()) look_again({});
  for (const auto& [account, routes] : account_routes_) {
    if (!routes.contains(member.remote_id)) look_again(account);
  }
}

void Mesh::pool_connection_is_good(RouteRef ref) {
  on_home([this, ref] {
    const auto at = members_.find(ref.cid);
    if (at == members_.end()) return;
    RouteOrigin next = at->second->origin;
    next.account.clear();
    solicit(std::move(next), true, 0);
  });
}

// ---------------------------------------------------------------------------------------------------- gossip

void Mesh::heard_of(PeerInfo info, bool from_no_pool) {
  on_home([this, info = std::move(info), from_no_pool] { consider(info, from_no_pool); });
}

// Another server speaks of one that we may not know yet.
void Mesh::consider(const PeerInfo& info, bool from_no_pool) {
  if (info.server_id == server_.identity.id) return;
  if (!info.route_account.empty()) {
    if (!settings_.pooled()) return;
    const auto routes = account_routes_.find(info.route_account);
    if (routes == account_routes_.end() || routes->second.contains(info.server_id)) return;
  } else if (remotes_.contains(info.server_id)) {
    return;
  }
  if (is_configured(info)) return;
  const config::Result<config::Url> url = config::parse_url(info.ip, "route");
  if (!url) {
    server_.log.error("Error parsing URL from INFO: {}", url.error());
    return;
  }
  RouteOrigin origin;
  origin.url = *url;
  origin.url.path.clear();
  origin.account = info.route_account;
  origin.gossip_mode = info.gossip_mode;
  if (info.auth_required) {
    origin.url.user = settings_.user;
    origin.url.password = settings_.password;
  }
  solicit(origin, true, 0);
  // A server without pools does not speak of accounts' own routes; ask for them anyway.
  if (!from_no_pool || !info.route_account.empty() || !settings_.pooled()) return;
  for (const auto& [account, routes] : account_routes_) {
    origin.account = account;
    solicit(origin, true, 0);
  }
}

bool Mesh::is_configured(const PeerInfo& info) const {
  const int port = static_cast<int>(info.port);
  const std::string shown = lower(net::host_and_port(info.host, port));
  std::string seen;
  if (const auto url = config::parse_url(info.ip, "route")) seen = lower(net::host_and_port(url->host, port));
  return std::any_of(server_.options.cluster.routes.begin(), server_.options.cluster.routes.end(),
                     [&](const config::Url& route) {
                       const std::string text = lower(net::host_and_port(route.host, route.port));
                       return text == shown || text == seen;
                     });
}

}  // namespace peregrine::cluster
