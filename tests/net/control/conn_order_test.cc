#include "net/control/conn_order.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/random.h"

namespace peregrine::net::control {
namespace {

TEST(FirstRows, AreTheFrontOfTheSortedList) {
  core::Random random(5);
  for (const auto sort : {core::ConnSort::kCid, core::ConnSort::kSubs, core::ConnSort::kIdle, core::ConnSort::kUptime,
                          core::ConnSort::kReason, core::ConnSort::kBytesTo}) {
    const ConnOrder order{sort, 1000};
    for (const size_t keep : {size_t{0}, size_t{1}, size_t{7}, size_t{100}, size_t{400}}) {
      std::vector<core::ConnRow> all;
      FirstRows first(order, keep);
      for (uint64_t cid = 1; cid <= 300; ++cid) {
        core::ConnRow row;
        row.cid = cid * 7 % 307;
        row.subscriptions = random.below(5);
        row.last_activity_ns = static_cast<int64_t>(random.below(9));
        row.start_ns = static_cast<int64_t>(random.below(900));
        row.stop_ns = random.below(3) == 0 ? row.start_ns + static_cast<int64_t>(random.below(99)) : 0;
        row.reason = std::string(random.below(3), 'r');
        row.traffic.out_bytes = random.below(4);
        all.push_back(row);
        first.put(std::move(row));
        EXPECT_EQ(first.full(), keep != 0 && first.rows().size() == keep);
      }
      std::sort(all.begin(), all.end(), order);
      if (keep != 0 && keep < all.size()) {
        EXPECT_EQ(first.rows().front().cid, all[keep - 1].cid) << "the last one is on top";
        all.resize(keep);
      }
      std::sort(first.rows().begin(), first.rows().end(), order);
      ASSERT_EQ(first.rows().size(), all.size());
      for (size_t n = 0; n < all.size(); ++n) ASSERT_EQ(first.rows()[n].cid, all[n].cid);
    }
  }
}

}  // namespace
}  // namespace peregrine::net::control
