#include "core/sublist_segments.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace peregrine::core {

SegmentSlab::~SegmentSlab() {
  for (const Chunk& chunk : chunks_) {
    if (chunk.base != nullptr) free_chunk(chunk.base, size_t{chunk.pages} * kPage);
  }
}

// The first of so many free pages side by side, or kNowhere.
uint32_t SegmentSlab::find_run(const Chunk& chunk, uint32_t pages) {
  uint32_t run = 0;
  for (uint32_t at = 0; at < chunk.pages;) {
    const uint64_t word = chunk.taken[at / 64] >> (at % 64);
    const uint32_t left = std::min(64 - at % 64, chunk.pages - at);
    const uint32_t free = std::min<uint32_t>(static_cast<uint32_t>(std::countr_zero(word)), left);
    run += free;
    if (run >= pages) return at + free - run;
    at += free;
    if (free == left) continue;
    run = 0;
    at += std::min<uint32_t>(static_cast<uint32_t>(std::countr_one(word >> free)), left - free);
  }
  return kNowhere;
}

void SegmentSlab::mark(Chunk& chunk, uint32_t at, uint32_t pages, bool taken) {
  for (uint32_t page = at; page < at + pages; ++page) {
    const uint64_t bit = uint64_t{1} << (page % 64);
    assert(((chunk.taken[page / 64] & bit) != 0) != taken);
    chunk.taken[page / 64] ^= bit;
  }
  if (taken) chunk.free -= pages;
  else chunk.free += pages;
}

uint32_t SegmentSlab::add_chunk() {
  uint32_t index = 0;
  while (index < chunks_.size() && chunks_[index].base != nullptr) ++index;
  if (index == chunks_.size()) chunks_.emplace_back();
  const size_t bytes = std::clamp<size_t>(std::bit_floor(bytes_ / 2), kSmallest, kHugeChunkBytes);
  const auto pages = static_cast<uint32_t>(bytes / kPage);
  chunks_[index] = {.base = static_cast<char*>(allocate_chunk(bytes)), .pages = pages, .free = pages, .longest = pages};
  bytes_ += bytes;
  return index;
}

SegmentSlab::Piece SegmentSlab::allocate(size_t bytes) {
  assert(bytes > 0 && bytes <= kMost);
  const uint32_t pages = pages_for(bytes);
  uint32_t best = kNowhere, best_at = 0;
  for (uint32_t index = 0; index < chunks_.size(); ++index) {
    Chunk& chunk = chunks_[index];
    if (chunk.base == nullptr || chunk.longest < pages) continue;
    if (best != kNowhere && chunk.free >= chunks_[best].free) continue;
    const uint32_t at = find_run(chunk, pages);
    if (at == kNowhere) {
      chunk.longest = pages - 1;
      continue;
    }
    best = index;
    best_at = at;
  }
  if (best == kNowhere) {
    best = add_chunk();
    best_at = 0;
  }
  Chunk& chunk = chunks_[best];
  mark(chunk, best_at, pages, true);
  return {chunk.base + best_at * kPage, best + 1};
}

void SegmentSlab::release(void* memory, Ref ref, size_t bytes) {
  Chunk& chunk = chunks_[ref - 1];
  mark(chunk, static_cast<uint32_t>((static_cast<char*>(memory) - chunk.base) / kPage), pages_for(bytes), false);
  chunk.longest = chunk.pages;
  if (chunk.free < chunk.pages) return;
  const size_t size = size_t{chunk.pages} * kPage;
  free_chunk(chunk.base, size);
  bytes_ -= size;
  chunk.base = nullptr;
  while (!chunks_.empty() && chunks_.back().base == nullptr) chunks_.pop_back();
}

}  // namespace peregrine::core
