// Four shards on four threads, without any I/O: rings, overflow, wake-ups and the mailbox as they really run.
// scripts/check runs it under TSan. Every message must arrive exactly once and in order, and no shard may sleep through
// a record.
#include <gtest/gtest.h>

#include <array>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

constexpr uint32_t kShards = 4;
constexpr int kMessages = 4000;  // per publisher
constexpr int kBatch = 25;

// What the reactor is to a shard, with a condition variable for a socket.
class Seat {
 public:
  Seat(core::Shard& shard) : shard_(shard) {
    shard_.set_waker([this] {
      std::lock_guard lock(mutex_);
      woken_ = true;
      bell_.notify_one();
    });
  }

  void run() {
    core::Session* reader = open(0);
    core::Session* publisher = open(1);
    int64_t now = 0;
    feed(*reader, "SUB n.> 1\r\nPING\r\n", ++now);
    // Everybody is subscribed everywhere before the first message: a message of our own only tells about our own
    // subscription.
    while (!everybody_is_here()) turn(++now, nullptr, {});
    int sent = 0;
    std::array<int, kShards> next{};
    std::string text;
    int idle = 0;
    while (!ended_) {
      std::string batch;
      if (sent < kMessages && !publisher->held()) {
        for (int n = 0; n < kBatch; ++n, ++sent) {
          const std::string payload = std::to_string(sent) + std::string(sent % 97 == 0 ? 3000 : sent % 13, '.');
          batch += "PUB n." + std::to_string(shard_.index()) + " " + std::to_string(payload.size()) + "\r\n" + payload +
                   "\r\n";
        }
      }
      const bool busy = turn(++now, publisher, batch);
      read(*reader, text, next);
      bool all = sent == kMessages;
      for (const int got : next) all = all && got == kMessages;
      if (all && !told_) {
        told_ = true;
        finished.fetch_add(1);
        for (core::Shard* each : shard_.server().shards) each->post([](core::Shard&) { return true; });  // look again
      }
      if (finished.load() == kShards) ended_ = true;
      if (busy || !batch.empty() || ended_) {
        idle = 0;
        continue;
      }
      if (++idle < 3) continue;
      if (publisher->held()) continue;  // something is stuck: the reactor comes back after 100 µs
      if (!shard_.try_sleep()) continue;
      std::unique_lock lock(mutex_);
      if (!bell_.wait_for(lock, std::chrono::seconds(20), [&] { return woken_; })) {
        ADD_FAILURE() << "shard " << shard_.index() << " slept for ever, got " << next[0] << " " << next[1] << " "
                      << next[2] << " " << next[3] << ", sent " << sent;
        ended_ = true;
      }
      woken_ = false;
      shard_.awake();
    }
  }

  static inline std::atomic<uint32_t> subscribed{0};
  static inline std::atomic<uint32_t> finished{0};

 private:
  core::Session* open(uint32_t conn) {
    shard_.begin_turn(1, 1);
    core::Session* session = shard_.open_client(conn, "127.0.0.1", 1);
    session->feed("CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
    return session;
  }
  void feed(core::Session& session, std::string_view bytes, int64_t now) { turn(now, &session, bytes); }

  bool turn(int64_t now, core::Session* session, std::string_view input) {
    shard_.begin_turn(now * 1'000, now);
    bool busy = shard_.drain_rings();
    if (session != nullptr && !input.empty()) session->feed(input);
    busy |= shard_.end_turn();
    if (shard_.output_stuck()) return true;
    for (core::Session* each : shard_.dirty()) each->dirty = false;
    shard_.dirty().clear();
    return busy;
  }

  // The PONG promises that the SUB is known everywhere; the others' promises are counted.
  bool everybody_is_here() {
    if (!counted_ && !shard_.output_stuck()) {
      counted_ = true;
      subscribed.fetch_add(1);
    }
    return subscribed.load() == kShards;
  }

  void read(core::Session& reader, std::string& text, std::array<int, kShards>& next) {
    while (!reader.outbox.empty()) {
      iovec iov[16];
      const size_t n = reader.outbox.gather(iov, 16, 1 << 20);
      size_t bytes = 0;
      for (size_t i = 0; i < n; ++i) {
        text.append(static_cast<const char*>(iov[i].iov_base), iov[i].iov_len);
        bytes += iov[i].iov_len;
      }
      reader.outbox.consume(bytes);
    }
    size_t at = 0;
    while (true) {
      const size_t line = text.find("\r\n", at);
      if (line == std::string::npos) break;
      if (text.compare(at, 4, "MSG ") != 0) {
        at = line + 2;
        continue;
      }
      const size_t size = static_cast<size_t>(std::stoi(text.substr(text.rfind(' ', line) + 1)));
      if (text.size() < line + 2 + size + 2) break;
      const auto from = static_cast<size_t>(text[at + 6] - '0');
      EXPECT_EQ(std::stoi(text.substr(line + 2, size)), next[from])
          << "from shard " << from << " on shard " << shard_.index();
      ++next[from];
      at = line + 2 + size + 2;
    }
    text.erase(0, at);
  }

  core::Shard& shard_;
  std::mutex mutex_;
  std::condition_variable bell_;
  bool woken_ = false, ended_ = false, told_ = false, counted_ = false;
};

TEST(Threads, EveryMessageOnceAndInOrderOnEveryShard) {
  Machine machine(kShards, {}, 16 * 1024);  // rings so small that they overflow all the time
  std::vector<std::unique_ptr<Seat>> seats;
  for (uint32_t n = 0; n < kShards; ++n) seats.push_back(std::make_unique<Seat>(machine.shard(n)));
  std::vector<std::thread> threads;
  for (auto& seat : seats) threads.emplace_back([&seat] { seat->run(); });
  for (std::thread& thread : threads) thread.join();
  // References still on their way home.
  for (int turn = 0; turn < 4; ++turn) {
    for (uint32_t n = 0; n < kShards; ++n) {
      machine.shard(n).begin_turn(INT64_C(1) << 40, 1);
      machine.shard(n).drain_rings();
      machine.shard(n).end_turn();
    }
  }
  uint64_t overflows = 0;
  for (uint32_t n = 0; n < kShards; ++n) overflows += machine.shard(n).snapshot().rings.overflows;
  EXPECT_GT(overflows, 0u) << "the overflow lists were not tested";
}

}  // namespace
}  // namespace peregrine::test
