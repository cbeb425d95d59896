// Whether it pays to look for work for a while before parking: plain arithmetic about one shard, no clock of its own.
//
// It does when something comes within `spin_ns` most times. A look that ends in a park costs several parks; what came
// much too late came while somebody else had the core; and bulk (kBulkBytes in one turn, or kBulkChanges of interest)
// does not wait for us: its sender writes on, and looking would only be CPU time on top of every message. While it does
// not pay, one millisecond of kProbe finds out whether that has changed: the same one for all shards of a machine,
// because a question that crosses is answered quickly only if the shards on its way are all awake. bench/README.md,
// "Waiting", has the figures.
#pragma once

#include <algorithm>
#include <cstdint>

namespace peregrine::net {

class SpinJudge {
 public:
  static constexpr uint64_t kBulkBytes = 16 * 1024;
  static constexpr uint32_t kBulkChanges = 64;

  explicit SpinJudge(int64_t spin_ns) : spin_ns_(spin_ns) {}

  bool try_it(int64_t now_ns) const { return score_ >= kEnough || (now_ns >> 20) % kProbe == 0; }

  // What the look was for came after so long, so much of it.
  void came(int64_t after_ns, uint64_t bytes, uint32_t interest_changes) {
    if (after_ns <= 2 * spin_ns_ && bytes < kBulkBytes && interest_changes < kBulkChanges)
      score_ = std::min(score_ + 1, 2 * kEnough);
    else in_vain();
  }
  void in_vain() { score_ = std::max(score_ - kFailure, 0); }

 private:
  static constexpr int kEnough = 8, kFailure = 2;
  static constexpr int64_t kProbe = 32;
  int64_t spin_ns_;
  int score_ = 0;
};

}  // namespace peregrine::net
