// The subscriptions of one session by sid: about 4 bytes each, because a session may have a million of them.
//
// Client libraries count their sids up from 1. So a sid that is a plain number has its place in a page of 256
// references side by side: nothing is hashed, compared or moved. Sids of any other kind, those of a session with few,
// and numbers so far apart that their pages would be nearly empty are in a hash table of 8 bytes a slot
// (sublist_table.h), which grows segment by segment: no SUB waits for a million to be copied. A sid is in one place
// only.
//
// Bounds: a page is made only while those there are, but for one, are half full on average; it goes with its last
// subscription. Hashes are keyed, of page numbers, too: sids are chosen by clients. Owned by its session; what it names
// lives in the shard's pool.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

#include "core/hash.h"
#include "core/sublist_table.h"
#include "core/subscription_pool.h"

namespace peregrine::core {

class SidTable {
  struct Slot;
  struct Page;

 public:
  // Where a sid is, or where it would be; good until the next insert or erase.
  struct Place {
    Subscription* subscription = nullptr;  // null: there is none
    uint32_t number = 0;                   // of a sid that is a number
    Page* page = nullptr;                  // that it is in or would be in; null: in the hash table
    Slot* slot = nullptr;
    uint32_t tag = 0;
    explicit operator bool() const { return subscription != nullptr; }
  };

  // `hash` is the shard's keyed hash, the same each time.
  [[gnu::always_inline]] Place locate(const SubscriptionPool& pool, const KeyedHash& hash, std::string_view sid) const {
    Place place;
    place.number = number_of(sid);
    if (place.number != 0 && pages_ != nullptr) {
      place.page = find_page(hash, place.number);
      if (place.page != nullptr) {
        if (const SubscriptionPool::Ref ref = place.page->refs[place.number % kPage]) {
          place.subscription = pool.at(ref);
          return place;
        }
        if (table_.empty()) return place;
      }
    }
    return look_in_table(place, pool, hash, sid);
  }
  Subscription* find(const SubscriptionPool& pool, const KeyedHash& hash, std::string_view sid) const {
    return locate(pool, hash, sid).subscription;
  }

  // `place` is where locate() found none of this sid.
  [[gnu::always_inline]] void insert(const SubscriptionPool& pool, const KeyedHash& hash, Place place,
                                     const Subscription* sub) {
    if (place.page == nullptr && place.number != 0 && may_make_page()) [[unlikely]]
      place = {.number = place.number, .page = make_page(pool, hash, place.number)};
    if (place.page != nullptr) {
      place.page->refs[place.number % kPage] = SubscriptionPool::ref_of(sub);
      ++place.page->count;
      ++pages_->subscriptions;
    } else {
      table_.insert_at(place.slot, {place.tag, SubscriptionPool::ref_of(sub)});
    }
  }

  // `place` is where locate() found it. `all_go`: the others follow.
  [[gnu::always_inline]] void erase(const KeyedHash& hash, const Place& place, bool all_go = false) {
    if (place.page == nullptr) return erase_in_table(place.slot, all_go);
    place.page->refs[place.number % kPage] = 0;
    --pages_->subscriptions;
    if (--place.page->count == 0) [[unlikely]]
      drop_page(hash, place.number / kPage, place.page);
  }
  // It is there.
  void erase(const SubscriptionPool& pool, const KeyedHash& hash, const Subscription* sub, bool all_go = false) {
    erase(hash, locate(pool, hash, sub->sid()), all_go);
  }

  size_t size() const { return table_.size() + (pages_ == nullptr ? 0 : pages_->subscriptions); }
  uint64_t memory_bytes() const {
    const uint64_t bytes = table_.memory_bytes();
    if (pages_ == nullptr) return bytes;
    return bytes + sizeof(*pages_) + pages_->table.memory_bytes() + pages_->table.size() * sizeof(Page);
  }

  template <class Visit>
  void for_each(const SubscriptionPool& pool, Visit&& visit) const {
    table_.for_each([&](const Slot& slot) { visit(*pool.at(slot.ref)); });
    if (pages_ == nullptr) return;
    pages_->table.for_each([&](const PageSlot& slot) {
      for (const SubscriptionPool::Ref ref : slot.page->refs) {
        if (ref != 0) visit(*pool.at(ref));
      }
    });
  }
  // For taking a session apart: any subscription, or null. Goes on where it last found one, so that erasing what it
  // returns stays cheap.
  Subscription* any(const SubscriptionPool& pool) {
    Subscription* found = nullptr;
    some(pool, &found, 1);
    return found;
  }
  // The same for up to `most` (kTogether) of them; how many there were.
  static constexpr size_t kTogether = 32;
  size_t some(const SubscriptionPool& pool, Subscription** found, size_t most) {
    size_t n = 0;
    most = std::min(most, kTogether);
    if (pages_ != nullptr) {
      const Page& page = *pages_->table.any(any_from_)->page;
      uint32_t& at = pages_->any_at;
      for (uint32_t looked = 0; looked < kPage && n < most; ++looked, ++at) {
        if (const SubscriptionPool::Ref ref = page.refs[at % kPage]) found[n++] = pool.at(ref);
      }
      return n;
    }
    std::array<const Slot*, kTogether> slots{};
    for (const size_t slots_found = table_.some(any_from_, slots.data(), most); n < slots_found; ++n)
      found[n] = pool.at(slots[n]->ref);
    return n;
  }

 private:
  static constexpr uint32_t kPage = 256;
  static constexpr size_t kFew = 64;     // subscriptions that need no page
  static constexpr size_t kMoved = 256;  // in the hash table, if it is worth looking among them for what is a page's

  struct Slot {
    uint32_t tag_bits;
    SubscriptionPool::Ref ref;
    uint32_t tag() const { return tag_bits; }
    bool empty() const { return ref == 0; }
  };
  struct Page {
    std::array<SubscriptionPool::Ref, kPage> refs{};  // 0 = none
    uint32_t count = 0;
  };
  struct PageSlot {
    uint32_t tag_bits;
    uint32_t number;
    Page* page;
    uint32_t tag() const { return tag_bits; }
    bool empty() const { return page == nullptr; }
  };
  struct Pages {
    ~Pages() {
      table.for_each([](const PageSlot& slot) { delete slot.page; });
    }
    SlotTable<PageSlot> table;
    std::array<PageSlot, 8> memo{};  // by number: where the latest ones were found
    uint64_t subscriptions = 0;
    uint32_t any_at = 0;
  };

  static uint32_t tag_of(uint64_t hash) { return static_cast<uint32_t>(hash); }
  static uint32_t page_tag(const KeyedHash& hash, uint32_t number) { return tag_of(hash.combine(number, 0)); }

  // Of the digits that a number below 10^8 has, and no others: 0 for anything else, "0" included.
  [[gnu::always_inline]] static uint32_t number_of(std::string_view sid) {
    const size_t size = sid.size();
    if (size - 1 > 7 || sid[0] == '0') return 0;
    // Eight characters, led by zeros, taken as two overlapping words; then pairs, fours and all of them at once.
    uint64_t text;
    if (size >= 4) {
      uint32_t front, back;
      std::memcpy(&front, sid.data(), 4);
      std::memcpy(&back, sid.data() + size - 4, 4);
      text = uint64_t{front} << (64 - 8 * size) | uint64_t{back} << 32;
    } else {
      text = 0;
      for (const char c : sid) text = text >> 8 | uint64_t{static_cast<uint8_t>(c)} << 56;
    }
    text |= 0x3030303030303030 & ((uint64_t{1} << (64 - 8 * size)) - 1);
    const uint64_t digits = text ^ 0x3030303030303030;
    if (((digits + 0x7676767676767676) | digits) & 0x8080808080808080) return 0;
    const uint64_t pairs = digits * 10 + (digits >> 8);
    return static_cast<uint32_t>((((pairs & 0x000000FF000000FF) * 0x000F424000000064) +
                                  ((pairs >> 16 & 0x000000FF000000FF) * 0x0000271000000001)) >>
                                 32);
  }

  [[gnu::always_inline]] Page* find_page(const KeyedHash& hash, uint32_t sid_number) const {
    const uint32_t number = sid_number / kPage;
    const PageSlot& memo = pages_->memo[number % pages_->memo.size()];
    if (memo.page != nullptr && memo.number == number) [[likely]]
      return memo.page;
    return look_for_page(hash, number);
  }
  [[gnu::noinline]] Page* look_for_page(const KeyedHash& hash, uint32_t number) const {
    const PageSlot* slot =
        pages_->table.find(page_tag(hash, number), [&](const PageSlot& each) { return each.number == number; });
    if (slot == nullptr) return nullptr;
    pages_->memo[number % pages_->memo.size()] = *slot;
    return slot->page;
  }
  // It is empty.
  [[gnu::noinline]] void drop_page(const KeyedHash& hash, uint32_t number, Page* page) {
    auto& table = pages_->table;
    table.erase(table.find(page_tag(hash, number), [&](const PageSlot& each) { return each.number == number; }));
    pages_->memo[number % pages_->memo.size()] = {};
    delete page;
    if (table.empty()) pages_.reset();
    if (size() == 0) any_from_ = 0;
  }
  [[gnu::noinline]] void erase_in_table(Slot* slot, bool all_go) {
    table_.erase(slot, !all_go);
    if (size() == 0) any_from_ = 0;
  }

  bool may_make_page() const {
    if (size() < kFew) return false;
    return pages_ == nullptr || pages_->table.size() * (kPage / 2) <= pages_->subscriptions + kPage / 2;
  }

  [[gnu::noinline]] Place look_in_table(Place place, const SubscriptionPool& pool, const KeyedHash& hash,
                                        std::string_view sid) const {
    place.tag = tag_of(hash(sid));
    Slot* vacancy;
    place.slot = table_.find(
        place.tag,
        [&](const Slot& each) {
          Subscription* const sub = pool.at(each.ref);
          if (!sub->sid_is(sid)) return false;
          place.subscription = sub;
          return true;
        },
        vacancy);
    if (place.subscription != nullptr) place.page = nullptr;
    else place.slot = vacancy;
    return place;
  }

  // With what is in the hash table and belongs there, if that is small: the first sids of a session that then counts
  // on.
  Page* make_page(const SubscriptionPool& pool, const KeyedHash& hash, uint32_t sid_number) {
    if (pages_ == nullptr) pages_ = std::make_unique<Pages>();
    auto page = std::make_unique<Page>();
    if (table_.size() <= kMoved) {
      const uint32_t first = sid_number - sid_number % kPage;
      for (uint32_t n = first; n < first + kPage && !table_.empty(); ++n) {
        if (n == 0) continue;
        char digits[12];
        const std::string_view sid(digits, static_cast<size_t>(std::to_chars(digits, digits + 12, n).ptr - digits));
        Slot* const slot =
            table_.find(tag_of(hash(sid)), [&](const Slot& each) { return pool.at(each.ref)->sid_is(sid); });
        if (slot == nullptr) continue;
        page->refs[n % kPage] = slot->ref;
        ++page->count;
        ++pages_->subscriptions;
        table_.erase(slot);
      }
    }
    const uint32_t number = sid_number / kPage;
    pages_->table.insert({page_tag(hash, number), number, page.get()});
    return page.release();
  }

  SlotTable<Slot> table_;
  std::unique_ptr<Pages> pages_;  // while there are any
  uint64_t any_from_ = 0;
};

}  // namespace peregrine::core
