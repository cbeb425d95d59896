// Connections of the load generator: dialled and introduced with plain blocking steps, then left to the caller's event
// loop.
//
// Owns: one socket each (TCP_NODELAY, non-blocking). Used by one thread.
// Two dialects: NATS (INFO, CONNECT, PING/PONG) and the relay's one-line introduction (bench/relay.cc), so that the
// floor is measured by the same code with the same bytes. Errors: everything that goes wrong throws Failure with a
// sentence for the person in front of the terminal; a run that fails has no result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace peregrine::bench {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Target {
  std::string host = "127.0.0.1";
  std::string port = "4222";
  std::string user, password, token;
  bool raw = false;  // the relay instead of a NATS server

  static Target parse(const std::string& url);  // nats://[user:password@|token@]host[:port] or relay://host:port
};

// A server may pause for long (a collector over ten million subscriptions); one that hangs is told from it by this.
constexpr int kPatienceMs = 60'000;

class Connection {
 public:
  // Dials and, for NATS, completes CONNECT ... PONG. `introduction` is the relay's first line (ignored for NATS).
  Connection(const Target& target, const std::string& introduction, int timeout_ms = kPatienceMs);
  ~Connection();
  Connection(Connection&& other) noexcept;
  Connection& operator=(Connection&&) = delete;

  int fd() const { return fd_; }
  const std::string& server_info() const { return info_; }  // the JSON of INFO

  // Set-up steps. flush() sends PING and waits for its PONG; messages arriving meanwhile are an error (nothing flows
  // yet).
  void write_all(std::string_view bytes);
  void flush(int timeout_ms = kPatienceMs);

  // Waits until what `from` publishes comes out here, and so until the interest this connection announced before has
  // travelled from its server to the other one. Leaves nothing behind: no subscription, no message under way.
  void await_delivery_from(Connection& from, const std::string& subject);

  // One non-blocking read or write. 0: would block. End of stream and errors throw.
  size_t read_some(char* to, size_t size);
  size_t write_some(const char* from, size_t size);

 private:
  void dial(const Target& target);
  std::string read_line();
  void wait_for(short events);
  bool readable_within(int wait_ms);
  [[noreturn]] void fail(const std::string& what) const;

  int fd_ = -1;
  int timeout_ms_;
  std::string where_;
  std::string pending_;  // set-up only: bytes read past the line asked for
  std::string info_;
};

}  // namespace peregrine::bench
