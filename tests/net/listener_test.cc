#include "net/listener.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/socket.h"

namespace peregrine::net {
namespace {

class ListenerTest : public ::testing::Test {
 protected:
  Listeners open(const std::string& host, int port, int count) {
    auto listeners = open_listeners(host, port, count);
    EXPECT_TRUE(listeners) << listeners.error();
    if (!listeners) return {};
    for (const int fd : listeners->fds) fds_.emplace_back(fd);
    return *listeners;
  }
  std::string refused(const std::string& host, int port, int count) {
    auto listeners = open_listeners(host, port, count);
    if (!listeners) return listeners.error();
    for (const int fd : listeners->fds) fds_.emplace_back(fd);
    return "opened";
  }
  std::vector<Fd> fds_;
};

TEST_F(ListenerTest, RandomPortIsSharedByAll) {
  for (const int port : {0, -1}) {
    const Listeners listeners = open("127.0.0.1", port, 3);
    ASSERT_EQ(listeners.fds.size(), 3u);
    EXPECT_GT(listeners.port, 0);
    for (const int fd : listeners.fds) EXPECT_EQ(SocketAddress::local_of(fd).port(), listeners.port);
  }
}

// A second broker on the port fails whatever the shard counts of the two, though both use SO_REUSEPORT for their
// shards.
TEST_F(ListenerTest, SecondOwnerOfThePortIsRefused) {
  for (const int first : {1, 4}) {
    for (const char* host : {"127.0.0.1", "0.0.0.0", "::1"}) {
      const Listeners listeners = open(host, -1, first);
      for (const int second : {1, 4}) {
        EXPECT_EQ(refused(host, listeners.port, second),
                  "listen tcp " + host_and_port(host, listeners.port) + ": bind: address already in use");
      }
    }
  }
}

TEST_F(ListenerTest, TakesThePortAgainAfterARun) {
  Listeners listeners = open("127.0.0.1", -1, 2);
  const int port = listeners.port;
  // A connection closed by us first stays behind in TIME_WAIT.
  const auto address = SocketAddress::parse({"127.0.0.1", static_cast<uint16_t>(port)});
  Fd peer(socket(AF_INET, SOCK_STREAM, 0));
  ASSERT_EQ(connect(peer.get(), address->data(), address->size()), 0);
  for (const int fd : listeners.fds) Fd(accept(fd, nullptr, nullptr)).reset();
  peer.reset();
  fds_.clear();
  EXPECT_EQ(open("127.0.0.1", port, 2).port, port);
}

TEST_F(ListenerTest, EveryAddressMeansBothFamilies) {
  for (const char* host : {"", "0.0.0.0", "::"}) {
    const Listeners listeners = open(host, -1, 1);
    for (const char* peer : {"127.0.0.1", "::1"}) {
      const auto address = SocketAddress::parse({peer, static_cast<uint16_t>(listeners.port)});
      const Fd fd(socket(address->family(), SOCK_STREAM, 0));
      EXPECT_EQ(connect(fd.get(), address->data(), address->size()), 0) << host << " from " << peer;
    }
  }
}

TEST_F(ListenerTest, NamesAreResolvedIpv4First) {
  const Listeners listeners = open("localhost", -1, 1);
  EXPECT_EQ(SocketAddress::local_of(listeners.fds.at(0)).numeric().host, "127.0.0.1");
}

TEST_F(ListenerTest, ErrorsReadLikeNatsServers) {
  EXPECT_EQ(refused("192.0.2.1", 4222, 1), "listen tcp 192.0.2.1:4222: bind: cannot assign requested address");
  EXPECT_EQ(refused("no-such-host.invalid", 4222, 1).substr(0, 41), "listen tcp: lookup no-such-host.invalid: ");
  EXPECT_EQ(refused("127.0.0.1", 70000, 1), "listen tcp: address 70000: invalid port");
}

TEST_F(ListenerTest, AcceptedConnectionsInheritTheOptions) {
  const Listeners listeners = open("127.0.0.1", -1, 1);
  const auto address = SocketAddress::parse({"127.0.0.1", static_cast<uint16_t>(listeners.port)});
  const Fd peer(socket(AF_INET, SOCK_STREAM, 0));
  ASSERT_EQ(connect(peer.get(), address->data(), address->size()), 0);
  const Fd ours(accept(listeners.fds[0], nullptr, nullptr));
  const auto option = [&](int level, int name) {
    int value = -1;
    socklen_t size = sizeof(value);
    getsockopt(ours.get(), level, name, &value, &size);
    return value;
  };
  EXPECT_EQ(option(IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(option(SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(option(IPPROTO_TCP, TCP_KEEPIDLE), 15);
}

TEST(SocketTest, AddressesAreNumericBothWays) {
  for (const char* host : {"127.0.0.1", "10.1.2.3", "::1", "2001:db8::17"}) {
    const auto address = SocketAddress::parse({host, 4222});
    ASSERT_TRUE(address) << host;
    EXPECT_EQ(address->numeric().host, host);
    EXPECT_EQ(address->numeric().port, 4222);
  }
  EXPECT_EQ(SocketAddress::parse({"::ffff:10.1.2.3", 1})->numeric().host, "10.1.2.3");
  EXPECT_TRUE(SocketAddress::parse({"::ffff:127.0.0.1", 1})->loopback());
  EXPECT_FALSE(SocketAddress::parse({"10.0.0.1", 1})->loopback());
  for (const char* host : {"", "localhost", "1.2.3", "[::1]", "::1%no-such-link", "256.1.1.1"}) {
    EXPECT_FALSE(SocketAddress::parse({host, 4222})) << host;
  }
  EXPECT_EQ(host_and_port("::1", 4222), "[::1]:4222");
  EXPECT_EQ(errno_text(-EADDRINUSE), "address already in use");
}

}  // namespace
}  // namespace peregrine::net
