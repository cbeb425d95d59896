// Congestion windows by themselves: what HyStart++, CUBIC, NewReno and idleness make of a window, round trip by round
// trip.
#include "net/tcp/congestion.h"

#include <gtest/gtest.h>

namespace peregrine::net::tcp {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr uint32_t kMss = 1000;

// A sender that always has more to send: each round trip the whole window goes out and is acknowledged, segment by
// segment.
class Path {
 public:
  explicit Path(CongestionControl control = CongestionControl::kCubic) { congestion.start(control, kMss); }

  void round(int64_t rtt_ns) {
    const uint32_t segments = congestion.window() / kMss;
    next_ = acked_ + segments * kMss;
    now += rtt_ns;
    for (uint32_t n = 0; n < segments; ++n) {
      acked_ += kMss;
      congestion.on_round_trip(rtt_ns);
      congestion.on_progress(acked_, next_, kMss, now);
      congestion.on_ack(kMss, kMss, now, rtt_ns);
    }
  }
  void loss() {
    congestion.on_congestion(kMss, congestion.window());
    congestion.end_recovery(kMss);
  }

  Congestion congestion;
  int64_t now = 1'000'000 * kMs;

 private:
  uint32_t acked_ = 1, next_ = 1;
};

// RFC 6928, 5681.
TEST(Congestion, SlowStartDoublesEachRoundTrip) {
  Path path;
  EXPECT_EQ(path.congestion.window(), 10 * kMss);
  for (uint32_t window = 20; window <= 320; window *= 2) {
    path.round(20 * kMs);
    EXPECT_EQ(path.congestion.window(), window * kMss);
  }
  EXPECT_TRUE(path.congestion.slow_start());
}

// RFC 9406.
TEST(Congestion, ARoundTripThatGrowsEndsSlowStartBeforeALoss) {
  Path path;
  for (int n = 0; n < 3; ++n) path.round(20 * kMs);
  ASSERT_EQ(path.congestion.window(), 80 * kMss);
  path.round(25 * kMs);  // more than an eighth, and more than 4 ms
  const uint32_t seen = path.congestion.window();
  EXPECT_LT(seen, 110 * kMss);
  uint32_t before = seen;
  for (int n = 0; n < 5; ++n) {  // five careful rounds, a quarter each
    path.round(25 * kMs);
    EXPECT_NEAR(path.congestion.window(), before * 1.25, before * 0.05);
    before = path.congestion.window();
  }
  path.round(25 * kMs);
  EXPECT_FALSE(path.congestion.slow_start());
  EXPECT_NEAR(path.congestion.threshold(), before, 10);
}

TEST(Congestion, JitterDoesNotEndSlowStart) {
  Path path;
  for (int n = 0; n < 3; ++n) path.round(20 * kMs);
  path.round(25 * kMs);
  path.round(20 * kMs);  // it was none
  const uint32_t before = path.congestion.window();
  path.round(20 * kMs);
  EXPECT_EQ(path.congestion.window(), 2 * (before / kMss) * kMss + before % kMss);
  EXPECT_TRUE(path.congestion.slow_start());
  path.round(22 * kMs);  // less than 4 ms are nothing
  EXPECT_GE(path.congestion.window(), 4 * (before / kMss) * kMss);
}

// RFC 9438 sections 4.2 and 4.6.
TEST(Congestion, CubicComesBackToWhereItLostAndStaysThereForAWhile) {
  Path path;
  path.congestion.set_window(1000 * kMss);
  path.loss();
  EXPECT_EQ(path.congestion.window(), 700 * kMss);
  // K = cbrt((1000 - 700) / 0.4) = 9.1 s.
  const int64_t started = path.now;
  while (path.now - started < 4'500 * kMs) path.round(50 * kMs);
  EXPECT_NEAR(path.congestion.window() / kMss, 962, 15);  // 1000 - 0.4 * 4.6^3
  while (path.now - started < 9'100 * kMs) path.round(50 * kMs);
  EXPECT_NEAR(path.congestion.window() / kMss, 1000, 10);
  while (path.now - started < 14'100 * kMs) path.round(50 * kMs);
  EXPECT_NEAR(path.congestion.window() / kMss, 1050, 20);  // 0.4 * 5^3
}

// RFC 9438 section 4.7.
TEST(Congestion, CubicMakesRoomForANewcomer) {
  Path path;
  path.congestion.set_window(1000 * kMss);
  path.loss();
  path.loss();  // at 700: below the last maximum, so the next is taken for 595
  EXPECT_EQ(path.congestion.window(), 490 * kMss);
  const int64_t started = path.now;
  while (path.now - started < 6'500 * kMs) path.round(50 * kMs);  // K = cbrt((595 - 490) / 0.4) = 6.4 s
  EXPECT_NEAR(path.congestion.window() / kMss, 595, 10);
}

// RFC 5681.
TEST(Congestion, NewRenoHalvesAndAddsASegmentEachRoundTrip) {
  Path path(CongestionControl::kNewReno);
  path.congestion.set_window(100 * kMss);
  path.loss();
  EXPECT_EQ(path.congestion.window(), 50 * kMss);
  for (uint32_t n = 1; n <= 20; ++n) {
    path.round(50 * kMs);
    EXPECT_NEAR(path.congestion.window(), (50 + n) * kMss, kMss / 2);
  }
}

TEST(Congestion, ALossIsAnsweredFromWhatWasInUse) {
  Path path;
  path.congestion.set_window(1000 * kMss);
  // 100 segments each round trip, for some seconds: RFC 7661's pipeACK.
  uint32_t acked = 1;
  for (int n = 0; n < 80; ++n) {
    path.now += 50 * kMs;
    acked += 100 * kMss;
    path.congestion.on_progress(acked, acked + 100 * kMss, 100 * kMss, path.now);
  }
  path.congestion.on_congestion(kMss, 20 * kMss);
  path.congestion.end_recovery(kMss);
  EXPECT_NEAR(path.congestion.window(), 70 * kMss, 2 * kMss);

  Path used;
  used.congestion.set_window(1000 * kMss);
  used.congestion.on_congestion(kMss, 600 * kMss);  // more than half: all of it counts
  EXPECT_EQ(used.congestion.threshold(), 700 * kMss);
}

TEST(Congestion, AnIdleWindowFadesByHalvesToTheInitialOne) {
  Path path;
  path.congestion.set_window(100 * kMss);
  path.congestion.on_idle(450 * kMs, 200 * kMs, kMss);
  EXPECT_EQ(path.congestion.window(), 25 * kMss);
  path.congestion.on_idle(60'000 * kMs, 200 * kMs, kMss);
  EXPECT_EQ(path.congestion.window(), 10 * kMss);
}

TEST(Congestion, WhatWasTakenBackInVainIsGivenBack) {
  Path path;
  path.round(20 * kMs);
  const uint32_t window = path.congestion.window(), threshold = path.congestion.threshold();
  path.loss();
  path.congestion.on_timeout(kMss);
  path.congestion.restore(window, threshold);
  EXPECT_EQ(path.congestion.window(), window);
  path.round(20 * kMs);
  EXPECT_EQ(path.congestion.window(), 2 * window);
}

}  // namespace
}  // namespace peregrine::net::tcp
