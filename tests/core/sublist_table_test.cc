#include "core/sublist_table.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <set>
#include <vector>

namespace peregrine::core {
namespace {

// Slots of the sizes that are in use: pages of 682, 512 and 256 of them.
struct Slot6 {
  std::array<uint16_t, 2> halves{};
  uint16_t value = 0;
  Slot6(uint32_t tag, uint32_t value) : value(static_cast<uint16_t>(value)) { std::memcpy(&halves, &tag, sizeof(tag)); }
  uint32_t tag() const {
    uint32_t tag;
    std::memcpy(&tag, &halves, sizeof(tag));
    return tag;
  }
  bool empty() const { return value == 0; }
};
struct Slot8 {
  uint32_t tag_bits;
  uint32_t value;
  uint32_t tag() const { return tag_bits; }
  bool empty() const { return value == 0; }
};
struct Slot16 {
  uint32_t tag_bits;
  uint32_t value;
  uint64_t more = 0;
  Slot16(uint32_t tag, uint32_t value) : tag_bits(tag), value(value) {}
  uint32_t tag() const { return tag_bits; }
  bool empty() const { return value == 0; }
};

template <class Slot>
class SlotTables : public testing::Test {
 protected:
  using Key = std::pair<uint32_t, uint32_t>;  // tag, value

  Slot* find(uint32_t tag, uint32_t value) {
    return table_.find(tag, [&](const Slot& each) { return each.value == value; });
  }
  void add(uint32_t tag, uint32_t value) {
    Slot* vacancy;
    ASSERT_EQ(table_.find(
                  tag, [&](const Slot& each) { return each.value == value; }, vacancy),
              nullptr);
    if (value % 2 == 0) table_.insert_at(vacancy, {tag, value});
    else table_.insert({tag, value});
    twin_.insert({tag, value});
  }
  void remove(std::set<Key>::iterator which, bool shrinks) {
    Slot* const slot = find(which->first, which->second);
    ASSERT_NE(slot, nullptr);
    table_.erase(slot, shrinks);
    twin_.erase(which);
  }
  void compare() {
    ASSERT_EQ(table_.size(), twin_.size());
    std::set<Key> seen;
    table_.for_each([&](const Slot& slot) { ASSERT_TRUE(seen.insert({slot.tag(), slot.value}).second); });
    ASSERT_EQ(seen, twin_);
    for (const Key& key : twin_) ASSERT_NE(find(key.first, key.second), nullptr);
    std::set<Key> sliced, ahead;
    for (uint64_t cursor = 0; cursor < uint64_t{1} << 32;) {
      const uint64_t next = table_.visit_slice(
          cursor,
          [&](const Slot& slot) {
            ASSERT_TRUE(ahead.contains({slot.tag(), slot.value}));
            ASSERT_TRUE(sliced.insert({slot.tag(), slot.value}).second);
          },
          [&](const Slot& slot) {
            ahead.insert({slot.tag(), slot.value});
          });
      ASSERT_GT(next, cursor);
      cursor = next;
    }
    ASSERT_EQ(sliced, twin_);
  }

  SlotTable<Slot> table_;
  std::set<Key> twin_;
};

using Slots = testing::Types<Slot6, Slot8, Slot16>;
TYPED_TEST_SUITE(SlotTables, Slots);

// Up to some segments and down to nothing, several times, with tags that several slots share.
TYPED_TEST(SlotTables, AgainstASet) {
  std::mt19937 random(7);
  uint32_t value = 0;
  for (const size_t most : {20u, 1'500u, 6'000u, 30'000u}) {
    const auto tag = [&] { return static_cast<uint32_t>(random() % (4 * most)) * 0x9E3779B1u; };
    while (this->twin_.size() < most) {
      value = value % 60'000 + 1;
      const typename TestFixture::Key key{tag(), value};
      if (!this->twin_.contains(key)) this->add(key.first, key.second);
      if (random() % 3 != 0) continue;
      auto which = this->twin_.lower_bound({tag(), 0});
      if (which == this->twin_.end()) which = this->twin_.begin();
      this->remove(which, true);
    }
    this->compare();
    // Half of them at random, the rest in the order of the slots.
    while (this->twin_.size() > most / 2) {
      auto which = this->twin_.lower_bound({tag(), 0});
      if (which == this->twin_.end()) which = this->twin_.begin();
      this->remove(which, true);
    }
    this->compare();
    uint64_t from = 0;
    std::array<const TypeParam*, 8> some;
    while (!this->twin_.empty()) {
      const size_t n = this->table_.some(from, some.data(), 1 + random() % some.size());
      ASSERT_GT(n, 0u);
      std::vector<typename TestFixture::Key> keys;
      for (size_t i = 0; i < n; ++i) keys.push_back({some[i]->tag(), some[i]->value});
      for (const auto& key : keys) {
        const auto which = this->twin_.find(key);
        ASSERT_NE(which, this->twin_.end());
        this->remove(which, false);
      }
    }
    EXPECT_EQ(this->table_.any(from), nullptr);
    EXPECT_LT(this->table_.memory_bytes(), 400u);
  }
}

// Tags that all fall into one segment, and beyond what splitting can take apart.
TYPED_TEST(SlotTables, TagsSideBySide) {
  for (uint32_t n = 0; n < 20'000; ++n) this->add(0xABCDE000u | (n % 4096), n / 4096 + 1);
  this->compare();
  while (!this->twin_.empty()) this->remove(std::prev(this->twin_.end()), true);
  EXPECT_LT(this->table_.memory_bytes(), 400u);
}

// Two tables that grow side by side, as those of a Sublist do: at every size they take less than 14 bytes a slot once
// they are large, and all of it goes back.
TEST(SlotTable, TwoShareASlab) {
  PageSlab slab;
  {
    SlotTable<Slot8> one(slab), other(slab);
    std::mt19937 random(5);
    std::vector<uint32_t> tags;
    for (uint32_t n = 1; n <= 300'000; ++n) {
      tags.push_back(static_cast<uint32_t>(random()));
      one.insert({tags.back(), n});
      other.insert({~tags.back(), n});
      if (n >= 200'000 && n % 10'000 == 0) {
        EXPECT_LT(slab.memory_bytes(), uint64_t{14} * 2 * n) << n;
      }
    }
    for (uint32_t n = 1; n <= tags.size(); ++n) {
      Slot8* const slot = one.find(tags[n - 1], [&](const Slot8& each) { return each.value == n; });
      ASSERT_NE(slot, nullptr);
      one.erase(slot);
      ASSERT_NE(other.find(~tags[n - 1], [&](const Slot8& each) { return each.value == n; }), nullptr);
    }
    EXPECT_TRUE(one.empty());
    EXPECT_EQ(other.size(), tags.size());
  }
  EXPECT_LT(slab.memory_bytes(), 8192u);
}

}  // namespace
}  // namespace peregrine::core
