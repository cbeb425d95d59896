#include "core/go_format.h"

#include <gtest/gtest.h>

#include <limits>

namespace peregrine::core {
namespace {

TEST(GoFormat, DurationsAsGoPrintsThem) {
  EXPECT_EQ(format_duration(0), "0s");
  EXPECT_EQ(format_duration(1), "1ns");
  EXPECT_EQ(format_duration(999), "999ns");
  EXPECT_EQ(format_duration(1100), "1.1µs");
  EXPECT_EQ(format_duration(481000), "481µs");
  EXPECT_EQ(format_duration(2200000), "2.2ms");
  EXPECT_EQ(format_duration(1234567), "1.234567ms");
  EXPECT_EQ(format_duration(3300000000), "3.3s");
  EXPECT_EQ(format_duration(1'000'000'001), "1.000000001s");
  EXPECT_EQ(format_duration(120'000'000'000), "2m0s");
  EXPECT_EQ(format_duration(245'000'000'000), "4m5s");
  EXPECT_EQ(format_duration(3'600'500'000'000), "1h0m0.5s");
  EXPECT_EQ(format_duration(-1500), "-1.5µs");
  EXPECT_EQ(format_duration(std::numeric_limits<int64_t>::max()), "2562047h47m16.854775807s");
  EXPECT_EQ(format_duration(std::numeric_limits<int64_t>::min()), "-2562047h47m16.854775808s");
}

TEST(GoFormat, UptimesLeaveLeadingZerosOut) {
  constexpr int64_t kSecond = 1'000'000'000;
  EXPECT_EQ(format_uptime(999'999'999), "0s");
  EXPECT_EQ(format_uptime(59 * kSecond), "59s");
  EXPECT_EQ(format_uptime(60 * kSecond), "1m0s");
  EXPECT_EQ(format_uptime(3723 * kSecond), "1h2m3s");
  EXPECT_EQ(format_uptime(86400 * kSecond), "1d0h0m0s");
  EXPECT_EQ(format_uptime((366 * 86400 + 3 * 3600 + 4 * 60 + 5) * kSecond), "1y1d3h4m5s");
}

TEST(GoFormat, TimesAreRfc3339WithTheNanosecondsThereAre) {
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(format_time(1'785'665'472'345'000'000), "2026-08-02T10:11:12.345Z");
  EXPECT_EQ(format_time(1'785'665'472'000'000'007), "2026-08-02T10:11:12.000000007Z");
  EXPECT_EQ(format_time(-1), "1969-12-31T23:59:59.999999999Z");
}

TEST(GoFormat, QuotesWhatCouldBreakALine) {
  EXPECT_EQ(quote("plain text"), "\"plain text\"");
  EXPECT_EQ(quote("a\r\nb\t\"c\"\\"), R"("a\r\nb\t\"c\"\\")");
  EXPECT_EQ(quote(std::string_view("\0\x1b[31m\x7f", 7)), R"("\x00\x1b[31m\x7f")");
  EXPECT_EQ(quote("µs \xe2\x82\xac"), "\"µs €\"");
  EXPECT_EQ(quote("\xff\xc2"), R"("\xff\xc2")");
  EXPECT_EQ(quote("\xc2\x85"), R"("\u0085")");  // a C1 control character
}

TEST(GoFormat, PrintableTextStaysAsItIs) {
  EXPECT_EQ(printable("'Authorization Violation' \xc2\xb5"), "'Authorization Violation' \xc2\xb5");
  EXPECT_EQ(printable("a\x1b[31m"), R"("a\x1b[31m")");
  EXPECT_EQ(printable("two\nlines"), R"("two\nlines")");
}

}  // namespace
}  // namespace peregrine::core
