// Our stack on a TAP device against the Linux kernel's TCP, in a network namespace of its own: streams both ways,
// byte-exact, dialled by either side, over IPv4 and IPv6, with frames lost on the way if asked for.
//
//   tcp_kernel_peer [--bytes N] [--loss PERCENT] [--seed N]     needs root and /dev/net/tun
// The kernel's side is a blocking echo in a thread; ours reads, checks and answers. Exit code 0: all as it should be.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "core/random.h"
#include "tests/net/tcp/wire.h"

namespace peregrine::net::tcp::test {
namespace {

int64_t clock_ns() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1'000'000'000LL + ts.tv_nsec;
}

[[noreturn]] void die(const std::string& text) {
  std::fprintf(stderr, "FAIL %s\n", text.c_str());
  std::exit(1);
}

void run(const std::string& command) {
  if (std::system(command.c_str()) != 0) die(command);
}

uint8_t byte_at(uint64_t at) { return static_cast<uint8_t>((at * 0x9E3779B97F4A7C15u) >> 56); }

class TapPort final : public Port {
 public:
  TapPort(double loss, uint64_t seed) : loss_(loss), random_(seed) {
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (fd < 0) die("/dev/net/tun");
    ifreq request{};
    std::strcpy(request.ifr_name, "tap0");
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (ioctl(fd, TUNSETIFF, &request) != 0) die("TUNSETIFF");
  }
  bool transmit(const OutFrame& frame) override {
    for (const auto& bytes : cut_frame(frame)) {
      if (lose()) continue;
      if (write(fd, bytes.data(), bytes.size()) < 0 && errno != EAGAIN) die("write to tap");
    }
    return true;
  }
  void free_frame(uint64_t token) override { std::free(reinterpret_cast<void*>(token)); }
  bool receive(Stack& stack) {
    auto* buffer = static_cast<uint8_t*>(std::malloc(2048));
    const ssize_t n = read(fd, buffer, 2048);
    if (n <= 0 || lose()) {
      std::free(buffer);
      return n > 0;
    }
    stack.input({.data = buffer, .size = static_cast<uint32_t>(n), .token = reinterpret_cast<uint64_t>(buffer)},
                clock_ns());
    return true;
  }
  int fd;

 private:
  bool lose() { return loss_ > 0 && static_cast<double>(random_.below(1'000'000)) < loss_ * 1e6; }
  double loss_;
  core::Random random_;
};

// The kernel's side: sends `bytes` of the pattern while reading and checking as many, then closes.
void kernel_side(int fd, uint64_t bytes, std::string& failure) {
  std::thread writer([fd, bytes] {
    std::vector<uint8_t> chunk(30'000);
    for (uint64_t at = 0; at < bytes;) {
      const size_t n = std::min<uint64_t>(chunk.size(), bytes - at);
      for (size_t i = 0; i < n; ++i) chunk[i] = byte_at(at + i);
      const ssize_t sent = send(fd, chunk.data(), n, MSG_NOSIGNAL);
      if (sent <= 0) return;
      at += static_cast<uint64_t>(sent);
    }
  });
  std::vector<uint8_t> chunk(50'000);
  uint64_t at = 0;
  while (at < bytes) {
    const ssize_t n = recv(fd, chunk.data(), chunk.size(), 0);
    if (n <= 0) {
      failure = "kernel received " + std::to_string(at) + ", then " + (n == 0 ? "end" : std::strerror(errno));
      break;
    }
    for (ssize_t i = 0; i < n; ++i) {
      if (chunk[static_cast<size_t>(i)] != byte_at(at + static_cast<uint64_t>(i)))
        failure = "kernel received a wrong byte";
    }
    at += static_cast<uint64_t>(n);
  }
  writer.join();
  shutdown(fd, SHUT_WR);
  // Our FIN ends it.
  while (recv(fd, chunk.data(), chunk.size(), 0) > 0) {
  }
  close(fd);
}

void one(bool ipv6, bool we_dial, uint64_t bytes, double loss, uint64_t seed, TapPort& port, Stack& stack,
         uint16_t no) {
  (void)loss;
  const char* kernel = ipv6 ? "fd00::1" : "10.77.0.1";
  const char* ours = ipv6 ? "fd00::2" : "10.77.0.2";
  const auto number = static_cast<uint16_t>(6000 + no);
  const int family = ipv6 ? AF_INET6 : AF_INET;
  sockaddr_in6 a6{};
  sockaddr_in a4{};
  const auto fill = [&](const char* text) {
    a6 = {};
    a4 = {};
    a6.sin6_family = AF_INET6;
    a6.sin6_port = htons(number);
    inet_pton(AF_INET6, text, &a6.sin6_addr);
    a4.sin_family = AF_INET;
    a4.sin_port = htons(number);
    inet_pton(AF_INET, text, &a4.sin_addr);
  };
  const auto* address = ipv6 ? reinterpret_cast<sockaddr*>(&a6) : reinterpret_cast<sockaddr*>(&a4);
  const socklen_t size = ipv6 ? sizeof(a6) : sizeof(a4);
  std::string failure;
  std::thread kernel_thread;
  const int fd = socket(family, SOCK_STREAM, 0);
  if (we_dial) {
    fill(kernel);
    if (bind(fd, address, size) != 0 || ::listen(fd, 1) != 0) die("kernel listens");
    kernel_thread = std::thread([&] {
      const int conn = accept(fd, nullptr, nullptr);
      close(fd);
      kernel_side(conn, bytes, failure);
    });
    IpAddress to;
    IpAddress::parse(kernel, to);
    stack.dial(to, number, 1, 20'000'000'000, clock_ns());
  } else {
    if (stack.listen(std::nullopt, number, no) != 0) die("we listen");
    fill(ours);
    kernel_thread = std::thread([&] {
      if (connect(fd, address, size) != 0) die(std::string("kernel connects: ") + std::strerror(errno));
      kernel_side(fd, bytes, failure);
    });
  }
  const int64_t begin = clock_ns();
  ConnId conn = kNoConn;
  bool closed = false, sending = false, blocked = false, close_called = false;
  uint64_t sent = 0, received = 0;
  std::vector<uint8_t> chunk;
  core::Random random(seed);
  while (!closed || !stack.quiet()) {
    while (port.receive(stack)) {
    }
    stack.advance(clock_ns());
    std::vector<Event> events;
    stack.acquire(events);
    for (const Event& event : events) {
      switch (event.kind) {
        case Event::Kind::kAccepted:
        case Event::Kind::kDialed:
          conn = event.conn;
          break;
        case Event::Kind::kDialFailed:
          die("dial: " + std::to_string(event.error));
        case Event::Kind::kData:
          for (uint32_t i = 0; i < event.size; ++i) {
            if (static_cast<uint8_t>(event.data[i]) != byte_at(received + i)) die("we received a wrong byte");
          }
          received += event.size;
          stack.release(event);
          break;
        case Event::Kind::kSent:
          sent += event.size;
          sending = false;
          break;
        case Event::Kind::kWritable:
          blocked = false;
          break;
        case Event::Kind::kClosed:
          closed = true;
          if (event.error != 0)
            die("closed with " + std::to_string(event.error) + " after " + std::to_string(received));
          break;
      }
    }
    while (conn != kNoConn && !closed && !sending && !blocked && sent < bytes) {
      const uint64_t n = std::min<uint64_t>(bytes - sent, 1 + random.below(random.below(2) == 0 ? 300 : 60'000));
      chunk.resize(n);
      for (size_t i = 0; i < n; ++i) chunk[i] = byte_at(sent + i);
      const iovec iov{chunk.data(), n};
      const SendResult result = stack.send(conn, {&iov, 1});
      if (result.status == SendResult::Status::kDone) sent += result.bytes;
      sending = result.status == SendResult::Status::kPending;
      blocked = result.status == SendResult::Status::kBlocked;
      if (result.status == SendResult::Status::kFailed) die("send failed");
    }
    if (conn != kNoConn && !closed && !close_called && sent == bytes && received == bytes) {
      close_called = true;
      stack.close(conn, false);
    }
    stack.flush(clock_ns());
    const int64_t wait = stack.next_ns() - clock_ns();
    if (wait > 0 && !(closed && stack.quiet())) {
      pollfd poll_fd{port.fd, POLLIN, 0};
      poll(&poll_fd, 1, static_cast<int>(std::min<int64_t>(wait / 1'000'000 + 1, 1000)));
    }
    if (clock_ns() - begin > 100'000'000'000)
      die("takes too long: sent " + std::to_string(sent) + ", received " + std::to_string(received));
  }
  kernel_thread.join();
  if (!failure.empty()) die(failure);
  if (received != bytes || sent != bytes) die("not all bytes");
  if (!we_dial) stack.stop_listening(no);
  const double seconds = static_cast<double>(clock_ns() - begin) * 1e-9;
  std::printf("ok %s, %s: %.1f MB each way in %.2f s\n", ipv6 ? "IPv6" : "IPv4",
              we_dial ? "we dial" : "the kernel dials", static_cast<double>(bytes) * 1e-6, seconds);
}

int main_of(int argc, char** argv) {
  uint64_t bytes = 1 << 20, seed = 1;
  double loss = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--bytes") bytes = std::strtoull(argv[i + 1], nullptr, 10);
    if (name == "--loss") loss = std::atof(argv[i + 1]) / 100;
    if (name == "--seed") seed = std::strtoull(argv[i + 1], nullptr, 10);
  }
  // A namespace without a name goes with its last process: nothing to clean up.
  if (unshare(CLONE_NEWNET) != 0) die("unshare: needs root");
  TapPort port(loss, seed);
  run("ip link set lo up && ip link set tap0 address 02:00:00:00:00:01 up && ip addr add 10.77.0.1/24 dev tap0 && "
      "ip -6 addr add fd00::1/64 dev tap0 nodad");
  Options options;
  options.secret[0] = seed * 77;
  options.secret[1] = static_cast<uint64_t>(clock_ns());
  Stack stack(options, port, clock_ns());
  Interface interface;
  interface.mac = {2, 0, 0, 0, 0, 2};
  IpAddress v4, v6;
  IpAddress::parse("10.77.0.2", v4);
  IpAddress::parse("fd00::2", v6);
  interface.addresses = {{v4, 24}, {v6, 64}};
  if (stack.add_interface(interface, true) != 0) die("add_interface");
  uint16_t number = 1;
  for (const bool ipv6 : {false, true}) {
    for (const bool we_dial : {false, true}) one(ipv6, we_dial, bytes, loss, seed, port, stack, number++);
  }
  stack.stats().each([](std::string_view name, uint64_t value) {
    if (value != 0)
      std::printf("%.*s=%lu ", static_cast<int>(name.size()), name.data(), static_cast<unsigned long>(value));
  });
  for (size_t i = 0; i < kDropNames.size(); ++i) {
    if (stack.stats().drops[i] != 0) {
      std::printf("drop_%.*s=%lu ", static_cast<int>(kDropNames[i].size()), kDropNames[i].data(),
                  static_cast<unsigned long>(stack.stats().drops[i]));
    }
  }
  std::printf("\n");
  return 0;
}

}  // namespace
}  // namespace peregrine::net::tcp::test

int main(int argc, char** argv) { return peregrine::net::tcp::test::main_of(argc, argv); }
