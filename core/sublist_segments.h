// Memory for the segments of hash tables (sublist_table.h): 1 to 8 pages of 8 KiB that never move.
//
// All segments of a table grow at about the same time. So what one size takes has to serve the next one: a segment goes
// wherever enough pages lie side by side, in the chunk with the fewest left, and what is emptied goes back to the
// system. (Chunks for one size each cost 6 bytes more for each of 500 000 slots.) The first chunks are small, each one
// at most half as large as all before it, so that what is begun and not used stays small beside what is; up to 2 MiB,
// which are huge pages where the system grants them (huge_chunk.h). Several tables of one owner may share it. One
// thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/huge_chunk.h"

namespace peregrine::core {

class SegmentSlab {
 public:
  using Ref = uint32_t;  // of a chunk; never 0
  static constexpr size_t kPage = 8192;
  static constexpr size_t kMost = 8 * kPage;

  SegmentSlab() = default;
  ~SegmentSlab();
  SegmentSlab(const SegmentSlab&) = delete;
  SegmentSlab& operator=(const SegmentSlab&) = delete;

  struct Piece {
    void* memory;  // kPage aligned, not cleared
    Ref ref;
  };
  // `bytes`: 1 to kMost.
  Piece allocate(size_t bytes);
  // The same `bytes`.
  void release(void* memory, Ref ref, size_t bytes);

  uint64_t memory_bytes() const { return bytes_ + chunks_.capacity() * sizeof(Chunk); }

 private:
  static constexpr size_t kSmallest = 2 * kMost;
  static constexpr uint32_t kWords = kHugeChunkBytes / kPage / 64;

  struct Chunk {
    char* base = nullptr;  // null: given back
    uint32_t pages = 0;
    uint32_t free = 0;
    uint32_t longest = 0;  // no run of free pages is longer
    std::array<uint64_t, kWords> taken{};
  };

  static constexpr uint32_t kNowhere = ~0u;
  static uint32_t pages_for(size_t bytes) { return static_cast<uint32_t>((bytes + kPage - 1) / kPage); }
  static uint32_t find_run(const Chunk& chunk, uint32_t pages);
  static void mark(Chunk& chunk, uint32_t at, uint32_t pages, bool taken);
  uint32_t add_chunk();

  std::vector<Chunk> chunks_;
  uint64_t bytes_ = 0;
};

}  // namespace peregrine::core
