// Latency histogram of the load generator: log-linear buckets, so that a value of any size is kept within 0.8 %.
//
// Owns: one flat array of counters, no allocation after construction. Not thread-safe; merge() joins two of them.
// Unit: nanoseconds. Values above ~73 minutes land in the last bucket; max() is exact.
//
// Own code because Debian 12 ships no C or C++ HdrHistogram; the shape (and what a percentile means) is HdrHistogram's.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace peregrine::bench {

class Histogram {
 public:
  Histogram() : counts_(kBuckets, 0) {}

  void record(uint64_t value_ns) {
    ++counts_[bucket_of(value_ns)];
    ++count_;
    sum_ns_ += value_ns;
    if (value_ns > max_ns_) max_ns_ = value_ns;
    if (value_ns < min_ns_) min_ns_ = value_ns;
  }

  void clear() { *this = Histogram(); }

  void merge(const Histogram& other) {
    for (uint32_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    sum_ns_ += other.sum_ns_;
    if (other.max_ns_ > max_ns_) max_ns_ = other.max_ns_;
    if (other.min_ns_ < min_ns_) min_ns_ = other.min_ns_;
  }

  uint64_t count() const { return count_; }
  uint64_t max_ns() const { return max_ns_; }
  uint64_t min_ns() const { return count_ ? min_ns_ : 0; }
  double mean_ns() const { return count_ ? static_cast<double>(sum_ns_) / static_cast<double>(count_) : 0; }

  // The smallest recorded value (to bucket precision) that `percent` of all values do not exceed.
  uint64_t percentile_ns(double percent) const {
    if (!count_) return 0;
    uint64_t wanted = static_cast<uint64_t>(percent / 100.0 * static_cast<double>(count_) + 0.5);
    if (wanted < 1) wanted = 1;
    if (wanted > count_) wanted = count_;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < kBuckets; ++i) {
      seen += counts_[i];
      if (seen >= wanted) return highest_in(i) < max_ns_ ? highest_in(i) : max_ns_;
    }
    return max_ns_;
  }

  // Points (percent, ns) of the percentile curve, denser towards 100 %: what a plot over "number of nines" needs.
  std::vector<std::pair<double, uint64_t>> curve() const {
    std::vector<std::pair<double, uint64_t>> points;
    if (!count_) return points;
    double distance = 1.0;  // share of values still above the point
    for (int i = 0; i < 60 && distance * static_cast<double>(count_) >= 1.0; ++i) {
      const double percent = 100.0 * (1.0 - distance);
      points.emplace_back(percent, percentile_ns(percent));
      distance *= 0.75;
    }
    points.emplace_back(100.0, max_ns_);
    return points;
  }

 private:
  // Values below 2^(kSubBits+1) have a bucket each; above, every power of two is cut into 2^kSubBits buckets.
  static constexpr uint32_t kSubBits = 7;
  static constexpr uint32_t kSub = 1u << kSubBits;
  static constexpr uint32_t kTopBit = 42;
  static constexpr uint32_t kBuckets = (kTopBit - kSubBits + 1) * kSub + kSub;

  static uint32_t bucket_of(uint64_t v) {
    if (v < 2 * kSub) return static_cast<uint32_t>(v);
    uint32_t top = 63u - static_cast<uint32_t>(std::countl_zero(v));
    if (top >= kTopBit) return kBuckets - 1;
    const uint32_t shift = top - kSubBits;
    return shift * kSub + static_cast<uint32_t>(v >> shift);
  }
  static uint64_t highest_in(uint32_t bucket) {
    if (bucket < 2 * kSub) return bucket;
    const uint32_t shift = bucket / kSub - 1;
    const uint64_t lead = kSub + bucket % kSub;
    return ((lead + 1) << shift) - 1;
  }

  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  uint64_t sum_ns_ = 0;
  uint64_t max_ns_ = 0;
  uint64_t min_ns_ = UINT64_MAX;
};

}  // namespace peregrine::bench
