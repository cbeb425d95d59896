// The four rules that make N shards look like one server (design.md section 4): each must hold, and each test must fail
// when the rule is switched off.
#include <gtest/gtest.h>

#include "tests/core/machine.h"
#include "tests/model/colliding_subjects.h"

namespace peregrine::test {
namespace {

size_t count(std::string_view text, std::string_view what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + what.size())) ++n;
  return n;
}

// --- rule 1: acquire, drain, then think

// A's SUB is known to the world (its shard's turn is over); then C publishes on another shard.
bool subscription_is_seen(bool rule) {
  Machine machine(2);
  machine.set_rules([&](core::CrossingRules& rules) { rules.drain_before_think = rule; });
  Client& a = machine.connect(0);
  Client& c = machine.connect(1);
  a.send("SUB inbox 1\r\n");
  machine.turn(0);
  c.send("PUB inbox 2\r\nhi\r\n");
  machine.turn(1);
  machine.settle();
  return a.take() == "MSG inbox 1 2\r\nhi\r\n";
}

TEST(CrossingRules, InterestIsDrainedBeforeInputIsParsed) {
  EXPECT_TRUE(subscription_is_seen(true));
  EXPECT_FALSE(subscription_is_seen(false));
}

// A subscribes its inbox and sends a request, in one turn; B's shard looks between the two publications and B answers
// at once.
bool answer_finds_requester(bool rule) {
  Machine machine(2);
  Client& a = machine.connect(0);
  Client& b = machine.connect(1);
  b.send("SUB service 7\r\n");
  machine.settle();
  machine.set_rules([&](core::CrossingRules& rules) { rules.interest_first = rule; });
  a.send("SUB inbox.1 1\r\nPUB service inbox.1 1\r\nq\r\n");
  machine.shard(0).rules.between_publishes = [&] {
    machine.shard(0).rules.between_publishes = nullptr;
    machine.turn(1);
    if (b.take().starts_with("MSG service 7 inbox.1 1\r\n")) b.send("PUB inbox.1 1\r\na\r\n");
    machine.turn(1);
  };
  machine.turn(0);
  machine.turn(1);
  if (b.take().starts_with("MSG service 7 inbox.1 1\r\n")) b.send("PUB inbox.1 1\r\na\r\n");
  machine.settle();
  return a.take() == "MSG inbox.1 1 1\r\na\r\n";
}

TEST(CrossingRules, InterestIsPublishedBeforeDeliveries) {
  EXPECT_TRUE(answer_finds_requester(true));
  EXPECT_FALSE(answer_finds_requester(false));
}

// --- rule 2: nothing leaves while something is stuck

// A publishes more than the ring holds and flushes; once A has its PONG, C's flush on the other shard must have all of
// it.
bool flushed_is_there(bool rule) {
  Machine machine(2, {}, 1024);
  machine.lend_nothing();
  machine.set_rules([&](core::CrossingRules& rules) { rules.hold_stuck_output = rule; });
  Client& a = machine.connect(0);
  Client& c = machine.connect(1);
  c.send("SUB x 1\r\n");
  machine.settle();
  for (int n = 0; n < 200; ++n) a.send("PUB x 3\r\nabc\r\n");
  a.send("PING\r\n");
  for (int turns = 0; turns < 1000 && a.received.find("PONG") == std::string::npos; ++turns) {
    machine.turn(0);
    if (a.received.find("PONG") == std::string::npos) machine.turn(1);
  }
  c.send("PING\r\n");
  machine.turn(1);
  const std::string got = c.take();
  const size_t pong = got.find("PONG");
  return pong != std::string::npos && count(got.substr(0, pong), "abc") == 200;
}

TEST(CrossingRules, PongWaitsForStuckDeliveries) {
  EXPECT_TRUE(flushed_is_there(true));
  EXPECT_FALSE(flushed_is_there(false));
}

// The same for interest: a PONG promises that every subscription before it is known everywhere.
bool promised_subscriptions_hold(bool rule) {
  Machine machine(2, {}, 1024);
  machine.set_rules([&](core::CrossingRules& rules) { rules.hold_stuck_output = rule; });
  Client& a = machine.connect(0);
  Client& c = machine.connect(1);
  for (int n = 0; n < 300; ++n) a.send("SUB many." + std::to_string(n) + " " + std::to_string(n) + "\r\n");
  a.send("PING\r\n");
  for (int turns = 0; turns < 1000 && a.received.find("PONG") == std::string::npos; ++turns) {
    machine.turn(0);
    if (a.received.find("PONG") == std::string::npos) machine.turn(1);
  }
  a.take();
  c.send("PUB many.299 2\r\nhi\r\n");
  machine.turn(1);
  machine.settle();
  return a.take() == "MSG many.299 299 2\r\nhi\r\n";
}

TEST(CrossingRules, PongWaitsForStuckInterest) {
  EXPECT_TRUE(promised_subscriptions_hold(true));
  EXPECT_FALSE(promised_subscriptions_hold(false));
}

TEST(CrossingRules, HeldSessionIsNotReadFrom) {
  Machine machine(2, {}, 1024);
  machine.lend_nothing();
  Client& a = machine.connect(0);
  Client& c = machine.connect(1);
  c.send("SUB x 1\r\n");
  machine.settle();
  for (int n = 0; n < 200; ++n) a.send("PUB x 3\r\nabc\r\n");
  machine.turn(0);
  EXPECT_TRUE(a.session->held_by(core::kHoldRing));
  EXPECT_GT(machine.shard(0).snapshot().rings.overflow_pending, 0u);
  EXPECT_EQ(machine.shard(0).snapshot().rings.held_sessions, 1u);
  machine.settle();
  EXPECT_FALSE(a.session->held());
  EXPECT_EQ(machine.shard(0).snapshot().rings.overflow_pending, 0u);
  EXPECT_EQ(count(c.take(), "abc"), 200u);
}

// --- rule 3: a queue group loses nothing to a race

size_t queue_survives_race(bool rule) {
  Machine machine(3);
  machine.set_rules([&](core::CrossingRules& rules) { rules.repick = rule; });
  Client& publisher = machine.connect(0);
  Client& leaving = machine.connect(1);
  Client& staying = machine.connect(2);
  leaving.send("SUB work q 1\r\n");
  staying.send("SUB work q 2\r\n");
  machine.settle();
  // Shard 0 has drained its rings when the member on shard 1 leaves.
  for (int n = 0; n < 100; ++n) publisher.send("PUB work 1\r\nw\r\n");
  machine.acquire(0);
  machine.drain(0);
  leaving.send("UNSUB 1\r\n");
  machine.turn(1);
  machine.think(0);
  machine.finish(0);
  machine.flush(0);
  machine.settle();
  EXPECT_EQ(leaving.take(), "");
  return count(staying.take(), "MSG work 2 1\r\nw\r\n");
}

TEST(CrossingRules, QueuePickIsMadeAgainWhenTheMemberVanished) {
  EXPECT_EQ(queue_survives_race(true), 100u);
  EXPECT_LT(queue_survives_race(false), 100u);
}

TEST(CrossingRules, RepicksAreBounded) {
  // Each of two shards believes the other has the member: the message must not go round for ever.
  Machine machine(3);
  Client& publisher = machine.connect(0);
  Client& one = machine.connect(1);
  Client& two = machine.connect(2);
  one.send("SUB work q 1\r\n");
  two.send("SUB work q 2\r\n");
  machine.settle();
  publisher.send("PUB work 1\r\nw\r\n");
  machine.acquire(0);
  machine.drain(0);
  machine.think(0);
  machine.finish(0);
  // Both leave; neither has drained the other's withdrawal when the record comes.
  one.send("UNSUB 1\r\n");
  two.send("UNSUB 2\r\n");
  machine.acquire(1);
  machine.acquire(2);
  machine.think(1);
  machine.think(2);
  machine.finish(1);
  machine.finish(2);
  machine.settle();
  EXPECT_EQ(one.take() + two.take(), "");
  const auto before = machine.shard(1).snapshot().rings.records_in;
  machine.settle();
  EXPECT_EQ(machine.shard(1).snapshot().rings.records_in, before);
}

// --- rule 4: order

bool order_is_kept(bool rule) {
  Machine machine(2, {}, 1024);
  machine.set_rules([&](core::CrossingRules& rules) {
    rules.overflow_in_order = rule;
    rules.hold_stuck_output = false;  // or the publisher would not be read while its records wait
  });
  Client& a = machine.connect(0);
  Client& c = machine.connect(1);
  c.send("SUB x 1\r\n");
  machine.settle();
  int next = 0;
  const auto publish = [&](int count) {
    for (int n = 0; n < count; ++n, ++next) {
      const std::string payload = std::to_string(next);
      a.send("PUB x " + std::to_string(payload.size()) + "\r\n" + payload + "\r\n");
    }
  };
  for (int burst = 0; burst < 20; ++burst) {
    publish(120);  // more than the ring holds: the rest overflows
    machine.turn(0);
    machine.turn(1);  // makes room, while records wait in the overflow list
    publish(3);
    machine.turn(0);
  }
  machine.settle();
  const std::string got = c.take();
  int expected = 0;
  for (size_t at = 0; at < got.size();) {
    const size_t line = got.find("\r\n", at);
    const size_t end = got.find("\r\n", line + 2);
    const int value = std::stoi(got.substr(line + 2, end - line - 2));
    if (value != expected++) return false;
    at = end + 2;
  }
  return expected == next;
}

TEST(CrossingRules, OverflowKeepsOrder) {
  EXPECT_TRUE(order_is_kept(true));
  EXPECT_FALSE(order_is_kept(false));
}

// --- what else must look like one server

TEST(Crossing, PayloadsOfAllSizesArriveWhole) {
  config::Options options;
  Machine machine(3, options, 64 * 1024);
  Client& publisher = machine.connect(0);
  std::vector<Client*> readers;
  for (uint32_t shard = 0; shard < 3; ++shard) {
    for (int n = 0; n < 2; ++n) {
      readers.push_back(&machine.connect(shard));
      readers.back()->send("SUB data 1\r\n");
    }
  }
  machine.settle();
  for (const size_t size : {0u, 1u, 1023u, 1024u, 1025u, 2047u, 2048u, 2049u, 65'000u, 65'536u, 300'000u, 1'048'576u}) {
    std::string payload(size, 'x');
    for (size_t i = 0; i < size; ++i) payload[i] = static_cast<char>('a' + (i * 7 + size) % 26);
    publisher.send("PUB data r " + std::to_string(size) + "\r\n" + payload + "\r\n");
    machine.settle();
    const std::string expected = "MSG data 1 r " + std::to_string(size) + "\r\n" + payload + "\r\n";
    for (Client* reader : readers) EXPECT_TRUE(reader->take() == expected) << "size " << size;
  }
  // Every shared payload has come home.
  machine.settle();
  for (uint32_t shard = 0; shard < 3; ++shard) EXPECT_EQ(machine.shard(shard).pool().bytes_in_use(), 0u);
}

TEST(Crossing, NoRespondersIsAboutAllShards) {
  Machine machine(3);
  Client& requester = machine.connect(0);
  Client& responder = machine.connect(2);
  requester.send("SUB in 9\r\nPUB svc in 0\r\n\r\n");
  machine.settle();
  EXPECT_EQ(requester.take(), "HMSG in 9 35 35\r\nNATS/1.0 503\r\nNats-Subject: svc\r\n\r\n\r\n");
  responder.send("SUB svc workers 1\r\n");
  machine.settle();
  requester.send("PUB svc in 0\r\n\r\n");
  machine.settle();
  EXPECT_EQ(requester.take(), "");
  EXPECT_EQ(responder.take(), "MSG svc 1 in 0\r\n\r\n");
}

TEST(Crossing, QueueGroupsAreBalancedByMembers) {
  // One member on shard 0, three on shard 1: a quarter and three quarters.
  Machine machine(2);
  Client& publisher = machine.connect(0);
  Client& single = machine.connect(0);
  Client& triple = machine.connect(1);
  single.send("SUB w q 1\r\n");
  triple.send("SUB w q 1\r\nSUB w q 2\r\nSUB w q 3\r\n");
  machine.settle();
  for (int n = 0; n < 4000; ++n) publisher.send("PUB w 1\r\nx\r\n");
  machine.settle();
  const size_t one = count(single.take(), "MSG"), three = count(triple.take(), "MSG");
  EXPECT_EQ(one + three, 4000u);
  EXPECT_NEAR(static_cast<double>(one), 1000.0, 150.0);
}

TEST(Crossing, ClosingAConnectionWithdrawsItsInterestEverywhere) {
  Machine machine(2);
  Client& a = machine.connect(0);
  Client& c = machine.connect(1);
  for (int n = 0; n < 3000; ++n) a.send("SUB s." + std::to_string(n) + " " + std::to_string(n) + "\r\n");
  machine.settle();
  c.send("SUB in 1\r\nPUB s.2999 in 0\r\n\r\n");
  machine.settle();
  EXPECT_EQ(c.take(), "");
  machine.hang_up(a);
  machine.settle();
  machine.settle();
  EXPECT_EQ(machine.shard(0).account(0).sublist.stats().num_subscriptions, 0u);
  c.send("PUB s.2999 in 0\r\n\r\n");
  machine.settle();
  EXPECT_EQ(count(c.take(), "503"), 1u);
}

// --- a literal crosses as a hash

// Two subjects that the other shard cannot tell apart: one is unsubscribed, the other still gets its messages, and
// neither gets the other's.
TEST(Crossing, OneOfTwoSubjectsOfOneHashMayGo) {
  Machine machine(2);
  Client& subscriber = machine.connect(0);
  Client& publisher = machine.connect(1);
  const core::Account& account = *subscriber.session->account;
  const auto subjects = colliding_subjects(machine.server.hash_key.k0, machine.server.hash_key.k1, account.number, 2);
  const auto publish = [&] {
    for (const std::string& subject : subjects) publisher.send("PUB " + subject + " 2\r\nhi\r\n");
    machine.settle();
    return subscriber.take();
  };
  const auto arrives = [&](size_t n) { return "MSG " + subjects[n] + " " + std::to_string(n) + " 2\r\nhi\r\n"; };
  subscriber.send("SUB " + subjects[0] + " 0\r\nSUB " + subjects[1] + " 1\r\n");
  machine.settle();
  EXPECT_EQ(publish(), arrives(0) + arrives(1));
  subscriber.send("UNSUB 0\r\n");
  machine.settle();
  EXPECT_EQ(publish(), arrives(1));
  subscriber.send("UNSUB 1\r\n");
  machine.settle();
  EXPECT_EQ(publish(), "");
}

}  // namespace
}  // namespace peregrine::test
