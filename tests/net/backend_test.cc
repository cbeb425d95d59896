// The contract of net/backend.h, held against every kernel backend this machine has, fallbacks included.

#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <random>
#include <set>
#include <thread>

#include "net/backend_choice.h"
#include "tests/net/checked_backend.h"
#include "tests/net/echo.h"

namespace peregrine::net::testing {
namespace {

struct Case {
  const char* name;
  config::Backend backend;
  uring::Options options;
};

Case epoll_case() { return {"epoll", config::Backend::kEpoll, {}}; }
Case uring_case() { return {"uring", config::Backend::kUring, {}}; }
Case uring_plain_case() {
  Case result{"uring_fallbacks", config::Backend::kUring, {}};
  result.options.allow_deferred = false;
  result.options.allow_incremental = false;
  result.options.allow_limited = false;
  return result;
}
// Every limit within reach of a test: a full queue, no buffers left, completion overflow.
Case uring_tiny_case() {
  Case result{"uring_tiny", config::Backend::kUring, {}};
  result.options.submission_entries = 4;
  result.options.completion_entries = 8;
  result.options.incremental_buffers = 2;
  result.options.incremental_bytes = 1500;
  return result;
}
Case uring_zero_copy_case() {
  Case result{"uring_zero_copy", config::Backend::kUring, {}};
  result.options.zero_copy_min_bytes = 1;
  result.options.zero_copy_on_loopback = true;
  return result;
}

class BackendTest : public ::testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Backend> make() {
    auto choice = choose_backend(GetParam().backend, GetParam().options);
    if (!choice) {
      ADD_FAILURE() << choice.error();
      return nullptr;
    }
    auto backend = choice->make(0);
    if (!backend) {
      ADD_FAILURE() << backend.error();
      return nullptr;
    }
    return std::move(*backend);
  }

  void SetUp() override {
    server = std::make_unique<CheckedBackend>(make());
    port = listen_on("127.0.0.1");
  }

  int listen_on(const std::string& host, uint32_t listener = 0) {
    auto listeners = open_listeners(host, -1, 1);
    if (!listeners) {
      ADD_FAILURE() << listeners.error();
      return 0;
    }
    EXPECT_EQ((*server)->listen(listeners->fds[0], listener), 0);
    (*server)->flush();
    return listeners->port;
  }

  // A peer and our end of its connection.
  std::pair<Fd, ConnId> connected() {
    const size_t before = server->accepted.size();
    Fd fd = connect_to(port);
    EXPECT_TRUE(server->run_until([&] { return server->accepted.size() > before; }));
    return {std::move(fd), server->accepted.back()};
  }

  std::unique_ptr<CheckedBackend> server;
  int port = 0;
};

TEST_P(BackendTest, EchoesAndClosesOnceWhenThePeerFinishes) {
  Echo echo(*server);
  auto [peer, id] = connected();
  ASSERT_EQ(write_some(peer.get(), "hello"), 5u);
  std::string got;
  ASSERT_TRUE(server->run_until([&] { return read_some(peer.get(), got) && got == "hello"; })) << got;
  peer.reset();
  ASSERT_TRUE(server->run_until([&] { return server->closed.size() == 1; }));
  server->run_for(20 * kMs);
  EXPECT_EQ(server->closed, std::vector<ConnId>{id});
  EXPECT_EQ(server->closed_errors[0], 0);
  EXPECT_EQ(server->open_conns(), 0u);
}

TEST_P(BackendTest, AnswersBytesThatCameWithTheEndOfStream) {
  Echo echo(*server);
  Fd peer = connect_to(port);
  write_some(peer.get(), "PING");
  shutdown(peer.get(), SHUT_WR);
  std::string got;
  ASSERT_TRUE(server->run_until([&] { return !read_some(peer.get(), got); }));
  EXPECT_EQ(got, "PING");
  ASSERT_TRUE(server->run_until([&] { return server->closed.size() == 1; }));
}

TEST_P(BackendTest, SixtyFourMebibytesBothWaysByteExact) {
  // The tiny rings make this a test of re-arming, not of speed.
  const size_t total = std::string(GetParam().name) == "uring_tiny" ? 4 << 20 : 64 << 20;
  std::mt19937_64 random(7);
  std::mt19937_64 cuts(8);
  Echo echo(*server, 512 * 1024);
  echo.cut = &cuts;
  server->park_ns = 50'000;
  server->keep = false;
  auto [peer, id] = connected();
  std::vector<uint64_t> pattern(total / 8);
  for (uint64_t& word : pattern) word = random();
  const std::string_view all(reinterpret_cast<const char*>(pattern.data()), total);
  size_t written = 0;
  size_t checked = 0;
  std::string got;
  ASSERT_TRUE(server->run_until(
      [&] {
        while (written < total) {
          const size_t want = std::min<size_t>(1 + random() % (random() % 8 == 0 ? 300'000 : 3'000), total - written);
          const size_t n = write_some(peer.get(), all.substr(written, want));
          written += n;
          if (n < want || random() % 16 == 0) break;
        }
        got.clear();
        if (!read_some(peer.get(), got, 1 + random() % 200'000)) return true;
        if (got != all.substr(checked, got.size())) {
          ADD_FAILURE() << "bytes differ near " << checked;
          return true;
        }
        checked += got.size();
        return checked == total;
      },
      120'000 * kMs));
  EXPECT_EQ(written, total);
  EXPECT_EQ(checked, total);
}

// Many small writes, which a receive may chase, with pauses now and then, and connections that are held back meanwhile.
TEST_P(BackendTest, GatheringLosesAndDelaysNothing) {
  constexpr int kPeers = 4, kRounds = 200;
  Echo echo(*server);
  server->keep = false;
  server->gather_ns = 20'000;
  std::vector<std::pair<Fd, ConnId>> peers;
  for (int n = 0; n < kPeers; ++n) peers.push_back(connected());
  std::vector<std::string> sent(kPeers), got(kPeers);
  std::atomic<bool> stop = false;
  std::thread flood([&] {
    // The first of them never rests.
    for (int n = 0; !stop; ++n) {
      const std::string line = std::to_string(n) + "\r\n";
      const size_t written = write_some(peers[0].first.get(), line);
      sent[0] += line.substr(0, written);
      if (written < line.size() || sent[0].size() > 1'000'000) break;
    }
  });
  const auto read_all = [&] {
    for (int n = 0; n < kPeers; ++n) read_some(peers[n].first.get(), got[n]);
  };
  std::mt19937_64 random(11);
  for (int round = 0; round < kRounds; ++round) {
    const size_t n = 1 + random() % (kPeers - 1);
    const std::string line(1 + random() % 100, static_cast<char>('a' + n));
    sent[n] += line.substr(0, write_some(peers[n].first.get(), line));
    const ConnId other = peers[random() % kPeers].second;
    if (round % 5 == 0) (*server)->pause(other);
    server->turn();
    if (round % 5 == 0) (*server)->resume(other);
    read_all();
  }
  stop = true;
  flood.join();
  EXPECT_TRUE(server->run_until([&] {
    read_all();
    return got == sent;
  }));
  // And when nobody gathers any more.
  server->gather_ns = 0;
  for (int n = 0; n < kPeers; ++n) {
    write_some(peers[n].first.get(), "last");
    sent[n] += "last";
  }
  EXPECT_TRUE(server->run_until([&] {
    read_all();
    return got == sent;
  }));
}

TEST_P(BackendTest, PauseLeavesBytesInTheKernelAndResumeBringsThem) {
  auto [peer, id] = connected();
  write_some(peer.get(), "first");
  ASSERT_TRUE(server->run_until([&, id = id] { return server->conn(id).received == 5; }));
  (*server)->pause(id);
  (*server)->flush();
  server->run_for(5 * kMs);
  write_some(peer.get(), "second");
  server->run_for(50 * kMs);
  EXPECT_EQ(server->conn(id).bytes, "first");
  (*server)->resume(id);
  ASSERT_TRUE(server->run_until([&, id = id] { return server->conn(id).bytes == "firstsecond"; }));
  // Within one turn, back and forth: nothing gets stuck whatever is on its way.
  for (int n = 0; n < 200; ++n) {
    (*server)->pause(id);
    if (n % 3 == 0) server->turn();
    (*server)->resume(id);
    if (n % 2 == 0) server->turn();
    write_some(peer.get(), "x");
  }
  ASSERT_TRUE(server->run_until([&, id = id] { return server->conn(id).received == 11 + 200; }));
}

TEST_P(BackendTest, PausedSenderIsHeldBackByItsOwnKernel) {
  server->keep = false;
  auto [peer, id] = connected();
  (*server)->pause(id);
  server->run_for(5 * kMs);
  const std::string chunk(64 * 1024, 'x');
  size_t written = 0;
  int quiet = 0;
  while (quiet < 20) {
    const size_t n = write_some(peer.get(), chunk);
    written += n;
    quiet = n == 0 ? quiet + 1 : 0;
    server->turn();
    if (n == 0) server->run_for(5 * kMs);
  }
  EXPECT_GT(written, 64u * 1024);
  EXPECT_LT(written, 64u << 20);
  EXPECT_EQ(server->conn(id).received, 0u);
  (*server)->resume(id);
  ASSERT_TRUE(server->run_until([&, id = id] { return server->conn(id).received == written; }));
}

TEST_P(BackendTest, EndOfStreamOfAPausedConnectionComesAfterItsBytes) {
  auto [peer, id] = connected();
  (*server)->pause(id);
  server->run_for(5 * kMs);
  write_some(peer.get(), "last words");
  peer.reset();
  server->run_for(30 * kMs);
  EXPECT_TRUE(server->closed.empty());
  (*server)->resume(id);
  ASSERT_TRUE(server->run_until([&] { return server->closed.size() == 1; }));
  EXPECT_EQ(server->conn(id).bytes, "last words");
}

TEST_P(BackendTest, BlockedSendsGoOnWhenThePeerReads) {
  auto [peer, id] = connected();
  // Smaller ones make the sender's kernel crawl from one window probe to the next.
  const int window = 256 * 1024;
  setsockopt(peer.get(), SOL_SOCKET, SO_RCVBUF, &window, sizeof(window));
  constexpr size_t kTotal = 16 << 20;
  std::string all(kTotal, 0);
  for (size_t n = 0; n < kTotal; ++n) all[n] = static_cast<char>(n * 2654435761u >> 16);
  size_t taken = 0;
  const auto offer = [&, id = id] {
    while (taken < kTotal && !server->conn(id).sending && !server->conn(id).failed) {
      const SendResult result = server->send(id, std::string_view(all).substr(taken, 1 << 20));
      if (result.status == SendResult::Status::kDone) taken += result.bytes;
    }
  };
  server->on_event = [&](const Event& event) {
    if (event.kind == Event::Kind::kSent) taken += event.size;
    if (event.kind == Event::Kind::kWritable || event.kind == Event::Kind::kSent) offer();
  };
  offer();
  server->run_for(50 * kMs);
  EXPECT_TRUE(server->conn(id).sending) << "the peer's kernel took 16 MiB unread";
  EXPECT_LT(taken, kTotal);
  std::string got;
  ASSERT_TRUE(server->run_until([&] {
    read_some(peer.get(), got, 100'000);
    return got.size() == kTotal;
  })) << got.size();
  EXPECT_TRUE(got == all);
  EXPECT_EQ(taken, kTotal);
}

TEST_P(BackendTest, TwoThousandConnections) {
  const bool tiny = std::string(GetParam().name) == "uring_tiny";
  const size_t conns = tiny ? 200 : 2000;
  raise_open_files_limit();
  Echo echo(*server);
  std::vector<Fd> peers;
  for (size_t n = 0; n < conns; ++n) {
    peers.push_back(connect_to(port));
    ASSERT_TRUE(peers.back()) << strerror(errno);
    if (n % 100 == 0) server->turn();
  }
  ASSERT_TRUE(server->run_until([&] { return server->accepted.size() == conns; }));
  for (int round = 0; round < 3; ++round) {
    for (size_t n = 0; n < conns; ++n) write_some(peers[n].get(), "conn " + std::to_string(n) + "\n");
    std::vector<std::string> got(conns);
    size_t done = 0;
    ASSERT_TRUE(server->run_until([&] {
      done = 0;
      for (size_t n = 0; n < conns; ++n) {
        const std::string want = "conn " + std::to_string(n) + "\n";
        if (got[n].size() < want.size()) read_some(peers[n].get(), got[n], 64);
        if (got[n] == want) ++done;
      }
      return done == conns;
    })) << done;
  }
  for (size_t n = 0; n < conns; n += 2) peers[n].reset();
  ASSERT_TRUE(server->run_until([&] { return server->closed.size() == conns / 2; }));
  for (size_t n = 1; n < conns; n += 2) (*server)->close(server->accepted[n], n % 4 == 1);
  for (const ConnId id : server->accepted) (*server)->close(id, false);  // twice is allowed, also after kClosed
  peers.clear();
  ASSERT_TRUE(server->run_until([&] { return server->open_conns() == 0; }));
  EXPECT_EQ(server->closed.size(), conns);
}

TEST_P(BackendTest, PeerResetWhileSendIsInFlight) {
  for (int round = 0; round < 20; ++round) {
    auto [peer, id] = connected();
    const std::string big(8 << 20, 'x');
    size_t at = 0;
    while (at < big.size() && !server->conn(id).sending) {
      const SendResult result = server->send(id, std::string_view(big).substr(at));
      if (result.status == SendResult::Status::kDone) at += result.bytes;
    }
    if (round % 2 == 0) (*server)->flush();
    if (round % 4 < 2) server->turn();
    const size_t before = server->closed.size();
    reset_on_close(peer.get());
    peer.reset();
    ASSERT_TRUE(server->run_until([&] { return server->closed.size() == before + 1; })) << round;
    EXPECT_FALSE(server->conn(id).open);
    EXPECT_LT(server->closed_errors.back(), 0);
    EXPECT_EQ((*server)->send(id, std::span<const iovec>()).status, SendResult::Status::kFailed);
  }
}

TEST_P(BackendTest, BytesSentBeforeAResetAreStillDelivered) {
  auto [peer, id] = connected();
  // Unread input makes the peer's close a reset.
  server->send(id, "unread");
  (*server)->flush();
  write_some(peer.get(), "PUB a 1\r\nx\r\n");
  pollfd readable{peer.get(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 5000), 1);
  peer.reset();
  ASSERT_TRUE(server->run_until([&] { return server->closed.size() == 1; }));
  EXPECT_EQ(server->conn(id).bytes, "PUB a 1\r\nx\r\n");
}

TEST_P(BackendTest, OurGracefulCloseDeliversTheLastBytesThoughInputIsUnread) {
  for (int round = 0; round < 10; ++round) {
    auto [peer, id] = connected();
    const size_t before = server->closed.size();
    const std::string error = "-ERR 'Authorization Violation'\r\n";
    size_t taken = 0;
    const SendResult result = server->send(id, error);
    if (result.status == SendResult::Status::kDone) taken = result.bytes;
    if (round % 2 == 0) (*server)->flush();
    write_some(peer.get(), std::string(100'000, 'p'));  // never wanted
    (*server)->close(id, false);
    (*server)->close(id, false);
    std::string got;
    ASSERT_TRUE(server->run_until([&] { return !read_some(peer.get(), got); }));
    EXPECT_EQ(got, error);
    peer.reset();
    ASSERT_TRUE(server->run_until([&] { return server->closed.size() == before + 1; }));
    EXPECT_EQ(server->closed_errors.back(), 0);
    EXPECT_LE(taken, error.size());
  }
}

TEST_P(BackendTest, GracefulCloseIsBoundedWhenThePeerDoesNotFinish) {
  auto [peer, id] = connected();
  const int64_t start = (*server)->now_ns();
  (*server)->close(id, false);
  ASSERT_TRUE(server->run_until([&] { return server->closed.size() == 1; }));
  const int64_t took = (*server)->now_ns() - start;
  EXPECT_GT(took, 500 * kMs);
  EXPECT_LT(took, kPatience);
}

TEST_P(BackendTest, AbortResetsWithASendInFlight) {
  for (int round = 0; round < 10; ++round) {
    auto [peer, id] = connected();
    const size_t before = server->closed.size();
    const std::string big(8 << 20, 'x');
    size_t at = 0;
    while (at < big.size() && !server->conn(id).sending) {
      const SendResult result = server->send(id, std::string_view(big).substr(at));
      if (result.status == SendResult::Status::kDone) at += result.bytes;
    }
    if (round % 2 == 0) server->turn();
    (*server)->close(id, true);
    (*server)->close(id, true);
    ASSERT_TRUE(server->run_until([&] { return server->closed.size() == before + 1; }));
    EXPECT_EQ(server->closed_errors.back(), 0);
    std::string got;
    int error = 0;
    for (int n = 0; n < 1000 && error == 0; ++n) {
      while (true) {
        char chunk[65536];
        const ssize_t size = recv(peer.get(), chunk, sizeof(chunk), MSG_DONTWAIT);
        if (size > 0) continue;
        error = size < 0 && errno != EAGAIN ? errno : 0;
        break;
      }
      if (error == 0) server->run_for(kMs);
    }
    EXPECT_EQ(error, ECONNRESET);
  }
}

TEST_P(BackendTest, RandomLivesOfConnections) {
  std::mt19937_64 random(42);
  Echo echo(*server, 64 * 1024);
  server->keep = false;
  std::map<int, Fd> peers;
  const std::string noise(50'000, 'n');
  std::string sink;
  for (int step = 0; step < 6000; ++step) {
    const int key = static_cast<int>(random() % 40);
    auto it = peers.find(key);
    switch (random() % 8) {
      case 0:
        if (it == peers.end()) peers[key] = connect_to(port);
        break;
      case 1:
        if (it != peers.end()) peers.erase(it);
        break;
      case 2:
        if (it != peers.end()) {
          reset_on_close(it->second.get());
          peers.erase(it);
        }
        break;
      case 3:
        if (it != peers.end()) shutdown(it->second.get(), SHUT_WR);
        break;
      case 4:
        if (!server->accepted.empty()) {
          const ConnId id = server->accepted[random() % server->accepted.size()];
          if (server->conn(id).open) (*server)->close(id, random() % 2 == 0);
        }
        break;
      case 5:
        if (!server->accepted.empty()) {
          const ConnId id = server->accepted[random() % server->accepted.size()];
          if (random() % 2 == 0) {
            (*server)->pause(id);
          } else {
            (*server)->resume(id);
          }
        }
        break;
      case 6:
        if (it != peers.end()) write_some(it->second.get(), std::string_view(noise).substr(0, random() % noise.size()));
        break;
      case 7:
        if (it != peers.end()) {
          sink.clear();
          read_some(it->second.get(), sink, 100'000);
        }
        break;
    }
    if (random() % 3 == 0) server->turn();
  }
  peers.clear();
  for (const ConnId id : server->accepted) (*server)->resume(id);
  ASSERT_TRUE(server->run_until([&] {
    for (const ConnId id : server->accepted) {
      if (server->conn(id).open) (*server)->resume(id);
    }
    return server->open_conns() == 0;
  }));
  EXPECT_EQ(server->accepted.size(), server->closed.size());
}

TEST_P(BackendTest, AcquireIsBounded) {
  server->keep = false;
  std::vector<Fd> peers;
  size_t total = 0;
  for (int n = 0; n < 16; ++n) {
    peers.push_back(connect_to(port));
    total += write_some(peers.back().get(), std::string(400'000, 'x'));
  }
  size_t received = 0;
  size_t largest = 0;
  ASSERT_TRUE(server->run_until([&] {
    largest = std::max(largest, server->last_bytes);
    received = 0;
    for (const ConnId id : server->accepted) received += server->conn(id).received;
    return received == total;
  }));
  EXPECT_LE(largest, 2 * Backend::kAcquireBytes);
}

TEST_P(BackendTest, AHeavySenderStarvesNobody) {
  server->keep = false;
  auto [heavy, heavy_id] = connected();
  auto [light, light_id] = connected();
  const std::string chunk(1 << 20, 'h');
  std::atomic<bool> stop{false};
  std::thread sender([&, fd = heavy.get()] {
    while (!stop) {
      if (write_some(fd, chunk) == 0) std::this_thread::yield();
    }
  });
  EXPECT_TRUE(server->run_until([&, id = heavy_id] { return server->conn(id).received > 0; }));
  for (size_t n = 1; n <= 100; ++n) {
    write_some(light.get(), "l");
    EXPECT_TRUE(server->run_until([&, id = light_id] { return server->conn(id).received == n; }, 5000 * kMs)) << n;
  }
  stop = true;
  sender.join();
}

TEST_P(BackendTest, HeldBuffersStayIntact) {
  auto [peer, id] = connected();
  server->hold_data = true;
  std::string all;
  for (int n = 0; n < 300; ++n) {
    const std::string line = "message " + std::to_string(n) + std::string(static_cast<size_t>(n), '.') + "\n";
    const size_t before = all.size();
    size_t at = 0;
    all += line;
    while (at < line.size()) {
      const size_t wrote = write_some(peer.get(), std::string_view(line).substr(at));
      at += wrote;
      // The tiny rings run out of buffers while all are held; those are given back then.
      if (!server->run_until([&, id = id] { return server->conn(id).received >= before + at; }, 30 * kMs)) {
        for (const Event& event : server->held) (*server)->release(event);
        server->held.clear();
        ASSERT_TRUE(server->run_until([&, id = id] { return server->conn(id).received >= before + at; }));
      }
    }
  }
  EXPECT_EQ(server->conn(id).bytes, all);
  std::string tail;
  for (const Event& event : server->held) tail.append(event.data, event.size);
  EXPECT_EQ(tail, all.substr(all.size() - tail.size()));
  for (const Event& event : server->held) (*server)->release(event);
  server->held.clear();
}

// What is lent outlives its event and its connection; when too much is, the backend refuses and goes on receiving.
TEST_P(BackendTest, LentBuffersStayIntact) {
  auto [peer, id] = connected();
  struct Lent {
    uint32_t buffer;
    std::string_view now;
    std::string then;
  };
  std::deque<Lent> lent;
  size_t most = 0, refused = 0;
  server->keep = false;
  server->on_event = [&](const Event& event) {
    if (event.kind != Event::Kind::kData) return;
    if (!(*server)->lend(event.buffer)) {
      ++refused;
    } else {
      lent.push_back({event.buffer, {event.data, event.size}, std::string(event.data, event.size)});
      most = std::max(most, lent.size());
    }
  };
  const auto give_back = [&] {
    EXPECT_EQ(lent.front().now, lent.front().then);
    (*server)->take_back(lent.front().buffer);
    lent.pop_front();
  };
  std::mt19937 random(7);
  size_t sent = 0;
  const size_t rounds = 4000;
  for (size_t n = 0; n < rounds; ++n) {
    const std::string text(1 + random() % 9000, static_cast<char>('a' + n % 26));
    for (size_t at = 0; at < text.size();) {
      const size_t wrote = write_some(peer.get(), std::string_view(text).substr(at));
      at += wrote;
      sent += wrote;
      ASSERT_TRUE(server->run_until([&, id = id] { return server->conn(id).received >= sent; })) << n;
    }
    while (n > rounds / 2 && lent.size() > random() % 40) give_back();
  }
  EXPECT_GT(most, 1u);
  peer.reset();
  ASSERT_TRUE(server->run_until([&, id = id] { return !server->conn(id).open; }));
  while (!lent.empty()) give_back();
  EXPECT_GT(refused, 0u);
}

// Memory goes back in between; what is lent or still in the kernel does not go with it.
TEST_P(BackendTest, RestLosesNothing) {
  auto [peer, id] = connected();
  std::vector<std::pair<Event, std::string>> lent;
  std::set<uintptr_t> pages;
  server->on_event = [&](const Event& event) {
    if (event.kind != Event::Kind::kData) return;
    if (lent.empty() && (*server)->lend(event.buffer)) lent.push_back({event, std::string(event.data, event.size)});
  };
  std::string all;
  std::mt19937 random(11);
  for (size_t n = 0; n < 300; ++n) {
    const std::string text(1 + random() % 20000, static_cast<char>('a' + n % 26));
    for (size_t at = 0; at < text.size();) {
      const size_t wrote = write_some(peer.get(), std::string_view(text).substr(at));
      all.append(text, at, wrote);
      at += wrote;
      if (n % 3 == 0) (*server)->rest();
      ASSERT_TRUE(server->run_until([&, id = id] { return server->conn(id).received >= all.size(); })) << n;
    }
    if (n % 5 == 0) (*server)->rest();
    if (n % 7 != 0 || lent.empty()) continue;
    const auto& [event, bytes] = lent.front();
    ASSERT_EQ(std::string_view(event.data, event.size), bytes);
    (*server)->take_back(event.buffer);
    lent.clear();
  }
  EXPECT_EQ(server->conn(id).bytes, all);
  if (!lent.empty()) (*server)->take_back(lent.front().first.buffer);

  const std::vector<std::string>& notes = (*server)->report().notes;
  const bool deferred = std::none_of(notes.begin(), notes.end(),
                                     [](const std::string& note) { return note.find("deferred") != note.npos; });
  if (std::string_view(GetParam().name) != "uring" || !deferred) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto resident = [&] {
    size_t count = 0;
    for (const uintptr_t each : pages) {
      unsigned char state = 0;
      EXPECT_EQ(mincore(reinterpret_cast<void*>(each), page, &state), 0);
      count += state & 1;
    }
    return count;
  };
  server->on_event = [&](const Event& event) {
    if (event.kind != Event::Kind::kData) return;
    const auto from = reinterpret_cast<uintptr_t>(event.data);
    for (uintptr_t each = (from + page - 1) & ~(page - 1); each + page <= from + event.size; each += page)
      pages.insert(each);
  };
  while (pages.size() < 16) {
    const size_t wrote = write_some(peer.get(), std::string(128 * 1024, 'z'));
    const uint64_t received = server->conn(id).received + wrote;
    ASSERT_TRUE(server->run_until([&, id = id] { return server->conn(id).received >= received; }));
  }
  EXPECT_EQ(resident(), pages.size());
  (*server)->rest();
  EXPECT_EQ(resident(), 0u);
}

TEST_P(BackendTest, OutOfDescriptorsAcceptsLaterAndServesTheOthers) {
  Echo echo(*server);
  auto [peer, id] = connected();
  std::vector<Fd> waiting;
  for (int n = 0; n < 20; ++n) waiting.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const Fd probe(dup(0));
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(probe.get()) + 6;  // room for the listener and a few more
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  // A listener of its own: io_uring notes the limit when an accept is armed.
  const auto address = SocketAddress::parse({"127.0.0.1", static_cast<uint16_t>(listen_on("127.0.0.1", 1))});
  for (Fd& fd : waiting) ASSERT_EQ(connect(fd.get(), address->data(), address->size()), 0);
  EXPECT_TRUE(server->run_until([&] { return (*server)->accept_errors().count > 0; }));
  EXPECT_EQ((*server)->accept_errors().last_error, EMFILE);
  EXPECT_LT(server->accepted.size(), 21u);
  std::string got;
  write_some(peer.get(), "still here");
  EXPECT_TRUE(server->run_until([&] { return read_some(peer.get(), got) && got == "still here"; }));
  server->run_for(250 * kMs);
  EXPECT_LT((*server)->accept_errors().count, 20u) << "accepting spins while it cannot succeed";
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(server->run_until([&] { return server->accepted.size() == 21; }));
}

TEST_P(BackendTest, WakeFromAnotherThreadIsNeverLost) {
  constexpr uint64_t kRounds = 20'000;
  std::atomic<uint64_t> asked{0};
  std::atomic<uint64_t> answered{0};
  std::thread waker([&] {
    std::mt19937_64 random(3);
    for (uint64_t n = 1; n <= kRounds; ++n) {
      asked.store(n, std::memory_order_release);
      (*server)->wake();
      if (random() % 4 == 0) (*server)->wake();
      while (answered.load(std::memory_order_acquire) < n) std::this_thread::yield();
      for (uint64_t spin = random() % 200; spin > 0; --spin) __builtin_ia32_pause();
    }
  });
  uint64_t slow = 0;
  std::vector<Event> events;
  while (answered.load(std::memory_order_relaxed) < kRounds) {
    events.clear();
    (*server)->acquire(events);
    const uint64_t seen = asked.load(std::memory_order_acquire);
    (*server)->flush();
    if (seen > answered.load(std::memory_order_relaxed)) {
      answered.store(seen, std::memory_order_release);
      continue;
    }
    const int64_t start = (*server)->now_ns();
    (*server)->park(start + kPatience);
    if ((*server)->now_ns() - start > kPatience * 9 / 10) ++slow;
    if (slow > 0) break;
  }
  answered.store(kRounds, std::memory_order_release);
  waker.join();
  EXPECT_EQ(slow, 0u) << "parked although somebody had called wake()";
}

TEST_P(BackendTest, ParkEndsAtItsDeadline) {
  server->turn();
  for (const int64_t wait : {int64_t{0}, 300'000L, 3 * kMs, 30 * kMs}) {
    const int64_t start = (*server)->now_ns();
    // A signal may end a wait early (kernels finish the rings of earlier tests by one), but not again and again.
    int parks = 0;
    for (; parks < 10 && (*server)->now_ns() < start + wait; ++parks) (*server)->park(start + wait);
    const int64_t took = (*server)->now_ns() - start;
    EXPECT_GE(took, wait);
    EXPECT_LT(took, wait + kPatience);
  }
  const int64_t start = (*server)->now_ns();
  (*server)->park(start - 5);
  EXPECT_LT((*server)->now_ns() - start, kPatience);
}

TEST_P(BackendTest, AddressesOfBothFamilies) {
  const int six = listen_on("::1", 6);
  const int both = listen_on("0.0.0.0", 10);
  struct Try {
    int port;
    const char* host;
    uint32_t listener;
  };
  for (const Try& each :
       {Try{six, "::1", 6}, Try{both, "::1", 10}, Try{both, "127.0.0.1", 10}, Try{port, "127.0.0.1", 0}}) {
    uint32_t listener = 99;
    server->on_event = [&](const Event& event) {
      if (event.kind == Event::Kind::kAccepted) listener = event.listener;
    };
    const size_t before = server->accepted.size();
    const Fd peer = connect_to(each.port, each.host);
    ASSERT_TRUE(peer);
    ASSERT_TRUE(server->run_until([&] { return server->accepted.size() > before; }));
    const ConnId id = server->accepted.back();
    EXPECT_EQ(listener, each.listener);
    EXPECT_EQ((*server)->remote_address(id).host, each.host);
    EXPECT_EQ((*server)->remote_address(id).port, SocketAddress::local_of(peer.get()).port());
    EXPECT_EQ((*server)->local_address(id).host, each.host);
    EXPECT_EQ((*server)->local_address(id).port, each.port);
  }
}

TEST_P(BackendTest, DialsOrSaysWhyNot) {
  (*server)->dial({"127.0.0.1", static_cast<uint16_t>(port)}, 11, 5000 * kMs);
  ASSERT_TRUE(server->run_until([&] { return server->dialed.size() == 1 && server->accepted.size() == 1; }));
  const ConnId dialed = server->dialed[0];
  EXPECT_EQ((*server)->remote_address(dialed).port, port);
  server->send(dialed, "over the loop");
  ASSERT_TRUE(server->run_until([&] { return server->conn(server->accepted[0]).bytes == "over the loop"; }));
  server->send(server->accepted[0], "and back");
  ASSERT_TRUE(server->run_until([&] { return server->conn(dialed).bytes == "and back"; }));

  // A port nobody listens on: taken once, so that it is free now.
  const int free_port = [] {
    auto listeners = open_listeners("127.0.0.1", -1, 1);
    ::close(listeners->fds[0]);
    return listeners->port;
  }();
  (*server)->dial({"127.0.0.1", static_cast<uint16_t>(free_port)}, 12, 5000 * kMs);
  (*server)->dial({"not an address", 1}, 13, 5000 * kMs);
  ASSERT_TRUE(server->run_until([&] { return server->dial_failed.size() == 2; }));
  std::map<uint64_t, int> errors;
  for (const Event& event : server->dial_failed) errors[event.tag] = event.error;
  EXPECT_EQ(errors[12], -ECONNREFUSED);
  EXPECT_EQ(errors[13], -EINVAL);
}

TEST_P(BackendTest, DialTimesOut) {
  // A listener whose queue is full answers no SYN.
  const Fd deaf(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto any = SocketAddress::parse({"127.0.0.1", 0});
  ASSERT_EQ(bind(deaf.get(), any->data(), any->size()), 0);
  ASSERT_EQ(::listen(deaf.get(), 0), 0);
  const SocketAddress address = SocketAddress::local_of(deaf.get());
  std::vector<Fd> fillers;
  for (int n = 0; n < 4; ++n) {
    fillers.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    connect(fillers.back().get(), address.data(), address.size());
  }
  const int64_t start = (*server)->now_ns();
  (*server)->dial(address.numeric(), 5, 150 * kMs);
  ASSERT_TRUE(server->run_until([&] { return server->dial_failed.size() == 1; }));
  EXPECT_EQ(server->dial_failed[0].error, -ETIMEDOUT);
  EXPECT_EQ(server->dial_failed[0].tag, 5u);
  EXPECT_GE((*server)->now_ns() - start, 150 * kMs);
}

TEST_P(BackendTest, StopListeningFreesThePort) {
  auto [peer, id] = connected();
  (*server)->stop_listening(0);
  EXPECT_FALSE(connect_to(port));
  server->run_for(5 * kMs);
  auto again = open_listeners("127.0.0.1", port, 1);
  ASSERT_TRUE(again) << again.error();
  ::close(again->fds[0]);
  write_some(peer.get(), "open still");
  ASSERT_TRUE(server->run_until([&, id = id] { return server->conn(id).bytes == "open still"; }));
  EXPECT_EQ(server->accepted.size(), 1u);
}

TEST_P(BackendTest, ListenersOfOnePortShareTheConnections) {
  constexpr int kShards = 4;
  auto listeners = open_listeners("127.0.0.1", 0, kShards);
  ASSERT_TRUE(listeners) << listeners.error();
  ASSERT_EQ(listeners->fds.size(), static_cast<size_t>(kShards));
  std::vector<std::unique_ptr<CheckedBackend>> shards;
  for (int n = 0; n < kShards; ++n) {
    shards.push_back(std::make_unique<CheckedBackend>(make()));
    ASSERT_EQ((*shards.back())->listen(listeners->fds[static_cast<size_t>(n)], 0), 0);
    shards.back()->turn();
  }
  std::vector<Fd> peers;
  for (int n = 0; n < 400; ++n) {
    peers.push_back(connect_to(listeners->port));
    ASSERT_TRUE(peers.back());
  }
  size_t total = 0;
  for (int n = 0; n < 1000 && total < 400; ++n) {
    total = 0;
    for (auto& shard : shards) {
      shard->run_for(kMs);
      total += shard->accepted.size();
    }
  }
  EXPECT_EQ(total, 400u);
  for (auto& shard : shards) EXPECT_GT(shard->accepted.size(), 40u);
}

TEST_P(BackendTest, ReportNamesTheBackend) {
  EXPECT_EQ((*server)->report().name, GetParam().backend == config::Backend::kEpoll ? "epoll" : "uring");
  const bool fallbacks = std::string(GetParam().name) == "uring_fallbacks";
  EXPECT_EQ((*server)->report().notes.size(), fallbacks ? 2u : 0u);
}

// Back and forth between two backends while the peer writes: every byte once, in order, and the end of stream.
TEST_P(BackendTest, ConnectionsChangeBackends) {
  CheckedBackend other(make());
  CheckedBackend* backends[] = {server.get(), &other};
  constexpr size_t kTotal = 4 << 20;
  std::string all(kTotal, 0);
  std::mt19937_64 random(5);
  for (char& c : all) c = static_cast<char>(random());
  auto [peer, id] = connected();
  server->park_ns = other.park_ns = 1 * kMs;
  std::string got;
  std::vector<ConnId> conns{id};
  size_t here = 0, written = 0;
  for (CheckedBackend* each : backends) {
    each->keep = false;
    each->on_event = [&, each](const Event& event) {
      if (event.kind == Event::Kind::kData) got.append(event.data, event.size);
      EXPECT_EQ(each, backends[here]);
    };
  }
  for (int move = 0; move < 20; ++move) {
    CheckedBackend& from = *backends[here];
    const size_t want = got.size() + 26'000;
    ASSERT_TRUE(from.run_until([&] {
      if (written < want + 4096) written += write_some(peer.get(), std::string_view(all).substr(written, 30'000));
      return got.size() >= want;
    }));
    EXPECT_EQ(from.give(conns.back()), nullptr) << "it is being read from";
    from->pause(conns.back());
    if (move % 3 == 0) {
      // What it sends leaves before it does.
      while (from.send(conns.back(), "x").status == SendResult::Status::kBlocked) from.turn();
      ASSERT_TRUE(from.run_until([&] { return !from.conn(conns.back()).sending; }));
    }
    std::unique_ptr<core::CarriedConnection> carried;
    ASSERT_TRUE(from.run_until([&] { return carried != nullptr || (carried = from.give(conns.back())) != nullptr; }));
    EXPECT_EQ(from.open_conns(), 0u);
    written += write_some(peer.get(), std::string_view(all).substr(written, 100));
    from.run_for(2 * kMs);
    here = 1 - here;
    backends[here]->turn();
    conns.push_back(backends[here]->take(std::move(carried)));
    EXPECT_EQ((*backends[here])->remote_address(conns.back()).host, "127.0.0.1");
    (*backends[here])->flush();
  }
  CheckedBackend& last = *backends[here];
  ASSERT_TRUE(last.run_until([&] {
    written += write_some(peer.get(), std::string_view(all).substr(written));
    return got.size() == kTotal;
  }));
  EXPECT_TRUE(got == all);
  std::string answers;
  read_some(peer.get(), answers);
  EXPECT_EQ(answers, std::string(7, 'x'));
  peer.reset();
  ASSERT_TRUE(last.run_until([&] { return last.closed.size() == 1; }));
  EXPECT_EQ(backends[1 - here]->closed.size(), 0u);
}

TEST_P(BackendTest, WhatNobodyTakesIsClosed) {
  auto [peer, id] = connected();
  (*server)->pause(id);
  std::unique_ptr<core::CarriedConnection> carried;
  ASSERT_TRUE(server->run_until([&] { return carried != nullptr || (carried = server->give(id)) != nullptr; }));
  std::string nothing;
  EXPECT_TRUE(read_some(peer.get(), nothing));
  carried.reset();
  ASSERT_TRUE(server->run_until([&] { return !read_some(peer.get(), nothing); }));
  EXPECT_EQ(nothing, "");
}

INSTANTIATE_TEST_SUITE_P(Kernel, BackendTest,
                         ::testing::Values(epoll_case(), uring_case(), uring_plain_case(), uring_tiny_case(),
                                           uring_zero_copy_case()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace peregrine::net::testing
