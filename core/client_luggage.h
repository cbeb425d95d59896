// A client between two shards (placement.h): everything of it but its place there.
//
// Packed on the shard it leaves, unpacked on the one it goes to. Dropped on the way (the server ends), it is counted
// out.
#pragma once

#include <memory>
#include <string>

#include "core/client_session.h"
#include "core/server.h"

namespace peregrine::core {

struct ClientSession::Luggage {
  explicit Luggage(Server& server) : server(&server) {}
  ~Luggage() {
    if (server != nullptr) server->client_gone();
  }
  Luggage(const Luggage&) = delete;
  Luggage& operator=(const Luggage&) = delete;

  Server* server;  // null: unpacked
  uint64_t cid = 0;
  std::string ip;
  uint16_t port = 0;
  bool has_account = false;
  uint32_t account = 0;

  // What Session calls by the same names.
  bool echo = true, headers = false, no_responders = false;
  std::unique_ptr<PermissionState> permissions;
  Traffic traffic;
  uint64_t stalls = 0;
  std::unique_ptr<Heading> heading;
  int64_t start_wall_ns = 0, start_ns = 0, last_activity_ns = 0;
  ClientState state;
};

}  // namespace peregrine::core
