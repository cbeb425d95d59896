// The kernel's clocks, in nanoseconds. Any thread.
#pragma once

#include <time.h>

#include <cstdint>

namespace peregrine::net {

inline int64_t clock_ns(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

}  // namespace peregrine::net
