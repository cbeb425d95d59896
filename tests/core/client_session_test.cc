// Sessions with time in the test's hands: pings, timeouts, slow consumers, lame duck. What can be said over a socket is
// in tests/conversation.
#include <gtest/gtest.h>

#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

TEST(ClientSession, FirstPingComesAfterTwoSecondsAndJitter) {
  Machine machine(1);
  Client& client = machine.connect(0);
  machine.pass(2 * kSecond - 1);
  machine.turn(0);
  EXPECT_EQ(client.take(), "");
  machine.pass(kSecond / 2);
  machine.turn(0);
  EXPECT_EQ(client.take(), "PING\r\n");
  machine.pass(5'000'000);
  client.send("PONG\r\n");
  machine.turn(0);
  core::ConnRow row;
  client.session->describe(row, false);
  EXPECT_EQ(row.rtt_ns, 5'000'000);
}

TEST(ClientSession, SilentClientIsStaleAfterPingMax) {
  Machine machine(1);
  Client& client = machine.connect(0);
  std::string heard;
  for (int n = 0; n < 600 && !client.closed; ++n) {
    machine.pass(kSecond);
    machine.turn(0);
    heard += client.take();
  }
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(heard, "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
}

TEST(ClientSession, ActiveClientIsNotPinged) {
  Machine machine(1);
  Client& client = machine.connect(0);
  machine.pass(3 * kSecond);
  machine.turn(0);
  client.take();
  client.send("PONG\r\n");
  for (int n = 0; n < 10; ++n) {
    machine.pass(60 * kSecond);
    client.send("PUB x 0\r\n\r\n");
    machine.turn(0);
  }
  EXPECT_EQ(client.take(), "");
}

TEST(ClientSession, AuthenticationTimeout) {
  config::Options options;
  options.authorization.user = "a";
  options.authorization.password = "b";
  Machine machine(1, options);
  Client& client = machine.connect(0, "");
  client.send("CONN");
  machine.turn(0);
  machine.pass(2 * kSecond + 2'000'000);
  machine.turn(0);
  machine.turn(0);
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(client.take(), "-ERR 'Authentication Timeout'\r\n");
}

TEST(ClientSession, InputBehindABcryptConnectWaits) {
  config::Options options;
  options.authorization.token =
      "$2a$04$LOMCrUwStLWZLkSyu8KpYeXMaz9B3tIkpW/q.j9gZHHDGPZ.3VVnW";  // not "x": must be refused
  Machine machine(1, options);
  Client& client = machine.connect(0, "");
  client.send("CONNECT {\"verbose\":false,\"auth_token\":\"x\"}\r\nPING\r\n");
  machine.turn(0);
  machine.turn(0);
  EXPECT_EQ(client.take(), "-ERR 'Authorization Violation'\r\n");
  EXPECT_TRUE(client.closed);
}

TEST(ClientSession, SlowConsumerIsCutAndCounted) {
  config::Options options;
  options.max_pending = 100'000;
  Machine machine(1, options);
  Client& reader = machine.connect(0);
  Client& publisher = machine.connect(0);
  reader.send("SUB x 1\r\n");
  machine.settle();
  reader.reads = false;
  const std::string message = "PUB x 1000\r\n" + std::string(1000, 'x') + "\r\n";
  for (int n = 0; n < 200 && !reader.closed; ++n) {
    publisher.send(message);
    machine.turn(0);
    machine.pass(10'000'000);  // a stalled publisher is read again
  }
  EXPECT_TRUE(reader.closed);
  EXPECT_FALSE(publisher.closed);
  EXPECT_EQ(machine.shard(0).snapshot().slow_consumers.clients, 1u);
  EXPECT_GT(machine.shard(0).snapshot().stalled_clients, 0u);
  EXPECT_EQ(machine.shard(0).closed_rows().back().reason, "Slow Consumer (Pending Bytes)");
  machine.settle();
  EXPECT_EQ(machine.shard(0).pool().bytes_in_use(), 0u);
}

TEST(ClientSession, ReaderThatTakesNothingMissesTheWriteDeadline) {
  Machine machine(1);
  Client& reader = machine.connect(0);
  Client& publisher = machine.connect(0);
  reader.send("SUB x 1\r\n");
  machine.settle();
  reader.reads = false;
  publisher.send("PUB x 1\r\nx\r\n");
  machine.turn(0);
  reader.session->output_waits();  // what the reactor says when the socket takes nothing
  for (int n = 0; n < 12 && !reader.closed; ++n) {
    machine.pass(kSecond);
    machine.turn(0);
  }
  machine.turn(0);
  EXPECT_TRUE(reader.closed);
  EXPECT_EQ(machine.shard(0).closed_rows().back().reason, "Slow Consumer (Write Deadline)");
}

TEST(ClientSession, LameDuckClosesOneByOne) {
  Machine machine(1);
  std::vector<Client*> clients;
  for (int n = 0; n < 10; ++n) clients.push_back(&machine.connect(0));
  machine.shard(0).post([](core::Shard& shard) {
    shard.begin_lame_duck(10 * kSecond);
    return true;
  });
  int most_at_once = 0, closed = 0;
  for (int n = 0; n < 1200; ++n) {
    machine.turn(0);
    int now = 0;
    for (Client* client : clients) now += client->closed ? 1 : 0;
    most_at_once = std::max(most_at_once, now - closed);
    closed = now;
    machine.pass(kSecond / 100);
  }
  EXPECT_EQ(closed, 10);
  EXPECT_EQ(most_at_once, 1);
}

TEST(ClientSession, AutoUnsubscribeCountsWhatCameBefore) {
  Machine machine(2);
  Client& reader = machine.connect(0);
  Client& publisher = machine.connect(1);
  reader.send("SUB x 1\r\n");
  machine.settle();
  publisher.send("PUB x 0\r\n\r\nPUB x 0\r\n\r\n");
  machine.settle();
  reader.send("UNSUB 1 3\r\n");
  machine.settle();
  publisher.send("PUB x 0\r\n\r\nPUB x 0\r\n\r\nPUB x 0\r\n\r\n");
  machine.settle();
  EXPECT_EQ(reader.take(), "MSG x 1 0\r\n\r\nMSG x 1 0\r\n\r\nMSG x 1 0\r\n\r\n");
  EXPECT_EQ(machine.shard(0).account(0).sublist.stats().num_subscriptions, 0u);
}

TEST(ClientSession, WarmPublishingAllocatesNoChunks) {
  Machine machine(1);
  Client& reader = machine.connect(0);
  Client& publisher = machine.connect(0);
  reader.send("SUB x 1\r\n");
  machine.settle();
  for (int n = 0; n < 100; ++n) {
    publisher.send("PUB x 3\r\nabc\r\n");
    machine.turn(0);
  }
  EXPECT_EQ(machine.shard(0).pool().bytes_in_use(), 0u);
  EXPECT_EQ(reader.take().size(), 100 * std::string_view("MSG x 1 3\r\nabc\r\n").size());
}

}  // namespace
}  // namespace peregrine::test
