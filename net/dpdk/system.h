// What Linux tells about PCI devices, interfaces and huge pages: plain reads of /sys and /proc, no DPDK.
//
// `root` stands in front of every path, so that tests can show any machine. Main thread, at start.
#pragma once

#include <cstdint>
#include <string>

#include "config/options.h"

namespace peregrine::net::dpdk {

bool is_pci_address(const std::string& device);  // "0000:81:00.0" or "81:00.0"
std::string full_pci_address(const std::string& device);

// The value of one argument of a virtual device: device_argument("net_tap0,iface=x,mac=fixed", "iface") = "x".
std::string device_argument(const std::string& device, const std::string& name);

// What stands in the way of a device: "" or a line with the remedy.
std::string check_device(const config::DpdkPort& port, const std::string& root = "");
// The same for memory.
std::string check_memory(const config::Dpdk& options, const std::string& root = "");

}  // namespace peregrine::net::dpdk
