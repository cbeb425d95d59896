// Values as Go prints them, because that is what tools around NATS read: durations, uptimes, times and quoted text.
//
// Pure functions, callable on any thread; control plane only (they allocate). Units: nanoseconds; times count from the
// Unix epoch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace peregrine::core {

// Go's Duration.String(): "0s", "481µs", "1.5ms", "2m0s", "1h0m0.5s".
std::string format_duration(int64_t duration_ns);

// nats-server's uptime and idle: whole seconds, leading zero parts left out: "5s", "1m0s", "1d0h0m3s", "1y2d3h4m5s".
std::string format_uptime(int64_t duration_ns);

// RFC 3339 in UTC with the nanoseconds that are there: "2026-08-02T10:11:12.345Z".
std::string format_time(int64_t unix_ns);

// As Go's %q: in double quotes; control characters, quotes, backslashes and bytes which are not UTF-8 escaped, so that
// a peer's bytes can neither break a log line nor drive a terminal.
std::string quote(std::string_view text);

// As it is, unless it would do something to a terminal or look like another line of the log: then quote()d.
std::string printable(std::string_view text);

}  // namespace peregrine::core
