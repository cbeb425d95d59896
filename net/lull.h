// When a shard that had much to do has little: the moment to give memory back that traffic only passed through.
//
// Ten thousand CONNECTs, or a million SUBs, go through receive memory that idle clients do not need. Giving it back
// costs a system call and the pages' faults when traffic returns, so it is done only after much was done, when for a
// while next to nothing has been, and then not again before much was done again. Nobody is woken for it in vain: a
// sleep is cut short at most twice for each time that much was done. One per reactor, on its thread. Pure: the clock
// comes in with the turns.
#pragma once

#include <cstddef>
#include <cstdint>

namespace peregrine::net {

class Lull {
 public:
  static constexpr int64_t kLongNs = 200'000'000;
  static constexpr uint64_t kMuch = 64 * 1024, kLittle = 16 * 1024;  // bytes; a turn counts as kTurn of them
  static constexpr uint64_t kTurn = 64;

  // A turn has done something, and taken so many bytes from connections.
  void worked(size_t bytes) { done_ += kTurn + bytes; }

  // A turn has found nothing to do. True: now, once.
  bool has_come(int64_t now_ns) {
    if (done_ < kMuch || now_ns < due_ns_) return false;
    const bool little = due_ns_ != kNever && done_ - done_then_ <= kLittle;
    if (little) {
      done_ = 0;
      due_ns_ = kNever;
      return true;
    }
    done_then_ = done_;
    due_ns_ = now_ns + kLongNs;
    return false;
  }
  // When has_come() wants to be asked again; INT64_MAX: when there has been something to do.
  int64_t due_ns() const { return due_ns_ == kNever ? INT64_MAX : due_ns_; }

 private:
  static constexpr int64_t kNever = INT64_MIN;

  uint64_t done_ = 0;  // since the last one
  uint64_t done_then_ = 0;
  int64_t due_ns_ = kNever;  // looked at done_ before, and will again
};

}  // namespace peregrine::net
