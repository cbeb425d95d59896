// The subject index of one account on one shard: who gets a message on a subject.
//
// Owned, read and written by one shard only: no locks, no atomics. It is that shard's replica of the whole server's interest:
//   local   the shard's own subscriptions, exact;
//   remote  the other shards' interest, as small as it can be: a literal subject is a 64-bit keyed hash -> set of shards (a false
//           hit costs one wasted ring record, the target matches exactly), a pattern its text once with a set of shards, a queue
//           group its id with one weight per shard.
// Hashes are keyed with a per-process secret, the same for all shards: subjects are chosen by attackers.
//
// Invariants: match(s) equals the linear scan over all live subscriptions (tests/model/linear_sublist.h); a Match stays valid
// until the next call of a non-const member. A group is keyed by (subscription subject, queue name): `foo q` and `foo.> q` are
// two groups. insert/remove and the remote setters are O(tokens), whatever the number of subscriptions.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/subscription.h"

namespace peregrine::core {

using ShardSet = uint64_t;  // bit n = shard n
inline constexpr uint32_t kMaxShards = 64;

struct HashKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;
};

struct ShardWeight {
  uint32_t shard;
  uint32_t weight;  // > 0
};

// One queue group a message matches. `id` is the keyed hash of (account, subscription subject, queue name): every shard of this
// process gives the group the same id, so a pick can cross a ring as 8 bytes.
struct QueueGroup {
  uint64_t id;
  std::span<Subscription* const> local;   // the members on this shard
  std::span<const ShardWeight> remote;    // members on other shards, counted
  uint64_t remote_weight;                 // sum over `remote`
};

struct Match {
  std::span<Subscription* const> plain;
  std::span<const QueueGroup> groups;
  ShardSet shards = 0;                    // other shards with plain interest
  bool empty() const { return plain.empty() && groups.empty() && shards == 0; }
};

// What an insert or a remove changed in this shard's interest, to be told to the other shards (and later to routes).
struct InterestChange {
  enum class Kind : uint8_t {
    kNone,
    kFirst,    // plain: 0 -> 1 subscriptions of this subject
    kLast,     // plain: 1 -> 0
    kWeight,   // queue: the group has `weight` members here now (0 = gone)
  };
  Kind kind = Kind::kNone;
  uint32_t weight = 0;
};

// The names and meaning of /subsz.
struct SublistStats {
  uint64_t num_subscriptions = 0, num_cache = 0, num_inserts = 0, num_removes = 0, num_matches = 0, cache_hits = 0;
  uint64_t max_fanout = 0;
  double avg_fanout = 0;
  uint64_t memory_bytes = 0;  // of the index itself, texts included, Subscription objects not
};

class Sublist {
 public:
  // `shard` is the owner; `account` goes into hashes and group ids.
  Sublist(HashKey key, uint32_t shard, uint32_t account);
  ~Sublist();
  Sublist(const Sublist&) = delete;
  Sublist& operator=(const Sublist&) = delete;

  // `subject` must be a valid subscription subject (subject.h) and `queue` empty for a plain subscription. Several
  // subscriptions to one subject, also by one session, are all kept. Sets sub.entry and sub.position.
  InterestChange insert(Subscription& sub, std::string_view subject, std::string_view queue);
  InterestChange remove(Subscription& sub);

  // Texts of an inserted subscription; valid while it is inserted.
  std::string_view subject_of(const Subscription& sub) const;
  std::string_view queue_of(const Subscription& sub) const;

  // What other shards tell (InterestChange over the ring). Idempotent: setting what is set changes nothing.
  void set_remote(uint32_t shard, std::string_view subject, bool interested);
  void set_remote_queue(uint32_t shard, std::string_view subject, std::string_view queue, uint32_t weight);

  // Who gets a message published on `subject`. Wildcards in it are taken literally as tokens (parity.md 1.4-04). `subject` may be
  // any bytes a control line can hold, malformed ones included (empty tokens, a thousand tokens): they only match less.
  // Order within plain and groups is unspecified but stable while nothing changes. Warm: one hash probe, no allocation.
  Match match(std::string_view subject);

  // The group with this id among those `subject` matches; for re-picks (design.md section 4, rule 3).
  // Returns nullptr when it has vanished.
  const QueueGroup* find_group(std::string_view subject, uint64_t group_id);

  // Calls visit(Subscription&) for every local subscription. Not for the message path.
  template <class Visit>
  void for_each(Visit&& visit) const {
    auto call = [](void* context, Subscription& sub) { (*static_cast<Visit*>(context))(sub); };
    for_each_raw(&visit, call);
  }

  // Calls visit(subject, queue, weight) for each distinct local interest (weight 0 = plain): the snapshot a route or a new shard needs.
  template <class Visit>
  void for_each_interest(Visit&& visit) const {
    auto call = [](void* context, std::string_view subject, std::string_view queue, uint32_t weight) {
      (*static_cast<Visit*>(context))(subject, queue, weight);
    };
    for_each_interest_raw(&visit, call);
  }

  SublistStats stats() const;

 private:
  void for_each_raw(void* context, void (*visit)(void*, Subscription&)) const;
  void for_each_interest_raw(void* context,
                             void (*visit)(void*, std::string_view, std::string_view, uint32_t)) const;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace peregrine::core
