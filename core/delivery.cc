#include "core/delivery.h"

#include <charconv>
#include <cstring>

#include "core/shard.h"

namespace peregrine::core {
namespace {

constexpr size_t kShareAbove =
    1024;                        // with more than one receiver: one copy of the payload and references, not a copy each
constexpr uint8_t kMaxHops = 8;  // picks made again; also bounded by the number of shards

void append_number(std::string& to, uint64_t number) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof(digits), number).ptr;
  to.append(digits, end);
}

}  // namespace

Delivery::Delivery(Shard& shard)
    : shard_(shard),
      max_pending_(static_cast<size_t>(shard.server().options.max_pending)),
      stall_above_(max_pending_ / 4 * 3),
      drop_when_stalled_(shard.server().options.no_fast_producer_stall),
      inline_payload_(static_cast<size_t>(shard.server().options.native.inline_payload_bytes)) {}

bool Delivery::publish(Account& account, const Message& message) {
  const Match match = account.sublist.match(message.subject);
  if (match.empty()) return false;
  plain_encoding_.ready = header_encoding_.ready = false;
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
        picks_.push_back({target, group.id});
        targets |= ShardSet{1} << target;
      }
    }
  }
  if (targets != 0) {
    // Interest elsewhere may turn out to be nobody (denied, or gone meanwhile). Where one shard alone decides it is
    // asked to say so.
    const bool ask = !taken && (targets & (targets - 1)) == 0 && message.from != nullptr &&
                     message.from->no_responders && !message.reply.empty();
    const uint64_t asker = ask ? message.from->cid : 0;
    taken = true;
    for (ShardSet rest = targets; rest != 0; rest &= rest - 1) {
      const auto target = static_cast<uint32_t>(__builtin_ctzll(rest));
      cross(target, account, message, (match.shards >> target & 1) != 0, 0, message.from, asker);
    }
  }
  finish(account);
  return taken;
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
  if (&to == message.from && !to.echo) return false;
  if (to.permissions != nullptr) [[unlikely]] {
    if (to.permissions->check_deliveries &&
        to.permissions->permissions->denied(message.subject, account.sublist.queue_of(sub))) {
      return false;
    }
    if (!message.reply.empty()) to.permissions->expect_reply(message.reply, shard_.now_ns());
  }
  const size_t pending = to.outbox.pending();
  if (pending > stall_above_) [[unlikely]] {
    if (drop_when_stalled_) return false;
    if (message.from != nullptr) shard_.stall(*message.from, pending >= max_pending_ ? 5'000'000 : 2'000'000);
  }
  ++sub.delivered;
  if (sub.limited && reached_limit(sub)) [[unlikely]]
    expired_.push_back(&sub);

  const Encoding& encoding = this->encoding(message, to.headers && message.header_size != 0);
  const std::string_view payload = message.payload.substr(encoding.skip);
  const std::string_view sid = sub.sid();
  const size_t line = encoding.head.size() + sid.size() + encoding.tail.size();
  Outbox& outbox = to.outbox;
  if (payload.size() > kShareAbove && (fan_out_ > 1 || shared_ != nullptr)) {
    if (shared_ == nullptr) shared_ = shard_.pool().share(message.payload);
    char* at = outbox.reserve(line);
    put(put(put(at, encoding.head), sid), encoding.tail);
    outbox.commit(line);
    outbox.append_shared(shared_, encoding.skip);
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
    shard_.trace(to, "->>", line_text);
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
  e.head.assign(with_headers ? "HMSG " : "MSG ");
  e.head.append(message.subject).push_back(' ');
  e.tail.assign(1, ' ');
  if (!message.reply.empty()) e.tail.append(message.reply).push_back(' ');
  if (with_headers) {
    append_number(e.tail, message.header_size);
    e.tail.push_back(' ');
  }
  append_number(e.tail, message.payload.size() - e.skip);
  e.tail.append(kCrLf);
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

uint32_t Delivery::pick_shard(const QueueGroup& group) {
  uint64_t at = shard_.random().below(group.remote_weight);
  for (const ShardWeight& each : group.remote) {
    if (at < each.weight) return each.shard;
    at -= each.weight;
  }
  return group.remote.back().shard;
}

void Delivery::cross(uint32_t target, Account& account, const Message& message, bool plain, uint8_t hops,
                     Session* cause, uint64_t asker) {
  DeliveryRecord record;
  record.plain = plain;
  record.hops = hops;
  record.account = account.number;
  record.picks = 0;
  for (const Pick& pick : picks_) record.picks += pick.shard == target ? 1 : 0;
  record.subject_size = static_cast<uint32_t>(message.subject.size());
  record.reply_size = static_cast<uint32_t>(message.reply.size());
  record.header_size = message.header_size;
  record.payload_size = static_cast<uint32_t>(message.payload.size());
  record.home = shard_.index();
  record.asker = asker;
  record.shared = nullptr;
  if (message.payload.size() > inline_payload_) {
    if (shared_ == nullptr) shared_ = shard_.pool().share(message.payload);
    // A payload that came from a third shard is handed on as a copy of our own: references do not chain.
    if (shared_->origin != nullptr) {
      SharedBytes* copy = shard_.pool().share(message.payload);
      shard_.pool().drop(shared_);
      shared_ = copy;
    }
    ++shared_->refs;  // comes back as a release record
    record.shared = shared_;
  }
  char* at = shard_.begin_delivery(target, record.size(), cause);
  std::memcpy(at, &record, sizeof(record));
  at += sizeof(record);
  for (const Pick& pick : picks_) {
    if (pick.shard != target) continue;
    std::memcpy(at, &pick.group, sizeof(pick.group));
    at += sizeof(pick.group);
  }
  at = put(put(at, message.subject), message.reply);
  if (record.shared == nullptr) put(at, message.payload);
  shard_.end_delivery(target);
}

void Delivery::on_record(uint32_t from, const char* bytes) {
  DeliveryRecord record;
  std::memcpy(&record, bytes, sizeof(record));
  const char* groups = bytes + sizeof(record);
  const char* at = groups + size_t{record.picks} * 8;
  Message message;
  message.subject = {at, record.subject_size};
  at += record.subject_size;
  message.reply = {at, record.reply_size};
  at += record.reply_size;
  message.header_size = record.header_size;
  if (record.shared != nullptr) {
    shared_ = shard_.pool().wrap(record.shared, record.home);
    message.payload = {shared_->data, record.payload_size};
  } else {
    message.payload = {at, record.payload_size};
  }
  Account& account = shard_.account(record.account);
  plain_encoding_.ready = header_encoding_.ready = false;
  const Match match = account.sublist.match(message.subject);
  fan_out_ = match.plain.size() + record.picks;
  bool taken = false;
  if (record.plain) {
    for (Subscription* sub : match.plain) taken |= deliver_to(*sub, message, account);
  }
  picks_.clear();
  for (uint32_t i = 0; i < record.picks; ++i) {
    uint64_t id;
    std::memcpy(&id, groups + size_t{i} * 8, sizeof(id));
    const QueueGroup* group = account.sublist.find_group(message.subject, id);
    if (group != nullptr && deliver_to_group(*group, message, account)) {
      taken = true;
      continue;
    }
    // The member has gone while the record travelled: pick again, from what is known here.
    if (group == nullptr || group->remote_weight == 0 || record.hops >= kMaxHops ||
        record.hops >= shard_.shard_count() || !shard_.rules.repick) {
      ++vanished_;
      continue;
    }
    ++repicks_;
    picks_.push_back({pick_shard(*group), id});
  }
  if (!picks_.empty()) {
    ShardSet targets = 0;
    for (const Pick& pick : picks_) targets |= ShardSet{1} << pick.shard;
    for (; targets != 0; targets &= targets - 1) {
      cross(static_cast<uint32_t>(__builtin_ctzll(targets)), account, message, false,
            static_cast<uint8_t>(record.hops + 1), nullptr, 0);
    }
  } else if (!taken && record.asker != 0) {
    tell_nobody(from, record.asker, message);
  }
  finish(account);
}

void Delivery::tell_nobody(uint32_t target, uint64_t asker, const Message& message) {
  NobodyRecord record;
  record.subject_size = static_cast<uint32_t>(message.subject.size());
  record.reply_size = static_cast<uint32_t>(message.reply.size());
  record.asker = asker;
  char* at = shard_.begin_delivery(target, record.size(), nullptr);
  std::memcpy(at, &record, sizeof(record));
  put(put(at + sizeof(record), message.subject), message.reply);
  shard_.end_delivery(target);
}

// Counts this delivery against the allowance of UNSUB max; true when it was the last one.
bool Delivery::reached_limit(Subscription& sub) {
  if (sub.delivered < shard_.subscription_limit(sub)) return false;
  sub.closed = true;
  return true;
}

void Delivery::slow_consumer(Session& session, Account& account) {
  ++account.slow_consumers;
  shard_.count_slow_consumer();
  shard_.server().log.info("{} - Slow Consumer Detected: MaxPending of {} Exceeded", session.label(), max_pending_);
  session.close(CloseReason::kSlowConsumerPendingBytes, true);
}

}  // namespace peregrine::core
