// What the log is told of a shard's counters: what was lost, once in a while and only if anything was; and the sums at
// the end. /varz and telemetry have everything. Pure; one per shard, on its thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "net/dpdk/lane.h"
#include "net/tcp/stats.h"

namespace peregrine::net::dpdk {

class Report {
 public:
  static constexpr int64_t kEveryNs = 60'000'000'000;

  // What has been lost that a network in order does not lose, by name and number, since it was last told: each for the
  // first time at once, then all once in kEveryNs. Empty: nothing to tell.
  std::string losses(int64_t now_ns, const LaneStats& lane, const tcp::Stats& stack);

  static std::string sums(const tcp::Stats& stack);

 private:
  static constexpr size_t kKinds = 11;
  std::array<uint64_t, kKinds> told_{};
  int64_t next_ns_ = 0;
};

}  // namespace peregrine::net::dpdk
