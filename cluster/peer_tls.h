// The tls{} blocks of routes, gateways and leafnodes, read once, and under which name a server is dialled.
//
// Contexts are immutable and shared by all sessions, on all shards; null = in clear. A name to check a certificate by
// is the host of the URL; of an address (gossip tells those) it is the first host name known of that cluster or hub, if
// there is one, until a certificate has shown that it is the wrong one. Source: nats-server's saveTLSHostname
// (server/gateway.go, server/leafnode.go) and saveRouteTLSName (server/route.go).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/options.h"
#include "config/validate.h"
#include "net/tls/context.h"

namespace peregrine::cluster {

struct PeerTls {
  using Block = std::shared_ptr<const net::tls::Context>;

  Block routes, gateways, leafnodes;                          // both directions, but for leafnodes
  std::map<std::string, Block, std::less<>> remote_gateways;  // with a block of their own
  std::vector<Block> remote_leafs;                            // by place in leafnodes.remotes
  Block plain_remote;  // of remotes without a block, whose hub wants TLS; null without remotes

  // All of them, as the configuration calls them.
  std::vector<std::pair<std::string, Block>> all() const;

  // What cannot be read is found, and null.
  static PeerTls load(const config::Options& options, config::Findings& findings);
};

// Whether one of a certificate's DNS names is the host of one of the URLs; a `*` stands for the first label.
bool names_host_of(const std::vector<std::string>& dns_names, const std::vector<config::Url>& urls);

// Whether all of them can be read.
config::Findings check_tls(const config::Options& options);

// Whom we expect at a URL.
class ServerName {
 public:
  // Of a URL that leads to the same cluster or hub.
  void learn(const std::string& host);
  const std::string& of(const std::string& host) const;
  // `host` was dialled, and its certificate is for others.
  void forget_if_used(const std::string& host);

 private:
  std::string known_;
};

}  // namespace peregrine::cluster
