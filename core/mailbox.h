// Commands for a shard from the threads that serve it: control (monitoring, lame duck, shutdown) and workers (a
// finished bcrypt).
//
// Any thread posts; the shard runs what is there once per turn. A command returns false when it wants to go on in the
// next turn: long ones (a /connz over 100 000 sessions) work in slices and never hold traffic up. Posting wakes a
// parked shard. Not for messages: those cross by ring.
#pragma once

#include <tbb/concurrent_queue.h>

#include <atomic>
#include <functional>
#include <vector>

namespace peregrine::core {

class Shard;

class Mailbox {
 public:
  using Command = std::function<bool(Shard&)>;

  // Returns after the command is visible to the shard; the caller then wakes it (Shard::post does both).
  void put(Command command) {
    queue_.push(std::move(command));
    waiting_.fetch_add(1, std::memory_order_release);
  }
  bool empty() const { return waiting_.load(std::memory_order_acquire) == 0 && unfinished_.empty(); }

  // Runs each command once; returns how many ran.
  size_t run(Shard& shard) {
    if (empty()) return 0;
    std::vector<Command> now = std::move(unfinished_);
    unfinished_.clear();
    Command command;
    while (queue_.try_pop(command)) {
      waiting_.fetch_sub(1, std::memory_order_relaxed);
      now.push_back(std::move(command));
    }
    for (Command& each : now) {
      if (!each(shard)) unfinished_.push_back(std::move(each));
    }
    return now.size();
  }

 private:
  tbb::concurrent_queue<Command> queue_;
  std::atomic<int64_t> waiting_{0};
  std::vector<Command> unfinished_;  // the shard's own
};

}  // namespace peregrine::core
