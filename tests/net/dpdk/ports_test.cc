// DPDK itself, without huge pages and without a NIC: the environment, devices, the rings between shards. DPDK starts
// once in a process, so all tests share it.
#include "net/dpdk/ports.h"
#include "net/dpdk/report.h"

#include <gtest/gtest.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <mutex>
#include <thread>

// What DPDK and its drivers take while they start is theirs for the life of the process.
extern "C" const char* __lsan_default_suppressions() { return "leak:librte_\nleak:libdl\nleak:rte_eal_init\n"; }

namespace peregrine::net::dpdk {
namespace {

class Lines final : public core::Log {
 public:
  void write(core::LogLevel, std::string_view text) override {
    std::lock_guard lock(mutex_);
    text_ += std::string(text) + "\n";
  }
  std::string take() {
    std::lock_guard lock(mutex_);
    return std::exchange(text_, "");
  }

 private:
  std::mutex mutex_;
  std::string text_;
};

Lines& lines() {
  static Lines all;
  return all;
}

config::Dpdk options() {
  config::Dpdk options;
  options.huge_pages = false;
  options.memory = int64_t{256} << 20;
  options.telemetry = false;
  options.defined = true;
  return options;
}

std::string printed;  // what came to stdout and stderr while DPDK started

Eal& eal() {
  static Eal* const only = [] {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    auto started = Eal::start(options(), lines());
    printed = testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr();
    EXPECT_TRUE(started.has_value()) << (started ? "" : started.error());
    return started ? started->release() : nullptr;
  }();
  return *only;
}

config::DpdkPort port(const std::string& device) {
  config::DpdkPort port;
  port.device = device;
  port.addresses = {"10.0.0.2/24", "fd00::2/64"};
  return port;
}

DevicePlan plan(uint32_t shards) {
  DevicePlan plan;
  plan.shards = shards;
  plan.private_bytes = Lane::private_bytes();
  return plan;
}

std::unique_ptr<Device> open(const config::DpdkPort& port, const DevicePlan& plan, std::string& error) {
  const auto number = eal().attach(port);
  error = number ? "" : number.error();
  if (!number) return nullptr;
  auto device = Device::open(*number, port, plan);
  error = device ? "" : device.error();
  return device ? std::move(*device) : nullptr;
}

TEST(Dpdk, StartsSilentlyAndOnce) {
  eal();
  EXPECT_EQ(printed, "");
  const auto again = Eal::start(options(), lines());
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error(), "DPDK can be started once in a process only");
}

TEST(Dpdk, DevicesThatCannotBeHad) {
  eal();  // captures what is printed itself, when it is the first
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  std::string error;
  EXPECT_EQ(open(port("net_nonsense0"), plan(1), error), nullptr);
  EXPECT_EQ(error, "port net_nonsense0: DPDK has no driver net_nonsense; is its package (librte-net-...) installed?");
  EXPECT_EQ(open(port("net_af_packet0,iface=no-such-one"), plan(1), error), nullptr);
  EXPECT_EQ(error,
            "port net_af_packet0,iface=no-such-one: there is no interface no-such-one; `ip link` lists what there is");
  EXPECT_EQ(open(port("net_null0,size=word"), plan(1), error), nullptr);
  EXPECT_EQ(error.substr(0, 26), "port net_null0,size=word: ");
  EXPECT_EQ(testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr(), "");
}

TEST(Dpdk, AQueuePerShard) {
  std::string error;
  const auto device = open(port("net_ring0"), plan(3), error);
  ASSERT_NE(device, nullptr) << error;
  EXPECT_EQ(device->rx_queues(), 3);
  EXPECT_EQ(device->tx_queues(), 3);
  EXPECT_TRUE(device->has_rx(2));
  // Rings know nothing of connections, so the queue says nothing about them.
  EXPECT_TRUE(device->software_spread());
  EXPECT_TRUE(device->multi_segment());
  EXPECT_FALSE(device->dma());
  EXPECT_FALSE(device->interrupts());
  EXPECT_TRUE(device->link_up());
  EXPECT_EQ(device->describe().substr(0, 11), "net_ring0: ");
  EXPECT_NE(device->describe().find("10.0.0.2/24 fd00::2/64, mtu 1500, 3 queues for 3 shards, spread by software"),
            std::string::npos)
      << device->describe();
}

TEST(Dpdk, FewerQueuesThanShards) {
  config::DpdkPort one = port("net_ring1");
  one.queues = 1;
  std::string error;
  const auto device = open(one, plan(2), error);
  ASSERT_NE(device, nullptr) << error;
  EXPECT_TRUE(device->software_spread());
  EXPECT_FALSE(device->has_rx(1));
  EXPECT_FALSE(device->has_tx(1));
}

TEST(Dpdk, WhatADeviceCannotDoIsSaid) {
  std::string error;
  config::DpdkPort greedy = port("net_ring2");
  greedy.queues = 2;
  EXPECT_EQ(open(greedy, plan(1), error), nullptr);
  EXPECT_EQ(error, "port net_ring2: queues: 2 but there are only 1 shard; set queues: auto or more shards");

  greedy = port("net_ring3");
  greedy.queues = 100;
  EXPECT_EQ(open(greedy, plan(100), error), nullptr);
  EXPECT_EQ(error, "port net_ring3: has 16 queues, not 100; set queues: auto");

  config::DpdkPort hard = port("net_ring4");
  hard.spread = config::DpdkSpread::kHardware;
  EXPECT_EQ(open(hard, plan(2), error), nullptr);
  EXPECT_EQ(
      error,
      "port net_ring4: spread: hardware, but the device does not keep a connection on its queue; set spread: auto");
  hard = port("net_ring5");
  hard.spread = config::DpdkSpread::kHardware;
  hard.queues = 1;
  EXPECT_EQ(open(hard, plan(2), error), nullptr);
  EXPECT_EQ(error,
            "port net_ring5: spread: hardware needs a queue per shard, and there are 1 queue for 2 shards; set spread: "
            "auto");

  DevicePlan interrupts = plan(1);
  interrupts.interrupts = interrupts.interrupts_required = true;
  EXPECT_EQ(open(port("net_ring6"), interrupts, error), nullptr);
  EXPECT_EQ(error, "port net_ring6: has no receive interrupts; set dpdk.idle: adaptive or spin");

  config::DpdkPort large = port("net_ring7");
  large.rx_descriptors = 32768;
  large.mtu = 9000;
  EXPECT_EQ(open(large, plan(1), error), nullptr);
  EXPECT_NE(error.find("; set dpdk.memory higher"), std::string::npos) << error;
}

TEST(Dpdk, FramesCrossFromShardToShard) {
  eal();
  std::string error;
  Exchange exchange(3, 1, {1}, error);
  ASSERT_EQ(error, "");
  rte_mempool* const pool = rte_pktmbuf_pool_create("crossing", 4095, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
  ASSERT_NE(pool, nullptr);

  rte_mbuf* const heard = rte_pktmbuf_alloc(pool);
  rte_mbuf* const plain = rte_pktmbuf_alloc(pool);
  void* given[] = {Exchange::mark(heard, true), Exchange::mark(plain, false)};
  EXPECT_FALSE(exchange.anything_for(2));
  EXPECT_EQ(exchange.give_received(0, 2, given, 2), 2u);
  EXPECT_TRUE(exchange.anything_for(2));
  EXPECT_FALSE(exchange.anything_for(1));
  void* taken[8];
  ASSERT_EQ(exchange.take_received(2, taken, 8), 2u);
  bool overheard = false;
  EXPECT_EQ(Exchange::unmark(taken[0], overheard), heard);
  EXPECT_TRUE(overheard);
  EXPECT_EQ(Exchange::unmark(taken[1], overheard), plain);
  EXPECT_FALSE(overheard);
  EXPECT_EQ(exchange.take_received(2, taken, 8), 0u);

  // A full ring takes what fits, and says how much that was.
  std::vector<void*> many;
  for (int n = 0; n < 1500; ++n) many.push_back(rte_pktmbuf_alloc(pool));
  const uint32_t fit = exchange.give_received(0, 1, many.data(), 1500);
  EXPECT_EQ(fit, 1023u);
  for (size_t n = fit; n < many.size(); ++n) rte_pktmbuf_free(static_cast<rte_mbuf*>(many[n]));

  // Shards 1 and 2 send through shard 0.
  EXPECT_EQ(exchange.sender_for(0, 2), 0u);
  rte_mbuf* sent[] = {heard, plain};
  EXPECT_EQ(exchange.give_to_send(0, 1, &sent[0], 1), 1u);
  EXPECT_EQ(exchange.give_to_send(0, 2, &sent[1], 1), 1u);
  EXPECT_TRUE(exchange.anything_for(0));
  rte_mbuf* out[8];
  EXPECT_EQ(exchange.take_to_send(0, 0, out, 8), 2u);
  EXPECT_EQ(out[0], heard);
  EXPECT_EQ(out[1], plain);
  EXPECT_FALSE(exchange.anything_for(0));
  EXPECT_EQ(rte_mempool_in_use_count(pool), 1023u + 2);
  rte_pktmbuf_free(heard);
  rte_pktmbuf_free(plain);
}

TEST(DpdkReport, LossesAreToldAtOnceAndThenOnceInAWhile) {
  Report report;
  LaneStats lane;
  tcp::Stats stack;
  EXPECT_EQ(report.losses(0, lane, stack), "");
  lane.no_mbuf = 3;
  EXPECT_EQ(report.losses(1, lane, stack), "no_mbuf 3");
  EXPECT_EQ(report.losses(2, lane, stack), "");
  lane.no_mbuf = 5;
  stack.drops[static_cast<size_t>(tcp::Drop::tcp_syn_rate)] = 7;
  EXPECT_EQ(report.losses(3, lane, stack), "tcp_syn_rate 7");
  EXPECT_EQ(report.losses(Report::kEveryNs, lane, stack), "");
  EXPECT_EQ(report.losses(3 + Report::kEveryNs, lane, stack), "no_mbuf 2");
  stack.drops[static_cast<size_t>(tcp::Drop::ethertype_unknown)] = 1;  // a neighbour's business
  EXPECT_EQ(report.losses(9 * Report::kEveryNs, lane, stack), "");
  EXPECT_EQ(Report::sums(stack).substr(0, 33), "0 frames in, 0 out, 8 refused; 0 ");
}

TEST(Dpdk, ABellWakesASleeper) {
  int error = 0;
  Doorbell bell(error);
  ASSERT_EQ(error, 0);
  // Rung while awake: the sleeper does not fall asleep.
  bell.ring();
  bell.will_sleep();
  EXPECT_TRUE(bell.rung());
  bell.awake();
  // Nobody rang: the next sleep would be one.
  bell.will_sleep();
  EXPECT_FALSE(bell.rung());
  std::thread waker([&] { bell.ring_if_asleep(); });
  uint64_t count = 0;
  fd_set set;
  FD_ZERO(&set);
  FD_SET(bell.fd(), &set);
  EXPECT_EQ(select(bell.fd() + 1, &set, nullptr, nullptr, nullptr), 1);
  waker.join();
  EXPECT_TRUE(bell.rung());
  bell.awake();
  EXPECT_LT(read(bell.fd(), &count, sizeof(count)), 0) << "the bell still rings";
  bell.ring_if_asleep();
  EXPECT_FALSE(bell.rung()) << "awake, so nothing was to be done";
}

}  // namespace
}  // namespace peregrine::net::dpdk
