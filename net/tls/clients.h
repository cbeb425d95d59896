// TLS of client connections: when a client's handshake begins, and what it is told before and after.
//
// Immutable, shared by all shards; secure() is called on the shard of the session. The session itself knows nothing of
// it: it has said INFO already, which leaves in clear in front of the handshake, or waits for its end
// (handshake_first), or waits a moment for it to begin (handshake_first with a duration). With allow_non_tls who begins
// with something else than a handshake, or with nothing for as long as one may take, stays in clear. What the session
// says during the handshake is not sent. Source: nats-server's createClient (server/server.go).
#pragma once

#include <cstdint>
#include <memory>

#include "config/options.h"
#include "core/session.h"
#include "net/tls/context.h"

namespace peregrine::net::tls {

class Clients {
 public:
  // `options` have a tls block, which `context` is made of.
  Clients(std::shared_ptr<const Context> context, const config::Options& options);

  // Of a session that has just been opened, in the same turn.
  void secure(core::Session& session) const;

  const Context& context() const { return *context_; }
  bool first() const { return first_; }
  int64_t patience_ns() const { return patience_ns_; }  // with first(): 0 = as long as a handshake may take
  bool plain_too() const { return plain_too_; }

 private:
  const std::shared_ptr<const Context> context_;
  const bool first_;
  const int64_t patience_ns_;
  const bool plain_too_;
};

}  // namespace peregrine::net::tls
