// One message + its match -> outboxes of this shard and records to other shards. The only fan-out in the house.
//
// Owned by a shard, used on its thread. A message comes from a local session (publish) or from another shard
// (on_record). Rules: one copy per subscription; one member per queue group, picked by weight over all shards; one
// record per interested shard whatever the number of subscriptions there, one message per peer (route, gateway,
// leafnode) whatever the number of subscriptions behind it; order per publisher and subscriber is kept
// (one ring, one outbox). While a message is delivered no subscription is removed and no session destroyed: what
// reached its limit is marked `closed` and taken out right afterwards, a slow consumer is marked and taken apart at the
// end of the turn. Slow consumers: pending above max_pending -> closed (Slow Consumer (Pending Bytes)); above three
// quarters of it the producer is not read from for some milliseconds (or, with no_fast_producer_stall, the message is
// dropped for that consumer). Source: nats-server's processMsgResults and deliverMsg in server/client.go; parity.md
// sections 1.8 and 2.3.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/account.h"
#include "core/crossing.h"
#include "core/inquiries.h"
#include "core/session.h"

namespace peregrine::core {

class Shard;

struct Message {
  std::string_view subject;
  std::string_view reply;
  std::string_view payload;  // header block and body
  uint32_t header_size = 0;
  Session* from = nullptr;  // the publishing session of this shard; null when it came over a ring
  SessionKind source = SessionKind::kClient;
  // From a peer: which queue groups it asks us to serve. Clients serve them all.
  bool all_queues = true;
  std::span<const std::string_view> queues;
  // A subject that leads back through gateways: the sides it is restricted to. 0 = an ordinary message.
  SideSet only = 0;
  std::string_view origin;         // the leafnode cluster it came from, if any,
  OriginId origin_id = kNoOrigin;  // and its id
};

// One peer that gets the message in hand, once, whatever the number of its subscriptions.
struct PeerTarget {
  Session* session;
  bool plain;                            // somebody behind it has a plain subscription
  bool leaf_origin;                      // its interest is that of leafnodes behind it
  std::vector<std::string_view> queues;  // groups one member of which, behind it, is to get the message
};

class Delivery {
 public:
  explicit Delivery(Shard& shard);

  // Delivers to everybody in the account; false if nobody was there to take it (the publisher may be owed a 503).
  bool publish(Account& account, const Message& message);

  // A record of type kDelivery.
  void on_record(const char* bytes);

  // A record of type kFrames.
  void on_frames(const char* bytes);

  // Whoever was thought to take this request is not there: the asker is told, here or on its own shard.
  void nobody(Asker asker, std::string_view subject, std::string_view reply);

  // `session` has more pending than it may.
  void slow_consumer(Session& session, Account& account);

  uint64_t repicks() const { return repicks_; }
  uint64_t vanished() const { return vanished_; }
  uint64_t records() const { return records_; }
  void count_peers(uint64_t messages, uint64_t bytes) {
    peer_traffic_.out_msgs += messages;
    peer_traffic_.out_bytes += bytes;
  }
  const Traffic& peer_traffic() const { return peer_traffic_; }  // `out` to routes, gateways and leafnodes

 private:
  // The parts of an encoded delivery that are the same for every subscription: <head><sid><tail><payload>CRLF.
  struct Encoding {
    bool ready = false;
    std::string head;   // "MSG <subject> "
    std::string tail;   // " <reply> <size>\r\n"
    uint32_t skip = 0;  // bytes of header block left out
  };
  struct Pick {
    uint32_t shard;
    Side side;
    uint64_t group;
  };
  // A group one message matches, on one side.
  struct Candidate {
    uint64_t id;
    Side side;
    const QueueGroup* group;
  };

  bool deliver_plainly(Subscription& sub, const Message& message, Account& account);
  bool deliver_to(Subscription& sub, const Message& message, Account& account);
  bool deliver_to_peer(Subscription& sub, const Message& message, std::string_view queue);
  bool deliver_to_group(const QueueGroup& group, const Message& message, Account& account);
  bool deliver_to_peer_group(const QueueGroup& group, Side side, const Message& message, Account& account);
  void begin(const Message& message);
  std::string_view client_reply(const Message& message) const;
  bool publish_far(Account& account, const Message& message, SideSet sides);
  bool serve_groups(const Message& message, Account& account);
  bool serve_group(std::span<const Candidate> same, const Message& message, Account& account);
  bool send_to_targets(const Message& message, Account& account);
  void append(Session& to, std::string_view line, const Message& message, uint32_t skip);
  // The payload, skipping `skip` bytes, to be sent from where it lies or from a copy that several share.
  struct Reference {
    SharedBytes* shared = nullptr;  // null: better copied
    std::string_view bytes;
  };
  Reference refer(const Message& message, uint32_t skip, const Outbox& outbox);
  uint32_t pick_shard(const QueueGroup& group);
  void note_crossing(const Message& message, ShardSet targets);
  bool serve_pick(const CrossingPick& pick, const Message& message, Account& account, uint8_t hops);
  void cross_again(const Message& message, Account& account, uint8_t hops, Asker asker);
  Asker asker_of(const Message& message, ShardSet targets);
  Asker ask(Asker asker, ShardSet targets);
  void cross(uint32_t target, Account& account, const Message& message, SideSet plain, uint8_t hops, Session* cause,
             Asker asker);
  const Encoding& encoding(const Message& message, bool with_headers);
  void count_out(Account& account);
  void finish(Account& account);
  bool reached_limit(Subscription& sub);

  Shard& shard_;
  const size_t max_pending_;
  const size_t stall_above_;
  const bool drop_when_stalled_;
  const size_t inline_payload_;

  // Of the message in hand.
  Encoding plain_encoding_, header_encoding_;
  SharedBytes* shared_ = nullptr;  // a copy of the payload to refer to, once somebody needed it
  size_t fan_out_ = 0;
  uint64_t delivered_ = 0, delivered_bytes_ = 0;
  std::vector<Pick> picks_;
  std::vector<Candidate> candidates_;
  std::vector<PeerTarget> targets_;  // the first target_count_; the rest keeps its memory
  size_t target_count_ = 0;
  bool mapped_reply_ = false;  // the reply of the message in hand is a mapped one
  uint64_t serial_ = 0;        // of the message; Session::target_serial
  std::string line_;
  Traffic peer_traffic_;
  std::vector<Subscription*> expired_;
  Inquiries inquiries_;

  uint64_t repicks_ = 0;   // queue picks made again because the member had gone
  uint64_t vanished_ = 0;  // and given up because nobody was left
  uint64_t records_ = 0;   // messages that came over a ring by themselves
};

}  // namespace peregrine::core
