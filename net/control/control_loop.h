// What the control thread does while the shards work: wait for signals and act on them, and walk through lame duck
// mode (stop accepting, tell the clients, after a grace period close them one after the other, then end).
//
// Made and run by main; returns from run() when the server shall end. Source: nats-server's server/signal.go and
// lameDuckMode in server/server.go.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/server.h"
#include "net/broker.h"
#include "net/control/log_sink.h"
#include "net/control/signals.h"
#include "net/tls/context.h"

namespace peregrine::net::control {

class ControlLoop {
 public:
  // `tell_peers`: that lame duck mode begins. `certificates`: what a reload reads again, and what it is called.
  using Certificates = std::vector<std::pair<std::string, std::shared_ptr<const tls::Context>>>;
  ControlLoop(core::Server& server, Broker& broker, std::function<void()> tell_peers, Certificates certificates,
              LogSink& log)
      : server_(server),
        broker_(broker),
        tell_peers_(std::move(tell_peers)),
        certificates_(std::move(certificates)),
        log_(log) {}

  void run(Signals& signals);

 private:
  void on_signal(Signal signal);
  void reload();
  void begin_lame_duck();
  void lame_duck_step();

  core::Server& server_;
  Broker& broker_;
  std::function<void()> tell_peers_;
  const Certificates certificates_;
  LogSink& log_;
  bool done_ = false;
  bool lame_duck_ = false;
  int64_t closing_at_ns_ = 0;
};

}  // namespace peregrine::net::control
