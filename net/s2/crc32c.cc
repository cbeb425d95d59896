#include "net/s2/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace peregrine::net::s2 {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // 0x1edc6f41, bits mirrored

// tables[k][b]: the remainder of byte b followed by k zero bytes, so that eight bytes take eight independent look-ups.
constexpr auto kTables = [] {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][b] = crc;
  }
  for (uint32_t b = 0; b < 256; ++b)
    for (size_t k = 1; k < 8; ++k) tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xff];
  return tables;
}();

#if defined(__x86_64__)
// Not the whole program is built for SSE 4.2; this function is, and is only called where it runs.
__attribute__((target("sse4.2"))) uint32_t crc32c_by_instruction(const void* bytes, size_t size) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  uint64_t crc = 0xffffffff;
  for (; size >= 8; at += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    crc = _mm_crc32_u64(crc, word);
  }
  auto rest = static_cast<uint32_t>(crc);
  for (; size > 0; ++at, --size) rest = _mm_crc32_u8(rest, *at);
  return ~rest;
}
const bool kHasInstruction = __builtin_cpu_supports("sse4.2");
#elif defined(__ARM_FEATURE_CRC32)
uint32_t crc32c_by_instruction(const void* bytes, size_t size) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  uint32_t crc = 0xffffffff;
  for (; size >= 8; at += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    crc = __crc32cd(crc, word);
  }
  for (; size > 0; ++at, --size) crc = __crc32cb(crc, *at);
  return ~crc;
}
constexpr bool kHasInstruction = true;
#else
uint32_t crc32c_by_instruction(const void* bytes, size_t size) { return crc32c_by_table(bytes, size); }
constexpr bool kHasInstruction = false;
#endif

}  // namespace

uint32_t crc32c_by_table(const void* bytes, size_t size) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  uint32_t crc = 0xffffffff;
  for (; size >= 8; at += 8, size -= 8) {
    crc = kTables[7][(crc ^ at[0]) & 0xff] ^ kTables[6][((crc >> 8) ^ at[1]) & 0xff] ^
          kTables[5][((crc >> 16) ^ at[2]) & 0xff] ^ kTables[4][((crc >> 24) ^ at[3]) & 0xff] ^ kTables[3][at[4]] ^
          kTables[2][at[5]] ^ kTables[1][at[6]] ^ kTables[0][at[7]];
  }
  for (; size > 0; ++at, --size) crc = (crc >> 8) ^ kTables[0][(crc ^ *at) & 0xff];
  return ~crc;
}

bool crc32c_has_instruction() { return kHasInstruction; }

uint32_t crc32c(const void* bytes, size_t size) {
  return kHasInstruction ? crc32c_by_instruction(bytes, size) : crc32c_by_table(bytes, size);
}

}  // namespace peregrine::net::s2
