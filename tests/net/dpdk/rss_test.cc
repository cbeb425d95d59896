// The Toeplitz hash against the numbers Microsoft published with it, and how the formula is trusted or given up.
#include "net/dpdk/rss.h"

#include <gtest/gtest.h>

namespace peregrine::net::dpdk {
namespace {

// "Verifying the RSS hash calculation": the key and the TCP rows of its tables.
const std::vector<uint8_t> kKey = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
                                   0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
                                   0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

tcp::Flow flow(const std::string& remote, uint16_t remote_port, const std::string& local, uint16_t local_port) {
  tcp::Flow flow;
  EXPECT_TRUE(tcp::IpAddress::parse(remote, flow.remote));
  EXPECT_TRUE(tcp::IpAddress::parse(local, flow.local));
  flow.remote_port = remote_port;
  flow.local_port = local_port;
  return flow;
}

std::vector<uint16_t> table(uint16_t size, uint16_t queues) {
  std::vector<uint16_t> reta(size);
  for (uint16_t n = 0; n < size; ++n) reta[n] = static_cast<uint16_t>(n % queues);
  return reta;
}

TEST(Rss, PublishedHashes) {
  Rss rss;
  rss.set(kKey, table(128, 4));
  EXPECT_EQ(rss.hash(flow("66.9.149.187", 2794, "161.142.100.80", 1766)), 0x51ccc178u);
  EXPECT_EQ(rss.hash(flow("199.92.111.2", 14230, "65.69.140.83", 4739)), 0xc626b0eau);
  EXPECT_EQ(rss.hash(flow("24.19.198.95", 12898, "12.22.207.184", 38024)), 0x5c2b394au);
  EXPECT_EQ(rss.hash(flow("38.27.205.30", 48228, "209.142.163.6", 2217)), 0xafc7327fu);
  EXPECT_EQ(rss.hash(flow("153.39.163.191", 44251, "202.188.127.2", 1303)), 0x10e828a2u);
  EXPECT_EQ(rss.hash(flow("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766)), 0x40207d3du);
  EXPECT_EQ(rss.hash(flow("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739)), 0xdde51bbfu);
  EXPECT_EQ(rss.hash(flow("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024)),
            0x02d1feefu);
}

TEST(Rss, IsProvenByFramesThatAgree) {
  Rss rss;
  EXPECT_EQ(rss.state(), Rss::State::kNone);
  rss.set(kKey, table(128, 4));
  EXPECT_EQ(rss.state(), Rss::State::kUnproven);
  for (uint32_t n = 0; n < Rss::kProof; ++n) {
    const tcp::Flow f = flow("10.0.0.1", static_cast<uint16_t>(1000 + n), "10.0.0.2", 4222);
    const uint32_t hash = rss.hash(f);
    rss.observe(f, rss.queue_of(f), n % 2 == 0 ? &hash : nullptr);
  }
  EXPECT_EQ(rss.state(), Rss::State::kProven);
}

TEST(Rss, IsRefutedByAnotherQueueOrHash) {
  for (const bool wrong_queue : {true, false}) {
    Rss rss;
    rss.set(kKey, table(128, 4));
    for (uint16_t n = 0; n < 8; ++n) {
      const tcp::Flow f = flow("10.0.0.1", static_cast<uint16_t>(1000 + n), "10.0.0.2", 4222);
      const uint32_t hash = wrong_queue ? rss.hash(f) : rss.hash(f) ^ 1;
      const uint16_t queue = rss.queue_of(f);
      rss.observe(f, static_cast<uint16_t>(wrong_queue ? (queue + 1) % 4 : queue), &hash);
    }
    EXPECT_EQ(rss.state(), Rss::State::kRefuted);
  }
}

TEST(Rss, WithoutKeyOrTableThereIsNothingToTrust) {
  Rss rss;
  rss.set({1, 2, 3}, table(128, 4));
  EXPECT_EQ(rss.state(), Rss::State::kNone);
  rss.set(kKey, {});
  EXPECT_EQ(rss.state(), Rss::State::kNone);
}

}  // namespace
}  // namespace peregrine::net::dpdk
