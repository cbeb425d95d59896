// Lexer: NATS's configuration grammar, one item at a time.
//
// The grammar is not regular in its separators: what ends a value, and where a newline is allowed, depends on whether
// it stands at the top, in a map or in an array. So the parser (parser.h) says what may come next and the lexer reads
// exactly that. It looks at bytes; UTF-8 passes through, Unicode white space counts as white space, a byte order mark
// at the start is skipped.
//
// Errors: a function that fails leaves its text and place in error()/error_position() and returns false; nothing may be
// read after that.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "config/value.h"

namespace peregrine::config {

class Lexer {
 public:
  enum class Token {
    kString,
    kBool,
    kInteger,  // with its suffix
    kFloat,
    kDatetime,
    kVariable,  // text is the name, without its $
    kArray,     // the [ is consumed
    kMap,       // the { is consumed
  };

  // text must outlive the lexer.
  Lexer(std::string_view text, std::shared_ptr<const std::string> file);

  Position position() const;
  bool at_end() const { return next_ >= text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[next_]; }
  void take() { ++next_; }

  // White space, newlines and comments.
  void skip_blank();
  // White space and newlines; between a key and its value '#' does not begin a comment.
  void skip_space();
  // Spaces and tabs.
  void skip_indent();
  // Consumes a comment up to, not including, its newline. False if there is none here.
  bool skip_comment();

  // A key, bare or quoted, without what follows it. is_include: it was the bare word include, followed by a file name.
  bool key(std::string& text, bool& is_include);
  // The file name of an include.
  bool include(std::string& path);
  // A value's scalar, or the opening bracket of an array or map.
  bool value(Token& token, std::string& text);

  const std::string& error() const { return error_; }
  const Position& error_position() const { return error_position_; }
  bool fail(std::string text);
  // What stands here, for a message: the character, \n, or EOF.
  std::string here() const;

 private:
  bool number(Token& token, std::string& text);
  bool datetime(std::size_t start, Token& token, std::string& text);
  bool bare_string(std::size_t start, Token& token, std::string& text);
  bool double_quoted(std::string& text);
  bool raw_quoted(char quote, std::string& text);
  bool block(std::string& text);
  bool escape(std::string& text);
  std::size_t space_length() const;  // bytes of the white space character here, 0 if there is none

  std::string_view text_;
  std::shared_ptr<const std::string> file_;
  std::size_t next_ = 0;
  // Line bookkeeping is lazy: position() counts newlines from where it last stood.
  mutable std::size_t counted_ = 0;
  mutable std::size_t line_start_ = 0;
  mutable int line_ = 1;
  std::string error_;
  Position error_position_;
};

}  // namespace peregrine::config
