#include "net/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "net/socket.h"

namespace peregrine::net {
namespace {

constexpr const char* kAddressFile = "listener";  // its name in /proc/PID/fd
constexpr int kBacklog = 65535;                   // the kernel clamps it to net.core.somaxconn

// A process that was killed may hold its port for some milliseconds more: the kernel takes an io_uring, and the sockets
// it listens with, apart after the process is gone. Whoever restarts it at once should not be told "in use" for that.
constexpr int kBindAttempts = 10;
constexpr auto kBindPause = std::chrono::milliseconds(30);

struct Failure {
  const char* call;
  int error;
};

// The first IPv4 address of a name, or else its first address.
std::expected<SocketAddress, std::string> resolve(const std::string& host, uint16_t port) {
  if (const auto numeric = SocketAddress::parse({host, port})) return *numeric;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    const bool unknown = error == EAI_NONAME || error == EAI_NODATA;
    return std::unexpected("listen tcp: lookup " + host + ": " + (unknown ? "no such host" : gai_strerror(error)));
  }
  const addrinfo* best = nullptr;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    if (each->ai_family == AF_INET && (best == nullptr || best->ai_family != AF_INET)) best = each;
    if (each->ai_family == AF_INET6 && best == nullptr) best = each;
  }
  char text[NI_MAXHOST];
  const bool named = best != nullptr &&
                     getnameinfo(best->ai_addr, best->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) == 0;
  freeaddrinfo(found);
  std::optional<SocketAddress> address;
  if (named) address = SocketAddress::parse({text, port});
  if (!address) return std::unexpected("listen tcp: lookup " + host + ": no such host");
  return *address;
}

bool set_flag(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof(value)) == 0;
}

std::expected<Fd, Failure> listen_on(const SocketAddress& address, bool dual_stack, bool reuse_port) {
  Fd fd(socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!fd) return std::unexpected(Failure{"socket", errno});
  // Lets a restart bind while connections of the last run are in TIME_WAIT; two listeners still exclude each other.
  set_flag(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (address.family() == AF_INET6) set_flag(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, dual_stack ? 0 : 1);
  if (reuse_port && !set_flag(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1))
    return std::unexpected(Failure{"setsockopt", errno});
  set_tcp_options(fd.get());
  for (int attempt = 1; bind(fd.get(), address.data(), address.size()) != 0; ++attempt) {
    if (errno != EADDRINUSE || attempt == kBindAttempts) return std::unexpected(Failure{"bind", errno});
    std::this_thread::sleep_for(kBindPause);
  }
  if (listen(fd.get(), kBacklog) != 0) return std::unexpected(Failure{"listen", errno});
  return fd;
}

std::expected<Listeners, Failure> open_group(SocketAddress address, bool dual_stack, int count) {
  std::vector<Fd> fds;
  for (int n = 0; n < count; ++n) {
    auto fd = listen_on(address, dual_stack, n > 0);
    if (!fd) return std::unexpected(fd.error());
    if (n == 0) {
      address = SocketAddress::local_of(fd->get());
      if (count > 1 && !set_flag(fd->get(), SOL_SOCKET, SO_REUSEPORT, 1))
        return std::unexpected(Failure{"setsockopt", errno});
    }
    fds.push_back(std::move(*fd));
  }
  Listeners result;
  result.port = address.port();
  for (Fd& fd : fds) result.fds.push_back(fd.release());
  return result;
}

}  // namespace

std::expected<Listeners, std::string> open_listeners(const std::string& host, int port, int count) {
  if (port > 65535 || port < -1)
    return std::unexpected("listen tcp: address " + std::to_string(port) + ": invalid port");
  const auto number = static_cast<uint16_t>(port < 0 ? 0 : port);
  const auto failed = [&](const Failure& failure) {
    return std::unexpected("listen tcp " + host_and_port(host, number) + ": " + failure.call + ": " +
                           errno_text(failure.error));
  };
  if (is_any_address(host)) {
    auto both = open_group(*SocketAddress::parse({"::", number}), true, count);
    if (both) return *both;
    const bool no_ipv6 = both.error().error == EAFNOSUPPORT || both.error().error == EADDRNOTAVAIL;
    if (!no_ipv6 || host == "::") return failed(both.error());
    auto ipv4 = open_group(*SocketAddress::parse({"0.0.0.0", number}), false, count);
    if (!ipv4) return failed(ipv4.error());
    return *ipv4;
  }
  const auto address = resolve(host, number);
  if (!address) return std::unexpected(address.error());
  auto group = open_group(*address, false, count);
  if (!group) return failed(group.error());
  return *group;
}

std::expected<Listeners, std::string> open_address_listeners(const std::string& host, int port, int count) {
  if (!is_any_address(host) && !SocketAddress::parse({host, 0})) {
    return std::unexpected("listen tcp: address " + host + ": not a numeric address");
  }
  Listeners result;
  result.port = port;
  std::vector<Fd> fds;
  for (int n = 0; n < count; ++n) {
    Fd fd(memfd_create(kAddressFile, MFD_CLOEXEC));
    const std::string text = std::to_string(port) + " " + host;
    if (!fd || write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      return std::unexpected("listen tcp " + host_and_port(host, port) + ": " + errno_text(errno));
    }
    fds.push_back(std::move(fd));
  }
  for (Fd& fd : fds) result.fds.push_back(fd.release());
  return result;
}

std::optional<Address> listener_address(int fd) {
  char text[INET6_ADDRSTRLEN + 16];
  const ssize_t size = pread(fd, text, sizeof(text) - 1, 0);
  if (size <= 0) return std::nullopt;
  text[size] = 0;
  char* end = nullptr;
  const long port = std::strtol(text, &end, 10);
  if (*end != ' ' || port < 1 || port > 65535) return std::nullopt;
  return Address{end + 1, static_cast<uint16_t>(port)};
}

}  // namespace peregrine::net
