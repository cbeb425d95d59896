// The io_uring backend: one ring per shard, multishot accept and receive, one system call per busy turn.
//
// Owns the ring, the receive blocks and the descriptors of one shard's connections and listeners. Made and used on the
// shard's thread (the ring is SINGLE_ISSUER where the kernel has it), wake() excepted. See net/backend.h for the
// contract, probe.h for what is tried.
//
// - Nothing is submitted outside flush() and park(): calls note what a connection needs (`attention_`) and flush()
//   turns the notes into SQEs and enters the kernel once. That enter also runs the completions that are due, so the
//   next acquire() usually only reads memory.
// - acquire() hands completions up in CQ order and stops at its bound; while any are left over, the kernel is not asked
//   for more.
// - Receive: one multishot request per connection over the shared Buffers. It ends on ENOBUFS, on pause (cancel by
//   user_data) or when the kernel says so, and is armed again by the next flush; those that got nothing go first. Where
//   the kernel can, it also ends after kReceiveBytes: otherwise one heavy sender fills all blocks in one go (measured),
//   and its neighbours wait until they are parsed.
//   A multishot one goes on for as long as bytes arrive: under a flood of small writes it chases them, a receive for
//   each segment, and a turn finds much although nothing was gathered (which is what net/pacer.h asks). A connection
//   where that is seen gets receives that end with what is there, until the shard has time to park or a receive brings
//   much; so does every one after a gather(), and none while the next pause lasts.
// - Send: at most one in flight per connection; without MSG_WAITALL, so that progress shows as partial kSent and memory
//   comes free. A send that fits the socket buffer completes inside flush(): its kSent is in the next acquire(),
//   without a sleep.
// - A connection is gone when its last request has completed: close() and errors cancel them, the completion that
//   leaves none closes the descriptor and queues kClosed, so there is exactly one. user_data carries a generation, so a
//   late cancel hits nobody else.
// - End of stream is acted upon one acquire() later: the answers to the last bytes get flushed. A send still blocked
//   then is cut short.
// - Sockets are blocking ones: io_uring takes O_NONBLOCK for "do not wait" and would hand EAGAIN back instead of
//   polling.
// - wake() writes an eventfd that a multishot poll watches: it works from any thread, and MSG_RING would be no faster.
//
// Not used: direct descriptors (shutdown, setsockopt and getpeername need plain ones, and the gain is a reference
// count), bundles (incremental buffers do the same with one completion), SQPOLL (burns a core per shard).
#pragma once

#include <liburing.h>

#include <atomic>
#include <memory>
#include <vector>

#include "net/backend.h"
#include "net/deadline_queue.h"
#include "net/slot_table.h"
#include "net/socket.h"
#include "net/uring/buffers.h"
#include "net/uring/probe.h"

namespace peregrine::net::uring {

class Backend final : public net::Backend {
 public:
  // `features` as probed with the same options. `error`: 0 or -errno, then the object is unusable.
  Backend(const Options& options, const Features& features, int& error);
  ~Backend() override;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  int listen(int fd, uint32_t listener) override;
  void stop_listening(uint32_t listener) override;
  void dial(const Address& to, uint64_t tag, int64_t timeout_ns) override;
  void acquire(std::vector<Event>& out) override;
  void release(const Event& event) override;
  bool lend(uint32_t buffer) override { return buffers_.lend(static_cast<uint16_t>(buffer)); }
  void take_back(uint32_t buffer) override { buffers_.take_back(static_cast<uint16_t>(buffer)); }
  SendResult send(ConnId conn, std::span<const iovec> iov) override;
  void flush() override;
  void pause(ConnId conn) override;
  void resume(ConnId conn) override;
  void close(ConnId conn, bool abort) override;
  bool can_give() const override { return true; }
  std::unique_ptr<core::CarriedConnection> give(ConnId conn) override;
  ConnId take(std::unique_ptr<core::CarriedConnection> connection) override;
  Address remote_address(ConnId conn) const override;
  Address local_address(ConnId conn) const override;
  void park(int64_t deadline_ns) override;
  void wake() override;
  void gather(int64_t for_ns) override;
  void rest() override;
  AcceptErrors accept_errors() const override { return accept_errors_; }
  int64_t now_ns() const override;
  int64_t core_time_ns() const override;
  const BackendReport& report() const override { return report_; }

  // Sends the kernel reported as copied although zero-copy was asked for; such connections go back to copying sends.
  uint64_t zero_copy_sends() const { return zero_copy_sends_; }
  uint64_t zero_copy_copied() const { return zero_copy_copied_; }

 private:
  enum class State : uint8_t {
    kFree,
    kDialing,
    kOpen,
    kEnding,     // close() came while a send is in flight: our FIN follows it
    kLingering,  // our FIN is out; reading and dropping until the peer's
    kDying,      // waiting for the last request to complete
    kClosed,     // descriptor gone, the last event waits in queued_
  };
  enum class Op : uint8_t { kCancel, kWake, kAccept, kConnect, kReceive, kSend };
  enum class SendStage : uint8_t { kNone, kWanted, kSubmitted };

  // How receives are armed.
  enum class Receiving : uint8_t {
    kOn,    // multishot: the usual
    kOnce,  // after a pause
    kHeld,  // not at all until gather(); an acquire() or a park() without one goes back to kOn
  };

  // A gathered send until the kernel has read its request.
  struct Gather {
    msghdr message;
    std::vector<iovec> pieces;
  };
  static constexpr uint32_t kNoGather = UINT32_MAX;

  struct Conn {
    Fd fd;
    uint32_t generation = 0;
    State state = State::kFree;
    SendStage sending = SendStage::kNone;
    bool attention = false;  // is in attention_
    bool paused = false;
    bool receiving = false;     // a receive is with the kernel
    bool received = false;      // ... and has brought something
    bool receive_ends = false;  // ... and its cancel is on its way
    bool connecting = false;    // a connect is with the kernel
    bool connect_wanted = false;
    bool cancelled = false;  // kDying: cancels are on their way
    bool ended = false;      // end of stream or a broken socket has been seen
    bool dialed = false;     // the last event is kDialFailed rather than kClosed
    bool zero_copy = false;  // still worth trying
    bool send_is_zero_copy = false;
    int error = 0;        // for kClosed or kDialFailed
    int send_result = 0;  // of a zero-copy send whose memory is still in use
    uint32_t chased = 0;  // the number of parks when a multishot receive was last seen chasing; 0: not since
    uint32_t gather = kNoGather;
    iovec piece{};  // a send of one piece
    uint64_t tag = 0;
    SocketAddress remote;
  };
  struct Listener {
    Fd fd;
    uint32_t number;
    bool open;
    bool accepting;  // a multishot accept is with the kernel
  };

  uint64_t user_data(Op op, ConnId id) const;
  io_uring_sqe* take_sqe();
  void submit(bool run_completions);
  void need_attention(ConnId id);
  bool serve(ConnId id);  // false: no SQE or no buffers left, again at the next flush
  bool arm_receive(ConnId id);
  bool submit_send(ConnId id);
  bool cancel(Op op, ConnId id);
  bool arm_listeners();
  bool arm_wake();
  void serve_all();
  void end_hold();

  void complete(const io_uring_cqe& cqe, std::vector<Event>& out);
  void on_accept(uint32_t index, const io_uring_cqe& cqe, std::vector<Event>& out);
  void on_connect(ConnId id, int result, std::vector<Event>& out);
  void on_receive(ConnId id, const io_uring_cqe& cqe, std::vector<Event>& out);
  void on_send(ConnId id, const io_uring_cqe& cqe, std::vector<Event>& out);
  void sent(ConnId id, int result, std::vector<Event>& out);
  void end_of_stream(ConnId id, int error);
  void start_lingering(ConnId id);
  void die(ConnId id, int error);
  void finish_if_quiet(ConnId id);
  void expire();
  void take_due();

  const Options options_;
  const Features features_;
  io_uring ring_{};
  bool ring_made_ = false;
  Buffers buffers_;
  Fd wake_fd_;
  std::atomic<bool> wake_pending_{false};  // the eventfd has been written since the last acquire()
  bool wake_armed_ = false;
  bool resting_ = false;  // not accepting until the retry deadline
  Receiving receiving_ = Receiving::kOn;

  SlotTable<Conn> conns_;
  std::vector<Listener> listeners_;
  std::vector<ConnId> attention_;
  std::vector<ConnId> attention_now_, attention_late_;  // of serve_all()
  std::vector<Gather> gathers_;
  std::vector<uint32_t> spare_gathers_;
  std::vector<uint32_t> used_gathers_;  // given to the kernel; spare once the submission queue has been read
  std::vector<Event> queued_;
  struct Ended {
    ConnId id;
    uint32_t generation;
    int error;
  };
  std::vector<Ended> ended_;
  std::vector<Ended> ended_now_;
  DeadlineQueue deadlines_;
  size_t received_ = 0;  // bytes in this acquire()
  uint32_t pieces_ = 0;  // receives that make up the last event
  uint32_t parks_ = 1;

  uint64_t zero_copy_sends_ = 0;
  uint64_t zero_copy_copied_ = 0;
  AcceptErrors accept_errors_;
  BackendReport report_;
};

}  // namespace peregrine::net::uring
