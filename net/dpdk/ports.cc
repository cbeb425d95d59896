#include "net/dpdk/ports.h"

#include <fmt/format.h>
#include <openssl/rand.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>

#include <algorithm>
#include <cstring>

#include <nlohmann/json.hpp>

#include "net/dpdk/system.h"
#include "net/dpdk/telemetry.h"

namespace peregrine::net::dpdk {
namespace {

using Json = nlohmann::ordered_json;

// Keyed, so that nobody can aim all his connections at one shard.
uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t hash(const tcp::Flow& flow, uint64_t key0, uint64_t key1) {
  uint64_t words[4];
  std::memcpy(words, flow.local.bytes.data(), 16);
  std::memcpy(words + 2, flow.remote.bytes.data(), 16);
  uint64_t h = mix(words[0] ^ key0, words[1] ^ key1);
  h = mix(words[2] ^ h, words[3] ^ key1);
  return mix(h ^ key0, (static_cast<uint64_t>(flow.local_port) << 16 | flow.remote_port) ^ key1);
}

}  // namespace

std::expected<std::shared_ptr<Ports>, std::string> Ports::open(const config::Dpdk& options, uint32_t shards,
                                                               core::Log& log) {
  const auto failed = [](const std::string& why) { return std::unexpected("backend dpdk: " + why); };
  // One lcore is the one DPDK started on.
  if (shards >= RTE_MAX_LCORE) {
    return failed(fmt::format("at most {} shards, got {}; set shards or dpdk.lcores", RTE_MAX_LCORE - 1, shards));
  }
  // A device that cannot be had should be known before DPDK's memory is taken.
  for (const config::DpdkPort& port : options.ports) {
    if (const std::string why = check_device(port); !why.empty()) {
      return failed(fmt::format("port {}: {}", port.device, why));
    }
  }
  std::shared_ptr<Ports> ports(new Ports(options, shards, log));
  if (RAND_bytes(reinterpret_cast<unsigned char*>(ports->secrets_.data()), sizeof(ports->secrets_)) != 1) {
    return failed("no random numbers from OpenSSL");
  }
  auto eal = Eal::start(options, log);
  if (!eal) return failed(eal.error());
  ports->eal_ = std::move(*eal);
  DevicePlan plan;
  plan.shards = shards;
  plan.private_bytes = Lane::private_bytes();
  plan.waiting = Lane::kWaiting;
  plan.interrupts = options.idle != config::DpdkIdle::kSpin;
  plan.interrupts_required = options.idle == config::DpdkIdle::kInterrupt;
  std::vector<uint32_t> senders;
  uint32_t polling = 1;
  for (const config::DpdkPort& each : options.ports) {
    const auto number = ports->eal_->attach(each);
    if (!number) return failed(number.error());
    auto device = Device::open(*number, each, plan);
    if (!device) return failed(device.error());
    ports->index_[*number] = static_cast<uint8_t>(ports->devices_.size());
    senders.push_back((*device)->tx_queues());
    polling = std::max<uint32_t>(polling, (*device)->rx_queues());
    ports->devices_.push_back(std::move(*device));
  }
  std::string error;
  ports->exchange_ = std::make_unique<Exchange>(shards, polling, senders, error);
  if (!error.empty()) return failed(error);
  register_telemetry(ports);
  return ports;
}

Ports::~Ports() {
  exchange_.reset();
  devices_.clear();
}

uint32_t Ports::owner(const Device& device, const tcp::Flow& flow, uint32_t here) const {
  if (flow.local_port >= kFirstOwnPort && !listened_on(flow.local_port)) {
    return static_cast<uint32_t>(flow.local_port - kFirstOwnPort) % shards_;
  }
  if (!device.software_spread()) return here;
  return static_cast<uint32_t>(hash(flow, secrets_[2], secrets_[3]) >> 32) % shards_;
}

void Ports::announce_listener(uint16_t port, bool on) {
  if (on) listeners_[port].fetch_add(1, std::memory_order_relaxed);
  else listeners_[port].fetch_sub(1, std::memory_order_relaxed);
}

void Ports::publish(uint32_t shard, const LaneStats& lane, const tcp::Stats& stack) {
  std::lock_guard lock(mutex_);
  published_[shard].lane = lane;
  published_[shard].stack = stack;
}

std::string Ports::describe() const {
  static constexpr const char* kRssStates[] = {"none", "unproven", "proven", "refuted"};
  Json out;
  Json& list = out["ports"] = Json::array();
  for (const auto& device : devices_) {
    Json port;
    port["device"] = device->options().device;
    port["driver"] = device->driver();
    const auto& mac = device->interface().mac;
    port["mac"] =
        fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    port["addresses"] = device->options().addresses;
    port["mtu"] = device->options().mtu;
    port["link"] = device->link_up() ? "up" : "down";
    port["link_mbps"] = device->link_mbps();
    port["rx_queues"] = device->rx_queues();
    port["tx_queues"] = device->tx_queues();
    port["spread"] = device->software_spread() ? "software" : "hardware";
    port["rss"] = kRssStates[static_cast<size_t>(device->rss().state())];
    port["rx_interrupts"] = device->interrupts();
    port["offloads"] = device->offloads();
    rte_eth_stats stats{};
    if (rte_eth_stats_get(device->number(), &stats) == 0) {
      port["in_frames"] = stats.ipackets;
      port["out_frames"] = stats.opackets;
      port["in_bytes"] = stats.ibytes;
      port["out_bytes"] = stats.obytes;
      port["in_missed"] = stats.imissed;
      port["in_errors"] = stats.ierrors;
      port["out_errors"] = stats.oerrors;
      port["in_no_mbuf"] = stats.rx_nombuf;
    }
    list.push_back(std::move(port));
  }
  std::vector<Published> rows;
  {
    std::lock_guard lock(mutex_);
    rows = published_;
  }
  Json& shards = out["shards"] = Json::array();
  for (const Published& row : rows) {
    Json shard;
    const LaneStats& lane = row.lane;
    shard["frames_in"] = lane.frames_in;
    shard["frames_out"] = lane.frames_out;
    shard["bytes_in"] = lane.bytes_in;
    shard["bytes_out"] = lane.bytes_out;
    shard["busy_polls"] = lane.busy_polls;
    shard["empty_polls"] = lane.empty_polls;
    shard["handed_over"] = lane.handed_over;
    shard["taken_over"] = lane.taken_over;
    shard["exchange_full"] = lane.exchange_full;
    shard["overheard"] = lane.overheard;
    shard["scattered"] = lane.scattered;
    shard["no_mbuf"] = lane.no_mbuf;
    shard["transmit_full"] = lane.transmit_full;
    shard["rejected"] = lane.rejected;
    shard["attached"] = lane.attached;
    shard["waiting"] = lane.waiting;
    Json& tcp = shard["tcp"] = Json::object();
    row.stack.each([&](std::string_view name, uint64_t value) { tcp[std::string(name)] = value; });
    Json& drops = shard["drops"] = Json::object();
    for (size_t n = 0; n < row.stack.drops.size(); ++n) {
      if (row.stack.drops[n] != 0) drops[std::string(tcp::kDropNames[n])] = row.stack.drops[n];
    }
    shards.push_back(std::move(shard));
  }
  return out.dump();
}

}  // namespace peregrine::net::dpdk
