// Memory for hash tables (sublist_table.h): pages of 4 KiB that never move.
//
// All segments of a table grow at about the same time, so what they leave has to serve the next ones. Side by side a
// larger segment would not fit where a smaller one was (measured: a quarter of the memory was such holes); as single
// pages anything fits. A page is taken from the chunk with the fewest left, and a chunk that is empty goes back to the
// system. The first chunks are small, each one at most a quarter as large as all before it, so that what is begun and
// not used stays small beside what is; up to 2 MiB, which are huge pages where the system grants them (huge_chunk.h).
// Several tables of one owner may share it. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/huge_chunk.h"

namespace peregrine::core {

class PageSlab {
 public:
  static constexpr size_t kPage = 4096;

  PageSlab() = default;
  ~PageSlab();
  PageSlab(const PageSlab&) = delete;
  PageSlab& operator=(const PageSlab&) = delete;

  void* allocate();  // kPage bytes, aligned to them, not cleared
  void release(void* page);

  uint64_t memory_bytes() const { return bytes_ + chunks_.capacity() * sizeof(Chunk); }

 private:
  static constexpr size_t kSmallest = 8 * kPage;
  static constexpr uint32_t kWords = kHugeChunkBytes / kPage / 64;

  struct Chunk {
    char* base = nullptr;  // null: given back
    uint32_t pages = 0;
    uint32_t free = 0;
    std::array<uint64_t, kWords> taken{};
  };

  Chunk& add_chunk();

  std::vector<Chunk> chunks_;
  uint64_t bytes_ = 0;
};

}  // namespace peregrine::core
