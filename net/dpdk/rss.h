// Which receive queue a NIC puts a TCP connection on: the Toeplitz hash of its addresses and ports, looked up in the
// redirection table (RETA). Formula: Microsoft's "RSS hashing functions", as every NIC that has RSS implements it.
//
// The formula is not trusted before it has been seen to hold (some NICs and clouds use another key than the one they
// show): Rss counts the first frames whose hash or queue differs from what it predicts, and refutes itself.
// predict() is const and may be called on any thread; observe() on any, too: its counts are atomic.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "net/tcp/address.h"

namespace peregrine::net::dpdk {

class Rss {
 public:
  enum class State : uint8_t { kNone, kUnproven, kProven, kRefuted };

  Rss() = default;
  // As read back from the device. Too short a key, or no table: kNone.
  void set(std::vector<uint8_t> key, std::vector<uint16_t> reta);

  // As the NIC sees an incoming frame: the remote end is its source.
  uint32_t hash(const tcp::Flow& flow) const;
  uint16_t queue_of(uint32_t hash) const { return reta_[hash % reta_.size()]; }
  uint16_t queue_of(const tcp::Flow& flow) const { return queue_of(hash(flow)); }

  // A frame of `flow` came on `queue`; `hash` as the device gave it, if it did. Only counts while unproven.
  void observe(const tcp::Flow& flow, uint16_t queue, const uint32_t* hash);

  State state() const { return state_.load(std::memory_order_relaxed); }
  static constexpr uint32_t kProof = 64;  // frames that must agree

 private:
  std::vector<uint8_t> key_;
  std::vector<uint16_t> reta_;
  std::atomic<State> state_{State::kNone};
  std::atomic<uint32_t> agreed_{0};
  std::atomic<uint32_t> differed_{0};
};

}  // namespace peregrine::net::dpdk
