// Rows of tls, authorization, users, permissions and accounts.
#include <fmt/format.h>

#include <algorithm>

#include "config/rows.h"

#include "config/characters.h"

namespace peregrine::config {
namespace {

constexpr Duration kHandshakeFirstAuto = std::chrono::milliseconds(50);
constexpr Duration kLongTimeout = std::chrono::seconds(60);

bool is_hex_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// true, false, auto, or how long to wait for a handshake before INFO is sent in clear.
void read_handshake_first(Binder& binder, Tls& tls, const Value& value) {
  if (value.kind == Value::Kind::kBool) {
    tls.handshake_first = value.boolean;
    return;
  }
  const std::string word = to_lower(value.text);
  if (value.kind == Value::Kind::kString && (word == "true" || word == "on" || word == "false" || word == "off")) {
    tls.handshake_first = word == "true" || word == "on";
    return;
  }
  if (word == "auto" || word == "auto_fallback") {
    tls.handshake_first = true;
    tls.handshake_first_fallback = kHandshakeFirstAuto;
    return;
  }
  if (read_duration(binder, value, "handshake_first", Seconds::kRefuse, tls.handshake_first_fallback))
    tls.handshake_first = true;
}

void read_pinned_certs(Binder& binder, Tls& tls, const Value& value) {
  std::vector<std::string> words;
  if (!read_words(binder, value, "pinned_certs", words)) return;
  tls.pinned_certs.clear();
  for (const std::string& word : words) {
    tls.pinned_certs.push_back(to_lower(word));
    if (!is_hex_sha256(tls.pinned_certs.back())) {
      binder.error(value.position,
                   fmt::format("'pinned_certs' key {} is not the hex SHA-256 of a SubjectPublicKeyInfo", word));
    }
  }
}

const Section& certificate_section() {  // TlsCertificate
  using S = TlsCertificate;
  static const Section section = {"certs[]",
                                  {
                                      text<S>("cert_file", &S::cert_file, "", "certificate chain, PEM"),
                                      text<S>("key_file", &S::key_file, "", "private key, PEM"),
                                  }};
  return section;
}

// The subjects of one direction: a subject, a list, or {allow, deny}. An empty map is no permission block at all.
void read_direction(Binder& binder, const Value& value, bool with_queue, std::optional<SubjectPermission>& out) {
  const auto read_subjects = [&](const Value& subjects, std::vector<std::string>& list) {
    if (!read_words(binder, subjects, "permissions", list)) return false;
    for (const std::string& subject : list) {
      if (is_valid_subject(subject)) continue;
      const std::size_t blank = subject.find_first_of(" \t");
      const std::size_t queue = blank == std::string::npos ? blank : subject.find_first_not_of(" \t", blank);
      const bool pair = with_queue && queue != std::string::npos && is_valid_subject(subject.substr(0, blank)) &&
                        is_valid_subject(subject.substr(queue));
      if (!pair) {
        binder.error(subjects.position, fmt::format("subject \"{}\" is not a valid subject", subject));
        return false;
      }
    }
    return true;
  };

  out.reset();
  if (value.kind == Value::Kind::kMap && value.members.empty()) return;
  SubjectPermission permission;
  std::vector<std::string> allow;
  if (value.kind != Value::Kind::kMap) {
    if (!read_subjects(value, allow)) return;
  }
  for (const Member& member : value.members) {
    const std::string name = to_lower(member.key);
    if (name == "allow") {
      allow.clear();
      if (!read_subjects(member.value, allow)) return;
    } else if (name == "deny") {
      permission.deny.clear();
      if (!read_subjects(member.value, permission.deny)) return;
    } else if (!member.value.used_as_variable) {
      binder.error(
          member.value.position,
          fmt::format("Unknown field name \"{}\" parsing subject permissions, only 'allow' or 'deny' are permitted",
                      member.key));
    }
  }
  if (!allow.empty()) permission.allow = std::move(allow);  // an empty list restricts nothing, as in nats-server
  out = std::move(permission);
}

const Section& responses_section() {  // ResponsePermission
  using S = ResponsePermission;
  static const Section section = {
      "allow_responses",
      {
          custom<S>("max|max_msgs|max_messages|max_responses", "integer", "1", "replies per request; -1 = no limit",
                    [](Binder& binder, S& target, const Value& value) {
                      std::int64_t count = 0;
                      constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
                      if (read_integer(binder, value, "max", -kMost, kMost, count) && count != 0) target.max = count;
                    }),
          custom<S>("expires|expiration|ttl", "duration", "2m",
                    "how long after the request replies are allowed; negative = for ever",
                    [](Binder& binder, S& target, const Value& value) {
                      Duration read{};
                      if (read_duration(binder, value, "expires", Seconds::kRefuse, read) && read != Duration{0})
                        target.expires = read;
                    }),
      }};
  return section;
}

void read_allow_responses(Binder& binder, Permissions& permissions, const Value& value) {
  permissions.allow_responses.reset();
  if (value.kind == Value::Kind::kBool) {
    if (value.boolean) permissions.allow_responses.emplace();
  } else if (value.kind == Value::Kind::kMap) {
    binder.bind(responses_section(), &permissions.allow_responses.emplace(), value);
  } else {
    binder.type_error(value, "allow_responses", "true, false or a map");
  }
}

// Replies are a publish permission: whoever has only that may publish nothing else.
void complete(Permissions& permissions) {
  if (!permissions.allow_responses) return;
  if (!permissions.publish) permissions.publish.emplace();
  if (!permissions.publish->allow) permissions.publish->allow.emplace();
}

template <class S, class Access>
Key permissions_row(std::string_view names, Access access, std::string_view doc) {
  return block<S>(names, access, permissions_section(), doc, [access](Binder&, S& target, const Value&) {
    if (auto& permissions = std::invoke(access, target)) complete(*permissions);
  });
}

void read_connection_types(Binder& binder, User& user, const Value& value) {
  static constexpr std::string_view kTypes[] = {"STANDARD", "WEBSOCKET", "LEAFNODE",  "LEAFNODE_WS",
                                                "MQTT",     "MQTT_WS",   "IN_PROCESS"};
  std::vector<std::string> words;
  if (!read_words(binder, value, "allowed_connection_types", words)) return;
  user.allowed_connection_types.clear();
  std::string wrong;
  for (std::string word : words) {
    for (char& c : word) {
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    }
    if (std::find(std::begin(kTypes), std::end(kTypes), word) == std::end(kTypes)) {
      wrong += fmt::format("{}\"{}\"", wrong.empty() ? "" : " ", word);
    } else if (std::find(user.allowed_connection_types.begin(), user.allowed_connection_types.end(), word) ==
               user.allowed_connection_types.end()) {
      user.allowed_connection_types.push_back(word);
    }
  }
  if (!wrong.empty()) binder.error(value.position, fmt::format("invalid connection types [{}]", wrong));
}

const Section& user_section() {  // User
  using S = User;
  static const Section section = {
      "users[]",
      {
          text<S>("user|username", &S::user, "", "name"),
          text<S>("password|pass", &S::password, "", "plain, or a bcrypt hash ($2a$...)"),
          text<S>("nkey", &S::nkey, "", "public user key U..., instead of user and password").later(),
          permissions_row<S>("permissions|permission|authorization", &S::permissions,
                             "what it may publish and subscribe"),
          custom<S>("allowed_connection_types|connection_types|clients", "list of strings", "[]",
                    "STANDARD, WEBSOCKET, LEAFNODE, LEAFNODE_WS, MQTT, MQTT_WS, IN_PROCESS; empty = all",
                    read_connection_types),
          flag<S>("proxy_required", &S::proxy_required, "false", "only through a trusted proxy").later(),
      }};
  return section;
}

const Section& leaf_user_section() {  // User
  using S = User;
  static const Section section = {
      "leafnodes.authorization.users[]",
      {
          text<S>("user|username", &S::user, "", "name"),
          text<S>("password|pass", &S::password, "", "plain or bcrypt"),
          text<S>("account", &S::account, "", "local account of that leaf node"),
          flag<S>("proxy_required", &S::proxy_required, "false", "only through a trusted proxy").later(),
      }};
  return section;
}

void check_user(Binder& binder, User& user, const Value& value) {
  if (user.user.empty() && user.nkey.empty()) {
    binder.error(value.position, "User entry requires a user");
  } else if (!user.nkey.empty() && (!user.user.empty() || !user.password.empty())) {
    binder.error(value.position, "Nkey users do not take usernames or passwords");
  }
}

const Section& auth_callout_section() {  // AuthCallout
  using S = AuthCallout;
  static const Section section = {
      "authorization.auth_callout",
      {
          text<S>("issuer", &S::issuer, "", "public account key A... that signs the answers"),
          text<S>("account|acc", &S::account, "$G", "account the service listens in"),
          words<S>("auth_users|users", &S::auth_users, "[]", "users that bypass the service"),
          text<S>("xkey|key", &S::xkey, "", "public curve key X... to encrypt for"),
          words<S>("allowed_accounts", &S::allowed_accounts, "[]", "accounts the service may hand out; empty = all"),
      }};
  return section;
}

Key timeout_row() {
  return custom<Authorization>(
      "timeout", "duration", "2s", "for CONNECT to arrive; a number is seconds. With tls its timeout + 1 s",
      [](Binder& binder, Authorization& target, const Value& value) {
        Duration read{};
        if (!read_duration(binder, value, "timeout", Seconds::kAllow, read)) return;
        if (read > kLongTimeout) {
          binder.warn(value.position,
                      fmt::format("invalid use of field \"timeout\": {} is long for a timeout; a duration must "
                                  "be in quotes, a bare 1m is a million seconds",
                                  format_duration(read)));
        }
        target.timeout = read;
      });
}

// Users without permissions of their own get the default ones.
void spread_defaults(std::vector<User>& users, const std::optional<Permissions>& defaults) {
  if (!defaults) return;
  for (User& user : users) {
    if (!user.permissions) user.permissions = defaults;
  }
}

const Section& import_source_section() {  // AccountImport
  using S = AccountImport;
  static const Section section = {"imports[].stream",
                                  {
                                      text<S>("account", &S::account, "", "exporting account"),
                                      text<S>("subject", &S::subject, "", "subject there"),
                                  }};
  return section;
}

Key import_kind_row(std::string_view name, bool service, std::string_view doc) {
  Key key = custom<AccountImport>(
      name, "map", "", doc,
      [service, name = std::string(name)](Binder& binder, AccountImport& target, const Value& value) {
        if (value.kind != Value::Kind::kMap) {
          binder.type_error(value, name, "a map {account, subject}");
          return;
        }
        if (!target.account.empty()) {
          binder.error(value.position, fmt::format("Detected {} but already saw a {}", service ? "service" : "stream",
                                                   service ? "stream" : "service"));
          return;
        }
        target.service = service;
        binder.bind(import_source_section(), &target, value);
        if (target.account.empty() || target.subject.empty())
          binder.error(value.position, "Expect an account name and a subject");
      });
  key.section = &import_source_section();
  return key;
}

const Section& import_section() {  // AccountImport
  using S = AccountImport;
  static const Section section = {
      "accounts{}.imports[]",
      {
          import_kind_row("stream", false, "messages published in another account"),
          import_kind_row("service", true, "requests answered in another account"),
          text<S>("prefix", &S::prefix, "", "streams: prefix of the local subject"),
          text<S>("to", &S::to, "", "local subject"),
          flag<S>("share", &S::share, "false", "services: tell the responder who asks"),
          flag<S>("allow_trace", &S::allow_trace, "false", "streams: message traces may pass"),
      }};
  return section;
}

const Section& latency_section() {  // LatencyExport
  using S = LatencyExport;
  static const Section section = {
      "exports[].latency",
      {
          custom<S>("sampling", "percent or headers", "100", "share of requests that are measured",
                    [](Binder& binder, S& target, const Value& value) {
                      if (value.kind == Value::Kind::kString && to_lower(value.text) == "headers") {
                        target.sampling = 0;
                        return;
                      }
                      std::string digits = value.text;
                      if (!digits.empty() && digits.back() == '%') digits.pop_back();
                      const Result<std::int64_t> percent = parse_integer(digits);
                      if (!percent || *percent < 1 || *percent > 100) {
                        binder.error(value.position, "bad sampling percentage, should be 1-100");
                        return;
                      }
                      target.sampling = static_cast<int>(*percent);
                    }),
          text<S>("subject", &S::subject, "", "where measurements are published"),
      }};
  return section;
}

Key export_kind_row(std::string_view name, bool service, std::string_view doc) {
  return custom<AccountExport>(
      name, "subject", "", doc,
      [service, name = std::string(name)](Binder& binder, AccountExport& target, const Value& value) {
        if (!target.subject.empty()) {
          binder.error(value.position,
                       fmt::format("Detected {} but already saw a {}", name, service ? "stream" : "service"));
          return;
        }
        target.service = service;
        read_text(binder, value, name, target.subject);
      });
}

const Section& export_section() {  // AccountExport
  using S = AccountExport;
  static const Section section = {
      "accounts{}.exports[]",
      {
          export_kind_row("stream", false, "messages others may import"),
          export_kind_row("service", true, "requests others may send"),
          words<S>("accounts", &S::accounts, "[]", "who may import; empty = everybody"),
          custom<S>("response_type|response", "single | stream | chunked", "single",
                    "services: how many replies there are",
                    [](Binder& binder, S& target, const Value& value) {
                      const std::string word = to_lower(value.text);
                      if (word == "single" || word == "singleton") {
                        target.response_type = "singleton";
                      } else if (word == "stream") {
                        target.response_type = "stream";
                      } else if (word == "chunk" || word == "chunked") {
                        target.response_type = "chunked";
                      } else {
                        binder.error(value.position, fmt::format("Unknown response type: \"{}\"", value.text));
                      }
                    }),
          duration<S>("response_threshold|threshold|response_max_time|response_time", &S::response_threshold,
                      Seconds::kRefuse, "2m", "services: how long a reply may take"),
          custom<S>("latency", "subject or map", "", "services: measure response times",
                    [](Binder& binder, S& target, const Value& value) {
                      LatencyExport& latency = target.latency.emplace();
                      if (value.kind == Value::Kind::kMap) {
                        binder.bind(latency_section(), &latency, value);
                        if (latency.subject.empty())
                          binder.error(value.position, "Latency subject required, but missing");
                      } else {
                        read_text(binder, value, "latency", latency.subject);
                      }
                    }),
          integer<S>("account_token_position", &S::account_token_position, 0, 255, "0",
                     "token that must be the importer's key; 0 = none"),
          flag<S>("allow_trace", &S::allow_trace, "false", "services: message traces may pass"),
      }};
  return section;
}

void check_export(Binder& binder, AccountExport& target, const Value& value) {
  if (target.subject.empty()) binder.error(value.position, "an export needs a stream or a service");
  const bool service_only = !target.response_type.empty() || target.response_threshold != Duration{0};
  if (!target.service && service_only) binder.error(value.position, "Detected response directive on non-service");
  if (!target.service && target.latency) binder.error(value.position, "Detected latency directive on non-service");
  if (!target.service && target.allow_trace)
    binder.error(value.position, "Detected allow_trace directive on non-service");
}

void check_import(Binder& binder, AccountImport& target, const Value& value) {
  if (target.account.empty()) binder.error(value.position, "an import needs a stream or a service");
  if (target.service && target.allow_trace)
    binder.error(value.position, "Detected allow_trace directive on a non-stream");
  if (!target.service && !target.prefix.empty() && !target.to.empty()) {
    binder.error(value.position, "Stream import can not have a 'prefix' and a 'to' property");
  }
}

const Section& limits_section() {  // AccountLimits
  using S = AccountLimits;
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  static const Section section = {"accounts{}.limits",
                                  {
                                      integer<S>("max_connections|max_conn", &S::max_connections, -1, kMost, "-1",
                                                 "connections of the account; -1 = no limit"),
                                      integer<S>("max_subscriptions|max_subs", &S::max_subscriptions, -1, kMost, "-1",
                                                 "subscriptions per connection; -1 = no limit"),
                                      size<S>("max_payload|max_pay", &S::max_payload, -1, kMost, "-1",
                                              "bytes of a message; -1 = the server's limit"),
                                      integer<S>("max_leafnodes|max_leafs", &S::max_leafnodes, -1, kMost, "-1",
                                                 "leaf node connections; -1 = no limit"),
                                  }};
  return section;
}

void read_msg_trace(Binder& binder, Account& account, const Value& value) {
  MsgTrace& trace = account.msg_trace.emplace();
  if (value.kind != Value::Kind::kMap) {
    read_text(binder, value, "msg_trace", trace.dest);
    return;
  }
  for (const Member& member : value.members) {
    const std::string name = to_lower(member.key);
    if (name == "dest") {
      read_text(binder, member.value, name, trace.dest);
    } else if (name == "sampling") {
      std::string digits = member.value.text;
      if (!digits.empty() && digits.back() == '%') digits.pop_back();
      const Result<std::int64_t> percent = parse_integer(digits);
      if (!percent || *percent < 1 || *percent > 100) {
        binder.error(member.value.position, "trace destination sampling needs to be [1..100]");
      } else {
        trace.sampling = static_cast<int>(*percent);
      }
    } else if (!member.value.used_as_variable) {
      binder.error(member.value.position, fmt::format("unknown field \"{}\"", member.key));
    }
  }
}

const Section& account_jetstream_section() {  // AccountJetStream
  using S = AccountJetStream;
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  static const Section section = {
      "accounts{}.jetstream",
      {
          size<S>("max_memory|max_mem|mem|memory", &S::max_memory, -1, kMost, "-1", "bytes in memory"),
          size<S>("max_store|max_file|max_disk|store|disk", &S::max_store, -1, kMost, "-1", "bytes on disk"),
          integer<S>("max_streams|streams", &S::max_streams, -1, kMost, "-1", "streams"),
          integer<S>("max_consumers|consumers", &S::max_consumers, -1, kMost, "-1", "consumers"),
          flag<S>("max_bytes_required|max_stream_bytes|max_bytes", &S::max_bytes_required, "false",
                  "streams must have a size limit"),
          size<S>("memory_max_stream_bytes|mem_max_stream_bytes", &S::memory_max_stream_bytes, -1, kMost, "-1",
                  "bytes of a memory stream"),
          size<S>("disk_max_stream_bytes|store_max_stream_bytes", &S::disk_max_stream_bytes, -1, kMost, "-1",
                  "bytes of a file stream"),
          integer<S>("max_ack_pending", &S::max_ack_pending, -1, kMost, "-1", "unacknowledged messages"),
          text<S>("cluster_traffic", &S::cluster_traffic, "system",
                  "account that replication runs in: system or owner"),
      }};
  return section;
}

void read_account_jetstream(Binder& binder, Account& account, const Value& value) {
  account.jetstream.reset();
  const std::string word = to_lower(value.text);
  if (value.kind == Value::Kind::kMap) {
    binder.bind(account_jetstream_section(), &account.jetstream.emplace(), value);
  } else if (value.kind == Value::Kind::kBool) {
    if (value.boolean) account.jetstream.emplace();
  } else if (word == "enabled" || word == "enable") {
    account.jetstream.emplace();
  } else if (word != "disabled" && word != "disable") {
    binder.type_error(value, "jetstream", "enabled, disabled or a map");
  }
}

}  // namespace

const Section& tls_section() {
  using S = Tls;
  static const Section section = {
      "tls",
      {
          text<S>("cert_file", &S::cert_file, "", "certificate chain, PEM"),
          text<S>("key_file", &S::key_file, "", "private key, PEM"),
          text<S>("ca_file", &S::ca_file, "", "authorities of the other side, PEM; empty = the system's"),
          flag<S>("verify", &S::verify, "false", "the other side must have a certificate"),
          custom<S>("verify_and_map", "boolean", "false", "verify, and the certificate names the user",
                    [](Binder& binder, S& target, const Value& value) {
                      if (read_bool(binder, value, "verify_and_map", target.verify_and_map) && value.boolean)
                        target.verify = true;
                    })
              .later(),
          custom<S>("verify_cert_and_check_known_urls", "boolean", "false",
                    "verify; of routes and gateways also that the certificate is for a host in the urls of this file",
                    [](Binder& binder, S& target, const Value& value) {
                      if (read_bool(binder, value, "verify_cert_and_check_known_urls",
                                    target.verify_cert_and_check_known_urls) &&
                          value.boolean) {
                        target.verify = true;
                      }
                    }),
          flag<S>("insecure", &S::insecure, "false", "solicited connections: do not check the other side"),
          words<S>("cipher_suites", &S::cipher_suites, "[]", "TLS_ECDHE_...; empty = the library's"),
          words<S>("curve_preferences", &S::curve_preferences, "[]", "X25519, CurveP256, ...; empty = the library's"),
          flag<S>("allow_insecure_cipher_suites", &S::allow_insecure_cipher_suites, "false", ""),
          choice<S, decltype(&S::min_version), std::string>("min_version", &S::min_version,
                                                            {{"1.2", "1.2"}, {"1.3", "1.3"}}, "1.2", "oldest protocol"),
          duration<S>("timeout", &S::timeout, Seconds::kAllow, "2s", "for the handshake; a number is seconds"),
          custom<S>("handshake_first|first|immediate", "boolean | auto | duration", "false", "TLS before INFO",
                    read_handshake_first),
          custom<S>("pinned_certs", "list of strings", "[]", "hex SHA-256 of the keys that are let in",
                    read_pinned_certs),
          integer<S>("connection_rate_limit", &S::connection_rate_limit, 0, std::numeric_limits<std::int64_t>::max(),
                     "0", "handshakes per second; 0 = no limit")
              .later(),
          blocks<S>("certs|certificates", &S::certs, certificate_section(),
                    "several certificates instead of cert_file and key_file",
                    [](Binder& binder, TlsCertificate& pair, const Value& value) {
                      if (pair.cert_file.empty() || pair.key_file.empty()) {
                        binder.error(value.position, "a certificate needs both 'cert_file' and 'key_file'");
                      }
                    }),
          known("ocsp_peer", "boolean or map", "OCSP check of the other side's certificate").later(),
          known("cert_store", "string", "Windows certificate store").later(),
          known("cert_match_by", "string", "Windows certificate store").later(),
          known("cert_match", "string", "Windows certificate store").later(),
          known("ca_certs_match", "list of strings", "Windows certificate store").later(),
          known("cert_match_skip_invalid", "boolean", "Windows certificate store").later(),
      }};
  return section;
}

const Section& permissions_section() {
  using S = Permissions;
  static const Section section = {
      "permissions",
      {
          custom<S>("publish|pub|import", "subjects or {allow, deny}", "", "subjects it may publish to",
                    [](Binder& binder, S& target, const Value& value) {
                      read_direction(binder, value, false, target.publish);
                    }),
          custom<S>("subscribe|sub|export", "subjects or {allow, deny}", "",
                    "subjects it may subscribe to; \"subject queue\" names a group",
                    [](Binder& binder, S& target, const Value& value) {
                      read_direction(binder, value, true, target.subscribe);
                    }),
          custom<S>("allow_responses|publish_allow_responses", "boolean or {max, expires}", "false",
                    "it may answer what it receives", read_allow_responses),
      }};
  return section;
}

const Section& authorization_section() {
  using S = Authorization;
  static const Section section = {
      "authorization",
      {
          text<S>("user|username", &S::user, "", "the only user"),
          text<S>("password|pass", &S::password, "", "its password, plain or a bcrypt hash"),
          text<S>("token", &S::token, "", "a token instead of users, plain or a bcrypt hash"),
          timeout_row(),
          blocks<S>("users", &S::users, user_section(), "several users", check_user),
          permissions_row<S>("default_permissions|default_permission|permissions", &S::default_permissions,
                             "of users without permissions of their own"),
          block<S>("auth_callout|auth_hook", &S::auth_callout, auth_callout_section(),
                   "authentication by a service on the bus",
                   [](Binder& binder, S& target, const Value& value) {
                     AuthCallout& callout = *target.auth_callout;
                     if (callout.account.empty()) callout.account = "$G";
                     if (callout.issuer.empty())
                       binder.error(value.position, "Authorization callouts require an issuer to be specified");
                     if (callout.auth_users.empty()) {
                       binder.error(value.position, "Authorization callouts require authorized users to be specified");
                     }
                   })
              .later(),
          flag<S>("proxy_required", &S::proxy_required, "false", "clients must come through a trusted proxy").later(),
      }};
  return section;
}

const Section& simple_authorization_section() {
  using S = Authorization;
  static const Section section = {"websocket.authorization",
                                  {
                                      text<S>("user|username", &S::user, "", "the only user"),
                                      text<S>("password|pass", &S::password, "", "its password"),
                                      text<S>("token", &S::token, "", "a token instead"),
                                      timeout_row(),
                                  }};
  return section;
}

const Section& leaf_authorization_section() {
  using S = Authorization;
  static const Section section = {
      "leafnodes.authorization",
      {
          text<S>("user|username", &S::user, "", "the only user"),
          text<S>("password|pass", &S::password, "", "its password"),
          text<S>("nkey", &S::nkey, "", "public user key instead").later(),
          text<S>("account", &S::account, "$G", "local account of its leaf nodes"),
          timeout_row(),
          blocks<S>("users", &S::users, leaf_user_section(), "several users", [](Binder&, User&, const Value&) {}),
          flag<S>("proxy_required", &S::proxy_required, "false", "leaf nodes must come through a trusted proxy")
              .later(),
      }};
  return section;
}

const Section& account_section() {
  using S = Account;
  static const Section section = {
      "accounts{}",
      {
          text<S>("nkey", &S::nkey, "", "public account key A..."),
          blocks<S>("users", &S::users, user_section(), "who lives in the account", check_user),
          blocks<S>("exports", &S::exports, export_section(), "what other accounts may use", check_export),
          blocks<S>("imports", &S::imports, import_section(), "what it uses of others", check_import),
          custom<S>(
              "mappings|maps", "map of subjects", "{}", "subject rewriting",
              [](Binder& binder, S& target, const Value& value) { read_mappings(binder, value, target.mappings); }),
          permissions_row<S>("default_permissions", &S::default_permissions,
                             "of users without permissions of their own"),
          block<S>("limits", &S::limits, limits_section(), "bounds of the account"),
          custom<S>("msg_trace|trace_dest", "subject or {dest, sampling}", "", "where message traces go",
                    read_msg_trace),
          custom<S>("jetstream", "enabled | disabled | map", "disabled", "streams of the account",
                    read_account_jetstream),
      }};
  return section;
}

void complete_authorization(Authorization& authorization) {
  spread_defaults(authorization.users, authorization.default_permissions);
}

void complete_account(Account& account) { spread_defaults(account.users, account.default_permissions); }

}  // namespace peregrine::config
