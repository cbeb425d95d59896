// What a run costs: CPU time and memory of the server process, CPU time of the generator, steal of the machine.
//
// The server's CPU time is read from the kernel's per-process CPU clock (clock_getcpuclockid): nanoseconds, user +
// system, all threads including those that have ended and io_uring's own workers. /proc/PID/stat would count in 10 ms
// ticks. Sampling happens inside the generator, at the very edges of the measured window, so that starting up,
// connecting, warming up and draining are not charged to anybody.
//
// Units: nanoseconds, bytes. A server on another machine has no pid here; its figures are then absent (has_server()
// false).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace peregrine::bench {

uint64_t now_ns();  // CLOCK_MONOTONIC

struct Sample {
  uint64_t wall_ns = 0;
  uint64_t server_cpu_ns = 0;
  uint64_t server_user_ns = 0;  // in clock ticks of the kernel (10 ms), for the user/system split only
  uint64_t server_system_ns = 0;
  uint64_t server_switches = 0;  // context switches of all live threads
  uint64_t generator_cpu_ns = 0;
  uint64_t machine_busy_ns = 0;  // all processes, all cores
  uint64_t steal_ns = 0;         // taken by the hypervisor, all cores
};

struct Memory {
  uint64_t resident_bytes = 0;
  uint64_t anonymous_bytes = 0;
};

class Probe {
 public:
  explicit Probe(std::vector<pid_t> server_pids) : pids_(std::move(server_pids)) {}

  bool has_server() const { return !pids_.empty(); }
  Sample sample() const;
  Memory memory() const;
  bool server_alive() const;

 private:
  std::vector<pid_t> pids_;
};

}  // namespace peregrine::bench
