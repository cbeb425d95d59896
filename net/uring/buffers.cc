#include "net/uring/buffers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "net/uring/probe.h"

namespace peregrine::net::uring {

int Buffers::open(io_uring* ring, uint16_t group, uint16_t entries, uint32_t block_bytes, bool incremental) {
  entries_ = entries;
  block_bytes_ = block_bytes;
  ring_bytes_ = entries * sizeof(io_uring_buf);
  void* memory = mmap(nullptr, ring_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return -errno;
  ring_ = static_cast<io_uring_buf_ring*>(memory);
  io_uring_buf_reg reg{};
  reg.ring_addr = reinterpret_cast<uintptr_t>(memory);
  reg.ring_entries = entries;
  reg.bgid = group;
  reg.pad = incremental ? kBufferRingIncremental : 0;  // named `flags` in newer headers
  if (const int error = io_uring_register_buf_ring(ring, &reg, 0); error != 0) return error;
  io_uring_buf_ring_init(ring_);
  blocks_.resize(entries);
  for (uint16_t n = 0; n < entries; ++n) {
    blocks_[n].memory = std::make_unique_for_overwrite<char[]>(block_bytes_);
    lend(n);
  }
  return 0;
}

Buffers::~Buffers() {
  if (ring_ != nullptr) munmap(ring_, ring_bytes_);
}

Buffers::Filled Buffers::filled(uint16_t block, uint32_t bytes, bool more) {
  Block& each = blocks_[block];
  const Filled result{each.memory.get() + each.used, block};
  each.used += bytes;
  if (!more) {
    each.lent = false;
    --lent_;
    if (lent_ < std::max(entries_ / 4u, 1u)) lend_reserve();
  }
  return result;
}

void Buffers::release(uint16_t block) {
  --blocks_[block].held;
  lend_if_idle(block);
}

void Buffers::lend_if_idle(uint16_t block) {
  const Block& each = blocks_[block];
  if (each.lent || each.held > 0) return;
  if (lent_ < entries_) {
    lend(block);
  } else {
    idle_.push_back(block);
  }
}

void Buffers::lend(uint16_t block) {
  Block& each = blocks_[block];
  each.used = 0;
  each.lent = true;
  ++lent_;
  io_uring_buf_ring_add(ring_, each.memory.get(), block_bytes_, block, io_uring_buf_ring_mask(entries_), 0);
  io_uring_buf_ring_advance(ring_, 1);
}

// Only called when the kernel runs short: the caller is holding blocks for longer than a turn.
void Buffers::lend_reserve() {
  if (!idle_.empty()) {
    const uint16_t block = idle_.back();
    idle_.pop_back();
    return lend(block);
  }
  if (blocks_.size() >= entries_ * 4u) return;
  blocks_.emplace_back();
  blocks_.back().memory = std::make_unique_for_overwrite<char[]>(block_bytes_);
  lend(static_cast<uint16_t>(blocks_.size() - 1));
}

}  // namespace peregrine::net::uring
