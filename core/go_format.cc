#include "core/go_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <ctime>
#include <iterator>

#include "config/characters.h"

namespace peregrine::core {
namespace {

constexpr uint64_t kMicrosecond = 1'000;
constexpr uint64_t kMillisecond = 1'000'000;
constexpr uint64_t kSecond = 1'000'000'000;

// `value` in units of `unit`, with the fraction's trailing zeros (and an empty fraction) left out.
std::string with_fraction(uint64_t value, uint64_t unit) {
  std::string text = std::to_string(value / unit);
  uint64_t rest = value % unit;
  if (rest == 0) return text;
  text += '.';
  for (uint64_t digit = unit / 10; rest != 0; digit /= 10) {
    text += static_cast<char>('0' + rest / digit);
    rest %= digit;
  }
  return text;
}

}  // namespace

std::string format_duration(int64_t duration_ns) {
  if (duration_ns == 0) return "0s";
  const bool negative = duration_ns < 0;
  const uint64_t ns = negative ? uint64_t{0} - static_cast<uint64_t>(duration_ns) : static_cast<uint64_t>(duration_ns);
  std::string text;
  if (ns < kMicrosecond) {
    text = std::to_string(ns) + "ns";
  } else if (ns < kMillisecond) {
    text = with_fraction(ns, kMicrosecond) + "µs";
  } else if (ns < kSecond) {
    text = with_fraction(ns, kMillisecond) + "ms";
  } else {
    const uint64_t minutes = ns / (60 * kSecond);
    if (minutes >= 60) text += std::to_string(minutes / 60) + "h";
    if (minutes > 0) text += std::to_string(minutes % 60) + "m";
    text += with_fraction(ns % (60 * kSecond), kSecond) + "s";
  }
  return negative ? "-" + text : text;
}

std::string format_uptime(int64_t duration_ns) {
  const int64_t s = duration_ns / static_cast<int64_t>(kSecond), m = s / 60, h = m / 60, d = h / 24, y = d / 365;
  if (y > 0) return fmt::format("{}y{}d{}h{}m{}s", y, d % 365, h % 24, m % 60, s % 60);
  if (d > 0) return fmt::format("{}d{}h{}m{}s", d, h % 24, m % 60, s % 60);
  if (h > 0) return fmt::format("{}h{}m{}s", h, m % 60, s % 60);
  if (m > 0) return fmt::format("{}m{}s", m, s % 60);
  return fmt::format("{}s", s);
}

std::string format_time(int64_t unix_ns) {
  time_t seconds = unix_ns / static_cast<int64_t>(kSecond);
  int64_t ns = unix_ns % static_cast<int64_t>(kSecond);
  if (ns < 0) {
    ns += static_cast<int64_t>(kSecond);
    --seconds;
  }
  tm parts{};
  gmtime_r(&seconds, &parts);
  std::string text = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1,
                                 parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
  if (ns != 0) text += with_fraction(static_cast<uint64_t>(ns), kSecond).substr(1);
  return text + "Z";
}

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      const size_t length = config::utf8_length(text.substr(i));
      // U+0080..U+009F are control characters, too.
      const bool c1_control = length == 2 && c == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0;
      if (length == 0) fmt::format_to(std::back_inserter(out), "\\x{:02x}", c);
      else if (c1_control)
        fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned char>(text[i + 1]));
      else out.append(text.substr(i, length));
      i += length == 0 ? 1 : length;
      continue;
    }
    const char letter = c == '\a' ? 'a' : c == '\v' ? 'v' : config::short_escape(static_cast<char>(c));
    if (letter != 0) out += {'\\', letter};
    else if (c < 0x20 || c == 0x7F) fmt::format_to(std::back_inserter(out), "\\x{:02x}", c);
    else out += static_cast<char>(c);
    ++i;
  }
  return out + "\"";
}

std::string printable(std::string_view text) {
  const bool plain = std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= ' ' && c != 0x7F; });
  return plain ? std::string(text) : quote(text);
}

}  // namespace peregrine::core
