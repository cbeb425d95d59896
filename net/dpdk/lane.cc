#include "net/dpdk/lane.h"

#include <fmt/format.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "net/dpdk/ports.h"

namespace peregrine::net::dpdk {
namespace {

constexpr uint32_t kPrefetchAhead = 4;
constexpr size_t kRegionBytes = size_t{4} << 20;
constexpr size_t kSpareBlocks = 256;
constexpr uint64_t kRefusalsPerSecond = 5;  // a frame refused for that long is dropped
constexpr int kPortTries = 32;              // per queue: ports tried for one whose answers come to the right queue

thread_local const Lane* this_lane = nullptr;

// Ethernet types and protocols that shards learn from though another one answers.
bool worth_overhearing(const tcp::Frame& frame) {
  size_t at = 12;
  if (frame.size < 34) return false;
  const auto type = [&] { return frame.data[at] << 8 | frame.data[at + 1]; };
  if (type() == RTE_ETHER_TYPE_VLAN) at += 4;
  switch (type()) {
    case RTE_ETHER_TYPE_ARP:
      return true;
    case RTE_ETHER_TYPE_IPV4:
      return frame.data[at + 2 + 9] == IPPROTO_ICMP;
    case RTE_ETHER_TYPE_IPV6:
      return frame.data[at + 2 + 6] == IPPROTO_ICMPV6;
    default:
      return false;
  }
}

tcp::Frame frame_of(rte_mbuf* mbuf, size_t interface) {
  tcp::Frame frame;
  frame.data = rte_pktmbuf_mtod(mbuf, const uint8_t*);
  frame.size = mbuf->data_len;
  frame.token = reinterpret_cast<uintptr_t>(mbuf);
  frame.interface = static_cast<uint32_t>(interface);
  frame.ip_checksum_good = (mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD;
  // NONE: the device knows the data to be good though the field is not filled in (virtio, and its like).
  const uint64_t l4 = mbuf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
  frame.l4_checksum_good = l4 == RTE_MBUF_F_RX_L4_CKSUM_GOOD || l4 == RTE_MBUF_F_RX_L4_CKSUM_NONE;
  frame.vlan_stripped = (mbuf->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0;
  frame.vlan_tci = mbuf->vlan_tci;
  return frame;
}

}  // namespace

// In the private area of a mbuf: what a device that is done with attached payload calls.
struct Lane::Attached {
  rte_mbuf_ext_shared_info shared;
  tcp::Hold* hold;
  Lane* lane;
};

uint16_t Lane::private_bytes() { return static_cast<uint16_t>(RTE_ALIGN(sizeof(Attached), RTE_MBUF_PRIV_ALIGN)); }

Lane::Lane(Ports& ports, uint32_t shard) : ports_(ports), shard_(shard) {
  this_lane = this;
  queues_.resize(ports.size());
  handing_.resize(ports.shards());
  all_interrupt_ = true;
  for (size_t n = 0; n < ports.size(); ++n) {
    Device& device = ports[n];
    Queue& queue = queues_[n];
    queue.device = &device;
    queue.own = device.has_tx(shard);
    queue.attach = queue.own && device.multi_segment();
    queue.prepare = device.checksum_offload();
    if (device.has_rx(shard)) {
      polls_ = true;
      if (device.interrupts()) interrupt_fds_.push_back(device.interrupt_fd(static_cast<uint16_t>(shard)));
      else all_interrupt_ = false;
    }
    queue.pool = device.tx_pool(shard);
  }
  if (!polls_) all_interrupt_ = false;
}

Lane::~Lane() {
  for (Queue& queue : queues_) {
    rte_pktmbuf_free_bulk(queue.frames.data(), queue.count);
    queue.count = 0;
  }
  for (rte_mbuf* frame : stash_) rte_pktmbuf_free(frame);
  reclaim();
  // What a device has not sent by now is let go when it stops, on another thread: without a lane.
  this_lane = nullptr;
  for (void* block : free_blocks_) {
    if (!readable_by_device(block)) std::free(block);
  }
  for (char* region : regions_) rte_free(region);
}

// ---- in

bool Lane::receive(tcp::Stack& stack, int64_t now_ns, size_t budget) {
  bool any = false;
  send_for_others();
  if (!stash_.empty()) {
    any = true;
    std::vector<rte_mbuf*> frames;
    frames.swap(stash_);
    on_burst(frames.data(), static_cast<uint32_t>(frames.size()), stash_device_, stack, now_ns);
  }
  const uint64_t before = stats_.bytes_in;
  rte_mbuf* frames[kBurst];
  for (size_t n = 0; n < queues_.size(); ++n) {
    if (!queues_[n].device->has_rx(shard_)) continue;
    const uint16_t number = queues_[n].device->number();
    while (stats_.bytes_in - before < budget) {
      const uint16_t count = rte_eth_rx_burst(number, static_cast<uint16_t>(shard_), frames, kBurst);
      if (count == 0) break;
      any = true;
      on_burst(frames, count, n, stack, now_ns);
      if (count < kBurst) break;
    }
  }
  if (any) ++stats_.busy_polls;
  else ++stats_.empty_polls;
  if (ports_.shards() == 1) return any;
  hand_over_all();
  void* taken[kBurst];
  for (size_t bytes = 0; bytes < budget;) {
    const uint32_t count = ports_.exchange().take_received(shard_, taken, kBurst);
    for (uint32_t n = 0; n < count; ++n) {
      bool overheard = false;
      rte_mbuf* const mbuf = Exchange::unmark(taken[n], overheard);
      tcp::Frame frame = frame_of(mbuf, ports_.index_of(mbuf->port));
      frame.overheard = overheard;
      bytes += frame.size;
      stack.input(frame, now_ns);
    }
    stats_.taken_over += count;
    any = any || count > 0;
    if (count < kBurst) break;
  }
  return any;
}

void Lane::on_burst(rte_mbuf** frames, uint32_t count, size_t device, tcp::Stack& stack, int64_t now_ns) {
  for (uint32_t n = 0; n < std::min(kPrefetchAhead, count); ++n) rte_prefetch0(rte_pktmbuf_mtod(frames[n], void*));
  for (uint32_t n = 0; n < count; ++n) {
    if (n + kPrefetchAhead < count) rte_prefetch0(rte_pktmbuf_mtod(frames[n + kPrefetchAhead], void*));
    on_frame(frames[n], device, stack, now_ns);
  }
}

void Lane::on_frame(rte_mbuf* mbuf, size_t index, tcp::Stack& stack, int64_t now_ns) {
  ++stats_.frames_in;
  stats_.bytes_in += mbuf->pkt_len;
  if (mbuf->nb_segs != 1) {
    ++stats_.scattered;
    rte_pktmbuf_free(mbuf);
    return;
  }
  Device& device = ports_[index];
  mbuf->port = device.number();
  const tcp::Frame frame = frame_of(mbuf, index);
  if (ports_.shards() == 1) return stack.input(frame, now_ns);

  const tcp::FrameClass kind = tcp::classify(frame);
  if (!kind.tcp) {
    if (worth_overhearing(frame)) overhear(mbuf, frame);
    return stack.input(frame, now_ns);
  }
  if (device.rss().state() == Rss::State::kUnproven) {
    const bool hashed = (mbuf->ol_flags & RTE_MBUF_F_RX_RSS_HASH) != 0;
    device.rss().observe(kind.flow, static_cast<uint16_t>(shard_), hashed ? &mbuf->hash.rss : nullptr);
  }
  const uint32_t owner = ports_.owner(device, kind.flow, shard_);
  if (owner == shard_) return stack.input(frame, now_ns);
  hand_over(owner, mbuf);
}

void Lane::hand_over(uint32_t to, void* frame) {
  std::vector<void*>& frames = handing_[to];
  if (frames.empty()) handing_to_.push_back(to);
  frames.push_back(frame);
}

void Lane::hand_over_all() {
  for (const uint32_t to : handing_to_) {
    std::vector<void*>& frames = handing_[to];
    const auto count = static_cast<uint32_t>(frames.size());
    const uint32_t taken = ports_.exchange().give_received(shard_, to, frames.data(), count);
    for (uint32_t n = taken; n < count; ++n) {
      bool overheard;
      rte_pktmbuf_free(Exchange::unmark(frames[n], overheard));
    }
    stats_.handed_over += taken;
    stats_.exchange_full += count - taken;
    frames.clear();
  }
  handing_to_.clear();
}

void Lane::overhear(rte_mbuf* mbuf, const tcp::Frame& as) {
  for (uint32_t to = 0; to < ports_.shards(); ++to) {
    if (to == shard_) continue;
    rte_mbuf* const copy = rte_pktmbuf_copy(mbuf, queues_[as.interface].pool, 0, UINT32_MAX);
    if (copy == nullptr) {
      ++stats_.no_mbuf;
      return;
    }
    copy->port = mbuf->port;
    ++stats_.overheard;
    hand_over(to, Exchange::mark(copy, true));
  }
}

bool Lane::poll() {
  if (ports_.exchange().anything_for(shard_)) return true;
  if (!stash_.empty()) return true;
  rte_mbuf* frames[kBurst];
  for (size_t n = 0; n < queues_.size(); ++n) {
    if (!queues_[n].device->has_rx(shard_)) continue;
    const uint16_t count = rte_eth_rx_burst(queues_[n].device->number(), static_cast<uint16_t>(shard_), frames, kBurst);
    if (count == 0) continue;
    stash_.assign(frames, frames + count);
    stash_device_ = n;
    return true;
  }
  ++stats_.empty_polls;
  return false;
}

void Lane::arm_interrupts(bool on) {
  for (const Queue& queue : queues_) {
    if (!queue.device->has_rx(shard_) || !queue.device->interrupts()) continue;
    // net_tap has nothing to arm and says so; its descriptor is readable all the same.
    if (on) rte_eth_dev_rx_intr_enable(queue.device->number(), static_cast<uint16_t>(shard_));
    else rte_eth_dev_rx_intr_disable(queue.device->number(), static_cast<uint16_t>(shard_));
  }
}

void Lane::free_frame(uint64_t token) { rte_pktmbuf_free(reinterpret_cast<rte_mbuf*>(token)); }

// ---- out

bool Lane::transmit(const tcp::OutFrame& frame) {
  Queue& queue = queues_[frame.interface];
  if (queue.count == kWaiting) {
    send(queue);
    if (queue.count == kWaiting) {
      ++stats_.transmit_full;
      return false;
    }
  }
  rte_mbuf* const mbuf = build(queue, frame);
  if (mbuf == nullptr) {
    send(queue);
    ++stats_.no_mbuf;
    return false;
  }
  queue.frames[queue.count++] = mbuf;
  ++stats_.waiting;
  if (queue.count % kBurst == 0) send(queue);
  return true;
}

rte_mbuf* Lane::build(Queue& queue, const tcp::OutFrame& frame) {
  rte_mbuf* const head = rte_pktmbuf_alloc(queue.pool);
  if (head == nullptr) return nullptr;
  const auto header_bytes = static_cast<uint16_t>(frame.headers.size());
  char* const at = rte_pktmbuf_append(head, header_bytes);
  if (at == nullptr) {  // an echo reply larger than a frame: never sent
    rte_pktmbuf_free(head);
    return nullptr;
  }
  std::memcpy(at, frame.headers.data(), header_bytes);
  rte_mbuf* tail = head;
  for (const tcp::PayloadView& view : frame.payload) {
    const bool attaches = queue.attach && view.size >= kAttachBytes && view.size <= UINT16_MAX &&
                          head->nb_segs < queue.device->largest_chain() &&
                          (!queue.device->dma() || readable_by_device(view.data));
    if (!(attaches ? attach(queue, view, tail, head) : copy(queue, view, tail, head))) {
      rte_pktmbuf_free(head);
      return nullptr;
    }
  }
  if (frame.vlan_tci != 0) {
    head->ol_flags |= RTE_MBUF_F_TX_VLAN;
    head->vlan_tci = frame.vlan_tci;
  }
  if (frame.checksum_offload) {
    head->l2_len = frame.l2_bytes;
    head->l3_len = frame.l3_bytes;
    head->l4_len = frame.l4_bytes;
    head->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM;
    head->ol_flags |= frame.ipv6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
    if (frame.segment_bytes != 0) {
      head->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
      head->tso_segsz = frame.segment_bytes;
    }
  }
  return head;
}

void Lane::sent(void*, void* opaque) {
  auto* const attached = static_cast<Attached*>(opaque);
  if (attached->lane == this_lane) attached->hold->drop();
}

bool Lane::attach(Queue& queue, const tcp::PayloadView& view, rte_mbuf*& tail, rte_mbuf* head) {
  rte_mbuf* const mbuf = rte_pktmbuf_alloc(queue.pool);
  if (mbuf == nullptr) return false;
  auto* const attached = static_cast<Attached*>(rte_mbuf_to_priv(mbuf));
  attached->hold = view.owner;
  attached->lane = this;
  attached->shared.free_cb = sent;
  attached->shared.fcb_opaque = attached;
  rte_mbuf_ext_refcnt_set(&attached->shared, 1);
  auto* const data = const_cast<uint8_t*>(view.data);
  const rte_iova_t address = rte_eal_iova_mode() == RTE_IOVA_VA || !queue.device->dma()
                                 ? reinterpret_cast<uintptr_t>(data)
                                 : rte_mem_virt2iova(data);
  rte_pktmbuf_attach_extbuf(mbuf, data, address, static_cast<uint16_t>(view.size), &attached->shared);
  mbuf->data_off = 0;
  mbuf->data_len = static_cast<uint16_t>(view.size);
  mbuf->pkt_len = view.size;
  view.owner->hold();
  ++stats_.attached;
  tail->next = mbuf;
  tail = mbuf;
  head->pkt_len += view.size;
  ++head->nb_segs;
  return true;
}

bool Lane::copy(Queue& queue, const tcp::PayloadView& view, rte_mbuf*& tail, rte_mbuf* head) {
  const uint8_t* from = view.data;
  for (uint32_t left = view.size; left > 0;) {
    uint16_t room = RTE_MBUF_HAS_EXTBUF(tail) ? 0 : rte_pktmbuf_tailroom(tail);
    if (room == 0) {
      if (!queue.device->multi_segment() || head->nb_segs >= queue.device->largest_chain()) return false;
      rte_mbuf* const next = rte_pktmbuf_alloc(queue.pool);
      if (next == nullptr) return false;
      tail->next = next;
      tail = next;
      ++head->nb_segs;
      room = rte_pktmbuf_tailroom(next);
    }
    const auto size = static_cast<uint16_t>(std::min<uint32_t>(room, left));
    std::memcpy(rte_pktmbuf_mtod_offset(tail, uint8_t*, tail->data_len), from, size);
    tail->data_len = static_cast<uint16_t>(tail->data_len + size);
    head->pkt_len += size;
    from += size;
    left -= size;
  }
  return true;
}

void Lane::send(Queue& queue) {
  uint32_t done = 0;
  const uint16_t number = queue.device->number();
  while (done < queue.count) {
    rte_mbuf** const frames = queue.frames.data() + done;
    const auto count = static_cast<uint16_t>(std::min(queue.count - done, kBurst));
    if (!queue.own) {
      const uint32_t taken =
          ports_.exchange().give_to_send(static_cast<size_t>(&queue - queues_.data()), shard_, frames, count);
      done += taken;
      if (taken < count) break;
      continue;
    }
    uint16_t ready = count;
    if (queue.prepare) ready = rte_eth_tx_prepare(number, static_cast<uint16_t>(shard_), frames, count);
    uint64_t bytes = 0;
    uint16_t taken = 0;
    if (ready > 0) {
      for (uint16_t n = 0; n < ready; ++n) bytes += frames[n]->pkt_len;
      std::array<uint32_t, kBurst> sizes;
      for (uint16_t n = 0; n < ready; ++n) sizes[n] = frames[n]->pkt_len;
      taken = rte_eth_tx_burst(number, static_cast<uint16_t>(shard_), frames, ready);
      for (uint16_t n = taken; n < ready; ++n) bytes -= sizes[n];
    }
    stats_.frames_out += taken;
    stats_.bytes_out += bytes;
    done += taken;
    if (taken < ready) break;  // no room: the rest waits, in order
    if (ready < count) {
      // The driver will never take this one.
      ++stats_.rejected;
      rte_pktmbuf_free(frames[ready]);
      ++done;
    }
  }
  if (done == 0) return refused(queue);
  queue.refused_since = 0;
  std::memmove(queue.frames.data(), queue.frames.data() + done, (queue.count - done) * sizeof(rte_mbuf*));
  queue.count -= done;
  stats_.waiting -= done;
}

// A driver that never takes the first frame (it says so only by taking none) must not stop all others for ever. While
// the link is down, waiting is right.
void Lane::refused(Queue& queue) {
  if (queue.count == 0 || !queue.own || !queue.device->link_up()) {
    queue.refused_since = 0;
    return;
  }
  const uint64_t now = rte_get_timer_cycles();
  if (queue.refused_since == 0) queue.refused_since = now;
  if (now - queue.refused_since < rte_get_timer_hz() / kRefusalsPerSecond) return;
  queue.refused_since = 0;
  ++stats_.rejected;
  rte_pktmbuf_free(queue.frames[0]);
  std::memmove(queue.frames.data(), queue.frames.data() + 1, (queue.count - 1) * sizeof(rte_mbuf*));
  --queue.count;
  --stats_.waiting;
}

bool Lane::send_waiting() {
  bool all = true;
  for (Queue& queue : queues_) {
    if (queue.count > 0) send(queue);
    if (queue.own && queue.device->lazy()) queue.device->push();
    all = all && queue.count == 0;
  }
  return all;
}

bool Lane::lazy() const {
  return std::any_of(queues_.begin(), queues_.end(), [](const Queue& queue) { return queue.device->lazy(); });
}

void Lane::send_for_others() {
  for (size_t n = 0; n < queues_.size(); ++n) {
    Queue& queue = queues_[n];
    if (!queue.own || queue.device->tx_queues() >= ports_.shards()) continue;
    while (queue.count < kWaiting) {
      const uint32_t taken = ports_.exchange().take_to_send(n, shard_, queue.frames.data() + queue.count,
                                                            std::min(kBurst, kWaiting - queue.count));
      if (taken == 0) break;
      queue.count += taken;
      stats_.waiting += taken;
      send(queue);
    }
  }
}

void Lane::reclaim() {
  for (const Queue& queue : queues_) {
    if (queue.own && queue.attach && queue.device->dma()) {
      rte_eth_tx_done_cleanup(queue.device->number(), static_cast<uint16_t>(shard_), 0);
    }
  }
}

// ---- the rest of tcp::Port

uint16_t Lane::choose_local_port(const tcp::Flow& flow) {
  const uint32_t shards = ports_.shards();
  if (shards == 1) return ports_.listened_on(flow.local_port) ? 0 : flow.local_port;
  constexpr uint32_t kFirst = Ports::kFirstOwnPort;
  const uint32_t rows = (65536 - kFirst) / shards;
  const uint32_t row = (flow.local_port % (65536 - kFirst)) / shards;
  uint16_t first = 0;
  const Rss* const rss = queues_.size() == 1 && !queues_[0].device->software_spread() &&
                                 (queues_[0].device->rss().state() == Rss::State::kProven ||
                                  queues_[0].device->rss().state() == Rss::State::kUnproven)
                             ? &queues_[0].device->rss()
                             : nullptr;
  const int tries = rss == nullptr ? 1 : kPortTries * static_cast<int>(queues_[0].device->rx_queues());
  for (int n = 0; n < tries; ++n) {
    const auto port = static_cast<uint16_t>(kFirst + ((row + static_cast<uint32_t>(n)) % rows) * shards + shard_);
    if (ports_.listened_on(port)) continue;
    if (rss == nullptr) return port;
    if (first == 0) first = port;
    tcp::Flow candidate = flow;
    candidate.local_port = port;
    if (rss->queue_of(candidate) == shard_) return port;
  }
  return first;
}

bool Lane::readable_by_device(const void* data) const {
  const auto* const at = static_cast<const char*>(data);
  return std::any_of(regions_.begin(), regions_.end(),
                     [at](const char* region) { return at >= region && at < region + kRegionBytes; });
}

void* Lane::allocate_block() {
  if (free_blocks_.empty()) {
    bool dma = false;
    for (const Queue& queue : queues_) dma = dma || queue.device->dma();
    if (dma) {
      // In one piece of DPDK's memory; when there is none left, ordinary memory does, and is copied when sent.
      auto* const region = static_cast<char*>(rte_malloc_socket("blocks", kRegionBytes, kBlockBytes, SOCKET_ID_ANY));
      if (region != nullptr) {
        regions_.push_back(region);
        for (size_t at = 0; at < kRegionBytes; at += kBlockBytes) free_blocks_.push_back(region + at);
      }
    }
  }
  if (!free_blocks_.empty()) {
    void* const block = free_blocks_.back();
    free_blocks_.pop_back();
    return block;
  }
  void* const block = std::aligned_alloc(64, kBlockBytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

void Lane::free_block(void* block) {
  if (free_blocks_.size() < kSpareBlocks || readable_by_device(block)) free_blocks_.push_back(block);
  else std::free(block);
}

}  // namespace peregrine::net::dpdk
