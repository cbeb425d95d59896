#include "net/dpdk/report.h"

#include <fmt/format.h>

#include <numeric>
#include <string_view>

namespace peregrine::net::dpdk {

std::string Report::losses(int64_t now_ns, const LaneStats& lane, const tcp::Stats& stack) {
  const bool due = now_ns >= next_ns_;
  using tcp::Drop;
  struct Kind {
    std::string_view name;
    uint64_t count;
  };
  const auto of = [&](Drop reason) {
    return Kind{tcp::kDropNames[static_cast<size_t>(reason)], stack.dropped(reason)};
  };
  const std::array<Kind, kKinds> kinds = {
      Kind{"exchange_full", lane.exchange_full},
      Kind{"no_mbuf", lane.no_mbuf},
      Kind{"rejected", lane.rejected},
      Kind{"scattered", lane.scattered},
      of(Drop::ipv4_checksum),
      of(Drop::tcp_checksum),
      of(Drop::tcp_syn_rate),
      of(Drop::tcp_backlog),
      of(Drop::tcp_reassembly_full),
      of(Drop::tcp_memory),
      of(Drop::tcp_cookie_invalid),
  };
  std::string text;
  for (size_t n = 0; n < kKinds; ++n) {
    const uint64_t more = kinds[n].count - told_[n];
    if (more == 0 || (told_[n] != 0 && !due)) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", kinds[n].name, more);
    told_[n] = kinds[n].count;
  }
  if (!text.empty()) next_ns_ = now_ns + kEveryNs;
  return text;
}

std::string Report::sums(const tcp::Stats& stack) {
  const uint64_t drops = std::accumulate(stack.drops.begin(), stack.drops.end(), uint64_t{0});
  return fmt::format(
      "{} frames in, {} out, {} refused; {} connections accepted, {} dialled; {} bytes in, {} out, {} sent again",
      stack.frames_in, stack.frames_out, drops, stack.accepted, stack.connected, stack.bytes_in, stack.bytes_out,
      stack.bytes_retransmitted);
}

}  // namespace peregrine::net::dpdk
