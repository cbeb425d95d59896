// Opens the listening sockets of one port, one per shard, before the shards start.
//
// With several shards the sockets share the port by SO_REUSEPORT and the kernel spreads connections over them by hash.
// SO_REUSEPORT alone would let a second broker of the same user join the group unnoticed and take half of our
// connections. So the first socket binds and listens WITHOUT it, which fails with "address already in use" whatever
// flags the other holder of the port has; only then is the flag set on it, and the others join (Linux makes the group
// when the second one listens). A broker starting at the same moment goes the same way, so one of the two fails. With
// one shard the flag is never set.
//
// Errors read like nats-server's: "listen tcp 127.0.0.1:4222: bind: address already in use". Called on the main thread;
// it may block in the resolver when `host` is a name, and for a third of a second when the port is in use.
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <vector>

#include "net/backend.h"

namespace peregrine::net {

struct Listeners {
  // One per shard, non-blocking, listening; the caller hands each to Backend::listen, which then owns it.
  std::vector<int> fds;
  int port = 0;  // the port in use, also when a random one was asked for
};

// `host`: numeric IPv4 or IPv6, or a name (its IPv4 address is preferred, as Go does). "", "0.0.0.0" and "::" mean
// every address of both families, again as Go does; only IPv4 where the kernel has no IPv6. `port` 0 or -1: any free
// port.
std::expected<Listeners, std::string> open_listeners(const std::string& host, int port, int count);

// For a backend with addresses of its own, which knows no kernel sockets: descriptors that only say an address. They
// take the way of listening sockets (one per shard, owned by the backend that gets them), so that whoever opens
// listeners need not know which kind they are. `host` numeric, or empty, "0.0.0.0" or "::" for all addresses.
std::expected<Listeners, std::string> open_address_listeners(const std::string& host, int port, int count);
// What such a descriptor says; nullopt for any other.
std::optional<Address> listener_address(int fd);

}  // namespace peregrine::net
