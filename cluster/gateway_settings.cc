#include "cluster/gateway_settings.h"

#include <fmt/format.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>

#include "config/limits.h"
#include "core/account.h"
#include "core/gateway_reply.h"

namespace peregrine::cluster {
namespace {

constexpr std::string_view kDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

std::array<unsigned char, SHA256_DIGEST_LENGTH> sha256(std::string_view text) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

}  // namespace

std::string gateway_hash(std::string_view name) {
  const auto digest = sha256(name);
  std::string text;
  for (size_t n = 0; n < core::kGatewayHashSize; ++n) text += kDigits[digest[n] % kDigits.size()];
  return text;
}

std::string old_gateway_hash(std::string_view name) {
  const auto digest = sha256(name);
  return fmt::format("{:02x}{:02x}", digest[0], digest[1]);
}

GatewaySettings::GatewaySettings(const config::Options& options, const std::string& server_id, PeerTls blocks)
    : name(options.gateway.name),
      cluster_hash(gateway_hash(name)),
      old_cluster_hash(old_gateway_hash(name)),
      server_hash(gateway_hash(server_id)),
      reply_prefix(fmt::format("{}{}.{}.", core::kGatewayReply, cluster_hash, server_hash)),
      old_reply_prefix(fmt::format("{}{}.", core::kOldGatewayReply, old_cluster_hash)),
      user(options.gateway.authorization.user),
      password(options.gateway.authorization.password),
      reject_unknown(options.gateway.reject_unknown_cluster),
      headers(!options.no_header_support),
      connect_retries(options.gateway.connect_retries),
      connect_backoff(options.gateway.connect_backoff),
      tls(std::move(blocks)) {
  const config::Gateway& gateway = options.gateway;
  if (gateway.tls && gateway.tls->verify_cert_and_check_known_urls) {
    known_urls.emplace();
    for (const config::RemoteGateway& each : gateway.gateways)
      known_urls->insert(known_urls->end(), each.urls.begin(), each.urls.end());
  }
  solicited.ping_interval_ns = options.ping_interval.count() > 0
                                   ? std::min<int64_t>(options.ping_interval.count(), kMostGatewayPingNs)
                                   : kMostGatewayPingNs;
  solicited.ping_max = options.ping_max;
  solicited.write_deadline_ns =
      gateway.write_deadline.count() > 0 ? gateway.write_deadline.count() : options.write_deadline.count();
  solicited.close_on_write_deadline = gateway.write_timeout == config::WriteTimeout::kClose;
  accepted = solicited;
  accepted.auth_timeout_ns = config::auth_timeout(gateway.authorization, gateway.tls).count();
}

const PeerTls::Block& GatewaySettings::tls_towards(std::string_view gateway) const {
  const auto own = tls.remote_gateways.find(gateway);
  return own == tls.remote_gateways.end() ? tls.gateways : own->second;
}

bool GatewaySettings::knows(std::string_view account) const { return account == core::kGlobalAccountName; }

}  // namespace peregrine::cluster
