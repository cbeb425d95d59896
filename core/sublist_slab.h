// Memory for the index's entries: cells of 8-byte granularity, named by a 32-bit reference, so that a hash slot is 8 bytes.
//
// Chunks hold cells of one size and are given back to the system as soon as their last cell is freed. A class starts with 1 KiB
// chunks and doubles up to 512 KiB, so that a small account stays small. Cells above kMaxCellBytes (rare: very long subjects) are
// single allocations behind the same kind of reference. Cells never move. One owner thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace peregrine::core {

class EntrySlab {
 public:
  using Ref = uint32_t;  // 0 = none

  EntrySlab();
  ~EntrySlab();
  EntrySlab(const EntrySlab&) = delete;
  EntrySlab& operator=(const EntrySlab&) = delete;

  // Never returns 0; the cell is at least `bytes` long, 8-byte aligned, not cleared.
  Ref allocate(size_t bytes);
  void release(Ref ref, size_t bytes);  // `bytes` as given to allocate

  void* at(Ref ref) const {
    if (ref & kLarge) [[unlikely]] return large_[ref & ~kLarge];
    return bases_[ref >> kUnitBits] + size_t{ref & kUnitMask} * kUnit;
  }

  uint64_t memory_bytes() const;

 private:
  static constexpr size_t kUnit = 8;
  static constexpr uint32_t kUnitBits = 16;  // 512 KiB per chunk
  static constexpr uint32_t kUnitMask = (1u << kUnitBits) - 1;
  static constexpr size_t kMaxChunkBytes = kUnit << kUnitBits;
  static constexpr size_t kMinChunkBytes = 1024;
  static constexpr uint32_t kMaxChunks = 1u << 15;
  static constexpr Ref kLarge = 1u << 31;
  static constexpr size_t kMaxCellBytes = 512;
  static constexpr uint32_t kNone = ~0u;

  struct Chunk {
    uint32_t bytes = 0;
    uint32_t used_units = 0;   // cells are cut from the front first
    uint32_t live = 0;
    uint32_t free_unit = kNone;  // freed cells, linked through their first word
    uint32_t next = kNone;     // list of this class's chunks with room
    uint32_t previous = kNone;
    uint16_t cell_units = 0;
  };

  uint32_t add_chunk(uint32_t cell_units);
  void link(uint32_t index);
  void unlink(uint32_t index);
  bool has_room(const Chunk& chunk) const;

  std::vector<char*> bases_;
  std::vector<Chunk> chunks_;
  std::vector<uint32_t> spare_chunks_;  // indices without memory
  std::array<uint32_t, kMaxCellBytes / kUnit + 1> roomy_;
  std::array<uint32_t, kMaxCellBytes / kUnit + 1> class_chunks_{};
  std::vector<void*> large_;
  std::vector<uint32_t> spare_large_;
  uint64_t bytes_ = 0;
};

}  // namespace peregrine::core
