// Clusters of three to five servers on the simulated network, seed by seed: what is published while all are connected
// arrives, nothing arrives twice, order is kept, and after partitions, crashes and restarts everybody knows exactly
// what the others want.
//   CLUSTER_SEEDS=1000 CLUSTER_FIRST_SEED=1 sim_cluster_test     more runs; a failing one names its seed
#include "tests/cluster/sim_cluster.h"

namespace peregrine::cluster::testing {
namespace {

// A client that subscribes and keeps count of the numbered messages it gets.
struct Subscriber {
  sim::Client* client = nullptr;
  size_t node = 0;
  std::map<std::string, std::vector<int>> heard;  // publisher -> numbers, in the order they came
  NumberedReader reader;

  void listen() {
    client->on_bytes = [this](sim::Client& from) {
      reader.read(
          from,
          [&](const std::string&, const std::string& publisher, int number) { heard[publisher].push_back(number); },
          [](const std::string&) {});
    };
  }
};

struct Run {
  explicit Run(uint64_t seed) : seed(seed), cluster(seed, network_options(seed)) {}

  core::Random& random() { return cluster.network.random(); }

  config::Options configuration(size_t n) {
    config::Options options;
    options.cluster.name = "C";
    options.cluster.pool_size = pool_size;
    options.cluster.connect_retries = connect_retries;
    options.cluster.compression.mode = compression;
    options.ping_interval = std::chrono::hours(1);  // clients here do not answer
    options.cluster.ping_interval = std::chrono::seconds(2);
    options.max_pending = 4 << 20;
    for (size_t other = 0; other < routes[n].size(); ++other) {
      if (routes[n][other]) options.cluster.routes.push_back(url_of("nats-route", host_of(other), kRoutePort));
    }
    return options;
  }

  sim::Client& client_of(size_t node) {
    sim::Client& client = cluster.network.dial(client_host_of(node), {host_of(node), 4222});
    client.send(kConnect);
    return client;
  }
  // Every broker has its subscribers' SUBs, so that agreement means something.
  bool subscribed() {
    const auto all = [&] {
      for (const auto& node : cluster.nodes) {
        const auto wanted = node->wanted();
        if (!wanted.contains("$G feed.*") || !wanted.contains("$G noise.7")) return false;
      }
      return true;
    };
    return cluster.scheduler.run_until(all, 100 * kSecond);
  }

  void subscribe(size_t node, const std::string& lines) {
    auto& subscriber = *subscribers.emplace_back(std::make_unique<Subscriber>());
    subscriber.client = &client_of(node);
    subscriber.node = node;
    subscriber.client->send(lines);
    subscriber.listen();
  }

  // Numbered messages from every node; returns once they are handed to their brokers.
  void publish(int count) {
    for (size_t node = 0; node < cluster.nodes.size(); ++node) {
      if (cluster.nodes[node] == nullptr) continue;
      sim::Client*& publisher = publishers[node];
      if (publisher == nullptr || publisher->ended()) {
        publisher = &client_of(node);
        ++generation[node];
      }
      const std::string name = "p" + std::to_string(node) + "g" + std::to_string(generation[node]);
      for (int n = 0; n < count; ++n) {
        publisher->send(pub("feed." + name, numbered(name, numbers[name]++, random())));
      }
    }
  }
  void stir() {
    for (auto& each : subscribers) {
      if (random().below(3) != 0) continue;
      const std::string sid = std::to_string(100 + random().below(5));
      each->client->send("SUB noise." + sid + " " + sid + "\r\n");
      if (random().below(2) == 0) each->client->send("UNSUB " + sid + "\r\n");
      if (random().below(3) == 0)
        each->client->send("SUB noise.* crowd " + std::to_string(200 + random().below(5)) + "\r\n");
    }
  }

  // Nothing twice, nothing out of order, ever.
  void check_order() {
    for (const auto& each : subscribers) {
      for (const auto& [publisher, list] : each->heard) {
        for (size_t n = 1; n < list.size(); ++n) {
          ASSERT_LT(list[n - 1], list[n]) << "seed " << seed << ": of " << publisher << " on node " << each->node;
        }
      }
    }
  }

  const uint64_t seed;
  Cluster cluster;
  int pool_size = 0;
  int connect_retries = 0;
  std::string compression;
  std::vector<std::vector<bool>> routes;  // who dials whom
  std::vector<std::unique_ptr<Subscriber>> subscribers;
  std::map<size_t, sim::Client*> publishers;
  std::map<size_t, int> generation;
  std::map<std::string, int> numbers;
};

void run(uint64_t seed) {
  Run run(seed);
  core::Random& random = run.random();
  const size_t size = 3 + random.below(3);
  const std::vector<int> pools = {0, 1, 2, -1};
  run.pool_size = pools[random.below(pools.size())];
  const std::vector<std::string> modes = {"", "", "off", "s2_fast"};
  run.compression = modes[random.below(modes.size())];
  const size_t pooled = run.pool_size == 0 ? 3 : run.pool_size < 0 ? 1 : static_cast<size_t>(run.pool_size);
  const size_t own = run.pool_size < 0 ? 0 : 1;
  const std::string where = "seed " + std::to_string(seed) + " (" + std::to_string(size) + " nodes, pool " +
                            std::to_string(run.pool_size) + ", compression " + run.compression + "): ";
  run.routes.assign(size, std::vector<bool>(size));
  if (random.below(2) == 0) {
    // Everybody dials everybody, maybe itself too.
    for (size_t n = 0; n < size; ++n) {
      for (size_t other = 0; other < size; ++other) run.routes[n][other] = n != other || random.below(2) == 0;
    }
  } else {
    // Connected one way or another, and gossip does the rest. What it told is dialled once, as in nats-server, unless
    // there are retries: after a partition nobody would try again.
    run.connect_retries = 1000;
    for (size_t n = 1; n < size; ++n) {
      const size_t other = random.below(n);
      if (random.below(2) == 0) run.routes[n][other] = true;
      else run.routes[other][n] = true;
      if (random.below(2) == 0) run.routes[n][random.below(size)] = true;  // maybe itself
    }
  }
  std::vector<uint32_t> shards(size);
  for (size_t n = 0; n < size; ++n) {
    shards[n] = 1 + static_cast<uint32_t>(random.below(3));
    run.cluster.start(n, shards[n], run.configuration(n));
    if (random.below(2) == 0) run.cluster.scheduler.run_for(static_cast<int64_t>(random.below(kSecond)));
  }
  for (size_t n = 0; n < size; ++n) {
    run.subscribe(n, "SUB feed.* 1\r\n");
    run.subscribe(n, "SUB noise.7 2\r\n");
  }
  ASSERT_TRUE(run.subscribed()) << where;
  ASSERT_TRUE(run.cluster.agree_within(120 * kSecond, pooled, own))
      << where << "at first: " << run.cluster.disagreement(pooled, own);

  const auto everything_arrives = [&](const char* when) {
    for (auto& each : run.subscribers) each->heard.clear();
    const std::map<std::string, int> before = run.numbers;
    run.publish(20);
    const auto complete = [&] {
      for (const auto& each : run.subscribers) {
        if (each->client->ended()) return false;
      }
      for (size_t n = 0; n < run.subscribers.size(); ++n) {
        const Subscriber& each = *run.subscribers[n];
        if (n % 2 == 1) continue;  // not subscribed to feed
        for (const auto& [name, number] : run.numbers) {
          const auto was = before.find(name);
          const int sent = number - (was == before.end() ? 0 : was->second);
          const auto at = each.heard.find(name);
          if (sent != 0 && (at == each.heard.end() || at->second.size() < static_cast<size_t>(sent))) return false;
        }
      }
      return true;
    };
    const bool all = run.cluster.scheduler.run_until(complete, 60 * kSecond);
    EXPECT_TRUE(all) << where << "something did not arrive " << when;
    run.cluster.scheduler.run_for(kSecond / 2);  // room for doubles
    run.check_order();
  };
  everything_arrives("at first");
  if (::testing::Test::HasFailure()) return;

  for (int round = 0; round < 3; ++round) {
    run.stir();
    run.publish(5);
    const size_t a = random.below(size), b = (a + 1 + random.below(size - 1)) % size;
    switch (random.below(4)) {
      case 0:
        run.cluster.network.partition(host_of(a), host_of(b));
        run.cluster.scheduler.run_for(static_cast<int64_t>(random.below(20)) * kSecond);
        run.publish(5);
        run.cluster.network.heal(host_of(a), host_of(b));
        break;
      case 1:
        run.cluster.network.cut(host_of(a), host_of(b));
        break;
      case 2:
        for (size_t n = 0; n < 2 * size; ++n) {
          Subscriber& each = *run.subscribers[n];
          if (each.node == a) each.client->reset();
        }
        run.cluster.crash(a);
        run.publishers[a] = nullptr;
        run.cluster.scheduler.run_for(static_cast<int64_t>(random.below(3 * kSecond)));
        run.cluster.start(a, shards[a], run.configuration(a));
        for (size_t n = 0; n < 2 * size; ++n) {
          if (run.subscribers[n]->node != a) continue;
          run.check_order();
          auto again = std::make_unique<Subscriber>();
          again->client = &run.client_of(a);
          again->node = a;
          again->client->send(n % 2 == 0 ? "SUB feed.* 1\r\n" : "SUB noise.7 2\r\n");
          run.subscribers[n] = std::move(again);
          run.subscribers[n]->listen();
        }
        break;
      case 3:
        run.cluster.network.refuse_dials({host_of(b), kRoutePort}, 3);
        run.cluster.network.cut(host_of(a), host_of(b));
        break;
    }
    run.stir();
    run.cluster.scheduler.run_for(static_cast<int64_t>(random.below(2 * kSecond)));
    run.check_order();
  }
  run.cluster.network.heal_all();
  ASSERT_TRUE(run.subscribed()) << where;
  ASSERT_TRUE(run.cluster.agree_within(240 * kSecond, pooled, own))
      << where << "after healing: " << run.cluster.disagreement(pooled, own);
  everything_arrives("after healing");
  EXPECT_TRUE(run.cluster.network.violations().empty()) << where << run.cluster.network.violations()[0];
}

TEST(SimCluster, HoldsWhatItPromisesUnderEverySeed) {
  const uint64_t first = environment("CLUSTER_FIRST_SEED", 1), count = environment("CLUSTER_SEEDS", 20);
  for (uint64_t seed = first; seed < first + count; ++seed) {
    run(seed);
    if (::testing::Test::HasFailure()) {
      FAIL() << "seed " << seed << "; again with CLUSTER_FIRST_SEED=" << seed << " CLUSTER_SEEDS=1";
    }
  }
}

// Two servers that know each other by gossip alone; to each of them a new one comes, both in the same instant. Nobody
// passes on what he was told, so nobody tells the new ones of each other until the gossip has settled.
TEST(SimCluster, TwoThatJoinAtOnceByDifferentNeighboursMeet) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Cluster cluster(seed, sim::Options{});
    const auto start = [&](size_t n, std::vector<size_t> to) {
      config::Options options;
      options.cluster.name = "C";
      for (const size_t other : to) options.cluster.routes.push_back(url_of("nats-route", host_of(other), kRoutePort));
      cluster.start(n, 1 + static_cast<uint32_t>(n % 2), options);
    };
    start(0, {});
    start(1, {0});
    start(2, {0});
    ASSERT_TRUE(cluster.agree_within(30 * kSecond, 3)) << "seed " << seed << ": " << cluster.disagreement(3);
    cluster.crash(0);
    ASSERT_TRUE(cluster.agree_within(30 * kSecond, 3)) << "seed " << seed << ": " << cluster.disagreement(3);
    start(3, {1});
    start(4, {2});
    ASSERT_TRUE(cluster.agree_within(30 * kSecond, 3)) << "seed " << seed << ": " << cluster.disagreement(3);
  }
}

}  // namespace
}  // namespace peregrine::cluster::testing
