// What may cross from one shard to another: interest, deliveries, released references. Plain records in a ring
// (ring.h).
//
// Producer and consumer are two shards of one process built from one source: the layout is private to this header and
// may change with every version. Each record begins with its Type. A record too large for the ring travels as kHeap:
// the pointer of a malloc'ed copy, freed by the consumer.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/buffer.h"
#include "core/bytes.h"
#include "core/interest.h"

namespace peregrine::core {

enum class CrossingType : uint8_t {
  kInterest,  // interest ring, as are the following
  kLiteralInterest,
  kTextsFollow,
  kOriginInterest,
  kInterestReplay,
  kDelivery,  // delivery ring, as are the following
  kRelease,
  kNobody,
  kFrames,
  kHeap,
};

// One distinct interest of the sending shard has changed: subject and queue name follow.
struct InterestRecord {
  CrossingType type = CrossingType::kInterest;
  bool interested;  // plain: has subscriptions now, of this subject or (if literal) of another with its hash
  Side side = Side::kClients;
  bool literal;  // and plain: `hash` is the subject's, the same on all shards
  uint32_t account;
  uint32_t weight;  // queue: members now
  uint32_t subject_size;
  uint32_t queue_size;  // 0 = plain
  uint64_t hash = 0;

  uint32_t size() const { return static_cast<uint32_t>(sizeof(*this)) + subject_size + queue_size; }
};

// The same of literals without a queue, to a shard that has nobody to tell: a hash is all it keeps of each. `count`
// hashes follow (literal_batch.h).
struct LiteralInterestRecord {
  static constexpr uint32_t kMost = 64;
  CrossingType type = CrossingType::kLiteralInterest;
  Side side = Side::kClients;
  uint16_t count = 0;
  uint32_t account = 0;
  uint64_t interested = 0;  // bit n: hash n is wanted now, else no longer
  uint64_t void_ones = 0;   // bit n: hash n has been taken back and says nothing

  uint32_t size() const { return static_cast<uint32_t>(sizeof(*this) + count * sizeof(uint64_t)); }
};

// From here on interest comes with its texts, because the receiver has asked for them (Shard::listen_to_interest).
struct TextsFollowRecord {
  CrossingType type = CrossingType::kTextsFollow;
};

// A leafnode cluster (or nobody in particular) wants something more, or less, by way of the sending shard: subject and
// queue name follow. Comes for every subscription of such a peer, before the InterestRecord it may cause, so that a
// shard can tell whether an origin is the only one interested.
struct OriginInterestRecord {
  CrossingType type = CrossingType::kOriginInterest;
  bool followed;  // that InterestRecord comes: listeners are to look when both are there
  Side side = Side::kLeafs;
  uint32_t account;
  int32_t change;  // of the weight
  uint32_t subject_size;
  uint32_t queue_size;  // 0 = plain
  OriginId origin;

  uint32_t size() const { return static_cast<uint32_t>(sizeof(*this)) + subject_size + queue_size; }
};

// A slice of what the sending shard is interested in, asked for by a peer that has just begun to listen: `count`
// InterestRecords, each with the origin and the texts behind it, in one block from malloc that the receiver frees.
struct InterestReplayRecord {
  CrossingType type = CrossingType::kInterestReplay;
  bool last;        // no slice of this account follows
  uint32_t bytes;   // of the block
  uint64_t replay;  // Shard::Replay::id at the receiver
  uint64_t cursor;  // to ask for the next slice with
  char* block;      // null when the slice is empty
};

// A queue group's message is for one member of this group on the target shard.
struct CrossingPick {
  uint64_t group;
  Side side;
  uint8_t reserved[7] = {};
};

// Who is to be told that nobody took a request: a session of shard `home` (its cid), or an inquiry there (inquiries.h)
// that waits for several shards. id 0 = nobody asks.
struct Asker {
  uint64_t id = 0;
  uint32_t home = 0;
};

// One message for the target shard's own subscriptions and peers. Behind it: `picks` CrossingPicks, subject,
// reply, the leafnode cluster it came from, and the payload unless it is shared.
struct DeliveryRecord {
  CrossingType type = CrossingType::kDelivery;
  SideSet plain;       // for plain subscriptions of these sides; 0 for a queue pick made again
  uint8_t hops;        // times the picks were made again
  SessionKind source;  // of the connection that brought it
  uint32_t account;
  uint32_t picks;
  uint32_t subject_size;
  uint32_t reply_size;
  uint32_t header_size;
  uint32_t payload_size;
  uint32_t origin_size;
  uint32_t home;        // shard that owns `shared`
  uint32_t asker_home;  // to be told (kNobody) if nobody here takes it,
  uint64_t asker;       // Asker::id there; 0 = nobody asks
  bool lent;            // `shared` is received memory, not to be kept for long
  SharedBytes* shared;  // null = the payload is inline
  const char* payload;  // shared: where it lies

  uint32_t size() const {
    return static_cast<uint32_t>(sizeof(*this) + picks * sizeof(CrossingPick)) + subject_size + reply_size +
           origin_size + (shared == nullptr ? payload_size : 0);
  }
};

struct ReleaseRecord {
  CrossingType type = CrossingType::kRelease;
  SharedBytes* origin;
};

// The sending shard was thought to have interest in a request and found nobody to give it to: the asker, if that shard
// was the only one or the last one, is owed a 503. Subject and reply follow.
struct NobodyRecord {
  CrossingType type = CrossingType::kNobody;
  uint32_t subject_size;
  uint32_t reply_size;
  uint64_t asker;

  uint32_t size() const { return static_cast<uint32_t>(sizeof(*this)) + subject_size + reply_size; }
};

// Messages of one publisher on one subject, for the target shard's own plain subscriptions on `sides` (run.h), or each
// for one member there of a clients' queue group (deal.h): whole frames without a reply as they were received, each
// beginning with the same `prefix_size` bytes and the subject. Few bytes follow; many are read where the other shard
// received them.
struct FramesRecord {
  CrossingType type = CrossingType::kFrames;
  SideSet sides;  // 0: for `group`
  SessionKind source;
  uint16_t prefix_size;
  uint32_t account;
  uint32_t subject_size;
  uint32_t bytes;
  uint64_t group = 0;
  uint32_t home = 0;              // shard that owns `shared`
  SharedBytes* shared = nullptr;  // null = the frames follow
  const char* frames = nullptr;   // shared: where they lie

  uint32_t size() const { return static_cast<uint32_t>(sizeof(*this)) + (shared == nullptr ? bytes : 0); }
};

struct HeapRecord {
  CrossingType type = CrossingType::kHeap;
  uint32_t record_size;
  char* bytes;
};

}  // namespace peregrine::core
