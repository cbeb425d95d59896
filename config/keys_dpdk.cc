// Rows of the dpdk section. What a row cannot tell by itself (addresses, gateways, which backend) is in
// validate_dpdk.cc.
#include <algorithm>

#include <fmt/format.h>

#include "config/characters.h"
#include "config/limits.h"
#include "config/rows.h"

namespace peregrine::config {
namespace {

constexpr int kMostQueues = 128;
constexpr int kMostDescriptors = 32768;
constexpr int kSmallestMtu = 576;
constexpr int kLargestMtu = 9600;
constexpr std::int64_t kMiB = 1 << 20;
constexpr std::int64_t kLeastMemory = 64 * kMiB;
constexpr std::int64_t kMostMemory = std::int64_t{1} << 40;

void read_queues(Binder& binder, DpdkPort& port, const Value& value) {
  if (value.kind == Value::Kind::kString && to_lower(value.text) == "auto") {
    port.queues = 0;
    return;
  }
  std::int64_t count = 0;
  if (value.kind != Value::Kind::kInteger) {
    binder.type_error(value, "queues", "auto or a number");
  } else if (read_integer(binder, value, "queues", 1, kMostQueues, count)) {
    port.queues = static_cast<int>(count);
  }
}

void read_offloads(Binder& binder, DpdkPort& port, const Value& value) {
  std::vector<std::string> words;
  if (!read_words(binder, value, "offloads", words)) return;
  static const std::vector<std::string> kKnown = {"checksum", "tso", "multi_segment", "vlan"};
  for (const std::string& word : words) {
    if (std::find(kKnown.begin(), kKnown.end(), word) != kKnown.end()) continue;
    binder.error(value.position, fmt::format("offload \"{}\" is not one of checksum, tso, multi_segment, vlan", word));
    return;
  }
  port.offloads = std::move(words);
}

void read_lcores(Binder& binder, Dpdk& dpdk, const Value& value) {
  if (value.kind != Value::Kind::kArray) {
    binder.type_error(value, "lcores", "a list of CPU numbers");
    return;
  }
  dpdk.lcores.clear();
  for (const Value& item : value.items) {
    std::int64_t cpu = 0;
    if (!read_integer(binder, item, "lcores", 0, kMostCpus, cpu)) continue;
    if (std::find(dpdk.lcores.begin(), dpdk.lcores.end(), cpu) != dpdk.lcores.end()) {
      binder.error(item.position, fmt::format("lcore {} is listed twice", cpu));
      continue;
    }
    dpdk.lcores.push_back(static_cast<int>(cpu));
  }
}

Section make_port_section() {
  using S = DpdkPort;
  return {
      "dpdk.ports",
      {
          text<S>("device", &S::device, "", "PCI address, or a virtual device with its arguments"),
          custom<S>("queues", "auto or integer", "auto",
                    "receive queues; auto = one per shard, or as many as the device has", read_queues),
          integer<S>("rx_descriptors", &S::rx_descriptors, 32, kMostDescriptors, "1024",
                     "frames a receive queue holds"),
          integer<S>("tx_descriptors", &S::tx_descriptors, 32, kMostDescriptors, "1024",
                     "frames a transmit queue holds"),
          words<S>("addresses", &S::addresses, "[]", "own addresses with prefix lengths, IPv4 and IPv6"),
          text<S>("gateway", &S::gateway, "", "IPv4 router"),
          text<S>("gateway6", &S::gateway6, "", "IPv6 router"),
          integer<S>("mtu", &S::mtu, kSmallestMtu, kLargestMtu, "1500", "bytes of the largest IP packet"),
          integer<S>("vlan", &S::vlan, 0, 4094, "0", "802.1Q tag; 0 = none"),
          custom<S>("offloads", "list of checksum | tso | multi_segment | vlan", "[checksum, tso, multi_segment, vlan]",
                    "what may be left to the device", read_offloads),
          choice<S, DpdkSpread S::*, DpdkSpread>(
              "spread", &S::spread,
              {{"auto", DpdkSpread::kAuto}, {"hardware", DpdkSpread::kHardware}, {"software", DpdkSpread::kSoftware}},
              "auto", "how connections find their shard"),
          flag<S>("promiscuous", &S::promiscuous, "false", "takes frames for other stations too, and drops them"),
      }};
}

const Section& port_section() {
  static const Section section = make_port_section();
  return section;
}

Section make_dpdk_section() {
  using S = Dpdk;
  return {
      "dpdk",
      {
          blocks<S>("ports", &S::ports, port_section(), "network ports", [](Binder&, DpdkPort&, const Value&) {}),
          custom<S>("lcores", "list of integers", "[]", "CPUs of the shards, in order; empty = as `cores` says",
                    read_lcores),
          size<S>("memory", &S::memory, kLeastMemory, kMostMemory, "512MB",
                  "bytes for frames and send buffers, taken at start"),
          flag<S>("huge_pages", &S::huge_pages, "true", "memory of huge pages; false is for virtual devices"),
          text<S>("huge_dir", &S::huge_dir, "", "mount point of hugetlbfs; empty = found by itself"),
          choice<S, DpdkIova S::*, DpdkIova>(
              "iova", &S::iova, {{"auto", DpdkIova::kAuto}, {"va", DpdkIova::kVa}, {"pa", DpdkIova::kPa}}, "auto",
              "addresses the device is given: virtual (needs an IOMMU) or physical"),
          text<S>("file_prefix", &S::file_prefix, "", "name under which other DPDK tools find this process"),
          flag<S>("telemetry", &S::telemetry, "true", "answers dpdk-telemetry.py"),
          choice<S, DpdkCongestion S::*, DpdkCongestion>(
              "congestion", &S::congestion, {{"cubic", DpdkCongestion::kCubic}, {"newreno", DpdkCongestion::kNewReno}},
              "cubic", "how connections share the network"),
          duration<S>("user_timeout", &S::user_timeout, Seconds::kRefuse, "0s",
                      "longest time without an acknowledgement; 0 = fifteen timeouts in a row"),
          choice<S, DpdkIdle S::*, DpdkIdle>(
              "idle", &S::idle,
              {{"adaptive", DpdkIdle::kAdaptive}, {"spin", DpdkIdle::kSpin}, {"interrupt", DpdkIdle::kInterrupt}},
              "adaptive", "what a shard without work does"),
          choice<S, std::string S::*, std::string>(
              "log_level", &S::log_level,
              {{"error", "error"}, {"warning", "warning"}, {"notice", "notice"}, {"info", "info"}, {"debug", "debug"}},
              "warning", "which of DPDK's own messages come into the log"),
          words<S>("extra_args", &S::extra_args, "[]", "more arguments for DPDK's EAL"),
      }};
}

}  // namespace

const Section& dpdk_section() {
  static const Section section = make_dpdk_section();
  return section;
}

}  // namespace peregrine::config
