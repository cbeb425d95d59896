#include "net/dpdk/eal.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include "net/dpdk/system.h"

extern "C" int opterr;  // getopt's, which the EAL parses its arguments with: 0 keeps it silent

namespace peregrine::net::dpdk {
namespace {

constexpr const char* kPrefix = "peregrine-";  // and the process

// DPDK's messages: to our log, and the errors kept for whoever has to explain a failure.
class Messages {
 public:
  void attach(core::Log* log) {
    std::lock_guard lock(mutex_);
    log_ = log;
    errors_.clear();
  }

  // The errors since the last call, newest last, in one line.
  std::string take_errors() {
    std::lock_guard lock(mutex_);
    std::string text;
    for (const std::string& line : errors_) text += (text.empty() ? "" : "; ") + line;
    errors_.clear();
    return text;
  }

  void add(std::string_view text, int level) {
    std::lock_guard lock(mutex_);
    pending_.append(text);
    for (size_t end; (end = pending_.find('\n')) != std::string::npos; pending_.erase(0, end + 1)) {
      line(std::string_view(pending_).substr(0, end), level);
    }
    if (pending_.size() > 4096) pending_.clear();
  }

 private:
  void line(std::string_view text, int level) {
    const size_t first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) return;
    text = text.substr(first, text.find_last_not_of(" \t\r") + 1 - first);
    if (level <= static_cast<int>(RTE_LOG_ERR)) {
      errors_.emplace_back(text);
      if (errors_.size() > 4) errors_.erase(errors_.begin());
    }
    if (log_ == nullptr || (holders_ > 0 && level <= static_cast<int>(RTE_LOG_WARNING))) return;
    const core::LogLevel ours = level <= static_cast<int>(RTE_LOG_ERR)       ? core::LogLevel::kError
                                : level == static_cast<int>(RTE_LOG_WARNING) ? core::LogLevel::kWarn
                                                                             : core::LogLevel::kInfo;
    log_->log(ours, "dpdk: {}", text);
  }

 public:
  void hold(bool on) {
    std::lock_guard lock(mutex_);
    holders_ += on ? 1 : -1;
  }

 private:
  std::mutex mutex_;
  core::Log* log_ = nullptr;
  int holders_ = 0;
  std::string pending_;
  std::vector<std::string> errors_;
};

// Lives for ever: DPDK's own threads may write while the process ends.
Messages& messages() {
  static auto* const all = new Messages;
  return *all;
}

ssize_t write_message(void*, const char* text, size_t size) {
  const int level = rte_log_cur_msg_loglevel();
  messages().add({text, size}, level);
  return static_cast<ssize_t>(size);
}

// stdout and stderr, set aside: the EAL prints its usage on the one and "FATAL" on the other.
class Silence {
 public:
  Silence() {
    std::fflush(stdout);
    std::fflush(stderr);
    caught_ = memfd_create("eal", MFD_CLOEXEC);
    if (caught_ < 0) return;
    for (int n = 0; n < 2; ++n) {
      saved_[n] = fcntl(n + 1, F_DUPFD_CLOEXEC, 3);
      if (saved_[n] >= 0) dup2(caught_, n + 1);
    }
  }
  ~Silence() {
    std::fflush(stdout);
    std::fflush(stderr);
    for (int n = 0; n < 2; ++n) {
      if (saved_[n] < 0) continue;
      dup2(saved_[n], n + 1);
      close(saved_[n]);
    }
    if (caught_ >= 0) close(caught_);
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  int caught_ = -1;
  int saved_[2] = {-1, -1};
};

// "0-3,8": the CPUs this process may use.
std::string allowed_cpus_text() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return "0";
  std::string text;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) text += (text.empty() ? "" : ",") + std::to_string(cpu);
  }
  return text;
}

// Where the EAL makes a directory for each process, for its telemetry socket, and leaves it.
std::filesystem::path runtime_directories() {
  const char* runtime = getuid() == 0 ? "/var/run" : getenv("XDG_RUNTIME_DIR");
  return std::filesystem::path(runtime == nullptr ? "/tmp" : runtime) / "dpdk";
}

// Only if it is empty: nobody uses it.
void remove_runtime_directory(const std::string& file_prefix) { rmdir((runtime_directories() / file_prefix).c_str()); }

// Those of servers that were killed.
void remove_old_runtime_directories() {
  std::error_code ignored;
  const std::string ours = kPrefix;
  for (const auto& entry : std::filesystem::directory_iterator(runtime_directories(), ignored)) {
    const std::string name = entry.path().filename();
    if (name.rfind(ours, 0) != 0) continue;
    const pid_t pid = std::atoi(name.c_str() + ours.size());
    if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) remove_runtime_directory(name);
  }
}

int print_nothing(int, const char*, va_list) { return 0; }

// The libraries under net_af_xdp print to stderr by themselves, also long after the start. They are there once DPDK has
// loaded its drivers.
void silence_xdp() {
  using Print = int (*)(int, const char*, va_list);
  for (const auto& [library, setter] :
       {std::pair("libxdp.so.1", "libxdp_set_print"), {"libbpf.so.1", "libbpf_set_print"}}) {
    void* const handle = dlopen(library, RTLD_NOLOAD | RTLD_LAZY);
    if (handle == nullptr) continue;
    if (auto* const set = reinterpret_cast<Print (*)(Print)>(dlsym(handle, setter)); set != nullptr) set(print_nothing);
    dlclose(handle);
  }
}

std::vector<std::string> arguments(const config::Dpdk& options, const std::string& file_prefix) {
  // One lcore that may run anywhere: the thread DPDK starts on. The shards take theirs when they start (LcoreId).
  std::vector<std::string> args = {"peregrine", "--lcores", fmt::format("0@({})", allowed_cpus_text()), "-m",
                                   std::to_string(options.memory >> 20)};
  const auto add = [&](std::initializer_list<std::string> more) { args.insert(args.end(), more); };
  add({"--file-prefix", file_prefix, "--no-shconf", "--log-level", options.log_level});
  if (!options.huge_pages) {
    add({"--no-huge"});
  } else if (options.huge_dir.empty()) {
    args.erase(std::remove(args.begin(), args.end(), "--no-shconf"), args.end());
    add({"--in-memory"});  // leaves nothing behind, and needs no mount
  } else {
    add({"--huge-dir", options.huge_dir, "--huge-unlink=always"});
  }
  if (options.iova != config::DpdkIova::kAuto) {
    add({"--iova-mode", options.iova == config::DpdkIova::kVa ? "va" : "pa"});
  }
  if (!options.telemetry) add({"--no-telemetry"});
  bool pci = false;
  for (const config::DpdkPort& port : options.ports) {
    if (!is_pci_address(port.device)) continue;
    pci = true;
    add({"-a", full_pci_address(port.device)});
  }
  if (!pci) add({"--no-pci"});
  args.insert(args.end(), options.extra_args.begin(), options.extra_args.end());
  return args;
}

}  // namespace

std::expected<std::unique_ptr<Eal>, std::string> Eal::start(const config::Dpdk& options, core::Log& log) {
  static std::atomic<bool> used{false};
  if (used.exchange(true)) return std::unexpected("DPDK can be started once in a process only");
  if (const std::string why = check_memory(options); !why.empty()) {
    used = false;
    return std::unexpected(why);
  }
  cookie_io_functions_t io{};
  io.write = write_message;
  FILE* const stream = fopencookie(nullptr, "w", io);
  if (stream == nullptr) return std::unexpected("no memory");
  setvbuf(stream, nullptr, _IONBF, 0);
  rte_openlog_stream(stream);
  messages().attach(&log);
  HeldMessages held;

  std::unique_ptr<Eal> eal(new Eal);
  eal->file_prefix_ =
      options.file_prefix.empty() ? fmt::format("{}{}", kPrefix, static_cast<int>(getpid())) : options.file_prefix;
  remove_old_runtime_directories();
  eal->huge_pages_ = options.huge_pages;
  std::vector<std::string> args = arguments(options, eal->file_prefix_);
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  int result = -1;
  int error = 0;
  {
    Silence silence;
    // The EAL pins the thread it starts on to its first lcore.
    std::thread([&] {
      const int old = std::exchange(opterr, 0);
      result = rte_eal_init(static_cast<int>(argv.size()), argv.data());
      error = rte_errno;
      opterr = old;
    }).join();
  }
  if (result >= 0) {
    silence_xdp();
    return eal;
  }
  remove_runtime_directory(eal->file_prefix_);
  eal.release();  // nothing to clean up, and rte_eal_cleanup() of what never started crashes
  std::string why = held.take();
  if (why.empty()) why = rte_strerror(error);
  messages().attach(nullptr);
  if (!options.extra_args.empty() && error != ENOMEM) why += "; see extra_args";
  return std::unexpected(fmt::format("DPDK does not start: {}", why));
}

Eal::~Eal() {
  messages().attach(nullptr);
  rte_eal_cleanup();
  // The EAL would do it at exit.
  unlink((runtime_directories() / file_prefix_ / "dpdk_telemetry.v2").c_str());
  remove_runtime_directory(file_prefix_);
}

std::expected<uint16_t, std::string> Eal::attach(const config::DpdkPort& port) {
  const auto failed = [&](const std::string& why) {
    return std::unexpected(fmt::format("port {}: {}", port.device, why));
  };
  if (const std::string why = check_device(port); !why.empty()) return failed(why);
  std::string name = port.device.substr(0, port.device.find(','));
  if (is_pci_address(port.device)) {
    name = full_pci_address(port.device);
  } else {
    HeldMessages held;
    const int result = rte_dev_probe(port.device.c_str());
    if (result < 0) {
      std::string why = held.take();
      const std::string driver = name.substr(0, name.find_last_not_of("0123456789") + 1);
      if (why.find("failed to parse device") != std::string::npos) {
        why = fmt::format("DPDK has no driver {}; is its package (librte-net-...) installed?", driver);
      } else if (why.empty()) {
        why = rte_strerror(-result);
      }
      const bool denied = result == -EPERM || result == -EACCES || why.find("not permitted") != std::string::npos ||
                          why.find("ermission denied") != std::string::npos;
      if (denied) why += "; run as root or give the server CAP_NET_RAW and CAP_NET_ADMIN";
      return failed(why);
    }
  }
  uint16_t number = 0;
  if (rte_eth_dev_get_port_by_name(name.c_str(), &number) != 0) {
    return failed("no DPDK driver takes this device; is its package (librte-net-...) installed?");
  }
  return number;
}

HeldMessages::HeldMessages() {
  messages().take_errors();
  messages().hold(true);
}

HeldMessages::~HeldMessages() {
  messages().take_errors();
  messages().hold(false);
}

std::string HeldMessages::take() { return messages().take_errors(); }

LcoreId::LcoreId(int& error) {
  error = 0;
  if (rte_lcore_id() != LCORE_ID_ANY) return;  // has one already
  if (rte_thread_register() != 0) {
    error = -rte_errno;
    return;
  }
  taken_ = true;
}

LcoreId::~LcoreId() {
  if (taken_) rte_thread_unregister();
}

}  // namespace peregrine::net::dpdk
