#include "net/tcp/congestion.h"

#include <cmath>

namespace peregrine::net::tcp {

namespace {
constexpr float kC = 0.4f;
constexpr float kAlpha = 3 * (1 - Congestion::kBeta) / (1 + Congestion::kBeta);
}  // namespace

void Congestion::on_ack(uint32_t bytes, uint32_t mss, int64_t now_ns, int64_t rtt_ns) {
  constexpr uint32_t kLargest = 1u << 30;
  if (slow_start()) {
    // RFC 3465 with L = everything: RACK and the peer's window bound the burst, and stretch ACKs are the rule.
    const uint32_t grow = std::min(bytes, threshold_ - window_);
    window_ = std::min(window_ + grow, kLargest);
    return;
  }
  const float segment = static_cast<float>(mss);
  const float window = static_cast<float>(window_) / segment;
  const float acked = static_cast<float>(bytes) / segment;
  if (epoch_ns_ == 0) {
    epoch_ns_ = now_ns;
    reno_ = window;
    if (largest_ <= window) {
      largest_ = window;
      k_ = 0;
    } else {
      k_ = std::cbrt((largest_ - window) / kC);
    }
  }
  const float t = static_cast<float>(now_ns - epoch_ns_ + rtt_ns) * 1e-9f - k_;
  const float target = std::clamp(kC * t * t * t + largest_, window, 1.5f * window);
  reno_ += (reno_ >= largest_ ? 1.0f : kAlpha) * acked / window;
  float next = window + (target - window) / window * acked;
  if (reno_ > next) next = reno_;
  fraction_ += (next - window) * segment;
  const auto whole = static_cast<uint32_t>(fraction_);
  fraction_ -= static_cast<float>(whole);
  window_ = std::min(window_ + whole, kLargest);
}

void Congestion::on_congestion(uint32_t mss) {
  const float window = static_cast<float>(window_) / static_cast<float>(mss);
  // Fast convergence (RFC 9438 section 4.7): a second loss below the last maximum means a newcomer needs room.
  largest_ = window < largest_ ? window * (1 + kBeta) / 2 : window;
  threshold_ = std::max(static_cast<uint32_t>(static_cast<float>(window_) * kBeta), 2 * mss);
  reset_epoch();
}

void Congestion::on_idle(int64_t idle_ns, int64_t rto_ns, uint32_t mss) {
  const uint32_t floor = initial_window(mss);
  if (window_ <= floor) return;
  threshold_ = std::max(threshold_, window_ / 4 * 3);
  for (; idle_ns > rto_ns && window_ > floor; idle_ns -= rto_ns) window_ = std::max(window_ / 2, floor);
  reset_epoch();
}

}  // namespace peregrine::net::tcp
