// The dpdk section: what it takes, and one clear line for each mistake.
#include <gtest/gtest.h>

#include "tests/config/world.h"

namespace peregrine::config::test {
namespace {

std::string port(const std::string& more, const std::string& device = "net_af_packet0,iface=v1") {
  return "dpdk { huge_pages: false, ports: [{device: \"" + device + "\", " + more + "}] }\n";
}

std::string errors(const std::string& text) { return to_text(load(text).errors); }

// The one error, without its place.
std::string error(const std::string& text) {
  const LoadedFile loaded = load(text);
  EXPECT_EQ(loaded.errors.size(), 1u) << text << "\n" << to_text(loaded.errors);
  const std::string line = to_text(loaded.errors);
  const size_t at = line.find(": ");
  return at == std::string::npos ? line : line.substr(at + 2, line.find('\n') - at - 2);
}

TEST(DpdkOptions, Everything) {
  const LoadedFile loaded = load(
      "backend: dpdk\n"
      "dpdk {\n"
      "  ports: [{device: '0000:81:00.0', queues: 4, rx_descriptors: 512, tx_descriptors: 256,\n"
      "           addresses: ['10.0.0.2/24', 'fd00::2/64'], gateway: '10.0.0.1', gateway6: 'fe80::1', mtu: 9000,\n"
      "           vlan: 7, offloads: [checksum], spread: software, promiscuous: true},\n"
      "          {device: 'net_tap0', queues: auto, addresses: '10.1.0.2/24'}]\n"
      "  lcores: [2, 3], memory: 1GiB, huge_dir: /mnt/huge, iova: va, file_prefix: p, telemetry: false\n"
      "  congestion: newreno, user_timeout: 90s\n"
      "  idle: interrupt, log_level: debug, extra_args: ['--numa-mem=1']\n"
      "}");
  ASSERT_EQ(to_text(loaded.errors), "");
  EXPECT_EQ(loaded.options.native.backend, Backend::kDpdk);
  const Dpdk& dpdk = loaded.options.dpdk;
  ASSERT_EQ(dpdk.ports.size(), 2u);
  const DpdkPort& first = dpdk.ports[0];
  EXPECT_EQ(first.device, "0000:81:00.0");
  EXPECT_EQ(first.queues, 4);
  EXPECT_EQ(first.rx_descriptors, 512);
  EXPECT_EQ(first.tx_descriptors, 256);
  EXPECT_EQ(first.addresses, (std::vector<std::string>{"10.0.0.2/24", "fd00::2/64"}));
  EXPECT_EQ(first.gateway, "10.0.0.1");
  EXPECT_EQ(first.gateway6, "fe80::1");
  EXPECT_EQ(first.mtu, 9000);
  EXPECT_EQ(first.vlan, 7);
  EXPECT_EQ(first.offloads, std::vector<std::string>{"checksum"});
  EXPECT_EQ(first.spread, DpdkSpread::kSoftware);
  EXPECT_TRUE(first.promiscuous);
  EXPECT_EQ(dpdk.ports[1].queues, 0);
  EXPECT_EQ(dpdk.lcores, (std::vector<int>{2, 3}));
  EXPECT_EQ(dpdk.memory, int64_t{1} << 30);
  EXPECT_TRUE(dpdk.huge_pages);
  EXPECT_EQ(dpdk.huge_dir, "/mnt/huge");
  EXPECT_EQ(dpdk.iova, DpdkIova::kVa);
  EXPECT_EQ(dpdk.file_prefix, "p");
  EXPECT_FALSE(dpdk.telemetry);
  EXPECT_EQ(dpdk.congestion, DpdkCongestion::kNewReno);
  EXPECT_EQ(dpdk.user_timeout, std::chrono::seconds(90));
  EXPECT_EQ(dpdk.idle, DpdkIdle::kInterrupt);
  EXPECT_EQ(dpdk.log_level, "debug");
  EXPECT_EQ(dpdk.extra_args, std::vector<std::string>{"--numa-mem=1"});
}

TEST(DpdkOptions, AnEmptySectionIsNone) {
  const LoadedFile loaded = load("dpdk {}");
  EXPECT_EQ(to_text(loaded.errors), "");
  EXPECT_FALSE(loaded.options.dpdk.defined);
}

TEST(DpdkOptions, TheSectionAndTheBackend) {
  EXPECT_EQ(error("backend: dpdk"), "backend: dpdk needs a dpdk section that names a port and its addresses");
  EXPECT_EQ(error("dpdk { memory: 256MB }"), "dpdk names no ports");
  const LoadedFile loaded = load("backend: epoll\n" + port("addresses: '10.0.0.2/24'"));
  EXPECT_EQ(to_text(loaded.errors), "");
  EXPECT_NE(to_text(loaded.warnings).find("the dpdk section is not used: backend says something else"),
            std::string::npos);
}

TEST(DpdkOptions, MistakesInAPort) {
  const std::string at = "port net_af_packet0,iface=v1: ";
  const struct {
    const char* text;
    const char* why;
  } kCases[] = {
      {"mtu: 1500", "needs addresses, as in addresses: [10.0.0.2/24]"},
      {"addresses: '10.0.0.2'", "address 10.0.0.2 needs a prefix length, as in 10.0.0.2/24"},
      {"addresses: 'fd00::2'", "address fd00::2 needs a prefix length, as in fd00::2/64"},
      {"addresses: '10.0.0/24'", "\"10.0.0/24\" is not an IP address"},
      {"addresses: '10.0.0.2/33'", "prefix length of 10.0.0.2/33 must be 1 to 32"},
      {"addresses: '10.0.0.2/'", "prefix length of 10.0.0.2/ must be 1 to 32"},
      {"addresses: 'fd00::2/129'", "prefix length of fd00::2/129 must be 1 to 128"},
      {"addresses: '127.0.0.1/8'", "127.0.0.1 cannot be the address of a port"},
      {"addresses: '224.0.0.1/8'", "224.0.0.1 cannot be the address of a port"},
      {"addresses: 'ff02::1/64'", "ff02::1 cannot be the address of a port"},
      {"addresses: '0.0.0.0/8'", "0.0.0.0 cannot be the address of a port"},
      {"addresses: ['10.0.0.2/24', '10.0.0.2/25']", "10.0.0.2/25 is given twice"},
      {"addresses: '10.0.0.2/24', gateway: 10.0.1.1", "gateway 10.0.1.1 is in none of the port's subnets"},
      {"addresses: '10.0.0.2/24', gateway: 'fd00::1'", "gateway \"fd00::1\" is not an IPv4 address"},
      {"addresses: 'fd00::2/64', gateway6: 'fd01::1'", "gateway6 fd01::1 is in none of the port's subnets"},
      {"addresses: 'fd00::2/64', mtu: 1000", "IPv6 needs an mtu of at least 1280, got 1000"},
  };
  for (const auto& [text, why] : kCases) EXPECT_EQ(error(port(text)), at + why);
  EXPECT_EQ(error(port("addresses: '10.0.0.2/24'", "")),
            "a dpdk port needs a device: a PCI address or a virtual device");
  EXPECT_EQ(error(port("addresses: '10.0.0.2/24'", "0000:81:00.0")),
            "port 0000:81:00.0: a physical device needs huge_pages: true");
  EXPECT_NE(errors(port("addresses: '10.0.0.2/24', offloads: [checksum, gro]"))
                .find("offload \"gro\" is not one of checksum, tso, multi_segment, vlan"),
            std::string::npos);
  EXPECT_NE(errors(port("addresses: '10.0.0.2/24', queues: many")).find("\"queues\" must be auto or a number"),
            std::string::npos);
}

TEST(DpdkOptions, TwoPortsAreTwoDevices) {
  EXPECT_EQ(error("dpdk { huge_pages: false, ports: [{device: net_tap0, addresses: '10.0.0.2/24'},\n"
                  "{device: 'net_tap0,iface=x', addresses: '10.0.1.2/24'}] }"),
            "port net_tap0,iface=x: named twice");
  EXPECT_EQ(error("dpdk { huge_pages: false, ports: [{device: net_tap0, addresses: '10.0.0.2/24'},\n"
                  "{device: net_tap1, addresses: '10.0.0.2/24'}] }"),
            "port net_tap1: 10.0.0.2/24 is given twice");
}

TEST(DpdkOptions, TheSectionAndTheRest) {
  const std::string good = port("addresses: '10.0.0.2/24'");
  EXPECT_EQ(errors("host: 10.0.0.2\n" + good), "");
  EXPECT_EQ(error("host: 10.0.0.9\n" + good),
            "host 10.0.0.9 is not an address of a dpdk port; use one of them, or 0.0.0.0 for all");
  EXPECT_EQ(error("host: 10.0.0.2\nhttp_port: 8222\n" + good),
            "monitoring stays on the kernel and cannot bind 10.0.0.2: give http a host, as in 127.0.0.1:8222");
  EXPECT_EQ(errors("host: 10.0.0.2\nhttp: 127.0.0.1:8222\n" + good), "");
  EXPECT_EQ(error("cores: [0]\ndpdk { lcores: [1], huge_pages: false, ports: [{device: net_tap0, addresses: "
                  "'10.0.0.2/24'}] }"),
            "dpdk.lcores and cores both say where shards run; keep one");
  EXPECT_EQ(error("shards: 2\ndpdk { lcores: [1], huge_pages: false, ports: [{device: net_tap0, addresses: "
                  "'10.0.0.2/24'}] }"),
            "shards: 2 but dpdk.lcores lists only 1");
  EXPECT_EQ(
      error("dpdk { memory: 100000000, huge_pages: false, ports: [{device: net_tap0, addresses: '10.0.0.2/24'}] }"),
      "dpdk.memory must be a multiple of 1MiB");
  EXPECT_EQ(
      error("dpdk { file_prefix: a/b, huge_pages: false, ports: [{device: net_tap0, addresses: '10.0.0.2/24'}] }"),
      "dpdk.file_prefix is a file name: no slashes or blanks");
}

}  // namespace
}  // namespace peregrine::config::test
