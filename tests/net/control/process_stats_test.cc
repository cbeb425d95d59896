#include "net/control/process_stats.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
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
  const auto busy_until = std::chrono::steady_clock::now() + std::chrono::milliseconds(1050);
  volatile uint64_t sum = 0;
  while (std::chrono::steady_clock::now() < busy_until) sum = sum + 1;
  const double busy = stats.cpu_percent();
  EXPECT_GT(busy, 10);
  EXPECT_LT(busy, 150);
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  EXPECT_LT(stats.cpu_percent(), busy / 2);
}

}  // namespace
}  // namespace peregrine::net::control
