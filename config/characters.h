// Characters of text that somebody else wrote: what JSON and the log (core/go_format.h) need to know to write it
// safely. Pure functions, any thread.
#pragma once

#include <cstddef>
#include <string_view>

namespace peregrine::config {

// Length in bytes of the UTF-8 character `text` begins with; 0 when it does not begin with a valid one.
size_t utf8_length(std::string_view text);

// What JSON and Go write as a backslash and one letter: the letter; 0: `c` is not written so.
char short_escape(char c);

}  // namespace peregrine::config
