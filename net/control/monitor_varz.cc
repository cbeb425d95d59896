// /varz.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "config/limits.h"
#include "core/account.h"
#include "core/go_format.h"
#include "net/control/monitor_answers.h"
#include "net/control/monitor_rows.h"
#include "net/socket.h"
#include "net/tls/context.h"

namespace peregrine::net::control {
namespace {

constexpr int kDefaultLeafPort = 7422;

// Of a listener that is secured, or could be.
void put_tls(Json& json, const std::optional<config::Tls>& tls, bool verify) {
  json["tls_timeout"] = go_seconds(tls ? config::tls_timeout(*tls) : config::kDefaultTlsTimeout);
  put_unless_empty(json, "tls_required", tls.has_value());
  put_unless_empty(json, "tls_verify", tls.has_value() && verify);
}

void put_not_after(Json& json, const tls::Context* tls) {
  const int64_t not_after_ns = tls == nullptr ? 0 : tls->not_after_ns();
  if (not_after_ns != 0) json["tls_cert_not_after"] = core::format_time(not_after_ns);
}

Json cluster_detail(const ServerFacts& facts) {
  const config::Cluster& cluster = facts.options->cluster;
  Json json = Json::object();
  put_unless_empty(json, "name", facts.cluster_name);
  if (facts.cluster_port == 0) return json;
  json["addr"] = cluster.host.empty() ? config::kDefaultHost : cluster.host;
  json["cluster_port"] = facts.cluster_port;
  json["auth_timeout"] = go_seconds(config::auth_timeout(cluster.authorization, cluster.tls));
  std::vector<std::string> urls;
  for (const config::Url& url : cluster.routes) urls.push_back(fmt::format("{}:{}", url.host, url.port));
  put_unless_empty(json, "urls", urls);
  put_tls(json, cluster.tls, true);
  json["pool_size"] = cluster.pool_size == 0 ? 3 : cluster.pool_size;
  put_unless_empty(json, "write_deadline", cluster.write_deadline.count());
  put_write_timeout(json, cluster.write_timeout);
  put_not_after(json, facts.cluster_tls.get());
  return json;
}

Json gateway_options(const ServerFacts& facts) {
  const config::Gateway& gateway = facts.options->gateway;
  Json json = Json::object();
  if (facts.gateway_port == 0) return json;
  json["name"] = gateway.name;
  json["host"] = gateway.host.empty() ? config::kDefaultHost : gateway.host;
  json["port"] = facts.gateway_port;
  json["auth_timeout"] = go_seconds(config::auth_timeout(gateway.authorization, gateway.tls));
  put_tls(json, gateway.tls, true);
  put_unless_empty(json, "advertise", gateway.advertise);
  put_unless_empty(json, "connect_retries", gateway.connect_retries);
  for (const config::RemoteGateway& remote : gateway.gateways) {
    Json each = Json::object();
    each["name"] = remote.name;
    if (remote.tls && remote.tls->timeout) each["tls_timeout"] = go_seconds(*remote.tls->timeout);
    for (const config::Url& url : remote.urls) each["urls"].push_back(fmt::format("{}:{}", url.host, url.port));
    json["gateways"].push_back(std::move(each));
  }
  put_unless_empty(json, "reject_unknown", gateway.reject_unknown_cluster);
  put_unless_empty(json, "write_deadline", gateway.write_deadline.count());
  put_write_timeout(json, gateway.write_timeout);
  put_not_after(json, facts.gateway_tls.get());
  return json;
}

Json kind_counts(const core::KindCounts& counts) {
  return {
      {"clients", counts.clients}, {"routes", counts.routes}, {"gateways", counts.gateways}, {"leafs", counts.leafs}};
}

// The "leaf" of /varz.
Json leaf_options(const ServerFacts& facts) {
  const config::LeafNodes& options = facts.options->leafnodes;
  Json json = Json::object();
  if (facts.leaf_port != 0) {
    json["host"] = options.host.empty() ? std::string(config::kDefaultHost) : options.host;
    json["port"] = facts.leaf_port;
    json["auth_timeout"] = go_seconds(config::auth_timeout(options.authorization, options.tls));
    put_tls(json, options.tls, options.tls && options.tls->verify);
    put_not_after(json, facts.leaf_tls.get());
  }
  put_unless_empty(json, "write_deadline", options.write_deadline.count());
  put_write_timeout(json, options.write_timeout);
  if (options.remotes.empty()) return json;
  Json& remotes = json["remotes"] = Json::array();
  for (const config::RemoteLeaf& remote : options.remotes) {
    Json& entry = remotes.emplace_back(Json::object());
    entry["local_account"] = remote.account.empty() ? std::string(core::kGlobalAccountName) : remote.account;
    if (remote.tls) entry["tls_timeout"] = go_seconds(config::tls_timeout(*remote.tls));
    Json& urls = entry["urls"] = Json::array();
    for (const config::Url& url : remote.urls) {
      urls.push_back(host_and_port(url.host, url.port == 0 ? kDefaultLeafPort : url.port));
    }
    if (remote.deny_imports.empty() && remote.deny_exports.empty()) continue;
    Json& deny = entry["deny"] = Json::object();
    put_unless_empty(deny, "exports", remote.deny_exports);
    put_unless_empty(deny, "imports", remote.deny_imports);
  }
  return json;
}

Json shard_detail(const core::ShardSnapshot& shard) {
  uint64_t subscriptions = 0, index_bytes = 0;
  for (const core::AccountSnapshot& account : shard.accounts) {
    subscriptions += account.sublist.num_subscriptions;
    index_bytes += account.sublist.memory_bytes;
  }
  Json json = Json::object();
  json["shard"] = shard.shard;
  json["cpu"] = shard.cpu;
  json["connections"] = shard.connections;
  json["subscriptions"] = subscriptions;
  json["in_msgs"] = shard.traffic.in_msgs;
  json["in_bytes"] = shard.traffic.in_bytes;
  json["out_msgs"] = shard.traffic.out_msgs;
  json["out_bytes"] = shard.traffic.out_bytes;
  json["moved_in"] = shard.moved_in;
  json["moved_out"] = shard.moved_out;
  json["turns"] = shard.turns;
  json["parks"] = shard.parks;
  json["longest_turn_us"] = shard.longest_turn_ns / 1000;
  json["long_turns"] = shard.long_turns;
  Json& lengths = json["turns_shorter_than_us"] = Json::object();
  for (size_t n = 0; n < shard.turn_lengths.size(); ++n) {
    if (shard.turn_lengths[n] != 0) lengths[std::to_string(uint64_t{1} << n)] = shard.turn_lengths[n];
  }
  json["pending_bytes"] = shard.pending_bytes;
  json["buffer_bytes"] = shard.buffer_bytes;
  json["index_bytes"] = index_bytes;
  json["rings"] = {{"records_in", shard.rings.records_in},       {"records_out", shard.rings.records_out},
                   {"bytes_in", shard.rings.bytes_in},           {"bytes_out", shard.rings.bytes_out},
                   {"overflows", shard.rings.overflows},         {"overflow_pending", shard.rings.overflow_pending},
                   {"held_sessions", shard.rings.held_sessions}, {"repicks", shard.rings.repicks},
                   {"vanished", shard.rings.vanished},           {"wakeups", shard.rings.wakeups}};
  return json;
}

}  // namespace

HttpAnswer answer_varz(MonitorSource& source, const MonitorNumbers& numbers) {
  const std::vector<core::ShardSnapshot> shards = source.shards();
  const ServerFacts facts = source.facts();
  const config::Options& options = *facts.options;

  uint64_t connections = 0, total_connections = 0, stalled = 0, subscriptions = 0, leafnodes = 0;
  core::Traffic traffic, client_traffic;
  core::KindCounts slow, stale;
  for (const core::ShardSnapshot& shard : shards) {
    connections += shard.connections;
    total_connections += shard.total_connections;
    stalled += shard.stalled_clients;
    add(traffic, shard.traffic);
    add(client_traffic, shard.client_traffic);
    add(slow, shard.slow_consumers);
    add(stale, shard.stale_connections);
    for (const core::AccountSnapshot& account : shard.accounts) {
      subscriptions += account.sublist.num_subscriptions;
      leafnodes += account.leafnodes;
    }
  }

  const config::Duration tls_timeout =
      options.tls ? options.tls->timeout.value_or(std::chrono::seconds(2)) : config::Duration(std::chrono::seconds(2));
  const config::Duration auth_timeout = options.authorization.timeout.value_or(
      options.tls ? tls_timeout + std::chrono::seconds(1) : config::Duration(std::chrono::seconds(2)));

  Json json = Json::object();
  json["server_id"] = facts.server_id;
  json["server_name"] = facts.server_name;
  json["version"] = facts.version;
  json["proto"] = facts.proto;
  put_unless_empty(json, "git_commit", facts.git_commit);
  json["go"] = facts.go;
  json["host"] = facts.host;
  json["port"] = facts.port;
  put_unless_empty(json, "auth_required", facts.auth_required);
  put_unless_empty(json, "tls_required", facts.tls_required);
  put_unless_empty(json, "tls_verify", facts.tls_verify);
  put_unless_empty(json, "ip", facts.ip);
  put_unless_empty(json, "connect_urls", facts.connect_urls);
  put_unless_empty(json, "ws_connect_urls", facts.ws_connect_urls);
  json["max_connections"] = options.max_connections;
  put_unless_empty(json, "max_subscriptions", options.max_subscriptions);
  json["ping_interval"] = options.ping_interval.count();
  json["ping_max"] = options.ping_max;
  json["http_host"] = options.http_host.empty() ? options.host : options.http_host;
  json["http_port"] = options.http_port;
  json["http_base_path"] = options.http_base_path;
  json["https_port"] = options.https_port;
  json["auth_timeout"] = go_seconds(auth_timeout);
  json["max_control_line"] = options.max_control_line;
  json["max_payload"] = options.max_payload;
  json["max_pending"] = options.max_pending;
  json["cluster"] = cluster_detail(facts);
  json["gateway"] = gateway_options(facts);
  for (const char* section : {"leaf", "mqtt", "websocket", "jetstream"}) json[section] = Json::object();
  if (options.leafnodes.defined) json["leaf"] = leaf_options(facts);
  json["tls_timeout"] = go_seconds(tls_timeout);
  json["write_deadline"] = options.write_deadline.count();
  put_write_timeout(json, options.write_timeout);
  json["start"] = core::format_time(facts.start_ns);
  json["now"] = core::format_time(numbers.now_ns);
  json["uptime"] = core::format_uptime(std::max<int64_t>(0, numbers.now_ns - facts.start_ns));
  json["mem"] = numbers.resident_bytes;
  json["cores"] = facts.cores;
  json["gomaxprocs"] = facts.shards;
  json["cpu"] = go_number(numbers.cpu_percent);
  json["connections"] = connections;
  json["total_connections"] = total_connections;
  const std::vector<core::RouteRow> routes = source.routes(false);
  std::set<std::string> remotes;
  for (const core::RouteRow& route : routes) remotes.insert(route.remote_id);
  json["routes"] = routes.size();
  json["remotes"] = remotes.size();
  json["leafnodes"] = leafnodes;
  json["in_msgs"] = traffic.in_msgs;
  json["in_bytes"] = traffic.in_bytes;
  json["in_client_msgs"] = client_traffic.in_msgs;
  json["in_client_bytes"] = client_traffic.in_bytes;
  json["out_msgs"] = traffic.out_msgs;
  json["out_bytes"] = traffic.out_bytes;
  json["out_client_msgs"] = client_traffic.out_msgs;
  json["out_client_bytes"] = client_traffic.out_bytes;
  json["slow_consumers"] = slow.total();
  json["stale_connections"] = stale.total();
  json["stalled_clients"] = stalled;
  json["subscriptions"] = subscriptions;
  json["http_req_stats"] = Json::object();
  for (const auto& [path, count] : numbers.requests) json["http_req_stats"][path] = count;
  json["config_load_time"] = core::format_time(facts.config_load_ns);
  json["config_digest"] = options.config_digest;
  put_unless_empty(json, "tags", options.server_tags);
  put_unless_empty(json, "metadata", options.server_metadata);
  put_unless_empty(json, "feature_flags", options.feature_flags);
  put_unless_empty(json, "system_account", facts.system_account);
  json["slow_consumer_stats"] = kind_counts(slow);
  json["stale_connection_stats"] = kind_counts(stale);
  put_not_after(json, facts.client_tls.get());
  json["disk_io_wait_stats"] = {{"waiters", 0}, {"waits", 0}, {"wait_time", 0}, {"max_wait_time", 0}};

  Json& own = json["peregrine"] = Json::object();
  own["version"] = facts.peregrine_version;
  own["backend"] = facts.backend;
  own["shards"] = facts.shards;
  own["cores"] = facts.cores;
  own["log_lines_dropped"] = facts.log_lines_dropped;
  if (facts.describe_backend) own[facts.backend] = Json::parse(facts.describe_backend(), nullptr, false);
  own["shard_stats"] = Json::array();
  for (const core::ShardSnapshot& shard : shards) own["shard_stats"].push_back(shard_detail(shard));
  return json_answer(json);
}

}  // namespace peregrine::net::control
