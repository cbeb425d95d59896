// What the stack asks of whoever moves its frames: the DPDK backend, a TAP device, a simulated link, a packet script.
//
// One Port serves one Stack, on the stack's thread. The stack calls it only from inside a call into the stack; a Port
// must not call back into the stack from these functions.
//
// Memory of what is transmitted. `headers` lives for the call only: copy it. Each view of the payload lives until the
// peer has acknowledged it; a Port that goes on reading it after transmit() returned (DMA) must hold() it first and
// drop() the hold when done, on the stack's thread: an acknowledgement may come while a retransmission still waits in
// the NIC's ring. Without a hold the stack is free to reuse the bytes as soon as transmit() has returned and the peer
// has acknowledged them. A Port that copies the payload needs no hold.
#pragma once

#include <cstdint>
#include <span>

#include "net/tcp/address.h"

namespace peregrine::net::tcp {

// Memory with bytes on their way out; counted, one thread.
class Hold {
 public:
  void hold() { ++count_; }
  void drop() {
    if (--count_ == 0) released();
  }

 protected:
  Hold() = default;
  ~Hold() = default;
  virtual void released() = 0;  // may destroy the object

 private:
  uint32_t count_ = 1;  // the stack's own
};

struct PayloadView {
  const uint8_t* data;
  uint32_t size;
  Hold* owner;
};

struct OutFrame {
  uint32_t interface = 0;  // the number add_interface() gave
  // Everything before the TCP payload: Ethernet (with an 802.1Q tag, unless the interface offers vlan_offload), IP,
  // and TCP with options; or a whole ARP, ND or ICMP packet. At most kMaxHeaders bytes, except ICMP echo replies.
  std::span<const uint8_t> headers;
  std::span<const PayloadView> payload;
  uint32_t payload_bytes = 0;  // sum of the views

  // TSO: cut the payload into pieces of this many bytes. 0: it is one packet.
  uint16_t segment_bytes = 0;
  // True: the IPv4 header checksum is 0 and the TCP checksum field holds the folded, not inverted pseudo-header sum
  // (with TSO: without the length), as NICs and rte_eth_tx_prepare want it. False: both are final.
  bool checksum_offload = false;
  bool ipv6 = false;
  bool tcp = false;  // false: ARP, ND, ICMP; nothing to offload
  uint8_t l2_bytes = 0, l3_bytes = 0, l4_bytes = 0;
  uint16_t vlan_tci = 0;  // != 0 with vlan_offload: insert this tag
};

class Port {
 public:
  // Headers never exceed this, so a Port can give its buffers fixed room: 18 + 40 + 60.
  static constexpr uint32_t kMaxHeaders = 118;

  virtual ~Port() = default;

  // True: taken (copied, or held). False: no room now; nothing was taken, the stack keeps what must not be lost and
  // offers it again at the next flush(); it stops generating for this turn.
  virtual bool transmit(const OutFrame& frame) = 0;

  // The stack has finished with a received frame's buffer (Frame::token). Called exactly once for each frame given to
  // Stack::input(), maybe from inside input().
  virtual void free_frame(uint64_t token) = 0;

  // Source ports of our own connections, so that the answers reach this shard: called with flow.local_port = a random
  // candidate (RFC 6056); returns the candidate, a port near it whose replies come to this shard, or 0 = none near
  // here, try another candidate. The stack rejects what it already uses and asks again, at most 1024 times.
  virtual uint16_t choose_local_port(const Flow& flow) { return flow.local_port; }

  // Memory for the stack's own copies of outgoing bytes, of kBlockBytes each: a Port with DMA gives memory its device
  // can read. Never null: throws std::bad_alloc.
  static constexpr uint32_t kBlockBytes = 16384;
  virtual void* allocate_block();
  virtual void free_block(void* block);
};

}  // namespace peregrine::net::tcp
