// TIME-WAIT in 64 bytes: RFC 9293 section 3.10.7.4, reuse by a newer SYN (RFC 6191), resets ignored (RFC 1337).
#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

void Stack::Machine::append_time_wait(TimeWait& w) {
  const auto index = static_cast<uint32_t>(&w - time_wait_.data());
  w.expires_ms = clock_ms() + static_cast<uint32_t>(options_.time_wait_ns / kMillisecond);
  w.previous = newest_time_wait_;
  w.next = UINT32_MAX;
  (newest_time_wait_ == UINT32_MAX ? oldest_time_wait_ : time_wait_[newest_time_wait_].next) = index;
  newest_time_wait_ = index;
  if (!time_wait_timer_.armed()) {
    wheel_.arm(time_wait_timer_, now_ + options_.time_wait_ns, this,
               [](void* context) { static_cast<Machine*>(context)->expire_time_wait(); });
  }
}

void Stack::Machine::unlink_time_wait(TimeWait& w) {
  (w.previous == UINT32_MAX ? oldest_time_wait_ : time_wait_[w.previous].next) = w.next;
  (w.next == UINT32_MAX ? newest_time_wait_ : time_wait_[w.next].previous) = w.previous;
}

void Stack::Machine::enter_time_wait(Connection& c) {
  if (options_.max_time_wait == 0 || options_.time_wait_ns == 0) return;
  if (stats_.time_wait >= options_.max_time_wait) {
    ++stats_.time_wait_dropped;
    free_time_wait(time_wait_[oldest_time_wait_]);
  }
  uint32_t index;
  if (free_time_wait_.empty()) {
    index = static_cast<uint32_t>(time_wait_.size());
    time_wait_.emplace_back();
  } else {
    index = free_time_wait_.back();
    free_time_wait_.pop_back();
  }
  TimeWait& w = time_wait_[index];
  w.flow = c.flow;
  w.snd_nxt = c.snd_nxt;
  w.rcv_nxt = c.rcv_nxt;
  w.ts_recent = c.ts_recent;
  w.timestamps = c.timestamps;
  w.used = true;
  append_time_wait(w);
  flows_.insert(c.hash, RecordRef(RecordKind::kTimeWait, index));
  ++stats_.time_wait;
}

void Stack::Machine::free_time_wait(TimeWait& w) {
  const auto index = static_cast<uint32_t>(&w - time_wait_.data());
  unlink_time_wait(w);
  w.used = false;
  flows_.remove(flows_.hash(w.flow), RecordRef(RecordKind::kTimeWait, index));
  free_time_wait_.push_back(index);
  --stats_.time_wait;
}

void Stack::Machine::expire_time_wait() {
  while (oldest_time_wait_ != UINT32_MAX) {
    TimeWait& w = time_wait_[oldest_time_wait_];
    const auto left = static_cast<int32_t>(w.expires_ms - clock_ms());
    if (left > 0) {
      wheel_.arm(time_wait_timer_, now_ + left * kMillisecond, this,
                 [](void* context) { static_cast<Machine*>(context)->expire_time_wait(); });
      return;
    }
    free_time_wait(w);
  }
}

void Stack::Machine::on_time_wait(TimeWait& w, uint32_t hash, const Packet& packet, const Frame& frame,
                                  const Segment& segment) {
  if (segment.has(kRst)) return drop(Drop::tcp_rst_ignored);  // RFC 1337: no assassination
  const Flow flow = w.flow;
  if (segment.has(kSyn) && !segment.has(kAck)) {
    const bool newer =
        w.timestamps && segment.has_timestamp ? after(segment.timestamp, w.ts_recent) : after(segment.seq, w.rcv_nxt);
    if (newer && find_listener(flow.local, flow.local_port) != nullptr) {
      ++stats_.time_wait_reused;
      least_isn_ = w.snd_nxt + 65537;
      free_time_wait(w);
      on_syn(flow, hash, packet, frame, segment);
      least_isn_.reset();
      return;
    }
  }
  // A pure ACK in its place needs no answer; everything else gets the last ACK again.
  if (segment.length() == 0 && segment.seq == w.rcv_nxt) return;
  if (segment.has(kFin) && segment.seq + segment.length() == w.rcv_nxt) {
    unlink_time_wait(w);
    append_time_wait(w);
  }
  if (!challenge_reply_limit_.take(now_)) return drop(Drop::tcp_after_close);
  HeaderFields fields{.source_port = flow.local_port,
                      .destination_port = flow.remote_port,
                      .seq = w.snd_nxt,
                      .ack = w.rcv_nxt,
                      .flags = kAck,
                      .window = 0,
                      .has_timestamp = w.timestamps};
  fields.timestamp = timestamp_now(timestamp_offset(flow));
  fields.timestamp_echo = w.ts_recent;
  MacAddress mac;
  std::memcpy(mac.data(), packet.source_mac, 6);
  emit_tcp(frame.interface, mac, flow.local, flow.remote, fields, 0, {});
}

}  // namespace peregrine::net::tcp
