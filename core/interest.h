// Who may be interested in a message, by the kind of connection that stands for the interest, and what reaches whom.
//
// A side is one subject index per account and shard (account.h). Interest is kept apart by kind because the kinds
// follow different rules: a message from a route goes to clients and leafnodes but never to another route (one hop),
// routes are told what clients and leafnodes want but not what other routes do, a queue group prefers some sides to
// others. All of that is two tables here; delivery and the peers look nothing else up. Plain values, any thread.
// Source: nats-server's processMsgResults and deliverMsg in server/client.go; parity.md section 2.3.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "core/sublist_table.h"

namespace peregrine::core {

// A leafnode connection has two roles: a server that is the hub of it treats the other end as kLeaf; the other one, the
// spoke, treats its end as kHub. Session::kind is kLeaf for both, since the role is known only after CONNECT; as the
// source of a message they are two things.
enum class SessionKind : uint8_t { kClient, kRoute, kGateway, kLeaf, kHub };

enum class Side : uint8_t {
  kClients,      // clients of this server, and its own services
  kLeafs,        // leafnodes this server is the hub of
  kRoutes,       // other servers of the cluster, for their clients
  kRoutedLeafs,  // other servers of the cluster, for their leafnodes (LS+ with an origin cluster)
  kGateways,     // other clusters
  kReplies,      // the way back of mapped replies (gateway_reply.h): gateways and routes by their hashes
  kHubs,         // hubs this server is a leafnode of
};
inline constexpr size_t kSides = 7;
inline constexpr size_t kSessionKinds = 5;

using SideSet = uint8_t;  // bit n = Side n
constexpr SideSet bit(Side side) { return static_cast<SideSet>(1u << static_cast<unsigned>(side)); }
inline constexpr SideSet kClientsOnly = bit(Side::kClients);
inline constexpr SideSet kAllSides = ((1u << kSides) - 1) & ~bit(Side::kReplies);  // that ordinary messages reach
// A mapped reply goes back and nowhere else, but for hubs that are on its way.
inline constexpr SideSet kWayBack = bit(Side::kReplies) | bit(Side::kHubs);

// Where a message from such a connection may go.
constexpr SideSet reach(SessionKind from) {
  constexpr std::array<SideSet, kSessionKinds> kReach = {
      kAllSides,
      static_cast<SideSet>(bit(Side::kClients) | bit(Side::kLeafs)),
      static_cast<SideSet>(kAllSides & ~bit(Side::kGateways)),
      kAllSides,
      // Each server of a cluster has its own connection to the hub.
      static_cast<SideSet>(kAllSides & ~bit(Side::kRoutes) & ~bit(Side::kRoutedLeafs)),
  };
  return kReach[static_cast<size_t>(from)];
}

// Whose interest a peer of that kind is told. A hub is told what we and our own leafnodes want; a leafnode everything.
constexpr SideSet told(SessionKind to) {
  constexpr std::array<SideSet, kSessionKinds> kTold = {
      0,
      static_cast<SideSet>(bit(Side::kClients) | bit(Side::kLeafs)),
      static_cast<SideSet>(bit(Side::kClients) | bit(Side::kLeafs) | bit(Side::kRoutes) | bit(Side::kRoutedLeafs)),
      kAllSides,
      static_cast<SideSet>(bit(Side::kClients) | bit(Side::kLeafs)),
  };
  return kTold[static_cast<size_t>(to)];
}

// Names a leafnode cluster in fewer bytes, as a keyed hash of 40 bits: what comes from it is never sent back to it.
using OriginId = uint64_t;
inline constexpr OriginId kNoOrigin = 0;

// A queue group's message goes to a member of the first of these that has one; within it members count by weight.
inline constexpr std::array<SideSet, 3> kQueueTiers = {
    static_cast<SideSet>(bit(Side::kClients) | bit(Side::kRoutes)),
    static_cast<SideSet>(bit(Side::kLeafs) | bit(Side::kHubs) | bit(Side::kRoutedLeafs)),
    bit(Side::kGateways),
};

// From a route only the groups it names are served, by our own clients first. If they have all gone meanwhile, the
// message goes on to a member on another server, which may be the one it came from: the one case in which it makes a
// second hop.
inline constexpr std::array<SideSet, 3> kQueueTiersFromRoute = {
    bit(Side::kClients),
    static_cast<SideSet>(bit(Side::kLeafs) | bit(Side::kHubs)),
    static_cast<SideSet>(bit(Side::kRoutes) | bit(Side::kRoutedLeafs)),
};
constexpr const std::array<SideSet, 3>& queue_tiers(SessionKind from) {
  return from == SessionKind::kRoute ? kQueueTiersFromRoute : kQueueTiers;
}

class Account;

// A peer that is told what this server wants: a route, a leafnode, a gateway. Lives on one shard, called on its thread.
//
// It is told of changes, not of states: "look again at this subject". What the state is now it asks the shard's replica
// (Account::interest), what its peer was told last it remembers itself (ToldInterest). So a call too many does no harm,
// and the replay of everything that a new peer needs may overlap with changes.
class InterestListener {
 public:
  virtual ~InterestListener() = default;
  // Sides and accounts it listens to; must not change while it listens.
  virtual SideSet listens_to() const = 0;
  virtual bool listens_to(const Account& account) const = 0;
  // `origin`: on kLeafs, the leafnode cluster whose interest it is.
  virtual void interest_changed(Account& account, Side side, std::string_view subject, std::string_view queue,
                                OriginId origin) = 0;
  // False while too much waits to be sent: the replay of existing interest pauses.
  virtual bool ready_for_replay() const = 0;
  // Everything that was there when it began to listen has been told.
  virtual void replay_done() {}
};

// What a peer was told last of each (account, subject, queue), by 64-bit keyed hash: 12 bytes and the table's air.
// Two texts of one hash would hide each other (3e-6 for 10 million).
class ToldInterest {
 public:
  // Notes `weight` (0 = none) and returns what was noted before.
  uint32_t exchange(uint64_t hash, uint32_t weight) {
    Slot* slot = table_.find(Slot{hash, 0}.tag(), [&](const Slot& each) { return each.hash() == hash; });
    if (slot == nullptr) {
      if (weight != 0) table_.insert(Slot{hash, weight});
      return 0;
    }
    const uint32_t old = slot->weight;
    if (weight == 0) table_.erase(slot);
    else slot->weight = weight;
    return old;
  }
  // What is noted; 0 = nothing.
  uint32_t find(uint64_t hash) {
    const Slot* slot = table_.find(Slot{hash, 0}.tag(), [&](const Slot& each) { return each.hash() == hash; });
    return slot == nullptr ? 0 : slot->weight;
  }
  uint64_t size() const { return table_.size(); }
  uint64_t memory_bytes() const { return table_.memory_bytes(); }

 private:
  struct Slot {
    Slot(uint64_t hash, uint32_t weight)
        : high(static_cast<uint32_t>(hash >> 32)), low(static_cast<uint32_t>(hash)), weight(weight) {}
    uint32_t high, low;
    uint32_t weight;  // never 0 in the table
    uint32_t tag() const { return high; }
    uint64_t hash() const { return uint64_t{high} << 32 | low; }
    bool empty() const { return weight == 0; }
  };
  SlotTable<Slot> table_;
};

}  // namespace peregrine::core
