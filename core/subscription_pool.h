// Memory for the subscriptions of one shard, each also named by 32 bits, so that a session's table of sids takes 8
// bytes a slot.
//
// Blocks of 64 KiB, aligned to their size: an address tells its block, and the block's first cell its number. The first
// few come one by one, then 32 at a time in a huge chunk: a message to one of a million waits for memory, not for the
// TLB too. Freed cells are used again, blocks are kept. Owned by a shard, its thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "core/huge_chunk.h"
#include "core/subscription.h"

namespace peregrine::core {

class SubscriptionPool {
 public:
  using Ref = uint32_t;  // 0 = none

  SubscriptionPool() = default;
  SubscriptionPool(const SubscriptionPool&) = delete;
  SubscriptionPool& operator=(const SubscriptionPool&) = delete;
  // What lives in it has been released before.
  ~SubscriptionPool() {
    for (size_t n = 0; n < blocks_.size() && n < kSingleBlocks; ++n) std::free(blocks_[n]);
    for (size_t n = kSingleBlocks; n < blocks_.size(); n += kBlocksInChunk) free_huge_chunk(blocks_[n]);
  }

  // Uninitialised memory for one.
  void* allocate() {
    if (free_ != nullptr) {
      void* const cell = free_;
      std::memcpy(&free_, cell, sizeof(free_));
      return cell;
    }
    if (next_ == kCells) add_block();
    return blocks_[block_] + sizeof(Subscription) * next_++;
  }
  void release(void* cell) {
    std::memcpy(cell, &free_, sizeof(free_));
    free_ = cell;
  }

  Subscription* at(Ref ref) const {
    return reinterpret_cast<Subscription*>(blocks_[ref >> kCellBits] + sizeof(Subscription) * (ref & kCellMask));
  }
  static Ref ref_of(const Subscription* sub) {
    const auto address = reinterpret_cast<uintptr_t>(sub);
    uint32_t number;
    std::memcpy(&number, reinterpret_cast<const void*>(address & ~uintptr_t{kBlockBytes - 1}), sizeof(number));
    return number << kCellBits | static_cast<uint32_t>((address & (kBlockBytes - 1)) / sizeof(Subscription));
  }

 private:
  static constexpr size_t kBlockBytes = 65536;
  static constexpr uint32_t kCellBits = 11;
  static constexpr uint32_t kCellMask = (1u << kCellBits) - 1;
  static constexpr uint32_t kCells = kBlockBytes / sizeof(Subscription);
  static_assert(kCells - 1 <= kCellMask);
  static constexpr size_t kSingleBlocks = 8;
  static constexpr size_t kBlocksInChunk = kHugeChunkBytes / kBlockBytes;

  void add_block() {
    if (block_ + 1 >= blocks_.size()) {
      if (blocks_.size() < kSingleBlocks) {
        void* const block = std::aligned_alloc(kBlockBytes, kBlockBytes);
        if (block == nullptr) throw std::bad_alloc();
        blocks_.push_back(static_cast<char*>(block));
      } else {
        blocks_.reserve(blocks_.size() + kBlocksInChunk);
        char* const chunk = static_cast<char*>(allocate_huge_chunk());
        for (size_t n = 0; n < kBlocksInChunk; ++n) blocks_.push_back(chunk + n * kBlockBytes);
      }
    }
    block_ = blocks_.size() == 1 ? 0 : block_ + 1;
    const auto number = static_cast<uint32_t>(block_);
    std::memcpy(blocks_[block_], &number, sizeof(number));
    next_ = 1;
  }

  std::vector<char*> blocks_;  // index = number
  size_t block_ = 0;           // cells are cut from this one,
  uint32_t next_ = kCells;     // from here on; the first cell of a block holds its number
  void* free_ = nullptr;       // linked through their first word
};

}  // namespace peregrine::core
