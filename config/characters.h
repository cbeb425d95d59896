// Characters of text that somebody else wrote: what JSON and the log (core/go_format.h) need to know to write it
// safely. Pure functions, any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace peregrine::config {

// Length in bytes of the UTF-8 character `text` begins with; 0 when it does not begin with a valid one.
size_t utf8_length(std::string_view text);

// What JSON and Go write as a backslash and one letter: the letter; 0: `c` is not written so.
char short_escape(char c);

// ASCII letters; all others stay as they are.
constexpr char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
std::string to_lower(std::string_view text);
// But for the case of ASCII letters.
bool same_letters(std::string_view a, std::string_view b);

}  // namespace peregrine::config
