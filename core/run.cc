#include "core/run.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/delivery.h"
#include "core/shard.h"

namespace peregrine::core {
namespace {

constexpr std::string_view kReservedReplies[] = {"_R_.", "$JS.ACK.", "_GR_."};

}  // namespace

Run::Run(Shard& shard)
    : shard_(shard),
      possible_(static_cast<size_t>(shard.server().options.max_pending) >= kLeastMaxPending),
      stall_above_(static_cast<size_t>(shard.server().options.max_pending) / 4 * 3),
      max_pending_(static_cast<size_t>(shard.server().options.max_pending)),
      most_crossing_payload_(static_cast<size_t>(shard.server().options.native.inline_payload_bytes)),
      deal_(shard) {}

Run::~Run() {
  if (block_ != nullptr) shard_.pool().drop(block_);
}

// Whether messages can be handed to it without asking anything about each.
bool Run::may_receive(const Subscription& sub, const Message& message) const {
  Session& to = *sub.session;
  if (sub.closed || sub.limited || to.closing() || to.outbox.pending() > stall_above_) return false;
  if (sub.peer) return &to != from_ && to.accepts(message, sub);
  return to.permissions == nullptr && (&to != from_ || to.echo);
}

bool Run::open(Session* from, Account& account, const Operation& operation, std::string_view prefix, SideSet sides,
               uint64_t group) {
  if (!possible_ || operation.subject.size() > kMostLine / 2 || prefix.size() > kMostLine / 2) return false;
  from_ = from;
  account_ = &account;
  Message message;
  message.subject = operation.subject;
  message.from = from;
  if (from != nullptr) {
    message.source = from->kind;
    sides = account.live_sides() & (from->kind == SessionKind::kLeaf ? sides : reach(from->kind));
  }
  if (!find_receivers(message, sides)) return false;
  if (from == nullptr) {
    if (sides == 0) group_ = account.sublist.find_group(operation.subject, group);
    if (receivers_.empty() && group_ == nullptr) return false;
    crossing_ = 0;
  }
  dealt_ = group_ != nullptr;
  if (dealt_ && !deal_to(*group_, message, prefix.size())) return false;
  direct_ = receivers_.size() == 1 ? receivers_[0]->session : nullptr;
  if (!(to_peers_ ? head_for_peers(message) : head_for_clients(operation.subject))) return false;
  lent_ = nullptr;
  most_frames_ = SIZE_MAX;
  if (crossing_ != 0) {
    if (shard_.pool().reading_bytes() >= kReferFramesFrom) lent_ = shard_.pool().borrow(operation.payload);
    if (lent_ == nullptr) most_frames_ = std::min<size_t>(kRunBytes, shard_.largest_record() - sizeof(FramesRecord));
  }
  subject_.assign(operation.subject);
  prefix_.assign(prefix);
  messages_ = payload_bytes_ = out_bytes_ = 0;
  frames_ = frames_end_ = nullptr;
  in_size_ = 0;
  open_ = true;
  ended_ = false;
  if (add(operation)) return true;
  open_ = false;
  return false;
}

// All clients or all peers of one kind, and no queue group to be picked from: none, or one and nobody else, or only
// such as have all their members behind one route, the only receiver. (A peer's message without a list of groups is for
// none.) What a leafnode brings is for clients alone: to others it takes its origin along, one by one.
bool Run::find_receivers(const Message& message, SideSet sides) {
  constexpr SideSet kPeers = bit(Side::kRoutes) | bit(Side::kGateways) | bit(Side::kLeafs) | bit(Side::kHubs);
  const bool clients_alone = from_ != nullptr && from_->kind == SessionKind::kLeaf;
  const bool groups_count = message.source == SessionKind::kClient && from_ != nullptr;
  receivers_ = {};
  group_ = nullptr;
  to_peers_ = false;
  crossing_ = 0;
  shards_.fill(0);
  queues_.clear();
  for (size_t n = 0; n < kSides; ++n) {
    const auto side = static_cast<Side>(n);
    if ((sides & bit(side)) == 0) continue;
    const Match match = account_->side(side).match(message.subject);
    const std::span<const QueueGroup> groups = groups_count ? match.groups : std::span<const QueueGroup>();
    if (!groups.empty() && sides == kClientsOnly) {
      // Picked from by weight over all sides: here there is only one.
      if (groups.size() != 1 || !match.plain.empty() || match.shards != 0) return false;
      group_ = &groups[0];
      return true;
    }
    if (clients_alone && side != Side::kClients && (match.shards != 0 || !match.plain.empty())) return false;
    shards_[n] = match.shards;
    crossing_ |= match.shards;
    if (match.plain.empty() && groups.empty()) continue;
    if (!receivers_.empty() || ((kClientsOnly | kPeers) & bit(side)) == 0) return false;
    to_peers_ = side != Side::kClients;
    receivers_ = match.plain.empty() ? groups[0].local : match.plain;
    if (groups.empty()) continue;
    if (side != Side::kRoutes || receivers_.size() != 1) return false;
    for (const QueueGroup& group : groups) {
      if (group.remote_weight != 0 || group.local.size() != 1 || group.local[0]->session != receivers_[0]->session ||
          !may_receive(*group.local[0], message)) {
        return false;
      }
      queues_.push_back(account_->side(side).queue_of(*group.local[0]));
    }
  }
  for (size_t n = 0; n < receivers_.size(); ++n) {
    if (!may_receive(*receivers_[n], message)) return false;
    // A peer gets a message once, however many of its subjects match.
    for (size_t other = 0; to_peers_ && other < n; ++other) {
      if (receivers_[other]->session == receivers_[n]->session) return false;
    }
  }
  return true;
}

bool Run::deal_to(const QueueGroup& group, const Message& message, size_t prefix_size) {
  const Deal::Frames frames{.account = account_->number,
                            .prefix_size = static_cast<uint16_t>(prefix_size),
                            .subject_size = static_cast<uint32_t>(message.subject.size()),
                            .most_bytes = std::min<size_t>(kRunBytes, shard_.largest_record() - sizeof(FramesRecord))};
  return deal_.begin(group, from_, frames, [&](const Subscription& sub) { return may_receive(sub, message); });
}

// "MSG <subject> <sid> ", if that is the same for all.
bool Run::head_for_clients(std::string_view subject) {
  std::string_view sid;
  if (!receivers_.empty()) {
    sid = receivers_[0]->sid();
    if (sid.size() > 64) return false;
    for (const Subscription* sub : receivers_) {
      if (sub->sid() != sid) return false;
    }
  }
  char* at = put(put(out_line_, "MSG "), subject);
  *at++ = ' ';
  if (!dealt_) {
    at = put(at, sid);
    *at++ = ' ';
  }
  head_size_ = static_cast<uint32_t>(at - out_line_);
  return true;
}

// What a peer writes before reply and size.
bool Run::head_for_peers(const Message& message) {
  head_size_ = 0;
  for (const Subscription* sub : receivers_) {
    line_.clear();
    const PeerTarget target{.session = sub->session, .plain = true, .leaf_origin = false, .queues = queues_};
    sub->session->message_line(line_, *account_, message, target);
    constexpr std::string_view kEmpty = "0\r\n";
    if (!line_.ends_with(kEmpty) || line_.size() > kMostLine) return false;
    const std::string_view head(line_.data(), line_.size() - kEmpty.size());
    if (head_size_ == 0) head_size_ = static_cast<uint32_t>(put(out_line_, head) - out_line_);
    else if (head != std::string_view(out_line_, head_size_)) return false;
  }
  return true;
}

bool Run::add(const Operation& operation) {
  if (ended_ || operation.subject != subject_) return false;
  const size_t size = operation.payload.size();
  if (!operation.reply.empty()) {
    // Others may have to be told that nobody took it; before queue names it stands elsewhere; and gateways may write a
    // way back into it.
    if (dealt_ ? deal_.crosses() : receivers_.empty() || crossing_ != 0 || !queues_.empty()) return false;
    if (to_peers_ && receivers_[0]->side != Side::kRoutes) return false;
    if (operation.reply[0] == '_' || operation.reply[0] == '$') {
      for (const std::string_view reserved : kReservedReplies) {
        if (operation.reply.starts_with(reserved)) return false;
      }
    }
  }
  const char* const line = operation.subject.data() - prefix_.size();
  if (std::memcmp(line, prefix_.data(), prefix_.size()) != 0) return false;  // "pub", or more blanks than one
  const auto line_size = static_cast<size_t>(operation.payload.data() - line);
  if (crossing_ != 0) {
    const char* const first = frames_ == nullptr ? line : frames_;
    const auto bytes = static_cast<size_t>(operation.payload.data() + size + 2 - first);
    if (bytes > most_frames_ || (size > most_crossing_payload_ && lent_ == nullptr)) return false;
  } else if (dealt_ && deal_.crosses()) {
    if (line_size + size + 2 > deal_.most_frame() || size > most_crossing_payload_) return false;
  }
  if (!shape(operation)) return false;
  // As received: up to the payload, which the line stands directly before.
  if (operation.reply.empty() && line_size <= kMostLine) {
    std::memcpy(in_line_, line, line_size);
    in_size_ = static_cast<uint32_t>(line_size);
  } else {
    in_size_ = 0;
  }
  if (frames_ == nullptr) frames_ = line;
  if (dealt_) {
    ++messages_;
    payload_bytes_ += size;
    out_bytes_ += deal_.take(dealt_line(static_cast<uint32_t>(line_size)), line);
    ended_ = out_bytes_ >= kRunBytes;
    return true;
  }
  write(operation.payload.data());
  frames_end_ = operation.payload.data() + size + 2;
  return true;
}

Deal::Line Run::dealt_line(uint32_t in_size) const {
  return {.head = out_line_,
          .head_size = head_size_,
          .tail = out_line_ + head_size_,
          .tail_size = out_size_ - head_size_,
          .in_size = in_size,
          .payload_size = payload_size_};
}

// The line of a message with this reply and size.
bool Run::shape(const Operation& operation) {
  const std::string_view reply = operation.reply;
  const size_t payload_size = operation.payload.size();
  referring_ = false;
  if (dealt_ || !receivers_.empty()) {
    if (direct_ != nullptr && payload_size >= BufferPool::kReferFrom &&
        direct_->outbox.pending() <= BufferPool::kReferBelow) {
      if (lent_ == nullptr) lent_ = shard_.pool().borrow(operation.payload);
      referring_ = lent_ != nullptr;
    }
    if (reply.size() > kMostLine || (!dealt_ && direct_ == nullptr && payload_size > kMostFrame)) return false;
    char* at = out_line_ + head_size_;
    if (dealt_) *at++ = ' ';
    if (!reply.empty()) {
      at = put(at, reply);
      *at++ = ' ';
    }
    at = std::to_chars(at, at + 20, payload_size).ptr;
    *at++ = '\r';
    *at++ = '\n';
    out_size_ = static_cast<uint32_t>(at - out_line_);
    if (!referring_ && out_size_ + Deal::kMostSid + payload_size + 2 + kSlack > BufferPool::kLargeChunk) return false;
  }
  payload_size_ = static_cast<uint32_t>(payload_size);
  return true;
}

// Where the next `size` bytes (and kSlack) may be encoded.
char* Run::room(size_t size) {
  if (direct_ != nullptr) return direct_->outbox.reserve(size + kSlack);
  if (block_ == nullptr) {
    block_ = shard_.pool().take_block();
    block_used_ = 0;
  }
  return const_cast<char*>(block_->data) + block_used_;
}

void Run::write(const char* payload_and_crlf) {
  ++messages_;
  payload_bytes_ += payload_size_;
  if (receivers_.empty()) return;
  if (referring_) return write_referring(payload_and_crlf);
  const size_t size = out_size_ + payload_size_ + 2;
  char* to = room(size);
  std::memcpy(to, out_line_, out_size_);
  std::memcpy(to + out_size_, payload_and_crlf, payload_size_ + 2);
  if (direct_ != nullptr) {
    direct_->outbox.commit(size);
  } else {
    block_used_ += static_cast<uint32_t>(size);
  }
  out_bytes_ += size;
  ended_ = out_bytes_ >= kRunBytes;
}

void Run::write_referring(const char* payload_and_crlf) {
  Outbox& outbox = direct_->outbox;
  std::memcpy(outbox.reserve(out_size_), out_line_, out_size_);
  outbox.commit(out_size_);
  outbox.append_shared(lent_, {payload_and_crlf, size_t{payload_size_} + 2});
  out_bytes_ += out_size_ + payload_size_ + 2;
  ended_ = out_bytes_ >= kReferredBytes;
}

void Run::take_alike(std::string_view& in) {
  const size_t line = in_size_;
  const size_t frame = line + payload_size_ + 2;
  const size_t size = out_size_ + payload_size_ + 2;
  // kSlack behind the last frame: comparing and copying may read too much.
  if (ended_ || line == 0 || in.size() < frame + kSlack) return;
  const char* p = in.data();
  const char* last = p + (in.size() - frame - kSlack);
  if (crossing_ != 0) {
    const auto taken = static_cast<size_t>(p - frames_);
    if (taken + frame > most_frames_) return;
    last = std::min(last, p + (most_frames_ - taken - frame));
  }
  const auto alike = [&] {
    const char* const end = p + frame - 2;
    return same_bytes(p, in_line_, line) && end[0] == '\r' && end[1] == '\n';
  };
  uint64_t n = 0;
  if (dealt_) {
    const Deal::Dealt dealt =
        deal_.take_alike(dealt_line(in_size_), in_line_, p, last, kRunBytes - std::min(out_bytes_, kRunBytes));
    n = dealt.messages;
    out_bytes_ += dealt.bytes;
    ended_ = out_bytes_ >= kRunBytes;
  } else if (receivers_.empty()) {
    for (; p <= last && alike(); p += frame) ++n;
  } else if (referring_) {
    for (; p <= last && !ended_ && alike(); p += frame, ++n) write_referring(p + line);
  } else {
    while (p <= last && out_bytes_ < kRunBytes) {
      // Whole pieces of the outbox at a time: what is asked for each message is only whether it is alike.
      char* const from = room(size);
      const size_t space = direct_ != nullptr ? direct_->outbox.space() - kSlack : block_->size - block_used_ - kSlack;
      uint64_t most = std::min(space, kRunBytes + size - out_bytes_) / size;
      char* to = from;
      if (payload_size_ + 2 <= 256 && out_size_ <= 64) {
        for (; most > 0 && p <= last && alike(); --most) {
          copy_loosely(to, out_line_, out_size_);
          copy_loosely(to + out_size_, p + line, payload_size_ + 2);
          to += size;
          p += frame;
        }
      } else {
        for (; most > 0 && p <= last && alike(); --most) {
          std::memcpy(to, out_line_, out_size_);
          std::memcpy(to + out_size_, p + line, payload_size_ + 2);
          to += size;
          p += frame;
        }
      }
      const auto written = static_cast<size_t>(to - from);
      if (written == 0) break;
      n += written / size;
      out_bytes_ += written;
      if (direct_ != nullptr) {
        direct_->outbox.commit(written);
      } else {
        block_used_ += static_cast<uint32_t>(written);
      }
      if (most > 0) break;
    }
    ended_ = out_bytes_ >= kRunBytes;
  }
  messages_ += n;
  payload_bytes_ += n * payload_size_;
  frames_end_ = p;
  in.remove_prefix(static_cast<size_t>(p - in.data()));
}

void Run::finish() {
  open_ = false;
  if (from_ != nullptr) {
    from_->traffic.in_msgs += messages_;
    from_->traffic.in_bytes += payload_bytes_;
    if (from_->kind == SessionKind::kClient) {
      account_->traffic.in_msgs += messages_;
      account_->traffic.in_bytes += payload_bytes_;
    } else {
      shard_.count_peer_messages(messages_, payload_bytes_);
    }
  } else {
    from_rings_ += messages_;
  }
  if (dealt_) return deal_.finish(*account_, max_pending_);
  const bool share = direct_ == nullptr && out_bytes_ >= kShareFrom;
  if (share) block_->size = block_used_;
  for (Subscription* sub : receivers_) {
    Session& to = *sub->session;
    sub->count(messages_);
    to.traffic.out_msgs += messages_;
    to.traffic.out_bytes += payload_bytes_;
    if (share) {
      to.outbox.append_shared(block_, 0);
    } else if (direct_ == nullptr) {
      to.outbox.append({block_->data, block_used_});
    }
    shard_.mark_dirty(to);
    if (to.outbox.pending() > Shard::kPaceAbove) [[unlikely]] {
      // Never a peer: everybody else behind it would wait, too.
      if (from_ != nullptr && from_->kind == SessionKind::kClient && direct_ != nullptr) shard_.pace(*from_, to);
      if (to.outbox.pending() > max_pending_) shard_.delivery().slow_consumer(to, *account_);
    }
  }
  if (to_peers_) {
    shard_.delivery().count_peers(messages_ * receivers_.size(), payload_bytes_ * receivers_.size());
  } else {
    account_->traffic.out_msgs += messages_ * receivers_.size();
    account_->traffic.out_bytes += payload_bytes_ * receivers_.size();
  }
  if (crossing_ != 0) send_frames();
  if (share) {
    shard_.pool().drop(block_);
    block_ = nullptr;
  }
  block_used_ = 0;
}

void Run::send_frames() {
  FramesRecord record;
  record.account = account_->number;
  record.source = from_->kind;
  record.prefix_size = static_cast<uint16_t>(prefix_.size());
  record.subject_size = static_cast<uint32_t>(subject_.size());
  record.bytes = static_cast<uint32_t>(frames_end_ - frames_);
  record.home = shard_.index();
  record.shared = record.bytes >= kReferFramesFrom ? lent_ : nullptr;
  record.frames = frames_;
  for (ShardSet rest = crossing_; rest != 0; rest &= rest - 1) {
    const auto target = static_cast<uint32_t>(__builtin_ctzll(rest));
    record.sides = 0;
    for (size_t n = 0; n < kSides; ++n) record.sides |= static_cast<SideSet>((shards_[n] >> target & 1) << n);
    char* at = shard_.begin_delivery(target, record.size(), from_);
    std::memcpy(at, &record, sizeof(record));
    if (record.shared != nullptr) {
      ++record.shared->refs;  // comes back as a release record
    } else {
      std::memcpy(at + sizeof(record), frames_, record.bytes);
    }
    shard_.end_delivery(target);
  }
  if (receivers_.empty() && (crossing_ & (crossing_ - 1)) == 0)
    shard_.placement().crossed(*from_, static_cast<uint32_t>(__builtin_ctzll(crossing_)), messages_, payload_bytes_);
}

}  // namespace peregrine::core
