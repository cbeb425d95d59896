#include "net/control/monitor_rows.h"

#include <algorithm>
#include <map>

#include "core/account.h"
#include "core/go_format.h"

namespace peregrine::net::control {

using core::ConnRow;

void add(core::Traffic& sum, const core::Traffic& part) {
  sum.in_msgs += part.in_msgs;
  sum.in_bytes += part.in_bytes;
  sum.out_msgs += part.out_msgs;
  sum.out_bytes += part.out_bytes;
}

void add(core::KindCounts& sum, const core::KindCounts& part) {
  sum.clients += part.clients;
  sum.routes += part.routes;
  sum.gateways += part.gateways;
  sum.leafs += part.leafs;
}

void add(MergedAccount& sum, const core::SublistStats& part) {
  sum.sublist.num_subscriptions += part.num_subscriptions;
  sum.sublist.num_cache += part.num_cache;
  sum.sublist.num_inserts += part.num_inserts;
  sum.sublist.num_removes += part.num_removes;
  sum.sublist.num_matches += part.num_matches;
  sum.sublist.cache_hits += part.cache_hits;
  sum.sublist.max_fanout = std::max(sum.sublist.max_fanout, part.max_fanout);
  sum.sublist.memory_bytes += part.memory_bytes;
  sum.fanout += part.avg_fanout * static_cast<double>(part.num_cache);
}

std::vector<std::pair<std::string, MergedAccount>> merge_accounts(const std::vector<core::ShardSnapshot>& shards,
                                                                  std::string_view only) {
  std::map<std::string, MergedAccount> accounts;
  for (const core::ShardSnapshot& shard : shards) {
    for (const core::AccountSnapshot& account : shard.accounts) {
      if (!only.empty() && account.name != only) continue;
      MergedAccount& sum = accounts[account.name];
      sum.connections += account.connections;
      sum.leafnodes += account.leafnodes;
      sum.total_connections += account.total_connections;
      sum.slow_consumers += account.slow_consumers;
      add(sum.traffic, account.traffic);
      add(sum, account.sublist);
    }
  }
  return {accounts.begin(), accounts.end()};
}

void put_sublist_stats(Json& json, const MergedAccount& account) {
  const core::SublistStats& stats = account.sublist;
  json["num_subscriptions"] = stats.num_subscriptions;
  json["num_cache"] = stats.num_cache;
  json["num_inserts"] = stats.num_inserts;
  json["num_removes"] = stats.num_removes;
  json["num_matches"] = stats.num_matches;
  json["cache_hit_rate"] =
      stats.num_matches == 0
          ? Json(0)
          : go_number(static_cast<double>(stats.cache_hits) / static_cast<double>(stats.num_matches));
  json["max_fanout"] = stats.max_fanout;
  json["avg_fanout"] =
      stats.num_cache == 0 ? Json(0) : go_number(account.fanout / static_cast<double>(stats.num_cache));
}

Json sub_detail(const core::SubRow& sub, const std::string& account) {
  Json json = Json::object();
  put_unless_empty(json, "account", account);
  put_unless_empty(json, "account_tag", account);
  json["subject"] = sub.subject;
  put_unless_empty(json, "qgroup", sub.queue);
  json["sid"] = sub.sid;
  json["msgs"] = sub.msgs;
  put_unless_empty(json, "max", sub.max);
  json["cid"] = sub.cid;
  return json;
}

Json connection_row(const ConnRow& row, int64_t now_ns, bool auth, MonitorParams::Subs subs) {
  const bool closed = row.stop_ns != 0;
  const int64_t until_ns = closed ? row.stop_ns : now_ns;
  Json json = Json::object();
  json["cid"] = row.cid;
  put_unless_empty(json, "kind", row.kind);
  put_unless_empty(json, "type", row.type);
  json["ip"] = row.ip;
  json["port"] = row.port;
  json["start"] = core::format_time(row.start_ns);
  json["last_activity"] = core::format_time(row.last_activity_ns);
  if (closed) json["stop"] = core::format_time(row.stop_ns);
  put_unless_empty(json, "reason", row.reason);
  json["rtt"] = rtt_text(row.rtt_ns);
  json["uptime"] = core::format_uptime(std::max<int64_t>(0, until_ns - row.start_ns));
  json["idle"] = core::format_uptime(std::max<int64_t>(0, until_ns - row.last_activity_ns));
  json["pending_bytes"] = row.pending_bytes;
  json["in_msgs"] = row.traffic.in_msgs;
  json["out_msgs"] = row.traffic.out_msgs;
  json["in_bytes"] = row.traffic.in_bytes;
  json["out_bytes"] = row.traffic.out_bytes;
  put_unless_empty(json, "stalls", row.stalls);
  json["subscriptions"] = row.subscriptions;
  // What a connection has said of itself in CONNECT: a hub that we connected to has said nothing.
  if (row.kind != "Leafnode" || !row.version.empty()) put_unless_empty(json, "name", row.name);
  put_unless_empty(json, "lang", row.lang);
  put_unless_empty(json, "version", row.version);
  put_unless_empty(json, "tls_version", row.tls_version);
  put_unless_empty(json, "tls_cipher_suite", row.tls_cipher_suite);
  if (auth && !row.tls_peer_certs.empty()) {
    Json& certs = json["tls_peer_certs"] = Json::array();
    for (const core::TlsPeerCert& cert : row.tls_peer_certs) {
      Json& entry = certs.emplace_back(Json::object());
      put_unless_empty(entry, "subject", cert.subject);
      put_unless_empty(entry, "spki_sha256", cert.spki_sha256);
      put_unless_empty(entry, "cert_sha256", cert.cert_sha256);
    }
  }
  put_unless_empty(json, "tls_first", row.tls_first);
  if (auth) {
    put_unless_empty(json, "authorized_user", row.authorized_user);
    if (row.account != core::kGlobalAccountName) put_unless_empty(json, "account", row.account);
  }
  if (subs.detail && !row.subs.empty()) {
    Json& list = json["subscriptions_list_detail"] = Json::array();
    // nats-server names the account in the details of closed connections only.
    for (const core::SubRow& sub : row.subs) list.push_back(sub_detail(sub, closed ? row.account : ""));
  } else if (subs.list && !row.subs.empty()) {
    Json& list = json["subscriptions_list"] = Json::array();
    for (const core::SubRow& sub : row.subs) list.push_back(sub.subject);
  }
  if (auth) {
    put_unless_empty(json, "jwt", row.jwt);
    put_unless_empty(json, "issuer_key", row.issuer_key);
    // An account without a tag is tagged with its name; of closed connections nats-server leaves that out for the
    // global one.
    if (!closed || row.account != core::kGlobalAccountName) {
      put_unless_empty(json, "name_tag", row.name_tag.empty() ? row.account : row.name_tag);
    }
    put_unless_empty(json, "tags", row.tags);
  }
  put_unless_empty(json, "mqtt_client", row.mqtt_client);
  if (!row.proxy_key.empty()) json["proxy"] = {{"key", row.proxy_key}};
  return json;
}

}  // namespace peregrine::net::control
