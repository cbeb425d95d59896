// How much may be in flight, and how long to wait: slow start (RFC 5681) that notices a filling queue before it
// overflows (HyStart++, RFC 9406), then CUBIC (RFC 9438) or NewReno (5681), initial window 10 (6928), decay while idle
// (5681 section 4.1, by halves); the RTT estimate and RTO (6298). Plain values inside a TCB; time is an argument.
//
// A window that was not used has not been proved (RFC 7661): it grows only with ACKs that arrive while it was the limit
// (the caller's judgement), and a loss is answered from what was in use, if that was less than half of it.
//
// Invariants: window >= 1 segment; threshold >= 2 segments. Bytes everywhere; CUBIC's formulas are in segments.
#pragma once

#include <algorithm>
#include <cstdint>

namespace peregrine::net::tcp {

enum class CongestionControl : uint8_t { kCubic, kNewReno };

class Congestion {
 public:
  static constexpr uint32_t kNoThreshold = UINT32_MAX;

  // RFC 6928: min(10 MSS, max(2 MSS, 14600)).
  static uint32_t initial_window(uint32_t mss) { return std::min(10 * mss, std::max(2 * mss, 14600u)); }

  void start(CongestionControl control, uint32_t mss);

  uint32_t window() const { return window_; }
  uint32_t threshold() const { return threshold_; }
  bool slow_start() const { return window_ < threshold_; }
  void set_window(uint32_t bytes) { window_ = bytes; }
  void restore(uint32_t window, uint32_t threshold);

  // Every round trip that was measured.
  void on_round_trip(int64_t rtt_ns);
  // Every ACK of something new, before on_ack(): `ack` is its number, `next` the next we shall send.
  void on_progress(uint32_t ack, uint32_t next, uint32_t bytes, int64_t now_ns);
  // New data acknowledged while the window, not the application, was the limit.
  void on_ack(uint32_t bytes, uint32_t mss, int64_t now_ns, int64_t rtt_ns);
  // A loss or an ECN mark with `flight` bytes on their way: lowers the threshold; the caller (PRR) brings the window
  // down.
  void on_congestion(uint32_t mss, uint32_t flight);
  void on_timeout(uint32_t mss) { window_ = mss; }
  void end_recovery(uint32_t mss) {
    window_ = std::max(threshold_, mss);
    reset_epoch();
  }
  // Nothing was sent for `idle_ns`: what the window knew of the path fades, by half each RTO.
  void on_idle(int64_t idle_ns, int64_t rto_ns, uint32_t mss);

 private:
  // Until the first loss there is no threshold, and nothing for CUBIC to remember: the two share their memory.
  bool initial() const { return threshold_ == kNoThreshold; }
  void end_initial(uint32_t threshold) {
    threshold_ = threshold;
    cubic_ = {};
  }
  void reset_epoch() {
    if (!initial()) cubic_.epoch_ns = 0;
  }
  void cubic(uint32_t bytes, uint32_t mss, int64_t now_ns, int64_t rtt_ns);
  void new_reno(uint32_t bytes, uint32_t mss);

  static constexpr uint32_t kUnknown = UINT32_MAX;
  struct HyStart {
    uint32_t round_us, last_us;  // shortest round trip of this round and the one before
    uint32_t baseline_us;        // ... when it began to look like a queue
    uint8_t samples;             // of this round
    uint8_t cautious;            // rounds since, 0 = none
  };
  static constexpr HyStart fresh() { return {kUnknown, kUnknown, kUnknown, 0, 0}; }
  struct Cubic {
    int64_t epoch_ns;  // 0: none yet
    float largest;     // W_max, segments
    float k;           // seconds until W_max is reached again
    float reno;        // W_est
    float fraction;    // of a byte, not yet in window_
  };

  uint32_t window_ = 0;
  uint32_t threshold_ = kNoThreshold;
  union {
    HyStart start_ = fresh();  // while initial()
    Cubic cubic_;
  };
  // What was acknowledged in one round trip: in this one so far, at most lately, at most in the period before that.
  uint32_t round_end_ = 0, round_bytes_ = 0;
  uint32_t peak_ = 0, older_peak_ = 0, peak_since_ms_ = 0;
  bool round_begun_ = false;  // round_end_ is known: something was under way when the last round was over
  CongestionControl control_ = CongestionControl::kCubic;
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
