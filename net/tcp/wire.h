// Reading and writing network byte order at any alignment, sequence numbers, and the Internet checksum (RFC 1071).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace peregrine::net::tcp {

inline uint16_t load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }
inline uint32_t load32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, 4);
  return __builtin_bswap32(value);
}
inline void store16(uint8_t* p, uint32_t value) {
  p[0] = static_cast<uint8_t>(value >> 8);
  p[1] = static_cast<uint8_t>(value);
}
inline void store32(uint8_t* p, uint32_t value) {
  value = __builtin_bswap32(value);
  std::memcpy(p, &value, 4);
}

// RFC 9293 section 3.4: comparisons are modulo 2^32. True for distances below 2^31.
inline bool before(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }
inline bool after(uint32_t a, uint32_t b) { return before(b, a); }
inline bool at_or_before(uint32_t a, uint32_t b) { return !after(a, b); }
inline uint32_t later(uint32_t a, uint32_t b) { return before(a, b) ? b : a; }
inline uint32_t earlier(uint32_t a, uint32_t b) { return before(a, b) ? a : b; }

// Adds up pieces that may be odd in length. Words are taken in the machine's order: the sum is the same up to a byte
// swap, which storing it back undoes.
class Checksum {
 public:
  void add(const void* bytes, size_t size);
  void add16(uint32_t host_order) {
    sum_ += std::endian::native == std::endian::little ? swap16(host_order) : host_order;
  }

  uint16_t folded() const {  // in memory order: store it with memcpy
    uint64_t sum = sum_;
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(sum);
  }
  uint16_t final() const { return static_cast<uint16_t>(~folded()); }
  bool good() const { return folded() == 0xffff; }  // over bytes that include their checksum

 private:
  static uint32_t swap16(uint32_t v) { return (v & 0xff) << 8 | ((v >> 8) & 0xff); }
  uint64_t sum_ = 0;
  bool odd_ = false;
};

// TCP and ICMPv6: addresses, length and protocol in front of the segment.
void add_pseudo_header(Checksum& sum, bool ipv6, const uint8_t* source, const uint8_t* destination, uint32_t length,
                       uint8_t protocol);

}  // namespace peregrine::net::tcp
