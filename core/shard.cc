#include "core/shard.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "core/client_luggage.h"
#include "core/client_session.h"

namespace peregrine::core {

RingMatrix::RingMatrix(uint32_t shards, uint32_t interest_bytes, uint32_t delivery_bytes) : shards_(shards) {
  pairs_.resize(size_t{shards} * shards);
  for (uint32_t from = 0; from < shards; ++from) {
    for (uint32_t to = 0; to < shards; ++to) {
      if (from != to) pairs_[from * shards + to] = std::make_unique<RingPair>(interest_bytes, delivery_bytes);
    }
  }
}

namespace {
constexpr int64_t kLongTurnNs = 1'000'000;
constexpr size_t kClosedSubs = 32;  // a closed connection with more subscriptions is remembered without them

// Among the closed connections of /connz.
bool is_remembered(const Session& session) {
  return session.kind == SessionKind::kClient || session.kind == SessionKind::kLeaf;
}
}  // namespace

Shard::Shard(Server& server, uint32_t index, uint32_t shard_count, RingMatrix* rings, uint64_t seed, int64_t now_ns,
             int64_t wall_ns)
    : server_(server),
      index_(index),
      shard_count_(shard_count),
      now_ns_(now_ns),
      wall_ns_(wall_ns),
      random_(seed),
      pool_(index, this),
      timers_(now_ns),
      sid_hash_(server.hash_key.k0, server.hash_key.k1, index + 1),
      delivery_(*this),
      run_(*this),
      placement_(*this) {
  accounts_.push_back(
      std::make_unique<Account>(std::string(kGlobalAccountName), kGlobalAccount, server.hash_key, index));
  if (const auto& mappings = server.options.mappings; !mappings.empty()) {
    accounts_[kGlobalAccount]->mappings = std::make_unique<SubjectMappings>(mappings, server.options.cluster.name);
  }
  peers_.resize(shard_count);
  for (uint32_t peer = 0; peer < shard_count; ++peer) {
    if (peer == index) continue;
    peers_[peer].out = &rings->at(index, peer);
    peers_[peer].in = &rings->at(peer, index);
    largest_record_ = peers_[peer].out->delivery.max_record();
  }
}

Shard::~Shard() {
  while (!sessions_.empty()) {
    Session& session = *sessions_.back();
    while (!session.detached_ && !session.detach_slice(SIZE_MAX)) {
    }
    forget(session);
  }
}

// ---------------------------------------------------------------------------------------------------- the turn

void Shard::begin_turn(int64_t now_ns, int64_t wall_ns) {
  const int64_t worked_ns = std::min(now_ns, worked_until_ns_) - now_ns_;
  if (worked_ns > 0) {
    longest_turn_ns_ = std::max(longest_turn_ns_, worked_ns);
    if (worked_ns > kLongTurnNs) ++long_turns_;
    ++turn_lengths_[std::min<size_t>(std::bit_width(static_cast<uint64_t>(worked_ns) / 1000),
                                     turn_lengths_.size() - 1)];
  }
  worked_until_ns_ = 0;
  if (index_changes_ >= most_index_changes_ / 2) adapt_index_changes(worked_ns);
  if (shard_count_ > 1) {
    const uint64_t handled = messages_taken_ + delivery_.records() + run_.from_rings();
    load_.add(now_ns, std::max<int64_t>(worked_ns, 0), handled - std::exchange(messages_told_, handled));
  }
  now_ns_ = now_ns;
  wall_ns_ = wall_ns;
  ++turns_;
  index_changes_ = changes_told_ = 0;
  tracing_ = server_.log.enabled(LogLevel::kTrace);
}

void Shard::adapt_index_changes(int64_t worked_ns) {
  if (worked_ns > kLongChangesNs)
    most_index_changes_ = std::max(most_index_changes_ - most_index_changes_ / 4, kFewestIndexChanges);
  else if (worked_ns < kShortChangesNs)
    most_index_changes_ = std::min(most_index_changes_ + most_index_changes_ / 8, kIndexChanges);
}

bool Shard::drain_rings() {
  if (shard_count_ == 1) return false;
  for (Peer& peer : peers_) {
    if (peer.in != nullptr) peer.delivery_limit = peer.in->delivery.snapshot();
  }
  bool any = rules.drain_before_think && drain_interest();
  any |= drain_deliveries();
  return any;
}

bool Shard::drain_deliveries() {
  bool all = false;
  // Another shard first each time, so that none is always last.
  first_peer_ = first_peer_ + 1 == shard_count_ ? 0 : first_peer_ + 1;
  for (uint32_t n = 0; n < shard_count_; ++n) {
    const uint32_t from = first_peer_ + n < shard_count_ ? first_peer_ + n : first_peer_ + n - shard_count_;
    Peer& peer = peers_[from];
    if (peer.in == nullptr) continue;
    Ring& ring = peer.in->delivery;
    uint32_t size;
    bool any = false;
    while (const char* bytes = ring.peek(peer.delivery_limit, size)) {
      any = true;
      ++ring_counters_.records_in;
      ++crossings_;
      ring_counters_.bytes_in += size;
      on_delivery(from, bytes);
      ring.pop(size);
    }
    if (any) ring.finish();
    all |= any;
  }
  return all;
}

void Shard::on_delivery(uint32_t from, const char* bytes) {
  switch (static_cast<CrossingType>(bytes[0])) {
    case CrossingType::kDelivery:
      delivery_.on_record(bytes);
      break;
    case CrossingType::kFrames:
      delivery_.on_frames(bytes);
      break;
    case CrossingType::kRelease: {
      ReleaseRecord record;
      std::memcpy(&record, bytes, sizeof(record));
      pool_.drop(record.origin);
      break;
    }
    case CrossingType::kNobody: {
      NobodyRecord record;
      std::memcpy(&record, bytes, sizeof(record));
      const std::string_view subject(bytes + sizeof(record), record.subject_size);
      delivery_.nobody({record.asker, index_}, subject, {subject.end(), record.reply_size});
      break;
    }
    case CrossingType::kHeap: {
      HeapRecord record;
      std::memcpy(&record, bytes, sizeof(record));
      on_delivery(from, record.bytes);
      std::free(record.bytes);
      break;
    }
    case CrossingType::kInterest:
    case CrossingType::kLiteralInterest:
    case CrossingType::kTextsFollow:
    case CrossingType::kOriginInterest:
    case CrossingType::kInterestReplay:
      break;
  }
}

bool Shard::end_turn() {
  bool busy = timers_.advance(now_ns_) != 0;
  if (!mailbox_.empty()) {
    // Who asks what is known here takes it for known to the server: the other shards hear of it before the answer.
    if (shard_count_ > 1) publish();
    mailbox_.run(*this);
    busy = true;
  }
  if (!replays_.empty()) busy |= go_on_with_replays();
  if (!paced_.empty()) busy |= release_paced();
  if (interest_stuck_ || delivery_stuck_) {
    busy |= move_overflow();
    if (!interest_stuck_ && !delivery_stuck_) release_held();
  }
  // Not while something is stuck: it would cause more of the same.
  if (!interest_stuck_ && !delivery_stuck_) {
    busy |= !closing_.empty() || !waiting_.empty();
    if (!closing_.empty()) close_some();
    if (!waiting_.empty()) go_on_with_waiting();
  }
  if (shard_count_ > 1) {
    if (!rules.drain_before_think) drain_interest();
    publish();
    placement_.look_around(now_ns_);
    if (placement_.waiting()) busy |= placement_.step();
  }
  return busy;
}

int64_t Shard::next_deadline_ns() const {
  int64_t at = timers_.next_ns();
  const bool stuck = interest_stuck_ || delivery_stuck_;
  if (!mailbox_.empty() || (!stuck && (!closing_.empty() || !waiting_.empty()))) at = now_ns_;
  // Whoever empties a full ring does not wake its producer: look again soon.
  if (stuck) at = std::min(at, now_ns_ + 100'000);
  for (const Paced& each : paced_) at = std::min(at, each.until_ns);
  if (placement_.waiting()) at = std::min(at, now_ns_ + Placement::kLookNs);
  return at;
}

// Everything of this turn becomes visible to the others: interest first, so that a delivery never overtakes the
// subscription its receiver may have learnt of through it.
void Shard::publish() {
  const auto publish_interest = [&] {
    for (Peer& peer : peers_) {
      if (peer.out == nullptr) continue;
      peer.literals.close(peer.out->interest);
      ring_counters_.records_out += peer.literals.take_records();
      const uint32_t literal_bytes = peer.literals.take_bytes();
      ring_counters_.bytes_out += literal_bytes;
      peer.quiet_bytes += literal_bytes;
      if (peer.out->interest.unpublished()) {
        peer.out->interest.publish();
        peer.published_quietly = true;
      }
      // What does not fit waits for the peer to make room, be there news in this turn or not.
      const uint32_t quiet_at_most = std::min(kQuietBytes, 2 * peer.out->interest.max_record());
      peer.published |= peer.quiet_bytes >= quiet_at_most || !peer.interest_overflow.empty();
    }
  };
  if (rules.interest_first) publish_interest();
  if (rules.interest_first && rules.between_publishes) rules.between_publishes();
  if (!interest_stuck_ || !rules.hold_stuck_output) {
    for (Peer& peer : peers_) {
      if (peer.out != nullptr && peer.out->delivery.unpublished()) {
        peer.out->delivery.publish();
        peer.published = true;
      }
    }
  }
  if (!rules.interest_first) {
    if (rules.between_publishes) rules.between_publishes();
    publish_interest();
  }
  bool any = false;
  for (const Peer& peer : peers_) any |= peer.published || peer.published_quietly;
  if (!any) return;
  // Pairs with the fence in try_sleep(): either we see the sleeper's flag or it sees our tails.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (uint32_t n = 0; n < shard_count_; ++n) {
    Peer& peer = peers_[n];
    if (!peer.published && !peer.published_quietly) continue;
    const uint32_t wakes = peer.published ? kAsleep : kAsleepListening;
    if (peer.published) peer.quiet_bytes = 0;
    peer.published = peer.published_quietly = false;
    Shard& target = *server_.shards[n];
    if (target.sleeping_.load(std::memory_order_relaxed) >= wakes &&
        target.sleeping_.exchange(kAwake, std::memory_order_relaxed) != kAwake) {
      ++ring_counters_.wakeups;
      target.waker_();
    }
  }
}

bool Shard::try_sleep() {
  sleeping_.store(listeners_.empty() ? kAsleep : kAsleepListening, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  bool something = !mailbox_.empty();
  for (const Peer& peer : peers_) {
    if (peer.in != nullptr && (!peer.in->interest.empty() || !peer.in->delivery.empty())) something = true;
  }
  if (something) {
    sleeping_.store(kAwake, std::memory_order_relaxed);
    return false;
  }
  ++parks_;
  return true;
}

void Shard::wake() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_relaxed) != kAwake &&
      sleeping_.exchange(kAwake, std::memory_order_relaxed) != kAwake)
    waker_();
}

void Shard::post(Mailbox::Command command) {
  mailbox_.put(std::move(command));
  wake();
}

// ---------------------------------------------------------------------------------------------- records to other
// shards

namespace {

// The overflow lists: {uint32 size, bytes} each.
char* append_record(std::string& list, uint32_t size) {
  const size_t at = list.size();
  list.resize(at + sizeof(size) + size);
  std::memcpy(list.data() + at, &size, sizeof(size));
  return list.data() + at + sizeof(size);
}

// Moves records into the ring until it is full; true when the list has drained.
bool move_records(Ring& ring, std::string& list, size_t& head, bool& moved) {
  while (head < list.size()) {
    uint32_t size;
    std::memcpy(&size, list.data() + head, sizeof(size));
    char* to = ring.reserve(size);
    if (to == nullptr) {
      if (head > 1 << 20 && head * 2 > list.size()) {
        list.erase(0, head);
        head = 0;
      }
      return false;
    }
    std::memcpy(to, list.data() + head + sizeof(size), size);
    ring.commit(size);
    head += sizeof(size) + size;
    moved = true;
  }
  list.clear();
  if (list.capacity() > 1 << 16) list.shrink_to_fit();
  head = 0;
  return true;
}

}  // namespace

char* Shard::begin_interest(Peer& peer, uint32_t size, Session* cause) {
  peer.literals.close(peer.out->interest);
  const bool in_order = peer.interest_overflow.empty() || !rules.overflow_in_order;
  char* to = in_order ? peer.out->interest.reserve(size) : nullptr;
  peer.interest_in_overflow = to == nullptr;
  if (to != nullptr) return to;
  interest_stuck_ = true;
  ++ring_counters_.overflows;
  if (cause != nullptr) hold_for_rings(*cause);
  return append_record(peer.interest_overflow, size);
}

void Shard::end_interest(Peer& peer, uint32_t size) {
  if (!peer.interest_in_overflow) peer.out->interest.commit(size);
}

char* Shard::write_delivery(Peer& peer, uint32_t size) {
  peer.writing = size;
  const bool in_order = peer.delivery_overflow.empty() || !rules.overflow_in_order;
  char* to = in_order ? peer.out->delivery.reserve(size) : nullptr;
  peer.delivery_in_overflow = to == nullptr;
  if (to == nullptr) {
    to = append_record(peer.delivery_overflow, size);
    delivery_stuck_ = true;
    ++ring_counters_.overflows;
  }
  return to;
}

char* Shard::begin_delivery(uint32_t target, uint32_t size, Session* cause) {
  Peer& peer = peers_[target];
  ++ring_counters_.records_out;
  ++crossings_;
  ring_counters_.bytes_out += size;
  char* to;
  if (size > peer.out->delivery.max_record()) {
    HeapRecord heap;
    heap.record_size = size;
    heap.bytes = static_cast<char*>(std::malloc(size));
    if (heap.bytes == nullptr) throw std::bad_alloc();
    std::memcpy(write_delivery(peer, sizeof(heap)), &heap, sizeof(heap));
    to = heap.bytes;
  } else {
    to = write_delivery(peer, size);
  }
  if (peer.delivery_in_overflow && cause != nullptr) hold_for_rings(*cause);
  return to;
}

void Shard::end_delivery(uint32_t target) {
  Peer& peer = peers_[target];
  if (!peer.delivery_in_overflow) peer.out->delivery.commit(peer.writing);
}

void Shard::release_to(uint32_t home, SharedBytes* origin) {
  Peer& peer = peers_[home];
  ReleaseRecord record;
  record.origin = origin;
  std::memcpy(write_delivery(peer, sizeof(record)), &record, sizeof(record));
  end_delivery(home);
}

bool Shard::move_overflow() {
  bool moved = false;
  interest_stuck_ = delivery_stuck_ = false;
  for (Peer& peer : peers_) {
    if (peer.out == nullptr) continue;
    peer.literals.close(peer.out->interest);
    if (!move_records(peer.out->interest, peer.interest_overflow, peer.interest_head, moved)) interest_stuck_ = true;
    if (!move_records(peer.out->delivery, peer.delivery_overflow, peer.delivery_head, moved)) delivery_stuck_ = true;
  }
  return moved;
}

// Neither read from nor sent to until the overflow lists have drained: what a client causes is bounded by what it had
// sent already.
void Shard::hold_for_rings(Session& cause) {
  if (!rules.hold_stuck_output || cause.closing() || cause.held_by(kHoldRing)) return;
  cause.hold(kHoldRing);
  ring_held_.push_back(&cause);
}

void Shard::release_held() {
  for (Session* session : ring_held_) session->unhold(kHoldRing);
  ring_held_.clear();
}

// ---------------------------------------------------------------------------------------------------- sessions

Session* Shard::open_client(uint32_t conn, std::string ip, uint16_t port) {
  Session* raw = adopt(std::make_unique<ClientSession>(*this, server_.next_cid(), conn, std::move(ip), port));
  ++total_connections_;
  static_cast<ClientSession*>(raw)->start();
  return raw;
}

Session* Shard::adopt(std::unique_ptr<Session> session) {
  Session* raw = session.release();
  raw->table_index_ = sessions_.size();
  sessions_.push_back(raw);
  by_cid_.emplace(raw->cid, raw);
  return raw;
}

Session* Shard::find(uint64_t cid) {
  const auto at = by_cid_.find(cid);
  return at == by_cid_.end() ? nullptr : at->second;
}

// A bounded piece of work on sessions that are going: a hundred thousand subscriptions are withdrawn over many turns,
// and so do ten thousand connections go that are closed at once.
void Shard::close_some() {
  index_changes_ = std::min(index_changes_, most_index_changes_ / 2);
  std::vector<Session*> now;
  now.swap(closing_);
  size_t done = 0;
  for (; done < now.size() && index_changes_ < most_index_changes_; ++done) {
    Session& session = *now[done];
    if (session.detached_) continue;
    index_changes_ += kClosing;
    if (is_remembered(session) && session.last_subs_ == nullptr && session.subscription_count() - 1 < kClosedSubs) {
      ConnRow row;
      session.describe(row, true);
      session.last_subs_ = std::make_unique<std::vector<SubRow>>(std::move(row.subs));
    }
    const size_t before = session.subscription_count();
    const bool detached = session.detach_slice(std::max(most_index_changes_, index_changes_ + 1) - index_changes_);
    index_changes_ += static_cast<uint32_t>(before - session.subscription_count());
    if (!detached) {
      closing_.push_back(&session);
      continue;
    }
    session.detached_ = true;
    if (session.gone_) forget(session);
  }
  closing_.insert(closing_.end(), now.begin() + static_cast<std::ptrdiff_t>(done), now.end());
}

void Shard::wait_for_turn(Session& session) {
  session.hold(kHoldTurn);
  waiting_.push_back(&session);
}

void Shard::go_on_with_waiting() {
  index_changes_ = std::min(index_changes_, most_index_changes_ / 2);
  for (size_t n = waiting_.size(); n > 0 && index_changes_ < most_index_changes_; --n) {
    Session& session = *waiting_.front();
    waiting_.pop_front();
    session.unhold(kHoldTurn);
    session.take_up();
  }
}

void Shard::closed(Session& session, CloseReason reason) {
  // What it had sent before it went counts, too.
  while (session.held_by(kHoldTurn) && !session.closing()) {
    std::erase(waiting_, &session);
    index_changes_ = 0;
    session.unhold(kHoldTurn);
    session.take_up();
  }
  session.close(reason);
  session.gone_ = true;
  session.sending = false;
  session.outbox.clear();
  session.wire().clear();
  if (session.detached_) forget(session);  // else close_some() does, when its subscriptions are withdrawn
}

// Out of everything that knows it here.
void Shard::unlink(Session& session) {
  placement_.forget(session);
  std::erase_if(paced_, [&](const Paced& each) {
    if (each.to == &session) each.producer->unhold(kHoldPaced);
    return each.producer == &session || each.to == &session;
  });
  if (session.dirty) std::erase(dirty_, &session);
  if (session.held_by(kHoldStalled)) std::erase(stalled_, &session);
  if (session.held_by(kHoldRing)) std::erase(ring_held_, &session);
  if (session.held_by(kHoldTurn)) std::erase(waiting_, &session);
  Session* last = sessions_.back();
  sessions_[session.table_index_] = last;
  last->table_index_ = session.table_index_;
  sessions_.pop_back();
  by_cid_.erase(session.cid);
}

void Shard::forget(Session& session) {
  unlink(session);
  if (is_remembered(session) && server_.options.max_closed_clients > 0) {
    ConnRow row;
    session.describe(row, false);
    row.stop_ns = wall_ns_;
    row.reason = text(session.close_reason());
    if (session.last_subs_ != nullptr) row.subs = std::move(*session.last_subs_);
    row.subscriptions = row.subs.size();
    closed_rows_.push_back(std::move(row));
    if (closed_rows_.size() > static_cast<size_t>(server_.options.max_closed_clients)) closed_rows_.pop_front();
  }
  delete &session;
}

bool Shard::delivery_positions(std::vector<uint64_t>& positions) const {
  positions.assign(shard_count_, 0);
  for (uint32_t n = 0; n < shard_count_; ++n) {
    const Peer& peer = peers_[n];
    if (peer.out == nullptr) continue;
    if (!peer.delivery_overflow.empty()) return false;
    positions[n] = peer.out->delivery.position();
  }
  return true;
}

bool Shard::deliveries_read(const std::vector<uint64_t>& positions) const {
  for (uint32_t n = 0; n < shard_count_; ++n) {
    if (peers_[n].out != nullptr && !peers_[n].out->delivery.read_up_to(positions[n])) return false;
  }
  return true;
}

void Shard::depart(Session& session) {
  unlink(session);
  delete &session;
}

void Shard::arrive(std::unique_ptr<ClientSession::Luggage> luggage, std::unique_ptr<CarriedConnection> connection) {
  const uint32_t conn = carrier_->take(std::move(connection));
  auto made = std::make_unique<ClientSession>(*this, conn, std::move(luggage));
  ClientSession& session = *made;
  adopt(std::move(made));
  carrier_->bind(session);
  placement_.count_in();
  session.arrived();
  // It was on its way when those who were here were closed, or told to go one by one.
  if (shut_down_ != CloseReason::kNone) session.close(shut_down_);
  if (lame_duck_ && !lame_duck_timer_.armed()) close_next_lame_duck();
}

void Shard::stall(Session& producer, int64_t for_ns) {
  if (producer.held_by(kHoldStalled)) return;
  ++producer.stalls;
  ++stalls_;
  producer.hold(kHoldStalled);
  stalled_.push_back(&producer);
  if (stall_timer_.armed()) return;
  timers_.arm(stall_timer_, now_ns_ + for_ns, this, [](void* self) {
    auto& shard = *static_cast<Shard*>(self);
    std::vector<Session*> stalled;
    stalled.swap(shard.stalled_);
    for (Session* session : stalled) session->unhold(kHoldStalled);
  });
}

void Shard::pace(Session& producer, Session& to) {
  const int64_t waiting = to.blocked_since_ns;
  if (waiting == 0 || now_ns_ - waiting > kPaceNs || producer.held_by(kHoldPaced) || producer.closing()) return;
  producer.hold(kHoldPaced);
  paced_.push_back({&producer, &to, now_ns_ + kPaceNs});
}

bool Shard::release_paced() {
  return std::erase_if(paced_, [&](const Paced& each) {
           if (each.to->outbox.pending() > kPaceUntil && now_ns_ < each.until_ns && !each.to->closing()) return false;
           each.producer->unhold(kHoldPaced);
           return true;
         }) != 0;
}

void Shard::trace(const Session& session, std::string_view arrow, std::string_view text) {
  server_.log.trace("{} - {} [{}]", session.label(), arrow, text);
}

// ---------------------------------------------------------------------------------------------------- accounts

void Shard::make_accounts(uint32_t up_to) {
  while (accounts_.size() <= up_to) {
    const auto number = static_cast<uint32_t>(accounts_.size());
    accounts_.push_back(std::make_unique<Account>(server_.account_name(number), number, server_.hash_key, index_));
  }
}

Account* Shard::find_or_make_account(std::string_view name) {
  if (name == kGlobalAccountName) return accounts_[kGlobalAccount].get();
  const std::optional<uint32_t> number = server_.account_number(name);
  return number ? &account(*number) : nullptr;
}

// ---------------------------------------------------------------------------------------------------- commands

void Shard::announce_info() {
  for (Session* session : sessions_) {
    if (session->kind == SessionKind::kClient) static_cast<ClientSession*>(session)->announce_info();
  }
}

void Shard::shut_down(CloseReason reason) {
  placement_.stop();
  shut_down_ = reason;
  const std::vector<Session*> all = sessions_;
  for (Session* session : all) session->close(reason);
}

// Closes this shard's clients one by one, spread evenly over the time given: all of them reconnecting at once is what
// lame duck mode exists to avoid.
void Shard::begin_lame_duck(int64_t over_ns) {
  lame_duck_ = true;
  placement_.stop();
  const auto n = std::count_if(sessions_.begin(), sessions_.end(),
                               [](const Session* session) { return session->kind == SessionKind::kClient; });
  if (n == 0) return;
  lame_duck_interval_ns_ = std::min<int64_t>(over_ns / n, 1'000'000'000);
  close_next_lame_duck();
}

void Shard::close_next_lame_duck() {
  for (Session* session : sessions_) {
    if (session->closing() || session->kind != SessionKind::kClient) continue;
    session->close(CloseReason::kServerShutdown);
    const int64_t half = std::max<int64_t>(lame_duck_interval_ns_ / 2, 1);
    timers_.arm(lame_duck_timer_, now_ns_ + half + static_cast<int64_t>(random_.below(static_cast<uint64_t>(half))),
                this, [](void* self) { static_cast<Shard*>(self)->close_next_lame_duck(); });
    return;
  }
}

ShardSnapshot Shard::snapshot() const {
  ShardSnapshot out;
  out.shard = index_;
  for (const Session* session : sessions_) out.connections += session->kind == SessionKind::kClient ? 1 : 0;
  out.total_connections = total_connections_;
  out.slow_consumers = slow_consumers_;
  out.stale_connections = stale_;
  out.stalled_clients = stalls_;
  for (const auto& account : accounts_) {
    AccountSnapshot& to = out.accounts.emplace_back();
    to.name = account->name;
    to.connections = account->connections;
    to.total_connections = account->total_connections;
    to.leafnodes = account->leafnodes;
    to.traffic = account->traffic;
    to.slow_consumers = account->slow_consumers;
    to.sublist = account->sublist.stats();
    out.traffic.in_msgs += account->traffic.in_msgs;
    out.traffic.in_bytes += account->traffic.in_bytes;
    out.traffic.out_msgs += account->traffic.out_msgs;
    out.traffic.out_bytes += account->traffic.out_bytes;
  }
  out.client_traffic = out.traffic;
  out.traffic.out_msgs += delivery_.peer_traffic().out_msgs;
  out.traffic.out_bytes += delivery_.peer_traffic().out_bytes;
  out.traffic.in_msgs += peer_traffic_in_.in_msgs;
  out.traffic.in_bytes += peer_traffic_in_.in_bytes;
  out.rings = ring_counters_;
  out.rings.repicks = delivery_.repicks();
  out.rings.vanished = delivery_.vanished();
  for (const Peer& peer : peers_) {
    out.rings.overflow_pending += peer.interest_overflow.size() + peer.delivery_overflow.size();
  }
  out.rings.held_sessions = ring_held_.size();
  out.moved_in = placement_.moved_in();
  out.moved_out = placement_.moved_out();
  out.turns = turns_;
  out.parks = parks_;
  out.longest_turn_ns = longest_turn_ns_;
  out.long_turns = long_turns_;
  out.turn_lengths = turn_lengths_;
  out.pending_bytes = pool_.bytes_in_use();
  out.buffer_bytes = pool_.bytes_in_use();
  return out;
}

}  // namespace peregrine::core
