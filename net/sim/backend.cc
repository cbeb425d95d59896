#include "net/sim/backend.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace peregrine::net::sim {
namespace {

std::string joined(std::span<const iovec> iov) {
  std::string bytes;
  for (const iovec& piece : iov) bytes.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
  return bytes;
}

}  // namespace

Backend::Backend(Network& network, std::string host) : network_(network), host_(std::move(host)) {}

Backend::~Backend() {
  for (const Listening& each : listening_) {
    if (each.open) network_.stop_listening(each.fd);
  }
  for (const Incoming& each : incoming_) network_.reset(*each.stream, 1);
  for (ConnId id = 0; id < conns_.size(); ++id) {
    if (conns_[id].stream != nullptr) network_.reset(*conns_[id].stream, conns_[id].side);
  }
}

bool Backend::has_work() const {
  return woken_.load(std::memory_order_acquire) || !queued_.empty() || !completed_.empty() || !ready_.empty() ||
         !incoming_.empty() || deadlines_.next_ns() <= network_.now_ns();
}

int Backend::listen(int fd, uint32_t listener) {
  const int error = network_.start_listening(fd, this, listener);
  if (error == 0) listening_.push_back({fd, listener, true});
  return error;
}

void Backend::stop_listening(uint32_t listener) {
  for (Listening& each : listening_) {
    if (each.number != listener || !each.open) continue;
    each.open = false;
    network_.stop_listening(each.fd);
  }
  std::erase_if(incoming_, [&](const Incoming& each) {
    if (each.listener != listener) return false;
    network_.reset(*each.stream, 1);
    return true;
  });
}

void Backend::incoming(std::shared_ptr<Stream> stream, uint32_t listener) {
  incoming_.push_back({std::move(stream), listener});
}

void Backend::dial(const Address& to, uint64_t tag, int64_t timeout_ns) {
  const ConnId id = conns_.take();
  Conn& conn = conns_[id];
  conn.state = State::kDialing;
  conn.tag = tag;
  conn.side = 0;
  conn.stream = network_.connect(host_, to, this, id);
  deadlines_.add(now_ns() + timeout_ns, id, conn.generation);
}

void Backend::connected(uint32_t handle, int error) {
  Conn& conn = conns_[handle];
  if (error == 0) {
    conn.state = State::kOpen;
    queued_.push_back({.kind = Event::Kind::kDialed, .conn = handle, .tag = conn.tag});
    return;
  }
  conn.state = State::kClosed;
  queued_.push_back({.kind = Event::Kind::kDialFailed, .conn = handle, .error = error, .tag = conn.tag});
}

void Backend::make_ready(ConnId id) {
  Conn& conn = conns_[id];
  if (conn.ready) return;
  conn.ready = true;
  ready_.push_back(id);
}

void Backend::arrived(uint32_t handle) {
  if (handle != kNoConn) make_ready(handle);  // kNoConn: not yet accepted; looked at then
}

void Backend::room(uint32_t handle) {
  if (handle == kNoConn) return;
  Conn& conn = conns_[handle];
  if (conn.blocked) {
    conn.blocked = false;
    completed_.push_back({.kind = Event::Kind::kWritable, .conn = handle, .tag = conn.generation});
  }
  if (conn.sending == SendStage::kWaiting) complete_send(handle, conn.generation);
}

void Backend::acquire(std::vector<Event>& out) {
  ++turn_;
  woken_.exchange(false, std::memory_order_acq_rel);
  parked_until_ns_ = INT64_MAX;
  conns_.recycle();
  expire();
  for (const Event& event : queued_) {
    out.push_back(event);
    if (event.kind == Event::Kind::kDialed) continue;
    conns_.retire(event.conn);
    if (event.kind == Event::Kind::kDialFailed) out.back().conn = kNoConn;
  }
  queued_.clear();
  for (Incoming& each : incoming_) {
    const ConnId id = conns_.take();
    Conn& conn = conns_[id];
    conn.state = State::kOpen;
    conn.side = 1;
    conn.stream = std::move(each.stream);
    end(conn).handle = id;
    out.push_back({.kind = Event::Kind::kAccepted, .conn = id, .listener = each.listener});
    make_ready(id);
  }
  incoming_.clear();
  // `tag` carries the generation here: the connection may have closed since, and nothing follows kClosed.
  for (Event event : completed_) {
    const Conn& conn = conns_[event.conn];
    if (conn.generation != event.tag ||
        (conn.state != State::kOpen && conn.state != State::kEnding && conn.state != State::kLingering))
      continue;
    event.tag = 0;
    out.push_back(event);
  }
  completed_.clear();

  std::vector<ConnId> ready;
  ready.swap(ready_);
  for (size_t n = ready.size(); n > 1; --n) std::swap(ready[n - 1], ready[network_.random().below(n)]);
  size_t bytes = 0;
  for (const ConnId id : ready) {
    conns_[id].ready = false;
    if (bytes >= kAcquireBytes || network_.chance(network_.options().late_event_percent)) {
      make_ready(id);
      continue;
    }
    const size_t before = out.size();
    if (serve(id, out)) make_ready(id);
    if (out.size() > before) bytes += out.back().size;
  }
}

bool Backend::serve(ConnId id, std::vector<Event>& out) {
  Conn& conn = conns_[id];
  if (conn.state == State::kLingering || conn.state == State::kEnding) {
    network_.read(*conn.stream, conn.side, end(conn).inbox.size());
    if (end(conn).error != 0 || (end(conn).ended && conn.state == State::kLingering)) finish(id, 0);
    return false;
  }
  if (conn.state != State::kOpen) return false;
  if (conn.paused && !conn.last_chunk) return false;
  conn.last_chunk = false;
  if (!end(conn).inbox.empty()) {
    size_t size = std::min<size_t>(end(conn).inbox.size(), 64 * 1024);
    if (network_.chance(50)) size = 1 + network_.random().below(size);
    if (spare_received_.empty()) {
      spare_received_.push_back(static_cast<uint32_t>(received_.size()));
      received_.emplace_back();
    }
    const uint32_t buffer = spare_received_.back();
    spare_received_.pop_back();
    const std::string bytes = network_.read(*conn.stream, conn.side, size);
    Received& received = received_[buffer];
    received.size = static_cast<uint32_t>(bytes.size());
    received.held = 1;
    received.bytes = std::make_unique<char[]>(bytes.size());
    memcpy(received.bytes.get(), bytes.data(), bytes.size());
    conn.data_turn = turn_;
    out.push_back({.kind = Event::Kind::kData,
                   .conn = id,
                   .data = received.bytes.get(),
                   .size = received.size,
                   .buffer = buffer});
    return !conn.paused;
  }
  if (!end(conn).ended && end(conn).error == 0) return false;
  if (conn.data_turn == turn_) return true;
  const int error = conn.broken != 0 ? conn.broken : end(conn).error;
  if (error == 0) network_.finish(*conn.stream, conn.side);
  finish(id, error);
  return false;
}

void Backend::release(const Event& event) {
  if (event.kind == Event::Kind::kData) take_back(event.buffer);
}

bool Backend::lend(uint32_t buffer) {
  if (buffer >= received_.size() || received_[buffer].bytes == nullptr) {
    network_.violation("lent after it was released");
    return false;
  }
  if (network_.chance(20)) return false;
  ++received_[buffer].held;
  return true;
}

void Backend::take_back(uint32_t buffer) {
  if (buffer >= received_.size() || received_[buffer].bytes == nullptr) return network_.violation("released twice");
  if (--received_[buffer].held > 0) return;
  memset(received_[buffer].bytes.get(), 0xdb, received_[buffer].size);
  received_[buffer].bytes.reset();
  spare_received_.push_back(buffer);
}

SendResult Backend::send(ConnId id, std::span<const iovec> iov) {
  Conn* conn = conns_.holds(id) ? &conns_[id] : nullptr;
  if (conn == nullptr || conn->state != State::kOpen) return {SendResult::Status::kFailed, 0, -EPIPE};
  if (conn->sending != SendStage::kNone || iov.empty()) {
    network_.violation("send while one is in flight, or of nothing");
    return {SendResult::Status::kFailed, 0, -EINVAL};
  }
  if (end(*conn).error != 0 && conn->broken == 0) {
    conn->broken = end(*conn).error;
    conn->paused = false;
    make_ready(id);
  }
  if (conn->broken != 0) return {SendResult::Status::kFailed, 0, conn->broken};
  std::string bytes = joined(iov);
  if (network_.chance(network_.options().pending_percent)) {
    conn->offered.assign(iov.begin(), iov.end());
    conn->offered_bytes = std::move(bytes);
    conn->sending = SendStage::kWanted;
    submit_.push_back(id);
    return {SendResult::Status::kPending, 0, 0};
  }
  size_t size = std::min<size_t>(bytes.size(), network_.room(*conn->stream, conn->side));
  if (size == 0) {
    conn->blocked = true;
    return {SendResult::Status::kBlocked, 0, 0};
  }
  if (network_.chance(network_.options().short_send_percent)) size = 1 + network_.random().below(size);
  network_.write(*conn->stream, conn->side, std::string_view(bytes).substr(0, size));
  return {SendResult::Status::kDone, size, 0};
}

void Backend::flush() {
  for (const ConnId id : submit_) {
    Conn& conn = conns_[id];
    if (conn.sending != SendStage::kWanted) continue;
    conn.sending = SendStage::kSubmitted;
    const auto done = [this, alive = std::weak_ptr(alive_), id, generation = conn.generation] {
      if (!alive.expired()) complete_send(id, generation);
    };
    if (network_.chance(50)) {
      done();
    } else {
      network_.at(now_ns() + network_.delay_ns(), done);
    }
  }
  submit_.clear();
}

void Backend::complete_send(ConnId id, uint32_t generation) {
  Conn& conn = conns_[id];
  if (conn.generation != generation || (conn.state != State::kOpen && conn.state != State::kEnding)) return;
  if (joined(conn.offered) != conn.offered_bytes) network_.violation("memory of a send in flight was touched");
  Event event{.kind = Event::Kind::kSent, .conn = id, .tag = generation};
  if (end(conn).error != 0) {
    event.error = conn.broken = end(conn).error;
    conn.paused = false;
    make_ready(id);
  } else {
    size_t size = std::min<size_t>(conn.offered_bytes.size(), network_.room(*conn.stream, conn.side));
    if (size == 0) {
      conn.sending = SendStage::kWaiting;
      return;
    }
    if (network_.chance(network_.options().short_send_percent)) size = 1 + network_.random().below(size);
    network_.write(*conn.stream, conn.side, std::string_view(conn.offered_bytes).substr(0, size));
    event.size = static_cast<uint32_t>(size);
  }
  conn.sending = SendStage::kNone;
  conn.offered.clear();
  conn.offered_bytes.clear();
  completed_.push_back(event);
  if (conn.state == State::kEnding) start_lingering(id);
}

void Backend::pause(ConnId id) {
  if (!conns_.holds(id) || conns_[id].state != State::kOpen || conns_[id].broken != 0 || conns_[id].paused) return;
  conns_[id].paused = true;
  conns_[id].last_chunk = conns_[id].ready && network_.chance(50);
}

void Backend::resume(ConnId id) {
  if (!conns_.holds(id) || conns_[id].state != State::kOpen) return;
  conns_[id].paused = false;
  make_ready(id);
}

// Dropped on the way, as when its broker crashes: reset.
struct Backend::Carried final : core::CarriedConnection {
  Carried(Network& network, std::shared_ptr<Stream> stream, int side)
      : network(network), stream(std::move(stream)), side(side) {}
  ~Carried() override {
    if (stream != nullptr) network.reset(*stream, side);
  }
  Network& network;
  std::shared_ptr<Stream> stream;
  const int side;
};

std::unique_ptr<core::CarriedConnection> Backend::give(ConnId id) {
  Conn& conn = conns_[id];
  if (conn.state != State::kOpen || conn.broken != 0 || !conn.paused || conn.last_chunk || conn.blocked ||
      conn.sending != SendStage::kNone || network_.chance(20)) {
    return nullptr;
  }
  end(conn).handle = kNoConn;  // what arrives now is looked at where it is taken
  auto carried = std::make_unique<Carried>(network_, std::move(conn.stream), conn.side);
  std::erase(ready_, id);
  conns_.retire(id);
  return carried;
}

ConnId Backend::take(std::unique_ptr<core::CarriedConnection> connection) {
  auto& carried = static_cast<Carried&>(*connection);
  const ConnId id = conns_.take();
  Conn& conn = conns_[id];
  conn.state = State::kOpen;
  conn.side = carried.side;
  conn.stream = std::move(carried.stream);
  end(conn).owner = this;
  end(conn).handle = id;
  make_ready(id);
  return id;
}

void Backend::close(ConnId id, bool abort) {
  if (!conns_.holds(id)) return;
  Conn& conn = conns_[id];
  if (conn.state != State::kOpen && conn.state != State::kEnding && conn.state != State::kLingering) return;
  if (abort || end(conn).error != 0) {
    network_.reset(*conn.stream, conn.side);
    return finish(id, 0);
  }
  if (conn.state != State::kOpen) return;
  deadlines_.add(now_ns() + kLingerNs, id, conn.generation);
  if (conn.sending == SendStage::kNone) return start_lingering(id);
  conn.state = State::kEnding;
  make_ready(id);
}

void Backend::start_lingering(ConnId id) {
  Conn& conn = conns_[id];
  conn.state = State::kLingering;
  network_.finish(*conn.stream, conn.side);
  make_ready(id);
}

void Backend::finish(ConnId id, int error) {
  Conn& conn = conns_[id];
  network_.leave(*conn.stream, conn.side);
  conn.state = State::kClosed;
  queued_.push_back({.kind = Event::Kind::kClosed, .conn = id, .error = error});
}

void Backend::expire() {
  Deadline due;
  while (deadlines_.pop_due(now_ns(), due)) {
    Conn& conn = conns_[due.slot];
    if (conn.generation != due.generation) continue;
    if (conn.state == State::kDialing) {
      network_.reset(*conn.stream, conn.side);
      connected(due.slot, -ETIMEDOUT);
    } else if (conn.state == State::kEnding || conn.state == State::kLingering) {
      finish(due.slot, 0);
    }
  }
}

Address Backend::remote_address(ConnId id) const {
  return conns_.holds(id) && conns_[id].stream ? conns_[id].stream->end[1 - conns_[id].side].address : Address();
}

Address Backend::local_address(ConnId id) const {
  return conns_.holds(id) && conns_[id].stream ? end(conns_[id]).address : Address();
}

}  // namespace peregrine::net::sim
