#include "config/lexer.h"

#include <fmt/format.h>

#include <array>

#include "config/characters.h"

namespace peregrine::config {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_newline(char c) { return c == '\n' || c == '\r'; }
bool is_indent(char c) { return c == ' ' || c == '\t'; }
bool is_separator(char c) { return c == ':' || c == '='; }

bool is_size_prefix(char c) { return std::string_view("kKmMgGtTpPeE").find(c) != std::string_view::npos; }
bool is_size_letter(char c) { return c == 'b' || c == 'B' || c == 'i' || c == 'I'; }

// What may follow a number. ']' is ours: nats-server 2.15 stumbles over [1, 2] and wants a blank before the bracket.
bool ends_number(char c) { return is_newline(c) || is_indent(c) || c == '}' || c == ']' || c == ';' || c == ','; }
bool ends_bare_string(char c) { return ends_number(c); }

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_bool(std::string_view text) {
  const std::string word = to_lower(text);
  return word == "true" || word == "false" || word == "on" || word == "off" || word == "yes" || word == "no";
}

}  // namespace

Lexer::Lexer(std::string_view text, std::shared_ptr<const std::string> file) : text_(text), file_(std::move(file)) {
  if (text_.substr(0, kByteOrderMark.size()) == kByteOrderMark) text_.remove_prefix(kByteOrderMark.size());
}

Position Lexer::position() const {
  const std::size_t end = std::min(next_, text_.size());
  for (; counted_ < end; ++counted_) {
    if (text_[counted_] == '\n') {
      ++line_;
      line_start_ = counted_ + 1;
    }
  }
  return {file_, line_, static_cast<int>(end - line_start_) + 1};
}

bool Lexer::fail(std::string text) {
  error_ = std::move(text);
  error_position_ = position();
  return false;
}

std::string Lexer::here() const {
  if (at_end()) return "EOF";
  return peek() == '\n' ? "\\n" : peek() == '\r' ? "\\r" : std::string(1, peek());
}

std::size_t Lexer::space_length() const {
  const std::string_view rest = text_.substr(next_);
  if (rest.empty()) return 0;
  const char c = rest[0];
  if (c == ' ' || (c >= '\t' && c <= '\r')) return 1;
  static constexpr std::array<std::string_view, 10> kSpaces = {"\u0085", "\u00a0", "\u1680", "\u2028", "\u2029",
                                                               "\u202f", "\u205f", "\u3000", "\u2000", "\u200a"};
  for (const std::string_view space : kSpaces) {
    if (rest.substr(0, space.size()) == space) return space.size();
  }
  // U+2001 to U+2009
  return rest.size() >= 3 && rest.substr(0, 2) == "\xe2\x80" && rest[2] >= '\x81' && rest[2] <= '\x89' ? 3 : 0;
}

void Lexer::skip_space() {
  for (std::size_t length = space_length(); length > 0; length = space_length()) next_ += length;
}

void Lexer::skip_indent() {
  while (!at_end() && is_indent(peek())) take();
}

bool Lexer::skip_comment() {
  const std::string_view rest = text_.substr(std::min(next_, text_.size()));
  if (rest.empty() || (rest[0] != '#' && rest.substr(0, 2) != "//")) return false;
  while (!at_end() && !is_newline(peek())) take();
  return true;
}

void Lexer::skip_blank() {
  do skip_space();
  while (skip_comment());
}

bool Lexer::key(std::string& text, bool& is_include) {
  is_include = false;
  if (peek() == '"' || peek() == '\'') {
    const char quote = peek();
    take();
    return raw_quoted(quote, text);
  }
  const std::size_t start = next_;
  take();  // whatever it is, it is not space or a separator: the parser looked
  while (!at_end() && space_length() == 0 && !is_separator(peek())) take();
  text = text_.substr(start, next_ - start);
  is_include = space_length() > 0 && to_lower(text) == "include";
  return true;
}

bool Lexer::include(std::string& path) {
  skip_indent();
  const char first = peek();
  if (at_end()) return fail("Expected include value but found EOF");
  if (first == '\'' || first == '"') {
    take();
    return raw_quoted(first, path);
  }
  const char* found = first == '['                      ? "start of an array"
                      : first == '{'                    ? "start of a map"
                      : first == '('                    ? "start of a block"
                      : first == '\\'                   ? "escape sequence"
                      : is_newline(first)               ? "new line"
                      : is_digit(first) || first == '-' ? "start of a number"
                                                        : nullptr;
  if (found != nullptr) return fail(fmt::format("Expected include value but found {}", found));
  const std::size_t start = next_;
  while (!at_end() && !is_newline(peek()) && !is_indent(peek()) && peek() != ';' && peek() != '}' && peek() != '\'')
    take();
  path = text_.substr(start, next_ - start);
  if (peek() == '\'') take();
  return true;
}

bool Lexer::value(Token& token, std::string& text) {
  skip_indent();
  text.clear();
  const char first = peek();
  token = Token::kString;
  if (at_end()) return bare_string(next_, token, text);
  switch (first) {
    case '[':
      take();
      token = Token::kArray;
      return true;
    case '{':
      take();
      token = Token::kMap;
      return true;
    case '\'':
      take();
      return raw_quoted('\'', text);
    case '"':
      take();
      return double_quoted(text);
    case '(':
      take();
      return block(text);
    case '.':
      return fail("Floats must start with a digit");
    default:
      break;
  }
  if (is_newline(first)) return fail("Expected value but found new line");
  if (first == '-' || is_digit(first)) return number(token, text);
  return bare_string(next_, token, text);
}

// Integer, size, float, datetime, or a word that only began like one: 10s, 127.0.0.1:4222.
bool Lexer::number(Token& token, std::string& text) {
  const std::size_t start = next_;
  const bool negative = peek() == '-';
  if (negative) take();
  if (!is_digit(peek())) {
    if (peek() == '.') return fail("Floats must start with a digit, not '.'.");
    return fail(fmt::format("Expected a digit but got '{}'.", here()));
  }
  while (is_digit(peek())) take();

  const auto finish = [&](Token kind) {
    token = kind;
    text = text_.substr(start, next_ - start);
    return true;
  };

  if (peek() == '.') {
    take();
    if (!is_digit(peek()))
      return fail(fmt::format("Floats must have a digit after the '.', but got '{}' instead.", here()));
    while (is_digit(peek())) take();
    if (peek() != '.') return finish(Token::kFloat);
    while (!at_end() && (is_digit(peek()) || peek() == '.' || peek() == ':' || peek() == '-')) take();  // an address
    return finish(Token::kString);
  }
  if (is_size_prefix(peek())) {
    take();
    while (is_size_letter(peek())) take();
    if (at_end() || ends_number(peek())) return finish(Token::kInteger);
    return bare_string(start, token, text);
  }
  if (negative || at_end() || ends_number(peek())) return finish(Token::kInteger);
  if (peek() == '-') {
    if (next_ - start != 4) return fail("All ISO8601 dates must be in full Zulu form.");
    return datetime(start, token, text);
  }
  take();  // the first character after the digits belongs to the word whatever it is
  return bare_string(start, token, text);
}

bool Lexer::datetime(std::size_t start, Token& token, std::string& text) {
  for (const char expected : std::string_view("-00-00T00:00:00Z")) {
    if (expected == '0') {
      if (!is_digit(peek()))
        return fail(fmt::format("Expected digit in ISO8601 datetime, but found '{}' instead.", here()));
    } else if (peek() != expected) {
      return fail(fmt::format("Expected '{}' in ISO8601 datetime, but found '{}' instead.", expected, here()));
    }
    take();
  }
  text = text_.substr(start, next_ - start);
  const auto field = [&](std::size_t at) { return (text[at] - '0') * 10 + (text[at + 1] - '0'); };
  const int year = field(0) * 100 + field(2);
  const int month = field(5);
  constexpr std::array<int, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  const bool month_ok = month >= 1 && month <= 12;
  const int days = !month_ok ? 0 : kDays[static_cast<std::size_t>(month - 1)] + (month == 2 && leap ? 1 : 0);
  if (!month_ok || field(8) < 1 || field(8) > days || field(11) > 23 || field(14) > 59 || field(17) > 59) {
    return fail(fmt::format("expected Zulu formatted DateTime, but got '{}'", text));
  }
  token = Token::kDatetime;
  return true;
}

// From start (text up to next_ is already known to belong to it) to whatever ends a bare word.
bool Lexer::bare_string(std::size_t start, Token& token, std::string& text) {
  text = text_.substr(start, next_ - start);
  bool escaped = false;
  bool quoted = false;
  while (!at_end() && !ends_bare_string(peek())) {
    if (peek() == '\'') {  // a stray closing quote ends the word and is dropped
      take();
      quoted = true;
      break;
    }
    if (peek() == '\\') {
      take();
      escaped = true;
      if (!escape(text)) return false;
      continue;
    }
    text += peek();
    take();
  }
  token = Token::kString;
  if (escaped || quoted) return true;
  if (is_bool(text)) {
    token = Token::kBool;
  } else if (!text.empty() && text[0] == '$') {
    token = Token::kVariable;
    text.erase(0, 1);
  }
  return true;
}

bool Lexer::raw_quoted(char quote, std::string& text) {
  const std::size_t start = next_;
  while (!at_end() && peek() != quote) take();
  if (at_end()) return fail("Unexpected EOF.");
  text = text_.substr(start, next_ - start);
  take();
  return true;
}

bool Lexer::double_quoted(std::string& text) {
  text.clear();
  while (!at_end() && peek() != '"') {
    if (peek() == '\\') {
      take();
      if (!escape(text)) return false;
      continue;
    }
    text += peek();
    take();
  }
  if (at_end()) return fail("Unexpected EOF.");
  take();
  return true;
}

// The backslash is consumed.
bool Lexer::escape(std::string& text) {
  const char c = peek();
  if (!at_end()) take();
  switch (c) {
    case 't':
      text += '\t';
      return true;
    case 'n':
      text += '\n';
      return true;
    case 'r':
      text += '\r';
      return true;
    case '"':
      text += '"';
      return true;
    case '\\':
      text += '\\';
      return true;
    case 'x':
      break;
    default:
      return fail(
          fmt::format("Invalid escape character '{}'. Only the following escape characters are allowed: "
                      "\\xXX, \\t, \\n, \\r, \\\", \\\\.",
                      c == '\n' ? "\\n" : std::string(1, c)));
  }
  int byte = 0;
  for (int i = 0; i < 2; ++i) {
    if (at_end() || is_newline(peek())) {
      return fail("Expected two hexadecimal digits after '\\x', but hit end of line");
    }
    const int digit = hex_digit(peek());
    if (digit < 0)
      return fail(fmt::format("Expected two hexadecimal digits after '\\x', but got '{}'", text_.substr(next_ - i, 2)));
    byte = byte * 16 + digit;
    take();
  }
  text += static_cast<char>(byte);
  return true;
}

// ( ... up to a ) alone on its line. The text keeps the newlines at both of its ends.
bool Lexer::block(std::string& text) {
  const std::size_t start = next_;
  for (; !at_end(); take()) {
    if (peek() != ')' || next_ == 0 || text_[next_ - 1] != '\n') continue;
    const bool last = next_ + 1 == text_.size();
    if (!last && text_[next_ + 1] != '\n') continue;
    text = text_.substr(start, next_ - start);
    take();
    return true;
  }
  return fail("Unexpected EOF processing block.");
}

}  // namespace peregrine::config
