// Addresses and flows as the stack keeps them: 16 bytes, IPv4 in its mapped form (::ffff:a.b.c.d), network byte order.
// Plain values; ports are in host order.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

namespace peregrine::net::tcp {

using MacAddress = std::array<uint8_t, 6>;

struct IpAddress {
  std::array<uint8_t, 16> bytes{};

  // False leaves `out` alone. Numeric only: "10.0.0.1", "fd00::1" (no brackets, no zone).
  static bool parse(const std::string& text, IpAddress& out);
  static IpAddress v4(const uint8_t* four) {
    IpAddress address;
    address.bytes[10] = address.bytes[11] = 0xff;
    std::memcpy(address.bytes.data() + 12, four, 4);
    return address;
  }
  static IpAddress v6(const uint8_t* sixteen) {
    IpAddress address;
    std::memcpy(address.bytes.data(), sixteen, 16);
    return address;
  }

  bool is_v4() const {
    static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return std::memcmp(bytes.data(), kMapped, 12) == 0;
  }
  const uint8_t* v4_bytes() const { return bytes.data() + 12; }
  bool is_unspecified() const;  // 0.0.0.0 or ::
  bool is_multicast() const;    // 224/4, ff00::/8, and 255.255.255.255
  bool is_link_local() const;   // fe80::/10
  bool operator==(const IpAddress&) const = default;
  std::string text() const;
};

struct Flow {
  IpAddress local;
  IpAddress remote;
  uint16_t local_port = 0;
  uint16_t remote_port = 0;
  bool operator==(const Flow&) const = default;
};

}  // namespace peregrine::net::tcp
