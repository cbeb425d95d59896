#include "config/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <sstream>
#include <unordered_map>

#include "config/characters.h"
#include "config/size_and_time.h"

namespace peregrine::config {
namespace {

bool looks_like_number(std::string_view text) {
  if (!text.empty() && text[0] == '-') text.remove_prefix(1);
  return !text.empty() && text[0] >= '0' && text[0] <= '9';
}

// Reads the file once without building anything, because yaml-cpp builds without bound: aliases that spell out billions
// of values, brackets nested to the end of the stack, and, behind some mistakes, one empty document after the other for
// ever. What does not fit is thrown as an exception at its place.
class Survey : public YAML::EventHandler {
 public:
  Survey(const ReadState& state) : nodes_(state.nodes), nodes_max_(state.nodes_max) {}

  // To be asked after each document; a second one is one too many.
  int documents() const { return documents_; }

  void OnDocumentStart(const YAML::Mark&) override { ++documents_; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { leaf(mark, anchor); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, const std::string&) override {
    leaf(mark, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto size = sizes_.find(anchor);
    if (size == sizes_.end()) throw YAML::Exception(mark, "an alias inside of what it stands for");
    add(mark, size->second);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(mark, anchor);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(mark, anchor);
  }
  void OnMapEnd() override { end(); }

 private:
  struct Open {
    YAML::anchor_t anchor;
    std::size_t nodes_before;
  };

  void add(const YAML::Mark& mark, std::size_t nodes) {
    nodes_ += nodes;
    if (nodes_ > nodes_max_) throw YAML::Exception(mark, "too many values");
  }
  void leaf(const YAML::Mark& mark, YAML::anchor_t anchor) {
    add(mark, 1);
    if (anchor != 0) sizes_[anchor] = 1;
  }
  void begin(const YAML::Mark& mark, YAML::anchor_t anchor) {
    open_.push_back({anchor, nodes_});
    if (open_.size() > kMaxDepth) throw YAML::Exception(mark, "nested too deeply");
    add(mark, 1);
  }
  void end() {
    if (open_.back().anchor != 0) sizes_[open_.back().anchor] = nodes_ - open_.back().nodes_before;
    open_.pop_back();
  }

  int documents_ = 0;
  std::size_t nodes_;  // keys count as well
  const std::size_t nodes_max_;
  std::vector<Open> open_;
  std::unordered_map<YAML::anchor_t, std::size_t> sizes_;
};

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
    if (++state_.nodes > state_.nodes_max) return fail(value.position, "too many values");
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
      map.members.push_back({key, std::move(value)});
    }
    unite_members(map);
    return true;
  }

  bool include(const YAML::Node& node, Value& map, const Position& position) {
    if (node.IsSequence()) {
      for (const YAML::Node& item : node) {
        if (!include(item, map, position)) return false;
        if (++state_.nodes > state_.nodes_max) return fail(position, "too many values");
      }
      return true;
    }
    if (!node.IsScalar()) return fail(position, "include must be a file name or a list of them");
    Result<Value> included = read_file(include_path(path_, node.Scalar()), state_);
    if (!included)
      return fail(position, fmt::format("error parsing include file '{}', {}", node.Scalar(), included.error()));
    for (Member& member : included->members) map.members.push_back(std::move(member));
    return true;
  }

  bool scalar(const YAML::Node& node, Value& value) {
    const std::string& text = node.Scalar();
    value.text = text;
    value.kind = Value::Kind::kString;
    // "!" is yaml-cpp's tag of a quoted or block scalar, "?" of a plain one; any other tag was written by the user.
    if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return true;
    for (const std::string_view word : {"true", "yes", "on"}) {
      if (same_letters(text, word)) return boolean(value, true);
    }
    for (const std::string_view word : {"false", "no", "off"}) {
      if (same_letters(text, word)) return boolean(value, false);
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
    std::istringstream stream{std::string(text)};
    Survey survey(state);
    for (YAML::Parser parser(stream); parser.HandleNextDocument(survey);) {
      if (survey.documents() > 1) return Error{fmt::format("{}: more than one YAML document", path)};
    }
    const YAML::Node document = YAML::Load(std::string(text));
    Value top;
    top.kind = Value::Kind::kMap;
    top.position = copier.position(YAML::Mark());
    if (!document.IsDefined() || document.IsNull()) return top;
    if (!document.IsMap())
      return Error{at(copier.position(document.Mark()), "a configuration must be a map of options")};
    if (!copier.copy(document, top, 0)) return Error{copier.error()};
    return top;
  } catch (const YAML::Exception& error) {
    return Error{at(copier.position(error.mark), error.msg)};
  }
}

}  // namespace peregrine::config
