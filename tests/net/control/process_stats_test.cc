#include "net/control/process_stats.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <ctime>
#include <thread>

namespace peregrine::net::control {
namespace {

TEST(ProcessStats, ResidentMemoryGrowsWithWhatIsTouched) {
  constexpr size_t kBytes = 64 << 20;
  const int64_t before = ProcessStats::resident_bytes();
  ASSERT_GT(before, 1 << 20);
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::memset(memory, 1, kBytes);
  EXPECT_GT(ProcessStats::resident_bytes(), before + static_cast<int64_t>(kBytes) / 2);
  munmap(memory, kBytes);
}

TEST(ProcessStats, CpuIsThatOfTheTimeSinceTheLastReading) {
  ProcessStats stats;
  EXPECT_EQ(stats.cpu_percent(), 0);  // less than a second old
  // Until a second has passed and 200 ms of it were ours: how long that takes depends on who else wants the machine.
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&begin] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  timespec own{};
  volatile uint64_t sum = 0;
  do {
    sum = sum + 1;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &own);
  } while (seconds() < 1.05 || (own.tv_sec == 0 && own.tv_nsec < 200'000'000));
  const double busy = stats.cpu_percent();
  EXPECT_GE(busy * seconds() / 100, 0.19);
  EXPECT_LE(busy, 150);
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  EXPECT_LT(stats.cpu_percent(), busy / 2);
}

}  // namespace
}  // namespace peregrine::net::control
