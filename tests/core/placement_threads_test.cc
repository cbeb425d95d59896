// Publishers that change shards while four threads run them. scripts/check runs it under TSan: every message must
// arrive exactly once and in its publisher's order on every shard, wherever the publisher was when it sent it.
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <thread>

#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

constexpr uint32_t kShards = 4;
constexpr int kMessages = 6000;  // per publisher
constexpr int kEach = 500;       // to one shard, then to another
constexpr int kBatch = 25;
constexpr int kAhead = 200;  // of the slowest reader: a thread off its core would else miss most of it

struct Publisher {
  uint32_t number = 0;
  int sent = 0;
  core::Session* session = nullptr;

  // Which shard's reader gets message n; every eighth is for all.
  static bool for_all(int n) { return n % 8 == 7; }
  static uint32_t target(uint32_t number, int n) { return (static_cast<uint32_t>(n / kEach) * 3 + number) % kShards; }
};

// One for all: what a publisher takes along are times.
int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

class Station final : public core::Carrier {
 public:
  explicit Station(core::Shard& shard) : shard_(shard) {
    shard_.set_carrier(this);
    auto& settings = shard_.placement().settings;
    settings.messages = 64;
    settings.gap_ns = 0;
    settings.rest_s = 0;
    settings.patience_ns = INT64_C(10'000'000'000);
  }

  void run() {
    const std::string me = std::to_string(shard_.index());
    own_.number = shard_.index();
    shard_.begin_turn(now_ns(), 1);
    reader_ = open(100);
    own_.session = open(own_.number);
    here_.push_back(&own_);
    reader_->feed("SUB all.* 1\r\nSUB " + me + ".* 2\r\n");
    finish_turn();
    while (shard_.output_stuck()) turn();
    subscribed.fetch_add(1);
    while (subscribed.load() < kShards) turn();
    while (finished.load() < kShards) {
      turn();
      if (!told_ && next_ == std::array<int, kShards>{kMessages, kMessages, kMessages, kMessages}) {
        told_ = true;
        finished.fetch_add(1);
      }
      std::this_thread::yield();
    }
  }

  bool can_carry() const override { return true; }
  int64_t core_time_ns() const override { return now_ns(); }
  std::unique_ptr<core::CarriedConnection> give(core::Session& session) override {
    const auto at =
        std::find_if(here_.begin(), here_.end(), [&](const Publisher* each) { return each->session == &session; });
    auto carried = std::make_unique<Carried>(*at);
    here_.erase(at);
    return carried;
  }
  uint32_t take(std::unique_ptr<core::CarriedConnection> connection) override {
    here_.push_back(static_cast<Carried&>(*connection).publisher);
    return here_.back()->number;
  }
  void bind(core::Session& session) override { here_.back()->session = &session; }

  static inline std::atomic<uint32_t> subscribed{0}, finished{0};
  // How far each shard's reader has got with each publisher.
  static inline std::array<std::array<std::atomic<int>, kShards>, kShards> progress{};

 private:
  struct Carried final : core::CarriedConnection {
    explicit Carried(Publisher* publisher) : publisher(publisher) {}
    Publisher* publisher;
  };

  core::Session* open(uint32_t conn) {
    core::Session* session = shard_.open_client(conn, "127.0.0.1", 1);
    session->feed("CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
    return session;
  }

  void turn() {
    // Asked first: whoever is counted in has told the rings before.
    const bool all_subscribed = subscribed.load() == kShards;
    shard_.begin_turn(now_ns(), 1);
    shard_.drain_rings();
    if (all_subscribed) {
      for (Publisher* each : here_) publish(*each);
    }
    finish_turn();
  }
  void publish(Publisher& from) {
    if (!from.session->reading) return;
    for (const auto& each : progress) {
      if (from.sent > each[from.number].load() + kAhead) return;
    }
    std::string batch;
    for (int n = 0; n < kBatch && from.sent < kMessages; ++n, ++from.sent) {
      const std::string payload = std::to_string(from.sent) + std::string(from.sent % 97 == 0 ? 3000 : 0, '.');
      const std::string to =
          Publisher::for_all(from.sent) ? "all" : std::to_string(Publisher::target(from.number, from.sent));
      batch += "PUB " + to + "." + std::to_string(from.number) + " " + std::to_string(payload.size()) + "\r\n" +
               payload + "\r\n";
    }
    if (!batch.empty()) from.session->feed(batch);
  }
  void finish_turn() {
    shard_.end_turn();
    if (shard_.output_stuck()) return;
    std::vector<core::Session*> dirty;
    dirty.swap(shard_.dirty());
    for (core::Session* session : dirty) {
      session->dirty = false;
      session->reading = !session->held();
      if (session == reader_) read();
      else session->outbox.clear();
    }
  }

  void read() {
    while (!reader_->outbox.empty()) {
      iovec iov[16];
      const size_t n = reader_->outbox.gather(iov, 16, 1 << 20);
      size_t bytes = 0;
      for (size_t i = 0; i < n; ++i) {
        text_.append(static_cast<const char*>(iov[i].iov_base), iov[i].iov_len);
        bytes += iov[i].iov_len;
      }
      reader_->outbox.consume(bytes);
    }
    size_t at = 0;
    for (;;) {
      const size_t line = text_.find("\r\n", at);
      if (line == std::string::npos) break;
      if (text_.compare(at, 4, "MSG ") != 0) {
        at = line + 2;
        continue;
      }
      const auto size = static_cast<size_t>(std::stoi(text_.substr(text_.rfind(' ', line) + 1)));
      if (text_.size() < line + 2 + size + 2) break;
      const auto from = static_cast<uint32_t>(text_[text_.find('.', at) + 1] - '0');
      skip_others(from);
      EXPECT_EQ(std::stoi(text_.substr(line + 2, size)), next_[from]) << "from " << from << " on " << shard_.index();
      ++next_[from];
      at = line + 2 + size + 2;
    }
    text_.erase(0, at);
    for (uint32_t from = 0; from < kShards; ++from) {
      skip_others(from);
      progress[shard_.index()][from].store(next_[from]);
    }
  }
  // Messages that are not for this shard.
  void skip_others(uint32_t from) {
    int& n = next_[from];
    while (n < kMessages && !Publisher::for_all(n) && Publisher::target(from, n) != shard_.index()) ++n;
  }

  core::Shard& shard_;
  core::Session* reader_ = nullptr;
  Publisher own_;
  std::vector<Publisher*> here_;
  std::array<int, kShards> next_{};
  std::string text_;
  bool told_ = false;
};

TEST(Threads, PublishersChangeShardsAndLoseNothing) {
  Machine machine(kShards, {}, 16 * 1024);
  Station::subscribed = Station::finished = 0;
  for (auto& reader : Station::progress) {
    for (auto& each : reader) each = 0;
  }
  std::vector<std::unique_ptr<Station>> stations;
  for (uint32_t n = 0; n < kShards; ++n) stations.push_back(std::make_unique<Station>(machine.shard(n)));
  std::vector<std::thread> threads;
  for (auto& station : stations) threads.emplace_back([&station] { station->run(); });
  for (std::thread& thread : threads) thread.join();
  // References still on their way home, and publishers that were on theirs.
  for (int turn = 0; turn < 4; ++turn) {
    for (uint32_t n = 0; n < kShards; ++n) {
      machine.shard(n).begin_turn(now_ns(), 1);
      machine.shard(n).drain_rings();
      machine.shard(n).end_turn();
    }
  }
  uint64_t in = 0, out = 0;
  for (uint32_t n = 0; n < kShards; ++n) {
    in += machine.shard(n).snapshot().moved_in;
    out += machine.shard(n).snapshot().moved_out;
  }
  EXPECT_GT(out, 8u);
  EXPECT_EQ(in, out);
  EXPECT_EQ(machine.server.clients(), 2 * static_cast<int>(kShards));
}

}  // namespace
}  // namespace peregrine::test
