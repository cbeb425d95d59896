// Counters of one stack, for /varz and the log: what came in and was refused (one number per reason), and what TCP did
// to keep going. Written by the stack's thread only; another thread gets a copy by way of the shard's snapshot.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace peregrine::net::tcp {

// Every frame or segment the stack refuses is counted under exactly one of these.
#define PEREGRINE_TCP_DROPS(X)                                                                         \
  X(frame_too_short)   /* shorter than its Ethernet header */                                          \
  X(frame_not_for_us)  /* unicast to another MAC */                                                    \
  X(vlan_mismatch)     /* tagged where untagged is expected, or another VLAN */                        \
  X(ethertype_unknown) /* neither ARP, IPv4 nor IPv6 */                                                \
  X(arp_malformed)                                                                                     \
  X(arp_not_ours)   /* asks for, or speaks for, an address that does not concern us */                 \
  X(arp_rate)       /* more requests than we answer */                                                 \
  X(ipv4_truncated) /* header or total length beyond the frame */                                      \
  X(ipv4_version)                                                                                      \
  X(ipv4_header_length) /* IHL below 5 or beyond the packet */                                         \
  X(ipv4_checksum)                                                                                     \
  X(ipv4_fragment) /* we send DF and tell the peer by ICMP; fragments are not reassembled */           \
  X(ipv4_not_ours)                                                                                     \
  X(ipv4_source)   /* multicast, broadcast, unspecified or our own source */                           \
  X(ipv4_protocol) /* neither TCP nor ICMP */                                                          \
  X(ipv6_truncated)                                                                                    \
  X(ipv6_version)                                                                                      \
  X(ipv6_extension) /* broken, too long or unknown chain of extension headers */                       \
  X(ipv6_fragment)                                                                                     \
  X(ipv6_not_ours)                                                                                     \
  X(ipv6_source)                                                                                       \
  X(ipv6_protocol)                                                                                     \
  X(icmp_malformed)                                                                                    \
  X(icmp_checksum)                                                                                     \
  X(icmp_ignored)    /* a type we have no use for */                                                   \
  X(icmp_rate)       /* echo requests or errors above the limit */                                     \
  X(icmp_unverified) /* quotes no connection of ours, or a sequence number not in flight (RFC 5927) */ \
  X(nd_malformed)    /* hop limit, code, options or addresses against RFC 4861 section 7.1 */          \
  X(nd_not_ours)                                                                                       \
  X(tcp_truncated)   /* shorter than 20 bytes */                                                       \
  X(tcp_data_offset) /* below 5 or beyond the segment */                                               \
  X(tcp_checksum)                                                                                      \
  X(tcp_options) /* an option with a length below 2 or beyond the header */                            \
  X(tcp_flags)   /* no flag at all, SYN with FIN or RST */                                             \
  X(tcp_port_zero)                                                                                     \
  X(tcp_no_connection) /* answered by RST, within the limit */                                         \
  X(tcp_rst_rate)      /* ... and above the limit */                                                   \
  X(tcp_no_listener)   /* SYN to a closed port */                                                      \
  X(tcp_backlog)       /* SYN while neither a half-open record nor a cookie was possible */            \
  X(tcp_syn_rate)      /* first SYN of a sender while a flood has used up this second's answers */     \
  X(tcp_cookie_invalid)                                                                                \
  X(tcp_out_of_window)                                                                                 \
  X(tcp_paws)             /* RFC 7323 section 5 */                                                     \
  X(tcp_no_ack)           /* neither ACK, SYN nor RST where the state wants ACK */                     \
  X(tcp_ack_out_of_range) /* RFC 5961 section 5 */                                                     \
  X(tcp_rst_challenged)   /* in the window, not exact: RFC 5961 section 3 */                           \
  X(tcp_rst_ignored)      /* outside the window, in TIME_WAIT (RFC 1337), or not for what we sent */   \
  X(tcp_syn_challenged)   /* RFC 5961 section 4 */                                                     \
  X(tcp_after_close)      /* data nobody will read any more */                                         \
  X(tcp_reassembly_full)  /* out-of-order bytes or pieces above the bound */                           \
  X(tcp_memory)           /* connection limit reached */

enum class Drop : uint8_t {
#define X(name) name,
  PEREGRINE_TCP_DROPS(X)
#undef X
      kCount
};

inline constexpr std::array<std::string_view, static_cast<size_t>(Drop::kCount)> kDropNames = {
#define X(name) #name,
    PEREGRINE_TCP_DROPS(X)
#undef X
};

#define PEREGRINE_TCP_COUNTERS(X)                                                      \
  X(frames_in)                                                                         \
  X(frames_out)       /* what transmit() took; a TSO frame counts once */              \
  X(transmit_refused) /* transmit() had no room */                                     \
  X(segments_in)                                                                       \
  X(segments_known)    /* of these, by a shorter way than the first (prediction.cc) */ \
  X(segments_expected) /* ... and by the shortest */                                   \
  X(segments_out)      /* as the wire sees them: a TSO frame counts its pieces */      \
  X(bytes_in)          /* payload delivered in order */                                \
  X(bytes_out)         /* payload sent for the first time */                           \
  X(bytes_retransmitted)                                                               \
  X(segments_retransmitted)                                                            \
  X(fast_recoveries)                                                                   \
  X(timeouts) /* RTO fired */                                                          \
  X(tail_loss_probes)                                                                  \
  X(spurious_recoveries) /* undone by timestamps or D-SACK */                          \
  X(persist_probes)                                                                    \
  X(keepalive_probes)                                                                  \
  X(out_of_order) /* segments that waited for a gap */                                 \
  X(duplicates)   /* segments that brought nothing new */                              \
  X(challenge_acks)                                                                    \
  X(challenge_acks_withheld)                                                           \
  X(resets_in)                                                                         \
  X(resets_out)                                                                        \
  X(accepted)                                                                          \
  X(connected)                                                                         \
  X(connect_failed)                                                                    \
  X(syn_cookies_sent)                                                                  \
  X(syn_cookies_accepted)                                                              \
  X(half_open_expired)                                                                 \
  X(half_open_dropped)                                                                 \
  X(time_wait_reused)                                                                  \
  X(time_wait_dropped) /* more than the table holds */                                 \
  X(path_mtu_lowered)                                                                  \
  X(black_holes) /* segment size lowered after timeouts without any ICMP (RFC 4821) */ \
  X(timed_out)   /* connections given up */                                            \
  X(neighbours_failed)                                                                 \
  X(arp_requests)                                                                      \
  X(arp_replies)                                                                       \
  X(nd_solicitations)                                                                  \
  X(nd_advertisements)                                                                 \
  X(icmp_echo_replies)                                                                 \
  X(icmp_errors_in)                                                                    \
  X(icmp_errors_out)                                                                   \
  X(ecn_reductions)

struct Stats {
#define X(name) uint64_t name = 0;
  PEREGRINE_TCP_COUNTERS(X)
#undef X
  std::array<uint64_t, static_cast<size_t>(Drop::kCount)> drops{};

  // Gauges.
  uint64_t connections = 0;  // all that hold a TCB, closed by us or not
  uint64_t half_open = 0;
  uint64_t time_wait = 0;
  uint64_t neighbours = 0;
  uint64_t bytes_queued_in = 0;   // received, kept for paused connections or behind gaps
  uint64_t bytes_queued_out = 0;  // accepted by send(), not yet acknowledged

  uint64_t dropped(Drop reason) const { return drops[static_cast<size_t>(reason)]; }

  // Calls visit(name, value) for every counter and gauge, then for every drop reason as "drop_" + name is left to the
  // caller: see kDropNames.
  template <class Visit>
  void each(Visit&& visit) const {
#define X(name) visit(std::string_view(#name), name);
    PEREGRINE_TCP_COUNTERS(X)
#undef X
    visit(std::string_view("connections"), connections);
    visit(std::string_view("half_open"), half_open);
    visit(std::string_view("time_wait"), time_wait);
    visit(std::string_view("neighbours"), neighbours);
    visit(std::string_view("bytes_queued_in"), bytes_queued_in);
    visit(std::string_view("bytes_queued_out"), bytes_queued_out);
  }
};

}  // namespace peregrine::net::tcp
