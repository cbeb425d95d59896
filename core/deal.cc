#include "core/deal.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/crossing.h"
#include "core/shard.h"

namespace peregrine::core {
namespace {

constexpr size_t kShortLine = 64, kShortPayload = 256;  // copied in words rather than by a call

}  // namespace

void Deal::set_out(const QueueGroup& group, Session* from, const Frames& frames) {
  local_ = group.local;
  group_ = group.id;
  from_ = from;
  if (from != nullptr) {
    remote_ = group.remote;
    remote_weight_ = group.remote_weight;
  } else {
    remote_ = {};
    remote_weight_ = 0;
  }
  frames_ = frames;
  ++serial_;
  seats_.assign(local_.size() + remote_.size(), {});
  hands_.resize(1);
}

// Who gets the next message.
size_t Deal::draw(Random& random) const {
  uint64_t at = random.below(local_.size() + remote_weight_);
  if (at < local_.size()) [[likely]]
    return at;
  at -= local_.size();
  size_t n = 0;
  while (n + 1 < remote_.size() && at >= remote_[n].weight) at -= remote_[n++].weight;
  return local_.size() + n;
}

// kShort: line and payload are short, and followed by what may be read too much.
template <bool kShort>
[[gnu::always_inline]] inline size_t Deal::deal_one(const Line& line, const char* frame, Random& random) {
  const size_t at = draw(random);
  Seat& seat = seats_[at];
  const bool here = at < local_.size();
  const std::string_view sid = here ? local_[at]->sid() : std::string_view();
  const size_t rest = line.payload_size + 2;
  const size_t size = (here ? line.head_size + sid.size() + line.tail_size : line.in_size) + rest;
  Hand* hand = &hands_[seat.hand];
  if (static_cast<size_t>(hand->end - hand->at) < size) [[unlikely]]
    hand = &make_room(at, size);
  char* to = hand->at;
  hand->at += size;
  ++hand->messages;
  hand->payload_bytes += line.payload_size;
  ++seat.messages;
  if (!here) {
    std::memcpy(to, frame, size);
  } else if (kShort) {
    copy_loosely(to, line.head, line.head_size);
    to = put(to + line.head_size, sid);
    copy_loosely(to, line.tail, line.tail_size);
    copy_loosely(to + line.tail_size, frame + line.in_size, rest);
  } else {
    to = put(put(put(to, {line.head, line.head_size}), sid), {line.tail, line.tail_size});
    std::memcpy(to, frame + line.in_size, rest);
  }
  return size;
}

size_t Deal::take(const Line& line, const char* frame) { return deal_one<false>(line, frame, shard_.random()); }

Deal::Dealt Deal::take_alike(const Line& line, const char* alike, const char*& p, const char* last, size_t most_bytes) {
  const size_t in_size = line.in_size;
  const size_t frame = in_size + line.payload_size + 2;
  Dealt dealt;
  Random random = shard_.random();  // in registers
  const char* at = p;
  const auto more = [&] {
    const char* const end = at + frame - 2;
    return at <= last && dealt.bytes < most_bytes && same_bytes(at, alike, in_size) && end[0] == '\r' && end[1] == '\n';
  };
  if (line.head_size <= kShortLine && line.tail_size <= kShortLine && line.payload_size + 2 <= kShortPayload) {
    for (; more(); at += frame, ++dealt.messages) dealt.bytes += deal_one<true>(line, at, random);
  } else {
    for (; more(); at += frame, ++dealt.messages) dealt.bytes += deal_one<false>(line, at, random);
  }
  shard_.random() = random;
  p = at;
  return dealt;
}

// The hand of this seat, with room for `size` more bytes.
Deal::Hand& Deal::make_room(size_t at, size_t size) {
  Seat& seat = seats_[at];
  const bool here = at < local_.size();
  Session* const to = here ? local_[at]->session : nullptr;
  if (seat.hand == 0) {
    if (here && to->target_serial == serial_) {
      seat.hand = to->target_index;
    } else {
      seat.hand = static_cast<uint32_t>(hands_.size());
      Hand& fresh = hands_.emplace_back();
      fresh.to = to;
      if (here) {
        to->target_serial = serial_;
        to->target_index = seat.hand;
      } else {
        fresh.shard = remote_[at - local_.size()].shard;
      }
    }
  }
  Hand& hand = hands_[seat.hand];
  if (static_cast<size_t>(hand.end - hand.at) >= size) return hand;  // the session had a hand already
  if (here) {
    commit(hand);
    hand.at = hand.begin = to->outbox.reserve(size + kSlack);
    hand.end = hand.at + to->outbox.space() - kSlack;
  } else {
    if (hand.block != nullptr) cross(hand);
    else hand.block = shard_.pool().take_block();
    hand.at = hand.begin = const_cast<char*>(hand.block->data);
    hand.end = hand.at + frames_.most_bytes;
  }
  return hand;
}

void Deal::commit(Hand& hand) {
  if (hand.at != hand.begin) hand.to->outbox.commit(static_cast<size_t>(hand.at - hand.begin));
}

void Deal::cross(Hand& hand) {
  FramesRecord record;
  record.sides = 0;
  record.group = group_;
  record.source = SessionKind::kClient;
  record.account = frames_.account;
  record.prefix_size = frames_.prefix_size;
  record.subject_size = frames_.subject_size;
  record.bytes = static_cast<uint32_t>(hand.at - hand.begin);
  char* at = shard_.begin_delivery(hand.shard, record.size(), from_);
  std::memcpy(at, &record, sizeof(record));
  std::memcpy(at + sizeof(record), hand.begin, record.bytes);
  shard_.end_delivery(hand.shard);
  shard_.placement().crossed(*from_, hand.shard, std::exchange(hand.messages, 0), std::exchange(hand.payload_bytes, 0));
}

void Deal::finish(Account& account, size_t max_pending) {
  for (size_t n = 0; n < local_.size(); ++n) local_[n]->delivered += seats_[n].messages;
  for (size_t n = 1; n < hands_.size(); ++n) {
    Hand& hand = hands_[n];
    if (hand.to == nullptr) {
      cross(hand);
      shard_.pool().drop(hand.block);
      continue;
    }
    commit(hand);
    Session& to = *hand.to;
    to.traffic.out_msgs += hand.messages;
    to.traffic.out_bytes += hand.payload_bytes;
    account.traffic.out_msgs += hand.messages;
    account.traffic.out_bytes += hand.payload_bytes;
    shard_.mark_dirty(to);
    if (to.outbox.pending() > max_pending) [[unlikely]]
      shard_.delivery().slow_consumer(to, account);
  }
}

}  // namespace peregrine::core
