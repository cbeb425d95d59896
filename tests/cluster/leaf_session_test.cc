// Leafnode connections on a machine of two shards, byte for byte; what crosses a real network is tests/leaf's.
#include "cluster/leaf_session.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "cluster/leaf_remote.h"
#include "tests/core/machine.h"

namespace {
std::atomic<uint64_t> allocations{0};
}

void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace peregrine::cluster {
namespace {

using test::Client;
using test::Machine;

config::Options quiet(config::Options options = {}) {
  options.leafnodes.defined = true;
  options.leafnodes.compression.mode = "off";
  return options;
}

class Leafs : public testing::Test {
 protected:
  explicit Leafs(config::Options options = quiet())
      : machine(2, std::move(options)),
        dialer(machine.server, [](uint32_t) -> net::Reactor& { std::abort(); }),
        nodes(machine.server, dialer, 7422, "127.0.0.1", {}, [] { return std::string(); }) {}
  ~Leafs() override { hang_up_all(); }
  // Before what the sessions point to goes.
  void hang_up_all() {
    nodes.stop();
    for (Client* client : opened) machine.hang_up(*client);
    machine.settle();
  }

  Client& open(uint32_t shard, LeafRemote* remote = nullptr) {
    Client& client = machine.adopt(shard, [&](core::Shard& on, uint32_t conn) {
      return std::make_unique<LeafSession>(nodes, on, net::Opened{conn, "127.0.0.1", 1}, remote);
    });
    opened.push_back(&client);
    static_cast<LeafSession*>(client.session)->start();
    machine.settle();
    return client;
  }
  // A spoke that has connected and told us nothing yet.
  Client& connected(uint32_t shard, const std::string& cluster, const std::string& more = "") {
    Client& client = open(shard);
    client.take();
    client.send("CONNECT {\"version\":\"2.15.1\",\"name\":\"" + cluster + "\",\"cluster\":\"" + cluster +
                "\",\"headers\":true" + more + "}\r\n");
    machine.settle();
    const std::string text = client.take();
    EXPECT_NE(text.find("\"connect_info\":true"), std::string::npos) << text;
    loop = text.substr(text.find("LS+ $LDS.") + 4, 27);
    return client;
  }
  Client& user(uint32_t shard, const std::string& subs) {
    Client& client = machine.connect(shard);
    client.send(subs);
    machine.settle();
    return client;
  }

  Machine machine;
  Dialer dialer;
  LeafNodes nodes;
  std::string loop;
  std::vector<Client*> opened;
};

TEST_F(Leafs, AreToldWhatAllShardsWant) {
  Client& early = user(1, "SUB early 1\r\nSUB q.* workers 2\r\n");
  Client& leaf = connected(0, "edge");
  machine.settle();
  std::string told = leaf.take();
  user(0, "SUB late 1\r\nSUB early 2\r\nSUB q.* workers 3\r\n");
  told += leaf.take();
  for (const char* line : {"LS+ late\r\n", "LS+ q.* workers 2\r\n"})
    EXPECT_NE(told.find(line), std::string::npos) << told;
  machine.hang_up(early);
  machine.settle();
  EXPECT_EQ(leaf.take(), "LS+ q.* workers 1\r\n");
}

TEST_F(Leafs, MessagesCarryReplyQueuesAndHeaders) {
  Client& leaf = connected(0, "edge");
  leaf.send("LS+ a\r\nLS+ b g 1\r\nLS+ b h 2\r\n");
  machine.settle();
  for (const uint32_t shard : {0u, 1u}) {
    user(shard,
         "PUB a 1\r\n1\r\nPUB a re 1\r\n2\r\nPUB b 1\r\n3\r\nPUB b re 1\r\n4\r\nHPUB a 12 13\r\nNATS/1.0\r\n\r\n5\r\n");
    const std::string got = leaf.take();
    EXPECT_TRUE(got ==
                    "LMSG a 1\r\n1\r\nLMSG a re 1\r\n2\r\nLMSG b | g h 1\r\n3\r\nLMSG b + re g h 1\r\n4\r\n"
                    "HMSG a 12 13\r\nNATS/1.0\r\n\r\n5\r\n" ||
                got ==
                    "LMSG a 1\r\n1\r\nLMSG a re 1\r\n2\r\nLMSG b | h g 1\r\n3\r\nLMSG b + re h g 1\r\n4\r\n"
                    "HMSG a 12 13\r\nNATS/1.0\r\n\r\n5\r\n")
        << got;
  }
}

TEST_F(Leafs, QueuesAreServedAsAsked) {
  Client& client = user(1, "SUB a q 1\r\nSUB a 2\r\n");
  Client& leaf = connected(0, "edge");
  leaf.send("LMSG a 1\r\n1\r\nLMSG a | q 1\r\n2\r\nLMSG a + re other 1\r\n3\r\n");
  machine.settle();
  const std::string got = client.take();
  EXPECT_EQ(got.size(),
            std::string("MSG a 2 1\r\n1\r\nMSG a 2 1\r\n2\r\nMSG a 1 1\r\n2\r\nMSG a 2 re 1\r\n3\r\n").size())
      << got;
  EXPECT_NE(got.find("MSG a 1 1\r\n2\r\n"), std::string::npos) << got;
}

TEST_F(Leafs, NothingGoesBackToItsCluster) {
  for (const uint32_t shard : {0u, 1u}) {
    const std::string name = "edge" + std::to_string(shard);
    Client& one = connected(0, name);
    Client& two = connected(shard, name);
    Client& other = connected(1, "border" + std::to_string(shard));
    two.send("LS+ a\r\n");
    other.send("LS+ a\r\n");
    machine.settle();
    two.take();
    other.take();
    one.send("LMSG a 1\r\nx\r\n");
    machine.settle();
    EXPECT_EQ(two.take(), "");
    EXPECT_EQ(other.take(), "LMSG a 1\r\nx\r\n");
    machine.hang_up(one);
    machine.hang_up(two);
    machine.hang_up(other);
    machine.settle();
  }
}

TEST_F(Leafs, AClusterIsNotToldItsOwnInterest) {
  for (const uint32_t shard : {0u, 1u}) {
    const std::string name = "edge" + std::to_string(shard);
    Client& one = connected(0, name);
    Client& two = connected(shard, name);
    two.send("LS+ a\r\nLS+ a.*\r\nLS+ b q 2\r\n");
    machine.settle();
    EXPECT_EQ(one.take(), "");
    Client& other = connected(1, "border" + std::to_string(shard));
    other.send("LS+ b q 3\r\nLS+ a\r\n");
    machine.settle();
    EXPECT_EQ(one.take(), "LS+ b q 3\r\nLS+ a\r\n");
    two.send("LS- a\r\nLS- b q\r\n");
    machine.settle();
    EXPECT_EQ(one.take(), "");
    other.send("LS- b q\r\nLS- a\r\n");
    machine.settle();
    EXPECT_EQ(one.take(), "LS- b q\r\nLS- a\r\n");
    for (Client* client : {&one, &two, &other}) machine.hang_up(*client);
    machine.settle();
  }
}

TEST_F(Leafs, ALoopIsNoticed) {
  Client& leaf = connected(0, "edge");
  leaf.send("LS+ " + loop + "\r\n");
  machine.settle();
  EXPECT_EQ(leaf.take(), "-ERR 'Loop detected for leafnode account=\"$G\". Delaying attempt to reconnect for 30s'\r\n");
  EXPECT_TRUE(leaf.closed);
}

TEST_F(Leafs, LoopSubjectsOfOthersGoOn) {
  Client& one = connected(0, "edge");
  Client& two = connected(1, "border");
  one.send("LS+ $LDS.aaaaaaaaaaaaaaaaaaaaaa\r\n");
  machine.settle();
  EXPECT_EQ(two.take(), "LS+ $LDS.aaaaaaaaaaaaaaaaaaaaaa\r\n");
}

TEST_F(Leafs, ASecondConnectionReplacesTheFirst) {
  Client& first = connected(0, "edge", R"(,"remote_account":"$G")");
  Client& other = connected(0, "edge", R"(,"remote_account":"A")");
  Client& second = connected(1, "edge", R"(,"remote_account":"$G")");
  machine.settle();
  EXPECT_EQ(first.take(), "-ERR 'Duplicate Remote LeafNode Connection'\r\n");
  EXPECT_TRUE(first.closed);
  EXPECT_FALSE(other.closed);
  EXPECT_FALSE(second.closed);
}

TEST_F(Leafs, SilenceBeforeConnectHasAnEnd) {
  Client& leaf = open(0);
  leaf.take();
  machine.pass(2'100'000'000);
  machine.settle();
  EXPECT_EQ(leaf.take(), "-ERR 'Authentication Timeout'\r\n");
  EXPECT_TRUE(leaf.closed);
}

TEST_F(Leafs, RubbishIsRefusedWhereverItComes) {
  for (const char* text : {"LS+ a b\r\n", "LS+\r\n", "LMSG a x\r\n", "LMSG a ? b c 1\r\nx\r\n", "RS+ a b\r\n",
                           "LMSG a 1\r\nxyz", "INFO [1]\r\n", "HMSG a 5 3\r\nabc\r\n"}) {
    Client& leaf = connected(1, "edge");
    leaf.send(text);
    machine.settle();
    EXPECT_TRUE(leaf.closed) << text;
  }
}

TEST_F(Leafs, AMessageCostsNoAllocation) {
  Client& client = user(0, "SUB in.* 1\r\n");
  Client& leaf = connected(0, "edge");
  leaf.send("LS+ out.*\r\n");
  machine.settle();
  const std::string in = "LMSG in.a 5\r\nhello\r\n", out = "PUB out.a 5\r\nhello\r\n";
  const auto cost = [&](core::Session& session, const std::string& text) {
    const uint64_t before = allocations.load();
    session.feed(text);
    return allocations.load() - before;
  };
  for (int warm = 0; warm < 3; ++warm) {
    cost(*leaf.session, in);
    cost(*client.session, out);
    machine.settle();
  }
  // The first of a turn may find the list of sessions to flush gone with the last one.
  cost(*leaf.session, in);
  cost(*client.session, out);
  EXPECT_EQ(cost(*leaf.session, in), 0u);
  EXPECT_EQ(cost(*client.session, out), 0u);
}

config::Options with_user() {
  config::Options options = quiet();
  config::User user;
  user.user = user.password = "edge";
  user.permissions.emplace();
  user.permissions->publish = config::SubjectPermission{.allow = {{"up.>"}}, .deny = {}};
  user.permissions->subscribe = config::SubjectPermission{.allow = {{"down.>"}}, .deny = {}};
  options.authorization.defined = true;
  options.authorization.users.push_back(user);
  user.user = user.password = "client";
  user.permissions.reset();
  options.authorization.users.push_back(user);
  return options;
}

class LeafUsers : public Leafs {
 protected:
  LeafUsers() : Leafs(with_user()) {}
  Client& edge() { return connected(0, "edge", R"(,"user":"edge","pass":"edge")"); }
};

TEST_F(LeafUsers, AreToldTheirPermissions) {
  Client& leaf = open(0);
  leaf.take();
  leaf.send("CONNECT {\"user\":\"edge\",\"pass\":\"edge\",\"name\":\"e\"}\r\n");
  machine.settle();
  const std::string text = leaf.take();
  EXPECT_NE(text.find(R"("import":{"allow":["down.>"]},"export":{"allow":["up.>"]})"), std::string::npos) << text;
}

TEST_F(LeafUsers, AreCutOffWhenTheyGoBeyondThem) {
  Client& leaf = edge();
  leaf.send("LS+ down.a\r\nLMSG up.a 1\r\nx\r\n");
  machine.settle();
  EXPECT_FALSE(leaf.closed);
  leaf.send("LMSG other 1\r\nx\r\n");
  machine.settle();
  EXPECT_EQ(leaf.take(), "-ERR 'Permissions Violation for Publish to \"other\"'\r\n");
  EXPECT_TRUE(leaf.closed);
  Client& again = edge();
  again.send("LS+ other\r\n");
  machine.settle();
  EXPECT_EQ(again.take(), "-ERR 'Permissions Violation for Subscription to \"other\"'\r\n");
  EXPECT_TRUE(again.closed);
}

TEST_F(LeafUsers, ThePasswordMustBeRight) {
  for (const char* connect :
       {R"({"user":"edge","pass":"x"})", R"({"name":"e"})", R"({"user":"nobody","pass":"edge"})"}) {
    Client& leaf = open(0);
    leaf.take();
    leaf.send(std::string("CONNECT ") + connect + "\r\n");
    machine.settle();
    EXPECT_EQ(leaf.take(), "-ERR 'Authorization Violation'\r\n") << connect;
    EXPECT_TRUE(leaf.closed);
  }
}

// We are the spoke: a hub made by hand.
class Spoke : public Leafs {
 protected:
  Spoke() : remote(nodes, remote_options(), nullptr, 0) {}
  ~Spoke() override { hang_up_all(); }
  static config::RemoteLeaf remote_options() {
    config::RemoteLeaf remote;
    remote.urls.push_back({"nats", "me", "pw", "127.0.0.1", 7422, ""});
    remote.compression.mode = "off";
    remote.deny_exports = {"never.>"};
    return remote;
  }
  Client& hub(const std::string& more = "") {
    Client& hub = open(0, &remote);
    EXPECT_EQ(hub.take(), "");
    const std::string info =
        R"({"server_id":"NH","server_name":"hub","client_id":1,"headers":true,"max_payload":1048576,)"
        R"("cluster":"HUB","info_on_connect":true,"leafnode_urls":["127.0.0.1:7422"])";
    hub.send("INFO " + info + "}\r\n");
    machine.settle();
    const std::string connect = hub.take();
    EXPECT_TRUE(connect.starts_with("CONNECT {")) << connect;
    EXPECT_NE(connect.find(R"("user":"me","pass":"pw")"), std::string::npos) << connect;
    hub.send("INFO " + info + R"(,"connect_info":true,"remote_account":"$G")" + more + "}\r\n");
    machine.settle();
    EXPECT_TRUE(hub.take().starts_with("LS+ $LDS."));
    return hub;
  }
  LeafRemote remote;
};

TEST_F(Spoke, PassesOnWhatItsHubWantsToItsLeafsOnly) {
  Client& above = hub();
  Client& below = connected(1, "edge");
  above.send("LS+ a\r\n");
  machine.settle();
  EXPECT_EQ(below.take(), "LS+ a\r\n");
  below.send("LS+ b\r\nLMSG a 1\r\nx\r\n");
  machine.settle();
  EXPECT_EQ(above.take(), "LS+ b\r\nLMSG a 1\r\nx\r\n");
}

TEST_F(Spoke, KeepsToWhatTheHubAllows) {
  Client& above = hub(R"(,"import":{"deny":["no.in"]},"export":{"allow":["up.>","never.>"]})");
  Client& client = user(1, "SUB no.in 1\r\nSUB yes 2\r\n");
  EXPECT_EQ(above.take(), "LS+ yes\r\n");
  above.send("LS+ >\r\n");
  machine.settle();
  client.send("PUB up.a 1\r\n1\r\nPUB other 1\r\n2\r\nPUB never.x 1\r\n3\r\n");
  machine.settle();
  EXPECT_EQ(above.take(), "LMSG up.a 1\r\n1\r\n");
  above.send("LMSG no.in 1\r\nx\r\n");
  machine.settle();
  EXPECT_EQ(client.take(), "");
  EXPECT_FALSE(above.closed);
}

TEST_F(Spoke, AWrongPortIsNoticed) {
  Client& above = open(0, &remote);
  above.send(R"(INFO {"server_id":"NC","client_id":5,"connect_urls":["x:1"]})"
             "\r\n");
  machine.settle();
  EXPECT_TRUE(above.closed);
}

TEST_F(Spoke, AHubThatIsAlsoOurLeafIsALoop) {
  connected(1, "HUB");
  Client& above = open(0, &remote);
  above.send(R"(INFO {"server_id":"NH","client_id":1,"cluster":"HUB","leafnode_urls":["x:1"]})"
             "\r\n");
  machine.settle();
  EXPECT_NE(above.take().find("-ERR 'Loop detected"), std::string::npos);
  EXPECT_TRUE(above.closed);
}

}  // namespace
}  // namespace peregrine::cluster
