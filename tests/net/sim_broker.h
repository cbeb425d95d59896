// A whole broker on the simulated network: N shards with their reactors, stepped by the scheduler. For tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/server.h"
#include "core/shard.h"
#include "net/reactor.h"
#include "net/sim/backend.h"
#include "net/sim/client.h"
#include "net/sim/network.h"
#include "net/sim/scheduler.h"

namespace peregrine::net::testing {

class SimBroker {
 public:
  static constexpr uint16_t kPort = 4222;

  SimBroker(sim::Network& network, sim::Scheduler& scheduler, const std::string& host, uint32_t shards,
            config::Options options = {}, uint32_t ring_bytes = 64 * 1024, const std::string& id = {})
      : server(std::move(options), {.id = id.empty() ? "N" + host : id, .name = host},
               {network.random().next(), network.random().next()}, log, workers),
        network_(network),
        scheduler_(scheduler),
        rings_(shards, ring_bytes, ring_bytes) {
    const std::vector<int> fds = network.listen(host, kPort, static_cast<int>(shards));
    for (uint32_t n = 0; n < shards; ++n) {
      shards_.push_back(std::make_unique<core::Shard>(server, n, shards, &rings_, network.random().next(),
                                                      network.now_ns(), network.wall_ns()));
      server.shards.push_back(shards_.back().get());
    }
    for (uint32_t n = 0; n < shards; ++n) {
      auto backend = std::make_unique<sim::Backend>(network, host);
      sim::Backend* raw = backend.get();
      core::Shard* shard = shards_[n].get();
      reactors_.push_back(std::make_unique<Reactor>(*shard, std::move(backend), config::Idle::kPark, 0,
                                                    [&network] { return network.wall_ns(); }));
      Reactor* reactor = reactors_.back().get();
      reactor->listen_for_clients(fds[n]);
      actors_.push_back(scheduler.add({.backend = raw,
                                       .turn = [reactor] { return reactor->turn(); },
                                       .try_sleep = [shard] { return shard->try_sleep(); },
                                       .awake = [shard] { shard->awake(); },
                                       .deadline_ns = [shard] { return shard->next_deadline_ns(); }}));
    }
  }
  ~SimBroker() { crash(); }

  // Every connection is reset, nothing is said.
  void crash() {
    for (const size_t actor : actors_) scheduler_.remove(actor);
    actors_.clear();
    reactors_.clear();
    shards_.clear();
  }

  size_t actor(uint32_t shard) const { return actors_[shard]; }
  core::Shard& shard(uint32_t n) { return *shards_[n]; }
  Reactor& reactor(uint32_t n) { return *reactors_[n]; }
  uint32_t shards() const { return static_cast<uint32_t>(shards_.size()); }

  class ImmediateWorkers final : public core::Workers {
   public:
    void run(std::function<void()> work) override { work(); }
  };
  core::NullLog log;
  ImmediateWorkers workers;
  core::Server server;

 private:
  sim::Network& network_;
  sim::Scheduler& scheduler_;
  core::RingMatrix rings_;
  std::vector<std::unique_ptr<core::Shard>> shards_;
  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::vector<size_t> actors_;
};

}  // namespace peregrine::net::testing
