// The simulated network itself: it must carry bytes faithfully, break on request, notice misuse, and replay from its
// seed.

#include <gtest/gtest.h>

#include "net/sim/backend.h"
#include "net/sim/client.h"
#include "net/sim/network.h"
#include "net/sim/scheduler.h"
#include "tests/net/checked_backend.h"
#include "tests/net/echo.h"

namespace peregrine::net::testing {
namespace {

constexpr int64_t kSecond = sim::Scheduler::kSecond;

struct PlainShard {
  PlainShard(sim::Network& network, sim::Scheduler& scheduler, const std::string& host) : server(make(network, host)) {
    number = scheduler.add({.backend = raw, .turn = [this] { return server.turn() > 0; }});
  }

  sim::Backend* raw = nullptr;
  CheckedBackend server;
  size_t number = 0;

 private:
  std::unique_ptr<Backend> make(sim::Network& network, const std::string& host) {
    auto backend = std::make_unique<sim::Backend>(network, host);
    raw = backend.get();
    return backend;
  }
};

// One shard of an echo server.
struct EchoShard : PlainShard {
  using PlainShard::PlainShard;
  Echo echo{server, 16 * 1024};
};

struct Outcome {
  uint64_t fingerprint;
  std::vector<std::string> violations;
};

// Eight clients of two hosts, each with four shards, everything echoed byte for byte under drawn options.
Outcome echo_everything(uint64_t seed) {
  sim::Network network(seed, sim::Options::drawn_from(seed));
  sim::Scheduler scheduler(network);
  core::Random random(seed);
  std::vector<std::unique_ptr<EchoShard>> shards;
  for (const std::string host : {"10.0.0.1", "10.0.0.2"}) {
    for (const int fd : network.listen(host, 4222, 4)) {
      shards.push_back(std::make_unique<EchoShard>(network, scheduler, host));
      EXPECT_EQ(shards.back()->server->listen(fd, 0), 0);
    }
  }
  std::vector<sim::Client*> clients;
  std::vector<std::string> said;
  for (uint64_t n = 0; n < 8; ++n) {
    clients.push_back(&network.dial("10.0.9." + std::to_string(n), {n % 2 == 0 ? "10.0.0.1" : "10.0.0.2", 4222}));
    said.emplace_back();
    const uint64_t size = 1 + random.below(20'000);
    for (uint64_t i = 0; i < size; ++i) said.back().push_back(static_cast<char>(random.below(256)));
    clients.back()->send(said.back());
  }
  EXPECT_TRUE(scheduler.run_until(
      [&] {
        for (size_t n = 0; n < clients.size(); ++n) {
          if (clients[n]->received().size() < said[n].size()) return false;
        }
        return true;
      },
      10'000 * kSecond))
      << "seed " << seed;
  for (size_t n = 0; n < clients.size(); ++n) {
    EXPECT_TRUE(clients[n]->received() == said[n]) << "seed " << seed << " client " << n;
    if (n % 2 == 0) {
      clients[n]->close();
    } else {
      clients[n]->reset();
    }
  }
  EXPECT_TRUE(scheduler.settle()) << "seed " << seed;
  for (auto& shard : shards) {
    EXPECT_EQ(shard->server.open_conns(), 0u) << "seed " << seed;
    EXPECT_EQ(shard->server.closed.size(), shard->server.accepted.size());
  }
  return {network.fingerprint(), network.violations()};
}

TEST(SimTest, CarriesEveryByteInOrderUnderEverySeed) {
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    EXPECT_TRUE(echo_everything(seed).violations.empty()) << "seed " << seed;
    if (HasFailure()) return;
  }
}

TEST(SimTest, ReplaysFromItsSeed) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const uint64_t first = echo_everything(seed).fingerprint;
    EXPECT_EQ(first, echo_everything(seed).fingerprint) << seed;
    EXPECT_NE(first, echo_everything(seed + 1000).fingerprint) << seed;
  }
}

class SimPair : public ::testing::TestWithParam<uint64_t> {
 protected:
  SimPair()
      : network(GetParam(), sim::Options::drawn_from(GetParam())),
        scheduler(network),
        shard(network, scheduler, "server") {
    EXPECT_EQ(shard.server->listen(network.listen("server", 4222, 1)[0], 7), 0);
  }

  sim::Client& connected() {
    sim::Client& client = network.dial("client", {"server", 4222});
    const size_t before = shard.server.accepted.size();
    EXPECT_TRUE(scheduler.run_until([&] { return client.connected() && shard.server.accepted.size() > before; }));
    return client;
  }
  CheckedBackend& server() { return shard.server; }
  ConnId id() const { return shard.server.accepted.back(); }

  sim::Network network;
  sim::Scheduler scheduler;
  PlainShard shard;
};

TEST_P(SimPair, AddressesAndListenerNumbers) {
  uint32_t listener = 0;
  server().on_event = [&](const Event& event) {
    if (event.kind == Event::Kind::kAccepted) listener = event.listener;
  };
  sim::Client& client = connected();
  EXPECT_EQ(listener, 7u);
  EXPECT_EQ(server()->remote_address(id()).host, "client");
  EXPECT_EQ(server()->remote_address(id()).port, client.local_address().port);
  EXPECT_EQ(server()->local_address(id()).port, 4222);
}

TEST_P(SimPair, PauseHoldsTheSenderBack) {
  sim::Client& client = connected();
  server()->pause(id());
  client.send(std::string(3 * network.options().window_bytes, 'x'));
  scheduler.run_for(60 * kSecond);
  EXPECT_LE(server().conn(id()).received, 64u * 1024);
  EXPECT_GE(client.unsent(), network.options().window_bytes);
  server()->resume(id());
  ASSERT_TRUE(scheduler.run_until([&] { return server().conn(id()).received == 3 * network.options().window_bytes; },
                                  100'000 * kSecond));
}

TEST_P(SimPair, ASlowConsumerBlocksTheSendUntilItReads) {
  sim::Client& client = connected();
  client.stop_reading();
  const std::string all(2 * network.options().window_bytes + 17, 'y');
  size_t taken = 0;
  const auto offer = [&] {
    while (taken < all.size() && !server().conn(id()).sending) {
      const SendResult result = server().send(id(), std::string_view(all).substr(taken));
      ASSERT_NE(result.status, SendResult::Status::kFailed);
      taken += result.bytes;
    }
    server()->flush();
  };
  server().on_event = [&](const Event& event) {
    if (event.kind == Event::Kind::kSent) taken += event.size;
    if (event.kind == Event::Kind::kSent || event.kind == Event::Kind::kWritable) offer();
  };
  offer();
  scheduler.run_for(600 * kSecond);
  EXPECT_TRUE(server().conn(id()).sending);
  EXPECT_LE(taken, network.options().window_bytes);
  client.start_reading();
  ASSERT_TRUE(scheduler.run_until([&] { return client.received().size() == all.size(); }, 100'000 * kSecond));
}

TEST_P(SimPair, EveryWayToClose) {
  // The peer finishes after its last bytes.
  sim::Client& polite = connected();
  polite.send("last words");
  polite.close();
  ASSERT_TRUE(scheduler.run_until([&] { return server().closed.size() == 1; }));
  EXPECT_EQ(server().closed_errors.back(), 0);
  EXPECT_EQ(server().conn(id()).bytes, "last words");

  // The peer resets.
  sim::Client& rude = connected();
  rude.reset();
  ASSERT_TRUE(scheduler.run_until([&] { return server().closed.size() == 2; }));
  EXPECT_EQ(server().closed_errors.back(), -ECONNRESET);

  // We close behind our last bytes, with input unread.
  sim::Client& told = connected();
  told.send(std::string(5000, 'p'));
  scheduler.run_for(kSecond / 1000);
  const std::string error = "-ERR 'Authorization Violation'\r\n";
  size_t taken = 0;
  while (taken < error.size()) {
    if (!server().conn(id()).sending) taken += server().send(id(), std::string_view(error).substr(taken)).bytes;
    server()->flush();
    if (!server().conn(id()).sending) continue;
    size_t sent = 0;
    server().on_event = [&](const Event& event) { sent += event.kind == Event::Kind::kSent ? event.size : 0; };
    ASSERT_TRUE(scheduler.run_until([&] { return !server().conn(id()).sending; }));
    server().on_event = nullptr;
    taken += sent;
  }
  server()->close(id(), false);
  ASSERT_TRUE(scheduler.run_until([&] { return told.ended(); }));
  EXPECT_EQ(told.received(), error);
  EXPECT_EQ(told.error(), 0);
  told.close();
  ASSERT_TRUE(scheduler.run_until([&] { return server().closed.size() == 3; }));

  // We reset.
  sim::Client& victim = connected();
  server()->close(id(), true);
  server()->close(id(), true);
  ASSERT_TRUE(scheduler.run_until([&] { return victim.ended() && server().closed.size() == 4; }));
  EXPECT_EQ(victim.error(), -ECONNRESET);
  EXPECT_TRUE(network.violations().empty());
}

TEST_P(SimPair, DialsConnectFailOrTimeOut) {
  PlainShard other(network, scheduler, "other");
  other.server->dial({"server", 4222}, 1, 600 * kSecond);
  ASSERT_TRUE(scheduler.run_until([&] { return other.server.dialed.size() == 1 && server().accepted.size() == 1; }));
  other.server.send(other.server.dialed[0], "hello");
  other.server->flush();
  ASSERT_TRUE(scheduler.run_until([&] { return server().conn(id()).received > 0; }));

  other.server->dial({"server", 4223}, 2, 600 * kSecond);
  network.refuse_dials({"server", 4222}, 1);
  ASSERT_TRUE(scheduler.run_until([&] { return other.server.dial_failed.size() == 1; }));
  other.server->dial({"server", 4222}, 3, 600 * kSecond);
  ASSERT_TRUE(scheduler.run_until([&] { return other.server.dial_failed.size() == 2; }));
  EXPECT_EQ(other.server.dial_failed[1].tag, 3u);
  EXPECT_EQ(other.server.dial_failed[1].error, -ECONNREFUSED);

  network.partition("other", "server");
  other.server->dial({"server", 4222}, 4, 5 * kSecond);
  ASSERT_TRUE(scheduler.run_until([&] { return other.server.dial_failed.size() == 3; }));
  EXPECT_EQ(other.server.dial_failed[2].error, -ETIMEDOUT);
  network.heal("server", "other");
  ASSERT_TRUE(scheduler.settle(600 * kSecond));
  EXPECT_EQ(other.server.dialed.size(), 1u) << "the answer to an abandoned dial";
  EXPECT_TRUE(network.violations().empty());
}

TEST_P(SimPair, PartitionHoldsBytesBackUntilItHeals) {
  sim::Client& client = connected();
  client.send("before ");
  ASSERT_TRUE(scheduler.run_until([&] { return server().conn(id()).bytes == "before "; }));
  network.partition("client", "server");
  client.send("during ");
  scheduler.run_for(300 * kSecond);
  EXPECT_EQ(server().conn(id()).bytes, "before ");
  network.heal_all();
  client.send("after");
  ASSERT_TRUE(scheduler.run_until([&] { return server().conn(id()).bytes == "before during after"; }));
}

TEST_P(SimPair, CutAndCrashResetTheOtherSide) {
  sim::Client& first = connected();
  network.cut("client", "server");
  ASSERT_TRUE(scheduler.run_until([&] { return first.ended() && server().closed.size() == 1; }));
  EXPECT_EQ(server().closed_errors[0], -ECONNRESET);

  auto doomed = std::make_unique<PlainShard>(network, scheduler, "doomed");
  ASSERT_EQ(doomed->server->listen(network.listen("doomed", 1, 1)[0], 0), 0);
  sim::Client& second = network.dial("client", {"doomed", 1});
  ASSERT_TRUE(scheduler.run_until([&] { return second.connected(); }));
  scheduler.remove(doomed->number);
  doomed.reset();
  ASSERT_TRUE(scheduler.run_until([&] { return second.ended(); }));
  EXPECT_EQ(second.error(), -ECONNRESET);
  sim::Client& late = network.dial("client", {"doomed", 1});
  ASSERT_TRUE(scheduler.run_until([&] { return late.ended(); }));
  EXPECT_EQ(late.error(), -ECONNREFUSED);
}

TEST_P(SimPair, SleepersAreWokenByBytesWakeAndDeadlinesOnly) {
  PlainShard* sleeper = &shard;
  int turns = 0;
  int64_t deadline = INT64_MAX;
  scheduler.remove(shard.number);
  const size_t number = scheduler.add({.backend = sleeper->raw,
                                       .turn =
                                           [&] {
                                             ++turns;
                                             return sleeper->server.turn() > 0;
                                           },
                                       .deadline_ns = [&] { return deadline; }});
  ASSERT_TRUE(scheduler.settle());
  turns = 0;
  scheduler.run_for(100 * kSecond);
  EXPECT_EQ(turns, 0) << "an idle shard must cost nothing";
  sleeper->raw->wake();
  ASSERT_TRUE(scheduler.settle());
  EXPECT_EQ(turns, 1);
  deadline = network.now_ns() + 5 * kSecond;
  sleeper->raw->wake();
  scheduler.run_for(kSecond);
  EXPECT_EQ(turns, 2);
  deadline = INT64_MAX;
  scheduler.run_for(10 * kSecond);
  EXPECT_EQ(turns, 3);
  scheduler.stall(number, 50 * kSecond);
  sleeper->raw->wake();
  scheduler.run_for(40 * kSecond);
  EXPECT_EQ(turns, 3);
  scheduler.run_for(20 * kSecond);
  EXPECT_EQ(turns, 4);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimPair, ::testing::Range<uint64_t>(1, 21));

TEST(SimTest, NoticesBrokenContracts) {
  sim::Options options;
  options.pending_percent = 100;
  sim::Network network(1, options);
  sim::Scheduler scheduler(network);
  PlainShard shard(network, scheduler, "server");
  ASSERT_EQ(shard.server->listen(network.listen("server", 4222, 1)[0], 0), 0);
  sim::Client& client = network.dial("client", {"server", 4222});
  client.send("hello");
  shard.server.hold_data = true;
  ASSERT_TRUE(scheduler.run_until([&] { return !shard.server.held.empty(); }));
  const ConnId id = shard.server.accepted[0];
  std::string bytes = "in flight";
  ASSERT_EQ(shard.server.send(id, bytes).status, SendResult::Status::kPending);
  const iovec piece{bytes.data(), bytes.size()};
  EXPECT_EQ((*shard.server).send(id, {&piece, 1}).status, SendResult::Status::kFailed);
  bytes[0] = 'I';
  ASSERT_TRUE(scheduler.run_until([&] { return !shard.server.conn(id).sending; }));
  shard.server->release(shard.server.held[0]);
  shard.server->release(shard.server.held[0]);
  EXPECT_EQ(network.violations(),
            (std::vector<std::string>{"send while one is in flight, or of nothing",
                                      "memory of a send in flight was touched", "released twice"}));
}

}  // namespace
}  // namespace peregrine::net::testing
