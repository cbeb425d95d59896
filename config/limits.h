// Bounds: what an option may be at most, and numbers derived from options. Constants and pure functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "config/options.h"

namespace peregrine::config {

// Sizes of messages travel as 31-bit integers in nats-server, so a peer could not name a larger one.
inline constexpr std::int64_t kLargestPayloadBytes = std::numeric_limits<std::int32_t>::max();
inline constexpr std::int64_t kLargestControlLineBytes = std::numeric_limits<std::int32_t>::max();
// Above this nats-server advises against it, and so do we: a warning.
inline constexpr std::int64_t kAdvisedPayloadBytes = 8 << 20;

// Routes, gateways and leaf nodes send longer lines: lists of peers and queue groups.
inline constexpr std::int64_t kPeerControlLineFactor = 16;

inline constexpr int kMostSubscriptionTokens = 255;
inline constexpr int kMostShards = 256;  // shard numbers fit a byte
inline constexpr int kMostCpus = 4096;
inline constexpr std::int64_t kSmallestRingBytes = 64 << 10;
inline constexpr std::int64_t kLargestRingBytes = 1 << 30;
inline constexpr std::int64_t kLongestSpinUs = 1'000'000;
inline constexpr Duration kShortestLameDuck = std::chrono::seconds(30);
inline constexpr Duration kDefaultAuthTimeout = std::chrono::seconds(2);
inline constexpr Duration kDefaultTlsTimeout = std::chrono::seconds(2);

static_assert(kSmallestRingBytes >= 4 * (1 << 10) && kLargestRingBytes % kSmallestRingBytes == 0);

// A record that carries an inline payload may fill at most a quarter of a ring, so that a ring never holds fewer than
// four.
constexpr std::int64_t largest_inline_payload_bytes(std::int64_t ring_bytes) { return ring_bytes / 4; }

inline std::int64_t peer_control_line_bytes(const Options& options) {
  return options.max_control_line * kPeerControlLineFactor;
}

inline Duration tls_timeout(const Tls& tls) { return tls.timeout.value_or(kDefaultTlsTimeout); }

// With TLS: clients may stay in clear. handshake_first without patience leaves them no choice.
inline bool allows_plain_clients(const Options& options) {
  if (!options.tls || !options.allow_non_tls) return false;
  return !options.tls->handshake_first || options.tls->handshake_first_fallback > Duration{0};
}

// How long a client or a server may take to send an acceptable CONNECT.
inline Duration auth_timeout(const Authorization& authorization, const std::optional<Tls>& tls) {
  if (authorization.timeout && *authorization.timeout > Duration{0}) return *authorization.timeout;
  return tls ? tls_timeout(*tls) + std::chrono::seconds(1) : kDefaultAuthTimeout;
}
inline Duration auth_timeout(const Options& options) { return auth_timeout(options.authorization, options.tls); }

// The monitoring listener binds where the client listener does unless told otherwise.
inline const std::string& monitoring_host(const Options& options) {
  return options.http_host.empty() ? options.host : options.http_host;
}

// True if a client has to present something: INFO's auth_required, before no_auth_user is considered.
inline bool needs_credentials(const Options& options) {
  const Authorization& authorization = options.authorization;
  return !authorization.user.empty() || !authorization.token.empty() || !authorization.users.empty() ||
         authorization.auth_callout || !options.accounts.empty() || !options.operators.empty() ||
         !options.trusted_keys.empty();
}

}  // namespace peregrine::config
