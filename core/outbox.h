// Pending bytes of one session: everything encoded for it that the network has not taken yet.
//
// Owned by its session, on its shard. Appending never fails and never waits; the slow-consumer rule (delivery.h) looks
// at pending() afterwards. An empty outbox owns no chunk: an idle connection costs no buffer. Invariants: pending() =
// sum of segment sizes; the first `in_flight()` bytes must not move or change until consume() has accounted for them
// (appending behind them in the same chunk is fine).
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "core/buffer.h"

namespace peregrine::core {

class Outbox {
 public:
  explicit Outbox(BufferPool* pool) : pool_(pool) {}
  ~Outbox() { clear(); }
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  size_t pending() const { return pending_; }
  bool empty() const { return pending_ == 0; }

  // Room for `size` contiguous bytes (size <= BufferPool::kLargeChunk); commit() says how many of them were written.
  char* reserve(size_t size) {
    if (tail_ == nullptr || tail_->capacity - tail_->used < size) {
      grow(size);
    } else if (behind_shared_) {
      go_on();
    }
    return tail_->data + tail_->used;
  }
  size_t space() const { return tail_->capacity - tail_->used; }  // after reserve(): how much there really is
  void commit(size_t size) {
    tail_->used += static_cast<uint32_t>(size);
    segments_.back().size += static_cast<uint32_t>(size);
    pending_ += size;
  }

  void append(std::string_view bytes) {
    while (!bytes.empty()) {
      if (tail_ == nullptr || tail_->used == tail_->capacity) {
        grow(std::min<size_t>(bytes.size(), BufferPool::kLargeChunk));
      } else if (behind_shared_) {
        go_on();
      }
      const size_t n = std::min<size_t>(bytes.size(), tail_->capacity - tail_->used);
      std::memcpy(tail_->data + tail_->used, bytes.data(), n);
      commit(n);
      bytes.remove_prefix(n);
    }
  }

  // The same for a line of our own (INFO, PING, +OK): takes little memory when nothing else is pending.
  void append_line(std::string_view bytes) {
    if (tail_ == nullptr && pending_ == 0 && bytes.size() <= BufferPool::kTinyChunk) open(pool_->take_tiny());
    append(bytes);
  }

  // Appends `bytes`, which lie in `shared`, by reference; takes a reference of its own.
  void append_shared(SharedBytes* shared, std::string_view bytes) {
    if (bytes.empty()) return;
    ++shared->refs;
    segments_.push_back({bytes.data(), static_cast<uint32_t>(bytes.size()), nullptr, shared});
    pending_ += bytes.size();
    behind_shared_ = tail_ != nullptr;
  }
  void append_shared(SharedBytes* shared, uint32_t offset) {
    append_shared(shared, {shared->data + offset, shared->size - offset});
  }

  // Fills `iov` with the front of what is pending, at most `max_bytes`; returns how many entries.
  size_t gather(iovec* iov, size_t iov_count, size_t max_bytes) const {
    size_t n = 0, bytes = 0;
    for (size_t i = head_; i < segments_.size() && n < iov_count && bytes < max_bytes; ++i) {
      if (segments_[i].size == 0) continue;
      iov[n++] = {const_cast<char*>(segments_[i].data), segments_[i].size};
      bytes += segments_[i].size;
    }
    return n;
  }

  // `bytes` of the front have been taken by the network.
  void consume(size_t bytes) {
    assert(bytes <= pending_);
    pending_ -= bytes;
    while (bytes > 0) {
      Segment& front = segments_[head_];
      const size_t n = std::min<size_t>(bytes, front.size);
      front.data += n;
      front.size -= static_cast<uint32_t>(n);
      bytes -= n;
      if (front.size == 0 && bytes > 0) release_front();
    }
    if (pending_ == 0) {
      clear();
    } else if (segments_[head_].size == 0) {
      release_front();
    }
    if (head_ > 64 && head_ * 2 > segments_.size()) {
      segments_.erase(segments_.begin(), segments_.begin() + static_cast<std::ptrdiff_t>(head_));
      head_ = 0;
    }
  }

  // Moves bytes from the front to the end of `to`, where shared ones stay shared, and shows them to `seen`: at most
  // `most`, or as few as `enough` if shared bytes end there. Returns how many. What is in flight must not be moved.
  template <typename Seen>
  size_t move_to(Outbox& to, size_t enough, size_t most, Seen seen) {
    size_t moved = 0;
    for (size_t i = head_; i < segments_.size() && moved < most; ++i) {
      const Segment& each = segments_[i];
      const std::string_view bytes(each.data, std::min<size_t>(each.size, most - moved));
      seen(bytes);
      if (each.shared != nullptr) to.append_shared(each.shared, bytes);
      else to.append(bytes);
      moved += bytes.size();
      if (each.shared != nullptr && moved >= enough && bytes.size() == each.size) break;
    }
    consume(moved);
    return moved;
  }

  void swap(Outbox& other) {
    std::swap(pool_, other.pool_);
    segments_.swap(other.segments_);
    std::swap(head_, other.head_);
    std::swap(pending_, other.pending_);
    std::swap(tail_, other.tail_);
  }

  void clear() {
    while (head_ < segments_.size()) release_front();
    segments_.clear();
    if (segments_.capacity() > 256) segments_.shrink_to_fit();
    head_ = 0;
    pending_ = 0;
    tail_ = nullptr;
    behind_shared_ = false;
  }

 private:
  struct Segment {
    const char* data;
    uint32_t size;
    Chunk* chunk;         // owned by the last segment in it, else null
    SharedBytes* shared;  // one reference, or null
  };

  void release_front() {
    Segment& front = segments_[head_++];
    if (front.chunk != nullptr) {
      if (front.chunk == tail_) tail_ = nullptr, behind_shared_ = false;
      pool_->give(front.chunk);
    } else if (front.shared != nullptr) {
      pool_->drop(front.shared);
    }
  }

  // The chunk goes on behind shared bytes: a segment of its own, which is now the one that owns the chunk. (A chunk for
  // each line between two large payloads would cost a slow consumer's memory a hundred times over.)
  void go_on() {
    for (size_t i = segments_.size(); i-- > head_;) {
      if (segments_[i].chunk != tail_) continue;
      segments_[i].chunk = nullptr;
      break;
    }
    segments_.push_back({tail_->data + tail_->used, 0, tail_, nullptr});
    behind_shared_ = false;
  }

  // A session that already has a chunk's worth waiting is streaming: give it large chunks, so that one send takes much.
  void grow(size_t size) {
    const bool streaming = pending_ > BufferPool::kTinyChunk;
    open(pool_->take(static_cast<uint32_t>(streaming ? std::max<size_t>(size, BufferPool::kSmallChunk + 1) : size)));
  }
  void open(Chunk* chunk) {
    segments_.push_back({chunk->data, 0, chunk, nullptr});
    tail_ = chunk;
    behind_shared_ = false;
  }

  BufferPool* pool_;
  std::vector<Segment> segments_;
  size_t head_ = 0;
  size_t pending_ = 0;
  Chunk* tail_ = nullptr;       // where bytes may be appended: the chunk filled last
  bool behind_shared_ = false;  // ... but its segment is not the last one any more
};

}  // namespace peregrine::core
