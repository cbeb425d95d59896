#include "net/tcp/congestion.h"

#include <cmath>

#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {
constexpr float kC = 0.4f;
constexpr float kCubicBeta = 0.7f, kRenoBeta = 0.5f;
constexpr float kAlpha = 3 * (1 - kCubicBeta) / (1 + kCubicBeta);
constexpr uint32_t kLargest = 1u << 30;
constexpr uint32_t kPeriodMs = 1000;  // RFC 7661 section 4.2

// RFC 9406 section 4.3.
constexpr uint32_t kLeastStepUs = 4000, kMostStepUs = 16000, kStepDivisor = 8;
constexpr uint8_t kSamples = 8, kCautiousRounds = 5;
constexpr uint32_t kCautiousDivisor = 4;
}  // namespace

void Congestion::start(CongestionControl control, uint32_t mss) {
  control_ = control;
  window_ = initial_window(mss);
  threshold_ = kNoThreshold;
  start_ = fresh();
  round_begun_ = false;
}

void Congestion::restore(uint32_t window, uint32_t threshold) {
  window_ = std::max(window_, window);
  threshold_ = std::max(threshold_, threshold);
  if (initial()) start_ = fresh();
}

void Congestion::on_round_trip(int64_t rtt_ns) {
  if (!initial()) return;
  const auto us = static_cast<uint32_t>(std::clamp<int64_t>(rtt_ns / 1000, 0, kUnknown - 1));
  start_.round_us = std::min(start_.round_us, us);
  if (start_.samples < kSamples) ++start_.samples;
  if (start_.samples < kSamples) return;
  if (start_.cautious > 0) {
    if (start_.round_us < start_.baseline_us) start_.cautious = 0;  // it was jitter
  } else if (start_.last_us != kUnknown) {
    const uint32_t step = std::clamp(start_.last_us / kStepDivisor, kLeastStepUs, kMostStepUs);
    if (start_.round_us < start_.last_us + step) return;
    start_.baseline_us = start_.round_us;
    start_.cautious = 1;
  }
}

void Congestion::on_progress(uint32_t ack, uint32_t next, uint32_t bytes, int64_t now_ns) {
  round_bytes_ += bytes;
  if (!round_begun_) {
    round_end_ = next;
    round_begun_ = true;
  }
  if (before(ack, round_end_)) return;
  // What was under way when the round began has arrived.
  round_end_ = next;
  round_begun_ = next != ack;
  const auto now_ms = static_cast<uint32_t>(now_ns / 1'000'000);
  if (const uint32_t passed = now_ms - peak_since_ms_; passed >= kPeriodMs) {
    older_peak_ = passed < 2 * kPeriodMs ? peak_ : 0;
    peak_ = 0;
    peak_since_ms_ = now_ms;
  }
  peak_ = std::max(peak_, round_bytes_);
  round_bytes_ = 0;
  if (!initial()) return;
  if (start_.cautious > kCautiousRounds) return end_initial(window_);
  if (start_.cautious > 0) ++start_.cautious;
  start_.last_us = start_.round_us;
  start_.round_us = kUnknown;
  start_.samples = 0;
}

void Congestion::on_ack(uint32_t bytes, uint32_t mss, int64_t now_ns, int64_t rtt_ns) {
  if (slow_start()) {
    // RFC 3465 with L = everything: RACK and the peer's window bound the burst, and stretch ACKs are the rule.
    uint32_t grow = bytes;
    if (initial() && start_.cautious > 0) grow = std::max(grow / kCautiousDivisor, 1u);
    window_ = std::min(window_ + std::min(grow, threshold_ - window_), kLargest);
    return;
  }
  if (control_ == CongestionControl::kCubic) cubic(bytes, mss, now_ns, rtt_ns);
  else new_reno(bytes, mss);
}

void Congestion::cubic(uint32_t bytes, uint32_t mss, int64_t now_ns, int64_t rtt_ns) {
  const float segment = static_cast<float>(mss);
  const float window = static_cast<float>(window_) / segment;
  const float acked = static_cast<float>(bytes) / segment;
  if (cubic_.epoch_ns == 0) {
    cubic_.epoch_ns = now_ns;
    cubic_.reno = window;
    if (cubic_.largest <= window) {
      cubic_.largest = window;
      cubic_.k = 0;
    } else {
      cubic_.k = std::cbrt((cubic_.largest - window) / kC);
    }
  }
  const float t = static_cast<float>(now_ns - cubic_.epoch_ns + rtt_ns) * 1e-9f - cubic_.k;
  const float target = std::clamp(kC * t * t * t + cubic_.largest, window, 1.5f * window);
  cubic_.reno += (cubic_.reno >= cubic_.largest ? 1.0f : kAlpha) * acked / window;
  float next = window + (target - window) / window * acked;
  if (cubic_.reno > next) next = cubic_.reno;
  cubic_.fraction += (next - window) * segment;
  const auto whole = static_cast<uint32_t>(cubic_.fraction);
  cubic_.fraction -= static_cast<float>(whole);
  window_ = std::min(window_ + whole, kLargest);
}

// RFC 5681 section 3.1: a segment more each round trip, by bytes.
void Congestion::new_reno(uint32_t bytes, uint32_t mss) {
  cubic_.fraction += static_cast<float>(mss) * static_cast<float>(bytes) / static_cast<float>(window_);
  const auto whole = static_cast<uint32_t>(cubic_.fraction);
  cubic_.fraction -= static_cast<float>(whole);
  window_ = std::min(window_ + whole, kLargest);
}

void Congestion::on_congestion(uint32_t mss, uint32_t flight) {
  // RFC 7661 section 4.4.1: of a window that was not half used, only what was used counts.
  const uint32_t used = std::max({flight, peak_, older_peak_, round_bytes_});
  const uint32_t proved = used < window_ / 2 ? used : window_;
  if (initial()) end_initial(window_);
  if (control_ == CongestionControl::kCubic) {
    const float window = static_cast<float>(proved) / static_cast<float>(mss);
    // Fast convergence (RFC 9438 section 4.7): a second loss below the last maximum means a newcomer needs room.
    cubic_.largest = window < cubic_.largest ? window * (1 + kCubicBeta) / 2 : window;
  }
  const float beta = control_ == CongestionControl::kCubic ? kCubicBeta : kRenoBeta;
  threshold_ = std::max(static_cast<uint32_t>(static_cast<float>(proved) * beta), 2 * mss);
  reset_epoch();
}

void Congestion::on_idle(int64_t idle_ns, int64_t rto_ns, uint32_t mss) {
  const uint32_t floor = initial_window(mss);
  if (window_ <= floor) return;
  if (!initial()) threshold_ = std::max(threshold_, window_ / 4 * 3);
  for (; idle_ns > rto_ns && window_ > floor; idle_ns -= rto_ns) window_ = std::max(window_ / 2, floor);
  reset_epoch();
}

}  // namespace peregrine::net::tcp
