// Delivery from shard to shard: what is written for others, what of theirs is served here, and who is told when nobody
// took a request.
#include <cstring>

#include "core/client_session.h"
#include "core/delivery.h"
#include "core/parser.h"
#include "core/shard.h"

namespace peregrine::core {
namespace {

constexpr uint8_t kMaxHops = 8;  // picks made again; also bounded by the number of shards

// The next of the frames in a record: <prefix><subject> <size>CRLF<payload>CRLF, with the freedom in blanks and line
// ends that the parser gave it. False at the end.
bool next_frame(std::string_view& in, const FramesRecord& record, Operation& operation) {
  size_t at = size_t{record.prefix_size} + record.subject_size;
  if (in.size() <= at) return false;
  operation.subject = in.substr(record.prefix_size, record.subject_size);
  operation.reply = {};
  while (at < in.size() && (in[at] == ' ' || in[at] == '\t')) ++at;
  size_t size = 0;
  for (; at < in.size() && in[at] >= '0' && in[at] <= '9'; ++at) size = size * 10 + static_cast<size_t>(in[at] - '0');
  while (at < in.size() && in[at] != '\n') ++at;
  if (in.size() < at + 1 + size + 2) return false;
  operation.payload = in.substr(at + 1, size);
  in.remove_prefix(at + 1 + size + 2);
  return true;
}

}  // namespace

// Interest elsewhere may turn out to be nobody (denied, or gone meanwhile): a requester that wants to know has the
// other shards asked to say so. Who they are to tell.
Asker Delivery::asker_of(const Message& message, ShardSet targets) {
  if (message.from == nullptr || !message.from->no_responders || message.reply.empty()) return {};
  return ask({message.from->cid, shard_.index()}, targets);
}

// One shard tells the asker itself; what several say is gathered here.
Asker Delivery::ask(Asker asker, ShardSet targets) {
  if (asker.id == 0 || (targets & (targets - 1)) == 0) return asker;
  return {inquiries_.open(asker, static_cast<uint32_t>(__builtin_popcountll(targets))), shard_.index()};
}

void Delivery::nobody(Asker asker, std::string_view subject, std::string_view reply) {
  while (asker.id != 0 && asker.home == shard_.index()) {
    if (!Inquiries::is_inquiry(asker.id)) {
      Session* session = shard_.find(asker.id);
      if (session != nullptr && session->kind == SessionKind::kClient && !session->closing())
        static_cast<ClientSession*>(session)->send_no_responders(subject, reply);
      return;
    }
    asker = inquiries_.answered(asker.id);
  }
  if (asker.id == 0) return;
  NobodyRecord record;
  record.subject_size = static_cast<uint32_t>(subject.size());
  record.reply_size = static_cast<uint32_t>(reply.size());
  record.asker = asker.id;
  char* at = shard_.begin_delivery(asker.home, record.size(), nullptr);
  std::memcpy(at, &record, sizeof(record));
  put(put(at + sizeof(record), subject), reply);
  shard_.end_delivery(asker.home);
}

void Delivery::cross(uint32_t target, Account& account, const Message& message, SideSet plain, uint8_t hops,
                     Session* cause, Asker asker) {
  DeliveryRecord record;
  record.plain = plain;
  record.hops = hops;
  record.source = message.source;
  record.account = account.number;
  record.picks = 0;
  for (const Pick& pick : picks_) record.picks += pick.shard == target ? 1 : 0;
  record.subject_size = static_cast<uint32_t>(message.subject.size());
  record.reply_size = static_cast<uint32_t>(message.reply.size());
  record.header_size = message.header_size;
  record.payload_size = static_cast<uint32_t>(message.payload.size());
  record.origin_size = static_cast<uint32_t>(message.origin.size());
  record.home = shard_.index();
  record.asker_home = asker.home;
  record.asker = asker.id;
  record.shared = nullptr;
  record.payload = nullptr;
  record.lent = false;
  SharedBytes* const lent = message.payload.size() > inline_payload_ ? shard_.pool().borrow(message.payload) : nullptr;
  if (lent != nullptr && lent->origin == nullptr) {
    ++lent->refs;  // comes back as a release record
    record.shared = lent;
    record.payload = message.payload.data();
    record.lent = true;
  } else if (message.payload.size() > inline_payload_) {
    if (shared_ == nullptr) shared_ = shard_.pool().share(message.payload);
    // A payload that came from a third shard is handed on as a copy of our own: references do not chain.
    if (shared_->origin != nullptr) {
      SharedBytes* copy = shard_.pool().share(message.payload);
      shard_.pool().drop(shared_);
      shared_ = copy;
    }
    ++shared_->refs;  // likewise
    record.shared = shared_;
    record.payload = shared_->data;
  }
  char* at = shard_.begin_delivery(target, record.size(), cause);
  std::memcpy(at, &record, sizeof(record));
  at += sizeof(record);
  for (const Pick& pick : picks_) {
    if (pick.shard != target) continue;
    const CrossingPick crossing{pick.group, pick.side};
    std::memcpy(at, &crossing, sizeof(crossing));
    at += sizeof(crossing);
  }
  at = put(put(put(at, message.subject), message.reply), message.origin);
  if (record.shared == nullptr) put(at, message.payload);
  shard_.end_delivery(target);
}

void Delivery::on_record(const char* bytes) {
  ++records_;
  DeliveryRecord record;
  std::memcpy(&record, bytes, sizeof(record));
  const char* picks = bytes + sizeof(record);
  const char* at = picks + size_t{record.picks} * sizeof(CrossingPick);
  Message message;
  message.subject = {at, record.subject_size};
  at += record.subject_size;
  message.reply = {at, record.reply_size};
  at += record.reply_size;
  message.origin = {at, record.origin_size};
  at += record.origin_size;
  if (!message.origin.empty()) message.origin_id = shard_.server().origin_id(message.origin);
  message.source = record.source;
  message.header_size = record.header_size;
  if (record.shared != nullptr) {
    message.payload = {record.payload, record.payload_size};
    SharedBytes* const handle = shard_.pool().wrap(record.shared, message.payload, record.home);
    if (record.lent) {
      shard_.pool().begin_reading(handle);
    } else {
      shared_ = handle;
    }
  } else {
    message.payload = {at, record.payload_size};
  }
  Account& account = shard_.account(record.account);
  begin(message);
  bool taken = false;
  fan_out_ = record.picks;
  if (record.plain == kClientsOnly) [[likely]] {
    const Match match = account.sublist.match(message.subject);
    fan_out_ += match.plain.size();
    for (Subscription* sub : match.plain) taken |= deliver_to(*sub, message, account);
  } else {
    for (size_t n = 0; n < kSides; ++n) {
      if ((record.plain >> n & 1) == 0) continue;
      const Match match = account.side(static_cast<Side>(n)).match(message.subject);
      fan_out_ += match.plain.size();
      for (Subscription* sub : match.plain) taken |= deliver_to(*sub, message, account);
    }
  }
  picks_.clear();
  for (uint32_t i = 0; i < record.picks; ++i) {
    CrossingPick pick;
    std::memcpy(&pick, picks + i * sizeof(pick), sizeof(pick));
    taken |= serve_pick(pick, message, account, record.hops);
  }
  taken |= send_to_targets(message, account);
  const Asker asker = taken ? Asker{} : Asker{record.asker, record.asker_home};
  if (!picks_.empty()) cross_again(message, account, record.hops, asker);
  else if (asker.id != 0) nobody(asker, message.subject, message.reply);
  finish(account);
  if (record.lent) shard_.pool().end_reading();
}

// A member that another shard has picked here. True if one of this shard took the message; one elsewhere becomes a
// pick.
bool Delivery::serve_pick(const CrossingPick& pick, const Message& message, Account& account, uint8_t hops) {
  const QueueGroup* group = account.side(pick.side).find_group(message.subject, pick.group);
  if (group != nullptr && deliver_to_peer_group(*group, pick.side, message, account)) return true;
  // The member has gone while the record travelled: pick again, from what is known here, over all sides.
  candidates_.clear();
  if (hops < kMaxHops && hops < shard_.shard_count() && shard_.rules.repick) {
    SideSet sides = 0;
    for (const SideSet tier : queue_tiers(message.source)) sides |= tier;
    if (message.source != SessionKind::kRoute) sides &= reach(message.source);
    for (size_t n = 0; n < kSides; ++n) {
      const auto side = static_cast<Side>(n);
      if ((sides & account.live_sides() & bit(side)) == 0) continue;
      const QueueGroup* there = account.side(side).find_group(message.subject, pick.group);
      if (there != nullptr) candidates_.push_back({pick.group, side, there});
    }
  }
  const size_t picked = picks_.size();
  const bool taken = serve_group(candidates_, message, account);
  if (taken || picks_.size() != picked) ++repicks_;
  else ++vanished_;
  return taken;
}

// To where the picks were made again.
void Delivery::cross_again(const Message& message, Account& account, uint8_t hops, Asker asker) {
  ShardSet targets = 0;
  for (const Pick& pick : picks_) targets |= ShardSet{1} << pick.shard;
  asker = ask(asker, targets);
  for (; targets != 0; targets &= targets - 1) {
    const auto target = static_cast<uint32_t>(__builtin_ctzll(targets));
    cross(target, account, message, 0, static_cast<uint8_t>(hops + 1), nullptr, asker);
  }
}

void Delivery::on_frames(const char* bytes) {
  FramesRecord record;
  std::memcpy(&record, bytes, sizeof(record));
  std::string_view in(record.shared == nullptr ? bytes + sizeof(record) : record.frames, record.bytes);
  if (record.shared != nullptr) shard_.pool().begin_reading(shard_.pool().wrap(record.shared, in, record.home));
  const std::string prefix(in.substr(0, record.prefix_size));
  Account& account = shard_.account(record.account);
  Run& run = shard_.current_run();
  Operation operation;
  operation.kind = Operation::Kind::kPub;
  while (!in.empty()) {
    if (run.is_open()) run.take_alike(in);
    if (!next_frame(in, record, operation)) break;
    if (run.is_open()) {
      if (run.add(operation)) continue;
      run.close();
    }
    if (run.open(nullptr, account, operation, prefix, record.sides, record.group)) continue;
    ++records_;
    Message message;
    message.subject = operation.subject;
    message.payload = operation.payload;
    message.source = record.source;
    begin(message);
    fan_out_ = 0;
    picks_.clear();
    if (record.sides == 0) {
      fan_out_ = 1;
      serve_pick({record.group, Side::kClients}, message, account, 0);
    }
    for (size_t n = 0; n < kSides; ++n) {
      if ((record.sides >> n & 1) == 0) continue;
      const Match match = account.side(static_cast<Side>(n)).match(message.subject);
      fan_out_ += match.plain.size();
      for (Subscription* sub : match.plain) deliver_to(*sub, message, account);
    }
    send_to_targets(message, account);
    if (!picks_.empty()) cross_again(message, account, 0, {});
    finish(account);
  }
  run.close();
  if (record.shared != nullptr) shard_.pool().end_reading();
}

}  // namespace peregrine::core
