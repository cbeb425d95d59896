#include "net/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>

namespace peregrine::net {

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

std::optional<SocketAddress> SocketAddress::parse(const Address& address) {
  SocketAddress result;
  if (inet_pton(AF_INET, address.host.c_str(), &result.v4_.sin_addr) == 1) {
    result.v4_.sin_family = AF_INET;
    result.v4_.sin_port = htons(address.port);
    return result;
  }
  std::string host = address.host;
  uint32_t scope = 0;
  if (const size_t percent = host.find('%'); percent != std::string::npos) {
    scope = if_nametoindex(host.c_str() + percent + 1);
    if (scope == 0) return std::nullopt;
    host.resize(percent);
  }
  result = SocketAddress();
  if (inet_pton(AF_INET6, host.c_str(), &result.v6_.sin6_addr) != 1) return std::nullopt;
  result.v6_.sin6_family = AF_INET6;
  result.v6_.sin6_port = htons(address.port);
  result.v6_.sin6_scope_id = scope;
  return result;
}

SocketAddress SocketAddress::remote_of(int fd) {
  SocketAddress result;
  socklen_t size = kCapacity;
  if (getpeername(fd, result.data(), &size) != 0) return SocketAddress();
  return result;
}

SocketAddress SocketAddress::local_of(int fd) {
  SocketAddress result;
  socklen_t size = kCapacity;
  if (getsockname(fd, result.data(), &size) != 0) return SocketAddress();
  return result;
}

Address SocketAddress::numeric() const {
  char text[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];
  switch (any_.sa_family) {
    case AF_INET:
      inet_ntop(AF_INET, &v4_.sin_addr, text, sizeof(text));
      return {text, ntohs(v4_.sin_port)};
    case AF_INET6:
      if (IN6_IS_ADDR_V4MAPPED(&v6_.sin6_addr)) {
        inet_ntop(AF_INET, &v6_.sin6_addr.s6_addr[12], text, sizeof(text));
      } else {
        inet_ntop(AF_INET6, &v6_.sin6_addr, text, sizeof(text));
        char name[IF_NAMESIZE];
        if (v6_.sin6_scope_id != 0 && if_indextoname(v6_.sin6_scope_id, name) != nullptr) {
          strcat(strcat(text, "%"), name);
        }
      }
      return {text, ntohs(v6_.sin6_port)};
    default:
      return {};
  }
}

bool SocketAddress::loopback() const {
  if (any_.sa_family == AF_INET) return (ntohl(v4_.sin_addr.s_addr) >> 24) == 127;
  if (any_.sa_family != AF_INET6) return false;
  if (IN6_IS_ADDR_V4MAPPED(&v6_.sin6_addr)) return v6_.sin6_addr.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&v6_.sin6_addr);
}

uint16_t SocketAddress::port() const {
  if (any_.sa_family == AF_INET) return ntohs(v4_.sin_port);
  if (any_.sa_family == AF_INET6) return ntohs(v6_.sin6_port);
  return 0;
}

std::string host_and_port(const std::string& host, int port) {
  const bool brackets = host.find(':') != std::string::npos;
  return (brackets ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

void set_tcp_options(int fd) {
  const auto set = [fd](int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof(value)); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 15);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set(IPPROTO_TCP, TCP_KEEPCNT, 9);
}

int set_nonblocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return -errno;
  return 0;
}

void reset_on_close(int fd) {
  const linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

std::vector<std::string> interface_addresses() {
  std::vector<std::string> addresses;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return addresses;
  // getifaddrs() has all IPv4 addresses first.
  std::vector<std::pair<unsigned, std::string>> found;
  for (const ifaddrs* it = list; it != nullptr; it = it->ifa_next) {
    char text[INET6_ADDRSTRLEN] = "";
    if (it->ifa_addr == nullptr) continue;
    if (it->ifa_addr->sa_family == AF_INET) {
      inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(it->ifa_addr)->sin_addr, text, sizeof(text));
    } else if (it->ifa_addr->sa_family == AF_INET6) {
      inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(it->ifa_addr)->sin6_addr, text, sizeof(text));
    }
    if (text[0] != '\0') found.emplace_back(if_nametoindex(it->ifa_name), text);
  }
  freeifaddrs(list);
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [index, address] : found) addresses.push_back(std::move(address));
  return addresses;
}

bool is_any_address(const std::string& host) {
  in_addr v4{};
  in6_addr v6{};
  return host.empty() || (inet_pton(AF_INET, host.c_str(), &v4) == 1 && v4.s_addr == INADDR_ANY) ||
         (inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6));
}

std::vector<std::string> reachable_addresses(const std::string& host) {
  if (!is_any_address(host)) return {host};
  in_addr v4{};
  in6_addr v6{};
  std::vector<std::string> addresses = interface_addresses();
  std::erase_if(addresses, [&](const std::string& address) {
    if (inet_pton(AF_INET, address.c_str(), &v4) == 1) {
      const uint32_t bits = ntohl(v4.s_addr);
      return bits >> 24 == 127 || bits >> 16 == 0xa9fe;
    }
    return inet_pton(AF_INET6, address.c_str(), &v6) != 1 || IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_LINKLOCAL(&v6);
  });
  if (addresses.empty()) addresses.push_back(host);
  return addresses;
}

std::string errno_text(int error) {
  char buffer[128];
  std::string text = strerror_r(error < 0 ? -error : error, buffer, sizeof(buffer));
  if (!text.empty()) text[0] = static_cast<char>(tolower(static_cast<unsigned char>(text[0])));
  return text;
}

void sleep_for(int64_t ns) {
  const timespec time{ns / 1'000'000'000, ns % 1'000'000'000};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
}

void set_exact_timers() { prctl(PR_SET_TIMERSLACK, 1); }

uint64_t raise_open_files_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  if (limit.rlim_cur < limit.rlim_max) {
    rlimit wanted = limit;
    wanted.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0) limit = wanted;
  }
  return limit.rlim_cur;
}

}  // namespace peregrine::net
