#include "config/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <charconv>

#include "config/size_and_time.h"

namespace peregrine::config {
namespace {

bool equals_ignoring_case(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] - 'A' + 'a') : text[i];
    if (c != lower[i]) return false;
  }
  return true;
}

bool looks_like_number(std::string_view text) {
  if (!text.empty() && text[0] == '-') text.remove_prefix(1);
  return !text.empty() && text[0] >= '0' && text[0] <= '9';
}

// Copies yaml-cpp's nodes into ours. Errors are kept and stop the walk; yaml-cpp's exceptions are caught by the caller.
class Copier {
 public:
  Copier(const std::string& path, ReadState& state)
      : file_(std::make_shared<const std::string>(path)), path_(path), state_(state) {}

  Position position(const YAML::Mark& mark) const {
    if (mark.is_null()) return {file_, 1, 1};
    return {file_, mark.line + 1, mark.column + 1};
  }

  bool copy(const YAML::Node& node, Value& value, int depth) {
    value.position = position(node.Mark());
    value.yaml = true;
    if (++state_.nodes > kMaxNodes) return fail(value.position, "too many values");
    if (depth > kMaxDepth) return fail(value.position, "nested too deeply");
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null:
        value.kind = Value::Kind::kNull;
        return true;
      case YAML::NodeType::Scalar:
        return scalar(node, value);
      case YAML::NodeType::Sequence:
        value.kind = Value::Kind::kArray;
        for (const YAML::Node& item : node) {
          value.items.emplace_back();
          if (!copy(item, value.items.back(), depth + 1)) return false;
        }
        return true;
      case YAML::NodeType::Map: {
        value.kind = Value::Kind::kMap;
        scopes_.push_back(&value);
        const bool ok = members(node, value, depth);
        scopes_.pop_back();
        return ok;
      }
    }
    return fail(value.position, "unknown kind of YAML node");
  }

  const std::string& error() const { return error_; }

 private:
  bool members(const YAML::Node& node, Value& map, int depth) {
    for (const auto& pair : node) {
      const Position key_position = position(pair.first.Mark());
      if (!pair.first.IsScalar()) return fail(key_position, "a key must be a plain word");
      const std::string& key = pair.first.Scalar();
      if (key == "include" && pair.first.Tag() != "!") {
        if (!include(pair.second, map, key_position)) return false;
        continue;
      }
      Value value;
      if (!copy(pair.second, value, depth + 1)) return false;
      value.position = key_position;
      set_member(map, key, std::move(value));
    }
    return true;
  }

  bool include(const YAML::Node& node, Value& map, const Position& position) {
    if (node.IsSequence()) {
      for (const YAML::Node& item : node) {
        if (!include(item, map, position)) return false;
        if (++state_.nodes > kMaxNodes) return fail(position, "too many values");
      }
      return true;
    }
    if (!node.IsScalar()) return fail(position, "include must be a file name or a list of them");
    Result<Value> included = read_file(include_path(path_, node.Scalar()), state_);
    if (!included)
      return fail(position, fmt::format("error parsing include file '{}', {}", node.Scalar(), included.error()));
    for (Member& member : included->members) set_member(map, std::move(member.key), std::move(member.value));
    return true;
  }

  bool scalar(const YAML::Node& node, Value& value) {
    const std::string& text = node.Scalar();
    value.text = text;
    value.kind = Value::Kind::kString;
    // "!" is yaml-cpp's tag of a quoted or block scalar, "?" of a plain one; any other tag was written by the user.
    if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return true;
    for (const std::string_view word : {"true", "yes", "on"}) {
      if (equals_ignoring_case(text, word)) return boolean(value, true);
    }
    for (const std::string_view word : {"false", "no", "off"}) {
      if (equals_ignoring_case(text, word)) return boolean(value, false);
    }
    if (text.size() > 1 && text[0] == '$') {
      Result<Value> found = resolve_variable(text.substr(1), value.position, scopes_, state_);
      if (!found) return fail(value.position, found.error());
      value = std::move(*found);
      return true;
    }
    if (!looks_like_number(text)) return true;
    if (const Result<std::int64_t> number = parse_integer(text)) {
      value.kind = Value::Kind::kInteger;
      value.integer = *number;
      return true;
    }
    double real = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), real, std::chars_format::fixed);
    if (code == std::errc{} && end == text.data() + text.size() && text.find('.') != std::string::npos) {
      value.kind = Value::Kind::kFloat;
      value.real = real;
    }
    return true;
  }

  static bool boolean(Value& value, bool on) {
    value.kind = Value::Kind::kBool;
    value.boolean = on;
    return true;
  }

  bool fail(const Position& position, std::string_view text) {
    error_ = at(position, text);
    return false;
  }

  std::shared_ptr<const std::string> file_;
  const std::string& path_;
  ReadState& state_;
  std::vector<Value*> scopes_;
  std::string error_;
};

}  // namespace

Result<Value> parse_yaml(std::string_view text, const std::string& path, ReadState& state) {
  Copier copier(path, state);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) return Error{fmt::format("{}: more than one YAML document", path)};
    Value top;
    top.kind = Value::Kind::kMap;
    top.position = copier.position(YAML::Mark());
    if (documents.empty() || documents[0].IsNull()) return top;
    if (!documents[0].IsMap())
      return Error{at(copier.position(documents[0].Mark()), "a configuration must be a map of options")};
    if (!copier.copy(documents[0], top, 0)) return Error{copier.error()};
    return top;
  } catch (const YAML::Exception& error) {
    return Error{at(copier.position(error.mark), error.msg)};
  }
}

}  // namespace peregrine::config
