#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

void Checksum::add(const void* bytes, size_t size) {
  const auto* p = static_cast<const uint8_t*>(bytes);
  uint64_t sum = 0;
  size_t n = size;
  // 32-bit words into 64 bits: no carries to look after, and the compiler makes vectors of it.
  while (n >= 4) {
    const size_t words = n / 4;
    for (size_t i = 0; i < words; ++i) {
      uint32_t word;
      std::memcpy(&word, p + i * 4, 4);
      sum += word;
    }
    p += words * 4;
    n -= words * 4;
  }
  uint8_t tail[4] = {};
  if (n > 0) {
    std::memcpy(tail, p, n);
    uint32_t word;
    std::memcpy(&word, tail, 4);
    sum += word;
  }
  if (odd_) {
    // This piece begins in the middle of a word: its bytes are the other halves.
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = swap16(static_cast<uint32_t>(sum));
  }
  sum_ = (sum_ & 0xffffffff) + (sum_ >> 32) + (sum & 0xffffffff) + (sum >> 32);
  odd_ ^= (size & 1) != 0;
}

void add_pseudo_header(Checksum& sum, bool ipv6, const uint8_t* source, const uint8_t* destination, uint32_t length,
                       uint8_t protocol) {
  const size_t size = ipv6 ? 16 : 4;
  sum.add(source, size);
  sum.add(destination, size);
  sum.add16(length >> 16);
  sum.add16(length & 0xffff);
  sum.add16(protocol);
}

}  // namespace peregrine::net::tcp
