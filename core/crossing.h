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

namespace peregrine::core {

// Writes `from` to `to` and steps over it.
inline char* put(char* to, std::string_view from) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
  return to + from.size();
}

enum class CrossingType : uint8_t {
  kInterest,  // interest ring
  kDelivery,  // delivery ring, as are the following
  kRelease,
  kNobody,
  kHeap,
};

// One distinct interest of the sending shard has changed: subject and queue name follow.
struct InterestRecord {
  CrossingType type = CrossingType::kInterest;
  bool interested;  // plain: has subscriptions now
  uint32_t account;
  uint32_t weight;  // queue: members now
  uint32_t subject_size;
  uint32_t queue_size;  // 0 = plain

  uint32_t size() const { return static_cast<uint32_t>(sizeof(*this)) + subject_size + queue_size; }
};

// One message for the target shard's own subscriptions. Behind it: `picks` group ids (8 bytes each), subject, reply,
// and the payload unless it is shared.
struct DeliveryRecord {
  CrossingType type = CrossingType::kDelivery;
  bool plain;    // also for plain subscriptions; false for a queue pick made again
  uint8_t hops;  // times the picks were made again
  uint8_t reserved = 0;
  uint32_t account;
  uint32_t picks;
  uint32_t subject_size;
  uint32_t reply_size;
  uint32_t header_size;
  uint32_t payload_size;
  uint32_t home;        // shard that owns `shared`
  uint64_t asker;       // cid of a requester to be told (kNobody) if nobody here takes it; 0 = none
  SharedBytes* shared;  // null = the payload is inline

  uint32_t size() const {
    return static_cast<uint32_t>(sizeof(*this)) + picks * 8 + subject_size + reply_size +
           (shared == nullptr ? payload_size : 0);
  }
};

struct ReleaseRecord {
  CrossingType type = CrossingType::kRelease;
  SharedBytes* origin;
};

// The only shard that had interest in a request found nobody to give it to: its requester is owed a 503. Subject and
// reply follow.
struct NobodyRecord {
  CrossingType type = CrossingType::kNobody;
  uint32_t subject_size;
  uint32_t reply_size;
  uint64_t asker;

  uint32_t size() const { return static_cast<uint32_t>(sizeof(*this)) + subject_size + reply_size; }
};

struct HeapRecord {
  CrossingType type = CrossingType::kHeap;
  uint32_t record_size;
  char* bytes;
};

}  // namespace peregrine::core
