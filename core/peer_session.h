// What routes, gateways and leafnodes have in common beyond a session: interest that is not found by a sid.
//
// Owned by its shard like any session. The list holds every Subscription the peer has in the shard's indexes, over all
// accounts and sides; Shard::add_peer_interest and remove_subscription keep it. detach_slice() withdraws it in slices,
// so a peer with a million subscriptions that goes does not stop the shard.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "core/session.h"
#include "core/subscription.h"

namespace peregrine::core {

class PeerSession : public Session {
 public:
  using Session::Session;

  uint32_t next_slot() const { return static_cast<uint32_t>(interest_.size()); }
  void remember(Subscription& sub) {
    interest_.push_back(&sub);
    ++count_in(sub.peer_place().account);
  }
  void forget(Subscription& sub) final {
    --count_in(sub.peer_place().account);
    const uint32_t slot = sub.peer_place().slot;
    interest_[slot] = interest_.back();
    interest_[slot]->peer_place().slot = slot;
    interest_.pop_back();
  }
  size_t subscription_count() const final { return interest_.size(); }
  const std::deque<Subscription*>& interest() const { return interest_; }
  size_t interest_in(uint32_t account) const { return account < counts_.size() ? counts_[account] : 0; }

  bool detach_slice(size_t most) final;

  // The row of /routez; false if it is not a route, or not one yet.
  virtual bool describe(RouteRow&, bool) const { return false; }
  // The row of /gatewayz, alike.
  virtual bool describe(GatewayRow&, const GatewayzQuery&) const { return false; }
  using Session::describe;

 protected:
  // Called once, before the first slice: timers, listeners and whoever knows of this session let go of it.
  virtual void on_detach() = 0;

 private:
  uint32_t& count_in(uint32_t account) {
    if (account >= counts_.size()) counts_.resize(account + 1);
    return counts_[account];
  }

  std::deque<Subscription*> interest_;  // grows without being copied: a million of them would take milliseconds
  std::vector<uint32_t> counts_;        // of it, by account number
  bool detaching_ = false;
};

}  // namespace peregrine::core
