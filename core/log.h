// The seam through which every part of the server writes its log: what to say here, where it goes in
// net/control/log_sink.h.
//
// One Log per server, handed by reference to whoever needs it; made before the first shard and destroyed after the last
// one. enabled() is one relaxed load and may be called on any thread at any time, also on the message path. write() may
// be called on any thread; it never waits for a disk, a terminal or a network (an implementation queues, and when its
// queue is full drops the oldest line and counts it), but it copies and so is for the rare branch only.
//
// Texts are nats-server's wherever it has one: tools wait for them. No trailing newline. What a peer sent is quoted
// with quote() (core/go_format.h).
#pragma once

#include <fmt/core.h>  // fmt::format() of the library; format_to() would be compiled into every file that logs

#include <atomic>
#include <cstdint>
#include <string_view>
#include <utility>

namespace peregrine::core {

enum class LogLevel : uint8_t { kInfo, kDebug, kWarn, kError, kFatal, kTrace };  // INF DBG WRN ERR FTL TRC

class Log {
 public:
  Log() = default;
  virtual ~Log() = default;
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // Info, warn, error and fatal are on unless the whole log is off; debug and trace are asked for.
  bool enabled(LogLevel level) const { return (enabled_.load(std::memory_order_relaxed) & bit(level)) != 0; }

  void set_enabled(LogLevel level, bool on) {
    if (on) enabled_.fetch_or(bit(level), std::memory_order_relaxed);
    else enabled_.fetch_and(~bit(level), std::memory_order_relaxed);
  }

  // One line. The caller has asked enabled() first.
  virtual void write(LogLevel level, std::string_view text) = 0;

  // The arguments are only evaluated into text when the level is on; computing them is the caller's cost all the same,
  // so guard an expensive one with enabled().
  template <class... Args>
  void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
    if (!enabled(level)) return;
    write(level, fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  void info(fmt::format_string<Args...> format, Args&&... args) {
    log(LogLevel::kInfo, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void debug(fmt::format_string<Args...> format, Args&&... args) {
    log(LogLevel::kDebug, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void warn(fmt::format_string<Args...> format, Args&&... args) {
    log(LogLevel::kWarn, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void error(fmt::format_string<Args...> format, Args&&... args) {
    log(LogLevel::kError, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void fatal(fmt::format_string<Args...> format, Args&&... args) {
    log(LogLevel::kFatal, format, std::forward<Args>(args)...);
  }
  template <class... Args>
  void trace(fmt::format_string<Args...> format, Args&&... args) {
    log(LogLevel::kTrace, format, std::forward<Args>(args)...);
  }

 private:
  static constexpr uint32_t bit(LogLevel level) { return 1u << static_cast<uint32_t>(level); }

  std::atomic<uint32_t> enabled_{bit(LogLevel::kInfo) | bit(LogLevel::kWarn) | bit(LogLevel::kError) |
                                 bit(LogLevel::kFatal)};
};

// For benchmarks and tests that do not look at the log.
class NullLog final : public Log {
 public:
  NullLog() {
    for (LogLevel level : {LogLevel::kInfo, LogLevel::kWarn, LogLevel::kError, LogLevel::kFatal})
      set_enabled(level, false);
  }
  void write(LogLevel, std::string_view) override {}
};

}  // namespace peregrine::core
