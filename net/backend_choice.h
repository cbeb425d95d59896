// Which backend this process uses, decided once at start on the main thread, with the one log line that says why.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/options.h"
#include "core/log.h"
#include "net/backend.h"
#include "net/listener.h"
#include "net/uring/probe.h"

namespace peregrine::net {

struct BackendChoice {
  std::string name;      // "uring", "epoll", "dpdk"
  std::string log_line;  // "backend: epoll: io_uring_setup refused (EPERM): ..."
  // Makes the backend of one shard; call it on that shard's thread. An error is fatal: what the probe found has
  // changed.
  std::function<std::expected<std::unique_ptr<Backend>, std::string>(uint32_t shard)> make;
  // Opens what clients and peers connect to: sockets of the kernel, or addresses of the backend's own.
  std::function<std::expected<Listeners, std::string>(const std::string& host, int port, int count)> open =
      open_listeners;
  // The backend's own addresses, if it has some: what "all addresses" means to it.
  std::vector<std::string> addresses;
  // Of a backend that has numbers of its own: JSON text for /varz. Any thread. Null: none.
  std::function<std::string()> describe;
};

// auto: io_uring if the kernel lets us, else epoll. A backend asked for by name that is not to be had is an error, as
// is a machine out of memory or descriptors, which should not pass for "no io_uring".
std::expected<BackendChoice, std::string> choose_backend(config::Backend wanted,
                                                         const uring::Options& uring_options = {});

// The same with dpdk: taken if asked for, or by auto if the configuration has a dpdk section; its devices are opened
// here, and what stands in their way is an error. Call it once in a process, before other threads start.
std::expected<BackendChoice, std::string> choose_backend(const config::Options& options, uint32_t shards,
                                                         core::Log& log);

}  // namespace peregrine::net
