// A disk and an environment made of strings, and loading from them.
#pragma once

#include <map>
#include <string>

#include "config/load.h"
#include "config/parser.h"

namespace peregrine::config::test {

struct World {
  std::map<std::string, std::string> files;
  std::map<std::string, std::string> variables;

  Sources sources() const {
    return {[this](const std::string& path) -> Result<std::string> {
              const auto found = files.find(path);
              if (found == files.end()) return Error{"open " + path + ": no such file or directory"};
              return found->second;
            },
            [this](const std::string& name) -> std::optional<std::string> {
              const auto found = variables.find(name);
              if (found == variables.end()) return std::nullopt;
              return found->second;
            }};
  }
};

// Reads `text` as the file main.conf or main.yaml.
inline Result<Value> tree_of(const std::string& text, const std::string& path = "main.conf", World world = {}) {
  world.files[path] = text;
  const Sources sources = world.sources();
  return read_file(path, sources);
}

// Loads and finishes it; everything wrong with it is in errors.
inline LoadedFile load(const std::string& text, const std::string& path = "main.conf", World world = {}) {
  world.files[path] = text;
  const Sources sources = world.sources();
  LoadedFile loaded = load_file(path, sources);
  if (loaded.errors.empty()) finish(loaded);
  return loaded;
}

// The JSON of a file's tree, or its error.
inline std::string json_of(const std::string& text, const std::string& path = "main.conf", World world = {}) {
  const Result<Value> tree = tree_of(text, path, std::move(world));
  return tree ? to_json(*tree) : tree.error();
}

// Options as if they had come from no file: what two grammars must agree on.
inline Options without_origin(Options options) {
  options.config_file.clear();
  options.config_digest.clear();
  return options;
}

// Binds a tree without refusing what is not built: how everything known is shown to parse.
inline LoadedFile bind_all(const std::string& text, const std::string& path = "main.conf") {
  const Result<Value> tree = tree_of(text, path);
  if (tree) return load_tree(*tree, /*refuse_unsupported=*/false);
  LoadedFile failed;
  failed.errors.push_back({{}, tree.error()});
  return failed;
}

}  // namespace peregrine::config::test
