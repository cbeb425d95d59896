// Bytes -> one compressed S2 block, at three efforts.
//
// Owned by one shard and used by all its sessions in turn: a block starts afresh, so the tables of one are of no use to
// the next, and they are never cleared either: what they hold is older than `base_`, which shows. Allocates when an
// effort is used for the first time (64 KiB for kFast, 384 KiB for the other two), never again.
//
// kFast: one candidate per position, by a hash of six bytes, and quicker steps where nothing is found. kBetter and
// kBest: the last 8 or 64 positions with the same four bytes, and a look at the next position before a match is taken.
// They use S2's repeats and offsets up to the block's beginning.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "net/s2/format.h"

namespace peregrine::net::s2 {

enum class Effort : uint8_t { kFast, kBetter, kBest };

class BlockEncoder {
 public:
  // What we put into one block; less than S2 allows, so that positions in a block fit in 16 bits and the tables in L2.
  static constexpr size_t kMaxInput = 64u << 10;

  // Writes the block, its head included, to `to`, unless it would take `limit` bytes or more; returns its size, or 0.
  // `in` holds 1 to kMaxInput bytes.
  size_t encode(Effort effort, std::string_view in, char* to, size_t limit);

 private:
  static constexpr int kFastBits = 14;
  static constexpr int kChainBits = 15;
  size_t encode_fast(const unsigned char* in, size_t size, unsigned char* to, size_t limit);
  size_t encode_chained(const unsigned char* in, size_t size, unsigned char* to, size_t limit, int depth);
  void begin(size_t size);

  uint32_t base_ = 1;  // position 0 of this block, as the tables count; all entries below it are of earlier blocks
  std::unique_ptr<uint32_t[]> latest_;   // kFast: hash -> position
  std::unique_ptr<uint32_t[]> heads_;    // the others: hash -> last position,
  std::unique_ptr<uint32_t[]> earlier_;  // position in the block -> the one before it with that hash
};

}  // namespace peregrine::net::s2
