#include "config/yaml.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/config/world.h"

namespace peregrine::config::test {
namespace {

std::string yaml(const std::string& text, World world = {}) { return json_of(text, "main.yaml", std::move(world)); }

TEST(Yaml, PlainScalarsFollowNatsRules) {
  EXPECT_EQ(yaml("a: 4222\nb: 64MB\nc: on\nd: No\ne: 1.5\nf: nats://h:1\ng: 127.0.0.1:4222\nh: foo.>\n"),
            "{\"a\":4222,\"b\":67108864,\"c\":true,\"d\":false,\"e\":1.5,\"f\":\"nats://"
            "h:1\",\"g\":\"127.0.0.1:4222\",\"h\":\"foo.\\u003e\"}");
  EXPECT_EQ(yaml("a: 0x10\nb: -1\nc: 1e5\nd: 1_000\n"), R"({"a":"0x10","b":-1,"c":"1e5","d":"1_000"})");
}

TEST(Yaml, QuotedScalarsAreStrings) {
  EXPECT_EQ(yaml("a: \"4222\"\nb: 'on'\nc: |\n  x\n  y\nd: \"$N\"\ne: !!str 5\n"),
            R"({"a":"4222","b":"on","c":"x\ny\n","d":"$N","e":"5"})");
}

TEST(Yaml, CollectionsAndAliases) {
  EXPECT_EQ(yaml("a: [1, x]\nb:\n  - {c: 1}\n  - - 2\nd: {}\ne: []\n"),
            R"({"a":[1,"x"],"b":[{"c":1},[2]],"d":{},"e":[]})");
  EXPECT_EQ(yaml("a: &x {p: 1}\nb: *x\n"), R"({"a":{"p":1},"b":{"p":1}})");
  EXPECT_EQ(yaml("a: 1\na: 2\n"), R"({"a":2})");
  EXPECT_EQ(yaml(""), "{}");
  EXPECT_EQ(yaml("# nothing\n"), "{}");
}

TEST(Yaml, Variables) {
  World world;
  world.variables = {{"PORT", "4333"}, {"LIST", "[1, two]"}};
  EXPECT_EQ(yaml("x: 5\nm:\n  a: $x\n  b: $PORT\n  c: $LIST\n", world),
            R"({"m":{"a":5,"b":4333,"c":[1,"two"]},"x":5})");
  EXPECT_EQ(yaml("p: $2a$11$abc\n"), R"({"p":"$2a$11$abc"})");
  EXPECT_EQ(yaml("a:\n  b: $gone\n"), "main.yaml:2:6: variable reference for 'gone' on line 2 can not be found");
}

TEST(Yaml, ErrorsSayWhere) {
  EXPECT_EQ(yaml("a: 1\nb: [1,\n").substr(0, 12), "main.yaml:3:");
  EXPECT_EQ(yaml("- 1\n- 2\n"), "main.yaml:1:1: a configuration must be a map of options");
  EXPECT_EQ(yaml("a: 1\n---\nb: 2\n"), "main.yaml: more than one YAML document");
  EXPECT_EQ(yaml("a: 1\n? [x]\n: 2\n"), "main.yaml:2:3: a key must be a plain word");
  EXPECT_NE(yaml("a: *gone\n").find("main.yaml:1:"), std::string::npos);
}

TEST(Yaml, AliasesCannotMultiplyWithoutBound) {
  std::string text = "a: &a [1,2,3,4,5,6,7,8,9,10]\n";
  for (char name = 'b'; name < 'm'; ++name) {
    const std::string alias = std::string("*") + static_cast<char>(name - 1);
    text += std::string(1, name) + ": &" + name + " [" + alias;
    for (int i = 0; i < 9; ++i) text += ", " + alias;
    text += "]\n";
  }
  EXPECT_NE(yaml(text).find("too many values"), std::string::npos);
}

// Each of these once made yaml-cpp allocate for ever, or spell out a million values from a few hundred bytes.
TEST(Yaml, ShortFilesCannotKeepUsBusy) {
  EXPECT_EQ(yaml("a: &a [*a, *a]\n"), "main.yaml:1:8: an alias inside of what it stands for");
  EXPECT_EQ(yaml("a: &a {b: [1, {c: *a}]}\n"), "main.yaml:1:19: an alias inside of what it stands for");
  std::string text = "a: &a [1,2,3,4,5,6,7,8,9,10]\n";
  for (char name = 'b'; name < 'g'; ++name) {
    text += fmt::format("{0}: &{0} [*{1},*{1},*{1},*{1},*{1},*{1},*{1},*{1}]\n", name, static_cast<char>(name - 1));
  }
  EXPECT_EQ(yaml(text), "main.yaml:5:8: too many values");
  EXPECT_NE(yaml("a: " + std::string(1000, '[')).find(": nested too deeply"), std::string::npos);
  EXPECT_NE(yaml("? " + std::string(1000, '{')).find(": nested too deeply"), std::string::npos);
  EXPECT_EQ(yaml("--- a\n--- b\n"), "main.yaml: more than one YAML document");
  EXPECT_EQ(yaml(","), "main.yaml: more than one YAML document");
}

TEST(Yaml, LargeMapsTakeTimeInProportion) {
  std::string text;
  for (int i = 0; i < 60'000; ++i) text += fmt::format("k{}: {}\n", i, i);
  const Result<Value> tree = tree_of(text + "k7: again\n", "main.yaml");
  ASSERT_TRUE(tree);
  ASSERT_EQ(tree->members.size(), 60'000u);
  EXPECT_EQ(tree->members[7].value.text, "again");
  EXPECT_EQ(tree->members[59'999].key, "k59999");
}

TEST(Yaml, TreeHasPositions) {
  const Result<Value> tree = tree_of("a: 1\nb:\n  c: x\n", "main.yaml");
  ASSERT_TRUE(tree);
  EXPECT_EQ(to_string(tree->find("b")->find("c")->position), "main.yaml:3:3");
}

// The same configuration twice. What is not built takes part, too: it has to parse.
struct Twins {
  const char* what;
  const char* conf;
  const char* yaml;
};

const Twins kTwins[] = {
    {"limits",
     "port: 4333\nmax_payload 2MB\nmax_pending = 128MB\nping_interval: \"30s\"\nwrite_deadline: '2s'\nmax_conn: 10\n",
     "port: 4333\nmax_payload: 2MB\nmax_pending: 128MB\nping_interval: 30s\nwrite_deadline: 2s\nmax_conn: 10\n"},
    {"minutes: a bare 2m is a duration in YAML and must be quoted in a conf",
     "ping_interval: \"2m\"\nlame_duck_duration: \"1m\"\n", "ping_interval: 2m\nlame_duck_duration: 1m\n"},
    {"authorization",
     "authorization {\n timeout: 0.5\n default_permissions { publish: [a, b] , subscribe: {deny: c} }\n users = [\n"
     "  {user: a, password: $2a$11$xyz}\n  {username: b, pass: 'x', permissions {pub: x.>, sub: [\"q.* grp\"], "
     "allow_responses: {max: 5, "
     "expires: \"1m\"} }\n   connection_types: [standard, websocket] }\n ]\n}\nno_auth_user: a\n",
     "authorization:\n  timeout: 0.5\n  default_permissions:\n    publish: [a, b]\n    subscribe: {deny: c}\n  users:\n"
     "    - {user: a, password: $2a$11$xyz}\n    - username: b\n      pass: x\n      permissions:\n        pub: x.>\n  "
     "      sub: [q.* grp]\n"
     "        allow_responses: {max: 5, expires: 1m}\n      connection_types: [STANDARD, WEBSOCKET]\nno_auth_user: "
     "a\n"},
    {"cluster",
     "cluster {\n name: c1, listen: \"0.0.0.0:6222\"\n routes = [ nats-route://u:p%40@a:6222, nats://b:-1 ]\n "
     "authorization {user: u, "
     "password: p, timeout: 1}\n permissions { import: {allow: [a]}, export: b }\n tls { cert_file: a, key_file: b, "
     "timeout: \"3s\" }\n "
     "pool_size: -1, compression: { mode: s2_auto, rtt_thresholds: [10ms, 20ms] }\n no_advertise: true\n}\n",
     "cluster:\n  name: c1\n  listen: 0.0.0.0:6222\n  routes: ['nats-route://u:p%40@a:6222', 'nats://b:-1']\n  "
     "authorization: {user: u, "
     "password: p, timeout: 1}\n  permissions: {import: {allow: [a]}, export: b}\n  tls: {cert_file: a, key_file: b, "
     "timeout: 3s}\n"
     "  pool_size: -1\n  compression: {mode: s2_auto, rtt_thresholds: [10ms, 20ms]}\n  no_advertise: true\n"},
    {"accounts",
     "accounts {\n A { users: [{user: a, password: b}], exports: [{service: q, response: stream, threshold: \"1s\"}, "
     "{stream: s.>, accounts: "
     "[B]}]\n  mappings = { x: y, z: [{dest: z1, weight: 50%}, {dest: z2, weight: 50}] }\n  limits { max_conn: 5, "
     "max_pay: 1KB } }\n "
     "B { imports: [{stream: {account: A, subject: s.>}, prefix: p}, {service: {account: A, subject: q}, to: r}], "
     "jetstream: enabled, "
     "default_permissions { sub: x } }\n}\nsystem_account: B\n",
     "accounts:\n  A:\n    users: [{user: a, password: b}]\n    exports: [{service: q, response: stream, threshold: "
     "1s}, {stream: s.>, accounts: "
     "[B]}]\n    mappings: {x: y, z: [{dest: z1, weight: 50%}, {dest: z2, weight: 50}]}\n    limits: {max_conn: 5, "
     "max_pay: 1KB}\n"
     "  B:\n    imports: [{stream: {account: A, subject: s.>}, prefix: p}, {service: {account: A, subject: q}, to: "
     "r}]\n    jetstream: enabled\n"
     "    default_permissions: {sub: x}\nsystem_account: B\n"},
    {"peers",
     "gateway { name: g, port: 7222, gateways: [{name: h, url: nats://h:7222}], reject_unknown: true }\nleafnodes { "
     "listen: 7422, remotes: "
     "[{urls: [nats-leaf://x], account: A, deny_imports: foo, hub: on, proxy {url: \"http://p\"}}] }\nwebsocket { "
     "port: 8080, no_tls: true, "
     "origins: a, headers {X: y} }\n",
     "gateway: {name: g, port: 7222, gateways: [{name: h, url: 'nats://h:7222'}], reject_unknown: true}\nleafnodes:\n  "
     "listen: 7422\n  remotes:\n"
     "    - {urls: ['nats-leaf://x'], account: A, deny_imports: foo, hub: on, proxy: {url: 'http://p'}}\nwebsocket: "
     "{port: 8080, no_tls: true, "
     "origins: a, headers: {X: y}}\n"},
    {"trust",
     "operator: /x.jwt\nresolver: URL(\"http://h:9090/jwt/v1/accounts/\")\nresolver_preload { A: b }\ntrusted_keys: "
     "[O1]\nresolver_tls "
     "{ca_file: c}\nocsp { mode: always, url: u }\nproxies { trusted: [{key: k}] }\n",
     "operator: /x.jwt\nresolver: URL(\"http://h:9090/jwt/v1/accounts/\")\nresolver_preload: {A: b}\ntrusted_keys: "
     "[O1]\nresolver_tls: "
     "{ca_file: c}\nocsp: {mode: always, url: u}\nproxies: {trusted: [{key: k}]}\n"},
    {"ours",
     "shards: 4\ncores: [0, 1, 2, 3]\nbackend: epoll\nidle: spin\nspin_us: 5\nring_bytes: 4MB\ninline_payload_bytes: "
     "1KB\nmax_peer_subscriptions: 5000\n",
     "shards: 4\ncores: [0, 1, 2, 3]\nbackend: epoll\nidle: spin\nspin_us: 5\nring_bytes: 4MB\ninline_payload_bytes: "
     "1KB\nmax_peer_subscriptions: 5000\n"},
};

TEST(Yaml, GivesTheSameOptionsAsConf) {
  for (const Twins& twins : kTwins) {
    const LoadedFile conf = bind_all(twins.conf, "main.conf");
    const LoadedFile yaml = bind_all(twins.yaml, "main.yaml");
    EXPECT_EQ(to_text(conf.errors), "") << twins.what;
    EXPECT_EQ(to_text(yaml.errors), "") << twins.what;
    EXPECT_EQ(conf.options, yaml.options) << twins.what;
    EXPECT_NE(conf.options, Options{}) << twins.what;
  }
}

}  // namespace
}  // namespace peregrine::config::test
