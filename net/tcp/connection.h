// One TCP connection (RFC 9293's TCB) as plain data: the functions are Stack::Machine's, file by file
// (handshake.cc, receiver.cc, acknowledged.cc, recovery.cc, sender.cc, closing.cc).
//
// What an idle connection does not need hangs on two pointers: `out` (bytes and ranges in flight) and `in` (bytes
// behind gaps, bytes of a paused reader). At most 512 bytes all told: this struct, its heap header, its slot in the
// connection table and in the flow table at its emptiest (see the assertion).
//
// Sequence space:    snd_una <= snd_nxt <= snd_end (+ 1 once our FIN is sent);  rcv_nxt <= rcv_edge
// snd_nxt never goes back: what must be sent again is marked lost in the scoreboard. rcv_edge, the right edge of the
// window we have promised, never goes back either (RFC 9293 section 3.8.6: never shrink the window).
#pragma once

#include <memory>

#include "core/timer_wheel.h"
#include "net/tcp/congestion.h"
#include "net/tcp/receive_queue.h"
#include "net/tcp/scoreboard.h"
#include "net/tcp/send_queue.h"
#include "net/tcp/stack.h"

namespace peregrine::net::tcp {

enum class State : uint8_t {
  kClosed,  // reset or given up: only kClosed is still owed to the owner
  kSynSent,
  kSynReceived,  // simultaneous open only: half-open records wait elsewhere
  kEstablished,
  kFinWait1,
  kFinWait2,
  kCloseWait,
  kClosing,
  kLastAck,
};
const char* state_name(State state);

// RFC 5681 and 6675: what the ACKs currently repair.
enum class Recovery : uint8_t { kNone, kFast, kTimeout };

// RFC 5682: what the next ACK says about a timeout, where no timestamps tell.
enum class TimeoutCheck : uint8_t {
  kOff,
  kFirstAck,   // the first segment went again
  kTwoNew,     // it arrived; the next flush sends two segments the peer has never seen
  kSecondAck,  // they are out: something old acknowledged now was never lost
};

class ReferenceSend;

struct Outgoing {
  explicit Outgoing(uint32_t seq) : queue(seq) {}
  SendQueue queue;
  Scoreboard sent;

  // Of a recovery: PRR (RFC 6937), and what undo gives back (RFC 4015).
  uint32_t recover_flight = 0, prr_delivered = 0, prr_out = 0;
  uint32_t prior_window = 0, prior_threshold = 0;
  uint32_t stalled_ms = 0;  // since when nothing is acknowledged; from the first timeout on (RFC 5482)
};

struct Connection {
  core::Timer timer;  // armed for the earliest of the deadlines below, or earlier
  void* machine = nullptr;
  uint32_t id = 0;
  uint32_t hash = 0;
  Flow flow;
  uint32_t interface = 0;
  uint32_t neighbour = UINT32_MAX;

  State state = State::kClosed;
  Recovery recovery = Recovery::kNone;
  TimeoutCheck timeout_check = TimeoutCheck::kOff;

  // What was agreed on.
  bool sack : 1 = false;
  bool timestamps : 1 = false;
  bool window_scaling : 1 = false;
  bool ecn : 1 = false;

  // The owner's side.
  bool attached : 1 = false;  // events go to the owner; false before kAccepted/kDialed and after kClosed
  bool dialed : 1 = false;    // we opened it
  bool close_requested : 1 = false;
  bool close_queued : 1 = false;  // kClosed waits in pending_close_
  bool paused : 1 = false;
  bool in_ready_list : 1 = false;
  bool write_blocked : 1 = false;  // owes kWritable

  // The wire.
  bool dirty : 1 = false;  // in the list flush() walks
  bool waits_for_neighbour : 1 = false;
  bool syn_due : 1 = false;
  bool ack_now : 1 = false;
  bool fin_queued : 1 = false;
  bool fin_sent : 1 = false;
  bool peer_finished : 1 = false;  // its FIN is in order
  bool persisting : 1 = false;     // rto_at is the persist timer
  bool probing_tail : 1 = false;   // probe_at is a tail-loss probe; else the reordering timer
  bool probe_due : 1 = false;      // send a window or keepalive probe
  bool tail_probe_due : 1 = false;
  bool tail_probe_resent : 1 = false;
  bool tail_probe_out : 1 = false;
  bool window_limited : 1 = false;  // cwnd, not the application, kept us from sending more
  bool reordering_seen : 1 = false;
  bool ece_to_send : 1 = false;  // RFC 3168: until the peer says CWR
  bool cwr_to_send : 1 = false;
  bool force_one : 1 = false;  // one retransmission whatever the window says
  bool can_undo : 1 = false;
  bool fin_known : 1 = false;    // fin_seq is where the peer's data ends
  bool linger_over : 1 = false;  // what still arrives after our close is answered by a reset
  bool challenged : 1 = false;   // challenge_ms is set

  uint8_t send_scale = 0, receive_scale = 0;
  uint8_t backoff = 0;  // RTO doublings
  uint8_t retries = 0;  // timeouts since anything was acknowledged
  uint8_t keepalives_sent = 0;
  uint8_t quick_acks = 0;  // RFC 1122 allows delay; these many first segments do not get it
  uint8_t duplicate_acks = 0;
  uint8_t reorder_steps = 1;  // RACK.reo_wnd_mult
  uint8_t reorder_persist = 0;

  uint16_t peer_mss = 536;
  uint16_t mss = 536;  // payload of a full segment, timestamps taken off
  uint16_t path_mtu = 0;

  // Send sequence space.
  uint32_t iss = 0, snd_una = 0, snd_nxt = 0, snd_end = 0;
  uint32_t snd_wnd = 0, snd_wl1 = 0, snd_wl2 = 0, max_snd_wnd = 0;
  // Receive sequence space.
  uint32_t irs = 0, rcv_nxt = 0, rcv_edge = 0, last_ack_sent = 0;
  uint32_t receive_window = 0;  // what we would offer with nothing queued
  uint32_t window_epoch = 0;    // rcv_nxt when it last grew
  uint32_t unacked_in = 0;      // payload received since our last ACK
  SackBlock duplicate{};        // D-SACK to report (RFC 2883)

  uint32_t ts_recent = 0, ts_offset = 0;
  int64_t ts_recent_at = 0;

  RoundTrip rtt;
  Congestion congestion;

  // RFC 8985.
  int64_t rack_sent_at = 0, rack_rtt = 0, min_rtt = 0;
  uint32_t rack_end = 0, rack_forward = 0, tail_probe_end = 0, reorder_round = 0;

  // Recovery.
  uint32_t recovery_point = 0, first_resend_ts = 0, reno_sacked = 0;
  uint32_t cwr_point = 0;

  // Deadlines, 0 = off.
  int64_t rto_at = 0;
  int64_t probe_at = 0;
  int64_t ack_at = 0;
  int64_t keepalive_at = 0;
  int64_t owner_at = 0;  // dial timeout, linger, end of an orphan

  int64_t sent_at = 0;        // last data
  int64_t received_at = 0;    // last anything
  uint32_t challenge_ms = 0;  // when the last answer to something unacceptable left
  uint32_t fin_seq = 0;
  uint32_t user_timeout_ms = 0;  // what was sent may go unacknowledged for so long (RFC 5482); 0 = max_retries alone
  uint32_t data_turn = 0;        // acquire() in which its last kData goes out
  uint64_t tag = 0;              // dial's, or the listener's number
  int32_t close_error = 0;

  std::unique_ptr<Outgoing> out;
  std::unique_ptr<ReceiveQueue> in;
  ReferenceSend* reference = nullptr;
};

// Heap header 16, slot 8, flow table 8 bytes at 3/8 to 3/4 full: 22.
static_assert(sizeof(Connection) + 16 + 8 + 22 <= 512);

// A connection in the making (RFC 4987): what a SYN is worth before its sender has proved an address.
struct HalfOpen {
  core::Timer timer;
  void* machine = nullptr;
  Flow flow;
  uint32_t hash = 0;
  uint32_t interface = 0;
  MacAddress mac{};
  uint16_t mss = 0;
  uint32_t irs = 0, iss = 0, ts_recent = 0, window = 0;
  uint32_t listener = 0;
  uint32_t index = 0;
  uint32_t user_timeout_s = 0;  // as the peer wishes
  int8_t window_scale = -1;
  uint8_t retries = 0;
  bool sack = false, timestamps = false, ecn = false, used = false;
};
static_assert(sizeof(HalfOpen) <= 160);

// RFC 9293's TIME-WAIT: all that is needed to answer a repeated FIN and to judge a new SYN.
struct TimeWait {
  Flow flow;
  uint32_t snd_nxt = 0, rcv_nxt = 0, ts_recent = 0;
  uint32_t expires_ms = 0;
  uint32_t previous = UINT32_MAX, next = UINT32_MAX;  // oldest first
  bool timestamps = false, used = false;
};
static_assert(sizeof(TimeWait) <= 64);

}  // namespace peregrine::net::tcp
