#include "core/cpuset.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

namespace peregrine::core {
namespace {

namespace fs = std::filesystem;

// A made-up machine: the files cgroup_quota() reads, below a directory of our own.
class CgroupQuota : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "cpuset_test.XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(root_); }

  void file(const std::string& path, const std::string& content) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << content;
  }

  void v2(const std::string& path, const std::string& mount_root = "/") {
    file("/proc/self/cgroup", "0::" + path + "\n");
    file("/proc/self/mountinfo",
         "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
         "30 22 0:26 " +
             mount_root + " /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  }

  std::string root_;
};

TEST_F(CgroupQuota, NoneWithoutAnyFile) { EXPECT_EQ(cgroup_quota(root_), 0); }

TEST_F(CgroupQuota, V2InItsOwnNamespace) {
  v2("/");
  file("/sys/fs/cgroup/cpu.max", "150000 100000\n");
  EXPECT_DOUBLE_EQ(cgroup_quota(root_), 1.5);
}

TEST_F(CgroupQuota, V2MaxIsNoQuota) {
  v2("/");
  file("/sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_quota(root_), 0);
}

TEST_F(CgroupQuota, TheTightestParentCounts) {
  v2("/a.slice/b.service");
  file("/sys/fs/cgroup/a.slice/b.service/cpu.max", "400000 100000\n");
  file("/sys/fs/cgroup/a.slice/cpu.max", "200000 100000\n");
  file("/sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_DOUBLE_EQ(cgroup_quota(root_), 2.0);
}

TEST_F(CgroupQuota, V2PathOfTheHostBelowAPartialMount) {
  v2("/docker/abc", "/docker/abc");
  file("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_DOUBLE_EQ(cgroup_quota(root_), 0.5);
}

TEST_F(CgroupQuota, V1) {
  file("/proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n3:cpuset:/\n");
  file("/proc/self/mountinfo",
       "31 22 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
       "32 22 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
  file("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "300000\n");
  file("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
  file("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  file("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_DOUBLE_EQ(cgroup_quota(root_), 3.0);
}

TEST_F(CgroupQuota, GarbageDoesNotLimit) {
  v2("/");
  file("/sys/fs/cgroup/cpu.max", "lots please\n");
  EXPECT_EQ(cgroup_quota(root_), 0);
  file("/sys/fs/cgroup/cpu.max", "100000 0\n");
  EXPECT_EQ(cgroup_quota(root_), 0);
}

TEST(CpuAllowance, ShardsFollowCpusAndQuota) {
  CpuAllowance allowance{{0, 1, 2, 3}, 0};
  EXPECT_EQ(allowance.shards(), 4);
  allowance.quota_cpus = 2.5;
  EXPECT_EQ(allowance.shards(), 3);
  allowance.quota_cpus = 0.2;
  EXPECT_EQ(allowance.shards(), 1);
  allowance.quota_cpus = 16;
  EXPECT_EQ(allowance.shards(), 4);
}

TEST(CpuAllowance, FollowsTheAffinityMask) {
  const CpuAllowance all = allowed_cpus();
  ASSERT_FALSE(all.cpus.empty());
  EXPECT_TRUE(std::is_sorted(all.cpus.begin(), all.cpus.end()));
  // In a thread of its own: the mask is per thread, and the other tests keep theirs.
  std::thread([&all] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(all.cpus.back()), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(allowed_cpus().cpus, std::vector<int>{all.cpus.back()});
  }).join();
}

}  // namespace
}  // namespace peregrine::core
