// N shards with their rings, reactors and threads, as one thing to start and stop.
//
// Owned by main (or a test). start() makes the rings and shards on the calling thread, then each shard's thread pins
// itself, makes its backend and its reactor there (io_uring wants the thread that uses it) and accepts from its own
// listening socket. Errors of any of them come back from start(); nothing runs then. The other members may be called
// from the control thread while shards run.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/server.h"
#include "core/shard.h"
#include "net/reactor.h"

namespace peregrine::net {

// A listener beside the clients' one: routes, gateways, leafnodes.
struct PeerListener {
  std::vector<int> fds;  // one listening socket per shard; ownership passes to the backends
  OpenSession open;
};

struct BrokerPlan {
  uint32_t shards = 1;
  std::vector<int> cores;  // CPU to pin shard n to: cores[n]; empty = not pinned
  // Makes shard n's backend, on its thread. An error stops the start.
  std::function<std::expected<std::unique_ptr<Backend>, std::string>(uint32_t)> make_backend;
  std::vector<int> listeners;  // one listening socket per shard, or none; ownership passes to the backends
  std::shared_ptr<const tls::Clients> client_tls;  // null = in clear
  std::vector<PeerListener> peer_listeners;        // numbered from 1
  uint64_t seed = 0;
};

class Broker {
 public:
  Broker(core::Server& server, BrokerPlan plan);
  ~Broker();  // stops
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;

  std::string start();  // "" or why not

  // Runs `command` on every shard and waits until all have answered true; false after `timeout_ms`. No session changes
  // shards meanwhile.
  bool run_on_shards(const std::function<bool(core::Shard&)>& command, int timeout_ms);
  void stop_listening();  // for clients
  // After start(): that shard's reactor, to be used on the shard's thread only.
  Reactor& reactor(uint32_t shard) { return *reactors_[shard]; }

  // Closes all connections, gives their last bytes a moment, ends the threads.
  void stop(int linger_ms = 1000);

  const std::vector<std::unique_ptr<core::Shard>>& shards() const { return shards_; }
  const BackendReport& backend_report() const { return report_; }
  int core_of(uint32_t shard) const { return shard < plan_.cores.size() ? plan_.cores[shard] : -1; }

 private:
  core::Server& server_;
  BrokerPlan plan_;
  std::unique_ptr<core::RingMatrix> rings_;
  std::vector<std::unique_ptr<core::Shard>> shards_;
  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::vector<std::thread> threads_;
  std::shared_ptr<std::latch> at_rest_;  // all reactors have returned, and stop() has woken them all
  BackendReport report_;
};

int64_t monotonic_ns();
int64_t wall_clock_ns();

}  // namespace peregrine::net
