#include "core/sublist_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

namespace peregrine::core {
namespace {

// Pages come and go at random: none is handed out twice, each keeps what was written into it, and nothing is left.
TEST(PageSlab, PagesAreTheirOwners) {
  PageSlab slab;
  std::map<char*, unsigned char> owned;
  std::mt19937 random(3);
  const auto release = [&](std::map<char*, unsigned char>::iterator at) {
    ASSERT_EQ(static_cast<unsigned char>(at->first[0]), at->second);
    ASSERT_EQ(static_cast<unsigned char>(at->first[PageSlab::kPage - 1]), at->second);
    slab.release(at->first);
    owned.erase(at);
  };
  size_t most = 0;
  for (int step = 0; step < 40000; ++step) {
    const bool grows = step < 10000 || (step / 5000) % 2 == 0;
    if (owned.empty() || random() % 3 < (grows ? 2u : 1u)) {
      char* const page = static_cast<char*>(slab.allocate());
      ASSERT_EQ(reinterpret_cast<uintptr_t>(page) % PageSlab::kPage, 0u);
      const auto mark = static_cast<unsigned char>(random());
      page[0] = page[PageSlab::kPage - 1] = static_cast<char>(mark);
      ASSERT_TRUE(owned.emplace(page, mark).second);
      most = std::max<size_t>(most, owned.size());
    } else {
      release(std::next(owned.begin(), static_cast<std::ptrdiff_t>(random() % std::min<size_t>(owned.size(), 100))));
    }
  }
  EXPECT_GT(most, 2000u);
  while (!owned.empty()) release(owned.begin());
  EXPECT_LT(slab.memory_bytes(), 8192u);  // every chunk went back
}

// However many there are, what is begun and not used is little beside them.
TEST(PageSlab, LittleIsUnused) {
  PageSlab slab;
  std::vector<void*> pages;
  for (size_t n = 1; n <= 4000; ++n) {
    pages.push_back(slab.allocate());
    if (n >= 100) {
      ASSERT_LT(slab.memory_bytes(), n * PageSlab::kPage * 4 / 3) << n;
    }
  }
  for (void* page : pages) slab.release(page);
}

// What a chunk with few pages left has is taken first, so that others empty and go back.
TEST(PageSlab, ChunksEmpty) {
  PageSlab slab;
  std::vector<void*> pages;
  for (size_t n = 0; n < 4096; ++n) pages.push_back(slab.allocate());
  const uint64_t before = slab.memory_bytes();
  std::mt19937 random(9);
  std::shuffle(pages.begin(), pages.end(), random);
  // All but a quarter go, then a third of those left moves on, again and again.
  for (size_t n = 1024; n < pages.size(); ++n) slab.release(pages[n]);
  pages.resize(1024);
  for (int round = 0; round < 40; ++round) {
    for (size_t n = 0; n < 300; ++n) {
      const size_t which = random() % pages.size();
      void* const fresh = slab.allocate();
      slab.release(pages[which]);
      pages[which] = fresh;
    }
  }
  EXPECT_LT(slab.memory_bytes(), before / 2);
  for (void* page : pages) slab.release(page);
  EXPECT_LT(slab.memory_bytes(), 8192u);
}

}  // namespace
}  // namespace peregrine::core
