#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {

// 32-bit words into 64 bits: no carries to look after, and the compiler makes vectors of it.
__attribute__((always_inline)) inline uint64_t sum_of(const uint8_t* p, size_t words) {
  uint64_t sum = 0;
#pragma GCC unroll 8
  for (size_t i = 0; i < words; ++i) {
    uint32_t word;
    std::memcpy(&word, p + i * 4, 4);
    sum += word;
  }
  return sum;
}

// Long runs with the vectors this CPU has: the build is for any.
#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t sum_of_avx2(const uint8_t* p, size_t words) { return sum_of(p, words); }
const bool kAvx2 = __builtin_cpu_supports("avx2") != 0;
#else
uint64_t sum_of_avx2(const uint8_t* p, size_t words) { return sum_of(p, words); }
constexpr bool kAvx2 = false;
#endif
constexpr size_t kLongRun = 32;  // words

}  // namespace

void Checksum::add(const void* bytes, size_t size) {
  const auto* p = static_cast<const uint8_t*>(bytes);
  const size_t words = size / 4;
  uint64_t sum = words >= kLongRun && kAvx2 ? sum_of_avx2(p, words) : sum_of(p, words);
  p += words * 4;
  const size_t n = size % 4;
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
