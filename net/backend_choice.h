// Which backend this process uses, decided once at start on the main thread, with the one log line that says why.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>

#include "config/options.h"
#include "net/backend.h"
#include "net/uring/probe.h"

namespace peregrine::net {

struct BackendChoice {
  std::string name;      // "uring", "epoll"
  std::string log_line;  // "backend: epoll: io_uring_setup refused (EPERM): ..."
  // Makes the backend of one shard; call it on that shard's thread. An error is fatal: what the probe found has
  // changed.
  std::function<std::expected<std::unique_ptr<Backend>, std::string>(uint32_t shard)> make;
};

// auto: io_uring if the kernel lets us, else epoll. A backend asked for by name that is not to be had is an error, as
// is a machine out of memory or descriptors, which should not pass for "no io_uring".
std::expected<BackendChoice, std::string> choose_backend(config::Backend wanted,
                                                         const uring::Options& uring_options = {});

}  // namespace peregrine::net
