#include "core/cpuset.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string_view>

namespace peregrine::core {
namespace {

std::vector<int> affinity_cpus() {
  std::vector<int> cpus;
  for (int count = 1024; count <= 1 << 20 && cpus.empty();
       count *= 4) {  // the kernel refuses masks smaller than its own
    cpu_set_t* set = CPU_ALLOC(count);
    const size_t size = CPU_ALLOC_SIZE(count);
    if (set == nullptr) break;
    CPU_ZERO_S(size, set);
    if (sched_getaffinity(0, size, set) == 0) {
      for (int cpu = 0; cpu < count; ++cpu) {
        if (CPU_ISSET_S(cpu, size, set)) cpus.push_back(cpu);
      }
    }
    CPU_FREE(set);
  }
  if (cpus.empty()) {
    const long online = std::max(1L, sysconf(_SC_NPROCESSORS_ONLN));
    for (int cpu = 0; cpu < online; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

// One mounted cgroup hierarchy as this process sees it.
struct Mount {
  std::string root;  // the cgroup that is visible at `point`
  std::string point;
  bool v2;
  std::string controllers;  // v1: the superblock options, "rw,cpu,cpuacct"
};

bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    if (list.substr(0, comma) == word) return true;
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
  }
  return false;
}

// mountinfo(5): "id parent maj:min root point options [tags...] - type source super_options"
std::vector<Mount> cgroup_mounts(const std::string& root) {
  std::vector<Mount> mounts;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash)), right(line.substr(dash + 3));
    std::string id, parent, device, cgroup_root, point, type, source, options;
    left >> id >> parent >> device >> cgroup_root >> point;
    right >> type >> source >> options;
    if (type == "cgroup2" || type == "cgroup") mounts.push_back({cgroup_root, point, type == "cgroup2", options});
  }
  return mounts;
}

double read_v2(const std::string& directory) {
  std::ifstream file(directory + "/cpu.max");
  std::string quota;
  double period_us = 0;
  if (!(file >> quota >> period_us) || quota == "max" || period_us <= 0) return 0;
  return std::strtod(quota.c_str(), nullptr) / period_us;
}

double read_v1(const std::string& directory) {
  double quota_us = -1, period_us = 0;
  std::ifstream(directory + "/cpu.cfs_quota_us") >> quota_us;
  std::ifstream(directory + "/cpu.cfs_period_us") >> period_us;
  return quota_us > 0 && period_us > 0 ? quota_us / period_us : 0;
}

void tighten(double& quota, double other) {
  if (other > 0 && (quota == 0 || other < quota)) quota = other;
}

}  // namespace

double cgroup_quota(const std::string& root) {
  const std::vector<Mount> mounts = cgroup_mounts(root);
  double quota = 0;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "id:controllers:path"; v2 is "0::path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && !has_word(controllers, "cpu")) continue;
    std::string path = line.substr(second + 1);
    for (const Mount& mount : mounts) {
      if (mount.v2 != v2 || (!v2 && !has_word(mount.controllers, "cpu"))) continue;
      // Without a cgroup namespace the path is the host's and the mount shows only a part of that tree.
      std::string below = path;
      if (mount.root != "/" && below.starts_with(mount.root)) below = below.substr(mount.root.size());
      else if (mount.root != "/") below.clear();
      while (true) {
        const std::string directory = root + mount.point + (below == "/" ? "" : below);
        tighten(quota, v2 ? read_v2(directory) : read_v1(directory));
        const size_t slash = below.rfind('/');
        if (below.empty() || slash == std::string::npos) break;
        below.resize(slash);
      }
    }
  }
  return quota;
}

int CpuAllowance::shards() const {
  const int count = static_cast<int>(cpus.size());
  if (quota_cpus <= 0) return count;
  return std::clamp(static_cast<int>(std::ceil(quota_cpus)), 1, count);
}

CpuAllowance allowed_cpus() { return {affinity_cpus(), cgroup_quota("")}; }

}  // namespace peregrine::core
