// What an incoming ACK does: which bytes are done with (RFC 9293), which the peer has out of order (RFC 2018, 2883),
// the round-trip time (RFC 6298, Karn), the peer's window, and what follows for congestion and recovery (RFC 5681,
// 6582, 6675, 6937, 9438, 3168).
#include <cassert>

#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

uint32_t Stack::Machine::pipe(const Connection& c) const {
  if (c.out == nullptr) return 0;
  const uint32_t bytes = c.out->sent.pipe();
  return bytes > c.reno_sacked ? bytes - c.reno_sacked : 0;
}

bool Stack::Machine::on_ack(Connection& c, const Segment& segment) {
  // RFC 5961 section 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT.
  if (after(segment.ack, c.snd_nxt) || before(segment.ack, c.snd_una - c.max_snd_wnd)) {
    drop(Drop::tcp_ack_out_of_range);
    challenge(c);
    return false;
  }
  const bool window_changed = update_window(c, segment);
  if (before(segment.ack, c.snd_una)) return true;  // old, but its data may be new
  AckNews news;
  if (after(segment.ack, c.snd_una)) take_acknowledged(c, segment, news);
  if (c.sack && segment.sack_count > 0) take_sacks(c, segment, news);
  if (!c.sack && c.out != nullptr) count_duplicate(c, segment, window_changed, news);
  sample_rtt(c, segment, news);
  if (news.acknowledged > 0) c.congestion.on_progress(segment.ack, c.snd_nxt, news.acknowledged, now_);
  judge_tail_probe(c, segment, news);
  steer(c, segment, news);
  const uint32_t id = c.id;
  if (news.acknowledged > 0) after_ack(c);
  if (connections_[id] == nullptr || c.state == State::kClosed) return false;
  if (news.acknowledged > 0 || news.delivered > 0 || window_changed) rearm(c, news.acknowledged > 0);
  if (c.out != nullptr && (before(c.snd_nxt, c.snd_end) || c.out->sent.lost_bytes() > 0)) mark_dirty(c);
  return true;
}

bool Stack::Machine::update_window(Connection& c, const Segment& segment) {
  // RFC 9293 section 3.10.7.4: only from segments not older than the last that set it.
  if (before(segment.ack, c.snd_una)) return false;
  if (!(before(c.snd_wl1, segment.seq) || (c.snd_wl1 == segment.seq && !after(c.snd_wl2, segment.ack)))) return false;
  const uint32_t window = uint32_t{segment.window} << c.send_scale;
  const bool changed = window != c.snd_wnd;
  c.snd_wnd = window;
  c.snd_wl1 = segment.seq;
  c.snd_wl2 = segment.ack;
  if (window > c.max_snd_wnd) c.max_snd_wnd = window;
  if (changed && c.out != nullptr) mark_dirty(c);
  return changed;
}

// A range has reached the peer: RACK's view of time and order (RFC 8985 section 6.2, steps 1 to 3).
void Stack::Machine::note_delivered(Connection& c, const SentRange& range, const Segment& segment, AckNews& news) {
  rack_update(c, range, segment);
  if (after(range.end, c.rack_forward)) {
    c.rack_forward = range.end;
  } else if (before(range.end, c.rack_forward) && !range.retransmitted) {
    c.reordering_seen = true;
  }
  if (!range.retransmitted && range.at_ns > news.sent_at) news.sent_at = range.at_ns;
  if (!before(range.start, c.recovery_point)) news.beyond = true;
  else if (!range.retransmitted) news.original = true;
}

void Stack::Machine::take_acknowledged(Connection& c, const Segment& segment, AckNews& news) {
  news.acknowledged = segment.ack - c.snd_una;
  if (c.out != nullptr) {
    c.out->sent.acknowledge(segment.ack, [&](const SentRange& range, uint32_t part) {
      if (range.sacked) return;
      news.delivered += part;
      SentRange done = range;
      done.end = range.start + part;
      note_delivered(c, done, segment, news);
    });
    const uint32_t before_bytes = c.out->queue.bytes();
    c.out->queue.acknowledge(segment.ack);
    stats_.bytes_queued_out -= before_bytes - c.out->queue.bytes();
  }
  c.snd_una = segment.ack;
  c.retries = 0;
  c.backoff = 0;
  confirm(c);
}

void Stack::Machine::take_sacks(Connection& c, const Segment& segment, AckNews& news) {
  for (int i = 0; i < segment.sack_count; ++i) {
    const SackBlock& block = segment.sack[i];
    if (!before(block.start, block.end)) continue;
    // RFC 2883 section 4: the first block is a duplicate if it is below the ACK or inside the second block.
    if (i == 0 && (at_or_before(block.end, segment.ack) ||
                   (segment.sack_count > 1 && at_or_before(segment.sack[1].start, block.start) &&
                    at_or_before(block.end, segment.sack[1].end)))) {
      news.duplicate_reported = true;
      continue;
    }
    if (!after(block.end, c.snd_una) || before(block.start, c.snd_una) || after(block.end, c.snd_nxt)) continue;
    if (c.out == nullptr || c.out->sent.empty()) continue;
    c.out->sent.sack(block.start, block.end, [&](const SentRange& range) {
      news.delivered += range.bytes();
      note_delivered(c, range, segment, news);
    });
  }
}

// RFC 5681 section 2: what counts as a duplicate ACK when the peer cannot say more. Each stands for a segment that has
// left the network, and so makes room for a new one (limited transmit, RFC 3042).
void Stack::Machine::count_duplicate(Connection& c, const Segment& segment, bool window_changed, AckNews& news) {
  if (news.acknowledged > 0) {
    const uint32_t other = news.acknowledged > c.mss ? news.acknowledged - c.mss : 0;
    c.reno_sacked = c.recovery == Recovery::kFast && c.reno_sacked > other ? c.reno_sacked - other : 0;
    c.duplicate_acks = 0;
    return;
  }
  if (segment.payload_bytes > 0 || segment.has(kFin) || window_changed || c.out->sent.empty()) return;
  if (c.duplicate_acks < 255) ++c.duplicate_acks;
  const uint32_t flight = c.snd_nxt - c.snd_una;
  if (c.reno_sacked + 2u * c.mss <= flight) {  // the one that is missing is not among them
    c.reno_sacked += c.mss;
    news.delivered += c.mss;
  }
}

void Stack::Machine::sample_rtt(Connection& c, const Segment& segment, const AckNews& news) {
  int64_t rtt = 0;
  if (news.sent_at != 0) {
    rtt = now_ - news.sent_at;
  } else if (news.acknowledged > 0 && c.timestamps && segment.has_timestamp && segment.timestamp_echo != 0) {
    // Only retransmissions were acknowledged; the echo tells which (Karn's ambiguity, RFC 7323 section 4).
    const uint32_t ms = timestamp_now(c.ts_offset) - segment.timestamp_echo;
    if (ms < 120'000) rtt = std::max<int64_t>(ms, 1) * kMillisecond;
  }
  if (rtt <= 0) return;
  c.rtt.sample(rtt);
  c.congestion.on_round_trip(rtt);
  if (c.min_rtt == 0 || rtt < c.min_rtt) c.min_rtt = rtt;
}

// RFC 8985 section 7.4.2: did the tail-loss probe repair a loss that nobody saw?
void Stack::Machine::judge_tail_probe(Connection& c, const Segment& segment, const AckNews& news) {
  if (!c.tail_probe_out || before(segment.ack, c.tail_probe_end)) return;
  if (!c.tail_probe_resent || news.duplicate_reported) {
    c.tail_probe_out = false;
  } else if (after(segment.ack, c.tail_probe_end)) {
    // What was sent later has been acknowledged, and nobody has reported the original beside its repetition.
    c.tail_probe_out = false;
    c.congestion.on_congestion(c.mss, c.snd_nxt - c.snd_una);
    c.congestion.end_recovery(c.mss);
  } else if (news.acknowledged == 0 && segment.payload_bytes == 0 && segment.sack_count == 0) {
    c.tail_probe_out = false;  // the original's ACK came before, a delayed one: this is the repetition's
  }
}

// RFC 5682 section 3.1, and 2.1 where the peer has no SACK.
void Stack::Machine::check_timeout(Connection& c, const Segment& segment, const AckNews& news) {
  if (c.recovery != Recovery::kTimeout || !before(c.snd_una, c.recovery_point)) {
    c.timeout_check = TimeoutCheck::kOff;  // all of it is there: nothing to learn
    return;
  }
  if (c.timeout_check == TimeoutCheck::kFirstAck) {
    if (news.acknowledged == 0) {
      if (!c.sack && c.duplicate_acks > 0) c.timeout_check = TimeoutCheck::kOff;
      return;
    }
    const uint32_t wanted = std::min<uint32_t>(c.snd_end - c.snd_nxt, c.mss);
    const auto room = static_cast<int32_t>(c.snd_una + c.snd_wnd - c.snd_nxt);
    const bool can = before(c.snd_nxt, c.snd_end) && room >= static_cast<int32_t>(wanted);
    c.timeout_check = can ? TimeoutCheck::kTwoNew : TimeoutCheck::kOff;
    return;
  }
  if (news.original && !news.beyond) return undo(c);
  if (news.acknowledged == 0 && news.delivered == 0 && segment.payload_bytes > 0) return;  // the peer just talks
  c.timeout_check = TimeoutCheck::kOff;
  c.congestion.set_window(std::min(c.congestion.window(), 3u * c.mss));
}

void Stack::Machine::steer(Connection& c, const Segment& segment, const AckNews& news) {
  Scoreboard* sent = c.out != nullptr ? &c.out->sent : nullptr;
  if (news.duplicate_reported && c.sack) {
    // RFC 8985 section 6.2 step 4: needless retransmissions call for more patience, once per round trip.
    if (!before(c.snd_una, c.reorder_round) && c.reorder_steps < 20) {
      ++c.reorder_steps;
      c.reorder_persist = 16;
      c.reorder_round = c.snd_nxt;
    }
  }
  // RFC 4015: the ACK was caused by the original, not by what we sent again.
  if (c.recovery != Recovery::kNone && c.can_undo && news.acknowledged > 0 && c.timestamps && segment.has_timestamp &&
      c.first_resend_ts != 0 && before(segment.timestamp_echo, c.first_resend_ts)) {
    undo(c);
  }
  if (c.timeout_check != TimeoutCheck::kOff) check_timeout(c, segment, news);
  if (c.recovery != Recovery::kNone && !before(c.snd_una, c.recovery_point)) {
    if (c.recovery == Recovery::kFast) {
      c.congestion.end_recovery(c.mss);
      if (c.reorder_persist > 0 && --c.reorder_persist == 0) c.reorder_steps = 1;
    }
    c.recovery = Recovery::kNone;
    c.reno_sacked = 0;
    c.duplicate_acks = 0;
    c.first_resend_ts = 0;
  }
  if (sent != nullptr && !sent->empty()) {
    if (c.sack) {
      rack_detect(c);
    } else if (c.recovery == Recovery::kFast) {
      if (news.acknowledged > 0) sent->mark_head_lost(c.mss);  // RFC 6582: a partial ACK shows the next hole
    } else if (c.recovery == Recovery::kNone && c.duplicate_acks >= 3 && !before(c.snd_una, c.recovery_point)) {
      sent->mark_head_lost(c.mss);
    }
    if (c.recovery == Recovery::kNone && sent->lost_bytes() > 0) enter_fast_recovery(c);
  }
  if (c.ecn && segment.has(kEce) && c.recovery == Recovery::kNone && !before(c.snd_una, c.cwr_point)) {
    ++stats_.ecn_reductions;
    c.congestion.on_congestion(c.mss, c.snd_nxt - c.snd_una);
    c.congestion.end_recovery(c.mss);
    c.cwr_point = c.snd_nxt;
    c.cwr_to_send = true;
    return;
  }
  if (c.recovery == Recovery::kFast) return proportional_rate(c, news);
  // RFC 7661: a window that was not used has not been proved.
  if (news.acknowledged > 0 && c.window_limited) {
    c.congestion.on_ack(news.acknowledged, c.mss, now_, c.rtt.smoothed());
  }
}

// RFC 6937: during recovery the window follows what is delivered.
void Stack::Machine::proportional_rate(Connection& c, const AckNews& news) {
  c.out->prr_delivered += news.delivered;
  const uint32_t in_network = pipe(c);
  const uint32_t threshold = c.congestion.threshold();
  int64_t allowance;
  if (in_network > threshold) {
    const uint64_t share =
        (uint64_t{c.out->prr_delivered} * threshold + c.out->recover_flight - 1) / c.out->recover_flight;
    allowance = static_cast<int64_t>(share) - c.out->prr_out;
  } else {
    const int64_t limit = std::max<int64_t>(int64_t{c.out->prr_delivered} - c.out->prr_out, news.delivered) + c.mss;
    allowance = std::min<int64_t>(threshold - in_network, limit);
  }
  if (allowance < 0) allowance = 0;
  c.congestion.set_window(std::max<uint32_t>(in_network + static_cast<uint32_t>(allowance), c.mss));
}

void Stack::Machine::after_ack(Connection& c) {
  if (c.write_blocked && c.attached && !c.close_queued && c.reference == nullptr) {
    const uint32_t room = send_room(c);
    if (room >= (c.snd_end - c.snd_una + room) / 3) {
      c.write_blocked = false;
      events_.push_back({.kind = Event::Kind::kWritable, .conn = c.id});
    }
  }
  if (c.reference != nullptr && c.out != nullptr && c.snd_nxt - c.snd_end <= 1 && c.snd_end - c.snd_una <= kCopyTail) {
    c.out->queue.copy_references(filler_, c.reference);
  }
  const bool all = c.fin_sent && c.snd_una == c.snd_end + 1;
  if (c.out != nullptr && c.snd_una == c.snd_nxt && c.out->queue.empty()) c.out.reset();
  if (all) fin_acknowledged(c);
}

}  // namespace peregrine::net::tcp
