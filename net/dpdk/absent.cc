#include "net/dpdk/choice.h"

namespace peregrine::net {

std::expected<BackendChoice, std::string> choose_dpdk(const config::Dpdk&, uint32_t, core::Log&) {
  return std::unexpected(
      "backend dpdk: not part of this build; install libdpdk-dev and build again, or set backend: uring");
}

}  // namespace peregrine::net
