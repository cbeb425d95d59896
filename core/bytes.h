// Copying and comparing short pieces of text without a call: subjects, sids and lines are on every message's way. Pure
// functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace peregrine::core {

// Writes `from` to `to` and steps over it.
[[gnu::always_inline]] inline char* put(char* to, std::string_view from) {
  const char* const p = from.data();
  const size_t n = from.size();
  // Most pieces are short: two overlapping words, of a long subject four, and no call.
  if (n > 64) {
    std::memcpy(to, p, n);
  } else if (n > 32) {
    std::memcpy(to, p, 32);
    std::memcpy(to + n - 32, p + n - 32, 32);
  } else if (n >= 16) {
    std::memcpy(to, p, 16);
    std::memcpy(to + n - 16, p + n - 16, 16);
  } else if (n >= 8) {
    std::memcpy(to, p, 8);
    std::memcpy(to + n - 8, p + n - 8, 8);
  } else if (n >= 4) {
    std::memcpy(to, p, 4);
    std::memcpy(to + n - 4, p + n - 4, 4);
  } else if (n > 0) {
    const char middle = p[n / 2], last = p[n - 1];
    to[0] = p[0];
    to[n / 2] = middle;
    to[n - 1] = last;
  }
  return to + n;
}

// Copies `size` bytes in words of 16; reads and writes up to 15 more.
[[gnu::always_inline]] inline void copy_loosely(char* to, const char* from, size_t size) {
  size_t at = 0;
  do {
    std::memcpy(to + at, from + at, 16);
    at += 16;
  } while (at < size);
}

// memcmp() == 0 without the call: subjects are short, and comparing one is on every message's way.
[[gnu::always_inline]] inline bool same_bytes(const char* a, const char* b, size_t n) {
  const auto load = [](const char* p, auto word) {
    std::memcpy(&word, p, sizeof(word));
    return word;
  };
  if (n >= 16) {
    if (n > 64) [[unlikely]]
      return std::memcmp(a, b, n) == 0;
    unsigned __int128 differing = 0;
    using Wide = unsigned __int128;
    for (size_t at = 0; at + 16 < n; at += 16) differing |= load(a + at, Wide{}) ^ load(b + at, Wide{});
    return (differing | (load(a + n - 16, Wide{}) ^ load(b + n - 16, Wide{}))) == 0;
  }
  if (n >= 8) {
    return ((load(a, uint64_t{}) ^ load(b, uint64_t{})) |
            (load(a + n - 8, uint64_t{}) ^ load(b + n - 8, uint64_t{}))) == 0;
  }
  if (n >= 4) {
    return ((load(a, uint32_t{}) ^ load(b, uint32_t{})) |
            (load(a + n - 4, uint32_t{}) ^ load(b + n - 4, uint32_t{}))) == 0;
  }
  return n == 0 || (a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1]);
}

}  // namespace peregrine::core
