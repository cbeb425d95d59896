// Kernel sockets without ceremony: an owning descriptor, numeric addresses, and the options every TCP connection of
// ours wants.
//
// Nothing here resolves names (the control thread and workers do that) and nothing blocks. Functions returning int give
// 0 or -errno. Thread-safe: no state.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "net/backend.h"

namespace peregrine::net {

// One holder of one descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// An IPv4 or IPv6 address with port, as the kernel wants it; 28 bytes, so that a connection can keep one.
class SocketAddress {
 public:
  SocketAddress() : v6_{} {}

  // "127.0.0.1", "::1", "fe80::1%eth0" (no brackets); nullopt if `address` is not numeric.
  static std::optional<SocketAddress> parse(const Address& address);
  static SocketAddress remote_of(int fd);  // unset() if the socket is not connected (any more)
  static SocketAddress local_of(int fd);

  // IPv4 carried in IPv6 (a dual-stack listener) shows as the IPv4 address it is.
  Address numeric() const;
  bool loopback() const;
  bool unset() const { return any_.sa_family == AF_UNSPEC; }

  int family() const { return any_.sa_family; }
  uint16_t port() const;
  const sockaddr* data() const { return &any_; }
  sockaddr* data() { return &any_; }
  socklen_t size() const { return any_.sa_family == AF_INET ? sizeof(v4_) : sizeof(v6_); }
  static constexpr socklen_t kCapacity = sizeof(sockaddr_in6);

 private:
  union {
    sockaddr any_;
    sockaddr_in v4_;
    sockaddr_in6 v6_;
  };
};

// "127.0.0.1:4222", "[::1]:4222"
std::string host_and_port(const std::string& host, int port);

// TCP_NODELAY and keepalive (15 s idle, 15 s apart, 9 probes: what Go's runtime, hence nats-server, sets). Linux hands
// both down from a listening socket to what it accepts, so they cost accepted connections nothing.
void set_tcp_options(int fd);
int set_nonblocking(int fd);
void reset_on_close(int fd);  // close() sends RST and drops what is queued

// "", "0.0.0.0" and "::": a listener there is reached at every address of this machine.
bool is_any_address(const std::string& host);
// Every address of this machine's interfaces, numeric, one interface after the other.
std::vector<std::string> interface_addresses();
// Where others reach a listener bound to `host`: itself, or for 0.0.0.0 and :: the addresses that mean something
// outside this machine and link.
std::vector<std::string> reachable_addresses(const std::string& host);

// Go's lower-case wording of an errno, as nats-server's log has it: "address already in use".
std::string errno_text(int error);

void sleep_for(int64_t ns);
// Timed waits of the calling thread end when they should, not up to 50 us later, which is Linux's default.
void set_exact_timers();

// Raises the soft RLIMIT_NOFILE to the hard one; returns the limit now in force. Call before threads start.
uint64_t raise_open_files_limit();

}  // namespace peregrine::net
