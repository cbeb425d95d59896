// Who asks all shards something finds every session on exactly one of them, though sessions change shards
// (placement.h).
//
// Part of Server; any thread. Whoever posts a command to every shard holds a Guard from before the first is posted
// until the last has been answered. A shard that hands a session over does so between begin_handover() and
// end_handover(), its posting to the other shard included: a Guard waits for handovers under way (microseconds), and
// those that come later are refused. So each session is either on its new shard before the first command, or stays
// where it is.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace peregrine::core {

class Standstill {
 public:
  class Guard {
   public:
    explicit Guard(Standstill& of) : of_(of) {
      of_.guards_.fetch_add(1, std::memory_order_seq_cst);
      while (of_.handovers_.load(std::memory_order_seq_cst) != 0) std::this_thread::yield();
    }
    ~Guard() { of_.guards_.fetch_sub(1, std::memory_order_release); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    Standstill& of_;
  };

  // False: not now.
  bool begin_handover() {
    // Pairs with the two lines of Guard: one of the two sees the other.
    handovers_.fetch_add(1, std::memory_order_seq_cst);
    if (guards_.load(std::memory_order_seq_cst) == 0) return true;
    end_handover();
    return false;
  }
  void end_handover() { handovers_.fetch_sub(1, std::memory_order_release); }

 private:
  std::atomic<uint32_t> guards_{0}, handovers_{0};
};

}  // namespace peregrine::core
