// What the configuration says about routes, worked out once: pool, accounts, compression, credentials, permissions.
//
// Immutable; shared by the mesh and all route sessions, on all shards. Which connection of a pool carries an account:
// the one whose index is FNV-1a 32 of its name modulo the pool size, the same on every server; an account with a route
// of its own (cluster.accounts, and $SYS wherever there is pooling) is on none of the pool. Two Peregrines whose pool
// size nobody has chosen have a connection for each shard, if both have more shards than the pool would have
// connections, so that accounts spread over all of them. One account stays on one connection: a second one would have
// to split its subjects, which no nats-server could follow, and the shard of that connection is fed by every other
// shard's ring already. Source: nats-server's computeRoutePoolIdx (server/route.go) and setBaselineOptions
// (server/opts.go); parity.md 5.2.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/peer_link.h"
#include "cluster/peer_tls.h"
#include "config/options.h"
#include "core/permissions.h"

namespace peregrine::cluster {

inline constexpr std::string_view kSystemAccountName = "$SYS";
inline constexpr int kMostPoolSize = 1024;  // a peer that asks for more is refused

struct RouteSettings {
  explicit RouteSettings(const config::Options& options, PeerTls::Block tls = nullptr, int shards = 1);

  bool pooled() const { return configured_pool_size > 0; }
  // Connections as far as we are concerned, to a remote that has said it has so many shards: 1 without pooling.
  int pool_size(int64_t remote_shards = 0) const {
    return pooled()
               ? static_cast<int>(std::max<int64_t>(configured_pool_size, std::min<int64_t>(shards, remote_shards)))
               : 1;
  }
  // Which of `size` connections carries it.
  static int pool_index(std::string_view account, int size);
  bool pinned(std::string_view account) const;
  // Accounts this server has; interest in others is not kept.
  bool knows(std::string_view account) const;
  // Whether the INFO of who dials waits for the other side's: with compression to settle, or a pool index to choose, or
  // an account's own route that may be a duplicate.
  bool delays_info() const { return compresses() || pooled(); }
  bool compresses() const { return compression != "off" && compression != "not supported"; }

  int configured_pool_size;            // -1: none
  int shards;                          // a pool may have so many connections; 1 if its size was chosen
  std::vector<std::string> own_route;  // accounts with a connection of their own
  std::string compression;             // as in INFO
  std::vector<int64_t> rtt_thresholds_ns;
  PeerClocks accepted, solicited;
  std::string user, password;
  // Whoever connects must show a certificate for the host of one of these; instead of user and password.
  std::optional<std::vector<config::Url>> known_urls;
  std::optional<config::SubjectPermission> import_subjects, export_subjects;
  std::shared_ptr<const core::Permissions> permissions;  // import as publish, export as subscribe; null = everything
  bool headers;
  PeerTls::Block tls;  // null = in clear
};

// FNV-1a, 32 bits.
uint32_t account_hash(std::string_view account);

}  // namespace peregrine::cluster
