// What no single key can tell: whether the options fit each other. nats-server's rules in nats-server's words where it
// has them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "config/options.h"

namespace peregrine::config {

struct Finding {
  std::string option;  // the key it is about, "a.b[2].c": where to point in the file
  std::string text;
};

struct Findings {
  std::vector<Finding> errors;
  std::vector<Finding> warnings;
};

Findings validate(const Options& options);

// What others check of options that are valid by themselves: files they name.
using MoreChecks = std::function<Findings(const Options&)>;

// The dpdk section's part of it, in a file of its own.
void check_dpdk(const Options& options, Findings& findings);

// Replaces the zeros that mean "default" (max_payload: 0, ping_interval: 0s, ...) by the defaults, and tidies
// http_base_path. Idempotent; called once flags and file are merged, before validate().
void complete(Options& options);

}  // namespace peregrine::config
