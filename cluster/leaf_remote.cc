#include "cluster/leaf_remote.h"

#include <algorithm>
#include <utility>

#include "cluster/leaf_session.h"
#include "config/url.h"
#include "core/go_format.h"
#include "core/shard.h"
#include "net/socket.h"

namespace peregrine::cluster {
namespace {

constexpr int kDefaultPort = 7422;
constexpr int64_t kSecondNs = 1'000'000'000;

int port_of(const config::Url& url) { return url.port == 0 ? kDefaultPort : url.port; }
std::string host_port(const config::Url& url) { return net::host_and_port(url.host, port_of(url)); }
int64_t or_default(config::Duration duration, int64_t fallback) {
  return duration.count() > 0 ? duration.count() : fallback;
}

}  // namespace

LeafRemote::LeafRemote(LeafNodes& nodes, config::RemoteLeaf options, PeerTls::Block tls, uint32_t number)
    : nodes_(nodes),
      options_(std::move(options)),
      account_(options_.account.empty() ? std::string(core::kGlobalAccountName) : options_.account),
      tls_(std::move(tls)),
      number_(number),
      urls_(options_.urls) {
  for (const config::Url& url : urls_) {
    tls_name_.learn(url.host);
    if (!user_.empty() || url.user.empty()) continue;
    user_ = url.user;
    password_ = url.password;
  }
}

const PeerTls::Block& LeafRemote::tls() const {
  return tls_ == nullptr && (hub_wants_tls_ || current().scheme == "tls") ? nodes_.tls().plain_remote : tls_;
}

void LeafRemote::start() {
  shard_ = number_ % static_cast<uint32_t>(nodes_.server().shards.size());
  nodes_.server().shards[shard_]->post([this](core::Shard& on) {
    if (!options_.no_randomize) {
      for (size_t left = urls_.size(); left > 1; --left) std::swap(urls_[left - 1], urls_[on.random().below(left)]);
    }
    connect();
    return true;
  });
}

void LeafRemote::connect() {
  if (nodes_.stopping()) return;
  if (tried_) std::rotate(urls_.begin(), urls_.begin() + 1, urls_.end());
  tried_ = true;
  const config::Url& url = current();
  nodes_.server().log.debug("Trying to connect as leafnode to remote server on {}", core::quote(host_port(url)));
  const int64_t timeout = or_default(options_.dial_timeout, or_default(nodes_.options().dial_timeout, kSecondNs));
  nodes_.dialer().dial(shard_, {url.host, static_cast<uint16_t>(port_of(url)), {}}, timeout,
                       [this](core::Shard& shard, net::Opened opened, const DialError& error) {
                         return on_dialed(shard, std::move(opened), error);
                       });
}

core::Session* LeafRemote::on_dialed(core::Shard& shard, net::Opened opened, const DialError& error) {
  if (nodes_.stopping()) return nullptr;
  if (error.text.empty()) {
    attempts_ = 0;
    ever_connected_ = true;
    auto session = std::make_unique<LeafSession>(nodes_, shard, std::move(opened), this);
    LeafSession* raw = session.get();
    shard.adopt(std::move(session));
    raw->start();
    return raw;
  }
  ++attempts_;
  const auto& options = nodes_.server().options;
  const int64_t every = ever_connected_ ? options.reconnect_error_reports : options.connect_error_reports;
  const bool report = attempts_ == 1 || (every > 0 && attempts_ % every == 0);
  nodes_.server().log.log(report ? core::LogLevel::kError : core::LogLevel::kDebug,
                          "Error trying to connect as leafnode to remote server {} (attempt {}): {}",
                          core::quote(host_port(current())), attempts_, error.text);
  const int64_t delay = or_default(nodes_.options().reconnect, kSecondNs);
  arm(delay + static_cast<int64_t>(shard.random().below(static_cast<uint64_t>(delay))));
  return nullptr;
}

void LeafRemote::lost() {
  if (nodes_.stopping()) return;
  arm(or_default(nodes_.options().reconnect, kSecondNs) + std::exchange(extra_delay_ns_, 0));
}

void LeafRemote::arm(int64_t in_ns) {
  core::Shard& shard = *nodes_.server().shards[shard_];
  shard.timers().arm(timer_, shard.now_ns() + in_ns, this,
                     [](void* self) { static_cast<LeafRemote*>(self)->connect(); });
}

void LeafRemote::discovered(const std::vector<std::string>& urls) {
  if (options_.ignore_discovered_servers || urls.empty()) return;
  const config::Url now = current();
  std::vector<config::Url> list;
  for (const std::string& text : urls) {
    const auto parsed = config::parse_url("nats-leaf://" + text, "leafnode");
    if (!parsed) {
      nodes_.server().log.error("Error parsing url {}", core::quote(text));
      continue;
    }
    tls_name_.learn(parsed->host);
    const bool known = std::any_of(options_.urls.begin(), options_.urls.end(),
                                   [&](const config::Url& each) { return host_port(each) == host_port(*parsed); });
    if (!known) list.push_back(*parsed);
  }
  list.insert(list.end(), options_.urls.begin(), options_.urls.end());
  // The one in use stays in front, so that the next attempt takes another.
  const auto at = std::find_if(list.begin(), list.end(),
                               [&](const config::Url& each) { return host_port(each) == host_port(now); });
  tried_ = at != list.end();
  if (tried_) std::rotate(list.begin(), at, list.end());
  urls_ = std::move(list);
}

}  // namespace peregrine::cluster
