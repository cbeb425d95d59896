// Rows of cluster, gateway, leafnodes, websocket, mqtt and jetstream.
#include <fmt/format.h>

#include "config/rows.h"

#include "config/characters.h"

namespace peregrine::config {
namespace {

constexpr std::int64_t kMostRetries = std::numeric_limits<std::int32_t>::max();
bool never_harmless(const Value&) { return false; }

constexpr Duration kLongestRoutePing = std::chrono::seconds(30);

// A name without blanks, because names travel in protocol lines.
template <class S, class Access>
Key name_row(Access access, std::string_view what, std::string_view fallback, std::string_view doc) {
  return custom<S>("name", "string", fallback, doc,
                   [access, what = std::string(what)](Binder& binder, S& target, const Value& value) {
                     std::string& name = std::invoke(access, target);
                     if (read_text(binder, value, "name", name) && name.find(' ') != std::string::npos) {
                       binder.error(value.position, fmt::format("{} name cannot contain spaces", what));
                     }
                   });
}

// Routes and gateways authenticate as one user.
template <class S, class Access>
Key peer_authorization_row(Access access, std::string_view what) {
  return block<S>("authorization", access, authorization_section(), "user, password and timeout of the other side",
                  [access, what = std::string(what)](Binder& binder, S& target, const Value& value) {
                    Authorization& authorization = std::invoke(access, target);
                    authorization.defined = true;
                    if (!authorization.users.empty()) {
                      binder.error(value.position, what + " authorization does not allow multiple users");
                    }
                    if (!authorization.token.empty())
                      binder.error(value.position, what + " authorization does not support tokens");
                    if (authorization.auth_callout)
                      binder.error(value.position, what + " authorization does not support callouts");
                  });
}

template <class S, class Access>
Key compression_row(Access access, std::string_view on, std::string_view fallback) {
  return custom<S>("compression", "boolean | off accept s2_fast s2_better s2_best s2_auto | {mode, rtt_thresholds}",
                   fallback, "S2 compression of the connection",
                   [access, on = std::string(on)](Binder& binder, S& target, const Value& value) {
                     Compression& compression = std::invoke(access, target);
                     compression = {};
                     read_compression(binder, value, on, compression);
                   });
}

template <class S, class Access>
Key subjects_row(std::string_view names, Access access, std::string_view doc) {
  const std::string name = split_names(names)[0];
  return custom<S>(names, "list of subjects", "[]", doc, [=](Binder& binder, S& target, const Value& value) {
    std::vector<std::string> subjects;
    if (!read_words(binder, value, name, subjects)) return;
    for (const std::string& subject : subjects) {
      if (!is_valid_subject(subject))
        binder.error(value.position, fmt::format("subject \"{}\" is not a valid subject", subject));
    }
    std::invoke(access, target) = std::move(subjects);
  });
}

// A block for connections we make.
template <class S, class Access>
Key remote_tls(Access access, std::string_view doc) {
  return block<S>("tls", access, tls_section(), doc, [access](Binder& binder, S& target, const Value& value) {
    if (const auto& tls = std::invoke(access, target); !tls || !tls->verify_cert_and_check_known_urls) return;
    for (const Member& member : value.members) {
      if (to_lower(member.key) != "verify_cert_and_check_known_urls") continue;
      binder.error(member.value.position,
                   "verify_cert_and_check_known_urls not supported in this context: it is for those who connect to us, "
                   "in the tls block of cluster or gateway");
    }
  });
}

const Section& remote_gateway_section() {  // RemoteGateway
  using S = RemoteGateway;
  static const Section section = {"gateway.gateways[]",
                                  {
                                      text<S>("name", &S::name, "", "name of that cluster"),
                                      urls<S>("urls|url", &S::urls, "gateway", "its servers"),
                                      remote_tls<S>(&S::tls, "instead of gateway.tls"),
                                  }};
  return section;
}

const Section& http_proxy_section() {  // HttpProxy
  using S = HttpProxy;
  static const Section section = {"leafnodes.remotes[].proxy",
                                  {
                                      text<S>("url", &S::url, "", "http://host:port"),
                                      text<S>("username", &S::username, "", ""),
                                      text<S>("password", &S::password, "", ""),
                                      duration<S>("timeout", &S::timeout, Seconds::kWarn, "", ""),
                                  }};
  return section;
}

const Section& remote_leaf_section() {  // RemoteLeaf
  using S = RemoteLeaf;
  static const Section section = {
      "leafnodes.remotes[]",
      {
          urls<S>("urls|url", &S::urls, "leafnode", "the hub's servers; ws:// and wss:// too"),
          text<S>("account|local", &S::account, "$G", "local account"),
          text<S>("credentials|creds", &S::credentials, "", "credentials file").later(),
          text<S>("nkey|seed", &S::nkey, "", "user seed SU... instead of credentials").later(),
          remote_tls<S>(&S::tls, "of this connection"),
          flag<S>("hub", &S::hub, "false", "this side acts as the hub"),
          subjects_row<S>("deny_imports|deny_import", &S::deny_imports, "never taken over from the hub"),
          subjects_row<S>("deny_exports|deny_export", &S::deny_exports, "never given to the hub"),
          flag<S>("no_randomize|dont_randomize", &S::no_randomize, "false", "try urls in order"),
          compression_row<S>(&S::compression, "s2_auto", "s2_auto"),
          duration<S>("first_info_timeout", &S::first_info_timeout, Seconds::kWarn, "1s", "for the hub's INFO"),
          duration<S>("dial_timeout", &S::dial_timeout, Seconds::kWarn, "1s", "for the TCP connection"),
          flag<S>("ws_compression|ws_compress|websocket_compress|websocket_compression", &S::ws_compression, "false",
                  "ws:// urls")
              .later(),
          flag<S>("ws_no_masking|websocket_no_masking", &S::ws_no_masking, "false", "ws:// urls: send unmasked frames")
              .later(),
          flag<S>("disabled", &S::disabled, "false", "do not connect"),
          flag<S>("ignore_discovered_servers", &S::ignore_discovered_servers, "false",
                  "connect to the urls above only"),
          flag<S>("isolate_leafnode_interest|isolate", &S::isolate_leafnode_interest, "false",
                  "hide other leaf nodes' interest from it"),
          flag<S>("request_isolation", &S::request_isolation, "false",
                  "ask the hub to hide other leaf nodes' interest"),
          block<S>("proxy", &S::proxy, http_proxy_section(), "ws:// urls: HTTP proxy").later(never_harmless),
          custom<S>("jetstream_cluster_migrate|js_cluster_migrate", "boolean or {leader_migrate_delay}", "false",
                    "move JetStream leaders away while the hub is out of reach",
                    [](Binder& binder, S& target, const Value& value) {
                      if (value.kind != Value::Kind::kMap) {
                        read_bool(binder, value, "jetstream_cluster_migrate", target.jetstream_cluster_migrate);
                        return;
                      }
                      target.jetstream_cluster_migrate = true;
                      for (const Member& member : value.members) {
                        if (to_lower(member.key) == "leader_migrate_delay") {
                          read_duration(binder, member.value, "leader_migrate_delay", Seconds::kWarn,
                                        target.jetstream_cluster_migrate_delay);
                        } else {
                          binder.error(member.value.position, fmt::format("unknown field \"{}\"", member.key));
                        }
                      }
                    })
              .later(),
      }};
  return section;
}

void check_remote_leaf(Binder& binder, RemoteLeaf& remote, const Value& value) {
  if (!remote.credentials.empty() && !remote.nkey.empty()) {
    binder.error(value.position, "Remote leafnode can not have both creds and nkey defined");
  }
}

}  // namespace

const Section& cluster_section() {
  using S = Cluster;
  static const Section section = {
      "cluster",
      {
          name_row<S>(&S::name, "cluster", "", "empty = random, taken over from the first named peer"),
          listen<S>("listen", &S::host, &S::port, "", "host:port for routes"),
          text<S>("host|net", &S::host, "0.0.0.0", "address for routes"),
          port<S>("port", &S::port, "", "port for routes; -1 = random"),
          urls<S>("routes", &S::routes, "route", "servers to connect to: nats-route://[user:password@]host:port"),
          peer_authorization_row<S>(&S::authorization, "Cluster"),
          block<S>("permissions", &S::permissions, permissions_section(),
                   "subjects that cross routes: {import, export}",
                   [](Binder& binder, S& target, const Value& value) {
                     if (target.permissions->allow_responses) {
                       binder.error(value.position, "Cluster permissions do not support dynamic responses");
                     }
                   }),
          block<S>("tls", &S::tls, tls_section(), "of routes, both directions"),
          text<S>("advertise|cluster_advertise", &S::advertise, "", "host[:port] told to other servers"),
          flag<S>("no_advertise", &S::no_advertise, "false", "do not tell clients about the other servers"),
          integer<S>("connect_retries", &S::connect_retries, 0, kMostRetries, "0", "of routes learnt from others"),
          flag<S>("connect_backoff", &S::connect_backoff, "false",
                  "retry after 1 s doubling to 30 s, instead of every second"),
          integer<S>("pool_size", &S::pool_size, -1, 1024, "3", "connections per peer; -1 = one"),
          words<S>("accounts", &S::accounts, "[]", "accounts with a connection of their own"),
          compression_row<S>(&S::compression, "s2_fast", "accept"),
          custom<S>("ping_interval", "duration", "", "of routes; empty = the global one, at most 30 s",
                    [](Binder& binder, S& target, const Value& value) {
                      if (!read_duration(binder, value, "ping_interval", Seconds::kWarn, target.ping_interval)) return;
                      if (target.ping_interval > kLongestRoutePing) {
                        binder.warn(value.position,
                                    fmt::format("Cluster 'ping_interval' will reset to {} which is the max for routes",
                                                format_duration(kLongestRoutePing)));
                      }
                    }),
          integer<S>("ping_max", &S::ping_max, 0, kMostRetries, "", "of routes; empty = the global one"),
          duration<S>("write_deadline", &S::write_deadline, Seconds::kWarn, "", "of routes; empty = the global one"),
          write_timeout_row<S>(&S::write_timeout, "what happens to a route past it; default = retry"),
      }};
  return section;
}

const Section& gateway_section() {
  using S = Gateway;
  static const Section section = {
      "gateway",
      {
          name_row<S>(&S::name, "gateway", "", "name of this cluster"),
          listen<S>("listen", &S::host, &S::port, "", "host:port for gateways"),
          text<S>("host|net", &S::host, "0.0.0.0", "address for gateways"),
          port<S>("port", &S::port, "", "port for gateways; -1 = random"),
          blocks<S>("gateways", &S::gateways, remote_gateway_section(), "the other clusters",
                    [](Binder&, RemoteGateway&, const Value&) {}),
          peer_authorization_row<S>(&S::authorization, "Gateway"),
          block<S>("tls", &S::tls, tls_section(), "of gateways, both directions"),
          text<S>("advertise", &S::advertise, "", "host[:port] told to other servers"),
          integer<S>("connect_retries", &S::connect_retries, 0, kMostRetries, "0", "of gateways learnt from others"),
          flag<S>("connect_backoff", &S::connect_backoff, "false", "retry after 1 s doubling to 30 s"),
          flag<S>("reject_unknown_cluster|reject_unknown", &S::reject_unknown_cluster, "false",
                  "only clusters named in gateways"),
          duration<S>("write_deadline", &S::write_deadline, Seconds::kWarn, "", "of gateways; empty = the global one"),
          write_timeout_row<S>(&S::write_timeout, "what happens to a gateway past it; default = retry"),
      }};
  return section;
}

const Section& leafnodes_section() {
  using S = LeafNodes;
  static const Section section = {
      "leafnodes",
      {
          listen<S>("listen", &S::host, &S::port, "", "host:port for leaf nodes"),
          text<S>("host|net", &S::host, "0.0.0.0", "address for leaf nodes"),
          port<S>("port", &S::port, "", "port for leaf nodes; -1 = random"),
          block<S>("authorization", &S::authorization, leaf_authorization_section(), "of leaf nodes",
                   [](Binder& binder, S& target, const Value& value) {
                     target.authorization.defined = true;
                     if (!target.authorization.user.empty() && !target.authorization.users.empty()) {
                       binder.error(value.position, "can not have a single user/pass and a users array");
                     }
                   }),
          text<S>("advertise|leafnode_advertise", &S::advertise, "", "host[:port] told to leaf nodes"),
          flag<S>("no_advertise", &S::no_advertise, "false",
                  "do not tell the cluster that leaf nodes may connect here"),
          block<S>("tls", &S::tls, tls_section(), "of leaf nodes"),
          compression_row<S>(&S::compression, "s2_auto", "s2_auto"),
          text<S>("min_version|minimum_version", &S::min_version, "", "oldest server that may connect, 2.8.0 or later"),
          duration<S>("reconnect|reconnect_delay|reconnect_interval", &S::reconnect, Seconds::kWarn, "1s",
                      "pause between attempts"),
          duration<S>("dial_timeout", &S::dial_timeout, Seconds::kWarn, "1s", "for the TCP connection"),
          flag<S>("isolate_leafnode_interest|isolate", &S::isolate_leafnode_interest, "false",
                  "hide leaf nodes' interest from each other"),
          duration<S>("write_deadline", &S::write_deadline, Seconds::kWarn, "",
                      "of leaf nodes; empty = the global one"),
          write_timeout_row<S>(&S::write_timeout, "what happens to a leaf node past it; default = retry"),
          blocks<S>("remotes", &S::remotes, remote_leaf_section(), "hubs to connect to", check_remote_leaf),
      }};
  return section;
}

const Section& websocket_section() {
  using S = Websocket;
  static const Section section = {
      "websocket",
      {
          listen<S>("listen", &S::host, &S::port, "", "host:port for WebSocket clients"),
          text<S>("host|net", &S::host, "0.0.0.0", "address for WebSocket clients"),
          port<S>("port", &S::port, "", "port for WebSocket clients; -1 = random"),
          text<S>("advertise", &S::advertise, "", "host[:port] told to clients"),
          block<S>("tls", &S::tls, tls_section(), "of WebSocket clients"),
          flag<S>("no_tls", &S::no_tls, "false", "needed to run without tls"),
          flag<S>("same_origin", &S::same_origin, "false", "Origin must be the requested host"),
          words<S>("allowed_origins|allowed_origin|allow_origins|allow_origin|origins|origin", &S::allowed_origins,
                   "[]", "empty = any"),
          duration<S>("handshake_timeout", &S::handshake_timeout, Seconds::kAllow, "", "empty = none"),
          flag<S>("compression|compress", &S::compression, "false", "permessage-deflate"),
          block<S>("authorization|authentication", &S::authorization, simple_authorization_section(),
                   "instead of the global one",
                   [](Binder&, S& target, const Value&) { target.authorization.defined = true; }),
          text<S>("no_auth_user", &S::no_auth_user, "", "user of connections without credentials"),
          text<S>("jwt_cookie", &S::jwt_cookie, "", "cookie with a JWT"),
          text<S>("user_cookie", &S::user_cookie, "", "cookie with a user name"),
          text<S>("pass_cookie", &S::pass_cookie, "", "cookie with a password"),
          text<S>("token_cookie", &S::token_cookie, "", "cookie with a token"),
          text_map<S>("headers", &S::headers, "added to the upgrade response"),
          duration<S>("ping_interval", &S::ping_interval, Seconds::kWarn, "", "empty = the global one"),
      }};
  return section;
}

const Section& mqtt_section() {
  static const Section section = {"mqtt",
                                  {
                                      known("listen", "host:port or port", "host:port for MQTT clients"),
                                      known("host|net", "string", "address"),
                                      known("port", "port", "port"),
                                      known("tls", "map", "of MQTT clients"),
                                      known("authorization|authentication", "map", "instead of the global one"),
                                      known("no_auth_user", "string", "user of connections without credentials"),
                                      known("ack_wait|ackwait", "duration", "redelivery, 30s"),
                                      known("js_api_timeout|api_timeout", "duration", "5s"),
                                      known("max_ack_pending|max_pending|max_inflight", "integer", "1024"),
                                      known("js_domain", "string", "JetStream domain"),
                                      known("stream_replicas", "integer", ""),
                                      known("consumer_replicas", "integer", "ignored"),
                                      known("consumer_memory_storage", "boolean", ""),
                                      known("consumer_inactive_threshold|consumer_auto_cleanup", "duration", ""),
                                      known("reject_qos2_publish", "boolean", ""),
                                      known("downgrade_qos2_subscribe", "boolean", ""),
                                  }};
  return section;
}

const Section& jetstream_section() {
  using S = Options;
  static const Section section = {
      "jetstream",
      {
          flag<S>("enabled|enable", &S::jetstream, "true", ""),
          text<S>("store_dir|store|storedir", &S::store_dir, "", "directory of the streams"),
          known("max_memory_store|max_mem_store|max_mem", "size", "bytes in memory"),
          known("max_file_store|max_file", "size", "bytes on disk"),
          known("domain", "string", ""),
          known("strict", "boolean", "true"),
          known("sync_interval|sync", "duration or always", "2m"),
          known("key|ek|encryption_key", "string", ""),
          known("prev_key|prev_ek|prev_encryption_key", "string", ""),
          known("cipher", "chacha | aes", ""),
          known("extension_hint", "string", ""),
          known("limits", "map", ""),
          known("tpm", "map", ""),
          known("unique_tag", "string", ""),
          known("max_outstanding_catchup", "size", "64MB"),
          known("max_buffered_size", "size", "128MB"),
          known("max_buffered_msgs", "integer", "100000"),
          known("request_queue_limit", "integer", "10000"),
          known("info_queue_limit", "integer", ""),
          known("meta_compact", "integer", ""),
          known("meta_compact_size", "size", ""),
          known("meta_compact_sync", "boolean", ""),
          known("max_concurrent_io", "integer", "4096"),
      }};
  return section;
}

}  // namespace peregrine::config
