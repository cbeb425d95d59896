// One network port: configured, started and described. Made on the main thread; its queues are then used by the shards,
// each queue by one.
//
// What the device offers decides: queues (one per shard if it has them), offloads (those the configuration allows),
// RSS (key and table are read back), receive interrupts. What it does not offer is done in software by the lanes
// (lane.h) and the stack. The MTU is set on the device where that works; frames are always received in one piece.
//
// A device that lets the kernel keep its interface (net_af_packet, net_af_xdp) does not tell of the cable: its link is
// the interface's. Nor has it interrupts, but sockets that are readable when frames have come; they are found among the
// process's descriptors. net_af_packet's driver counts frames as sent when the kernel has merely been asked: once the
// socket's send buffer is full the rest stays in the ring until somebody sends again, which with the last frames of a
// burst is a retransmission. So the buffer is made larger than any ring, or, without the privilege, push() asks again.
#pragma once

#include <atomic>
#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "config/options.h"
#include "core/log.h"
#include "net/dpdk/rss.h"
#include "net/tcp/stack.h"

struct rte_mempool;

namespace peregrine::net::dpdk {

struct DevicePlan {
  uint32_t shards = 1;
  uint16_t private_bytes = 0;  // of each mbuf to send
  uint32_t waiting = 256;      // frames a shard keeps while the device is full
  bool interrupts = false;     // try for receive interrupts
  bool interrupts_required = false;
};

class Device {
 public:
  static std::expected<std::unique_ptr<Device>, std::string> open(uint16_t number, const config::DpdkPort& port,
                                                                  const DevicePlan& plan);
  ~Device();  // stops and closes; no queue may be in use any more
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  uint16_t number() const { return number_; }
  uint16_t rx_queues() const { return rx_queues_; }
  uint16_t tx_queues() const { return tx_queues_; }
  // The shard that works queue n is shard n; a shard without one sends through shard `shard % tx_queues()`.
  bool has_rx(uint32_t shard) const { return shard < rx_queues_; }
  bool has_tx(uint32_t shard) const { return shard < tx_queues_; }

  // True: every frame of a connection goes to the shard our own hash names. False: to the shard of the queue it comes
  // on.
  bool software_spread() const { return software_spread_; }
  bool interrupts() const { return interrupts_; }
  // The file descriptor of a receive queue's interrupt, or of what stands in for it.
  int interrupt_fd(uint16_t queue) const { return interrupt_fds_[queue]; }
  // Frames the device has taken may lie in its ring until the next call for it: see push().
  bool lazy() const { return !lazy_fds_.empty(); }
  void push() const;

  const tcp::Interface& interface() const { return interface_; }
  bool checksum_offload() const { return interface_.checksum_offload; }
  bool multi_segment() const { return multi_segment_; }
  uint16_t largest_chain() const { return largest_chain_; }
  bool dma() const { return dma_; }  // reads memory by itself: what it sends must lie in DPDK's memory
  // Where a shard takes the mbufs from that it sends; each has room for any frame of this port.
  rte_mempool* tx_pool(uint32_t shard) const { return tx_pools_[shard]; }
  int numa_node() const { return numa_node_; }
  Rss& rss() { return rss_; }
  const Rss& rss() const { return rss_; }

  // "net_af_packet0: 02:..., 10.0.0.2/24, mtu 1500, 1 queue for 2 shards, spread by software, no offloads"
  std::string describe() const;
  const std::string& name() const { return name_; }
  const std::string& driver() const { return driver_; }
  std::vector<std::string> offloads() const;
  const config::DpdkPort& options() const { return options_; }

  // The link as last looked at; look() asks the device (cheap: a register, or a system call for a kernel interface).
  bool link_up() const { return link_up_.load(std::memory_order_relaxed); }
  bool look_at_link();
  uint32_t link_mbps() const { return link_mbps_.load(std::memory_order_relaxed); }

 private:
  Device(uint16_t number, const config::DpdkPort& port) : number_(number), options_(port) {}
  std::string configure(const DevicePlan& plan);
  std::string set_up_queues(const DevicePlan& plan);
  std::string make_pool(std::vector<rte_mempool*>& pools, const std::string& name, uint32_t frames,
                        uint16_t private_bytes);
  std::string read_rss();
  std::string start(const DevicePlan& plan);
  void use_kernel_sockets(const DevicePlan& plan);

  const uint16_t number_;
  const config::DpdkPort options_;
  std::string name_, driver_, kernel_interface_;
  tcp::Interface interface_;
  uint32_t shards_ = 1;
  uint16_t rx_queues_ = 1, tx_queues_ = 1;
  uint16_t rx_descriptors_ = 0, tx_descriptors_ = 0;
  uint64_t rx_offloads_ = 0, tx_offloads_ = 0;
  uint64_t rss_types_ = 0;
  uint16_t reta_size_ = 0;
  uint8_t key_size_ = 0;
  uint32_t frame_bytes_ = 0;
  uint16_t largest_chain_ = 1;
  bool multi_segment_ = false, dma_ = true, software_spread_ = false, interrupts_ = false, started_ = false;
  int numa_node_ = -1;
  std::vector<rte_mempool*> rx_pools_;  // per queue
  std::vector<rte_mempool*> tx_pools_;  // per shard
  std::vector<int> interrupt_fds_;
  std::vector<int> lazy_fds_;
  std::vector<int> others_sockets_;  // of net_af_xdp, from before this device
  Rss rss_;
  std::atomic<bool> link_up_{false};
  std::atomic<uint32_t> link_mbps_{0};
};

// Addresses of a port as the stack wants them; the configuration has been validated.
tcp::Interface interface_of(const config::DpdkPort& port);

}  // namespace peregrine::net::dpdk
