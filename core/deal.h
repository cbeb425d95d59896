// A queue group during a run: each message is dealt to one member, picked at random, here or on another shard.
//
// The members are looked at once; then a message costs a random number and its copy. A Hand is what one session of this
// shard is dealt, written straight into its outbox, or what another shard is dealt: frames as they were received, which
// cross as one record (FramesRecord) and are dealt again there, among the members of that shard. Every member has the
// same chance at every message, wherever it lives: as for single messages (Delivery), drawn for each.
//
// Part of a run (run.h), used between begin() and finish() of one; until then nobody else may write to the members'
// outboxes. Bounds: groups of more than kMostMembers on this shard are not for runs; the frames for another shard are
// handed over whenever a record is full.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/account.h"
#include "core/buffer.h"
#include "core/match.h"
#include "core/random.h"
#include "core/session.h"

namespace peregrine::core {

class Shard;

class Deal {
 public:
  // A message: <head><sid><tail><payload>CRLF as it leaves, and how long the line before its payload was when it came.
  // What `head` and `tail` point to may be read up to 15 bytes too far.
  struct Line {
    const char* head;
    uint32_t head_size;
    const char* tail;
    uint32_t tail_size;
    uint32_t in_size;
    uint32_t payload_size;
  };
  // What crosses (FramesRecord); `most_bytes` of it in one record.
  struct Frames {
    uint32_t account;
    uint16_t prefix_size;
    uint32_t subject_size;
    size_t most_bytes;
  };
  static constexpr size_t kMostSid = 64;
  static constexpr size_t kSlack = 64;  // what copying may write too much

  explicit Deal(Shard& shard) : shard_(shard) {}

  // `from` as in Run::open: null when the messages came over a ring, for members of this shard only. `may_receive`:
  // whether a member can be dealt messages without questions; they all must be. False: nothing was done.
  template <class MayReceive>
  bool begin(const QueueGroup& group, Session* from, const Frames& frames, MayReceive&& may_receive) {
    if (group.local.size() > kMostMembers || (group.local.empty() && (from == nullptr || group.remote_weight == 0)))
      return false;
    for (const Subscription* sub : group.local) {
      if (!may_receive(*sub) || sub->sid().size() > kMostSid) return false;
    }
    set_out(group, from, frames);
    return true;
  }
  bool crosses() const { return remote_weight_ != 0; }
  size_t most_frame() const { return frames_.most_bytes; }  // if it crosses

  // Deals the frame that begins at `frame`; returns the bytes written.
  size_t take(const Line& line, const char* frame);
  // Deals the frames from `p` up to `last` (where the last one may begin) as long as their control line is
  // `alike`, and at most about `most_bytes` are written; steps `p` over them. Whole lines of 16 are read.
  struct Dealt {
    uint64_t messages = 0;
    size_t bytes = 0;
  };
  Dealt take_alike(const Line& line, const char* alike, const char*& p, const char* last, size_t most_bytes);
  void finish(Account& account, size_t max_pending);

 private:
  static constexpr size_t kMostMembers = 64;

  struct Hand {
    char* at = nullptr;
    char* end = nullptr;  // kSlack before that of the room
    char* begin = nullptr;
    Session* to = nullptr;         // null: another shard's
    SharedBytes* block = nullptr;  // where the frames for it are gathered
    uint32_t shard = 0;
    uint64_t messages = 0, payload_bytes = 0;
  };
  // A member of this shard, or all members of another shard. Two members may be one session's.
  struct Seat {
    uint32_t hand = 0;  // 0: none yet
    uint32_t messages = 0;
  };

  void set_out(const QueueGroup& group, Session* from, const Frames& frames);
  size_t draw(Random& random) const;
  template <bool kShort>
  size_t deal_one(const Line& line, const char* frame, Random& random);
  Hand& make_room(size_t seat, size_t size);
  void commit(Hand& hand);
  void cross(Hand& hand);

  Shard& shard_;
  std::span<Subscription* const> local_;
  std::span<const ShardWeight> remote_;
  uint64_t remote_weight_ = 0;  // 0 if only members of this shard take part
  uint64_t group_ = 0;
  Session* from_ = nullptr;
  Frames frames_{};
  uint64_t serial_ = 0;      // of the run; Session::target_serial, which for clients nobody else uses
  std::vector<Seat> seats_;  // local_, then remote_
  std::vector<Hand> hands_;  // hand 0 is nobody's and has no room
};

}  // namespace peregrine::core
