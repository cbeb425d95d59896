#include "core/huge_chunk.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace peregrine::core {
namespace {

#if !defined(__SANITIZE_ADDRESS__) && defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__)
// The leak checker looks for pointers in what malloc gave, and in nothing else.
void* map_chunk() { return std::aligned_alloc(kHugeChunkBytes, kHugeChunkBytes); }
void unmap_chunk(void* chunk) { std::free(chunk); }
#else
void* map_chunk() {
  void* const mapped =
      mmap(nullptr, 2 * kHugeChunkBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  // Twice as much has an aligned half somewhere; what is around it goes back.
  char* const from = static_cast<char*>(mapped);
  const size_t before = -reinterpret_cast<uintptr_t>(from) & (kHugeChunkBytes - 1);
  char* const chunk = from + before;
  if (before != 0) munmap(from, before);
  if (const size_t after = kHugeChunkBytes - before; after != 0) munmap(chunk + kHugeChunkBytes, after);
  madvise(chunk, kHugeChunkBytes, MADV_HUGEPAGE);  // a hint: refused where there are none
  return chunk;
}
void unmap_chunk(void* chunk) { munmap(chunk, kHugeChunkBytes); }
#endif

struct Spare {
  void* chunk = nullptr;
  ~Spare() {
    if (chunk != nullptr) unmap_chunk(chunk);
  }
};
thread_local Spare spare;

}  // namespace

void* allocate_huge_chunk() {
  if (spare.chunk != nullptr) return std::exchange(spare.chunk, nullptr);
  void* const chunk = map_chunk();
  if (chunk == nullptr) throw std::bad_alloc();
  return chunk;
}

void free_huge_chunk(void* chunk) {
  if (spare.chunk == nullptr) spare.chunk = chunk;
  else unmap_chunk(chunk);
}

}  // namespace peregrine::core
