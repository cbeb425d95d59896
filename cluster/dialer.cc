#include "cluster/dialer.h"

#include <fmt/format.h>
#include <netdb.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "core/shard.h"
#include "net/socket.h"

namespace peregrine::cluster {
namespace {

// What the resolver knows of a name, numeric; `error` in Go's words if that is nothing.
std::vector<std::string> look_up(const std::string& host, std::string& error) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  std::vector<std::string> addresses;
  if (const int code = getaddrinfo(host.c_str(), nullptr, &hints, &found); code != 0) {
    error = code == EAI_NONAME || code == EAI_NODATA ? "no such host" : gai_strerror(code);
    return addresses;
  }
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) != 0) continue;
    if (std::find(addresses.begin(), addresses.end(), text) == addresses.end()) addresses.emplace_back(text);
  }
  freeaddrinfo(found);
  if (addresses.empty()) error = "no such host";
  return addresses;
}

std::string dial_error(const net::Address& to, int error) {
  const std::string address = net::host_and_port(to.host, to.port);
  if (error == ETIMEDOUT) return fmt::format("dial tcp {}: i/o timeout", address);
  return fmt::format("dial tcp {}: connect: {}", address, net::errno_text(error));
}

}  // namespace

void Dialer::dial(uint32_t shard, DialTarget target, int64_t timeout_ns, PeerDialed then) {
  net::Address address{target.host, target.port};
  if (net::SocketAddress::parse(address)) return dial_address(shard, std::move(address), timeout_ns, std::move(then));
  server_.workers.run([this, shard, target = std::move(target), timeout_ns, then = std::move(then)]() mutable {
    DialError error;
    std::vector<std::string> addresses = look_up(target.host, error.text);
    const bool any = !addresses.empty();
    std::erase_if(addresses, [&](const std::string& address) {
      return std::find(target.own.begin(), target.own.end(), net::host_and_port(address, target.port)) !=
             target.own.end();
    });
    if (addresses.empty()) {
      error.only_ourself = any;
      error.text = any ? "no IP available for connection"
                       : fmt::format("lookup for host {}: lookup {}: {}", fmt::format("\"{}\"", target.host),
                                     target.host, error.text);
      server_.shards[shard]->post([then = std::move(then), error](core::Shard& on) {
        then(on, {net::kNoConn, {}, 0}, error);
        return true;
      });
      return;
    }
    server_.shards[shard]->post([this, addresses = std::move(addresses), port = target.port, timeout_ns,
                                 then = std::move(then)](core::Shard& on) mutable {
      dial_address(on.index(), {addresses[on.random().below(addresses.size())], port}, timeout_ns, std::move(then));
      return true;
    });
  });
}

void Dialer::dial_address(uint32_t shard, net::Address to, int64_t timeout_ns, PeerDialed then) {
  server_.shards[shard]->post([this, to = std::move(to), timeout_ns, then = std::move(then)](core::Shard& on) mutable {
    reactor_(on.index())
        .dial(to, timeout_ns, [to, then = std::move(then)](core::Shard& at, net::Opened opened, int error) {
          return then(at, std::move(opened), DialError{error == 0 ? std::string() : dial_error(to, error), false});
        });
    return true;
  });
}

}  // namespace peregrine::cluster
