// Publishers that move to the shard where their messages go (core/placement.h).
#include <gtest/gtest.h>

#include "core/client_luggage.h"
#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

constexpr int64_t kMs = 1'000'000;

std::string pub(std::string_view subject, int number, size_t size = 0) {
  std::string payload = std::to_string(number) + ".";
  payload.append(size > payload.size() ? size - payload.size() : 0, 'x');
  return "PUB " + std::string(subject) + " " + std::to_string(payload.size()) + "\r\n" + payload + "\r\n";
}

// The numbers of the messages in `text`, which is complete.
std::vector<int> numbers(const std::string& text) {
  std::vector<int> all;
  for (size_t at = 0; (at = text.find("MSG ", at)) != std::string::npos;) {
    at = text.find("\r\n", at) + 2;
    all.push_back(std::stoi(text.substr(at)));
  }
  return all;
}
std::vector<int> up_to(int end) {
  std::vector<int> all;
  for (int n = 0; n < end; ++n) all.push_back(n);
  return all;
}

struct Movers : Machine {
  explicit Movers(uint32_t shards, uint32_t ring_bytes = 64 * 1024) : Machine(shards, {}, ring_bytes) { moves = true; }
  // Goes on in time, too: a move may have to wait for the one before.
  void settle_slowly() {
    for (int n = 0; n < 4; ++n) {
      settle();
      pass(10 * kMs);
    }
  }
  Client& subscriber(uint32_t on, std::string_view subject) {
    Client& client = connect(on);
    client.send("SUB " + std::string(subject) + " 1\r\n");
    settle();
    client.take();
    return client;
  }
  // `count` messages in batches, a turn each.
  void publish(Client& from, std::string_view subject, int count, int first = 0, size_t size = 0) {
    for (int n = 0; n < count; ++n) {
      from.send(pub(subject, first + n, size));
      if (n % 50 == 49) settle();
    }
    settle();
  }
  uint64_t crossed() {
    uint64_t all = 0;
    for (const core::Shard* shard : server.shards) all += shard->snapshot().rings.records_out;
    return all;
  }
};

TEST(Placement, APublisherMovesToItsSubscriber) {
  Movers machine(2);
  Client& subscriber = machine.subscriber(1, "x");
  Client& publisher = machine.connect(0);
  const uint64_t cid = publisher.session->cid;
  machine.publish(publisher, "x", 400);
  EXPECT_EQ(publisher.shard, 1u);
  EXPECT_EQ(machine.shard(0).find(cid), nullptr);
  EXPECT_EQ(machine.shard(1).find(cid), publisher.session);
  const core::ShardSnapshot old = machine.shard(0).snapshot(), now = machine.shard(1).snapshot();
  EXPECT_EQ(old.moved_out, 1u);
  EXPECT_EQ(now.moved_in, 1u);
  EXPECT_EQ(old.connections, 0u);
  EXPECT_EQ(now.connections, 2u);
  EXPECT_EQ(old.accounts[0].connections, 0u);
  EXPECT_EQ(now.accounts[0].connections, 2u);
  EXPECT_EQ(old.total_connections + now.total_connections, 2u);
  EXPECT_EQ(machine.server.clients(), 2);
  EXPECT_TRUE(machine.shard(0).closed_rows().empty());

  const uint64_t before = machine.crossed();
  machine.publish(publisher, "x", 100, 400);
  EXPECT_EQ(machine.crossed(), before) << "messages still cross";
  EXPECT_EQ(numbers(subscriber.take()), up_to(500));
}

TEST(Placement, LargeMessagesMoveItSooner) {
  Movers machine(2);
  Client& subscriber = machine.subscriber(1, "x");
  Client& publisher = machine.connect(0);
  machine.publish(publisher, "x", 6, 0, 16 * 1024);
  EXPECT_EQ(publisher.shard, 1u);
  EXPECT_EQ(numbers(subscriber.take()), up_to(6));
}

TEST(Placement, EverythingGoesAlong) {
  Movers machine(2);
  machine.subscriber(1, "x");
  Client& publisher =
      machine.connect(0, R"({"verbose":true,"pedantic":true,"headers":true,"name":"me","lang":"c","version":"1"})");
  machine.publish(publisher, "x", 400);
  ASSERT_EQ(publisher.shard, 1u);
  publisher.take();
  core::ConnRow row;
  publisher.session->describe(row, true);
  EXPECT_EQ(row.name, "me");
  EXPECT_EQ(row.lang, "c");
  EXPECT_EQ(row.version, "1");
  EXPECT_EQ(row.account, "$G");
  EXPECT_EQ(row.ip, "127.0.0.1");
  EXPECT_EQ(row.traffic.in_msgs, 400u);
  EXPECT_EQ(row.start_ns, machine.now_ns);
  publisher.send("PUB x.*.y 1\r\na\r\n");
  machine.settle();
  EXPECT_EQ(publisher.take(), "-ERR 'Invalid Publish Subject'\r\n+OK\r\n");
  // Its pings go on: the next one is due, and one that is not answered is noticed.
  machine.pass(200'000 * kMs);
  machine.settle();
  EXPECT_EQ(publisher.take(), "PING\r\n");
}

// Half a message has been read when it moves.
TEST(Placement, InTheMiddleOfAMessage) {
  Movers machine(2);
  Client& subscriber = machine.subscriber(1, "x");
  Client& publisher = machine.connect(0);
  std::string batch;
  for (int n = 0; n < 300; ++n) batch += pub("x", n);
  publisher.send(batch + "PUB x 20\r\n300.56789");
  machine.settle();
  ASSERT_EQ(publisher.shard, 1u);
  publisher.send("01234567890\r\n");
  machine.settle();
  const std::string got = subscriber.take();
  EXPECT_EQ(numbers(got), up_to(301));
  EXPECT_TRUE(got.ends_with("MSG x 1 20\r\n300.5678901234567890\r\n")) << got.substr(got.size() - 60);
}

// Rule 4 at a third shard, which has not read what the old shard wrote when the new one publishes. True if in order.
// Which ring that shard reads first is another one each time.
bool order_is_kept(bool fence, int drains) {
  Movers machine(3);
  for (uint32_t n = 0; n < 3; ++n) machine.shard(n).placement().settings.fence = fence;
  Client& near = machine.subscriber(1, "x");
  Client& far = machine.subscriber(2, "far.*");
  Client& publisher = machine.connect(0);
  for (int n = 0; n < drains; ++n) machine.drain(2);
  publisher.send(pub("far.a", 0));
  for (int n = 0; n < 300; ++n) publisher.send(pub("x", n));
  publisher.send(pub("far.b", 1));
  // Shard 2 is off its core.
  for (int n = 0; n < 20; ++n) {
    machine.turn(0);
    machine.turn(1);
  }
  EXPECT_EQ(publisher.shard, fence ? 0u : 1u);
  for (int n = 2; n < 40; n += 2) {
    publisher.send(pub("far.c", n) + pub("far.d", n + 1));
    machine.turn(0);
    machine.turn(1);
    if (n < 20) continue;
    machine.turn(2);
  }
  machine.settle_slowly();
  EXPECT_EQ(publisher.shard, 1u);
  EXPECT_EQ(numbers(near.take()), up_to(300));
  return numbers(far.take()) == up_to(40);
}

TEST(Placement, OrderIsKeptByTheFence) {
  EXPECT_TRUE(order_is_kept(true, 0) && order_is_kept(true, 1) && order_is_kept(true, 2));
  EXPECT_FALSE(order_is_kept(false, 0) && order_is_kept(false, 1) && order_is_kept(false, 2));
}

TEST(Placement, WhoSubscribesStays) {
  Movers machine(2);
  machine.subscriber(1, "x");
  Client& publisher = machine.connect(0);
  publisher.send("SUB mine 7\r\n");
  machine.publish(publisher, "x", 1000);
  EXPECT_EQ(publisher.shard, 0u);
  publisher.send("UNSUB 7\r\n");
  machine.publish(publisher, "x", 1000);
  EXPECT_EQ(publisher.shard, 1u);
}

// It subscribes in the bytes that came when it had been decided already.
TEST(Placement, ASubscriptionInTheLastMomentKeepsItHere) {
  Movers machine(2);
  Client& subscriber = machine.subscriber(1, "x");
  Client& publisher = machine.connect(0);
  std::string batch;
  for (int n = 0; n < 400; ++n) batch += pub("x", n);
  publisher.send(batch + "SUB mine 1\r\nPUB mine 2\r\nme\r\n");
  machine.settle();
  EXPECT_EQ(publisher.shard, 0u);
  EXPECT_FALSE(publisher.session->held());
  EXPECT_EQ(publisher.take(), "MSG mine 1 2\r\nme\r\n");
  EXPECT_EQ(numbers(subscriber.take()), up_to(400));
}

TEST(Placement, ReceiversOnBothShardsKeepIt) {
  Movers machine(2);
  machine.subscriber(1, "x");
  machine.subscriber(0, "x");
  Client& publisher = machine.connect(0);
  machine.publish(publisher, "x", 1000);
  EXPECT_EQ(publisher.shard, 0u);
}

TEST(Placement, MostIsEnough) {
  Movers machine(2);
  machine.subscriber(1, "far");
  machine.subscriber(0, "near");
  Client& some = machine.connect(0);
  Client& most = machine.connect(0);
  for (int n = 0; n < 2000; ++n) {
    some.send(pub(n % 2 == 0 ? "far" : "near", n));
    most.send(pub(n % 8 != 0 ? "far" : "near", n));
    if (n % 50 == 0) machine.settle();
  }
  machine.settle_slowly();
  EXPECT_EQ(some.shard, 0u);
  EXPECT_EQ(most.shard, 1u);
}

TEST(Placement, ToAQueueGroup) {
  Movers machine(3);
  for (int n = 0; n < 3; ++n) machine.connect(2).send("SUB work group 1\r\n");
  machine.settle();
  Client& publisher = machine.connect(0);
  machine.publish(publisher, "work", 600);
  EXPECT_EQ(publisher.shard, 2u);
}

// A shard busy with others' messages is not given more; whoever makes up half of its work is welcome all the same.
TEST(Placement, ABusyShardIsLeftAlone) {
  Movers machine(2);
  machine.subscriber(1, "x");
  machine.shard(0).placement().settings.rate_ns = kMs;
  const auto busy_with = [&](uint64_t messages) {
    for (int n = 0; n < 50; ++n) {
      machine.turn(1);
      machine.shard(1).worked(messages);
      machine.pass(kMs);
    }
    machine.turn(1);
  };
  // 500 messages in about two milliseconds, of 1000 in each.
  Client& one_of_many = machine.connect(0);
  for (int n = 0; n < 500; ++n) {
    one_of_many.send(pub("x", n));
    if (n % 250 == 0) busy_with(1000);
    if (n % 50 == 0) machine.turn(0);
  }
  machine.turn(0);
  EXPECT_EQ(machine.shard(0).placement().waiting(), false);
  EXPECT_EQ(machine.shard(0).snapshot().moved_out, 0u);

  machine.settle();
  Client& the_one = machine.connect(0);
  for (int n = 0; n < 6000; ++n) {
    if (n % 300 == 0) {
      machine.turn(1);
      machine.shard(1).worked(1);
      machine.pass(kMs);
      machine.turn(0);
    }
    the_one.send(pub("x", n));
  }
  machine.settle_slowly();
  EXPECT_EQ(the_one.shard, 1u);
}

// Four publishers on a shard that can do the work of two.
struct Overloaded : Movers {
  Overloaded() : Movers(2) {
    reader = &subscriber(1, "x.*");
    for (int n = 0; n < 4; ++n) publishers.push_back(&connect(1));
  }
  // Each publishes `shares[n]` messages in each of so many milliseconds.
  void run(int ms, std::vector<int> shares, bool other_busy = false) {
    for (; ms > 0; --ms) {
      for (uint32_t shard = 0; shard < 2; ++shard) {
        uint64_t messages = 0;
        for (size_t p = 0; p < publishers.size(); ++p) {
          if (publishers[p]->shard != shard) continue;
          for (int n = 0; n < shares[p]; ++n) publishers[p]->send(pub("x." + std::to_string(p), sent[p]++));
          messages += static_cast<uint64_t>(shares[p]);
        }
        turn(shard);
        if (shard == 1 ? messages > 20 : other_busy) this->shard(shard).worked(messages);
      }
      pass(kMs);
    }
    settle_slowly();
  }
  std::vector<uint32_t> shards() const {
    std::vector<uint32_t> all;
    for (const Client* each : publishers) all.push_back(each->shard);
    return all;
  }
  Client* reader;
  std::vector<Client*> publishers;
  std::vector<int> sent = std::vector<int>(4);
};

TEST(Placement, AnOverloadedShardSendsPublishersAway) {
  Overloaded machine;
  machine.run(40, {10, 10, 10, 10});
  EXPECT_EQ(machine.shard(1).snapshot().moved_out, 0u) << "before it has looked twice";
  machine.run(400, {10, 10, 10, 10});
  EXPECT_EQ(machine.shard(1).snapshot().moved_out, 2u) << "half of them are as much as it can do";
  EXPECT_EQ(machine.shard(0).snapshot().moved_in, 2u);
  const std::string text = machine.reader->take();
  for (int p = 0; p < 4; ++p) {
    std::string one;  // in order, each once
    for (size_t at = 0; (at = text.find("MSG x." + std::to_string(p), at)) != std::string::npos; at += 3)
      one += text.substr(at, text.find("\r\nMSG", at) - at) + "\r\n";
    EXPECT_EQ(numbers(one), up_to(machine.sent[static_cast<size_t>(p)])) << "publisher " << p;
  }
}

TEST(Placement, TheLargestThatIsNotMostOfItGoes) {
  Overloaded machine;
  machine.run(440, {1, 30, 8, 2});
  // The second would take the load along. Without the third there is as much as before and still too much.
  EXPECT_EQ(machine.shards()[1], 1u);
  EXPECT_EQ(machine.shards()[2], 0u);
}

TEST(Placement, OneThatIsAllOfTheLoadStays) {
  Overloaded machine;
  machine.run(440, {0, 40, 0, 0});
  EXPECT_EQ(machine.shards(), (std::vector<uint32_t>{1, 1, 1, 1}));
}

TEST(Placement, AShardThatSharesItsCoreSendsNobodyAway) {
  Overloaded machine;
  machine.on_core_percent = 70;
  machine.run(440, {10, 10, 10, 10});
  EXPECT_EQ(machine.shard(1).snapshot().moved_out, 0u);
}

TEST(Placement, NobodyIsSentToAShardThatIsBusyToo) {
  Overloaded machine;
  machine.run(440, {10, 10, 10, 10}, true);
  EXPECT_EQ(machine.shard(1).snapshot().moved_out, 0u);
}

TEST(Placement, RestsBetweenMoves) {
  Movers machine(2);
  machine.subscriber(1, "one");
  machine.subscriber(0, "zero");
  Client& publisher = machine.connect(0);
  machine.publish(publisher, "one", 400);
  ASSERT_EQ(publisher.shard, 1u);
  machine.publish(publisher, "zero", 400);
  EXPECT_EQ(publisher.shard, 1u) << "at once";
  machine.pass(1'100 * kMs);
  machine.publish(publisher, "zero", 400);
  EXPECT_EQ(publisher.shard, 0u);
  machine.pass(1'100 * kMs);
  machine.publish(publisher, "one", 400);
  EXPECT_EQ(publisher.shard, 0u) << "the second rest is longer";
  machine.pass(1'100 * kMs);
  machine.publish(publisher, "one", 400);
  EXPECT_EQ(publisher.shard, 1u);
}

// Its output is not taken, so the move is given up; what it sends is read on.
TEST(Placement, GivesUpInTime) {
  Movers machine(2);
  Client& subscriber = machine.subscriber(1, "x");
  Client& publisher = machine.connect(0, R"({"verbose":true})");
  publisher.reads = false;
  machine.publish(publisher, "x", 400);
  EXPECT_TRUE(machine.shard(0).placement().waiting());
  EXPECT_TRUE(publisher.session->held());
  machine.pass(30 * kMs);
  machine.settle();
  EXPECT_FALSE(machine.shard(0).placement().waiting());
  EXPECT_EQ(publisher.shard, 0u);
  machine.publish(publisher, "x", 100, 400);
  EXPECT_EQ(numbers(subscriber.take()), up_to(500));
}

TEST(Placement, NobodyMovesDuringAQuestionToAllShards) {
  Movers machine(2);
  machine.subscriber(1, "x");
  Client& publisher = machine.connect(0);
  {
    const core::Standstill::Guard still(machine.server.standstill);
    machine.publish(publisher, "x", 300);
    EXPECT_EQ(publisher.shard, 0u);
  }
  machine.settle();
  EXPECT_EQ(publisher.shard, 1u);
}

// --- what may happen while it moves

// The publisher has left shard 0 and not come to shard 1.
Client& on_its_way(Movers& machine) {
  machine.subscriber(1, "x");
  Client& publisher = machine.connect(0, R"({"verbose":false,"protocol":1})");
  publisher.send("PING\r\n");
  for (int n = 0; n < 300; ++n) publisher.send(pub("x", n));
  machine.turn(0);
  machine.drain(1);  // the fence is passed
  machine.turn(0);
  EXPECT_EQ(machine.shard(0).snapshot().moved_out, 1u);
  EXPECT_EQ(machine.shard(1).snapshot().moved_in, 0u);
  publisher.take();
  return publisher;
}

TEST(Placement, ClosedBeforeItLeaves) {
  Movers machine(2);
  machine.subscriber(1, "x");
  Client& publisher = machine.connect(0);
  for (int n = 0; n < 300; ++n) publisher.send(pub("x", n));
  machine.turn(0);
  ASSERT_TRUE(machine.shard(0).placement().waiting());
  machine.hang_up(publisher);
  machine.settle();
  EXPECT_FALSE(machine.shard(0).placement().waiting());
  ASSERT_EQ(machine.shard(0).closed_rows().size(), 1u);
  EXPECT_EQ(machine.shard(0).closed_rows()[0].reason, "Client Closed");
  EXPECT_EQ(machine.server.clients(), 1);
}

TEST(Placement, ItsLastBytesAreAnError) {
  Movers machine(2);
  machine.subscriber(1, "x");
  Client& publisher = machine.connect(0);
  for (int n = 0; n < 300; ++n) publisher.send(pub("x", n));
  publisher.send("NONSENSE\r\n");
  machine.settle();
  EXPECT_EQ(publisher.take(), "-ERR 'Unknown Protocol Operation'\r\n");
  EXPECT_TRUE(publisher.closed);
  EXPECT_EQ(machine.shard(0).closed_rows().size(), 1u);
}

TEST(Placement, ShutDownOnTheWay) {
  Movers machine(2);
  Client& publisher = on_its_way(machine);
  for (uint32_t n = 0; n < 2; ++n) machine.shard(n).shut_down(core::CloseReason::kServerShutdown);
  machine.settle();
  EXPECT_TRUE(publisher.closed);
  EXPECT_EQ(machine.server.clients(), 0);
  EXPECT_EQ(machine.shard(1).closed_rows().back().reason, "Server Shutdown");
}

TEST(Placement, LameDuckOnTheWay) {
  Movers machine(2);
  Client& publisher = on_its_way(machine);
  for (uint32_t n = 0; n < 2; ++n) machine.shard(n).begin_lame_duck(100 * kMs);
  for (int n = 0; n < 20; ++n) {
    machine.settle();
    machine.pass(20 * kMs);
  }
  EXPECT_TRUE(publisher.closed);
  EXPECT_EQ(machine.server.clients(), 0);
}

TEST(Placement, HearsOnTheWayWhatAllAreTold) {
  Movers machine(2);
  Client& publisher = on_its_way(machine);
  machine.server.change_info([](core::ServerInfo& info) { info.connect_urls = {"10.1.2.3:4222"}; });
  for (uint32_t n = 0; n < 2; ++n) machine.shard(n).announce_info();
  machine.settle();
  EXPECT_EQ(publisher.shard, 1u);
  EXPECT_NE(publisher.take().find("10.1.2.3:4222"), std::string::npos);
}

TEST(Placement, DroppedOnTheWayItIsCountedOut) {
  Movers machine(2);
  Client& publisher = machine.connect(0);
  auto luggage = static_cast<core::ClientSession*>(publisher.session)->pack();
  machine.shard(0).depart(*std::exchange(publisher.session, nullptr));
  EXPECT_EQ(machine.server.clients(), 1);
  EXPECT_EQ(machine.shard(0).snapshot().accounts[0].connections, 0u);
  luggage.reset();
  EXPECT_EQ(machine.server.clients(), 0);
}

// Random turns of four shards, publishers that follow their subscribers about: everything once and in order.
TEST(Placement, OrderUnderAnySchedule) {
  uint64_t moves = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    core::Random random(seed);
    constexpr uint32_t kShards = 4;
    constexpr int kMessages = 1500;
    Movers machine(kShards, seed % 2 == 0 ? 1024 : 16 * 1024);
    std::vector<Client*> subscribers, publishers;
    for (uint32_t n = 0; n < kShards; ++n) {
      auto& settings = machine.shard(n).placement().settings;
      settings.messages = 32;
      settings.gap_ns = 0;
      settings.rest_s = 0;
      subscribers.push_back(&machine.subscriber(n, "all.*"));
      subscribers.back()->send("SUB " + std::to_string(n) + ".* 2\r\n");
    }
    machine.settle();
    for (uint32_t n = 0; n < 3; ++n) publishers.push_back(&machine.connect(n));
    std::vector<int> sent(publishers.size()), target(publishers.size());
    std::vector<std::vector<std::vector<int>>> expected(kShards, std::vector<std::vector<int>>(publishers.size()));
    for (bool more = true; more;) {
      more = false;
      for (size_t p = 0; p < publishers.size(); ++p) {
        if (random.below(100) == 0) target[p] = static_cast<int>(random.below(kShards));
        for (uint64_t burst = random.below(20); burst > 0 && sent[p] < kMessages; --burst, ++sent[p]) {
          const bool all = random.below(10) == 0;
          const std::string subject = (all ? "all" : std::to_string(target[p])) + "." + std::to_string(p);
          publishers[p]->send(pub(subject, sent[p], random.below(50) == 0 ? 5000 : 0));
          for (uint32_t n = 0; n < kShards; ++n) {
            if (all || static_cast<int>(n) == target[p]) expected[n][p].push_back(sent[p]);
          }
        }
        more |= sent[p] < kMessages;
      }
      // A shard may be off its core for a while, another take a turn in pieces.
      for (uint64_t turns = random.below(6); turns > 0; --turns) {
        const auto shard = static_cast<uint32_t>(random.below(kShards));
        const auto other = static_cast<uint32_t>(random.below(kShards));
        machine.acquire(shard);
        if (other != shard && random.below(3) == 0) machine.turn(other);
        machine.drain(shard);
        machine.think(shard);
        if (other != shard && random.below(3) == 0) machine.turn(other);
        machine.finish(shard);
        machine.flush(shard);
        machine.pass(100'000);
      }
    }
    machine.settle_slowly();
    for (uint32_t n = 0; n < kShards; ++n) {
      const std::string text = subscribers[n]->take();
      std::vector<std::vector<int>> got(publishers.size());
      for (size_t at = 0; (at = text.find("MSG ", at)) != std::string::npos;) {
        const auto p = static_cast<size_t>(text[text.find('.', at) + 1] - '0');
        at = text.find("\r\n", at) + 2;
        got[p].push_back(std::stoi(text.substr(at)));
      }
      for (size_t p = 0; p < publishers.size(); ++p)
        ASSERT_EQ(got[p], expected[n][p]) << "seed " << seed << ", publisher " << p << " on shard " << n;
      moves += machine.shard(n).snapshot().moved_in;
    }
  }
  EXPECT_GT(moves, 60u);
}

}  // namespace
}  // namespace peregrine::test
