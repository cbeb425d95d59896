// Deadlines of a backend (dials, lingering closes, accept retries): few, coarse, mostly never reached.
//
// Owned by one backend, used on its thread. Entries are not removed when their cause goes; the caller compares
// `generation` and ignores what is stale. Times are monotonic nanoseconds.
#pragma once

#include <cstdint>
#include <limits>
#include <queue>
#include <vector>

namespace peregrine::net {

inline constexpr int64_t kMillisecond = 1'000'000;
// How long a closed connection may wait for the peer to finish (see Backend::close).
inline constexpr int64_t kLingerNs = 1000 * kMillisecond;
// How long accepting rests when the process is out of descriptors or memory.
inline constexpr int64_t kAcceptRetryNs = 100 * kMillisecond;

struct Deadline {
  int64_t at_ns;
  uint32_t slot;
  uint32_t generation;
  bool operator>(const Deadline& other) const { return at_ns > other.at_ns; }
};

class DeadlineQueue {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  void add(int64_t at_ns, uint32_t slot, uint32_t generation) { heap_.push({at_ns, slot, generation}); }
  int64_t next_ns() const { return heap_.empty() ? kNever : heap_.top().at_ns; }
  bool empty() const { return heap_.empty(); }

  // Takes the earliest entry due at `now_ns`; false if there is none.
  bool pop_due(int64_t now_ns, Deadline& due) {
    if (heap_.empty() || heap_.top().at_ns > now_ns) return false;
    due = heap_.top();
    heap_.pop();
    return true;
  }

 private:
  std::priority_queue<Deadline, std::vector<Deadline>, std::greater<>> heap_;
};

}  // namespace peregrine::net
