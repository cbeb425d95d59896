// (local, remote) -> record: open addressing with a keyed hash, eight bytes a slot.
//
// A slot holds 32 bits of the hash and a reference (two bits of kind, thirty of index); the records themselves keep
// the flow, so a hit is confirmed by the caller's comparison. Removal shifts back: no tombstones. At most 3/4 full.
// Peers choose their ports, hence the secret in the hash.
#pragma once

#include <cstdint>
#include <vector>

#include "core/hash.h"
#include "net/tcp/address.h"

namespace peregrine::net::tcp {

enum class RecordKind : uint8_t { kConnection = 0, kHalfOpen = 1, kTimeWait = 2 };

struct RecordRef {
  uint32_t bits;
  RecordRef(RecordKind kind, uint32_t index) : bits(static_cast<uint32_t>(kind) << 30 | index) {}
  explicit RecordRef(uint32_t raw) : bits(raw) {}
  RecordKind kind() const { return static_cast<RecordKind>(bits >> 30); }
  uint32_t index() const { return bits & 0x3fffffff; }
};

class FlowTable {
 public:
  FlowTable(uint64_t k0, uint64_t k1) : k0_(k0), k1_(k1), slots_(64, Slot{0, kEmpty}) {}

  uint32_t hash(const Flow& flow) const {
    uint64_t words[4];
    std::memcpy(words, flow.local.bytes.data(), 16);
    std::memcpy(words + 2, flow.remote.bytes.data(), 16);
    const uint64_t ports = uint64_t{flow.local_port} << 16 | flow.remote_port;
    uint64_t h = core::fold_multiply(words[0] ^ words[1] ^ k0_, words[2] ^ k1_);
    h = core::fold_multiply(h ^ words[3], ports ^ k0_ ^ 0x9E3779B97F4A7C15u);
    h = core::fold_multiply(h ^ k1_, 0xD6E8FEB86659FD93u);
    return static_cast<uint32_t>(h ^ (h >> 32));
  }

  // `same(ref)` compares the record's flow. Returns the raw bits, or kEmpty.
  template <class Same>
  uint32_t find(uint32_t hash, Same&& same) const {
    const size_t mask = slots_.size() - 1;
    for (size_t i = hash & mask; slots_[i].ref != kEmpty; i = (i + 1) & mask) {
      if (slots_[i].hash == hash && same(RecordRef(slots_[i].ref))) return slots_[i].ref;
    }
    return kEmpty;
  }

  void insert(uint32_t hash, RecordRef ref) {
    if ((count_ + 1) * 4 > slots_.size() * 3) grow();
    place(hash, ref.bits);
    ++count_;
  }

  void remove(uint32_t hash, RecordRef ref) {
    const size_t mask = slots_.size() - 1;
    size_t i = hash & mask;
    while (slots_[i].ref != ref.bits) {
      if (slots_[i].ref == kEmpty) return;
      i = (i + 1) & mask;
    }
    for (size_t next = (i + 1) & mask; slots_[next].ref != kEmpty; next = (next + 1) & mask) {
      const size_t home = slots_[next].hash & mask;
      // May `next` move to the hole at i? Only if its home is not in (i, next].
      if (((next - home) & mask) >= ((next - i) & mask)) {
        slots_[i] = slots_[next];
        i = next;
      }
    }
    slots_[i].ref = kEmpty;
    --count_;
  }

  size_t size() const { return count_; }
  static constexpr uint32_t kEmpty = UINT32_MAX;

 private:
  struct Slot {
    uint32_t hash, ref;
  };
  void place(uint32_t hash, uint32_t ref) {
    const size_t mask = slots_.size() - 1;
    size_t i = hash & mask;
    while (slots_[i].ref != kEmpty) i = (i + 1) & mask;
    slots_[i] = {hash, ref};
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2, Slot{0, kEmpty});
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.ref != kEmpty) place(slot.hash, slot.ref);
    }
  }

  uint64_t k0_, k1_;
  std::vector<Slot> slots_;
  size_t count_ = 0;
};

}  // namespace peregrine::net::tcp
