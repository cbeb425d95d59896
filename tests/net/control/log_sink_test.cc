#include "net/control/log_sink.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <thread>
#include <vector>

#include "net/control/log_target.h"

namespace peregrine::net::control {
namespace {

namespace fs = std::filesystem;
using core::LogLevel;

class LogSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "log_sink_test.XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    options_.log_file = directory_ + "/server.log";
  }
  void TearDown() override { fs::remove_all(directory_); }

  std::unique_ptr<LogSink> open(size_t queue_lines = LogSink::kQueueLines) {
    std::string error;
    auto log = LogSink::open(options_, "peregrine-test", error, queue_lines);
    EXPECT_EQ(error, "");
    return log;
  }

  static std::vector<std::string> lines(const std::string& path) {
    std::vector<std::string> out;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) out.push_back(line);
    return out;
  }
  std::vector<std::string> lines() const { return lines(options_.log_file); }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  std::string directory_;
  config::Options options_;
};

// fd 2 goes somewhere else for a while.
class StderrTo {
 public:
  explicit StderrTo(int fd) : saved_(dup(STDERR_FILENO)) { dup2(fd, STDERR_FILENO); }
  ~StderrTo() {
    dup2(saved_, STDERR_FILENO);
    close(saved_);
  }

 private:
  int saved_;
};

TEST_F(LogSinkTest, LinesLookLikeThoseOfNatsServer) {
  options_.debug = options_.trace = true;
  auto log = open();
  log->info("Server is ready");
  log->debug("d {}", 1);
  log->warn("w");
  log->error("e");
  log->fatal("f");
  log->trace("t");
  const auto found = lines();
  ASSERT_EQ(found.size(), 6u);
  const char* ends[] = {"[INF] Server is ready", "[DBG] d 1", "[WRN] w", "[ERR] e", "[FTL] f", "[TRC] t"};
  for (size_t i = 0; i < found.size(); ++i) {
    const std::regex shape(R"(\[(\d+)\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} (\[.*))");
    std::smatch match;
    ASSERT_TRUE(std::regex_match(found[i], match, shape)) << found[i];
    EXPECT_EQ(match[1], std::to_string(getpid()));
    EXPECT_EQ(match[2], ends[i]);
  }
}

TEST_F(LogSinkTest, WithoutLogtimeThereIsNoTime) {
  options_.logtime = false;
  open()->info("text");
  EXPECT_EQ(lines(), std::vector<std::string>{"[" + std::to_string(getpid()) + "] [INF] text"});
}

TEST_F(LogSinkTest, UtcAndLocalTime) {
  const std::chrono::system_clock::time_point time(std::chrono::microseconds(1'785'665'472'000'345));
  options_.logtime_utc = true;
  const std::string utc = format_log_line({LogLevel::kInfo, time, "x"}, options_, false);
  EXPECT_NE(utc.find("] 2026/08/02 10:11:12.000345 [INF] x\n"), std::string::npos) << utc;
  setenv("TZ", "XYZ-3", 1);
  tzset();
  options_.logtime_utc = false;
  const std::string local = format_log_line({LogLevel::kInfo, time, "x"}, options_, false);
  EXPECT_NE(local.find("] 2026/08/02 13:11:12.000345 [INF] x\n"), std::string::npos) << local;
  unsetenv("TZ");
  tzset();
}

TEST_F(LogSinkTest, ColorsAreAroundTheLabelOnly) {
  options_.logtime = false;
  const std::string pid = "[" + std::to_string(getpid()) + "] ";
  EXPECT_EQ(format_log_line({LogLevel::kInfo, {}, "x"}, options_, true), pid + "[\x1b[32mINF\x1b[0m] x\n");
  EXPECT_EQ(format_log_line({LogLevel::kWarn, {}, "x"}, options_, true), pid + "[\x1b[0;93mWRN\x1b[0m] x\n");
  EXPECT_EQ(format_log_line({LogLevel::kTrace, {}, "x"}, options_, true), pid + "[\x1b[33mTRC\x1b[0m] x\n");
}

TEST_F(LogSinkTest, StderrThatIsNoTerminalHasNoColors) {
  options_.log_file.clear();
  options_.logtime = false;
  const std::string path = directory_ + "/stderr";
  const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY, 0600);
  {
    StderrTo redirected(fd);
    auto log = open();
    log->info("one");
    log->start_async();
    log->info("two");
  }
  close(fd);
  const std::string pid = "[" + std::to_string(getpid()) + "] ";
  EXPECT_EQ(lines(path), (std::vector<std::string>{pid + "[INF] one", pid + "[INF] two"}));
}

TEST_F(LogSinkTest, LevelsThatAreOffCostNoLine) {
  auto log = open();
  EXPECT_FALSE(log->enabled(LogLevel::kDebug));
  EXPECT_FALSE(log->enabled(LogLevel::kTrace));
  log->debug("no");
  log->trace("no");
  log->set_enabled(LogLevel::kDebug, true);
  log->debug("yes");
  ASSERT_EQ(lines().size(), 1u);
  EXPECT_NE(lines()[0].find("[DBG] yes"), std::string::npos);
}

TEST_F(LogSinkTest, BeforeTheQueueALineIsOutWhenWriteReturns) {
  auto log = open();
  log->error("why the start failed");
  ASSERT_EQ(lines().size(), 1u);  // while `log` is alive and nothing was flushed
}

TEST_F(LogSinkTest, TheQueueKeepsOrderAndIsEmptiedAtTheEnd) {
  options_.logtime = false;
  {
    auto log = open();
    log->start_async();
    for (int i = 0; i < 5000; ++i) log->info("line {}", i);
  }
  const auto found = lines();
  ASSERT_EQ(found.size(), 5000u);
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(found[static_cast<size_t>(i)].ends_with("line " + std::to_string(i)));
}

TEST_F(LogSinkTest, FlushWaitsForTheQueue) {
  auto log = open();
  log->start_async();
  for (int round = 1; round <= 20; ++round) {
    log->info("line");
    log->flush();
    ASSERT_EQ(lines().size(), static_cast<size_t>(round));
  }
  log->fatal("last words");  // needs no flush
  EXPECT_EQ(lines().size(), 21u);
}

TEST_F(LogSinkTest, ManyThreadsLoseNothingWhenThereIsRoom) {
  options_.logtime = false;
  {
    auto log = open();
    log->start_async();
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&log, t] {
        for (int i = 0; i < 1000; ++i) log->info("{} {}", t, i);
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(log->dropped(), 0u);
  }
  std::vector<int> next(4);
  for (const std::string& line : lines()) {
    std::istringstream in(line.substr(line.find("[INF] ") + 6));
    int t = 0, i = 0;
    ASSERT_TRUE(in >> t >> i);
    ASSERT_EQ(i, next[static_cast<size_t>(t)]++);
  }
  EXPECT_EQ(next, (std::vector<int>{1000, 1000, 1000, 1000}));
}

TEST_F(LogSinkTest, AFullQueueDropsCountsAndSaysSo) {
  options_.log_file.clear();
  options_.logtime = false;
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  uint64_t dropped = 0;
  std::string read_back;
  {
    StderrTo redirected(pipe_fds[1]);
    close(pipe_fds[1]);
    auto log = open(16);
    log->start_async();
    // Nobody reads: the pipe (64 KiB) fills, the writer is stuck, and still no write() waits.
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 3000; ++i) log->info("{:0100}", i);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
    dropped = log->dropped();
    EXPECT_GT(dropped, 1000u);
    std::thread reader([&] {
      char buffer[4096];
      while (!read_back.ends_with("END\n")) {
        const ssize_t n = read(pipe_fds[0], buffer, sizeof(buffer));
        if (n <= 0) break;
        read_back.append(buffer, static_cast<size_t>(n));
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // the report is due once a second
    log->info("afterwards");
    log->flush();
    dropped = log->dropped();
    log.reset();
    EXPECT_EQ(write(STDERR_FILENO, "END\n", 4), 4);
    reader.join();
  }
  close(pipe_fds[0]);
  EXPECT_NE(read_back.find("afterwards"), std::string::npos);
  uint64_t told = 0, arrived = 0;
  std::istringstream in(read_back);
  for (std::string line; std::getline(in, line);) {
    std::smatch match;
    if (std::regex_search(line, match, std::regex(R"(\[WRN\] (\d+) log lines dropped)"))) told += std::stoull(match[1]);
    else if (line.find("[INF] 0") != std::string::npos) ++arrived;
  }
  EXPECT_EQ(told, dropped);
  EXPECT_EQ(arrived + dropped, 3000u);
}

TEST_F(LogSinkTest, LeavingDoesNotHangOnAPipeNobodyReads) {
  options_.log_file.clear();
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const auto begin = std::chrono::steady_clock::now();
  {
    StderrTo redirected(pipe_fds[1]);
    auto log = open(64);
    log->start_async();
    for (int i = 0; i < 2000; ++i) log->info("{:0100}", i);
    log.reset();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(90));
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

TEST_F(LogSinkTest, RotatesBySizeUnderTheSchemeOfNatsServer) {
  options_.logfile_size_limit = 1000;
  {
    auto log = open();
    log->start_async();
    for (int i = 0; i < 40; ++i) log->info("a line of some length to fill the file with {}", i);
  }
  size_t payload = 0, rotated = 0;
  for (const std::string& name : files()) {
    if (name != "server.log") {
      EXPECT_TRUE(std::regex_match(name, std::regex(R"(server\.log\.\d{4}(\.\d\d){5}\.\d{9})"))) << name;
      ++rotated;
      EXPECT_GT(fs::file_size(directory_ + "/" + name), 1000u);
      EXPECT_LT(fs::file_size(directory_ + "/" + name), 1200u);  // overshoots by one line only
    }
    for (const std::string& line : lines(directory_ + "/" + name))
      payload += line.find("some length") != std::string::npos;
  }
  EXPECT_EQ(payload, 40u);
  EXPECT_GE(rotated, 3u);
  EXPECT_NE(lines()[0].find("[INF] Rotated log, backup saved as \"" + directory_ + "/server.log.2"), std::string::npos);
}

TEST_F(LogSinkTest, AFileThatIsTooLongAlreadyIsRotatedByTheFirstLine) {
  std::ofstream(options_.log_file) << std::string(2000, 'x');
  options_.logfile_size_limit = 1000;
  open()->info("first");
  EXPECT_EQ(files().size(), 2u);
}

TEST_F(LogSinkTest, KeepsAsManyFilesAsAskedFor) {
  options_.logfile_size_limit = 300;
  options_.logfile_max_num = 3;
  std::ofstream(directory_ + "/server.log.backup") << "not ours";
  std::ofstream(directory_ + "/server.log.2020.01.01.00.00.00.000000001") << "oldest";
  {
    auto log = open();
    for (int i = 0; i < 60; ++i) log->info("a line of some length to fill the file with {}", i);
  }
  const auto names = files();
  EXPECT_EQ(names.size(), 4u);  // current, two backups, and the stranger
  EXPECT_EQ(std::count(names.begin(), names.end(), "server.log.backup"), 1);
  EXPECT_EQ(std::count(names.begin(), names.end(), "server.log.2020.01.01.00.00.00.000000001"), 0);
  bool purged = false;
  for (const std::string& name : names) {
    for (const std::string& line : lines(directory_ + "/" + name))
      purged |= line.find("[INF] Purged log file \"server.log.2") != std::string::npos;
  }
  EXPECT_TRUE(purged);
}

TEST_F(LogSinkTest, ReopenFollowsAMovedFile) {
  auto log = open();
  log->start_async();
  log->info("before");
  log->flush();
  fs::rename(options_.log_file, directory_ + "/moved");
  log->info("still in the moved file");
  log->reopen();
  log->info("after");
  log->flush();
  EXPECT_EQ(lines(directory_ + "/moved").size(), 2u);
  ASSERT_EQ(lines().size(), 2u);
  EXPECT_NE(lines()[0].find("[INF] File log re-opened"), std::string::npos);
  EXPECT_NE(lines()[1].find("[INF] after"), std::string::npos);
}

TEST_F(LogSinkTest, AFailedReopenKeepsTheOldFile) {
  const std::string inner = directory_ + "/inner";
  fs::create_directory(inner);
  options_.log_file = inner + "/server.log";
  auto log = open();
  fs::rename(inner, directory_ + "/gone");
  log->reopen();
  log->info("after");
  const auto found = lines(directory_ + "/gone/server.log");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_NE(found[0].find("[ERR] File log re-open failed"), std::string::npos);
}

TEST_F(LogSinkTest, ReopenWithoutAFileIsIgnored) {
  options_.log_file.clear();
  const std::string path = directory_ + "/stderr";
  const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY, 0600);
  {
    StderrTo redirected(fd);
    open()->reopen();
  }
  close(fd);
  ASSERT_EQ(lines(path).size(), 1u);
  EXPECT_NE(lines(path)[0].find("[INF] File log re-open ignored, not a file logger"), std::string::npos);
}

TEST_F(LogSinkTest, AFileThatCannotBeOpenedIsAnError) {
  options_.log_file = directory_ + "/no/such/directory/log";
  std::string error;
  EXPECT_EQ(LogSink::open(options_, "x", error), nullptr);
  EXPECT_EQ(error, "error opening file: open " + options_.log_file + ": no such file or directory");
}

// ---- syslog

std::string receive(int fd) {
  pollfd poll_fd{fd, POLLIN, 0};
  char buffer[2048];
  if (poll(&poll_fd, 1, 5000) != 1) return "";
  const ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
  return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : "";
}

int loopback(int type, std::string& port) {
  const int fd = socket(AF_INET, type, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  if (type == SOCK_STREAM) listen(fd, 4);
  socklen_t size = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  port = std::to_string(ntohs(address.sin_port));
  return fd;
}

TEST_F(LogSinkTest, RemoteSyslogOverUdp) {
  std::string port;
  const int fd = loopback(SOCK_DGRAM, port);
  options_.log_file.clear();
  options_.remote_syslog = "udp://127.0.0.1:" + port;
  options_.debug = true;
  auto log = open();
  log->info("hello");
  log->error("bad");
  log->debug("detail");
  const std::string tail = " peregrine-test[" + std::to_string(getpid()) + "]: ";
  const std::string stamp = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d \S+)";
  const std::string first = receive(fd);
  EXPECT_TRUE(std::regex_match(first.substr(0, first.find(tail)), std::regex("<29>" + stamp)))
      << first;  // daemon.notice
  EXPECT_TRUE(first.ends_with(tail + "hello\n")) << first;
  EXPECT_TRUE(receive(fd).starts_with("<27>"));  // daemon.err
  EXPECT_TRUE(receive(fd).starts_with("<31>"));  // daemon.debug
  close(fd);
}

TEST_F(LogSinkTest, RemoteSyslogOverTcpDialsAgain) {
  std::string port;
  const int fd = loopback(SOCK_STREAM, port);
  options_.log_file.clear();
  options_.remote_syslog = "tcp://127.0.0.1:" + port;
  auto log = open();
  int peer = accept(fd, nullptr, nullptr);
  log->info("one");
  EXPECT_TRUE(receive(peer).ends_with("]: one\n"));
  const linger reset{1, 0};
  setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  close(peer);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  log->info("two");
  peer = accept(fd, nullptr, nullptr);
  EXPECT_TRUE(receive(peer).ends_with("]: two\n"));
  close(peer);
  close(fd);
}

TEST_F(LogSinkTest, RemoteSyslogOverAUnixSocket) {
  const std::string path = directory_ + "/socket";
  const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  options_.log_file.clear();
  options_.remote_syslog = "unix://" + path;
  open()->warn("careful");
  EXPECT_TRUE(receive(fd).starts_with("<28>"));  // daemon.warning
  close(fd);
}

TEST_F(LogSinkTest, ABadSyslogAddressIsAnError) {
  options_.log_file.clear();
  std::string error;
  options_.remote_syslog = "http://127.0.0.1:514";
  EXPECT_EQ(LogSink::open(options_, "x", error), nullptr);
  EXPECT_EQ(error, "error invalid network type: \"http\"");
  options_.remote_syslog = "udp://127.0.0.1";
  EXPECT_EQ(LogSink::open(options_, "x", error), nullptr);
  EXPECT_EQ(error, "error connecting to syslog: \"dial udp: address 127.0.0.1: missing port in address\"");
  options_.remote_syslog = "unix:///no/such/socket";
  EXPECT_EQ(LogSink::open(options_, "x", error), nullptr);
  EXPECT_TRUE(error.starts_with("error connecting to syslog: ")) << error;
}

}  // namespace
}  // namespace peregrine::net::control
