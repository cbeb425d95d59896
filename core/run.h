// A run: consecutive messages of one publisher on one subject, which differ in little, delivered together.
//
// Most input of a busy connection is runs: the subject is matched once, its receivers are looked at once, and a message
// whose control line equals the one before it is not parsed at all. One receiver: the messages are encoded straight
// into its outbox. Several receivers with the same sid (instances of one program usually have it): encoded once, then
// copied as a block, or shared by reference when there is much of it, so that all of them are sent from the same warm
// memory. Large payloads go to a single receiver by reference, from where they were received. Receivers on other
// shards: the frames cross as they came, one record for each shard (FramesRecord), many of them by reference as well.
// One queue group and nobody else: each message is dealt to a member (deal.h).
//
// Peers take part as they do in single messages: routes may be the receivers (then nobody here is; one that has all of
// a queue group serves that, too), and the publisher, of frames that begin otherwise ("RMSG $G ").
//
// Belongs to a shard, used on its thread, open at most within one feed() or one record. Only what needs no decision
// per message takes part (open() says which); everything else goes the general way (delivery.h), and whoever has a run
// open closes it before doing anything else: so order, limits, slow consumers and interest are those of single
// messages. While a run is open no subscription is removed and no session destroyed. Bounds: a run ends after
// kRunBytes (kReferredBytes and a message, by reference), the slow-consumer limits are looked at then; max_pending
// below kLeastMaxPending turns runs off.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/account.h"
#include "core/buffer.h"
#include "core/deal.h"
#include "core/match.h"
#include "core/parser.h"
#include "core/session.h"

namespace peregrine::core {

struct Message;

class Run {
 public:
  explicit Run(Shard& shard);
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  bool is_open() const { return open_; }

  // Opens a run with this message and takes it, or does nothing and returns false. `from`: the publishing session of
  // this shard, which has checked the message; null when it came over a ring, for local receivers only. The message's
  // bytes must be in the same buffer as those of the following add() and take_alike().
  // `prefix`: what stands before the subject in each frame. `sides`: of a record and of a leafnode, who may receive;
  // 0 = one member of `group` each.
  bool open(Session* from, Account& account, const Operation& operation, std::string_view prefix = "PUB ",
            SideSet sides = kClientsOnly, uint64_t group = 0);
  // Takes one more message; false: not one for this run, which stays open.
  bool add(const Operation& operation);
  // Takes the frames at the front of `in` whose control line is the last message's again.
  void take_alike(std::string_view& in);
  // Delivers what was taken.
  void close() {
    if (open_) finish();
  }

  // Messages from rings that were taken, so far.
  uint64_t from_rings() const { return from_rings_; }

 private:
  static constexpr size_t kRunBytes = 16 * 1024;
  static constexpr size_t kReferredBytes = 128 * 1024;
  static constexpr size_t kReferFramesFrom = 2048;     // less is copied into the ring: a reference has to come back
  static constexpr size_t kMostFrame = 4096;           // several receivers: larger payloads are shared one by one
  static constexpr size_t kShareFrom = kRunBytes / 2;  // so that a shared block is at least half in use
  static constexpr size_t kMostLine = 256;
  static constexpr size_t kSlack = 64;  // what a copy may read or write too much
  static constexpr size_t kLeastMaxPending = 64 * kRunBytes;
  static_assert(kRunBytes + kMostFrame + 3 * kMostLine + 2 * kSlack <= BufferPool::kBlock);

  bool may_receive(const Subscription& sub, const Message& message) const;
  bool find_receivers(const Message& message, SideSet sides);
  bool deal_to(const QueueGroup& group, const Message& message, size_t prefix_size);
  Deal::Line dealt_line(uint32_t in_size) const;
  bool head_for_clients(std::string_view subject);
  bool head_for_peers(const Message& message);
  bool shape(const Operation& operation);
  char* room(size_t size);
  void write(const char* payload_and_crlf);
  void write_referring(const char* payload_and_crlf);
  void finish();
  void send_frames();

  Shard& shard_;
  const bool possible_;
  const size_t stall_above_, max_pending_;
  const size_t most_crossing_payload_;  // what is larger crosses by reference
  bool open_ = false;
  bool ended_ = false;  // takes no more
  Session* from_ = nullptr;
  Account* account_ = nullptr;
  std::span<Subscription* const> receivers_;  // all clients, or all routes
  bool to_peers_ = false;
  std::vector<std::string_view> queues_;   // groups the peer is to serve
  ShardSet crossing_ = 0;                  // shards with receivers of their own,
  std::array<ShardSet, kSides> shards_{};  // by side
  Session* direct_ = nullptr;              // the only receiver
  SharedBytes* lent_ = nullptr;            // the memory the messages lie in, once it was needed
  bool referring_ = false;                 // the last message's payload is sent from there
  const QueueGroup* group_ = nullptr;      // found: nobody else receives
  bool dealt_ = false;                     // to a queue group; receivers_ is empty
  Deal deal_;
  const char* frames_ = nullptr;  // the input taken
  size_t most_frames_ = 0;        // bytes of it that fit one record
  const char* frames_end_ = nullptr;

  // Of the last message: its control line as received, if that can be compared, and the line as sent.
  std::string subject_;
  std::string prefix_;
  std::string line_;        // kept for its memory
  uint32_t in_size_ = 0;    // 0 = not comparable
  uint32_t head_size_ = 0;  // "MSG <subject> <sid> "; of what is dealt without the sid and the blank behind it
  uint32_t out_size_ = 0;
  uint32_t payload_size_ = 0;
  char in_line_[kMostLine + kSlack];
  char out_line_[2 * kMostLine + kSlack];

  SharedBytes* block_ = nullptr;  // several receivers: what is encoded, ours until it is shared
  uint32_t block_used_ = 0;
  size_t out_bytes_ = 0;  // encoded for each receiver
  uint64_t messages_ = 0, payload_bytes_ = 0;
  uint64_t from_rings_ = 0;
};

}  // namespace peregrine::core
