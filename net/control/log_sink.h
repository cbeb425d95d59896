// The server's log: core::Log on spdlog's bounded queue, in nats-server's line format, to stderr, a file or syslog.
//
//   [pid] 2006/01/02 15:04:05.000000 [INF] text
//
// Owns: the target, and after start_async() one writer thread. write() may be called on any thread. Before
// start_async() a line is on its way out when write() returns, so a start that fails has said why before the process
// exits; afterwards lines are queued (kQueueLines) and a full queue drops its oldest line: a shard never waits for a
// terminal, a disk or a network. Drops are counted (dropped()) and told in the log itself, at most once a second.
// Within one thread lines keep their order.
//
// Files are appended to. Past `logfile_size_limit` bytes the file is renamed to name.2006.01.02.15.04.05.nnnnnnnnn and
// begun anew, and of `logfile_max_num` files (the current one counts) the oldest are removed. Syslog lines carry
// neither pid nor time nor label of ours: the severity says it. Errors: open() returns null and a reason. A target that
// breaks later loses lines, never the server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "config/options.h"
#include "core/log.h"

namespace peregrine::net::control {

class LogSink final : public core::Log {
 public:
  static constexpr size_t kQueueLines = 8192;  // about 3 MiB of queue

  // Target and levels as `options` say (log_file, remote_syslog, syslog, else stderr, in this order). `tag` names us to
  // syslog: the name the executable was called by. `queue_lines` is for tests.
  static std::unique_ptr<LogSink> open(const config::Options& options, const std::string& tag, std::string& error,
                                       size_t queue_lines = kQueueLines);
  ~LogSink() override;  // writes what is queued; gives up on a target that takes nothing for a second

  void write(core::LogLevel level, std::string_view text) override;

  // From here on write() queues. Call once, before the first shard starts.
  void start_async();

  // Waits until everything written so far has left, at most two seconds. For the line before an exit.
  void flush();

  // SIGUSR1: closes and opens the file, so that what was moved away stays complete; says in the log what it did.
  void reopen();

  uint64_t dropped() const;  // lines lost to a full queue

 private:
  LogSink();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace peregrine::net::control
