#include "net/control/log_target.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syslog.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <vector>

#include "core/go_format.h"
#include "net/socket.h"

namespace peregrine::net::control {
namespace {

using core::LogLevel;

constexpr mode_t kFileMode = 0640;
constexpr size_t kBatchBytes = 32 * 1024;

struct Label {
  const char* text;
  const char* color;  // ANSI
  int severity;       // syslog
};

const Label& label_of(LogLevel level) {
  static constexpr Label kLabels[] = {
      {"INF", "32", LOG_NOTICE}, {"DBG", "36", LOG_DEBUG}, {"WRN", "0;93", LOG_WARNING},
      {"ERR", "31", LOG_ERR},    {"FTL", "31", LOG_CRIT},  {"TRC", "33", LOG_NOTICE},
  };
  return kLabels[static_cast<size_t>(level)];
}

tm local_or_utc(time_t seconds, bool utc) {
  tm parts{};
  if (utc) gmtime_r(&seconds, &parts);
  else localtime_r(&seconds, &parts);
  return parts;
}

int64_t unix_ns(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

std::string error_text() { return errno_text(errno); }

// Writes everything, waiting in small steps so that a process which is leaving does not hang on a pipe nobody reads.
bool write_all(int fd, std::string_view bytes, const auto& giving_up) {
  while (!bytes.empty()) {
    pollfd poll_fd{fd, POLLOUT, 0};
    const int ready = poll(&poll_fd, 1, 1000);
    if (ready == 0) {
      if (giving_up()) return false;
      continue;
    }
    if (ready < 0 && errno != EINTR) return false;
    // No more than a pipe is guaranteed to take once it is writable: more would block past the poll.
    const ssize_t n = ::write(fd, bytes.data(), std::min<size_t>(bytes.size(), 4096));
    if (n < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

class StderrTarget final : public LogTarget {
 public:
  explicit StderrTarget(const config::Options& options) : options_(options), colors_(isatty(STDERR_FILENO) == 1) {}

  void write(const LogLine& line) override {
    batch_ += format_log_line(line, options_, colors_);
    if (batch_.size() >= kBatchBytes) flush();
  }
  void flush() override {
    write_all(STDERR_FILENO, batch_, [this] { return giving_up(); });
    batch_.clear();
  }

 private:
  const config::Options options_;
  const bool colors_;
  std::string batch_;
};

class FileTarget final : public LogTarget {
 public:
  explicit FileTarget(const config::Options& options) : options_(options), limit_(options.logfile_size_limit) {}
  ~FileTarget() override {
    if (fd_ >= 0) close(fd_);
  }

  bool is_file() const override { return true; }

  std::string open_file() {
    const int fd = open(options_.log_file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, kFileMode);
    if (fd < 0) return fmt::format("error opening file: open {}: {}", options_.log_file, error_text());
    struct stat status {};
    size_ = fstat(fd, &status) == 0 ? status.st_size : 0;
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
    return {};
  }

  std::string reopen() override {
    flush();
    return open_file();
  }

  void write(const LogLine& line) override {
    batch_ += format_log_line(line, options_, false);
    // With a size limit every line counts by itself, or the file would overshoot by a batch.
    if (limit_ > 0 || batch_.size() >= kBatchBytes) flush();
  }

  void flush() override {
    if (batch_.empty()) return;
    write_direct(batch_);
    batch_.clear();
    if (limit_ > 0 && size_ > limit_) rotate();
  }

 private:
  void write_direct(std::string_view bytes) {
    if (write_all(fd_, bytes, [this] { return giving_up(); })) size_ += static_cast<int64_t>(bytes.size());
  }

  void write_own(LogLevel level, const std::string& text) {
    write_direct(format_log_line({level, std::chrono::system_clock::now(), text}, options_, false));
  }

  void rotate() {
    const int64_t now = unix_ns(std::chrono::system_clock::now());
    const tm t = local_or_utc(now / 1'000'000'000, false);
    const std::string backup =
        fmt::format("{}.{:04}.{:02}.{:02}.{:02}.{:02}.{:02}.{:09}", options_.log_file, t.tm_year + 1900, t.tm_mon + 1,
                    t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, now % 1'000'000'000);
    if (rename(options_.log_file.c_str(), backup.c_str()) != 0) {
      const std::string reason = error_text();
      limit_ *= 2;  // or every line would try, and complain, again
      write_own(LogLevel::kError,
                fmt::format("Unable to rename logfile for rotation ({}), will attempt next rotation at size {}", reason,
                            limit_));
      return;
    }
    if (const std::string reason = open_file(); !reason.empty()) {
      limit_ *= 2;  // the old, renamed file stays in use
      write_own(LogLevel::kError, fmt::format("Unable to begin a new logfile after rotation ({})", reason));
      return;
    }
    limit_ = options_.logfile_size_limit;
    size_ = 0;
    write_own(LogLevel::kInfo, fmt::format("Rotated log, backup saved as {}", core::quote(backup)));
    if (options_.logfile_max_num > 0) purge();
  }

  // Is `stamp` what rotate() appends behind the file's name?
  static bool is_stamp(std::string_view stamp) {
    static constexpr std::string_view kShape = "dddd.dd.dd.dd.dd.dd.";
    if (stamp.size() <= kShape.size() || stamp.size() > kShape.size() + 9) return false;
    for (size_t i = 0; i < stamp.size(); ++i) {
      const bool digit = stamp[i] >= '0' && stamp[i] <= '9';
      if (i < kShape.size() && kShape[i] == '.' ? stamp[i] != '.' : !digit) return false;
    }
    return true;
  }

  void purge() {
    namespace fs = std::filesystem;
    const fs::path file(options_.log_file);
    const fs::path directory = file.has_parent_path() ? file.parent_path() : fs::path(".");
    const std::string prefix = file.filename().string() + ".";
    std::vector<std::string> backups;
    std::error_code error;
    for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (name.starts_with(prefix) && is_stamp(std::string_view(name).substr(prefix.size()))) backups.push_back(name);
    }
    if (error) {
      write_own(LogLevel::kError,
                fmt::format("Unable to read directory {} for log purge ({}), will attempt next rotation",
                            core::quote(directory.string()), error.message()));
      return;
    }
    std::sort(backups.begin(), backups.end());  // the stamp sorts by time
    const auto keep = static_cast<size_t>(options_.logfile_max_num - 1);
    for (size_t i = 0; i + keep < backups.size(); ++i) {
      if (!fs::remove(directory / backups[i], error)) {
        write_own(LogLevel::kError, fmt::format("Unable to remove backup log file {} ({}), will attempt next rotation",
                                                core::quote(backups[i]), error.message()));
        return;
      }
      write_own(LogLevel::kInfo, fmt::format("Purged log file {}", core::quote(backups[i])));
    }
  }

  const config::Options options_;
  int64_t limit_;     // bytes; 0 = no rotation
  int64_t size_ = 0;  // bytes in the current file
  int fd_ = -1;
  std::string batch_;
};

// RFC 3164 over a local or remote socket, as Go's log/syslog speaks it. UDP and unix datagrams are one line each,
// streams end a line with a newline. A broken connection is dialled again once per line, like there.
class SyslogTarget final : public LogTarget {
 public:
  explicit SyslogTarget(std::string tag) : tag_(std::move(tag)) {
    char name[256] = "localhost";
    gethostname(name, sizeof(name) - 1);
    hostname_ = name;
  }
  ~SyslogTarget() override { hang_up(); }

  // `address` is udp://host:port, tcp://host:port or unix:///path; empty = this machine's own.
  std::string connect_to(const std::string& address) {
    if (address.empty()) {
      local_ = true;
      for (const char* path : {"/dev/log", "/var/run/syslog", "/var/run/log"}) {
        path_ = path;
        if (dial()) return {};
      }
      return "error connecting to syslog: \"Unix syslog delivery error\"";
    }
    const size_t colon = address.find("://");
    const std::string scheme = colon == std::string::npos ? "" : address.substr(0, colon);
    const std::string rest = colon == std::string::npos ? "" : address.substr(colon + 3);
    if (scheme == "unix") {
      path_ = rest;
    } else if (scheme == "udp" || scheme == "tcp") {
      const std::string authority = rest.substr(0, rest.find('/'));
      const size_t last = authority.rfind(':');
      if (last == std::string::npos) {
        return fmt::format("error connecting to syslog: {}",
                           core::quote(fmt::format("dial {}: address {}: missing port in address", scheme, authority)));
      }
      host_ = authority.substr(0, last);
      port_ = authority.substr(last + 1);
      if (host_.size() >= 2 && host_.front() == '[' && host_.back() == ']') host_ = host_.substr(1, host_.size() - 2);
      stream_ = scheme == "tcp";
    } else {
      return fmt::format("error invalid network type: {}", core::quote(scheme));
    }
    if (dial()) return {};
    return fmt::format("error connecting to syslog: {}",
                       core::quote(fmt::format("dial {}: {}", address, error_text())));
  }

  void write(const LogLine& line) override {
    const int64_t ns = unix_ns(line.time);
    const tm t = local_or_utc(ns / 1'000'000'000, false);
    char time[64];
    std::string text;
    const int priority = LOG_DAEMON | label_of(line.level).severity;
    if (local_) {
      strftime(time, sizeof(time), "%b %e %H:%M:%S", &t);
      text = fmt::format("<{}>{} {}[{}]: {}\n", priority, time, tag_, getpid(), line.text);
    } else {
      strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S%z", &t);
      std::string stamp = time;
      stamp.insert(stamp.size() - 2, ":");
      text = fmt::format("<{}>{} {} {}[{}]: {}\n", priority, stamp, hostname_, tag_, getpid(), line.text);
    }
    if (!send_all(text) && dial()) send_all(text);
  }

 private:
  void hang_up() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  // Sets errno on failure.
  bool dial() {
    hang_up();
    if (!path_.empty()) {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      if (path_.size() >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return false;
      }
      std::memcpy(address.sun_path, path_.data(), path_.size());
      for (int type : {SOCK_DGRAM, SOCK_STREAM}) {
        fd_ = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        stream_ = type == SOCK_STREAM;
        if (fd_ >= 0 && connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) break;
        const int error = errno;
        hang_up();
        errno = error;
      }
    } else {
      addrinfo hints{}, *found = nullptr;
      hints.ai_socktype = stream_ ? SOCK_STREAM : SOCK_DGRAM;
      if (getaddrinfo(host_.c_str(), port_.c_str(), &hints, &found) != 0) {
        errno = EADDRNOTAVAIL;
        return false;
      }
      for (addrinfo* it = found; it != nullptr && fd_ < 0; it = it->ai_next) {
        fd_ = socket(it->ai_family, it->ai_socktype | SOCK_CLOEXEC, it->ai_protocol);
        if (fd_ >= 0 && connect(fd_, it->ai_addr, it->ai_addrlen) != 0) {
          const int error = errno;
          hang_up();
          errno = error;
        }
      }
      freeaddrinfo(found);
    }
    if (fd_ < 0) return false;
    const timeval limit{1, 0};  // seconds; a collector that takes nothing costs lines, not the writer
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    return true;
  }

  bool send_all(std::string_view bytes) {
    if (fd_ < 0) return false;
    do {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return false;
      bytes.remove_prefix(stream_ ? static_cast<size_t>(n) : bytes.size());
    } while (!bytes.empty());
    return true;
  }

  const std::string tag_;
  std::string hostname_, path_, host_, port_;
  bool local_ = false, stream_ = false;
  int fd_ = -1;
};

}  // namespace

std::string format_log_line(const LogLine& line, const config::Options& options, bool colors) {
  static const int pid = getpid();
  std::string out = fmt::format("[{}] ", pid);
  if (options.logtime) {
    const int64_t ns = unix_ns(line.time);
    const tm t = local_or_utc(ns / 1'000'000'000, options.logtime_utc);
    fmt::format_to(std::back_inserter(out), "{:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:06} ", t.tm_year + 1900,
                   t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, ns % 1'000'000'000 / 1000);
  }
  const Label& label = label_of(line.level);
  if (colors) fmt::format_to(std::back_inserter(out), "[\x1b[{}m{}\x1b[0m] ", label.color, label.text);
  else fmt::format_to(std::back_inserter(out), "[{}] ", label.text);
  out += line.text;
  if (out.back() != '\n') out += '\n';
  return out;
}

std::unique_ptr<LogTarget> open_log_target(const config::Options& options, const std::string& tag, std::string& error) {
  error.clear();
  if (!options.log_file.empty()) {
    auto file = std::make_unique<FileTarget>(options);
    error = file->open_file();
    if (!error.empty()) return nullptr;
    return file;
  }
  if (options.syslog || !options.remote_syslog.empty()) {
    auto syslog = std::make_unique<SyslogTarget>(tag);
    error = syslog->connect_to(options.remote_syslog);
    if (!error.empty()) return nullptr;
    return syslog;
  }
  return std::make_unique<StderrTarget>(options);
}

}  // namespace peregrine::net::control
