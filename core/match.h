// Who gets one message: what the subject index answers. Plain data; the spans belong to the index (sublist.h says for
// how long).
#pragma once

#include <cstdint>
#include <span>

#include "core/subscription.h"

namespace peregrine::core {

using ShardSet = uint64_t;  // bit n = shard n
inline constexpr uint32_t kMaxShards = 64;

struct ShardWeight {
  uint32_t shard;
  uint32_t weight;  // > 0
};

// One queue group a message matches. `id` is the keyed hash of (account, queue name): every shard of this
// process gives the group the same id, so a pick can cross a ring as 8 bytes.
struct QueueGroup {
  uint64_t id;
  std::span<Subscription* const> local;  // the members on this shard
  std::span<const ShardWeight> remote;   // members on other shards, counted
  uint64_t remote_weight;                // sum over `remote`
  uint64_t local_weight;                 // sum over `local`: its size, except for peers
};

struct Match {
  std::span<Subscription* const> plain;
  std::span<const QueueGroup> groups;
  ShardSet shards = 0;  // other shards with plain interest
  bool empty() const { return plain.empty() && groups.empty() && shards == 0; }
};

}  // namespace peregrine::core
