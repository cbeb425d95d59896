#include "core/delivery.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "core/gateway_reply.h"
#include "core/shard.h"
#include "core/trace.h"

namespace peregrine::core {
namespace {

constexpr size_t kShareFrom = 1025;  // with more than one receiver: one copy of the payload and references to it
constexpr size_t kMostDigits = 20;

// Who may be held back for feeding a slow consumer. Never a peer: everybody else behind it would wait too.
bool from_client(const Message& message) {
  return message.from != nullptr && message.from->kind == SessionKind::kClient;
}

// A message of JetStream travels between servers under the subject it is delivered on, with the one it was published on
// behind its acknowledgement reply: "$JS.ACK.<...>@<subject>". The last server takes them apart: clients are shown the
// second subject, and the reply without it. Returns where the '@' is.
size_t acknowledged_subject(const Message& message, std::string_view reply) {
  constexpr int kAckDots = 8;  // the reply itself has as many
  if (message.source == SessionKind::kClient || !reply.starts_with("$JS.ACK.")) return std::string_view::npos;
  int dots = 0;
  for (size_t at = 0; at + 1 < reply.size(); ++at) {
    dots += reply[at] == '.' ? 1 : 0;
    if (reply[at] == '@' && dots >= kAckDots) return at;
  }
  return std::string_view::npos;
}

void trace_delivery(Shard& shard, const Session& to, std::string_view line, const Message& message, uint32_t skip) {
  shard.trace(to, "->>", line);
  trace_payload(shard, to, "->>", message.payload.substr(skip), skip != 0 ? 0 : message.header_size);
}

}  // namespace

Delivery::Delivery(Shard& shard)
    : shard_(shard),
      max_pending_(static_cast<size_t>(shard.server().options.max_pending)),
      stall_above_(max_pending_ / 4 * 3),
      drop_when_stalled_(shard.server().options.no_fast_producer_stall),
      inline_payload_(static_cast<size_t>(shard.server().options.native.inline_payload_bytes)) {}

bool Delivery::publish(Account& account, const Message& message) {
  const SideSet sides = account.live_sides() & (message.only == 0 ? reach(message.source) : message.only);
  if (sides != kClientsOnly || !message.all_queues) [[unlikely]]
    return publish_far(account, message, sides);
  const Match match = account.sublist.match(message.subject);
  if (match.empty()) return false;
  if (match.plain.size() == 1 && match.groups.empty() && match.shards == 0 &&
      deliver_plainly(*match.plain[0], message, account)) {
    return true;
  }
  begin(message);
  fan_out_ = match.plain.size() + match.groups.size();

  bool taken = false;
  for (Subscription* sub : match.plain) taken |= deliver_to(*sub, message, account);
  ShardSet targets = match.shards;
  picks_.clear();
  if (!match.groups.empty()) {
    for (const QueueGroup& group : match.groups) {
      // Every member counts once, wherever it lives.
      const uint64_t all = group.local.size() + group.remote_weight;
      const bool here = group.remote_weight == 0 || shard_.random().below(all) < group.local.size();
      if (here && deliver_to_group(group, message, account)) {
        taken = true;
      } else if (group.remote_weight != 0) {
        const uint32_t target = pick_shard(group);
        picks_.push_back({target, Side::kClients, group.id});
        targets |= ShardSet{1} << target;
      }
    }
  }
  if (targets != 0) {
    const Asker asker = taken ? Asker{} : asker_of(message, targets);
    if (!taken) note_crossing(message, targets);
    taken = true;
    for (ShardSet rest = targets; rest != 0; rest &= rest - 1) {
      const auto target = static_cast<uint32_t>(__builtin_ctzll(rest));
      cross(target, account, message, (match.shards >> target & 1) != 0 ? kClientsOnly : 0, 0, message.from, asker);
    }
  }
  finish(account);
  return taken;
}

// The usual message: to one client, which may have it and has room, in one piece. False: nothing was done, there is
// more to it.
bool Delivery::deliver_plainly(Subscription& sub, const Message& message, Account& account) {
  Session& to = *sub.session;
  if (message.source != SessionKind::kClient || sub.closed || sub.limited || sub.peer || to.closing() ||
      to.permissions != nullptr || (&to == message.from && !to.echo) || message.header_size != 0 ||
      to.outbox.pending() > stall_above_ || shard_.tracing()) {
    return false;
  }
  const std::string_view sid = sub.sid();
  const bool large = message.payload.size() >= BufferPool::kReferFrom && to.outbox.pending() <= BufferPool::kReferBelow;
  SharedBytes* const lent = large ? shard_.pool().borrow(message.payload) : nullptr;
  const size_t most = message.subject.size() + message.reply.size() + sid.size() +
                      (lent == nullptr ? message.payload.size() : 0) + kMostDigits + 12;
  if (most > BufferPool::kLargeChunk) return false;
  char* const begin = to.outbox.reserve(most);
  char* at = put(put(begin, "MSG "), message.subject);
  *at++ = ' ';
  at = put(at, sid);
  *at++ = ' ';
  if (!message.reply.empty()) {
    at = put(at, message.reply);
    *at++ = ' ';
  }
  at = std::to_chars(at, at + kMostDigits, message.payload.size()).ptr;
  at = put(at, kCrLf);
  if (lent == nullptr) {
    at = put(put(at, message.payload), kCrLf);
    to.outbox.commit(static_cast<size_t>(at - begin));
  } else {
    to.outbox.commit(static_cast<size_t>(at - begin));
    to.outbox.append_shared(lent, message.payload);
    to.outbox.append(kCrLf);
  }
  shard_.mark_dirty(to);
  ++sub.delivered;
  ++to.traffic.out_msgs;
  to.traffic.out_bytes += message.payload.size();
  ++account.traffic.out_msgs;
  account.traffic.out_bytes += message.payload.size();
  const size_t pending = to.outbox.pending();
  if (pending > Shard::kPaceAbove && message.from != nullptr) [[unlikely]]
    shard_.pace(*message.from, to);
  if (pending > max_pending_) [[unlikely]]
    slow_consumer(to, account);
  return true;
}

void Delivery::begin(const Message& message) {
  plain_encoding_.ready = header_encoding_.ready = false;
  ++serial_;
  // Clients can not publish with such a reply, so only what peers brought is looked at.
  mapped_reply_ = message.source != SessionKind::kClient && is_gateway_reply(message.reply);
}

std::string_view Delivery::client_reply(const Message& message) const {
  return mapped_reply_ ? parse_gateway_reply(message.reply).plain : message.reply;
}

// The same with peers in the picture: a side each for what may be reached, queue groups by kQueueTiers.
bool Delivery::publish_far(Account& account, const Message& message, SideSet sides) {
  begin(message);
  std::array<Match, kSides> matches;
  fan_out_ = 0;
  candidates_.clear();
  picks_.clear();
  ShardSet targets = 0;
  const bool second_hop = message.source == SessionKind::kRoute && message.only == 0 && !message.queues.empty();
  for (size_t n = 0; n < kSides; ++n) {
    const auto side = static_cast<Side>(n);
    if ((sides & bit(side)) == 0) {
      if (second_hop && (kQueueTiersFromRoute.back() & account.live_sides() & bit(side)) != 0) {
        for (const QueueGroup& group : account.side(side).match(message.subject).groups)
          candidates_.push_back({group.id, side, &group});
      }
      continue;
    }
    matches[n] = account.side(side).match(message.subject);
    fan_out_ += matches[n].plain.size() + matches[n].groups.size();
    targets |= matches[n].shards;
    for (const QueueGroup& group : matches[n].groups) candidates_.push_back({group.id, side, &group});
  }
  bool taken = false;
  for (const Match& match : matches) {
    for (Subscription* sub : match.plain) taken |= deliver_to(*sub, message, account);
  }
  if (!candidates_.empty()) taken |= serve_groups(message, account);
  taken |= send_to_targets(message, account);
  for (const Pick& pick : picks_) targets |= ShardSet{1} << pick.shard;
  if (targets != 0) {
    const Asker asker = taken ? Asker{} : asker_of(message, targets);
    if (!taken) note_crossing(message, targets);
    taken = true;
    for (ShardSet rest = targets; rest != 0; rest &= rest - 1) {
      const auto target = static_cast<uint32_t>(__builtin_ctzll(rest));
      SideSet plain = 0;
      for (size_t n = 0; n < kSides; ++n) plain |= static_cast<SideSet>((matches[n].shards >> target & 1) << n);
      cross(target, account, message, plain, 0, message.from, asker);
    }
  }
  finish(account);
  return taken;
}

// One member of each group, over all sides. True if any is on this shard.
bool Delivery::serve_groups(const Message& message, Account& account) {
  if (!message.all_queues) {
    if (message.queues.empty()) return false;
    // Only the groups the peer names.
    std::erase_if(candidates_, [&](const Candidate& each) {
      return std::none_of(message.queues.begin(), message.queues.end(),
                          [&](std::string_view queue) { return account.sublist.group_id(queue) == each.id; });
    });
  }
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.id != b.id ? a.id < b.id : a.side < b.side; });
  bool taken = false;
  for (size_t from = 0, to = 0; from < candidates_.size(); from = to) {
    while (to < candidates_.size() && candidates_[to].id == candidates_[from].id) ++to;
    taken |= serve_group(std::span(candidates_).subspan(from, to - from), message, account);
  }
  return taken;
}

// `same`: one group, as each side has it. True if a member on this shard took the message; a member elsewhere becomes a
// pick.
bool Delivery::serve_group(std::span<const Candidate> same, const Message& message, Account& account) {
  for (const SideSet tier : queue_tiers(message.source)) {
    uint64_t total = 0;
    for (const Candidate& each : same) {
      if ((tier & bit(each.side)) != 0) total += each.group->local_weight + each.group->remote_weight;
    }
    if (total == 0) continue;
    // Every member counts once, wherever it lives. If the one picked here can not take it, the others are tried in
    // turn, those of this shard first.
    uint64_t at = shard_.random().below(total);
    const Candidate* picked = nullptr;
    for (const Candidate& each : same) {
      if ((tier & bit(each.side)) == 0) continue;
      const uint64_t weight = each.group->local_weight + each.group->remote_weight;
      if (at < weight) {
        picked = &each;
        break;
      }
      at -= weight;
    }
    if (at >= picked->group->local_weight) {
      const QueueGroup& group = *picked->group;
      picks_.push_back({pick_shard(group), picked->side, group.id});
      return false;
    }
    if (deliver_to_peer_group(*picked->group, picked->side, message, account)) return true;
    for (const Candidate& each : same) {
      if ((tier & bit(each.side)) == 0 || &each == picked) continue;
      if (deliver_to_peer_group(*each.group, each.side, message, account)) return true;
    }
    for (const Candidate& each : same) {
      if ((tier & bit(each.side)) == 0 || each.group->remote_weight == 0) continue;
      picks_.push_back({pick_shard(*each.group), each.side, each.id});
      return false;
    }
  }
  return false;
}

bool Delivery::deliver_to_peer_group(const QueueGroup& group, Side side, const Message& message, Account& account) {
  if (side == Side::kClients) return deliver_to_group(group, message, account);
  const size_t n = group.local.size();
  if (n == 0) return false;
  uint64_t at = shard_.random().below(std::max<uint64_t>(group.local_weight, 1));
  size_t first = 0;
  if (side == Side::kGateways) {
    // The nearest cluster, not any.
    for (size_t i = 1; i < n; ++i) {
      if (group.local[i]->session->peer_rtt_ns < group.local[first]->session->peer_rtt_ns) first = i;
    }
    at = 0;
  }
  while (first + 1 < n && at >= group.local[first]->weight()) at -= group.local[first++]->weight();
  for (size_t tried = 0; tried < n; ++tried) {
    Subscription& sub = *group.local[(first + tried) % n];
    if (deliver_to_peer(sub, message, account.side(side).queue_of(sub))) return true;
  }
  return false;
}

// Notes the peer as a target; it is sent the message once, when all its reasons are known.
bool Delivery::deliver_to_peer(Subscription& sub, const Message& message, std::string_view queue) {
  Session& to = *sub.session;
  // Back where it came from only for a queue group, and only from a route (kQueueTiersFromRoute).
  if (&to == message.from && (message.source != SessionKind::kRoute || queue.empty())) return false;
  if (to.closing() || !to.accepts(message, sub)) return false;
  if (to.target_serial != serial_) {
    sub.count(1);  // sent once, for the first of its reasons
    to.target_serial = serial_;
    to.target_index = static_cast<uint32_t>(target_count_);
    if (target_count_ == targets_.size()) targets_.emplace_back();
    PeerTarget& fresh = targets_[target_count_++];
    fresh.session = &to;
    fresh.plain = fresh.leaf_origin = false;
    fresh.queues.clear();
  }
  PeerTarget& target = targets_[to.target_index];
  target.leaf_origin |= sub.side == Side::kRoutedLeafs;
  if (queue.empty()) target.plain = true;
  else target.queues.push_back(queue);
  return true;
}

bool Delivery::send_to_targets(const Message& message, Account& account) {
  const size_t n = std::exchange(target_count_, 0);
  for (size_t i = 0; i < n; ++i) {
    const PeerTarget& target = targets_[i];
    Session& to = *target.session;
    const size_t pending = to.outbox.pending();
    if (pending > stall_above_ && from_client(message)) [[unlikely]]
      shard_.stall(*message.from, pending >= max_pending_ ? 5'000'000 : 2'000'000);
    line_.clear();
    to.message_line(line_, account, message, target);
    const uint32_t skip = to.headers ? 0 : message.header_size;
    append(to, line_, message, skip);
    const size_t bytes = message.payload.size() - skip;
    ++to.traffic.out_msgs;
    to.traffic.out_bytes += bytes;
    ++peer_traffic_.out_msgs;
    peer_traffic_.out_bytes += bytes;
    if (shard_.tracing()) [[unlikely]]
      trace_delivery(shard_, to, std::string_view(line_).substr(0, line_.size() - kCrLf.size()), message, skip);
    if (to.outbox.pending() > max_pending_) [[unlikely]]
      slow_consumer(to, account);
  }
  return n != 0;
}

Delivery::Reference Delivery::refer(const Message& message, uint32_t skip, const Outbox& outbox) {
  const bool several = fan_out_ > 1 || shared_ != nullptr;
  const size_t size = message.payload.size();
  if (size < (several ? kShareFrom : BufferPool::kReferFrom)) return {};
  if (outbox.pending() <= BufferPool::kReferBelow) {
    if (SharedBytes* lent = shard_.pool().borrow(message.payload)) return {lent, message.payload.substr(skip)};
  }
  if (!several) return {};
  if (shared_ == nullptr) shared_ = shard_.pool().share(message.payload);
  return {shared_, std::string_view(shared_->data, size).substr(skip)};
}

// Line, payload, CRLF.
void Delivery::append(Session& to, std::string_view line, const Message& message, uint32_t skip) {
  Outbox& outbox = to.outbox;
  const std::string_view payload = message.payload.substr(skip);
  if (const Reference reference = refer(message, skip, outbox); reference.shared != nullptr) {
    outbox.append(line);
    outbox.append_shared(reference.shared, reference.bytes);
    outbox.append(kCrLf);
  } else if (line.size() + payload.size() + 2 <= BufferPool::kLargeChunk) {
    const size_t total = line.size() + payload.size() + 2;
    put(put(put(outbox.reserve(total), line), payload), kCrLf);
    outbox.commit(total);
  } else {
    outbox.append(line);
    outbox.append(payload);
    outbox.append(kCrLf);
  }
  shard_.mark_dirty(to);
}

void Delivery::finish(Account& account) {
  if (delivered_ != 0) {
    account.traffic.out_msgs += delivered_;
    account.traffic.out_bytes += delivered_bytes_;
    delivered_ = delivered_bytes_ = 0;
  }
  if (shared_ != nullptr) {
    shard_.pool().drop(shared_);
    shared_ = nullptr;
  }
  if (!expired_.empty()) {
    // A copy: removing may end a session's business and come back here.
    std::vector<Subscription*> expired;
    expired.swap(expired_);
    for (Subscription* sub : expired) shard_.remove_subscription(*sub);
  }
}

bool Delivery::deliver_to(Subscription& sub, const Message& message, Account& account) {
  Session& to = *sub.session;
  if (to.closing() || sub.closed) return false;
  if (sub.peer) [[unlikely]]
    return deliver_to_peer(sub, message, {});
  if (&to == message.from && !to.echo) return false;
  if (to.permissions != nullptr) [[unlikely]] {
    if (to.permissions->check_deliveries &&
        to.permissions->permissions->denied(message.subject, account.sublist.queue_of(sub))) {
      return false;
    }
    if (!message.reply.empty()) to.permissions->expect_reply(client_reply(message), shard_.now_ns());
  }
  const size_t pending = to.outbox.pending();
  if (pending > stall_above_) [[unlikely]] {
    if (drop_when_stalled_) return false;
    if (from_client(message)) shard_.stall(*message.from, pending >= max_pending_ ? 5'000'000 : 2'000'000);
  }
  ++sub.delivered;
  if (sub.limited && reached_limit(sub)) [[unlikely]]
    expired_.push_back(&sub);

  if (mapped_reply_) [[unlikely]]
    to.remember_reply(message.reply);

  const Encoding& encoding = this->encoding(message, to.headers && message.header_size != 0);
  const std::string_view payload = message.payload.substr(encoding.skip);
  const std::string_view sid = sub.sid();
  const size_t line = encoding.head.size() + sid.size() + encoding.tail.size();
  Outbox& outbox = to.outbox;
  if (const Reference reference = refer(message, encoding.skip, outbox); reference.shared != nullptr) {
    char* at = outbox.reserve(line);
    put(put(put(at, encoding.head), sid), encoding.tail);
    outbox.commit(line);
    outbox.append_shared(reference.shared, reference.bytes);
    outbox.append(kCrLf);
  } else if (line + payload.size() + 2 <= BufferPool::kLargeChunk) {
    const size_t total = line + payload.size() + 2;
    char* at = put(put(put(outbox.reserve(total), encoding.head), sid), encoding.tail);
    at = put(at, payload);
    at[0] = '\r';
    at[1] = '\n';
    outbox.commit(total);
  } else {
    outbox.append(encoding.head);
    outbox.append(sid);
    outbox.append(encoding.tail);
    outbox.append(payload);
    outbox.append(kCrLf);
  }
  shard_.mark_dirty(to);
  ++to.traffic.out_msgs;
  to.traffic.out_bytes += payload.size();
  ++delivered_;
  delivered_bytes_ += payload.size();
  if (shard_.tracing()) [[unlikely]] {
    std::string line_text = encoding.head;
    line_text.append(sid).append(encoding.tail, 0, encoding.tail.size() - 2);
    trace_delivery(shard_, to, line_text, message, encoding.skip);
  }
  if (outbox.pending() > max_pending_) [[unlikely]]
    slow_consumer(to, account);
  return true;
}

const Delivery::Encoding& Delivery::encoding(const Message& message, bool with_headers) {
  Encoding& e = with_headers ? header_encoding_ : plain_encoding_;
  if (e.ready) return e;
  e.ready = true;
  e.skip = with_headers ? 0 : message.header_size;
  const std::string_view verb = with_headers ? "HMSG " : "MSG ";
  std::string_view subject = message.subject, reply = client_reply(message);
  if (const size_t at = acknowledged_subject(message, reply); at != std::string_view::npos) [[unlikely]] {
    subject = reply.substr(at + 1);
    reply = reply.substr(0, at);
  }
  // (libstdc++ 12 hands the capacity over as the size: it is counted here.)
  e.head.resize_and_overwrite(verb.size() + subject.size() + 1, [&](char* const begin, size_t) {
    char* at = put(put(begin, verb), subject);
    *at++ = ' ';
    return static_cast<size_t>(at - begin);
  });
  e.tail.resize_and_overwrite(reply.size() + 2 * kMostDigits + 5, [&](char* const begin, size_t) {
    char* at = begin;
    *at++ = ' ';
    if (!reply.empty()) {
      at = put(at, reply);
      *at++ = ' ';
    }
    if (with_headers) {
      at = std::to_chars(at, at + kMostDigits, message.header_size).ptr;
      *at++ = ' ';
    }
    at = std::to_chars(at, at + kMostDigits, message.payload.size() - e.skip).ptr;
    return static_cast<size_t>(put(at, kCrLf) - begin);
  });
  return e;
}

// One local member: a random start, then the next ones until one takes it.
bool Delivery::deliver_to_group(const QueueGroup& group, const Message& message, Account& account) {
  const size_t n = group.local.size();
  if (n == 0) return false;
  size_t at = n == 1 ? 0 : shard_.random().below(n);
  for (size_t tried = 0; tried < n; ++tried) {
    if (deliver_to(*group.local[at], message, account)) return true;
    if (++at == n) at = 0;
  }
  return false;
}

// Nobody here took it: if all goes to one other shard, its publisher may be better off there.
void Delivery::note_crossing(const Message& message, ShardSet targets) {
  if (message.from == nullptr || (targets & (targets - 1)) != 0) return;
  shard_.placement().crossed(*message.from, static_cast<uint32_t>(__builtin_ctzll(targets)), 1, message.payload.size());
}

uint32_t Delivery::pick_shard(const QueueGroup& group) {
  uint64_t at = shard_.random().below(group.remote_weight);
  for (const ShardWeight& each : group.remote) {
    if (at < each.weight) return each.shard;
    at -= each.weight;
  }
  return group.remote.back().shard;
}

// Counts this delivery against the allowance of UNSUB max; true when it was the last one.
bool Delivery::reached_limit(Subscription& sub) {
  if (sub.delivered < shard_.subscription_limit(sub)) return false;
  sub.closed = true;
  return true;
}

void Delivery::slow_consumer(Session& session, Account& account) {
  ++account.slow_consumers;
  shard_.count_slow_consumer(session.kind);
  shard_.server().log.info("{} - Slow Consumer Detected: MaxPending of {} Exceeded", session.label(), max_pending_);
  session.close(CloseReason::kSlowConsumerPendingBytes, true);
}

}  // namespace peregrine::core
