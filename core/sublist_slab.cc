#include "core/sublist_slab.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <new>

namespace peregrine::core {
namespace {

void* allocate_cells(size_t bytes) {
  if (bytes == kMaxChunkBytes) return allocate_huge_chunk();
  void* chunk = std::malloc(bytes);
  if (chunk == nullptr) throw std::bad_alloc();
  return chunk;
}

void free_cells(void* chunk, size_t bytes) {
  if (bytes == kMaxChunkBytes) free_huge_chunk(chunk);
  else std::free(chunk);
}

}  // namespace

template <size_t kUnit, size_t kMaxCell, size_t kMinChunk>
Slab<kUnit, kMaxCell, kMinChunk>::~Slab() {
  for (size_t n = 0; n < bases_.size(); ++n) {
    if (bases_[n] != nullptr) free_cells(bases_[n], chunks_[n].bytes);
  }
  for (void* cell : large_) std::free(cell);
}

template <size_t kUnit, size_t kMaxCell, size_t kMinChunk>
uint32_t Slab<kUnit, kMaxCell, kMinChunk>::add_chunk(uint32_t cell_units) {
  uint32_t index;
  if (!spare_chunks_.empty()) {
    index = spare_chunks_.back();
    spare_chunks_.pop_back();
  } else {
    if (chunks_.size() == kMaxChunks) return kNone;
    index = static_cast<uint32_t>(chunks_.size());
    chunks_.emplace_back();
    bases_.push_back(nullptr);
  }
  const uint32_t doublings = std::min<uint32_t>(class_chunks_[cell_units], 20);
  const size_t bytes = std::min(kMinChunk << doublings, kMaxChunkBytes);
  bases_[index] = static_cast<char*>(allocate_cells(bytes));
  bytes_ += bytes;
  // Chunk 0 gives its first 8 bytes away so that no reference is 0.
  chunks_[index] = {.bytes = static_cast<uint32_t>(bytes),
                    .used_units = index == 0 ? uint32_t{8 / kUnit} : 0u,
                    .cell_units = static_cast<uint16_t>(cell_units)};
  class_chunks_[cell_units]++;
  link(index);
  return index;
}

template <size_t kUnit, size_t kMaxCell, size_t kMinChunk>
typename Slab<kUnit, kMaxCell, kMinChunk>::Ref Slab<kUnit, kMaxCell, kMinChunk>::allocate_new(size_t bytes) {
  if (bytes <= kMaxCell) [[likely]] {
    const auto cell_units = static_cast<uint32_t>((bytes + kUnit - 1) / kUnit);
    uint32_t index;
    while ((index = roomy_[cell_units]) != kNone && !has_room(chunks_[index])) unlink(index);
    if (index == kNone) index = add_chunk(cell_units);
    if (index != kNone) {
      Chunk& chunk = chunks_[index];
      uint32_t unit = chunk.free_unit;
      if (unit != kNone) {
        std::memcpy(&chunk.free_unit, bases_[index] + size_t{unit} * kUnit, sizeof(uint32_t));
      } else {
        unit = chunk.used_units;
        chunk.used_units += cell_units;
      }
      chunk.live++;
      return (index << kUnitBits) | unit;
    }
    // All 8 GiB of small cells are taken: what follows is slower, not wrong.
  }
  void* cell = std::malloc(bytes);
  if (cell == nullptr) throw std::bad_alloc();
  bytes_ += bytes;
  uint32_t index;
  if (!spare_large_.empty()) {
    index = spare_large_.back();
    spare_large_.pop_back();
    large_[index] = cell;
  } else {
    index = static_cast<uint32_t>(large_.size());
    large_.push_back(cell);
  }
  return kLarge | index;
}

template <size_t kUnit, size_t kMaxCell, size_t kMinChunk>
void Slab<kUnit, kMaxCell, kMinChunk>::release_slowly(Ref ref, size_t bytes) {
  if (ref & kLarge) {
    const uint32_t index = ref & ~kLarge;
    std::free(large_[index]);
    large_[index] = nullptr;
    spare_large_.push_back(index);
    bytes_ -= bytes;
    if (spare_large_.size() == large_.size()) {
      std::vector<void*>().swap(large_);
      std::vector<uint32_t>().swap(spare_large_);
    }
    return;
  }
  const uint32_t index = ref >> kUnitBits;
  const uint32_t unit = ref & kUnitMask;
  Chunk& chunk = chunks_[index];
  assert(chunk.live > 0);
  std::memcpy(bases_[index] + size_t{unit} * kUnit, &chunk.free_unit, sizeof(uint32_t));
  chunk.free_unit = unit;
  chunk.live--;
  if (!chunk.listed) link(index);
  if (chunk.live > 0) return;
  // One empty chunk of a class is kept while it is the only one with room, or a lone subscription that comes and goes
  // would allocate every time; it is small unless the class was large.
  if (chunk.bytes == kMinChunk && kMinChunk < kMaxChunkBytes) return;
  unlink(index);
  class_chunks_[chunk.cell_units]--;
  free_cells(bases_[index], chunk.bytes);
  bases_[index] = nullptr;
  bytes_ -= chunk.bytes;
  spare_chunks_.push_back(index);
}

template <size_t kUnit, size_t kMaxCell, size_t kMinChunk>
uint64_t Slab<kUnit, kMaxCell, kMinChunk>::memory_bytes() const {
  return bytes_ + bases_.capacity() * sizeof(char*) + chunks_.capacity() * sizeof(Chunk) +
         (spare_chunks_.capacity() + spare_large_.capacity()) * sizeof(uint32_t) + large_.capacity() * sizeof(void*);
}

template class Slab<4, 512, 1024>;

}  // namespace peregrine::core
