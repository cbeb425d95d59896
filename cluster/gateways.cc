#include "cluster/gateways.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/go_format.h"
#include "core/shard.h"
#include "net/socket.h"

namespace peregrine::cluster {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kDialTimeoutNs = kSecondNs;
constexpr int64_t kConnectDelayNs = kSecondNs;  // between attempts
constexpr int64_t kMostConnectDelayNs = 30 * kSecondNs;
constexpr int64_t kReconnectDelayNs = kSecondNs;
constexpr uint64_t kReconnectJitterNs = 100'000'000;
constexpr size_t kMostRemotes = 1024;  // gossip may invent names
constexpr size_t kMostUrls = 256;      // of one cluster

// "host:port" as peers write it; nothing if it is not that.
std::optional<config::Url> parse_host_port(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  config::Url url;
  url.scheme = "nats";
  std::string_view host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  url.host = host;
  for (const char c : text.substr(colon + 1)) {
    if (c < '0' || c > '9') return std::nullopt;
    url.port = url.port * 10 + (c - '0');
    if (url.port > 65535) return std::nullopt;
  }
  return url.port == 0 ? std::nullopt : std::optional(url);
}

std::string host_port(const config::Url& url) { return net::host_and_port(url.host, static_cast<uint16_t>(url.port)); }

}  // namespace

Gateways::Gateways(core::Server& server, Dialer& dialer, GatewayPlan plan, uint64_t seed)
    : server_(server),
      dialer_(dialer),
      plan_(std::move(plan)),
      settings_(server.options, server.identity.id, plan_.tls),
      random_(seed) {
  for (const config::RemoteGateway& given : server.options.gateway.gateways) {
    if (given.name == settings_.name) continue;  // our own cluster may stand in the list that all share
    auto remote = std::make_unique<Remote>();
    remote->name = given.name;
    remote->implicit = false;
    remote->configured = given.urls;
    for (const config::Url& url : given.urls) add_url(*remote, host_port(url), url);
    remote->delay_ns = kConnectDelayNs;
    remote->gateways = this;
    remotes_.emplace(given.name, std::move(remote));
  }
  rebuild_info();
}

std::string Gateways::url() const { return net::host_and_port(plan_.host, static_cast<uint16_t>(plan_.port)); }

void Gateways::start() {
  core::Log& log = server_.log;
  log.info("Gateway name is {}", settings_.name);
  const bool advertised = !server_.options.gateway.advertise.empty();
  log.info("{} {} {}", advertised ? "Advertise address for gateway" : "Address for gateway",
           core::quote(settings_.name), (advertised ? "is set to " : "is ") + url());
  on_home([this] {
    for (auto& [name, remote] : remotes_) solicit(*remote, kSolicitDelayNs);
  });
}

void Gateways::stop() {
  stopping_.store(true, std::memory_order_relaxed);
  on_home([this] {
    for (auto& [name, remote] : remotes_) remote->timer.cancel();
  });
}

net::OpenSession Gateways::opener() {
  return [this](core::Shard& shard, net::Opened opened) -> core::Session* {
    auto session = std::make_unique<GatewaySession>(shard, *this, std::move(opened));
    GatewaySession* raw = session.get();
    shard.adopt(std::move(session));
    raw->start();
    return raw;
  };
}

void Gateways::on_home(std::function<void()> what) {
  home().post([what = std::move(what)](core::Shard&) {
    what();
    return true;
  });
}

// ---------------------------------------------------------------------------------------------------- what others read

void Gateways::rebuild_info() {
  PeerInfo info;
  info.server_id = server_.identity.id;
  info.server_name = server_.options.server_name;
  info.version = server_.identity.version;
  info.proto = kPeerProtocol;
  info.host = plan_.host;
  info.port = plan_.port;
  info.headers = settings_.headers;
  info.auth_required = !settings_.user.empty();
  info.tls_required = info.tls_verify = settings_.tls.gateways != nullptr;
  info.max_payload = server_.options.max_payload;
  info.gateway = settings_.name;
  info.gateway_url = url();
  info.gateway_urls.push_back(info.gateway_url);
  for (const std::string& each : cluster_urls_) {
    if (each != info.gateway_url) info.gateway_urls.push_back(each);
  }
  info.gateway_nrp = true;
  info.gateway_iom = true;
  std::lock_guard lock(mutex_);
  info_line_ = "INFO " + to_json(info) + "\r\n";
}

std::string Gateways::info_line() const {
  std::lock_guard lock(mutex_);
  return info_line_;
}

bool Gateways::is_configured(std::string_view name) const {
  const auto& given = server_.options.gateway.gateways;
  return std::any_of(given.begin(), given.end(), [&](const auto& each) { return each.name == name; });
}

bool Gateways::is_own_server(std::string_view name) const {
  if (name.empty()) return false;
  std::lock_guard lock(mutex_);
  return name == server_.identity.name || cluster_names_.contains(std::string(name));
}

void Gateways::set_cluster_names(std::set<std::string> names) {
  std::lock_guard lock(mutex_);
  cluster_names_ = std::move(names);
}

void Gateways::set_cluster_urls(const std::vector<std::string>& urls) {
  std::set<std::string> now(urls.begin(), urls.end());
  if (now == cluster_urls_) return;
  cluster_urls_ = std::move(now);
  rebuild_info();
  for (const auto& [cid, entry] : inbound_) {
    server_.shards[entry.first.shard]->post([cid = cid, line = info_line()](core::Shard& on) {
      if (auto* session = static_cast<GatewaySession*>(on.find(cid))) session->say(line);
      return true;
    });
  }
}

// ---------------------------------------------------------------------------------------------------- discovery

void Gateways::heard_of(std::string name, std::vector<std::string> urls) {
  if (settings_.reject_unknown && !is_configured(name)) return;
  on_home([this, name = std::move(name), urls = std::move(urls)] { add_implicit(name, urls); });
}

void Gateways::leafnode_connected(const std::string& account) {
  on_home([this, account] {
    leafnode_accounts_.insert(account);
    for (const auto& [name, remote] : remotes_) {
      if (remote->outbound == 0) continue;
      if (auto* session = static_cast<GatewaySession*>(home().find(remote->outbound)))
        session->leafnode_connected(account);
    }
  });
}

void Gateways::add_implicit(const std::string& name, const std::vector<std::string>& urls) {
  if (name == settings_.name || stopping_.load(std::memory_order_relaxed)) return;
  auto at = remotes_.find(name);
  const bool fresh = at == remotes_.end();
  if (fresh) {
    if (remotes_.size() >= kMostRemotes) return;
    auto remote = std::make_unique<Remote>();
    remote->name = name;
    remote->implicit = true;
    remote->delay_ns = kConnectDelayNs;
    remote->gateways = this;
    at = remotes_.emplace(name, std::move(remote)).first;
  }
  Remote& remote = *at->second;
  for (const std::string& text : urls) {
    if (remote.urls.size() >= kMostUrls) break;
    if (const auto url = parse_host_port(text)) add_url(remote, text, *url);
  }
  if (!fresh) return;
  if (remote.urls.empty()) {
    remotes_.erase(at);
    return;
  }
  solicit(remote, 0);
}

void Gateways::add_url(Remote& remote, const std::string& text, const config::Url& url) {
  remote.tls_name.learn(url.host);
  remote.urls.emplace(text, url);
}

std::string Gateways::tls_name(std::string_view gateway, const std::string& host) const {
  const auto at = remotes_.find(gateway);
  return at == remotes_.end() ? host : at->second->tls_name.of(host);
}

void Gateways::forget_tls_name(std::string_view gateway, const std::string& host) {
  if (const auto at = remotes_.find(gateway); at != remotes_.end()) at->second->tls_name.forget_if_used(host);
}

// What a cluster says of itself replaces what was learnt before; what was configured stays.
void Gateways::learn_urls(std::string name, std::vector<std::string> urls) {
  if (urls.empty()) return;
  on_home([this, name = std::move(name), urls = std::move(urls)] {
    const auto at = remotes_.find(name);
    if (at == remotes_.end()) return;
    Remote& remote = *at->second;
    remote.urls.clear();
    for (const config::Url& url : remote.configured) remote.urls.emplace(host_port(url), url);
    for (const std::string& text : urls) {
      if (remote.urls.size() >= kMostUrls) break;
      if (const auto url = parse_host_port(text)) add_url(remote, text, *url);
    }
  });
}

namespace {
// Not a server's INFO: the id keeps older servers from taking it for a route's.
std::string gossip_line(const core::Server& server, std::string id, const std::string& name,
                        const std::vector<std::string>& urls) {
  PeerInfo info;
  info.server_id = std::move(id);
  info.server_name = server.options.server_name;
  info.gateway = name;
  info.gateway_urls = urls;
  info.gateway_cmd = 1;
  return "INFO " + to_json(info) + "\r\n";
}
}  // namespace

void Gateways::tell_cluster(std::string name, std::vector<std::string> urls) {
  on_home([this, name = std::move(name), urls = std::move(urls)] {
    if (tell_routes) tell_routes(gossip_line(server_, "GW" + server_.identity.id, name, urls));
  });
}

std::vector<std::string> Gateways::lines_for_route() const {
  std::vector<std::string> lines;
  for (const auto& [name, remote] : remotes_) {
    if (remote->outbound == 0) continue;
    std::vector<std::string> urls;
    for (const auto& [text, url] : remote->urls) urls.push_back(text);
    lines.push_back(gossip_line(server_, "GW" + server_.identity.id, name, urls));
  }
  return lines;
}

// ---------------------------------------------------------------------------------------------------- dialling

void Gateways::solicit(Remote& remote, int64_t delay_ns) {
  if (remote.trying || remote.outbound != 0) return;
  remote.trying = true;
  remote.attempts = 0;
  remote.delay_ns = kConnectDelayNs;
  core::Shard& shard = home();
  if (delay_ns == 0) return attempt(remote);
  shard.timers().arm(remote.timer, shard.now_ns() + delay_ns, &remote,
                     [](void* self) { static_cast<Remote*>(self)->gateways->attempt(*static_cast<Remote*>(self)); });
}

bool Gateways::report(const Remote& remote) const {
  const auto every =
      static_cast<int>(remote.first ? server_.options.connect_error_reports : server_.options.reconnect_error_reports);
  return remote.attempts == 1 || (every > 0 && remote.attempts % every == 0);
}

void Gateways::attempt(Remote& remote) {
  if (stopping_.load(std::memory_order_relaxed)) return;
  ++remote.attempts;
  remote.order.clear();
  for (const auto& [text, url] : remote.urls) remote.order.push_back(url);
  for (size_t n = remote.order.size(); n > 1; --n) std::swap(remote.order[n - 1], remote.order[random_.below(n)]);
  try_next(remote);
}

void Gateways::try_next(Remote& remote) {
  if (remote.order.empty()) return attempt_failed(remote);
  const config::Url url = remote.order.back();
  remote.order.pop_back();
  const std::string text =
      fmt::format("Connecting to {} gateway {} ({}) at {} (attempt {})", remote.implicit ? "implicit" : "explicit",
                  core::quote(remote.name), host_port(url), host_port(url), remote.attempts);
  if (report(remote)) server_.log.info("{}", text);
  else server_.log.debug("{}", text);
  DialTarget target;
  target.host = url.host;
  target.port = static_cast<uint16_t>(url.port);
  dialer_.dial(0, std::move(target), kDialTimeoutNs,
               [this, name = remote.name, url](core::Shard& shard, net::Opened opened,
                                               const DialError& error) -> core::Session* {
                 if (!error.text.empty()) {
                   dial_failed(name, url, error.text);
                   return nullptr;
                 }
                 if (stopping_.load(std::memory_order_relaxed)) return nullptr;
                 auto session = std::make_unique<GatewaySession>(shard, *this, std::move(opened), name, url);
                 GatewaySession* raw = session.get();
                 shard.adopt(std::move(session));
                 raw->start();
                 return raw;
               });
}

void Gateways::dial_failed(const std::string& name, const config::Url& url, const std::string& why) {
  const auto at = remotes_.find(name);
  if (at == remotes_.end()) return;
  Remote& remote = *at->second;
  const std::string text = fmt::format("Error connecting to {} gateway {} ({}) at {} (attempt {}): {}",
                                       remote.implicit ? "implicit" : "explicit", core::quote(name), host_port(url),
                                       host_port(url), remote.attempts, why);
  if (report(remote)) server_.log.error("{}", text);
  else server_.log.debug("{}", text);
  if (!stopping_.load(std::memory_order_relaxed)) try_next(remote);
}

void Gateways::attempt_failed(Remote& remote) {
  if (remote.implicit && (settings_.connect_retries == 0 || remote.attempts > settings_.connect_retries)) {
    // While that cluster talks to us it is there, whatever our luck in dialling it.
    if (!has_inbound(remote.name)) {
      remotes_.erase(remote.name);
      return;
    }
  }
  core::Shard& shard = home();
  shard.timers().arm(remote.timer, shard.now_ns() + remote.delay_ns, &remote,
                     [](void* self) { static_cast<Remote*>(self)->gateways->attempt(*static_cast<Remote*>(self)); });
  if (settings_.connect_backoff) remote.delay_ns = std::min(remote.delay_ns * 2, kMostConnectDelayNs);
}

bool Gateways::has_inbound(const std::string& name) const {
  return std::any_of(inbound_.begin(), inbound_.end(), [&](const auto& each) { return each.second.second == name; });
}

// ---------------------------------------------------------------------------------------------------- sessions

bool Gateways::register_outbound(GatewaySession& session) {
  const auto at = remotes_.find(session.gateway_name());
  if (at == remotes_.end() || at->second->outbound != 0) return false;
  at->second->outbound = session.cid;
  at->second->trying = false;
  at->second->first = false;
  return true;
}

void Gateways::register_inbound(GatewaySession& session, const PeerInfo& info) {
  on_home([this, ref = Ref{session.shard.index(), session.cid}, name = info.gateway, urls = info.gateway_urls] {
    inbound_[ref.cid] = {ref, name};
    add_implicit(name, urls);
    // What else there is, so that all clusters know each other.
    std::vector<std::string> lines;
    for (const auto& [other, remote] : remotes_) {
      if (other == name || remote->urls.empty()) continue;
      std::vector<std::string> theirs;
      for (const auto& [text, url] : remote->urls) theirs.push_back(text);
      lines.push_back(gossip_line(server_, server_.identity.id, other, theirs));
    }
    server_.shards[ref.shard]->post([cid = ref.cid, lines = std::move(lines)](core::Shard& on) {
      if (auto* gone_or_not = static_cast<GatewaySession*>(on.find(cid))) {
        for (const std::string& line : lines) gone_or_not->say(line);
      }
      return true;
    });
  });
}

void Gateways::farewell(GatewaySession& session, bool registered) {
  if (stopping_.load(std::memory_order_relaxed)) return;  // shard 0 may be gone already
  if (!session.outbound()) {
    if (registered) on_home([this, cid = session.cid] { inbound_.erase(cid); });
    return;
  }
  // On shard 0 already.
  const auto at = remotes_.find(session.gateway_name());
  if (at == remotes_.end()) return;
  Remote& remote = *at->second;
  if (remote.outbound == session.cid) remote.outbound = 0;
  else if (remote.outbound != 0) return;  // a second connection that was not wanted
  remote.trying = false;
  server_.log.debug("Attempting reconnect for gateway {}", core::quote(remote.name));
  const auto jitter = static_cast<int64_t>(random_.below(kReconnectJitterNs));
  solicit(remote, jitter + (remote.implicit ? 0 : kReconnectDelayNs) + 1);
}

}  // namespace peregrine::cluster
