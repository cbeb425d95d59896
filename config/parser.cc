#include "config/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <unordered_map>

#include "config/characters.h"
#include "config/lexer.h"
#include "config/size_and_time.h"
#include "config/yaml.h"

namespace peregrine::config {
namespace {

constexpr std::size_t kMaxIncludeDepth = 32;
constexpr std::size_t kMaxFileBytes = 64 << 20;

// strerror() begins with a capital, Go's texts do not, and scripts compare.
std::string reason(int code) {
  std::string text = std::generic_category().message(code);
  if (!text.empty()) text[0] = to_lower(text[0]);
  return text;
}

Result<std::string> read_from_disk(const std::string& path) {
  std::error_code code;
  if (std::filesystem::is_directory(path, code)) return Error{fmt::format("read {}: {}", path, reason(EISDIR))};
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return Error{fmt::format("open {}: {}", path, reason(errno != 0 ? errno : EIO))};
  std::string text;
  while (stream) {
    const std::size_t before = text.size();
    if (before > kMaxFileBytes) return Error{fmt::format("read {}: larger than {} MiB", path, kMaxFileBytes >> 20)};
    text.resize(std::max<std::size_t>(before * 2, 64 << 10));
    stream.read(text.data() + before, static_cast<std::streamsize>(text.size() - before));
    text.resize(before + static_cast<std::size_t>(stream.gcount()));
  }
  if (stream.bad()) return Error{fmt::format("read {}: {}", path, reason(EIO))};
  return text;
}

// One file (or one environment variable) being read.
class Parser {
 public:
  Parser(std::string_view text, const std::string& path, ReadState& state)
      : file_(std::make_shared<const std::string>(path)), lexer_(text, file_), state_(state) {}

  Result<Value> parse() {
    Value top;
    top.kind = Value::Kind::kMap;
    top.position = {file_, 1, 1};
    scopes_.push_back(&top);
    if (!top_level(top)) return Error{at(lexer_.error_position(), lexer_.error())};
    unite_members(top);
    return top;
  }

 private:
  // What may stand after a value, and what ends the map, is all that differs between the three places a map can be
  // written.
  enum class Place { kTop, kFileBraces, kMap };

  bool top_level(Value& top) {
    for (;;) {
      lexer_.skip_blank();
      if (lexer_.at_end()) return true;
      if (lexer_.peek() == '{') {
        lexer_.take();
        if (!file_braces(top, 1)) return false;
        continue;
      }
      if (lexer_.peek() == '}') {  // a JSON file's last brace may stand without its first
        lexer_.take();
        lexer_.skip_blank();
        if (lexer_.at_end()) return true;
        return lexer_.fail("Unexpected '}'.");
      }
      if (!member(top, Place::kTop, 1)) return false;
    }
  }

  // { the whole file }
  bool file_braces(Value& top, int depth) {
    if (depth > kMaxDepth) return lexer_.fail("nested too deeply");
    for (;;) {
      lexer_.skip_blank();
      if (lexer_.at_end()) return lexer_.fail("Unexpected EOF, the '}' of the file is missing.");
      if (lexer_.peek() == '}') {
        lexer_.take();
        return true;
      }
      if (lexer_.peek() == ',' || lexer_.peek() == ';') {
        lexer_.take();
        continue;
      }
      if (lexer_.peek() == '{') {
        lexer_.take();
        if (!file_braces(top, depth + 1)) return false;
        continue;
      }
      if (!member(top, Place::kFileBraces, 1)) return false;
    }
  }

  bool map(Value& map, int depth) {
    for (;;) {
      lexer_.skip_blank();
      if (lexer_.at_end()) return lexer_.fail("Unexpected EOF processing map.");
      if (lexer_.peek() == '}') {
        lexer_.take();
        unite_members(map);
        return true;
      }
      if (lexer_.peek() == ']') return lexer_.fail("Unexpected array end ']' processing map.");
      if (!member(map, Place::kMap, depth)) return false;
    }
  }

  bool member(Value& map, Place place, int depth) {
    const Position position = lexer_.position();
    if (lexer_.peek() == ':' || lexer_.peek() == '=') {
      return lexer_.fail(fmt::format("Unexpected key separator '{}'", lexer_.peek()));
    }
    std::string name;
    bool is_include = false;
    if (!lexer_.key(name, is_include)) return false;
    if (is_include) return include(map) && end_of_value(place);

    lexer_.skip_space();
    if (lexer_.at_end()) return lexer_.fail(fmt::format("config is invalid: no value for \"{}\"", name));
    if (lexer_.peek() == ':' || lexer_.peek() == '=') {
      lexer_.take();
      // Only inside a map may the value stand on the next line.
      if (place == Place::kMap) lexer_.skip_space();
    }
    if (place != Place::kTop && (lexer_.peek() == '}' || lexer_.peek() == ',')) {
      return lexer_.fail(fmt::format("Expected a value for \"{}\" but got '{}'", name, lexer_.peek()));
    }
    Value value;
    if (!this->value(value, depth)) return false;
    value.position = position;
    map.members.push_back({std::move(name), std::move(value)});
    return end_of_value(place);
  }

  bool end_of_value(Place place) {
    for (;;) {
      lexer_.skip_indent();
      if (lexer_.skip_comment()) continue;
      if (lexer_.at_end()) {
        if (place == Place::kTop) return true;
        break;
      }
      const char c = lexer_.peek();
      if (c == '\n' || c == '\r' || c == ',' || c == ';' || (c == '}' && place == Place::kTop)) {
        lexer_.take();
        return true;
      }
      if (c == '}') return true;  // the map's own end
      break;
    }
    switch (place) {
      case Place::kTop:
        return lexer_.fail(fmt::format(
            "Expected a top-level value to end with a new line, comment or EOF, but got '{}' instead.", lexer_.here()));
      case Place::kFileBraces:
        return lexer_.fail(
            fmt::format("Expected a block-level value to end with a new line, comment or EOF, but got '{}' instead.",
                        lexer_.here()));
      case Place::kMap:
        return lexer_.fail(fmt::format(
            "Expected a map value terminator ',' or a map terminator '}}', but got '{}' instead.", lexer_.here()));
    }
    return false;
  }

  bool array(Value& array, int depth) {
    for (;;) {
      lexer_.skip_blank();
      if (lexer_.at_end()) return lexer_.fail("Unexpected EOF processing array.");
      if (lexer_.peek() == ']') {
        lexer_.take();
        return true;
      }
      if (lexer_.peek() == ',') return lexer_.fail("Unexpected array value terminator ','.");
      const Position position = lexer_.position();
      Value item;
      if (!value(item, depth)) return false;
      item.position = position;
      array.items.push_back(std::move(item));
      for (;;) {
        lexer_.skip_indent();
        if (!lexer_.skip_comment()) break;
      }
      const char c = lexer_.peek();
      if (c == ',' || c == '\n' || c == '\r') {
        lexer_.take();
      } else if (c != ']') {
        return lexer_.fail(fmt::format(
            "Expected an array value terminator ',' or an array terminator ']', but got '{}' instead.", lexer_.here()));
      }
    }
  }

  bool value(Value& value, int depth) {
    if (++state_.nodes > state_.nodes_max) return lexer_.fail("too many values");
    const Position position = lexer_.position();
    Lexer::Token token{};
    std::string text;
    if (!lexer_.value(token, text)) return false;
    value.position = position;
    switch (token) {
      case Lexer::Token::kArray:
      case Lexer::Token::kMap: {
        if (depth >= kMaxDepth) return lexer_.fail("nested too deeply");
        if (token == Lexer::Token::kArray) {
          value.kind = Value::Kind::kArray;
          return array(value, depth + 1);
        }
        value.kind = Value::Kind::kMap;
        scopes_.push_back(&value);
        const bool ok = map(value, depth + 1);
        scopes_.pop_back();
        return ok;
      }
      case Lexer::Token::kVariable: {
        Result<Value> found = resolve_variable(text, position, scopes_, state_);
        if (!found) return lexer_.fail(found.error());
        value = std::move(*found);
        return true;
      }
      case Lexer::Token::kInteger: {
        const Result<std::int64_t> number = parse_integer(text);
        if (!number) return lexer_.fail(number.error());
        value.kind = Value::Kind::kInteger;
        value.integer = *number;
        break;
      }
      case Lexer::Token::kFloat: {
        const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value.real);
        if (code != std::errc{}) return lexer_.fail(fmt::format("float '{}' is out of the range", text));
        value.kind = Value::Kind::kFloat;
        break;
      }
      case Lexer::Token::kBool:
        value.kind = Value::Kind::kBool;
        value.boolean = text[0] == 't' || text[0] == 'T' || text[0] == 'y' || text[0] == 'Y' ||
                        (text.size() == 2 && (text[1] == 'n' || text[1] == 'N') && (text[0] == 'o' || text[0] == 'O'));
        break;
      case Lexer::Token::kDatetime:
        value.kind = Value::Kind::kDatetime;
        break;
      case Lexer::Token::kString:
        value.kind = Value::Kind::kString;
        break;
    }
    value.text = std::move(text);
    return true;
  }

  bool include(Value& map) {
    std::string name;
    if (!lexer_.include(name)) return false;
    const std::string path = include_path(*file_, name);
    Result<Value> included = read_file(path, state_);
    if (!included) {
      lexer_.fail(fmt::format("error parsing include file '{}', {}", name, included.error()));
      return false;
    }
    for (Member& member : included->members) map.members.push_back(std::move(member));
    return true;
  }

  std::shared_ptr<const std::string> file_;
  Lexer lexer_;
  ReadState& state_;
  std::vector<Value*> scopes_;
};

Result<Value> from_environment(const std::string& name, const std::string& text, ReadState& state) {
  // What is read is a whole configuration of one key, so that every kind of value may stand in a variable.
  const std::string document = "value=" + text;
  if (state.variables.insert(name).second) state.allow(text);
  Result<Value> parsed = Parser(document, "$" + name, state).parse();
  if (!parsed) return Error{parsed.error()};
  for (Member& member : parsed->members) {
    if (member.key == "value") return std::move(member.value);
  }
  return Error{"no value"};
}

}  // namespace

Sources system_sources() {
  return {read_from_disk, [](const std::string& name) -> std::optional<std::string> {
            const char* text = std::getenv(name.c_str());
            if (text == nullptr) return std::nullopt;
            return std::string(text);
          }};
}

bool is_yaml_path(std::string_view path) {
  const auto ends_with = [&](std::string_view suffix) {
    return path.size() > suffix.size() && path.substr(path.size() - suffix.size()) == suffix;
  };
  return ends_with(".yaml") || ends_with(".yml");
}

std::string include_path(const std::string& from, const std::string& path) {
  return (std::filesystem::path(from).parent_path() / path).lexically_normal().string();
}

Result<Value> read_file(const std::string& path, const Sources& sources) {
  ReadState state(sources);
  return read_file(path, state);
}

Result<Value> read_file(const std::string& path, ReadState& state) {
  if (std::find(state.open_files.begin(), state.open_files.end(), path) != state.open_files.end()) {
    return Error{fmt::format("{} includes itself", path)};
  }
  if (state.open_files.size() >= kMaxIncludeDepth)
    return Error{fmt::format("{}: includes are nested too deeply", path)};
  Result<std::string> text = state.sources.read(path);
  if (!text) return Error{text.error()};
  state.open_files.push_back(path);
  state.allow(*text);
  Result<Value> tree = is_yaml_path(path) ? parse_yaml(*text, path, state) : parse_conf(*text, path, state);
  state.open_files.pop_back();
  return tree;
}

Result<Value> parse_conf(std::string_view text, const std::string& path, ReadState& state) {
  const std::size_t nul = text.find('\0');
  if (nul != std::string_view::npos) {
    const auto line = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(nul), '\n') + 1;
    const std::size_t start = text.rfind('\n', nul) == std::string_view::npos ? 0 : text.rfind('\n', nul) + 1;
    return Error{fmt::format("{}:{}:{}: a NUL byte: this is not a text file", path, line, nul - start + 1)};
  }
  return Parser(text, path, state).parse();
}

Result<Value> resolve_variable(const std::string& name, const Position& position, const std::vector<Value*>& scopes,
                               ReadState& state) {
  Value value;
  if (name.rfind("2a$", 0) == 0) {
    value.kind = Value::Kind::kString;
    value.text = "$" + name;
    value.position = position;
    return value;
  }
  for (auto scope = scopes.rbegin(); scope != scopes.rend(); ++scope) {
    // From the end: of several with the same name the last one counts.
    for (auto member = (*scope)->members.rbegin(); member != (*scope)->members.rend(); ++member) {
      if (member->key != name) continue;
      member->value.used_as_variable = true;
      state.nodes += count_nodes(member->value, state.nodes_max);
      if (state.nodes > state.nodes_max) return Error{"too many values"};
      value = member->value;
      value.used_as_variable = false;
      value.position = position;
      return value;
    }
  }
  if (state.open_variables.count(name) > 0) {
    return Error{
        fmt::format("variable reference for '{}' on line {} could not be parsed: variable reference cycle for '{}'",
                    name, position.line, name)};
  }
  const std::optional<std::string> text = state.sources.environment(name);
  if (!text) return Error{fmt::format("variable reference for '{}' on line {} can not be found", name, position.line)};
  state.open_variables.insert(name);
  Result<Value> parsed = from_environment(name, *text, state);
  state.open_variables.erase(name);
  if (!parsed) {
    return Error{fmt::format("variable reference for '{}' on line {} could not be parsed: {}", name, position.line,
                             parsed.error())};
  }
  parsed->position = position;
  return parsed;
}

void unite_members(Value& map) {
  std::vector<Member>& members = map.members;
  std::unordered_map<std::string_view, std::size_t> places;
  std::vector<std::size_t> places_of(members.size());
  std::size_t count = 0;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto [at, fresh] = places.try_emplace(members[i].key, count);
    count += fresh ? 1 : 0;
    places_of[i] = at->second;
  }
  if (count == members.size()) return;
  std::vector<Member> united(count);
  for (std::size_t i = 0; i < members.size(); ++i) united[places_of[i]] = std::move(members[i]);
  members = std::move(united);
}

}  // namespace peregrine::config
