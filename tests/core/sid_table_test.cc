#include "core/sid_table.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <string>

#include "core/hash.h"
#include "core/random.h"

namespace peregrine::core {
namespace {

TEST(SidTable, AgainstAMap) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Random random(seed);
    const KeyedHash hash(seed, 2, 3);
    SidTable table;
    SubscriptionPool pool;
    std::map<std::string, Subscription*> twin;
    const auto destroy = [&](Subscription* sub) {
      sub->~Subscription();
      pool.release(sub);
    };
    for (int step = 0; step < 20'000; ++step) {
      const std::string sid =
          (random.below(5) == 0 ? "a-long-sid-of-many-bytes-" : "") + std::to_string(random.below(400));
      const auto at = twin.find(sid);
      Subscription* found = table.find(pool, hash, sid);
      ASSERT_EQ(found, at == twin.end() ? nullptr : at->second) << "seed " << seed;
      if (found != nullptr) {
        table.erase(pool, hash, found);
        twin.erase(at);
        destroy(found);
      } else if (random.below(3) != 0) {
        auto* sub = new (pool.allocate()) Subscription(nullptr, sid);
        EXPECT_EQ(sub->sid(), sid);
        ASSERT_EQ(pool.at(SubscriptionPool::ref_of(sub)), sub);
        table.insert(pool, hash, table.locate(pool, hash, sid), sub);
        twin.emplace(sid, sub);
      }
      ASSERT_EQ(table.size(), twin.size());
    }
    size_t visited = 0;
    table.for_each(pool, [&](const Subscription& sub) { visited += twin.contains(std::string(sub.sid())) ? 1 : 0; });
    EXPECT_EQ(visited, twin.size());
    while (Subscription* sub = table.any(pool)) {
      table.erase(pool, hash, sub);
      destroy(sub);
    }
    EXPECT_EQ(table.size(), 0u);
  }
}

class SidTablePages : public ::testing::Test {
 protected:
  ~SidTablePages() override {
    while (Subscription* sub = table_.any(pool_)) drop(sub);
    EXPECT_LE(table_.memory_bytes(), 256u) << "memory returns";
  }
  Subscription* add(uint64_t sid) { return add(std::to_string(sid)); }
  Subscription* add(const std::string& sid) {
    auto* sub = new (pool_.allocate()) Subscription(nullptr, sid);
    const SidTable::Place place = table_.locate(pool_, hash_, sid);
    EXPECT_FALSE(place) << sid;
    table_.insert(pool_, hash_, place, sub);
    return sub;
  }
  void drop(Subscription* sub) {
    table_.erase(pool_, hash_, sub);
    sub->~Subscription();
    pool_.release(sub);
  }
  Subscription* find(const std::string& sid) const { return table_.find(pool_, hash_, sid); }

  const KeyedHash hash_{1, 2, 3};
  SubscriptionPool pool_;
  SidTable table_;
};

TEST_F(SidTablePages, CountingUpTakesLittleMoreThanFourBytes) {
  constexpr uint64_t kMany = 100'000;
  for (uint64_t sid = 1; sid <= kMany; ++sid) add(sid);
  EXPECT_LE(table_.memory_bytes(), kMany * 17 / 4 + 4096);
  for (uint64_t sid = 1; sid <= kMany; ++sid) ASSERT_EQ(find(std::to_string(sid))->sid(), std::to_string(sid));
  for (const char* other : {"0", "007", "100001", "1 ", "", "-1", "1x", "4294967297", "18446744073709551617"})
    EXPECT_EQ(find(other), nullptr) << other;
}

TEST_F(SidTablePages, NumbersFarApartTakeNoPages) {
  for (const uint64_t step : {3u, 10u, 256u, 100'000u}) {
    for (uint64_t n = 1; n <= 9'000; ++n) add(n * step);
    EXPECT_LE(table_.memory_bytes(), 9'000u * 20) << step;  // half of it never touched; pages would take 100 times that
    while (Subscription* sub = table_.any(pool_)) drop(sub);
  }
}

// What a session does for years: new ones come, old ones go.
TEST_F(SidTablePages, AWindowThatMovesOnStaysSmall) {
  std::map<uint64_t, Subscription*> live;
  for (uint64_t sid = 1; sid <= 60'000; ++sid) {
    live[sid] = add(sid);
    if (live.size() <= 1'000) continue;
    drop(live.begin()->second);
    live.erase(live.begin());
    ASSERT_LE(table_.memory_bytes(), 16'384u) << sid;
    ASSERT_EQ(find(std::to_string(sid - 999)), live.begin()->second);
    ASSERT_EQ(find(std::to_string(sid - 1'000)), nullptr);
  }
}

// All kinds of sids at once, in pages and out of them, moved into pages or not.
TEST_F(SidTablePages, AllKindsAgainstAMap) {
  Random random(11);
  std::map<std::string, Subscription*> twin;
  uint64_t next = 1;
  for (int step = 0; step < 200'000; ++step) {
    std::string sid;
    switch (random.below(8)) {
      case 0:
        sid = "a" + std::to_string(random.below(500));
        break;
      case 1:
        sid = "0" + std::to_string(random.below(500));
        break;
      case 2:
        sid = std::to_string(random.below(2'000'000'000));
        break;
      default:
        sid = std::to_string(random.below(2) == 0 ? next++ : random.below(next));
    }
    Subscription* const found = find(sid);
    const auto at = twin.find(sid);
    ASSERT_EQ(found, at == twin.end() ? nullptr : at->second) << sid;
    if (found == nullptr) {
      twin.emplace(sid, add(sid));
    } else if (random.below(3) != 0) {
      drop(found);
      twin.erase(at);
    }
    if (twin.size() > 3'000 && random.below(2) == 0) {
      Subscription* const any = table_.any(pool_);
      twin.erase(std::string(any->sid()));
      drop(any);
    }
    ASSERT_EQ(table_.size(), twin.size());
  }
  size_t visited = 0;
  table_.for_each(pool_, [&](const Subscription& sub) { visited += twin.contains(std::string(sub.sid())) ? 1 : 0; });
  EXPECT_EQ(visited, twin.size());
}

// Enough for blocks that come one by one and for some in a huge chunk; and taken apart from any order of segments.
TEST(SidTable, ManyInAPool) {
  constexpr int kMany = 40'000;
  const KeyedHash hash(1, 2, 3);
  SubscriptionPool pool;
  SidTable table;
  std::set<const Subscription*> all;
  for (int n = 0; n < kMany; ++n) {
    const std::string sid = std::to_string(n);
    auto* sub = new (pool.allocate()) Subscription(nullptr, sid);
    ASSERT_TRUE(all.insert(sub).second);
    ASSERT_EQ(pool.at(SubscriptionPool::ref_of(sub)), sub);
    table.insert(pool, hash, table.locate(pool, hash, sid), sub);
  }
  for (int n = 0; n < kMany; ++n) {
    const std::string sid = std::to_string(n);
    const Subscription* found = table.find(pool, hash, sid);
    ASSERT_NE(found, nullptr);
    ASSERT_EQ(found->sid(), sid);
  }
  const auto erase = [&](Subscription* sub) {
    ASSERT_EQ(all.erase(sub), 1u);
    table.erase(pool, hash, sub, all.size() % 2 == 0);
    sub->~Subscription();
    pool.release(sub);
  };
  for (int n = 0; n < kMany / 2; ++n) erase(table.any(pool));
  std::array<Subscription*, SidTable::kTogether> subs;
  for (size_t most = 1; const size_t n = table.some(pool, subs.data(), most); most = most % subs.size() + 1) {
    ASSERT_LE(n, most);
    for (size_t each = 0; each < n; ++each) erase(subs[each]);
  }
  EXPECT_TRUE(all.empty());
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.any(pool), nullptr);
}

}  // namespace
}  // namespace peregrine::core
