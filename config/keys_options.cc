// Rows of the top level: the first table to look at.
#include <fmt/format.h>

#include <algorithm>

#include "config/characters.h"
#include "config/limits.h"
#include "config/rows.h"

namespace peregrine::config {
namespace {

constexpr std::int64_t kMostPeerSubscriptions = std::int64_t{1} << 31;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMost32 = std::numeric_limits<std::int32_t>::max();

// Rows that only matter together with another one, which is refused itself: jetstream.
bool always_harmless(const Value&) { return true; }

// trace_verbose and trace_headers are kinds of trace and switch it, too, in whatever direction.
Key trace_kind_row(std::string_view name, bool Options::*field, std::string_view doc) {
  return custom<Options>(name, "boolean", "false", doc,
                         [name = std::string(name), field](Binder& binder, Options& target, const Value& value) {
                           if (read_bool(binder, value, name, target.*field)) target.trace = value.boolean;
                         });
}

void read_server_name(Binder& binder, Options& options, const Value& value) {
  if (read_text(binder, value, "server_name", options.server_name) &&
      options.server_name.find(' ') != std::string::npos) {
    binder.error(value.position, "server name cannot contain spaces");
  }
}

void read_server_tags(Binder& binder, Options& options, const Value& value) {
  std::vector<std::string> words;
  if (!read_words(binder, value, "server_tags", words)) return;
  options.server_tags.clear();
  for (const std::string& word : words) {
    const std::size_t first = word.find_first_not_of(" \t\r\n");
    if (first == std::string::npos) continue;
    const std::string tag = to_lower(word.substr(first, word.find_last_not_of(" \t\r\n") - first + 1));
    if (std::find(options.server_tags.begin(), options.server_tags.end(), tag) == options.server_tags.end()) {
      options.server_tags.push_back(tag);
    }
  }
}

void read_max_connections(Binder& binder, Options& options, const Value& value) {
  if (!read_integer(binder, value, "max_connections", -kMost32, kMost32, options.max_connections)) return;
  if (options.max_connections <= 0) options.max_connections = -1;
}

void read_subscription_tokens(Binder& binder, Options& options, const Value& value) {
  std::int64_t tokens = 0;
  if (read_integer(binder, value, "max_subscription_tokens", 0, kMostSubscriptionTokens, tokens)) {
    options.max_subscription_tokens = static_cast<int>(tokens);
  }
}

void read_lame_duck_duration(Binder& binder, Options& options, const Value& value) {
  Duration read{};
  if (!read_duration(binder, value, "lame_duck_duration", Seconds::kRefuse, read)) return;
  if (read < kShortestLameDuck) {
    binder.error(value.position,
                 fmt::format("invalid lame_duck_duration of {}, minimum is 30 seconds", format_duration(read)));
    return;
  }
  options.lame_duck_duration = read;
}

void read_lame_duck_grace_period(Binder& binder, Options& options, const Value& value) {
  Duration read{};
  if (!read_duration(binder, value, "lame_duck_grace_period", Seconds::kRefuse, read)) return;
  if (read < Duration{0}) {
    binder.error(value.position, "invalid lame_duck_grace_period, needs to be positive");
    return;
  }
  options.lame_duck_grace_period = read;
}

// Exactly one way to say who may connect.
void check_authorization(Binder& binder, Options& options, const Value& value) {
  Authorization& authorization = options.authorization;
  authorization.defined = true;
  complete_authorization(authorization);
  const bool single = !authorization.user.empty() || !authorization.password.empty();
  const bool listed = value.find("users") != nullptr;
  if (single && !authorization.token.empty()) binder.error(value.position, "Cannot have a user/pass and token");
  if (listed && !authorization.user.empty()) {
    binder.error(value.position, "Can not have a single user/pass and a users array");
  }
  if (listed && !authorization.token.empty()) binder.error(value.position, "Can not have a token and a users array");
}

void read_accounts(Binder& binder, Options& options, const Value& value) {
  options.accounts.clear();
  const auto add = [&](const std::string& name, const Position& position) -> Account* {
    if (name == "$G") {
      binder.error(position, fmt::format("\"{}\" is a Reserved Account", name));
      return nullptr;
    }
    for (const Account& account : options.accounts) {
      if (account.name == name) {
        binder.error(position, fmt::format("Duplicate Account Entry: {}", name));
        return nullptr;
      }
    }
    options.accounts.emplace_back().name = name;
    return &options.accounts.back();
  };
  if (value.kind == Value::Kind::kArray) {
    for (const Value& item : value.items) {
      std::string name;
      if (read_text(binder, item, "accounts", name)) add(name, item.position);
    }
    return;
  }
  if (value.kind != Value::Kind::kMap) {
    binder.type_error(value, "accounts", "a map or a list of names");
    return;
  }
  for (const Member& member : value.members) {
    if (member.value.used_as_variable) continue;
    if (member.value.kind != Value::Kind::kMap) {
      binder.error(member.value.position, "Expected map entries for accounts");
      continue;
    }
    Account* account = add(member.key, member.value.position);
    if (account == nullptr) continue;
    binder.bind(account_section(), account, member.value);
    complete_account(*account);
  }
}

const Section& resolver_section() {  // Resolver
  using S = Resolver;
  static const Section section = {
      "resolver",
      {
          text<S>("type", &S::type, "", "full | cache | memory"),
          text<S>("dir", &S::dir, "", "directory of the account JWTs"),
          flag<S>("allow_delete", &S::allow_delete, "false", "full: accounts may be deleted"),
          flag<S>("hard_delete", &S::hard_delete, "false", "full: deleted files are removed, not renamed"),
          integer<S>("limit", &S::limit, 0, kMost, "0", "number of JWTs; 0 = no limit"),
          duration<S>("ttl", &S::ttl, Seconds::kRefuse, "0s", "cache: how long a JWT is kept"),
          duration<S>("interval", &S::interval, Seconds::kRefuse, "0s", "full: pause between syncs"),
          duration<S>("timeout", &S::timeout, Seconds::kRefuse, "0s", "of a fetch"),
      }};
  return section;
}

// MEMORY, URL(address), or {type: full | cache | memory, dir, ...}
void read_resolver(Binder& binder, Options& options, const Value& value) {
  Resolver& resolver = options.resolver;
  resolver = {};
  if (value.kind == Value::Kind::kMap) {
    binder.bind(resolver_section(), &resolver, value);
    resolver.type = to_lower(resolver.type);
    if (resolver.type == "mem") resolver.type = "memory";
    const bool on_disk = resolver.type == "full" || resolver.type == "cache";
    if (!on_disk && resolver.type != "memory") {
      binder.error(value.position, "error parsing account resolver, type should be full, cache or memory");
    } else if (on_disk && resolver.dir.empty()) {
      binder.error(value.position, "dir has no value and needs to point to a directory");
    }
    return;
  }
  if (value.kind != Value::Kind::kString) {
    binder.type_error(value, "resolver", "MEMORY, URL(address) or a map");
    return;
  }
  const std::string word = to_lower(value.text);
  if (word.find("mem") != std::string::npos) {
    resolver.type = "memory";
    return;
  }
  const std::size_t open = word.find("url(");
  const std::size_t close = word.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) {
    binder.error(value.position, "error parsing account resolver, should be MEM, URL(\"url\") or a map");
    return;
  }
  std::string address = value.text.substr(open + 4, close - open - 4);
  const auto quote_or_blank = [](char c) { return c == '"' || c == ' '; };
  address.erase(std::remove_if(address.begin(), address.end(), quote_or_blank), address.end());
  const Result<Url> url = parse_url(address, "account resolver");
  if (!url) {
    binder.error(value.position, url.error());
    return;
  }
  resolver.type = "url";
  resolver.url = address;
}

void read_ocsp(Binder& binder, Options& options, const Value& value) {
  options.ocsp_urls.clear();
  if (value.kind == Value::Kind::kBool) {
    options.ocsp_mode = value.boolean ? "auto" : "never";
    return;
  }
  if (value.kind != Value::Kind::kMap) {
    binder.type_error(value, "ocsp", "true, false or a map");
    return;
  }
  options.ocsp_mode = "auto";
  for (const Member& member : value.members) {
    const std::string name = to_lower(member.key);
    if (name == "url" || name == "urls") {
      read_words(binder, member.value, name, options.ocsp_urls);
    } else if (name == "mode") {
      const std::string mode = to_lower(member.value.text);
      if (mode != "always" && mode != "must" && mode != "never" && mode != "auto") {
        binder.error(member.value.position,
                     fmt::format("error parsing ocsp config: unsupported ocsp mode {}", member.value.text));
      }
      options.ocsp_mode = mode;
    } else if (!member.value.used_as_variable) {
      binder.error(member.value.position, fmt::format("unknown field \"{}\"", member.key));
    }
  }
}

void read_ocsp_cache(Binder& binder, Options& options, const Value& value) {
  if (value.kind == Value::Kind::kBool) {
    options.ocsp_cache_type = value.boolean ? "local" : "none";
    return;
  }
  if (value.kind != Value::Kind::kMap) {
    binder.type_error(value, "ocsp_cache", "true, false or a map");
    return;
  }
  options.ocsp_cache_type = "local";
  for (const Member& member : value.members) {
    const std::string name = to_lower(member.key);
    if (name == "type") {
      read_text(binder, member.value, name, options.ocsp_cache_type);
    } else if (name != "local_store" && name != "preserve_revoked" && name != "save_interval" &&
               !member.value.used_as_variable) {
      binder.error(member.value.position, fmt::format("unknown field \"{}\"", member.key));
    }
  }
}

const Section& trusted_proxy_section() {  // std::string
  static const Section section = {"proxies.trusted[]",
                                  {
                                      custom<std::string>("key|public_key", "string", "", "public key of the proxy",
                                                          [](Binder& binder, std::string& target, const Value& value) {
                                                            read_text(binder, value, "key", target);
                                                          }),
                                  }};
  return section;
}

const Section& proxies_section() {  // Options
  using S = Options;
  static const Section section = {
      "proxies",
      {
          blocks<S>("trusted", &S::trusted_proxies, trusted_proxy_section(), "proxies that may speak for clients",
                    [](Binder&, std::string&, const Value&) {}),
      }};
  return section;
}

// No Options field: the proxies' keys go into Options itself.
Options& whole(Options& options) { return options; }

void read_feature_flags(Binder& binder, Options& options, const Value& value) {
  if (value.kind != Value::Kind::kMap) {
    binder.type_error(value, "feature_flags", "a map of booleans");
    return;
  }
  options.feature_flags.clear();
  for (const Member& member : value.members)
    read_bool(binder, member.value, member.key, options.feature_flags[member.key]);
}

void read_jetstream(Binder& binder, Options& options, const Value& value) {
  if (value.kind == Value::Kind::kMap) {
    options.jetstream = true;
    binder.bind(jetstream_section(), &options, value);
    return;
  }
  const std::string word = to_lower(value.text);
  if (value.kind == Value::Kind::kBool) {
    options.jetstream = value.boolean;
  } else if (value.kind == Value::Kind::kString && (word == "enabled" || word == "enable")) {
    options.jetstream = true;
  } else if (value.kind == Value::Kind::kString && (word == "disabled" || word == "disable")) {
    options.jetstream = false;
  } else {
    binder.type_error(value, "jetstream", "true, false, enabled, disabled or a map");
  }
}

bool jetstream_is_off(const Value& value) {
  if (value.kind == Value::Kind::kBool) return !value.boolean;
  if (value.kind == Value::Kind::kString) return to_lower(value.text).rfind("disable", 0) == 0;
  const Value* enabled = value.find("enabled") != nullptr ? value.find("enabled") : value.find("enable");
  return enabled != nullptr && enabled->kind == Value::Kind::kBool && !enabled->boolean;
}

// The account that $SYS services live in. The default one exists in any case; another one needs accounts.
bool is_default_system_account(const Value& value) { return value.text.empty() || value.text == "$SYS"; }

void read_shards(Binder& binder, Options& options, const Value& value) {
  if (value.kind == Value::Kind::kString && to_lower(value.text) == "auto") {
    options.native.shards = 0;
    return;
  }
  std::int64_t count = 0;
  if (value.kind != Value::Kind::kInteger) {
    binder.type_error(value, "shards", "auto or a number");
  } else if (read_integer(binder, value, "shards", 1, kMostShards, count)) {
    options.native.shards = static_cast<int>(count);
  }
}

void read_cores(Binder& binder, Options& options, const Value& value) {
  if (value.kind != Value::Kind::kArray) {
    binder.type_error(value, "cores", "a list of CPU numbers");
    return;
  }
  options.native.cores.clear();
  for (const Value& item : value.items) {
    std::int64_t core = 0;
    if (!read_integer(binder, item, "cores", 0, kMostCpus, core)) continue;
    if (std::find(options.native.cores.begin(), options.native.cores.end(), core) != options.native.cores.end()) {
      binder.error(item.position, fmt::format("core {} is listed twice", core));
      continue;
    }
    options.native.cores.push_back(static_cast<int>(core));
  }
}

Key backend_row() {
  Key key = choice<Options, Backend& (*)(Options&), Backend>(
      "backend", [](Options& options) -> Backend& { return options.native.backend; },
      {{"auto", Backend::kAuto}, {"dpdk", Backend::kDpdk}, {"uring", Backend::kUring}, {"epoll", Backend::kEpoll}},
      "auto",
      "how bytes move: auto takes dpdk if there is a dpdk section, else uring if the kernel allows it, else epoll");
  return key;
}

Section make_options_section() {
  using S = Options;
  Section section{
      "",
      {
          // --- clients
          listen<S>("listen", &S::host, &S::port, "0.0.0.0:4222", "address and port for clients in one"),
          text<S>("host|net", &S::host, "0.0.0.0", "address for clients"),
          port<S>("port", &S::port, "4222", "port for clients; -1 = random"),
          text<S>("client_advertise", &S::client_advertise, "",
                  "host[:port] told to clients instead of our own addresses"),
          custom<S>("server_name", "string", "", "no blanks; empty = the server id", read_server_name),
          custom<S>("server_tags", "list of strings", "[]", "labels shown by monitoring", read_server_tags),
          text_map<S>("server_metadata", &S::server_metadata, "labels with values shown by monitoring"),

          // --- limits
          size<S>("max_control_line", &S::max_control_line, 0, kLargestControlLineBytes, "4KB",
                  "bytes of a protocol line"),
          size<S>("max_payload", &S::max_payload, 0, kLargestPayloadBytes, "1MB",
                  "bytes of a message with its headers, at most max_pending"),
          size<S>("max_pending", &S::max_pending, 0, kMost, "64MB",
                  "bytes waiting for a client before it is a slow consumer"),
          custom<S>("max_connections|max_conn", "integer", "65536", "clients at a time; 0 = none at all",
                    read_max_connections),
          integer<S>("max_subscriptions|max_subs", &S::max_subscriptions, -1, kMost, "0",
                     "subscriptions per connection; 0 = no limit"),
          custom<S>("max_subscription_tokens|max_sub_tokens", "integer", "0",
                    "tokens of a subject subscribed to, up to 255; 0 = no limit", read_subscription_tokens),
          duration<S>("ping_interval", &S::ping_interval, Seconds::kWarn, "2m",
                      "pause between pings of a silent client"),
          integer<S>("ping_max", &S::ping_max, 0, kMost32, "2", "unanswered pings before a connection is stale"),
          duration<S>("write_deadline", &S::write_deadline, Seconds::kWarn, "10s",
                      "how long a socket may refuse our bytes"),
          write_timeout_row<S>(&S::write_timeout, "what happens then: default = close a client"),
          flag<S>("no_fast_producer_stall", &S::no_fast_producer_stall, "false",
                  "do not hold producers back for a slow consumer"),
          integer<S>("max_closed_clients", &S::max_closed_clients, 0, kMost32, "10000",
                     "closed connections remembered for /connz"),
          integer<S>("max_traced_msg_len", &S::max_traced_msg_len, 0, kMost32, "0",
                     "bytes of a message shown by trace; 0 = all"),
          custom<S>("lame_duck_duration", "duration", "2m", "time over which clients are closed, 30s or more",
                    read_lame_duck_duration),
          custom<S>("lame_duck_grace_period", "duration", "10s",
                    "time before the first one is closed, less than lame_duck_duration", read_lame_duck_grace_period),
          flag<S>("no_header_support", &S::no_header_support, "false", "no message headers"),
          flag<S>("disable_sublist_cache|no_sublist_cache", &S::disable_sublist_cache, "false",
                  "do not cache which subscriptions match"),
          integer<S>("connect_error_reports", &S::connect_error_reports, 0, kMost32, "3600",
                     "log every n-th failed first dial of a peer"),
          integer<S>("reconnect_error_reports", &S::reconnect_error_reports, 0, kMost32, "1",
                     "log every n-th failed redial of a peer"),

          // --- log
          flag<S>("debug", &S::debug, "false", "debug lines"),
          flag<S>("trace", &S::trace, "false", "every protocol line"),
          trace_kind_row("trace_verbose", &S::trace_verbose, "trace, the system account included"),
          trace_kind_row("trace_headers", &S::trace_headers, "trace of message headers without payloads"),
          flag<S>("logtime", &S::logtime, "true", "time in front of every line"),
          flag<S>("logtime_utc", &S::logtime_utc, "false", "in UTC"),
          text<S>("log_file|logfile", &S::log_file, "", "empty = stderr"),
          size<S>("logfile_size_limit|log_size_limit", &S::logfile_size_limit, 0, kMost, "0",
                  "bytes before a new file is begun; 0 = never"),
          integer<S>("logfile_max_num|log_max_num", &S::logfile_max_num, 0, kMost, "0",
                     "log files kept, the current one included; 0 = all"),
          flag<S>("syslog", &S::syslog, "false", "log to syslog"),
          text<S>("remote_syslog", &S::remote_syslog, "",
                  "udp://host:port, tcp://host:port or a socket path; empty = the local one"),
          text<S>("pid_file|pidfile", &S::pid_file, "", "file to write the process id to"),
          text<S>("ports_file_dir", &S::ports_file_dir, "", "directory to write <program>_<pid>.ports to"),

          // --- monitoring
          listen<S>("http", &S::http_host, &S::http_port, "", "address and port of monitoring in one"),
          port<S>("http_port|monitor_port", &S::http_port, "0",
                  "port of monitoring, 8222 by convention; 0 = off, -1 = random"),
          text<S>("http_base_path", &S::http_base_path, "", "prefix of the monitoring paths; empty = /"),
          listen<S>("https", &S::http_host, &S::https_port, "", "the same over TLS, with the certificate of `tls`"),
          port<S>("https_port", &S::https_port, "0", "the same over TLS, with the certificate of `tls`"),
          port<S>("prof_port", &S::prof_port, "0", "Go profiling in nats-server").later(),
          integer<S>("prof_block_rate", &S::prof_block_rate, 0, kMost32, "0", "Go profiling in nats-server").later(),

          // --- security
          block<S>("authorization", &S::authorization, authorization_section(), "who may connect", check_authorization),
          text<S>("no_auth_user", &S::no_auth_user, "", "user that connections without credentials become"),
          flag<S>("allow_non_tls", &S::allow_non_tls, "false", "with tls: clients may stay in clear"),
          block<S>("tls", &S::tls, tls_section(), "encryption of client connections"),
          custom<S>("accounts", "map of accounts", "{}", "isolated subject spaces", read_accounts).later(),
          custom<S>(
              "mappings|maps", "map of subjects", "{}", "subject rewriting in the global account",
              [](Binder& binder, S& target, const Value& value) { read_mappings(binder, value, target.mappings); }),
          // $SYS is what there is without accounts, and its absence is what there is without its services, so both
          // texts ask for nothing.
          text<S>("system_account|system", &S::system_account, "$SYS", "account of the $SYS services")
              .later(is_default_system_account),
          flag<S>("no_system_account|no_system|no_sys_acc", &S::no_system_account, "false", "no $SYS services")
              .later(always_harmless),
          words<S>("operator|operators|root|roots|root_operator|root_operators", &S::operators, "[]",
                   "operator JWTs or files")
              .later(),
          words<S>("trusted_keys|trusted", &S::trusted_keys, "[]", "public operator keys").later(),
          custom<S>("resolver|account_resolver|accounts_resolver", "MEMORY | URL(address) | map", "",
                    "where account JWTs come from", read_resolver)
              .later(),
          block<S>("resolver_tls", &S::resolver_tls, tls_section(), "of the URL resolver").later(),
          text_map<S>("resolver_preload", &S::resolver_preload, "account key: JWT").later(),
          words<S>("resolver_pinned_accounts", &S::resolver_pinned_accounts, "[]", "").later(),
          text<S>("default_sentinel", &S::default_sentinel, "", "JWT of connections without one").later(),
          flag<S>("proxy_protocol", &S::proxy_protocol, "false",
                  "clients come through a proxy that sends PROXY headers")
              .later(),
          block<S>("proxies", whole, proxies_section(), "proxies that authenticate for clients").later(),
          custom<S>("ocsp", "boolean or {mode, url}", "false", "OCSP stapling", read_ocsp).later(),
          custom<S>("ocsp_cache", "boolean or map", "false", "cache of OCSP answers", read_ocsp_cache).later(),
          custom<S>("feature_flags", "map of booleans", "{}", "opt-ins of nats-server, all of JetStream",
                    read_feature_flags)
              .later(),

          // --- other listeners and peers
          block<S>("cluster", &S::cluster, cluster_section(), "servers that are one",
                   [](Binder&, S& target, const Value&) { target.cluster.defined = true; }),
          block<S>("gateway", &S::gateway, gateway_section(), "clusters that know each other",
                   [](Binder&, S& target, const Value&) { target.gateway.defined = true; }),
          block<S>("leafnodes|leaf", &S::leafnodes, leafnodes_section(), "servers at the edge",
                   [](Binder&, S& target, const Value&) { target.leafnodes.defined = true; }),
          block<S>("websocket|ws", &S::websocket, websocket_section(), "clients in browsers",
                   [](Binder&, S& target, const Value&) { target.websocket.defined = true; })
              .later(),

          // --- JetStream
          custom<S>("jetstream", "boolean | enabled | disabled | map", "disabled", "streams", read_jetstream)
              .later(jetstream_is_off),
          text<S>("store_dir|storedir", &S::store_dir, "", "directory of JetStream; without JetStream unused"),
          text_map<S>(
              "default_js_domain", [](S & options) -> auto& { return options.default_js_domain; }, "account: domain")
              .later(),
          block<S>("mqtt", whole, mqtt_section(), "MQTT clients",
                   [](Binder&, S& target, const Value&) { target.mqtt = true; })
              .later(),

          // --- ours
          custom<S>("shards", "auto or integer", "auto", "shards; auto = one per CPU this process may use",
                    read_shards),
          custom<S>("cores", "list of integers", "[]", "CPUs to pin the shards to, in order; empty = those it may use",
                    read_cores),
          backend_row(),
          choice<S, Idle& (*)(S&), Idle>(
              "idle", [](S& options) -> Idle& { return options.native.idle; },
              {{"adaptive", Idle::kAdaptive}, {"spin", Idle::kSpin}, {"park", Idle::kPark}}, "adaptive",
              "what a shard without work does: look for a while and then sleep, look for ever, or sleep"),
          integer<S>(
              "spin_us", [](S & options) -> auto& { return options.native.spin_us; }, 0, kLongestSpinUs, "50",
              "adaptive: microseconds without work before it sleeps"),
          size<S>(
              "ring_bytes", [](S & options) -> auto& { return options.native.ring_bytes; }, kSmallestRingBytes,
              kLargestRingBytes, "1MB",
              "bytes of the ring between two shards, a power of two; there are shards * (shards - 1)"),
          size<S>(
              "inline_payload_bytes", [](S & options) -> auto& { return options.native.inline_payload_bytes; }, 0,
              largest_inline_payload_bytes(kLargestRingBytes), "2KB",
              "a payload up to this is copied, a larger one shared; at most ring_bytes / 4"),
          integer<S>(
              "max_peer_subscriptions", [](S & options) -> auto& { return options.native.max_peer_subscriptions; }, 1,
              kMostPeerSubscriptions, "16777216",
              "subscriptions of one account that one connection of another server may ask for; one more and it is cut "
              "off"),
          block<S>(
              "dpdk", [](S & options) -> auto& { return options.dpdk; }, dpdk_section(),
              "network ports taken from the kernel",
              [](Binder&, S& target, const Value& value) { target.dpdk.defined = !value.members.empty(); }),
      }};
  return section;
}

}  // namespace

const Section& options_section() {
  static const Section section = make_options_section();
  return section;
}

}  // namespace peregrine::config
