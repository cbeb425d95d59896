// What a shard tells the control plane about itself: plain values, filled on the shard, read by monitoring.
//
// A shard fills one of these when a command asks for it and hands it over whole; afterwards nobody writes to it.
// Nothing here points back into the shard. Long lists (connections, subscriptions) may be filled over several turns: a
// scrape never holds traffic up, so two rows of one answer may be some microseconds apart.
//
// Units: bytes; times are nanoseconds since the Unix epoch (wall clock), intervals nanoseconds; counters count since
// the start. "in" is what clients sent to the server, "out" what the server sent to them, as in /varz.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/options.h"
#include "core/sublist.h"

namespace peregrine::core {

struct Traffic {
  uint64_t in_msgs = 0, in_bytes = 0, out_msgs = 0, out_bytes = 0;
};

// By kind of connection, as slow_consumer_stats and stale_connection_stats of /varz.
struct KindCounts {
  uint64_t clients = 0, routes = 0, gateways = 0, leafs = 0;
  uint64_t total() const { return clients + routes + gateways + leafs; }
  uint64_t& of(SessionKind kind) {
    switch (kind) {
      case SessionKind::kRoute:
        return routes;
      case SessionKind::kGateway:
        return gateways;
      case SessionKind::kLeaf:
      case SessionKind::kHub:
        return leafs;
      case SessionKind::kClient:
        break;
    }
    return clients;
  }
};

// One account's part of a shard.
struct AccountSnapshot {
  std::string name;          // "$G"
  uint64_t connections = 0;  // client connections open now
  uint64_t leafnodes = 0;
  uint64_t total_connections = 0;  // ever
  Traffic traffic;                 // of its clients
  uint64_t slow_consumers = 0;
  SublistStats sublist;  // local subscriptions only
};

// The traffic between this shard and the others, summed over its rings.
struct RingSnapshot {
  uint64_t records_in = 0, records_out = 0;  // delivery and interest records
  uint64_t bytes_in = 0, bytes_out = 0;
  uint64_t overflows = 0;         // records that found their ring full and waited in the overflow list
  uint64_t overflow_pending = 0;  // waiting there now
  uint64_t held_sessions = 0;     // sessions whose output is held back because of that, now
  uint64_t repicks = 0;           // queue picks repeated because the member had gone
  uint64_t vanished = 0;          // ... and given up because the whole group had
  uint64_t wakeups = 0;           // sleeping shards woken
};

// How many turns were shorter than 2^n microseconds, and not shorter than half of that; the last one takes the rest.
using TurnLengths = std::array<uint64_t, 20>;

struct ShardSnapshot {
  uint32_t shard = 0;
  int cpu = -1;              // pinned to; -1 = not pinned
  uint64_t connections = 0;  // open now, authenticated or not (all kinds)
  uint64_t total_connections = 0;
  Traffic traffic;         // all kinds of connections
  Traffic client_traffic;  // CLIENT only
  KindCounts slow_consumers;
  KindCounts stale_connections;
  uint64_t stalled_clients = 0;  // times a producer was held back because of a slow consumer
  std::vector<AccountSnapshot> accounts;
  RingSnapshot rings;
  uint64_t moved_in = 0, moved_out = 0;  // publishers that changed shards (placement.h)
  uint64_t turns = 0, parks = 0;
  // Of turns that had something to do, from their beginning to when the next one could begin.
  int64_t longest_turn_ns = 0;
  uint64_t long_turns = 0;  // longer than a millisecond
  TurnLengths turn_lengths{};
  uint64_t pending_bytes = 0;  // in outboxes
  uint64_t buffer_bytes = 0;   // held by the buffer pool, used or not
};

// One subscription, in /subsz and in the details of /connz.
struct SubRow {
  std::string account;
  std::string subject;
  std::string queue;
  std::string sid;
  uint64_t msgs = 0;
  uint64_t max = 0;  // UNSUB limit; 0 = none
  uint64_t cid = 0;
};

struct TlsPeerCert {
  std::string subject, spki_sha256, cert_sha256;  // hex
};

// One connection, open or closed. Strings that do not apply stay empty, and are then left out of the answer.
struct ConnRow {
  uint64_t cid = 0;
  std::string kind;  // "Client", "Leafnode", ...
  std::string type;  // "nats", "websocket", "mqtt"
  std::string ip;
  uint16_t port = 0;
  int64_t start_ns = 0;
  int64_t last_activity_ns = 0;
  int64_t stop_ns = 0;  // 0 = open
  std::string reason;   // close reason, exact text; closed ones only
  int64_t rtt_ns = 0;   // 0 = not measured (asking makes the session send a PING, as nats-server does)
  uint64_t pending_bytes = 0;
  Traffic traffic;
  uint64_t stalls = 0;
  uint64_t subscriptions = 0;  // of a closed one: what it had when it closed
  std::string name, lang, version;
  std::string tls_version, tls_cipher_suite;
  std::vector<TlsPeerCert> tls_peer_certs;
  bool tls_first = false;
  std::string authorized_user;  // user name, nkey or "[REDACTED]" token mark; shown only when asked for
  std::string account;
  std::string jwt, issuer_key, name_tag;
  std::vector<std::string> tags;
  std::string mqtt_client;
  std::string proxy_key;
  bool spoke = false, isolated = false;  // leafnodes: our role, and whether it is hidden from the others
  std::string compression;               // of leafnodes
  bool up = true;                        // the handshake is done
  std::vector<SubRow>
      subs;  // only with ConnzQuery::subs; of a closed one what it had; `account` of these rows stays empty
};

// One connection to another server of the cluster, in /routez.
struct RouteRow {
  ConnRow conn;  // `subs` with the account of each
  std::string remote_id, remote_name;
  bool did_solicit = false;
  bool is_configured = false;
  std::optional<config::SubjectPermission> import_subjects, export_subjects;  // the remote's
  std::string account;                                                        // its own route
  std::string compression;
};

// One gateway connection, in /gatewayz.
struct GatewayRow {
  ConnRow conn;
  std::string name;  // of the other cluster
  bool outbound = false;
  bool is_configured = false;
  struct AccountRow {
    std::string name, mode;
    uint64_t subscriptions = 0, queue_subscriptions = 0;
    uint64_t no_interest = 0;  // subjects refused one by one
    std::vector<SubRow> subs;
  };
  std::vector<AccountRow> accounts;
};
struct GatewayzQuery {
  std::string account;  // only this one; empty = all
  bool accounts = false;
  bool subs = false;
};

enum class ConnState : uint8_t { kOpen, kClosed, kAll };

enum class ConnSort : uint8_t {
  kCid,
  kStart,
  kSubs,
  kPending,
  kMsgsTo,
  kMsgsFrom,
  kBytesTo,
  kBytesFrom,
  kLast,
  kIdle,
  kUptime,
  kStop,
  kReason,
  kRtt,
};

// What a shard applies to its connections. Empty strings and 0 do not filter.
struct ConnzQuery {
  ConnState state = ConnState::kOpen;
  bool only_leafnodes = false;
  uint64_t cid = 0;  // 0 = all; only one shard has it
  std::string user;  // equals authorized_user
  std::string account;
  std::string mqtt_client;
  bool subs = false;  // fill ConnRow::subs
  // A shard need not return rows which can not be shown: those behind the first `keep` in the order of `sort` (0 =
  // return all).
  ConnSort sort = ConnSort::kCid;
  size_t keep = 0;
  int64_t now_ns = 0;  // when it was asked: where the uptime of open ones ends
};

struct ConnRows {
  std::vector<ConnRow> rows;  // those which pass all filters, in any order, at most what `keep` allows
  uint64_t total = 0;         // connections in `state` and `account`, whatever the other filters say
  bool account_known = true;  // false: no such account here, `rows` is empty
};

struct SubszQuery {
  std::string account;  // empty = all
  std::string test;     // a literal subject: only subscriptions that match it. Empty = all
  size_t keep = 0;      // rows behind the first `keep` can not be shown (0 = return all)
};

struct SubRows {
  std::vector<SubRow> rows;  // in an order that does not change while the subscriptions do not
  uint64_t total = 0;        // all which pass the filters, shown or not
};

}  // namespace peregrine::core
