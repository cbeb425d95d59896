// The subscriptions of one entry or queue group: an array, as a match hands it out; when they are many, also where in
// it each of them is, so that anyone can go in constant time. (A subscription does not know its place: nearly all of
// them are alone on their subject, and would pay 4 bytes for it.) Private to the sublist.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/sublist_table.h"
#include "core/subscription.h"

namespace peregrine::core {

class Members {
 public:
  bool empty() const { return list_.empty(); }
  size_t size() const { return list_.size(); }
  std::span<Subscription* const> list() const { return list_; }
  uint64_t heap_bytes() const {
    return list_.capacity() * sizeof(Subscription*) +
           (places_ == nullptr ? 0 : sizeof(Places) + places_->memory_bytes());
  }

  void add(Subscription* sub) {
    list_.push_back(sub);
    if (places_ != nullptr) {
      note(list_.size() - 1);
    } else if (list_.size() > kScanned) {
      places_ = std::make_unique<Places>();
      for (size_t at = 0; at < list_.size(); ++at) note(at);
    }
  }

  // It is one of them. The last one moves to its place.
  void remove(const Subscription* sub) {
    size_t at;
    if (places_ == nullptr) {
      at = static_cast<size_t>(std::find(list_.begin(), list_.end(), sub) - list_.begin());
    } else {
      Place* const place = place_of(sub);
      at = place->number - 1;
      if (list_.back() != sub) place_of(list_.back())->number = place->number;
      places_->erase(place);
    }
    assert(list_[at] == sub);
    list_[at] = list_.back();
    list_.pop_back();
    if (list_.capacity() > 16 && list_.size() < list_.capacity() / 4) list_.shrink_to_fit();
    if (list_.size() < kScanned / 2) places_.reset();
  }

 private:
  static constexpr size_t kScanned = 32;  // up to so many are looked through

  struct Place {
    uint32_t tag_bits;
    uint32_t number;  // from 1
    uint32_t tag() const { return tag_bits; }
    bool empty() const { return number == 0; }
  };
  using Places = SlotTable<Place>;

  static uint32_t tag_of(const Subscription* sub) {
    return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(sub) / alignof(Subscription) * 0x9E3779B97F4A7C15 >> 32);
  }
  void note(size_t at) { places_->insert({tag_of(list_[at]), static_cast<uint32_t>(at + 1)}); }
  Place* place_of(const Subscription* sub) const {
    return places_->find(tag_of(sub), [&](const Place& each) { return list_[each.number - 1] == sub; });
  }

  std::vector<Subscription*> list_;
  std::unique_ptr<Places> places_;  // of all, if there are many
};

}  // namespace peregrine::core
