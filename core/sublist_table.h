// Open-addressing hash index in segments: no insert ever rehashes more than one segment (64 KiB, tens of microseconds),
// so ten million entries grow without a stall. Extendible hashing: the upper bits of a tag pick a segment through a
// directory; a full segment is rebuilt an eighth larger, and at 64 KiB split in two. Load stays between 0.3 and 0.8,
// and while a table only grows above 0.7. Small tables are roomier, at most half full, of 512 to 4096 slots at most
// to 5/16: their memory is nothing, taking something out of a full one means looking at all of its neighbours, and each
// neighbour is a branch that nobody can predict. In a roomy one it is the first slot nearly always.
//
// Slot is a trivially copyable struct with `uint32_t tag() const` (32 well-mixed hash bits: placement never looks
// behind a slot at the entry itself) and `bool empty() const`, empty when all bytes are zero. Equal tags are allowed;
// the caller tells them apart. Slot pointers are valid until the next insert or erase. One owner thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "core/sublist_segments.h"

namespace peregrine::core {

template <class Slot>
class SlotTable {
 public:
  SlotTable() = default;
  explicit SlotTable(SegmentSlab& shared) : slab_(&shared) {}  // lives longer; its bytes are not in memory_bytes()
  ~SlotTable() { release(); }
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;

  uint64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  uint64_t memory_bytes() const {
    return bytes_ + directory_.capacity() * sizeof(Segment) +
           (own_ == nullptr ? 0 : sizeof(*own_) + own_->memory_bytes());
  }

  void prefetch(uint32_t tag) const {
    if (size_ == 0) return;
    const Segment& segment = directory_[segment_of(tag)];
    __builtin_prefetch(segment.block->slots() + home(tag, segment.capacity));
  }

  // The first slot with this tag for which `same(slot)`; nullptr when there is none.
  template <class Same>
  [[gnu::always_inline]] Slot* find(uint32_t tag, Same&& same) const {
    if (size_ == 0) return nullptr;
    const Segment& segment = directory_[segment_of(tag)];
    Slot* const slots = segment.block->slots();
    Slot* const end = slots + segment.capacity;
    for (Slot* slot = slots + home(tag, segment.capacity); !slot->empty();) {
      if (slot->tag() == tag && same(*slot)) return slot;
      if (++slot == end) slot = slots;
    }
    return nullptr;
  }

  // The same; when there is none, `vacancy` is where a slot with this tag would go, for insert_at().
  template <class Same>
  [[gnu::always_inline]] Slot* find(uint32_t tag, Same&& same, Slot*& vacancy) const {
    vacancy = nullptr;
    if (size_ == 0) return nullptr;
    const Segment& segment = directory_[segment_of(tag)];
    Slot* const slots = segment.block->slots();
    Slot* const end = slots + segment.capacity;
    Slot* slot = slots + home(tag, segment.capacity);
    while (!slot->empty()) {
      if (slot->tag() == tag && same(*slot)) return slot;
      if (++slot == end) slot = slots;
    }
    vacancy = slot;
    return nullptr;
  }

  // With nothing inserted or erased since find() said so.
  void insert_at(Slot* vacancy, Slot slot) {
    if (vacancy != nullptr) [[likely]] {
      Block& block = *directory_[segment_of(slot.tag())].block;
      if (block.count < block.most) [[likely]] {
        *vacancy = slot;
        block.count++;
        size_++;
        return;
      }
    }
    insert(slot);
  }

  void insert(Slot slot) {
    if (directory_.empty()) directory_.push_back(make_segment(kMinSegmentSlots, 0));
    uint32_t index = segment_of(slot.tag());
    while (directory_[index].block->count >= directory_[index].block->most) {
      grow(index);
      index = segment_of(slot.tag());
    }
    place(directory_[index], slot);
    directory_[index].block->count++;
    size_++;
  }

  // `slot` must come from find() with nothing inserted or erased since. `shrinks`: memory follows. It must not where a
  // table is emptied in the order of its slots: those left would stand ever closer together in ever smaller segments,
  // and looking for room among them takes a hundred times as long. Returns whether a slot with the same tag came behind
  // it.
  [[gnu::always_inline]] bool erase(Slot* slot, bool shrinks = true) {
    const uint32_t tag = slot->tag();
    const Segment& segment = directory_[segment_of(tag)];
    Block* const block = segment.block;
    Slot* const slots = block->slots();
    const Slot* const behind = slot + 1 == slots + segment.capacity ? slots : slot + 1;
    bool alike = false;
    if (!behind->empty()) alike = close_gap(segment, slot);
    std::memset(static_cast<void*>(slot), 0, sizeof(Slot));
    size_--;
    if (--block->count < block->least) [[unlikely]]
      have_less(segment_of(tag), shrinks);
    return alike;
  }

  template <class Visit>
  void for_each(Visit&& visit) const {
    const Block* previous = nullptr;
    for (const Segment& segment : directory_) {
      if (segment.block == previous) continue;  // several directory entries, one segment: they are neighbours
      previous = segment.block;
      for (uint32_t i = 0; i < segment.capacity; i++) {
        if (!segment.block->slots()[i].empty()) visit(segment.block->slots()[i]);
      }
    }
  }

  // Any slot, or null. Goes on from `from` (begin with 0), which is moved to what it returns: emptying a table with it
  // walks over each slot about once.
  const Slot* any(uint64_t& from) const {
    if (size_ == 0) return nullptr;
    uint64_t index = from >> 32;
    uint32_t at = static_cast<uint32_t>(from);
    for (;; ++index, at = 0) {
      if (index >= directory_.size()) index = at = 0;
      const Segment& segment = directory_[index];
      const Slot* const slots = segment.block->slots();
      while (at < segment.capacity && slots[at].empty()) ++at;
      if (at >= segment.capacity) continue;
      from = index << 32 | at;
      return slots + at;
    }
  }

  // Visits a range of tags from `cursor` on, some hundred slots of one segment, and returns the first tag behind it;
  // 2^32 is the end. Works across inserts and erases between the calls: entries never change their tags, so what is in
  // the table throughout is visited, and once.
  // `ahead` is shown each slot some time before `visit`: what lies behind slots is all over the memory.
  template <class Visit, class Ahead>
  uint64_t visit_slice(uint64_t cursor, Visit&& visit, Ahead&& ahead) const {
    constexpr uint64_t kEnd = uint64_t{1} << 32;
    if (size_ == 0) return kEnd;
    const uint32_t index = segment_of(static_cast<uint32_t>(cursor));
    const Segment& segment = directory_[index];
    const Slot* const slots = segment.block->slots();
    // Slots do not lie in the order of their tags: a part of a segment takes a look at all of it.
    const uint32_t parts =
        std::min<uint32_t>(std::bit_ceil(segment.capacity / kSliceSlots + 1), 1u << (32 - kMaxDepth));
    const uint64_t width = (kEnd >> segment.block->depth) / parts;
    const uint64_t end = (cursor / width + 1) * width;
    const auto within = [&](const Slot& slot) { return !slot.empty() && slot.tag() >= cursor && slot.tag() < end; };
    const uint32_t in_advance = 24 * parts;
    for (uint32_t i = 0; i < segment.capacity; i++) {
      if (i + in_advance < segment.capacity && within(slots[i + in_advance])) ahead(slots[i + in_advance]);
      if (within(slots[i])) visit(slots[i]);
    }
    return end;
  }

  // Up to `most` slots into `found`, from where `from` points (0: anywhere), which is moved to the first of them; how
  // many there were. 0: the table is empty. What is erased between the calls is not looked for again.
  size_t some(uint64_t& from, const Slot** found, size_t most) const {
    const Slot* first = any(from);
    if (first == nullptr) return 0;
    size_t n = 0;
    found[n++] = first;
    const Segment& segment = directory_[from >> 32];
    const Slot* const end = segment.block->slots() + segment.capacity;
    for (const Slot* slot = first + 1; slot != end && n < most; ++slot) {
      if (!slot->empty()) found[n++] = slot;
    }
    return n;
  }

 private:
  struct alignas(8) Block {
    uint32_t count;
    uint32_t most;         // when it has so many, it grows
    uint32_t least;        // with fewer it shrinks, or goes
    uint32_t depth;        // how many tag bits all entries of this segment share
    SegmentSlab::Ref ref;  // 0: from malloc
    Slot* slots() { return reinterpret_cast<Slot*>(this + 1); }
    const Slot* slots() const { return reinterpret_cast<const Slot*>(this + 1); }
  };
  static_assert(sizeof(Block) == 24 && alignof(Slot) <= 8);

  static constexpr uint32_t kMinSegmentSlots = 8;
  static constexpr uint32_t kMaxSegmentSlots =
      static_cast<uint32_t>((SegmentSlab::kMost - sizeof(Block)) / sizeof(Slot));
  // Segments up to the first of these are at most half full; up to the second, if slots are small, at most to 5/16.
  static constexpr uint32_t kHalfFullSlots = sizeof(Slot) <= 8 ? 256 : 2048;
  static constexpr uint32_t kRoomySlots =
      sizeof(Slot) <= 8 ? std::min(4096u, kMaxSegmentSlots / 2 & ~7u) : kHalfFullSlots;
  static constexpr uint32_t kSliceSlots = 1024;  // of a slice, about
  static constexpr uint32_t kMaxDepth = 20;  // beyond this segments just grow: 2^20 of them hold six billion entries

  struct Segment {
    Block* block;
    uint32_t capacity;  // here and not in the block: a lookup touches the directory and the slot, nothing between
  };

  uint32_t segment_of(uint32_t tag) const { return static_cast<uint32_t>((uint64_t{tag} << depth_) >> 32); }
  static uint32_t next(uint32_t at, uint32_t capacity) { return at + 1 == capacity ? 0 : at + 1; }
  // The multiplication brings the tag's lower bits up: the upper ones are equal throughout a segment.
  static uint32_t home(uint32_t tag, uint32_t capacity) {
    return static_cast<uint32_t>((uint64_t{tag * 0x9E3779B1u} * capacity) >> 32);
  }
  static uint32_t max_count(uint32_t capacity) {
    if (capacity <= kHalfFullSlots) return capacity / 2;
    return capacity <= kRoomySlots ? capacity / 16 * 5 : capacity - capacity / 5;
  }
  static uint32_t min_count(uint32_t capacity) {
    if (capacity <= kRoomySlots) return capacity / (capacity <= kHalfFullSlots ? 8 : 13);
    return capacity / 4 + capacity / 20;
  }
  // Load 0.72, of small ones 0.33, between them 0.2; away from both bounds, or a few inserts and erases would rebuild a
  // segment each.
  static uint32_t capacity_for(uint32_t count) {
    if (count <= kHalfFullSlots / 2 - kHalfFullSlots / 16)
      return std::clamp<uint32_t>((3 * count + 7) & ~7u, kMinSegmentSlots, kHalfFullSlots);
    if (count <= kRoomySlots / 4) return std::min<uint32_t>((5 * count + 7) & ~7u, kRoomySlots);
    return std::max<uint32_t>(kRoomySlots + kRoomySlots / 8, (count + count / 4 + count / 8 + 7) & ~7u);
  }

  // What a segment for `capacity` slots takes: small ones, and those that 2^kMaxDepth were not enough for, what it has
  // to be; others pages of a slab.
  static size_t block_bytes(uint32_t capacity) {
    const size_t bytes = sizeof(Block) + size_t{capacity} * sizeof(Slot);
    return capacity > kRoomySlots && bytes <= SegmentSlab::kMost
               ? (bytes + SegmentSlab::kPage - 1) & ~(SegmentSlab::kPage - 1)
               : bytes;
  }
  static uint32_t capacity_of(size_t bytes) { return static_cast<uint32_t>((bytes - sizeof(Block)) / sizeof(Slot)); }

  Segment make_segment(uint32_t capacity, uint32_t depth) {
    const size_t bytes = block_bytes(capacity);
    Block* block;
    if (capacity > kRoomySlots && bytes <= SegmentSlab::kMost) {
      if (slab_ == nullptr) slab_ = (own_ = std::make_unique<SegmentSlab>()).get();
      capacity = capacity_of(bytes);
      const auto [memory, ref] = slab_->allocate(bytes);
      block = static_cast<Block*>(memory);
      std::memset(static_cast<void*>(block), 0, bytes);
      block->ref = ref;
    } else {
      block = static_cast<Block*>(std::calloc(1, bytes));
      if (block == nullptr) throw std::bad_alloc();
      bytes_ += bytes;
    }
    block->depth = depth;
    block->most = max_count(capacity);
    // Of the smallest there is nothing to give back, unless it is one of several.
    block->least = capacity == kMinSegmentSlots && depth == 0 ? 0 : std::max(min_count(capacity), 1u);
    return {block, capacity};
  }

  void free_segment(const Segment& segment) {
    const size_t bytes = sizeof(Block) + size_t{segment.capacity} * sizeof(Slot);
    if (segment.block->ref != 0) {
      slab_->release(segment.block, segment.block->ref, bytes);
    } else {
      bytes_ -= bytes;
      std::free(segment.block);
    }
  }

  void place(const Segment& segment, const Slot& slot) {
    Slot* const slots = segment.block->slots();
    uint32_t at = home(slot.tag(), segment.capacity);
    while (!slots[at].empty()) at = next(at, segment.capacity);
    slots[at] = slot;
  }

  // Backward shift: whatever was pushed past `hole` moves into it, so there are no tombstones. Then the hole is where
  // the last of them was. Whether one of those behind it has the same tag.
  [[gnu::noinline]] static bool close_gap(const Segment& segment, Slot*& emptied) {
    Slot* const slots = segment.block->slots();
    const uint32_t capacity = segment.capacity;
    const uint32_t tag = emptied->tag();
    bool alike = false;
    uint32_t hole = static_cast<uint32_t>(emptied - slots);
    uint32_t distance = 1;  // from the hole
    for (uint32_t at = next(hole, capacity); !slots[at].empty(); at = next(at, capacity), ++distance) {
      alike |= slots[at].tag() == tag;
      const uint32_t wanted = home(slots[at].tag(), capacity);
      const uint32_t travelled = at >= wanted ? at - wanted : at + capacity - wanted;
      if (travelled >= distance) {
        slots[hole] = slots[at];
        hole = at;
        distance = 0;
      }
    }
    emptied = slots + hole;
    return alike;
  }

  // One less is in the segment, which has few now.
  [[gnu::noinline]] void have_less(uint32_t index, bool shrinks) {
    const Segment segment = directory_[index];
    if (size_ == 0) {
      // Only the smallest segment would stay: a lone inbox that comes and goes would allocate every time.
      release();
    } else if (shrinks && segment.capacity > kMinSegmentSlots && segment.block->count < min_count(segment.capacity)) {
      // Only if it becomes smaller for it: with what huge pages round up, it might be rebuilt alike for each erase.
      const uint32_t fitting = capacity_for(segment.block->count);
      if (capacity_of(block_bytes(fitting)) < segment.capacity) resize(index, fitting);
    }
  }

  void grow(uint32_t index) {
    const Segment segment = directory_[index];
    if (segment.capacity < kMaxSegmentSlots || segment.block->depth >= kMaxDepth) {
      const uint32_t larger = segment.capacity < kRoomySlots ? std::min(segment.capacity * 2, kRoomySlots)
                                                             : segment.capacity + segment.capacity / 8;
      const uint32_t rounded = (larger + 7) & ~7u;
      resize(index, segment.capacity < kMaxSegmentSlots ? std::min(rounded, kMaxSegmentSlots) : rounded);
    } else {
      split(index);
    }
  }

  void resize(uint32_t index, uint32_t capacity) {
    const Segment old = directory_[index];
    const Segment made = make_segment(capacity, old.block->depth);
    for (uint32_t i = 0; i < old.capacity; i++) {
      if (!old.block->slots()[i].empty()) place(made, old.block->slots()[i]);
    }
    made.block->count = old.block->count;
    replace(index, old.block->depth, made);
    free_segment(old);
  }

  void split(uint32_t index) {
    if (directory_[index].block->depth == depth_) {
      std::vector<Segment> doubled(directory_.size() * 2);
      for (size_t i = 0; i < directory_.size(); i++) doubled[2 * i] = doubled[2 * i + 1] = directory_[i];
      directory_ = std::move(doubled);
      depth_++;
      index *= 2;
    }
    const Segment old = directory_[index];
    const uint32_t depth = old.block->depth;
    uint32_t upper = 0;
    const auto goes_up = [&](const Slot& slot) { return (slot.tag() >> (31 - depth)) & 1; };
    for (uint32_t i = 0; i < old.capacity; i++) {
      const Slot& slot = old.block->slots()[i];
      if (!slot.empty() && goes_up(slot)) upper++;
    }
    Segment halves[2] = {make_segment(capacity_for(old.block->count - upper), depth + 1),
                         make_segment(capacity_for(upper), depth + 1)};
    for (uint32_t i = 0; i < old.capacity; i++) {
      const Slot& slot = old.block->slots()[i];
      if (slot.empty()) continue;
      const Segment& half = halves[goes_up(slot)];
      place(half, slot);
      half.block->count++;
    }
    // The directory entries of `old` are 2^(depth_ - depth) neighbours; the lower half of them gets the lower half.
    const uint32_t first = index >> (depth_ - depth) << (depth_ - depth);
    const uint32_t each = uint32_t{1} << (depth_ - depth - 1);
    std::fill_n(directory_.begin() + first, each, halves[0]);
    std::fill_n(directory_.begin() + first + each, each, halves[1]);
    free_segment(old);
  }

  void replace(uint32_t index, uint32_t depth, const Segment& segment) {
    const uint32_t first = index >> (depth_ - depth) << (depth_ - depth);
    std::fill_n(directory_.begin() + first, uint32_t{1} << (depth_ - depth), segment);
  }

  void release() {
    for (size_t i = 0; i < directory_.size(); i++) {
      const bool last_entry = i + 1 == directory_.size() || directory_[i + 1].block != directory_[i].block;
      if (last_entry) free_segment(directory_[i]);
    }
    std::vector<Segment>().swap(directory_);
    depth_ = 0;
    if (own_ != nullptr) {
      own_.reset();
      slab_ = nullptr;
    }
  }

  std::vector<Segment> directory_;
  uint32_t depth_ = 0;
  uint64_t size_ = 0;
  uint64_t bytes_ = 0;           // of segments from malloc
  SegmentSlab* slab_ = nullptr;  // another's, or
  std::unique_ptr<SegmentSlab> own_;
};

}  // namespace peregrine::core
