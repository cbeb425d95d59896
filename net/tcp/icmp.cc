// ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, errors about our segments, path MTU (RFC 1191, 8201).
//
// An error is believed only if it quotes a connection of ours and a sequence number in flight (RFC 5927 section 4), and
// only what cannot be faked into harm is done: a dial may fail, a path MTU may go down to its floor. An established
// connection is never closed by ICMP (RFC 1122 section 4.2.3.9 calls most of these soft errors; 5927 section 5 the
// rest).
#include <cerrno>

#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {
constexpr uint16_t kFloor4 = 552, kFloor6 = 1280;
constexpr int64_t kPathMtuLife = 600 * kSecond;  // RFC 1191 section 6.3: ten minutes
constexpr size_t kMaxPathMtus = 4096;
}  // namespace

void Stack::Machine::input_icmp(const Packet& packet, const Frame& frame) {
  const uint8_t* p = packet.body;
  if (packet.body_bytes < 8) return drop(Drop::icmp_malformed);
  Checksum sum;
  sum.add(p, packet.body_bytes);
  if (!sum.good()) return drop(Drop::icmp_checksum);
  const uint8_t type = p[0], code = p[1];
  if (type == 3) return icmp_error(false, type, code, load16(p + 6), p + 8, packet.body_bytes - 8);
  if (type != 8 || (frame.data[0] & 1) != 0) return drop(Drop::icmp_ignored);
  if (frame.overheard) return;
  if (!icmp_limit_.take(now_)) return drop(Drop::icmp_rate);
  std::vector<uint8_t> bytes(18 + 20 + packet.body_bytes);
  OutFrame out;
  MacAddress to;
  std::memcpy(to.data(), packet.source_mac, 6);
  const uint32_t l2 = write_ethernet(bytes.data(), frame.interface, to, kEtherIpv4, out);
  write_ip(bytes.data() + l2, packet.destination_address(), packet.source_address(), kProtocolIcmp, packet.body_bytes,
           0, 64, false);
  uint8_t* reply = bytes.data() + l2 + 20;
  std::memcpy(reply, p, packet.body_bytes);
  reply[0] = 0;
  store16(reply + 2, 0);
  Checksum reply_sum;
  reply_sum.add(reply, packet.body_bytes);
  const uint16_t value = reply_sum.final();
  std::memcpy(reply + 2, &value, 2);
  ++stats_.icmp_echo_replies;
  emit_plain(frame.interface, {bytes.data(), l2 + 20 + packet.body_bytes}, out);
}

void Stack::Machine::input_icmpv6(const Packet& packet, const Frame& frame) {
  const uint8_t* p = packet.body;
  if (packet.body_bytes < 8) return drop(Drop::icmp_malformed);
  Checksum sum;
  add_pseudo_header(sum, true, packet.source, packet.destination, packet.body_bytes, kProtocolIcmpv6);
  sum.add(p, packet.body_bytes);
  if (!sum.good()) return drop(Drop::icmp_checksum);
  const uint8_t type = p[0], code = p[1];
  if (type == 135 || type == 136) return input_nd(packet, frame);
  const IpAddress to = packet.destination_address(), from = packet.source_address();
  if (!owns(frame.interface, to)) return drop(to.is_multicast() ? Drop::icmp_ignored : Drop::ipv6_not_ours);
  if (from.is_unspecified()) return drop(Drop::ipv6_source);
  if (type == 1 || type == 2) return icmp_error(true, type, code, load32(p + 4), p + 8, packet.body_bytes - 8);
  if (type != 128) return drop(Drop::icmp_ignored);
  if (frame.overheard) return;
  if (!icmp_limit_.take(now_)) return drop(Drop::icmp_rate);
  std::vector<uint8_t> body(p, p + packet.body_bytes);
  body[0] = 129;
  MacAddress mac;
  std::memcpy(mac.data(), packet.source_mac, 6);
  ++stats_.icmp_echo_replies;
  send_icmpv6(frame.interface, mac, to, from, body, 64);
}

void Stack::Machine::icmp_error(bool ipv6, uint8_t type, uint8_t code, uint32_t mtu, const uint8_t* quoted,
                                uint32_t size) {
  const uint32_t ip = ipv6 ? 40 : size >= 20 ? (quoted[0] & 15) * 4u : 20;
  if (size < ip + 8 || ip < 20 || (quoted[0] >> 4) != (ipv6 ? 6 : 4)) return drop(Drop::icmp_malformed);
  if (quoted[ipv6 ? 6 : 9] != kProtocolTcp) return drop(Drop::icmp_unverified);
  const uint8_t* tcp = quoted + ip;
  const Flow flow{ipv6 ? IpAddress::v6(quoted + 8) : IpAddress::v4(quoted + 12),
                  ipv6 ? IpAddress::v6(quoted + 24) : IpAddress::v4(quoted + 16), load16(tcp), load16(tcp + 2)};
  bool found;
  const RecordRef ref = find(flow, flows_.hash(flow), found);
  if (!found || ref.kind() != RecordKind::kConnection) return drop(Drop::icmp_unverified);
  Connection& c = *connections_[ref.index()];
  const uint32_t seq = load32(tcp + 4);
  if (c.snd_una == c.snd_nxt || before(seq, c.snd_una) || !before(seq, c.snd_nxt)) return drop(Drop::icmp_unverified);
  ++stats_.icmp_errors_in;
  const bool too_big = ipv6 ? type == 2 : (type == 3 && code == 4);
  if (too_big) {
    // A router of before RFC 1191 says 0: the next plateau below what we used.
    if (!ipv6 && mtu == 0) mtu = c.path_mtu > 1492 ? 1492 : c.path_mtu > 1006 ? 1006 : kFloor4;
    return lower_path_mtu(c, mtu);
  }
  if (c.state != State::kSynSent) return;
  int error = -EHOSTUNREACH;
  if (ipv6 ? code == 0 : (code == 0 || code == 6)) error = -ENETUNREACH;
  if (ipv6 ? code == 4 : (code == 2 || code == 3)) error = -ECONNREFUSED;
  reset(c, error);
}

uint16_t Stack::Machine::known_path_mtu(const IpAddress& to, uint32_t interface) const {
  const uint16_t own = interfaces_[interface].config.mtu;
  const auto at = path_mtus_.find(to);
  return at == path_mtus_.end() || at->second.until < now_ ? own : std::min(own, at->second.mtu);
}

void Stack::Machine::update_mss(Connection& c) {
  const uint32_t headers = count_of(c.flow);
  const uint32_t path = c.path_mtu > headers + kSmallestMss ? c.path_mtu - headers : kSmallestMss;
  const uint32_t mss = std::max<uint32_t>(std::min<uint32_t>(path, c.peer_mss), kSmallestMss);
  c.mss = static_cast<uint16_t>(mss - (c.timestamps ? 12 : 0));
}

void Stack::Machine::lower_path_mtu(Connection& c, uint32_t mtu) {
  mtu = std::max<uint32_t>(mtu, c.flow.local.is_v4() ? kFloor4 : kFloor6);
  if (mtu >= c.path_mtu) return;
  ++stats_.path_mtu_lowered;
  c.path_mtu = static_cast<uint16_t>(mtu);
  if (path_mtus_.size() >= kMaxPathMtus) path_mtus_.clear();
  path_mtus_[c.flow.remote] = {c.path_mtu, now_ + kPathMtuLife};
  const uint16_t old = c.mss;
  update_mss(c);
  if (c.mss >= old || c.out == nullptr || c.out->sent.empty()) return;
  // What was too big is lost for sure: sent again in smaller pieces, without blaming congestion.
  for (SentRange& range : c.out->sent) {
    if (range.bytes() > c.mss) c.out->sent.mark_lost(range);
  }
  if (c.recovery == Recovery::kNone) {
    c.recovery = Recovery::kTimeout;
    c.recovery_point = c.snd_nxt;
    c.can_undo = false;
  }
  c.force_one = true;
  mark_dirty(c);
}

void Stack::Machine::send_unreachable(const Packet& packet, const Frame& frame, uint8_t type4, uint8_t code4,
                                      uint8_t type6, uint8_t code6, uint32_t pointer) {
  if (!icmp_limit_.take(now_)) return;
  ++stats_.icmp_errors_out;
  MacAddress mac;
  std::memcpy(mac.data(), packet.source_mac, 6);
  const auto available = static_cast<uint32_t>(packet.body + packet.body_bytes - packet.network);
  if (packet.ipv6) {
    std::vector<uint8_t> body(8 + std::min(available, 1232u));
    body[0] = type6;
    body[1] = code6;
    store32(body.data() + 4, pointer);
    std::memcpy(body.data() + 8, packet.network, body.size() - 8);
    return send_icmpv6(frame.interface, mac, packet.destination_address(), packet.source_address(), body, 64);
  }
  uint8_t bytes[18 + 20 + 8 + 68] = {};
  OutFrame out;
  const uint32_t quoted = std::min(available, 68u);
  const uint32_t l2 = write_ethernet(bytes, frame.interface, mac, kEtherIpv4, out);
  write_ip(bytes + l2, packet.destination_address(), packet.source_address(), kProtocolIcmp, 8 + quoted, 0, 64, false);
  uint8_t* body = bytes + l2 + 20;
  body[0] = type4;
  body[1] = code4;
  std::memcpy(body + 8, packet.network, quoted);
  Checksum sum;
  sum.add(body, 8 + quoted);
  const uint16_t value = sum.final();
  std::memcpy(body + 2, &value, 2);
  emit_plain(frame.interface, {bytes, l2 + 28 + quoted}, out);
}

}  // namespace peregrine::net::tcp
