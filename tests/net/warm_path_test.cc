// What a message must not cost once everything is warm: an allocation or a system call. A whole shard with a real
// backend is run by hand in this thread; what it calls inside its turns is counted here, by standing in for malloc and
// for every system call the backends make. The numbers are per 1 000 messages and do not depend on the machine's speed.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "core/client_session.h"
#include "net/backend_choice.h"
#include "net/listener.h"
#include "net/reactor.h"
#include "net/socket.h"

namespace {
thread_local bool counting = false;
thread_local uint64_t allocations = 0, system_calls = 0;
void allocated() { allocations += counting ? 1 : 0; }
void called() { system_calls += counting ? 1 : 0; }
}  // namespace

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*, size_t),
                                                         void (*)(const volatile void*));
namespace {
[[maybe_unused]] const int hooked = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, size_t) { allocated(); }, [](const volatile void*) {});
}
#else
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* malloc(size_t size) noexcept {
  allocated();
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) noexcept {
  allocated();
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) noexcept {
  allocated();
  return __libc_realloc(old, size);
}
}
#endif

// The system calls of the backends. The kernel is entered by io_uring through four functions of liburing; each does so
// at most once.
extern "C" {
ssize_t recv(int fd, void* to, size_t size, int flags) {
  called();
  return syscall(SYS_recvfrom, fd, to, size, flags, nullptr, nullptr);
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  called();
  return syscall(SYS_sendmsg, fd, message, flags);
}
int epoll_wait(int fd, epoll_event* events, int most, int timeout_ms) {
  called();
  return static_cast<int>(syscall(SYS_epoll_pwait, fd, events, most, timeout_ms, nullptr, 8));
}
int epoll_ctl(int fd, int operation, int of, epoll_event* event) noexcept {
  called();
  return static_cast<int>(syscall(SYS_epoll_ctl, fd, operation, of, event));
}
int io_uring_submit(io_uring* ring) {
  called();
  static const auto real = reinterpret_cast<int (*)(io_uring*)>(dlsym(RTLD_NEXT, "io_uring_submit"));
  return real(ring);
}
int io_uring_submit_and_get_events(io_uring* ring) {
  called();
  static const auto real = reinterpret_cast<int (*)(io_uring*)>(dlsym(RTLD_NEXT, "io_uring_submit_and_get_events"));
  return real(ring);
}
int io_uring_get_events(io_uring* ring) {
  called();
  static const auto real = reinterpret_cast<int (*)(io_uring*)>(dlsym(RTLD_NEXT, "io_uring_get_events"));
  return real(ring);
}
}

namespace peregrine::net {
namespace {

class Inline final : public core::Workers {
 public:
  void run(std::function<void()> work) override { work(); }
};

int64_t wall_ns() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

// One shard on one backend, and clients on sockets, all in this thread.
class OneShard {
 public:
  explicit OneShard(config::Backend which) : server_({}, {.id = "NTEST", .name = "test"}, {1, 2}, log_, workers_) {
    auto choice = choose_backend(which, {});
    if (!choice) throw std::runtime_error(choice.error());
    auto backend = choice->make(0);
    if (!backend) throw std::runtime_error(backend.error());
    const int64_t now = (*backend)->now_ns();
    shard_ = std::make_unique<core::Shard>(server_, 0, 1, nullptr, 42, now, wall_ns());
    server_.shards.push_back(shard_.get());
    reactor_ = std::make_unique<Reactor>(*shard_, std::move(*backend), config::Idle::kPark, 0, wall_ns);
    auto listeners = open_listeners("127.0.0.1", 0, 1);
    if (!listeners) throw std::runtime_error(listeners.error());
    port_ = listeners->port;
    reactor_->listen_for_clients(listeners->fds[0]);
  }

  int connect(const std::string& text) {
    fds_.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port_));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fds_.back().get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0)
      throw std::runtime_error("connect");
    const int fd = fds_.back().get();
    set_tcp_options(fd);
    say(fd, "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n" + text + "PING\r\n");
    std::string got;
    while (got.find("PONG\r\n") == std::string::npos) {
      turn();
      got += hear(fd);
    }
    return fd;
  }

  void say(int fd, std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) text.remove_prefix(static_cast<size_t>(n));
      else turn();
    }
  }
  std::string hear(int fd) {
    std::string got(1 << 16, '\0');
    const ssize_t n = syscall(SYS_recvfrom, fd, got.data(), got.size(), MSG_DONTWAIT, nullptr, nullptr);
    got.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return got;
  }
  // A turn that finds nothing is this test's waiting, and is not counted.
  void turn() {
    const uint64_t allocations_before = allocations, system_calls_before = system_calls;
    counting = true;
    const bool busy = reactor_->turn();
    counting = false;
    if (busy) return;
    allocations = allocations_before;
    system_calls = system_calls_before;
  }

 private:
  core::NullLog log_;
  Inline workers_;
  core::Server server_;
  std::unique_ptr<core::Shard> shard_;
  std::unique_ptr<Reactor> reactor_;
  int port_ = 0;
  std::vector<Fd> fds_;
};

struct Cost {
  double allocations = 0, system_calls = 0;  // per 1 000 published messages
};

// Publishes in batches of 1 000, each waited for at all readers; counts after a warm-up.
Cost cost_of(config::Backend backend, int readers, const std::string& subscribe,
             const std::vector<std::string>& subjects, const std::string& reply) {
  OneShard world(backend);
  std::vector<int> fds;
  for (int n = 0; n < readers; ++n) fds.push_back(world.connect(subscribe));
  const int publisher = world.connect("");
  EXPECT_GT(allocations, 0u);  // connecting allocates: the counting works
  std::string batch;
  constexpr int kBatch = 1000, kWarm = 20, kRounds = 20;
  for (int n = 0; n < kBatch; ++n) {
    batch += "PUB " + subjects[static_cast<size_t>(n) % subjects.size()] + reply + " 16\r\n0123456789abcdef\r\n";
  }
  batch += "PING\r\n";
  Cost cost;
  for (int round = 0; round < kWarm + kRounds; ++round) {
    if (round == kWarm) allocations = system_calls = 0;
    world.say(publisher, batch);
    while (world.hear(publisher).empty()) world.turn();
    size_t messages = 0;
    for (const int fd : fds) {
      for (int empty = 0; empty < 3;) {
        world.turn();
        const std::string got = world.hear(fd);
        empty = got.empty() ? empty + 1 : 0;
        for (size_t at = 0; (at = got.find("abcdef\r\n", at)) != std::string::npos; ++at) ++messages;
      }
    }
    EXPECT_GE(messages + 8, fds.empty() ? 0 : size_t{kBatch});  // 8: may be cut at the ends of what was read
  }
  cost.allocations = static_cast<double>(allocations) / kRounds;
  cost.system_calls = static_cast<double>(system_calls) / kRounds;
  return cost;
}

class WarmPath : public ::testing::TestWithParam<config::Backend> {
 protected:
  void expect_cheap(const Cost& cost, double most_calls) {
    EXPECT_LE(cost.allocations, 1.0);
    EXPECT_LE(cost.system_calls, most_calls);
    EXPECT_GT(cost.system_calls, 0.5);  // the counting works
    RecordProperty("allocations", std::to_string(cost.allocations));
    RecordProperty("system_calls", std::to_string(cost.system_calls));
    printf("per 1000 messages: %.2f allocations, %.1f system calls\n", cost.allocations, cost.system_calls);
  }
};

// Some turns more than needed are taken to wait for each other: so 60, where one for each message would be 1 000.
TEST_P(WarmPath, OneToOne) {
  expect_cheap(cost_of(GetParam(), 1, "SUB orders.created 1\r\n", {"orders.created"}, ""), 60);
}

TEST_P(WarmPath, ManySubjects) {
  std::vector<std::string> subjects;
  std::string subscribe;
  for (int n = 0; n < 50; ++n) {
    subjects.push_back("orders.created." + std::to_string(n));
    subscribe += "SUB " + subjects.back() + " " + std::to_string(n + 1) + "\r\n";
  }
  expect_cheap(cost_of(GetParam(), 1, subscribe, subjects, ""), 60);
}

TEST_P(WarmPath, Patterns) {
  expect_cheap(cost_of(GetParam(), 1, "SUB orders.* 1\r\n", {"orders.created", "orders.shipped", "orders.paid"}, ""),
               60);
}

TEST_P(WarmPath, QueueGroup) { expect_cheap(cost_of(GetParam(), 1, "SUB work q 1\r\n", {"work"}, " _INBOX.a.b"), 60); }

TEST_P(WarmPath, QueueGroupOfTen) { expect_cheap(cost_of(GetParam(), 10, "SUB work q 1\r\n", {"work"}, ""), 300); }

TEST_P(WarmPath, FanOut) {
  expect_cheap(cost_of(GetParam(), 10, "SUB orders.created 1\r\n", {"orders.created"}, ""), 300);
}

INSTANTIATE_TEST_SUITE_P(Backends, WarmPath, ::testing::Values(config::Backend::kUring, config::Backend::kEpoll),
                         [](const auto& each) { return each.param == config::Backend::kUring ? "uring" : "epoll"; });

}  // namespace
}  // namespace peregrine::net
