// One shard's way to the network: its queues of every device, in and out, in bursts.
//
// Used on the shard's thread only; the stack calls it as its tcp::Port. In: frames of its own receive queues are told
// apart (owner()): mine go to the stack, others' to their shard by the exchange; what has no connection (ARP, ND, ICMP)
// is answered here and overheard by all. Out: a frame becomes an mbuf with the headers copied; large pieces of payload
// are attached where they lie if the device can send a chain and read that memory, small ones are copied. Frames that
// the device has no room for wait here, in order; when kWaiting do, the stack is told to stop (nothing is dropped).
//
// Attached payload: each mbuf has a shared-info of its own (in its private area; DPDK's count is 16 bits, a fan-out
// would overflow a common one), whose callback drops the stack's hold. Only shards with a transmit queue of their own
// attach, so that callback comes on this thread, during a later burst.
//
// Received mbufs are held for one turn only: the stack copies what it keeps.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "net/dpdk/device.h"
#include "net/dpdk/exchange.h"
#include "net/tcp/stack.h"

struct rte_mbuf;
struct rte_mempool;

namespace peregrine::net::dpdk {

class Ports;

// Written by the shard, read by others as a copy (Ports::publish).
struct LaneStats {
  uint64_t frames_in = 0, bytes_in = 0;    // from own queues
  uint64_t frames_out = 0, bytes_out = 0;  // into own queues, others' frames included
  uint64_t empty_polls = 0, busy_polls = 0;
  uint64_t handed_over = 0, taken_over = 0;  // frames that belonged to another shard
  uint64_t exchange_full = 0;                // ... and were dropped because its ring was full
  uint64_t overheard = 0;                    // copies for other shards
  uint64_t scattered = 0;                    // dropped: received in several pieces
  uint64_t no_mbuf = 0;                      // frames that waited for a free mbuf
  uint64_t transmit_full = 0;                // times the stack was told to stop
  uint64_t rejected = 0;                     // frames the driver would never send
  uint64_t attached = 0;                     // mbufs sent from where the payload lies
  uint64_t waiting = 0;                      // gauge: frames that wait for room in a device
};

class Lane final : public tcp::Port {
 public:
  Lane(Ports& ports, uint32_t shard);
  ~Lane() override;
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  static uint16_t private_bytes();  // that mbufs of Device::tx_pool() need

  // Gives the stack about `budget` bytes of frames. True if there was anything, or others' frames to send.
  bool receive(tcp::Stack& stack, int64_t now_ns, size_t budget);
  // Sends what waits, as far as there is room; true if all of it went.
  bool send_waiting();
  bool lazy() const;  // send_waiting() has a use even if nothing waits here

  // Before sleeping: looks at the queues and rings; what it finds is kept for receive().
  bool poll();
  bool polls() const { return polls_; }  // has a receive queue of its own
  // Frees what the devices have sent, which they do by themselves only when they need room.
  void reclaim();
  // Receive interrupts of the own queues.
  const std::vector<int>& interrupt_fds() const { return interrupt_fds_; }
  bool all_interrupt() const { return all_interrupt_; }
  void arm_interrupts(bool on);

  bool transmit(const tcp::OutFrame& frame) override;
  void free_frame(uint64_t token) override;
  uint16_t choose_local_port(const tcp::Flow& flow) override;
  void* allocate_block() override;
  void free_block(void* block) override;

  const LaneStats& stats() const { return stats_; }

  static constexpr uint32_t kBurst = 32;
  static constexpr uint32_t kWaiting = 256;
  // From here on a piece of payload is attached instead of copied: below, a second descriptor costs more than the copy.
  static constexpr uint32_t kAttachBytes = 1024;

 private:
  struct Attached;
  struct Queue {
    Device* device = nullptr;
    rte_mempool* pool = nullptr;
    std::array<rte_mbuf*, kWaiting> frames;
    uint32_t count = 0;
    bool own = false;
    bool attach = false;
    bool prepare = false;
    uint64_t refused_since = 0;  // timer cycles; 0 = not
  };

  void on_burst(rte_mbuf** frames, uint32_t count, size_t device, tcp::Stack& stack, int64_t now_ns);
  void on_frame(rte_mbuf* frame, size_t device, tcp::Stack& stack, int64_t now_ns);
  void hand_over(uint32_t to, void* frame);
  void hand_over_all();
  void overhear(rte_mbuf* frame, const tcp::Frame& as);
  rte_mbuf* build(Queue& queue, const tcp::OutFrame& frame);
  bool attach(Queue& queue, const tcp::PayloadView& view, rte_mbuf*& tail, rte_mbuf* head);
  bool copy(Queue& queue, const tcp::PayloadView& view, rte_mbuf*& tail, rte_mbuf* head);
  void send(Queue& queue);
  void refused(Queue& queue);
  void send_for_others();
  bool readable_by_device(const void* data) const;
  static void sent(void* data, void* attached);

  Ports& ports_;
  const uint32_t shard_;
  bool polls_ = false;
  bool all_interrupt_ = false;
  std::vector<Queue> queues_;  // per device
  std::vector<rte_mbuf*> stash_;
  size_t stash_device_ = 0;
  std::vector<std::vector<void*>> handing_;  // per shard
  std::vector<uint32_t> handing_to_;         // shards with something in handing_
  std::vector<int> interrupt_fds_;
  std::vector<void*> free_blocks_;
  std::vector<char*> regions_;  // kRegionBytes each, of DPDK's memory, cut into blocks
  uint64_t attached_now_ = 0;
  LaneStats stats_;
};

}  // namespace peregrine::net::dpdk
