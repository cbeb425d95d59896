#include "net/reactor.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/huge_chunk.h"
#include "net/socket.h"
#include "net/tls/clients.h"

namespace peregrine::net {

Reactor::Reactor(core::Shard& shard, std::unique_ptr<Backend> backend, config::Idle idle, int64_t spin_ns,
                 std::function<int64_t()> wall_clock)
    : shard_(shard), backend_(std::move(backend)), idle_(idle), spin_ns_(spin_ns), wall_clock_(std::move(wall_clock)) {
  shard_.set_waker([backend = backend_.get()] { backend->wake(); });
  shard_.pool().set_lender(backend_.get());
  shard_.set_carrier(this);
}

bool Reactor::turn() {
  shard_.begin_turn(backend_->now_ns(), wall_clock_());
  events_.clear();
  input_ = {};
  last_fed_ = nullptr;
  backend_->acquire(events_);
  bool busy = shard_.drain_rings();
  for (const Event& event : events_) on_event(event);
  busy |= !events_.empty();
  busy |= shard_.end_turn();
  flush();
  backend_->flush();
  report_accept_errors();
  if (busy) {
    shard_.worked(input_.messages);
    lull_.worked(input_.bytes);
  }
  return busy;
}

// Out of descriptors, say: told when it begins and then once per kAcceptReportNs, with how often it happened.
void Reactor::report_accept_errors() {
  const AcceptErrors errors = backend_->accept_errors();
  if (errors.count == accept_errors_told_ || shard_.now_ns() < accept_report_ns_) return;
  shard_.server().log.error("Error accepting connections: {} ({} times so far)", errno_text(errors.last_error),
                            errors.count);
  accept_errors_told_ = errors.count;
  accept_report_ns_ = shard_.now_ns() + kAcceptReportNs;
}

void Reactor::on_event(const Event& event) {
  core::Session* session = event.conn < by_conn_.size() ? by_conn_[event.conn] : nullptr;
  switch (event.kind) {
    case Event::Kind::kAccepted:
      enter(event, [&](Opened opened) { return openers_[event.listener](shard_, std::move(opened)); });
      return;
    case Event::Kind::kData:
      if (session != nullptr) take(*session, event);
      backend_->release(event);
      return;
    case Event::Kind::kSent:
      if (session == nullptr) return;
      session->sending = false;
      if (event.error < 0) return;  // kClosed follows
      session->output_moved();
      session->wire().consume(event.size);
      shard_.mark_dirty(*session);
      return;
    case Event::Kind::kWritable:
      if (session == nullptr) return;
      session->sending = false;
      shard_.mark_dirty(*session);
      return;
    case Event::Kind::kClosed:
      if (session == nullptr) return;
      by_conn_[event.conn] = nullptr;
      shard_.closed(*session, event.error == 0 ? core::CloseReason::kClientClosed : core::CloseReason::kReadError);
      return;
    case Event::Kind::kDialed:
    case Event::Kind::kDialFailed: {
      const auto at = dialing_.find(event.tag);
      const OnDialed then = std::move(at->second);
      dialing_.erase(at);
      if (event.kind == Event::Kind::kDialed) {
        enter(event, [&](Opened opened) { return then(shard_, std::move(opened), 0); });
      } else {
        then(shard_, {kNoConn, {}, 0}, -event.error);
      }
      return;
    }
  }
}

void Reactor::take(core::Session& session, const Event& event) {
  const uint64_t before = session.traffic.in_msgs;
  feed(session, event);
  input_.messages += session.traffic.in_msgs - before;
  input_.bytes += event.size;
  if (last_fed_ != &session) ++input_.connections;
  last_fed_ = &session;
}

void Reactor::feed(core::Session& session, const Event& event) {
  const std::string_view bytes(event.data, event.size);
  if (session.filter() == nullptr) [[likely]] {
    shard_.pool().begin_reading(bytes, event.buffer);
    session.feed(bytes);
    shard_.pool().end_reading();
    return;
  }
  core::Filter& filter = *session.filter();
  bool good = true;
  if (filter.decodes_in_place()) {
    good = feed_in_place(session, filter, event);
  } else {
    plain_.clear();
    good = filter.decode(bytes, plain_);
    if (!filter.wire.empty()) shard_.mark_dirty(session);
    if (!plain_.empty()) session.feed(plain_);
  }
  if (!good && !session.closing()) {
    shard_.server().log.error("{} - {}", session.label(), session.filter()->error());
    session.close(core::CloseReason::kReadError);
  }
}

// Large payloads are sent on from where they were received, or gathered.
bool Reactor::feed_in_place(core::Session& session, core::Filter& filter, const Event& event) {
  core::BufferPool& pool = shard_.pool();
  std::string_view rest(event.data, event.size), piece;
  pool.begin_reading(rest, event.buffer);
  bool good = true;
  while ((good = filter.decode_piece(rest, piece)) && !piece.empty() && !session.closing()) {
    if (filter.piece_was_gathered() && piece.size() >= core::BufferPool::kReferFrom && piece.size() <= kMostReferred) {
      const core::BufferPool::Reading before = pool.begin_gathered(filter.take_gathered());
      session.feed(piece);
      pool.end_gathered(before);
    } else {
      session.feed(piece);
    }
  }
  pool.end_reading();
  return good;
}

void Reactor::enter(const Event& event, const std::function<core::Session*(Opened)>& open) {
  Address remote = backend_->remote_address(event.conn);
  make_room(event.conn);
  by_conn_[event.conn] = open({event.conn, std::move(remote.host), remote.port});
  if (by_conn_[event.conn] == nullptr) backend_->close(event.conn, true);
}

void Reactor::make_room(ConnId conn) {
  if (conn >= by_conn_.size()) by_conn_.resize(std::max<size_t>(conn + 1, by_conn_.size() * 2));
}

std::unique_ptr<core::CarriedConnection> Reactor::give(core::Session& session) {
  std::unique_ptr<core::CarriedConnection> connection = backend_->give(session.conn);
  if (connection != nullptr) by_conn_[session.conn] = nullptr;
  return connection;
}

uint32_t Reactor::take(std::unique_ptr<core::CarriedConnection> connection) {
  return backend_->take(std::move(connection));
}

void Reactor::bind(core::Session& session) {
  make_room(session.conn);
  by_conn_[session.conn] = &session;
}

int Reactor::listen(int fd, uint32_t listener, OpenSession open) {
  if (listener >= openers_.size()) openers_.resize(listener + 1);
  openers_[listener] = std::move(open);
  return backend_->listen(fd, listener);
}

int Reactor::listen_for_clients(int fd, const tls::Clients* tls) {
  return listen(fd, kClientListener, [tls](core::Shard& shard, Opened opened) {
    core::Session* session = shard.open_client(opened.conn, std::move(opened.ip), opened.port);
    if (tls != nullptr) tls->secure(*session);
    return session;
  });
}

void Reactor::dial(const Address& to, int64_t timeout_ns, OnDialed then) {
  const uint64_t tag = next_dial_++;
  dialing_.emplace(tag, std::move(then));
  backend_->dial(to, tag, timeout_ns);
}

void Reactor::flush() {
  // Rule 2: while an interest record is stuck, no byte leaves this shard. The sessions stay dirty.
  if (shard_.output_stuck()) return;
  flushing_.clear();
  flushing_.swap(shard_.dirty());
  for (core::Session* session : flushing_) {
    session->dirty = false;
    if (!session->gone()) flush_session(*session);
  }
}

void Reactor::flush_session(core::Session& session) {
  const bool read = !session.held() && !session.closing();
  if (read != session.reading && !session.close_told) {
    session.reading = read;
    if (read) {
      backend_->resume(session.conn);
    } else {
      backend_->pause(session.conn);
    }
  }
  if (session.held_by(core::kHoldRing) && !session.abort()) return;  // marked dirty again when it is released
  // What waits on the wire is bounded, so that slowness shows where the slow-consumer rule looks: in the outbox.
  const auto encode = [&] {
    core::Filter* filter = session.filter();
    if (filter == nullptr) return;
    if (!session.outbox.empty() && filter->wire.pending() < kSendBytes) filter->encode(session.outbox);
    if (session.closing() && !session.abort() && session.outbox.empty()) filter->finish();
  };
  encode();
  core::Outbox& wire = session.wire();
  std::array<iovec, kSendEntries> iov;
  while (!session.sending && !wire.empty() && !session.close_told) {
    const size_t n = wire.gather(iov.data(), iov.size(), kSendBytes);
    const SendResult result = backend_->send(session.conn, {iov.data(), n});
    switch (result.status) {
      case SendResult::Status::kDone:
        session.output_moved();
        wire.consume(result.bytes);
        if (wire.empty()) encode();
        break;
      case SendResult::Status::kPending:
      case SendResult::Status::kBlocked:
        session.sending = true;
        session.output_waits();
        break;
      case SendResult::Status::kFailed:
        session.sending = true;
        session.close(core::CloseReason::kWriteError);
        break;
    }
  }
  if (session.closing() && !session.close_told &&
      (session.abort() || (session.nothing_to_send() && !session.sending))) {
    session.close_told = true;
    backend_->close(session.conn, session.abort());
  }
}

void Reactor::run() {
  SpinJudge* judge = nullptr;  // of the spin we are in; null: of none
  int64_t since = 0;
  uint64_t crossings = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    if (turn()) {
      if (judge != nullptr) judge->came(shard_.now_ns() - since, input_.bytes, shard_.interest_changes());
      judge = nullptr;
      if (const int64_t pause = pacer_.pause_after(shard_.now_ns(), input_); pause > 0) {
        shard_.worked(0, backend_->now_ns());
        backend_->gather(pause);
      }
      continue;
    }
    pacer_.idle(shard_.now_ns());
    if (lull_.has_come(shard_.now_ns())) {
      backend_->rest();
      core::drop_spare_chunks();
    }
    if (idle_ == config::Idle::kSpin) continue;
    if (idle_ == config::Idle::kAdaptive && spin_ns_ > 0) {
      const int64_t now = shard_.now_ns();
      if (judge == nullptr) {
        const bool crossed = std::exchange(crossings, shard_.crossings()) != shard_.crossings();
        SpinJudge& asked = crossed ? crossing_spin_ : spin_;
        if (asked.try_it(now)) judge = &asked;
        since = now;
      }
      if (judge != nullptr && now - since < spin_ns_) {
        sched_yield();
        continue;
      }
      if (judge != nullptr) judge->in_vain();
      judge = nullptr;
    }
    if (!shard_.try_sleep()) continue;
    // Asked again: the wake-up that came with stop() may have been swallowed by the turn just taken. A later one ends
    // the park.
    if (!stop_.load(std::memory_order_relaxed)) backend_->park(std::min(shard_.next_deadline_ns(), lull_.due_ns()));
    shard_.awake();
  }
}

}  // namespace peregrine::net
