// Publishers move to the shard where their messages go.
//
// The kernel spreads connections over the shards without knowing who will talk to whom, and a message that crosses
// costs about twice one that stays. A client without subscriptions is addressed by nobody (ring records are addressed
// by subject), so it may change shards between two turns. It does when most of what it publishes goes to one other
// shard and nowhere else, be it to clients there or to a route, gateway or leafnode connection:
// - decide: where crossing records are written (crossed()), once in `messages` or `bytes` of them;
// - hold: it is not read from any more (kHoldMoving); what was received is dealt with here, its output leaves here;
// - fence: until every other shard has handled all that this one had written for it. A message sent by way of the new
//   shard could else overtake one sent before, at a third shard: two rings are not in order (rule 4);
// - hand over: the backend lets go of the connection (Carrier), and all that makes up the session goes to the other
//   shard as a command; a new session begins there in the middle of the conversation.
//
// It reads nothing meanwhile, some ten microseconds to a millisecond. What takes longer than patience_ns is given up.
//
// Rule 1 holds on the new shard: what the client sends from now on is acquired there after the command was run, and
// interest is drained after that. Nothing is owed to the session on the old one: a 503 is told on a subscription of the
// requester, and it has none.
//
// When not: the other shard is busy more than half of the time, busier than this one, and the publisher is less than
// half of what it does (a hundred publishers to one subscriber should not all end on one core); the session moved
// lately (a second at first, doubling up to rest_longest_s); another one is on its way (one at a time, gap_ns apart, so
// that its effect can be seen); lame duck mode; a backend that can not give connections away (DPDK: the NIC decides); a
// connection with a filter.
//
// And back: a shard that has had nine tenths of its time on its core, all of it for work, while another worked less
// than half, sends one publisher in each window_ns to the idlest: of those it was fed by, the one who published most,
// but not more than half of what the shard handles (that one would take the load along). It comes back when the
// shard has half of its time again, not before.
//
// One per shard, on its thread. The counters of a publisher whose messages cross are in Session::heading.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace peregrine::core {

class ClientSession;
class Session;
class Shard;

// Where a publisher's messages went lately.
struct Heading {
  uint32_t target = UINT32_MAX;                // the shard in question
  uint32_t rest_s = 0;                         // how long it stays after a move
  uint64_t messages = 0, bytes = 0;            // that went there and nowhere else, since
  uint64_t from_messages = 0, from_bytes = 0;  // ... it had published these
  uint64_t rate_messages = 0;                  // the same, since
  int64_t rate_from_ns = 0;                    // ... then
  int64_t not_before_ns = 0;                   // not to be moved
  uint64_t window = 0, window_messages = 0;    // of relief: which it was last seen in, what it had published then
};

// A connection between two backends, in nobody's hands: dropped, it is closed.
class CarriedConnection {
 public:
  virtual ~CarriedConnection() = default;
};

// The two ends of a move; implemented by the reactor over its backend.
class Carrier {
 public:
  virtual bool can_carry() const = 0;
  // How long this shard's thread has been on its core; a simulation is never put off it.
  virtual int64_t core_time_ns() const = 0;
  // The connection of a session that is not read from and has nothing in flight. Null: not yet (or never: it broke).
  // Otherwise no event of it comes any more.
  virtual std::unique_ptr<CarriedConnection> give(Session& session) = 0;
  // What another shard's carrier gave: its name here. Events of it come after bind().
  virtual uint32_t take(std::unique_ptr<CarriedConnection> connection) = 0;
  virtual void bind(Session& session) = 0;

 protected:
  ~Carrier() = default;
};

class Placement {
 public:
  // Tests that need other figures change them; the shard's thread only.
  struct Settings {
    uint64_t messages = 256;  // crossing, before it is thought about
    uint64_t bytes = 64 * 1024;
    int64_t patience_ns = 20'000'000;
    int64_t gap_ns = 5'000'000;
    uint32_t rest_s = 1, rest_longest_s = 64;
    int64_t rate_ns = 2'000'000;  // over which a publisher's share of a busy shard's work is measured
    int64_t window_ns = 20'000'000;
    bool fence = true;  // off only to prove that it is needed
  };

  explicit Placement(Shard& shard) : shard_(shard) {}

  void set_carrier(Carrier* carrier) { carrier_ = carrier; }
  Settings settings;

  // `session`, of this shard, has published messages that went to `target` and nobody else.
  void crossed(Session& session, uint32_t target, uint64_t messages, uint64_t bytes);

  // Is this shard looking for a publisher to send away? Then it wants to hear whom it is fed by.
  bool relieving() const { return most_ != 0; }
  void fed(ClientSession& session);
  // In each turn: has it too much to do?
  void look_around(int64_t now_ns) {
    if (now_ns >= look_at_ns_) [[unlikely]]
      judge(now_ns);
  }

  // Once per turn while waiting(); true if something moved.
  bool step();
  bool waiting() const { return moving_ != nullptr; }  // look again soon
  static constexpr int64_t kLookNs = 30'000;
  void forget(Session& session);
  // Nobody leaves from here any more.
  void stop();

  uint64_t moved_in() const { return moved_in_; }
  uint64_t moved_out() const { return moved_out_; }
  void count_in() { ++moved_in_; }

 private:
  void start_over(Session& session, uint32_t target, uint64_t messages, uint64_t bytes);
  void consider(Session& session);
  bool is_welcome(Session& session) const;
  void judge(int64_t now_ns);
  uint32_t idlest(int64_t now_ns) const;
  bool free_to_move(const ClientSession& session, int64_t now_ns) const;
  void begin(ClientSession& session, uint32_t target);
  void give_up();
  void set_fence();
  bool fence_passed() const;
  bool hand_over();

  Shard& shard_;
  Carrier* carrier_ = nullptr;
  bool stopped_ = false;
  ClientSession* moving_ = nullptr;
  uint32_t target_ = 0;
  int64_t until_ns_ = 0;
  int64_t next_ns_ = 0;  // no other before
  bool fenced_ = false;
  uint64_t fenced_messages_ = 0;  // the session had published when the fence was set
  std::vector<uint64_t> fence_;   // by shard: how far it has to have read
  uint64_t moved_in_ = 0, moved_out_ = 0;

  // Relief.
  int64_t look_at_ns_ = 0, looked_ns_ = 0, looked_core_ns_ = 0;
  uint64_t window_ = 0;
  uint64_t most_ = 0;  // messages one may have published in this window to be sent away; 0: nobody is
  ClientSession* candidate_ = nullptr;
  uint64_t candidate_messages_ = 0;
};

}  // namespace peregrine::core
