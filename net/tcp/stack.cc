#include "net/tcp/stack.h"

#include "net/tcp/machine.h"

namespace peregrine::net::tcp {

Stack::Stack(const Options& options, Port& port, int64_t now_ns)
    : machine_(std::make_unique<Machine>(options, port, now_ns)) {}
Stack::~Stack() = default;

int Stack::add_interface(const Interface& interface, bool announce) {
  return machine_->add_interface(interface, announce);
}

void Stack::set_link(uint32_t interface, bool up, int64_t now_ns) {
  machine_->now_ = now_ns;
  machine_->set_link(interface, up);
}

int Stack::listen(const std::optional<IpAddress>& address, uint16_t port, uint32_t listener) {
  if (address && !address->is_unspecified() && !machine_->is_local(*address)) return -EADDRNOTAVAIL;
  for (const auto& other : machine_->listeners_) {
    if (other.port == port && other.address == address) return -EADDRINUSE;
  }
  machine_->listeners_.push_back({address, port, listener});
  return 0;
}

void Stack::stop_listening(uint32_t listener) {
  std::erase_if(machine_->listeners_, [listener](const auto& l) { return l.number == listener; });
  for (HalfOpen& h : machine_->half_open_) {
    if (h.used && h.listener == listener) machine_->free_half_open(h);
  }
}

void Stack::dial(const IpAddress& to, uint16_t port, uint64_t tag, int64_t timeout_ns, int64_t now_ns) {
  machine_->now_ = now_ns;
  machine_->dial(to, port, tag, timeout_ns);
}

void Stack::input(const Frame& frame, int64_t now_ns) { machine_->input(frame, now_ns); }

void Stack::advance(int64_t now_ns) {
  machine_->now_ = now_ns;
  machine_->advance();
}

void Stack::acquire(std::vector<Event>& out, size_t max_bytes) { machine_->acquire(out, max_bytes); }
void Stack::release(const Event& event) { machine_->release(event); }
SendResult Stack::send(ConnId conn, std::span<const iovec> iov) { return machine_->send(conn, iov); }
void Stack::pause(ConnId conn) { machine_->pause(conn); }
void Stack::resume(ConnId conn) { machine_->resume(conn); }
void Stack::close(ConnId conn, bool abort) { machine_->close(conn, abort); }

bool Stack::flush(int64_t now_ns) {
  machine_->now_ = now_ns;
  return machine_->flush();
}

int64_t Stack::next_ns() const { return machine_->next_ns(); }

Address Stack::remote_address(ConnId conn) const {
  const Connection* c = machine_->attached(conn);
  return c == nullptr ? Address{} : Address{c->flow.remote.text(), c->flow.remote_port};
}

Address Stack::local_address(ConnId conn) const {
  const Connection* c = machine_->attached(conn);
  return c == nullptr ? Address{} : Address{c->flow.local.text(), c->flow.local_port};
}

bool Stack::quiet() const { return machine_->quiet(); }
const Stats& Stack::stats() const { return machine_->stats_; }
uint64_t Stack::refused() const { return machine_->refused_; }

Stack::ConnectionState Stack::connection_state(ConnId conn) const {
  const Connection* c = machine_->attached(conn);
  if (c == nullptr) return {.state = "CLOSED"};
  return {
      state_name(c->state),      c->mss, c->congestion.window(), c->snd_wnd, c->snd_nxt - c->snd_una, c->rtt.smoothed(),
      c->rtt.timeout(c->backoff)};
}

}  // namespace peregrine::net::tcp
