// What a container does to us: each test runs in a forked child whose seccomp filter refuses io_uring calls.

#include "net/backend_choice.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <functional>

namespace peregrine::net {
namespace {

bool refuse(long call, int error) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{4, program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Runs `child` behind a filter, in a process of its own; its answer comes back through a pipe.
std::string behind_filter(long call, int error, const std::function<std::string()>& child) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    const std::string answer = refuse(call, error) ? child() : "no seccomp";
    [[maybe_unused]] const ssize_t n = write(ends[1], answer.data(), answer.size());
    _exit(0);
  }
  close(ends[1]);
  std::string answer;
  char chunk[512];
  for (ssize_t n; (n = read(ends[0], chunk, sizeof(chunk))) > 0;) answer.append(chunk, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  return answer;
}

std::string chosen(config::Backend wanted) {
  auto choice = choose_backend(wanted);
  if (!choice) return "error: " + choice.error();
  auto backend = choice->make(0);
  if (!backend) return "cannot make it: " + backend.error();
  return (*backend)->report().name + ": " + choice->log_line;
}

TEST(BackendChoiceTest, AutoTakesUringWhereItWorks) {
  EXPECT_EQ(chosen(config::Backend::kAuto), "uring: backend: uring");
  EXPECT_EQ(chosen(config::Backend::kUring), "uring: backend: uring");
  EXPECT_EQ(chosen(config::Backend::kEpoll), "epoll: backend: epoll");
}

TEST(BackendChoiceTest, SeccompRefusalFallsBackToEpollAndSaysWhatToDo) {
  for (const auto& [error, name] :
       {std::pair(EPERM, "EPERM"), std::pair(ENOSYS, "ENOSYS"), std::pair(EACCES, "EACCES")}) {
    const std::string line = behind_filter(__NR_io_uring_setup, error, [] { return chosen(config::Backend::kAuto); });
    EXPECT_EQ(line.find(std::string("epoll: backend: epoll: io_uring_setup refused (") + name + "): "), 0u) << line;
    EXPECT_NE(line.find("to use io_uring"), std::string::npos) << line;
    const bool remedy = line.find("--security-opt seccomp=") != std::string::npos;
    EXPECT_EQ(remedy, error != EACCES) << line;
  }
}

TEST(BackendChoiceTest, AskedForByNameARefusalIsAnError) {
  const std::string line = behind_filter(__NR_io_uring_setup, EPERM, [] { return chosen(config::Backend::kUring); });
  EXPECT_EQ(line.find("error: backend uring: io_uring_setup refused (EPERM)"), 0u) << line;
}

TEST(BackendChoiceTest, SetupAllowedButEnterRefusedFallsBackToo) {
  const std::string line = behind_filter(__NR_io_uring_enter, EPERM, [] { return chosen(config::Backend::kAuto); });
  EXPECT_EQ(line.find("epoll: backend: epoll: io_uring_enter refused"), 0u) << line;
}

TEST(BackendChoiceTest, RegisterRefusedFallsBackToo) {
  const std::string line = behind_filter(__NR_io_uring_register, EPERM, [] { return chosen(config::Backend::kAuto); });
  EXPECT_EQ(line.find("epoll: backend: epoll: io_uring_register refused"), 0u) << line;
}

TEST(BackendChoiceTest, WantOfMemoryIsAnErrorNotAFallback) {
  const std::string line = behind_filter(__NR_io_uring_setup, ENOMEM, [] { return chosen(config::Backend::kAuto); });
  EXPECT_EQ(line, "error: backend uring: io_uring_setup: cannot allocate memory");
}

TEST(BackendChoiceTest, EpollWorksWithoutPwait2) {
  const std::string line = behind_filter(__NR_epoll_pwait2, EPERM, [] {
    auto backend = choose_backend(config::Backend::kEpoll)->make(0);
    const int64_t start = (*backend)->now_ns();
    (*backend)->park(start + 2'500'000);
    const bool waited = (*backend)->now_ns() - start >= 2'500'000;
    return std::string(waited ? "waited; " : "did not wait; ") + (*backend)->report().notes.at(0);
  });
  EXPECT_EQ(line, "waited; no epoll_pwait2: timers have millisecond steps");
}

TEST(BackendChoiceTest, DpdkNeedsItsSection) {
  EXPECT_EQ(chosen(config::Backend::kDpdk), "error: backend dpdk: needs a dpdk section that names a port");
}

}  // namespace
}  // namespace peregrine::net
