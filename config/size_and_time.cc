#include "config/size_and_time.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "config/characters.h"

namespace peregrine::config {
namespace {

constexpr std::uint64_t kMaxMagnitude = std::uint64_t{1} << 63;  // of a negative duration; a positive one has one less

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Nanoseconds of one unit, 0 if there is no such unit. The micro sign has two code points.
std::uint64_t unit_ns(std::string_view unit) {
  if (unit == "ns") return 1;
  if (unit == "us" || unit == "\u00b5s" || unit == "\u03bcs") return 1'000;
  if (unit == "ms") return 1'000'000;
  if (unit == "s") return 1'000'000'000;
  if (unit == "m") return 60'000'000'000;
  if (unit == "h") return 3'600'000'000'000;
  return 0;
}

// Factor of a size suffix, 0 if there is no such suffix.
std::int64_t size_factor(std::string_view suffix) {
  if (suffix.empty()) return 1;
  constexpr std::string_view kPrefixes = "kmgtpe";
  const auto index = kPrefixes.find(to_lower(suffix[0]));
  if (index == std::string_view::npos) return 0;
  const std::string rest = to_lower(suffix.substr(1));
  const bool decimal = rest.empty();
  if (!decimal && rest != "b" && rest != "i" && rest != "ib") return 0;
  std::int64_t factor = 1;
  for (std::size_t i = 0; i <= index; ++i) factor *= decimal ? 1000 : 1024;
  return factor;
}

}  // namespace

Result<Duration> parse_duration(std::string_view text) {
  const Error invalid{fmt::format("time: invalid duration \"{}\"", text)};
  std::string_view rest = text;
  bool negative = false;
  if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) {
    negative = rest[0] == '-';
    rest.remove_prefix(1);
  }
  if (rest == "0") return Duration{0};
  if (rest.empty()) return invalid;

  std::uint64_t total = 0;
  while (!rest.empty()) {
    std::uint64_t whole = 0;
    std::uint64_t fraction = 0;
    double scale = 1;
    std::size_t digits = 0;
    while (!rest.empty() && is_digit(rest[0])) {
      if (whole > kMaxMagnitude / 10) return invalid;
      whole = whole * 10 + static_cast<std::uint64_t>(rest[0] - '0');
      if (whole > kMaxMagnitude) return invalid;
      rest.remove_prefix(1);
      ++digits;
    }
    if (!rest.empty() && rest[0] == '.') {
      rest.remove_prefix(1);
      bool overflow = false;  // digits beyond 64 bits of fraction change nothing
      while (!rest.empty() && is_digit(rest[0])) {
        overflow = overflow || fraction > (kMaxMagnitude - 10) / 10;
        if (!overflow) {
          fraction = fraction * 10 + static_cast<std::uint64_t>(rest[0] - '0');
          scale *= 10;
        }
        rest.remove_prefix(1);
        ++digits;
      }
    }
    if (digits == 0) return invalid;

    std::size_t length = 0;
    while (length < rest.size() && rest[length] != '.' && !is_digit(rest[length])) ++length;
    if (length == 0) return Error{fmt::format("time: missing unit in duration \"{}\"", text)};
    const std::string_view unit_text = rest.substr(0, length);
    rest.remove_prefix(length);
    const std::uint64_t unit = unit_ns(unit_text);
    if (unit == 0) return Error{fmt::format("time: unknown unit \"{}\" in duration \"{}\"", unit_text, text)};

    if (whole > kMaxMagnitude / unit) return invalid;
    std::uint64_t ns = whole * unit;
    if (fraction > 0)
      ns += static_cast<std::uint64_t>(static_cast<double>(fraction) * (static_cast<double>(unit) / scale));
    if (ns > kMaxMagnitude || total > kMaxMagnitude - ns) return invalid;
    total += ns;
  }
  if (negative) return Duration{static_cast<std::int64_t>(~total + 1)};
  if (total == kMaxMagnitude) return invalid;
  return Duration{static_cast<std::int64_t>(total)};
}

std::string format_duration(Duration duration) {
  const std::int64_t count = duration.count();
  if (count == 0) return "0s";
  const bool negative = count < 0;
  std::uint64_t ns = negative ? ~static_cast<std::uint64_t>(count) + 1 : static_cast<std::uint64_t>(count);

  // value/unit with up to nine decimals and no trailing zero
  const auto decimal = [](std::uint64_t value, std::uint64_t unit) {
    std::string text = fmt::format("{}", value / unit);
    std::uint64_t rest = value % unit;
    if (rest == 0) return text;
    text += '.';
    while (rest != 0) {
      unit /= 10;
      text += static_cast<char>('0' + rest / unit);
      rest %= unit;
    }
    return text;
  };

  std::string text = negative ? "-" : "";
  if (ns < 1'000) return text + fmt::format("{}ns", ns);
  if (ns < 1'000'000) return text + decimal(ns, 1'000) + "\u00b5s";
  if (ns < 1'000'000'000) return text + decimal(ns, 1'000'000) + "ms";
  const std::uint64_t minutes = ns / 60'000'000'000;
  if (minutes >= 60) text += fmt::format("{}h", minutes / 60);
  if (minutes > 0) text += fmt::format("{}m", minutes % 60);
  return text + decimal(ns % 60'000'000'000, 1'000'000'000) + "s";
}

Result<Duration> duration_from_seconds(double seconds) {
  const double ns = seconds * 1e9;
  if (!(std::abs(ns) < 9.2e18)) return Error{fmt::format("{} seconds are out of range", seconds)};
  return Duration{static_cast<std::int64_t>(ns)};
}

Result<std::int64_t> parse_integer(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code == std::errc::result_out_of_range) return Error{fmt::format("integer '{}' is out of the range", text)};
  const std::string_view suffix = text.substr(static_cast<std::size_t>(end - text.data()));
  const std::int64_t factor = size_factor(suffix);
  if (code != std::errc{} || factor == 0) return Error{fmt::format("expected integer, but got '{}'", text)};
  std::int64_t product = 0;
  if (__builtin_mul_overflow(number, factor, &product)) {
    return Error{fmt::format("integer '{}' is out of the range", text)};
  }
  return product;
}

std::string format_size(std::int64_t bytes) {
  constexpr std::array<const char*, 6> kSuffixes = {"KB", "MB", "GB", "TB", "PB", "EB"};
  std::int64_t value = bytes;
  const char* suffix = "";
  for (const char* next : kSuffixes) {
    if (value == 0 || value % 1024 != 0) break;
    value /= 1024;
    suffix = next;
  }
  return fmt::format("{}{}", value, suffix);
}

}  // namespace peregrine::config
