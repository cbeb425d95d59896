// The broker itself, all shards and reactors, on the simulated network: what clients are promised holds under every
// seed.

#include "tests/net/sim_broker.h"

#include <gtest/gtest.h>

namespace peregrine::net::testing {
namespace {

constexpr const char* kConnect =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + what.size())) ++n;
  return n;
}

class SimBrokerTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  SimBrokerTest()
      : network(GetParam(), sim::Options::drawn_from(GetParam())),
        scheduler(network),
        broker(network, scheduler, "broker", 3) {}

  // Connected and answered.
  sim::Client& connect() {
    sim::Client& client = network.dial("client", {"broker", SimBroker::kPort});
    client.send(kConnect);
    flush(client);
    client.take();
    return client;
  }
  void flush(sim::Client& client) {
    const size_t before = count(client.received(), "PONG\r\n");
    client.send("PING\r\n");
    ASSERT_TRUE(scheduler.run_until([&] { return count(client.received(), "PONG\r\n") > before; },
                                    1000 * sim::Scheduler::kSecond))
        << client.received() << " error " << client.error();
  }

  sim::Network network;
  sim::Scheduler scheduler;
  SimBroker broker;
};

// 60 messages of three publishers to two subscribers, each in its publisher's order, whatever shards they landed on.
TEST_P(SimBrokerTest, DeliversEverythingOnceAndInOrder) {
  std::vector<sim::Client*> subscribers{&connect(), &connect()};
  for (sim::Client* each : subscribers) {
    each->send("SUB feed.* 1\r\n");
    flush(*each);
    each->take();
  }
  std::vector<sim::Client*> publishers{&connect(), &connect(), &connect()};
  for (int n = 0; n < 20; ++n) {
    for (size_t p = 0; p < publishers.size(); ++p) {
      const std::string payload = "p" + std::to_string(p) + " n" + std::to_string(n) + " " +
                                  std::string(static_cast<size_t>(n * 37 % 400), '.');
      publishers[p]->send("PUB feed." + std::to_string(p) + " " + std::to_string(payload.size()) + "\r\n" + payload +
                          "\r\n");
    }
  }
  ASSERT_TRUE(scheduler.run_until(
      [&] {
        return count(subscribers[0]->received(), "MSG ") >= 60 && count(subscribers[1]->received(), "MSG ") >= 60;
      },
      1000 * sim::Scheduler::kSecond))
      << "seed " << GetParam() << ": " << count(subscribers[0]->received(), "MSG ") << ", "
      << count(subscribers[1]->received(), "MSG ");
  for (sim::Client* each : subscribers) {
    flush(*each);
    const std::string text = each->take();
    EXPECT_EQ(count(text, "MSG "), 60u);
    for (int p = 0; p < 3; ++p) {
      size_t at = 0;
      for (int n = 0; n < 20; ++n) {
        const size_t found = text.find("\r\np" + std::to_string(p) + " n" + std::to_string(n) + " ", at);
        ASSERT_NE(found, std::string::npos)
            << "seed " << GetParam() << ": p" << p << " n" << n << " is missing or out of order";
        at = found;
      }
    }
  }
  EXPECT_TRUE(network.violations().empty()) << network.violations()[0];
}

// Rule 1 through the network: a request right behind the SUB of its inbox is always answered, never with 503.
TEST_P(SimBrokerTest, RequestsFindTheirAnswers) {
  sim::Client& service = connect();
  service.send("SUB service workers 9\r\n");
  flush(service);
  service.take();
  std::string heard;
  service.on_bytes = [&](sim::Client& client) {
    heard += client.take();
    for (size_t at; (at = heard.find("MSG service 9 ")) != std::string::npos;) {
      const size_t reply = at + 14;
      const size_t space = heard.find(' ', reply);
      const size_t end = heard.find("\r\nq\r\n", reply);
      if (space == std::string::npos || end == std::string::npos) return;
      client.send("PUB " + heard.substr(reply, space - reply) + " 1\r\na\r\n");
      heard.erase(0, end + 5);
    }
  };
  std::vector<sim::Client*> requesters;
  for (int n = 0; n < 6; ++n) requesters.push_back(&connect());
  for (int round = 0; round < 5; ++round) {
    for (size_t n = 0; n < requesters.size(); ++n) {
      const std::string inbox = "_INBOX." + std::to_string(n) + "." + std::to_string(round);
      requesters[n]->send("SUB " + inbox + " 1\r\nUNSUB 1 1\r\nPUB service " + inbox + " 1\r\nq\r\n");
    }
    for (size_t n = 0; n < requesters.size(); ++n) {
      const std::string answer = "MSG _INBOX." + std::to_string(n) + "." + std::to_string(round) + " 1 1\r\na\r\n";
      ASSERT_TRUE(scheduler.run_until([&] { return requesters[n]->received().find(answer) != std::string::npos; },
                                      1000 * sim::Scheduler::kSecond))
          << "seed " << GetParam() << ": " << requesters[n]->received();
      EXPECT_EQ(requesters[n]->take(), answer);
    }
  }
  EXPECT_TRUE(network.violations().empty()) << network.violations()[0];
}

TEST_P(SimBrokerTest, ShardsThatHangAndClientsThatVanishHurtNobodyElse) {
  sim::Client& subscriber = connect();
  subscriber.send("SUB > 1\r\n");
  flush(subscriber);
  subscriber.take();
  std::vector<sim::Client*> clients;
  for (int n = 0; n < 9; ++n) clients.push_back(&connect());
  for (uint32_t n = 0; n < 3; ++n)
    scheduler.stall(broker.actor(n), static_cast<int64_t>(network.random().below(50'000'000)));
  for (size_t n = 0; n < clients.size(); ++n) {
    clients[n]->send("SUB > 1\r\nPUB from." + std::to_string(n) + " 4\r\ndata\r\nPUB half 100\r\nnot all of it");
    if (n % 3 == 0) clients[n]->reset();
    if (n % 3 == 1) clients[n]->close();
  }
  scheduler.run_for(sim::Scheduler::kSecond);
  flush(subscriber);
  const std::string text = subscriber.take();
  for (size_t n = 2; n < clients.size(); n += 3)
    EXPECT_EQ(count(text, "MSG from." + std::to_string(n) + " "), 1u) << "seed " << GetParam();
  EXPECT_TRUE(network.violations().empty()) << network.violations()[0];
}

// Subscribe on one shard, PONG, publish on another: the message must arrive. True if it always did.
bool subscriptions_are_seen(uint64_t seed, const std::function<void(core::CrossingRules&)>& change) {
  sim::Network network(seed, sim::Options::drawn_from(seed));
  sim::Scheduler scheduler(network);
  SimBroker broker(network, scheduler, "broker", 3);
  for (uint32_t n = 0; n < 3; ++n) change(broker.shard(n).rules);
  std::vector<sim::Client*> clients;
  for (int n = 0; n < 6; ++n) {
    clients.push_back(&network.dial("client", {"broker", SimBroker::kPort}));
    clients.back()->send(kConnect);
  }
  for (int n = 0; n < 20; ++n) {
    sim::Client& subscriber = *clients[network.random().below(clients.size())];
    sim::Client& publisher = *clients[network.random().below(clients.size())];
    const std::string subject = "s" + std::to_string(n);
    const size_t pongs = count(subscriber.received(), "PONG\r\n");
    subscriber.send("SUB " + subject + " " + std::to_string(n) + "\r\nPING\r\n");
    if (!scheduler.run_until([&] { return count(subscriber.received(), "PONG\r\n") > pongs; },
                             100 * sim::Scheduler::kSecond))
      return false;
    publisher.send("PUB " + subject + " 1\r\nx\r\n");
    if (!scheduler.run_until([&] { return count(subscriber.received(), "MSG " + subject + " ") == 1; },
                             100 * sim::Scheduler::kSecond))
      return false;
  }
  return true;
}

// The simulation is worth something only if it finds the bug when a rule is taken away.
TEST(SimBroker, FindsARuleThatIsMissing) {
  for (uint64_t seed = 1; seed <= 30; ++seed)
    EXPECT_TRUE(subscriptions_are_seen(seed, [](core::CrossingRules&) {})) << seed;
  uint64_t seed = 1;
  while (seed <= 500 &&
         subscriptions_are_seen(seed, [](core::CrossingRules& rules) { rules.drain_before_think = false; }))
    ++seed;
  EXPECT_LE(seed, 500u) << "publishing before draining interest went unnoticed";
}

// Three publishers, each mostly heard on one shard and now and then on all three; what they are heard on changes. Every
// subscriber hears each of them in order and nothing twice. True if so.
bool publishers_move_in_order(uint64_t seed, bool fence, uint64_t& moves) {
  sim::Network network(seed, sim::Options::drawn_from(seed));
  sim::Scheduler scheduler(network);
  SimBroker broker(network, scheduler, "broker", 3);
  constexpr int kMessages = 600;
  for (uint32_t n = 0; n < 3; ++n) {
    auto& settings = broker.shard(n).placement().settings;
    settings.fence = fence;
    settings.messages = 16;
    settings.gap_ns = 0;
    settings.rest_s = 0;
    settings.patience_ns = 10 * sim::Scheduler::kSecond;
  }
  const auto dial = [&](const std::string& more) {
    sim::Client& client = network.dial("client", {"broker", SimBroker::kPort});
    client.send(kConnect + more + "PING\r\n");
    scheduler.run_until([&] { return count(client.received(), "PONG\r\n") == 1; }, 100 * sim::Scheduler::kSecond);
    client.take();
    return &client;
  };
  std::vector<sim::Client*> subscribers, publishers;
  for (int n = 0; n < 4; ++n) subscribers.push_back(dial("SUB all.* 1\r\nSUB " + std::to_string(n) + ".* 2\r\n"));
  for (int n = 0; n < 3; ++n) publishers.push_back(dial(""));
  std::vector<std::vector<std::vector<int>>> expected(4, std::vector<std::vector<int>>(3));
  std::vector<size_t> target(3);
  for (int n = 0; n < kMessages; ++n) {
    for (size_t p = 0; p < 3; ++p) {
      if (n % 100 == 0) target[p] = network.random().below(4);
      const bool all = n % 10 == 9;
      const std::string payload = std::to_string(n) + std::string(n % 50 == 0 ? 3000 : 0, '.');
      publishers[p]->send("PUB " + (all ? "all" : std::to_string(target[p])) + "." + std::to_string(p) + " " +
                          std::to_string(payload.size()) + "\r\n" + payload + "\r\n");
      for (size_t s = 0; s < 4; ++s) {
        if (all || s == target[p]) expected[s][p].push_back(n);
      }
    }
    if (n % 20 == 0) scheduler.run_for(static_cast<int64_t>(network.random().below(2'000'000)));
    if (n % 100 == 50)
      scheduler.stall(broker.actor(static_cast<uint32_t>(network.random().below(3))),
                      static_cast<int64_t>(network.random().below(5'000'000)));
  }
  bool good = true;
  for (size_t s = 0; s < 4; ++s) {
    size_t all = 0;
    for (const auto& each : expected[s]) all += each.size();
    good &= scheduler.run_until([&] { return count(subscribers[s]->received(), "MSG ") >= all; },
                                1000 * sim::Scheduler::kSecond);
    subscribers[s]->send("PING\r\n");
    good &= scheduler.run_until([&] { return count(subscribers[s]->received(), "PONG\r\n") == 1; },
                                100 * sim::Scheduler::kSecond);
    const std::string text = subscribers[s]->take();
    std::vector<std::vector<int>> got(3);
    for (size_t at = 0; (at = text.find("MSG ", at)) != std::string::npos;) {
      const auto p = static_cast<size_t>(text[text.find('.', at) + 1] - '0');
      at = text.find("\r\n", at) + 2;
      got[p].push_back(std::stoi(text.substr(at)));
    }
    good &= got == expected[s];
  }
  EXPECT_TRUE(network.violations().empty()) << network.violations()[0];
  for (uint32_t n = 0; n < 3; ++n) moves += broker.shard(n).snapshot().moved_in;
  return good;
}

TEST(SimBroker, PublishersChangeShardsInOrder) {
  uint64_t moves = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) EXPECT_TRUE(publishers_move_in_order(seed, true, moves)) << seed;
  EXPECT_GT(moves, 100u);
  uint64_t seed = 1;
  while (seed <= 300 && publishers_move_in_order(seed, false, moves)) ++seed;
  EXPECT_LE(seed, 300u) << "a move without its fence went unnoticed";
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimBrokerTest, ::testing::Range<uint64_t>(1, 31));

}  // namespace
}  // namespace peregrine::net::testing
