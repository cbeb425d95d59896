// One subject space, as one shard sees it: its index and its counters.
//
// One object per account and shard, owned by the shard; the account's number is the same on all shards. Today there is
// only the global account $G, number 0; imports, exports and limits will hang here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/snapshot.h"
#include "core/subject_transform.h"
#include "core/sublist.h"

namespace peregrine::core {

inline constexpr uint32_t kGlobalAccount = 0;

class Account {
 public:
  Account(std::string name, uint32_t number, HashKey key, uint32_t shard)
      : name(std::move(name)), number(number), sublist(key, shard, number) {}

  const std::string name;
  const uint32_t number;
  Sublist sublist;
  std::unique_ptr<SubjectMappings> mappings;  // of what its clients publish; null = none
  Traffic traffic;                            // of its clients on this shard
  uint64_t connections = 0;
  uint64_t total_connections = 0;
  uint64_t slow_consumers = 0;
};

}  // namespace peregrine::core
