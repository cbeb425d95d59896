// What leaves at flush(): retransmissions first, then new data as far as both windows go, then an ACK if none of these
// carried it. Full segments or all there is (RFC 9293 section 3.8.6.2.1). Nagle's wait (RFC 896) is off; what its
// owner writes within one turn leaves together instead. One TSO frame where the port cuts segments itself.
#include <cassert>

#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {
constexpr uint32_t kMaxViews = 32;
}  // namespace

void Stack::Machine::fill(Connection& c, HeaderFields& fields, uint32_t seq, uint8_t flags) {
  fields.source_port = c.flow.local_port;
  fields.destination_port = c.flow.remote_port;
  fields.seq = seq;
  fields.ack = c.rcv_nxt;
  fields.flags = static_cast<uint8_t>(flags | kAck | (c.ece_to_send ? kEce : 0));
  // Rounded up: rounding down would take back what was promised.
  const uint32_t window = window_to_offer(c) - c.rcv_nxt;
  const uint32_t scaled = (window + (1u << c.receive_scale) - 1) >> c.receive_scale;
  fields.window = static_cast<uint16_t>(std::min(scaled, 65535u));
  fields.has_timestamp = c.timestamps;
  fields.timestamp = timestamp_now(c.ts_offset);
  fields.timestamp_echo = c.ts_recent;
  if (!c.sack) return;
  const uint8_t most = c.timestamps ? 3 : 4;
  if (c.duplicate.start != c.duplicate.end) fields.sack[fields.sack_count++] = c.duplicate;
  if (c.in != nullptr && c.in->has_gap()) {
    fields.sack_count = static_cast<uint8_t>(fields.sack_count +
                                             c.in->blocks(fields.sack + fields.sack_count, most - fields.sack_count));
  }
}

// Everything the peer needs to know went with this segment.
void Stack::Machine::ack_sent(Connection& c, uint32_t edge) {
  c.last_ack_sent = c.rcv_nxt;
  c.rcv_edge = later(c.rcv_edge, edge);
  c.ack_now = false;
  c.ack_at = 0;
  c.unacked_in = 0;
  c.duplicate = {};
  if (c.in != nullptr && c.in->empty()) c.in.reset();
}

bool Stack::Machine::send_ack(Connection& c, const MacAddress& mac, uint32_t seq) {
  HeaderFields fields;
  fill(c, fields, seq, 0);
  if (!emit_tcp(c.interface, mac, c.flow.local, c.flow.remote, fields, 0, {})) return false;
  ack_sent(c, fields.ack + (uint32_t{fields.window} << c.receive_scale));
  return true;
}

void Stack::Machine::send_reset(Connection& c) {
  MacAddress mac;
  if (c.state == State::kSynSent || !neighbour_ready(c, mac)) return;
  HeaderFields fields;
  fill(c, fields, c.snd_nxt, kRst);
  fields.sack_count = 0;
  ++stats_.resets_out;
  emit_tcp(c.interface, mac, c.flow.local, c.flow.remote, fields, 0, {});
}

// Up to `bytes` from `seq` on, as one frame: a segment, or a run of them with TSO. `sent`: sequence numbers covered.
bool Stack::Machine::send_range(Connection& c, const MacAddress& mac, uint32_t seq, uint32_t bytes, bool with_fin,
                                bool resend, uint32_t& sent) {
  const Interface& config = interfaces_[c.interface].config;
  HeaderFields fields;
  fill(c, fields, seq, 0);
  const uint32_t segment =
      c.mss - std::min<uint32_t>(fields.sack_count > 0 ? 4 + 8u * fields.sack_count : 0, c.mss / 2);
  TcpPayload payload;
  const uint32_t wanted = bytes;
  if (bytes > segment) {
    const uint32_t most =
        config.tso_bytes >= 2 * segment && !c.cwr_to_send ? std::min(config.tso_bytes, 65000u) : segment;
    bytes = std::min(bytes, most / segment * segment);
  }
  PayloadView views[kMaxViews];
  SendQueue& queue = c.out->queue;
  const uint32_t max_views = std::min<uint32_t>(config.max_views, kMaxViews);
  if (bytes > 0) {
    uint32_t gathered = queue.gather(seq, bytes, views, max_views, payload.count);
    if (gathered < bytes) {
      if (gathered >= segment) {
        bytes = gathered / segment * segment;
      } else {  // too many little pieces for one descriptor chain
        bytes = std::min(bytes, std::min(segment, Block::kLargest));
        queue.compact(filler_, seq, bytes);
      }
      gathered = queue.gather(seq, bytes, views, max_views, payload.count);
      assert(gathered == bytes);
    }
  }
  payload.views = views;
  payload.bytes = bytes;
  if (bytes > segment) payload.segment_bytes = static_cast<uint16_t>(segment);
  const bool fin = with_fin && bytes == wanted;
  if (fin) fields.flags |= kFin;
  if (bytes > 0 && seq + bytes == c.snd_end) fields.flags |= kPsh;
  if (c.cwr_to_send && !resend && bytes > 0) fields.flags |= kCwr;
  // RFC 3168 section 6.1.5: retransmissions are not ECN-capable.
  const uint8_t ecn = c.ecn && !resend && bytes > 0 ? 2 : 0;
  if (!emit_tcp(c.interface, mac, c.flow.local, c.flow.remote, fields, ecn, payload)) return false;
  sent = bytes + (fin ? 1 : 0);
  if (fin) c.fin_sent = true;
  if ((fields.flags & kCwr) != 0) c.cwr_to_send = false;
  if (resend) {
    c.out->sent.resent(seq, seq + sent, now_);
    stats_.bytes_retransmitted += bytes;
    stats_.segments_retransmitted += bytes == 0 ? 1 : (bytes + segment - 1) / segment;
    if (c.first_resend_ts == 0) c.first_resend_ts = std::max(timestamp_now(c.ts_offset), 1u);
  } else {
    c.out->sent.sent(seq, seq + sent, now_);
    c.snd_nxt = seq + sent;
    stats_.bytes_out += bytes;
  }
  c.sent_at = now_;
  if (c.recovery == Recovery::kFast) c.out->prr_out += sent;
  ack_sent(c, fields.ack + (uint32_t{fields.window} << c.receive_scale));
  return true;
}

bool Stack::Machine::output(Connection& c) {
  if (c.state == State::kClosed) return true;
  MacAddress mac;
  if (!neighbour_ready(c, mac)) return true;  // learn() brings us back
  if (c.state == State::kSynSent || c.state == State::kSynReceived) return c.syn_due ? send_syn(c, mac) : true;
  if (c.fin_queued && !c.fin_sent && c.out == nullptr) c.out = std::make_unique<Outgoing>(c.snd_end);
  bool sent_new = false;
  if (c.out != nullptr) {
    if (!resend_lost(c, mac) || !send_tail_probe(c, mac) || !send_new(c, mac, sent_new)) return false;
    if (c.timeout_check == TimeoutCheck::kTwoNew) {
      c.timeout_check = sent_new ? TimeoutCheck::kSecondAck : TimeoutCheck::kOff;
      if (!sent_new && !resend_lost(c, mac)) return false;
    }
    c.force_one = false;
  }
  if (c.probe_due) {
    // RFC 1122 section 4.2.3.6: a number the peer has seen, so that it must answer; no byte of data is risked.
    if (!sent_new && !send_ack(c, mac, c.snd_una - 1)) return false;
    c.probe_due = false;
  }
  if (c.ack_now && !send_ack(c, mac, c.snd_nxt)) return false;
  c.dirty = false;
  rearm(c, false);
  return true;
}

bool Stack::Machine::resend_lost(Connection& c, const MacAddress& mac) {
  if (c.timeout_check == TimeoutCheck::kTwoNew || c.timeout_check == TimeoutCheck::kSecondAck) return true;
  while (const SentRange* lost = c.out->sent.first_lost()) {
    const uint32_t in_network = pipe(c);
    const uint32_t window = c.congestion.window();
    uint32_t allowed = window > in_network ? window - in_network : 0;
    const uint32_t start = lost->start, end = lost->end;
    if (allowed < std::min<uint32_t>(end - start, c.mss)) {
      if (!c.force_one) return true;
      allowed = c.mss;
    }
    const uint32_t edge = c.snd_una + c.snd_wnd;
    // A window that was taken back or shut: one segment still goes, as a probe.
    if (after(start + std::min<uint32_t>(end - start, c.mss), edge) && !c.force_one) return true;
    const uint32_t data_end = earlier(end, c.snd_end);
    uint32_t bytes = data_end - start;
    const bool fin = end != data_end;
    // Whole segments: the rest of a range is not worth a frame of its own while more can follow.
    if (bytes > allowed) bytes = std::max<uint32_t>(allowed / c.mss, 1) * c.mss;
    bytes = std::min(bytes, data_end - start);
    uint32_t sent = 0;
    if (!send_range(c, mac, start, bytes, fin && start + bytes == data_end, true, sent)) return false;
    c.force_one = false;
  }
  return true;
}

bool Stack::Machine::send_tail_probe(Connection& c, const MacAddress& mac) {
  if (!c.tail_probe_due) return true;
  if (c.out->sent.empty() || c.recovery != Recovery::kNone) {
    c.tail_probe_due = false;
    return true;
  }
  // RFC 8985 section 7.3: new data if there is any and the peer's window takes it, else the last segment again.
  const uint32_t room = c.snd_una + c.snd_wnd - c.snd_nxt;
  uint32_t bytes = std::min<uint32_t>(c.snd_end - c.snd_nxt, c.mss);
  uint32_t sent = 0;
  if (before(c.snd_nxt, c.snd_end) && static_cast<int32_t>(room) >= static_cast<int32_t>(bytes)) {
    if (!send_range(c, mac, c.snd_nxt, bytes, false, false, sent)) return false;
    c.tail_probe_resent = false;
  } else {
    const SentRange& last = *(c.out->sent.end() - 1);
    const uint32_t data_end = earlier(last.end, c.snd_end);
    bytes = std::min<uint32_t>(data_end - last.start, c.mss);
    if (!send_range(c, mac, data_end - bytes, bytes, last.end != data_end, true, sent)) return false;
    c.tail_probe_resent = true;
  }
  c.tail_probe_due = false;
  c.tail_probe_out = true;
  c.tail_probe_end = c.snd_nxt;
  c.probe_at = 0;
  c.rto_at = 0;  // rearm() starts it anew
  return true;
}

bool Stack::Machine::send_new(Connection& c, const MacAddress& mac, bool& sent_new) {
  if (c.out->sent.empty() && before(c.snd_nxt, c.snd_end) && c.sent_at != 0) {
    const int64_t rto = c.rtt.timeout();
    if (now_ - c.sent_at > rto) c.congestion.on_idle(now_ - c.sent_at, rto, c.mss);
  }
  bool limited = false;
  const uint32_t first = c.snd_nxt;
  while (before(c.snd_nxt, c.snd_end)) {
    const uint32_t available = c.snd_end - c.snd_nxt;
    const auto peer_room = static_cast<int32_t>(c.snd_una + c.snd_wnd - c.snd_nxt);
    auto network_room = static_cast<int32_t>(c.congestion.window() - pipe(c));
    if (c.timeout_check == TimeoutCheck::kTwoNew) network_room = static_cast<int32_t>(first + 2u * c.mss - c.snd_nxt);
    if (c.timeout_check == TimeoutCheck::kSecondAck) network_room = 0;
    const int32_t room = std::min(peer_room, network_room);
    if (room <= 0) {
      limited = network_room <= 0;
      break;
    }
    uint32_t bytes = std::min<uint32_t>(available, static_cast<uint32_t>(room));
    if (bytes < available) {
      if (bytes >= c.mss) {
        bytes -= bytes % c.mss;
      } else if (network_room < static_cast<int32_t>(c.mss)) {
        limited = true;
        break;
      } else if (!c.force_one && (!c.out->sent.empty() || bytes < c.max_snd_wnd / 2)) {
        break;  // a sliver of the peer's window: wait for more of it, the persist timer limits for how long
      }
    }
    uint32_t sent = 0;
    if (!send_range(c, mac, c.snd_nxt, bytes, c.fin_queued && bytes == available, false, sent)) return false;
    sent_new = true;
    c.force_one = false;
  }
  if (c.fin_queued && !c.fin_sent && c.snd_nxt == c.snd_end) {
    uint32_t sent = 0;
    if (!send_range(c, mac, c.snd_nxt, 0, true, false, sent)) return false;
    sent_new = true;
  }
  // Did the window hold us back, or had we nothing to send (RFC 7661)? In slow start half-used counts as used.
  c.window_limited = limited || (c.congestion.slow_start() && 2 * pipe(c) > c.congestion.window());
  return true;
}

}  // namespace peregrine::net::tcp
