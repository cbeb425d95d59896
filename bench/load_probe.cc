#include "bench/load_probe.h"

#include <dirent.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

namespace peregrine::bench {
namespace {

uint64_t to_ns(const timespec& t) {
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

uint64_t clock_of(clockid_t clock) {
  timespec t{};
  return clock_gettime(clock, &t) == 0 ? to_ns(t) : 0;
}

uint64_t ticks_to_ns(uint64_t ticks) { return ticks * (1'000'000'000u / static_cast<uint64_t>(sysconf(_SC_CLK_TCK))); }

void add_user_and_system(pid_t pid, Sample& out) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t after_name = text.rfind(')');  // the name may contain spaces and parentheses
  if (after_name == std::string::npos) return;
  std::istringstream fields(text.substr(after_name + 2));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  uint64_t user = 0, system = 0;
  fields >> user >> system;
  out.server_user_ns += ticks_to_ns(user);
  out.server_system_ns += ticks_to_ns(system);
}

uint64_t switches_of(pid_t pid) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  DIR* dir = opendir(tasks.c_str());
  if (!dir) return 0;
  uint64_t total = 0;
  while (const dirent* entry = readdir(dir)) {
    if (entry->d_name[0] == '.') continue;
    std::ifstream status(tasks + "/" + entry->d_name + "/status");
    for (std::string line; std::getline(status, line);) {
      const size_t colon = line.find("ctxt_switches:");
      if (colon != std::string::npos) total += std::strtoull(line.c_str() + colon + 14, nullptr, 10);
    }
  }
  closedir(dir);
  return total;
}

void add_machine(Sample& out) {
  std::ifstream file("/proc/stat");
  std::string label;
  file >> label;
  enum { kUser, kNice, kSystem, kIdle, kIoWait, kIrq, kSoftIrq, kSteal, kColumns };
  uint64_t ticks[kColumns] = {};
  for (uint64_t& column : ticks) file >> column;
  out.machine_busy_ns = ticks_to_ns(ticks[kUser] + ticks[kNice] + ticks[kSystem] + ticks[kIrq] + ticks[kSoftIrq]);
  out.steal_ns = ticks_to_ns(ticks[kSteal]);
}

}  // namespace

uint64_t now_ns() { return clock_of(CLOCK_MONOTONIC); }

Sample Probe::sample() const {
  Sample s;
  for (pid_t pid : pids_) {
    add_user_and_system(pid, s);
    s.server_switches += switches_of(pid);
  }
  add_machine(s);
  s.generator_cpu_ns = clock_of(CLOCK_PROCESS_CPUTIME_ID);
  for (pid_t pid : pids_) {
    clockid_t clock;
    if (clock_getcpuclockid(pid, &clock) == 0) s.server_cpu_ns += clock_of(clock);
  }
  s.wall_ns = now_ns();
  return s;
}

Memory Probe::memory() const {
  Memory m;
  for (pid_t pid : pids_) {
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(status, line);) {
      const size_t colon = line.find(':');
      const uint64_t kib = colon == std::string::npos ? 0 : std::strtoull(line.c_str() + colon + 1, nullptr, 10);
      if (line.starts_with("VmRSS:")) m.resident_bytes += kib * 1024;
      if (line.starts_with("RssAnon:")) m.anonymous_bytes += kib * 1024;
    }
  }
  return m;
}

bool Probe::server_alive() const {
  for (pid_t pid : pids_) {
    if (kill(pid, 0) != 0) return false;
  }
  return true;
}

}  // namespace peregrine::bench
