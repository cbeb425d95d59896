#include "config/value.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "config/characters.h"

namespace peregrine::config {
namespace {

constexpr char kHex[] = "0123456789abcdef";

void append_string(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) {
      out += "\\ufffd";
      text.remove_prefix(1);
      continue;
    }
    const std::string_view rune = text.substr(0, length);
    text.remove_prefix(length);
    if (rune == "\u2028" || rune == "\u2029") {
      out += rune == "\u2028" ? "\\u2028" : "\\u2029";
      continue;
    }
    const char c = rune[0];
    if (const char letter = short_escape(c); letter != 0) {
      out += {'\\', letter};
    } else if (length == 1 && (static_cast<unsigned char>(c) < 0x20 || c == '<' || c == '>' || c == '&')) {
      out += "\\u00";
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[static_cast<unsigned char>(c) & 15];
    } else {
      out += rune;
    }
  }
  out += '"';
}

// The shortest decimal that reads back, in the notation Go chooses: exponents only below 1e-6 and from 1e21.
void append_float(std::string& out, double number) {
  const double magnitude = std::abs(number);
  const bool exponent = magnitude != 0 && (magnitude < 1e-6 || magnitude >= 1e21);
  std::array<char, 512> buffer;
  const auto format = exponent ? std::chars_format::scientific : std::chars_format::fixed;
  const auto [end, code] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, format);
  std::string text(buffer.data(), end);
  if (exponent && text.size() > 4 && text[text.size() - 4] == 'e' && text[text.size() - 3] == '-' &&
      text[text.size() - 2] == '0') {
    text.erase(text.size() - 2, 1);
  }
  out += text;
}

void append_json(std::string& out, const Value& value) {
  switch (value.kind) {
    case Value::Kind::kNull:
      out += "null";
      return;
    case Value::Kind::kBool:
      out += value.boolean ? "true" : "false";
      return;
    case Value::Kind::kInteger:
      out += std::to_string(value.integer);
      return;
    case Value::Kind::kFloat:
      append_float(out, value.real);
      return;
    case Value::Kind::kDatetime:
    case Value::Kind::kString:
      append_string(out, value.text);
      return;
    case Value::Kind::kArray: {
      out += '[';
      for (const Value& item : value.items) {
        if (&item != value.items.data()) out += ',';
        append_json(out, item);
      }
      out += ']';
      return;
    }
    case Value::Kind::kMap: {
      std::vector<const Member*> sorted;
      for (const Member& member : value.members) sorted.push_back(&member);
      std::sort(sorted.begin(), sorted.end(), [](const Member* a, const Member* b) { return a->key < b->key; });
      out += '{';
      for (std::size_t i = 0; i < sorted.size(); ++i) {
        if (i > 0) out += ',';
        append_string(out, sorted[i]->key);
        out += ':';
        append_json(out, sorted[i]->value);
      }
      out += '}';
      return;
    }
  }
}

}  // namespace

std::string to_string(const Position& position) {
  if (!position.file) return {};
  return fmt::format("{}:{}:{}", *position.file, position.line, position.column);
}

std::string at(const Position& position, std::string_view text) {
  if (!position.file) return std::string(text);
  return fmt::format("{}: {}", to_string(position), text);
}

const Value* Value::find(std::string_view key) const {
  for (const Member& member : members) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

std::string_view describe(Value::Kind kind) {
  switch (kind) {
    case Value::Kind::kNull:
      return "no value";
    case Value::Kind::kBool:
      return "a boolean";
    case Value::Kind::kInteger:
      return "an integer";
    case Value::Kind::kFloat:
      return "a float";
    case Value::Kind::kDatetime:
      return "a datetime";
    case Value::Kind::kString:
      return "a string";
    case Value::Kind::kArray:
      return "an array";
    case Value::Kind::kMap:
      return "a map";
  }
  return "";
}

std::size_t count_nodes(const Value& value, std::size_t limit) {
  std::size_t count = 1;
  for (const Value& item : value.items) {
    if (count > limit) return limit + 1;
    count += count_nodes(item, limit - count);
  }
  for (const Member& member : value.members) {
    if (count > limit) return limit + 1;
    count += count_nodes(member.value, limit - count);
  }
  return std::min(count, limit + 1);
}

std::string to_json(const Value& value) {
  std::string out;
  append_json(out, value);
  return out;
}

std::string digest(const Value& value) {
  const std::string json = to_json(value) + "\n";  // Go's encoder ends a document with a newline, and it is hashed
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash;
  unsigned length = 0;
  if (EVP_Digest(json.data(), json.size(), hash.data(), &length, EVP_sha256(), nullptr) != 1) return {};
  std::string text = "sha256:";
  for (unsigned i = 0; i < length; ++i) {
    text += kHex[hash[i] >> 4];
    text += kHex[hash[i] & 15];
  }
  return text;
}

}  // namespace peregrine::config
