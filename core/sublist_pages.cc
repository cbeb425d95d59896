#include "core/sublist_pages.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace peregrine::core {

PageSlab::~PageSlab() {
  for (const Chunk& chunk : chunks_) {
    if (chunk.base != nullptr) free_chunk(chunk.base, chunk.pages * kPage);
  }
}

PageSlab::Chunk& PageSlab::add_chunk() {
  auto at = std::find_if(chunks_.begin(), chunks_.end(), [](const Chunk& each) { return each.base == nullptr; });
  if (at == chunks_.end()) at = chunks_.emplace(at);
  const size_t bytes = std::clamp<size_t>(std::bit_floor(bytes_ / 4), kSmallest, kHugeChunkBytes);
  const auto pages = static_cast<uint32_t>(bytes / kPage);
  *at = {.base = static_cast<char*>(allocate_chunk(bytes)), .pages = pages, .free = pages};
  bytes_ += bytes;
  return *at;
}

void* PageSlab::allocate() {
  Chunk* best = nullptr;
  for (Chunk& chunk : chunks_) {
    if (chunk.free != 0 && (best == nullptr || chunk.free < best->free)) best = &chunk;
  }
  if (best == nullptr) best = &add_chunk();
  uint32_t word = 0;
  while (best->taken[word] == ~uint64_t{0}) ++word;
  const auto bit = static_cast<uint32_t>(std::countr_one(best->taken[word]));
  best->taken[word] |= uint64_t{1} << bit;
  best->free--;
  return best->base + (word * 64 + bit) * kPage;
}

void PageSlab::release(void* page) {
  const auto within = [&](const Chunk& chunk) {
    return static_cast<size_t>(static_cast<char*>(page) - chunk.base) < chunk.pages * kPage && chunk.base != nullptr;
  };
  const auto chunk = std::find_if(chunks_.begin(), chunks_.end(), within);
  assert(chunk != chunks_.end());
  const size_t at = static_cast<size_t>(static_cast<char*>(page) - chunk->base) / kPage;
  assert((chunk->taken[at / 64] >> (at % 64) & 1) != 0);
  chunk->taken[at / 64] &= ~(uint64_t{1} << (at % 64));
  if (++chunk->free < chunk->pages) return;
  const size_t bytes = chunk->pages * kPage;
  free_chunk(chunk->base, bytes);
  bytes_ -= bytes;
  *chunk = {};
  while (!chunks_.empty() && chunks_.back().base == nullptr) chunks_.pop_back();
}

}  // namespace peregrine::core
