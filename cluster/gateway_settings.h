// What the configuration says about gateways, worked out once, and the hashes mapped replies carry.
//
// Immutable; shared by Gateways and all gateway sessions, on all shards.
// Source: nats-server's server/gateway.go (newGateway, getGWHash, getOldHash); parity.md sections 6.2, 6.6, 6.7.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/peer_link.h"
#include "cluster/peer_tls.h"
#include "config/options.h"

namespace peregrine::cluster {

inline constexpr int64_t kMostGatewayPingNs = 15'000'000'000;

struct GatewaySettings {
  GatewaySettings(const config::Options& options, const std::string& server_id, PeerTls tls = {});

  // Accounts this server has; interest in others is not kept.
  bool knows(std::string_view account) const;
  // By what that cluster is dialled; null = in clear.
  const PeerTls::Block& tls_towards(std::string_view gateway) const;

  std::string name;
  std::string cluster_hash, old_cluster_hash, server_hash;
  std::string reply_prefix;      // "_GR_.<cluster>.<server>."
  std::string old_reply_prefix;  // "$GR.<cluster>.", for peers that know no other
  std::string user, password;
  bool reject_unknown;
  bool headers;
  int connect_retries;
  bool connect_backoff;
  // Whoever connects must show a certificate for the host of one of these; instead of user and password.
  std::optional<std::vector<config::Url>> known_urls;
  PeerClocks accepted, solicited;
  PeerTls tls;
};

// SHA-256 of the name as six letters and digits.
std::string gateway_hash(std::string_view name);
// Its first four hex digits.
std::string old_gateway_hash(std::string_view name);

}  // namespace peregrine::cluster
