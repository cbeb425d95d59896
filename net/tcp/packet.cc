#include "net/tcp/packet.h"

#include "net/tcp/segment.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {

Drop parse_ipv4(const uint8_t* ip, size_t size, bool checksum_good, Packet& out) {
  if (size < 20) return Drop::ipv4_truncated;
  if (ip[0] >> 4 != 4) return Drop::ipv4_version;
  const size_t header = (ip[0] & 15) * 4u;
  const size_t total = load16(ip + 2);
  if (header < 20 || header > size) return Drop::ipv4_header_length;
  if (total < header || total > size) return Drop::ipv4_truncated;  // behind `total` lies Ethernet's padding
  if (!checksum_good) {
    Checksum sum;
    sum.add(ip, header);
    if (!sum.good()) return Drop::ipv4_checksum;
  }
  out.source = ip + 12;
  out.destination = ip + 16;
  out.network = ip;
  out.ecn = ip[1] & 3;
  out.hop_limit = ip[8];
  out.protocol = ip[9];
  out.body = ip + header;
  out.body_bytes = static_cast<uint32_t>(total - header);
  if ((load16(ip + 6) & 0x3fff) != 0) {  // more fragments, or an offset
    out.fragment = true;
    return Drop::ipv4_fragment;
  }
  return kNotDropped;
}

Drop parse_ipv6(const uint8_t* ip, size_t size, Packet& out) {
  if (size < 40) return Drop::ipv6_truncated;
  if (ip[0] >> 4 != 6) return Drop::ipv6_version;
  const size_t length = load16(ip + 4);
  if (length > size - 40) return Drop::ipv6_truncated;
  out.ipv6 = true;
  out.source = ip + 8;
  out.destination = ip + 24;
  out.network = ip;
  out.ecn = (ip[1] >> 4) & 3;
  out.hop_limit = ip[7];
  const uint8_t* p = ip + 40;
  const uint8_t* end = p + length;
  uint8_t next = ip[6];
  // A handful of headers is more than honest senders use (RFC 8504 section 5.3 allows a limit).
  for (int headers = 0;; ++headers) {
    switch (next) {
      case kProtocolTcp:
      case kProtocolIcmpv6:
        out.protocol = next;
        out.body = p;
        out.body_bytes = static_cast<uint32_t>(end - p);
        return kNotDropped;
      case 44:
        out.fragment = true;
        return Drop::ipv6_fragment;
      case 0:     // hop-by-hop: only first
      case 43:    // routing
      case 60: {  // destination options
        if (headers >= 4 || end - p < 8 || (next == 0 && headers != 0)) return Drop::ipv6_extension;
        const size_t bytes = (p[1] + 1u) * 8;
        if (bytes > static_cast<size_t>(end - p)) return Drop::ipv6_extension;
        if (next == 43 && p[3] != 0) return Drop::ipv6_extension;  // we are not a router on anybody's list
        next = p[0];
        p += bytes;
        break;
      }
      default:
        return headers == 0 ? Drop::ipv6_protocol : Drop::ipv6_extension;
    }
  }
}

}  // namespace

Drop parse_packet(const Frame& frame, Packet& out) {
  if (frame.size < 14) return Drop::frame_too_short;
  const uint8_t* p = frame.data;
  out.destination_mac = p;
  out.source_mac = p + 6;
  out.ethertype = load16(p + 12);
  size_t header = 14;
  if (frame.vlan_stripped) out.vlan = frame.vlan_tci & 0xfff;
  if (out.ethertype == kEtherVlan) {
    if (frame.size < 18) return Drop::frame_too_short;
    if (frame.vlan_stripped) return Drop::vlan_mismatch;  // a tag within a tag
    out.vlan = load16(p + 14) & 0xfff;
    out.ethertype = load16(p + 16);
    header = 18;
  }
  p += header;
  const size_t size = frame.size - header;
  switch (out.ethertype) {
    case kEtherIpv4:
      return parse_ipv4(p, size, frame.ip_checksum_good, out);
    case kEtherIpv6:
      return parse_ipv6(p, size, out);
    case kEtherArp:
      out.body = p;
      out.body_bytes = static_cast<uint32_t>(size);
      return kNotDropped;
    default:
      return Drop::ethertype_unknown;
  }
}

FrameClass classify(const Frame& frame) {
  FrameClass result;
  Packet packet;
  Frame unchecked = frame;
  unchecked.ip_checksum_good = true;  // the owner verifies it; here only the way matters
  if (parse_packet(unchecked, packet) != kNotDropped || packet.protocol != kProtocolTcp || packet.body_bytes < 4) {
    return result;
  }
  result.tcp = true;
  result.flow = {packet.destination_address(), packet.source_address(), load16(packet.body + 2), load16(packet.body)};
  return result;
}

}  // namespace peregrine::net::tcp
