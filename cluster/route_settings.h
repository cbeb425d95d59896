// What the configuration says about routes, worked out once: pool, accounts, compression, credentials, permissions.
//
// Immutable; shared by the mesh and all route sessions, on all shards. Which connection of a pool carries an account:
// the one whose index is FNV-1a 32 of its name modulo the pool size, the same on every server; an account with a route
// of its own (cluster.accounts, and $SYS wherever there is pooling) is on none of the pool. Peregrine's clients live in
// $G, which therefore has one connection per remote whatever the pool's size: a second one for the same account would
// have to split its subjects, which no nats-server could follow, and two Peregrines have nothing to gain from a private
// rule, as the shard of that connection is fed by every other shard's ring already. So more shards do not ask for a
// larger pool. Source: nats-server's computeRoutePoolIdx (server/route.go) and setBaselineOptions (server/opts.go);
// parity.md 5.2.
#pragma once

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
  explicit RouteSettings(const config::Options& options, PeerTls::Block tls = nullptr);

  bool pooled() const { return configured_pool_size > 0; }
  // Connections per remote as far as we are concerned: 1 without pooling.
  int pool_size() const { return pooled() ? configured_pool_size : 1; }
  int pool_index(std::string_view account) const;
  bool pinned(std::string_view account) const;
  // Accounts this server has; interest in others is not kept.
  bool knows(std::string_view account) const;
  // Whether INFO waits for the other side's: with compression to settle, or a pool index to choose.
  bool delays_info(std::string_view account) const { return compresses() || (account.empty() && pooled()); }
  bool compresses() const { return compression != "off" && compression != "not supported"; }

  int configured_pool_size;            // -1: none
  std::vector<std::string> own_route;  // accounts with a connection of their own
  std::string compression;             // as in INFO
  std::vector<int64_t> rtt_thresholds_ns;
  PeerClocks accepted, solicited;
  std::string user, password;
  std::optional<config::SubjectPermission> import_subjects, export_subjects;
  std::shared_ptr<const core::Permissions> permissions;  // import as publish, export as subscribe; null = everything
  bool headers;
  PeerTls::Block tls;  // null = in clear
};

// FNV-1a, 32 bits.
uint32_t account_hash(std::string_view account);

}  // namespace peregrine::cluster
