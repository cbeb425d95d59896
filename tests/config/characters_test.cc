#include "config/characters.h"

#include <gtest/gtest.h>

#include <string>

namespace peregrine::config {
namespace {

TEST(Characters, Utf8TakesNoOverlongFormsSurrogatesOrBeyond) {
  EXPECT_EQ(utf8_length("a"), 1u);
  EXPECT_EQ(utf8_length("µ"), 2u);
  EXPECT_EQ(utf8_length("€"), 3u);
  EXPECT_EQ(utf8_length("😀"), 4u);
  EXPECT_EQ(utf8_length(""), 0u);
  EXPECT_EQ(utf8_length("\x80"), 0u);
  EXPECT_EQ(utf8_length("\xc0\xaf"), 0u);          // overlong '/'
  EXPECT_EQ(utf8_length("\xe0\x9f\xbf"), 0u);      // overlong
  EXPECT_EQ(utf8_length("\xed\xa0\x80"), 0u);      // surrogate
  EXPECT_EQ(utf8_length("\xf4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(utf8_length("\xe2\x82"), 0u);          // cut
}

TEST(Characters, ShortEscapesAreThoseOfJson) {
  std::string escaped;
  for (int c = 0; c < 256; ++c) {
    if (const char letter = short_escape(static_cast<char>(c)); letter != 0) escaped += letter;
  }
  EXPECT_EQ(escaped, "btnfr\"\\");
}

TEST(Characters, OnlyAsciiLettersHaveACase) {
  EXPECT_EQ(to_lower("AZaz@[09\xc3\x84"), "azaz@[09\xc3\x84");
  EXPECT_TRUE(same_letters("Server_ID", "server_id"));
  EXPECT_FALSE(same_letters("[", "{"));
  EXPECT_FALSE(same_letters("name", "names"));
}

}  // namespace
}  // namespace peregrine::config
