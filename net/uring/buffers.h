// The receive memory of one shard: blocks given to the kernel through a provided-buffer ring, filled, handed up, and
// given again.
//
// Owned by uring::Backend and used on its thread; the ring memory itself is shared with the kernel. Every block is in
// one of three hands: the kernel's (given), the caller's (`held`: events not yet released, and bytes lent on; with
// incremental buffers the kernel may be filling the rest of it meanwhile), or idle. It is given again when the kernel
// is done with it and nobody holds it. Bound: when the caller keeps so many blocks that the kernel has less than a
// quarter of the ring left (or nothing), idle or new blocks step in, up to four times the ring and as many as may be
// lent on (kMostLentBytes); past that receiving stops until a release. Memory is touched as bytes arrive; of idle
// blocks kIdleBytes are kept, and all of it goes back in a lull (rest).
#pragma once

#include <liburing.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace peregrine::net::uring {

class Buffers {
 public:
  Buffers() = default;
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  // `entries`: a power of two up to 8192. Returns 0 or -errno. Ask once, before anything else.
  int open(io_uring* ring, uint16_t group, uint16_t entries, uint32_t block_bytes, bool incremental);
  ~Buffers();

  struct Filled {
    const char* data;
    uint16_t block;
  };
  // A receive completed with `bytes` >= 0 in block `block`; `more`: the kernel goes on filling it.
  Filled filled(uint16_t block, uint32_t bytes, bool more);
  void hold(uint16_t block) { ++blocks_[block].held; }
  void release(uint16_t block);
  // A hold that may last; false: too many blocks are held that way.
  bool lend(uint16_t block);
  void take_back(uint16_t block);
  // After filled() without hold(): nobody wants the bytes.
  void drop(uint16_t block) { give_if_idle(block); }

  // Of everything that nobody holds, the kernel's blocks included, the pages go back to the system. Only while the
  // kernel writes nothing and all that it wrote has been filled() in.
  void rest();

  bool empty() const { return given_ == 0; }  // the kernel has nothing to receive into

 private:
  struct Block {
    std::unique_ptr<char[]> memory;
    uint32_t used = 0;
    uint32_t held = 0;
    uint32_t lent = 0;  // of `held`
    bool given = false;
  };
  static constexpr size_t kMostLentBytes = 2u << 20;
  static constexpr size_t kIdleBytes = 1u << 20;

  void give(uint16_t block);
  void give_if_idle(uint16_t block);
  void give_reserve();

  io_uring_buf_ring* ring_ = nullptr;
  size_t ring_bytes_ = 0;
  uint16_t entries_ = 0;
  uint32_t block_bytes_ = 0;
  uint32_t given_ = 0;
  uint32_t lent_ = 0;  // blocks
  std::vector<Block> blocks_;
  std::vector<uint16_t> idle_;  // neither given nor held: the ring was full
};

}  // namespace peregrine::net::uring
