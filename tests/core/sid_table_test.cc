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
      Subscription* found = table.find(pool, hash(sid), sid);
      ASSERT_EQ(found, at == twin.end() ? nullptr : at->second) << "seed " << seed;
      if (found != nullptr) {
        table.erase(hash(sid), found);
        twin.erase(at);
        destroy(found);
      } else if (random.below(3) != 0) {
        auto* sub = new (pool.allocate()) Subscription(nullptr, sid);
        EXPECT_EQ(sub->sid(), sid);
        ASSERT_EQ(pool.at(SubscriptionPool::ref_of(sub)), sub);
        table.insert(hash(sid), sub);
        twin.emplace(sid, sub);
      }
      ASSERT_EQ(table.size(), twin.size());
    }
    size_t visited = 0;
    table.for_each(pool, [&](const Subscription& sub) { visited += twin.contains(std::string(sub.sid())) ? 1 : 0; });
    EXPECT_EQ(visited, twin.size());
    while (Subscription* sub = table.any(pool)) {
      table.erase(hash(sub->sid()), sub);
      destroy(sub);
    }
    EXPECT_EQ(table.size(), 0u);
  }
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
    table.insert(hash(sid), sub);
  }
  for (int n = 0; n < kMany; ++n) {
    const std::string sid = std::to_string(n);
    const Subscription* found = table.find(pool, hash(sid), sid);
    ASSERT_NE(found, nullptr);
    ASSERT_EQ(found->sid(), sid);
  }
  const auto erase = [&](Subscription* sub) {
    ASSERT_EQ(all.erase(sub), 1u);
    table.erase(hash(sub->sid()), sub, all.size() % 2 == 0);
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
