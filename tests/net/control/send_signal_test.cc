#include "net/control/send_signal.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace peregrine::net::control {
namespace {

// A process that is called `name` and waits for the signal that ends it.
class Server {
 public:
  explicit Server(const char* name) {
    int ready[2];
    if (pipe(ready) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      for (int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) signal(number, SIG_DFL);
      sigset_t none;
      sigemptyset(&none);
      sigprocmask(SIG_SETMASK, &none, nullptr);
      prctl(PR_SET_NAME, name);
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      [[maybe_unused]] const ssize_t n = write(ready[1], "x", 1);
      while (true) pause();
    }
    char byte;
    [[maybe_unused]] const ssize_t n = read(ready[0], &byte, 1);
    close(ready[0]);
    close(ready[1]);
  }
  ~Server() {
    if (pid_ > 0) ended_by();
  }

  int pid() const { return pid_; }
  int ended_by() {
    int status = 0;
    for (int i = 0; i < 500; ++i) {
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = 0;
        return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
      }
      usleep(10'000);
      if (i == 400) kill(pid_, SIGKILL);
    }
    return -1;
  }

 private:
  pid_t pid_ = 0;
};

TEST(SendSignal, WordsAndTheirSignals) {
  const std::pair<const char*, int> words[] = {{"stop", SIGKILL},   {"quit", SIGINT},   {"term", SIGTERM},
                                               {"reopen", SIGUSR1}, {"reload", SIGHUP}, {"ldm", SIGUSR2}};
  for (const auto& [word, number] : words) {
    Server server("nats-server");
    EXPECT_EQ(send_signal(fmt::format("{}={}", word, server.pid())), "");
    EXPECT_EQ(server.ended_by(), number) << word;
  }
}

TEST(SendSignal, PidFromAFile) {
  Server server("peregrine");
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("send_signal_test.{}.pid", getpid())).string();
  std::ofstream(path) << server.pid() << "\n";
  EXPECT_EQ(send_signal("quit=" + path), "");
  EXPECT_EQ(server.ended_by(), SIGINT);
  std::filesystem::remove(path);
}

TEST(SendSignal, FindsServersByName) {
  Server ours("peregrine"), theirs("nats-server"), linked("my-nats-server2"), other("peregrine-x");
  const std::vector<int> found = running_servers();
  const auto has = [&found](int pid) { return std::count(found.begin(), found.end(), pid) == 1; };
  EXPECT_TRUE(has(ours.pid()));
  EXPECT_TRUE(has(theirs.pid()));
  EXPECT_TRUE(has(linked.pid()));
  EXPECT_FALSE(has(other.pid()));
  EXPECT_FALSE(has(getpid()));
  EXPECT_TRUE(std::is_sorted(found.begin(), found.end()));

  // More than one and no pid: nothing is sent, all are listed.
  const std::string text = send_signal("stop");
  EXPECT_TRUE(text.starts_with("multiple nats-server processes running:\n")) << text;
  EXPECT_NE((text + "\n").find(fmt::format("\n{}\n", theirs.pid())), std::string::npos) << text;

  // As prefixes; the whole pid is one, too.
  for (Server* server : {&ours, &theirs, &linked}) {
    EXPECT_EQ(send_signal(fmt::format("term={}*", server->pid())), "");
    EXPECT_EQ(server->ended_by(), SIGTERM);
  }
  EXPECT_EQ(send_signal(fmt::format("quit={}", other.pid())), "");
  EXPECT_EQ(other.ended_by(), SIGINT);
}

TEST(SendSignal, Errors) {
  EXPECT_EQ(send_signal("term=abc"), "invalid pid: abc");
  EXPECT_EQ(send_signal("term=0"), "invalid pid: 0");  // would be our whole process group
  EXPECT_EQ(send_signal("term=-1"), "invalid pid: -1");
  EXPECT_EQ(send_signal("term=1=2=3"), "invalid signal parameters: [2 3]");
  EXPECT_EQ(send_signal(fmt::format("dance={}", getpid())), "unknown signal \"dance\"");
  EXPECT_EQ(send_signal("term=2147483646"), "\nsignal \"term\" 2147483646: no such process");
}

}  // namespace
}  // namespace peregrine::net::control
