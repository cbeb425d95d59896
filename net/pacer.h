// Whether a shard lets input gather before its next turn, and for how long.
//
// A turn costs some microseconds however little it finds: system calls, and waking the subscriber for each message. A
// publisher that writes every message by itself makes a fast broker take such a turn per message; then the broker is
// the bottleneck and burns the CPU its clients need. A pause merges these messages into one receive and one send. It
// is taken only when all of this holds:
//   - messages come at the busy rate or more: turn by turn, they would keep the shard busy nearly all the time. Below
//     that, nobody ever waits. It is what the shard's own turns take, as measured, and never outside kLeastBusyRate to
//     kBusyRate: where system calls and wake-ups are dear, a shard has no time left at half the rate;
//   - pauses pay: the last ones brought several times as many messages per connection as turns without a pause do. A
//     requester waits for its answer before it goes on, so a pause brings nothing from it and is given up at once.
//     Where they have paid, one that does not changes nothing yet: the publisher may have been off its core;
//   - input is small: whoever writes large batches has merged them already.
// The pause lasts until about kPerTurn messages are to be expected, and grows with the square of how far the load is
// above the busy rate, to at most kLongestNs, which bounds what it adds to the latency of anybody on this shard. A long
// one does more than merge receives: what is not read is not acknowledged, so the publisher's TCP runs into its
// congestion window and puts many writes into one segment. Segments, not bytes, are what such a flood costs the kernel.
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
  static constexpr double kBusyRate = 250e3 / 1e9, kLeastBusyRate = 110e3 / 1e9;  // messages per nanosecond
  static constexpr double kBusyShare = 0.8;                                       // of the shard's time
  static constexpr double kBusyNs = 100e3;                                        // the pause at the busy rate
  static constexpr double kPerTurn = 600;
  static constexpr double kPays = 4;  // times as many messages per connection
  static constexpr double kBatchBytes = 32 * 1024;

  // A turn that began at `now_ns` has taken `input`. The answer: how long to wait now, 0 = not at all.
  int64_t pause_after(int64_t now_ns, const TurnInput& input) {
    turn_ended(now_ns);
    note(now_ns, input);
    if (input.messages == 0) return 0;
    const double each = static_cast<double>(input.messages) / input.connections;
    if (paused_) {
      judge(each);
    } else {
      usual_ += (std::log2(each + 1) - usual_) / 8;
      turn_messages_ = input.messages;
    }
    paused_ = false;
    const double rate = messages_ / kMemoryNs;
    if (rate < kLeastBusyRate) return 0;
    const double busy_rate = std::clamp(kBusyShare / std::exp2(message_ns_), kLeastBusyRate, kBusyRate);
    if (rate < busy_rate) return 0;
    if (skip_ > 0) {
      --skip_;
      return 0;
    }
    const double above = rate / busy_rate;
    const double pause =
        std::min({kBusyNs * above * above, kPerTurn / rate, kBatchBytes * kMemoryNs / bytes_, double{kLongestNs}});
    if (pause < kShortestNs) return 0;
    paused_ = true;
    turn_messages_ = 0;
    return static_cast<int64_t>(pause);
  }

  // The turn that has just begun finds nothing: what the one before it took is known.
  void idle(int64_t now_ns) { turn_ended(now_ns); }

 private:
  static constexpr double kMemoryNs = 1e6;  // how far back the rate looks
  static constexpr uint32_t kLook = 64, kLookTurns = 4;
  static constexpr uint32_t kFirstSkip = 64, kLongestSkip = 4096;  // turns
  static constexpr double kJudged = 8, kMostTrust = 2.5;

  void note(int64_t now_ns, const TurnInput& input) {
    const double keep = std::max(0.0, 1 - static_cast<double>(now_ns - last_ns_) / kMemoryNs);
    last_ns_ = now_ns;
    messages_ = messages_ * keep + static_cast<double>(input.messages);
    bytes_ = bytes_ * keep + static_cast<double>(input.bytes);
  }

  void turn_ended(int64_t now_ns) {
    if (turn_messages_ == 0) return;
    const double each_ns = static_cast<double>(now_ns - last_ns_) / static_cast<double>(turn_messages_);
    message_ns_ += (std::log2(each_ns + 1) - message_ns_) / 16;
    turn_messages_ = 0;
  }

  void judge(double each) {
    const double wanted = kPays * std::exp2(usual_);
    gathered_ = gathered_ == 0 ? each : std::min(gathered_ + (each - gathered_) / kJudged, kMostTrust * wanted);
    if (gathered_ < wanted) {
      gathered_ = 0;
      skip_ = penalty_;
      penalty_ = std::min(penalty_ * 2, kLongestSkip);
      return;
    }
    penalty_ = kFirstSkip;
    if (++good_ % kLook == 0) skip_ = kLookTurns;  // what turns without a pause find may have changed
  }

  int64_t last_ns_ = 0;
  double messages_ = 0, bytes_ = 0;  // taken lately, older ones count less: rate times kMemoryNs
  // Messages per connection and turn without a pause: log2, so that the heap found after having been off the core once
  // does not pass for usual.
  double usual_ = 1;
  double gathered_ = 0;  // the same after a pause: the mean of about the last kJudged; 0: of none yet
  // What a message costs in turns without a pause: log2 of nanoseconds, so that having been off the core does not count
  // for much.
  double message_ns_ = 10;
  uint64_t turn_messages_ = 0;  // of the last turn, if its end has not been seen and no pause touched it; else 0
  bool paused_ = false;         // before the turn now judged
  uint32_t skip_ = 0, penalty_ = kFirstSkip, good_ = 0;
};

}  // namespace peregrine::net
