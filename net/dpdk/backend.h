// The DPDK backend: one shard's TCP stack over its queues. See net/backend.h for the contract, net/tcp/stack.h for TCP
// and lane.h for frames; this is the turn that joins them, and what a shard does without work.
//
// Listens on addresses of its own, not on kernel sockets (listener.h). Idle: `spin` never parks; otherwise park()
// sleeps on the shard's doorbell, and on the receive interrupts of its queues if all have them. A shard that must poll
// a queue without an interrupt sleeps in steps: a fraction of the time it has been idle, at most kLongestNapNs, so that
// short pauses cost little latency and long ones next to no CPU. Frames that are refused (a flood) do not keep it
// awake: it lets more of them gather for kFloodNapNs, so that they cost little more than their reception.
//
// Shard 0 looks at the cables, every kHousekeepingNs.
#pragma once

#include <memory>
#include <vector>

#include "net/backend.h"
#include "net/dpdk/eal.h"
#include "net/dpdk/lane.h"
#include "net/dpdk/ports.h"
#include "net/dpdk/report.h"
#include "net/socket.h"
#include "net/tcp/stack.h"

namespace peregrine::net::dpdk {

class Backend final : public net::Backend {
 public:
  // On the shard's thread. `error`: why not, one line.
  Backend(std::shared_ptr<Ports> ports, uint32_t shard, std::string& error);
  // Lets what is on its way out leave, for kLastWordsNs at most.
  ~Backend() override;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  int listen(int fd, uint32_t listener) override;  // of open_address_listeners(); kernel sockets are refused
  void stop_listening(uint32_t listener) override;
  void dial(const Address& to, uint64_t tag, int64_t timeout_ns) override;
  void acquire(std::vector<Event>& out) override;
  void release(const Event& event) override { stack_->release(event); }
  SendResult send(ConnId conn, std::span<const iovec> iov) override { return stack_->send(conn, iov); }
  void flush() override;
  void pause(ConnId conn) override { stack_->pause(conn); }
  void resume(ConnId conn) override { stack_->resume(conn); }
  void close(ConnId conn, bool abort) override { stack_->close(conn, abort); }
  Address remote_address(ConnId conn) const override { return stack_->remote_address(conn); }
  Address local_address(ConnId conn) const override { return stack_->local_address(conn); }
  void park(int64_t deadline_ns) override;
  void wake() override { doorbell().ring(); }
  int64_t now_ns() const override;
  const BackendReport& report() const override { return report_; }

  static constexpr int64_t kHousekeepingNs = 100'000'000;
  static constexpr int64_t kShortestNapNs = 50'000;
  static constexpr int64_t kFloodNapNs = 50'000;
  static constexpr int64_t kLongNapNs = 2'000'000;
  static constexpr int64_t kLongestNapNs = 10'000'000;
  static constexpr int64_t kLastWordsNs = 1'000'000'000;

 private:
  struct Listener {
    uint32_t number;
    uint16_t port;
  };

  Doorbell& doorbell() { return ports_->exchange().doorbell(shard_); }
  void housekeeping(int64_t now_ns);
  static int64_t nap_after(int64_t idle_ns);
  void nap(int64_t wait_ns, bool interrupts);

  const std::shared_ptr<Ports> ports_;
  const uint32_t shard_;
  std::unique_ptr<LcoreId> lcore_;
  std::unique_ptr<Lane> lane_;
  std::unique_ptr<tcp::Stack> stack_;
  std::vector<Event> queued_;  // dials to what is no address
  std::vector<Listener> listeners_;
  std::vector<bool> link_up_;  // as the stack knows it
  Fd epoll_;                   // doorbell and receive interrupts
  Report losses_;
  int64_t housekeeping_at_ns_ = 0;
  int64_t idle_since_ns_ = 0;
  bool flooded_ = false;       // the last turn brought refused frames and no event
  bool turning_ = false;       // acquire() has been called
  bool more_to_send_ = false;  // the stack, or frames that wait for room
  BackendReport report_;
};

}  // namespace peregrine::net::dpdk
