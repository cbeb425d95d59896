#include "net/dpdk/exchange.h"

#include <fmt/format.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

namespace peregrine::net::dpdk {
namespace {

constexpr uint32_t kApart = 16;  // uint32_t of a cache line

rte_ring* make_ring(const std::string& name, uint32_t frames) {
  return rte_ring_create(name.c_str(), frames, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
}

}  // namespace

Doorbell::Doorbell(int& error) : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) { error = fd_ ? 0 : -errno; }

void Doorbell::ring() {
  if (rung_.exchange(true, std::memory_order_seq_cst)) return;
  if (!asleep_.load(std::memory_order_seq_cst)) return;
  const uint64_t one = 1;
  // Cannot block: the counter would need 2^64 rings.
  [[maybe_unused]] const ssize_t written = write(fd_.get(), &one, sizeof(one));
}

void Doorbell::ring_if_asleep() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (asleep_.load(std::memory_order_relaxed)) ring();
}

void Doorbell::will_sleep() {
  asleep_.store(true, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

bool Doorbell::rung() { return rung_.exchange(false, std::memory_order_seq_cst); }

void Doorbell::awake() {
  asleep_.store(false, std::memory_order_seq_cst);
  uint64_t count;
  [[maybe_unused]] const ssize_t n = read(fd_.get(), &count, sizeof(count));
}

Exchange::Exchange(uint32_t shards, uint32_t polling, std::vector<uint32_t> senders, std::string& error)
    : shards_(shards), polling_(polling), senders_(std::move(senders)), next_(shards * kApart) {
  for (uint32_t shard = 0; shard < shards; ++shard) {
    int failed = 0;
    doorbells_.push_back(std::make_unique<Doorbell>(failed));
    if (failed != 0) error = errno_text(-failed);
  }
  received_.resize(static_cast<size_t>(polling) * shards);
  to_send_.resize(senders_.size(), std::vector<rte_ring*>(shards));
  const auto make = [&](const std::string& name) {
    rte_ring* const ring = make_ring(name, kRingFrames);
    if (ring == nullptr)
      error = fmt::format("no memory for the rings between {} shards; set dpdk.memory higher", shards);
    return ring;
  };
  for (uint32_t from = 0; from < polling && shards > 1; ++from) {
    for (uint32_t to = 0; to < shards; ++to) {
      if (from != to) received_[from * shards + to] = make(fmt::format("rx.{}.{}", from, to));
    }
  }
  for (size_t device = 0; device < senders_.size(); ++device) {
    for (uint32_t from = senders_[device]; from < shards; ++from) {
      to_send_[device][from] = make(fmt::format("tx{}.{}", device, from));
    }
  }
}

Exchange::~Exchange() {
  void* frame = nullptr;
  bool overheard;
  for (rte_ring* ring : received_) {
    while (ring != nullptr && rte_ring_sc_dequeue(ring, &frame) == 0) rte_pktmbuf_free(unmark(frame, overheard));
    rte_ring_free(ring);
  }
  for (const auto& rings : to_send_) {
    for (rte_ring* ring : rings) {
      while (ring != nullptr && rte_ring_sc_dequeue(ring, &frame) == 0) {
        rte_pktmbuf_free(static_cast<rte_mbuf*>(frame));
      }
      rte_ring_free(ring);
    }
  }
}

uint32_t Exchange::give_received(uint32_t from, uint32_t to, void** frames, uint32_t count) {
  const uint32_t taken = rte_ring_sp_enqueue_burst(received(from, to), frames, count, nullptr);
  if (taken > 0) doorbell(to).ring_if_asleep();
  return taken;
}

uint32_t Exchange::take_received(uint32_t to, void** frames, uint32_t room) {
  uint32_t taken = 0;
  uint32_t& next = next_[to * kApart];
  for (uint32_t n = 0; n < polling_ && taken < room; ++n) {
    const uint32_t from = next;
    next = next + 1 < polling_ ? next + 1 : 0;
    rte_ring* const ring = received(from, to);
    if (ring != nullptr) taken += rte_ring_sc_dequeue_burst(ring, frames + taken, room - taken, nullptr);
  }
  return taken;
}

uint32_t Exchange::give_to_send(size_t device, uint32_t from, rte_mbuf** frames, uint32_t count) {
  const uint32_t taken =
      rte_ring_sp_enqueue_burst(to_send_[device][from], reinterpret_cast<void**>(frames), count, nullptr);
  if (taken > 0) doorbell(sender_for(device, from)).ring_if_asleep();
  return taken;
}

uint32_t Exchange::take_to_send(size_t device, uint32_t sender, rte_mbuf** frames, uint32_t room) {
  uint32_t taken = 0;
  const uint32_t senders = senders_[device];
  for (uint32_t from = sender + senders; from < shards_ && taken < room; from += senders) {
    taken += rte_ring_sc_dequeue_burst(to_send_[device][from], reinterpret_cast<void**>(frames + taken), room - taken,
                                       nullptr);
  }
  return taken;
}

bool Exchange::anything_for(uint32_t shard) const {
  for (uint32_t from = 0; from < polling_; ++from) {
    rte_ring* const ring = received(from, shard);
    if (ring != nullptr && rte_ring_empty(ring) == 0) return true;
  }
  for (size_t device = 0; device < senders_.size(); ++device) {
    for (uint32_t from = shard + senders_[device]; shard < senders_[device] && from < shards_;
         from += senders_[device]) {
      if (rte_ring_empty(to_send_[device][from]) == 0) return true;
    }
  }
  return false;
}

}  // namespace peregrine::net::dpdk
