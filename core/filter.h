// What sits between a session and its connection and changes the bytes: compression of a route, TLS.
//
// Owned by its session, used on its shard by the reactor. Sans-I/O: received bytes become plain ones for
// Session::feed(), the session's outbox becomes wire bytes in an outbox of the filter's own, and only those are sent.
// A session installs it with Session::set_filter() in the middle of its traffic: what was in its outbox before leaves
// unchanged, what it appends afterwards passes the filter; what follows in the buffer that feed() is working on is the
// session's to decode.
#pragma once

#include <string>
#include <string_view>

#include "core/outbox.h"

namespace peregrine::core {

class Filter {
 public:
  explicit Filter(BufferPool* pool) : wire(pool) {}
  virtual ~Filter() = default;

  // Appends what `bytes` mean to `plain`. False: they mean nothing; error() says why, the connection is closed.
  virtual bool decode(std::string_view bytes, std::string& plain) = 0;
  // Takes everything out of `plain` and appends what it becomes to `wire`, complete: the peer must be able to decode it
  // all without waiting for more.
  virtual void encode(Outbox& plain) = 0;
  virtual std::string_view error() const = 0;

  Outbox wire;
};

}  // namespace peregrine::core
