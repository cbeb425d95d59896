#include "core/sid_table.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "core/random.h"

namespace peregrine::core {
namespace {

TEST(SidTable, AgainstAMap) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Random random(seed);
    const KeyedHash hash(seed, 2, 3);
    SidTable table;
    std::map<std::string, std::unique_ptr<Subscription>> twin;
    for (int step = 0; step < 20'000; ++step) {
      const std::string sid =
          (random.below(5) == 0 ? "a-long-sid-of-many-bytes-" : "") + std::to_string(random.below(400));
      const auto at = twin.find(sid);
      Subscription* found = table.find(hash, sid);
      ASSERT_EQ(found, at == twin.end() ? nullptr : at->second.get()) << "seed " << seed;
      if (found != nullptr) {
        table.erase(hash, found);
        twin.erase(at);
      } else if (random.below(3) != 0) {
        auto sub = std::make_unique<Subscription>(nullptr, sid);
        EXPECT_EQ(sub->sid(), sid);
        table.insert(hash, sub.get());
        twin.emplace(sid, std::move(sub));
      }
      ASSERT_EQ(table.size(), twin.size());
    }
    size_t visited = 0;
    table.for_each([&](const Subscription& sub) { visited += twin.contains(std::string(sub.sid())) ? 1 : 0; });
    EXPECT_EQ(visited, twin.size());
    while (Subscription* sub = table.any()) table.erase(hash, sub);
    EXPECT_EQ(table.size(), 0u);
  }
}

}  // namespace
}  // namespace peregrine::core
