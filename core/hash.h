// Keyed 64-bit hash for subjects and tokens.
//
// Subjects are chosen by attackers, so every seed comes from a per-process secret; with the same secret and domain (the
// account) two objects agree, in whatever shard they live. The construction is the multiply-and-fold one (64x64 -> 128
// bits, both halves xored): about 3 ns for the 10 to 30 bytes of a usual subject, no table, no byte loop. It is not a
// cryptographic hash: text is compared wherever a false hit would deliver a message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/bytes.h"

namespace peregrine::core {

inline uint64_t fold_multiply(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

class KeyedHash {
 public:
  KeyedHash(uint64_t k0, uint64_t k1, uint64_t domain) {
    // Odd constants (digits of e and pi) keep an all-zero test key from giving zero seeds.
    seed_ = fold_multiply(k0 ^ 0xB7E151628AED2A6BULL, domain ^ 0x9E3779B97F4A7C15ULL) ^ k1;
    first_ = fold_multiply(seed_ ^ 0x243F6A8885A308D3ULL, k1 ^ 0x13198A2E03707345ULL) ^ k0;
    last_ = fold_multiply(first_ ^ 0xA4093822299F31D1ULL, seed_ ^ 0x082EFA98EC4E6C89ULL) | 1;
  }

  // `salt` makes independent functions out of one key, e.g. one per token position.
  uint64_t operator()(std::string_view text, uint64_t salt = 0) const { return here(text, salt); }
  // The same, never a call.
  [[gnu::always_inline]] uint64_t here(std::string_view text, uint64_t salt = 0) const {
    const char* p = text.data();
    size_t n = text.size();
    uint64_t state = seed_ ^ salt;
    uint64_t a, b;
    if (n <= 16) {
      if (n >= 8) {
        a = load8(p);
        b = load8(p + n - 8);
      } else if (n >= 4) {
        a = load4(p);
        b = load4(p + n - 4);
      } else if (n > 0) {
        // First, middle and last byte: all of them for n <= 3.
        a = (uint64_t{byte(p[0])} << 16) | (uint64_t{byte(p[n >> 1])} << 8) | byte(p[n - 1]);
        b = 0;
      } else {
        a = b = 0;
      }
    } else {
      size_t left = n;
      do {
        state = fold_multiply(load8(p) ^ first_, load8(p + 8) ^ state);
        p += 16;
        left -= 16;
      } while (left > 16);
      a = load8(p + left - 16);
      b = load8(p + left - 8);
    }
    return fold_multiply(fold_multiply(a ^ first_, b ^ state) ^ n, last_);
  }

  // Order matters: combine(a, b) != combine(b, a).
  uint64_t combine(uint64_t a, uint64_t b) const {
    return fold_multiply(fold_multiply(a ^ first_, b ^ seed_) ^ b, last_);
  }

 private:
  static uint64_t load8(const char* p) {
    uint64_t value;
    std::memcpy(&value, p, 8);
    return value;
  }
  static uint64_t load4(const char* p) {
    uint32_t value;
    std::memcpy(&value, p, 4);
    return value;
  }
  static uint8_t byte(char c) { return static_cast<uint8_t>(c); }

  uint64_t seed_;
  uint64_t first_;
  uint64_t last_;
};

}  // namespace peregrine::core
