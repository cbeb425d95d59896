#include "net/control/monitor_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string_view>

#include "config/limits.h"
#include "core/go_format.h"
#include "net/control/conn_order.h"
#include "net/socket.h"

namespace peregrine::net::control {
namespace {

using core::ConnRow;
using core::ConnSort;
using core::ConnState;
using Json = nlohmann::ordered_json;

constexpr int64_t kDefaultLimit = 1024;
constexpr std::string_view kGlobalAccount = "$G";
constexpr int kDefaultLeafPort = 7422;

// ---- JSON as Go writes it

// Go prints 2.0 as 2.
Json number(double value) {
  if (std::nearbyint(value) == value && std::abs(value) < 9e15) return static_cast<int64_t>(value);
  return value;
}

Json seconds(config::Duration duration) { return number(static_cast<double>(duration.count()) / 1e9); }

template <class Value>
void put_unless_empty(Json& object, const char* key, const Value& value) {
  if (value != Value{}) object[key] = value;
}

// indent < 0 = on one line. Go escapes what HTML could take for markup; inside JSON those bytes occur in strings only.
std::string to_text(const Json& json, int indent) {
  const std::string raw = json.dump(indent, ' ', false, Json::error_handler_t::replace);
  std::string text;
  text.reserve(raw.size() + raw.size() / 32);
  for (size_t i = 0; i < raw.size(); ++i) {
    switch (raw[i]) {
      case '<':
        text += "\\u003c";
        break;
      case '>':
        text += "\\u003e";
        break;
      case '&':
        text += "\\u0026";
        break;
      case '\xE2':
        if (raw.compare(i, 3, "\u2028") == 0 || raw.compare(i, 3, "\u2029") == 0) {
          text += raw[i + 2] == '\xA8' ? "\\u2028" : "\\u2029";
          i += 2;
        } else {
          text += raw[i];
        }
        break;
      default:
        text += raw[i];
    }
  }
  return text;
}

HttpAnswer json_answer(const Json& json, int status = 200, int indent = 2) {
  return {status, to_text(json, indent), "application/json", {{"Access-Control-Allow-Origin", "*"}}};
}

// ---- parameters

// Reads parameters one after the other; after the first bad one every further read is skipped and `error` says why.
class Params {
 public:
  explicit Params(const HttpRequest& request) : request_(request) {}

  bool boolean(const char* name) {
    const std::string_view text = request_.param(name);
    if (failed() || text.empty()) return false;
    for (const char* yes : {"1", "t", "T", "TRUE", "true", "True"}) {
      if (text == yes) return true;
    }
    for (const char* no : {"0", "f", "F", "FALSE", "false", "False"}) {
      if (text == no) return false;
    }
    fail("boolean", name, "ParseBool", text, "invalid syntax");
    return false;
  }

  int64_t integer(const char* name) {
    const std::string_view text = request_.param(name);
    const std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
    return digits.starts_with('-') && text.starts_with('+') ? bad_number<int64_t>(name, "int", "Atoi", text)
                                                            : parse<int64_t>(name, "int", "Atoi", text, digits);
  }
  uint64_t unsigned_integer(const char* name) {
    const std::string_view text = request_.param(name);
    return parse<uint64_t>(name, "uint64", "ParseUint", text, text);
  }

  // `subs` of /connz and others: a boolean or the word detail.
  struct Subs {
    bool list = false, detail = false;
  };
  Subs subs() {
    if (lower(request_.param("subs")) == "detail") return {false, true};
    return {boolean("subs"), false};
  }

  ConnState state() {
    const std::string text = lower(request_.param("state"));
    if (failed() || text.empty() || text == "open") return ConnState::kOpen;
    if (text == "closed") return ConnState::kClosed;
    if (text == "any" || text == "all") return ConnState::kAll;
    error_ = fmt::format("Error decoding state for {}", request_.param("state"));
    return ConnState::kOpen;
  }

  bool failed() const { return !error_.empty(); }
  HttpAnswer answer() const { return plain_answer(400, error_); }

 private:
  static std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    }
    return out;
  }

  void fail(const char* type, const char* name, const char* function, std::string_view text, const char* why) {
    error_ = fmt::format("Error decoding {} for '{}': strconv.{}: parsing {}: {}", type, name, function,
                         core::quote(text), why);
  }

  template <class Number>
  Number bad_number(const char* name, const char* type, const char* function, std::string_view text) {
    if (!failed()) fail(type, name, function, text, "invalid syntax");
    return 0;
  }

  template <class Number>
  Number parse(const char* name, const char* type, const char* function, std::string_view text,
               std::string_view digits) {
    if (failed() || text.empty()) return 0;
    Number value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error == std::errc::invalid_argument || end != digits.data() + digits.size()) {
      return bad_number<Number>(name, type, function, text);
    }
    if (error == std::errc::result_out_of_range) {
      fail(type, name, function, text, "value out of range");
      return 0;
    }
    return value;
  }

  const HttpRequest& request_;
  std::string error_;
};

std::optional<ConnSort> parse_sort(std::string_view text) {
  static constexpr std::pair<std::string_view, ConnSort> kSorts[] = {
      {"", ConnSort::kCid},
      {"cid", ConnSort::kCid},
      {"start", ConnSort::kStart},
      {"subs", ConnSort::kSubs},
      {"pending", ConnSort::kPending},
      {"msgs_to", ConnSort::kMsgsTo},
      {"msgs_from", ConnSort::kMsgsFrom},
      {"bytes_to", ConnSort::kBytesTo},
      {"bytes_from", ConnSort::kBytesFrom},
      {"last", ConnSort::kLast},
      {"idle", ConnSort::kIdle},
      {"uptime", ConnSort::kUptime},
      {"stop", ConnSort::kStop},
      {"reason", ConnSort::kReason},
      {"rtt", ConnSort::kRtt},
  };
  for (const auto& [name, sort] : kSorts) {
    if (name == text) return sort;
  }
  return std::nullopt;
}

// A subject somebody can publish to: no empty token, no wildcard.
bool is_literal_subject(std::string_view subject) {
  for (size_t begin = 0; begin <= subject.size();) {
    const size_t end = std::min(subject.find('.', begin), subject.size());
    const std::string_view token = subject.substr(begin, end - begin);
    if (token.empty() || token == "*" || token == ">") return false;
    begin = end + 1;
  }
  return true;
}

// The part of a list from `offset`, `limit` long, as far as it exists.
template <class Row>
std::span<const Row> page(const std::vector<Row>& rows, int64_t offset, int64_t limit) {
  const size_t begin = std::min(rows.size(), static_cast<size_t>(offset));
  return std::span(rows).subspan(begin, std::min(rows.size() - begin, static_cast<size_t>(limit)));
}

size_t rows_needed(int64_t offset, int64_t limit) { return static_cast<size_t>(offset) + static_cast<size_t>(limit); }

void put_write_timeout(Json& json, config::WriteTimeout policy) {
  if (policy == config::WriteTimeout::kClose) json["write_timeout"] = "close";
  if (policy == config::WriteTimeout::kRetry) json["write_timeout"] = "retry";
}

// ---- merging shards

struct MergedAccount {
  uint64_t connections = 0, leafnodes = 0, total_connections = 0, slow_consumers = 0;
  core::Traffic traffic;
  core::SublistStats sublist;
  double fanout = 0;  // sum over all cached results
};

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

// In the order of their names. `only` = "" for all.
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
  json["cache_hit_rate"] = stats.num_matches == 0
                               ? Json(0)
                               : number(static_cast<double>(stats.cache_hits) / static_cast<double>(stats.num_matches));
  json["max_fanout"] = stats.max_fanout;
  json["avg_fanout"] = stats.num_cache == 0 ? Json(0) : number(account.fanout / static_cast<double>(stats.num_cache));
}

// ---- rows

// `account` "" = leave it out.
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

// nats-server shows round trips below a millisecond in whole microseconds.
std::string rtt_text(int64_t rtt_ns) {
  return core::format_duration(rtt_ns > 1'000 && rtt_ns < 1'000'000 ? rtt_ns / 1000 * 1000 : rtt_ns);
}

Json connection(const ConnRow& row, int64_t now_ns, bool auth, Params::Subs subs) {
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
    if (row.account != kGlobalAccount) put_unless_empty(json, "account", row.account);
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
    if (!closed || row.account != kGlobalAccount) {
      put_unless_empty(json, "name_tag", row.name_tag.empty() ? row.account : row.name_tag);
    }
    put_unless_empty(json, "tags", row.tags);
  }
  put_unless_empty(json, "mqtt_client", row.mqtt_client);
  if (!row.proxy_key.empty()) json["proxy"] = {{"key", row.proxy_key}};
  return json;
}

// Of a listener that is secured, or could be.
void put_tls(Json& json, const std::optional<config::Tls>& tls, bool verify) {
  json["tls_timeout"] = seconds(tls ? config::tls_timeout(*tls) : config::kDefaultTlsTimeout);
  put_unless_empty(json, "tls_required", tls.has_value());
  put_unless_empty(json, "tls_verify", tls.has_value() && verify);
}

void put_not_after(Json& json, int64_t not_after_ns) {
  if (not_after_ns != 0) json["tls_cert_not_after"] = core::format_time(not_after_ns);
}

Json cluster_detail(const ServerFacts& facts) {
  const config::Cluster& cluster = facts.options->cluster;
  Json json = Json::object();
  if (facts.cluster_port == 0) return json;
  put_unless_empty(json, "name", facts.cluster_name);
  json["addr"] = cluster.host.empty() ? config::kDefaultHost : cluster.host;
  json["cluster_port"] = facts.cluster_port;
  json["auth_timeout"] = seconds(config::auth_timeout(cluster.authorization, cluster.tls));
  std::vector<std::string> urls;
  for (const config::Url& url : cluster.routes) urls.push_back(fmt::format("{}:{}", url.host, url.port));
  put_unless_empty(json, "urls", urls);
  put_tls(json, cluster.tls, true);
  json["pool_size"] = cluster.pool_size == 0 ? 3 : cluster.pool_size;
  put_unless_empty(json, "write_deadline", cluster.write_deadline.count());
  put_write_timeout(json, cluster.write_timeout);
  put_not_after(json, facts.cluster_cert_not_after_ns);
  return json;
}

void put_subjects(Json& json, const char* name, const std::optional<config::SubjectPermission>& subjects) {
  if (!subjects) return;
  Json& to = json[name] = Json::object();
  if (subjects->allow && !subjects->allow->empty()) to["allow"] = *subjects->allow;
  if (!subjects->deny.empty()) to["deny"] = subjects->deny;
}

Json route_detail(const core::RouteRow& route, const Params::Subs& subs, int64_t now_ns) {
  const core::ConnRow& conn = route.conn;
  Json json = Json::object();
  json["rid"] = conn.cid;
  json["remote_id"] = route.remote_id;
  json["remote_name"] = route.remote_name;
  json["did_solicit"] = route.did_solicit;
  json["is_configured"] = route.is_configured;
  json["ip"] = conn.ip;
  json["port"] = conn.port;
  json["start"] = core::format_time(conn.start_ns);
  json["last_activity"] = core::format_time(conn.last_activity_ns);
  json["rtt"] = rtt_text(conn.rtt_ns);
  json["uptime"] = core::format_uptime(std::max<int64_t>(0, now_ns - conn.start_ns));
  json["idle"] = core::format_uptime(std::max<int64_t>(0, now_ns - conn.last_activity_ns));
  put_subjects(json, "import", route.import_subjects);
  put_subjects(json, "export", route.export_subjects);
  json["pending_size"] = conn.pending_bytes;
  json["in_msgs"] = conn.traffic.in_msgs;
  json["out_msgs"] = conn.traffic.out_msgs;
  json["in_bytes"] = conn.traffic.in_bytes;
  json["out_bytes"] = conn.traffic.out_bytes;
  json["subscriptions"] = conn.subscriptions;
  for (const core::SubRow& sub : conn.subs) {
    if (subs.detail) json["subscriptions_list_detail"].push_back(sub_detail(sub, sub.account));
    else json["subscriptions_list"].push_back(sub.subject);
  }
  put_unless_empty(json, "account", route.account);
  put_unless_empty(json, "compression", route.compression);
  return json;
}

Json gateway_options(const ServerFacts& facts) {
  const config::Gateway& gateway = facts.options->gateway;
  Json json = Json::object();
  if (facts.gateway_port == 0) return json;
  json["name"] = gateway.name;
  json["host"] = gateway.host.empty() ? config::kDefaultHost : gateway.host;
  json["port"] = facts.gateway_port;
  json["auth_timeout"] = seconds(config::auth_timeout(gateway.authorization, gateway.tls));
  put_tls(json, gateway.tls, true);
  put_unless_empty(json, "advertise", gateway.advertise);
  put_unless_empty(json, "connect_retries", gateway.connect_retries);
  for (const config::RemoteGateway& remote : gateway.gateways) {
    Json each = Json::object();
    each["name"] = remote.name;
    if (remote.tls && remote.tls->timeout) each["tls_timeout"] = seconds(*remote.tls->timeout);
    for (const config::Url& url : remote.urls) each["urls"].push_back(fmt::format("{}:{}", url.host, url.port));
    json["gateways"].push_back(std::move(each));
  }
  put_unless_empty(json, "reject_unknown", gateway.reject_unknown_cluster);
  put_unless_empty(json, "write_deadline", gateway.write_deadline.count());
  put_write_timeout(json, gateway.write_timeout);
  put_not_after(json, facts.gateway_cert_not_after_ns);
  return json;
}

Json gateway_detail(const core::GatewayRow& row, const core::GatewayzQuery& query, const Params::Subs& subs,
                    int64_t now_ns) {
  constexpr int kInterestOnlyThreshold = 1000;  // as nats-server shows it
  Json json = Json::object();
  json["configured"] = row.is_configured;
  json["connection"] = connection(row.conn, now_ns, false, {});
  if (!query.accounts) return json;
  for (const core::GatewayRow::AccountRow& account : row.accounts) {
    Json each = Json::object();
    each["name"] = account.name;
    each["interest_mode"] = account.mode;
    each["interest_only_threshold"] = kInterestOnlyThreshold;
    if (row.outbound) {
      put_unless_empty(each, "num_subs", account.subscriptions);
      put_unless_empty(each, "num_queue_subs", account.queue_subscriptions);
    }
    for (const core::SubRow& sub : account.subs) {
      if (subs.detail) each["subscriptions_list_detail"].push_back(sub_detail(sub, ""));
      else each["subscriptions_list"].push_back(sub.subject);
    }
    json["accounts"].push_back(std::move(each));
  }
  return json;
}

Json head(const ServerFacts& facts, int64_t now_ns) {
  Json json = Json::object();
  json["server_id"] = facts.server_id;
  json["now"] = core::format_time(now_ns);
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
    json["auth_timeout"] = seconds(config::auth_timeout(options.authorization, options.tls));
    put_tls(json, options.tls, options.tls && options.tls->verify);
    put_not_after(json, facts.leaf_cert_not_after_ns);
  }
  put_unless_empty(json, "write_deadline", options.write_deadline.count());
  put_write_timeout(json, options.write_timeout);
  if (options.remotes.empty()) return json;
  Json& remotes = json["remotes"] = Json::array();
  for (const config::RemoteLeaf& remote : options.remotes) {
    Json& entry = remotes.emplace_back(Json::object());
    entry["local_account"] = remote.account.empty() ? std::string(kGlobalAccount) : remote.account;
    if (remote.tls) entry["tls_timeout"] = seconds(config::tls_timeout(*remote.tls));
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

Json leaf_row(const ConnRow& row, bool subs) {
  Json json = Json::object();
  json["id"] = row.cid;
  json["name"] = row.name;
  json["is_spoke"] = row.spoke;
  put_unless_empty(json, "is_isolated", row.isolated);
  json["account"] = row.account;
  json["ip"] = row.ip;
  json["port"] = row.port;
  json["rtt"] = rtt_text(row.rtt_ns);
  json["in_msgs"] = row.traffic.in_msgs;
  json["out_msgs"] = row.traffic.out_msgs;
  json["in_bytes"] = row.traffic.in_bytes;
  json["out_bytes"] = row.traffic.out_bytes;
  json["subscriptions"] = row.subscriptions;
  if (subs && !row.subs.empty()) {
    Json& list = json["subscriptions_list"] = Json::array();
    for (const core::SubRow& sub : row.subs) list.push_back(sub.subject);
  }
  put_unless_empty(json, "compression", row.compression);
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
  json["turns"] = shard.turns;
  json["parks"] = shard.parks;
  json["longest_turn_us"] = shard.longest_turn_ns / 1000;
  json["long_turns"] = shard.long_turns;
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

HttpAnswer plain_answer(int status, std::string text) {
  return {status, std::move(text), "text/plain; charset=utf-8", {}};
}

HttpAnswer not_found() {
  HttpAnswer answer = plain_answer(404, "404 page not found\n");
  answer.headers["X-Content-Type-Options"] = "nosniff";
  return answer;
}

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
  json["auth_timeout"] = seconds(auth_timeout);
  json["max_control_line"] = options.max_control_line;
  json["max_payload"] = options.max_payload;
  json["max_pending"] = options.max_pending;
  json["cluster"] = cluster_detail(facts);
  json["gateway"] = gateway_options(facts);
  for (const char* section : {"leaf", "mqtt", "websocket", "jetstream"}) json[section] = Json::object();
  if (options.leafnodes.defined) json["leaf"] = leaf_options(facts);
  json["tls_timeout"] = seconds(tls_timeout);
  json["write_deadline"] = options.write_deadline.count();
  put_write_timeout(json, options.write_timeout);
  json["start"] = core::format_time(facts.start_ns);
  json["now"] = core::format_time(numbers.now_ns);
  json["uptime"] = core::format_uptime(std::max<int64_t>(0, numbers.now_ns - facts.start_ns));
  json["mem"] = numbers.resident_bytes;
  json["cores"] = facts.cores;
  json["gomaxprocs"] = facts.shards;
  json["cpu"] = number(numbers.cpu_percent);
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

HttpAnswer answer_connz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  Params params(request);
  const bool auth = params.boolean("auth");
  const Params::Subs subs = params.subs();
  int64_t offset = params.integer("offset");
  int64_t limit = params.integer("limit");
  core::ConnzQuery query;
  query.cid = params.unsigned_integer("cid");
  query.state = params.state();
  if (params.failed()) return params.answer();

  const std::string_view sort_name = request.param("sort");
  const std::optional<ConnSort> sort = parse_sort(sort_name);
  if (!sort) return plain_answer(400, fmt::format("invalid sorting option: {}", sort_name));
  if (query.state != ConnState::kClosed && (*sort == ConnSort::kStop || *sort == ConnSort::kReason)) {
    return plain_answer(400, fmt::format("sort by {} only valid on closed connections", sort_name));
  }
  offset = std::max<int64_t>(0, offset);
  if (limit <= 0) limit = kDefaultLimit;
  if (query.cid != 0) limit = 1;
  query.user = request.param("user");
  query.account = request.param("acc");
  query.mqtt_client = request.param("mqtt_client");
  query.subs = subs.list || subs.detail;
  query.sort = *sort;
  query.keep = rows_needed(offset, limit);
  query.now_ns = now_ns;
  core::ConnRows found = source.connections(query);

  Json json = Json::object();
  // For an account it does not know nats-server leaves its id out and the list null.
  json["server_id"] = found.account_known ? source.facts().server_id : "";
  json["now"] = core::format_time(now_ns);
  if (found.account_known) std::sort(found.rows.begin(), found.rows.end(), ConnOrder{*sort, now_ns});
  const std::span<const ConnRow> shown = page(found.rows, offset, limit);
  json["num_connections"] = found.account_known ? shown.size() : 0;
  json["total"] = found.account_known ? found.total : 0;
  json["offset"] = offset;
  json["limit"] = limit;
  json["connections"] = nullptr;
  if (found.account_known) {
    Json& list = json["connections"] = Json::array();
    for (const ConnRow& row : shown) list.push_back(connection(row, now_ns, auth, subs));
  }
  return json_answer(json);
}

HttpAnswer answer_subsz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  Params params(request);
  const bool subs = params.boolean("subs");
  int64_t offset = params.integer("offset");
  int64_t limit = params.integer("limit");
  if (params.failed()) return params.answer();
  core::SubszQuery query;
  query.account = request.param("acc");
  query.test = request.param("test");
  if (!query.test.empty() && !is_literal_subject(query.test)) {
    return plain_answer(400, "invalid test subject, must be valid publish subject: " + query.test);
  }
  offset = std::max<int64_t>(0, offset);
  if (limit <= 0) limit = kDefaultLimit;
  query.keep = rows_needed(offset, limit);

  MergedAccount sum;
  for (const core::ShardSnapshot& shard : source.shards()) {
    for (const core::AccountSnapshot& account : shard.accounts) {
      if (query.account.empty() || account.name == query.account) add(sum, account.sublist);
    }
  }
  core::SubRows found;
  if (subs) found = source.subscriptions(query);

  Json json = head(source.facts(), now_ns);
  put_sublist_stats(json, sum);
  json["total"] = found.total;
  json["offset"] = offset;
  json["limit"] = limit;
  const std::span<const core::SubRow> shown = page(found.rows, offset, limit);
  if (!shown.empty()) {
    Json& list = json["subscriptions_list"] = Json::array();
    for (const core::SubRow& sub : shown) list.push_back(sub_detail(sub, sub.account));
  }
  return json_answer(json);
}

HttpAnswer answer_healthz(MonitorSource& source, const HttpRequest& request, core::Log& log) {
  Params params(request);
  const bool old_js_enabled = params.boolean("js-enabled");
  if (old_js_enabled) log.warn("Healthcheck: js-enabled deprecated, use js-enabled-only instead");
  for (const char* name : {"js-enabled-only", "js-server-only", "js-meta-only"}) params.boolean(name);
  const bool details = params.boolean("details");
  if (params.failed()) return params.answer();

  int status = 200;
  std::string error;
  const char* type = "BAD_REQUEST";
  if (request.param("account").empty() && !request.param("stream").empty()) {
    status = 400;
    error = "\"account\" must not be empty when checking stream health";
  } else if (request.param("stream").empty() && !request.param("consumer").empty()) {
    status = 400;
    error = "\"stream\" must not be empty when checking consumer health";
  } else if (const Health health = source.health(); !health.ok) {
    status = 500;
    error = health.error;
    type = "CONNECTION";
  }
  // The js-* parameters change nothing on a server without JetStream.
  Json json = Json::object();
  json["status"] = error.empty() ? "ok" : "error";
  if (!error.empty()) {
    if (details) {
      json["errors"] = Json::array({{{"type", type}, {"error", error}}});
      log.warn("Healthcheck failed: 1 errors");
    } else {
      json["error"] = error;
      log.warn("Healthcheck failed: {}", core::quote(error));
    }
  }
  return json_answer(json, status, -1);
}

HttpAnswer answer_routez(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  Params params(request);
  const Params::Subs subs = params.subs();
  if (params.failed()) return params.answer();
  const ServerFacts facts = source.facts();
  const std::vector<core::RouteRow> routes = source.routes(subs.list || subs.detail);
  Json json = Json::object();
  json["server_id"] = facts.server_id;
  json["server_name"] = facts.server_name;
  json["now"] = core::format_time(now_ns);
  if (const auto& permissions = facts.options->cluster.permissions) {
    put_subjects(json, "import", permissions->publish);
    put_subjects(json, "export", permissions->subscribe);
  }
  json["num_routes"] = routes.size();
  json["routes"] = Json::array();
  for (const core::RouteRow& route : routes) json["routes"].push_back(route_detail(route, subs, now_ns));
  return json_answer(json);
}

HttpAnswer answer_gatewayz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  Params params(request);
  const Params::Subs subs = params.subs();
  core::GatewayzQuery query;
  query.accounts = params.boolean("accs");
  if (params.failed()) return params.answer();
  query.account = request.param("acc_name");
  query.accounts |= !query.account.empty();
  query.subs = query.accounts && (subs.list || subs.detail);
  const std::string_view wanted = request.param("gw_name");
  const ServerFacts facts = source.facts();
  Json json = head(facts, now_ns);
  if (facts.gateway_port != 0) {
    json["name"] = facts.options->gateway.name;
    json["host"] = facts.gateway_host;
    json["port"] = facts.gateway_port;
  }
  Json& outbound = json["outbound_gateways"] = Json::object();
  Json inbound = Json::object();
  for (const core::GatewayRow& row : source.gateways(query)) {
    if (!wanted.empty() && row.name != wanted) continue;
    Json detail = gateway_detail(row, query, subs, now_ns);
    if (row.outbound) outbound[row.name] = std::move(detail);
    else inbound[row.name].push_back(std::move(detail));
  }
  if (!wanted.empty() && outbound.empty() && facts.gateway_port != 0) outbound = nullptr;
  json["inbound_gateways"] = std::move(inbound);
  return json_answer(json);
}

HttpAnswer answer_leafz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  Params params(request);
  core::ConnzQuery query;
  query.only_leafnodes = true;
  query.subs = params.boolean("subs");
  if (params.failed()) return params.answer();
  std::vector<ConnRow> rows = source.connections(query).rows;
  // Those in the middle of their handshake are not leafnodes yet.
  const std::string_view account = request.param("acc");
  std::erase_if(rows, [&](const ConnRow& row) { return !row.up || (!account.empty() && row.account != account); });
  std::sort(rows.begin(), rows.end(), ConnOrder{ConnSort::kCid, now_ns});
  Json json = head(source.facts(), now_ns);
  json["leafnodes"] = rows.size();
  Json& list = json["leafs"] = Json::array();
  for (const ConnRow& row : rows) list.push_back(leaf_row(row, query.subs));
  return json_answer(json);
}

HttpAnswer answer_accountz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  const ServerFacts facts = source.facts();
  const std::string_view wanted = request.param("acc");
  const auto accounts = merge_accounts(source.shards(), wanted);
  Json json = head(facts, now_ns);
  put_unless_empty(json, "system_account", facts.system_account);
  if (wanted.empty()) {
    Json names = Json::array();
    for (const auto& [name, account] : accounts) names.push_back(name);
    put_unless_empty(json, "accounts", names);
    return json_answer(json);
  }
  if (accounts.empty()) return plain_answer(400, fmt::format("Account {} does not exist", wanted));
  const auto& [name, account] = accounts.front();
  Json& detail = json["account_detail"] = Json::object();
  detail["account_name"] = name;
  detail["update_time"] = core::format_time(facts.config_load_ns);
  put_unless_empty(detail, "is_system", name == facts.system_account);
  detail["expired"] = false;
  detail["complete"] = true;
  detail["jetstream_enabled"] = false;
  detail["leafnode_connections"] = account.leafnodes;
  detail["client_connections"] = account.connections;
  detail["subscriptions"] = account.sublist.num_subscriptions;
  detail["name_tag"] = name;
  put_sublist_stats(detail["sublist_stats"] = Json::object(), account);
  return json_answer(json);
}

HttpAnswer answer_accstatz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  Params params(request);
  const bool unused = params.boolean("unused");
  if (params.failed()) return params.answer();
  const auto direction = [](uint64_t msgs, uint64_t bytes) {
    const Json none = {{"msgs", 0}, {"bytes", 0}};
    return Json{{"msgs", msgs}, {"bytes", bytes}, {"gateways", none}, {"routes", none}, {"leafs", none}};
  };
  Json json = head(source.facts(), now_ns);
  Json& list = json["account_statz"] = Json::array();
  for (const auto& [name, account] : merge_accounts(source.shards(), "")) {
    if (!unused && account.connections + account.leafnodes == 0) continue;
    Json& entry = list.emplace_back(Json::object());
    entry["acc"] = name;
    entry["name"] = name;
    entry["conns"] = account.connections;
    entry["leafnodes"] = account.leafnodes;
    entry["total_conns"] = account.connections + account.leafnodes;
    entry["num_subscriptions"] = account.sublist.num_subscriptions;
    entry["sent"] = direction(account.traffic.out_msgs, account.traffic.out_bytes);
    entry["received"] = direction(account.traffic.in_msgs, account.traffic.in_bytes);
    entry["slow_consumers"] = account.slow_consumers;
  }
  return json_answer(json);
}

HttpAnswer answer_jsz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  Params params(request);
  for (const char* name : {"accounts", "streams", "consumers", "direct-consumers", "config"}) params.boolean(name);
  for (const char* name : {"offset", "limit"}) params.integer(name);
  for (const char* name : {"leader-only", "raft", "stream-leader-only"}) params.boolean(name);
  if (params.failed()) return params.answer();
  Json json = Json::object();
  for (const char* name : {"memory", "storage", "reserved_memory", "reserved_storage", "accounts", "ha_assets"})
    json[name] = 0;
  json["api"] = {{"level", 0}, {"total", 0}, {"errors", 0}};
  json["server_id"] = source.facts().server_id;
  json["now"] = core::format_time(now_ns);
  json["disabled"] = true;
  json["config"] = {{"max_memory", 0}, {"max_storage", 0}};
  for (const char* name : {"streams", "consumers", "messages", "bytes", "total"}) json[name] = 0;
  return json_answer(json);
}

HttpAnswer answer_ipqueuesz(const HttpRequest& request) {
  Params params(request);
  params.boolean("all");
  if (params.failed()) return params.answer();
  return json_answer(Json::object());
}

}  // namespace peregrine::net::control
