#include "cluster/peer_tls.h"

#include <fmt/format.h>

#include "config/characters.h"
#include "net/socket.h"

namespace peregrine::cluster {
namespace {

bool is_address(const std::string& host) { return net::SocketAddress::parse({host, 0}).has_value(); }

}  // namespace

PeerTls PeerTls::load(const config::Options& options, config::Findings& findings) {
  using net::tls::Use;
  const auto read = [&](const std::string& option, const std::optional<config::Tls>& block, Use use) -> Block {
    if (!block) return nullptr;
    config::Result<Block> made = net::tls::Context::make(*block, use);
    if (made) return *made;
    findings.errors.push_back({option, fmt::format("{}: {}", option, made.error())});
    return nullptr;
  };
  // As in nats-server, the keys that our listener lets in are those that a remote may show, too.
  const auto with_pins_of = [](std::optional<config::Tls> block, const std::optional<config::Tls>& listener) {
    if (block && listener && block->pinned_certs.empty()) block->pinned_certs = listener->pinned_certs;
    return block;
  };
  // A block beside no port listens to nobody.
  const auto with = [](int port, Use use) { return port == 0 ? Use::kRemote : use; };
  PeerTls tls;
  tls.routes = read("cluster.tls", options.cluster.tls, with(options.cluster.port, Use::kBoth));
  tls.gateways = read("gateway.tls", options.gateway.tls, with(options.gateway.port, Use::kBoth));
  tls.leafnodes = read("leafnodes.tls", options.leafnodes.tls, with(options.leafnodes.port, Use::kListener));
  for (size_t n = 0; n < options.gateway.gateways.size(); ++n) {
    const config::RemoteGateway& remote = options.gateway.gateways[n];
    if (!remote.tls) continue;
    tls.remote_gateways[remote.name] =
        read(fmt::format("gateway.gateways[{}].tls", n), with_pins_of(remote.tls, options.gateway.tls), Use::kRemote);
  }
  for (size_t n = 0; n < options.leafnodes.remotes.size(); ++n) {
    tls.remote_leafs.push_back(read(fmt::format("leafnodes.remotes[{}].tls", n),
                                    with_pins_of(options.leafnodes.remotes[n].tls, options.leafnodes.tls),
                                    Use::kRemote));
  }
  if (!options.leafnodes.remotes.empty())
    tls.plain_remote = read("leafnodes", with_pins_of(config::Tls{}, options.leafnodes.tls), Use::kRemote);
  return tls;
}

std::vector<std::pair<std::string, PeerTls::Block>> PeerTls::all() const {
  std::vector<std::pair<std::string, Block>> out;
  const auto add = [&out](std::string name, const Block& block) {
    if (block != nullptr) out.emplace_back(std::move(name), block);
  };
  add("cluster tls", routes);
  add("gateway tls", gateways);
  add("leafnodes tls", leafnodes);
  for (const auto& [name, block] : remote_gateways) add(fmt::format("gateway {} tls", name), block);
  for (size_t n = 0; n < remote_leafs.size(); ++n) add(fmt::format("leafnode remote {} tls", n + 1), remote_leafs[n]);
  return out;
}

config::Findings check_tls(const config::Options& options) {
  config::Findings findings;
  PeerTls::load(options, findings);
  return findings;
}

bool names_host_of(const std::vector<std::string>& dns_names, const std::vector<config::Url>& urls) {
  const auto behind_first_label = [](const std::string& name) {
    const size_t dot = name.find('.');
    return dot == std::string::npos ? std::string() : name.substr(dot);
  };
  for (const std::string& each : dns_names) {
    const std::string name = config::to_lower(each);
    const bool wild = name == "*" || name.starts_with("*.");
    for (const config::Url& url : urls) {
      const std::string host = config::to_lower(url.host);
      if (wild ? behind_first_label(host) == behind_first_label(name) : host == name) return true;
    }
  }
  return false;
}

void ServerName::learn(const std::string& host) {
  if (known_.empty() && !is_address(host)) known_ = host;
}

const std::string& ServerName::of(const std::string& host) const {
  return known_.empty() || !is_address(host) ? host : known_;
}

void ServerName::forget_if_used(const std::string& host) {
  if (of(host) == known_) known_.clear();
}

}  // namespace peregrine::cluster
