#include "net/s2/block_encoder.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

namespace peregrine::net::s2 {
namespace {

static_assert(std::endian::native == std::endian::little, "hashes and match lengths take the low bytes for the first");

constexpr size_t kMinInput = 24;    // below it no match pays for its own bytes
constexpr size_t kTail = 8;         // positions so near to the end are literals: eight bytes are read at each
constexpr size_t kLongestTail = 8;  // bytes of one repeat or copy, at most

uint32_t load32(const unsigned char* at) {
  uint32_t value;
  std::memcpy(&value, at, 4);
  return value;
}

uint64_t load64(const unsigned char* at) {
  uint64_t value;
  std::memcpy(&value, at, 8);
  return value;
}

// Of the first six bytes of `value`, taken by shifting the other two out.
uint32_t hash_six(uint64_t value, int bits) {
  return static_cast<uint32_t>(((value << 16) * 0x9e3779b97f4a7c15ull) >> (64 - bits));
}

uint32_t hash_four(uint32_t value, int bits) { return (value * 0x9e3779b1u) >> (32 - bits); }

// How many bytes at `at` are those at `candidate`, up to `end`.
size_t match_length(const unsigned char* candidate, const unsigned char* at, const unsigned char* end) {
  const unsigned char* const start = at;
  while (end - at >= 8) {
    const uint64_t difference = load64(candidate) ^ load64(at);
    if (difference != 0) return static_cast<size_t>(at - start) + static_cast<size_t>(std::countr_zero(difference)) / 8;
    at += 8;
    candidate += 8;
  }
  while (at < end && *candidate == *at) ++candidate, ++at;
  return static_cast<size_t>(at - start);
}

// Writes the elements of one block; remembers the offset a repeat would have.
class Writer {
 public:
  Writer(unsigned char* to, size_t limit) : begin_(to), at_(to), end_(to + limit) {}

  void head(size_t size) {
    for (; size >= 0x80; size >>= 7) *at_++ = static_cast<unsigned char>(size | 0x80);
    *at_++ = static_cast<unsigned char>(size);
  }

  // False: it would not fit, the block is not worth it.
  bool literals(const unsigned char* from, size_t size) {
    if (size == 0) return true;
    if (static_cast<size_t>(end_ - at_) <= size + 4) return false;
    const size_t n = size - 1;
    if (n < 60) {
      *at_++ = static_cast<unsigned char>(n << 2 | kLiteral);
    } else if (n < 256) {
      *at_++ = 60 << 2 | kLiteral;
      *at_++ = static_cast<unsigned char>(n);
    } else {
      *at_++ = 61 << 2 | kLiteral;
      put16(n);
    }
    std::memcpy(at_, from, size);
    at_ += size;
    return true;
  }

  bool match(size_t offset, size_t length) {
    if (static_cast<size_t>(end_ - at_) <= kLongestTail) return false;
    if (offset == repeat_) {
      repeat(length);
      return true;
    }
    repeat_ = offset;
    size_t first = length;  // of them in the copy itself; a repeat takes the rest, at least 4
    if (offset < 2048 && (length < 12 || length > 64)) {
      if (length > 11) first = 8;
      *at_++ = static_cast<unsigned char>((offset >> 8) << 5 | (first - 4) << 2 | kCopy1);
      *at_++ = static_cast<unsigned char>(offset);
    } else {
      if (length > 64) first = 60;
      *at_++ = static_cast<unsigned char>((first - 1) << 2 | kCopy2);
      put16(offset);
    }
    if (length > first) repeat(length - first);
    return true;
  }

  size_t repeat_offset() const { return repeat_; }
  size_t size() const { return static_cast<size_t>(at_ - begin_); }

 private:
  void put16(size_t value) {
    *at_++ = static_cast<unsigned char>(value);
    *at_++ = static_cast<unsigned char>(value >> 8);
  }
  void repeat(size_t length) {  // length >= 4
    length -= 4;
    const auto tag = [](unsigned code) { return static_cast<unsigned char>(code << 2 | kCopy1); };
    if (length < 5) {
      *at_++ = tag(static_cast<unsigned>(length));
      *at_++ = 0;
    } else if (length < 4 + 256) {
      *at_++ = tag(5);
      *at_++ = 0;
      *at_++ = static_cast<unsigned char>(length - 4);
    } else {  // a block of ours holds no more than 16 bits can say
      *at_++ = tag(6);
      *at_++ = 0;
      put16(length - 256);
    }
  }

  unsigned char* const begin_;
  unsigned char* at_;
  unsigned char* const end_;
  size_t repeat_ = 0;
};

}  // namespace

size_t BlockEncoder::encode(Effort effort, std::string_view in, char* to, size_t limit) {
  assert(in.size() <= kMaxInput);
  if (in.size() < kMinInput || limit < kMinInput) return 0;
  begin(in.size());
  const auto* from = reinterpret_cast<const unsigned char*>(in.data());
  auto* out = reinterpret_cast<unsigned char*>(to);
  const size_t size = effort == Effort::kFast
                          ? encode_fast(from, in.size(), out, limit)
                          : encode_chained(from, in.size(), out, limit, effort == Effort::kBetter ? 8 : 64);
  base_ += static_cast<uint32_t>(in.size());
  return size;
}

// Every 65 thousand full blocks the count would wrap round: then, and only then, the tables are cleared.
void BlockEncoder::begin(size_t size) {
  if (base_ <= UINT32_MAX - size - kMaxInput) return;
  base_ = 1;
  if (latest_) std::fill_n(latest_.get(), size_t{1} << kFastBits, 0u);
  if (heads_) std::fill_n(heads_.get(), size_t{1} << kChainBits, 0u);
}

size_t BlockEncoder::encode_fast(const unsigned char* in, size_t size, unsigned char* to, size_t limit) {
  if (!latest_) latest_ = std::make_unique<uint32_t[]>(size_t{1} << kFastBits);
  uint32_t* const latest = latest_.get();
  const uint32_t base = base_;
  // Small inputs use a corner of the table, which stays in L1; the entries of larger ones there are old anyway.
  const int bits = std::clamp(static_cast<int>(std::bit_width(size)), 8, kFastBits);
  Writer out(to, limit);
  out.head(size);
  const unsigned char* const end = in + size;
  const size_t last = size - kTail;
  size_t at = 1, emitted = 0;
  latest[hash_six(load64(in), bits)] = base;
  while (at <= last) {
    const uint64_t here = load64(in + at);
    const uint32_t slot = hash_six(here, bits);
    const uint32_t seen = latest[slot];
    latest[slot] = base + static_cast<uint32_t>(at);
    size_t from;
    const size_t repeat = out.repeat_offset();
    if (repeat != 0 && repeat <= at && load32(in + at - repeat) == static_cast<uint32_t>(here)) {
      from = at - repeat;
    } else if (seen >= base && load32(in + (seen - base)) == static_cast<uint32_t>(here)) {
      from = seen - base;
    } else {
      at += 1 + ((at - emitted) >> 5);
      continue;
    }
    size_t start = at;
    while (start > emitted && from > 0 && in[start - 1] == in[from - 1]) --start, --from;
    const size_t length = match_length(in + from, in + start, end);
    if (!out.literals(in + emitted, start - emitted) || !out.match(start - from, length)) return 0;
    emitted = at = start + length;
    if (at <= last) {  // the places a match jumped over: two of them are remembered
      latest[hash_six(load64(in + at - 2), bits)] = base + static_cast<uint32_t>(at - 2);
      latest[hash_six(load64(in + at - 1), bits)] = base + static_cast<uint32_t>(at - 1);
    }
  }
  if (!out.literals(in + emitted, size - emitted)) return 0;
  return out.size() < limit ? out.size() : 0;
}

size_t BlockEncoder::encode_chained(const unsigned char* in, size_t size, unsigned char* to, size_t limit, int depth) {
  if (!heads_) {
    heads_ = std::make_unique<uint32_t[]>(size_t{1} << kChainBits);
    earlier_ = std::make_unique<uint32_t[]>(kMaxInput);
  }
  uint32_t* const heads = heads_.get();
  uint32_t* const earlier = earlier_.get();
  const uint32_t base = base_;
  const int bits = std::clamp(static_cast<int>(std::bit_width(size)), 8, kChainBits);
  Writer out(to, limit);
  out.head(size);
  const unsigned char* const end = in + size;
  const size_t last = size - kTail;
  size_t next_insert = 0;
  const auto insert_up_to = [&](size_t position) {  // this one excluded
    for (; next_insert < position && next_insert <= last; ++next_insert) {
      uint32_t& head = heads[hash_four(load32(in + next_insert), bits)];
      earlier[next_insert] = head;
      head = base + static_cast<uint32_t>(next_insert);
    }
  };
  struct Match {
    size_t from = 0, length = 0;
    int gain = 0;  // bytes saved against literals, by and large
  };
  const auto cost = [](size_t offset, size_t length) {
    return offset < 2048 && length < 12 ? 2 : length <= 64 ? 3 : 6;
  };
  const auto find = [&](size_t at) {
    insert_up_to(at);
    Match best;
    const auto consider = [&](size_t from, bool repeated) {
      const size_t length = match_length(in + from, in + at, end);
      if (length < 4) return;
      const int gain = static_cast<int>(length) - (repeated ? 2 : cost(at - from, length));
      if (gain > best.gain) best = {from, length, gain};
    };
    const size_t repeat = out.repeat_offset();
    if (repeat != 0 && repeat <= at) consider(at - repeat, true);
    uint32_t seen = heads[hash_four(load32(in + at), bits)];
    for (int left = depth; seen >= base && left > 0; --left) {
      const size_t from = seen - base;
      // Only what is longer than the best counts: look at the byte that would make it so.
      if (at + best.length >= size || in[from + best.length] == in[at + best.length]) consider(from, false);
      seen = earlier[from];
    }
    return best;
  };

  size_t at = 1, emitted = 0;
  while (at <= last) {
    Match match = find(at);
    if (match.gain <= 0) {
      at += 1 + ((at - emitted) >> 8);
      continue;
    }
    while (at < last) {  // one more literal for a better match
      const Match later = find(at + 1);
      if (later.gain <= match.gain + 1) break;
      match = later;
      ++at;
    }
    while (at > emitted && match.from > 0 && in[at - 1] == in[match.from - 1]) --at, --match.from, ++match.length;
    if (!out.literals(in + emitted, at - emitted) || !out.match(at - match.from, match.length)) return 0;
    emitted = at = at + match.length;
  }
  if (!out.literals(in + emitted, size - emitted)) return 0;
  return out.size() < limit ? out.size() : 0;
}

}  // namespace peregrine::net::s2
