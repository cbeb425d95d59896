// The backend of one simulated shard: net/backend.h over sim::Network, with virtual time. One per shard; several of one
// host share a port, and the network's seed decides which of them a connection lands on.
//
// It is the contract with every freedom used: sends answer at once or later, short or whole; received bytes are cut
// anywhere; connections take turns in random order; a paused connection may still bring what was "already received".
// Memory of a send in flight is compared when it leaves, received memory is overwritten on release(): breaking the
// contract shows in Network::violations() or under AddressSanitizer.
//
// park() does not block; it notes the deadline for the Scheduler. Destroying the backend resets its connections, as a
// crash would.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "net/backend.h"
#include "net/deadline_queue.h"
#include "net/sim/network.h"
#include "net/slot_table.h"

namespace peregrine::net::sim {

class Backend final : public net::Backend, public Endpoint {
 public:
  Backend(Network& network, std::string host);
  ~Backend() override;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  int listen(int fd, uint32_t listener) override;  // fd from Network::listen()
  void stop_listening(uint32_t listener) override;
  void dial(const Address& to, uint64_t tag, int64_t timeout_ns) override;
  void acquire(std::vector<Event>& out) override;
  void release(const Event& event) override;
  bool lend(uint32_t buffer) override;
  void take_back(uint32_t buffer) override;
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
  void park(int64_t deadline_ns) override { parked_until_ns_ = deadline_ns; }
  void wake() override { woken_.store(true, std::memory_order_release); }
  int64_t now_ns() const override { return network_.now_ns(); }
  const BackendReport& report() const override { return report_; }

  // --- for the scheduler ---
  bool has_work() const;  // acquire() would bring something, or wake() was called
  int64_t parked_until_ns() const { return std::min(parked_until_ns_, deadlines_.next_ns()); }

  // --- for the network ---
  void incoming(std::shared_ptr<Stream> stream, uint32_t listener);
  void connected(uint32_t handle, int error) override;
  void arrived(uint32_t handle) override;
  void room(uint32_t handle) override;

 private:
  enum class State : uint8_t { kFree, kDialing, kOpen, kEnding, kLingering, kClosed };
  enum class SendStage : uint8_t { kNone, kWanted, kSubmitted, kWaiting };
  struct Conn {
    uint32_t generation = 0;
    State state = State::kFree;
    SendStage sending = SendStage::kNone;
    std::shared_ptr<Stream> stream;
    int side = 0;
    bool paused = false;
    bool last_chunk = false;  // pause() came when bytes were "already received": one more kData may come
    bool ready = false;       // is in ready_
    bool blocked = false;
    uint64_t data_turn = 0;
    uint64_t tag = 0;
    int broken = 0;  // -errno of a failed send
    std::vector<iovec> offered;
    std::string offered_bytes;
  };
  struct Carried;
  struct Incoming {
    std::shared_ptr<Stream> stream;
    uint32_t listener;
  };
  struct Listening {
    int fd;
    uint32_t number;
    bool open;
  };
  struct Received {
    std::unique_ptr<char[]>
        bytes;  // exactly as large as what it holds: reading past the end shows under AddressSanitizer
    uint32_t size = 0;
    uint32_t held = 0;  // until release(), and for each lend()
  };

  End& end(Conn& conn) { return conn.stream->end[conn.side]; }
  const End& end(const Conn& conn) const { return conn.stream->end[conn.side]; }
  void make_ready(ConnId id);
  bool serve(ConnId id, std::vector<Event>& out);  // true: has more
  void complete_send(ConnId id, uint32_t generation);
  void start_lingering(ConnId id);
  void finish(ConnId id, int error);  // lets the stream go and queues kClosed
  void expire();

  Network& network_;
  const std::string host_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);  // timers in the network outlive a crashed backend
  std::atomic<bool> woken_{false};
  int64_t parked_until_ns_ = INT64_MAX;

  SlotTable<Conn> conns_;
  std::vector<Listening> listening_;
  std::vector<Incoming> incoming_;
  std::vector<ConnId> ready_;
  std::vector<ConnId> submit_;
  std::vector<Event> queued_;     // for the next acquire(): closes and dial results
  std::vector<Event> completed_;  // kSent and kWritable, if their connection still lives
  DeadlineQueue deadlines_;
  std::vector<Received> received_;
  std::vector<uint32_t> spare_received_;
  uint64_t turn_ = 0;
  BackendReport report_{.name = "sim", .notes = {}};
};

}  // namespace peregrine::net::sim
