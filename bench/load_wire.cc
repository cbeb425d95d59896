#include "bench/load_wire.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace peregrine::bench {

Target Target::parse(const std::string& url) {
  Target t;
  std::string rest = url;
  if (const size_t scheme = rest.find("://"); scheme != std::string::npos) {
    const std::string name = rest.substr(0, scheme);
    if (name != "nats" && name != "relay" && name != "tcp") throw Failure("unsupported scheme in " + url);
    t.raw = name == "relay";
    rest = rest.substr(scheme + 3);
  }
  if (const size_t at = rest.rfind('@'); at != std::string::npos) {
    const std::string credentials = rest.substr(0, at);
    rest = rest.substr(at + 1);
    if (const size_t colon = credentials.find(':'); colon != std::string::npos) {
      t.user = credentials.substr(0, colon);
      t.password = credentials.substr(colon + 1);
    } else {
      t.token = credentials;
    }
  }
  while (!rest.empty() && rest.back() == '/') rest.pop_back();
  const size_t bracket = rest.find(']');
  const size_t colon = rest.find(':', bracket == std::string::npos ? 0 : bracket);
  if (colon != std::string::npos) {
    t.port = rest.substr(colon + 1);
    rest = rest.substr(0, colon);
  }
  if (rest.size() > 2 && rest.front() == '[' && rest.back() == ']') rest = rest.substr(1, rest.size() - 2);
  if (!rest.empty()) t.host = rest;
  return t;
}

Connection::Connection(const Target& target, const std::string& introduction, int timeout_ms)
    : timeout_ms_(timeout_ms), where_(target.host + ":" + target.port) {
  dial(target);
  try {
    if (target.raw) {
      write_all(introduction + "\n");
      if (const std::string answer = read_line(); answer != "ok") fail("relay answered \"" + answer + "\"");
      return;
    }
    const std::string greeting = read_line();
    if (!greeting.starts_with("INFO ")) fail("expected INFO, got \"" + greeting + "\"");
    info_ = greeting.substr(5);
    nlohmann::json options = {{"verbose", false}, {"pedantic", false},    {"tls_required", false}, {"lang", "c++"},
                              {"version", "1"},   {"protocol", 1},        {"echo", true},          {"headers", true},
                              {"name", "load"},   {"no_responders", true}};
    if (!target.user.empty()) options["user"] = target.user, options["pass"] = target.password;
    if (!target.token.empty()) options["auth_token"] = target.token;
    write_all("CONNECT " + options.dump() + "\r\nPING\r\n");
    for (;;) {
      const std::string line = read_line();
      if (line == "PONG") break;
      if (line.starts_with("-ERR")) fail(line);
    }
  } catch (...) {
    close(fd_);  // the destructor does not run for a half-built connection
    throw;
  }
}

Connection::~Connection() {
  if (fd_ >= 0) close(fd_);
}

Connection::Connection(Connection&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      timeout_ms_(other.timeout_ms_),
      where_(std::move(other.where_)),
      pending_(std::move(other.pending_)),
      info_(std::move(other.info_)) {}

void Connection::dial(const Target& target) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int e = getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &found); e != 0)
    fail(gai_strerror(e));
  int error = ECONNREFUSED;
  for (const addrinfo* a = found; a && fd_ < 0; a = a->ai_next) {
    fd_ = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd_ < 0) {
      error = errno;
      continue;
    }
    if (connect(fd_, a->ai_addr, a->ai_addrlen) != 0) {
      error = errno;
      close(std::exchange(fd_, -1));
    }
  }
  freeaddrinfo(found);
  if (fd_ < 0) fail(std::strerror(error));
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
}

void Connection::wait_for(short events) {
  pollfd p{fd_, events, 0};
  const int n = poll(&p, 1, timeout_ms_);
  if (n == 0) fail("no progress for " + std::to_string(timeout_ms_) + " ms");
  if (n < 0 && errno != EINTR) fail(std::strerror(errno));
}

void Connection::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t n = write_some(bytes.data(), bytes.size());
    if (n == 0) wait_for(POLLOUT);
    bytes.remove_prefix(n);
  }
}

void Connection::flush(int timeout_ms) {
  const int usual_ms = std::exchange(timeout_ms_, timeout_ms);
  write_all("PING\r\n");
  for (;;) {
    const std::string line = read_line();
    if (line == "PONG") break;
    if (line == "PING") write_all("PONG\r\n");
    if (line.starts_with("-ERR")) fail(line);
    if (line.starts_with("MSG") || line.starts_with("HMSG")) fail("a message before any was published: " + line);
  }
  if (!pending_.empty() && !pending_.starts_with("INFO") && !pending_.starts_with("PING")) {
    fail("unexpected bytes after PONG: " + pending_.substr(0, 80));
  }
  // An asynchronous INFO that came along has no meaning here; a PING deserves its answer.
  while (!pending_.empty()) {
    if (read_line() == "PING") write_all("PONG\r\n");
  }
  timeout_ms_ = usual_ms;
}

bool Connection::readable_within(int wait_ms) {
  pollfd p{fd_, POLLIN, 0};
  return pending_.find('\n') != std::string::npos || poll(&p, 1, wait_ms) > 0;
}

void Connection::await_delivery_from(Connection& from, const std::string& subject) {
  write_all("SUB " + subject + " await\r\n");
  // A probe published before the interest arrived is nobody's; so there are many, and a last one behind all of them.
  const std::string probe = "PUB " + subject + " 5\r\nprobe\r\n";
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms_);
  bool arrived = false, last = false;
  while (!last) {
    if (!arrived) from.write_all(probe);
    if (!readable_within(arrived ? timeout_ms_ : 5)) {
      if (arrived || std::chrono::steady_clock::now() > deadline)
        fail("interest did not reach " + from.where_ + " within " + std::to_string(timeout_ms_) + " ms");
      continue;
    }
    const std::string line = read_line();
    if (line.starts_with("-ERR")) fail(line);
    if (line == "PING") write_all("PONG\r\n");
    last = line == "final";
    if (line == "probe" && !std::exchange(arrived, true)) from.write_all("PUB " + subject + " 5\r\nfinal\r\n");
  }
  write_all("UNSUB await\r\n");
  flush(timeout_ms_);
}

std::string Connection::read_line() {
  for (;;) {
    if (const size_t end = pending_.find('\n'); end != std::string::npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      if (!line.empty() && line.back() == '\r') line.pop_back();
      return line;
    }
    char buffer[4096];
    const size_t n = read_some(buffer, sizeof buffer);
    if (n == 0) wait_for(POLLIN);
    pending_.append(buffer, n);
  }
}

size_t Connection::read_some(char* to, size_t size) {
  for (;;) {
    const ssize_t n = recv(fd_, to, size, 0);
    if (n > 0) return static_cast<size_t>(n);
    if (n == 0) fail("the server closed the connection");
    if (errno == EAGAIN) return 0;
    if (errno != EINTR) fail(std::strerror(errno));
  }
}

size_t Connection::write_some(const char* from, size_t size) {
  for (;;) {
    const ssize_t n = send(fd_, from, size, MSG_NOSIGNAL);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno == EAGAIN) return 0;
    if (errno != EINTR) fail(std::strerror(errno));
  }
}

void Connection::fail(const std::string& what) const { throw Failure(where_ + ": " + what); }

}  // namespace peregrine::bench
