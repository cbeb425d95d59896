// Header prediction (Van Jacobson, 1990; what a kernel's GRO does for the segments of one burst): what comes next on a
// connection that was just heard from is known before it comes, but for a few fields. Its way here (Ethernet, IP,
// addresses, the connection's tables) need not be gone again, and where it only says "here is more data", its checks
// need not either: together that is most of what a segment costs. Whatever differs in anything takes the long way, so
// this file may only ever save work. In a flood of SYNs these are looked for first, as they are the most and worth the
// least (RFC 4987).
#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {

uint64_t load64_raw(const uint8_t* p) {  // in memory order: only compared and masked
  uint64_t value;
  std::memcpy(&value, p, 8);
  return value;
}

// Selects bytes of eight, the first one given being the first in memory.
constexpr uint64_t bytes_of(std::array<uint8_t, 8> bytes) { return std::bit_cast<uint64_t>(bytes); }

constexpr uint8_t kAll = 0xff;
// Version, ToS, flags and offset of fragments; not the length, not the identification.
constexpr uint64_t kIpv4First = bytes_of({kAll, kAll, 0, 0, 0, 0, kAll, kAll});
// TTL, protocol, source; not the checksum.
constexpr uint64_t kIpv4Second = bytes_of({kAll, kAll, 0, 0, kAll, kAll, kAll, kAll});
// Version, traffic class, flow label, next header, hop limit; not the length.
constexpr uint64_t kIpv6First = bytes_of({kAll, kAll, kAll, kAll, 0, 0, kAll, kAll});
constexpr uint32_t kTimestampOnly = 0x0101080a;  // NOP, NOP, timestamp (RFC 7323 appendix A)
constexpr uint32_t kSmallest = 54;               // Ethernet, IPv4, TCP: below there is nothing of ours

// By the sender's port, where IPv4 has it without a tag; else by some byte or other.
size_t slot_of(const Frame& frame) { return frame.data[35] ^ frame.data[29]; }

}  // namespace

// After a segment that went the long way: its successors come the same way. Twice in a row, since connections that take
// turns in a slot would only be written down in vain.
void Stack::Machine::remember(const Connection& c, const Frame& frame, const Packet& packet) {
  if (!options_.header_prediction || frame.size < kSmallest || c.state != State::kEstablished) return;
  Known& known = known_[slot_of(frame) % known_.size()];
  if (known.conn == c.id) known.conn = UINT32_MAX;
  if (known.seen != c.id) {
    known.seen = c.id;
    return;
  }
  const auto ip_at = static_cast<size_t>(packet.network - frame.data);
  const auto tcp_at = static_cast<size_t>(packet.body - frame.data);
  if (tcp_at - ip_at != (packet.ipv6 ? 40 : 20) || packet.ecn == 3) return;
  known.ip_at = static_cast<uint8_t>(ip_at);
  known.tcp_at = static_cast<uint8_t>(tcp_at);
  known.ipv6 = packet.ipv6;
  known.interface = frame.interface;
  known.vlan_stripped = frame.vlan_stripped;
  known.vlan_tci = frame.vlan_tci;
  static_assert(sizeof(known.header) >= 18 + 40 + 4);
  std::memcpy(known.header.data(), frame.data, tcp_at + 4);
  known.conn = c.id;
}

void Stack::Machine::forget(const Connection& c) {
  for (Known& known : known_) {
    if (known.conn == c.id) known.conn = UINT32_MAX;
    if (known.seen == c.id) known.seen = UINT32_MAX;
  }
}

// 0: it did not come the same way. Else how long the segment is, its header included.
uint32_t Stack::Machine::same_way(const Known& known, const Frame& frame) {
  if (frame.size < size_t{known.tcp_at} + 20 || frame.interface != known.interface || frame.overheard ||
      frame.vlan_stripped != known.vlan_stripped || (known.vlan_stripped && frame.vlan_tci != known.vlan_tci)) {
    return 0;
  }
  const uint8_t *p = frame.data, *h = known.header.data();
  // 14 bytes of Ethernet, or 18 with a tag; ports.
  uint64_t differs = (load64_raw(p) ^ load64_raw(h)) | (load64_raw(p + 6) ^ load64_raw(h + 6)) |
                     (load64_raw(p + known.ip_at - 8) ^ load64_raw(h + known.ip_at - 8)) |
                     (load32(p + known.tcp_at) ^ load32(h + known.tcp_at));
  p += known.ip_at;
  h += known.ip_at;
  size_t total;
  if (known.ipv6) {
    differs |= (load64_raw(p) ^ load64_raw(h)) & kIpv6First;
    for (size_t at = 8; at < 40; at += 8) differs |= load64_raw(p + at) ^ load64_raw(h + at);
    total = size_t{40} + load16(p + 4);
  } else {
    differs |= (load64_raw(p) ^ load64_raw(h)) & kIpv4First;
    differs |= (load64_raw(p + 8) ^ load64_raw(h + 8)) & kIpv4Second;
    differs |= load32(p + 16) ^ load32(h + 16);
    total = load16(p + 2);
  }
  const size_t header = size_t{known.tcp_at} - known.ip_at;
  if (differs != 0 || total < header + 20 || known.ip_at + total > frame.size) return 0;
  return static_cast<uint32_t>(total - header);
}

// As parse_packet() and input_tcp() verify them. A bad one takes the long way, and is counted there.
bool Stack::Machine::intact(const Known& known, const Frame& frame, uint32_t segment_bytes) {
  if (!known.ipv6 && !frame.ip_checksum_good) {
    Checksum sum;
    sum.add(frame.data + known.ip_at, 20);
    if (!sum.good()) return false;
  }
  if (frame.l4_checksum_good) return true;
  const uint8_t* tcp = frame.data + known.tcp_at;
  const size_t size = known.ipv6 ? 16 : 4;
  Checksum sum;
  add_pseudo_header(sum, known.ipv6, tcp - 2 * size, tcp - size, segment_bytes, kProtocolTcp);
  sum.add(tcp, segment_bytes);
  return sum.good();
}

bool Stack::Machine::input_known(const Frame& frame) {
  if (frame.size < kSmallest) return false;
  const Known& known = known_[slot_of(frame) % known_.size()];
  if (known.conn == UINT32_MAX) return false;
  const uint32_t segment_bytes = same_way(known, frame);
  if (segment_bytes == 0 || !intact(known, frame, segment_bytes)) return false;
  Connection& c = *connections_[known.conn];
  const uint8_t* tcp = frame.data + known.tcp_at;
  if (take_expected(c, frame, tcp, segment_bytes)) return true;
  Segment segment;
  if (parse_segment(tcp, segment_bytes, segment) != kNotDropped || segment.has(kSyn)) return false;
  const uint8_t* ip = frame.data + known.ip_at;
  const Packet packet{.destination_mac = frame.data,
                      .source_mac = frame.data + 6,
                      .ethertype = known.ipv6 ? kEtherIpv6 : kEtherIpv4,
                      .vlan = interfaces_[frame.interface].config.vlan,
                      .ipv6 = known.ipv6,
                      .protocol = kProtocolTcp,
                      .ecn = static_cast<uint8_t>(known.ipv6 ? ip[1] >> 4 & 3 : ip[1] & 3),
                      .hop_limit = ip[known.ipv6 ? 7 : 8],
                      .source = tcp - (known.ipv6 ? 32 : 8),
                      .destination = tcp - (known.ipv6 ? 16 : 4),
                      .network = ip,
                      .body = tcp,
                      .body_bytes = segment_bytes};
  ++stats_.segments_in;
  ++stats_.segments_known;
  on_segment(c, packet, frame, segment);
  return true;
}

// on_segment(), on_ack() and on_data() where none of their questions has an interesting answer: the next bytes of a
// stream, and nothing new about ours. True: taken.
bool Stack::Machine::take_expected(Connection& c, const Frame& frame, const uint8_t* tcp, uint32_t segment_bytes) {
  const uint32_t header = c.timestamps ? 32 : 20;
  if (tcp[12] >> 4 != header / 4 || (tcp[13] & ~kPsh) != kAck || segment_bytes <= header) return false;
  const uint32_t seq = load32(tcp + 4), size = segment_bytes - header;
  if (seq != c.rcv_nxt || size > c.rcv_edge - seq || load32(tcp + 8) != c.snd_una ||
      uint32_t{load16(tcp + 14)} << c.send_scale != c.snd_wnd) {
    return false;
  }
  if (c.state != State::kEstablished || !wants_data(c) || c.paused || c.in != nullptr || c.fin_known || c.persisting ||
      c.tail_probe_out || c.recovery != Recovery::kNone || c.timeout_check != TimeoutCheck::kOff) {
    return false;
  }
  if (c.out != nullptr && !c.out->sent.empty()) return false;  // RACK looks at its clock with each segment
  if (c.timestamps) {
    const uint32_t timestamp = load32(tcp + 24);
    if (load32(tcp + 20) != kTimestampOnly || before(timestamp, c.ts_recent)) return false;
    if (at_or_before(seq, c.last_ack_sent)) {
      c.ts_recent = timestamp;
      c.ts_recent_at = now_;
    }
  }
  ++stats_.segments_in;
  ++stats_.segments_expected;
  c.received_at = now_;
  c.keepalives_sent = 0;
  c.snd_wl1 = seq;
  c.snd_wl2 = c.snd_una;
  take_in_order(c, frame, tcp + header, size);
  return true;
}

// A SYN in a flood, plain IPv4 as they come: false if it is dropped here and now. What is answered, or is no such SYN,
// goes the long way.
bool Stack::Machine::survives_flood(const Frame& frame) {
  const uint8_t* p = frame.data;
  if (frame.size < kSmallest || frame.overheard || frame.vlan_stripped || load16(p + 12) != kEtherIpv4 ||
      p[14] != 0x45 || p[23] != kProtocolTcp || (p[47] & (kSyn | kAck)) != kSyn ||
      frame.interface >= interfaces_.size() || std::memcmp(p, interfaces_[frame.interface].config.mac.data(), 6) != 0) {
    return true;
  }
  // Addresses, ports, number.
  looked_at_ = worth_a_look(core::fold_multiply(load64_raw(p + 26) ^ key_[1], load64_raw(p + 34) ^ key_[0]));
  if (looked_at_) return true;
  ++stats_.segments_in;
  drop(Drop::tcp_syn_rate);
  return false;
}

}  // namespace peregrine::net::tcp
