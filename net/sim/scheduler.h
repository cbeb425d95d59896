// Runs the shards of a simulated cluster, one turn at a time, in an order drawn from the network's seed.
//
// A step delivers what is due, then lets one shard that can run take one turn; when none can, virtual time jumps to the
// next thing that will happen. A shard sleeps by the reactor's own rules: turn() found nothing, try_sleep() agreed, and
// then only bytes, wake() or its deadline bring it back. So a lost wake-up shows as a test that never finishes, at
// virtual speed.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "net/sim/backend.h"
#include "net/sim/network.h"

namespace peregrine::net::sim {

// One shard. Only `backend` and `turn` are needed; without `try_sleep` an idle shard sleeps at once.
struct Actor {
  Backend* backend = nullptr;
  std::function<bool()> turn;  // false: there was nothing to do
  std::function<bool()> try_sleep;
  std::function<void()> awake;
  std::function<int64_t()> deadline_ns;
};

class Scheduler {
 public:
  static constexpr int64_t kSecond = 1'000'000'000;

  explicit Scheduler(Network& network) : network_(network) {}

  size_t add(Actor actor);                    // its number
  void remove(size_t number);                 // before what it points to is destroyed
  void stall(size_t number, int64_t for_ns);  // a shard that gets no CPU

  // One step; false if nothing will ever happen again by itself.
  bool step();
  // Until `done`, at most `patience_ns` of virtual time; false if it never was. `done` is asked after every step.
  bool run_until(const std::function<bool()>& done, int64_t patience_ns = 60 * kSecond);
  void run_for(int64_t ns);
  // Until no shard wants to run and nothing is on its way; timers of sleeping shards may remain. False: not within
  // `patience_ns`.
  bool settle(int64_t patience_ns = 60 * kSecond);

  uint64_t turns() const { return turns_; }

 private:
  struct Entry {
    Actor actor;
    bool removed = false;
    bool asleep = false;
    int64_t stalled_until_ns = 0;
  };

  bool runnable(const Entry& entry) const;
  void run_one(size_t number);

  Network& network_;
  std::vector<Entry> entries_;
  std::vector<size_t> runnable_;
  uint64_t turns_ = 0;
};

}  // namespace peregrine::net::sim
