#include "net/tcp/machine.h"

#include <cassert>
#include <cerrno>
#include <cstdlib>

#include "net/tcp/siphash.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

const char* state_name(State state) {
  static constexpr const char* kNames[] = {"CLOSED",     "SYN_SENT",   "SYN_RECEIVED", "ESTABLISHED", "FIN_WAIT_1",
                                           "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING",      "LAST_ACK"};
  return kNames[static_cast<size_t>(state)];
}

Stack::Machine::Machine(const Options& options, Port& port, int64_t now_ns)
    : options_(options),
      port_(port),
      now_(now_ns),
      random_(options.seed),
      key_{options.secret[0] ^ 0x51ed270b7f3c2d4du, options.secret[1] ^ 0xa0761d6478bd642fu},
      wheel_(now_ns),
      flows_(options.secret[1] ^ 0xe7037ed1a0b428dbu, options.secret[0] ^ 0x8ebc6af09c88c6e3u),
      neighbour_by_address_(16, AddressHash{options.secret[0]}),
      path_mtus_(16, AddressHash{options.secret[1]}),
      filler_(port),
      cookie_limit_(options.cookies_per_second, options.cookies_per_second),
      repeated_syn_limit_(options.cookies_per_second, options.cookies_per_second),
      reset_limit_(options.resets_per_second, options.resets_per_second) {}

Stack::Machine::~Machine() {
  for (const Handed& handed : handed_) {
    if (!handed.used) continue;
    if (handed.chunk != nullptr) {
      std::free(handed.chunk);
    } else {
      port_.free_frame(handed.token);
    }
  }
  for (auto& c : connections_) {
    if (c != nullptr && c->reference != nullptr) c->reference->abandon();
  }
}

// ---- Tables

uint64_t Stack::Machine::keyed(const Flow& flow, uint64_t purpose, uint64_t extra) const {
  uint64_t words[6];
  std::memcpy(words, flow.local.bytes.data(), 16);
  std::memcpy(words + 2, flow.remote.bytes.data(), 16);
  words[4] = purpose << 32 | uint64_t{flow.local_port} << 16 | flow.remote_port;
  words[5] = extra;
  return siphash(key_, words);
}

uint32_t Stack::Machine::timestamp_offset(const Flow& flow) const {
  if (options_.fixed_timestamp_offset) return *options_.fixed_timestamp_offset;
  return static_cast<uint32_t>(keyed(flow, 1, 0));
}

// RFC 6528: a clock of 4 us plus a keyed hash of the addresses.
uint32_t Stack::Machine::make_isn(const Flow& flow) const {
  if (options_.fixed_isn) return *options_.fixed_isn;
  return static_cast<uint32_t>(keyed(flow, 2, 0)) + static_cast<uint32_t>(now_ / 4000);
}

RecordRef Stack::Machine::find(const Flow& flow, uint32_t hash, bool& found) const {
  const uint32_t raw = flows_.find(hash, [&](RecordRef ref) {
    switch (ref.kind()) {
      case RecordKind::kConnection:
        return connections_[ref.index()]->flow == flow;
      case RecordKind::kHalfOpen:
        return half_open_[ref.index()].flow == flow;
      default:
        return time_wait_[ref.index()].flow == flow;
    }
  });
  found = raw != FlowTable::kEmpty;
  return RecordRef(raw);
}

Connection& Stack::Machine::make_connection(const Flow& flow, uint32_t hash, uint32_t interface) {
  uint32_t id;
  if (!free_ids_.empty()) {
    id = free_ids_.back();
    free_ids_.pop_back();
  } else {
    id = static_cast<uint32_t>(connections_.size());
    connections_.emplace_back();
  }
  connections_[id] = std::make_unique<Connection>();
  Connection& c = *connections_[id];
  c.machine = this;
  c.id = id;
  c.flow = flow;
  c.hash = hash;
  c.interface = interface;
  c.ts_offset = timestamp_offset(flow);
  c.path_mtu = known_path_mtu(flow.remote, interface);
  c.receive_window = options_.initial_window;
  c.quick_acks = kQuickAcks;
  c.received_at = now_;
  c.user_timeout_ms = static_cast<uint32_t>(std::min<int64_t>(options_.user_timeout_ns / kMillisecond, INT32_MAX));
  flows_.insert(hash, RecordRef(RecordKind::kConnection, id));
  ++stats_.connections;
  return c;
}

// The TCB goes; its owner, if any, has had its last event.
void Stack::Machine::destroy(Connection& c) {
  assert(!c.attached);
  forget(c);
  drop_data(c);
  if (c.reference != nullptr) c.reference->abandon();
  leave_neighbour(c.neighbour);
  flows_.remove(c.hash, RecordRef(RecordKind::kConnection, c.id));
  --stats_.connections;
  const uint32_t id = c.id;
  connections_[id].reset();
  retired_ids_.push_back(id);
}

Connection* Stack::Machine::attached(ConnId id) {
  if (id >= connections_.size() || connections_[id] == nullptr || !connections_[id]->attached) return nullptr;
  return connections_[id].get();
}

void Stack::Machine::mark_dirty(Connection& c) {
  if (c.dirty) return;
  c.dirty = true;
  dirty_.push_back(c.id);
}

void Stack::Machine::mark_ready(Connection& c) {
  if (c.in_ready_list) return;
  c.in_ready_list = true;
  ready_.push_back(c.id);
}

// ---- Frames in

void Stack::Machine::input(const Frame& frame, int64_t now_ns) {
  now_ = now_ns;
  ++stats_.frames_in;
  frame_kept_ = false;
  if (input_known(frame)) {
    if (!frame_kept_) port_.free_frame(frame.token);
    return;
  }
  looked_at_ = false;
  if (flooded() && !survives_flood(frame)) return port_.free_frame(frame.token);
  Packet packet;
  Drop reason = frame.interface < interfaces_.size() ? parse_packet(frame, packet) : Drop::frame_not_for_us;
  if (frame.interface < interfaces_.size() && frame.size >= 14) {
    const Interface& config = interfaces_[frame.interface].config;
    const bool multicast = (frame.data[0] & 1) != 0;
    if (!multicast && std::memcmp(frame.data, config.mac.data(), 6) != 0) {
      reason = Drop::frame_not_for_us;
    } else if (packet.vlan != config.vlan && packet.ethertype != 0) {
      reason = Drop::vlan_mismatch;
    } else if (reason == kNotDropped || packet.fragment) {
      if (packet.ethertype == kEtherArp) {
        input_arp(packet, frame);
      } else {
        const IpAddress source = packet.source_address();
        const bool neighbour_protocol = packet.protocol == kProtocolIcmpv6;
        if (source.is_multicast() || (source.is_unspecified() && !neighbour_protocol) || is_local(source)) {
          reason = packet.ipv6 ? Drop::ipv6_source : Drop::ipv4_source;
        } else if (!neighbour_protocol && !owns(frame.interface, packet.destination_address())) {
          reason = packet.ipv6 ? Drop::ipv6_not_ours : Drop::ipv4_not_ours;
        } else if (reason != kNotDropped) {
          // A fragment for us: dropped and counted below.
        } else if (packet.protocol == kProtocolTcp) {
          // RFC 1122 section 4.2.3.10: nothing sent to many reaches TCP.
          if (multicast) {
            reason = Drop::frame_not_for_us;
          } else {
            input_tcp(packet, frame);
          }
        } else if (packet.protocol == kProtocolIcmp && !packet.ipv6) {
          input_icmp(packet, frame);
        } else if (packet.protocol == kProtocolIcmpv6 && packet.ipv6) {
          input_icmpv6(packet, frame);
        } else {
          reason = packet.ipv6 ? Drop::ipv6_protocol : Drop::ipv4_protocol;
          if (!multicast && !frame.overheard) send_unreachable(packet, frame, 3, 2, 4, 1, 6);
        }
      }
    }
  }
  if (reason != kNotDropped) drop(reason);
  if (!frame_kept_) port_.free_frame(frame.token);
}

void Stack::Machine::input_tcp(const Packet& packet, const Frame& frame) {
  Segment segment;
  const Drop reason = parse_segment(packet.body, packet.body_bytes, segment);
  if (reason != kNotDropped) return drop(reason);
  const Flow flow{packet.destination_address(), packet.source_address(), segment.destination_port, segment.source_port};
  const uint32_t hash = flows_.hash(flow);
  // In a flood most SYNs get no further than this, whatever they are for: who means it says it again.
  if (segment.has(kSyn) && !segment.has(kAck) && flooded() && !frame.overheard && !looked_at_ &&
      !worth_a_look(core::fold_multiply(uint64_t{hash} << 32 | segment.seq, key_[0] | 1))) {
    ++stats_.segments_in;
    return drop(Drop::tcp_syn_rate);
  }
  if (!frame.l4_checksum_good) {
    Checksum sum;
    add_pseudo_header(sum, packet.ipv6, packet.source, packet.destination, packet.body_bytes, kProtocolTcp);
    sum.add(packet.body, packet.body_bytes);
    if (!sum.good()) return drop(Drop::tcp_checksum);
  }
  if (frame.overheard) return;
  ++stats_.segments_in;
  bool found;
  const RecordRef ref = find(flow, hash, found);
  if (found) {
    switch (ref.kind()) {
      case RecordKind::kConnection:
        on_segment(*connections_[ref.index()], packet, frame, segment);
        if (const Connection* c = connections_[ref.index()].get()) remember(*c, frame, packet);
        return;
      case RecordKind::kHalfOpen:
        return on_half_open(half_open_[ref.index()], packet, frame, segment);
      case RecordKind::kTimeWait:
        return on_time_wait(time_wait_[ref.index()], hash, packet, frame, segment);
    }
  }
  if (segment.has(kRst)) return drop(Drop::tcp_rst_ignored);
  if (segment.has(kSyn) && !segment.has(kAck)) return on_syn(flow, hash, packet, frame, segment);
  if (segment.has(kAck) && !segment.has(kSyn) && on_cookie(flow, hash, packet, frame, segment)) return;
  drop(Drop::tcp_no_connection);
  reply_reset(flow, packet, frame, segment);
}

// ---- Events out

uint32_t Stack::Machine::hand_out(uint64_t token, Chunk* chunk) {
  if (free_handed_.empty()) {
    handed_.push_back({token, chunk, true});
    return static_cast<uint32_t>(handed_.size() - 1);
  }
  const uint32_t index = free_handed_.back();
  free_handed_.pop_back();
  handed_[index] = {token, chunk, true};
  return index;
}

void Stack::Machine::release(const Event& event) {
  if (event.kind != Event::Kind::kData) return;
  Handed& handed = handed_[event.buffer];
  assert(handed.used);
  handed.used = false;
  if (handed.chunk != nullptr) {
    std::free(handed.chunk);
  } else {
    port_.free_frame(handed.token);
  }
  free_handed_.push_back(event.buffer);
}

void Stack::Machine::acquire(std::vector<Event>& out, size_t max_bytes) {
  free_ids_.insert(free_ids_.end(), retired_ids_.begin(), retired_ids_.end());
  retired_ids_.clear();
  size_t budget = max_bytes;
  for (const Event& event : events_) budget -= std::min<size_t>(budget, event.size);
  out.insert(out.end(), events_.begin(), events_.end());
  events_.clear();
  for (size_t n = ready_.size(); n > 0 && budget > 0; --n) {
    const uint32_t id = ready_.front();
    ready_.erase(ready_.begin());
    Connection* c = connections_[id].get();
    if (c == nullptr || !c->in_ready_list) continue;
    c->in_ready_list = false;
    drain_ready(*c, out, budget);
  }
  emit_closed(out);
  ++turn_;
}

// ---- The owner's calls

uint32_t Stack::Machine::send_room(const Connection& c) const {
  // As the kernel does: room for twice the window, so that ACKs always find something to send behind them.
  const uint64_t wanted = std::max<uint64_t>(65536, 2ull * c.congestion.window());
  const auto limit = static_cast<uint32_t>(std::min<uint64_t>(wanted, options_.send_buffer));
  const uint32_t used = c.snd_end - c.snd_una;
  return used >= limit ? 0 : limit - used;
}

SendResult Stack::Machine::send(ConnId id, std::span<const iovec> iov) {
  Connection* c = attached(id);
  if (c == nullptr || c->state == State::kClosed || c->fin_queued) {
    // Reset, with bytes unread: the caller waits for kClosed now.
    if (c != nullptr && c->state == State::kClosed && !c->close_queued) {
      drop_data(*c);
      queue_closed(*c, c->close_error);
    }
    return {SendResult::Status::kFailed, 0, -EPIPE};
  }
  uint32_t room = c->reference != nullptr ? 0 : send_room(*c);
  uint32_t taken = 0;
  ReferenceSend* reference = nullptr;
  uint32_t total = 0;
  for (const iovec& piece : iov) total += static_cast<uint32_t>(std::min<size_t>(piece.iov_len, kLargestReference));
  room = std::min(room, kLargestReference);
  if (total == 0) return {SendResult::Status::kDone, 0, 0};
  if (room > 0 && c->out == nullptr) c->out = std::make_unique<Outgoing>(c->snd_end);
  for (const iovec& piece : iov) {
    if (room == 0) break;
    const auto n = static_cast<uint32_t>(std::min<size_t>(piece.iov_len, room));
    if (n == 0) continue;
    const auto* bytes = static_cast<const uint8_t*>(piece.iov_base);
    if (n >= options_.reference_bytes) {
      if (reference == nullptr) reference = new ReferenceSend(this, id);
      c->out->queue.append_reference(bytes, n, reference);
    } else {
      c->out->queue.append_copy(filler_, bytes, n);
    }
    taken += n;
    room -= n;
  }
  if (taken == 0) {
    c->write_blocked = true;
    return {SendResult::Status::kBlocked, 0, 0};
  }
  c->snd_end += taken;
  stats_.bytes_queued_out += taken;
  mark_dirty(*c);
  if (reference == nullptr) return {SendResult::Status::kDone, taken, 0};
  c->reference = reference;
  reference->arm(taken);
  return {SendResult::Status::kPending, 0, 0};
}

void Stack::Machine::pause(ConnId id) {
  if (Connection* c = attached(id)) c->paused = true;
}

void Stack::Machine::resume(ConnId id) {
  Connection* c = attached(id);
  if (c == nullptr || !c->paused) return;
  c->paused = false;
  if ((c->in != nullptr && c->in->has_ready()) || c->peer_finished || c->state == State::kClosed) mark_ready(*c);
}

// ---- Time

bool Stack::Machine::flush() {
  port_full_ = false;
  for (InterfaceState& interface : interfaces_) {
    if (interface.announce_due && interface.up) {
      interface.announce_due = false;
      announce(static_cast<uint32_t>(&interface - interfaces_.data()));
    }
  }
  size_t i = 0;
  for (; i < dirty_.size(); ++i) {
    Connection* c = connections_[dirty_[i]].get();
    if (c == nullptr || !c->dirty) continue;
    if (!output(*c)) break;
    c->dirty = false;
  }
  dirty_.erase(dirty_.begin(), dirty_.begin() + static_cast<ptrdiff_t>(i));
  return !dirty_.empty();
}

void Stack::Machine::advance() { wheel_.advance(now_); }

int64_t Stack::Machine::next_ns() const {
  if (!events_.empty() || !dirty_.empty() || !ready_.empty()) return now_;
  for (const uint32_t id : pending_close_) {
    if (connections_[id]->reference == nullptr) return now_;
  }
  return wheel_.next_ns();
}

bool Stack::Machine::quiet() const {
  return stats_.connections == 0 && events_.empty() && dirty_.empty() && pending_close_.empty();
}

void Stack::Machine::timer_fired(void* context) {
  auto* c = static_cast<Connection*>(context);
  static_cast<Machine*>(c->machine)->on_timer(*c);
}

void Stack::Machine::schedule(Connection& c) {
  int64_t first = INT64_MAX;
  for (const int64_t at : {c.rto_at, c.probe_at, c.ack_at, c.keepalive_at, c.owner_at}) {
    if (at != 0 && at < first) first = at;
  }
  if (first == INT64_MAX) return;
  // Deadlines mostly move later; an armed timer that fires too early costs less than moving it with every ACK.
  if (c.timer.armed() && c.timer.at_ns() <= first + kMillisecond) return;
  wheel_.arm(c.timer, first, &c, &timer_fired);
}

void Stack::Machine::on_timer(Connection& c) {
  const uint32_t id = c.id;
  const auto due = [this](int64_t& at) {
    if (at == 0 || at > now_) return false;
    at = 0;
    return true;
  };
  if (due(c.ack_at)) {
    c.ack_now = true;
    mark_dirty(c);
  }
  if (due(c.probe_at)) on_probe_timer(c);
  if (due(c.rto_at)) on_rto(c);
  if (connections_[id] == nullptr) return;
  if (due(c.keepalive_at)) on_keepalive(c);
  if (connections_[id] == nullptr) return;
  if (due(c.owner_at)) owner_timer(c);
  if (connections_[id] == nullptr) return;
  schedule(c);
}

}  // namespace peregrine::net::tcp
