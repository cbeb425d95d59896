// Memory for bytes on their way out: chunks that belong to one outbox, and payloads that several outboxes share.
//
// Owned by one shard: every count here is a plain integer that only the home shard's thread touches. A payload that
// crosses to another shard keeps its home: the other shard wraps it (SharedBytes::origin) and hands that one reference
// back over the ring when its last outbox has let go (design.md section 3). Bounds: an outbox is bounded by
// max_pending; the free lists keep at most kFreeBytes, what is above goes back to the heap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <vector>

namespace peregrine::core {

// One contiguous piece of an outbox. Bytes [0, used) are filled; a send may be reading them while more are appended
// behind.
struct Chunk {
  uint32_t capacity;
  uint32_t used;
  char data[];
};

// A payload shared by reference. `refs` counts the outbox segments (and ring records) of this shard that point to it.
struct SharedBytes {
  uint32_t refs;
  uint32_t size;
  const char* data;     // behind this header, or inside `origin`'s block
  SharedBytes* origin;  // null: we own the bytes; else the block on shard `home` that does
  uint32_t home;        // the shard whose pool made the bytes
  uint32_t block = 0;   // it is a block of this capacity, to be used again
};

// Receives references that must travel home; implemented by the shard.
class ReleaseSink {
 public:
  virtual void release_to(uint32_t home, SharedBytes* origin) = 0;

 protected:
  ~ReleaseSink() = default;
};

class BufferPool {
 public:
  static constexpr uint32_t kTinyChunk = 512 - sizeof(Chunk);
  static constexpr uint32_t kSmallChunk = 4096 - sizeof(Chunk);
  static constexpr uint32_t kLargeChunk = 65536 - sizeof(Chunk);
  static constexpr uint32_t kBlock = 24576 - sizeof(SharedBytes);
  static constexpr size_t kFreeBytes = 8u << 20;
  static constexpr size_t kFreeTinyBytes = 1u << 20;

  BufferPool(uint32_t shard, ReleaseSink* sink) : shard_(shard), sink_(sink) {}
  ~BufferPool() {
    for (Chunk* chunk : free_tiny_) std::free(chunk);
    for (Chunk* chunk : free_small_) std::free(chunk);
    for (Chunk* chunk : free_large_) std::free(chunk);
    for (SharedBytes* block : free_blocks_) std::free(block);
  }
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  Chunk* take(uint32_t wanted) {
    return wanted <= kSmallChunk ? take_from(free_small_, kSmallChunk) : take_from(free_large_, kLargeChunk);
  }
  // For a line of our own to a connection that may never get more: thousands of them come at once when thousands
  // connect at once.
  Chunk* take_tiny() { return take_from(free_tiny_, kTinyChunk); }

  void give(Chunk* chunk) {
    bytes_in_use_ -= chunk->capacity;
    auto& free = chunk->capacity == kSmallChunk  ? free_small_
                 : chunk->capacity == kTinyChunk ? free_tiny_
                                                 : free_large_;
    if (free.size() * chunk->capacity >= (chunk->capacity == kTinyChunk ? kFreeTinyBytes : kFreeBytes)) {
      std::free(chunk);
    } else {
      free.push_back(chunk);
    }
  }

  // A copy of `bytes` with one reference.
  SharedBytes* share(std::string_view bytes) {
    auto* shared = static_cast<SharedBytes*>(std::malloc(sizeof(SharedBytes) + bytes.size()));
    if (shared == nullptr) throw std::bad_alloc();
    char* data = reinterpret_cast<char*>(shared + 1);
    std::memcpy(data, bytes.data(), bytes.size());
    *shared = {1, static_cast<uint32_t>(bytes.size()), data, nullptr, shard_, 0};
    return shared;
  }

  // Room for kBlock bytes, with one reference; whoever fills it sets `size` before others get to see it.
  SharedBytes* take_block() {
    SharedBytes* shared;
    if (!free_blocks_.empty()) {
      shared = free_blocks_.back();
      free_blocks_.pop_back();
    } else {
      shared = static_cast<SharedBytes*>(std::malloc(sizeof(SharedBytes) + kBlock));
      if (shared == nullptr) throw std::bad_alloc();
    }
    *shared = {1, kBlock, reinterpret_cast<char*>(shared + 1), nullptr, shard_, kBlock};
    return shared;
  }

  // This shard's handle, with one reference, on bytes that live on shard `home`.
  SharedBytes* wrap(SharedBytes* origin, uint32_t home) {
    auto* shared = static_cast<SharedBytes*>(std::malloc(sizeof(SharedBytes)));
    if (shared == nullptr) throw std::bad_alloc();
    *shared = {1, origin->size, origin->data, origin, home, 0};
    return shared;
  }

  void drop(SharedBytes* shared) {
    if (--shared->refs != 0) return;
    if (shared->origin != nullptr) sink_->release_to(shared->home, shared->origin);
    if (shared->block != 0 && free_blocks_.size() * kBlock < kFreeBytes) {
      free_blocks_.push_back(shared);
    } else {
      std::free(shared);
    }
  }

  size_t bytes_in_use() const { return bytes_in_use_; }

 private:
  // The chunk freed last comes first: its lines are the ones still in the cache.
  Chunk* take_from(std::vector<Chunk*>& free, uint32_t capacity) {
    Chunk* chunk;
    if (!free.empty()) {
      chunk = free.back();
      free.pop_back();
    } else {
      chunk = static_cast<Chunk*>(std::malloc(sizeof(Chunk) + capacity));
      if (chunk == nullptr) throw std::bad_alloc();
      chunk->capacity = capacity;
    }
    chunk->used = 0;
    bytes_in_use_ += chunk->capacity;
    return chunk;
  }

  uint32_t shard_;
  ReleaseSink* sink_;
  std::vector<Chunk*> free_tiny_, free_small_, free_large_;
  std::vector<SharedBytes*> free_blocks_;
  size_t bytes_in_use_ = 0;
};

}  // namespace peregrine::core
