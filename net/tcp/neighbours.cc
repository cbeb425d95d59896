// Who has which MAC: ARP (RFC 826, 5227's announcements) and Neighbour Discovery (RFC 4861) for static addresses.
//
// An entry exists because a connection of ours uses it (dialled, or accepted after the handshake proved the address):
// foreign packets update entries and never make any, so a flood of ARP or ND costs CPU, not memory. An entry nobody
// uses is dropped. Confirmation is by TCP's own progress (RFC 4861 section 7.3.1) or by an answer; after kReachable
// without either, a used entry is probed by unicast, three times a second apart, before it is asked for by broadcast
// again.
#include <cassert>
#include <cerrno>

#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {

constexpr int64_t kReachable = 30 * kSecond;
constexpr int64_t kRetry = kSecond;
constexpr uint8_t kProbes = 3;
constexpr MacAddress kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr uint8_t kSolicitation = 135, kAdvertisement = 136;
constexpr uint8_t kSolicited = 0x40, kOverride = 0x20;
constexpr IpAddress kAllNodes{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

IpAddress solicited_node(const IpAddress& target) {
  IpAddress group{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff}};
  std::memcpy(group.bytes.data() + 13, target.bytes.data() + 13, 3);
  return group;
}

MacAddress group_mac(const IpAddress& group) {  // RFC 2464 section 7
  return {0x33, 0x33, group.bytes[12], group.bytes[13], group.bytes[14], group.bytes[15]};
}

}  // namespace

// ---- The cache

uint32_t Stack::Machine::use_neighbour(uint32_t interface, const IpAddress& address) {
  const auto [at, fresh] = neighbour_by_address_.try_emplace(address, 0);
  if (fresh) {
    if (free_neighbours_.empty()) {
      neighbours_.emplace_back();
      at->second = static_cast<uint32_t>(neighbours_.size() - 1);
    } else {
      at->second = free_neighbours_.back();
      free_neighbours_.pop_back();
    }
    Neighbour& n = neighbours_[at->second];
    n.machine = this;
    n.index = at->second;
    n.address = address;
    n.interface = interface;
    n.state = Neighbour::State::kFailed;
    n.users = 0;
    n.probes = 0;
    n.confirmed_at = 0;
    ++stats_.neighbours;
  }
  ++neighbours_[at->second].users;
  return at->second;
}

void Stack::Machine::leave_neighbour(uint32_t index) {
  if (index == UINT32_MAX) return;
  Neighbour& n = neighbours_[index];
  if (--n.users > 0) return;
  n.timer.cancel();
  n.state = Neighbour::State::kFree;
  n.waiting.clear();
  n.waiting.shrink_to_fit();
  neighbour_by_address_.erase(n.address);
  free_neighbours_.push_back(index);
  --stats_.neighbours;
}

void Stack::Machine::learn(uint32_t interface, const IpAddress& address, const MacAddress& mac, bool solicited,
                           bool override) {
  const auto at = neighbour_by_address_.find(address);
  if (at == neighbour_by_address_.end()) return;
  Neighbour& n = neighbours_[at->second];
  if (n.interface != interface || (mac[0] & 1) != 0) return;
  if (n.usable() && n.mac != mac && !override) return;
  n.mac = mac;
  if (solicited || !n.usable()) n.confirmed_at = now_;
  n.state = Neighbour::State::kReachable;
  n.probes = 0;
  n.timer.cancel();
  std::vector<uint32_t> waiting;
  waiting.swap(n.waiting);
  for (const uint32_t id : waiting) {
    Connection* c = connections_[id].get();
    if (c == nullptr || !c->waits_for_neighbour) continue;
    c->waits_for_neighbour = false;
    mark_dirty(*c);
  }
}

void Stack::Machine::probe(Neighbour& n) {
  const bool unicast = n.state == Neighbour::State::kProbing;
  if (n.address.is_v4()) {
    IpAddress source;
    if (source_for(n.interface, n.address, source)) {
      ++stats_.arp_requests;
      send_arp(n.interface, true, unicast ? n.mac : kBroadcast, MacAddress{}, source.v4_bytes(), n.address.v4_bytes());
    }
  } else {
    ++stats_.nd_solicitations;
    send_solicitation(n.interface, n.address, unicast ? &n.mac : nullptr);
  }
  ++n.probes;
  wheel_.arm(n.timer, now_ + kRetry, &n, [](void* context) {
    auto* neighbour = static_cast<Neighbour*>(context);
    static_cast<Machine*>(neighbour->machine)->neighbour_timer(*neighbour);
  });
}

void Stack::Machine::neighbour_timer(Neighbour& n) {
  if (n.state == Neighbour::State::kReachable || n.state == Neighbour::State::kFailed) return;
  if (n.state == Neighbour::State::kProbing && now_ - n.confirmed_at < kReachable) {  // TCP got through meanwhile
    n.state = Neighbour::State::kReachable;
    n.probes = 0;
    return;
  }
  if (n.probes < kProbes) return probe(n);
  if (n.state == Neighbour::State::kProbing) {
    n.state = Neighbour::State::kIncomplete;
    n.probes = 0;
    return probe(n);
  }
  fail_neighbour(n);
}

void Stack::Machine::fail_neighbour(Neighbour& n) {
  ++stats_.neighbours_failed;
  n.state = Neighbour::State::kFailed;
  n.probes = 0;
  std::vector<uint32_t> waiting;
  waiting.swap(n.waiting);
  for (const uint32_t id : waiting) {
    Connection* c = connections_[id].get();
    if (c == nullptr || !c->waits_for_neighbour) continue;
    c->waits_for_neighbour = false;
    // A dial fails at once; for what is connected we ask again as long as it has something to send.
    if (c->state == State::kSynSent) {
      reset(*c, -EHOSTUNREACH);
    } else {
      mark_dirty(*c);
    }
  }
}

bool Stack::Machine::neighbour_ready(Connection& c, MacAddress& mac) {
  if (c.neighbour == UINT32_MAX) {
    IpAddress next_hop;
    uint32_t interface;
    if (on_link(c.interface, c.flow.remote) || !route(c.flow.remote, interface, next_hop)) next_hop = c.flow.remote;
    c.neighbour = use_neighbour(c.interface, next_hop);
  }
  Neighbour& n = neighbours_[c.neighbour];
  if (n.usable()) {
    if (n.state == Neighbour::State::kReachable && now_ - n.confirmed_at > kReachable) {
      n.state = Neighbour::State::kProbing;
      n.probes = 0;
      probe(n);
    }
    mac = n.mac;
    return true;
  }
  if (!c.waits_for_neighbour) {
    c.waits_for_neighbour = true;
    n.waiting.push_back(c.id);
  }
  if (n.state == Neighbour::State::kFailed) {
    n.state = Neighbour::State::kIncomplete;
    n.probes = 0;
    probe(n);
  }
  return false;
}

// ---- ARP

void Stack::Machine::send_arp(uint32_t interface, bool request, const MacAddress& ethernet_to,
                              const MacAddress& target_mac, const uint8_t* sender_ip, const uint8_t* target_ip) {
  uint8_t bytes[60] = {};
  OutFrame frame;
  const uint32_t l2 = write_ethernet(bytes, interface, ethernet_to, kEtherArp, frame);
  uint8_t* p = bytes + l2;
  store32(p, 0x00010800);  // Ethernet, IPv4
  store32(p + 4, 0x06040000 | (request ? 1u : 2u));
  std::memcpy(p + 8, interfaces_[interface].config.mac.data(), 6);
  std::memcpy(p + 14, sender_ip, 4);
  std::memcpy(p + 18, target_mac.data(), 6);
  std::memcpy(p + 24, target_ip, 4);
  emit_plain(interface, {bytes, l2 + 28}, frame);
}

void Stack::Machine::input_arp(const Packet& packet, const Frame& frame) {
  const uint8_t* p = packet.body;
  if (packet.body_bytes < 28 || load32(p) != 0x00010800 || load16(p + 4) != 0x0604) return drop(Drop::arp_malformed);
  const uint16_t operation = load16(p + 6);
  MacAddress sender_mac;
  std::memcpy(sender_mac.data(), p + 8, 6);
  const IpAddress sender = IpAddress::v4(p + 14), target = IpAddress::v4(p + 24);
  if (operation != 1 && operation != 2) return drop(Drop::arp_malformed);
  if ((sender_mac[0] & 1) != 0 || sender.is_multicast()) return drop(Drop::arp_malformed);
  if (owns(frame.interface, sender)) {
    // RFC 5227 section 2.4: somebody else speaks for our address. We defend it, within the limit.
    drop(Drop::arp_not_ours);
    if (sender_mac == interfaces_[frame.interface].config.mac || frame.overheard || !arp_limit_.take(now_)) return;
    ++stats_.arp_replies;
    return send_arp(frame.interface, true, kBroadcast, MacAddress{}, sender.v4_bytes(), sender.v4_bytes());
  }
  const bool for_us = owns(frame.interface, target);
  const bool gratuitous = sender == target;
  // Only what was addressed to us counts as an answer; what others say to all may correct an entry.
  if (!sender.is_unspecified() && on_link(frame.interface, sender) && (for_us || gratuitous)) {
    learn(frame.interface, sender, sender_mac, operation == 2 && for_us, true);
  }
  if (!for_us) {
    if (!gratuitous) drop(Drop::arp_not_ours);
    return;
  }
  if (operation != 1 || frame.overheard) return;
  if (!arp_limit_.take(now_)) return drop(Drop::arp_rate);
  ++stats_.arp_replies;
  send_arp(frame.interface, false, sender_mac, sender_mac, target.v4_bytes(), sender.v4_bytes());
}

// ---- Neighbour Discovery

void Stack::Machine::send_icmpv6(uint32_t interface, const MacAddress& mac, const IpAddress& from, const IpAddress& to,
                                 std::span<uint8_t> body, uint8_t hop_limit) {
  std::vector<uint8_t> bytes(18 + 40 + body.size());
  OutFrame frame;
  frame.ipv6 = true;
  const uint32_t l2 = write_ethernet(bytes.data(), interface, mac, kEtherIpv6, frame);
  store16(body.data() + 2, 0);
  Checksum sum;
  add_pseudo_header(sum, true, from.bytes.data(), to.bytes.data(), static_cast<uint32_t>(body.size()), kProtocolIcmpv6);
  sum.add(body.data(), body.size());
  const uint16_t value = sum.final();
  std::memcpy(body.data() + 2, &value, 2);
  write_ip(bytes.data() + l2, from, to, kProtocolIcmpv6, static_cast<uint32_t>(body.size()), 0, hop_limit, true);
  std::memcpy(bytes.data() + l2 + 40, body.data(), body.size());
  emit_plain(interface, {bytes.data(), l2 + 40 + body.size()}, frame);
}

void Stack::Machine::send_solicitation(uint32_t interface, const IpAddress& target, const MacAddress* unicast) {
  IpAddress source;
  if (!source_for(interface, target, source)) return;
  uint8_t body[32] = {kSolicitation};
  std::memcpy(body + 8, target.bytes.data(), 16);
  body[24] = 1;  // source link-layer address, one unit of eight bytes
  body[25] = 1;
  std::memcpy(body + 26, interfaces_[interface].config.mac.data(), 6);
  const IpAddress to = unicast != nullptr ? target : solicited_node(target);
  send_icmpv6(interface, unicast != nullptr ? *unicast : group_mac(to), source, to, body, 255);
}

void Stack::Machine::send_advertisement(uint32_t interface, const IpAddress& target, const IpAddress& to,
                                        const MacAddress& mac, bool solicited) {
  uint8_t body[32] = {kAdvertisement};
  body[4] = kOverride | (solicited ? kSolicited : 0);
  std::memcpy(body + 8, target.bytes.data(), 16);
  body[24] = 2;  // target link-layer address
  body[25] = 1;
  std::memcpy(body + 26, interfaces_[interface].config.mac.data(), 6);
  ++stats_.nd_advertisements;
  send_icmpv6(interface, mac, target, to, body, 255);
}

void Stack::Machine::input_nd(const Packet& packet, const Frame& frame) {
  const uint8_t* p = packet.body;
  const bool solicitation = p[0] == kSolicitation;
  // RFC 4861 section 7.1: hop limit 255 proves the link; code 0; 24 bytes; options of non-zero length.
  if (packet.hop_limit != 255 || p[1] != 0 || packet.body_bytes < 24) return drop(Drop::nd_malformed);
  const IpAddress target = IpAddress::v6(p + 8);
  if (target.is_multicast()) return drop(Drop::nd_malformed);
  const MacAddress* link = nullptr;
  MacAddress mac;
  for (uint32_t at = 24; at < packet.body_bytes;) {
    if (packet.body_bytes - at < 8 || p[at + 1] == 0 || p[at + 1] * 8u > packet.body_bytes - at) {
      return drop(Drop::nd_malformed);
    }
    if (p[at] == (solicitation ? 1 : 2) && p[at + 1] == 1) {
      std::memcpy(mac.data(), p + at + 2, 6);
      link = &mac;
    }
    at += p[at + 1] * 8u;
  }
  const IpAddress source = packet.source_address(), destination = packet.destination_address();
  if (!solicitation) {
    const uint8_t flags = p[4];
    if (destination.is_multicast() && (flags & kSolicited) != 0) return drop(Drop::nd_malformed);
    if (owns(frame.interface, target)) return drop(Drop::nd_not_ours);
    if (link != nullptr) learn(frame.interface, target, *link, (flags & kSolicited) != 0, (flags & kOverride) != 0);
    return;
  }
  if (source.is_unspecified() && (link != nullptr || !destination.is_multicast())) return drop(Drop::nd_malformed);
  if (!owns(frame.interface, target)) return drop(Drop::nd_not_ours);
  if (link != nullptr && !source.is_unspecified()) learn(frame.interface, source, *link, false, true);
  if (frame.overheard) return;
  if (!arp_limit_.take(now_)) return drop(Drop::arp_rate);
  if (source.is_unspecified()) {  // somebody tries our address: it is taken (RFC 4862)
    send_advertisement(frame.interface, target, kAllNodes, group_mac(kAllNodes), false);
  } else {
    MacAddress to;
    std::memcpy(to.data(), packet.source_mac, 6);
    send_advertisement(frame.interface, target, source, link != nullptr ? *link : to, true);
  }
}

void Stack::Machine::announce(uint32_t interface) {
  for (const InterfaceAddress& a : interfaces_[interface].config.addresses) {
    if (a.address.is_v4()) {  // RFC 5227 section 3: a request for our own address
      send_arp(interface, true, kBroadcast, MacAddress{}, a.address.v4_bytes(), a.address.v4_bytes());
    } else {
      send_advertisement(interface, a.address, kAllNodes, group_mac(kAllNodes), false);
    }
  }
}

}  // namespace peregrine::net::tcp
