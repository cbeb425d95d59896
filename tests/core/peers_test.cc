// Peers in the index: what reaches a route, a leafnode or a gateway, how often, and what they are told. With a session
// that speaks a line format of its own: the real protocols are tests/cluster's.
#include "core/peer_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "core/gateway_reply.h"
#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

using core::bit;
using core::Side;

// Writes "<subject> <plain?P:-> <queues, sorted>|<payload>\r\n" for a message and keeps what it is told.
class TestPeer final : public core::PeerSession, public core::InterestListener {
 public:
  TestPeer(core::Shard& shard, core::SessionKind kind, uint32_t conn)
      : PeerSession(shard, kind, shard.server().next_cid(), conn, "127.0.0.1", 1) {
    headers = true;
  }
  void listen(core::SideSet sides) {
    sides_ = sides;
    shard.listen_to_interest(*this);
    listening_ = true;
  }

  void feed(std::string_view) override {}
  void on_timer() override {}
  void arm_timer() override {}
  void describe(core::ConnRow&, bool) const override {}
  void on_detach() override {
    if (listening_) shard.stop_listening(*this);
  }
  void message_line(std::string& to, const core::Account&, const core::Message& message,
                    const core::PeerTarget& target) override {
    std::vector<std::string> queues(target.queues.begin(), target.queues.end());
    std::sort(queues.begin(), queues.end());
    to.append(message.subject).append(target.plain ? " P" : " -");
    for (const std::string& queue : queues) to.append(" " + queue);
    to.append("|");
  }
  core::SideSet listens_to() const override { return sides_; }
  bool listens_to(const core::Account&) const override { return true; }
  void interest_changed(core::Account& account, Side, std::string_view subject, std::string_view queue,
                        core::OriginId) override {
    ++told;
    const uint32_t weight = account.interest(sides_, subject, queue, this);
    std::string key(subject);
    if (!queue.empty()) key += " " + std::string(queue);
    if (weight == 0) known.erase(key);
    else known[key] = weight;
  }
  bool ready_for_replay() const override { return true; }
  void replay_done() override { replayed = true; }

  std::map<std::string, uint32_t> known;
  bool replayed = false;
  int64_t told = 0;

 private:
  core::SideSet sides_ = 0;
  bool listening_ = false;
};

struct Peer {
  Client* client;
  TestPeer* session;
  std::string take() { return client->take(); }
};

Peer connect(Machine& machine, uint32_t shard, core::SessionKind kind) {
  TestPeer* made = nullptr;
  Client& client = machine.adopt(shard, [&](core::Shard& on, uint32_t conn) {
    auto session = std::make_unique<TestPeer>(on, kind, conn);
    made = session.get();
    return session;
  });
  return {&client, made};
}

void want(Machine& machine, const Peer& peer, Side side, std::string_view subject, std::string_view queue = {},
          uint32_t weight = 1) {
  core::Shard& shard = machine.shard(peer.client->shard);
  shard.add_peer_interest(*peer.session, shard.account(0), side, subject, queue, weight);
}
void want_no_more(Machine& machine, const Peer& peer, Side side, std::string_view subject,
                  std::string_view queue = {}) {
  core::Shard& shard = machine.shard(peer.client->shard);
  EXPECT_TRUE(shard.remove_peer_interest(*peer.session, shard.account(0), side, subject, queue));
}

// Publishes as `peer` would: a message that came from it.
void publish(Machine& machine, const Peer& peer, std::string_view subject, std::vector<std::string_view> queues = {}) {
  core::Shard& shard = machine.shard(peer.client->shard);
  core::Message message;
  message.subject = subject;
  message.payload = "x";
  message.from = peer.session;
  message.source = peer.session->kind;
  message.all_queues = false;
  message.queues = queues;
  shard.delivery().publish(shard.account(0), message);
  machine.settle();
}

// Publisher and peer on the same shard, and on different ones.
// A replay moves by turns in which nothing else happens.
void settle_replay(Machine& machine, const Peer& peer) {
  for (int n = 0; n < 1000 && !peer.session->replayed; ++n) machine.settle();
  EXPECT_TRUE(peer.session->replayed);
}

class Peers : public testing::TestWithParam<uint32_t> {
 protected:
  Peers() : machine(2), client(machine.connect(0)) {}
  void publish(std::string_view subject) {
    client.send("PUB " + std::string(subject) + " 1\r\nx\r\n");
    machine.settle();
  }
  uint32_t there() const { return GetParam(); }

  Machine machine;
  Client& client;
};
INSTANTIATE_TEST_SUITE_P(HereAndThere, Peers, testing::Values(0u, 1u));

TEST_P(Peers, GetAMessageOnceWhateverMatches) {
  Peer route = connect(machine, there(), core::SessionKind::kRoute);
  want(machine, route, Side::kRoutes, "foo.bar");
  want(machine, route, Side::kRoutes, "foo.*");
  want(machine, route, Side::kRoutes, ">");
  want(machine, route, Side::kRoutes, "foo.bar", "q", 3);
  want(machine, route, Side::kRoutes, "*.bar", "r", 1);
  machine.settle();
  publish("foo.bar");
  EXPECT_EQ(route.take(), "foo.bar P q r|x\r\n");
  want_no_more(machine, route, Side::kRoutes, ">");
  want_no_more(machine, route, Side::kRoutes, "foo.*");
  want_no_more(machine, route, Side::kRoutes, "foo.bar");
  machine.settle();
  publish("foo.bar");
  EXPECT_EQ(route.take(), "foo.bar - q r|x\r\n");
  want_no_more(machine, route, Side::kRoutes, "foo.bar", "q");
  want_no_more(machine, route, Side::kRoutes, "*.bar", "r");
  machine.settle();
  publish("foo.bar");
  EXPECT_EQ(route.take(), "");
}

TEST_P(Peers, MessagesOfARouteGoToClientsAndLeafsOnly) {
  Peer from = connect(machine, 0, core::SessionKind::kRoute);
  Peer route = connect(machine, there(), core::SessionKind::kRoute);
  Peer leaf = connect(machine, there(), core::SessionKind::kLeaf);
  Peer gateway = connect(machine, there(), core::SessionKind::kGateway);
  want(machine, from, Side::kRoutes, "foo");
  want(machine, route, Side::kRoutes, "foo");
  want(machine, leaf, Side::kLeafs, "foo");
  want(machine, gateway, Side::kGateways, "foo");
  client.send("SUB foo 1\r\n");
  machine.settle();
  test::publish(machine, from, "foo");
  EXPECT_EQ(client.take(), "MSG foo 1 1\r\nx\r\n");
  EXPECT_EQ(leaf.take(), "foo P|x\r\n");
  EXPECT_EQ(route.take() + gateway.take() + from.take(), "");
  test::publish(machine, leaf, "foo");
  EXPECT_EQ(client.take(), "MSG foo 1 1\r\nx\r\n");
  EXPECT_EQ(route.take(), "foo P|x\r\n");
  EXPECT_EQ(gateway.take(), "foo P|x\r\n");
  EXPECT_EQ(leaf.take(), "") << "no echo";
  from.take();
  test::publish(machine, gateway, "foo");
  EXPECT_EQ(client.take(), "MSG foo 1 1\r\nx\r\n");
  EXPECT_EQ(route.take(), "foo P|x\r\n");
  EXPECT_EQ(leaf.take(), "foo P|x\r\n");
  EXPECT_EQ(gateway.take(), "");
}

TEST_P(Peers, ServeOnlyTheQueuesTheyNameToMessagesOfPeers) {
  Peer from = connect(machine, there(), core::SessionKind::kRoute);
  client.send("SUB foo q 1\r\nSUB foo r 2\r\n");
  machine.settle();
  test::publish(machine, from, "foo");
  EXPECT_EQ(client.take(), "");
  test::publish(machine, from, "foo", {"r", "unknown"});
  EXPECT_EQ(client.take(), "MSG foo 2 1\r\nx\r\n");
}

TEST_P(Peers, QueueGroupsPreferClientsAndRoutesByWeightThenLeafsThenGateways) {
  Peer route = connect(machine, there(), core::SessionKind::kRoute);
  Peer leaf = connect(machine, there(), core::SessionKind::kLeaf);
  Peer gateway = connect(machine, there(), core::SessionKind::kGateway);
  want(machine, route, Side::kRoutes, "foo", "q", 3);
  want(machine, leaf, Side::kLeafs, "foo", "q", 100);
  want(machine, gateway, Side::kGateways, "foo", "q", 100);
  client.send("SUB foo q 1\r\n");
  machine.settle();
  int to_client = 0, to_route = 0;
  for (int n = 0; n < 400; ++n) {
    publish("foo");
    to_client += client.take().empty() ? 0 : 1;
    to_route += route.take().empty() ? 0 : 1;
  }
  EXPECT_EQ(to_client + to_route, 400) << "each message goes to one member";
  EXPECT_NEAR(to_client, 100, 40) << "one of four members";
  EXPECT_EQ(leaf.take() + gateway.take(), "");
  client.send("UNSUB 1\r\n");
  want_no_more(machine, route, Side::kRoutes, "foo", "q");
  machine.settle();
  publish("foo");
  EXPECT_EQ(leaf.take(), "foo - q|x\r\n");
  EXPECT_EQ(gateway.take(), "");
  want_no_more(machine, leaf, Side::kLeafs, "foo", "q");
  machine.settle();
  publish("foo");
  EXPECT_EQ(gateway.take(), "foo - q|x\r\n");
}

// What a route brings for a queue group goes on to another server when our own members have gone, even back.
TEST_P(Peers, HandOnWhatNobodyHereTakesForAGroup) {
  Peer from = connect(machine, 0, core::SessionKind::kRoute);
  Peer other = connect(machine, there(), core::SessionKind::kRoute);
  want(machine, other, Side::kRoutes, "foo", "q", 1);
  client.send("SUB foo q 1\r\n");
  machine.settle();
  test::publish(machine, from, "foo", {"q"});
  EXPECT_EQ(client.take(), "MSG foo 1 1\r\nx\r\n");
  EXPECT_EQ(other.take() + from.take(), "") << "our own members first";
  client.send("UNSUB 1\r\n");
  machine.settle();
  test::publish(machine, from, "foo");
  EXPECT_EQ(other.take() + from.take(), "") << "no group was named";
  test::publish(machine, from, "foo", {"q"});
  EXPECT_EQ(other.take(), "foo - q|x\r\n");
  want_no_more(machine, other, Side::kRoutes, "foo", "q");
  want(machine, from, Side::kRoutes, "foo", "q", 1);
  machine.settle();
  test::publish(machine, from, "foo", {"q"});
  EXPECT_EQ(from.take(), "foo - q|x\r\n");
}

// Picks that crossed to a shard whose member had its share already find the members behind routes.
TEST_P(Peers, TakeOverFromAMemberThatHasHadItsShare) {
  Peer route = connect(machine, there(), core::SessionKind::kRoute);
  want(machine, route, Side::kRoutes, "foo", "q", 1);
  Client& few = machine.connect(1);
  few.send("SUB foo q 1\r\nUNSUB 1 2\r\n");
  machine.settle();
  std::string input;
  for (int n = 0; n < 40; ++n) input += "PUB foo 1\r\nx\r\n";
  client.send(input);
  machine.settle();
  const auto count = [](const std::string& text, std::string_view what) {
    size_t n = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count(few.take(), "MSG foo"), 2u);
  EXPECT_EQ(count(route.take(), "foo - q|x"), 38u);
}

TEST_P(Peers, AreWhoARequestIsFor) {
  Peer route = connect(machine, there(), core::SessionKind::kRoute);
  want(machine, route, Side::kRoutes, "service");
  machine.settle();
  client.send("SUB inbox 1\r\nPUB service inbox 1\r\nx\r\n");
  machine.settle();
  EXPECT_EQ(client.take(), "") << "no 503: somebody is there";
  EXPECT_EQ(route.take(), "service P|x\r\n");
  machine.hang_up(*route.client);
  machine.settle();
  client.send("PUB service inbox 1\r\nx\r\n");
  machine.settle();
  EXPECT_NE(client.take().find("NATS/1.0 503"), std::string::npos);
}

TEST_P(Peers, AreToldWhatThereIsAndWhatChanges) {
  Client& other = machine.connect(1);
  client.send("SUB a 1\r\nSUB b.* 2\r\nSUB c q 3\r\nSUB a 4\r\n");
  other.send("SUB a 1\r\nSUB c q 2\r\nSUB c q 3\r\n");
  machine.settle();
  Peer route = connect(machine, there(), core::SessionKind::kRoute);
  route.session->listen(bit(Side::kClients) | bit(Side::kLeafs));
  settle_replay(machine, route);
  using Known = std::map<std::string, uint32_t>;
  EXPECT_EQ(route.session->known, (Known{{"a", 1}, {"b.*", 1}, {"c q", 3}}));
  client.send("UNSUB 1\r\nUNSUB 4\r\nUNSUB 2\r\nUNSUB 3\r\n");
  machine.settle();
  EXPECT_EQ(route.session->known, (Known{{"a", 1}, {"c q", 2}}));
  Peer leaf = connect(machine, 1, core::SessionKind::kLeaf);
  want(machine, leaf, Side::kLeafs, "d");
  Peer another = connect(machine, 1, core::SessionKind::kRoute);
  want(machine, another, Side::kRoutes, "e");
  machine.settle();
  EXPECT_EQ(route.session->known, (Known{{"a", 1}, {"c q", 2}, {"d", 1}})) << "not what other routes want";
  machine.hang_up(other);
  machine.hang_up(*leaf.client);
  machine.settle();
  EXPECT_EQ(route.session->known, Known{});
}

TEST_P(Peers, DoNotHearOfTheirOwnInterest) {
  Peer leaf = connect(machine, there(), core::SessionKind::kLeaf);
  leaf.session->listen(core::kAllSides);
  want(machine, leaf, Side::kLeafs, "a");
  want(machine, leaf, Side::kLeafs, "b", "q", 5);
  machine.settle();
  EXPECT_TRUE(leaf.session->known.empty());
  client.send("SUB a 1\r\nSUB b q 2\r\n");
  machine.settle();
  EXPECT_EQ(leaf.session->known, (std::map<std::string, uint32_t>{{"a", 1}, {"b q", 1}}));
}

TEST_P(Peers, MappedRepliesLeadBackAndNowhereElse) {
  Peer inbound = connect(machine, there(), core::SessionKind::kGateway);
  Peer outbound = connect(machine, there(), core::SessionKind::kGateway);
  Peer other = connect(machine, there(), core::SessionKind::kGateway);
  want(machine, outbound, Side::kReplies, "_GR_.aaaaaa.>");
  want(machine, other, Side::kReplies, "_GR_.cccccc.>");
  want(machine, other, Side::kGateways, "inbox.1");
  Client& bystander = machine.connect(0);
  bystander.send("SUB inbox.1 1\r\n");
  client.send("SUB service 7\r\n");
  machine.settle();
  core::Shard& shard = machine.shard(there());
  core::Message message;
  message.subject = "service";
  message.reply = "_GR_.aaaaaa.bbbbbb.inbox.1";
  message.payload = "x";
  message.from = inbound.session;
  message.source = core::SessionKind::kGateway;
  message.all_queues = false;
  shard.delivery().publish(shard.account(0), message);
  machine.settle();
  EXPECT_EQ(client.take(), "MSG service 7 inbox.1 1\r\nx\r\n");
  client.send("PUB inbox.1 2\r\nok\r\n");
  machine.settle();
  EXPECT_EQ(outbound.take(), "_GR_.aaaaaa.bbbbbb.inbox.1 P|ok\r\n");
  EXPECT_EQ(other.take() + inbound.take() + bystander.take(), "");
  machine.pass(core::GatewayReplies::kValidNs);
  client.send("PUB inbox.1 2\r\nok\r\n");
  machine.settle();
  EXPECT_EQ(outbound.take(), "");
  EXPECT_EQ(other.take(), "inbox.1 P|ok\r\n");
  EXPECT_EQ(bystander.take(), "MSG inbox.1 1 2\r\nok\r\n");
}

// A shard with nobody to tell gets literals as hashes only: those under way when it begins to listen have no texts.
TEST(PeersInBulk, NothingIsMissedBeforeOtherShardsSendTexts) {
  Machine machine(3);
  Client& client = machine.connect(1);
  Client& other = machine.connect(2);
  client.send("SUB gone 1\r\n");
  machine.settle();
  Peer route = connect(machine, 0, core::SessionKind::kRoute);
  Peer choosy = connect(machine, 0, core::SessionKind::kRoute);
  Peer leaf = connect(machine, 1, core::SessionKind::kLeaf);
  client.send("UNSUB 1\r\nSUB before 2\r\n");
  machine.turn(1);  // told by hash,
  route.session->listen(bit(Side::kClients));
  choosy.session->listen(bit(Side::kLeafs));  // of which there is nothing yet: what would it ask for?
  machine.turn(0);
  want(machine, leaf, Side::kLeafs, "edge");
  client.send("SUB meanwhile 3\r\n");
  other.send("SUB meanwhile 1\r\nSUB there.* 2\r\n");
  machine.turn(1);  // and this too: the shard hears of the listener at the end of the turn
  machine.turn(0);
  machine.turn(2);
  client.send("SUB after 4\r\n");
  machine.turn(1);
  settle_replay(machine, route);
  settle_replay(machine, choosy);
  using Known = std::map<std::string, uint32_t>;
  EXPECT_EQ(choosy.session->known, (Known{{"edge", 1}}));
  EXPECT_EQ(route.session->known, (Known{{"after", 1}, {"before", 1}, {"meanwhile", 1}, {"there.*", 1}}));
  client.send("UNSUB 2\r\nUNSUB 3\r\n");
  other.send("UNSUB 1\r\nUNSUB 2\r\n");
  machine.settle();
  EXPECT_EQ(route.session->known, (Known{{"after", 1}}));
}

// How far `count` moves in one turn of a shard at most, until `done`.
template <class Count, class Done>
int64_t most_in_a_turn(Machine& machine, Count&& count, Done&& done) {
  int64_t most = 0;
  for (int turns = 0; turns < 10'000 && !done(); ++turns) {
    for (uint32_t shard = 0; shard < 2; ++shard) {
      const int64_t before = count();
      machine.turn(shard);
      most = std::max(most, std::abs(count() - before));
    }
  }
  EXPECT_TRUE(done());
  return most;
}

// However much comes, is to be told, or goes at once: of one turn it takes well below a millisecond.
TEST_P(Peers, DoNotMakeATurnLongByTheirNumberOrTheirInterest) {
  constexpr int64_t kMany = 20'000, kInATurn = 1024;
  const auto live = [&](uint32_t shard, Side side) {
    return static_cast<int64_t>(machine.shard(shard).account(0).side(side).stats().num_subscriptions);
  };
  std::vector<Peer> routes;
  const auto told = [&] {
    int64_t sum = 0;
    for (const Peer& route : routes) sum += route.session->told;
    return sum;
  };
  const auto join = [&] {
    routes.push_back(connect(machine, there(), core::SessionKind::kRoute));
    routes.back().session->listen(bit(Side::kClients));
  };
  join();
  settle_replay(machine, routes.front());
  std::string subs;
  for (int64_t n = 0; n < kMany; ++n) subs += "SUB many." + std::to_string(n) + " " + std::to_string(n) + "\r\n";
  client.send(subs);
  EXPECT_LE(most_in_a_turn(machine, told, [&] { return told() >= kMany; }), kInATurn) << "subscribed";

  for (int n = 0; n < 5; ++n) join();
  const auto all_told = [&] {
    return std::all_of(routes.begin(), routes.end(), [](const Peer& route) { return route.session->replayed; });
  };
  EXPECT_LE(most_in_a_turn(machine, told, all_told), kInATurn) << "told to five who join at once";
  EXPECT_EQ(routes.back().session->known.size(), static_cast<size_t>(kMany));

  machine.hang_up(client);
  const auto ours = [&] { return live(0, Side::kClients); };
  EXPECT_LE(most_in_a_turn(machine, ours, [&] { return ours() == 0; }), kInATurn) << "a client that goes";
  machine.settle();
  EXPECT_TRUE(routes.back().session->known.empty());

  for (size_t n = 0; n < 3; ++n) {
    for (int64_t each = 0; each < kMany / 4; ++each)
      want(machine, routes[n], Side::kRoutes, "theirs." + std::to_string(n) + "." + std::to_string(each));
  }
  machine.settle();
  for (size_t n = 0; n < 3; ++n) machine.hang_up(*routes[n].client);
  const auto theirs = [&] { return live(there(), Side::kRoutes); };
  EXPECT_LE(most_in_a_turn(machine, theirs, [&] { return theirs() == 0; }), kInATurn) << "three routes that go";
}

TEST(PeersInBulk, ReplayAndWithdrawalReachEverySubscription) {
  Machine machine(2, {}, 16 * 1024);
  Client& client = machine.connect(1);
  constexpr int kMany = 30'000;
  for (int n = 0; n < kMany; ++n) {
    client.send("SUB bulk." + std::to_string(n) + (n % 10 == 0 ? ".* " : " ") + std::to_string(n) + "\r\n");
    if (n % 200 == 0) machine.settle();
  }
  machine.settle();
  Peer route = connect(machine, 0, core::SessionKind::kRoute);
  route.session->listen(bit(Side::kClients));
  // Interest that comes and goes while the replay is under way.
  for (int n = 0; n < 300; ++n) {
    client.send("UNSUB " + std::to_string(n * 7) + "\r\nSUB late." + std::to_string(n) + " l" + std::to_string(n) +
                "\r\n");
    machine.turn(n % 2);
    machine.turn(1 - n % 2);
  }
  settle_replay(machine, route);
  EXPECT_EQ(route.session->known.size(), static_cast<size_t>(kMany));
  for (int n = 0; n < kMany; ++n) want(machine, route, Side::kRoutes, "theirs." + std::to_string(n));
  machine.settle();
  client.send("PUB theirs.777 1\r\nx\r\n");
  machine.settle();
  EXPECT_EQ(route.take(), "theirs.777 P|x\r\n");
  machine.hang_up(client);
  machine.settle();
  EXPECT_TRUE(route.session->known.empty());
  machine.hang_up(*route.client);
  machine.settle();
  EXPECT_TRUE(machine.shard(1).account(0).side(Side::kRoutes).empty());
  EXPECT_EQ(machine.shard(1).account(0).live_sides(), core::kClientsOnly);
}

}  // namespace
}  // namespace peregrine::test
