// Subject mappings as text: a destination taken apart into tokens, and nats-server's rules of what may stand in one.
//
// Pure functions, any thread. core/subject_transform.h carries out what comes out of here; the rules stand on this side
// because a mistake belongs to a line of the file. Source: nats-server's server/subject_transform.go, ValidateMapping
// in server/sublist.go and AddWeightedMappings in server/accounts.go; parity.md section 2.4.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/options.h"
#include "config/result.h"

namespace peregrine::config {

struct DestinationToken {
  enum class Kind : std::uint8_t {
    kText,           // as it stands
    kRest,           // `>`: whatever the source's `>` stood for
    kWildcard,       // $1, {{wildcard(1)}}
    kPartition,      // {{partition(buckets, wildcards...)}}
    kSplit,          // {{split(wildcard, delimiter)}}
    kSplitFromLeft,  // {{splitfromleft(wildcard, position)}} and so on
    kSplitFromRight,
    kSliceFromLeft,
    kSliceFromRight,
    kLeft,
    kRight,
    kRandom,  // {{random(bound)}}
  };
  Kind kind = Kind::kText;
  std::string text;                  // kText: the token; kSplit: the delimiter
  std::vector<std::size_t> sources;  // 0-based tokens of the source; kPartition without any: the whole subject
  std::int32_t number = 0;           // buckets, bound, position or size; anything, also 0 and less
};

// REQUIRES: `source` is a valid subject. At least one token, kRest only as the last and only if `source` ends with `>`.
Result<std::vector<DestinationToken>> parse_destination(std::string_view source, std::string_view destination);

// What is wrong with a mapping of an account, in nats-server's words.
// REQUIRES: mapping.source is a valid subject
std::optional<std::string> check_mapping(const Mapping& mapping);

// The destination that leaves subjects of `source` as they are: `a.*.>` -> `a.$1.>`.
std::string unchanged_destination(std::string_view source);

}  // namespace peregrine::config
