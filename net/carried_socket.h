// A kernel socket on its way from one backend to another (Backend::give, take). Closed if nobody takes it.
#pragma once

#include "core/placement.h"
#include "net/socket.h"

namespace peregrine::net {

struct CarriedSocket final : core::CarriedConnection {
  CarriedSocket(Fd fd, SocketAddress remote) : fd(std::move(fd)), remote(remote) {}
  Fd fd;
  SocketAddress remote;
};

}  // namespace peregrine::net
