// The receive memory of one shard: blocks lent to the kernel through a provided-buffer ring, filled, handed up, and
// lent again.
//
// Owned by uring::Backend and used on its thread; the ring memory itself is shared with the kernel. Every block is in
// one of three hands: the kernel's (lent), the caller's (`held` events not yet released; with incremental buffers the
// kernel may be filling the rest of it meanwhile), or idle. It is lent again when the kernel is done with it and nobody
// holds it.
// Bound: when the caller keeps so many blocks that the kernel has less than a quarter of the ring left (or nothing),
// idle or new blocks step in, up to four times the ring; past that receiving stops until a release. Memory is touched
// as bytes arrive.
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
  // After filled() without hold(): nobody wants the bytes.
  void drop(uint16_t block) { lend_if_idle(block); }

  bool empty() const { return lent_ == 0; }  // the kernel has nothing to receive into

 private:
  struct Block {
    std::unique_ptr<char[]> memory;
    uint32_t used = 0;
    uint32_t held = 0;
    bool lent = false;
  };

  void lend(uint16_t block);
  void lend_if_idle(uint16_t block);
  void lend_reserve();

  io_uring_buf_ring* ring_ = nullptr;
  size_t ring_bytes_ = 0;
  uint16_t entries_ = 0;
  uint32_t block_bytes_ = 0;
  uint32_t lent_ = 0;
  std::vector<Block> blocks_;
  std::vector<uint16_t> idle_;  // neither lent nor held: the ring was full
};

}  // namespace peregrine::net::uring
