// Super-clusters of one to three clusters with leafnodes, and leafnodes of leafnodes, on the simulated network, seed by
// seed: once everybody is connected, what is published anywhere arrives everywhere, once and in order, and at one
// member of a queue group wherever its members are; through delays, partitions, cuts, crashes, restarts and refused
// dials nothing ever arrives twice; afterwards every link knows exactly what is wanted behind it, and nothing is left
// when all clients have gone.
//   EDGE_SEEDS=1000 EDGE_FIRST_SEED=1 sim_edge_test     more runs; a failing one names its seed
#include "tests/cluster/sim_edge.h"

namespace peregrine::cluster::testing {
namespace {

// Answers PING, and keeps count of the numbered messages it gets: "<publisher> <number> ...".
struct Guest {
  sim::Client* client = nullptr;
  size_t place = 0;
  std::map<std::string, std::vector<int>> feed, work;
  NumberedReader reader;
  bool left = false;

  bool gone() const { return left || client->ended(); }
  void leave() {
    if (!gone()) client->reset();
    left = true;
  }
  void listen() {
    client->on_bytes = [this](sim::Client& from) {
      reader.read(
          from,
          [&](const std::string& subject, const std::string& publisher, int number) {
            (subject.starts_with("work.") ? work : feed)[publisher].push_back(number);
          },
          [&](const std::string& line) {
            if (line == "PING") from.send("PONG\r\n");
          });
    };
  }
};

struct Run {
  Run(uint64_t seed, std::vector<Place> places) : seed(seed), edge(seed, network_options(seed), std::move(places)) {}

  core::Random& random() { return edge.network.random(); }
  size_t size() const { return edge.places.size(); }

  config::Options configuration(size_t n) {
    const Place& place = edge.places[n];
    config::Options options;
    options.ping_interval = std::chrono::seconds(3);
    options.max_pending = 4 << 20;
    options.leafnodes.defined = true;
    options.leafnodes.host = host_of(n);
    options.leafnodes.port = kLeafPort;
    options.leafnodes.compression.mode = compression;
    if (place.cluster < 0) {
      config::RemoteLeaf remote;
      for (const size_t hub : place.hubs) remote.urls.push_back(url_of("nats-leaf", host_of(hub), kLeafPort));
      remote.compression.mode = compression;
      options.leafnodes.remotes.push_back(remote);
      return options;
    }
    options.cluster.name = cluster_of(place.cluster);
    size_t members = 0;
    for (size_t other = 0; other < size(); ++other) {
      if (edge.places[other].cluster != place.cluster) continue;
      ++members;
      if (other != n) options.cluster.routes.push_back(url_of("nats-route", host_of(other), kRoutePort));
    }
    if (members > 1) {
      options.cluster.defined = true;
      options.cluster.host = host_of(n);
      options.cluster.port = kRoutePort;
      options.cluster.ping_interval = std::chrono::seconds(2);
    }
    if (knows.size() < 2) return options;
    options.gateway.defined = true;
    options.gateway.name = options.cluster.name;
    options.gateway.host = host_of(n);
    options.gateway.port = kGatewayPort;
    options.gateway.connect_retries = 1000;  // or what gossip told would be forgotten in a partition
    for (const int other : knows[static_cast<size_t>(place.cluster)]) {
      config::RemoteGateway remote;
      remote.name = cluster_of(other);
      for (size_t each = 0; each < size(); ++each) {
        if (edge.places[each].cluster == other) remote.urls.push_back(url_of("nats", host_of(each), kGatewayPort));
      }
      options.gateway.gateways.push_back(remote);
    }
    return options;
  }

  Guest& guest(size_t place, const std::string& lines) {
    Guest& to = *guests.emplace_back(std::make_unique<Guest>());
    to.client = &edge.network.dial(client_host_of(place), {host_of(place), 4222});
    to.place = place;
    to.client->send(kConnect + lines);
    to.listen();
    return to;
  }
  // Numbered messages from every server that runs.
  void publish(int count) {
    for (size_t place = 0; place < size(); ++place) {
      if (edge.nodes[place] == nullptr) continue;
      Guest*& publisher = publishers[place];
      if (publisher == nullptr || publisher->gone()) {
        publisher = &guest(place, "");
        ++generation[place];
      }
      const std::string name = "p" + std::to_string(place) + "g" + std::to_string(generation[place]);
      for (int n = 0; n < count; ++n) {
        const std::string payload = numbered(name, numbers[name]++, random());
        for (const char* subject : {"feed.", "work."}) publisher->client->send(pub(subject + name, payload));
      }
    }
  }
  void stir() {
    for (auto& each : guests) {
      if (each->gone() || random().below(3) != 0) continue;
      const std::string sid = std::to_string(100 + random().below(5));
      each->client->send("SUB noise." + sid + " " + sid + "\r\n");
      if (random().below(2) == 0) each->client->send("UNSUB " + sid + "\r\n");
      if (random().below(3) == 0)
        each->client->send("SUB noise.* crowd " + std::to_string(200 + random().below(5)) + "\r\n");
    }
  }

  // Nothing twice, ever. (Order is another matter while paths change: what an old one still held may come later.)
  void check_doubles(const std::string& where) {
    std::map<std::string, std::set<int>> worked;
    for (const auto& each : guests) {
      for (const auto& [publisher, list] : each->feed) {
        const std::set<int> once(list.begin(), list.end());
        ASSERT_EQ(once.size(), list.size()) << where << "twice, of " << publisher << " at " << host_of(each->place);
      }
      for (const auto& [publisher, list] : each->work) {
        for (const int n : list) {
          ASSERT_TRUE(worked[publisher].insert(n).second)
              << where << "two members got work " << n << " of " << publisher << ", one at " << host_of(each->place);
        }
      }
    }
  }
  void forget() {
    for (auto& each : guests) {
      each->feed.clear();
      each->work.clear();
    }
  }
  // While all is well.
  void everything_arrives(const std::string& where, const char* when) {
    forget();
    const std::map<std::string, int> before = numbers;
    publish(15);
    const auto missing = [&]() -> std::string {
      for (const auto& [name, number] : numbers) {
        const auto was = before.find(name);
        const size_t sent = static_cast<size_t>(number - (was == before.end() ? 0 : was->second));
        if (sent == 0) continue;
        size_t worked = 0;
        for (const auto& each : guests) {
          if (each->gone()) continue;
          const auto at = each->work.find(name);
          worked += at == each->work.end() ? 0 : at->second.size();
          if (!regulars.contains(each.get())) continue;
          const auto fed = each->feed.find(name);
          if (fed == each->feed.end() || fed->second.size() < sent) {
            return "of " + std::to_string(sent) + " of " + name + " only " +
                   std::to_string(fed == each->feed.end() ? 0 : fed->second.size()) + " came to " +
                   host_of(each->place);
          }
        }
        if (worked < sent) return "crews got " + std::to_string(worked) + " of " + std::to_string(sent) + " of " + name;
      }
      return "";
    };
    std::set<size_t> served;
    for (const auto& each : guests) {
      if (!each->gone() && regulars.contains(each.get())) served.insert(each->place);
    }
    EXPECT_EQ(served.size(), size()) << where << "a subscriber has gone";
    const bool all = edge.scheduler.run_until([&] { return missing().empty(); }, 60 * kSecond);
    EXPECT_TRUE(all) << where << when << ": " << missing();
    edge.scheduler.run_for(kSecond / 2);  // room for doubles
    check_doubles(where);
    for (const auto& each : guests) {
      for (const auto& [publisher, list] : each->feed)
        EXPECT_TRUE(std::is_sorted(list.begin(), list.end())) << where << when << ": order of " << publisher;
    }
  }

  const uint64_t seed;
  Edge edge;
  std::vector<std::vector<int>> knows;  // by cluster: configured gateways
  std::string compression;
  std::vector<bool> crew;  // by place: whether it has a member of the queue group
  std::vector<std::unique_ptr<Guest>> guests;
  std::set<const Guest*> regulars;  // those subscribed to feed.*
  std::map<size_t, Guest*> publishers;
  std::map<size_t, int> generation;
  std::map<std::string, int> numbers;
};

void run(uint64_t seed) {
  core::Random shape(seed * 0x9e3779b97f4a7c15 + 1);
  std::vector<Place> places;
  const int clusters = 1 + static_cast<int>(shape.below(3));
  std::vector<std::vector<size_t>> members;
  for (int c = 0; c < clusters; ++c) {
    auto& list = members.emplace_back();
    for (size_t n = 1 + shape.below(2); n > 0; --n) {
      list.push_back(places.size());
      places.push_back({.cluster = c, .hubs = {}});
    }
  }
  const size_t servers = places.size(), leafs = (clusters == 1 ? 1 : 0) + shape.below(3);
  for (size_t n = 0; n < leafs; ++n) {
    Place place;
    if (n > 0 && shape.below(3) == 0) place.hubs = {servers + shape.below(n)};  // of a leafnode
    else place.hubs = members[shape.below(members.size())];
    places.push_back(place);
  }

  Run run(seed, places);
  core::Random& random = run.random();
  const size_t size = places.size();
  const std::vector<std::string> modes = {"", "off", "s2_fast"};
  run.compression = modes[random.below(modes.size())];
  run.knows.resize(static_cast<size_t>(clusters));
  const bool chain = random.below(2) == 0;
  for (int c = 0; c < clusters; ++c) {
    for (int other = 0; other < clusters; ++other) {
      if (other != c && (!chain || other == c + 1)) run.knows[static_cast<size_t>(c)].push_back(other);
    }
  }
  run.crew.resize(size);
  run.crew[random.below(size)] = true;
  for (size_t n = 0; n < size; ++n) run.crew[n] = run.crew[n] || random.below(3) == 0;
  const std::string where = "seed " + std::to_string(seed) + " (" + std::to_string(clusters) + " clusters, " +
                            std::to_string(servers) + " servers, " + std::to_string(leafs) + " leafnodes" +
                            (chain ? ", gossip" : "") + "): ";

  std::vector<uint32_t> shards(size);
  const auto open = [&](size_t n) {
    run.edge.start(n, shards[n], run.configuration(n));
    run.regulars.insert(&run.guest(n, "SUB feed.* 1\r\n"));
    if (run.crew[n]) run.guest(n, "SUB work.* crew 1\r\n");
  };
  for (size_t n = 0; n < size; ++n) {
    shards[n] = 1 + static_cast<uint32_t>(random.below(2));
    open(n);
    if (random.below(2) == 0) run.edge.scheduler.run_for(static_cast<int64_t>(random.below(kSecond)));
  }
  // Every server has its subscribers' SUBs, so that agreement means something.
  const auto subscribed = [&] {
    return run.edge.scheduler.run_until(
        [&] {
          for (size_t n = 0; n < size; ++n) {
            const Interest wanted = run.edge.nodes[n]->wanted();
            if (!wanted.contains("feed.*") || (run.crew[n] && !wanted.contains("work.* crew"))) return false;
          }
          return true;
        },
        100 * kSecond);
  };
  ASSERT_TRUE(subscribed()) << where;
  ASSERT_TRUE(run.edge.agree_within(120 * kSecond)) << where << "at first: " << run.edge.disagreement();
  run.everything_arrives(where, "at first");
  if (::testing::Test::HasFailure()) return;

  for (int round = 0; round < 3; ++round) {
    run.stir();
    run.publish(5);
    const size_t a = random.below(size), b = (a + 1 + random.below(size - 1)) % size;
    switch (random.below(4)) {
      case 0:
        run.edge.network.partition(host_of(a), host_of(b));
        run.edge.scheduler.run_for(static_cast<int64_t>(random.below(20)) * kSecond);
        run.publish(5);
        run.edge.network.heal(host_of(a), host_of(b));
        break;
      case 1:
        run.edge.network.cut(host_of(a), host_of(b));
        break;
      case 2:
        for (auto& each : run.guests) {
          if (each->place == a) each->leave();
        }
        run.edge.crash(a);
        run.publishers[a] = nullptr;
        run.edge.scheduler.run_for(static_cast<int64_t>(random.below(3 * kSecond)));
        open(a);
        break;
      case 3:
        run.edge.network.refuse_dials({host_of(b), random.below(2) == 0 ? kGatewayPort : kLeafPort}, 3);
        run.edge.network.cut(host_of(a), host_of(b));
        break;
    }
    run.stir();
    run.edge.scheduler.run_for(static_cast<int64_t>(random.below(2 * kSecond)));
    run.check_doubles(where);
    if (::testing::Test::HasFailure()) return;
  }
  run.edge.network.heal_all();
  ASSERT_TRUE(subscribed()) << where;
  ASSERT_TRUE(run.edge.agree_within(240 * kSecond)) << where << "after healing: " << run.edge.disagreement();
  run.everything_arrives(where, "after healing");
  // All clients go: nothing is left of what they wanted, on any link.
  for (auto& each : run.guests) each->leave();
  ASSERT_TRUE(run.edge.scheduler.run_until([&] { return run.edge.wanted_by([](size_t) { return true; }).empty(); },
                                           60 * kSecond))
      << where;
  ASSERT_TRUE(run.edge.agree_within(60 * kSecond)) << where << "in the end: " << run.edge.disagreement();
  EXPECT_TRUE(run.edge.network.violations().empty()) << where << run.edge.network.violations()[0];
}

TEST(SimEdge, HoldsWhatItPromisesUnderEverySeed) {
  const uint64_t first = environment("EDGE_FIRST_SEED", 1), count = environment("EDGE_SEEDS", 10);
  for (uint64_t seed = first; seed < first + count; ++seed) {
    run(seed);
    if (::testing::Test::HasFailure()) {
      FAIL() << "seed " << seed << "; again with EDGE_FIRST_SEED=" << seed << " EDGE_SEEDS=1";
    }
  }
}

}  // namespace
}  // namespace peregrine::cluster::testing
