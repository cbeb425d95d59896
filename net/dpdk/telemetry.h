// Our commands on DPDK's telemetry socket (dpdk-telemetry.py): /peregrine/ports and /peregrine/shards, the same numbers
// as the dpdk object in /varz. Beside them DPDK answers its own (/ethdev/stats, /mempool/info, ...).
#pragma once

#include <memory>

namespace peregrine::net::dpdk {

class Ports;

// The commands live as long as the process; they answer while `ports` does.
void register_telemetry(const std::shared_ptr<Ports>& ports);

}  // namespace peregrine::net::dpdk
