// Changes of literal interest on their way to one other shard: written side by side into one record of the interest
// ring, which stays open until the turn publishes it or something else has to be written.
//
// An inbox that comes and goes is most of what shards tell each other: 8 bytes for it instead of a record of 32, and
// what comes and goes within one open record is not told at all. That cannot be noticed: all of a record becomes
// visible at once, before any delivery or byte of the same turn (shard.h), so nobody ever sees the state in between.
// Texts and queues have records of their own and close this one first.
//
// Taking back must be exact although other shards cannot tell hashes apart whose upper 32 bits are alike
// (sublist.h), and although subjects may share all of a hash. `h off` takes back `h on`, or the other way round, only
// if nothing about any such hash was said in between, "still wanted" included. Then it is right: `h off` is said only
// when nobody wants any of them any longer, so if somebody else did when `h on` was said, his going would lie between;
// and if `h on` follows `h off`, nobody did when that was said.
// One per ordered pair of shards, its producer's thread only. Invariant: between open and close nothing else is
// reserved in the ring.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/crossing.h"
#include "core/interest.h"
#include "core/ring.h"

namespace peregrine::core {

class LiteralBatch {
 public:
  // One change more: the first subscription of a subject has come, or the last one of all subjects that the other shard
  // takes for it has gone. False if the ring has no room: nothing was done.
  bool add(Ring& ring, Side side, uint32_t account, uint64_t hash, bool interested) {
    if (add_to_open(side, account, hash, interested)) return true;
    close(ring);
    return open(ring, side, account) && add_to_open(side, account, hash, interested);
  }

  // The same if there is room in the record that is open. False: nothing was done.
  [[gnu::always_inline]] bool add_to_open(Side side, uint32_t account, uint64_t hash, bool interested) {
    if (record_.count >= most_ || record_.account != account || record_.side != side) [[unlikely]]
      return false;
    uint8_t& last = last_[place_of(hash)];
    if (last < record_.count && takes_back(last, hash, interested)) return true;
    const uint32_t at = record_.count++;
    std::memcpy(hash_at(at), &hash, sizeof(hash));
    record_.interested |= uint64_t{interested} << at;
    last = static_cast<uint8_t>(at);
    return true;
  }

  // The last subscription of a subject has gone, but there are others that the other shard takes for it. It need not be
  // told.
  void still_wanted(uint64_t hash) { last_[place_of(hash)] = kNowhere; }

  // Commits what there is. To be called before anything else is written to the ring and before it is published.
  void close(Ring& ring) {
    if (to_ == nullptr) return;
    std::memcpy(to_, &record_, sizeof(record_));
    to_ = nullptr;
    most_ = 0;
    if (record_.count == 0) return;  // all taken back: the room is not used
    const uint32_t size = record_.size();
    ring.shorten(size);
    ring.commit(size);
    ++records_;
    bytes_ += size;
  }

  // What has been committed since it was last asked.
  uint32_t take_records() { return std::exchange(records_, 0); }
  uint32_t take_bytes() { return std::exchange(bytes_, 0); }

 private:
  static constexpr uint8_t kNowhere = UINT8_MAX;

  bool open(Ring& ring, Side side, uint32_t account) {
    const auto most = std::min<uint32_t>(
        LiteralInterestRecord::kMost,
        static_cast<uint32_t>((ring.max_record() - sizeof(LiteralInterestRecord)) / sizeof(uint64_t)));
    to_ = ring.reserve(static_cast<uint32_t>(sizeof(record_) + most * sizeof(uint64_t)));
    if (to_ == nullptr) return false;
    record_ = {.side = side, .count = 0, .account = account};
    most_ = most;
    return true;
  }

  char* hash_at(uint32_t at) const { return to_ + sizeof(record_) + at * sizeof(uint64_t); }
  static size_t place_of(uint64_t hash) { return (hash >> 32) % LiteralInterestRecord::kMost; }

  // Whether the latest change of this hash and its like, as far as it is easily found, makes this one needless: it was
  // the opposite, and neither has happened; or it was the same.
  bool takes_back(uint8_t& last, uint64_t hash, bool interested) {
    const uint32_t at = last;
    const uint64_t bit = uint64_t{1} << at;
    uint64_t there;
    std::memcpy(&there, hash_at(at), sizeof(there));
    if (there != hash || (record_.void_ones & bit) != 0) return false;
    if (((record_.interested & bit) != 0) == interested) {
      last = kNowhere;
    } else if (at + 1 == record_.count) {
      --record_.count;
      record_.interested &= ~bit;
    } else {
      record_.void_ones |= bit;
    }
    return true;
  }

  char* to_ = nullptr;  // where the open record goes; null = none is open
  uint32_t most_ = 0;   // hashes it may hold; 0 while none is open
  uint32_t records_ = 0, bytes_ = 0;
  LiteralInterestRecord record_;
  // By the upper 32 bits of a hash: where the latest change of its like may be.
  std::array<uint8_t, LiteralInterestRecord::kMost> last_{};
};

}  // namespace peregrine::core
