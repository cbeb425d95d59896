// All network ports of the process and what its shards share below TCP: the devices, the exchange between shards, who
// owns which connection, and the numbers monitoring shows.
//
// Opened on the main thread before the shards start (which starts DPDK), closed after they are gone. owner() and
// announce_listener() may be called on any shard's thread, describe() on any thread.
//
// Whose connection is it? Decided without a table: of an outbound one, the shard that chose its local port (ports from
// kFirstOwnPort up that nobody listens on belong to shard `port % shards`); of any other, the shard of the queue it
// comes on if the device keeps connections on their queue, else the one our own keyed hash names. Besides, if RSS is
// understood, outbound ports are chosen so that the answers come to the right queue at once (Rss).
#pragma once

#include <array>
#include <atomic>
#include <expected>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "config/options.h"
#include "core/log.h"
#include "net/backend.h"
#include "net/dpdk/device.h"
#include "net/dpdk/eal.h"
#include "net/dpdk/exchange.h"
#include "net/dpdk/lane.h"

namespace peregrine::net::dpdk {

class Ports : public std::enable_shared_from_this<Ports> {
 public:
  static std::expected<std::shared_ptr<Ports>, std::string> open(const config::Dpdk& options, uint32_t shards,
                                                                 core::Log& log);
  ~Ports();
  Ports(const Ports&) = delete;
  Ports& operator=(const Ports&) = delete;

  static constexpr uint16_t kFirstOwnPort = 32768;

  uint32_t shards() const { return shards_; }
  size_t size() const { return devices_.size(); }
  Device& operator[](size_t n) { return *devices_[n]; }
  size_t index_of(uint16_t number) const { return index_[number]; }
  Exchange& exchange() { return *exchange_; }
  core::Log& log() { return log_; }
  const config::Dpdk& options() const { return options_; }

  // The shard a frame of `flow` belongs to that came to shard `here`.
  uint32_t owner(const Device& device, const tcp::Flow& flow, uint32_t here) const;
  void announce_listener(uint16_t port, bool on);
  bool listened_on(uint16_t port) const { return listeners_[port].load(std::memory_order_relaxed) != 0; }

  // Of all shards the same: a connection may be handed from one to another only by its packets.
  uint64_t secret(size_t n) const { return secrets_[n]; }

  // A shard's numbers as they are now; describe() shows the last ones.
  void publish(uint32_t shard, const LaneStats& lane, const tcp::Stats& stack);
  // JSON text of the `dpdk` object in /varz.
  std::string describe() const;

  // Shards that still have something to say when the process ends.
  std::atomic<uint32_t> unquiet{0};

 private:
  Ports(const config::Dpdk& options, uint32_t shards, core::Log& log)
      : shards_(shards), options_(options), log_(log), index_(), published_(shards) {}
  std::string check_numa() const;

  struct Published {
    LaneStats lane;
    tcp::Stats stack;
  };

  const uint32_t shards_;
  const config::Dpdk options_;
  core::Log& log_;
  std::unique_ptr<Eal> eal_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<Exchange> exchange_;
  std::array<uint8_t, 64> index_;
  std::array<std::atomic<uint16_t>, 65536> listeners_{};
  std::array<uint64_t, 4> secrets_{};
  mutable std::mutex mutex_;
  std::vector<Published> published_;
};

}  // namespace peregrine::net::dpdk
