// Requests that may have reached nobody, and of which several other shards have to say so before the requester is told
// (no responders, parity.md section 1.8): how many have not said it yet.
//
// Owned by the shard that sent the request to the others (Delivery). A shard where somebody took the message says
// nothing, so most inquiries are never closed: the table is a ring of the last kEntries, the oldest are overwritten. An
// inquiry overwritten before its answers came (more requests in flight at once than that) gets no 503 and ends with the
// requester's own timeout, as it would with a responder that says nothing. Memory: none before the first inquiry.
#pragma once

#include <cstdint>
#include <vector>

#include "core/crossing.h"

namespace peregrine::core {

class Inquiries {
 public:
  static constexpr size_t kEntries = 4096;

  // `asker` is to be told when `shards` shards have said that nobody is there. Returns the id they are given; never one
  // of a session.
  uint64_t open(Asker asker, uint32_t shards) {
    if (entries_.empty()) entries_.resize(kEntries);
    const uint64_t id = kMark | ++last_;
    entries_[id % kEntries] = {id, asker, shards};
    return id;
  }
  static bool is_inquiry(uint64_t id) { return (id & kMark) != 0; }

  // One of the shards has nobody. The asker, if it was the last one to say so; else nobody (id 0).
  Asker answered(uint64_t id) {
    if (entries_.empty()) return {};
    Entry& entry = entries_[id % kEntries];
    if (entry.id != id || --entry.left != 0) return {};
    entry.id = 0;
    return entry.asker;
  }

 private:
  static constexpr uint64_t kMark = uint64_t{1} << 63;
  struct Entry {
    uint64_t id = 0;
    Asker asker;
    uint32_t left = 0;
  };
  std::vector<Entry> entries_;
  uint64_t last_ = 0;
};

}  // namespace peregrine::core
