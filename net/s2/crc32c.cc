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

// What a register becomes when so many zero bytes pass, by each of its bytes: joins what two strands have found.
template <size_t kZeros>
constexpr auto kShift = [] {
  static_assert((kZeros & (kZeros - 1)) == 0);
  // A zero bit's effect as a matrix, squared until it is that of kZeros bytes.
  std::array<uint32_t, 32> matrix{kPolynomial};
  for (size_t n = 1; n < 32; ++n) matrix[n] = uint32_t{1} << (n - 1);
  const auto times = [](const std::array<uint32_t, 32>& by, uint32_t bits) {
    uint32_t product = 0;
    for (size_t n = 0; bits != 0; bits >>= 1, ++n) product ^= (bits & 1) != 0 ? by[n] : 0;
    return product;
  };
  for (size_t bits = 1; bits < 8 * kZeros; bits *= 2) {
    std::array<uint32_t, 32> squared{};
    for (size_t n = 0; n < 32; ++n) squared[n] = times(matrix, matrix[n]);
    matrix = squared;
  }
  std::array<std::array<uint32_t, 256>, 4> tables{};
  for (uint32_t b = 0; b < 256; ++b)
    for (size_t k = 0; k < 4; ++k) tables[k][b] = times(matrix, b << (8 * k));
  return tables;
}();

template <size_t kZeros>
uint32_t shifted(uint32_t crc) {
  const auto& tables = kShift<kZeros>;
  return tables[0][crc & 0xff] ^ tables[1][(crc >> 8) & 0xff] ^ tables[2][(crc >> 16) & 0xff] ^ tables[3][crc >> 24];
}

// `crc` is the register here, not turned over.
#if defined(__x86_64__)
// Not the whole program is built for SSE 4.2; these functions are, and are only called where they run.
#define PEREGRINE_CRC __attribute__((target("sse4.2"), always_inline)) inline
PEREGRINE_CRC uint64_t take_word(uint64_t crc, const unsigned char* at) {
  uint64_t word;
  std::memcpy(&word, at, 8);
  return _mm_crc32_u64(crc, word);
}
PEREGRINE_CRC uint32_t take_byte(uint32_t crc, unsigned char byte) { return _mm_crc32_u8(crc, byte); }
#define PEREGRINE_CRC_ENTRY __attribute__((target("sse4.2")))
const bool kHasInstruction = __builtin_cpu_supports("sse4.2");
#elif defined(__ARM_FEATURE_CRC32)
#define PEREGRINE_CRC inline
PEREGRINE_CRC uint64_t take_word(uint64_t crc, const unsigned char* at) {
  uint64_t word;
  std::memcpy(&word, at, 8);
  return __crc32cd(static_cast<uint32_t>(crc), word);
}
PEREGRINE_CRC uint32_t take_byte(uint32_t crc, unsigned char byte) { return __crc32cb(crc, byte); }
#define PEREGRINE_CRC_ENTRY
constexpr bool kHasInstruction = true;
#else
uint32_t crc32c_by_instruction(const void* bytes, size_t size, uint32_t crc) {
  return crc32c_by_table(bytes, size, crc);
}
constexpr bool kHasInstruction = false;
#endif

#if defined(PEREGRINE_CRC)
// Three strands of kStrand bytes each, as long as there are that many.
template <size_t kStrand>
PEREGRINE_CRC uint32_t take_strands(uint32_t crc, const unsigned char*& at, size_t& size) {
  for (; size >= 3 * kStrand; at += 2 * kStrand, size -= 3 * kStrand) {
    uint64_t first = crc, second = 0, third = 0;
    for (const unsigned char* const end = at + kStrand; at < end; at += 8) {
      first = take_word(first, at);
      second = take_word(second, at + kStrand);
      third = take_word(third, at + 2 * kStrand);
    }
    crc = shifted<kStrand>(static_cast<uint32_t>(first)) ^ static_cast<uint32_t>(second);
    crc = shifted<kStrand>(crc) ^ static_cast<uint32_t>(third);
  }
  return crc;
}

PEREGRINE_CRC_ENTRY uint32_t crc32c_by_instruction(const void* bytes, size_t size, uint32_t before) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  uint32_t crc = ~before;
  crc = take_strands<2048>(crc, at, size);
  crc = take_strands<256>(crc, at, size);
  uint64_t words = crc;
  for (; size >= 8; at += 8, size -= 8) words = take_word(words, at);
  crc = static_cast<uint32_t>(words);
  for (; size > 0; ++at, --size) crc = take_byte(crc, *at);
  return ~crc;
}
#endif

}  // namespace

uint32_t crc32c_by_table(const void* bytes, size_t size, uint32_t before) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  uint32_t crc = ~before;
  for (; size >= 8; at += 8, size -= 8) {
    crc = kTables[7][(crc ^ at[0]) & 0xff] ^ kTables[6][((crc >> 8) ^ at[1]) & 0xff] ^
          kTables[5][((crc >> 16) ^ at[2]) & 0xff] ^ kTables[4][((crc >> 24) ^ at[3]) & 0xff] ^ kTables[3][at[4]] ^
          kTables[2][at[5]] ^ kTables[1][at[6]] ^ kTables[0][at[7]];
  }
  for (; size > 0; ++at, --size) crc = (crc >> 8) ^ kTables[0][(crc ^ *at) & 0xff];
  return ~crc;
}

bool crc32c_has_instruction() { return kHasInstruction; }

uint32_t crc32c(const void* bytes, size_t size, uint32_t crc) {
  return kHasInstruction ? crc32c_by_instruction(bytes, size, crc) : crc32c_by_table(bytes, size, crc);
}

}  // namespace peregrine::net::s2
