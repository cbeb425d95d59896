#include "core/timer_wheel.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "core/random.h"

namespace peregrine::core {
namespace {

constexpr int64_t kMs = 1'000'000;

struct Fired {
  Timer timer;
  int64_t due = 0;
  bool fired = false;
};

TEST(TimerWheel, FiresOnceInTimeAndNeverEarly) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Random random(seed);
    int64_t now = static_cast<int64_t>(random.below(1'000'000)) * kMs;
    TimerWheel wheel(now);
    std::vector<std::unique_ptr<Fired>> timers;
    for (int n = 0; n < 500; ++n) {
      auto& timer = *timers.emplace_back(std::make_unique<Fired>());
      const int64_t spans[] = {5, 300, 70'000, 20'000'000};
      timer.due = now + static_cast<int64_t>(random.below(static_cast<uint64_t>(spans[n % 4]))) * kMs + 1;
      wheel.arm(timer.timer, timer.due, &timer, [](void* self) { static_cast<Fired*>(self)->fired = true; });
    }
    for (int n = 0; n < 500; n += 7) {
      timers[static_cast<size_t>(n)]->timer.cancel();
      timers[static_cast<size_t>(n)]->due = INT64_MAX;
    }
    for (int step = 0; step < 2000; ++step) {
      int64_t first = INT64_MAX;
      for (const auto& timer : timers) {
        if (!timer->fired) first = std::min(first, timer->due);
      }
      const int64_t next = wheel.next_ns();
      if (first == INT64_MAX) {
        ASSERT_EQ(next, INT64_MAX);
        break;
      }
      ASSERT_LE(next, (first / kMs + 1) * kMs + kMs) << "a park until next_ns() would be too late, seed " << seed;
      ASSERT_GT(next, now);
      now = step % 3 == 0 ? next : now + static_cast<int64_t>(random.below(step % 5 == 0 ? 5'000'000 : 2000)) * kMs;
      wheel.advance(now);
      for (const auto& timer : timers) {
        ASSERT_EQ(timer->fired, timer->fired && timer->due <= now) << "early, seed " << seed;
        if (timer->due <= now - kMs) {
          ASSERT_TRUE(timer->fired) << "late, seed " << seed;
        }
      }
    }
  }
}

TEST(TimerWheel, CallbackMayArmAndCancel) {
  struct Chain {
    TimerWheel wheel{0};
    Timer timer, victim;
    int fired = 0;
    int64_t at = 0;
  } chain;
  chain.wheel.arm(chain.victim, 5 * kMs, &chain, [](void*) { FAIL() << "was cancelled"; });
  chain.wheel.arm(chain.timer, kMs, &chain, [](void* self) {
    auto& chain = *static_cast<Chain*>(self);
    chain.victim.cancel();
    chain.at += 100 * kMs;
    if (++chain.fired < 50)
      chain.wheel.arm(chain.timer, chain.at, self, [](void* again) {
        auto& chain = *static_cast<Chain*>(again);
        ++chain.fired;
      });
  });
  chain.wheel.advance(1'000 * kMs);
  EXPECT_EQ(chain.fired, 2);
  EXPECT_EQ(chain.wheel.armed(), 0u);
}

TEST(TimerWheel, DestroyedTimerIsCancelled) {
  TimerWheel wheel(0);
  {
    Timer timer;
    wheel.arm(timer, kMs, nullptr, [](void*) { FAIL(); });
    EXPECT_EQ(wheel.armed(), 1u);
  }
  EXPECT_EQ(wheel.armed(), 0u);
  wheel.advance(10 * kMs);
}

}  // namespace
}  // namespace peregrine::core
