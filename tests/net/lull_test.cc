#include "net/lull.h"

#include <gtest/gtest.h>

namespace peregrine::net {
namespace {

constexpr int64_t kMs = 1'000'000;

TEST(Lull, ComesOnceAfterMuchWork) {
  Lull lull;
  EXPECT_FALSE(lull.has_come(0));
  EXPECT_EQ(lull.due_ns(), INT64_MAX);
  lull.worked(1 << 20);
  EXPECT_FALSE(lull.has_come(10 * kMs));
  EXPECT_EQ(lull.due_ns(), 10 * kMs + Lull::kLongNs);
  EXPECT_FALSE(lull.has_come(10 * kMs + Lull::kLongNs - 1));
  EXPECT_TRUE(lull.has_come(10 * kMs + Lull::kLongNs));
  EXPECT_EQ(lull.due_ns(), INT64_MAX);
  EXPECT_FALSE(lull.has_come(1000 * kMs));
}

TEST(Lull, IsNotWorthItAfterLittle) {
  Lull lull;
  lull.worked(Lull::kMuch - Lull::kTurn - 1);
  EXPECT_FALSE(lull.has_come(0));
  EXPECT_EQ(lull.due_ns(), INT64_MAX);
  lull.worked(0);
  EXPECT_FALSE(lull.has_come(0));
  EXPECT_NE(lull.due_ns(), INT64_MAX);
}

TEST(Lull, WaitsForTheEndOfTheWork) {
  Lull lull;
  lull.worked(1 << 20);
  int64_t now = 0;
  EXPECT_FALSE(lull.has_come(now));
  for (int n = 0; n < 10; ++n) {
    now = lull.due_ns();
    lull.worked(Lull::kLittle);
    EXPECT_FALSE(lull.has_come(now));
    EXPECT_EQ(lull.due_ns(), now + Lull::kLongNs);
  }
  // A PING now and then is no work.
  lull.worked(6);
  EXPECT_TRUE(lull.has_come(lull.due_ns()));
}

}  // namespace
}  // namespace peregrine::net
