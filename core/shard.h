// Everything one core owns: its sessions, its replica of the subject index, its memory, its timers, its ends of the
// rings.
//
// Exactly one thread runs a shard, through net/reactor.h. Other threads reach it by three doors only: another shard by
// ring, the control thread and workers by post(), anybody by wake(). No locks and no shared state besides the rings.
//
// The turn, called by the reactor in this order (design.md section 4 has the proof that depends on it):
//   begin_turn      the clock
//   drain_rings     snapshot of the delivery tails, all interest, deliveries up to the snapshot
//   session.feed    the input acquired BEFORE drain_rings is parsed AFTER it
//   end_turn        timers, commands, closing sessions, overflow; publishes interest tails, then delivery tails, wakes
//   peers flush           the reactor sends what dirty sessions have, unless output_stuck()
// Rule 2, nothing leaves while something is stuck: while an interest record waits in an overflow list, no delivery is
// published and no byte leaves this shard; while a delivery waits, the session that caused it is held (no output, no
// reading).
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/account.h"
#include "core/buffer.h"
#include "core/client_session.h"
#include "core/crossing.h"
#include "core/delivery.h"
#include "core/hash.h"
#include "core/interest.h"
#include "core/literal_batch.h"
#include "core/load.h"
#include "core/log.h"
#include "core/mailbox.h"
#include "core/placement.h"
#include "core/random.h"
#include "core/ring.h"
#include "core/run.h"
#include "core/server.h"
#include "core/session.h"
#include "core/snapshot.h"
#include "core/subscription_pool.h"
#include "core/timer_wheel.h"

namespace peregrine::core {

class PeerSession;

// The two rings of one ordered pair of shards.
struct RingPair {
  RingPair(uint32_t interest_bytes, uint32_t delivery_bytes) : interest(interest_bytes), delivery(delivery_bytes) {}
  Ring interest;
  Ring delivery;
};

// All pairs of a server; owned by main, handed to every shard.
class RingMatrix {
 public:
  RingMatrix(uint32_t shards, uint32_t interest_bytes, uint32_t delivery_bytes);
  RingPair& at(uint32_t from, uint32_t to) { return *pairs_[from * shards_ + to]; }

 private:
  uint32_t shards_;
  std::vector<std::unique_ptr<RingPair>> pairs_;
};

// The rules of section 4, for the tests that switch one off to prove that it is needed.
struct CrossingRules {
  bool drain_before_think = true;           // rule 1: interest is drained before input is parsed
  bool interest_first = true;               // rule 1: interest tails are published before delivery tails
  bool hold_stuck_output = true;            // rule 2
  bool repick = true;                       // rule 3
  bool overflow_in_order = true;            // rule 4: what overflows goes behind what overflowed before
  std::function<void()> between_publishes;  // what another shard may do just then
};

class Shard final : public ReleaseSink {
 public:
  Shard(Server& server, uint32_t index, uint32_t shard_count, RingMatrix* rings, uint64_t seed, int64_t now_ns,
        int64_t wall_ns);
  ~Shard();

  // --- the turn ---
  void begin_turn(int64_t now_ns, int64_t wall_ns);
  bool drain_rings();  // true if there was anything
  Session* open_client(uint32_t conn, std::string ip, uint16_t port);
  // Takes over a session of another kind, made by whoever accepted or dialled its connection.
  Session* adopt(std::unique_ptr<Session> session);
  void closed(Session& session,
              CloseReason reason);  // the backend has let go: `reason` counts if the session had none yet
  // Returns true if anything was done or is waiting to be done.
  bool end_turn();
  bool output_stuck() const { return interest_stuck_ && rules.hold_stuck_output; }
  std::vector<Session*>& dirty() { return dirty_; }
  // What the turn before the next one has taken from connections, and how long it worked at most: until the next one
  // begins, or `until_ns`. Not called after turns that did nothing.
  void worked(uint64_t messages, int64_t until_ns = INT64_MAX) {
    messages_taken_ += messages;
    worked_until_ns_ = until_ns;
  }
  // Deliveries that have come from other shards or gone to them so far: more may follow at once. (Not so with
  // interest.)
  uint64_t crossings() const { return crossings_; }
  // Changes of interest in this turn, from sessions and from other shards.
  uint32_t interest_changes() const { return index_changes_ + changes_told_; }
  // When the next turn must come at the latest.
  int64_t next_deadline_ns() const;

  // --- sleeping (the reactor's side of the wake-up protocol; tests/spin models it) ---
  // Announces the wish to sleep. False: something has arrived meanwhile, do another turn. Asleep, a shard without
  // listeners is not woken for interest until kQuietBytes of it wait: whatever wakes it is thought about after the
  // interest has been drained, so nobody can tell, and clients whose subscriptions come and go do not wake every core.
  bool try_sleep();
  void awake() { sleeping_.store(kAwake, std::memory_order_relaxed); }
  void set_waker(std::function<void()> waker) { waker_ = std::move(waker); }

  // --- any thread ---
  void wake();
  void post(Mailbox::Command command);
  const Load& load() const { return load_; }

  // --- for sessions and delivery, on this shard's thread ---
  Server& server() { return server_; }
  const Server& server() const { return server_; }
  uint32_t index() const { return index_; }
  uint32_t shard_count() const { return shard_count_; }
  int64_t now_ns() const { return now_ns_; }
  int64_t wall_ns() const { return wall_ns_; }
  BufferPool& pool() { return pool_; }
  Random& random() { return random_; }
  TimerWheel& timers() { return timers_; }
  const KeyedHash& sid_hash() const { return sid_hash_; }
  const SubscriptionPool& subscriptions() const { return subscriptions_; }
  Delivery& delivery() { return delivery_; }
  Run& current_run() { return run_; }
  Placement& placement() { return placement_; }
  Account& account(uint32_t number) {
    if (number >= accounts_.size()) [[unlikely]]
      make_accounts(number);
    return *accounts_[number];
  }
  // The account of that name, made if need be; null when there are too many (Server::kMaxAccounts).
  Account* find_or_make_account(std::string_view name);
  bool tracing() const { return tracing_; }
  void trace(const Session& session, std::string_view arrow, std::string_view text);

  void mark_dirty(Session& session) {
    if (session.dirty) return;
    session.dirty = true;
    dirty_.push_back(&session);
  }
  void to_close(Session& session) { closing_.push_back(&session); }
  // Input has changed the index. True when that was enough of it for one turn: a session that has more in hand keeps
  // it, and waits until it is told to take_up().
  bool count_index_change() { return ++index_changes_ >= most_index_changes_; }
  void wait_for_turn(Session& session);
  void stall(Session& producer, int64_t for_ns);
  // `producer` has filled the outbox of `to`, which is being sent, with more than stays in the cache. It is not read
  // from until most of that has gone, but no longer than kPaceNs; a subscriber that takes nothing paces nobody.
  static constexpr size_t kPaceAbove = 384 * 1024;
  void pace(Session& producer, Session& to);
  void count_slow_consumer(SessionKind kind) { ++slow_consumers_.of(kind); }
  void count_stale(SessionKind kind) { ++stale_.of(kind); }
  void count_peer_messages(uint64_t messages, uint64_t bytes) {
    peer_traffic_in_.in_msgs += messages;
    peer_traffic_in_.in_bytes += bytes;
  }

  Subscription* add_subscription(Session& session, std::string_view sid, std::string_view subject,
                                 std::string_view queue);
  // The same of a subject without wildcards, and no queue: what nearly every SUB is.
  Subscription* add_literal(Session& session, std::string_view sid, std::string_view subject);
  // Out of the index and of its session, and destroyed.
  void remove_subscription(Subscription& sub) {
    sub.session->forget(sub);
    remove_forgotten(sub);
  }
  void remove_forgotten(Subscription& sub);  // which its session knows no more
  // The same for several of one session: what they lead to, all over the memory, is fetched for all at once.
  static constexpr size_t kRemovedTogether = 32;
  void remove_subscriptions(std::span<Subscription* const> subs);
  // A peer's interest (RS+ and its kin): found again by its texts and origin, not by a sid. `weight` > 0 is that of a
  // queue and ignored otherwise; asking for what is there already changes the weight. Other shards and listeners are
  // told.
  Subscription* add_peer_interest(PeerSession& session, Account& account, Side side, std::string_view subject,
                                  std::string_view queue, uint32_t weight, OriginId origin = kNoOrigin);
  bool remove_peer_interest(PeerSession& session, Account& account, Side side, std::string_view subject,
                            std::string_view queue, OriginId origin = kNoOrigin);

  // Peers that are told what this server wants. From listen_to_interest() on the listener hears of every change, and of
  // everything that is there already, in slices over the coming turns.
  void listen_to_interest(InterestListener& listener);
  void stop_listening(InterestListener& listener);

  void set_subscription_limit(Subscription& sub, uint64_t max);
  uint64_t subscription_limit(const Subscription& sub) const;

  // --- sessions that change shards (placement.h) ---
  // How far each delivery ring has been written; false if something waits in an overflow list.
  bool delivery_positions(std::vector<uint64_t>& positions) const;
  // Whether the other shards have handled everything before.
  bool deliveries_read(const std::vector<uint64_t>& positions) const;
  // Its luggage has gone ahead: it is no longer a session of this shard, and not a closed one.
  void depart(Session& session);
  void arrive(std::unique_ptr<ClientSession::Luggage> luggage, std::unique_ptr<CarriedConnection> connection);
  void set_carrier(Carrier* carrier) {
    carrier_ = carrier;
    placement_.set_carrier(carrier);
  }

  // Larger ones go by the heap, which the ring's bound does not bound.
  uint32_t largest_record() const { return largest_record_; }
  // Room for a record of `size` bytes to `target`'s delivery ring (or its overflow list; then `cause` is held).
  char* begin_delivery(uint32_t target, uint32_t size, Session* cause);
  void end_delivery(uint32_t target);
  void release_to(uint32_t home, SharedBytes* origin) override;

  // --- commands (posted by the control thread) ---
  void begin_lame_duck(int64_t over_ns);
  void shut_down(CloseReason reason);
  void announce_info();  // async INFO to the clients that understand it
  Session* find(uint64_t cid);
  const std::vector<Session*>& sessions() const { return sessions_; }
  const std::deque<ConnRow>& closed_rows() const { return closed_rows_; }
  ShardSnapshot snapshot() const;

  CrossingRules rules;  // all on, except in tests

 private:
  struct Peer {
    RingPair* out = nullptr;
    RingPair* in = nullptr;
    Shard* shard = nullptr;  // for wake() only
    // Records that found the ring full: {uint32 size, bytes} each, in order.
    std::string interest_overflow, delivery_overflow;
    LiteralBatch literals;  // into out->interest
    size_t interest_head = 0, delivery_head = 0;
    OriginId origin = kNoOrigin;                                      // of the interest record that comes next
    bool interest_in_overflow = false, delivery_in_overflow = false;  // the record being written
    uint32_t writing = 0;                                             // its size
    char* heap = nullptr;                                             // set when it goes by pointer
    uint64_t delivery_limit = 0;                                      // snapshot of this turn
    bool wants_texts = false;                                         // it has, or had, listeners
    bool asked_for_texts = false;                                     // by us, because we have;
    bool sends_texts = false;                                         // and from here on it does
    uint32_t quiet_bytes = 0;        // of interest, since it was last looked whether the peer sleeps
    bool published = false;          // something that asks for waking it: a delivery, much interest,
    bool published_quietly = false;  // or for waking it if it has listeners
  };

  void interest_changed(Account& account, Side side, const InterestChange& change, bool interested,
                        std::string_view subject, std::string_view queue, OriginId origin, Session& cause);
  // An InterestRecord or its like, to every other shard.
  template <class Record>
  void tell_interest(const Record& record, std::string_view subject, std::string_view queue, Session& cause,
                     bool still_wanted = false);
  void tell_origin(const Subscription& sub, int64_t weight_change, const InterestChange& change,
                   std::string_view subject, std::string_view queue, Session& cause);
  void on_interest_record(uint32_t from, const char* bytes);
  void tell_listeners(Account& account, Side side, std::string_view subject, std::string_view queue, OriginId origin);
  // What a listener has still to be told of what was there before it: account by account, side by side, shard by shard.
  struct Replay {
    uint64_t id;
    InterestListener* listener;
    uint32_t account = 0, side = 0, shard = 0;
    uint64_t cursor = 0;
    bool asked = false;   // another shard has been asked for the next slice
    bool filled = false;  // a slice is at hand,
    bool last = false;    // no other follows it;
    std::string block;    // InterestRecords with origin and texts; told a little each turn,
    size_t at = 0;        // up to here
    bool done() const { return listener == nullptr; }
  };
  bool go_on_with_replays();
  void replay_slice(Replay& replay);
  void tell_replay(Replay& replay);
  void next_replay_part(Replay& replay);
  bool copy_interest(uint32_t account, Side side, uint64_t& cursor, std::string& block);
  void send_replay_slice(uint32_t to, uint64_t id, uint32_t account, Side side, uint64_t cursor);
  void on_replay(const char* bytes);
  void make_accounts(uint32_t up_to);
  // Room for a record in `peer`'s interest ring (or its overflow list; then `cause`, if any, is held).
  char* begin_interest(Peer& peer, uint32_t size, Session* cause);
  void end_interest(Peer& peer, uint32_t size);
  void write_interest(Peer& peer, const void* bytes, uint32_t size, Session* cause);
  void tell_literal(Peer& peer, Side side, uint32_t account, uint64_t hash, bool interested, Session& cause);
  void tell_literal(const Account& account, Side side, const InterestChange& change, Session& cause);
  // Nobody, here or on another shard, wants to know more of a literal.
  bool hashes_are_enough() const { return listeners_.empty() && !texts_are_wanted_; }
  void remove_with_texts(Subscription& sub);
  void on_literals(uint32_t from, const char* bytes);
  void on_interest(uint32_t from, const char* bytes);
  void on_delivery(uint32_t from, const char* bytes);
  char* write_delivery(Peer& peer, uint32_t size);
  bool drain_interest();
  bool drain_deliveries();
  bool move_overflow();
  void publish();
  void hold_for_rings(Session& cause);
  void release_held();
  void close_some();
  void forget(Session& session);
  void unlink(Session& session);
  void close_next_lame_duck();

  Server& server_;
  const uint32_t index_;
  const uint32_t shard_count_;
  int64_t now_ns_;
  int64_t wall_ns_;
  Random random_;
  BufferPool pool_;
  TimerWheel timers_;
  KeyedHash sid_hash_;
  Delivery delivery_;
  Run run_;
  bool tracing_ = false;

  std::vector<std::unique_ptr<Account>> accounts_;
  std::vector<Session*> sessions_;
  std::unordered_map<uint64_t, Session*> by_cid_;
  std::unordered_map<const Subscription*, uint64_t> limits_;
  SubscriptionPool subscriptions_;
  std::deque<ConnRow> closed_rows_;

  std::vector<InterestListener*> listeners_;
  std::vector<Replay> replays_;
  uint64_t next_replay_ = 1;
  bool texts_are_wanted_ = false;  // by one of peers_

  std::vector<Session*> dirty_;
  std::vector<Session*> closing_;  // marked; to be taken apart
  // How much of the index may change in a turn: well below a millisecond's work. What a change takes depends on how
  // much of the index is in the caches, and on who else uses them, from 0.2 µs up to 3: turns that took kLongChangesNs
  // are followed by shorter ones. Those that wait, and those that are going, get half of it in any case.
  static constexpr uint32_t kIndexChanges = 512, kFewestIndexChanges = 96;
  static constexpr int64_t kLongChangesNs = 350'000, kShortChangesNs = 200'000;
  static constexpr uint32_t kClosing = 8;  // as much work as so many changes
  uint32_t most_index_changes_ = kIndexChanges;
  uint32_t index_changes_ = 0;  // in this turn
  uint32_t changes_told_ = 0;   // by other shards, in this turn
  void adapt_index_changes(int64_t worked_ns);
  std::deque<Session*> waiting_;  // for a turn that has time for them
  void go_on_with_waiting();
  std::vector<Session*> stalled_;
  Timer stall_timer_;
  static constexpr uint32_t kQuietBytes = 16 * 1024;  // some 50 µs of draining; a quarter of a smaller ring
  static constexpr size_t kPaceUntil = 128 * 1024;
  static constexpr int64_t kPaceNs = 500'000;
  struct Paced {
    Session* producer;
    Session* to;
    int64_t until_ns;
  };
  std::vector<Paced> paced_;
  bool release_paced();
  std::vector<Session*> ring_held_;

  std::vector<Peer> peers_;  // by shard number; our own entry is empty
  uint32_t largest_record_ = 0;
  uint64_t crossings_ = 0;
  bool interest_stuck_ = false;
  bool delivery_stuck_ = false;
  uint32_t first_peer_ = 0;  // where the next drain begins
  Mailbox mailbox_;
  static constexpr uint32_t kAwake = 0, kAsleep = 1, kAsleepListening = 2;  // the latter with listeners_
  alignas(128) std::atomic<uint32_t> sleeping_{kAwake};
  std::function<void()> waker_;

  Placement placement_;
  Carrier* carrier_ = nullptr;
  Load load_;
  int64_t worked_until_ns_ = 0;  // 0: the last turn did nothing
  uint64_t messages_taken_ = 0;
  uint64_t messages_told_ = 0;  // to load_, those from rings included

  CloseReason shut_down_ = CloseReason::kNone;  // who comes now is closed for this
  bool lame_duck_ = false;
  int64_t lame_duck_interval_ns_ = 0;
  Timer lame_duck_timer_;

  uint64_t total_connections_ = 0, stalls_ = 0;
  KindCounts slow_consumers_, stale_;
  uint64_t turns_ = 0, parks_ = 0, long_turns_ = 0;
  int64_t longest_turn_ns_ = 0;
  TurnLengths turn_lengths_{};
  RingSnapshot ring_counters_;
  Traffic peer_traffic_in_;
};

}  // namespace peregrine::core
