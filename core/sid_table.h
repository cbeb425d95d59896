// The subscriptions of one session by sid: 8 bytes a slot, because a session may have a million of them.
//
// Owned by its session; what it names lives in the shard's pool. Keyed hash: sids are chosen by clients. A slot holds
// 32 bits of it, so neither passing by others nor moving them touches a subscription. Grows segment by segment
// (sublist_table.h): no SUB waits for a table of a million to be copied.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "core/sublist_table.h"
#include "core/subscription_pool.h"

namespace peregrine::core {

class SidTable {
 public:
  // `hash` is the keyed hash of the sid, of which the lower half is used.
  Subscription* find(const SubscriptionPool& pool, uint64_t hash, std::string_view sid) const {
    const Slot* slot = table_.find(tag_of(hash), [&](const Slot& each) { return pool.at(each.ref)->sid() == sid; });
    return slot == nullptr ? nullptr : pool.at(slot->ref);
  }
  // There is none of this sid yet.
  void insert(uint64_t hash, const Subscription* sub) { table_.insert({tag_of(hash), SubscriptionPool::ref_of(sub)}); }
  // `all_go`: the others follow.
  void erase(uint64_t hash, const Subscription* sub, bool all_go = false) {
    const SubscriptionPool::Ref ref = SubscriptionPool::ref_of(sub);
    table_.erase(table_.find(tag_of(hash), [&](const Slot& each) { return each.ref == ref; }), !all_go);
    if (table_.empty()) any_from_ = 0;
  }

  size_t size() const { return table_.size(); }

  template <class Visit>
  void for_each(const SubscriptionPool& pool, Visit&& visit) const {
    table_.for_each([&](const Slot& slot) { visit(*pool.at(slot.ref)); });
  }
  // For taking a session apart: any subscription, or null. Goes on where it last found one, so that erasing what it
  // returns stays cheap.
  Subscription* any(const SubscriptionPool& pool) {
    const Slot* slot = table_.any(any_from_);
    return slot == nullptr ? nullptr : pool.at(slot->ref);
  }
  // The same for up to `most` (kTogether) of them; how many there were.
  static constexpr size_t kTogether = 32;
  size_t some(const SubscriptionPool& pool, Subscription** found, size_t most) {
    std::array<const Slot*, kTogether> slots;
    const size_t n = table_.some(any_from_, slots.data(), std::min(most, kTogether));
    for (size_t i = 0; i < n; ++i) found[i] = pool.at(slots[i]->ref);
    return n;
  }

 private:
  struct Slot {
    uint32_t tag_bits;
    SubscriptionPool::Ref ref;
    uint32_t tag() const { return tag_bits; }
    bool empty() const { return ref == 0; }
  };
  static uint32_t tag_of(uint64_t hash) { return static_cast<uint32_t>(hash); }

  SlotTable<Slot> table_;
  uint64_t any_from_ = 0;
};

}  // namespace peregrine::core
