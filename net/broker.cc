#include "net/broker.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>

#include <fmt/format.h>

#include "net/socket.h"

namespace peregrine::net {
namespace {

int64_t clock_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// Interest records are small and rare beside messages. What is in a ring is read in one turn, and a turn is to be
// short: some thousand records, be they from one shard or from many.
uint32_t interest_ring_bytes(uint32_t delivery_bytes, uint32_t shards) {
  const uint32_t each = std::bit_floor(std::max(delivery_bytes / 16 / std::max(shards - 1, 1u), 1u));
  return std::max<uint32_t>(each, 16 * 1024);
}

}  // namespace

int64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }
int64_t wall_clock_ns() { return clock_ns(CLOCK_REALTIME); }

Broker::Broker(core::Server& server, BrokerPlan plan) : server_(server), plan_(std::move(plan)) {}

Broker::~Broker() { stop(0); }

std::string Broker::start() {
  const auto ring_bytes = static_cast<uint32_t>(server_.options.native.ring_bytes);
  rings_ = std::make_unique<core::RingMatrix>(plan_.shards, interest_ring_bytes(ring_bytes, plan_.shards), ring_bytes);
  for (uint32_t n = 0; n < plan_.shards; ++n) {
    shards_.push_back(std::make_unique<core::Shard>(server_, n, plan_.shards, rings_.get(),
                                                    plan_.seed + n * 0x9e3779b9u, monotonic_ns(), wall_clock_ns()));
    server_.shards.push_back(shards_.back().get());
  }
  reactors_.resize(plan_.shards);

  // All backends exist before the first turn runs: from then on any shard may wake any other.
  std::vector<std::future<std::string>> made;
  auto go = std::make_shared<std::promise<bool>>();
  std::shared_future<bool> may_run = go->get_future().share();
  at_rest_ = std::make_shared<std::latch>(plan_.shards + 1);
  for (uint32_t n = 0; n < plan_.shards; ++n) {
    auto ready = std::make_shared<std::promise<std::string>>();
    made.push_back(ready->get_future());
    threads_.emplace_back([this, n, ready, may_run, at_rest = at_rest_] {
      // The main thread keeps the process's name: `--signal` finds a server by it.
      set_exact_timers();
      pthread_setname_np(pthread_self(), fmt::format("shard {}", n).c_str());
      if (const int cpu = core_of(n); cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (const int error = pthread_setaffinity_np(pthread_self(), sizeof(set), &set); error != 0) {
          const std::string why = fmt::format("cannot pin shard {} to core {}: {}", n, cpu, errno_text(error));
          if (!server_.options.native.cores.empty()) {
            ready->set_value(why);
            return;
          }
          server_.log.warn("{}; it runs where the scheduler puts it", why);  // nobody asked for that core
        }
      }
      auto backend = plan_.make_backend(n);
      if (!backend) {
        ready->set_value(backend.error());
        return;
      }
      const auto& native = server_.options.native;
      reactors_[n] = std::make_unique<Reactor>(*shards_[n], std::move(*backend), native.idle, native.spin_us * 1000,
                                               wall_clock_ns);
      ready->set_value("");
      if (!may_run.get()) return;
      if (n < plan_.listeners.size()) {
        if (const int error = reactors_[n]->listen_for_clients(plan_.listeners[n], plan_.client_tls.get()); error < 0) {
          server_.log.error("shard {} cannot accept: {}", n, errno_text(error));
        }
      }
      for (uint32_t l = 0; l < plan_.peer_listeners.size(); ++l) {
        const PeerListener& listener = plan_.peer_listeners[l];
        if (n >= listener.fds.size()) continue;
        if (const int error = reactors_[n]->listen(listener.fds[n], l + 1, listener.open); error < 0) {
          server_.log.error("shard {} cannot accept: {}", n, errno_text(error));
        }
      }
      reactors_[n]->run();
      // Any shard may still be waking this one: the backends go when all have come to rest, on the thread that used
      // them.
      at_rest->arrive_and_wait();
      reactors_[n].reset();
    });
  }
  std::string error;
  for (auto& each : made) {
    const std::string why = each.get();
    if (error.empty()) error = why;
  }
  if (error.empty()) report_ = reactors_[0]->backend().report();
  go->set_value(error.empty());
  if (!error.empty()) {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  return error;
}

bool Broker::run_on_shards(const std::function<bool(core::Shard&)>& command, int timeout_ms) {
  struct Pending {
    std::mutex mutex;
    std::condition_variable done;
    size_t left;
  };
  const core::Standstill::Guard still(server_.standstill);
  auto pending = std::make_shared<Pending>();
  pending->left = shards_.size();
  for (auto& shard : shards_) {
    shard->post([command, pending](core::Shard& on) {
      if (!command(on)) return false;
      std::lock_guard lock(pending->mutex);
      if (--pending->left == 0) pending->done.notify_all();
      return true;
    });
  }
  std::unique_lock lock(pending->mutex);
  return pending->done.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return pending->left == 0; });
}

void Broker::stop_listening() {
  run_on_shards(
      [this](core::Shard& shard) {
        reactors_[shard.index()]->stop_listening();
        return true;
      },
      1000);
}

void Broker::stop(int linger_ms) {
  if (threads_.empty()) return;
  stop_listening();
  // Done when every connection's last bytes are with the kernel; whether the peer closes its side too is not waited
  // for.
  run_on_shards(
      [](core::Shard& on) {
        on.shut_down(core::CloseReason::kServerShutdown);
        const auto& sessions = on.sessions();
        return std::all_of(sessions.begin(), sessions.end(),
                           [](const core::Session* session) { return session->close_told; });
      },
      linger_ms);
  for (auto& reactor : reactors_) reactor->stop();
  at_rest_->count_down();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace peregrine::net
