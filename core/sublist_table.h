// Open-addressing hash index in segments: no insert ever rehashes more than one segment (64 KiB, tens of microseconds),
// so ten million entries grow without a stall. Extendible hashing: the upper bits of a tag pick a segment through a
// directory; a full segment is rebuilt an eighth larger, and at 64 KiB split in two. Load stays between 0.3 and 0.8,
// and while a table only grows above 0.7. A segment is pages of 4 KiB, in a row only as its list of them says: what one
// size leaves is what the next one takes (sublist_pages.h). Small tables are one piece of memory and roomier, at most
// half full, of 512 to 4096 slots at most to 5/16: their memory is nothing, taking something out of a full one means
// looking at all of its neighbours, and each neighbour is a branch that nobody can predict. In a roomy one it is the
// first slot nearly always.
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

#include "core/sublist_pages.h"

namespace peregrine::core {

template <class Slot>
class SlotTable {
 public:
  SlotTable() = default;
  explicit SlotTable(PageSlab& shared) : slab_(&shared) {}  // lives longer; its bytes are not in memory_bytes()
  ~SlotTable() { release(); }
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;

  uint64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  uint64_t memory_bytes() const {
    return bytes_ + directory_.capacity() * sizeof(Segment*) +
           (own_ == nullptr ? 0 : sizeof(*own_) + own_->memory_bytes());
  }

  void prefetch(uint32_t tag) const {
    if (size_ != 0) __builtin_prefetch(home(*segment_of(tag), tag).slot);
  }

  // The first slot with this tag for which `same(slot)`; nullptr when there is none.
  template <class Same>
  [[gnu::always_inline]] Slot* find(uint32_t tag, Same&& same) const {
    Slot* vacancy;
    return find(tag, same, vacancy);
  }

  // The same; when there is none, `vacancy` is where a slot with this tag would go, for insert_at().
  template <class Same>
  [[gnu::always_inline]] Slot* find(uint32_t tag, Same&& same, Slot*& vacancy) const {
    vacancy = nullptr;
    if (size_ == 0) return nullptr;
    const Segment& segment = *segment_of(tag);
    Place place = home(segment, tag);
    while (!place.slot->empty()) {
      if (place.slot->tag() == tag && same(*place.slot)) return place.slot;
      step(segment, place);
    }
    vacancy = place.slot;
    return nullptr;
  }

  // With nothing inserted or erased since find() said so.
  void insert_at(Slot* vacancy, Slot slot) {
    if (vacancy != nullptr) [[likely]] {
      Segment& segment = *segment_of(slot.tag());
      if (segment.count < segment.most) [[likely]] {
        *vacancy = slot;
        segment.count++;
        size_++;
        return;
      }
    }
    insert(slot);
  }

  void insert(Slot slot) {
    if (directory_.empty()) directory_.push_back(make_segment(kMinSegmentSlots, 0));
    while (segment_of(slot.tag())->count >= segment_of(slot.tag())->most) grow(index_of(slot.tag()));
    Segment& segment = *segment_of(slot.tag());
    put_into(segment, slot);
    segment.count++;
    size_++;
  }

  // `slot` must come from find() with nothing inserted or erased since. `shrinks`: memory follows. It must not where a
  // table is emptied in the order of its slots: those left would stand ever closer together in ever smaller segments,
  // and looking for room among them takes a hundred times as long. Returns whether a slot with the same tag came behind
  // it.
  [[gnu::always_inline]] bool erase(Slot* slot, bool shrinks = true) {
    const uint32_t tag = slot->tag();
    Segment& segment = *segment_of(tag);
    Place behind = place_of(segment, slot);
    step(segment, behind);
    const bool alike = !behind.slot->empty() && close_gap(segment, slot);
    std::memset(static_cast<void*>(slot), 0, sizeof(Slot));
    size_--;
    if (--segment.count < segment.least) [[unlikely]]
      have_less(index_of(tag), shrinks);
    return alike;
  }

  template <class Visit>
  void for_each(Visit&& visit) const {
    const Segment* previous = nullptr;
    for (const Segment* segment : directory_) {
      if (segment == previous) continue;  // several directory entries, one segment: they are neighbours
      previous = segment;
      each_slot(*segment, visit);
    }
  }

  // Any slot, or null. Goes on from `from` (begin with 0), which is moved to what it returns: emptying a table with it
  // walks over each slot about once.
  const Slot* any(uint64_t& from) const {
    const Slot* found = nullptr;
    some(from, &found, 1);
    return found;
  }

  // Up to `most` slots into `found`, from where `from` points (0: anywhere), which is moved to the first of them; how
  // many there were. 0: the table is empty. What is erased between the calls is not looked for again.
  size_t some(uint64_t& from, const Slot** found, size_t most) const {
    if (size_ == 0) return 0;
    uint64_t index = from >> 32;
    uint32_t at = static_cast<uint32_t>(from);
    for (;; ++index, at = 0) {
      if (index >= directory_.size()) index = at = 0;
      const Segment& segment = *directory_[index];
      if (at >= segment.capacity()) continue;
      size_t n = 0;
      for (Place place = place_at(segment, at); at < segment.capacity() && n < most; ++at, step(segment, place)) {
        if (place.slot->empty()) continue;
        if (n == 0) from = index << 32 | at;
        found[n++] = place.slot;
      }
      if (n != 0) return n;
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
    const Segment& segment = *segment_of(static_cast<uint32_t>(cursor));
    const uint32_t capacity = segment.capacity();
    // Slots do not lie in the order of their tags: a part of a segment takes a look at all of it.
    const uint32_t parts = std::min<uint32_t>(std::bit_ceil(capacity / kSliceSlots + 1), 1u << (32 - kMaxDepth));
    const uint64_t width = (kEnd >> segment.depth) / parts;
    const uint64_t end = (cursor / width + 1) * width;
    const auto within = [&](const Slot& slot) { return !slot.empty() && slot.tag() >= cursor && slot.tag() < end; };
    Place front = place_at(segment, 0), place = front;
    uint32_t seen = 0;
    const auto look_ahead = [&] {
      if (seen == capacity) return;
      ++seen;
      if (within(*front.slot)) ahead(*front.slot);
      step(segment, front);
    };
    for (uint32_t n = 0; n < 24 * parts; ++n) look_ahead();
    for (uint32_t n = 0; n < capacity; ++n, step(segment, place)) {
      look_ahead();
      if (within(*place.slot)) visit(*place.slot);
    }
    return end;
  }

 private:
  static constexpr uint32_t kPageSlots = static_cast<uint32_t>(PageSlab::kPage / sizeof(Slot));
  static constexpr uint32_t kMinSegmentSlots = 8;
  static constexpr uint32_t kMaxSegmentSlots = 16 * kPageSlots;
  // Segments up to the second of these are one piece: up to the first at most half full, up to the second, if slots are
  // small, at most to 5/16.
  static constexpr uint32_t kHalfFullSlots = sizeof(Slot) <= 8 ? 256 : 2048;
  static constexpr uint32_t kRoomySlots = sizeof(Slot) <= 8 ? 4096 : kHalfFullSlots;
  static constexpr uint32_t kSliceSlots = 1024;  // of a slice, about
  static constexpr uint32_t kMaxDepth = 20;  // beyond this segments just grow: 2^20 of them hold six billion entries
  static_assert(alignof(Slot) <= 8);

  struct Segment {
    uint32_t pages;
    uint32_t page_slots;
    uint32_t count;
    uint32_t most;   // when it has so many, it grows
    uint32_t least;  // with fewer it shrinks, or goes
    uint32_t depth;  // how many tag bits all entries of this segment share
    uint64_t bytes;  // of this and what follows
    // Followed by where each page is, and in a small one by the only page itself.
    uint32_t capacity() const { return pages * page_slots; }
    bool one_piece() const { return pages == 1; }
    Slot** page_list() { return reinterpret_cast<Slot**>(this + 1); }
    Slot* page(uint32_t number) const { return reinterpret_cast<Slot* const*>(this + 1)[number]; }
  };
  static_assert(sizeof(Segment) == 32);

  // A slot of a segment, and what it takes to go on from there.
  struct Place {
    Slot* slot;
    Slot* end;  // of its page
    uint32_t page;
  };

  uint32_t index_of(uint32_t tag) const { return static_cast<uint32_t>((uint64_t{tag} << depth_) >> 32); }
  Segment* segment_of(uint32_t tag) const { return directory_[index_of(tag)]; }

  // Where a tag belongs. The multiplication brings its lower bits up: the upper ones are equal throughout a segment.
  static uint32_t home_index(uint32_t tag, uint32_t capacity) {
    return static_cast<uint32_t>((uint64_t{tag * 0x9E3779B1u} * capacity) >> 32);
  }
  // The same place: a page, and what is left of the fraction within that.
  [[gnu::always_inline]] static Place home(const Segment& segment, uint32_t tag) {
    const uint64_t at = uint64_t{tag * 0x9E3779B1u} * segment.pages;
    const auto page = static_cast<uint32_t>(at >> 32);
    Slot* const slots = segment.page(page);
    return {slots + ((at & UINT32_MAX) * segment.page_slots >> 32), slots + segment.page_slots, page};
  }
  static Place place_at(const Segment& segment, uint32_t index) {
    const uint32_t page = index / segment.page_slots;
    Slot* const slots = segment.page(page);
    return {slots + index % segment.page_slots, slots + segment.page_slots, page};
  }
  // Of a slot near its home.
  static Place place_of(const Segment& segment, Slot* slot) {
    if (segment.one_piece()) return {slot, segment.page(0) + segment.page_slots, 0};
    Place place = home(segment, slot->tag());
    const auto is_within = [&] {
      const auto first = reinterpret_cast<uintptr_t>(place.end - segment.page_slots);
      return reinterpret_cast<uintptr_t>(slot) - first < segment.page_slots * sizeof(Slot);
    };
    while (!is_within()) {
      place.slot = place.end - 1;
      step(segment, place);
    }
    place.slot = slot;
    return place;
  }
  [[gnu::always_inline]] static void step(const Segment& segment, Place& place) {
    if (++place.slot != place.end) [[likely]]
      return;
    place.page = place.page + 1 == segment.pages ? 0 : place.page + 1;
    place.slot = segment.page(place.page);
    place.end = place.slot + segment.page_slots;
  }
  template <class Visit>
  static void each_slot(const Segment& segment, Visit&& visit) {
    for (uint32_t page = 0; page < segment.pages; ++page) {
      Slot* const slots = segment.page(page);
      for (Slot* slot = slots; slot != slots + segment.page_slots; ++slot) {
        if (!slot->empty()) visit(*slot);
      }
    }
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
    return std::max<uint32_t>(kRoomySlots + kRoomySlots / 8, count + count / 4 + count / 8);
  }
  static uint32_t rounded(uint32_t capacity) {
    return capacity <= kRoomySlots ? capacity : (capacity + kPageSlots - 1) / kPageSlots * kPageSlots;
  }

  Segment* make_segment(uint32_t capacity, uint32_t depth) {
    const bool one_piece = capacity <= kRoomySlots;
    const uint32_t pages = one_piece ? 1 : rounded(capacity) / kPageSlots;
    const uint32_t page_slots = one_piece ? capacity : kPageSlots;
    const size_t bytes = sizeof(Segment) + pages * sizeof(Slot*) + (one_piece ? capacity * sizeof(Slot) : 0);
    void* const memory = std::calloc(1, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    bytes_ += bytes;
    // Of the smallest there is nothing to give back, unless it is one of several.
    const uint32_t least = capacity == kMinSegmentSlots && depth == 0 ? 0 : std::max(min_count(pages * page_slots), 1u);
    auto* segment = new (memory) Segment{.pages = pages,
                                         .page_slots = page_slots,
                                         .count = 0,
                                         .most = max_count(pages * page_slots),
                                         .least = least,
                                         .depth = depth,
                                         .bytes = bytes};
    if (one_piece) {
      segment->page_list()[0] = reinterpret_cast<Slot*>(segment->page_list() + 1);
      return segment;
    }
    if (slab_ == nullptr) slab_ = (own_ = std::make_unique<PageSlab>()).get();
    for (uint32_t page = 0; page < pages; ++page) {
      void* const slots = slab_->allocate();
      std::memset(slots, 0, PageSlab::kPage);
      segment->page_list()[page] = static_cast<Slot*>(slots);
    }
    return segment;
  }

  void free_segment(Segment* segment) {
    if (!segment->one_piece()) {
      for (uint32_t page = 0; page < segment->pages; ++page) slab_->release(segment->page(page));
    }
    bytes_ -= segment->bytes;
    std::free(segment);
  }

  static void put_into(const Segment& segment, const Slot& slot) {
    Place place = home(segment, slot.tag());
    while (!place.slot->empty()) step(segment, place);
    *place.slot = slot;
  }

  // Backward shift: whatever was pushed past `hole` moves into it, so there are no tombstones. Then the hole is where
  // the last of them was. Whether one of those behind it has the same tag.
  [[gnu::noinline]] static bool close_gap(const Segment& segment, Slot*& hole) {
    const uint32_t capacity = segment.capacity();
    const uint32_t tag = hole->tag();
    bool alike = false;
    Place place = place_of(segment, hole);
    uint32_t at = (place.page + 1) * segment.page_slots - static_cast<uint32_t>(place.end - hole);
    for (uint32_t distance = 1;; ++distance) {  // from the hole
      step(segment, place);
      at = at + 1 == capacity ? 0 : at + 1;
      if (place.slot->empty()) return alike;
      alike |= place.slot->tag() == tag;
      const uint32_t wanted = home_index(place.slot->tag(), capacity);
      const uint32_t travelled = at >= wanted ? at - wanted : at + capacity - wanted;
      if (travelled >= distance) {
        *hole = *place.slot;
        hole = place.slot;
        distance = 0;
      }
    }
  }

  // One less is in the segment, which has few now.
  [[gnu::noinline]] void have_less(uint32_t index, bool shrinks) {
    const uint32_t count = directory_[index]->count, capacity = directory_[index]->capacity();
    if (size_ == 0) {
      // Only the smallest segment would stay: a lone inbox that comes and goes would allocate every time.
      release();
    } else if (shrinks && capacity > kMinSegmentSlots && count < min_count(capacity)) {
      // Only if it becomes smaller for it: with what pages round up, it might be rebuilt alike for each erase.
      const uint32_t fitting = capacity_for(count);
      if (rounded(fitting) < capacity) resize(index, fitting);
    }
  }

  void grow(uint32_t index) {
    const Segment& segment = *directory_[index];
    const uint32_t capacity = segment.capacity();
    if (capacity < kRoomySlots) {
      resize(index, std::min(capacity * 2, kRoomySlots));
    } else if (capacity < kMaxSegmentSlots) {
      resize(index, std::min(capacity + capacity / 8, kMaxSegmentSlots));
    } else if (segment.depth >= kMaxDepth) {
      resize(index, capacity + capacity / 8);
    } else {
      split(index);
    }
  }

  void resize(uint32_t index, uint32_t capacity) {
    Segment* const old = directory_[index];
    Segment* const made = make_segment(capacity, old->depth);
    each_slot(*old, [&](const Slot& slot) { put_into(*made, slot); });
    made->count = old->count;
    const uint32_t first = index >> (depth_ - old->depth) << (depth_ - old->depth);
    std::fill_n(directory_.begin() + first, uint32_t{1} << (depth_ - old->depth), made);
    free_segment(old);
  }

  void split(uint32_t index) {
    if (directory_[index]->depth == depth_) {
      std::vector<Segment*> doubled(directory_.size() * 2);
      for (size_t i = 0; i < directory_.size(); i++) doubled[2 * i] = doubled[2 * i + 1] = directory_[i];
      directory_ = std::move(doubled);
      depth_++;
      index *= 2;
    }
    Segment* const old = directory_[index];
    const uint32_t depth = old->depth;
    uint32_t upper = 0;
    const auto goes_up = [&](const Slot& slot) { return (slot.tag() >> (31 - depth)) & 1; };
    each_slot(*old, [&](const Slot& slot) { upper += goes_up(slot); });
    Segment* const halves[2] = {make_segment(capacity_for(old->count - upper), depth + 1),
                                make_segment(capacity_for(upper), depth + 1)};
    each_slot(*old, [&](const Slot& slot) {
      Segment* const half = halves[goes_up(slot)];
      put_into(*half, slot);
      half->count++;
    });
    // The directory entries of `old` are 2^(depth_ - depth) neighbours; the lower half of them gets the lower half.
    const uint32_t first = index >> (depth_ - depth) << (depth_ - depth);
    const uint32_t each = uint32_t{1} << (depth_ - depth - 1);
    std::fill_n(directory_.begin() + first, each, halves[0]);
    std::fill_n(directory_.begin() + first + each, each, halves[1]);
    free_segment(old);
  }

  void release() {
    for (size_t i = 0; i < directory_.size(); i++) {
      if (i + 1 == directory_.size() || directory_[i + 1] != directory_[i]) free_segment(directory_[i]);
    }
    std::vector<Segment*>().swap(directory_);
    depth_ = 0;
    if (own_ != nullptr) {
      own_.reset();
      slab_ = nullptr;
    }
  }

  std::vector<Segment*> directory_;
  uint32_t depth_ = 0;
  uint64_t size_ = 0;
  uint64_t bytes_ = 0;        // of segments, but for the pages of a slab
  PageSlab* slab_ = nullptr;  // another's, or
  std::unique_ptr<PageSlab> own_;
};

}  // namespace peregrine::core
