// What shards hand each other below TCP: received frames on their way to the shard that owns their connection, and
// frames to send for shards without a transmit queue of their own. Pointers only, in bursts, over one ring per pair.
//
// Made on the main thread; each ring then has one producing and one consuming shard. A full ring: a received frame is
// dropped and counted (TCP sends it again), a frame to send stays with its shard (nothing is dropped).
//
// A doorbell per shard: who has put something into a ring of a shard that sleeps wakes it. The sleeper says so first
// and looks at its rings then, the waker puts first and looks then, both with a full fence between: one of the two sees
// the other.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "net/socket.h"

struct rte_mbuf;
struct rte_ring;

namespace peregrine::net::dpdk {

class Doorbell {
 public:
  explicit Doorbell(int& error);  // 0 or -errno

  // Any thread: the sleeper returns, or does not fall asleep.
  void ring();
  // Any thread, after it has put something where the sleeper will look: only wakes it if it sleeps.
  void ring_if_asleep();

  // The sleeper: will_sleep(), then look everywhere, then wait on fd() unless rung(), then awake().
  void will_sleep();
  bool rung();  // and forgets it
  void awake();
  int fd() const { return fd_.get(); }

 private:
  Fd fd_;
  alignas(64) std::atomic<bool> asleep_{false};
  std::atomic<bool> rung_{false};
};

class Exchange {
 public:
  // `polling`: shards below this number receive; `senders`: shards below this number have a transmit queue, per device.
  Exchange(uint32_t shards, uint32_t polling, std::vector<uint32_t> senders, std::string& error);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  // Gives up to `count` frames; returns how many were taken. Frames received carry a mark (mark(), below).
  uint32_t give_received(uint32_t from, uint32_t to, void** frames, uint32_t count);
  uint32_t take_received(uint32_t to, void** frames, uint32_t room);  // from all shards, in turn
  uint32_t give_to_send(size_t device, uint32_t from, rte_mbuf** frames, uint32_t count);
  uint32_t take_to_send(size_t device, uint32_t sender, rte_mbuf** frames, uint32_t room);
  bool anything_for(uint32_t shard) const;

  uint32_t sender_for(size_t device, uint32_t shard) const { return shard % senders_[device]; }
  Doorbell& doorbell(uint32_t shard) { return *doorbells_[shard]; }

  // A frame another shard answers and this one only learns from (tcp::Frame::overheard): the lowest bit of its address.
  static void* mark(rte_mbuf* frame, bool overheard) {
    return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(frame) | (overheard ? 1u : 0u));
  }
  static rte_mbuf* unmark(void* frame, bool& overheard) {
    const auto bits = reinterpret_cast<uintptr_t>(frame);
    overheard = (bits & 1) != 0;
    return reinterpret_cast<rte_mbuf*>(bits & ~uintptr_t{1});
  }

 private:
  static constexpr uint32_t kRingFrames = 1024;

  rte_ring* received(uint32_t from, uint32_t to) const { return received_[from * shards_ + to]; }

  const uint32_t shards_;
  const uint32_t polling_;
  const std::vector<uint32_t> senders_;
  std::vector<rte_ring*> received_;              // [from][to]; null on the diagonal
  std::vector<std::vector<rte_ring*>> to_send_;  // [device][from]; null for shards that send themselves
  std::vector<uint32_t> next_;                   // where take_received goes on, per shard; a cache line apart
  std::vector<std::unique_ptr<Doorbell>> doorbells_;
};

}  // namespace peregrine::net::dpdk
