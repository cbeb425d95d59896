#include "core/run.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/peer_session.h"
#include "core/random.h"
#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

// What a publisher might send: long runs, runs that nearly are, and what ends them.
std::string stream(uint64_t seed) {
  core::Random random(seed);
  const std::vector<std::string> subjects{"a",      "a.b", "orders.created", "nobody", "_INBOX.x", "many",
                                          "routed", "far", "queued"};
  std::string text;
  const auto publish = [&](const std::string& verb, const std::string& subject, const std::string& reply, size_t size) {
    text += verb + " " + subject + reply + " " + std::to_string(size) + "\r\n" +
            std::string(size, static_cast<char>('a' + random.below(26))) + "\r\n";
  };
  while (text.size() < 150'000) {
    const std::string& subject = subjects[random.below(subjects.size())];
    const size_t size = random.below(8) == 0 ? random.below(9000) : random.below(40);
    if (random.below(30) == 0) publish("PUB", subject, "", 60'000 + random.below(20'000));
    const uint64_t kind = random.below(12);
    for (uint64_t n = random.below(kind == 0 ? 900 : 20); n > 0; --n) {
      if (kind == 1) publish("pub", subject, "", size);
      else if (kind == 2) publish("PUB ", subject, "", size);
      else if (kind == 3) publish("PUB", subject, " reply." + std::to_string(random.below(3)), size);
      else if (kind == 4) publish("PUB", subject, "", random.below(300));
      else if (kind == 5) publish("PUB", subject, "  ", size);
      else publish("PUB", subject, "", size);
    }
    if (random.below(3) == 0) text += "PING\r\n";
    if (random.below(10) == 0) text += "SUB a 77\r\n";
    if (random.below(10) == 0) text += "UNSUB 77\r\n";
    if (random.below(20) == 0) text += "HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n";
  }
  return text;
}

// Writes what a route writes.
class Route final : public core::PeerSession {
 public:
  Route(core::Shard& shard, uint32_t conn)
      : PeerSession(shard, core::SessionKind::kRoute, shard.server().next_cid(), conn, "127.0.0.1", 1) {
    headers = true;
  }
  void feed(std::string_view) override {}
  void on_timer() override {}
  void arm_timer() override {}
  void describe(core::ConnRow&, bool) const override {}
  void on_detach() override {}
  void message_line(std::string& to, const core::Account& account, const core::Message& message,
                    const core::PeerTarget& target) override {
    to.append(message.header_size == 0 ? "RMSG " : "HMSG ").append(account.name).append(" ").append(message.subject);
    if (!target.queues.empty()) to.append(message.reply.empty() ? " |" : " +");
    if (!message.reply.empty()) to.append(" ").append(message.reply);
    for (const std::string_view queue : target.queues) to.append(" ").append(queue);
    if (message.header_size != 0) to.append(" ").append(std::to_string(message.header_size));
    to.append(" ").append(std::to_string(message.payload.size())).append("\r\n");
  }
};

struct World {
  World(uint32_t shards, uint64_t seed) : machine(shards, {}, 4096) {
    core::Random random(seed);
    publisher = &machine.connect(0, R"({"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"echo":)" +
                                        std::string(random.below(2) == 0 ? "true}" : "false}"));
    for (uint32_t n = 0; n < 6; ++n) {
      Client& reader = machine.connect(n % shards);
      readers.push_back(&reader);
      const std::string sid = std::to_string(random.below(2) == 0 ? 1 : n + 5);
      if (n % 2 == 0) reader.send("SUB many " + sid + "\r\n");
      if (n == 1) reader.send("SUB a 2\r\nSUB a.* 3\r\nUNSUB 3 50\r\n");
      if (n == 2) reader.send("SUB orders.created 4\r\nSUB orders.* 5\r\n");
      if (n == 3) reader.send("SUB a.> 9\r\nSUB a 9000\r\n");
    }
    // Routes that want the same, or a thing twice, or what nobody else does; near the publisher and not.
    for (uint32_t n = 0; n < seed % 4; ++n) {
      Route* route = nullptr;
      readers.push_back(&machine.adopt(n % shards, [&](core::Shard& on, uint32_t conn) {
        auto made = std::make_unique<Route>(on, conn);
        route = made.get();
        return made;
      }));
      std::vector<std::string_view> wanted{"routed"};
      if (n == 1) wanted = {"routed", "far", "orders.created"};
      if (n == 2) wanted = {"routed", "*", "a.*"};
      for (const std::string_view each : wanted)
        route->shard.add_peer_interest(*route, route->shard.account(0), core::Side::kRoutes, each, {}, 1);
      if (n == 1)
        route->shard.add_peer_interest(*route, route->shard.account(0), core::Side::kRoutes, "queued", "workers", 4);
    }
    machine.settle();
  }
  std::vector<std::string> output() {
    machine.settle();
    std::vector<std::string> all{publisher->take()};
    for (Client* reader : readers) all.push_back(reader->take());
    return all;
  }

  Machine machine;
  Client* publisher;
  std::vector<Client*> readers;
};

// Bytes in pieces that cut every frame are never a run: what comes out must be the same.
TEST(Run, IsWhatSingleMessagesWouldBe) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    const uint32_t shards = 1 + seed % 3;
    const std::string text = stream(seed);
    World whole(shards, seed), cut(shards, seed);
    core::Random random(seed);
    for (size_t at = 0; at < text.size();) {
      const size_t size = std::min<size_t>(text.size() - at, random.below(40'000));
      whole.publisher->send(std::string_view(text).substr(at, size));
      whole.machine.turn(0);
      at += size;
    }
    for (size_t at = 0; at < text.size(); at += 9) {
      cut.publisher->send(std::string_view(text).substr(at, 9));
      cut.machine.turn(0);
      if (at % 4096 < 9) cut.machine.settle();
    }
    const auto left = whole.output(), right = cut.output();
    for (size_t n = 0; n < left.size(); ++n) EXPECT_TRUE(left[n] == right[n]) << "seed " << seed << " client " << n;
    for (uint32_t n = 0; n < shards; ++n) {
      const core::ShardSnapshot a = whole.machine.shard(n).snapshot(), b = cut.machine.shard(n).snapshot();
      EXPECT_EQ(a.traffic.in_msgs, b.traffic.in_msgs);
      EXPECT_EQ(a.traffic.in_bytes, b.traffic.in_bytes);
      EXPECT_EQ(a.traffic.out_msgs, b.traffic.out_msgs);
      EXPECT_EQ(a.traffic.out_bytes, b.traffic.out_bytes);
    }
  }
}

// A broken frame in the middle: what came before it is delivered, nothing behind it.
TEST(Run, EndsAtABrokenFrame) {
  Machine machine(1);
  Client& publisher = machine.connect(0);
  Client& reader = machine.connect(0);
  reader.send("SUB a 1\r\n");
  machine.settle();
  std::string text;
  for (int n = 0; n < 50; ++n) text += "PUB a 3\r\nabc\r\n";
  publisher.send(text + "PUB a 3\r\nabcd\r\n" + text);
  machine.settle();
  std::string expected;
  for (int n = 0; n < 50; ++n) expected += "MSG a 1 3\r\nabc\r\n";
  EXPECT_EQ(reader.take(), expected);
  EXPECT_TRUE(publisher.closed);
}

// A reader that takes nothing is closed when more than max_pending waits for it, also in the middle of runs.
TEST(Run, SlowConsumerIsClosed) {
  config::Options options;
  options.max_pending = 2 << 20;
  Machine machine(1, options);
  Client& publisher = machine.connect(0);
  Client& slow = machine.connect(0);
  Client& quick = machine.connect(0);
  slow.send("SUB a 1\r\n");
  quick.send("SUB a 1\r\n");
  machine.settle();
  slow.reads = false;
  std::string text;
  for (int n = 0; n < 3000; ++n) text += "PUB a 16\r\n0123456789abcdef\r\n";
  size_t sent = 0;
  for (int n = 0; n < 60 && !slow.closed; ++n) {
    publisher.send(text);
    sent += 3000;
    machine.turn(0);
    machine.pass(10'000'000);
    machine.turn(0);
  }
  machine.settle();
  EXPECT_TRUE(slow.closed);
  EXPECT_EQ(machine.shard(0).snapshot().slow_consumers.clients, 1u);
  EXPECT_EQ(quick.take().size(), sent * std::string("MSG a 1 16\r\n0123456789abcdef\r\n").size());
}

// Large payloads are sent from where they were received, on this shard and on another, until a reader takes nothing for
// long: then they are copied, and received memory does not pile up behind it.
TEST(Run, WhoTakesNothingKeepsLittleReceivedMemory) {
  for (const uint32_t reader_shard : {0u, 1u}) {
    for (const size_t size : {3000u, 16'384u, 100'000u}) {
      Machine machine(2);
      Client& publisher = machine.connect(0);
      Client& slow = machine.connect(reader_shard);
      Client& quick = machine.connect(1 - reader_shard);
      slow.send("SUB a 1\r\n");
      quick.send("SUB b 1\r\n");
      machine.settle();
      slow.reads = false;
      std::string expected, expected_quick;
      size_t most = 0;
      for (int n = 0; n < 60; ++n) {
        std::string text;
        while (text.size() < 64 * 1024) {
          const std::string payload(size, static_cast<char>('a' + expected.size() % 26));
          const std::string frame = " " + std::to_string(size) + "\r\n" + payload + "\r\n";
          text += "PUB a" + frame;
          expected += "MSG a 1" + frame;
          text += "PUB b" + frame;
          expected_quick += "MSG b 1" + frame;
        }
        publisher.send(text);
        machine.settle();
        most = std::max(most, machine.lent_bytes(0));
      }
      EXPECT_GT(most, 0u) << size;
      EXPECT_LT(most, 3 * core::BufferPool::kReferBelow) << size;
      EXPECT_TRUE(quick.take() == expected_quick) << size;
      slow.reads = true;
      slow.send("PING\r\n");
      machine.settle();
      EXPECT_TRUE(slow.take() == expected + "PONG\r\n") << size;
      EXPECT_EQ(machine.lent_bytes(0), 0u) << size;
    }
  }
}

// A reader that goes in the middle gives back what it had of another shard's memory.
TEST(Run, WhoGoesGivesReceivedMemoryBack) {
  Machine machine(3);
  Client& publisher = machine.connect(0);
  std::vector<Client*> readers;
  for (uint32_t n = 0; n < 6; ++n) {
    readers.push_back(&machine.connect(n % 3));
    readers.back()->send("SUB a " + std::to_string(n < 3 ? 1 : n) + "\r\n");
  }
  machine.settle();
  for (Client* reader : readers) reader->reads = false;
  for (const size_t size : {1500u, 3000u, 50'000u}) {
    std::string text;
    while (text.size() < 100'000) text += "PUB a " + std::to_string(size) + "\r\n" + std::string(size, 'x') + "\r\n";
    publisher.send(text);
    machine.settle();
  }
  EXPECT_GT(machine.lent_bytes(0), 0u);
  for (Client* reader : readers) machine.hang_up(*reader);
  machine.settle();
  EXPECT_EQ(machine.lent_bytes(0), 0u);
}

}  // namespace
}  // namespace peregrine::test
