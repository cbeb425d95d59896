// Binder: Value tree -> Options, driven by one declarative table of keys (keys.h).
//
// It collects every problem instead of stopping at the first: unknown keys with the nearest known name, wrong types,
// values out of range. A problem says where it stands. Pure: no files, no environment.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/options.h"
#include "config/value.h"

namespace peregrine::config {

struct Key;
struct Section;

struct Problem {
  Position position;
  std::string text;
  std::string to_string() const { return at(position, text); }
};

class Binder {
 public:
  // Applies the members of a map to `target`, which must be of the type the section was written for.
  void bind(const Section& section, void* target, const Value& map);

  void error(const Position& position, std::string text) { errors_.push_back({position, std::move(text)}); }
  void warn(const Position& position, std::string text) { warnings_.push_back({position, std::move(text)}); }
  // `"name" must be X, got Y`
  void type_error(const Value& value, std::string_view name, std::string_view expected);

  const std::vector<Problem>& errors() const { return errors_; }
  const std::vector<Problem>& warnings() const { return warnings_; }
  // Every key that was met, in order: the reference file's test proves with it that no option is missing.
  const std::vector<const Key*>& seen() const { return seen_; }

 private:
  std::vector<Problem> errors_;
  std::vector<Problem> warnings_;
  std::vector<const Key*> seen_;
};

// The known word nearest to a misspelt one, empty if none is near.
std::string nearest(std::string_view word, const std::vector<std::string_view>& known);

}  // namespace peregrine::config
