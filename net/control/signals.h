// The process's signals, taken by the control thread instead of interrupting whoever runs.
//
// block_signals() goes first in main(), before any thread exists: threads inherit the mask, so no shard is ever
// interrupted and no system call of theirs returns EINTR because of us. SIGPIPE is ignored: a broken connection is a
// return value. Then one Signals object, on the control thread; only stop() may be called from elsewhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace peregrine::net::control {

enum class Signal : uint8_t {
  kInterrupt,  // SIGINT: shut down, exit 0
  kTerminate,  // SIGTERM: the same; ignored in lame duck mode
  kReload,     // SIGHUP
  kReopenLog,  // SIGUSR1
  kLameDuck,   // SIGUSR2
};

// As in nats-server's log line `Trapped "interrupt" signal`.
std::string_view signal_text(Signal signal);

void block_signals();

class Signals {
 public:
  Signals();  // block_signals() was called; reads the signals from now on
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // The next signal, or nothing after timeout_ms (-1 = no limit) or after stop(). Several of one kind may come as one.
  std::optional<Signal> wait(int timeout_ms);

  // Makes this and every later wait() return at once. Any thread.
  void stop();
  bool stopped() const;

 private:
  int signal_fd_ = -1;
  int stop_fd_ = -1;
};

}  // namespace peregrine::net::control
