#include "net/dpdk/choice.h"

#include <random>

#include "net/dpdk/backend.h"

namespace peregrine::net {
namespace {

constexpr int kFirstRandomPort = 10000;

// A port nobody of ours listens on, below those our own connections take.
int random_port(const dpdk::Ports& ports) {
  std::random_device chance;
  std::uniform_int_distribution<int> pick(kFirstRandomPort, dpdk::Ports::kFirstOwnPort - 1);
  for (;;) {
    if (const int port = pick(chance); !ports.listened_on(static_cast<uint16_t>(port))) return port;
  }
}

}  // namespace

std::expected<BackendChoice, std::string> choose_dpdk(const config::Dpdk& options, uint32_t shards, core::Log& log) {
  auto opened = dpdk::Ports::open(options, shards, log);
  if (!opened) return std::unexpected(opened.error());
  const std::shared_ptr<dpdk::Ports> ports = *opened;
  BackendChoice choice;
  choice.name = "dpdk";
  choice.log_line = "backend: dpdk";
  choice.make = [ports](uint32_t shard) -> std::expected<std::unique_ptr<Backend>, std::string> {
    std::string error;
    auto backend = std::make_unique<dpdk::Backend>(ports, shard, error);
    if (!error.empty()) return std::unexpected("backend dpdk: " + error);
    return backend;
  };
  choice.open = [ports](const std::string& host, int port, int count) {
    return open_address_listeners(host, port > 0 ? port : random_port(*ports), count);
  };
  choice.describe = [ports] { return ports->describe(); };
  for (const config::DpdkPort& port : options.ports) {
    for (const std::string& address : port.addresses) choice.addresses.push_back(address.substr(0, address.find('/')));
  }
  return choice;
}

}  // namespace peregrine::net
