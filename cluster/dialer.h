// From "host:port" to a connection on a shard: the name is resolved on a worker, an address is picked, that shard
// dials.
//
// dial() may be called on any thread; `then` runs exactly once, on the chosen shard's thread, unless the server stops
// first. One attempt, no retry: when to try again is the caller's policy. Errors read like Go's ("dial tcp
// 10.0.0.1:6222: connect: connection refused"), because people search for them. Source: nats-server's connectToRoute
// and getRandomIP; parity.md 5.3-05.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/server.h"
#include "net/reactor.h"

namespace peregrine::cluster {

struct DialTarget {
  std::string host;  // a name, or a numeric address without brackets
  uint16_t port = 0;
  std::vector<std::string> own;  // our own addresses, "ip:port": a name that resolves to nothing else is not dialled
};

struct DialError {
  std::string text;           // empty = connected
  bool only_ourself = false;  // the name stands for nobody but this server
};

// Makes the session, as net::OpenSession does; with an error the answer must be null.
using PeerDialed = std::function<core::Session*(core::Shard&, net::Opened, const DialError&)>;

class Dialer {
 public:
  // `reactor(n)` is only called on shard n's thread.
  Dialer(core::Server& server, std::function<net::Reactor&(uint32_t)> reactor)
      : server_(server), reactor_(std::move(reactor)) {}

  void dial(uint32_t shard, DialTarget target, int64_t timeout_ns, PeerDialed then);

 private:
  void dial_address(uint32_t shard, net::Address to, int64_t timeout_ns, PeerDialed then);

  core::Server& server_;
  std::function<net::Reactor&(uint32_t)> reactor_;
};

}  // namespace peregrine::cluster
