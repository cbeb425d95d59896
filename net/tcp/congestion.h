// How much may be in flight, and how long to wait: CUBIC (RFC 9438) with slow start (5681), initial window 10 (6928),
// decay while idle (7661); the RTT estimate and RTO (6298). Plain values inside a TCB; time is an argument.
//
// Invariants: window >= 1 segment; threshold >= 2 segments. Bytes everywhere; CUBIC's formulas are in segments.
#pragma once

#include <algorithm>
#include <cstdint>

namespace peregrine::net::tcp {

class Congestion {
 public:
  static constexpr float kBeta = 0.7f;
  static constexpr uint32_t kNoThreshold = UINT32_MAX;

  // RFC 6928: min(10 MSS, max(2 MSS, 14600)).
  static uint32_t initial_window(uint32_t mss) { return std::min(10 * mss, std::max(2 * mss, 14600u)); }

  void start(uint32_t mss) {
    window_ = initial_window(mss);
    threshold_ = kNoThreshold;
    reset_epoch();
    largest_ = 0;
  }

  uint32_t window() const { return window_; }
  uint32_t threshold() const { return threshold_; }
  bool slow_start() const { return window_ < threshold_; }
  void set_window(uint32_t bytes) { window_ = bytes; }
  void restore(uint32_t window, uint32_t threshold) {
    window_ = std::max(window_, window);
    threshold_ = std::max(threshold_, threshold);
  }

  // New data acknowledged while the window, not the application, was the limit.
  void on_ack(uint32_t bytes, uint32_t mss, int64_t now_ns, int64_t rtt_ns);
  // A loss or an ECN mark: lowers the threshold; the caller (PRR) brings the window down.
  void on_congestion(uint32_t mss);
  void on_timeout(uint32_t mss) { window_ = mss; }
  void end_recovery(uint32_t mss) {
    window_ = std::max(threshold_, mss);
    reset_epoch();
  }
  // Nothing was sent for `idle_ns`: what the window knew of the path fades, by half each RTO.
  void on_idle(int64_t idle_ns, int64_t rto_ns, uint32_t mss);

 private:
  void reset_epoch() { epoch_ns_ = 0; }

  uint32_t window_ = 0;
  uint32_t threshold_ = kNoThreshold;
  int64_t epoch_ns_ = 0;  // 0: none yet
  float largest_ = 0;     // W_max, segments
  float k_ = 0;           // seconds until W_max is reached again
  float reno_ = 0;        // W_est
  float fraction_ = 0;    // of a byte, not yet in window_
};

class RoundTrip {
 public:
  static constexpr int64_t kInitial = 1'000'000'000;
  static constexpr int64_t kMinimum = 200'000'000;  // as Linux; RFC 6298's second is for coarse clocks
  static constexpr int64_t kMaximum = 60'000'000'000;

  void sample(int64_t rtt_ns) {
    if (rtt_ns <= 0) rtt_ns = 1;
    if (smoothed_ == 0) {
      smoothed_ = rtt_ns;
      variance_ = rtt_ns / 2;
    } else {
      const int64_t error = rtt_ns > smoothed_ ? rtt_ns - smoothed_ : smoothed_ - rtt_ns;
      variance_ += (error - variance_) / 4;
      smoothed_ += (rtt_ns - smoothed_) / 8;
    }
  }
  int64_t smoothed() const { return smoothed_; }
  int64_t timeout() const {
    if (smoothed_ == 0) return kInitial;
    return std::clamp(smoothed_ + std::max<int64_t>(4 * variance_, 1'000'000), kMinimum, kMaximum);
  }
  int64_t timeout(unsigned backoff) const { return std::min(timeout() << std::min(backoff, 12u), kMaximum); }

 private:
  int64_t smoothed_ = 0;
  int64_t variance_ = 0;
};

}  // namespace peregrine::net::tcp
