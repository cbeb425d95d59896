#include "net/dpdk/rss.h"

#include <cstring>

namespace peregrine::net::dpdk {
namespace {

constexpr size_t kLongestTuple = 36;  // two IPv6 addresses and two ports
constexpr uint32_t kDoubt = 4;        // frames that may differ before the formula is given up

// Source address, destination address, source port, destination port: from the sender's point of view.
size_t tuple_of(const tcp::Flow& flow, uint8_t* out) {
  uint8_t* at = out;
  const auto put = [&](const uint8_t* bytes, size_t size) {
    std::memcpy(at, bytes, size);
    at += size;
  };
  if (flow.local.is_v4() && flow.remote.is_v4()) {
    put(flow.remote.v4_bytes(), 4);
    put(flow.local.v4_bytes(), 4);
  } else {
    put(flow.remote.bytes.data(), 16);
    put(flow.local.bytes.data(), 16);
  }
  const uint8_t ports[4] = {static_cast<uint8_t>(flow.remote_port >> 8), static_cast<uint8_t>(flow.remote_port),
                            static_cast<uint8_t>(flow.local_port >> 8), static_cast<uint8_t>(flow.local_port)};
  put(ports, 4);
  return static_cast<size_t>(at - out);
}

}  // namespace

void Rss::set(std::vector<uint8_t> key, std::vector<uint16_t> reta) {
  key_ = std::move(key);
  reta_ = std::move(reta);
  const bool usable = key_.size() >= kLongestTuple + 4 && !reta_.empty();
  state_ = usable ? State::kUnproven : State::kNone;
}

uint32_t Rss::hash(const tcp::Flow& flow) const {
  uint8_t tuple[kLongestTuple];
  const size_t size = tuple_of(flow, tuple);
  uint32_t result = 0;
  uint32_t window = static_cast<uint32_t>(key_[0]) << 24 | static_cast<uint32_t>(key_[1]) << 16 |
                    static_cast<uint32_t>(key_[2]) << 8 | key_[3];
  for (size_t n = 0; n < size; ++n) {
    const uint8_t next = key_[n + 4];
    for (int bit = 7; bit >= 0; --bit) {
      if ((tuple[n] >> bit & 1) != 0) result ^= window;
      window = window << 1 | (next >> bit & 1);
    }
  }
  return result;
}

void Rss::observe(const tcp::Flow& flow, uint16_t queue, const uint32_t* given) {
  if (state() != State::kUnproven) return;
  const uint32_t ours = hash(flow);
  const bool agrees = queue_of(ours) == queue && (given == nullptr || *given == ours);
  State unproven = State::kUnproven;
  if (agrees) {
    if (agreed_.fetch_add(1, std::memory_order_relaxed) + 1 >= kProof) {
      state_.compare_exchange_strong(unproven, State::kProven);
    }
  } else if (differed_.fetch_add(1, std::memory_order_relaxed) + 1 >= kDoubt) {
    state_.compare_exchange_strong(unproven, State::kRefuted);
  }
}

}  // namespace peregrine::net::dpdk
