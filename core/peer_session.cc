#include "core/peer_session.h"

#include "core/shard.h"

namespace peregrine::core {
namespace {
constexpr size_t kDetachSlice = 512;          // subscriptions withdrawn at a time: some hundred microseconds
constexpr int64_t kLingerNs = 2'000'000'000;  // what is pending gets so long to leave; then the connection is cut
}  // namespace

bool PeerSession::detach_slice() {
  if (!detaching_) {
    detaching_ = true;
    on_detach();
    timer_.cancel();
  }
  for (size_t n = 0; n < kDetachSlice && !interest_.empty(); ++n) shard.remove_subscription(*interest_.back());
  if (!interest_.empty()) return false;
  if (!gone()) {
    shard.timers().arm(timer_, shard.now_ns() + kLingerNs, this,
                       [](void* self) { static_cast<PeerSession*>(self)->close(CloseReason::kClientClosed, true); });
  }
  return true;
}

}  // namespace peregrine::core
