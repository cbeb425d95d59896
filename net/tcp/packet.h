// Ethernet and IP of a received frame, taken apart (RFC 791, 8200; 802.1Q): everything below TCP, ICMP, ARP and ND.
//
// parse_packet() reads only [data, data + size) and either fills `out` or names the reason for the drop. Addresses are
// views into the frame. It judges form only; whether the packet is for us is the stack's question.
#pragma once

#include <cstdint>

#include "net/tcp/address.h"
#include "net/tcp/stack.h"
#include "net/tcp/stats.h"

namespace peregrine::net::tcp {

inline constexpr uint16_t kEtherIpv4 = 0x0800, kEtherArp = 0x0806, kEtherVlan = 0x8100, kEtherIpv6 = 0x86dd;
inline constexpr uint8_t kProtocolIcmp = 1, kProtocolTcp = 6, kProtocolIcmpv6 = 58;

struct Packet {
  const uint8_t* destination_mac = nullptr;
  const uint8_t* source_mac = nullptr;
  uint16_t ethertype = 0;
  uint16_t vlan = 0;  // id; 0 = untagged
  bool ipv6 = false;
  bool fragment = false;
  uint8_t protocol = 0;  // of IP
  uint8_t ecn = 0;       // RFC 3168: 3 = congestion experienced
  uint8_t hop_limit = 0;
  const uint8_t* source = nullptr;  // 4 or 16 bytes
  const uint8_t* destination = nullptr;
  const uint8_t* network = nullptr;  // the IP header, for ICMP errors that quote it
  const uint8_t* body = nullptr;     // behind Ethernet for ARP, behind IP and its extension headers else
  uint32_t body_bytes = 0;

  IpAddress source_address() const { return ipv6 ? IpAddress::v6(source) : IpAddress::v4(source); }
  IpAddress destination_address() const { return ipv6 ? IpAddress::v6(destination) : IpAddress::v4(destination); }
};

Drop parse_packet(const Frame& frame, Packet& out);

}  // namespace peregrine::net::tcp
