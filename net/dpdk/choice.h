// The DPDK backend for net/backend_choice.h: its ports opened and its functions filled in. A build without DPDK has
// absent.cc in place of choice.cc, which says so.
#pragma once

#include <cstdint>
#include <expected>
#include <string>

#include "config/options.h"
#include "core/log.h"
#include "net/backend_choice.h"

namespace peregrine::net {

std::expected<BackendChoice, std::string> choose_dpdk(const config::Dpdk& options, uint32_t shards, core::Log& log);

}  // namespace peregrine::net
