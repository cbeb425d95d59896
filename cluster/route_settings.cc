#include "cluster/route_settings.h"

#include <algorithm>

#include "config/limits.h"
#include "core/account.h"

namespace peregrine::cluster {
namespace {

constexpr int kDefaultPoolSize = 3;
constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kLongestPingNs = 30 * kSecondNs;

PeerClocks clocks(const config::Options& options) {
  const config::Cluster& cluster = options.cluster;
  PeerClocks clocks;
  clocks.ping_interval_ns = (cluster.ping_interval.count() > 0 ? cluster.ping_interval : options.ping_interval).count();
  clocks.ping_interval_ns = std::min(clocks.ping_interval_ns, kLongestPingNs);
  clocks.ping_max = cluster.ping_max > 0 ? cluster.ping_max : static_cast<int>(options.ping_max);
  clocks.write_deadline_ns =
      (cluster.write_deadline.count() > 0 ? cluster.write_deadline : options.write_deadline).count();
  clocks.close_on_write_deadline = cluster.write_timeout == config::WriteTimeout::kClose;
  return clocks;
}

}  // namespace

uint32_t account_hash(std::string_view account) {
  uint32_t hash = 2166136261u;
  for (const char c : account) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

RouteSettings::RouteSettings(const config::Options& options, PeerTls::Block block, int shards)
    : configured_pool_size(options.cluster.pool_size == 0 ? kDefaultPoolSize : options.cluster.pool_size),
      shards(options.cluster.pool_size == 0 ? std::clamp(shards, 1, kMostPoolSize) : 1),
      own_route(options.cluster.accounts),
      compression(options.cluster.compression.mode.empty() ? "accept" : options.cluster.compression.mode),
      accepted(clocks(options)),
      solicited(accepted),
      user(options.cluster.authorization.user),
      password(options.cluster.authorization.password),
      headers(!options.no_header_support),
      tls(std::move(block)) {
  if (options.cluster.tls && options.cluster.tls->verify_cert_and_check_known_urls) known_urls = options.cluster.routes;
  if (pooled() && !pinned(kSystemAccountName)) own_route.emplace_back(kSystemAccountName);
  for (const config::Duration each : options.cluster.compression.rtt_thresholds)
    rtt_thresholds_ns.push_back(each.count());
  if (rtt_thresholds_ns.empty()) rtt_thresholds_ns = {10'000'000, 50'000'000, 100'000'000};
  // Only with credentials to wait for; garbage before CONNECT is refused at once anyway, silence by the stale watch.
  if (!user.empty()) {
    accepted.auth_timeout_ns = config::auth_timeout(options.cluster.authorization, options.cluster.tls).count();
  }
  // Old files have them inside the authorization block.
  const auto& old_place = options.cluster.authorization.default_permissions;
  if (const auto& given = options.cluster.permissions ? options.cluster.permissions : old_place) {
    import_subjects = given->publish;
    export_subjects = given->subscribe;
    permissions = std::make_shared<const core::Permissions>(*given);
  }
}

int RouteSettings::pool_index(std::string_view account, int size) {
  return size <= 1 ? 0 : static_cast<int>(account_hash(account) % static_cast<uint32_t>(size));
}

bool RouteSettings::pinned(std::string_view account) const {
  return std::find(own_route.begin(), own_route.end(), account) != own_route.end();
}

bool RouteSettings::knows(std::string_view account) const {
  return account == core::kGlobalAccountName || account == kSystemAccountName || pinned(account);
}

}  // namespace peregrine::cluster
