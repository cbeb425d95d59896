#include "net/control/log_sink.h"

#include <fmt/format.h>
#include <spdlog/async_logger.h>
#include <spdlog/details/thread_pool.h>
#include <spdlog/sinks/sink.h>

#include <condition_variable>
#include <mutex>

#include "net/control/log_target.h"

namespace peregrine::net::control {
namespace {

using core::LogLevel;
using std::chrono::steady_clock;

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kFatal:
      break;
  }
  return spdlog::level::critical;
}

LogLevel from_spdlog(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
      return LogLevel::kTrace;
    case spdlog::level::debug:
      return LogLevel::kDebug;
    case spdlog::level::info:
      return LogLevel::kInfo;
    case spdlog::level::warn:
      return LogLevel::kWarn;
    case spdlog::level::err:
      return LogLevel::kError;
    default:
      return LogLevel::kFatal;
  }
}

// spdlog's end of a LogTarget. Its lock is what makes the synchronous phase, the writer thread and reopen() take turns.
class TargetSink final : public spdlog::sinks::sink {
 public:
  explicit TargetSink(std::unique_ptr<LogTarget> target) : target_(std::move(target)) {}

  void log(const spdlog::details::log_msg& message) override {
    std::lock_guard lock(mutex_);
    target_->write({from_spdlog(message.level), message.time, {message.payload.data(), message.payload.size()}});
    if (pool_ == nullptr || pool_->queue_size() == 0) target_->flush();  // else the next line is here already: collect
    report_drops();
  }

  void flush() override {
    {
      std::lock_guard lock(mutex_);
      target_->flush();
      report_drops();
      ++flushes_;
    }
    flushed_.notify_all();
  }

  uint64_t flushes() const {
    std::lock_guard lock(mutex_);
    return flushes_;
  }
  bool wait_flushed(uint64_t beyond, steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    return flushed_.wait_until(lock, deadline, [&] { return flushes_ > beyond; });
  }

  // The queue whose thread calls log() and flush(); it outlives those calls, and nullptr follows when it is gone.
  void set_pool(spdlog::details::thread_pool* pool) {
    std::lock_guard lock(mutex_);
    pool_ = pool;
  }
  std::string reopen() {
    std::lock_guard lock(mutex_);
    return target_->reopen();
  }
  bool is_file() const { return target_->is_file(); }
  void give_up() { target_->give_up(); }  // without the lock: the writer may be stuck holding it

  void set_pattern(const std::string&) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

 private:
  void report_drops() {
    if (pool_ == nullptr) return;
    const auto now = steady_clock::now();
    if (now < next_report_) return;
    next_report_ = now + std::chrono::seconds(1);
    const uint64_t dropped = pool_->overrun_counter();
    if (dropped == reported_) return;
    const std::string text =
        fmt::format("{} log lines dropped: they came faster than the log could be written", dropped - reported_);
    reported_ = dropped;
    target_->write({LogLevel::kWarn, std::chrono::system_clock::now(), text});
    if (pool_->queue_size() == 0) target_->flush();
  }

  mutable std::mutex mutex_;
  std::condition_variable flushed_;
  const std::unique_ptr<LogTarget> target_;
  // Not a shared_ptr: the writer thread must never be the one to destroy the pool that joins it.
  spdlog::details::thread_pool* pool_ = nullptr;
  uint64_t flushes_ = 0;
  uint64_t reported_ = 0;
  steady_clock::time_point next_report_{};
};

}  // namespace

struct LogSink::Impl {
  std::shared_ptr<TargetSink> sink;
  size_t queue_lines = kQueueLines;
  // Both null until start_async(); set once, before there are other threads, so write() may read them without a lock.
  std::shared_ptr<spdlog::details::thread_pool> pool;
  std::shared_ptr<spdlog::async_logger> logger;
};

LogSink::LogSink() : impl_(std::make_unique<Impl>()) {}

std::unique_ptr<LogSink> LogSink::open(const config::Options& options, const std::string& tag, std::string& error,
                                       size_t queue_lines) {
  auto target = open_log_target(options, tag, error);
  if (target == nullptr) return nullptr;
  std::unique_ptr<LogSink> log(new LogSink);
  log->impl_->sink = std::make_shared<TargetSink>(std::move(target));
  log->impl_->queue_lines = queue_lines;
  log->set_enabled(LogLevel::kDebug, options.debug);
  log->set_enabled(LogLevel::kTrace, options.trace || options.trace_verbose || options.trace_headers);
  return log;
}

LogSink::~LogSink() {
  if (impl_->sink == nullptr) return;
  impl_->sink->give_up();
  impl_->pool.reset();  // joins the writer after the last queued line; its references to the logger go with it
  impl_->sink->set_pool(nullptr);
  impl_->logger.reset();
  impl_->sink->flush();
}

void LogSink::write(LogLevel level, std::string_view text) {
  const spdlog::string_view_t payload(text.data(), text.size());
  if (impl_->logger != nullptr) {
    impl_->logger->log(to_spdlog(level), payload);
    if (level == LogLevel::kFatal) flush();  // an exit follows
    return;
  }
  impl_->sink->log({spdlog::source_loc{}, spdlog::string_view_t{}, to_spdlog(level), payload});
}

void LogSink::start_async() {
  impl_->pool = std::make_shared<spdlog::details::thread_pool>(impl_->queue_lines, 1);
  impl_->sink->set_pool(impl_->pool.get());
  auto logger = std::make_shared<spdlog::async_logger>("", impl_->sink, impl_->pool,
                                                       spdlog::async_overflow_policy::overrun_oldest);
  logger->set_level(spdlog::level::trace);  // core::Log has decided already
  impl_->logger = std::move(logger);
}

void LogSink::flush() {
  if (impl_->logger == nullptr) return;
  const auto deadline = steady_clock::now() + std::chrono::seconds(2);
  // A flush waits in the same queue and may be overrun itself: ask again until one has come through.
  const uint64_t before = impl_->sink->flushes();
  do {
    impl_->logger->flush();
  } while (
      !impl_->sink->wait_flushed(before, std::min(deadline, steady_clock::now() + std::chrono::milliseconds(100))) &&
      steady_clock::now() < deadline);
}

void LogSink::reopen() {
  if (!impl_->sink->is_file()) {
    info("File log re-open ignored, not a file logger");
    return;
  }
  flush();
  const std::string reason = impl_->sink->reopen();
  if (reason.empty()) info("File log re-opened");
  else error("File log re-open failed, the old file stays in use: {}", reason);
}

uint64_t LogSink::dropped() const { return impl_->pool == nullptr ? 0 : impl_->pool->overrun_counter(); }

}  // namespace peregrine::net::control
