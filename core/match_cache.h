// Assembled matches of one account on one shard: literal subject -> immutable match.
//
// Holds what costs more than a probe to find out: the sublist answers a subject with just one literal entry by itself
// and asks here only when patterns take part. Validity: an entry carries the stamp of its first token's bucket when it
// was stored; the owner passes the stamp of now, and any difference means stale. Changes of one literal subject are
// erased by hash instead, so literal subscriptions that come and go invalidate nothing else.
//
// Bounds: at most kMaxSlots matches and kMaxBytes. Scan resistance: a subject is admitted at its second miss within the
// doorkeeper's memory, and takes the place of a stale or cold match only; one that is refused cools one neighbour by
// one hit. So a walk through random subjects neither grows memory nor evicts what is in use. A shard's own: no locks.
// Spans returned are valid until the next non-const call.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/hash.h"
#include "core/match.h"

namespace peregrine::core {

class MatchCache {
 public:
  static constexpr size_t kWays = 4;
  static constexpr size_t kMinSlots = 64;
  static constexpr size_t kMaxSlots = 16384;
  static constexpr size_t kMaxBytes = size_t{8} << 20;  // of the stored matches
  static constexpr size_t kMaxMatchBytes = size_t{1}
                                           << 20;  // of one; assembling a larger one is little beside delivering it

  MatchCache() = default;
  ~MatchCache() { clear(); }
  MatchCache(const MatchCache&) = delete;
  MatchCache& operator=(const MatchCache&) = delete;

  // `stamps(bucket)` is the current stamp. Nullptr: not stored, or stale.
  template <class Stamps>
  const Match* find(uint64_t hash, std::string_view subject, Stamps&& stamps) {
    if (slots_.empty()) return nullptr;
    Slot* const set = set_of(hash);
    for (size_t way = 0; way < kWays; way++) {
      Slot& slot = set[way];
      if (slot.hash != hash || slot.block == nullptr) continue;
      if (slot.stamp != stamps(slot.bucket) || !slot.block->subject_is(subject)) return nullptr;
      if (slot.heat < kMaxHeat) slot.heat++;
      return &slot.block->match;
    }
    return nullptr;
  }

  // True at the second miss of a subject: store() is worth it.
  bool admit(uint64_t hash);

  // How much of a match must be copied, because it lies in memory of the moment; the rest must stay put while the stamp
  // stands.
  enum class Copy : uint8_t {
    kNothing,  // all of it belongs to one entry
    kLists,    // the lists of subscriptions and groups, put together from several entries
    kMembers,  // also the members and weights of the groups
  };

  template <class Stamps>
  void store(uint64_t hash, std::string_view subject, uint8_t bucket, const Match& match, Copy copy, Stamps&& stamps) {
    const size_t bytes = Block::bytes_for(subject, match, copy);
    if (bytes > kMaxMatchBytes) return;
    Slot* slot = make_room(
        hash, [&](const Slot& old) { return old.stamp != stamps(old.bucket); }, bytes);
    if (slot == nullptr) return;
    fill(*slot, hash, stamps(bucket), bucket, Block::make(subject, match, copy, bytes));
  }

  void erase(uint64_t hash);
  void clear();

  uint64_t size() const { return size_; }
  uint64_t memory_bytes() const {
    return bytes_ + slots_.capacity() * sizeof(Slot) + doorkeeper_.capacity() * sizeof(uint64_t);
  }

 private:
  static constexpr uint8_t kMaxHeat = 3;
  static constexpr size_t kDoorBits = size_t{1} << 17;
  static constexpr size_t kDoorFull = kDoorBits / 8;

  // One allocation: this, then what was copied, then the subject.
  struct Block {
    Match match;
    uint32_t bytes;
    uint32_t subject_size;

    static size_t bytes_for(std::string_view subject, const Match& match, Copy copy);
    static Block* make(std::string_view subject, const Match& match, Copy copy, size_t bytes);
    const char* subject_data() const { return reinterpret_cast<const char*>(this) + bytes - subject_size; }
    bool subject_is(std::string_view other) const {
      return subject_size == other.size() && same_bytes(subject_data(), other.data(), other.size());
    }
  };

  struct Slot {
    uint64_t hash = 0;
    uint64_t stamp = 0;
    Block* block = nullptr;
    uint8_t bucket = 0;
    uint8_t heat = 0;
  };

  Slot* set_of(uint64_t hash) { return &slots_[(hash & set_mask_) * kWays]; }
  void drop(Slot& slot);
  void fill(Slot& slot, uint64_t hash, uint64_t stamp, uint8_t bucket, Block* block);
  void grow();

  // A slot to fill, emptied; nullptr when everything there is hotter. Frees stale and cold matches until `bytes` fit.
  template <class Stale>
  Slot* make_room(uint64_t hash, Stale&& stale, size_t bytes) {
    if (slots_.empty() || (size_ * 2 >= slots_.size() && slots_.size() < kMaxSlots)) grow();
    for (size_t tries = 0; bytes_ + bytes > kMaxBytes && tries < 64; tries++) {
      Slot& slot = slots_[hand_++ & (slots_.size() - 1)];
      if (slot.block == nullptr) continue;
      if (slot.heat == 0 || stale(slot)) drop(slot);
      else slot.heat--;
    }
    if (bytes_ + bytes > kMaxBytes) return nullptr;
    Slot* victim = find_victim(hash, stale);
    if (victim == nullptr && slots_.size() < kMaxSlots && size_ * 4 >= slots_.size()) {
      grow();  // a crowded neighbourhood in a table that is not empty: better than losing a hot one
      victim = find_victim(hash, stale);
    }
    if (victim == nullptr) {
      set_of(hash)[hand_++ % kWays].heat--;  // all are above 0
      return nullptr;
    }
    if (victim->block != nullptr) drop(*victim);
    return victim;
  }

  template <class Stale>
  Slot* find_victim(uint64_t hash, Stale&& stale) {
    Slot* const set = set_of(hash);
    Slot* victim = nullptr;
    for (size_t way = 0; way < kWays; way++) {
      Slot& slot = set[way];
      // Same hash: an older version of this match, or the one collision in 2^64.
      if (slot.hash == hash && slot.block != nullptr) return &slot;
      if (slot.block == nullptr || stale(slot)) victim = &slot;
      else if (slot.heat == 0 && victim == nullptr) victim = &slot;
    }
    return victim;
  }

  std::vector<Slot> slots_;  // sets of kWays; a power of two
  uint64_t set_mask_ = 0;
  uint64_t size_ = 0;
  uint64_t bytes_ = 0;
  uint64_t hand_ = 0;
  std::vector<uint64_t> doorkeeper_;  // a Bloom filter, emptied when an eighth of its bits are set
  size_t door_set_ = 0;
};

}  // namespace peregrine::core
