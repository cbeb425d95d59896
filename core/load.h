// How busy a shard is, for the other shards to see.
//
// Written by its shard, once a millisecond at most; read by any. One atomic word, so that nobody waits: the share of
// its time a shard worked and the messages it handled, averages of the last kMemoryNs or so, and when that was. A shard
// that sleeps writes nothing: what it wrote fades for the reader. Work is time between the beginnings of two turns of
// which the first did something; being put off the core meanwhile counts, too, and rightly so for those who would come.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace peregrine::core {

class Load {
 public:
  static constexpr int64_t kMemoryNs = 8'000'000;

  struct Seen {
    uint32_t permille = 0;  // of its time
    uint32_t messages = 0;  // per millisecond
  };

  // --- its shard ---
  void add(int64_t now_ns, int64_t worked_ns, uint64_t messages) {
    worked_ns_ += worked_ns;
    messages_ += messages;
    const int64_t window = now_ns - since_ns_;
    if (window < kTickNs) return;
    const double weight = std::min(1.0, static_cast<double>(window) / kMemoryNs);
    const auto over = static_cast<double>(window);
    permille_ += weight * (1000 * std::min(1.0, static_cast<double>(worked_ns_) / over) - permille_);
    rate_ += weight * (static_cast<double>(messages_) * kTickNs / over - rate_);
    since_ns_ = now_ns;
    worked_ns_ = 0;
    messages_ = 0;
    const auto rate = static_cast<uint64_t>(std::min(rate_, static_cast<double>(kMostMessages)));
    word_.store(tick(now_ns) << 32 | static_cast<uint64_t>(permille_) << kMessageBits | rate,
                std::memory_order_relaxed);
  }

  // --- anybody ---
  Seen look(int64_t now_ns) const {
    const uint64_t word = word_.load(std::memory_order_relaxed);
    const auto age = static_cast<int64_t>(static_cast<uint32_t>(tick(now_ns)) - static_cast<uint32_t>(word >> 32));
    // One tick may be a turn that is going on.
    const int64_t left = std::clamp<int64_t>(kMemoryNs / kTickNs + 1 - age, 0, kMemoryNs / kTickNs);
    const auto fade = [&](uint64_t value) {
      return static_cast<uint32_t>(value * static_cast<uint64_t>(left) / (kMemoryNs / kTickNs));
    };
    return {fade(word >> kMessageBits & ((1u << kPermilleBits) - 1)), fade(word & kMostMessages)};
  }

 private:
  static constexpr int64_t kTickNs = 1'000'000;
  static constexpr int kPermilleBits = 10, kMessageBits = 22;
  static constexpr uint64_t kMostMessages = (1u << kMessageBits) - 1;
  static uint64_t tick(int64_t ns) { return static_cast<uint64_t>(ns / kTickNs) & UINT32_MAX; }

  int64_t since_ns_ = 0;
  int64_t worked_ns_ = 0;
  uint64_t messages_ = 0;
  double permille_ = 0, rate_ = 0;
  alignas(128) std::atomic<uint64_t> word_{0};
};

}  // namespace peregrine::core
