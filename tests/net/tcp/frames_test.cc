// Single frames against one stack: ARP, ND, ICMP, VLAN; every malformed header is counted under its reason and dropped.
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "net/tcp/packet.h"
#include "net/tcp/segment.h"
#include "tests/net/tcp/wire.h"

namespace peregrine::net::tcp::test {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr int64_t kMs = 1'000'000;
constexpr uint8_t kOur4[4] = {10, 0, 0, 1}, kPeer4[4] = {10, 0, 0, 2};

class Recorder final : public Port {
 public:
  bool transmit(const OutFrame& frame) override {
    for (auto& bytes : cut_frame(frame)) sent.push_back(std::move(bytes));
    return true;
  }
  void free_frame(uint64_t token) override { freed.insert(token); }
  std::vector<Bytes> sent;
  std::multiset<uint64_t> freed;
};

class Frames : public testing::Test {
 protected:
  explicit Frames(uint16_t vlan = 0) {
    options.secret[0] = 3;
    stack = std::make_unique<Stack>(options, port, now);
    Interface interface;
    interface.mac = {2, 0, 0, 0, 0, 1};
    interface.vlan = vlan;
    EXPECT_TRUE(IpAddress::parse("fd00::1", our6));
    EXPECT_TRUE(IpAddress::parse("fd00::2", peer6));
    interface.addresses = {{IpAddress::v4(kOur4), 24}, {our6, 64}};
    EXPECT_EQ(stack->add_interface(interface, false), 0);
    EXPECT_EQ(stack->listen(std::nullopt, 4222, 5), 0);
  }

  void deliver(const Bytes& bytes, bool overheard = false) {
    now += kMs;
    ++tokens;
    stack->input(
        {.data = bytes.data(), .size = static_cast<uint32_t>(bytes.size()), .token = tokens, .overheard = overheard},
        now);
    EXPECT_EQ(port.freed.count(tokens), 1u);
  }
  uint64_t dropped(Drop reason) const { return stack->stats().dropped(reason); }
  uint64_t all_drops() const {
    uint64_t sum = 0;
    for (const uint64_t n : stack->stats().drops) sum += n;
    return sum;
  }

  static Bytes ethernet(uint16_t type, const Bytes& body) {
    Bytes f = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, static_cast<uint8_t>(type >> 8), static_cast<uint8_t>(type)};
    f.insert(f.end(), body.begin(), body.end());
    return f;
  }
  static Bytes ip4(uint8_t protocol, const Bytes& body) {
    Bytes f(20);
    f[0] = 0x45;
    store16(f.data() + 2, static_cast<uint32_t>(20 + body.size()));
    f[8] = 64;
    f[9] = protocol;
    std::memcpy(f.data() + 12, kPeer4, 4);
    std::memcpy(f.data() + 16, kOur4, 4);
    f.insert(f.end(), body.begin(), body.end());
    seal(f);
    return f;
  }
  static void seal(Bytes& ip) {
    store16(ip.data() + 10, 0);
    Checksum sum;
    sum.add(ip.data(), 20);
    const uint16_t value = sum.final();
    std::memcpy(ip.data() + 10, &value, 2);
  }
  Bytes ip6(uint8_t next, const Bytes& body, uint8_t hops = 64) const {
    Bytes f(40);
    f[0] = 0x60;
    store16(f.data() + 4, static_cast<uint32_t>(body.size()));
    f[6] = next;
    f[7] = hops;
    std::memcpy(f.data() + 8, peer6.bytes.data(), 16);
    std::memcpy(f.data() + 24, our6.bytes.data(), 16);
    f.insert(f.end(), body.begin(), body.end());
    return f;
  }
  static Bytes tcp4(Bytes segment) {
    store16(segment.data() + 16, 0);
    Checksum sum;
    add_pseudo_header(sum, false, kPeer4, kOur4, static_cast<uint32_t>(segment.size()), kProtocolTcp);
    sum.add(segment.data(), segment.size());
    const uint16_t value = sum.final();
    std::memcpy(segment.data() + 16, &value, 2);
    return ethernet(kEtherIpv4, ip4(kProtocolTcp, segment));
  }
  // SYNs from everywhere, all at once, each frame as `dress` leaves it: bounded records, then bounded answers.
  void flood(uint32_t count, const std::function<Bytes(Bytes)>& dress) {
    for (uint32_t i = 0; i < count; ++i) {
      Bytes f = tcp4(syn(static_cast<uint16_t>(1 + i % 60000)));
      store32(f.data() + 14 + 12, 0x0a000000u | (i * 7919 + 3) % 0xfffffe);
      Bytes ip(f.begin() + 14, f.end());
      if (std::memcmp(ip.data() + 12, kOur4, 4) == 0) continue;
      seal(ip);
      Bytes segment(ip.begin() + 20, ip.end());
      store16(segment.data() + 16, 0);
      Checksum sum;
      add_pseudo_header(sum, false, ip.data() + 12, kOur4, static_cast<uint32_t>(segment.size()), kProtocolTcp);
      sum.add(segment.data(), segment.size());
      const uint16_t value = sum.final();
      std::memcpy(ip.data() + 36, &value, 2);
      now -= kMs;
      deliver(dress(ethernet(kEtherIpv4, ip)));
    }
    EXPECT_EQ(stack->stats().half_open, options.max_half_open);
    // A few made-up SYNs look like repeated ones.
    EXPECT_GE(stack->stats().syn_cookies_sent, options.cookies_per_second);
    EXPECT_LE(stack->stats().syn_cookies_sent, options.cookies_per_second + 100);
    EXPECT_EQ(stack->stats().frames_in,
              options.max_half_open + stack->stats().syn_cookies_sent + dropped(Drop::tcp_syn_rate));
    EXPECT_EQ(stack->stats().connections, 0u);
  }
  static Bytes syn(uint16_t source = 50000, uint16_t destination = 4222) {
    Bytes s(60);
    s.resize(write_header(
        s.data(),
        {.source_port = source, .destination_port = destination, .seq = 1, .ack = 0, .flags = kSyn, .window = 1000}));
    return s;
  }
  Bytes icmp6(Bytes body, uint8_t hops = 255) const {
    store16(body.data() + 2, 0);
    Checksum sum;
    add_pseudo_header(sum, true, peer6.bytes.data(), our6.bytes.data(), static_cast<uint32_t>(body.size()),
                      kProtocolIcmpv6);
    sum.add(body.data(), body.size());
    const uint16_t value = sum.final();
    std::memcpy(body.data() + 2, &value, 2);
    return ethernet(kEtherIpv6, ip6(kProtocolIcmpv6, body, hops));
  }
  static Bytes arp(uint16_t operation, const uint8_t* sender, const uint8_t* target) {
    Bytes a(28);
    store32(a.data(), 0x00010800);
    store32(a.data() + 4, 0x06040000u | operation);
    a[8] = 2;
    a[13] = 2;
    std::memcpy(a.data() + 14, sender, 4);
    std::memcpy(a.data() + 24, target, 4);
    return ethernet(kEtherArp, a);
  }

  Options options;
  Recorder port;
  int64_t now = 1'000'000 * kMs;
  uint64_t tokens = 0;
  IpAddress our6, peer6;
  std::unique_ptr<Stack> stack;
};

// RFC 791, 8200, 9293, 826, 4861: their formats.
TEST_F(Frames, EveryMalformedHeaderIsCountedUnderItsReason) {
  const auto change = [](Bytes f, const std::function<void(Bytes&)>& how) {
    how(f);
    return f;
  };
  const auto with_ip4 = [&](const std::function<void(Bytes&)>& how, bool reseal = true) {
    Bytes ip = ip4(kProtocolTcp, syn());
    how(ip);
    if (reseal) seal(ip);
    return ethernet(kEtherIpv4, ip);
  };
  const auto with_tcp = [&](const std::function<void(Bytes&)>& how) { return tcp4(change(syn(), how)); };
  const struct {
    Drop reason;
    Bytes frame;
  } cases[] = {
      {Drop::frame_too_short, Bytes(13)},
      {Drop::frame_not_for_us, change(tcp4(syn()), [](Bytes& f) { f[5] = 9; })},
      {Drop::vlan_mismatch, change(tcp4(syn()),
                                   [](Bytes& f) {
                                     const uint8_t tag[4] = {0x81, 0, 0, 5};
                                     f.insert(f.begin() + 12, tag, tag + 4);
                                   })},
      {Drop::ethertype_unknown, ethernet(0x88cc, Bytes(40))},
      {Drop::arp_malformed, ethernet(kEtherArp, Bytes(28))},
      {Drop::arp_malformed, ethernet(kEtherArp, Bytes(10))},
      {Drop::ipv4_truncated, ethernet(kEtherIpv4, Bytes(19))},
      {Drop::ipv4_truncated, with_ip4([](Bytes& ip) { store16(ip.data() + 2, 1400); })},
      {Drop::ipv4_version, with_ip4([](Bytes& ip) { ip[0] = 0x55; })},
      {Drop::ipv4_header_length, with_ip4([](Bytes& ip) { ip[0] = 0x44; })},
      {Drop::ipv4_header_length, with_ip4([](Bytes& ip) { ip[0] = 0x4f; })},
      {Drop::ipv4_checksum, with_ip4([](Bytes& ip) { ip[10] ^= 1; }, false)},
      {Drop::ipv4_fragment, with_ip4([](Bytes& ip) { ip[6] = 0x20; })},
      {Drop::ipv4_fragment, with_ip4([](Bytes& ip) { ip[7] = 9; })},
      {Drop::ipv4_not_ours, with_ip4([](Bytes& ip) { ip[19] = 77; })},
      {Drop::ipv4_source, with_ip4([](Bytes& ip) { ip[12] = 224; })},
      {Drop::ipv4_source, with_ip4([](Bytes& ip) { std::memcpy(ip.data() + 12, kOur4, 4); })},
      {Drop::ipv4_protocol, with_ip4([](Bytes& ip) { ip[9] = 17; })},
      {Drop::ipv6_truncated, ethernet(kEtherIpv6, Bytes(39, 0x60))},
      {Drop::ipv6_truncated, ethernet(kEtherIpv6, change(ip6(6, syn()), [](Bytes& ip) { ip[5] = 200; }))},
      {Drop::ipv6_version, ethernet(kEtherIpv6, change(ip6(6, syn()), [](Bytes& ip) { ip[0] = 0x40; }))},
      {Drop::ipv6_extension, ethernet(kEtherIpv6, ip6(0, Bytes{6, 99, 0, 0, 0, 0, 0, 0}))},
      {Drop::ipv6_extension, ethernet(kEtherIpv6, ip6(43, Bytes{6, 0, 0, 1, 0, 0, 0, 0}))},
      {Drop::ipv6_fragment, ethernet(kEtherIpv6, ip6(44, Bytes(8)))},
      {Drop::ipv6_not_ours, ethernet(kEtherIpv6, change(ip6(6, syn()), [](Bytes& ip) { ip[39] = 77; }))},
      {Drop::ipv6_source, ethernet(kEtherIpv6, change(ip6(6, syn()), [](Bytes& ip) { ip[8] = 0xff; }))},
      {Drop::ipv6_protocol, ethernet(kEtherIpv6, ip6(17, Bytes(8)))},
      {Drop::icmp_malformed, ethernet(kEtherIpv4, ip4(kProtocolIcmp, Bytes(7)))},
      {Drop::icmp_checksum, ethernet(kEtherIpv4, ip4(kProtocolIcmp, Bytes{8, 0, 1, 2, 0, 0, 0, 0}))},
      {Drop::icmp_ignored, ethernet(kEtherIpv4, ip4(kProtocolIcmp, Bytes{0, 0, 0xff, 0xff, 0, 0, 0, 0}))},
      {Drop::icmp_unverified, icmp6(change(Bytes(8 + 48),
                                           [&](Bytes& b) {
                                             b[0] = 2;
                                             b[8] = 0x60;
                                             b[14] = 6;
                                           }))},
      {Drop::nd_malformed, icmp6(change(Bytes(24), [](Bytes& b) { b[0] = 135; }), 64)},
      {Drop::nd_malformed, icmp6(change(Bytes(32),
                                        [&](Bytes& b) {
                                          b[0] = 135;
                                          std::memcpy(b.data() + 8, our6.bytes.data(), 16);
                                          b[24] = 1;  // an option of length zero
                                        }))},
      {Drop::nd_not_ours, icmp6(change(Bytes(24),
                                       [&](Bytes& b) {
                                         b[0] = 135;
                                         std::memcpy(b.data() + 8, peer6.bytes.data(), 16);
                                       }))},
      {Drop::tcp_truncated, ethernet(kEtherIpv4, ip4(kProtocolTcp, Bytes(19)))},
      {Drop::tcp_data_offset, with_tcp([](Bytes& s) { s[12] = 0x40; })},
      {Drop::tcp_data_offset, with_tcp([](Bytes& s) { s[12] = 0xf0; })},
      {Drop::tcp_checksum, change(tcp4(syn()), [](Bytes& f) { f.back() ^= 1; })},
      {Drop::tcp_options, with_tcp([](Bytes& s) {
         s.resize(24);
         s[12] = 0x60;
         s[20] = 2;
         s[21] = 1;
       })},
      {Drop::tcp_options, with_tcp([](Bytes& s) {
         s.resize(24);
         s[12] = 0x60;
         s[20] = s[21] = s[22] = 1;
         s[23] = 8;  // a kind, and then the header ends
       })},
      {Drop::tcp_flags, with_tcp([](Bytes& s) { s[13] = 0; })},
      {Drop::tcp_flags, with_tcp([](Bytes& s) { s[13] = kSyn | kRst; })},
      {Drop::tcp_port_zero, with_tcp([](Bytes& s) { s[0] = s[1] = 0; })},
      {Drop::tcp_no_listener, with_tcp([](Bytes& s) { s[3] = 1; })},
      {Drop::tcp_no_connection, with_tcp([](Bytes& s) { s[13] = kAck; })},
      {Drop::tcp_rst_ignored, with_tcp([](Bytes& s) { s[13] = kRst; })},
  };
  for (const auto& c : cases) {
    const uint64_t before_this = dropped(c.reason), before_all = all_drops();
    deliver(c.frame);
    const auto name = kDropNames[static_cast<size_t>(c.reason)];
    EXPECT_EQ(dropped(c.reason), before_this + 1) << name;
    EXPECT_EQ(all_drops(), before_all + 1) << name;
  }
  EXPECT_EQ(stack->stats().connections + stack->stats().half_open, 0u);
}

// RFC 826.
TEST_F(Frames, AnswersArpAndLearnsNothingFromStrangers) {
  deliver(arp(1, kPeer4, kOur4));
  ASSERT_EQ(port.sent.size(), 1u);
  EXPECT_EQ(load16(port.sent[0].data() + 20), 2);
  EXPECT_EQ(port.sent[0][22 + 5], 1);
  EXPECT_EQ(port.sent[0][5], 2);
  deliver(arp(1, kPeer4, kPeer4));
  const uint8_t other[4] = {10, 0, 0, 9};
  deliver(arp(1, kPeer4, other));
  EXPECT_EQ(port.sent.size(), 1u);
  EXPECT_EQ(dropped(Drop::arp_not_ours), 1u);
  EXPECT_EQ(stack->stats().neighbours, 0u);
}

TEST_F(Frames, ArpFloodIsAnsweredWithinALimitAndTakesNoMemory) {
  const Bytes question = arp(1, kPeer4, kOur4);
  for (int i = 0; i < 20'000; ++i) {
    now -= kMs;  // all at one moment
    deliver(question);
  }
  EXPECT_LE(port.sent.size(), 600u);
  EXPECT_GE(dropped(Drop::arp_rate), 19'000u);
  EXPECT_EQ(stack->stats().neighbours, 0u);
}

// RFC 5227 section 2.4.
TEST_F(Frames, DefendsItsAddress) {
  deliver(arp(1, kOur4, kOur4));
  ASSERT_EQ(port.sent.size(), 1u);
  EXPECT_EQ(port.sent[0][0], 0xff);
}

TEST_F(Frames, OverheardFramesAreNotAnswered) {
  deliver(arp(1, kPeer4, kOur4), true);
  deliver(icmp6(Bytes{128, 0, 0, 0, 0, 1, 0, 1}), true);
  EXPECT_TRUE(port.sent.empty());
}

// RFC 792 and 4443.
TEST_F(Frames, AnswersEcho) {
  Bytes echo = {8, 0, 0, 0, 0, 7, 0, 9, 'p', 'i', 'n', 'g'};
  Checksum sum;
  sum.add(echo.data(), echo.size());
  const uint16_t value = sum.final();
  std::memcpy(echo.data() + 2, &value, 2);
  deliver(ethernet(kEtherIpv4, ip4(kProtocolIcmp, echo)));
  ASSERT_EQ(port.sent.size(), 1u);
  Packet packet;
  ASSERT_EQ(parse_packet({.data = port.sent[0].data(), .size = static_cast<uint32_t>(port.sent[0].size())}, packet),
            kNotDropped);
  Checksum check;
  check.add(packet.body, packet.body_bytes);
  EXPECT_TRUE(check.good());
  EXPECT_EQ(packet.body[0], 0);
  EXPECT_EQ(std::memcmp(packet.body + 4, echo.data() + 4, 8), 0);
  deliver(icmp6(Bytes{128, 0, 0, 0, 0, 1, 0, 1, 'x'}, 64));
  ASSERT_EQ(port.sent.size(), 2u);
  EXPECT_EQ(port.sent[1][54], 129);
}

// RFC 4861.
TEST_F(Frames, AdvertisesItself) {
  Bytes question(32);
  question[0] = 135;
  std::memcpy(question.data() + 8, our6.bytes.data(), 16);
  question[24] = question[25] = 1;
  question[26] = 2;
  question[31] = 2;
  deliver(icmp6(question));
  ASSERT_EQ(port.sent.size(), 1u);
  EXPECT_EQ(port.sent[0][54], 136);
  EXPECT_EQ(port.sent[0][58], 0x60);  // solicited, override
}

// RFC 1122 section 3.2.2.1.
TEST_F(Frames, UnknownProtocolIsToldSo) {
  deliver(ethernet(kEtherIpv4, ip4(17, Bytes(8))));
  ASSERT_EQ(port.sent.size(), 1u);
  EXPECT_EQ(port.sent[0][14 + 20], 3);
  EXPECT_EQ(port.sent[0][14 + 21], 2);
}

// RFC 4987.
TEST_F(Frames, SynFloodTakesBoundedMemoryAndKeepsThePortOpen) {
  flood(50'000, [](Bytes frame) { return frame; });

  // Beyond the rate only who repeats himself is answered, and that he is once for each repetition.
  const Bytes latecomer = tcp4(syn(61000));
  const size_t sent = port.sent.size();
  const uint64_t cookies = stack->stats().syn_cookies_sent;
  now -= kMs;
  deliver(latecomer);
  EXPECT_EQ(port.sent.size(), sent);
  now -= kMs;
  deliver(latecomer);
  EXPECT_EQ(port.sent.size(), sent + 1);
  EXPECT_EQ(stack->stats().syn_cookies_sent, cookies + 1);
}

// RFC 9293 section 3.10.7.1: those who were connected to the broker before us all learn of it at once, also while a
// flood of SYNs is answered by cookies.
TEST_F(Frames, EveryLeftoverOfAnEarlierBrokerIsReset) {
  const auto leftovers = [&](uint32_t count) {
    const uint64_t resets = stack->stats().resets_out;
    for (uint32_t n = 0; n < count; ++n) {
      Bytes segment(60);
      segment.resize(write_header(segment.data(), {.source_port = static_cast<uint16_t>(10'000 + n),
                                                   .destination_port = 4222,
                                                   .seq = n * 1'000'003,
                                                   .ack = n * 7'919'007,
                                                   .flags = kAck,
                                                   .window = 1000,
                                                   .has_timestamp = true,
                                                   .timestamp = 5,
                                                   .timestamp_echo = n * 1'299'709}));
      now -= kMs;
      deliver(tcp4(segment));
    }
    return stack->stats().resets_out - resets;
  };
  EXPECT_EQ(leftovers(2'000), 2'000u);
  for (uint32_t n = 0; n <= options.max_half_open; ++n) {
    now -= kMs;
    deliver(tcp4(syn(static_cast<uint16_t>(1 + n))));
  }
  EXPECT_EQ(stack->stats().syn_cookies_sent, 1u);
  // But for those whose number and echo look like a late cookie's.
  EXPECT_GE(leftovers(2'000), 1'990u);
}

// RFC 6056: ports of our own by chance, out of the ephemeral range, none twice.
TEST_F(Frames, OwnPortsAreDrawnByChance) {
  std::set<uint16_t> ports;
  uint16_t previous = 0;
  int ascending = 0;
  for (int n = 0; n < 200; ++n) {
    stack->dial(IpAddress::v4(kPeer4), 4222, 1, 1000 * kMs, now);
    stack->flush(now);
    if (n == 0) deliver(arp(2, kPeer4, kOur4));
    stack->flush(now);
    ASSERT_FALSE(port.sent.empty());
    const uint16_t own = load16(port.sent.back().data() + 34);
    EXPECT_GE(own, 32768);
    EXPECT_LT(own, 61000);
    ports.insert(own);
    ascending += own > previous;
    previous = own;
  }
  EXPECT_EQ(ports.size(), 200u);
  EXPECT_GT(ascending, 50);
  EXPECT_LT(ascending, 150);
}

class TaggedFrames : public Frames {
 protected:
  TaggedFrames() : Frames(7) {}
};

// The same flood by the long way: only what is plain is seen through at first sight (prediction.cc).
TEST_F(TaggedFrames, SynFloodTakesBoundedMemoryAndKeepsThePortOpen) {
  flood(50'000, [](Bytes frame) {
    const uint8_t tag[4] = {0x81, 0, 0, 7};
    frame.insert(frame.begin() + 12, tag, tag + 4);
    return frame;
  });
}

TEST_F(TaggedFrames, OnlyItsVlanIsHeard) {
  Bytes f = arp(1, kPeer4, kOur4);
  deliver(f);
  EXPECT_EQ(dropped(Drop::vlan_mismatch), 1u);
  const uint8_t tag[4] = {0x81, 0, 0xe0, 7};  // priority 7, id 7
  f.insert(f.begin() + 12, tag, tag + 4);
  deliver(f);
  ASSERT_EQ(port.sent.size(), 1u);
  EXPECT_EQ(load16(port.sent[0].data() + 12), kEtherVlan);
  EXPECT_EQ(load16(port.sent[0].data() + 14), 7);
}

TEST(ChecksumTest, PiecesOfAnyLengthAddUp) {
  core::Random random(7);
  for (int round = 0; round < 2000; ++round) {
    Bytes bytes(random.below(300));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.next());
    uint32_t slow = 0;
    for (size_t i = 0; i < bytes.size(); i += 2) slow += bytes[i] << 8 | (i + 1 < bytes.size() ? bytes[i + 1] : 0);
    while (slow > 0xffff) slow = (slow & 0xffff) + (slow >> 16);
    Checksum sum;
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = std::min<size_t>(bytes.size() - at, 1 + random.below(40));
      sum.add(bytes.data() + at, n);
      at += n;
    }
    const uint16_t value = sum.folded();
    uint8_t stored[2];
    std::memcpy(stored, &value, 2);
    EXPECT_EQ(load16(stored), slow);
  }
}

}  // namespace
}  // namespace peregrine::net::tcp::test
