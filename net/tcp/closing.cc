// The end of a connection: FIN both ways, resets, the owner's kClosed, and what goes on after it.
#include <cassert>
#include <cerrno>

#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

void ReferenceSend::released() {
  if (machine_ != nullptr) machine_->reference_released(conn_, bytes_);
  delete this;
}

void Stack::Machine::reference_released(uint32_t conn, uint32_t bytes) {
  Connection& c = *connections_[conn];
  c.reference = nullptr;
  if (!c.attached || c.close_queued) return;
  events_.push_back({.kind = Event::Kind::kSent, .conn = conn, .size = bytes});
}

void Stack::Machine::drop_data(Connection& c) {
  if (c.out != nullptr) {
    stats_.bytes_queued_out -= c.out->queue.bytes();
    c.out.reset();
  }
  c.in.reset();
}

void Stack::Machine::close(ConnId id, bool abort) {
  Connection* c = attached(id);
  if (c == nullptr) return;
  if (abort && c->state != State::kClosed) {
    send_reset(*c);
    return reset(*c, 0);
  }
  if (c->close_requested || c->close_queued) return;
  if (c->state == State::kClosed) {  // reset, with bytes unread
    drop_data(*c);
    return queue_closed(*c, c->close_error);
  }
  c->close_requested = true;
  if (c->in != nullptr) {
    c->in->clear();
    update_offer(*c);
  }
  c->owner_at = now_ + kLinger;
  schedule(*c);
  queue_fin(*c);
}

void Stack::Machine::queue_fin(Connection& c) {
  if (c.fin_queued) return;
  c.fin_queued = true;
  if (c.state == State::kEstablished) {
    c.state = State::kFinWait1;
  } else if (c.state == State::kCloseWait) {
    c.state = State::kLastAck;
  }
  mark_dirty(c);
}

// The owner will be told in the next acquire() that may say so.
void Stack::Machine::queue_closed(Connection& c, int error) {
  if (c.close_queued) return;
  c.close_queued = true;
  c.close_error = error;
  if (c.reference != nullptr && c.out != nullptr) c.out->queue.copy_references(filler_, c.reference);
  pending_close_.push_back(c.id);
}

void Stack::Machine::emit_closed(std::vector<Event>& out) {
  size_t kept = 0;
  for (size_t i = 0; i < pending_close_.size(); ++i) {
    Connection& c = *connections_[pending_close_[i]];
    // Not with its last data (backend.h), and not while the NIC still reads the owner's memory.
    if (c.data_turn == turn_ || c.reference != nullptr) {
      pending_close_[kept++] = pending_close_[i];
      continue;
    }
    out.push_back({.kind = Event::Kind::kClosed, .conn = c.id, .error = c.close_error});
    c.attached = false;
    c.close_queued = false;
    if (c.state == State::kClosed) {
      destroy(c);
      continue;
    }
    if (!c.close_requested) {  // the peer finished: now we do
      c.close_requested = c.linger_over = true;
      c.owner_at = now_ + options_.orphan_ns;
      queue_fin(c);
    } else if (c.owner_at == 0) {
      c.owner_at = now_ + options_.orphan_ns;
    }
    schedule(c);
  }
  pending_close_.resize(kept);
}

void Stack::Machine::reset(Connection& c, int error) {
  const bool dialling = c.state == State::kSynSent || c.state == State::kSynReceived;
  finish(c, false);
  if (dialling) {
    dial_failed(c.tag, error);
    return destroy(c);
  }
  if (!c.attached) return destroy(c);
  // What a paused reader has not yet read was received all the same: it gets that first (drain_ready()).
  if (!c.close_queued && wants_data(c) && c.in != nullptr && c.in->has_ready()) {
    c.close_error = error;
    c.in->clear_gaps();
    std::unique_ptr<ReceiveQueue> unread = std::move(c.in);
    drop_data(c);
    c.in = std::move(unread);
    return;
  }
  if (c.close_queued) {
    if (c.close_error == 0) c.close_error = error;
  } else {
    c.close_queued = true;
    c.close_error = error;
    pending_close_.push_back(c.id);
  }
  drop_data(c);
}

// The TCB has served: what remains is kClosed, and a TIME-WAIT record if we finished first.
void Stack::Machine::finish(Connection& c, bool time_wait) {
  if (c.state == State::kClosed) return;
  flows_.remove(c.hash, RecordRef(RecordKind::kConnection, c.id));
  c.timer.cancel();
  c.rto_at = c.probe_at = c.ack_at = c.keepalive_at = c.owner_at = 0;
  c.state = State::kClosed;
  c.dirty = false;
  if (!time_wait) return;
  MacAddress mac;
  if (c.ack_now && neighbour_ready(c, mac)) send_ack(c, mac, c.snd_nxt);
  enter_time_wait(c);
  if (!c.attached) return destroy(c);
  queue_closed(c, 0);
}

void Stack::Machine::fin_acknowledged(Connection& c) {
  switch (c.state) {
    case State::kFinWait1:
      c.state = State::kFinWait2;
      if (c.attached) queue_closed(c, 0);
      if (!c.attached && c.owner_at == 0) c.owner_at = now_ + options_.orphan_ns;
      schedule(c);
      break;
    case State::kClosing:
      finish(c, true);
      break;
    case State::kLastAck:
      finish(c, false);
      if (!c.attached) return destroy(c);
      queue_closed(c, 0);
      break;
    default:
      break;
  }
}

void Stack::Machine::owner_timer(Connection& c) {
  if (c.state == State::kSynSent || c.state == State::kSynReceived) {
    ++stats_.timed_out;
    return reset(c, -ETIMEDOUT);
  }
  if (c.attached && c.close_requested) {
    c.linger_over = true;
    c.owner_at = now_ + options_.orphan_ns;
    return queue_closed(c, 0);
  }
  if (c.attached) return;
  if (!c.linger_over) {
    c.linger_over = true;
    c.owner_at = now_ + options_.orphan_ns;
    return;
  }
  if (c.state == State::kFinWait2) {
    finish(c, false);
    return destroy(c);
  }
  if (now_ - c.received_at < options_.orphan_ns) {  // it still takes what we owe it
    c.owner_at = c.received_at + options_.orphan_ns;
    return;
  }
  ++stats_.timed_out;
  send_reset(c);
  reset(c, -ETIMEDOUT);
}

}  // namespace peregrine::net::tcp
