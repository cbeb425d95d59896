#include "net/control/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>

namespace peregrine::net::control {
namespace {

int64_t wall_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

int64_t cpu_ns() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000'000 +
         (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

}  // namespace

ProcessStats::ProcessStats() : last_wall_ns_(wall_ns()), last_cpu_ns_(cpu_ns()) {}

double ProcessStats::cpu_percent() {
  std::lock_guard lock(mutex_);
  const int64_t wall = wall_ns();
  if (wall - last_wall_ns_ >= 1'000'000'000) {
    const int64_t cpu = cpu_ns();
    percent_ =
        std::round(1000.0 * static_cast<double>(cpu - last_cpu_ns_) / static_cast<double>(wall - last_wall_ns_)) / 10.0;
    last_wall_ns_ = wall;
    last_cpu_ns_ = cpu;
  }
  return percent_;
}

int64_t ProcessStats::resident_bytes() {
  long size_pages = 0, resident_pages = 0;
  FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  const int fields = std::fscanf(file, "%ld %ld", &size_pages, &resident_pages);
  std::fclose(file);
  return fields == 2 ? resident_pages * sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace peregrine::net::control
