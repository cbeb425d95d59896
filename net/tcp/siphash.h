// SipHash-2-4 (Aumasson, Bernstein): the keyed function behind ISNs (RFC 6528), SYN cookies (RFC 4987) and timestamp
// offsets (RFC 7323 section 5.4). Their values are seen by peers, so a plain multiplicative hash would give its key
// away.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

namespace peregrine::net::tcp {

inline uint64_t siphash(const uint64_t key[2], std::span<const uint64_t> words) {
  uint64_t v0 = key[0] ^ 0x736f6d6570736575u, v1 = key[1] ^ 0x646f72616e646f6du;
  uint64_t v2 = key[0] ^ 0x6c7967656e657261u, v3 = key[1] ^ 0x7465646279746573u;
  const auto round = [&] {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  };
  for (const uint64_t word : words) {
    v3 ^= word;
    round();
    round();
    v0 ^= word;
  }
  const uint64_t last = static_cast<uint64_t>(words.size() * 8) << 56;
  v3 ^= last;
  round();
  round();
  v0 ^= last;
  v2 ^= 0xff;
  for (int i = 0; i < 4; ++i) round();
  return v0 ^ v1 ^ v2 ^ v3;
}

}  // namespace peregrine::net::tcp
