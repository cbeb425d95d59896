#include "net/control/signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace peregrine::net::control {
namespace {

// In a child of its own: masks and pending signals belong to the process. Returns its exit status.
template <class Body>
int in_child(Body&& body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

TEST(Signals, EachComesAsItsMeaning) {
  const std::pair<int, Signal> all[] = {{SIGINT, Signal::kInterrupt},
                                        {SIGTERM, Signal::kTerminate},
                                        {SIGHUP, Signal::kReload},
                                        {SIGUSR1, Signal::kReopenLog},
                                        {SIGUSR2, Signal::kLameDuck}};
  for (const auto& [number, meaning] : all) {
    EXPECT_EQ(in_child([number = number, meaning = meaning] {
                block_signals();
                Signals signals;
                kill(getpid(), number);
                return signals.wait(5000) == meaning ? 7 : 8;
              }),
              7);
  }
}

TEST(Signals, AreKeptUntilSomebodyListens) {
  EXPECT_EQ(in_child([] {
              block_signals();
              kill(getpid(), SIGHUP);  // during start-up
              Signals signals;
              return signals.wait(5000) == Signal::kReload ? 7 : 8;
            }),
            7);
}

TEST(Signals, ReachUsAlsoWhenTheLauncherIgnoredThem) {
  EXPECT_EQ(in_child([] {
              signal(SIGHUP, SIG_IGN);  // nohup
              block_signals();
              Signals signals;
              kill(getpid(), SIGHUP);
              return signals.wait(5000) == Signal::kReload ? 7 : 8;
            }),
            7);
}

TEST(Signals, ABrokenPipeIsAReturnValue) {
  EXPECT_EQ(in_child([] {
              block_signals();
              int fds[2];
              if (pipe(fds) != 0) return 1;
              close(fds[0]);
              return write(fds[1], "x", 1) == -1 && errno == EPIPE ? 7 : 8;
            }),
            7);
}

TEST(Signals, TimeoutAndStop) {
  EXPECT_EQ(in_child([] {
              block_signals();
              Signals signals;
              if (signals.wait(10).has_value() || signals.stopped()) return 1;
              std::thread stopper([&signals] {
                std::this_thread::sleep_for(std::chrono::milliseconds(50));
                signals.stop();
              });
              const bool nothing = !signals.wait(-1).has_value();
              stopper.join();
              return nothing && signals.stopped() && !signals.wait(-1).has_value() ? 7 : 8;
            }),
            7);
}

TEST(Signals, TextsAreThoseOfGo) {
  EXPECT_EQ(signal_text(Signal::kInterrupt), "interrupt");
  EXPECT_EQ(signal_text(Signal::kTerminate), "terminated");
  EXPECT_EQ(signal_text(Signal::kReload), "hangup");
  EXPECT_EQ(signal_text(Signal::kReopenLog), "user defined signal 1");
  EXPECT_EQ(signal_text(Signal::kLameDuck), "user defined signal 2");
}

}  // namespace
}  // namespace peregrine::net::control
