// Opening: listeners, half-open records, SYN cookies (RFC 4987), dialling, simultaneous open (RFC 9293 section 3.5).
#include <algorithm>
#include <cassert>
#include <cerrno>

#include "net/tcp/machine.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {

constexpr int64_t kSynTimeout = kSecond;
constexpr uint8_t kCrowdedRetries = 2;  // of SYN-ACKs, when half of the table is taken
constexpr uint32_t kCookieMinute = 64;  // seconds; a cookie is good for one to two of these
// A timestamp that comes back with a cookie is younger (in ms, the bits of the options in it allowed for).
constexpr uint32_t kCookieEchoMs = 3 * kCookieMinute * 1000;
constexpr uint16_t kCookieMss[8] = {216, 536, 1024, 1220, 1380, 1440, 1460, 8940};
constexpr uint8_t kNoScale = 15;
// 512 KiB, in a flood, so that it fits a core's cache: at 200,000 a second two of three live for a second. One of 255
// made-up SYNs passes for a repeated one.
constexpr size_t kUnansweredSyns = 1u << 19;

MacAddress source_of(const Packet& packet) {
  MacAddress mac;
  std::memcpy(mac.data(), packet.source_mac, 6);
  return mac;
}

}  // namespace

const Stack::Machine::Listener* Stack::Machine::find_listener(const IpAddress& to, uint16_t port) const {
  for (const Listener& listener : listeners_) {
    if (listener.port != port) continue;
    if (!listener.address || *listener.address == to) return &listener;
    if (listener.address->is_unspecified() && listener.address->is_v4() == to.is_v4()) return &listener;
  }
  return nullptr;
}

uint8_t Stack::Machine::window_scale() const {
  uint8_t shift = 0;
  while (shift < 14 && (65535u << shift) < options_.receive_window) ++shift;
  return shift;
}

uint16_t Stack::Machine::announced_mss(uint32_t interface, bool v4) const {
  return static_cast<uint16_t>(interfaces_[interface].config.mtu - (v4 ? 40 : 60));
}

// RFC 9293 section 3.10.7.1.
void Stack::Machine::reply_reset(const Flow& flow, const Packet& packet, const Frame& frame, const Segment& segment) {
  if (segment.has(kRst)) return;
  if (!reset_limit_.take(now_)) return drop(Drop::tcp_rst_rate);
  HeaderFields fields{.source_port = flow.local_port, .destination_port = flow.remote_port};
  if (segment.has(kAck)) {
    fields.seq = segment.ack;
    fields.ack = 0;
    fields.flags = kRst;
  } else {
    fields.seq = 0;
    fields.ack = segment.seq + segment.length();
    fields.flags = kRst | kAck;
  }
  fields.window = 0;
  ++stats_.resets_out;
  emit_tcp(frame.interface, source_of(packet), flow.local, flow.remote, fields, 0, {});
}

// ---- Accepting

void Stack::Machine::on_syn(const Flow& flow, uint32_t hash, const Packet& packet, const Frame& frame,
                            const Segment& segment) {
  const Listener* listener = find_listener(flow.local, flow.local_port);
  if (listener == nullptr) {
    drop(Drop::tcp_no_listener);
    return reply_reset(flow, packet, frame, segment);
  }
  if (stats_.half_open >= options_.max_half_open) {
    if (!options_.syn_cookies) return drop(Drop::tcp_backlog);
    return send_cookie(flow, packet, frame, segment);
  }
  if (!unanswered_syns_.empty() && now_ >= cookies_until_) unanswered_syns_ = {};
  uint32_t index;
  if (free_half_open_.empty()) {
    index = static_cast<uint32_t>(half_open_.size());
    half_open_.emplace_back();
  } else {
    index = free_half_open_.back();
    free_half_open_.pop_back();
  }
  HalfOpen& h = half_open_[index];
  h.machine = this;
  h.index = index;
  h.used = true;
  h.flow = flow;
  h.hash = hash;
  h.interface = frame.interface;
  h.mac = source_of(packet);
  h.mss = segment.mss != 0 ? segment.mss : flow.local.is_v4() ? 536 : 1220;
  h.irs = segment.seq;
  h.iss = make_isn(flow);
  if (least_isn_) h.iss = later(h.iss, *least_isn_);
  h.sack = options_.sack && segment.sack_permitted;
  h.timestamps = options_.timestamps && segment.has_timestamp;
  h.ts_recent = segment.timestamp;
  h.window_scale = options_.window_scale ? segment.window_scale : -1;
  h.ecn = options_.ecn && (segment.flags & (kEce | kCwr)) == (kEce | kCwr);
  h.user_timeout_s = segment.user_timeout_s;
  h.listener = listener->number;
  h.retries = 0;
  flows_.insert(hash, RecordRef(RecordKind::kHalfOpen, index));
  ++stats_.half_open;
  send_syn_ack(h);
}

void Stack::Machine::send_syn_ack(HalfOpen& h) {
  HeaderFields fields{.source_port = h.flow.local_port,
                      .destination_port = h.flow.remote_port,
                      .seq = h.iss,
                      .ack = h.irs + 1,
                      .flags = static_cast<uint8_t>(kSyn | kAck | (h.ecn ? kEce : 0)),
                      .window = static_cast<uint16_t>(std::min(options_.initial_window, 65535u)),
                      .mss = announced_mss(h.interface, h.flow.local.is_v4()),
                      .window_scale = static_cast<int8_t>(h.window_scale >= 0 ? window_scale() : -1),
                      .sack_permitted = h.sack,
                      .has_timestamp = h.timestamps,
                      .user_timeout = announced_user_timeout()};
  fields.timestamp = timestamp_now(timestamp_offset(h.flow));
  fields.timestamp_echo = h.ts_recent;
  emit_tcp(h.interface, h.mac, h.flow.local, h.flow.remote, fields, 0, {});
  wheel_.arm(h.timer, now_ + (kSynTimeout << std::min<unsigned>(h.retries, 6)), &h, [](void* context) {
    auto* half = static_cast<HalfOpen*>(context);
    static_cast<Machine*>(half->machine)->half_open_timer(*half);
  });
}

void Stack::Machine::half_open_timer(HalfOpen& h) {
  const bool crowded = stats_.half_open * 2 > options_.max_half_open;
  if (h.retries >= (crowded ? kCrowdedRetries : options_.syn_ack_retries)) {
    ++stats_.half_open_expired;
    return free_half_open(h);
  }
  ++h.retries;
  send_syn_ack(h);
}

void Stack::Machine::free_half_open(HalfOpen& h) {
  h.timer.cancel();
  h.used = false;
  flows_.remove(h.hash, RecordRef(RecordKind::kHalfOpen, h.index));
  free_half_open_.push_back(h.index);
  --stats_.half_open;
}

void Stack::Machine::on_half_open(HalfOpen& h, const Packet& packet, const Frame& frame, const Segment& segment) {
  const uint32_t window = std::min(options_.initial_window, 65535u);
  if (segment.has(kRst)) {
    // RFC 5961 section 3 holds here too; the record is gone either way by its timer, so only the exact one counts.
    if (segment.seq != h.irs + 1) return drop(Drop::tcp_rst_ignored);
    ++stats_.resets_in;
    ++stats_.half_open_dropped;
    return free_half_open(h);
  }
  if (segment.has(kSyn)) {
    if (segment.has(kAck)) return drop(Drop::tcp_syn_challenged);
    if (segment.seq == h.irs) {
      h.mac = source_of(packet);  // routes move, and the first frame's word is no better than the last's
      return send_syn_ack(h);
    }
    drop(Drop::tcp_syn_challenged);
    if (!challenge_reply_limit_.take(now_)) return;
    ++stats_.challenge_acks;
    HeaderFields fields{.source_port = h.flow.local_port,
                        .destination_port = h.flow.remote_port,
                        .seq = h.iss + 1,
                        .ack = h.irs + 1,
                        .flags = kAck,
                        .window = static_cast<uint16_t>(window)};
    emit_tcp(h.interface, h.mac, h.flow.local, h.flow.remote, fields, 0, {});
    return;
  }
  if (!segment.has(kAck)) return drop(Drop::tcp_no_ack);
  if (segment.ack != h.iss + 1) {
    drop(Drop::tcp_ack_out_of_range);
    return reply_reset(h.flow, packet, frame, segment);
  }
  if (h.timestamps && segment.has_timestamp && before(segment.timestamp, h.ts_recent)) return drop(Drop::tcp_paws);
  if (segment.seq - (h.irs + 1) >= window) return drop(Drop::tcp_out_of_window);
  const HalfOpen copy{.flow = h.flow,
                      .hash = h.hash,
                      .interface = h.interface,
                      .mac = h.mac,
                      .mss = h.mss,
                      .irs = h.irs,
                      .iss = h.iss,
                      .ts_recent = h.ts_recent,
                      .listener = h.listener,
                      .user_timeout_s = h.user_timeout_s,
                      .window_scale = h.window_scale,
                      .retries = h.retries,
                      .sack = h.sack,
                      .timestamps = h.timestamps,
                      .ecn = h.ecn};
  free_half_open(h);
  accept(copy, packet, frame, segment);
}

void Stack::Machine::accept(const HalfOpen& h, const Packet& packet, const Frame& frame, const Segment& segment) {
  if (stats_.connections >= options_.max_connections) {
    drop(Drop::tcp_memory);
    return reply_reset(h.flow, packet, frame, segment);
  }
  Connection& c = make_connection(h.flow, h.hash, h.interface);
  c.tag = h.listener;
  c.iss = h.iss;
  c.snd_una = c.snd_nxt = c.snd_end = h.iss + 1;
  c.irs = h.irs;
  c.rcv_nxt = c.last_ack_sent = c.window_epoch = h.irs + 1;
  c.rcv_edge = c.rcv_nxt + std::min(options_.initial_window, 65535u);
  c.peer_mss = h.mss;
  c.sack = h.sack;
  c.ecn = h.ecn;
  c.timestamps = h.timestamps;
  c.ts_recent = h.ts_recent;
  c.ts_recent_at = now_;
  c.window_scaling = h.window_scale >= 0;
  c.send_scale = c.window_scaling ? static_cast<uint8_t>(h.window_scale) : 0;
  c.receive_scale = c.window_scaling ? window_scale() : 0;
  update_mss(c);
  adopt_user_timeout(c, h.user_timeout_s);
  c.congestion.start(options_.congestion, c.mss);
  c.rack_end = c.rack_forward = c.recovery_point = c.cwr_point = c.iss + 1;
  // RFC 6298 section 5.7 and 6928: a SYN-ACK that had to be repeated is a sign of loss.
  if (h.retries > 0) c.congestion.set_window(c.mss);
  c.snd_wnd = c.max_snd_wnd = uint32_t{segment.window} << c.send_scale;
  c.snd_wl1 = segment.seq;
  c.snd_wl2 = segment.ack;
  c.state = State::kEstablished;
  // The handshake has shown that the peer is where it says, and on a shared link, behind which MAC.
  if (on_link(h.interface, h.flow.remote)) {
    c.neighbour = use_neighbour(h.interface, h.flow.remote);
    if (!neighbours_[c.neighbour].usable()) learn(h.interface, h.flow.remote, source_of(packet), true, true);
  }
  ++stats_.accepted;
  c.attached = true;
  events_.push_back({.kind = Event::Kind::kAccepted, .conn = c.id, .listener = h.listener});
  start_keepalive(c);
  Segment copy = segment;
  on_segment(c, packet, frame, copy);
}

// ---- SYN cookies: the SYN-ACK's number carries what a half-open record would have kept; its timestamp the rest.

uint32_t Stack::Machine::cookie_hash(const Flow& flow, uint32_t irs, uint32_t minute) const {
  return static_cast<uint32_t>(keyed(flow, 3, uint64_t{irs} << 32 | minute)) & 0xffffff;
}

// An answer costs more than all that is done before it, and under a flood the established connections pay. So beyond a
// rate a first SYN is only remembered, before anything else is done about it; its sender, if there is one, repeats it
// after a second (RFC 6298) and is answered then. Made-up senders do not repeat themselves; a flood that does pays
// double for half the answers. `mixed`: a keyed hash of the SYN, the same when it is repeated.
bool Stack::Machine::worth_a_look(uint64_t mixed) {
  const auto tag = static_cast<uint8_t>(std::max<uint64_t>(mixed >> 56, 1));
  const size_t at = mixed % kUnansweredSyns;
  if (!unanswered_syns_.empty() && unanswered_syns_[at] == tag) {
    if (!repeated_syn_limit_.take(now_)) return false;
    unanswered_syns_[at] = 0;
    return true;
  }
  if (cookie_limit_.take(now_)) return true;
  if (unanswered_syns_.empty()) unanswered_syns_.resize(kUnansweredSyns);
  unanswered_syns_[at] = tag;
  return false;
}

void Stack::Machine::send_cookie(const Flow& flow, const Packet& packet, const Frame& frame, const Segment& segment) {
  const auto minute = static_cast<uint32_t>(now_ / kSecond / kCookieMinute);
  const uint16_t mss = segment.mss != 0 ? segment.mss : 536;
  uint32_t step = 0;
  while (step < 7 && kCookieMss[step + 1] <= mss) ++step;
  const bool timestamps = options_.timestamps && segment.has_timestamp;
  // Scale and SACK need the timestamp to come back; without one the connection goes without them.
  const int8_t scale = timestamps && options_.window_scale ? segment.window_scale : int8_t{-1};
  const bool sack = timestamps && options_.sack && segment.sack_permitted;
  const bool ecn = timestamps && options_.ecn && (segment.flags & (kEce | kCwr)) == (kEce | kCwr);
  HeaderFields fields{.source_port = flow.local_port,
                      .destination_port = flow.remote_port,
                      .seq = (minute & 31) << 27 | step << 24 | cookie_hash(flow, segment.seq, minute),
                      .ack = segment.seq + 1,
                      .flags = static_cast<uint8_t>(kSyn | kAck | (ecn ? kEce : 0)),
                      .window = static_cast<uint16_t>(std::min(options_.initial_window, 65535u)),
                      .mss = announced_mss(frame.interface, flow.local.is_v4()),
                      .window_scale = static_cast<int8_t>(scale >= 0 ? window_scale() : -1),
                      .sack_permitted = sack,
                      .has_timestamp = timestamps};
  if (timestamps) {
    const uint32_t now = timestamp_now(timestamp_offset(flow));
    const uint32_t bits = (scale >= 0 ? static_cast<uint32_t>(scale) : kNoScale) | (sack ? 16u : 0) | (ecn ? 32u : 0);
    fields.timestamp = (now & ~63u) | bits;
    if (after(fields.timestamp, now)) fields.timestamp -= 64;
    fields.timestamp_echo = segment.timestamp;
  }
  ++stats_.syn_cookies_sent;
  cookies_until_ = now_ + 2 * kCookieMinute * kSecond;
  emit_tcp(frame.interface, source_of(packet), flow.local, flow.remote, fields, 0, {});
}

bool Stack::Machine::on_cookie(const Flow& flow, uint32_t hash, const Packet& packet, const Frame& frame,
                               const Segment& segment) {
  if (now_ >= cookies_until_) return false;
  const Listener* listener = find_listener(flow.local, flow.local_port);
  if (listener == nullptr) return false;
  const uint32_t cookie = segment.ack - 1, irs = segment.seq - 1;
  const auto current = static_cast<uint32_t>(now_ / kSecond / kCookieMinute);
  const uint32_t age = (current - (cookie >> 27)) & 31;
  const uint32_t minute = current - age;
  const bool timestamps = segment.has_timestamp && options_.timestamps;
  const bool echoed_lately =
      !timestamps || timestamp_now(timestamp_offset(flow)) - segment.timestamp_echo <= kCookieEchoMs;
  if (age > 1 || !echoed_lately || (cookie & 0xffffff) != cookie_hash(flow, irs, minute)) {
    drop(Drop::tcp_cookie_invalid);
    // Data that overtook the first segment looks like this, and so does the answer to a repeated SYN-ACK: no reset, its
    // sender will repeat the first one. But what acknowledges or echoes none of our late answers is of a connection
    // that is gone, with whoever was here before us, say: it shall hear so at once, and its port is free again.
    return age <= 1 && echoed_lately;
  }
  HalfOpen h;
  h.flow = flow;
  h.hash = hash;
  h.interface = frame.interface;
  h.mac = source_of(packet);
  h.mss = kCookieMss[(cookie >> 24) & 7];
  h.irs = irs;
  h.iss = cookie;
  h.listener = listener->number;
  if (timestamps) {
    const uint32_t echoed = segment.timestamp_echo;
    h.timestamps = true;
    h.ts_recent = segment.timestamp;
    h.window_scale = (echoed & 15) == kNoScale ? int8_t{-1} : static_cast<int8_t>(echoed & 15);
    h.sack = (echoed & 16) != 0;
    h.ecn = (echoed & 32) != 0;
  }
  ++stats_.syn_cookies_accepted;
  accept(h, packet, frame, segment);
  return true;
}

// ---- Dialling

void Stack::Machine::dial_failed(uint64_t tag, int error) {
  ++stats_.connect_failed;
  events_.push_back({.kind = Event::Kind::kDialFailed, .error = error, .tag = tag});
}

void Stack::Machine::dial(const IpAddress& to, uint16_t port, uint64_t tag, int64_t timeout_ns) {
  uint32_t interface = 0;
  IpAddress next_hop;
  Flow flow;
  flow.remote = to;
  flow.remote_port = port;
  if (port == 0 || to.is_unspecified() || to.is_multicast()) return dial_failed(tag, -EADDRNOTAVAIL);
  if (is_local(to)) return dial_failed(tag, -EADDRNOTAVAIL);  // no loopback: that is the kernel's
  if (!route(to, interface, next_hop) || !source_for(interface, to, flow.local)) return dial_failed(tag, -ENETUNREACH);
  if (stats_.connections >= options_.max_connections) return dial_failed(tag, -ENOBUFS);
  // RFC 6056 algorithm 1: random, and try again while taken; the port decides whose the answers are.
  uint32_t hash = 0;
  bool taken = true;
  for (int attempt = 0; attempt < 1024 && taken; ++attempt) {
    flow.local_port = static_cast<uint16_t>(32768 + random_.below(28232));
    flow.local_port = port_.choose_local_port(flow);
    if (flow.local_port == 0) continue;
    hash = flows_.hash(flow);
    find(flow, hash, taken);
  }
  if (taken) return dial_failed(tag, -EADDRNOTAVAIL);
  Connection& c = make_connection(flow, hash, interface);
  c.dialed = true;
  c.tag = tag;
  c.iss = make_isn(flow);
  c.snd_una = c.iss;
  c.snd_nxt = c.snd_end = c.iss + 1;
  c.state = State::kSynSent;
  c.syn_due = true;
  c.timestamps = options_.timestamps;
  c.owner_at = now_ + std::max<int64_t>(timeout_ns, kMillisecond);
  schedule(c);
  mark_dirty(c);
}

bool Stack::Machine::send_syn(Connection& c, const MacAddress& mac) {
  const bool answer = c.state == State::kSynReceived;
  HeaderFields fields{.source_port = c.flow.local_port,
                      .destination_port = c.flow.remote_port,
                      .seq = c.iss,
                      .ack = answer ? c.rcv_nxt : 0,
                      .flags = static_cast<uint8_t>(answer ? kSyn | kAck : kSyn),
                      .window = static_cast<uint16_t>(std::min(c.receive_window, 65535u)),
                      .mss = announced_mss(c.interface, c.flow.local.is_v4()),
                      .sack_permitted = answer ? c.sack : options_.sack,
                      .has_timestamp = answer ? bool{c.timestamps} : options_.timestamps,
                      .user_timeout = announced_user_timeout()};
  if (answer ? bool{c.window_scaling} : options_.window_scale)
    fields.window_scale = static_cast<int8_t>(window_scale());
  fields.timestamp = timestamp_now(c.ts_offset);
  fields.timestamp_echo = answer ? c.ts_recent : 0;
  if (!emit_tcp(c.interface, mac, c.flow.local, c.flow.remote, fields, 0, {})) return false;
  c.syn_due = false;
  c.sent_at = now_;
  if (answer) {
    c.last_ack_sent = c.rcv_nxt;
    c.rcv_edge = c.rcv_nxt + fields.window;
  }
  c.rto_at = now_ + std::min<int64_t>(RoundTrip::kInitial << std::min<unsigned>(c.backoff, 6), RoundTrip::kMaximum);
  schedule(c);
  return true;
}

void Stack::Machine::agree(Connection& c, const Segment& syn) {
  c.irs = syn.seq;
  c.rcv_nxt = c.last_ack_sent = c.window_epoch = syn.seq + 1;
  c.rcv_edge = c.rcv_nxt + std::min(c.receive_window, 65535u);
  c.peer_mss = syn.mss != 0 ? syn.mss : c.flow.local.is_v4() ? 536 : 1220;
  c.sack = options_.sack && syn.sack_permitted;
  c.timestamps = options_.timestamps && syn.has_timestamp;
  c.ts_recent = syn.timestamp;
  c.ts_recent_at = now_;
  c.window_scaling = options_.window_scale && syn.window_scale >= 0;
  c.send_scale = c.window_scaling ? static_cast<uint8_t>(syn.window_scale) : 0;
  c.receive_scale = c.window_scaling ? window_scale() : 0;
  update_mss(c);
  adopt_user_timeout(c, syn.user_timeout_s);
  c.congestion.start(options_.congestion, c.mss);
  c.rack_end = c.rack_forward = c.recovery_point = c.cwr_point = c.iss + 1;
}

// RFC 5482 section 3.1: a wish counts unless our own owner has said (CHANGEABLE).
void Stack::Machine::adopt_user_timeout(Connection& c, uint32_t seconds) {
  if (options_.user_timeout_ns != 0 || seconds == 0) return;
  c.user_timeout_ms = std::clamp(seconds, kLeastUserTimeoutS, kMostUserTimeoutS) * 1000;
}

// In seconds, or in minutes where those are too many for 15 bits.
uint16_t Stack::Machine::announced_user_timeout() const {
  const int64_t seconds = (options_.user_timeout_ns + kSecond - 1) / kSecond;
  return static_cast<uint16_t>(seconds <= 0x7fff ? seconds : 0x8000 | std::min<int64_t>(seconds / 60, 0x7fff));
}

void Stack::Machine::established(Connection& c) {
  c.state = State::kEstablished;
  c.attached = true;
  c.owner_at = 0;
  c.rto_at = 0;
  if (c.retries > 0) c.congestion.set_window(c.mss);
  c.backoff = c.retries = 0;
  ++stats_.connected;
  events_.push_back({.kind = Event::Kind::kDialed, .conn = c.id, .tag = c.tag});
  start_keepalive(c);
}

// RFC 9293 section 3.10.7.3.
void Stack::Machine::on_syn_sent(Connection& c, const Packet& packet, const Segment& segment) {
  (void)packet;
  const bool ack_good = segment.has(kAck) && segment.ack == c.iss + 1;
  if (segment.has(kAck) && !ack_good) {
    drop(Drop::tcp_ack_out_of_range);
    if (!segment.has(kRst) && reset_limit_.take(now_)) {
      HeaderFields fields{.source_port = c.flow.local_port,
                          .destination_port = c.flow.remote_port,
                          .seq = segment.ack,
                          .ack = 0,
                          .flags = kRst,
                          .window = 0};
      MacAddress mac;
      ++stats_.resets_out;
      if (neighbour_ready(c, mac)) emit_tcp(c.interface, mac, c.flow.local, c.flow.remote, fields, 0, {});
    }
    return;
  }
  if (segment.has(kRst)) {
    if (!ack_good) return drop(Drop::tcp_rst_ignored);
    ++stats_.resets_in;
    return reset(c, -ECONNREFUSED);
  }
  if (!segment.has(kSyn)) return drop(Drop::tcp_no_ack);
  agree(c, segment);
  c.received_at = now_;
  if (ack_good) {
    c.snd_una = c.iss + 1;
    if (c.retries == 0) c.rtt.sample(now_ - c.sent_at);
    // RFC 7323 section 2.2: the window of a SYN is never scaled.
    c.snd_wnd = c.max_snd_wnd = segment.window;
    c.snd_wl1 = segment.seq;
    c.snd_wl2 = segment.ack;
    confirm(c);
    established(c);
    c.ack_now = true;
  } else {
    c.state = State::kSynReceived;
    c.snd_wnd = c.max_snd_wnd = segment.window;
    c.snd_wl1 = segment.seq;
    c.syn_due = true;
    c.backoff = 0;
  }
  mark_dirty(c);
}

}  // namespace peregrine::net::tcp
