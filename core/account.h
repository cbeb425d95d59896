// One subject space, as one shard sees it: its indexes, one per side (interest.h), and its counters.
//
// One object per account and shard, owned by the shard; the account's number is the same on all shards. Clients live in
// the global account $G, number 0, today; other accounts exist as far as peers speak of them (Server::account_number).
// Imports, exports and limits will hang here.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "core/interest.h"
#include "core/snapshot.h"
#include "core/subject_transform.h"
#include "core/sublist.h"

namespace peregrine::core {

inline constexpr uint32_t kGlobalAccount = 0;
inline constexpr std::string_view kGlobalAccountName = "$G";

class Account {
 public:
  Account(std::string name, uint32_t number, HashKey key, uint32_t shard)
      : name(std::move(name)),
        number(number),
        sublist(key, shard, number),
        key_(key),
        origin_hash_(key.k0, key.k1, 0x6f726967),
        shard_(shard) {}

  // The index of one side; made when first asked for.
  Sublist& side(Side which) {
    if (which == Side::kClients) return sublist;
    auto& place = peers_[static_cast<size_t>(which)];
    if (place == nullptr) place = std::make_unique<Sublist>(key_, shard_, number);
    return *place;
  }
  // Sides that hold anything, kClients always among them. To be told after every change of a side's index.
  SideSet live_sides() const { return live_sides_; }
  void changed(Side which) {
    if (which == Side::kClients) return;
    if (side(which).empty()) live_sides_ &= static_cast<SideSet>(~bit(which));
    else live_sides_ |= bit(which);
  }
  // When somebody on this side of the gateways last wanted something new; 0 = never. Gateways ask: an inbox may be too
  // young to be known elsewhere.
  int64_t last_interest_ns() const { return last_interest_ns_; }
  void note_new_interest(Side which, int64_t now_ns) {
    if (which != Side::kGateways && which != Side::kReplies) last_interest_ns_ = now_ns;
  }
  // What the server has of exactly this subject and queue over `sides`: 0 or 1 for plain interest, the weight for a
  // queue. `except` (a peer) does not count, nor do leafnodes of `except_origin`.
  uint32_t interest(SideSet sides, std::string_view subject, std::string_view queue, const Session* except,
                    OriginId except_origin = kNoOrigin) {
    uint64_t weight = 0;
    for (size_t n = 0; n < kSides; ++n) {
      const auto which = static_cast<Side>(n);
      if ((sides & live_sides_ & bit(which)) == 0) continue;
      if (which == Side::kClients) weight += sublist.interest(subject, queue, nullptr);
      else if (except_origin == kNoOrigin || !has_origins(which))
        weight += side(which).interest(subject, queue, except);
      else
        weight += side(which).local_interest(subject, queue, except, except_origin) +
                  remote_interest_of_others(which, subject, queue, except_origin);
      if (weight != 0 && queue.empty()) return 1;
    }
    return static_cast<uint32_t>(weight < UINT32_MAX ? weight : UINT32_MAX);
  }

  // Sides whose peers may be leafnodes of one cluster.
  static constexpr bool has_origins(Side which) { return which == Side::kLeafs || which == Side::kRoutedLeafs; }
  // Leafnodes of one cluster (kNoOrigin: those that name none) want so much more or less of it, here or on another
  // shard; and what they want now on all shards together. Kept if routes are told (Server::tells_origins).
  void note_origin(std::string_view subject, std::string_view queue, OriginId origin, int32_t change) {
    const uint64_t key = origin_key(Side::kLeafs, subject, queue) ^ ((origin + 1) * kOriginStep);
    origins_.exchange(key, origins_.find(key) + static_cast<uint32_t>(change));
  }
  uint32_t interest_of_origin(std::string_view subject, std::string_view queue, OriginId origin) {
    if (origins_.size() == 0) return 0;  // no need to hash
    const uint32_t weight = origins_.find(origin_key(Side::kLeafs, subject, queue) ^ ((origin + 1) * kOriginStep));
    return queue.empty() ? std::min(weight, 1u) : weight;
  }
  // Another shard says how much more or less an origin wants there.
  void note_remote_origin(Side which, std::string_view subject, std::string_view queue, OriginId origin,
                          int32_t change) {
    const uint64_t hash = origin_key(which, subject, queue);
    for (const uint64_t key : {hash, hash ^ (origin * kOriginStep)}) {
      remote_origins_.exchange(key, remote_origins_.find(key) + static_cast<uint32_t>(change));
      if (origin == kNoOrigin) break;
    }
  }

  const std::string name;
  const uint32_t number;
  Sublist sublist;                            // of the clients
  std::unique_ptr<SubjectMappings> mappings;  // of what its clients publish; null = none
  Traffic traffic;                            // of its clients on this shard
  uint64_t connections = 0;
  uint64_t total_connections = 0;
  uint64_t leafnodes = 0;  // on this shard
  uint64_t slow_consumers = 0;

 private:
  static constexpr uint64_t kOriginStep = 0x9e3779b97f4a7c15;
  uint64_t origin_key(Side which, std::string_view subject, std::string_view queue) const {
    const uint64_t hash = origin_hash_(subject, static_cast<uint64_t>(which));
    return queue.empty() ? hash : hash * 3 + origin_hash_(queue, kSides);
  }
  uint32_t remote_interest_of_others(Side which, std::string_view subject, std::string_view queue, OriginId origin) {
    const uint32_t all = side(which).remote_interest(subject, queue);
    if (all == 0) return 0;
    const uint64_t hash = origin_key(which, subject, queue);
    const uint32_t counted = remote_origins_.find(hash), own = remote_origins_.find(hash ^ (origin * kOriginStep));
    if (own >= counted) return 0;
    return queue.empty() ? 1 : all - std::min(own, all);
  }

  const HashKey key_;
  const KeyedHash origin_hash_;
  const uint32_t shard_;
  SideSet live_sides_ = kClientsOnly;
  int64_t last_interest_ns_ = 0;
  std::array<std::unique_ptr<Sublist>, kSides> peers_;
  ToldInterest origins_;         // of kLeafs, on all shards
  ToldInterest remote_origins_;  // weights of leafnode clusters on other shards, and of all of them together
};

}  // namespace peregrine::core
