#include "net/tcp/address.h"

#include <arpa/inet.h>

#include <algorithm>

namespace peregrine::net::tcp {

bool IpAddress::parse(const std::string& text, IpAddress& out) {
  uint8_t raw[16];
  if (inet_pton(AF_INET, text.c_str(), raw) == 1) {
    out = v4(raw);
    return true;
  }
  if (inet_pton(AF_INET6, text.c_str(), raw) == 1) {
    out = v6(raw);
    return true;
  }
  return false;
}

bool IpAddress::is_unspecified() const {
  const size_t from = is_v4() ? 12 : 0;
  return std::all_of(bytes.begin() + from, bytes.end(), [](uint8_t b) { return b == 0; });
}

bool IpAddress::is_multicast() const {
  if (!is_v4()) return bytes[0] == 0xff;
  return (bytes[12] & 0xf0) == 0xe0 || (bytes[12] & bytes[13] & bytes[14] & bytes[15]) == 0xff;
}

bool IpAddress::is_link_local() const { return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80; }

std::string IpAddress::text() const {
  char buffer[INET6_ADDRSTRLEN];
  if (is_v4()) return inet_ntop(AF_INET, v4_bytes(), buffer, sizeof(buffer));
  return inet_ntop(AF_INET6, bytes.data(), buffer, sizeof(buffer));
}

}  // namespace peregrine::net::tcp
