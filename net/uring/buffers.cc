#include "net/uring/buffers.h"

#include <sys/mman.h>
#include <unistd.h>

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
    give(n);
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
    each.given = false;
    --given_;
    if (given_ < std::max(entries_ / 4u, 1u)) give_reserve();
  }
  return result;
}

void Buffers::release(uint16_t block) {
  --blocks_[block].held;
  give_if_idle(block);
}

bool Buffers::lend(uint16_t block) {
  Block& each = blocks_[block];
  if (each.lent == 0) {
    if (size_t{lent_} * block_bytes_ >= kMostLentBytes) return false;
    ++lent_;
  }
  ++each.lent;
  ++each.held;
  return true;
}

void Buffers::take_back(uint16_t block) {
  if (--blocks_[block].lent == 0) --lent_;
  release(block);
}

void Buffers::rest() {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (Block& each : blocks_) {
    if (each.held > 0 || each.memory == nullptr) continue;
    const auto memory = reinterpret_cast<uintptr_t>(each.memory.get());
    const uintptr_t from = (memory + page - 1) & ~(page - 1), to = (memory + block_bytes_) & ~(page - 1);
    if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
  }
}

void Buffers::give_if_idle(uint16_t block) {
  Block& each = blocks_[block];
  if (each.given || each.held > 0) return;
  if (given_ < entries_) return give(block);
  if (idle_.size() * block_bytes_ < kIdleBytes) return idle_.push_back(block);
  each.memory.reset();
  idle_.insert(idle_.begin(), block);
}

void Buffers::give(uint16_t block) {
  Block& each = blocks_[block];
  if (each.memory == nullptr) each.memory = std::make_unique_for_overwrite<char[]>(block_bytes_);
  each.used = 0;
  each.given = true;
  ++given_;
  io_uring_buf_ring_add(ring_, each.memory.get(), block_bytes_, block, io_uring_buf_ring_mask(entries_), 0);
  io_uring_buf_ring_advance(ring_, 1);
}

// Only called when the kernel runs short: the caller is holding blocks for longer than a turn.
void Buffers::give_reserve() {
  if (!idle_.empty()) {
    const uint16_t block = idle_.back();
    idle_.pop_back();
    return give(block);
  }
  if (blocks_.size() >= entries_ * 4u + kMostLentBytes / block_bytes_) return;
  blocks_.emplace_back();
  give(static_cast<uint16_t>(blocks_.size() - 1));
}

}  // namespace peregrine::net::uring
