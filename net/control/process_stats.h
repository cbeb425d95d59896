// What this process uses of the machine: "mem" and "cpu" of /varz. Thread-safe.
//
// CPU is the average since the last reading that is at least a second old (since construction at first): measured when
// asked, so an idle server has no timer ticking for it.
#pragma once

#include <cstdint>
#include <mutex>

namespace peregrine::net::control {

class ProcessStats {
 public:
  ProcessStats();

  double cpu_percent();             // 100 = one core; in tenths
  static int64_t resident_bytes();  // 0 when /proc cannot be read

 private:
  std::mutex mutex_;
  int64_t last_wall_ns_;
  int64_t last_cpu_ns_;
  double percent_ = 0;
};

}  // namespace peregrine::net::control
