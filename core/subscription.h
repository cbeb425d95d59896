// One subscription: plain data, 32 bytes, because there may be ten million of them. (Aligned to 16: the index keeps 44
// bits of its address, sublist_entry.h.)
//
// Owns: its sid when that is longer than 8 bytes. Belongs to one session and so to that session's shard; no other
// thread looks at it. Subject and queue name are not here: the index stores each text once (Sublist::subject_of,
// queue_of). A peer's interest (a route's RS+, say) is a Subscription too: it has no sid but a weight, an account and a
// place in its session's list. Lifetime: made by the session on SUB, inserted into the account's Sublist, removed from
// it before it is destroyed. During a delivery nothing is removed (delivery.h): a match's pointers stay good until the
// turn's clean-up.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/bytes.h"
#include "core/interest.h"

namespace peregrine::core {

class Session;

class alignas(16) Subscription {
 public:
  static constexpr size_t kMaxSid =
      UINT16_MAX;  // far above any max_control_line in use; the session refuses longer ones

  Subscription(Session* session, std::string_view sid) : session(session) { set_sid(sid); }
  struct PeerPlace {
    uint32_t slot;     // in the session's list
    uint32_t account;  // number
  };
  static constexpr unsigned kWeightBits = 24;
  static constexpr uint32_t kMaxWeight = (1u << kWeightBits) - 1;
  Subscription(Session* session, Side side, PeerPlace place, uint32_t weight, OriginId origin)
      : session(session), delivered(origin << kWeightBits), peer(true), side(side) {
    sid_.peer = place;
    set_weight(weight);
  }
  ~Subscription() {
    if (sid_size_ > kInlineSid) delete[] sid_.heap;
  }
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

  bool sid_is(std::string_view other) const {
    return sid_size_ == other.size() && same_bytes(sid().data(), other.data(), other.size());
  }
  std::string_view sid() const { return {sid_size_ > kInlineSid ? sid_.heap : sid_.inline_bytes, sid_size_}; }

  // How much it counts in its queue group.
  uint32_t weight() const { return peer ? static_cast<uint32_t>(delivered & kMaxWeight) : 1; }
  void set_weight(uint32_t weight) { delivered = (delivered & ~uint64_t{kMaxWeight}) | std::min(weight, kMaxWeight); }
  // The leafnode cluster a peer's interest is that of. That of a route's clients has none, and counts in its place.
  OriginId origin() const { return peer && side != Side::kRoutes ? delivered >> kWeightBits : kNoOrigin; }
  // Messages sent because of it; not counted for peers other than routes.
  uint64_t messages() const { return !peer ? delivered : side == Side::kRoutes ? delivered >> kWeightBits : 0; }
  void count(uint64_t messages) {
    if (!peer) delivered += messages;
    else if (side == Side::kRoutes) delivered += messages << kWeightBits;
  }
  PeerPlace& peer_place() { return sid_.peer; }
  const PeerPlace& peer_place() const { return sid_.peer; }

  Session* session;
  uint64_t delivered = 0;  // messages handed to the session's outbox; of a peer's its weight, and origin or messages
  uint32_t entry = 0;      // the index's own: in its slab; set by Sublist::insert, 0 while not inserted

  bool limited : 1 = false;  // UNSUB max given: the allowance is in Session::limits (rare, so not in here)
  bool peer : 1 = false;     // of a route, a gateway or a leafnode
  bool grouped : 1 = false;  // the index's own: `entry` is a queue group
  bool closed : 1 = false;   // reached its max or being removed: skip it, the clean-up of this turn takes it out
  Side side = Side::kClients;

 private:
  static constexpr size_t kInlineSid = 8;

  void set_sid(std::string_view sid) {
    sid_size_ = static_cast<uint16_t>(sid.size());  // <= kMaxSid
    if (sid.size() > kInlineSid) sid_.heap = new char[sid.size()];
    put(sid.size() > kInlineSid ? sid_.heap : sid_.inline_bytes, sid);
  }

  uint16_t sid_size_ = 0;
  union {
    char inline_bytes[kInlineSid];
    char* heap;
    PeerPlace peer;
  } sid_;
};
static_assert(sizeof(Subscription) == 32);

}  // namespace peregrine::core
