// What both configuration fuzzers share: a world without a disk, and the checks that hold for every input.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

#include "config/load.h"
#include "config/parser.h"

namespace peregrine::config::fuzz {

// Files and variables an input may refer to, one of them broken, one of them itself.
inline Sources sources(const std::string& main_path, const std::string& main_text) {
  return {[=](const std::string& path) -> Result<std::string> {
            if (path == main_path) return main_text;
            if (path == "a.conf") return std::string("x: 1\nuser: a\ny { z: $V }\n");
            if (path == "b.yaml") return std::string("x: 2\nlist: [1, two]\n");
            if (path == "c.conf") return std::string("include ") + main_path;
            return Error{"open " + path + ": no such file or directory"};
          },
          [](const std::string& name) -> std::optional<std::string> {
            if (name == "V") return "[1, 2s, {a: b}]";
            if (name == "W") return "$V";
            if (name == "X") return "$Y";
            if (name == "Y") return "$X";
            if (name == "Z") return "]";
            return std::nullopt;
          }};
}

inline void require(bool condition) {
  if (!condition) std::abort();
}

inline void run(const std::string& path, const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const Sources world = sources(path, text);
  const Result<Value> first = read_file(path, world);
  if (!first) {
    require(!first.error().empty());
    return;
  }
  // Reading has no memory: twice the same file is twice the same tree.
  const Result<Value> second = read_file(path, world);
  require(second.has_value() && to_json(*first) == to_json(*second));

  LoadedFile loaded = load_tree(*first);
  finish(loaded);
  for (const Problem& problem : loaded.errors) require(!problem.text.empty());
  // Completing is idempotent, and what was accepted fits together.
  LoadedFile again = loaded;
  again.errors.clear();
  finish(again);
  require(again.options == loaded.options);
  if (loaded.errors.empty()) require(again.errors.empty());
}

}  // namespace peregrine::config::fuzz
