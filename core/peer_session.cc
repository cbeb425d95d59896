#include "core/peer_session.h"

#include <algorithm>
#include <array>

#include "core/shard.h"

namespace peregrine::core {
namespace {
constexpr int64_t kLingerNs = 2'000'000'000;  // what is pending gets so long to leave; then the connection is cut
}  // namespace

bool PeerSession::detach_slice(size_t most) {
  if (!detaching_) {
    detaching_ = true;
    on_detach();
    timer_.cancel();
  }
  std::array<Subscription*, Shard::kRemovedTogether> subs;
  while (most > 0 && !interest_.empty()) {
    const size_t n = std::min({most, interest_.size(), subs.size()});
    for (size_t back = 0; back < n; ++back) subs[back] = interest_[interest_.size() - 1 - back];
    shard.remove_subscriptions({subs.data(), n});
    most -= n;
  }
  if (!interest_.empty()) return false;
  if (!gone()) {
    shard.timers().arm(timer_, shard.now_ns() + kLingerNs, this,
                       [](void* self) { static_cast<PeerSession*>(self)->close(CloseReason::kClientClosed, true); });
  }
  return true;
}

}  // namespace peregrine::core
