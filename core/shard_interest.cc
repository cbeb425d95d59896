// The part of a shard that is about interest: subscriptions in and out of its index, what other shards are told of them
// and tell, and listeners (routes, gateways, leafnodes), who hear of all that is there and of every change. Rule 1 is
// in the order of the turn (shard.cc); here nothing depends on when it is called.
#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "core/peer_session.h"
#include "core/shard.h"

namespace peregrine::core {
namespace {

constexpr size_t kReplaySlice = 512;  // interest told to one peer per turn

}  // namespace

// ---------------------------------------------------------------------------------------------- from other shards

bool Shard::drain_interest() {
  bool all = false;
  for (uint32_t from = 0; from < shard_count_; ++from) {
    if (peers_[from].in == nullptr) continue;
    Ring& ring = peers_[from].in->interest;
    const uint64_t limit = ring.snapshot();
    uint32_t size;
    bool any = false;
    while (const char* bytes = ring.peek(limit, size)) {
      any = true;
      ++ring_counters_.records_in;
      ring_counters_.bytes_in += size;
      switch (static_cast<CrossingType>(bytes[0])) {
        case CrossingType::kHeap: {
          HeapRecord heap;
          std::memcpy(&heap, bytes, sizeof(heap));
          on_interest_record(from, heap.bytes);
          std::free(heap.bytes);
          break;
        }
        default:
          on_interest_record(from, bytes);
      }
      ring.pop(size);
    }
    if (any) ring.finish();
    all |= any;
  }
  return all;
}

void Shard::on_interest_record(uint32_t from, const char* bytes) {
  switch (static_cast<CrossingType>(bytes[0])) {
    case CrossingType::kInterestReplay:
      return on_replay(bytes);
    case CrossingType::kLiteralInterest:
      return on_literals(from, bytes);
    case CrossingType::kTextsFollow:
      peers_[from].sends_texts = true;
      return;
    case CrossingType::kOriginInterest: {
      OriginInterestRecord record;
      std::memcpy(&record, bytes, sizeof(record));
      const std::string_view subject(bytes + sizeof(record), record.subject_size);
      const std::string_view queue(subject.data() + subject.size(), record.queue_size);
      Account& account = this->account(record.account);
      account.note_remote_origin(record.side, subject, queue, record.origin, record.change);
      if (server_.tells_origins && record.side == Side::kLeafs)
        account.note_origin(subject, queue, record.origin, record.change);
      changes_told_ += record.followed ? 0 : 1;
      if (record.followed) peers_[from].origin = record.origin;
      else tell_listeners(account, record.side, subject, queue, record.origin);
      return;
    }
    default:
      ++changes_told_;
      return on_interest(from, bytes);
  }
}

void Shard::on_literals(uint32_t from, const char* bytes) {
  LiteralInterestRecord record;
  std::memcpy(&record, bytes, sizeof(record));
  std::array<uint64_t, LiteralInterestRecord::kMost> hashes;
  std::memcpy(hashes.data(), bytes + sizeof(record), record.count * sizeof(uint64_t));
  changes_told_ += record.count;
  Account& account = this->account(record.account);
  account.side(record.side)
      .set_remote_literals(from, {hashes.data(), record.count}, record.interested, record.void_ones);
  account.changed(record.side);
  if ((record.interested & ~record.void_ones) != 0) account.note_new_interest(record.side, now_ns_);
  peers_[from].origin = kNoOrigin;
}

void Shard::on_interest(uint32_t from, const char* bytes) {
  InterestRecord record;
  std::memcpy(&record, bytes, sizeof(record));
  const std::string_view subject(bytes + sizeof(record), record.subject_size);
  const std::string_view queue(subject.data() + subject.size(), record.queue_size);
  Account& account = this->account(record.account);
  Sublist& sublist = account.side(record.side);
  if (record.literal) {
    sublist.set_remote_literal(from, record.hash, record.interested);
  } else if (queue.empty()) {
    sublist.set_remote(from, subject, record.interested);
  } else {
    sublist.set_remote_queue(from, subject, queue, record.weight);
  }
  account.changed(record.side);
  if (record.interested) account.note_new_interest(record.side, now_ns_);
  const OriginId origin = std::exchange(peers_[from].origin, kNoOrigin);
  if (!listeners_.empty()) tell_listeners(account, record.side, subject, queue, origin);
}

// ---------------------------------------------------------------------------------------------------- to other shards

template <class Record>
void Shard::tell_interest(const Record& record, std::string_view subject, std::string_view queue, Session& cause,
                          [[maybe_unused]] bool still_wanted) {
  const auto fill = [&](char* to) {
    std::memcpy(to, &record, sizeof(record));
    put(put(to + sizeof(record), subject), queue);
  };
  for (Peer& peer : peers_) {
    if (peer.out == nullptr) continue;
    if constexpr (std::is_same_v<Record, InterestRecord>) {
      if (record.literal && !peer.wants_texts) {
        if (still_wanted) peer.literals.still_wanted(record.hash);
        else tell_literal(peer, record.side, record.account, record.hash, record.interested, cause);
        continue;
      }
    }
    ++ring_counters_.records_out;
    ring_counters_.bytes_out += record.size();
    peer.quiet_bytes += record.size();
    if (record.size() > peer.out->interest.max_record()) {
      HeapRecord heap;
      heap.record_size = record.size();
      heap.bytes = static_cast<char*>(std::malloc(heap.record_size));
      if (heap.bytes == nullptr) throw std::bad_alloc();
      fill(heap.bytes);
      write_interest(peer, &heap, sizeof(heap), &cause);
      continue;
    }
    fill(begin_interest(peer, record.size(), &cause));
    end_interest(peer, record.size());
  }
}

// A literal's first subscription has come, or its last one gone.
void Shard::tell_literal(Peer& peer, Side side, uint32_t account, uint64_t hash, bool interested, Session& cause) {
  if (peer.interest_overflow.empty() || !rules.overflow_in_order) [[likely]] {
    if (peer.literals.add(peer.out->interest, side, account, hash, interested)) [[likely]]
      return;
  }
  const LiteralInterestRecord record{.side = side, .count = 1, .account = account, .interested = interested ? 1u : 0u};
  ++ring_counters_.records_out;
  ring_counters_.bytes_out += record.size();
  peer.quiet_bytes += record.size();
  char* const to = begin_interest(peer, record.size(), &cause);
  std::memcpy(to, &record, sizeof(record));
  std::memcpy(to + sizeof(record), &hash, sizeof(hash));
  end_interest(peer, record.size());
}

// The same to all shards, if it is anything to them.
inline void Shard::tell_literal(const Account& account, Side side, const InterestChange& change, Session& cause) {
  if (change.kind == InterestChange::Kind::kNone) return;
  const bool still_wanted = change.kind == InterestChange::Kind::kLast && change.wanted;
  for (Peer& peer : peers_) {
    if (peer.out == nullptr) continue;
    if (still_wanted) peer.literals.still_wanted(change.hash);
    // While a record is open nothing waits in the overflow list: that closes it.
    else if (!peer.literals.add_to_open(side, account.number, change.hash, change.wanted))
      tell_literal(peer, side, account.number, change.hash, change.wanted, cause);
  }
}

// A small record that is there already.
void Shard::write_interest(Peer& peer, const void* bytes, uint32_t size, Session* cause) {
  std::memcpy(begin_interest(peer, size, cause), bytes, size);
  end_interest(peer, size);
}

// ---------------------------------------------------------------------------------------------------- subscriptions

Subscription* Shard::add_subscription(Session& session, std::string_view sid, std::string_view subject,
                                      std::string_view queue) {
  auto* sub = new (subscriptions_.allocate()) Subscription(&session, sid);
  Account& account = *session.account;
  const InterestChange change = account.sublist.insert(*sub, subject, queue);
  interest_changed(account, Side::kClients, change, true, subject, queue, kNoOrigin, session);
  return sub;
}

Subscription* Shard::add_literal(Session& session, std::string_view sid, std::string_view subject) {
  auto* sub = new (subscriptions_.allocate()) Subscription(&session, sid);
  Account& account = *session.account;
  const InterestChange change = account.sublist.insert_literal(*sub, subject);
  if (hashes_are_enough()) [[likely]] {
    account.note_new_interest(Side::kClients, now_ns_);
    if (shard_count_ > 1) tell_literal(account, Side::kClients, change, session);
  } else {
    interest_changed(account, Side::kClients, change, true, subject, {}, kNoOrigin, session);
  }
  return sub;
}

Subscription* Shard::add_peer_interest(PeerSession& session, Account& account, Side side, std::string_view subject,
                                       std::string_view queue, uint32_t weight, OriginId origin) {
  Sublist& sublist = account.side(side);
  if (Subscription* known = sublist.find_of(session, subject, queue, origin)) {
    if (queue.empty()) return known;
    const int64_t before = known->weight();
    const InterestChange change = sublist.set_weight(*known, weight);
    tell_origin(*known, known->weight() - before, change, subject, queue, session);
    interest_changed(account, side, change, true, subject, queue, origin, session);
    return known;
  }
  auto* sub = new (subscriptions_.allocate())
      Subscription(&session, side, {session.next_slot(), account.number}, queue.empty() ? 1 : weight, origin);
  session.remember(*sub);
  const InterestChange change = sublist.insert(*sub, subject, queue);
  tell_origin(*sub, sub->weight(), change, subject, queue, session);
  interest_changed(account, side, change, true, subject, queue, origin, session);
  return sub;
}

bool Shard::remove_peer_interest(PeerSession& session, Account& account, Side side, std::string_view subject,
                                 std::string_view queue, OriginId origin) {
  Subscription* sub = account.side(side).find_of(session, subject, queue, origin);
  if (sub == nullptr) return false;
  remove_subscription(*sub);
  return true;
}

void Shard::remove_forgotten(Subscription& sub) {
  Session& session = *sub.session;
  InterestChange change;
  if (!sub.peer && hashes_are_enough() && session.account->sublist.remove_lone_literal(sub, change)) [[likely]] {
    if (shard_count_ > 1) tell_literal(*session.account, Side::kClients, change, session);
  } else {
    remove_with_texts(sub);
  }
  if (sub.limited) limits_.erase(&sub);
  sub.~Subscription();
  subscriptions_.release(&sub);
}

void Shard::remove_with_texts(Subscription& sub) {
  Session& session = *sub.session;
  Account& account = sub.peer ? this->account(sub.peer_place().account) : *session.account;
  const Side side = sub.side;
  Sublist& sublist = account.side(side);
  const bool of_leaf = sub.peer && side == Side::kLeafs;
  if (shard_count_ == 1 && listeners_.empty() && !of_leaf) {
    sublist.remove(sub);
    account.changed(side);
    return;
  }
  // The index may forget the texts with this subscription.
  std::string_view subject = sublist.subject_of(sub), queue = sublist.queue_of(sub);
  std::array<char, 512> nearly_always;
  std::string otherwise;
  char* texts = nearly_always.data();
  if (subject.size() + queue.size() > nearly_always.size()) {
    otherwise.resize(subject.size() + queue.size());
    texts = otherwise.data();
  }
  put(put(texts, subject), queue);
  subject = {texts, subject.size()};
  queue = {texts + subject.size(), queue.size()};
  const InterestChange change = sublist.remove(sub);
  if (sub.peer) tell_origin(sub, -int64_t{sub.weight()}, change, subject, queue, session);
  interest_changed(account, side, change, false, subject, queue, sub.peer ? sub.origin() : kNoOrigin, session);
}

void Shard::remove_subscriptions(std::span<Subscription* const> subs) {
  const auto sublist_of = [&](const Subscription& sub) -> const Sublist& {
    return sub.peer ? account(sub.peer_place().account).side(sub.side) : sub.session->account->sublist;
  };
  for (const Subscription* sub : subs) {
    __builtin_prefetch(sub);
    __builtin_prefetch(reinterpret_cast<const char*>(sub + 1) - 1);
  }
  for (const Subscription* sub : subs) sublist_of(*sub).prefetch_entry(*sub);
  for (const Subscription* sub : subs) sublist_of(*sub).prefetch_slot(*sub);
  for (Subscription* sub : subs) remove_subscription(*sub);
}

// What a leafnode cluster wants has changed on this shard; the others need to know whose interest is whose.
void Shard::tell_origin(const Subscription& sub, int64_t weight_change, const InterestChange& change,
                        std::string_view subject, std::string_view queue, Session& cause) {
  if (weight_change == 0 || !Account::has_origins(sub.side)) return;
  if (server_.tells_origins && sub.side == Side::kLeafs)
    account(sub.peer_place().account).note_origin(subject, queue, sub.origin(), static_cast<int32_t>(weight_change));
  if (shard_count_ == 1) return;
  OriginInterestRecord record{.followed = change.kind != InterestChange::Kind::kNone,
                              .side = sub.side,
                              .account = sub.peer_place().account,
                              .change = static_cast<int32_t>(weight_change),
                              .subject_size = static_cast<uint32_t>(subject.size()),
                              .queue_size = static_cast<uint32_t>(queue.size()),
                              .origin = sub.origin()};
  tell_interest(record, subject, queue, cause);
}

// A subscription has come, gone or changed its weight, here: the other shards hear of it if it made a difference, and
// the peers of this shard look again.
void Shard::interest_changed(Account& account, Side side, const InterestChange& change, bool interested,
                             std::string_view subject, std::string_view queue, OriginId origin, Session& cause) {
  account.changed(side);
  if (interested) account.note_new_interest(side, now_ns_);
  if (shard_count_ > 1 && change.kind != InterestChange::Kind::kNone) {
    if (change.literal && !texts_are_wanted_) {
      tell_literal(account, side, change, cause);
    } else {
      InterestRecord record{.interested = change.literal ? change.wanted : interested,
                            .side = side,
                            .literal = change.literal,
                            .account = account.number,
                            .weight = change.weight,
                            .subject_size = static_cast<uint32_t>(subject.size()),
                            .queue_size = static_cast<uint32_t>(queue.size()),
                            .hash = change.hash};
      tell_interest(record, subject, queue, cause, change.literal && !interested && change.wanted);
    }
  }
  if (!listeners_.empty()) tell_listeners(account, side, subject, queue, origin);
}

void Shard::tell_listeners(Account& account, Side side, std::string_view subject, std::string_view queue,
                           OriginId origin) {
  for (InterestListener* listener : listeners_) {
    if ((listener->listens_to() & bit(side)) != 0 && listener->listens_to(account))
      listener->interest_changed(account, side, subject, queue, origin);
  }
}

// ---------------------------------------------------------------------------------------------------- telling peers
// what is there

void Shard::listen_to_interest(InterestListener& listener) {
  listeners_.push_back(&listener);
  Replay& replay = replays_.emplace_back();
  replay.id = next_replay_++;
  replay.listener = &listener;
  replay.shard = index_;
  for (uint32_t n = 0; n < shard_count_; ++n) {
    Peer& peer = peers_[n];
    if (peer.out == nullptr || std::exchange(peer.asked_for_texts, true)) continue;
    server_.shards[n]->post([to = index_](Shard& shard) {
      shard.peers_[to].wants_texts = shard.texts_are_wanted_ = true;
      const TextsFollowRecord record;
      shard.write_interest(shard.peers_[to], &record, sizeof(record), nullptr);
      return true;
    });
  }
}

void Shard::stop_listening(InterestListener& listener) {
  std::erase(listeners_, &listener);
  std::erase_if(replays_, [&](const Replay& replay) { return replay.listener == &listener; });
}

// A slice of one replay that can go on, of another each time: a turn stays short however many peers join at once. An
// account, a side, a shard at a time; this shard first.
bool Shard::go_on_with_replays() {
  // What has come without its text is there when the replay asks for it; what comes later has one.
  for (const Peer& peer : peers_) {
    if (peer.in != nullptr && !peer.sends_texts) return false;
  }
  for (size_t n = replays_.size(); n > 0; --n) {
    std::rotate(replays_.begin(), replays_.begin() + 1, replays_.end());
    Replay& replay = replays_.back();
    if (replay.asked || !replay.listener->ready_for_replay()) continue;
    replay_slice(replay);
    std::erase_if(replays_, [](const Replay& each) { return each.done(); });
    return true;
  }
  return false;
}

void Shard::replay_slice(Replay& replay) {
  if (replay.filled) return tell_replay(replay);
  // Skip quickly what does not concern the listener.
  while (replay.account < accounts_.size() &&
         (!replay.listener->listens_to(*accounts_[replay.account]) ||
          (replay.listener->listens_to() & accounts_[replay.account]->live_sides()) == 0)) {
    ++replay.account;
    replay.side = 0;
    replay.shard = index_;
    replay.cursor = 0;
  }
  if (replay.account == accounts_.size()) {
    std::exchange(replay.listener, nullptr)->replay_done();
    return;
  }
  Account& account = *accounts_[replay.account];
  const auto side = static_cast<Side>(replay.side);
  if ((replay.listener->listens_to() & account.live_sides() & bit(side)) == 0) {
    replay.shard = (index_ + shard_count_ - 1) % shard_count_;  // the last one: on to the next side
    return next_replay_part(replay);
  }
  if (replay.shard == index_) {
    replay.last = !copy_interest(replay.account, side, replay.cursor, replay.block);
    replay.filled = true;
    return;
  }
  replay.asked = true;
  server_.shards[replay.shard]->post(
      [to = index_, id = replay.id, number = replay.account, side, cursor = replay.cursor](Shard& shard) {
        shard.send_replay_slice(to, id, number, side, cursor);
        return true;
      });
}

void Shard::next_replay_part(Replay& replay) {
  replay.cursor = 0;
  replay.shard = (replay.shard + 1) % shard_count_;
  if (replay.shard != index_) return;
  if (++replay.side < kSides) return;
  replay.side = 0;
  ++replay.account;
}

// Some of the block: what has changed since it was filled does no harm, the listener looks at what is there now.
void Shard::tell_replay(Replay& replay) {
  const std::string& block = replay.block;
  for (size_t n = 0; n < kReplaySlice && replay.at < block.size(); ++n) {
    InterestRecord interest;
    std::memcpy(&interest, block.data() + replay.at, sizeof(interest));
    OriginId origin;
    std::memcpy(&origin, block.data() + replay.at + sizeof(interest), sizeof(origin));
    const std::string_view subject(block.data() + replay.at + sizeof(interest) + sizeof(origin), interest.subject_size);
    const std::string_view queue(subject.data() + subject.size(), interest.queue_size);
    replay.at += sizeof(interest) + sizeof(origin) + subject.size() + queue.size();
    replay.listener->interest_changed(account(interest.account), interest.side, subject, queue, origin);
  }
  if (replay.at < block.size()) return;
  replay.block.clear();
  replay.at = 0;
  replay.filled = false;
  if (replay.last) next_replay_part(replay);
}

// A slice of what this shard has itself. False: that was the last one.
bool Shard::copy_interest(uint32_t number, Side side, uint64_t& cursor, std::string& block) {
  Sublist& sublist = account(number).side(side);
  const auto visit = [&](std::string_view subject, std::string_view queue, uint32_t weight) {
    const InterestRecord record{.interested = true,
                                .side = side,
                                .literal = false,  // texts are what is asked for
                                .account = number,
                                .weight = weight,
                                .subject_size = static_cast<uint32_t>(subject.size()),
                                .queue_size = static_cast<uint32_t>(queue.size())};
    const auto append = [&](OriginId origin) {
      block.append(reinterpret_cast<const char*>(&record), sizeof(record));
      block.append(reinterpret_cast<const char*>(&origin), sizeof(origin)).append(subject).append(queue);
    };
    if (side != Side::kLeafs) return append(kNoOrigin);
    sublist.for_each_of(subject, queue, [&](const Subscription& sub) { append(sub.origin()); });
  };
  return sublist.visit_interest_slice(cursor, visit);
}

// On the shard that was asked. The slice takes the interest ring, behind every change that came before it: what the
// asker knows when it has read the slice is no older than the slice.
void Shard::send_replay_slice(uint32_t to, uint64_t id, uint32_t number, Side side, uint64_t cursor) {
  std::string block;
  InterestReplayRecord record;
  record.last = !copy_interest(number, side, cursor, block);
  record.replay = id;
  record.cursor = cursor;
  record.bytes = static_cast<uint32_t>(block.size());
  record.block = nullptr;
  if (!block.empty()) {
    record.block = static_cast<char*>(std::malloc(block.size()));
    if (record.block == nullptr) throw std::bad_alloc();
    std::memcpy(record.block, block.data(), block.size());
  }
  write_interest(peers_[to], &record, sizeof(record), nullptr);
}

void Shard::on_replay(const char* bytes) {
  InterestReplayRecord record;
  std::memcpy(&record, bytes, sizeof(record));
  const auto replay =
      std::find_if(replays_.begin(), replays_.end(), [&](const Replay& each) { return each.id == record.replay; });
  if (replay != replays_.end()) {
    replay->asked = false;
    replay->cursor = record.cursor;
    replay->last = record.last;
    if (record.block != nullptr) replay->block.assign(record.block, record.bytes);
    replay->filled = true;  // told at the end of the turn
  }
  std::free(record.block);
}

void Shard::set_subscription_limit(Subscription& sub, uint64_t max) {
  sub.limited = true;
  limits_[&sub] = max;
}

uint64_t Shard::subscription_limit(const Subscription& sub) const {
  const auto at = limits_.find(&sub);
  return at == limits_.end() ? UINT64_MAX : at->second;
}

}  // namespace peregrine::core
