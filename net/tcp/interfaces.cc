// Addresses, routes, and the way out: Ethernet (802.1Q), IPv4 (RFC 791) and IPv6 (RFC 8200) headers, checksums in
// software unless the interface does them.
#include <cassert>
#include <cerrno>

#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {

bool same_prefix(const IpAddress& a, const IpAddress& b, unsigned bits) {
  const unsigned bytes = bits / 8;
  if (std::memcmp(a.bytes.data(), b.bytes.data(), bytes) != 0) return false;
  if (bits % 8 == 0) return true;
  const auto mask = static_cast<uint8_t>(0xff << (8 - bits % 8));
  return ((a.bytes[bytes] ^ b.bytes[bytes]) & mask) == 0;
}

bool covers(const InterfaceAddress& mine, const IpAddress& other) {
  if (mine.address.is_v4() != other.is_v4()) return false;
  return same_prefix(mine.address, other, mine.address.is_v4() ? 96u + mine.prefix : mine.prefix);
}

IpAddress link_local(const MacAddress& mac) {  // RFC 4291 appendix A
  IpAddress address;
  address.bytes = {0xfe, 0x80, 0, 0, 0, 0, 0, 0};
  address.bytes[8] = mac[0] ^ 2;
  address.bytes[9] = mac[1];
  address.bytes[10] = mac[2];
  address.bytes[11] = 0xff;
  address.bytes[12] = 0xfe;
  std::memcpy(address.bytes.data() + 13, mac.data() + 3, 3);
  return address;
}

}  // namespace

int Stack::Machine::add_interface(const Interface& interface, bool announce) {
  bool any_v6 = false, any_local = false;
  for (const InterfaceAddress& a : interface.addresses) {
    if (a.prefix > (a.address.is_v4() ? 32 : 128) || a.address.is_multicast() || a.address.is_unspecified()) {
      return -EINVAL;
    }
    any_v6 |= !a.address.is_v4();
    any_local |= a.address.is_link_local();
  }
  if (interface.addresses.empty() || interface.max_views == 0 || interface.vlan > 4094) return -EINVAL;
  if (interface.mtu < (any_v6 ? 1280 : 128) || interface.mtu > 9216) return -EINVAL;
  if (interface.tso_bytes != 0 && !interface.checksum_offload) return -EINVAL;
  InterfaceState state;
  state.config = interface;
  state.announce_due = announce;
  if (any_v6 && !any_local) state.config.addresses.push_back({link_local(interface.mac), 64});
  interfaces_.push_back(std::move(state));
  return static_cast<int>(interfaces_.size() - 1);
}

void Stack::Machine::set_link(uint32_t interface, bool up) {
  InterfaceState& state = interfaces_[interface];
  if (state.up == up) return;
  state.up = up;
  if (!up) return;
  state.announce_due = true;
  for (auto& c : connections_) {
    if (c == nullptr || c->interface != interface) continue;
    // What was lost with the cable is sent again now, not when the backed-off timer would have come round.
    c->backoff = 0;
    if (c->rto_at != 0) c->rto_at = now_ + kMillisecond;
    schedule(*c);
    mark_dirty(*c);
  }
}

bool Stack::Machine::is_local(const IpAddress& address) const {
  for (uint32_t i = 0; i < interfaces_.size(); ++i) {
    if (owns(i, address)) return true;
  }
  return false;
}

bool Stack::Machine::owns(uint32_t interface, const IpAddress& address) const {
  for (const InterfaceAddress& a : interfaces_[interface].config.addresses) {
    if (a.address == address) return true;
  }
  return false;
}

bool Stack::Machine::on_link(uint32_t interface, const IpAddress& address) const {
  for (const InterfaceAddress& a : interfaces_[interface].config.addresses) {
    if (covers(a, address)) return true;
  }
  return false;
}

bool Stack::Machine::route(const IpAddress& to, uint32_t& interface, IpAddress& next_hop) const {
  int best = -1;
  for (uint32_t i = 0; i < interfaces_.size(); ++i) {
    for (const InterfaceAddress& a : interfaces_[i].config.addresses) {
      if (a.prefix > best && covers(a, to)) {
        best = a.prefix;
        interface = i;
      }
    }
  }
  if (best >= 0) {
    next_hop = to;
    return true;
  }
  for (uint32_t i = 0; i < interfaces_.size(); ++i) {
    const Interface& config = interfaces_[i].config;
    const auto& gateway = to.is_v4() ? config.gateway4 : config.gateway6;
    if (!gateway) continue;
    interface = i;
    next_hop = *gateway;
    return true;
  }
  return false;
}

bool Stack::Machine::source_for(uint32_t interface, const IpAddress& to, IpAddress& source) const {
  const InterfaceAddress* best = nullptr;
  for (const InterfaceAddress& a : interfaces_[interface].config.addresses) {
    if (a.address.is_v4() != to.is_v4()) continue;
    if (!to.is_v4() && a.address.is_link_local() != to.is_link_local()) {
      if (best == nullptr) best = &a;  // better a link-local source than none
      continue;
    }
    if (covers(a, to)) {
      source = a.address;
      return true;
    }
    if (best == nullptr || best->address.is_link_local()) best = &a;
  }
  if (best == nullptr) return false;
  source = best->address;
  return true;
}

uint32_t Stack::Machine::write_ethernet(uint8_t* out, uint32_t interface, const MacAddress& to, uint16_t ethertype,
                                        OutFrame& frame) {
  const Interface& config = interfaces_[interface].config;
  std::memcpy(out, to.data(), 6);
  std::memcpy(out + 6, config.mac.data(), 6);
  uint32_t size = 12;
  if (config.vlan != 0) {
    if (config.vlan_offload) {
      frame.vlan_tci = config.vlan;
    } else {
      store16(out + 12, kEtherVlan);
      store16(out + 14, config.vlan);
      size = 16;
    }
  }
  store16(out + size, ethertype);
  frame.interface = interface;
  frame.l2_bytes = static_cast<uint8_t>(size + 2);
  return size + 2;
}

uint32_t Stack::Machine::write_ip(uint8_t* out, const IpAddress& from, const IpAddress& to, uint8_t protocol,
                                  uint32_t body_bytes, uint8_t ecn, uint8_t hop_limit, bool leave_checksum) {
  if (from.is_v4()) {
    out[0] = 0x45;
    out[1] = ecn;
    store16(out + 2, 20 + body_bytes);
    store32(out + 4, 0x00004000);  // DF, and so no identification (RFC 6864)
    out[8] = hop_limit;
    out[9] = protocol;
    store16(out + 10, 0);
    std::memcpy(out + 12, from.v4_bytes(), 4);
    std::memcpy(out + 16, to.v4_bytes(), 4);
    if (!leave_checksum) {
      Checksum sum;
      sum.add(out, 20);
      const uint16_t value = sum.final();
      std::memcpy(out + 10, &value, 2);
    }
    return 20;
  }
  store32(out, 6u << 28 | uint32_t{ecn} << 20);
  store16(out + 4, body_bytes);
  out[6] = protocol;
  out[7] = hop_limit;
  std::memcpy(out + 8, from.bytes.data(), 16);
  std::memcpy(out + 24, to.bytes.data(), 16);
  return 40;
}

bool Stack::Machine::emit_tcp(uint32_t interface, const MacAddress& to, const IpAddress& from, const IpAddress& remote,
                              const HeaderFields& fields, uint8_t ecn, const TcpPayload& payload) {
  const InterfaceState& state = interfaces_[interface];
  // Without a cable, frames would only fill the port's ring: to TCP they are lost on the way.
  if (!state.up) return true;
  const bool offload = state.config.checksum_offload;
  const bool v4 = from.is_v4();
  uint8_t headers[Port::kMaxHeaders];
  OutFrame frame;
  const uint32_t l2 = write_ethernet(headers, interface, to, v4 ? kEtherIpv4 : kEtherIpv6, frame);
  const uint32_t l3 = v4 ? 20 : 40;
  uint8_t* tcp = headers + l2 + l3;
  const uint32_t l4 = write_header(tcp, fields);
  // The length field of a TSO frame is the NIC's to write; it cannot hold the whole anyway when that is above 64 KiB.
  const uint32_t body = l4 + payload.bytes;
  write_ip(headers + l2, from, remote, kProtocolTcp, body, ecn, 64, offload);
  Checksum sum;
  add_pseudo_header(sum, !v4, v4 ? from.v4_bytes() : from.bytes.data(), v4 ? remote.v4_bytes() : remote.bytes.data(),
                    payload.segment_bytes != 0 ? 0 : body, kProtocolTcp);
  uint16_t value;
  if (offload) {
    value = sum.folded();
  } else {
    sum.add(tcp, l4);
    for (uint32_t i = 0; i < payload.count; ++i) sum.add(payload.views[i].data, payload.views[i].size);
    value = sum.final();
  }
  std::memcpy(tcp + 16, &value, 2);
  frame.headers = {headers, l2 + l3 + l4};
  frame.payload = {payload.views, payload.count};
  frame.payload_bytes = payload.bytes;
  frame.segment_bytes = payload.segment_bytes;
  frame.checksum_offload = offload;
  frame.ipv6 = !v4;
  frame.tcp = true;
  frame.l3_bytes = static_cast<uint8_t>(l3);
  frame.l4_bytes = static_cast<uint8_t>(l4);
  if (!port_.transmit(frame)) {
    ++stats_.transmit_refused;
    port_full_ = true;
    return false;
  }
  ++stats_.frames_out;
  stats_.segments_out +=
      payload.segment_bytes == 0 ? 1 : (payload.bytes + payload.segment_bytes - 1) / payload.segment_bytes;
  return true;
}

bool Stack::Machine::emit_plain(uint32_t interface, std::span<const uint8_t> bytes, OutFrame& frame) {
  if (!interfaces_[interface].up) return true;
  frame.headers = bytes;
  if (!port_.transmit(frame)) {
    ++stats_.transmit_refused;
    return false;
  }
  ++stats_.frames_out;
  return true;
}

}  // namespace peregrine::net::tcp
