// What stands in the way of a device or of memory, and the remedy: on machines made of files.
#include "net/dpdk/system.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace peregrine::net::dpdk {
namespace {

namespace fs = std::filesystem;

// A root directory with /sys and /dev as a test wants them.
class Machine {
 public:
  Machine() {
    char name[] = "/tmp/peregrine-machine-XXXXXX";
    root_ = mkdtemp(name);
  }
  ~Machine() { fs::remove_all(root_); }

  std::string root() const { return root_.string(); }
  void pci(const std::string& address, const std::string& driver, const std::string& group = "") {
    const fs::path at = root_ / "sys/bus/pci/devices" / address;
    fs::create_directories(at);
    if (!driver.empty()) fs::create_symlink("../../drivers/" + driver, at / "driver");
    if (!group.empty()) fs::create_symlink("../../groups/" + group, at / "iommu_group");
  }
  void file(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

 private:
  fs::path root_;
};

config::DpdkPort port(const std::string& device) {
  config::DpdkPort port;
  port.device = device;
  return port;
}

TEST(DpdkSystem, PciAddresses) {
  EXPECT_TRUE(is_pci_address("0000:81:00.0"));
  EXPECT_TRUE(is_pci_address("81:00.1"));
  EXPECT_FALSE(is_pci_address("net_tap0"));
  EXPECT_FALSE(is_pci_address("0000:81:00"));
  EXPECT_FALSE(is_pci_address("zz:00.1"));
  EXPECT_FALSE(is_pci_address(""));
  EXPECT_EQ(full_pci_address("81:00.1"), "0000:81:00.1");
  EXPECT_EQ(full_pci_address("0001:81:00.1"), "0001:81:00.1");
}

TEST(DpdkSystem, Arguments) {
  EXPECT_EQ(device_argument("net_af_packet0,iface=eth1,qpairs=2", "iface"), "eth1");
  EXPECT_EQ(device_argument("net_af_packet0,iface=eth1,qpairs=2", "qpairs"), "2");
  EXPECT_EQ(device_argument("net_af_packet0,iface=eth1", "queue"), "");
  EXPECT_EQ(device_argument("iface=eth1", "iface"), "") << "the first word is the device";
}

TEST(DpdkSystem, PciDevices) {
  Machine machine;
  const auto check = [&](const std::string& device) { return check_device(port(device), machine.root()); };
  EXPECT_EQ(check("0000:81:00.0"),
            "there is no PCI device 0000:81:00.0; `scripts/dpdk-setup status` lists what there is");
  machine.pci("0000:81:00.0", "ixgbe");
  EXPECT_EQ(check("81:00.0"),
            "PCI device 0000:81:00.0 belongs to the kernel's ixgbe; bind it to vfio-pci with `scripts/dpdk-setup bind "
            "0000:81:00.0 --apply`");
  machine.pci("0000:81:00.1", "");
  EXPECT_EQ(check("0000:81:00.1"),
            "PCI device 0000:81:00.1 has no driver; bind it with `scripts/dpdk-setup bind 0000:81:00.1 --apply`");
  machine.pci("0000:82:00.0", "mlx5_core");
  EXPECT_EQ(check("0000:82:00.0"), "") << "works beside the kernel's driver";
  machine.pci("0000:83:00.0", "vfio-pci");
  EXPECT_NE(check("0000:83:00.0").find("has no IOMMU group; switch the IOMMU on"), std::string::npos);
  machine.pci("0000:84:00.0", "vfio-pci", "17");
  EXPECT_EQ(check("0000:84:00.0"), "/dev/vfio/17 is missing; load the driver with `modprobe vfio-pci`");
  machine.file("dev/vfio/17", "");
  EXPECT_EQ(check("0000:84:00.0"), "");
  machine.pci("0000:85:00.0", "vfio-pci", "18");
  machine.file("dev/vfio/noiommu-18", "");
  EXPECT_EQ(check("0000:85:00.0"), "");
  machine.pci("0000:86:00.0", "uio_pci_generic");
  EXPECT_EQ(check("0000:86:00.0"), "");
}

TEST(DpdkSystem, VirtualDevices) {
  EXPECT_EQ(check_device(port("net_null0")), "");
  EXPECT_EQ(check_device(port("net_af_packet0,iface=lo")), "");
  EXPECT_EQ(check_device(port("net_af_packet0,iface=no-such-one")),
            "there is no interface no-such-one; `ip link` lists what there is");
  EXPECT_EQ(check_device(port("net_af_xdp0")), "it needs the kernel's interface to work on, as in iface=eth1");
  EXPECT_EQ(check_device(port("eth1")),
            "\"eth1\" is neither a PCI address such as 0000:81:00.0 nor a virtual device such as "
            "net_af_packet0,iface=eth1");
}

TEST(DpdkSystem, Memory) {
  Machine machine;
  config::Dpdk options;
  options.memory = int64_t{512} << 20;
  const auto check = [&] { return check_memory(options, machine.root()); };
  EXPECT_EQ(check(),
            "memory is 512 MiB but 0 MiB of huge pages are free; reserve them with `scripts/dpdk-setup hugepages 512MB "
            "--apply`, or, for virtual devices, set huge_pages: false");
  machine.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "255\n");
  EXPECT_NE(check().find("but 510 MiB of huge pages are free"), std::string::npos);
  machine.file("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "1\n");
  EXPECT_EQ(check(), "");
  options.huge_dir = "/mnt/huge";
  EXPECT_EQ(check(), "huge_dir /mnt/huge is not a directory; mount it with `mount -t hugetlbfs none /mnt/huge`");
  options.huge_pages = false;
  options.huge_dir = "";
  options.memory = int64_t{1} << 40;
  EXPECT_EQ(check(), "");
}

}  // namespace
}  // namespace peregrine::net::dpdk
