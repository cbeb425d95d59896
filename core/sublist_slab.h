// Memory for the index: cells that never move, named by a 32-bit reference, so that a hash slot is 8 bytes.
//
// Chunks hold cells of one size and are given back to the system as soon as their last cell is freed. A size starts
// with a small chunk and doubles up to 2 MiB, so that a small account stays small; chunks of 2 MiB are huge pages where
// the system grants them (huge_chunk.h; a random walk over a million subscriptions is bound by TLB misses: measured 1.5
// to 2.5 times faster). Cells above kMaxCell (rare: very long subjects) are single allocations behind the same kind of
// reference. One owner thread.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/huge_chunk.h"

namespace peregrine::core {

inline constexpr size_t kMaxChunkBytes = kHugeChunkBytes;

template <size_t kUnit, size_t kMaxCell, size_t kMinChunk>
class Slab {
 public:
  using Ref = uint32_t;  // 0 = none

  Slab() { roomy_.fill(kNone); }
  ~Slab();
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  // Never returns 0; the cell is at least `bytes` long, aligned to kUnit, to 8 if `bytes` is a multiple of it, not
  // cleared.
  [[gnu::always_inline]] Ref allocate(size_t bytes) {
    if (bytes <= kMaxCell) [[likely]] {
      const uint32_t index = roomy_[(bytes + kUnit - 1) / kUnit];
      if (index != kNone) [[likely]] {
        Chunk& chunk = chunks_[index];
        const uint32_t unit = chunk.free_unit;
        if (unit != kNone) {
          std::memcpy(&chunk.free_unit, bases_[index] + size_t{unit} * kUnit, sizeof(uint32_t));
          chunk.live++;
          return (index << kUnitBits) | unit;
        }
      }
    }
    return allocate_new(bytes);
  }
  // `bytes` as given to allocate.
  void release(Ref ref, size_t bytes) {
    if ((ref & kLarge) == 0) [[likely]] {
      const uint32_t index = ref >> kUnitBits, unit = ref & kUnitMask;
      Chunk& chunk = chunks_[index];
      // Not the last cell that goes.
      if (chunk.live > 1) [[likely]] {
        if (!chunk.listed) [[unlikely]]
          link(index);
        std::memcpy(bases_[index] + size_t{unit} * kUnit, &chunk.free_unit, sizeof(uint32_t));
        chunk.free_unit = unit;
        chunk.live--;
        return;
      }
    }
    release_slowly(ref, bytes);
  }

  void* at(Ref ref) const {
    if (ref & kLarge) [[unlikely]]
      return large_[ref & ~kLarge];
    return bases_[ref >> kUnitBits] + size_t{ref & kUnitMask} * kUnit;
  }

  uint64_t memory_bytes() const;

 private:
  static constexpr uint32_t kUnitBits = std::countr_zero(kMaxChunkBytes / kUnit);
  static constexpr uint32_t kUnitMask = (1u << kUnitBits) - 1;
  static constexpr uint32_t kMaxChunks = 1u << (31 - kUnitBits);
  static constexpr Ref kLarge = 1u << 31;
  static constexpr uint32_t kNone = ~0u;

  struct Chunk {
    uint32_t bytes = 0;
    uint32_t used_units = 0;  // cells are cut from the front first
    uint32_t live = 0;
    uint32_t free_unit = kNone;  // freed cells, linked through their first word
    uint32_t next = kNone;       // list of this class's chunks with room; a full one leaves it when that is noticed
    uint32_t previous = kNone;
    uint16_t cell_units = 0;
    bool listed = false;
  };

  Ref allocate_new(size_t bytes);
  void release_slowly(Ref ref, size_t bytes);
  uint32_t add_chunk(uint32_t cell_units);
  void link(uint32_t index) {
    Chunk& chunk = chunks_[index];
    chunk.listed = true;
    uint32_t& head = roomy_[chunk.cell_units];
    chunk.previous = kNone;
    chunk.next = head;
    if (head != kNone) chunks_[head].previous = index;
    head = index;
  }
  void unlink(uint32_t index) {
    Chunk& chunk = chunks_[index];
    chunk.listed = false;
    if (chunk.previous != kNone) chunks_[chunk.previous].next = chunk.next;
    else roomy_[chunk.cell_units] = chunk.next;
    if (chunk.next != kNone) chunks_[chunk.next].previous = chunk.previous;
    chunk.next = chunk.previous = kNone;
  }
  bool has_room(const Chunk& chunk) const {
    return chunk.free_unit != kNone || (size_t{chunk.used_units} + chunk.cell_units) * kUnit <= chunk.bytes;
  }

  std::vector<char*> bases_;
  std::vector<Chunk> chunks_;
  std::vector<uint32_t> spare_chunks_;  // indices without memory
  std::array<uint32_t, kMaxCell / kUnit + 1> roomy_;
  std::array<uint32_t, kMaxCell / kUnit + 1> class_chunks_{};
  std::vector<void*> large_;
  std::vector<uint32_t> spare_large_;
  uint64_t bytes_ = 0;
};

// The index's entries: a header and a subject.
using EntrySlab = Slab<4, 512, 1024>;
extern template class Slab<4, 512, 1024>;

}  // namespace peregrine::core
