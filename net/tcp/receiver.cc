// Segments of a connection that exists: RFC 9293 section 3.10.7.4 with the checks of RFC 7323 (PAWS) and RFC 5961
// (blind attacks), then data in and out of order, when to acknowledge (RFC 1122 section 4.2.3.2, 5681 section 4.2), and
// what window to offer (RFC 813, 9293 section 3.8.6.2.2).
#include <cassert>
#include <cerrno>

#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {
constexpr int64_t kPawsIdle = 24LL * 86400 * kSecond;  // RFC 7323 section 5.5: after that ts_recent proves nothing
constexpr uint32_t kAnswerEveryMs = 500;               // unacceptable segments without data, per connection
constexpr size_t kPieceCost = 64;                      // what bookkeeping one out-of-order piece is charged for
}  // namespace

ReceiveQueue& Stack::Machine::incoming(Connection& c) {
  if (c.in == nullptr) c.in = std::make_unique<ReceiveQueue>(&stats_.bytes_queued_in);
  return *c.in;
}

void Stack::Machine::on_segment(Connection& c, const Packet& packet, const Frame& frame, Segment& segment) {
  // Reset or given up, and only its owner has not been told yet: to its peer it does not exist any more.
  if (c.state == State::kClosed) return drop(Drop::tcp_no_connection);
  if (c.state == State::kSynSent) return on_syn_sent(c, packet, segment);
  if (!synchronized_checks(c, segment)) return;

  c.received_at = now_;
  c.keepalives_sent = 0;
  if (segment.user_timeout_s != 0) adopt_user_timeout(c, segment.user_timeout_s);
  if (c.persisting) c.retries = 0;  // RFC 9293 section 3.8.6.1: no limit while probes are answered
  // RFC 7323 section 4.3, rule (2).
  if (c.timestamps && segment.has_timestamp && at_or_before(segment.seq, c.last_ack_sent) &&
      !before(segment.timestamp, c.ts_recent)) {
    c.ts_recent = segment.timestamp;
    c.ts_recent_at = now_;
  }
  if (c.state == State::kSynReceived) {
    if (segment.ack != c.iss + 1) {
      drop(Drop::tcp_ack_out_of_range);
      return reply_reset(c.flow, packet, frame, segment);
    }
    c.snd_una = c.iss + 1;
    c.snd_wnd = c.max_snd_wnd = uint32_t{segment.window} << c.send_scale;
    c.snd_wl1 = segment.seq;
    c.snd_wl2 = segment.ack;
    established(c);
  }
  const uint32_t id = c.id;
  if (!on_ack(c, segment) || connections_[id] == nullptr || c.state == State::kClosed) return;

  if (c.ecn) {  // RFC 3168 section 6.1.3
    if (segment.has(kCwr)) c.ece_to_send = false;
    if (packet.ecn == 3 && segment.payload_bytes > 0) c.ece_to_send = c.ack_now = true;
  }
  if (segment.payload_bytes > 0 || segment.has(kFin)) on_data(c, frame, segment);
}

// Everything before the ACK field is believed. False: the segment is done with.
bool Stack::Machine::synchronized_checks(Connection& c, Segment& segment) {
  // Simultaneous open (RFC 9293 figure 7): the peer's SYN-ACK answers our SYN and repeats its own.
  if (c.state == State::kSynReceived && segment.has(kSyn) && segment.seq == c.irs) {
    if (!segment.has(kAck)) {
      c.syn_due = true;
      mark_dirty(c);
      return false;
    }
    segment.flags &= static_cast<uint8_t>(~kSyn);
    ++segment.seq;
    // RFC 7323 section 2.2: no scale on a SYN. From here on the field is read scaled.
    segment.window = static_cast<uint16_t>(segment.window >> c.send_scale);
    c.ack_now = true;
    mark_dirty(c);
  }
  if (c.timestamps && segment.has_timestamp && before(segment.timestamp, c.ts_recent) && !segment.has(kRst) &&
      now_ - c.ts_recent_at < kPawsIdle) {
    drop(Drop::tcp_paws);
    answer_duplicate(c, segment);
    return false;
  }
  if (!acceptable(c, segment)) {
    if (segment.has(kRst)) {
      drop(Drop::tcp_rst_ignored);
    } else if (segment.has(kSyn)) {
      drop(Drop::tcp_syn_challenged);
      challenge(c);
    } else {
      drop(Drop::tcp_out_of_window);
      answer_duplicate(c, segment);
    }
    return false;
  }
  if (segment.has(kRst)) {
    if (segment.seq != c.rcv_nxt) {  // RFC 5961 section 3.2
      drop(Drop::tcp_rst_challenged);
      challenge(c);
      return false;
    }
    ++stats_.resets_in;
    reset(c, c.state == State::kSynReceived ? -ECONNREFUSED : -ECONNRESET);
    return false;
  }
  if (segment.has(kSyn)) {  // RFC 5961 section 4.2
    drop(Drop::tcp_syn_challenged);
    challenge(c);
    return false;
  }
  if (!segment.has(kAck)) {
    drop(Drop::tcp_no_ack);
    return false;
  }
  return true;
}

// RFC 9293 section 3.4's four cases, counted from what we last acknowledged: during a turn rcv_nxt runs ahead of what
// the peer can know.
bool Stack::Machine::acceptable(Connection& c, const Segment& segment) {
  const uint32_t end = segment.seq + segment.length();
  return !before(end, c.last_ack_sent) && !after(segment.seq, c.rcv_edge);
}

void Stack::Machine::challenge(Connection& c) {
  if (c.challenged && clock_ms() - c.challenge_ms < kAnswerEveryMs) {
    ++stats_.challenge_acks_withheld;
    return;
  }
  if (now_ - challenge_window_ >= kSecond) {
    challenge_window_ = now_;
    challenges_left_ = static_cast<uint32_t>(500 + random_.below(1000));
  }
  if (challenges_left_ == 0) {
    ++stats_.challenge_acks_withheld;
    return;
  }
  --challenges_left_;
  c.challenged = true;
  c.challenge_ms = clock_ms();
  ++stats_.challenge_acks;
  c.ack_now = true;
  mark_dirty(c);
}

// An unacceptable segment is answered by an ACK: repeated data always, since its sender waits for just that; empty ones
// (keepalives, probes, strays) now and then, so that two confused ends do not answer each other for ever.
void Stack::Machine::answer_duplicate(Connection& c, const Segment& segment) {
  if (segment.payload_bytes == 0 && !segment.has(kFin)) {
    if (c.challenged && clock_ms() - c.challenge_ms < kAnswerEveryMs) return;
    c.challenged = true;
    c.challenge_ms = clock_ms();
  } else if (segment.payload_bytes > 0 && before(segment.seq, c.rcv_nxt)) {
    ++stats_.duplicates;
    c.duplicate = {segment.seq, earlier(segment.seq + segment.payload_bytes, c.rcv_nxt)};
  }
  c.ack_now = true;
  mark_dirty(c);
}

void Stack::Machine::on_data(Connection& c, const Frame& frame, const Segment& segment) {
  if (c.peer_finished) return;  // behind its FIN there is nothing
  uint32_t seq = segment.seq;
  const uint8_t* bytes = segment.payload;
  uint32_t size = segment.payload_bytes;
  // Nobody reads this any more, and the peer should know; but not before it has taken what we still owe it.
  if (size > 0 && !c.attached && c.linger_over && c.state == State::kFinWait2) {
    drop(Drop::tcp_after_close);
    send_reset(c);
    return reset(c, 0);
  }
  if (segment.has(kFin) && !c.fin_known) {
    c.fin_known = true;
    c.fin_seq = seq + size;
  }
  if (before(seq, c.rcv_nxt)) {
    const uint32_t known = std::min(c.rcv_nxt - seq, size);
    if (known > 0) {
      if (known == size) ++stats_.duplicates;
      c.duplicate = {seq, seq + known};
      c.ack_now = true;
      mark_dirty(c);
    }
    seq += known;
    bytes += known;
    size -= known;
  }
  const auto room = static_cast<int32_t>(c.rcv_edge - seq);
  if (room < static_cast<int32_t>(size)) {  // a window probe, or more than we offered
    size = room > 0 ? static_cast<uint32_t>(room) : 0;
    c.ack_now = true;
    mark_dirty(c);
  }
  if (size > 0) {
    if (seq != c.rcv_nxt) return store_out_of_order(c, seq, bytes, size);
    take_in_order(c, frame, bytes, size);
  }
  if (c.fin_known && c.fin_seq == c.rcv_nxt) {
    on_fin(c);
  } else if (segment.has(kFin)) {
    c.ack_now = true;
    mark_dirty(c);
  }
}

void Stack::Machine::take_in_order(Connection& c, const Frame& frame, const uint8_t* bytes, uint32_t size) {
  const bool filled_gap = c.in != nullptr && c.in->has_gap();
  c.rcv_nxt += size;
  stats_.bytes_in += size;
  uint32_t arrived = size;
  if (wants_data(c)) deliver_frame(c, frame, bytes, size);
  if (filled_gap) {
    while (Chunk* chunk = c.in->take_in_order(c.rcv_nxt)) {
      c.rcv_nxt += chunk->size;
      arrived += chunk->size;
      stats_.bytes_in += chunk->size;
      deliver_chunk(c, chunk);
    }
  }
  pace_acks(c, arrived, filled_gap);
  // The window follows the stream: one that has twice filled it may have more.
  if (c.rcv_nxt - c.window_epoch >= 2 * c.receive_window) {
    c.receive_window = std::min(2 * c.receive_window, std::max(options_.receive_window, options_.initial_window));
    c.window_epoch = c.rcv_nxt;
  }
}

void Stack::Machine::pace_acks(Connection& c, uint32_t bytes, bool at_once) {
  c.unacked_in += bytes;
  if (c.quick_acks > 0) {
    --c.quick_acks;
    at_once = true;
  }
  // RFC 5681 section 4.2: an ACK for every second full segment at least. All of one burst share one.
  if (at_once || c.unacked_in >= 2u * c.mss) {
    c.ack_now = true;
    mark_dirty(c);
  } else if (c.ack_at == 0) {
    c.ack_at = now_ + kDelayedAck;
    schedule(c);
  }
}

void Stack::Machine::store_out_of_order(Connection& c, uint32_t seq, const uint8_t* bytes, uint32_t size) {
  c.ack_now = true;  // RFC 5681 section 4.2: at once, so that the sender learns of the gap
  mark_dirty(c);
  ++stats_.out_of_order;
  if (stats_.bytes_queued_in + size + kPieceCost > options_.reassembly_bytes) return drop(Drop::tcp_reassembly_full);
  bool full = false;
  SackBlock known{};
  const uint32_t kept = incoming(c).insert(seq, bytes, size, full, known);
  if (full) drop(Drop::tcp_reassembly_full);
  if (known.start != known.end) {
    if (kept == 0) ++stats_.duplicates;
    c.duplicate = known;
  }
}

void Stack::Machine::deliver_frame(Connection& c, const Frame& frame, const uint8_t* bytes, uint32_t size) {
  if (c.paused || (c.in != nullptr && c.in->has_ready())) return incoming(c).push_ready(bytes, size);
  assert(!frame_kept_);
  frame_kept_ = true;
  c.data_turn = turn_;
  events_.push_back({.kind = Event::Kind::kData,
                     .conn = c.id,
                     .data = reinterpret_cast<const char*>(bytes),
                     .size = size,
                     .buffer = hand_out(frame.token, nullptr)});
}

void Stack::Machine::deliver_chunk(Connection& c, Chunk* chunk) {
  if (!wants_data(c)) return std::free(chunk);
  if (c.paused || c.in->has_ready()) return c.in->push_ready(chunk);
  c.data_turn = turn_;
  events_.push_back({.kind = Event::Kind::kData,
                     .conn = c.id,
                     .data = chunk->data,
                     .size = chunk->size,
                     .buffer = hand_out(0, chunk)});
}

// After resume(): what was kept meanwhile.
void Stack::Machine::drain_ready(Connection& c, std::vector<Event>& out, size_t& budget) {
  if (c.paused || !wants_data(c)) return;
  while (c.in != nullptr && c.in->has_ready()) {
    if (budget == 0) return mark_ready(c);
    Chunk* chunk = c.in->take_ready();
    budget -= std::min<size_t>(budget, chunk->size);
    c.data_turn = turn_;
    out.push_back({.kind = Event::Kind::kData,
                   .conn = c.id,
                   .data = chunk->data,
                   .size = chunk->size,
                   .buffer = hand_out(0, chunk)});
  }
  if (c.in != nullptr && c.in->empty()) c.in.reset();
  if (c.state == State::kClosed) {
    queue_closed(c, c.close_error);
  } else if (c.peer_finished) {
    queue_closed(c, 0);
  } else {
    update_offer(c);
  }
}

// The right edge we may promise now. Never to the left of the old one; to the right only by a worthwhile step
// (RFC 9293 section 3.8.6.2.2: silly window).
uint32_t Stack::Machine::window_to_offer(const Connection& c) const {
  const uint32_t held = c.in != nullptr ? c.in->ready_bytes() : 0;
  uint32_t room = held >= c.receive_window ? 0 : c.receive_window - held;
  // The stack's memory is short: nobody gets more than was promised already.
  if (stats_.bytes_queued_in >= options_.reassembly_bytes) room = 0;
  const uint32_t edge = c.rcv_nxt + room;
  if (!after(edge, c.rcv_edge)) return c.rcv_edge;
  const uint32_t step = std::min<uint32_t>(c.mss, c.receive_window / 2);
  if (edge - c.rcv_edge < step && c.rcv_edge != c.rcv_nxt + c.receive_window) {
    // Small steps only while the window is wide anyway.
    if (c.rcv_edge - c.rcv_nxt < step) return c.rcv_edge;
  }
  return edge;
}

// A reader that was paused has caught up: tell the peer if that makes a difference to it.
void Stack::Machine::update_offer(Connection& c) {
  const uint32_t edge = window_to_offer(c);
  if (edge - c.rcv_edge >= std::min<uint32_t>(2u * c.mss, c.receive_window / 2)) {
    c.ack_now = true;
    mark_dirty(c);
  }
}

void Stack::Machine::on_fin(Connection& c) {
  c.peer_finished = true;
  ++c.rcv_nxt;
  c.ack_now = true;
  if (c.in != nullptr) c.in->clear_gaps();
  mark_dirty(c);
  switch (c.state) {
    case State::kEstablished:
      c.state = State::kCloseWait;
      if (c.attached && !c.close_queued && (c.in == nullptr || !c.in->has_ready())) queue_closed(c, 0);
      break;
    case State::kFinWait1:
      c.state = State::kClosing;
      break;
    case State::kFinWait2:
      finish(c, true);
      break;
    default:
      break;
  }
}

}  // namespace peregrine::net::tcp
