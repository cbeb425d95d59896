#include "core/match_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace peregrine::core {

namespace {

// Copies a span's elements to `at`, steps `at` behind them, and returns the copy.
template <class T>
std::span<T> put(char*& at, std::span<const T> from) {
  T* const to = reinterpret_cast<T*>(at);
  std::uninitialized_copy(from.begin(), from.end(), to);
  at += from.size_bytes();
  return {to, from.size()};
}

}  // namespace

size_t MatchCache::Block::bytes_for(std::string_view subject, const Match& match, Copy copy) {
  size_t bytes = sizeof(Block) + subject.size();
  if (copy != Copy::kNothing) bytes += match.groups.size_bytes() + match.plain.size_bytes();
  if (copy == Copy::kMembers) {
    for (const QueueGroup& group : match.groups) bytes += group.local.size_bytes() + group.remote.size_bytes();
  }
  return bytes;
}

MatchCache::Block* MatchCache::Block::make(std::string_view subject, const Match& match, Copy copy, size_t bytes) {
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  auto* block = new (memory) Block{match, static_cast<uint32_t>(bytes), static_cast<uint32_t>(subject.size())};
  if (copy != Copy::kNothing) {
    char* at = reinterpret_cast<char*>(block + 1);
    const std::span<QueueGroup> groups = put(at, match.groups);
    block->match.groups = groups;
    block->match.plain = put(at, match.plain);
    for (QueueGroup& group : copy == Copy::kMembers ? groups : std::span<QueueGroup>()) {
      group.local = put(at, group.local);
      group.remote = put(at, group.remote);
    }
  }
  std::memcpy(const_cast<char*>(block->subject_data()), subject.data(), subject.size());
  return block;
}

bool MatchCache::admit(uint64_t hash) {
  if (doorkeeper_.empty()) doorkeeper_.resize(kDoorBits / 64);
  bool known = true;
  // Two bits out of parts of the hash that the set index does not use.
  for (const unsigned shift : {20u, 40u}) {
    const size_t bit = (hash >> shift) % kDoorBits;
    uint64_t& word = doorkeeper_[bit / 64];
    const uint64_t mask = uint64_t{1} << (bit % 64);
    if (word & mask) continue;
    word |= mask;
    door_set_++;
    known = false;
  }
  if (door_set_ > kDoorFull) {
    std::fill(doorkeeper_.begin(), doorkeeper_.end(), 0);
    door_set_ = 0;
  }
  return known;
}

void MatchCache::drop(Slot& slot) {
  bytes_ -= slot.block->bytes;
  size_--;
  std::free(slot.block);
  slot = {};
}

void MatchCache::fill(Slot& slot, uint64_t hash, uint64_t stamp, uint8_t bucket, Block* block) {
  slot = {.hash = hash, .stamp = stamp, .block = block, .bucket = bucket, .heat = 1};
  bytes_ += block->bytes;
  size_++;
}

void MatchCache::grow() {
  const std::vector<Slot> old = std::move(slots_);
  slots_ = std::vector<Slot>(old.empty() ? kMinSlots : old.size() * 2);
  set_mask_ = slots_.size() / kWays - 1;
  for (const Slot& slot : old) {
    if (slot.block == nullptr) continue;
    Slot* const set = set_of(slot.hash);
    // A set splits in two: what was in kWays slots fits.
    *std::find_if(set, set + kWays, [](const Slot& s) { return s.block == nullptr; }) = slot;
  }
}

void MatchCache::erase(uint64_t hash) {
  if (size_ == 0) return;
  Slot* const set = set_of(hash);
  for (size_t way = 0; way < kWays; way++) {
    if (set[way].block != nullptr && set[way].hash == hash) drop(set[way]);
  }
}

void MatchCache::clear() {
  for (Slot& slot : slots_) {
    if (slot.block != nullptr) std::free(slot.block);
  }
  std::vector<Slot>().swap(slots_);
  std::vector<uint64_t>().swap(doorkeeper_);
  set_mask_ = size_ = bytes_ = door_set_ = 0;
}

}  // namespace peregrine::core
