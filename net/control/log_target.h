// Where log lines end up: stderr, a rotated file, or a syslog server. Used by LogSink only, under its lock.
//
// Each target formats for itself, since syslog has its own idea of a line. write() may block (it runs on the log's
// writer thread); after give_up() it no longer waits longer than a second for anything.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "config/options.h"
#include "core/log.h"

namespace peregrine::net::control {

struct LogLine {
  core::LogLevel level;
  std::chrono::system_clock::time_point time;
  std::string_view text;
};

class LogTarget {
 public:
  virtual ~LogTarget() = default;
  virtual void write(const LogLine& line) = 0;
  virtual void flush() {}  // hands over what write() has collected
  virtual bool is_file() const { return false; }
  virtual std::string reopen() { return {}; }  // "" or the reason why the old file is still in use
  void give_up() { giving_up_.store(true, std::memory_order_relaxed); }

 protected:
  bool giving_up() const { return giving_up_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> giving_up_{false};
};

// Returns null and sets `error` when the target cannot be opened.
std::unique_ptr<LogTarget> open_log_target(const config::Options& options, const std::string& tag, std::string& error);

// The line as it stands in a file, newline included. `colors` = escape codes around the label.
std::string format_log_line(const LogLine& line, const config::Options& options, bool colors);

}  // namespace peregrine::net::control
