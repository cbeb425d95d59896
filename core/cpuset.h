// Which CPUs this process may use, and how much of them: what `shards: auto` counts.
//
// Reads the affinity mask (which already has the cpuset of every cgroup above us cut away by the kernel) and the CPU
// quota of cgroup v2 and v1, taking the tightest on the way up to the root. Called once, at start, on the main thread.
// Never fails: what cannot be read does not limit.
#pragma once

#include <string>
#include <vector>

namespace peregrine::core {

struct CpuAllowance {
  std::vector<int> cpus;  // CPU numbers, ascending, never empty
  double quota_cpus = 0;  // CPUs' worth of time per period; 0 = no quota

  // One shard per CPU, but no more than the quota feeds: shards beyond it would only take turns being throttled. A
  // started CPU counts (quota 1.5 = 2 shards), since a shard seldom needs all of its core.
  int shards() const;
};

CpuAllowance allowed_cpus();

// The tightest quota found below `root` ("" = the real file system), in CPUs; 0 = none. For tests with a made-up tree
// holding proc/self/cgroup, proc/self/mountinfo and the cgroup files.
double cgroup_quota(const std::string& root);

}  // namespace peregrine::core
