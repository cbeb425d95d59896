// The seam between a shard's reactor and the way its bytes arrive and leave (io_uring, epoll, DPDK, simulation).
//
// Owns: the connections of ONE shard and the memory bytes are received into. One Backend belongs to one shard thread;
// every member is called on that thread only, except wake(), which any thread may call at any time.
//
// The turn (reactor.h) calls, in this order:
//   acquire()            collects what has happened; parses nothing (section 4, rule 1: acquire, drain, then think)
//   ... the shard drains its rings and parses the events in the order given ...
//   release(event)       hands a received buffer back, once for every Event::kData
//   send(), pause(), resume(), close(), dial()   the flush
//   park()               only when a turn found nothing to do
//
// Invariants:
//   - Events of one connection come in order: kAccepted or kDialed first, then kData/kSent/kWritable, then exactly one
//     kClosed (also after our own close()). After kClosed the ConnId may be reused by a later connection.
//   - A ConnId means one connection for the whole turn: kClosed frees it, but it is not given out again before the next
//     acquire().
//   - The bytes of a kData event stay valid until release() of that event. kData is never empty; end of stream is
//     kClosed.
//   - kClosed never comes in the same acquire() as the connection's last kData: a peer that sends PING and finishes
//     still gets its PONG, if the caller sends it in that turn.
//   - At most one send is in flight per connection. The iovecs' memory must stay untouched until the bytes are
//     accounted for: by the return value (done) or by the kSent event (pending).
//   - lend() makes that longer: the whole buffer the event came in stays until take_back(), also after the connection
//     has gone. It may be refused at any time;
//     what is lent is bounded.
//   - pause() bounds what is still delivered: at most what was already received; then no kData until resume(). Pausing
//     is how back-pressure reaches the sender: bytes stay in its kernel.
// Units: bytes; times are nanoseconds of the monotonic clock. Errors: negative errno in Event::error /
// SendResult::error.
//
// An abstract class rather than a template: the calls are per connection and turn, never per message, and one binary
// picks the backend at start.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/buffer.h"
#include "core/placement.h"

namespace peregrine::net {

using ConnId = uint32_t;  // slot in the shard's connection table
inline constexpr ConnId kNoConn = UINT32_MAX;

// Numeric address of a remote or local end, as shown in logs and /connz. Unix sockets are not supported yet.
struct Address {
  std::string host;  // "127.0.0.1", "::1" (no brackets)
  uint16_t port = 0;
};

struct Event {
  enum class Kind : uint8_t {
    kAccepted,    // a new inbound connection on `listener`
    kDialed,      // dial(tag) succeeded; `tag` is the caller's
    kDialFailed,  // dial(tag) failed: `error`; no kClosed follows, conn is kNoConn
    kData,        // bytes at [data, data + size)
    kSent,        // `size` bytes of the send in flight have been taken, or `error` < 0 (kClosed follows)
    kWritable,    // after a send that returned kBlocked: try again
    kClosed,      // the connection is gone: error 0 = the peer finished, < 0 = -errno, or our close() completed
  };
  Kind kind;
  ConnId conn = kNoConn;
  uint32_t listener = 0;  // kAccepted: the number given to listen()
  int error = 0;
  const char* data = nullptr;
  uint32_t size = 0;
  uint32_t buffer = 0;  // backend's own token for release()
  uint64_t tag = 0;     // kDialed, kDialFailed
};

struct SendResult {
  enum class Status : uint8_t {
    kDone,     // `bytes` (> 0, maybe fewer than offered) were taken; offer the rest again at once or in a later turn
    kPending,  // in flight; one kSent event follows (or kClosed, if the connection goes first), whose size may be less
               // than what was offered: offer the rest again
    kBlocked,  // nothing was taken; a kWritable event follows
    kFailed,   // the connection is broken: `error`; a kClosed event follows
  };
  Status status;
  size_t bytes = 0;
  int error = 0;
};

// One line for the log: which backend, and why not a better one.
struct BackendReport {
  std::string name;                // "uring", "epoll", "dpdk", "sim"
  std::vector<std::string> notes;  // features missing and what is used in their place
};

// Accepts that failed for want of descriptors or memory. The backend rests a moment and tries again; connections that
// exist go on.
struct AcceptErrors {
  uint64_t count = 0;
  int last_error = 0;  // errno, positive
};

class Backend : public core::Lender {
 public:
  virtual ~Backend() = default;

  // Starts accepting on an already bound and listening socket (see listener.h). `listener` comes back in kAccepted.
  // Returns 0 or -errno. stop_listening() closes the socket: no kAccepted for it after the call returns.
  virtual int listen(int fd, uint32_t listener) = 0;
  virtual void stop_listening(uint32_t listener) = 0;

  // Opens an outbound connection to a numeric address; exactly one kDialed or kDialFailed with `tag` follows (after at
  // most timeout_ns).
  virtual void dial(const Address& to, uint64_t tag, int64_t timeout_ns) = 0;

  // Appends what has happened since the last call to `out`, never blocking. Bounded: it stops after about kAcquireBytes
  // of received data, so that a turn works on what fits the L2 cache; what is left comes with the next call.
  virtual void acquire(std::vector<Event>& out) = 0;
  static constexpr size_t kAcquireBytes = 256 * 1024;

  virtual void release(const Event& event) = 0;

  // `buffer`: Event::buffer of a kData event that has not been released yet.
  bool lend(uint32_t) override { return false; }
  void take_back(uint32_t) override {}

  virtual SendResult send(ConnId conn, std::span<const iovec> iov) = 0;

  // Pushes queued sends to the kernel or the NIC (one system call for all of them); called once at the end of each
  // turn.
  virtual void flush() = 0;

  virtual void pause(ConnId conn) = 0;
  virtual void resume(ConnId conn) = 0;

  // Closes; `abort` resets instead of a graceful FIN after what has been sent. A send in flight may still complete
  // before the kClosed event. Graceful means: our FIN goes out, and what the peer still sends is read and thrown away
  // until it finishes too (at most a second), since closing on unread bytes would reset the connection and could
  // destroy the last -ERR on its way. Calling it twice is allowed.
  virtual void close(ConnId conn, bool abort) = 0;

  // Connections that change shards (core/placement.h), between backends of one kind. give() lets a connection go that
  // is paused, with no send in flight: no event of it comes any more, its ConnId is free as after kClosed, and what has
  // not been delivered as kData is for whom take() is called on. Null: something is still under way, ask again in a
  // later turn (or it is broken, and kClosed will come). take() gives it a ConnId here; it is open, and not paused.
  virtual bool can_give() const { return false; }
  virtual std::unique_ptr<core::CarriedConnection> give(ConnId) { return nullptr; }
  virtual ConnId take(std::unique_ptr<core::CarriedConnection>) { return kNoConn; }

  virtual Address remote_address(ConnId conn) const = 0;
  virtual Address local_address(ConnId conn) const = 0;

  // Waits until there is something to acquire, wake() was called, or deadline_ns (monotonic) has passed; INT64_MAX = no
  // limit. A wake() between the caller's last check and park() is not lost.
  virtual void park(int64_t deadline_ns) = 0;
  virtual void wake() = 0;

  // Lets input gather for that long, deaf to it and to wake(). Where a turn that finds little costs little (DPDK), it
  // does nothing.
  virtual void gather(int64_t /*for_ns*/) {}

  // Much has been done and little is now (lull.h): gives the system back what received bytes only passed through.
  // Called after a turn that found nothing.
  virtual void rest() {}

  virtual AcceptErrors accept_errors() const { return {}; }
  virtual int64_t now_ns() const = 0;  // monotonic; virtual time in the simulation
  // How long this thread has been on its core; a simulation is never put off it.
  virtual int64_t core_time_ns() const { return now_ns(); }
  virtual const BackendReport& report() const = 0;
};

}  // namespace peregrine::net
