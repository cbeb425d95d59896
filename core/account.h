// One subject space, as one shard sees it: its indexes, one per side (interest.h), and its counters.
//
// One object per account and shard, owned by the shard; the account's number is the same on all shards. Clients live in
// the global account $G, number 0, today; other accounts exist as far as peers speak of them (Server::account_number).
// Imports, exports and limits will hang here.
#pragma once

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
      : name(std::move(name)), number(number), sublist(key, shard, number), key_(key), shard_(shard) {}

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
  // queue. `except` (a peer) does not count, nor do leafnodes of `except_origin` on this shard.
  uint32_t interest(SideSet sides, std::string_view subject, std::string_view queue, const Session* except,
                    OriginId except_origin = kNoOrigin) {
    uint64_t weight = 0;
    for (size_t n = 0; n < kSides; ++n) {
      const auto which = static_cast<Side>(n);
      if ((sides & live_sides_ & bit(which)) == 0) continue;
      weight += which == Side::kClients ? side(which).interest(subject, queue, nullptr)
                                        : side(which).interest(subject, queue, except, except_origin);
      if (weight != 0 && queue.empty()) return 1;
    }
    return static_cast<uint32_t>(weight < UINT32_MAX ? weight : UINT32_MAX);
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
  const HashKey key_;
  const uint32_t shard_;
  SideSet live_sides_ = kClientsOnly;
  int64_t last_interest_ns_ = 0;
  std::array<std::unique_ptr<Sublist>, kSides> peers_;
};

}  // namespace peregrine::core
