// Finding out what was lost and when to try again: RACK and tail-loss probes (RFC 8985), the retransmission timer
// (RFC 6298), whether it was needed (RFC 5682), undoing what was spurious (RFC 4015), giving up (RFC 5482), zero-window
// probes (RFC 9293 section 3.8.6.1), keepalive (RFC 1122 section 4.2.3.6), black holes (RFC 4821's fallback).
#include <cassert>
#include <cerrno>

#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {
constexpr uint8_t kBlackHoleRetries = 5;
constexpr uint8_t kDeadGatewayRetries = 3;  // RFC 1122 section 4.2.3.5: R1
constexpr uint16_t kBlackHoleFloor4 = 576, kBlackHoleFloor6 = 1280;
constexpr int64_t kSmallestProbe = 10 * kMillisecond;
}  // namespace

void Stack::Machine::rack_update(Connection& c, const SentRange& range, const Segment& segment) {
  const int64_t rtt = now_ - range.at_ns;
  if (range.retransmitted) {
    // Is this the answer to the retransmission or to the original? If in doubt, the former teaches nothing.
    if (c.timestamps && segment.has_timestamp) {
      const uint32_t sent_ts = static_cast<uint32_t>(range.at_ns / kMillisecond) + c.ts_offset;
      if (before(segment.timestamp_echo, sent_ts)) return;
    } else if (rtt < c.min_rtt) {
      return;
    }
  }
  if (range.at_ns > c.rack_sent_at || (range.at_ns == c.rack_sent_at && after(range.end, c.rack_end))) {
    c.rack_sent_at = range.at_ns;
    c.rack_end = range.end;
    c.rack_rtt = rtt;
  }
}

// RFC 8985 section 6.2 step 5.
bool Stack::Machine::rack_detect(Connection& c) {
  Scoreboard& sent = c.out->sent;
  if (!c.probing_tail) c.probe_at = 0;
  if (c.recovery == Recovery::kNone && sent.sacked_bytes() == 0) return false;
  int64_t patience;
  if (!c.reordering_seen && (c.recovery != Recovery::kNone || sent.sacked_bytes() >= 3u * c.mss)) {
    patience = 0;
  } else {
    patience = std::min(c.reorder_steps * c.min_rtt / 4, c.rtt.smoothed());
  }
  bool any = false;
  int64_t wait = 0;
  for (SentRange& range : sent) {
    if (range.sacked || range.lost) continue;
    if (range.at_ns > c.rack_sent_at || (range.at_ns == c.rack_sent_at && !before(range.end, c.rack_end))) continue;
    const int64_t left = range.at_ns + c.rack_rtt + patience - now_;
    if (left <= 0) {
      sent.mark_lost(range);
      any = true;
    } else {
      wait = std::max(wait, left);
    }
  }
  if (wait > 0) {
    c.probing_tail = false;
    c.probe_at = now_ + wait;
    schedule(c);
  }
  return any;
}

void Stack::Machine::enter_fast_recovery(Connection& c) {
  ++stats_.fast_recoveries;
  c.out->prior_window = c.congestion.window();
  c.out->prior_threshold = c.congestion.threshold();
  c.can_undo = true;
  c.first_resend_ts = 0;
  c.out->recover_flight = std::max<uint32_t>(c.snd_nxt - c.snd_una, 1);
  c.out->prr_delivered = c.out->prr_out = 0;
  c.congestion.on_congestion(c.mss, c.out->recover_flight);
  c.recovery = Recovery::kFast;
  c.recovery_point = c.snd_nxt;
  c.force_one = true;  // RFC 6937: the first retransmission leaves whatever the window
  c.tail_probe_out = false;
  mark_dirty(c);
}

void Stack::Machine::undo(Connection& c) {
  ++stats_.spurious_recoveries;
  if (c.out != nullptr) {
    c.out->sent.unmark_lost();
    c.congestion.restore(c.out->prior_window, c.out->prior_threshold);
  }
  c.recovery = Recovery::kNone;
  c.recovery_point = c.snd_una;
  c.timeout_check = TimeoutCheck::kOff;
  c.can_undo = false;
  c.reno_sacked = 0;
  c.duplicate_acks = 0;
}

void Stack::Machine::give_up(Connection& c, int error) {
  ++stats_.timed_out;
  send_reset(c);
  reset(c, error);
}

bool Stack::Machine::outlived(const Connection& c) const {
  return c.user_timeout_ms != 0 && clock_ms() - c.out->stalled_ms >= c.user_timeout_ms;
}

int64_t Stack::Machine::next_timeout(const Connection& c) const {
  const int64_t at = now_ + c.rtt.timeout(c.backoff);
  if (c.user_timeout_ms == 0) return at;
  return std::min(at, now_ + int64_t{c.user_timeout_ms - (clock_ms() - c.out->stalled_ms)} * kMillisecond);
}

// Retransmissions that nobody answers may be the router's fault: it is asked whether it is there, and if not, who else
// has its address.
void Stack::Machine::doubt_neighbour(Connection& c) {
  if (c.neighbour != UINT32_MAX) neighbours_[c.neighbour].confirmed_at = 0;
}

void Stack::Machine::on_rto(Connection& c) {
  if (c.state == State::kSynSent || c.state == State::kSynReceived) {
    if (c.retries < 255) ++c.retries;
    if (c.backoff < 6) ++c.backoff;
    c.syn_due = true;
    return mark_dirty(c);
  }
  const uint8_t limit = c.attached ? options_.max_retries : options_.orphan_retries;
  if (c.persisting) {
    const bool silent = c.user_timeout_ms != 0 && now_ - c.received_at >= c.user_timeout_ms * kMillisecond;
    if (c.retries >= limit || (silent && c.retries > 0)) return give_up(c, -ETIMEDOUT);
    ++c.retries;
    if (c.backoff < 12) ++c.backoff;
    ++stats_.persist_probes;
    c.probe_due = true;
    c.force_one = c.snd_wnd > 0;  // a window too small to be worth it: time is up, send what fits
    c.rto_at = now_ + c.rtt.timeout(c.backoff);
    return mark_dirty(c);
  }
  if (c.out == nullptr || c.out->sent.empty()) return;
  if (!interfaces_[c.interface].up) {  // no cable: this says nothing about the peer
    c.rto_at = now_ + c.rtt.timeout(c.backoff);
    c.out->stalled_ms = clock_ms();
    return;
  }
  // A peer whose window is shut, and who says so, is not gone.
  if (c.snd_wnd == 0 && now_ - c.received_at < 2 * c.rtt.timeout(c.backoff)) c.retries = 0;
  if (c.retries == 0) c.out->stalled_ms = clock_ms() - static_cast<uint32_t>(c.rtt.timeout(c.backoff) / kMillisecond);
  if (c.retries >= limit || outlived(c)) return give_up(c, -ETIMEDOUT);
  ++c.retries;
  ++stats_.timeouts;
  if (c.retries == kDeadGatewayRetries) doubt_neighbour(c);
  // Once for each episode, or again for the same segment (RFC 5682 section 2.1 step 1).
  const bool checks = !c.timestamps && (c.recovery == Recovery::kNone || c.timeout_check == TimeoutCheck::kFirstAck);
  c.timeout_check = checks ? TimeoutCheck::kFirstAck : TimeoutCheck::kOff;
  Scoreboard& sent = c.out->sent;
  // The first range cannot be both reported and missing in the ACK: the peer has reneged (RFC 2018 section 8).
  if (sent.begin()->sacked) sent.forget_sacks();
  if (c.recovery != Recovery::kTimeout) {
    if (c.recovery == Recovery::kNone) {
      c.out->prior_window = c.congestion.window();
      c.out->prior_threshold = c.congestion.threshold();
      c.congestion.on_congestion(c.mss, c.snd_nxt - c.snd_una);
      c.first_resend_ts = 0;
      c.can_undo = true;
    }
    c.recovery = Recovery::kTimeout;
  }
  c.recovery_point = c.snd_nxt;
  c.congestion.on_timeout(c.mss);
  sent.mark_all_lost();
  c.reno_sacked = 0;
  c.duplicate_acks = 0;
  c.tail_probe_out = false;
  c.probe_at = 0;
  if (!checks) c.min_rtt = 0;
  c.force_one = true;
  if (c.retries == kBlackHoleRetries && sent.begin()->bytes() >= c.mss) {
    const uint16_t floor = c.flow.local.is_v4() ? kBlackHoleFloor4 : kBlackHoleFloor6;
    if (c.path_mtu > floor) {  // full segments vanish: perhaps a tunnel whose ICMP nobody lets through
      ++stats_.black_holes;
      c.path_mtu = std::max<uint16_t>(floor, static_cast<uint16_t>(c.path_mtu / 2));
      c.timeout_check = TimeoutCheck::kOff;
      update_mss(c);
    }
  }
  if (c.backoff < 12) ++c.backoff;
  c.rto_at = next_timeout(c);
  mark_dirty(c);
}

void Stack::Machine::on_probe_timer(Connection& c) {
  if (c.out == nullptr || c.out->sent.empty()) return;
  if (!c.probing_tail) {  // RACK's reordering timer
    if (rack_detect(c) && c.recovery == Recovery::kNone) enter_fast_recovery(c);
    return mark_dirty(c);
  }
  ++stats_.tail_loss_probes;
  c.tail_probe_due = true;
  mark_dirty(c);
}

void Stack::Machine::rearm(Connection& c, bool restart) {
  const bool in_flight = c.out != nullptr && !c.out->sent.empty();
  if (!in_flight) {
    c.probe_at = 0;
    if (before(c.snd_nxt, c.snd_end)) {
      // Unsent, and nothing on its way that would bring an ACK: the window is (nearly) shut. Or the turn's flush has
      // not come yet, then output() calls again.
      if (!c.persisting && !c.dirty) {
        c.persisting = true;
        c.backoff = 0;
        c.retries = 0;
        c.rto_at = now_ + c.rtt.timeout();
        schedule(c);
      }
    } else {
      c.persisting = false;
      c.rto_at = 0;
    }
    return;
  }
  if (c.persisting) {
    c.persisting = false;
    c.backoff = 0;
    restart = true;
  }
  if (restart || c.rto_at == 0) c.rto_at = now_ + c.rtt.timeout(c.backoff);
  const Scoreboard& sent = c.out->sent;
  // One probe per tail: the next after the ACK for what the last one probed.
  const bool probed = c.tail_probe_out && before(c.snd_una, c.tail_probe_end);
  const bool may_probe = c.sack && c.recovery == Recovery::kNone && sent.sacked_bytes() == 0 &&
                         sent.lost_bytes() == 0 && !probed && !c.tail_probe_due && c.rtt.smoothed() != 0;
  if (may_probe) {
    int64_t wait = std::max(2 * c.rtt.smoothed(), kSmallestProbe);
    if (c.snd_nxt - c.snd_una <= c.mss) wait += kMaxAckDelay;  // its ACK may be delayed
    c.probe_at = now_ + wait < c.rto_at ? now_ + wait : 0;
    c.probing_tail = true;
  } else if (c.probing_tail) {
    c.probe_at = 0;
  }
  schedule(c);
}

void Stack::Machine::start_keepalive(Connection& c) {
  if (options_.keepalive_idle_ns == 0) return;
  c.keepalive_at = now_ + options_.keepalive_idle_ns;
  schedule(c);
}

void Stack::Machine::on_keepalive(Connection& c) {
  if (c.keepalives_sent == 0 && now_ - c.received_at < options_.keepalive_idle_ns) {
    c.keepalive_at = c.received_at + options_.keepalive_idle_ns;
    return;
  }
  if (c.rto_at != 0) {  // data or probes on their way tell as much
    c.keepalive_at = now_ + options_.keepalive_idle_ns;
    return;
  }
  if (c.keepalives_sent >= options_.keepalive_probes) return give_up(c, -ETIMEDOUT);
  ++c.keepalives_sent;
  ++stats_.keepalive_probes;
  c.probe_due = true;
  c.keepalive_at = now_ + options_.keepalive_interval_ns;
  mark_dirty(c);
}

}  // namespace peregrine::net::tcp
