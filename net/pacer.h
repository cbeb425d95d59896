// Whether a shard lets input gather before its next turn, and for how long.
//
// A turn costs some microseconds however little it finds: system calls, and waking the subscriber for each message. A
// publisher that writes every message by itself makes a fast broker take such a turn per message; then the broker is
// the bottleneck and burns the CPU its clients need. A pause merges these messages into one receive and one send. It
// is taken only when all of this holds:
//   - messages come at kBusyRate or more: turn by turn, they would keep the shard busy nearly all the time. Below that,
//     nobody ever waits;
//   - pauses pay: the last ones brought several times as many messages per connection as turns without a pause do. A
//     requester waits for its answer before it goes on, so a pause brings nothing from it and is given up at once.
//     Where they have paid, one that does not changes nothing yet: the publisher may have been off its core;
//   - input is small: whoever writes large batches has merged them already.
// The pause lasts until about kPerTurn messages are to be expected, and grows with the square of how far the load is
// above kBusyRate, to at most kLongestNs, which bounds what it adds to the latency of anybody on this shard. A long one
// does more than merge receives: what is not read is not acknowledged, so the publisher's TCP runs into its congestion
// window and puts many writes into one segment. Segments, not bytes, are what such a flood costs the kernel.
//
// One per reactor, on its thread. Pure: the clock comes in with the turns. bench/README.md has the measurements.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace peregrine::net {

// What a turn has taken from connections.
struct TurnInput {
  uint32_t connections = 0;
  uint64_t messages = 0;
  size_t bytes = 0;
};

class Pacer {
 public:
  static constexpr int64_t kShortestNs = 15'000;
  static constexpr int64_t kLongestNs = 400'000;
  static constexpr double kBusyRate = 250e3 / 1e9;  // messages per nanosecond
  static constexpr double kBusyNs = 100e3;          // the pause at that rate
  static constexpr double kPerTurn = 600;
  static constexpr double kPays = 4;  // times as many messages per connection
  static constexpr double kBatchBytes = 32 * 1024;

  // A turn that began at `now_ns` has taken `input`. The answer: how long to wait now, 0 = not at all.
  int64_t pause_after(int64_t now_ns, const TurnInput& input) {
    note(now_ns, input);
    if (input.messages == 0) return 0;
    const double each = static_cast<double>(input.messages) / input.connections;
    if (paused_) {
      judge(each);
    } else {
      usual_ += (std::log2(each + 1) - usual_) / 8;
    }
    paused_ = false;
    const double rate = messages_ / kMemoryNs;
    if (rate < kBusyRate) return 0;
    if (skip_ > 0) {
      --skip_;
      return 0;
    }
    const double above = rate / kBusyRate;
    const double pause =
        std::min({kBusyNs * above * above, kPerTurn / rate, kBatchBytes * kMemoryNs / bytes_, double{kLongestNs}});
    if (pause < kShortestNs) return 0;
    paused_ = true;
    return static_cast<int64_t>(pause);
  }

 private:
  static constexpr double kMemoryNs = 500e3;  // how far back the rate looks
  static constexpr uint32_t kLook = 64, kLookTurns = 4;
  static constexpr uint32_t kFirstSkip = 64, kLongestSkip = 4096;  // turns
  static constexpr int8_t kMostTrust = 16, kBroken = 4;

  void note(int64_t now_ns, const TurnInput& input) {
    const double keep = std::max(0.0, 1 - static_cast<double>(now_ns - last_ns_) / kMemoryNs);
    last_ns_ = now_ns;
    messages_ = messages_ * keep + static_cast<double>(input.messages);
    bytes_ = bytes_ * keep + static_cast<double>(input.bytes);
  }

  void judge(double each) {
    if (each < kPays * std::exp2(usual_)) {
      if (trust_ >= kBroken) {
        trust_ -= kBroken;
        return;
      }
      trust_ = 0;
      skip_ = penalty_;
      penalty_ = std::min(penalty_ * 2, kLongestSkip);
      return;
    }
    penalty_ = kFirstSkip;
    if (trust_ < kMostTrust) ++trust_;
    if (++good_ % kLook == 0) skip_ = kLookTurns;  // what turns without a pause find may have changed
  }

  int64_t last_ns_ = 0;
  double messages_ = 0, bytes_ = 0;  // taken lately, older ones count less: rate times kMemoryNs
  // Messages per connection and turn without a pause: log2, so that the heap found after having been off the core once
  // does not pass for usual.
  double usual_ = 1;
  bool paused_ = false;  // before the turn now judged
  int8_t trust_ = 0;     // earned by pauses that paid, spent on those that did not
  uint32_t skip_ = 0, penalty_ = kFirstSkip, good_ = 0;
};

}  // namespace peregrine::net
