// What the index keeps per distinct subject: a 16-byte header and the text, in one slab cell. Private to the sublist.
//
// Nearly all entries are literals with one plain subscription: that one sits in the header, and a match's span points
// at it. Anything more (several subscriptions, queue groups) moves to a Crowd on the heap. A pattern also has the set
// of other shards with plain interest in it; for literals that is in a table of hashes (sublist.h), which has no texts.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/hash.h"
#include "core/match.h"
#include "core/subject.h"
#include "core/sublist_members.h"
#include "core/sublist_slab.h"

namespace peregrine::core {

struct Entry;

// The state behind one QueueGroup, in a slab cell. A queue subscription's `entry` is its `ref`, a plain one's that of
// its Entry.
struct Group {
  Group(Entry* entry, EntrySlab::Ref ref, uint32_t index, uint64_t id, std::string_view queue)
      : entry(entry), id(id), ref(ref), index(index), queue(queue) {}
  QueueGroup view() const { return {id, members.list(), remote, remote_weight, local_weight}; }

  Entry* entry;
  uint64_t id;
  uint64_t remote_weight = 0;
  uint64_t local_weight = 0;
  EntrySlab::Ref ref;
  uint32_t index;  // in Crowd::groups and Crowd::views
  std::string queue;
  Members members;
  std::vector<ShardWeight> remote;
};

using GroupsByName = std::unordered_map<std::string_view, Group*, KeyedHash>;

struct Crowd {
  Members plain;
  std::vector<Group*> groups;
  std::vector<QueueGroup> views;  // parallel to groups: what a match hands out
  // Only with more than kScannedGroups: finding a queue by name must not become a walk.
  std::unique_ptr<GroupsByName> by_name;
};

struct Entry {
  static constexpr size_t kHeader = 16;

  union {
    Subscription* only;  // may be null: interest of other shards alone
    Crowd* crowd;
  };
  uint32_t text_size : 22;
  uint32_t pattern : 1;
  uint32_t crowded : 1;
  // Of the first token: which generation a cached match depends on. Of a literal known only when `alone` is.
  uint32_t bucket : 8;
  // Literals: the generation at which no pattern was seen to match (sublist_patterns.h), 0 = not known.
  uint32_t alone;

  static size_t cell_bytes(size_t text_size, bool pattern) {
    return kHeader + (pattern ? sizeof(ShardSet) : 0) + text_size;
  }
  size_t cell_bytes() const { return cell_bytes(text_size, pattern); }

  const char* text_data() const {
    return reinterpret_cast<const char*>(this) + kHeader + (pattern ? sizeof(ShardSet) : 0);
  }
  std::string_view text() const { return {text_data(), text_size}; }
  bool text_is(std::string_view other) const {
    return text_size == other.size() && same_bytes(text_data(), other.data(), other.size());
  }

  // Patterns only.
  ShardSet& shards() { return *reinterpret_cast<ShardSet*>(reinterpret_cast<char*>(this) + kHeader); }
  ShardSet shards() const { return const_cast<Entry*>(this)->shards(); }
};
static_assert(sizeof(Entry) == Entry::kHeader);

// A slot of the hash tables that lead to entries.
struct EntrySlot {
  uint32_t tag_bits;
  uint32_t ref;  // EntrySlab::Ref
  uint32_t tag() const { return tag_bits; }
  bool empty() const { return ref == 0; }
};

inline uint32_t tag_of(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

}  // namespace peregrine::core
