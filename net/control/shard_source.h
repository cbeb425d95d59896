// Monitoring's questions, answered by the shards: each is a command on every shard's mailbox, worked off in slices
// between turns.
//
// Called on the monitor's request threads, several at once. A shard that does not answer within kTimeoutMs (it never
// should) is left out of the answer and said in the log.
#pragma once

#include <memory>

#include "net/broker.h"
#include "net/monitor.h"

namespace peregrine::net::control {

class ShardSource final : public MonitorSource {
 public:
  ShardSource(core::Server& server, Broker& broker, ServerFacts facts);

  ServerFacts facts() override;
  std::vector<core::ShardSnapshot> shards() override;
  core::ConnRows connections(const core::ConnzQuery& query) override;
  std::vector<core::RouteRow> routes(bool subs) override;
  std::vector<core::GatewayRow> gateways(const core::GatewayzQuery& query) override;
  core::SubRows subscriptions(const core::SubszQuery& query) override;
  Health health() override;

 private:
  static constexpr int kTimeoutMs = 5000;

  core::Server& server_;
  Broker& broker_;
  const ServerFacts facts_;
};

}  // namespace peregrine::net::control
