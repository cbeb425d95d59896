// What the index keeps per distinct subject: a 12-byte header and the text, in one slab cell. Private to the sublist.
//
// Nearly all entries are literals with one plain subscription: the header points at it. Anything more (several
// subscriptions, queue groups) moves to a Crowd on the heap. A pattern also has the set of other shards with plain
// interest in it; for literals that is in a table of hashes (sublist.h), which has no texts.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/bytes.h"
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

struct alignas(16) Crowd {
  Members plain;
  std::vector<Group*> groups;
  std::vector<QueueGroup> views;  // parallel to groups: what a match hands out
  // Only with more than kScannedGroups: finding a queue by name must not become a walk.
  std::unique_ptr<GroupsByName> by_name;
};

// Every byte is paid for a million times. So a pointer is 44 bits (addresses have 48, and what it leads to is aligned
// to 16), and the size of a text that does not fit into 12 bits stands before the text.
class [[gnu::packed, gnu::aligned(4)]] Entry {
 public:
  static constexpr size_t kHeader = 12;
  static constexpr uint32_t kMaxAlone = (1u << 30) - 1;

  static size_t cell_bytes(size_t text_size, bool pattern) { return text_at(text_size >= kLong, pattern) + text_size; }
  size_t cell_bytes() const { return text_at(is_long(), pattern) + text_size(); }

  // In a cell of so many bytes.
  [[gnu::always_inline]] static Entry* make(void* cell, std::string_view text, bool pattern, Subscription* only) {
    auto* entry = new (cell) Entry(std::min<size_t>(text.size(), kLong), pattern, only);
    char* const behind = static_cast<char*>(cell) + kHeader;
    if (pattern) std::memset(behind, 0, sizeof(ShardSet));
    if (text.size() >= kLong) [[unlikely]] {
      const auto size = static_cast<uint32_t>(text.size());
      std::memcpy(static_cast<char*>(cell) + text_at(true, pattern) - sizeof(size), &size, sizeof(size));
    }
    put(static_cast<char*>(cell) + text_at(text.size() >= kLong, pattern), text);
    return entry;
  }

  std::string_view text() const { return {bytes() + text_at(is_long(), pattern), text_size()}; }
  [[gnu::always_inline]] bool literal_is(std::string_view other) const {
    assert(!pattern);
    if (other.size() >= kLong) [[unlikely]]
      return text() == other;
    return short_size_ == other.size() && same_bytes(bytes() + kHeader, other.data(), other.size());
  }

  // Not crowded: its plain subscription; null: interest of other shards alone.
  Subscription* only() const { return static_cast<Subscription*>(target()); }
  void set_only(Subscription * sub) { set_target(sub); }
  Crowd* crowd() const { return static_cast<Crowd*>(target()); }
  void set_crowd(Crowd * crowd) { set_target(crowd); }

  // Patterns only.
  ShardSet shards() const {
    ShardSet shards;
    std::memcpy(&shards, bytes() + kHeader, sizeof(shards));
    return shards;
  }
  void set_shards(ShardSet shards) { std::memcpy(bytes() + kHeader, &shards, sizeof(shards)); }

 private:
  static constexpr size_t kLong = (1u << 12) - 1;
  static constexpr unsigned kAddressBits = 48;

  static size_t text_at(bool is_long, bool pattern) {
    return kHeader + (pattern ? sizeof(ShardSet) : 0) + (is_long ? sizeof(uint32_t) : 0);
  }
  bool is_long() const { return short_size_ == kLong; }
  size_t text_size() const {
    if (!is_long()) [[likely]]
      return short_size_;
    uint32_t size;
    std::memcpy(&size, bytes() + text_at(true, pattern) - sizeof(size), sizeof(size));
    return size;
  }
  char* bytes() { return reinterpret_cast<char*>(this); }
  const char* bytes() const { return reinterpret_cast<const char*>(this); }

  Entry(size_t short_size, bool pattern, const Subscription* only)
      : target_(shortened(only)), short_size_(short_size & kLong), pattern(pattern) {}
  void* target() const { return reinterpret_cast<void*>(static_cast<uintptr_t>(target_) << 4); }
  void set_target(const void* to) { target_ = shortened(to); }
  static uint64_t shortened(const void* to) {
    const auto address = reinterpret_cast<uintptr_t>(to);
    assert((address & 15) == 0 && address >> kAddressBits == 0);
    return address >> 4 & ((uint64_t{1} << (kAddressBits - 4)) - 1);
  }

  uint64_t target_ : kAddressBits - 4;
  uint64_t short_size_ : 12;

 public:
  // Of the first token: which generation a cached match depends on. Of a literal known only when `alone` is.
  uint64_t bucket : 8 = 0;
  // Literals: the generation at which no pattern was seen to match (sublist_patterns.h), 0 = not known.
  uint32_t alone : 30 = 0;
  uint32_t pattern : 1;
  uint32_t crowded : 1 = false;
};
static_assert(sizeof(Entry) == Entry::kHeader && alignof(Subscription) == 16);

// A slot of the hash tables that lead to entries.
struct EntrySlot {
  uint32_t tag_bits;
  uint32_t ref;  // EntrySlab::Ref
  uint32_t tag() const { return tag_bits; }
  bool empty() const { return ref == 0; }
};

inline uint32_t tag_of(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

}  // namespace peregrine::core
