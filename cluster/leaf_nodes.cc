#include "cluster/leaf_nodes.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>

#include "cluster/leaf_remote.h"
#include "cluster/leaf_session.h"
#include "config/limits.h"
#include "config/url.h"
#include "core/shard.h"
#include "net/socket.h"

namespace peregrine::cluster {
namespace {

constexpr std::string_view kDuplicate = "Duplicate Remote LeafNode Connection";

// An address of this machine that others can use, when we listen on all of them.
std::string public_address() {
  for (const std::string& each : net::interface_addresses()) {
    if (!each.starts_with("127.") && each != "::1") return each;
  }
  return "127.0.0.1";
}

std::string make_unique_name() {
  static constexpr char kDigits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  // Two servers with the same would each take the other for itself.
  std::random_device entropy;
  core::Random random(uint64_t{entropy()} << 32 | entropy());
  std::string name;
  for (int n = 0; n < 22; ++n) name += kDigits[random.below(sizeof(kDigits) - 1)];
  return name;
}

}  // namespace

LeafNodes::LeafNodes(core::Server& server, Dialer& dialer, int port, const std::string& address, PeerTls tls,
                     std::function<std::string()> cluster_name)
    : server_(server), dialer_(dialer), cluster_name_(std::move(cluster_name)), tls_(std::move(tls)), port_(port) {
  const config::Options& all = server.options;
  const config::LeafNodes& own = all.leafnodes;
  accepted_.ping_interval_ns = all.ping_interval.count();
  accepted_.ping_max = all.ping_max;
  accepted_.write_deadline_ns = (own.write_deadline.count() > 0 ? own.write_deadline : all.write_deadline).count();
  accepted_.close_on_write_deadline = own.write_timeout == config::WriteTimeout::kClose;
  solicited_ = accepted_;
  accepted_.auth_timeout_ns = config::auth_timeout(own.authorization, own.tls).count();
  if (port_ != 0) {
    int shown_port = port_;
    own_host_ = !net::is_any_address(own.host) ? own.host : !address.empty() ? address : public_address();
    if (!own.advertise.empty()) {
      const config::Listen shown = config::advertised(own.advertise, port_);
      own_host_ = shown.host;
      shown_port = shown.port;
    }
    own_url_ = net::host_and_port(own_host_, shown_port);
  }
  uint32_t shard = 0;
  for (size_t n = 0; n < own.remotes.size(); ++n) {
    if (own.remotes[n].disabled) continue;
    // Spread, once it is known over how many shards: each has a connection of its own to keep busy.
    remotes_.push_back(std::make_unique<LeafRemote>(
        *this, own.remotes[n], n < tls_.remote_leafs.size() ? tls_.remote_leafs[n] : nullptr, shard++));
  }
}

LeafNodes::~LeafNodes() = default;

net::OpenSession LeafNodes::opener() {
  return [this](core::Shard& shard, net::Opened opened) -> core::Session* {
    if (stopping()) return nullptr;
    auto session = std::make_unique<LeafSession>(*this, shard, std::move(opened), nullptr);
    LeafSession* raw = session.get();
    shard.adopt(std::move(session));
    raw->start();
    return raw;
  };
}

void LeafNodes::connect_remotes() {
  for (const auto& remote : remotes_) remote->start();
}

std::string LeafNodes::cluster_name() const {
  std::string name = cluster_name_();
  // With hubs but no cluster: a stable name all the same, so that they know us again.
  if (name.empty() && !options().remotes.empty()) name = server_.identity.name;
  return name;
}

PeerInfo LeafNodes::info() const {
  const config::Options& all = server_.options;
  PeerInfo info;
  info.server_id = server_.identity.id;
  info.server_name = server_.identity.name;
  info.version = server_.identity.version;
  info.proto = kPeerProtocol;
  info.go = server_.identity.go;
  info.host = own_host_;
  info.port = port_;
  info.headers = !all.no_header_support;
  info.auth_required = true;
  info.tls_required = tls_.leafnodes != nullptr;
  info.tls_verify = info.tls_required && tls_.leafnodes->checks_clients();
  info.max_payload = all.max_payload;
  info.ip = own_url_;
  info.cluster = cluster_name();
  info.info_on_connect = true;
  if (!own_url_.empty()) info.leafnode_urls.push_back(own_url_);
  std::lock_guard lock(mutex_);
  for (const std::string& url : cluster_urls_) {
    if (url != own_url_) info.leafnode_urls.push_back(url);
  }
  return info;
}

core::Auth::Plan LeafNodes::plan(const core::Credentials& credentials) const {
  const config::Authorization& own = options().authorization;
  const auto compare = [&](const std::string& user, const std::string& password) {
    core::Auth::Plan plan;
    plan.identity.user = user;
    plan.expected = password;
    plan.offered = credentials.password;
    plan.compare = true;
    plan.bcrypt = core::Auth::is_bcrypt(password);
    return plan;
  };
  if (!own.user.empty()) {
    if (credentials.user == own.user) return compare(own.user, own.password);
  } else if (!own.users.empty()) {
    for (const config::User& each : own.users) {
      if (each.user == credentials.user) return compare(each.user, each.password);
    }
  } else {
    return server_.auth.plan(credentials, core::ConnectionType::kLeafnode);
  }
  core::Auth::Plan refused;
  refused.refused = true;
  return refused;
}

std::string LeafNodes::loop_subject(const std::string& account) {
  std::lock_guard lock(mutex_);
  std::string& subject = loop_subjects_[account];
  if (subject.empty()) subject = "$LDS." + make_unique_name();
  return subject;
}

bool LeafNodes::enter(const Registration& registration) {
  Registration old;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [cid, each] : registered_) {
      if (registration.server.empty() || registration.remote_account.empty()) break;
      if (each.server != registration.server || each.cluster != registration.cluster ||
          each.account != registration.account || each.remote_account != registration.remote_account) {
        continue;
      }
      old = each;
      break;
    }
    registered_.emplace(registration.cid, registration);
  }
  if (old.cid == 0) return false;
  server_.shards[old.shard]->post([cid = old.cid](core::Shard& on) {
    auto* session = static_cast<LeafSession*>(on.find(cid));
    if (session != nullptr && !session->closing())
      session->fail(kDuplicate, core::CloseReason::kDuplicateRemoteLeafnode);
    return true;
  });
  return true;
}

void LeafNodes::leave(uint64_t cid) {
  std::lock_guard lock(mutex_);
  registered_.erase(cid);
}

bool LeafNodes::is_leaf_cluster(const std::string& account, const std::string& cluster) const {
  std::lock_guard lock(mutex_);
  return std::any_of(registered_.begin(), registered_.end(), [&](const auto& item) {
    return item.second.hub && item.second.account == account && item.second.cluster == cluster;
  });
}

void LeafNodes::set_cluster_urls(const std::vector<std::string>& urls) {
  {
    std::lock_guard lock(mutex_);
    if (cluster_urls_ == urls) return;
    cluster_urls_ = urls;
  }
  announce();
}

// INFO to every leafnode, on its shard.
void LeafNodes::announce() {
  if (stopping()) return;
  const std::string line = "INFO " + to_json(info()) + "\r\n";
  for (core::Shard* shard : server_.shards) {
    shard->post([line](core::Shard& on) {
      for (core::Session* session : on.sessions()) {
        if (session->kind == core::SessionKind::kLeaf) static_cast<LeafSession*>(session)->announce(line);
      }
      return true;
    });
  }
}

}  // namespace peregrine::cluster
