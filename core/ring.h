// Single-producer single-consumer ring of byte records between two shards.
//
// One thread produces (reserve, commit, publish), one other consumes (snapshot, peek, pop, finish). Records are 8-byte
// aligned, variable in size and contiguous; the wrap is padded. The tail is published once per turn and the head once
// per drain, so the two cache lines travel once per batch and not once per record (bypass.md section 5.1). Never
// blocks, never drops: reserve() returns null when full and the producer keeps the record in its overflow list
// (shard.h). Invariants: head <= published tail <= local tail <= head + capacity; record size <= max_record().
#pragma once

#include <atomic>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace peregrine::core {

class Ring {
 public:
  // `capacity` is a power of two, in bytes.
  explicit Ring(uint32_t capacity) : capacity_(capacity), mask_(capacity - 1) {
    assert(capacity >= 1024 && (capacity & mask_) == 0);
    data_.reset(static_cast<char*>(::operator new (capacity, std::align_val_t{64})));
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  uint32_t max_record() const { return capacity_ / 8 - kHeader; }

  // --- producer ---
  char* reserve(uint32_t size) {
    assert(size <= max_record());
    const uint32_t need = aligned(size);
    uint64_t tail = producer_.tail;
    const uint32_t room_to_end = capacity_ - static_cast<uint32_t>(tail & mask_);
    const uint32_t total = need <= room_to_end ? need : need + room_to_end;
    if (tail + total - producer_.cached_head > capacity_) {
      producer_.cached_head = head_.value.load(std::memory_order_acquire);
      if (tail + total - producer_.cached_head > capacity_) return nullptr;
    }
    if (need > room_to_end) {
      write_header(tail, kPadding);
      tail += room_to_end;
    }
    producer_.reserved = tail;
    write_header(tail, size);
    return data_.get() + (tail & mask_) + kHeader;
  }
  // Less than what was reserved will be committed.
  void shorten(uint32_t size) { write_header(producer_.reserved, size); }
  void commit(uint32_t size) { producer_.tail = producer_.reserved + aligned(size); }
  bool unpublished() const { return producer_.tail != producer_.published; }
  void publish() {
    producer_.published = producer_.tail;
    tail_.value.store(producer_.tail, std::memory_order_release);
  }

  // For a fence: where what is written next goes, and whether the consumer has finished with everything before.
  uint64_t position() const { return producer_.tail; }
  bool read_up_to(uint64_t position) const { return head_.value.load(std::memory_order_acquire) >= position; }

  // --- consumer ---
  uint64_t snapshot() const { return tail_.value.load(std::memory_order_acquire); }
  bool empty() const { return consumer_.head == snapshot(); }

  // The next record before `limit` (a snapshot), or null. pop() steps over it; finish() gives the room back.
  const char* peek(uint64_t limit, uint32_t& size) {
    while (consumer_.head != limit) {
      uint32_t header;
      std::memcpy(&header, data_.get() + (consumer_.head & mask_), sizeof(header));
      if (header != kPadding) {
        size = header;
        return data_.get() + (consumer_.head & mask_) + kHeader;
      }
      consumer_.head += capacity_ - (consumer_.head & mask_);
    }
    return nullptr;
  }
  void pop(uint32_t size) { consumer_.head += aligned(size); }
  void finish() { head_.value.store(consumer_.head, std::memory_order_release); }

 private:
  static constexpr uint32_t kHeader = 8;  // keeps payloads 8-byte aligned
  static constexpr uint32_t kPadding = UINT32_MAX;

  static uint32_t aligned(uint32_t size) { return (size + kHeader + 7) & ~7u; }
  void write_header(uint64_t at, uint32_t size) { std::memcpy(data_.get() + (at & mask_), &size, sizeof(size)); }

  struct Free {
    void operator()(char* p) const { ::operator delete (p, std::align_val_t{64}); }
  };

  const uint32_t capacity_;
  const uint64_t mask_;
  std::unique_ptr<char, Free> data_;

  // 128 bytes apart: the adjacent-line prefetcher pulls pairs.
  struct alignas(128) Shared {
    std::atomic<uint64_t> value{0};
  };
  struct alignas(128) Producer {
    uint64_t tail = 0, reserved = 0, published = 0, cached_head = 0;
  };
  struct alignas(128) Consumer {
    uint64_t head = 0;
  };
  Shared tail_;
  Producer producer_;
  Shared head_;
  Consumer consumer_;
};

}  // namespace peregrine::core
