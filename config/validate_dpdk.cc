// Whether the dpdk section fits together and fits the rest: what can be said without touching a device.
#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <set>

#include "config/validate.h"

namespace peregrine::config {
namespace {

using Bytes = std::array<unsigned char, 16>;

struct Subnet {
  bool v6 = false;
  Bytes address{};
  int prefix = 0;
};

bool parse_address(const std::string& text, bool v6, Bytes& out) {
  return inet_pton(v6 ? AF_INET6 : AF_INET, text.c_str(), out.data()) == 1;
}

// "" or what is wrong with "10.0.0.2/24".
std::string parse_subnet(const std::string& text, Subnet& out) {
  const std::size_t slash = text.find('/');
  const std::string host = text.substr(0, slash);
  out.v6 = host.find(':') != std::string::npos;
  if (!parse_address(host, out.v6, out.address)) return fmt::format("\"{}\" is not an IP address", text);
  const int most = out.v6 ? 128 : 32;
  if (slash == std::string::npos) {
    return fmt::format("address {} needs a prefix length, as in {}/{}", host, host, out.v6 ? 64 : 24);
  }
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data() + slash + 1, end, out.prefix);
  if (error != std::errc{} || at != end || out.prefix < 1 || out.prefix > most) {
    return fmt::format("prefix length of {} must be 1 to {}", text, most);
  }
  const bool multicast = out.v6 ? out.address[0] == 0xff : out.address[0] >= 224;
  const bool loopback = !out.v6 && out.address[0] == 127;
  const bool unset = std::all_of(out.address.begin(), out.address.end(), [](unsigned char byte) { return byte == 0; });
  if (multicast || loopback || unset) return fmt::format("{} cannot be the address of a port", host);
  return "";
}

bool holds(const Subnet& net, const Bytes& address) {
  const int whole = net.prefix / 8;
  if (std::memcmp(net.address.data(), address.data(), static_cast<std::size_t>(whole)) != 0) return false;
  const int rest = net.prefix % 8;
  return rest == 0 ||
         ((net.address[static_cast<std::size_t>(whole)] ^ address[static_cast<std::size_t>(whole)]) >> (8 - rest)) == 0;
}

class DpdkCheck {
 public:
  DpdkCheck(const Options& options, Findings& findings) : options_(options), findings_(findings) {}

  void run() {
    const Backend backend = options_.native.backend;
    const Dpdk& dpdk = options_.dpdk;
    if (!dpdk.defined) {
      if (backend == Backend::kDpdk) {
        error("backend", "backend: dpdk needs a dpdk section that names a port and its addresses");
      }
      return;
    }
    if (backend == Backend::kUring || backend == Backend::kEpoll) {
      findings_.warnings.push_back({"dpdk", "the dpdk section is not used: backend says something else"});
      return;
    }
    if (dpdk.ports.empty()) error("dpdk", "dpdk names no ports");
    if (!dpdk.lcores.empty() && !options_.native.cores.empty()) {
      error("dpdk", "dpdk.lcores and cores both say where shards run; keep one");
    }
    if (!dpdk.lcores.empty() && options_.native.shards > static_cast<int>(dpdk.lcores.size())) {
      error("shards",
            fmt::format("shards: {} but dpdk.lcores lists only {}", options_.native.shards, dpdk.lcores.size()));
    }
    if (!dpdk.huge_pages && !dpdk.huge_dir.empty()) error("dpdk", "dpdk.huge_dir is given, but huge_pages is off");
    if (dpdk.memory % (1 << 20) != 0) error("dpdk", "dpdk.memory must be a multiple of 1MiB");
    if (dpdk.file_prefix.find_first_of("/ \t") != std::string::npos) {
      error("dpdk", "dpdk.file_prefix is a file name: no slashes or blanks");
    }
    for (const DpdkPort& port : dpdk.ports) check_port(port);
    host();
  }

 private:
  void error(std::string option, std::string text) { findings_.errors.push_back({std::move(option), std::move(text)}); }

  void check_port(const DpdkPort& port) {
    if (port.device.empty()) return error("dpdk", "a dpdk port needs a device: a PCI address or a virtual device");
    const auto wrong = [&](const std::string& what) { error("dpdk", fmt::format("port {}: {}", port.device, what)); };
    if (!devices_.insert(port.device.substr(0, port.device.find(','))).second) wrong("named twice");
    if (port.addresses.empty()) wrong("needs addresses, as in addresses: [10.0.0.2/24]");
    std::vector<Subnet> subnets;
    for (const std::string& text : port.addresses) {
      Subnet subnet;
      if (const std::string why = parse_subnet(text, subnet); !why.empty()) {
        wrong(why);
        continue;
      }
      if (!addresses_.insert(text.substr(0, text.find('/'))).second) wrong(fmt::format("{} is given twice", text));
      if (subnet.v6 && port.mtu < 1280) wrong(fmt::format("IPv6 needs an mtu of at least 1280, got {}", port.mtu));
      subnets.push_back(subnet);
    }
    gateway(port.gateway, "gateway", false, subnets, wrong);
    gateway(port.gateway6, "gateway6", true, subnets, wrong);
    if (!options_.dpdk.huge_pages && port.device.rfind("net_", 0) != 0) {
      wrong("a physical device needs huge_pages: true");
    }
  }

  template <class Wrong>
  void gateway(const std::string& text, const char* key, bool v6, const std::vector<Subnet>& subnets, Wrong wrong) {
    if (text.empty()) return;
    Bytes address{};
    if (!parse_address(text, v6, address)) {
      return wrong(fmt::format("{} \"{}\" is not an {} address", key, text, v6 ? "IPv6" : "IPv4"));
    }
    const bool link_local = v6 && address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
    const bool reached = std::any_of(subnets.begin(), subnets.end(),
                                     [&](const Subnet& net) { return net.v6 == v6 && holds(net, address); });
    if (!reached && !link_local) wrong(fmt::format("{} {} is in none of the port's subnets", key, text));
  }

  // Clients are served on the ports' addresses, monitoring on the kernel's.
  void host() {
    const std::string& host = options_.host;
    if (host.empty() || host == "0.0.0.0" || host == "::") return;
    if (addresses_.count(host) == 0) {
      error("host", fmt::format("host {} is not an address of a dpdk port; use one of them, or 0.0.0.0 for all", host));
    }
    if (options_.http_port != 0 && options_.http_host.empty()) {
      error("host",
            fmt::format("monitoring stays on the kernel and cannot bind {}: give http a host, as in 127.0.0.1:{}", host,
                        options_.http_port));
    }
  }

  const Options& options_;
  Findings& findings_;
  std::set<std::string> devices_;
  std::set<std::string> addresses_;
};

}  // namespace

void check_dpdk(const Options& options, Findings& findings) { DpdkCheck(options, findings).run(); }

}  // namespace peregrine::config
