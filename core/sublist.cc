// Why shape hash, and not a trie for all patterns: measured in this very code (bench/sublist_bench.cc; the trie alone
// by setting the shape caps to 0), 1 M subscriptions of 22 bytes of which 20 % are patterns of 15 overlapping shapes,
// on a busy 2-core VM, so read the ratios: random subjects 1.2 us against 4.8, 4096 subjects 107 ns against 134, churn
// 207 ns against 315, 98 bytes per subscription against 135. Where no pattern is involved both are the same literal
// table: 30 ns a match over 4096 subjects, 160 to 185 ns at random over 1 M and 250 to 330 over 10 M (125 to 160 and
// 200 to 225 when prepared ahead), 97 and 92 bytes a subscription with the Subscription itself (40 then). The
// prototypes before it said the same at 1 M and 10 M (shape hash 256 to 446 ns cold and 25 hot, flat trie 560 to 970
// and 130 to 230). The trie remains for what would make a shape list long: it bounds the work a hostile client can
// cause per match, and nothing else uses it.
//
// The order of a match: literal probe first, as nearly all interest is literal, then, only if patterns could take part,
// the cache, then the shapes. A literal remembers the generation at which no pattern matched it, so it stays one probe
// among patterns.
#include "core/sublist.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>

#include "core/subject.h"

namespace peregrine::core {
namespace {

// Finding a group by name scans up to this many.
constexpr size_t kScannedGroups = 16;

template <class T>
void give_back(std::vector<T>& vector) {
  if (vector.capacity() > 16 && vector.size() < vector.capacity() / 4) vector.shrink_to_fit();
}

uint64_t heap_bytes(const Group& group) {
  return sizeof(QueueGroup) + sizeof(Group*) + group.queue.capacity() + group.members.heap_bytes() +
         group.remote.capacity() * sizeof(ShardWeight);
}

uint64_t heap_bytes(const Crowd& crowd) { return sizeof(Crowd) + crowd.plain.heap_bytes(); }

// Keeps crowd_bytes_ right across a change: what the object takes before and after.
template <class T>
class Measured {
 public:
  Measured(uint64_t& total, const T& object) : total_(total), object_(object) { total_ -= heap_bytes(object_); }
  ~Measured() { total_ += heap_bytes(object_); }
  Measured(const Measured&) = delete;
  Measured& operator=(const Measured&) = delete;

 private:
  uint64_t& total_;
  const T& object_;
};

}  // namespace

Sublist::Sublist(HashKey key, uint32_t shard, uint32_t account) : hash_(key.k0, key.k1, account), shard_(shard) {
  assert(shard < kMaxShards);
}

Sublist::~Sublist() {
  for_each_entry([](const Entry& entry) {
    if (!entry.crowded) return;
    for (Group* group : entry.crowd()->groups) group->~Group();
    delete entry.crowd();
  });
}

// ---- finding and making entries

Entry* Sublist::find_entry(std::string_view subject) const {
  if (is_literal(subject)) return literals_.empty() ? nullptr : find_literal(hash_(subject), subject);
  return active_ == nullptr ? nullptr : active_->patterns.find(subject);
}

EntrySlab::Ref Sublist::find_or_create_pattern(std::string_view subject) {
  if (wild_ == nullptr) wild_ = std::make_unique<Wild>(hash_, slab_);
  active_ = wild_.get();
  return wild_->patterns.find_or_create(subject);
}

Entry* Sublist::entry_to_change(std::string_view subject) {
  const bool literal = is_literal(subject);
  const uint64_t hash = literal ? hash_(subject) : 0;
  Entry* entry = entry_at(literal ? find_or_create_literal(subject, hash) : find_or_create_pattern(subject));
  touch(*entry, hash);
  return entry;
}

[[gnu::always_inline]] inline EntrySlab::Ref Sublist::make_literal(std::string_view subject, Subscription* only) {
  const EntrySlab::Ref ref = slab_.allocate(Entry::cell_bytes(subject.size(), false));
  Entry::make(slab_.at(ref), subject, false, only);
  return ref;
}

EntrySlab::Ref Sublist::find_or_create_literal(std::string_view subject, uint64_t hash) {
  assert(!subject.empty() && subject.size() <= kMaxSubjectBytes);
  EntrySlot* vacancy;
  const EntrySlot* slot = literals_.find(
      tag_of(hash), [&](const EntrySlot& each) { return entry_at(each.ref)->literal_is(subject); }, vacancy);
  if (slot != nullptr) return slot->ref;
  const EntrySlab::Ref ref = make_literal(subject, nullptr);
  literals_.insert_at(vacancy, {tag_of(hash), ref});
  return ref;
}

void Sublist::erase_entry_if_empty(Entry* entry, uint64_t hash) {
  if (entry->crowded || entry->only() != nullptr) return;
  if (entry->pattern) {
    if (entry->shards() != 0) return;
    wild_->patterns.erase(entry);
    // Without patterns there is nothing the cache could know better than a probe. The object stays: its generations
    // must never repeat, literals remember them.
    if (wild_->patterns.size() == 0) {
      wild_->cache.clear();
      active_ = nullptr;
    }
    return;
  }
  EntrySlot* slot = literals_.find(tag_of(hash), [&](const EntrySlot& each) { return entry_at(each.ref) == entry; });
  const EntrySlab::Ref ref = slot->ref;
  literals_.erase(slot);
  slab_.release(ref, entry->cell_bytes());
}

// Has a plain subscription that other shards know by this hash. Their interest must not end with the first of two
// subjects they cannot tell apart.
[[gnu::always_inline]] inline bool Sublist::wants_literal(uint64_t hash) const {
  return literals_.find(tag_of(hash), [&](const EntrySlot& slot) { return has_plain(*entry_at(slot.ref)); }) != nullptr;
}

// The entry's subscribers are about to change or have just changed: no cached match may go on showing the old ones.
void Sublist::touch(const Entry& entry, uint64_t hash) {
  if (active_ == nullptr) return;
  if (entry.pattern) active_->patterns.touch(entry);
  else active_->cache.erase(hash);
}

// ---- crowds and groups

Crowd& Sublist::crowd_of(Entry* entry) {
  if (!entry->crowded) {
    auto* crowd = new Crowd;
    if (entry->only() != nullptr) crowd->plain.add(entry->only());
    entry->set_crowd(crowd);
    entry->crowded = 1;
    crowd_bytes_ += heap_bytes(*crowd);
  }
  return *entry->crowd();
}

// Back to the header when that is enough.
void Sublist::thin_out(Entry* entry) {
  if (!entry->crowded) return;
  Crowd* crowd = entry->crowd();
  if (!crowd->groups.empty() || crowd->plain.size() > 1) return;
  Subscription* const left = crowd->plain.empty() ? nullptr : crowd->plain.list().front();
  crowd_bytes_ -= heap_bytes(*crowd);
  delete crowd;
  entry->set_only(left);
  entry->crowded = 0;
}

Group* Sublist::find_group_named(const Crowd& crowd, std::string_view queue) const {
  if (crowd.by_name != nullptr) {
    const auto found = crowd.by_name->find(queue);
    return found == crowd.by_name->end() ? nullptr : found->second;
  }
  for (Group* group : crowd.groups) {
    if (group->queue == queue) return group;
  }
  return nullptr;
}

Group* Sublist::find_or_create_group(Entry* entry, std::string_view queue) {
  Crowd& crowd = crowd_of(entry);
  if (Group* found = find_group_named(crowd, queue)) return found;
  // By name alone: members of `q` on `foo` and on `foo.>` are one group for a message that reaches both.
  const uint64_t id = group_id(queue);
  const auto index = static_cast<uint32_t>(crowd.groups.size());
  const EntrySlab::Ref ref = slab_.allocate(sizeof(Group));
  auto* group = new (slab_.at(ref)) Group(entry, ref, index, id, queue);
  crowd.groups.push_back(group);
  crowd.views.push_back(group->view());
  if (crowd.by_name != nullptr) {
    crowd.by_name->emplace(group->queue, group);
  } else if (crowd.groups.size() > kScannedGroups) {
    crowd.by_name = std::make_unique<GroupsByName>(0, hash_);
    for (Group* each : crowd.groups) crowd.by_name->emplace(each->queue, each);
  }
  crowd_bytes_ += heap_bytes(*group);
  return group;
}

void Sublist::erase_group_if_empty(Group* group) {
  if (!group->members.empty() || !group->remote.empty()) return;
  Crowd& crowd = *group->entry->crowd();
  crowd_bytes_ -= heap_bytes(*group);
  if (crowd.by_name != nullptr) {
    crowd.by_name->erase(group->queue);
    if (crowd.groups.size() <= kScannedGroups) crowd.by_name.reset();
  }
  const uint32_t index = group->index;
  if (index + 1 != crowd.groups.size()) {
    crowd.groups[index] = crowd.groups.back();
    crowd.groups[index]->index = index;
    crowd.views[index] = crowd.views.back();
  }
  crowd.groups.pop_back();
  crowd.views.pop_back();
  give_back(crowd.groups);
  give_back(crowd.views);
  const EntrySlab::Ref ref = group->ref;
  group->~Group();
  slab_.release(ref, sizeof(Group));
}

// ---- subscriptions

InterestChange Sublist::insert(Subscription& sub, std::string_view subject, std::string_view queue) {
  const bool literal = is_literal(subject);
  if (literal && queue.empty()) return insert_literal(sub, subject);
  assert(sub.entry == 0);
  subscriptions_++;
  inserts_++;
  const uint64_t hash = literal ? hash_(subject) : 0;
  const EntrySlab::Ref ref = literal ? find_or_create_literal(subject, hash) : find_or_create_pattern(subject);
  Entry* entry = entry_at(ref);
  touch(*entry, hash);
  if (!queue.empty()) {
    Group* group = find_or_create_group(entry, queue);
    {
      const Measured measured(crowd_bytes_, *group);
      group->members.add(&sub);
      group->local_weight += sub.weight();
    }
    sub.entry = group->ref;
    sub.grouped = true;
    refresh(*group);
    return {.kind = InterestChange::Kind::kWeight, .weight = static_cast<uint32_t>(group->local_weight)};
  }
  sub.entry = ref;
  return add_plain(sub, entry, {.kind = InterestChange::Kind::kFirst, .wanted = true});
}

// What nearly every SUB is, in one go.
InterestChange Sublist::insert_literal(Subscription& sub, std::string_view subject) {
  assert(sub.entry == 0 && !subject.empty() && subject.size() <= kMaxSubjectBytes);
  subscriptions_++;
  inserts_++;
  const uint64_t hash = hash_.here(subject);
  if (active_ != nullptr) active_->cache.erase(hash);
  const InterestChange change{.kind = InterestChange::Kind::kFirst, .literal = true, .wanted = true, .hash = hash};
  EntrySlot* vacancy;
  const EntrySlot* slot = literals_.find(
      tag_of(hash), [&](const EntrySlot& each) { return entry_at(each.ref)->literal_is(subject); }, vacancy);
  if (slot != nullptr) [[unlikely]] {
    sub.entry = slot->ref;
    return add_plain(sub, entry_at(slot->ref), change);
  }
  sub.entry = make_literal(subject, &sub);
  literals_.insert_at(vacancy, {tag_of(hash), sub.entry});
  return change;
}

InterestChange Sublist::add_plain(Subscription& sub, Entry* entry, InterestChange change) {
  if (!entry->crowded && entry->only() == nullptr) {
    entry->set_only(&sub);
    return change;
  }
  Crowd& crowd = crowd_of(entry);
  const Measured measured(crowd_bytes_, crowd);
  crowd.plain.add(&sub);
  if (crowd.plain.size() > 1) change.kind = InterestChange::Kind::kNone;
  return change;
}

InterestChange Sublist::remove(Subscription& sub) {
  assert(sub.entry != 0);
  InterestChange change;
  if (remove_lone_literal(sub, change)) return change;
  subscriptions_--;
  removes_++;
  Entry* entry = entry_behind(sub);
  const uint64_t hash = hash_of(*entry);
  touch(*entry, hash);
  change = {.literal = !entry->pattern, .hash = hash};
  if (Group* group = group_behind(sub)) {
    {
      const Measured measured(crowd_bytes_, *group);
      group->members.remove(&sub);
      group->local_weight -= sub.weight();
    }
    refresh(*group);
    change = {.kind = InterestChange::Kind::kWeight, .weight = static_cast<uint32_t>(group->local_weight)};
    erase_group_if_empty(group);
  } else if (entry->crowded) {
    const Measured measured(crowd_bytes_, *entry->crowd());
    entry->crowd()->plain.remove(&sub);
    if (entry->crowd()->plain.empty()) change.kind = InterestChange::Kind::kLast;
  } else {
    entry->set_only(nullptr);
    change.kind = InterestChange::Kind::kLast;
  }
  sub.entry = 0;
  sub.grouped = false;
  thin_out(entry);
  erase_entry_if_empty(entry, hash);
  if (change.literal && change.kind == InterestChange::Kind::kLast) change.wanted = wants_literal(hash);
  return change;
}

void Sublist::prefetch_entry(const Subscription& sub) const { __builtin_prefetch(slab_.at(sub.entry)); }

void Sublist::prefetch_slot(const Subscription& sub) const {
  const Entry& entry = *entry_behind(sub);
  if (!entry.pattern) literals_.prefetch(tag_of(hash_(entry.text())));
}

// What nearly every UNSUB is: the entry goes with its only subscription.
bool Sublist::remove_lone_literal(Subscription& sub, InterestChange& change) {
  assert(sub.entry != 0);
  if (sub.grouped) return false;
  const EntrySlab::Ref ref = sub.entry;
  const Entry* entry = entry_at(ref);
  if (entry->crowded || entry->pattern) return false;
  subscriptions_--;
  removes_++;
  const uint64_t hash = hash_.here(entry->text());
  if (active_ != nullptr) active_->cache.erase(hash);
  // Others that the other shards might take for it have the same tag, and there are next to none of those.
  bool alike = false;
  EntrySlot* const slot = literals_.find(tag_of(hash), [&](const EntrySlot& each) {
    alike |= each.ref != ref;
    return each.ref == ref;
  });
  alike |= literals_.erase(slot);
  slab_.release(ref, entry->cell_bytes());
  sub.entry = 0;
  change = {.kind = InterestChange::Kind::kLast, .literal = true, .wanted = alike && wants_literal(hash), .hash = hash};
  return true;
}

InterestChange Sublist::set_weight(Subscription& sub, uint32_t weight) {
  assert(sub.entry != 0 && sub.peer && weight > 0);
  Group* group = group_behind(sub);
  const uint32_t before = sub.weight();
  sub.set_weight(weight);
  if (group == nullptr || sub.weight() == before) return {};
  touch(*group->entry, hash_of(*group->entry));
  group->local_weight = group->local_weight - before + sub.weight();
  refresh(*group);
  return {.kind = InterestChange::Kind::kWeight, .weight = static_cast<uint32_t>(group->local_weight)};
}

uint32_t Sublist::local_interest(std::string_view subject, std::string_view queue, const Session* except,
                                 OriginId except_origin) const {
  const auto left_out = [&](const Subscription* sub) {
    return sub->session == except || (except_origin != kNoOrigin && sub->origin() == except_origin);
  };
  const Entry* entry = find_entry(subject);
  if (entry == nullptr) return 0;
  if (queue.empty()) {
    Subscription* only;
    const auto plain = match_of(*entry, only).plain;
    return std::all_of(plain.begin(), plain.end(), left_out) ? 0 : 1;
  }
  if (!entry->crowded) return 0;
  const Group* group = find_group_named(*entry->crowd(), queue);
  if (group == nullptr) return 0;
  uint64_t weight = group->local_weight;
  if (except != nullptr || except_origin != kNoOrigin) {
    for (const Subscription* sub : group->members.list()) weight -= left_out(sub) ? sub->weight() : 0;
  }
  return static_cast<uint32_t>(std::min<uint64_t>(weight, UINT32_MAX / 2));
}

uint32_t Sublist::remote_interest(std::string_view subject, std::string_view queue) const {
  if (queue.empty() && is_literal(subject)) return remote_shards(hash_(subject)) != 0 ? 1 : 0;
  const Entry* entry = find_entry(subject);
  if (entry == nullptr) return 0;
  if (queue.empty()) return entry->shards() != 0 ? 1 : 0;
  const Group* group = entry->crowded ? find_group_named(*entry->crowd(), queue) : nullptr;
  return group == nullptr ? 0 : static_cast<uint32_t>(std::min<uint64_t>(group->remote_weight, UINT32_MAX / 2));
}

Subscription* Sublist::find_of(const Session& session, std::string_view subject, std::string_view queue,
                               OriginId origin) const {
  const Entry* entry = find_entry(subject);
  if (entry == nullptr) return nullptr;
  Subscription* only;
  std::span<Subscription* const> among;
  if (queue.empty()) {
    among = match_of(*entry, only).plain;
  } else if (entry->crowded) {
    if (const Group* group = find_group_named(*entry->crowd(), queue)) among = group->members.list();
  }
  const auto found = std::find_if(among.begin(), among.end(), [&](const Subscription* sub) {
    return sub->session == &session && sub->origin() == origin;
  });
  return found == among.end() ? nullptr : *found;
}

uint64_t Sublist::group_id(std::string_view queue) const { return hash_(queue, 1); }

std::string_view Sublist::subject_of(const Subscription& sub) const { return entry_behind(sub)->text(); }

std::string_view Sublist::queue_of(const Subscription& sub) const {
  const Group* group = group_behind(sub);
  return group == nullptr ? std::string_view() : std::string_view(group->queue);
}

// ---- other shards

void Sublist::set_remote(uint32_t shard, std::string_view subject, bool interested) {
  assert(shard < kMaxShards && shard != shard_);
  const ShardSet bit = ShardSet{1} << shard;
  if (is_literal(subject)) return set_remote_literal(shard, hash_(subject), interested);
  Entry* entry = interested ? entry_at(find_or_create_pattern(subject)) : find_entry(subject);
  if (entry == nullptr || ((entry->shards() & bit) != 0) == interested) return;
  touch(*entry, 0);
  entry->set_shards(entry->shards() ^ bit);
  erase_entry_if_empty(entry, 0);
}

[[gnu::always_inline]] inline void Sublist::set_remote_literal(RemoteTable& table, uint16_t bit, uint64_t hash,
                                                               bool interested) {
  RemoteSlot* vacancy;
  RemoteSlot* const slot = table.find(
      tag_of(hash), [](const RemoteSlot&) { return true; }, vacancy);
  // First of all: the bit may be set for another subject of the same 32 bits, and this one's cached match lack it.
  if (active_ != nullptr) active_->cache.erase(hash);
  if ((slot != nullptr && (slot->shards & bit) != 0) == interested) return;
  if (slot == nullptr) table.insert_at(vacancy, {tag_of(hash), bit});
  else if (slot->shards == bit) table.erase(slot);
  else slot->shards ^= bit;
}

void Sublist::set_remote_literal(uint32_t shard, uint64_t hash, bool interested) {
  set_remote_literals(shard, {&hash, 1}, interested, 0);
}

void Sublist::set_remote_literals(uint32_t shard, std::span<const uint64_t> hashes, uint64_t interested,
                                  uint64_t left_out) {
  assert(shard < kMaxShards && shard != shard_ && hashes.size() <= 64);
  constexpr uint32_t kEach = RemoteSlot::kShards;
  if (shard >= kEach && remote_more_ == nullptr) remote_more_ = std::make_unique<MoreRemote>();
  RemoteTable& table = shard < kEach ? remote_ : (*remote_more_)[shard / kEach - 1];
  const auto bit = static_cast<uint16_t>(1u << (shard % kEach));
  // A large table is not in the caches: all slots are fetched at once, not one after the other.
  if (table.size() > kLarge) {
    for (const uint64_t hash : hashes) table.prefetch(tag_of(hash));
  }
  for (const uint64_t hash : hashes) {
    if ((left_out & 1) == 0) set_remote_literal(table, bit, hash, (interested & 1) != 0);
    left_out >>= 1;
    interested >>= 1;
  }
  if (shard >= kEach && std::ranges::all_of(*remote_more_, [](const RemoteTable& each) { return each.empty(); }))
    remote_more_.reset();
}

ShardSet Sublist::more_remote_shards(uint64_t hash) const {
  ShardSet shards = 0;
  for (size_t n = 0; n < remote_more_->size(); ++n) {
    if (const RemoteSlot* slot = find_remote((*remote_more_)[n], hash))
      shards |= ShardSet{slot->shards} << ((n + 1) * RemoteSlot::kShards);
  }
  return shards;
}

void Sublist::set_remote_queue(uint32_t shard, std::string_view subject, std::string_view queue, uint32_t weight) {
  assert(shard < kMaxShards && shard != shard_ && !queue.empty());
  Entry* entry = weight > 0 ? entry_to_change(subject) : find_entry(subject);
  if (entry == nullptr) return;
  if (weight == 0 && (!entry->crowded || find_group_named(*entry->crowd(), queue) == nullptr)) return;
  Group* group = find_or_create_group(entry, queue);
  const auto place = std::find_if(group->remote.begin(), group->remote.end(),
                                  [&](const ShardWeight& each) { return each.shard == shard; });
  const uint32_t old = place == group->remote.end() ? 0 : place->weight;
  if (old == weight) return;
  const uint64_t hash = hash_of(*entry);
  touch(*entry, hash);
  {
    const Measured measured(crowd_bytes_, *group);
    if (old == 0) group->remote.push_back({shard, weight});
    else if (weight == 0) group->remote.erase(place);
    else place->weight = weight;
  }
  group->remote_weight = group->remote_weight - old + weight;
  refresh(*group);
  erase_group_if_empty(group);
  thin_out(entry);
  erase_entry_if_empty(entry, hash);
}

// ---- matching

[[gnu::always_inline]] inline Match Sublist::match_of(const Entry& entry, Subscription*& only) {
  Match match;
  if (!entry.crowded) {
    only = entry.only();
    match.plain = {&only, only == nullptr ? size_t{0} : size_t{1}};
  } else {
    match.plain = entry.crowd()->plain.list();
    match.groups = entry.crowd()->views;
  }
  if (entry.pattern) match.shards = entry.shards();
  return match;
}

[[gnu::always_inline]] inline Match Sublist::counted(const Match& match) {
  const uint64_t fanout = match.plain.size() + match.groups.size();
  fanout_ += fanout;
  if (fanout > max_fanout_) max_fanout_ = fanout;
  return match;
}

[[gnu::always_inline]] inline Match Sublist::match_hashed(std::string_view subject, uint64_t hash) {
  matches_++;
  const ShardSet shards = remote_shards(hash);
  Entry* literal = find_literal(hash, subject);
  if (active_ != nullptr &&
      (literal == nullptr || literal->alone == 0 || literal->alone != active_->patterns.created(literal->bucket))) {
    const auto stamps = [&](uint8_t bucket) { return active_->patterns.changed(bucket); };
    if (const Match* cached = active_->cache.find(hash, subject, stamps)) return counted(*cached);
    return counted(match_slow(hash, subject, literal, shards));
  }
  Match match;
  if (literal != nullptr) match = match_of(*literal, only_);
  match.shards = shards;
  return counted(match);
}

Match Sublist::match(std::string_view subject) {
  if (empty()) {
    matches_++;
    return {};
  }
  return match_hashed(subject, hash_(subject));
}

Match Sublist::match(std::string_view subject, uint64_t prepared) { return match_hashed(subject, prepared); }

uint64_t Sublist::prepare(std::string_view subject) const {
  const uint64_t hash = hash_(subject);
  literals_.prefetch(tag_of(hash));
  remote_.prefetch(tag_of(hash));
  return hash;
}

void Sublist::prefetch(uint64_t prepared) const {
  if (const EntrySlot* slot = literals_.find(tag_of(prepared), [](const EntrySlot&) { return true; }))
    __builtin_prefetch(slab_.at(slot->ref));
}

void Sublist::prefetch_receiver(uint64_t prepared) const {
  const EntrySlot* slot = literals_.find(tag_of(prepared), [](const EntrySlot&) { return true; });
  if (slot == nullptr) return;
  const Entry* entry = entry_at(slot->ref);
  if (!entry->crowded && entry->only() != nullptr) __builtin_prefetch(entry->only(), 1);
}

// A literal no pattern matches is marked so and needs no cache; anything else is put together and, at its second time,
// kept.
Match Sublist::match_slow(uint64_t hash, std::string_view subject, Entry* literal, ShardSet shards) {
  slow_matches_++;
  PatternIndex& patterns = active_->patterns;
  found_.clear();
  patterns.collect(subject, found_);
  Match match;
  auto copy = MatchCache::Copy::kNothing;
  if (literal != nullptr && found_.empty()) {
    literal->bucket = patterns.bucket_of(subject);
    literal->alone = patterns.created(literal->bucket);
    match = match_of(*literal, only_);
    match.shards = shards;
    if (literal->alone != 0) return match;
  } else {
    if (literal != nullptr) found_.push_back(literal);
    if (found_.size() == 1) {
      match = match_of(*found_.front(), only_);
    } else {
      plain_.clear();
      groups_.clear();
      for (const Entry* entry : found_) {
        const Match part = match_of(*entry, only_);
        plain_.insert(plain_.end(), part.plain.begin(), part.plain.end());
        groups_.insert(groups_.end(), part.groups.begin(), part.groups.end());
        match.shards |= part.shards;
      }
      // A group put together from several subjects lies in our scratch memory with all its members.
      copy = merge_groups() ? MatchCache::Copy::kMembers : MatchCache::Copy::kLists;
      match.plain = plain_;
      match.groups = groups_;
    }
    match.shards |= shards;
  }
  if (match.plain.data() == &only_) copy = MatchCache::Copy::kLists;
  MatchCache& cache = active_->cache;
  if (cache.admit(hash)) {
    const auto stamps = [&](uint8_t bucket) { return patterns.changed(bucket); };
    cache.store(hash, subject, patterns.bucket_of(subject), match, copy, stamps);
  }
  return match;
}

// Groups of one name that came from several subjects become one. True if there were any.
bool Sublist::merge_groups() {
  if (groups_.size() < 2) return false;
  std::sort(groups_.begin(), groups_.end(), [](const QueueGroup& a, const QueueGroup& b) { return a.id < b.id; });
  const auto same = [](const QueueGroup& a, const QueueGroup& b) { return a.id == b.id; };
  if (std::adjacent_find(groups_.begin(), groups_.end(), same) == groups_.end()) return false;
  size_t members = 0, weights = 0;
  for (const QueueGroup& group : groups_) {
    members += group.local.size();
    weights += group.remote.size();
  }
  merged_members_.clear();
  merged_weights_.clear();
  merged_members_.reserve(members);  // the spans below must not move
  merged_weights_.reserve(weights);
  size_t to = 0;
  for (size_t from = 0; from < groups_.size();) {
    QueueGroup merged = groups_[from];
    size_t end = from + 1;
    while (end < groups_.size() && groups_[end].id == merged.id) ++end;
    if (end - from > 1) {
      const size_t first_member = merged_members_.size(), first_weight = merged_weights_.size();
      merged.remote_weight = 0;
      merged.local_weight = 0;
      for (; from < end; ++from) {
        const QueueGroup& part = groups_[from];
        merged_members_.insert(merged_members_.end(), part.local.begin(), part.local.end());
        for (const ShardWeight& each : part.remote) {
          const auto begin = merged_weights_.begin() + static_cast<std::ptrdiff_t>(first_weight);
          const auto known =
              std::find_if(begin, merged_weights_.end(), [&](const ShardWeight& w) { return w.shard == each.shard; });
          if (known != merged_weights_.end()) known->weight += each.weight;
          else merged_weights_.push_back(each);
        }
        merged.remote_weight += part.remote_weight;
        merged.local_weight += part.local_weight;
      }
      merged.local = std::span(merged_members_).subspan(first_member);
      merged.remote = std::span(merged_weights_).subspan(first_weight);
    }
    groups_[to++] = merged;
    from = end;
  }
  groups_.resize(to);
  return true;
}

const QueueGroup* Sublist::find_group(std::string_view subject, uint64_t group_id) {
  const Match found = match(subject);
  for (const QueueGroup& group : found.groups) {
    if (group.id == group_id) return &group;
  }
  return nullptr;
}

SublistStats Sublist::stats() const {
  SublistStats stats;
  stats.num_subscriptions = subscriptions_;
  stats.num_inserts = inserts_;
  stats.num_removes = removes_;
  stats.num_matches = matches_;
  stats.cache_hits = matches_ - slow_matches_;
  stats.max_fanout = max_fanout_;
  if (matches_ > 0) stats.avg_fanout = static_cast<double>(fanout_) / static_cast<double>(matches_);
  stats.memory_bytes = sizeof(*this) + pages_.memory_bytes() + literals_.memory_bytes() + remote_.memory_bytes() +
                       slab_.memory_bytes() + crowd_bytes_ + found_.capacity() * sizeof(Entry*) +
                       plain_.capacity() * sizeof(Subscription*) + groups_.capacity() * sizeof(QueueGroup) +
                       merged_members_.capacity() * sizeof(Subscription*) +
                       merged_weights_.capacity() * sizeof(ShardWeight);
  if (remote_more_ != nullptr) {
    stats.memory_bytes += sizeof(*remote_more_);
    for (const RemoteTable& each : *remote_more_) stats.memory_bytes += each.memory_bytes();
  }
  if (wild_ != nullptr) {
    stats.num_cache = wild_->cache.size();
    stats.memory_bytes += wild_->patterns.memory_bytes() + wild_->cache.memory_bytes();
  }
  return stats;
}

}  // namespace peregrine::core
