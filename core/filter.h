// What sits between a session and its connection and changes the bytes: compression of a route, TLS.
//
// Owned by its session, used on its shard by the reactor. Sans-I/O: received bytes become plain ones for
// Session::feed(), the session's outbox becomes wire bytes in an outbox of the filter's own, and only those are sent.
// A session installs it with Session::set_filter() in the middle of its traffic: what was in its outbox before leaves
// unchanged, what it appends afterwards passes the filter; what follows in the buffer that feed() is working on is the
// session's to decode. A filter may carry another one (compress, then encrypt): the session still sees one.
#pragma once

#include <cassert>
#include <memory>
#include <string>
#include <string_view>

#include "core/outbox.h"

namespace peregrine::core {

struct ConnRow;

class Filter {
 public:
  explicit Filter(BufferPool* pool) : wire(pool) {}
  virtual ~Filter() = default;

  // Appends what `bytes` mean to `plain`. False: they mean nothing; error() says why, the connection is closed. It may
  // put an answer of its own into `wire`.
  virtual bool decode(std::string_view bytes, std::string& plain) = 0;
  // The same piece by piece, for a filter that can show plain bytes where they were received. Takes from the front of
  // `bytes`; `piece` is good until the next call, and empty when all is taken.
  virtual bool decodes_in_place() const { return false; }
  virtual bool decode_piece(std::string_view& /*bytes*/, std::string_view& /*piece*/) { return false; }
  // The last piece lies in memory of the filter's own, which the caller may take: the view stays good as long as that.
  virtual bool piece_was_gathered() const { return false; }
  virtual std::string take_gathered() { return {}; }
  // Takes everything out of `plain` and appends what it becomes to `wire`, complete: the peer must be able to decode it
  // all without waiting for more.
  virtual void encode(Outbox& plain) = 0;
  virtual std::string_view error() const = 0;
  // The session says nothing more: what the filter's protocol says at the end is appended to `wire`, once, however
  // often this is called.
  virtual void finish() {}
  // What /connz says of it.
  virtual void describe(ConnRow&) const {}
  // From here on `upper` stands between the session and this filter. Only of filters that are made for it.
  virtual void carry(std::unique_ptr<Filter> upper) { assert(upper == nullptr); }

  Outbox wire;
};

}  // namespace peregrine::core
