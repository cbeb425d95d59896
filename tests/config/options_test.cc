// Tree -> Options: every kind of key, what is wrong with a value, what does not fit together, what is refused.
#include <gtest/gtest.h>

#include "config/keys.h"
#include "config/limits.h"
#include "config/validate.h"
#include "tests/config/world.h"

namespace peregrine::config::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

Options good(const std::string& text, World world = {}) {
  LoadedFile loaded = load(text, "main.conf", std::move(world));
  EXPECT_EQ(to_text(loaded.errors), "") << text;
  return without_origin(loaded.options);
}

std::string errors(const std::string& text) { return to_text(load(text).errors); }
std::string warnings(const std::string& text) { return to_text(load(text).warnings); }

Options all(const std::string& text) {
  const LoadedFile loaded = bind_all(text);
  EXPECT_EQ(to_text(loaded.errors), "") << text;
  return loaded.options;
}

TEST(Options, AnEmptyFileIsTheDefaults) {
  EXPECT_EQ(good("logtime: true"), Options{});
  EXPECT_EQ(warnings(""), "main.conf: config has no values or is empty");
}

TEST(Options, Clients) {
  const Options options =
      good("listen: 127.0.0.1:-1\nclient_advertise: x:1\nserver_name: 'n1'\nserver_tags: ['A:b ', a:b, c]");
  EXPECT_EQ(options.host, "127.0.0.1");
  EXPECT_EQ(options.port, -1);
  EXPECT_EQ(options.client_advertise, "x:1");
  EXPECT_EQ(options.server_name, "n1");
  EXPECT_EQ(options.server_tags, (std::vector<std::string>{"a:b", "c"}));
  EXPECT_EQ(good("listen: 4333").port, 4333);
  EXPECT_EQ(good("listen: 4333").host, "0.0.0.0");
  EXPECT_EQ(good("listen: \"[::1]:4333\"").host, "::1");
  EXPECT_EQ(good("net: ::1\nPORT: -1").host, "::1");
  EXPECT_EQ(good("port: 0").port, 4222) << "0 means the default";
}

TEST(Options, Limits) {
  const Options options = good(
      "max_control_line: 8KB\nmax_payload: 2MB\nmax_pending: 4MB\nmax_conn: 7\nmax_subs: 9\nmax_sub_tokens: "
      "16\nping_interval: \"5s\"\n"
      "ping_max: 3\nwrite_deadline: \"3s\"\nwrite_timeout: close\nno_fast_producer_stall: true\nmax_closed_clients: "
      "5\nmax_traced_msg_len: 8\n"
      "lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"1s\"\nno_header_support: yes\nno_sublist_cache: "
      "on\nconnect_error_reports: 2\n"
      "reconnect_error_reports: 3\nstore_dir: /x");
  EXPECT_EQ(options.max_control_line, 8192);
  EXPECT_EQ(peer_control_line_bytes(options), 8192 * 16);
  EXPECT_EQ(options.max_payload, 2 << 20);
  EXPECT_EQ(options.max_pending, 4 << 20);
  EXPECT_EQ(options.max_connections, 7);
  EXPECT_EQ(options.max_subscriptions, 9);
  EXPECT_EQ(options.max_subscription_tokens, 16);
  EXPECT_EQ(options.ping_interval, seconds(5));
  EXPECT_EQ(options.ping_max, 3);
  EXPECT_EQ(options.write_deadline, seconds(3));
  EXPECT_EQ(options.write_timeout, WriteTimeout::kClose);
  EXPECT_TRUE(options.no_fast_producer_stall);
  EXPECT_EQ(options.max_closed_clients, 5);
  EXPECT_EQ(options.max_traced_msg_len, 8);
  EXPECT_EQ(options.lame_duck_duration, seconds(30));
  EXPECT_EQ(options.lame_duck_grace_period, seconds(1));
  EXPECT_TRUE(options.no_header_support);
  EXPECT_TRUE(options.disable_sublist_cache);
  EXPECT_EQ(options.connect_error_reports, 2);
  EXPECT_EQ(options.reconnect_error_reports, 3);
  EXPECT_EQ(good("max_connections: 0").max_connections, -1) << "nobody, as in nats-server 2.15";
  EXPECT_EQ(good("max_connections: -1").max_connections, -1);
  EXPECT_EQ(good("max_payload: 0\nping_max: 0\nwrite_deadline: \"0s\"").max_payload, 1 << 20) << "0 means the default";
}

TEST(Options, LogAndMonitoring) {
  const Options options = good(
      "debug: true\ntrace_verbose: true\nlogtime: false\nlogtime_utc: true\nlogfile: l\nlog_size_limit: "
      "1GB\nlog_max_num: 3\nsyslog: true\n"
      "remote_syslog: udp://h:1\npidfile: p\nports_file_dir: d\nhttp: \"h:8222\"\nhttp_base_path: base/");
  EXPECT_TRUE(options.debug);
  EXPECT_TRUE(options.trace);
  EXPECT_TRUE(options.trace_verbose);
  EXPECT_FALSE(options.logtime);
  EXPECT_TRUE(options.logtime_utc);
  EXPECT_EQ(options.log_file, "l");
  EXPECT_EQ(options.logfile_size_limit, 1 << 30);
  EXPECT_EQ(options.logfile_max_num, 3);
  EXPECT_TRUE(options.syslog);
  EXPECT_EQ(options.remote_syslog, "udp://h:1");
  EXPECT_EQ(options.pid_file, "p");
  EXPECT_EQ(options.ports_file_dir, "d");
  EXPECT_EQ(options.http_port, 8222);
  EXPECT_EQ(monitoring_host(options), "h");
  EXPECT_EQ(options.http_base_path, "/base");
  EXPECT_EQ(monitoring_host(good("monitor_port: 8222\nhost: x")), "x");
  EXPECT_EQ(good("http_base_path: /").http_base_path, "");
}

TEST(Options, Authorization) {
  const Options single = good("authorization { username: u, pass: p, timeout: 3 }");
  EXPECT_TRUE(single.authorization.defined);
  EXPECT_EQ(single.authorization.user, "u");
  EXPECT_EQ(single.authorization.password, "p");
  EXPECT_EQ(auth_timeout(single), seconds(3));
  EXPECT_TRUE(needs_credentials(single));
  EXPECT_EQ(auth_timeout(good("authorization { token: t, timeout: 0.25 }")), milliseconds(250));
  EXPECT_EQ(auth_timeout(good("authorization { token: t, timeout: \"1m\" }")), minutes(1));
  EXPECT_EQ(auth_timeout(good("authorization { token: t }")), seconds(2));
  EXPECT_FALSE(needs_credentials(good("authorization { }")));
}

TEST(Options, Permissions) {
  const Options options = good(
      "authorization { default_permissions { publish: d }\n users: [\n {user: a, password: x}\n"
      " {user: b, permissions { publish: {allow: [p.>, q], deny: p.x}, subscribe: \"s.* grp\" } }\n"
      " {user: c, permissions { allow_responses: true } }\n"
      " {user: d, permission { sub: [], pub: {}, allow_responses: {max: -1, ttl: \"5s\"} } }\n"
      " {user: e, authorization { publish: [], subscribe {deny: [z]} }, clients: [mqtt, MQTT] }\n ] }");
  const std::vector<User>& users = options.authorization.users;
  ASSERT_EQ(users.size(), 5U);
  using Words = std::vector<std::string>;
  EXPECT_EQ(users[0].permissions->publish->allow, Words{"d"}) << "default_permissions";
  EXPECT_EQ(users[1].permissions->publish->allow, (Words{"p.>", "q"}));
  EXPECT_EQ(users[1].permissions->publish->deny, Words{"p.x"});
  EXPECT_EQ(users[1].permissions->subscribe->allow, Words{"s.* grp"});
  EXPECT_FALSE(users[1].permissions->allow_responses);
  EXPECT_EQ(users[2].permissions->allow_responses->max, 1);
  EXPECT_EQ(users[2].permissions->allow_responses->expires, minutes(2));
  EXPECT_EQ(users[2].permissions->publish->allow, Words{}) << "answers only";
  EXPECT_FALSE(users[2].permissions->subscribe);
  EXPECT_EQ(users[3].permissions->allow_responses->max, -1);
  EXPECT_EQ(users[3].permissions->allow_responses->expires, seconds(5));
  EXPECT_EQ(users[3].permissions->publish->allow, Words{});
  EXPECT_FALSE(users[3].permissions->subscribe->allow) << "an empty list restricts nothing";
  EXPECT_FALSE(users[4].permissions->publish->allow);
  EXPECT_EQ(users[4].permissions->subscribe->deny, Words{"z"});
  EXPECT_EQ(users[4].allowed_connection_types, Words{"MQTT"});
}

TEST(Errors, UnknownFieldsNameTheirNearest) {
  EXPECT_EQ(errors("prot: 1"), "main.conf:1:1: unknown field \"prot\", did you mean \"port\"?");
  EXPECT_EQ(errors("\n  max_paylod: 1"), "main.conf:2:3: unknown field \"max_paylod\", did you mean \"max_payload\"?");
  EXPECT_EQ(errors("zzzzzzzz: 1"), "main.conf:1:1: unknown field \"zzzzzzzz\"");
  EXPECT_EQ(errors("authorization {\n users: [\n  {usr: a, user: b}\n ]\n}"),
            "main.conf:3:4: unknown field \"usr\", did you mean \"user\"?");
  EXPECT_EQ(errors("authorization { permissions { publsh: a } }"),
            "main.conf:1:31: unknown field \"publsh\", did you mean \"publish\"?");
  EXPECT_EQ(to_text(load("prot: 1\nnested:\n  x: 1\n", "a.yaml").errors),
            "a.yaml:1:1: unknown field \"prot\", did you mean \"port\"?\na.yaml:2:1: unknown field \"nested\"");
}

TEST(Errors, AKeyUsedAsVariableMayHaveAnyName) {
  EXPECT_EQ(good("my_port: 4333\nport: $my_port").port, 4333);
  EXPECT_EQ(good("authorization { secret: x, user: a, password: $secret }").authorization.password, "x");
  World world;
  world.files["vars.conf"] = "my_port: 4333\nunused: 1";
  world.files["main.conf"] = "include vars.conf\nport: $my_port";
  const Sources sources = world.sources();
  EXPECT_EQ(to_text(load_file("main.conf", sources).errors), "vars.conf:2:1: unknown field \"unused\"");
}

TEST(Errors, AreAllCollectedInOrder) {
  EXPECT_EQ(errors("foo: 1\nport: abc\nmax_payload: 10GiB\nmqtt { port: 1883 }\nbar: 2"),
            "main.conf:1:1: unknown field \"foo\"\n"
            "main.conf:2:1: \"port\" must be an integer, got a string \"abc\"\n"
            "main.conf:3:1: max_payload value is too big: 10737418240 is more than 2147483647\n"
            "main.conf:4:1: \"mqtt\" is not supported by this version yet\n"
            "main.conf:5:1: unknown field \"bar\"");
}

TEST(Errors, Types) {
  EXPECT_EQ(errors("debug: 1"), "main.conf:1:1: \"debug\" must be true or false, got an integer");
  EXPECT_EQ(errors("debug: 'true'"), "main.conf:1:1: \"debug\" must be true or false, got a string \"true\"");
  EXPECT_EQ(errors("server_name: 5"), "main.conf:1:1: \"server_name\" must be a string (in quotes), got an integer");
  EXPECT_EQ(errors("authorization { user: a, password: 123 }"),
            "main.conf:1:26: \"password\" must be a string (in quotes), got an integer");
  EXPECT_EQ(errors("authorization: x"), "main.conf:1:1: \"authorization\" must be a map, got a string \"x\"");
  EXPECT_EQ(errors("authorization { users: {user: a} }"),
            "main.conf:1:17: \"users\" must be an array of maps, got a map");
  EXPECT_EQ(errors("server_tags: [a, 1]"),
            "main.conf:1:18: an entry of \"server_tags\" must be a string, got an integer");
  EXPECT_EQ(errors("listen: true"), "main.conf:1:1: expected port or host:port, got a boolean");
  EXPECT_EQ(errors("listen: nohost"), "main.conf:1:1: could not parse address string \"nohost\"");
  EXPECT_EQ(errors("listen: a:b"), "main.conf:1:1: could not parse port \"b\"");
  EXPECT_EQ(errors("port: 70000"), "main.conf:1:1: port value is too big: 70000 is more than 65535");
  EXPECT_EQ(errors("port: -2"), "main.conf:1:1: port value is too small: -2 is less than -1");
  EXPECT_EQ(errors("max_pending: -1"), "main.conf:1:1: max_pending value can not be negative");
  EXPECT_EQ(errors("write_timeout: foo"), "main.conf:1:1: write_timeout must be 'default', 'close' or 'retry'");
  EXPECT_EQ(errors("max_sub_tokens: 256"),
            "main.conf:1:1: max_subscription_tokens value is too big: 256 is more than 255");
  EXPECT_EQ(errors("ping_interval: foo"), "main.conf:1:1: error parsing ping_interval: time: invalid duration \"foo\"");
  EXPECT_EQ(
      errors("lame_duck_duration: 2m"),
      "main.conf:1:1: \"lame_duck_duration\" must be a duration such as \"2m\", got an integer: put 2m in quotes");
  EXPECT_EQ(to_text(load("authorization:\n", "a.yaml").errors), "a.yaml:1:1: \"authorization\" has no value");
}

TEST(Errors, APasswordIsNotRepeated) {
  for (const char* text : {"authorization { password: [hunter2] }", "cluster { routes: [\"nats://u:hunter2@a:b\"] }",
                           "authorization { password: true, pass: 7777777 }"}) {
    const std::string found = errors(text);
    EXPECT_NE(found, "");
    EXPECT_EQ(found.find("hunter2"), std::string::npos) << found;
    EXPECT_EQ(found.find("777"), std::string::npos) << found;
  }
}

TEST(Errors, AuthorizationIsOneOfThree) {
  EXPECT_EQ(errors("authorization {user: a,pass: b, token: c}"), "main.conf:1:1: Cannot have a user/pass and token");
  EXPECT_EQ(errors("authorization {user: a, users: [{user: b}]}"),
            "main.conf:1:1: Can not have a single user/pass and a users array");
  EXPECT_EQ(errors("authorization {token: a, users: []}"), "main.conf:1:1: Can not have a token and a users array");
  EXPECT_EQ(errors("authorization {users: [{user: a}, {user: b}, {user: a}]}"),
            "main.conf:1:1: Duplicate user \"a\" detected");
  EXPECT_EQ(errors("authorization {users: [{password: a}]}"), "main.conf:1:24: User entry requires a user");
  EXPECT_EQ(errors("authorization {users: [{user: a, permissions {publish: \"a b\"}}]}"),
            "main.conf:1:47: subject \"a b\" is not a valid subject");
  EXPECT_EQ(errors("authorization {users: [{user: a, permissions {publish: {allow: a..b}}}]}"),
            "main.conf:1:57: subject \"a..b\" is not a valid subject");
  EXPECT_EQ(
      errors("authorization {users: [{user: a, permissions {publish: {foo: a}}}]}"),
      "main.conf:1:57: Unknown field name \"foo\" parsing subject permissions, only 'allow' or 'deny' are permitted");
  EXPECT_EQ(errors("authorization {users: [{user: a, clients: [foo, standard, 'b r']}]}"),
            "main.conf:1:34: invalid connection types [\"FOO\" \"B R\"]");
  EXPECT_EQ(errors("no_auth_user: x"), "main.conf:1:1: no_auth_user: \"x\" present, but users/nkeys are not defined");
  EXPECT_EQ(
      errors("port: 1\nno_auth_user: x\nauthorization {users: [{user: a}]}"),
      "main.conf:2:1: no_auth_user: \"x\" not present as user or nkey in authorization block or account configuration");
}

TEST(Errors, OptionsMustFitTogether) {
  EXPECT_EQ(errors("max_payload: 2MB\nmax_pending: 1MB"),
            "main.conf:1:1: max_payload (2097152) cannot be higher than max_pending (1048576)");
  EXPECT_EQ(errors("lame_duck_grace_period: \"3m\""),
            "main.conf:1:1: lame duck grace period (3m0s) should be strictly lower than lame duck duration (2m0s)");
  EXPECT_EQ(errors("lame_duck_duration: \"20s\""),
            "main.conf:1:1: invalid lame_duck_duration of 20s, minimum is 30 seconds");
  EXPECT_EQ(errors("lame_duck_grace_period: \"-1s\""),
            "main.conf:1:1: invalid lame_duck_grace_period, needs to be positive");
  EXPECT_EQ(errors("server_name: \"a b\""), "main.conf:1:1: server name cannot contain spaces");
  EXPECT_EQ(errors("shards: 3\ncores: [0,1]"), "main.conf:1:1: shards: 3 but cores lists only 2");
  EXPECT_EQ(errors("shards: 0"), "main.conf:1:1: shards value is too small: 0 is less than 1");
  EXPECT_EQ(errors("shards: many"), "main.conf:1:1: \"shards\" must be auto or a number, got a string \"many\"");
  EXPECT_EQ(errors("cores: [1,1]"), "main.conf:1:11: core 1 is listed twice");
  EXPECT_EQ(errors("ring_bytes: 100000"), "main.conf:1:1: ring_bytes must be a power of two, got 100000");
  EXPECT_EQ(errors("ring_bytes: 64KB\ninline_payload_bytes: 32KB"),
            "main.conf:2:1: inline_payload_bytes (32768) cannot be more than a quarter of ring_bytes (65536)");
}

TEST(Warnings, StopNothing) {
  EXPECT_EQ(warnings("ping_interval: 5"),
            "main.conf:1:1: invalid use of field \"ping_interval\": ping_interval should be converted to a duration");
  EXPECT_EQ(good("ping_interval: 5").ping_interval, seconds(5));
  EXPECT_EQ(warnings("max_payload: 9MB"),
            "main.conf:1:1: Maximum payloads over 8MB are generally discouraged and could lead to poor performance");
  EXPECT_NE(warnings("authorization {token: a, timeout: 1m}"), "");
}

TEST(Unsupported, IsRefusedByNameAndStillParses) {
  const std::pair<const char*, const char*> kCases[] = {
      {"cluster { port: 6222, tls { verify_and_map: true } }", "cluster.tls.verify_and_map"},
      {"gateway { name: a, port: 7222, tls { verify_and_map: true } }", "gateway.tls.verify_and_map"},
      {"leafnodes { remotes: [{url: nats://a, credentials: x}] }", "leafnodes.remotes[].credentials"},
      {"leafnodes { remotes: [{url: nats://a, seed: x}] }", "leafnodes.remotes[].nkey"},
      {"leafnodes { remotes: [{url: nats://a, tls {connection_rate_limit: 3}}] }",
       "leafnodes.remotes[].tls.connection_rate_limit"},
      {"leafnodes { remotes: [{url: nats://a, proxy {url: \"http://p\"}}] }", "leafnodes.remotes[].proxy"},
      {"leaf { port: 7422, tls {ocsp_peer: true} }", "leafnodes.tls.ocsp_peer"},
      {"leaf { port: 7422, authorization { nkey: U } }", "leafnodes.authorization.nkey"},
      {"websocket { port: 8080, no_tls: true }", "websocket"},
      {"ws { port: 8080, no_tls: true }", "websocket"},
      {"mqtt { port: 1883 }", "mqtt"},
      {"jetstream: true", "jetstream"},
      {"jetstream { store_dir: x, max_mem: 1GB }", "jetstream"},
      {"tls { cert_file: a, key_file: b, verify_and_map: true }", "tls.verify_and_map"},
      {"accounts { A { users: [{user: a}] } }", "accounts"},
      {"accounts: [A, B]", "accounts"},
      {"operator: a", "operator"},
      {"roots: [a, b]", "operator"},
      {"resolver: MEMORY", "resolver"},
      {"resolver_preload: {A: b}", "resolver_preload"},
      {"trusted: a", "trusted_keys"},
      {"default_sentinel: a", "default_sentinel"},
      {"ocsp: true", "ocsp"},
      {"ocsp_cache: true", "ocsp_cache"},
      {"proxy_protocol: true", "proxy_protocol"},
      {"proxies { trusted: [{key: a}] }", "proxies"},
      {"system_account: ACC", "system_account"},
      {"feature_flags { js_ack_fc_v2: true }", "feature_flags"},
      {"prof_port: 1", "prof_port"},
      {"authorization { users: [{nkey: UABC}] }", "authorization.users[].nkey"},
      {"authorization { users: [{user: a, proxy_required: true}] }", "authorization.users[].proxy_required"},
      {"authorization { auth_callout { issuer: A, auth_users: [a] } }", "authorization.auth_callout"},
      {"authorization { proxy_required: true }", "authorization.proxy_required"},
      {"default_js_domain { A: b }", "default_js_domain"},
  };
  for (const auto& [text, name] : kCases) {
    EXPECT_NE(errors(text).find("\"" + std::string(name) + "\" is not supported by this version yet"),
              std::string::npos)
        << text << " -> " << errors(text);
    EXPECT_EQ(errors(text).substr(0, 12), "main.conf:1:") << text;
    all(text);
  }
}

TEST(Mappings, MistakesHaveAPlace) {
  EXPECT_EQ(errors("mappings {\n a: b\n \"c.*\": \"d.$2\"\n}"),
            "main.conf:3:2: Error adding mapping for \"c.*\" to \"d.$2\" : invalid mapping destination: wildcard index "
            "out of range in $2: [2]");
  EXPECT_EQ(errors("mappings { a: [{dest: b, weight: 60}, {dest: c, weight: 60}] }"),
            "main.conf:1:12: Error adding mapping for \"a\" : total weight needs to be <= 100");
  EXPECT_EQ(errors("maps { a: {dest: b, weight: 101} }"), "main.conf:1:21: Invalid weight 101 for mapping destination");
  EXPECT_EQ(errors("mappings { \"a.*\": \"b.{{wildcard(1)}}\", c: {destination: d, weight: \"10%\"} }"), "");
}

TEST(Leafnodes, MistakesAreNamed) {
  EXPECT_EQ(
      errors(
          "leafnodes { port: 7422, remotes: [{url: \"nats://a:b@hub\"}, {urls: [\"nats-leaf://x:1\"], hub: true}] }"),
      "");
  const std::pair<const char*, const char*> kCases[] = {
      {"leafnodes { remotes: [{url: nats://a, account: B}] }",
       "cannot find local account \"B\" specified in leafnode remote"},
      {"leafnodes { port: 1, authorization {account: B} }",
       "cannot find local account \"B\" specified in leafnode authorization"},
      {"leafnodes { remotes: [{url: \"ws://a\"}] }", "leafnode remote \"ws://a\" is not supported by this version yet"},
      {"leafnodes { remotes: [{hub: true}] }", "leafnode remote has no urls"},
      {"leafnodes {\n remotes: [\n  {url: \"nats://a\"}\n  {url: \"wss://a\"} ] }",
       "main.conf:4:3: leafnode remote \"wss://a\" is not supported by this version yet: give the hub's port"},
      {"leafnodes { remotes: [{url: nats://a, nkey: S}] }", "yet: give user and password in the url"},
      {"leafnodes { remotes: [{url: nats://a, tls { verify_cert_and_check_known_urls: true } }] }",
       "verify_cert_and_check_known_urls not supported in this context: "},
      {"gateway { name: a, gateways: [{name: b, url: nats://b, tls { verify_cert_and_check_known_urls: true } }] }",
       "verify_cert_and_check_known_urls not supported in this context: "},
      {"leafnodes { remotes: [{url: \"nats://a\"}, {url: \"nats://a\"}] }", "duplicate remote"},
      {"leafnodes { port: 1, min_version: \"2.7.9\" }", "the minimum version should be at least 2.8.0"},
      {"leafnodes { port: 1, min_version: \"new\" }", "invalid leafnode's minimum version"},
      {"leafnodes { port: 1, authorization {users: [{user: a}, {user: a}]} }",
       "duplicate user \"a\" detected in leafnode authorization"},
  };
  for (const auto& [text, error] : kCases)
    EXPECT_NE(errors(text).find(error), std::string::npos) << text << " -> " << errors(text);
}

TEST(MoreChecks, PointIntoTheFile) {
  const auto more = [](const Options& options) {
    Findings findings;
    if (options.gateway.gateways.at(1).tls->ca_file == "nope")
      findings.errors.push_back({"gateway.gateways[1].tls", "no!"});
    return findings;
  };
  LoadedFile loaded = load(
      "gateway {\n name: a, port: 1\n gateways: [\n  {name: b, url: \"nats://b:1\"}\n"
      "  {name: c, url: \"nats://c:1\"\n   tls {\n ca_file: nope } }\n ] }",
      "main.conf");
  finish(loaded, more);
  EXPECT_EQ(to_text(loaded.errors), "main.conf:6:4: no!");
}

TEST(Unsupported, WhatAsksForNothingIsAccepted) {
  for (const char* text :
       {"jetstream: false", "jetstream: disabled", "jetstream { enabled: false }", "cluster {}", "leafnodes {}",
        "accounts {}", "mappings {}", "ocsp: false", "proxy_protocol: no", "system_account: \"$SYS\"",
        "no_system_account: true", "no_sys_acc: false", "allow_non_tls: true", "https_port: 0", "resolver_preload {}",
        "feature_flags {}", "store_dir: /data", "backend: uring"}) {
    EXPECT_EQ(errors(text), "") << text;
  }
}

TEST(Parses, Tls) {
  const Options options =
      all("tls { cert_file: c, key_file: k, ca_file: a, verify_and_map: true, cipher_suites: [X], curve_preferences: "
          "[Y], min_version: \"1.3\"\n"
          "timeout: 2.5, handshake_first: auto, connection_rate_limit: 5, insecure: true,\n"
          "pinned_certs: [ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef0123456789] }");
  ASSERT_TRUE(options.tls);
  EXPECT_TRUE(options.tls->verify);
  EXPECT_TRUE(options.tls->verify_and_map);
  EXPECT_EQ(options.tls->min_version, "1.3");
  EXPECT_EQ(tls_timeout(*options.tls), milliseconds(2500));
  EXPECT_EQ(auth_timeout(options), milliseconds(3500));
  EXPECT_TRUE(options.tls->handshake_first);
  EXPECT_EQ(options.tls->handshake_first_fallback, milliseconds(50));
  EXPECT_EQ(options.tls->pinned_certs.at(0).substr(0, 6), "abcdef");
  EXPECT_TRUE(all("tls { first: true }").tls->handshake_first);
  EXPECT_EQ(all("tls { immediate: 300ms }").tls->handshake_first_fallback, milliseconds(300));
  EXPECT_EQ(all("tls { certs: [{cert_file: a, key_file: b}] }").tls->certs.at(0).key_file, "b");
  EXPECT_NE(
      to_text(
          bind_all("tls { certs: [{cert_file: a}], pinned_certs: [x], min_version: \"1.1\", handshake_first: maybe }")
              .errors),
      "");
}

TEST(Parses, Cluster) {
  const Options options =
      all("cluster { name: C, listen: \"h:6222\", routes: [\"nats-route://us%65r:p%40ss@a:6222\", \"nats://[::1]:-1\", "
          "tls://b ]\n"
          "authorization { user: u, password: p, timeout: 1 }, permissions { import: a, export { deny: b } }, "
          "cluster_advertise: x:1\n"
          "connect_retries: 5, connect_backoff: true, accounts: [A], compression: true, ping_interval: \"20s\", "
          "write_timeout: retry }");
  const Cluster& cluster = options.cluster;
  EXPECT_TRUE(cluster.defined);
  EXPECT_EQ(cluster.host, "h");
  EXPECT_EQ(cluster.port, 6222);
  ASSERT_EQ(cluster.routes.size(), 3U);
  EXPECT_EQ(cluster.routes[0], (Url{"nats-route", "user", "p@ss", "a", 6222, ""}));
  EXPECT_EQ(cluster.routes[1], (Url{"nats", "", "", "::1", -1, ""}));
  EXPECT_EQ(cluster.routes[2], (Url{"tls", "", "", "b", 0, ""}));
  EXPECT_EQ(cluster.permissions->publish->allow, std::vector<std::string>{"a"});
  EXPECT_EQ(cluster.permissions->subscribe->deny, std::vector<std::string>{"b"});
  EXPECT_EQ(cluster.compression.mode, "s2_fast");
  EXPECT_EQ(cluster.ping_interval, seconds(20));
  EXPECT_EQ(cluster.write_timeout, WriteTimeout::kRetry);
  EXPECT_EQ(to_text(bind_all("cluster { name: \"a b\" }").errors),
            "main.conf:1:11: cluster name cannot contain spaces");
  EXPECT_EQ(to_text(bind_all("cluster { authorization { users: [{user: a}], token: b } }").errors),
            "main.conf:1:11: Cluster authorization does not allow multiple users\n"
            "main.conf:1:11: Cluster authorization does not support tokens");
  EXPECT_EQ(to_text(bind_all("cluster { routes: [x] }").errors), "main.conf:1:20: error parsing route url [\"x\"]");
  EXPECT_NE(
      to_text(bind_all("cluster { routes: [nats://a:1, nats://a:1] }").warnings).find("Duplicate route entry detected"),
      std::string::npos);
}

TEST(Parses, Accounts) {
  const Options options =
      all("accounts { A { nkey: AX, users: [{user: a}, {nkey: UX}], exports: [{service: q, accounts: [B], latency: "
          "{sampling: 50%, subject: l}}]\n"
          "trace_dest: {dest: t, sampling: 5}, jetstream {max_mem: 1GB, streams: 5}, limits {max_subs: 7} }\n"
          "B { imports: [{service: {account: A, subject: q}, to: r, share: true}], jetstream: disabled } }");
  ASSERT_EQ(options.accounts.size(), 2U);
  const Account& a = options.accounts[0];
  EXPECT_EQ(a.name, "A");
  EXPECT_EQ(a.users.at(1).nkey, "UX");
  EXPECT_TRUE(a.exports.at(0).service);
  EXPECT_EQ(a.exports[0].latency->sampling, 50);
  EXPECT_EQ(a.msg_trace->sampling, 5);
  EXPECT_EQ(a.jetstream->max_memory, 1 << 30);
  EXPECT_EQ(a.limits.max_subscriptions, 7);
  EXPECT_EQ(options.accounts[1].imports.at(0).to, "r");
  EXPECT_FALSE(options.accounts[1].jetstream);
  EXPECT_EQ(to_text(bind_all("accounts { \"$G\" {} }").errors), "main.conf:1:12: \"$G\" is a Reserved Account");
  LoadedFile loaded = bind_all("accounts { A { imports: [{stream: {account: X, subject: s}}] } }");
  finish(loaded);
  EXPECT_EQ(to_text(loaded.errors), "main.conf:1:1: \"X\" account not defined for stream import");
}

TEST(Subjects, Validity) {
  // is_valid_subject() is reached through permissions.
  for (const char* subject : {"a", "a.b", "*", ">", "a.*.>", "a.b*", "$X.>"}) {
    EXPECT_EQ(errors("authorization {users: [{user: a, permissions {publish: \"" + std::string(subject) + "\"}}]}"), "")
        << subject;
  }
  for (const char* subject : {"", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a\\tb"}) {
    EXPECT_NE(errors("authorization {users: [{user: a, permissions {publish: \"" + std::string(subject) + "\"}}]}"), "")
        << subject;
  }
}

// Each form that the programs of the NATS ecosystem write.
TEST(SyntaxForms, OfTheEcosystem) {
  EXPECT_EQ(good("port 4333").port, 4333);
  EXPECT_EQ(good("port: 4333").port, 4333);
  EXPECT_EQ(good("port = 4333").port, 4333);
  EXPECT_EQ(good("authorization {\n user a\n}").authorization.user, "a");
  EXPECT_EQ(good("authorization {\n users [\n {user a, password b}\n {user c}\n ]\n}").authorization.users.size(), 2U)
      << "maps without commas";
  EXPECT_EQ(good("\"port\": 4333\n'host': \"x\"").host, "x") << "quoted keys";
  EXPECT_EQ(good("{ \"port\": 4333, \"authorization\": { \"users\": [ { \"user\": \"a\" } ] } }").port, 4333) << "JSON";
  EXPECT_EQ(good("P: 4333\nport: $P # comment\n// another\n").port, 4333);
  EXPECT_EQ(good("server_name: 'single'").server_name, "single");
  EXPECT_EQ(good("authorization: { users: [ {user: a}, ], }").authorization.users.size(), 1U) << "trailing commas";
  EXPECT_EQ(good("\xef\xbb\xbf"
                 "port: 4333")
                .port,
            4333)
      << "byte order mark";
  EXPECT_EQ(good("max_pending: 64MB").max_pending, 64 << 20);
  EXPECT_EQ(good("max_pending: 8MiB").max_pending, 8 << 20);
  EXPECT_EQ(good("max_pending: 10GiB").max_pending, std::int64_t{10} << 30);
  EXPECT_EQ(good("max_pending: 1Gb").max_pending, 1 << 30);
  EXPECT_EQ(good("max_control_line: 128KB").max_control_line, 128 << 10);
  EXPECT_EQ(good("write_deadline: 2").write_deadline, seconds(2)) << "a number of seconds";
  EXPECT_EQ(good("write_deadline: \"2s\"").write_deadline, seconds(2));
  EXPECT_EQ(good("write_deadline: \"100ms\"").write_deadline, milliseconds(100));
  EXPECT_EQ(good("write_deadline: 300ms").write_deadline, milliseconds(300));
  EXPECT_EQ(good("port: -1").port, -1);
  EXPECT_EQ(good("listen: localhost:4333").host, "localhost");
  EXPECT_EQ(good("http: 8222").http_port, 8222);
  World world;
  world.files["auth.conf"] = "authorization { token: x }";
  EXPECT_EQ(good("include \"auth.conf\"", world).authorization.token, "x");
  EXPECT_EQ(good("include ./auth.conf", world).authorization.token, "x");
}

}  // namespace
}  // namespace peregrine::config::test
