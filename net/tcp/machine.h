// Inside of Stack: its tables, and every function that moves a frame or a connection. One file per subject:
//   machine.cc       tables, events, the public calls        interfaces.cc   addresses, routes, IP and Ethernet out
//   handshake.cc     SYNs, half-open records, cookies, dial   neighbours.cc   ARP and ND
//   time_wait.cc     records after the end                    icmp.cc         echo, errors, path MTU
//   receiver.cc      segments of a connection: checks, data   sender.cc       what leaves at flush()
//   acknowledged.cc  ACK and SACK: RTT, window, congestion    recovery.cc     RACK-TLP, RTO, persist, keepalive
//   closing.cc       FIN, RST, kClosed, orphans         prediction.cc   the short way of what was expected
// See stack.h for the contract. Nothing here outlives a call except what the tables hold.
#pragma once

#include <deque>
#include <unordered_map>

#include "core/random.h"
#include "net/tcp/connection.h"
#include "net/tcp/flow_table.h"
#include "net/tcp/packet.h"
#include "net/tcp/segment.h"

namespace peregrine::net::tcp {

inline constexpr int64_t kMillisecond = 1'000'000, kSecond = 1'000'000'000;
inline constexpr int64_t kDelayedAck = 40 * kMillisecond;    // RFC 1122 allows 500
inline constexpr int64_t kMaxAckDelay = 200 * kMillisecond;  // what a peer may take (RFC 8985: TLP.max_ack_delay)
inline constexpr uint8_t kQuickAcks = 16;
inline constexpr uint32_t kCopyTail = 16384;  // a referenced send of which this much is left is copied and reported
inline constexpr uint32_t kLargestReference = 1u << 20;
inline constexpr uint32_t kSmallestMss = 48;  // peers that announce less get this
// Between these a peer may choose how long we wait for it (RFC 5482 section 3.1); R2 is at least 100 s (RFC 1122).
inline constexpr uint32_t kLeastUserTimeoutS = 100, kMostUserTimeoutS = 900;

inline uint32_t count_of(const Flow& flow) { return flow.local.is_v4() ? 40 : 60; }  // IP and TCP headers

// A token bucket per second: `burst` now, refilled at `per_second`.
class RateLimit {
 public:
  RateLimit(uint32_t per_second, uint32_t burst) : per_second_(per_second), burst_(burst), tokens_(burst) {}
  bool take(int64_t now_ns) {
    const int64_t passed = now_ns - at_;
    if (passed > 0) {
      tokens_ = std::min<double>(burst_, tokens_ + static_cast<double>(passed) * 1e-9 * per_second_);
      at_ = now_ns;
    }
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }

 private:
  uint32_t per_second_, burst_;
  double tokens_;
  int64_t at_ = 0;
};

struct Neighbour {
  enum class State : uint8_t { kFree, kIncomplete, kReachable, kProbing, kFailed };
  core::Timer timer;
  void* machine = nullptr;
  IpAddress address;
  MacAddress mac{};
  uint32_t interface = 0;
  uint32_t index = 0;
  uint32_t users = 0;
  State state = State::kFree;
  uint8_t probes = 0;
  int64_t confirmed_at = 0;
  std::vector<uint32_t> waiting;  // connections with something to send; bounded by the connections that use it
  bool usable() const { return state == State::kReachable || state == State::kProbing; }
};

class ReferenceSend final : public Hold {
 public:
  ReferenceSend(Stack::Machine* machine, uint32_t conn) : machine_(machine), conn_(conn) {}
  void arm(uint32_t bytes) {  // send() has appended all its pieces
    bytes_ = bytes;
    drop();
  }
  void abandon() { machine_ = nullptr; }

 private:
  void released() override;
  Stack::Machine* machine_;
  uint32_t conn_;
  uint32_t bytes_ = 0;
};

class Stack::Machine {
 public:
  Machine(const Options& options, Port& port, int64_t now_ns);
  ~Machine();

  // ---- machine.cc
  void input(const Frame& frame, int64_t now_ns);
  void input_tcp(const Packet& packet, const Frame& frame);
  void acquire(std::vector<Event>& out, size_t max_bytes);
  void release(const Event& event);
  SendResult send(ConnId id, std::span<const iovec> iov);
  void pause(ConnId id);
  void resume(ConnId id);
  bool flush();
  void advance();
  int64_t next_ns() const;
  bool quiet() const;
  uint32_t send_room(const Connection& c) const;

  Connection* attached(ConnId id);
  Connection& make_connection(const Flow& flow, uint32_t hash, uint32_t interface);
  void destroy(Connection& c);
  RecordRef find(const Flow& flow, uint32_t hash, bool& found) const;
  void drop(Drop reason) {
    ++stats_.drops[static_cast<size_t>(reason)];
    ++refused_;
  }
  void mark_dirty(Connection& c);
  void schedule(Connection& c);  // after a deadline has changed
  void on_timer(Connection& c);
  static void timer_fired(void* context);
  void mark_ready(Connection& c);

  uint32_t clock_ms() const { return static_cast<uint32_t>(now_ / kMillisecond); }
  uint32_t timestamp_offset(const Flow& flow) const;
  uint32_t timestamp_now(uint32_t offset) const { return clock_ms() + offset; }
  uint32_t make_isn(const Flow& flow) const;  // RFC 6528
  uint64_t keyed(const Flow& flow, uint64_t purpose, uint64_t extra) const;

  // ---- interfaces.cc
  int add_interface(const Interface& interface, bool announce);
  void set_link(uint32_t interface, bool up);
  bool is_local(const IpAddress& address) const;
  bool owns(uint32_t interface, const IpAddress& address) const;
  bool on_link(uint32_t interface, const IpAddress& address) const;
  bool route(const IpAddress& to, uint32_t& interface, IpAddress& next_hop) const;
  bool source_for(uint32_t interface, const IpAddress& to, IpAddress& source) const;
  uint32_t write_ethernet(uint8_t* out, uint32_t interface, const MacAddress& to, uint16_t ethertype, OutFrame& frame);
  uint32_t write_ip(uint8_t* out, const IpAddress& from, const IpAddress& to, uint8_t protocol, uint32_t body_bytes,
                    uint8_t ecn, uint8_t hop_limit, bool leave_checksum);
  struct TcpPayload {
    const PayloadView* views = nullptr;
    uint32_t count = 0, bytes = 0;
    uint16_t segment_bytes = 0;
  };
  bool emit_tcp(uint32_t interface, const MacAddress& to, const IpAddress& from, const IpAddress& remote,
                const HeaderFields& fields, uint8_t ecn, const TcpPayload& payload);
  bool emit_plain(uint32_t interface, std::span<const uint8_t> bytes, OutFrame& frame);

  // ---- neighbours.cc
  uint32_t use_neighbour(uint32_t interface, const IpAddress& address);
  void leave_neighbour(uint32_t index);
  void learn(uint32_t interface, const IpAddress& address, const MacAddress& mac, bool solicited, bool override);
  void confirm(Connection& c) {
    if (c.neighbour != UINT32_MAX) neighbours_[c.neighbour].confirmed_at = now_;
  }
  void probe(Neighbour& n);
  void neighbour_timer(Neighbour& n);
  void fail_neighbour(Neighbour& n);
  bool neighbour_ready(Connection& c, MacAddress& mac);
  void input_arp(const Packet& packet, const Frame& frame);
  void input_nd(const Packet& packet, const Frame& frame);
  void send_arp(uint32_t interface, bool request, const MacAddress& ethernet_to, const MacAddress& target_mac,
                const uint8_t* sender_ip, const uint8_t* target_ip);
  void send_solicitation(uint32_t interface, const IpAddress& target, const MacAddress* unicast);
  void send_advertisement(uint32_t interface, const IpAddress& target, const IpAddress& to, const MacAddress& mac,
                          bool solicited);
  void announce(uint32_t interface);
  void send_icmpv6(uint32_t interface, const MacAddress& mac, const IpAddress& from, const IpAddress& to,
                   std::span<uint8_t> body, uint8_t hop_limit);

  // ---- icmp.cc
  void input_icmp(const Packet& packet, const Frame& frame);
  void input_icmpv6(const Packet& packet, const Frame& frame);
  void icmp_error(bool ipv6, uint8_t type, uint8_t code, uint32_t mtu, const uint8_t* quoted, uint32_t size);
  void send_unreachable(const Packet& packet, const Frame& frame, uint8_t type4, uint8_t code4, uint8_t type6,
                        uint8_t code6, uint32_t pointer);
  void lower_path_mtu(Connection& c, uint32_t mtu);
  uint16_t known_path_mtu(const IpAddress& to, uint32_t interface) const;
  void update_mss(Connection& c);

  // ---- handshake.cc
  struct Listener {
    std::optional<IpAddress> address;
    uint16_t port;
    uint32_t number;
  };
  const Listener* find_listener(const IpAddress& to, uint16_t port) const;
  void dial(const IpAddress& to, uint16_t port, uint64_t tag, int64_t timeout_ns);
  void dial_failed(uint64_t tag, int error);
  void on_syn(const Flow& flow, uint32_t hash, const Packet& packet, const Frame& frame, const Segment& segment);
  void on_half_open(HalfOpen& h, const Packet& packet, const Frame& frame, const Segment& segment);
  bool on_cookie(const Flow& flow, uint32_t hash, const Packet& packet, const Frame& frame, const Segment& segment);
  void send_syn_ack(HalfOpen& h);
  void send_cookie(const Flow& flow, const Packet& packet, const Frame& frame, const Segment& segment);
  void half_open_timer(HalfOpen& h);
  void free_half_open(HalfOpen& h);
  bool flooded() const { return options_.syn_cookies && stats_.half_open >= options_.max_half_open; }
  bool worth_a_look(uint64_t mixed);
  uint32_t cookie_hash(const Flow& flow, uint32_t irs, uint32_t minute) const;
  void accept(const HalfOpen& h, const Packet& packet, const Frame& frame, const Segment& segment);
  void on_syn_sent(Connection& c, const Packet& packet, const Segment& segment);
  void agree(Connection& c, const Segment& syn);  // options of the peer's SYN
  void adopt_user_timeout(Connection& c, uint32_t seconds);
  uint16_t announced_user_timeout() const;
  void established(Connection& c);
  bool send_syn(Connection& c, const MacAddress& mac);
  uint8_t window_scale() const;
  uint16_t announced_mss(uint32_t interface, bool v4) const;
  void reply_reset(const Flow& flow, const Packet& packet, const Frame& frame, const Segment& segment);

  // ---- time_wait.cc
  void enter_time_wait(Connection& c);
  void on_time_wait(TimeWait& w, uint32_t hash, const Packet& packet, const Frame& frame, const Segment& segment);
  void free_time_wait(TimeWait& w);
  void unlink_time_wait(TimeWait& w);
  void append_time_wait(TimeWait& w);
  void expire_time_wait();

  // ---- receiver.cc
  void on_segment(Connection& c, const Packet& packet, const Frame& frame, Segment& segment);
  bool acceptable(Connection& c, const Segment& segment);
  bool synchronized_checks(Connection& c, Segment& segment);
  void pace_acks(Connection& c, uint32_t bytes, bool at_once);
  bool wants_data(const Connection& c) const { return c.attached && !c.close_requested && !c.close_queued; }
  void on_data(Connection& c, const Frame& frame, const Segment& segment);
  void take_in_order(Connection& c, const Frame& frame, const uint8_t* bytes, uint32_t size);
  void store_out_of_order(Connection& c, uint32_t seq, const uint8_t* bytes, uint32_t size);
  void update_offer(Connection& c);
  void on_fin(Connection& c);
  void deliver_frame(Connection& c, const Frame& frame, const uint8_t* bytes, uint32_t size);
  void deliver_chunk(Connection& c, Chunk* chunk);
  void drain_ready(Connection& c, std::vector<Event>& out, size_t& budget);
  uint32_t window_to_offer(const Connection& c) const;
  void challenge(Connection& c);
  void answer_duplicate(Connection& c, const Segment& segment);
  ReceiveQueue& incoming(Connection& c);
  uint32_t hand_out(uint64_t token, Chunk* chunk);

  // ---- prediction.cc
  struct Known;
  void remember(const Connection& c, const Frame& frame, const Packet& packet);
  void forget(const Connection& c);
  static uint32_t same_way(const Known& known, const Frame& frame);
  static bool intact(const Known& known, const Frame& frame, uint32_t segment_bytes);
  bool input_known(const Frame& frame);  // false: it takes the long way
  bool take_expected(Connection& c, const Frame& frame, const uint8_t* tcp, uint32_t segment_bytes);
  bool survives_flood(const Frame& frame);

  // ---- acknowledged.cc
  bool on_ack(Connection& c, const Segment& segment);  // false: the segment is not to be looked at further
  struct AckNews {
    uint32_t acknowledged = 0;        // cumulatively, FIN included
    uint32_t delivered = 0;           // acknowledged or reported for the first time
    bool duplicate_reported = false;  // D-SACK
    bool original = false;            // delivered: something from before the recovery point that was sent only once
    bool beyond = false;              // ... something from behind it
    int64_t sent_at = 0;              // the latest transmission among them that is no retransmission
  };
  bool update_window(Connection& c, const Segment& segment);
  void take_acknowledged(Connection& c, const Segment& segment, AckNews& news);
  void take_sacks(Connection& c, const Segment& segment, AckNews& news);
  void note_delivered(Connection& c, const SentRange& range, const Segment& segment, AckNews& news);
  void sample_rtt(Connection& c, const Segment& segment, const AckNews& news);
  void judge_tail_probe(Connection& c, const Segment& segment, const AckNews& news);
  void count_duplicate(Connection& c, const Segment& segment, bool window_changed, AckNews& news);
  void check_timeout(Connection& c, const Segment& segment, const AckNews& news);
  void steer(Connection& c, const Segment& segment, const AckNews& news);  // recovery and congestion
  void proportional_rate(Connection& c, const AckNews& news);
  void after_ack(Connection& c);

  // ---- recovery.cc
  void rack_update(Connection& c, const SentRange& range, const Segment& segment);
  bool rack_detect(Connection& c);  // marks; true if anything was marked
  void enter_fast_recovery(Connection& c);
  void undo(Connection& c);
  void on_rto(Connection& c);
  void on_probe_timer(Connection& c);
  void rearm(Connection& c, bool restart);  // RTO, persist, tail-loss probe: after an ACK (restart) or a transmission
  uint32_t pipe(const Connection& c) const;
  void give_up(Connection& c, int error);
  bool outlived(const Connection& c) const;         // RFC 5482
  int64_t next_timeout(const Connection& c) const;  // when the backed-off timer fires, or the user timeout is over
  void doubt_neighbour(Connection& c);
  void on_keepalive(Connection& c);
  void start_keepalive(Connection& c);

  // ---- sender.cc
  bool output(Connection& c);  // false: the port has no room
  bool resend_lost(Connection& c, const MacAddress& mac);
  bool send_tail_probe(Connection& c, const MacAddress& mac);
  bool send_new(Connection& c, const MacAddress& mac, bool& sent_new);
  bool send_range(Connection& c, const MacAddress& mac, uint32_t seq, uint32_t bytes, bool with_fin, bool resend,
                  uint32_t& sent);
  bool send_ack(Connection& c, const MacAddress& mac, uint32_t seq);
  void send_reset(Connection& c);
  void fill(Connection& c, HeaderFields& fields, uint32_t seq, uint8_t flags);
  void ack_sent(Connection& c, uint32_t edge);

  // ---- closing.cc
  void close(ConnId id, bool abort);
  void queue_closed(Connection& c, int error);
  void queue_fin(Connection& c);
  void emit_closed(std::vector<Event>& out);
  void reset(Connection& c, int error);  // the connection is over at once
  void owner_timer(Connection& c);
  void reference_released(uint32_t conn, uint32_t bytes);
  void drop_data(Connection& c);
  void finish(Connection& c, bool time_wait);  // both sides are done
  void fin_acknowledged(Connection& c);

  struct InterfaceState {
    Interface config;
    bool up = true;
    bool announce_due = false;
  };
  struct Handed {
    uint64_t token;
    Chunk* chunk;  // null: a frame
    bool used;
  };
  struct AddressHash {
    uint64_t key;
    size_t operator()(const IpAddress& a) const {
      uint64_t words[2];
      std::memcpy(words, a.bytes.data(), 16);
      return core::fold_multiply(words[0] ^ key, words[1] ^ 0x9E3779B97F4A7C15u ^ key);
    }
  };
  // What segments of a connection that was heard from lately have in front of them.
  struct Known {
    uint32_t conn = UINT32_MAX;  // exists; UINT32_MAX: nobody
    uint32_t seen = UINT32_MAX;  // came last by the long way
    uint32_t interface = 0;
    uint16_t vlan_tci = 0;
    bool vlan_stripped = false;
    bool ipv6 = false;
    uint8_t ip_at = 0, tcp_at = 0;
    std::array<uint8_t, 64> header{};  // up to TCP's ports
  };
  struct PathMtu {
    uint16_t mtu;
    int64_t until;
  };

  Options options_;
  Port& port_;
  int64_t now_;
  core::Random random_;
  uint64_t key_[2];
  core::TimerWheel wheel_;
  Stats stats_;

  std::vector<InterfaceState> interfaces_;
  std::vector<Listener> listeners_;

  FlowTable flows_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<uint32_t> free_ids_, retired_ids_;
  std::deque<HalfOpen> half_open_;
  std::vector<uint32_t> free_half_open_;
  std::vector<TimeWait> time_wait_;
  std::vector<uint32_t> free_time_wait_;
  uint32_t oldest_time_wait_ = UINT32_MAX, newest_time_wait_ = UINT32_MAX;
  core::Timer time_wait_timer_;
  std::deque<Neighbour> neighbours_;
  std::vector<uint32_t> free_neighbours_;
  std::unordered_map<IpAddress, uint32_t, AddressHash> neighbour_by_address_;
  std::unordered_map<IpAddress, PathMtu, AddressHash> path_mtus_;

  std::vector<Event> events_;
  std::vector<uint32_t> dirty_;
  std::vector<uint32_t> ready_;          // resumed, with queued bytes
  std::vector<uint32_t> pending_close_;  // kClosed in a coming acquire()
  uint32_t turn_ = 1;
  uint64_t refused_ = 0;  // the sum of all drops
  std::vector<Handed> handed_;
  std::vector<uint32_t> free_handed_;

  BlockFiller filler_;
  std::optional<uint32_t> least_isn_;  // a reused TIME-WAIT wants the next ISN above its last number
  bool frame_kept_ = false;            // the frame being processed became an event
  bool looked_at_ = false;             // ... is a SYN that worth_a_look() let pass
  std::array<Known, 16> known_;
  bool port_full_ = false;
  int64_t cookies_until_ = 0;  // cookies were sent lately
  RateLimit cookie_limit_, repeated_syn_limit_;
  std::vector<uint8_t> unanswered_syns_;  // tags by hash; empty without a flood

  RateLimit reset_limit_;
  RateLimit icmp_limit_{1000, 200}, arp_limit_{1000, 500}, challenge_reply_limit_{1000, 200};
  // RFC 5961's global limit, in a window of random size so that nobody can measure it (CVE-2016-5696).
  int64_t challenge_window_ = 0;
  uint32_t challenges_left_ = 0;
};

}  // namespace peregrine::net::tcp
