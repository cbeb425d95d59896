#include "net/control/signals.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>

namespace peregrine::net::control {
namespace {

sigset_t handled() {
  sigset_t set;
  sigemptyset(&set);
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) sigaddset(&set, number);
  return set;
}

}  // namespace

std::string_view signal_text(Signal signal) {
  switch (signal) {
    case Signal::kInterrupt:
      return "interrupt";
    case Signal::kTerminate:
      return "terminated";
    case Signal::kReload:
      return "hangup";
    case Signal::kReopenLog:
      return "user defined signal 1";
    case Signal::kLameDuck:
      return "user defined signal 2";
  }
  return "";
}

void block_signals() {
  const sigset_t set = handled();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // A launcher may have left one of them ignored (nohup does SIGHUP), and an ignored signal never reaches a signalfd.
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) sigaction(number, &standard, nullptr);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, nullptr);
}

Signals::Signals() {
  const sigset_t set = handled();
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  stop_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  assert(signal_fd_ >= 0 && stop_fd_ >= 0);  // the first descriptors of a starting process
}

Signals::~Signals() {
  close(signal_fd_);
  close(stop_fd_);
}

std::optional<Signal> Signals::wait(int timeout_ms) {
  pollfd fds[] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  if (poll(fds, 2, timeout_ms) <= 0 || (fds[1].revents & POLLIN) != 0) return std::nullopt;
  signalfd_siginfo info{};
  if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) return std::nullopt;
  switch (info.ssi_signo) {
    case SIGINT:
      return Signal::kInterrupt;
    case SIGTERM:
      return Signal::kTerminate;
    case SIGHUP:
      return Signal::kReload;
    case SIGUSR1:
      return Signal::kReopenLog;
    case SIGUSR2:
      return Signal::kLameDuck;
    default:
      return std::nullopt;
  }
}

void Signals::stop() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n =
      write(stop_fd_, &one, sizeof(one));  // cannot fail: one write never fills the counter
}

bool Signals::stopped() const {
  pollfd fd{stop_fd_, POLLIN, 0};
  return poll(&fd, 1, 0) == 1;
}

}  // namespace peregrine::net::control
