#include "net/dpdk/system.h"

#include <fmt/format.h>
#include <net/if.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace peregrine::net::dpdk {
namespace {

namespace fs = std::filesystem;

// Drivers that hand a device over to user space, and those DPDK works beside (the kernel keeps the device).
constexpr std::array kUserDrivers = {"vfio-pci", "igb_uio", "uio_pci_generic"};
constexpr std::array kSharedDrivers = {"mlx4_core", "mlx5_core", "mana", "hv_netvsc"};

constexpr const char* kSetup = "scripts/dpdk-setup";

bool among(const std::string& word, auto& words) {
  for (const char* each : words) {
    if (word == each) return true;
  }
  return false;
}

std::string link_name(const fs::path& link) {
  std::error_code error;
  const fs::path target = fs::read_symlink(link, error);
  return error ? "" : target.filename().string();
}

std::string check_pci(const std::string& device, const std::string& root) {
  const std::string address = full_pci_address(device);
  const fs::path at = fs::path(root + "/sys/bus/pci/devices") / address;
  std::error_code ignored;
  if (!fs::exists(at, ignored)) {
    return fmt::format("there is no PCI device {}; `{} status` lists what there is", address, kSetup);
  }
  const std::string driver = link_name(at / "driver");
  if (among(driver, kSharedDrivers)) return "";
  if (driver.empty()) {
    return fmt::format("PCI device {} has no driver; bind it with `{} bind {} --apply`", address, kSetup, address);
  }
  if (!among(driver, kUserDrivers)) {
    return fmt::format("PCI device {} belongs to the kernel's {}; bind it to vfio-pci with `{} bind {} --apply`",
                       address, driver, kSetup, address);
  }
  if (driver != "vfio-pci") return "";
  const std::string group = link_name(at / "iommu_group");
  if (group.empty()) {
    return fmt::format(
        "PCI device {} has no IOMMU group; switch the IOMMU on (intel_iommu=on iommu=pt) or allow vfio without one "
        "(`{} noiommu --apply`)",
        address, kSetup);
  }
  for (const std::string& name : {group, "noiommu-" + group}) {
    const std::string node = root + "/dev/vfio/" + name;
    if (!fs::exists(node, ignored)) continue;
    if (access(node.c_str(), R_OK | W_OK) == 0) return "";
    return fmt::format("no permission to open {}; run as root or chown it to the server's user", node);
  }
  return fmt::format("/dev/vfio/{} is missing; load the driver with `modprobe vfio-pci`", group);
}

}  // namespace

bool is_pci_address(const std::string& device) {
  // [dddd:]bb:dd.f
  static constexpr const char* kForms[] = {"xxxx:xx:xx.x", "xx:xx.x"};
  for (const std::string form : kForms) {
    if (device.size() != form.size()) continue;
    bool fits = true;
    for (size_t n = 0; n < form.size(); ++n) {
      const auto c = static_cast<unsigned char>(device[n]);
      fits = fits && (form[n] == 'x' ? std::isxdigit(c) != 0 : device[n] == form[n]);
    }
    if (fits) return true;
  }
  return false;
}

std::string full_pci_address(const std::string& device) { return device.size() == 7 ? "0000:" + device : device; }

std::string device_argument(const std::string& device, const std::string& name) {
  std::istringstream words(device);
  std::string word;
  std::getline(words, word, ',');  // the device itself
  while (std::getline(words, word, ',')) {
    if (word.rfind(name + "=", 0) == 0) return word.substr(name.size() + 1);
  }
  return "";
}

std::string check_device(const config::DpdkPort& port, const std::string& root) {
  const std::string& device = port.device;
  if (is_pci_address(device)) return check_pci(device, root);
  if (device.rfind("net_", 0) != 0) {
    return fmt::format(
        "\"{}\" is neither a PCI address such as 0000:81:00.0 nor a virtual device such as net_af_packet0,iface=eth1",
        device);
  }
  const bool packet = device.rfind("net_af_packet", 0) == 0;
  if (!packet && device.rfind("net_af_xdp", 0) != 0) return "";
  const std::string interface = device_argument(device, "iface");
  if (interface.empty()) return "it needs the kernel's interface to work on, as in iface=eth1";
  if (if_nametoindex(interface.c_str()) == 0) {
    return fmt::format("there is no interface {}; `ip link` lists what there is", interface);
  }
  return "";
}

std::string check_memory(const config::Dpdk& options, const std::string& root) {
  if (!options.huge_pages) return "";
  if (!options.huge_dir.empty()) {
    std::error_code ignored;
    if (!fs::is_directory(root + options.huge_dir, ignored)) {
      return fmt::format("huge_dir {} is not a directory; mount it with `mount -t hugetlbfs none {}`", options.huge_dir,
                         options.huge_dir);
    }
  }
  // Every size of page counts.
  std::error_code ignored;
  int64_t free_bytes = 0;
  for (const auto& entry : fs::directory_iterator(root + "/sys/kernel/mm/hugepages", ignored)) {
    long kilobytes = 0;
    if (std::sscanf(entry.path().filename().c_str(), "hugepages-%ldkB", &kilobytes) != 1) continue;
    std::ifstream file(entry.path() / "free_hugepages");
    int64_t pages = 0;
    if (file >> pages) free_bytes += pages * kilobytes * 1024;
  }
  if (free_bytes >= options.memory) return "";
  return fmt::format(
      "memory is {} MiB but {} MiB of huge pages are free; reserve them with `{} hugepages {}MB --apply`, or, for "
      "virtual devices, set huge_pages: false",
      options.memory >> 20, free_bytes >> 20, kSetup, options.memory >> 20);
}

}  // namespace peregrine::net::dpdk
