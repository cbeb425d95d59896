#include "net/backend_choice.h"

#include "net/dpdk/choice.h"
#include "net/epoll/backend.h"
#include "net/socket.h"
#include "net/uring/backend.h"

namespace peregrine::net {
namespace {

std::expected<std::unique_ptr<Backend>, std::string> make_epoll() {
  int error = 0;
  auto backend = std::make_unique<epoll::Backend>(error);
  if (error != 0) return std::unexpected("backend epoll: " + errno_text(error));
  return backend;
}

}  // namespace

std::expected<BackendChoice, std::string> choose_backend(config::Backend wanted, const uring::Options& uring_options) {
  switch (wanted) {
    case config::Backend::kDpdk:
      return std::unexpected("backend dpdk: needs a dpdk section that names a port");
    case config::Backend::kEpoll:
      return BackendChoice{"epoll", "backend: epoll", [](uint32_t) { return make_epoll(); }};
    case config::Backend::kAuto:
    case config::Backend::kUring:
      break;
  }
  const auto features = uring::probe(uring_options);
  if (!features) {
    if (wanted == config::Backend::kUring || !features.error().unavailable) {
      return std::unexpected("backend uring: " + features.error().why);
    }
    return BackendChoice{"epoll", "backend: epoll: " + features.error().why, [](uint32_t) { return make_epoll(); }};
  }
  return BackendChoice{
      "uring", "backend: uring",
      [uring_options, features = *features](uint32_t) -> std::expected<std::unique_ptr<Backend>, std::string> {
        int error = 0;
        auto backend = std::make_unique<uring::Backend>(uring_options, features, error);
        if (error != 0) return std::unexpected("backend uring: " + errno_text(error));
        return backend;
      }};
}

std::expected<BackendChoice, std::string> choose_backend(const config::Options& options, uint32_t shards,
                                                         core::Log& log) {
  const config::Backend wanted = options.native.backend;
  const bool dpdk = wanted == config::Backend::kDpdk || (wanted == config::Backend::kAuto && options.dpdk.defined);
  return dpdk ? choose_dpdk(options.dpdk, shards, log) : choose_backend(wanted);
}

}  // namespace peregrine::net
