// TCP/IP for one shard: frames in, frames out, a clock. No I/O, no threads, no clock and no chance of its own.
//
// Owns: every TCP connection of the shard, half-open and TIME_WAIT records, the neighbour caches (ARP, ND) of its
// interfaces and the shard's timers for all of these. One Stack per shard, share-nothing; every call comes from the
// shard's thread. The addresses may be the same on all shards: the NIC (RSS) or the backend's spreading decides which
// stack sees a flow, and a stack must be given all frames of its flows.
//
// The turn of a backend built on it (net/backend.h's calls on the left):
//   acquire()   frames of one RX burst -> input(frame, now) each; advance(now); then acquire(out): net::Events, in
//   order release()   release(event) send() pause() resume() close() dial()   the calls of the same names; nothing
//   leaves yet flush()     flush(now): everything the turn caused leaves in few, full frames (ACKs of a whole burst are
//   one ACK) park()      until frames, a wake-up or next_ns()
//
// Events are those of net/backend.h with the same promises (kData stays valid until release(); kClosed is the last and
// never in the same acquire() as the last kData; a ConnId is not reused before the next acquire()). Event::buffer
// belongs to the stack. A frame whose payload was in order and wanted is handed on without a copy and its token comes
// back at release(): release what came from a frame in the same turn. Everything else (out of order, paused) is copied
// at once and its frame freed inside input(), so slow readers never hold frames.
//
// kClosed: after the peer's FIN, in the next acquire() (what we still have to send goes out in the background, then
// our FIN); after our close(): when the peer has acknowledged everything and our FIN, at the latest kLinger later;
// after a reset: when a paused reader has had what was received before it. What remains then, a connection without an
// owner, is the stack's business: see quiet().
//
// Sending. send() copies small pieces; pieces of at least Options::reference_bytes are taken by reference and the
// answer is kPending: they must stay untouched until kSent (or kClosed). kSent comes when all referenced bytes have
// been acknowledged, or, to not make a latency out of a peer's delayed ACK, as soon as what is left is small enough to
// copy. Nagle is off; pieces given in one turn share segments.
//
// Memory: an idle connection costs at most 512 bytes, all told (connection.h asserts it); bytes cost memory only while
// unacknowledged, out of order or unread, and are bounded per connection (Options) and by the connection count.
//
// RFCs, each named again where it is implemented: 9293 (TCP), 7323 (window scale, timestamps, PAWS), 2018/2883/6675
// (SACK), 8985 (RACK-TLP), 3042 (limited transmit), 6582 (NewReno without SACK), 6298 (RTO), 5682 (F-RTO), 4015 (undo),
// 6937 (PRR), 5681, 9438 (CUBIC), 9406 (HyStart++), 6928 (IW10), 7661 (unused windows), 813 (silly windows), 5961
// (blind attacks), 6528 (ISN), 6056 (ports), 4987 (SYN cookies), 6191/1337 (TIME_WAIT), 1191/8201/4821/5927 (path MTU),
// 1122 (keepalive, delayed ACK, R1 and R2), 5482 (user timeout), 3168 (ECN, as acceptor), 6093 (urgent data in band),
// 896 (no Nagle, but gathering), 791, 8200, 826/5227 (ARP), 4861/4443 (ND, ICMPv6), 792. Units: bytes; nanoseconds of a
// monotonic clock. Errors: negative errno.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "net/backend.h"
#include "net/tcp/address.h"
#include "net/tcp/congestion.h"
#include "net/tcp/port.h"
#include "net/tcp/stats.h"

namespace peregrine::net::tcp {

struct InterfaceAddress {
  IpAddress address;
  uint8_t prefix = 24;  // of the address family: 0..32 or 0..128
};

struct Interface {
  MacAddress mac{};
  uint16_t mtu = 1500;                      // of IP; 1280..9216 (from 128 on without IPv6 addresses)
  uint16_t vlan = 0;                        // 802.1Q id; 0 = untagged
  std::vector<InterfaceAddress> addresses;  // a link-local IPv6 address is added by itself if there is any IPv6 one
  std::optional<IpAddress> gateway4, gateway6;

  // What the port can do on transmit.
  bool checksum_offload = false;  // IPv4 header and TCP, both families
  bool vlan_offload = false;
  uint32_t tso_bytes = 0;  // largest payload of one OutFrame; 0 = no TSO. Needs checksum_offload
  uint16_t max_views = 8;  // most payload views in one OutFrame (>= 1)
};

struct Options {
  uint64_t seed = 1;            // all chance: ports, jitter
  uint64_t secret[2] = {0, 0};  // keys of ISNs, cookies, timestamps and hash tables; from a real source of randomness

  uint32_t max_connections = 1'000'000;
  uint32_t max_half_open = 4096;   // above: SYN cookies
  uint32_t max_time_wait = 65536;  // above: the oldest goes early
  bool syn_cookies = true;
  uint32_t cookies_per_second = 20'000;  // above: only who repeats a SYN, as a flood's made-up senders do not
  // RST in answer to what belongs to no connection, and as many at once: whoever was connected to the broker before us
  // should learn of it at its first segment.
  uint32_t resets_per_second = 20'000;
  uint8_t syn_ack_retries = 5;  // 1 + 2 + 4 + 8 + 16 + 32 s; two when the table is half full

  uint32_t receive_window = 4u << 20;  // most a connection is ever offered; grows from initial_window
  uint32_t initial_window = 64u << 10;
  uint32_t send_buffer = 4u << 20;       // most a connection may have unacknowledged; grows with the congestion window
  uint32_t reference_bytes = 16u << 10;  // pieces from this size on are sent without a copy
  uint64_t reassembly_bytes = 256u << 20;  // out-of-order bytes of all connections together

  CongestionControl congestion = CongestionControl::kCubic;

  // Ways of the peer we can also live without; tests turn them off.
  bool sack = true, timestamps = true, window_scale = true, ecn = true;
  // The short way of prediction.cc, which must make no difference but in time.
  bool header_prediction = true;

  // Tests and packet scripts place sequence numbers and timestamps where they want them (just before a wrap).
  std::optional<uint32_t> fixed_isn, fixed_timestamp_offset;

  int64_t time_wait_ns = 60'000'000'000;
  int64_t keepalive_idle_ns = 7'200'000'000'000;  // 0 = off
  int64_t keepalive_interval_ns = 75'000'000'000;
  uint8_t keepalive_probes = 9;
  uint8_t orphan_retries = 8;          // ... when its owner has closed it already
  int64_t orphan_ns = 60'000'000'000;  // without a sign of life, after its owner has closed it
  // What was sent may go unacknowledged for so long (RFC 9293 section 3.9.1, 5482), and peers are told; a window that a
  // living peer keeps shut does not count. 0: max_retries decides, or the peer's own wish, between 100 s and 15
  // minutes.
  int64_t user_timeout_ns = 0;
  uint8_t max_retries = 15;  // timeouts in a row before a connection is given up (RFC 1122 R2: with backoff, ~15 min)
};

// A received Ethernet frame in one piece.
struct Frame {
  const uint8_t* data = nullptr;
  uint32_t size = 0;
  uint64_t token = 0;             // the Port's; comes back by free_frame() exactly once
  uint32_t interface = 0;         // which add_interface()
  bool ip_checksum_good = false;  // verified by the NIC (IPv4 header); false = verify here
  bool l4_checksum_good = false;  // ... TCP
  bool vlan_stripped = false;     // the NIC took the tag off: it is vlan_tci
  uint16_t vlan_tci = 0;
  // A copy of a frame that another shard has received and answers (ARP, ND, ICMP: frames without a flow). We learn
  // from it (neighbours, path MTU) and say nothing.
  bool overheard = false;
};

// What to do with a received frame before it is given to any stack: TCP flows go to their owner; everything else goes
// to one shard and, with Frame::overheard set, to all others. `flow` is from our point of view (local = destination).
struct FrameClass {
  bool tcp = false;
  Flow flow;
};
FrameClass classify(const Frame& frame);

class Stack {
 public:
  // kClosed comes at most this long after close().
  static constexpr int64_t kLinger = 1'000'000'000;

  Stack(const Options& options, Port& port, int64_t now_ns);
  // Frees every frame still handed out and lets go of all memory; sends nothing.
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  // Set-up, before the first frame. Returns the number, or -EINVAL. Announces its addresses (gratuitous ARP,
  // unsolicited ND) with the first flush, unless `announce` is false (the other shards of the same port).
  int add_interface(const Interface& interface, bool announce);

  // The cable. While down nothing is transmitted and no connection is given up earlier than it would be otherwise; when
  // it comes back, addresses are announced, neighbours probed, and retransmissions restart at once.
  void set_link(uint32_t interface, bool up, int64_t now_ns);

  // `address` unspecified: all addresses of that family; nullopt: all. Number comes back in kAccepted. 0, -EADDRINUSE,
  // or -EADDRNOTAVAIL.
  int listen(const std::optional<IpAddress>& address, uint16_t port, uint32_t listener);
  void stop_listening(uint32_t listener);

  // kDialed or kDialFailed with `tag` follows, at most timeout_ns later.
  void dial(const IpAddress& to, uint16_t port, uint64_t tag, int64_t timeout_ns, int64_t now_ns);

  // Takes one frame. Its token is freed inside, or later if its payload became a kData event.
  void input(const Frame& frame, int64_t now_ns);

  // Fires timers.
  void advance(int64_t now_ns);

  // Appends what has happened; stops reading paused-and-resumed connections' queues at about max_bytes.
  void acquire(std::vector<Event>& out, size_t max_bytes = Backend::kAcquireBytes);
  void release(const Event& event);

  // See net/backend.h. kDone or kPending may take less than offered; kBlocked: kWritable follows.
  SendResult send(ConnId conn, std::span<const iovec> iov);
  void pause(ConnId conn);
  void resume(ConnId conn);
  void close(ConnId conn, bool abort);

  // Sends what is due: data, ACKs, window updates, answers. True: transmit() refused; call again when there is room.
  bool flush(int64_t now_ns);

  // When advance() is due at the latest (INT64_MAX: never); `now_ns` or earlier if acquire() or flush() have something
  // at once.
  int64_t next_ns() const;

  Address remote_address(ConnId conn) const;
  Address local_address(ConnId conn) const;

  // Nothing left to do: no connection (TIME_WAIT apart), no event, nothing to send. What a process waits for, a few
  // seconds at most, before it exits.
  bool quiet() const;

  const Stats& stats() const;
  uint64_t refused() const;  // frames and segments dropped, for whatever reason

  // For tests and for /connz: how a connection is doing.
  struct ConnectionState {
    const char* state = "";
    uint32_t mss = 0, congestion_window = 0, send_window = 0, bytes_in_flight = 0;
    int64_t smoothed_rtt_ns = 0, retransmit_timeout_ns = 0;
  };
  ConnectionState connection_state(ConnId conn) const;

  class Machine;  // machine.h: the inside

 private:
  std::unique_ptr<Machine> machine_;
};

}  // namespace peregrine::net::tcp
