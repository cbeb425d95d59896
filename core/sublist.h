// The subject index of one account on one shard: who gets a message on a subject.
//
// Owned, read and written by one shard only: no locks, no atomics. It is that shard's replica of the whole server's
// interest:
//   local   the shard's own subscriptions, exact;
//   remote  the other shards' interest, as small as it can be: a literal subject is 32 bits of its keyed hash -> set of
//           shards (a false hit costs one wasted ring record, the target matches exactly; a shard with two subjects of
//           the same 32 bits says so until the last of them goes), a pattern its text once with a set of shards, a
//           queue group its subject and name once with one weight per shard.
// Hashes are keyed with a per-process secret, the same for all shards: subjects are chosen by attackers.
//
// Invariants: match(s) equals the linear scan over all live subscriptions (tests/model/linear_sublist.h); a Match stays
// valid until the next call of a non-const member. A group is all members of one queue name among the subscriptions a
// message matches, whatever their subjects: `foo.a q` and `foo.> q` are one group for a message on foo.a, which reaches
// both (as in nats-server). insert/remove and the remote setters are O(tokens), whatever the number of subscriptions.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/hash.h"
#include "core/match.h"
#include "core/match_cache.h"
#include "core/sublist_entry.h"
#include "core/sublist_patterns.h"
#include "core/sublist_slab.h"
#include "core/sublist_table.h"
#include "core/subscription.h"

namespace peregrine::core {

struct HashKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;
};

// What an insert or a remove changed in this shard's interest, to be told to the other shards (and later to routes).
struct InterestChange {
  enum class Kind : uint8_t {
    kNone,
    kFirst,   // plain: 0 -> 1 subscriptions of this subject
    kLast,    // plain: 1 -> 0
    kWeight,  // queue: the group has `weight` members here now (0 = gone)
  };
  Kind kind = Kind::kNone;
  bool literal = false;  // plain and without wildcards: other shards need only `hash` and `wanted`
  bool wanted = false;   // literal: what has this hash is wanted here, be it by another subject
  uint32_t weight = 0;
  uint64_t hash = 0;
};

// The names and meaning of /subsz. A match that took one probe, or came from the cache, counts as a cache hit. Fan-out
// counts plain subscriptions and queue groups, over all matches so far.
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
  // subscriptions to one subject, also by one session, are all kept. Sets sub.entry and sub.grouped.
  InterestChange insert(Subscription& sub, std::string_view subject, std::string_view queue);
  // The same of a subject that is_literal(), and no queue.
  InterestChange insert_literal(Subscription& sub, std::string_view subject);
  InterestChange remove(Subscription& sub);
  // The same if it is the only subscription of a literal subject; else false, and nothing is done.
  bool remove_lone_literal(Subscription& sub, InterestChange& change);

  // Ahead of remove(), in two steps, the second when what the first fetches has arrived.
  void prefetch_entry(const Subscription& sub) const;
  void prefetch_slot(const Subscription& sub) const;

  // A peer's queue subscription counts differently now.
  InterestChange set_weight(Subscription& sub, uint32_t weight);

  // What the whole server has of exactly this subject and queue, leaving `except`'s out (null = nobody's): 0 or 1 for
  // plain interest, the weight for a queue. Costs a walk over the subject's subscribers in the worst case when `except`
  // is given: ask it of the sides where those are peers.
  uint32_t interest(std::string_view subject, std::string_view queue, const Session* except) const {
    const uint32_t remote = remote_interest(subject, queue);
    if (remote != 0 && queue.empty()) return 1;
    return remote + local_interest(subject, queue, except);
  }
  // The part of it that is this shard's; leaves a leafnode cluster out too.
  uint32_t local_interest(std::string_view subject, std::string_view queue, const Session* except,
                          OriginId except_origin = kNoOrigin) const;
  // The part of it that is other shards' alone.
  uint32_t remote_interest(std::string_view subject, std::string_view queue) const;
  // The one subscription this session has with that subject, queue and origin (peers have no sid to find it by); null
  // if none.
  Subscription* find_of(const Session& session, std::string_view subject, std::string_view queue,
                        OriginId origin = kNoOrigin) const;
  // The QueueGroup::id of a queue's name.
  uint64_t group_id(std::string_view queue) const;

  bool empty() const { return literals_.empty() && remote_.empty() && remote_more_ == nullptr && active_ == nullptr; }

  // Texts of an inserted subscription; valid while it is inserted.
  std::string_view subject_of(const Subscription& sub) const;
  std::string_view queue_of(const Subscription& sub) const;

  // What other shards tell (InterestChange over the ring). Idempotent: setting what is set changes nothing.
  void set_remote(uint32_t shard, std::string_view subject, bool interested);
  void set_remote_literal(uint32_t shard, uint64_t hash, bool interested);  // InterestChange::hash
  // The same of several, in order: bit n of `interested` is of hashes[n], which is left out if bit n of `left_out` is
  // set. At most 64.
  void set_remote_literals(uint32_t shard, std::span<const uint64_t> hashes, uint64_t interested, uint64_t left_out);
  void set_remote_queue(uint32_t shard, std::string_view subject, std::string_view queue, uint32_t weight);

  // Who gets a message published on `subject`. Wildcards in it are taken literally as tokens (parity.md 1.4-04).
  // `subject` may be any bytes a control line can hold, malformed ones included (empty tokens, a thousand tokens): they
  // only match less. Order within plain and groups is unspecified but stable while nothing changes. Warm: one hash
  // probe, no allocation.
  Match match(std::string_view subject);

  // The same in steps, for a batch of messages with subjects all over a large index, where a match is mostly waiting
  // for memory: prepare() a few messages ahead, prefetch() a little later, then match with what prepare() gave. Any
  // step may be left out or come to nothing; the answer is the same.
  uint64_t prepare(std::string_view subject) const;  // hashes; fetches the slot
  void prefetch(uint64_t prepared) const;            // slot has arrived: fetches the entry
  void prefetch_receiver(uint64_t prepared) const;   // entry has arrived: fetches the only subscription
  Match match(std::string_view subject, uint64_t prepared);
  // So large that it is not in the caches: preparing pays.
  bool is_large() const { return literals_.size() + remote_.size() > kLarge; }

  // The group with this id among those `subject` matches; for re-picks (design.md section 4, rule 3).
  // Returns nullptr when it has vanished.
  const QueueGroup* find_group(std::string_view subject, uint64_t group_id);

  // Calls visit(Subscription&) for every local subscription. Not for the message path.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for_each_entry([&](const Entry& entry) {
      if (!entry.crowded) {
        if (entry.only() != nullptr) visit(*entry.only());
        return;
      }
      for (Subscription* sub : entry.crowd()->plain.list()) visit(*sub);
      for (const Group* group : entry.crowd()->groups) {
        for (Subscription* sub : group->members.list()) visit(*sub);
      }
    });
  }

  // The same for those to exactly this subject and queue.
  template <class Visit>
  void for_each_of(std::string_view subject, std::string_view queue, Visit&& visit) const {
    const Entry* entry = find_entry(subject);
    if (entry == nullptr) return;
    if (!entry->crowded) {
      if (queue.empty() && entry->only() != nullptr) visit(*entry->only());
    } else if (queue.empty()) {
      for (Subscription* sub : entry->crowd()->plain.list()) visit(*sub);
    } else if (const Group* group = find_group_named(*entry->crowd(), queue)) {
      for (Subscription* sub : group->members.list()) visit(*sub);
    }
  }

  // Calls visit(subject, queue, weight) for each distinct local interest (weight 0 = plain): the snapshot a route or a
  // new shard needs.
  template <class Visit>
  void for_each_interest(Visit&& visit) const {
    for_each_entry([&](const Entry& entry) { visit_local(entry, visit); });
  }

  // The same in slices of at most some thousand: begin with `cursor` 0; false when that was the last slice. Interest
  // that is there from the first slice to the last is visited; what comes or goes between may be or not.
  template <class Visit>
  bool visit_interest_slice(uint64_t& cursor, Visit&& visit) const {
    constexpr uint64_t kTags = uint64_t{1} << 32;
    const auto visit_entry = [&](const Entry& entry) { visit_local(entry, visit); };
    if (cursor < kTags) {
      cursor = literals_.visit_slice(
          cursor, [&](const EntrySlot& slot) { visit_entry(*entry_at(slot.ref)); },
          [&](const EntrySlot& slot) { __builtin_prefetch(entry_at(slot.ref)); });
      return true;
    }
    if (active_ == nullptr) return false;
    cursor = kTags + active_->patterns.visit_slice(cursor - kTags, visit_entry);
    return cursor < 2 * kTags;
  }

  SublistStats stats() const;

 private:
  static constexpr uint64_t kLarge = 16384;

  // What sixteen of the other shards have of a literal subject. 6 bytes: paid for on each shard, a million times. The
  // tag is all there is of the hash: beside a million subjects, one of 4300 that nobody wants crosses for nothing.
  struct RemoteSlot {
    static constexpr uint32_t kShards = 16;
    std::array<uint16_t, 2> tag_halves;
    uint16_t shards;
    RemoteSlot(uint32_t tag, uint16_t shards) : shards(shards) { std::memcpy(&tag_halves, &tag, sizeof(tag)); }
    uint32_t tag() const {
      uint32_t tag;
      std::memcpy(&tag, &tag_halves, sizeof(tag));
      return tag;
    }
    bool empty() const { return shards == 0; }
  };
  static_assert(sizeof(RemoteSlot) == 6);
  using RemoteTable = SlotTable<RemoteSlot>;
  using MoreRemote = std::array<RemoteTable, kMaxShards / RemoteSlot::kShards - 1>;

  // Everything wildcards need, made with the first pattern and kept: most accounts never have one.
  struct Wild {
    Wild(const KeyedHash& hash, EntrySlab& slab) : patterns(hash, slab) {}
    PatternIndex patterns;
    MatchCache cache;
  };

  Entry* entry_at(EntrySlab::Ref ref) const { return static_cast<Entry*>(slab_.at(ref)); }
  Group* group_behind(const Subscription& sub) const {
    return sub.grouped ? static_cast<Group*>(slab_.at(sub.entry)) : nullptr;
  }
  Entry* entry_behind(const Subscription& sub) const {
    return sub.grouped ? group_behind(sub)->entry : entry_at(sub.entry);
  }
  [[gnu::always_inline]] Entry* find_literal(uint64_t hash, std::string_view subject) const {
    const EntrySlot* slot =
        literals_.find(tag_of(hash), [&](const EntrySlot& each) { return entry_at(each.ref)->literal_is(subject); });
    return slot == nullptr ? nullptr : entry_at(slot->ref);
  }
  [[gnu::always_inline]] static RemoteSlot* find_remote(const RemoteTable& table, uint64_t hash) {
    return table.find(tag_of(hash), [](const RemoteSlot&) { return true; });
  }
  ShardSet remote_shards(uint64_t hash) const {
    ShardSet shards = 0;
    if (const RemoteSlot* slot = find_remote(remote_, hash)) shards = slot->shards;
    if (remote_more_ != nullptr) [[unlikely]]
      shards |= more_remote_shards(hash);
    return shards;
  }
  ShardSet more_remote_shards(uint64_t hash) const;
  void set_remote_literal(RemoteTable& table, uint16_t bit, uint64_t hash, bool interested);
  Entry* find_entry(std::string_view subject) const;
  EntrySlab::Ref find_or_create_literal(std::string_view subject, uint64_t hash);
  EntrySlab::Ref find_or_create_pattern(std::string_view subject);
  EntrySlab::Ref make_literal(std::string_view subject, Subscription* only);
  // Finds or makes the entry of any subject, and makes cached matches forget it.
  Entry* entry_to_change(std::string_view subject);
  uint64_t hash_of(const Entry& entry) const { return entry.pattern ? 0 : hash_(entry.text()); }
  void erase_entry_if_empty(Entry* entry, uint64_t hash);
  bool wants_literal(uint64_t hash) const;
  InterestChange add_plain(Subscription& sub, Entry* entry, InterestChange change);
  void touch(const Entry& entry, uint64_t hash);

  Crowd& crowd_of(Entry* entry);
  void thin_out(Entry* entry);
  Group* find_group_named(const Crowd& crowd, std::string_view queue) const;
  Group* find_or_create_group(Entry* entry, std::string_view queue);
  void refresh(Group& group) { group.entry->crowd()->views[group.index] = group.view(); }
  void erase_group_if_empty(Group* group);

  static bool has_plain(const Entry& entry) {
    return entry.crowded ? !entry.crowd()->plain.empty() : entry.only() != nullptr;
  }
  // `only` is where a match of one subscription finds it.
  static Match match_of(const Entry& entry, Subscription*& only);
  Match match_hashed(std::string_view subject, uint64_t hash);
  Match match_slow(uint64_t hash, std::string_view subject, Entry* literal, ShardSet shards);
  bool merge_groups();
  Match counted(const Match& match);

  template <class Visit>
  static void visit_local(const Entry& entry, Visit&& visit) {
    if (has_plain(entry)) visit(entry.text(), std::string_view(), uint32_t{0});
    if (!entry.crowded) return;
    for (const Group* group : entry.crowd()->groups) {
      if (group->local_weight > 0)
        visit(entry.text(), std::string_view(group->queue), static_cast<uint32_t>(group->local_weight));
    }
  }

  template <class Visit>
  void for_each_entry(Visit&& visit) const {
    literals_.for_each([&](const EntrySlot& slot) { visit(*entry_at(slot.ref)); });
    if (active_ != nullptr) active_->patterns.for_each(visit);
  }

  const KeyedHash hash_;
  const uint32_t shard_;
  PageSlab pages_;
  SlotTable<EntrySlot> literals_{pages_};
  RemoteTable remote_{pages_};               // literals; of shards 0 to 15
  std::unique_ptr<MoreRemote> remote_more_;  // of the others, while they have any
  Wild* active_ = nullptr;                   // wild_, while there are patterns
  uint64_t matches_ = 0;
  uint64_t slow_matches_ = 0;
  uint64_t fanout_ = 0;
  uint64_t max_fanout_ = 0;
  EntrySlab slab_;
  uint64_t subscriptions_ = 0;
  uint64_t inserts_ = 0;
  uint64_t removes_ = 0;
  uint64_t crowd_bytes_ = 0;
  std::unique_ptr<Wild> wild_;
  Subscription* only_ = nullptr;  // of the latest match, if it is one entry's only one
  // A match of several entries is assembled here unless the cache takes it.
  std::vector<Entry*> found_;
  std::vector<Subscription*> plain_;
  std::vector<QueueGroup> groups_;
  std::vector<Subscription*> merged_members_;  // of groups put together from several subjects
  std::vector<ShardWeight> merged_weights_;
};

}  // namespace peregrine::core
