// Loading: one configuration file -> Options, with everything that is wrong with it.
//
// Order: read (parser.h, yaml.h; stops at the first mistake) -> bind (binder.h; collects) -> refuse what this version
// has not built (keys.h). Whether the options fit each other is asked later, by finish(), because the command line
// still overrides some of them. No threads, no sockets.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/binder.h"
#include "config/options.h"
#include "config/parser.h"
#include "config/validate.h"

namespace peregrine::config {

struct LoadedFile {
  Options options;
  std::vector<Problem> errors;    // by position
  std::vector<Problem> warnings;  // by position
  // Of all keys with a fixed place, under their first names: "gateway.gateways[0].tls".
  std::map<std::string, Position> positions;
};

LoadedFile load_file(const std::string& path, const Sources& sources);

// A tree that was read already. `unsupported` is the second half of errors: without it a test can see that everything
// still parses.
LoadedFile load_tree(const Value& tree, bool refuse_unsupported = true);

// Completes zeros to defaults, then checks the options against each other and, if that goes well, by `more`; what is
// found is added to errors and warnings.
void finish(LoadedFile& loaded, const MoreChecks& more = nullptr);

// One text of all problems, a line each.
std::string to_text(const std::vector<Problem>& problems);

}  // namespace peregrine::config
