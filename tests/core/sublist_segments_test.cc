#include "core/sublist_segments.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <set>

#include "core/sublist_table.h"

namespace peregrine::core {
namespace {

// Pieces of random sizes come and go: none overlaps another, each keeps what was written into it, and nothing is left.
TEST(SegmentSlab, PiecesAreTheirOwners) {
  SegmentSlab slab;
  struct Owned {
    SegmentSlab::Piece piece;
    size_t bytes;
    unsigned char mark;
  };
  std::map<char*, Owned> owned;
  std::mt19937 random(3);
  const auto release = [&](std::map<char*, Owned>::iterator at) {
    const Owned& each = at->second;
    const auto* bytes = static_cast<const unsigned char*>(each.piece.memory);
    ASSERT_EQ(bytes[0], each.mark);
    ASSERT_EQ(bytes[each.bytes - 1], each.mark);
    slab.release(each.piece.memory, each.piece.ref, each.bytes);
    owned.erase(at);
  };
  size_t most = 0;
  for (int step = 0; step < 4000; ++step) {
    const bool grows = step < 1000 || (step / 500) % 2 == 0;
    if (owned.empty() || random() % 3 < (grows ? 2u : 1u)) {
      const size_t bytes = 1 + random() % SegmentSlab::kMost;
      const SegmentSlab::Piece piece = slab.allocate(bytes);
      char* const at = static_cast<char*>(piece.memory);
      const auto next = owned.lower_bound(at);
      if (next != owned.end()) {
        ASSERT_LE(at + bytes, next->first);
      }
      if (next != owned.begin()) {
        ASSERT_LE(std::prev(next)->first + std::prev(next)->second.bytes, at);
      }
      const auto mark = static_cast<unsigned char>(random());
      at[0] = at[bytes - 1] = static_cast<char>(mark);
      owned[at] = {piece, bytes, mark};
      most = std::max<size_t>(most, slab.memory_bytes());
    } else {
      release(std::next(owned.begin(), static_cast<std::ptrdiff_t>(random() % owned.size())));
    }
  }
  EXPECT_GT(most, size_t{4} << 20);
  while (!owned.empty()) release(owned.begin());
  EXPECT_LT(slab.memory_bytes(), 4096u);  // every chunk went back
}

// What one size leaves serves the next one.
TEST(SegmentSlab, SizesShareChunks) {
  SegmentSlab slab;
  std::vector<SegmentSlab::Piece> small;
  for (int n = 0; n < 1000; ++n) small.push_back(slab.allocate(5 * SegmentSlab::kPage));
  const uint64_t before = slab.memory_bytes();
  for (const auto& piece : small) slab.release(piece.memory, piece.ref, 5 * SegmentSlab::kPage);
  std::vector<SegmentSlab::Piece> large;
  for (int n = 0; n < 600; ++n) large.push_back(slab.allocate(8 * SegmentSlab::kPage));
  EXPECT_LE(slab.memory_bytes(), before);
  for (const auto& piece : large) slab.release(piece.memory, piece.ref, 8 * SegmentSlab::kPage);
}

struct Slot {
  uint32_t tag_bits;
  uint32_t value;
  uint32_t tag() const { return tag_bits; }
  bool empty() const { return value == 0; }
};

// Two tables that grow side by side, as those of a Sublist do: at every size they take less than 18 bytes a slot once
// they are large, and all of it goes back.
TEST(SegmentSlab, TablesShareIt) {
  SegmentSlab slab;
  {
    SlotTable<Slot> one(slab), other(slab);
    std::mt19937 random(5);
    std::vector<uint32_t> tags;
    for (uint32_t n = 1; n <= 300'000; ++n) {
      tags.push_back(static_cast<uint32_t>(random()));
      one.insert({tags.back(), n});
      other.insert({~tags.back(), n});
      if (n >= 200'000 && n % 10'000 == 0) {
        EXPECT_LT(slab.memory_bytes(), uint64_t{18} * 2 * n) << n;
      }
    }
    for (uint32_t n = 1; n <= tags.size(); ++n) {
      Slot* const slot = one.find(tags[n - 1], [&](const Slot& each) { return each.value == n; });
      ASSERT_NE(slot, nullptr);
      one.erase(slot);
      ASSERT_NE(other.find(~tags[n - 1], [&](const Slot& each) { return each.value == n; }), nullptr);
    }
    EXPECT_TRUE(one.empty());
    EXPECT_EQ(other.size(), tags.size());
  }
  EXPECT_LT(slab.memory_bytes(), 8192u);
}

}  // namespace
}  // namespace peregrine::core
