// Value: one node of a configuration file, whichever grammar it came from.
//
// Both grammars (parser.h, yaml.h) build this tree and the binder (binder.h) reads it. Every node knows where it
// stands, so that an error can say file:line:col. Inside a map a node carries the position of its key: that is where a
// reader looks for a mistake.
//
// Invariants: keys of a map are unique (the last one in the file won) and in file order; a tree is at most kMaxDepth
// deep and holds at most kMaxNodes nodes, fewer for a short file (ReadState::allow), because a handful of variables or
// YAML aliases can spell out billions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/result.h"

namespace peregrine::config {

inline constexpr int kMaxDepth = 100;
inline constexpr std::size_t kMaxNodes = 1'000'000;

struct Position {
  std::shared_ptr<const std::string> file;  // null: not from a file
  int line = 0;                             // from 1
  int column = 0;                           // from 1, in bytes
};

// "file:line:col", empty for a position that is not from a file.
std::string to_string(const Position& position);

// "file:line:col: text"
std::string at(const Position& position, std::string_view text);

struct Member;

struct Value {
  enum class Kind { kNull, kBool, kInteger, kFloat, kDatetime, kString, kArray, kMap };

  Kind kind = Kind::kNull;
  bool boolean = false;
  std::int64_t integer = 0;
  double real = 0;
  std::string text;  // of a string or datetime; of a number or boolean its spelling in the file
  std::vector<Value> items;
  std::vector<Member> members;
  Position position;
  bool used_as_variable = false;  // a $NAME referred to it, so it may have a name no option has
  bool yaml = false;              // YAML's bare 2m is a duration; in NATS's grammar it is two million

  // The member of that exact name, or null.
  const Value* find(std::string_view key) const;
};

struct Member {
  std::string key;
  Value value;
};

// "a string", "an integer", ... for messages.
std::string_view describe(Value::Kind kind);

// Number of nodes, no more than limit + 1 (so that counting a huge tree costs nothing).
std::size_t count_nodes(const Value& value, std::size_t limit);

// The tree as JSON, byte for byte what Go's encoder writes of the same tree: keys sorted, <, > and & escaped.
std::string to_json(const Value& value);

// "sha256:<hex>" over that JSON and a newline: the digest that -t and /varz show.
std::string digest(const Value& value);

}  // namespace peregrine::config
