// The subscriptions of one session by sid: open addressing over 8-byte slots, because a session may have a million of
// them.
//
// Owned by its session. Keyed hash: sids are chosen by clients. Removal shifts back, so there are no tombstones; an
// empty table owns no memory. A slot is a pointer with 16 bits of the sid's hash on top: a probe that passes by others
// does not touch them. Doubling a table of a million slots costs some milliseconds, once per doubling; a client with
// that many subscriptions on one connection pays it itself, in its own turn.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "core/hash.h"
#include "core/subscription.h"

namespace peregrine::core {

class SidTable {
 public:
  Subscription* find(const KeyedHash& hash, std::string_view sid) const {
    if (size_ == 0) return nullptr;
    const uint64_t wanted = hash(sid);
    for (size_t i = wanted & mask_;; i = (i + 1) & mask_) {
      const Slot at = slots_[i];
      if (at == 0) return nullptr;
      if (tag_of(at) == tag_of(wanted) && pointer(at)->sid() == sid) return pointer(at);
    }
  }

  void insert(const KeyedHash& hash, Subscription* sub) {
    if ((size_ + 1) * 4 > capacity() * 3) resize(hash, capacity() == 0 ? 4 : capacity() * 2);
    place(hash, sub);
    ++size_;
  }

  void erase(const KeyedHash& hash, const Subscription* sub) {
    size_t i = hash(sub->sid()) & mask_;
    while (pointer(slots_[i]) != sub) i = (i + 1) & mask_;
    for (size_t next = (i + 1) & mask_; slots_[next] != 0; next = (next + 1) & mask_) {
      const size_t home = hash(pointer(slots_[next])->sid()) & mask_;
      // May the one at `next` move to `i`? Only if its home does not lie between them.
      if (((next - home) & mask_) >= ((next - i) & mask_)) {
        slots_[i] = slots_[next];
        i = next;
      }
    }
    slots_[i] = 0;
    --size_;
    if (size_ == 0) {
      slots_.reset();
      mask_ = 0;
    } else if (capacity() > 64 && size_ * 8 < capacity()) {
      resize(hash, capacity() / 4);
    }
  }

  size_t size() const { return size_; }

  template <class Visit>
  void for_each(Visit&& visit) const {
    for (size_t i = 0; i < capacity(); ++i) {
      if (slots_[i] != 0) visit(*pointer(slots_[i]));
    }
  }
  // Slices of a table nobody changes between the calls: visits from slot `from`, about `count` slots; returns where to
  // go on, or 0 when done.
  template <class Visit>
  size_t for_slice(size_t from, size_t count, Visit&& visit) const {
    const size_t end = from + count < capacity() ? from + count : capacity();
    for (size_t i = from; i < end; ++i) {
      if (slots_[i] != 0) visit(*pointer(slots_[i]));
    }
    return end == capacity() ? 0 : end;
  }
  // For taking a session apart: any subscription, or null. Scans from the end so that erasing what it returns stays
  // cheap.
  Subscription* any() const {
    while (any_from_ < capacity() || size_ != 0) {
      if (any_from_ >= capacity()) any_from_ = 0;
      if (slots_[any_from_] != 0) return pointer(slots_[any_from_]);
      ++any_from_;
    }
    return nullptr;
  }

 private:
  size_t capacity() const { return slots_ == nullptr ? 0 : mask_ + 1; }
  using Slot = uint64_t;                   // 0 = empty
  static constexpr int kPointerBits = 48;  // of user space, on x86-64 and on arm64 without tagged pointers
  static uint64_t tag_of(uint64_t hash_or_slot) { return hash_or_slot >> kPointerBits; }
  static Subscription* pointer(Slot slot) {
    return reinterpret_cast<Subscription*>(slot & ((uint64_t{1} << kPointerBits) - 1));
  }

  void place(const KeyedHash& hash, Subscription* sub) {
    const uint64_t full = hash(sub->sid());
    size_t i = full & mask_;
    while (slots_[i] != 0) i = (i + 1) & mask_;
    slots_[i] = tag_of(full) << kPointerBits | reinterpret_cast<uint64_t>(sub);
  }
  void resize(const KeyedHash& hash, size_t capacity_wanted) {
    auto old = std::move(slots_);
    const size_t old_capacity = old == nullptr ? 0 : mask_ + 1;
    slots_ = std::make_unique<Slot[]>(capacity_wanted);
    mask_ = capacity_wanted - 1;
    any_from_ = 0;
    for (size_t i = 0; i < old_capacity; ++i) {
      if (old[i] != 0) place(hash, pointer(old[i]));
    }
  }

  std::unique_ptr<Slot[]> slots_;
  size_t mask_ = 0;
  size_t size_ = 0;
  mutable size_t any_from_ = 0;
};

}  // namespace peregrine::core
