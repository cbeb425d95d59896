// The epoll backend: level-triggered readiness, synchronous sends. Small and plain; the one that works everywhere.
//
// Owns the descriptors of one shard's connections and listeners, and the slabs bytes are received into; one thread uses
// it (wake() excepted). See net/backend.h for the contract.
//
// - Receiving: one recv per readable connection and acquire(), packed into a slab that all connections share, so an
//   idle connection owns no buffer and a thousand small messages lie side by side. A slab is reused as soon as its
//   events are released; what is held or lent longer pins its slab (384 KiB of address space). No more than eight are.
// - Readiness not used up when acquire() reaches its bound is kept and served first next time: nobody starves.
// - pause(), resume() and the end of kBlocked change the kernel's interest lazily, when an unwanted event shows up:
//   short pauses cost no system call. A paused connection is out of the epoll set (HUP cannot be masked), so its reset
//   is noticed on resume or send.
// - Sending: one sendmsg per send(); EPOLLOUT is asked for only after kBlocked. After kFailed what the peer had sent is
//   still read.
// - EMFILE, ENFILE, ENOBUFS and ENOMEM on accept: all listeners rest for kAcceptRetryNs; counted in accept_errors().
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <memory>
#include <vector>

#include "net/backend.h"
#include "net/deadline_queue.h"
#include "net/slot_table.h"
#include "net/socket.h"

namespace peregrine::net::epoll {

class Backend final : public net::Backend {
 public:
  // Fails only for want of descriptors or memory: `error` = -errno and the object is unusable.
  explicit Backend(int& error);
  ~Backend() override;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  int listen(int fd, uint32_t listener) override;
  void stop_listening(uint32_t listener) override;
  void dial(const Address& to, uint64_t tag, int64_t timeout_ns) override;
  void acquire(std::vector<Event>& out) override;
  void release(const Event& event) override;
  bool lend(uint32_t buffer) override;
  void take_back(uint32_t buffer) override;
  SendResult send(ConnId conn, std::span<const iovec> iov) override;
  void flush() override {}
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
  void gather(int64_t for_ns) override { sleep_for(for_ns); }
  AcceptErrors accept_errors() const override { return accept_errors_; }
  int64_t now_ns() const override;
  int64_t core_time_ns() const override;
  const BackendReport& report() const override { return report_; }

 private:
  enum class State : uint8_t {
    kFree,
    kDialing,
    kOpen,
    kLingering,  // our FIN is out; reading and dropping until the peer's
    kClosed,     // descriptor gone, kClosed waits in queued_
  };
  struct Conn {
    Fd fd;
    uint32_t generation = 0;
    uint32_t armed = 0;  // what epoll watches for; 0 = not in the set
    State state = State::kFree;
    bool paused = false;
    bool blocked = false;  // a send found the socket full
    int error = 0;         // -errno of a failed send; goes into kClosed
    uint64_t received_turn = 0;
    uint64_t tag = 0;  // of the dial
    SocketAddress remote;
  };
  struct Listener {
    Fd fd;
    uint32_t number;
    bool open;
  };
  struct Slab {
    std::unique_ptr<char[]> memory;
    uint32_t held = 0;  // events not yet released, and bytes lent on
    uint32_t used = 0;
  };

  void handle(const epoll_event& event, std::vector<Event>& out);
  void handle_conn(ConnId id, uint32_t ready, std::vector<Event>& out);
  void accept_some(uint32_t index, std::vector<Event>& out);
  void rest_listeners(int error);
  void finish_dial(ConnId id, std::vector<Event>& out);
  void fail_dial(ConnId id, int error);
  void receive(ConnId id, std::vector<Event>& out);
  void drain(ConnId id);
  void expire();
  void arm(ConnId id, uint32_t wanted);
  uint32_t wanted(const Conn& conn) const;
  void finish(ConnId id, int error);  // closes the descriptor and queues kClosed
  Slab& slab_with_room();

  Fd epoll_;
  Fd wake_fd_;
  // wake() writes the eventfd only when nobody has since the last acquire(). The eventfd is edge-triggered and never
  // read.
  std::atomic<bool> wake_pending_{false};
  bool have_pwait2_ = true;
  bool resting_ = false;  // listeners are out of the set until the retry deadline

  SlotTable<Conn> conns_;
  std::vector<Listener> listeners_;
  std::vector<epoll_event> batch_;  // readiness from the last epoll_wait; [batch_next_, batch_end_) is not yet served
  size_t batch_next_ = 0;
  size_t batch_end_ = 0;
  std::vector<Event> queued_;  // closes and failed dials for the next acquire()
  DeadlineQueue deadlines_;
  uint64_t turn_ = 0;
  size_t received_ = 0;  // bytes in this acquire()

  std::vector<Slab> slabs_;
  std::vector<uint32_t> spare_slabs_;
  uint32_t slab_ = 0;  // the one being filled

  AcceptErrors accept_errors_;
  BackendReport report_;
};

}  // namespace peregrine::net::epoll
