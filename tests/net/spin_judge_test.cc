#include "net/spin_judge.h"

#include <gtest/gtest.h>

namespace peregrine::net {
namespace {

constexpr int64_t kSpinNs = 50'000;
constexpr int64_t kNoProbe = 1 << 20;  // a time in a millisecond that is not for trying it out

TEST(SpinJudge, TriesItOutOneMillisecondOf32) {
  const SpinJudge judge(kSpinNs);
  int tried = 0;
  for (int64_t ms = 0; ms < 320; ++ms) tried += judge.try_it(ms << 20);
  EXPECT_EQ(tried, 10);
}

TEST(SpinJudge, LooksWhileWorkComesSoon) {
  SpinJudge judge(kSpinNs);
  EXPECT_FALSE(judge.try_it(kNoProbe));
  for (int n = 0; n < 100; ++n) judge.came(20'000, 100, 0);
  EXPECT_TRUE(judge.try_it(kNoProbe));
}

TEST(SpinJudge, OneInVainIsForgivenAndManyAreNot) {
  SpinJudge judge(kSpinNs);
  for (int n = 0; n < 100; ++n) judge.came(20'000, 100, 0);
  judge.in_vain();
  EXPECT_TRUE(judge.try_it(kNoProbe));
  for (int n = 0; n < 100; ++n) judge.in_vain();
  EXPECT_FALSE(judge.try_it(kNoProbe));
}

TEST(SpinJudge, OneOfTwoInVainDoesNotPay) {
  SpinJudge judge(kSpinNs);
  for (int n = 0; n < 100; ++n) {
    judge.came(20'000, 100, 0);
    judge.in_vain();
  }
  EXPECT_FALSE(judge.try_it(kNoProbe));
}

TEST(SpinJudge, WhatComesMuchTooLateWasNotWorthIt) {
  SpinJudge judge(kSpinNs);
  for (int n = 0; n < 100; ++n) judge.came(3 * kSpinNs, 100, 0);
  EXPECT_FALSE(judge.try_it(kNoProbe));
}

TEST(SpinJudge, BulkIsNotWaitedFor) {
  SpinJudge judge(kSpinNs);
  for (int n = 0; n < 100; ++n) judge.came(20'000, 100, 0);
  for (int n = 0; n < 100; ++n) judge.came(20'000, SpinJudge::kBulkBytes, 0);
  EXPECT_FALSE(judge.try_it(kNoProbe));
  for (int n = 0; n < 100; ++n) judge.came(20'000, SpinJudge::kBulkBytes - 1, 0);
  EXPECT_TRUE(judge.try_it(kNoProbe));
}

TEST(SpinJudge, RowsOfSubscriptionsAreBulkToo) {
  SpinJudge judge(kSpinNs);
  for (int n = 0; n < 100; ++n) judge.came(20'000, 100, 0);
  for (int n = 0; n < 100; ++n) judge.came(20'000, 100, SpinJudge::kBulkChanges);
  EXPECT_FALSE(judge.try_it(kNoProbe));
  for (int n = 0; n < 100; ++n) judge.came(20'000, 100, SpinJudge::kBulkChanges - 1);
  EXPECT_TRUE(judge.try_it(kNoProbe));
}

}  // namespace
}  // namespace peregrine::net
