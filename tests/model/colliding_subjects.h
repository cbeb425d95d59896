// Literal subjects that one key hashes alike, which takes knowing the key: for tests of what happens when other shards
// cannot tell two subjects apart.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/hash.h"

namespace peregrine::test {

// `count` (at most 26) subjects of 32 bytes that KeyedHash(k0, k1, domain) maps to one value. The hash folds two blocks
// of 16 bytes; the second half of the last one is made equal to the state before it, so that a factor is zero and the
// first half counts for nothing. KeyedHash keeps its seeds to itself: they are derived here as it does, and a caller
// should check that the hashes are equal.
inline std::vector<std::string> colliding_subjects(uint64_t k0, uint64_t k1, uint64_t domain, size_t count) {
  using core::fold_multiply;
  const uint64_t seed = fold_multiply(k0 ^ 0xB7E151628AED2A6BULL, domain ^ 0x9E3779B97F4A7C15ULL) ^ k1;
  const uint64_t first = fold_multiply(seed ^ 0x243F6A8885A308D3ULL, k1 ^ 0x13198A2E03707345ULL) ^ k0;
  const auto load = [](const char* from) {
    uint64_t word;
    std::memcpy(&word, from, sizeof(word));
    return word;
  };
  for (int n = 0;; ++n) {
    char head[17];
    std::snprintf(head, sizeof(head), "block%011d", n);
    const uint64_t state = fold_multiply(load(head) ^ first, load(head + 8) ^ seed);
    char tail[8];
    std::memcpy(tail, &state, sizeof(state));
    bool usable = true;
    for (const char c : tail) usable &= c > ' ' && c != '.' && c != '*' && c != '>';
    if (!usable) continue;
    std::vector<std::string> subjects;
    for (size_t i = 0; i < count; ++i)
      subjects.push_back(std::string(head, 16) + "subject" + static_cast<char>('a' + i) + std::string(tail, 8));
    return subjects;
  }
}

}  // namespace peregrine::test
