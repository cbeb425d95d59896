#include "net/control/process_files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace peregrine::net::control {
namespace {

namespace fs = std::filesystem;

class ProcessFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "process_files_test.XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(directory_); }

  static std::string content(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  size_t files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(directory_), fs::directory_iterator()));
  }

  std::string directory_;
};

TEST_F(ProcessFiles, PidIsDecimalWithoutNewline) {
  const std::string path = directory_ + "/server.pid";
  EXPECT_EQ(write_pid_file(path), "");
  EXPECT_EQ(content(path), std::to_string(getpid()));
  std::ofstream(path) << "a longer one from before";
  EXPECT_EQ(write_pid_file(path), "");
  EXPECT_EQ(content(path), std::to_string(getpid()));
  EXPECT_EQ(files(), 1u);  // nothing of the making is left over
  struct stat status {};
  stat(path.c_str(), &status);
  EXPECT_EQ(status.st_mode & 0777 & ~0600u, 0u);
}

TEST_F(ProcessFiles, ALinkIsWrittenThrough) {
  const std::string path = directory_ + "/link", target = directory_ + "/target";
  std::ofstream(target) << "old";
  fs::create_symlink(target, path);
  EXPECT_EQ(write_pid_file(path), "");
  EXPECT_TRUE(fs::is_symlink(path));
  EXPECT_EQ(content(target), std::to_string(getpid()));
}

TEST_F(ProcessFiles, PidFileErrorsSayWhy) {
  const std::string path = directory_ + "/no/such/file";
  EXPECT_EQ(write_pid_file(path), "open " + path + ": no such file or directory");
}

TEST_F(ProcessFiles, PortsFileIsNamedAfterTheNameWeWereCalledBy) {
  const std::string tail = fmt::format("/nats-server_{}.ports", getpid());
  EXPECT_EQ(ports_file_path("/d", "nats-server"), "/d" + tail);
  EXPECT_EQ(ports_file_path("/d/", "/usr/bin/nats-server"), "/d" + tail);
  EXPECT_EQ(ports_file_path(".", "./build/nats-server"), "." + tail);
}

TEST_F(ProcessFiles, PortsFileHoldsWhatThereIs) {
  const std::string path = ports_file_path(directory_, "nats-server");
  EXPECT_EQ(write_ports_file(path, {{"nats://127.0.0.1:40523"}, {"http://127.0.0.1:43423"}, {}, {}, {}}), "");
  EXPECT_EQ(content(path), R"({"nats":["nats://127.0.0.1:40523"],"monitoring":["http://127.0.0.1:43423"]})");
  EXPECT_EQ(write_ports_file(path, {{"a"}, {"b"}, {"c"}, {"d"}, {"e"}}), "");
  EXPECT_EQ(content(path), R"({"nats":["a"],"monitoring":["b"],"cluster":["c"],"profile":["d"],"websocket":["e"]})");
  EXPECT_EQ(write_ports_file(path, {}), "");
  EXPECT_EQ(content(path), "{}");
  EXPECT_EQ(files(), 1u);
  EXPECT_EQ(remove_ports_file(path), "");
  EXPECT_EQ(files(), 0u);
  EXPECT_EQ(remove_ports_file(path), "");
}

TEST_F(ProcessFiles, ListenerUrls) {
  EXPECT_EQ(listener_urls("nats", "127.0.0.1", 4222), std::vector<std::string>{"nats://127.0.0.1:4222"});
  EXPECT_EQ(listener_urls("http", "::1", 8222), std::vector<std::string>{"http://[::1]:8222"});
  EXPECT_EQ(listener_urls("nats", "localhost", 1), std::vector<std::string>{"nats://localhost:1"});
  for (const char* any : {"0.0.0.0", "::", ""}) {
    const auto urls = listener_urls("nats", any, 4222);
    EXPECT_EQ(std::count(urls.begin(), urls.end(), "nats://127.0.0.1:4222"), 1) << any;
    EXPECT_EQ(std::count(urls.begin(), urls.end(), "nats://0.0.0.0:4222"), 0) << any;
  }
}

}  // namespace
}  // namespace peregrine::net::control
