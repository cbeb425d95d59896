// Memory for bytes on their way out: chunks that belong to one outbox, payloads that several outboxes share, and
// received bytes that are sent on from where they lie.
//
// Owned by one shard: every count here is a plain integer that only the home shard's thread touches. A payload that
// crosses to another shard keeps its home: the other shard wraps it (SharedBytes::origin) and hands that one reference
// back over the ring when its last outbox has let go (design.md section 3). Received memory is the backend's (Lender):
// it is lent as a whole, one handle for each event that is read, and taken back with the last reference. Bounds: an
// outbox is bounded by max_pending; what may be lent by the lender, who refuses when it is too much, and then bytes are
// copied; the free lists keep at most kFreeBytes, what is above goes back to the heap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <utility>
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
  const char* data;                 // behind this header, or inside `origin`'s block
  SharedBytes* origin;              // null: we own the bytes; else the block on shard `home` that does
  uint32_t home;                    // the shard whose pool made the bytes
  uint32_t block = 0;               // it is a block of this capacity, to be used again
  uint32_t token = 0;               // the lender's name for the memory
  bool lent = false;                // received bytes: `data` is all of the event, and the lender gets it back
  std::string* gathered = nullptr;  // received in pieces; goes with the last reference
};

// Whose memory received bytes lie in; implemented by the backend.
class Lender {
 public:
  // True: the memory named by `token` stays as it is until take_back(token), once for every true. False: too much is
  // lent already, copy the bytes.
  virtual bool lend(uint32_t token) = 0;
  virtual void take_back(uint32_t token) = 0;

 protected:
  ~Lender() = default;
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
  static constexpr size_t kFreeHandles = 1024;
  // Received payloads from this size on are sent from where they lie, to outboxes that hold no more than that: who
  // takes nothing for long is not to keep received memory from being used again.
  static constexpr size_t kReferFrom = 2048;
  static constexpr size_t kReferBelow = 256 * 1024;

  BufferPool(uint32_t shard, ReleaseSink* sink) : shard_(shard), sink_(sink) {}
  ~BufferPool() {
    for (Chunk* chunk : free_tiny_) std::free(chunk);
    for (Chunk* chunk : free_small_) std::free(chunk);
    for (Chunk* chunk : free_large_) std::free(chunk);
    for (SharedBytes* block : free_blocks_) std::free(block);
    for (SharedBytes* handle : free_handles_) std::free(handle);
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
  SharedBytes* wrap(SharedBytes* origin, std::string_view bytes, uint32_t home) {
    SharedBytes* shared = take_handle();
    *shared = {1, static_cast<uint32_t>(bytes.size()), bytes.data(), origin, home};
    return shared;
  }

  // --- received bytes, by reference ---
  // Null (as at first): nothing is lent, and what still is will not be asked for.
  void set_lender(Lender* lender) { lender_ = lender; }
  // From now on `bytes` are read, which lie in the lender's memory `token` and stay for as long as they are read.
  void begin_reading(std::string_view bytes, uint32_t token) { reading_ = {bytes, token, lender_ != nullptr, nullptr}; }
  // The same for bytes another shard has lent; `handle` (wrap) comes with one reference.
  void begin_reading(SharedBytes* handle) { reading_ = {{handle->data, handle->size}, 0, true, handle}; }
  void end_reading() {
    if (reading_.handle != nullptr) drop(reading_.handle);
    reading_ = {};
  }
  size_t reading_bytes() const { return reading_.bytes.size(); }

  // What is being read, and the handle on it once somebody asked.
  struct Reading {
    std::string_view bytes;
    uint32_t token = 0;
    bool may_borrow = false;
    SharedBytes* handle = nullptr;
  };
  // In between, bytes that were gathered from several events: they are kept as long as somebody refers to them. Returns
  // what end_gathered() goes on with. `text` is too long to lie in the string itself.
  Reading begin_gathered(std::string&& text) {
    SharedBytes* handle = take_handle();
    auto* gathered = new std::string(std::move(text));
    *handle = {1, static_cast<uint32_t>(gathered->size()), gathered->data(), nullptr, shard_};
    handle->gathered = gathered;
    return std::exchange(reading_, {{handle->data, handle->size}, 0, true, handle});
  }
  void end_gathered(const Reading& before) {
    drop(reading_.handle);
    reading_ = before;
  }
  // The handle on the memory `bytes` lie in, good until end_reading(): who keeps it longer takes a reference. Null when
  // they are not being read or can not be lent: copy them.
  SharedBytes* borrow(std::string_view bytes) {
    if (!reading_.may_borrow || bytes.data() < reading_.bytes.data() ||
        bytes.data() + bytes.size() > reading_.bytes.data() + reading_.bytes.size()) {
      return nullptr;
    }
    if (reading_.handle == nullptr) {
      reading_.may_borrow = lender_->lend(reading_.token);
      if (!reading_.may_borrow) return nullptr;
      reading_.handle = take_handle();
      *reading_.handle = {1, static_cast<uint32_t>(reading_.bytes.size()), reading_.bytes.data(), nullptr, shard_};
      reading_.handle->token = reading_.token;
      reading_.handle->lent = true;
    }
    return reading_.handle;
  }

  void drop(SharedBytes* shared) {
    if (--shared->refs != 0) return;
    if (shared->block != 0 && free_blocks_.size() * kBlock < kFreeBytes) {
      free_blocks_.push_back(shared);
    } else if (shared->lent || shared->gathered != nullptr || shared->origin != nullptr) {
      drop_handle(shared);
    } else {
      std::free(shared);
    }
  }

  size_t bytes_in_use() const { return bytes_in_use_; }

 private:
  void drop_handle(SharedBytes* handle) {
    if (handle->origin != nullptr) {
      sink_->release_to(handle->home, handle->origin);
    } else if (handle->gathered != nullptr) {
      delete handle->gathered;
    } else if (lender_ != nullptr) {
      lender_->take_back(handle->token);
    }
    if (free_handles_.size() < kFreeHandles) free_handles_.push_back(handle);
    else std::free(handle);
  }

  SharedBytes* take_handle() {
    if (!free_handles_.empty()) {
      SharedBytes* handle = free_handles_.back();
      free_handles_.pop_back();
      return handle;
    }
    auto* handle = static_cast<SharedBytes*>(std::malloc(sizeof(SharedBytes)));
    if (handle == nullptr) throw std::bad_alloc();
    return handle;
  }

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
  std::vector<SharedBytes*> free_handles_;
  Lender* lender_ = nullptr;
  Reading reading_;
  size_t bytes_in_use_ = 0;
};

}  // namespace peregrine::core
