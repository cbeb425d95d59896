#include "config/size_and_time.h"

#include <gtest/gtest.h>

#include <random>

namespace peregrine::config {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

Duration parsed(std::string_view text) {
  const Result<Duration> duration = parse_duration(text);
  EXPECT_TRUE(duration) << text << ": " << (duration ? "" : duration.error());
  return duration ? *duration : Duration{-1};
}

std::string error_of(std::string_view text) {
  const Result<Duration> duration = parse_duration(text);
  return duration ? "" : duration.error();
}

TEST(ParseDuration, TakesWhatGoTakes) {
  EXPECT_EQ(parsed("0"), Duration{0});
  EXPECT_EQ(parsed("5s"), seconds(5));
  EXPECT_EQ(parsed("1h30m"), minutes(90));
  EXPECT_EQ(parsed("250ms"), milliseconds(250));
  EXPECT_EQ(parsed("1.5s"), milliseconds(1500));
  EXPECT_EQ(parsed(".5s"), milliseconds(500));
  EXPECT_EQ(parsed("1.s"), seconds(1));
  EXPECT_EQ(parsed("-2m3.4s"), -milliseconds(123400));
  EXPECT_EQ(parsed("+5s"), seconds(5));
  EXPECT_EQ(parsed("10us"), nanoseconds(10000));
  EXPECT_EQ(parsed("10\u00b5s"), nanoseconds(10000));
  EXPECT_EQ(parsed("10\u03bcs"), nanoseconds(10000));
  EXPECT_EQ(parsed("39h9m14.425s"), hours(39) + minutes(9) + milliseconds(14425));
  EXPECT_EQ(parsed("0.3333333333333333333h"), minutes(20));
  EXPECT_EQ(parsed("9223372036854775807ns").count(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parsed("-9223372036854775808ns").count(), std::numeric_limits<std::int64_t>::min());
}

TEST(ParseDuration, RefusesInGosWords) {
  EXPECT_EQ(error_of(""), "time: invalid duration \"\"");
  EXPECT_EQ(error_of("3"), "time: missing unit in duration \"3\"");
  EXPECT_EQ(error_of("3x"), "time: unknown unit \"x\" in duration \"3x\"");
  for (const char* text :
       {"-", "s", ".", "-.", ".s", "+.s", "9223372036854775808ns", "-9223372036854775809ns", "3000000h", "1s ."}) {
    EXPECT_NE(error_of(text), "") << text;
  }
}

TEST(FormatDuration, WritesWhatGoWrites) {
  EXPECT_EQ(format_duration(Duration{0}), "0s");
  EXPECT_EQ(format_duration(Duration{1}), "1ns");
  EXPECT_EQ(format_duration(Duration{1100}), "1.1\u00b5s");
  EXPECT_EQ(format_duration(Duration{2200000}), "2.2ms");
  EXPECT_EQ(format_duration(milliseconds(3300)), "3.3s");
  EXPECT_EQ(format_duration(minutes(2)), "2m0s");
  EXPECT_EQ(format_duration(minutes(4) + seconds(5) + Duration{1}), "4m5.000000001s");
  EXPECT_EQ(format_duration(hours(5) + minutes(6) + seconds(7)), "5h6m7s");
  EXPECT_EQ(format_duration(-seconds(10)), "-10s");
  EXPECT_EQ(format_duration(Duration{std::numeric_limits<std::int64_t>::min()}), "-2562047h47m16.854775808s");
}

TEST(FormatDuration, IsReadBackUnchanged) {
  std::mt19937_64 random(20240601);
  for (int i = 0; i < 20000; ++i) {
    const int shift = static_cast<int>(random() % 63);
    const Duration duration{static_cast<std::int64_t>(random()) >> shift};
    EXPECT_EQ(parsed(format_duration(duration)), duration) << format_duration(duration);
  }
}

TEST(ParseInteger, KnowsSizes) {
  const auto value = [](std::string_view text) {
    const Result<std::int64_t> number = parse_integer(text);
    return number ? *number : -99;
  };
  EXPECT_EQ(value("0"), 0);
  EXPECT_EQ(value("-1"), -1);
  EXPECT_EQ(value("1k"), 1000);
  EXPECT_EQ(value("1K"), 1000);
  EXPECT_EQ(value("1kb"), 1024);
  EXPECT_EQ(value("1Ki"), 1024);
  EXPECT_EQ(value("128KB"), 128 * 1024);
  EXPECT_EQ(value("64MB"), 64 << 20);
  EXPECT_EQ(value("8MiB"), 8 << 20);
  EXPECT_EQ(value("2m"), 2000000);
  EXPECT_EQ(value("1Gb"), 1 << 30);
  EXPECT_EQ(value("10GiB"), std::int64_t{10} << 30);
  EXPECT_EQ(value("1t"), 1000000000000);
  EXPECT_EQ(value("1tb"), std::int64_t{1} << 40);
  EXPECT_EQ(value("1p"), 1000000000000000);
  EXPECT_EQ(value("1eib"), std::int64_t{1} << 60);
  for (const char* text : {"", "k", "1kbb", "1x", "1.5", "9223372036854775808", "8eb", "99e", " 1", "1 "}) {
    EXPECT_FALSE(parse_integer(text)) << text;
  }
}

TEST(FormatSize, IsTheShortestExactSpelling) {
  EXPECT_EQ(format_size(0), "0");
  EXPECT_EQ(format_size(1000), "1000");
  EXPECT_EQ(format_size(4096), "4KB");
  EXPECT_EQ(format_size(64 << 20), "64MB");
  EXPECT_EQ(format_size(-1), "-1");
  for (const std::int64_t bytes : {std::int64_t{1}, std::int64_t{1025}, std::int64_t{3} << 40, std::int64_t{7} << 60}) {
    EXPECT_EQ(*parse_integer(format_size(bytes)), bytes);
  }
}

}  // namespace
}  // namespace peregrine::config
