// Parser: a configuration file -> Value tree.
//
// read_file() is the only door to the disk: it picks the grammar by the file's ending (.yaml and .yml are YAML,
// everything else is NATS's own, of which JSON is a part), and follows includes, whose paths are relative to the file
// that includes them.
//
// $NAME is looked up in the enclosing maps from the inside out (only keys that stand before it), then in the
// environment, whose text is read as a configuration value and may refer to further variables; a cycle or an unknown
// name is an error. An included file sees the environment only, but what it defines is visible to the file that
// includes it from there on. A bare $2a$... is a bcrypt hash.
//
// Errors are one text "file:line:col: ..."; the grammar stops at the first one.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/result.h"
#include "config/value.h"

namespace peregrine::config {

// The world a file is read in. Tests and fuzzers bring their own.
struct Sources {
  // Contents of a file, or an error in the words of the operating system.
  std::function<Result<std::string>(const std::string& path)> read;
  std::function<std::optional<std::string>(const std::string& name)> environment;
};

// The disk and the process environment.
Sources system_sources();

// Shared by all files of one load: bounds and cycle detection.
struct ReadState {
  explicit ReadState(const Sources& sources) : sources(sources) {}
  const Sources& sources;
  std::vector<std::string> open_files;   // the include chain
  std::set<std::string> open_variables;  // environment variables being read
  std::set<std::string> variables;       // ... and those that have been
  std::size_t nodes = 0;
  std::size_t nodes_max = 10'000;

  // A value takes a byte at least; what a text may say beyond that, by variables and aliases, grows with it, so that
  // reading takes time in proportion to what somebody wrote.
  void allow(std::string_view text) { nodes_max = std::min(kMaxNodes, nodes_max + 8 * text.size()); }
};

Result<Value> read_file(const std::string& path, const Sources& sources);
Result<Value> read_file(const std::string& path, ReadState& state);

// The NATS grammar. `path` is for messages and relative includes.
Result<Value> parse_conf(std::string_view text, const std::string& path, ReadState& state);

bool is_yaml_path(std::string_view path);

// An include of `path` inside the file `from`.
std::string include_path(const std::string& from, const std::string& path);

// What a bare $NAME stands for; `scopes` are the enclosing maps, outermost first. Marks what it found as used.
Result<Value> resolve_variable(const std::string& name, const Position& position, const std::vector<Value*>& scopes,
                               ReadState& state);

// Of members with the same name the last one stays, where the first one stood. While a map is being read they all stand
// there.
void unite_members(Value& map);

}  // namespace peregrine::config
