// YAML (by yaml-cpp) -> the same Value tree the NATS grammar gives.
//
// Plain scalars are read with NATS's rules, so that 64MB, on, $NAME and 127.0.0.1:4222 mean the same in both files;
// quoted scalars are strings. `include: path` or `include: [path, ...]` merges files where it stands. Anchors and
// aliases work, within ReadState::nodes_max.
#pragma once

#include <string>
#include <string_view>

#include "config/parser.h"
#include "config/result.h"
#include "config/value.h"

namespace peregrine::config {

Result<Value> parse_yaml(std::string_view text, const std::string& path, ReadState& state);

}  // namespace peregrine::config
