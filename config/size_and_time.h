// Texts of sizes and durations, as NATS writes them.
//
// Durations are Go's: "1h30m", "250ms", "1.5s", a sign, "0". Units: ns us (µs) ms s m h.
// Integers may carry a size suffix: k m g t p e are powers of 1000; kb ki kib, mb mi mib ... are powers of 1024; any
// case. Pure functions; errors are texts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "config/options.h"
#include "config/result.h"

namespace peregrine::config {

// "2m" -> 120 s. Fails on a missing or unknown unit and beyond 64 bits of nanoseconds, with Go's words.
Result<Duration> parse_duration(std::string_view text);

// 120 s -> "2m0s", 1.5 ms -> "1.5ms", 0 -> "0s": what Go prints, so what /varz shows.
std::string format_duration(Duration duration);

// Seconds as a decimal number ("2", "0.5") -> duration; nothing beyond 64 bits of nanoseconds.
Result<Duration> duration_from_seconds(double seconds);

// "64MB" -> 67108864, "-1" -> -1.
Result<std::int64_t> parse_integer(std::string_view text);

// 67108864 -> "64MB", 4096 -> "4KB", 1000 -> "1000": the shortest exact spelling parse_integer() reads back.
std::string format_size(std::int64_t bytes);

}  // namespace peregrine::config
