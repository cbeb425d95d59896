// Peers in the index: what reaches whom by the kind of connection a message came from, and whose interest counts.
#include <gtest/gtest.h>

#include "core/peer_session.h"
#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

using core::Message;
using core::SessionKind;
using core::Side;

// A peer that writes "<subject>[ + queues] <size>" for each message.
class Peer final : public core::PeerSession {
 public:
  Peer(core::Shard& shard, SessionKind kind, std::string_view cluster)
      : PeerSession(shard, kind, shard.server().next_cid(), UINT32_MAX, "127.0.0.1", 1),
        origin(cluster.empty() ? core::kNoOrigin : shard.server().origin_id(cluster)) {}
  void feed(std::string_view) override {}
  void on_timer() override {}
  void arm_timer() override {}
  void describe(core::ConnRow&, bool) const override {}
  bool accepts(const Message& message, const core::Subscription& sub) override {
    return message.origin_id == core::kNoOrigin || message.origin_id != sub.origin();
  }
  void message_line(std::string& to, const core::Account&, const Message& message,
                    const core::PeerTarget& target) override {
    to.append(message.subject);
    for (const std::string_view queue : target.queues) to.append(" + ").append(queue);
    to.append("\r\n");
  }
  std::string take() {
    std::string all;
    iovec iov[8];
    while (const size_t n = outbox.gather(iov, 8, 1 << 20)) {
      size_t bytes = 0;
      for (size_t i = 0; i < n; ++i) {
        all.append(static_cast<const char*>(iov[i].iov_base), iov[i].iov_len);
        bytes += iov[i].iov_len;
      }
      outbox.consume(bytes);
    }
    return all;
  }
  const core::OriginId origin;

 private:
  void on_detach() override {}
};

class Interest : public ::testing::Test {
 protected:
  Peer& peer(SessionKind kind, std::string_view cluster = {}) {
    core::Shard& shard = machine_.shard(0);
    return static_cast<Peer&>(*shard.adopt(std::make_unique<Peer>(shard, kind, cluster)));
  }
  void wants(Peer& peer, Side side, std::string_view subject, std::string_view queue = {}, uint32_t weight = 1) {
    machine_.shard(0).add_peer_interest(peer, account(), side, subject, queue, weight, peer.origin);
  }
  bool publish(std::string_view subject, SessionKind source, std::string_view origin = {}) {
    Message message;
    message.subject = subject;
    message.payload = "x";
    message.source = source;
    if (!origin.empty()) {
      message.origin = origin;
      message.origin_id = machine_.server.origin_id(origin);
    }
    return machine_.shard(0).delivery().publish(account(), message);
  }
  core::Account& account() { return machine_.shard(0).account(core::kGlobalAccount); }

  Machine machine_{1};
};

TEST_F(Interest, AMessageGoesWhereItsSourceMayReach) {
  Peer& route = peer(SessionKind::kRoute);
  Peer& leaf = peer(SessionKind::kLeaf, "edge");
  Peer& hub = peer(SessionKind::kLeaf, "center");
  wants(route, Side::kRoutes, "a");
  wants(leaf, Side::kLeafs, "a");
  wants(hub, Side::kHubs, "a");
  const auto reached = [&](SessionKind source) {
    publish("a", source);
    return std::string(route.take().empty() ? "" : "route ") + (leaf.take().empty() ? "" : "leaf ") +
           (hub.take().empty() ? "" : "hub ");
  };
  EXPECT_EQ(reached(SessionKind::kClient), "route leaf hub ");
  EXPECT_EQ(reached(SessionKind::kRoute), "leaf ");
  EXPECT_EQ(reached(SessionKind::kLeaf), "route leaf hub ");
  EXPECT_EQ(reached(SessionKind::kHub), "leaf hub ");
  EXPECT_EQ(reached(SessionKind::kGateway), "route leaf hub ");
}

TEST_F(Interest, NothingGoesBackToItsOrigin) {
  Peer& one = peer(SessionKind::kLeaf, "edge");
  Peer& other = peer(SessionKind::kLeaf, "border");
  wants(one, Side::kLeafs, "a");
  wants(other, Side::kLeafs, "a");
  EXPECT_TRUE(publish("a", SessionKind::kLeaf, "edge"));
  EXPECT_EQ(one.take(), "");
  EXPECT_NE(other.take(), "");
}

TEST_F(Interest, AnOriginsOwnInterestDoesNotCount) {
  Peer& one = peer(SessionKind::kLeaf, "edge");
  Peer& two = peer(SessionKind::kLeaf, "edge");
  Peer& other = peer(SessionKind::kLeaf, "border");
  wants(one, Side::kLeafs, "a");
  wants(one, Side::kLeafs, "a", "q", 3);
  wants(other, Side::kLeafs, "a", "q", 4);
  EXPECT_EQ(account().interest(core::kAllSides, "a", "", &two), 1u);
  EXPECT_EQ(account().interest(core::kAllSides, "a", "", &two, two.origin), 0u);
  EXPECT_EQ(account().interest(core::kAllSides, "a", "", &other, other.origin), 1u);
  EXPECT_EQ(account().interest(core::kAllSides, "a", "q", &two), 7u);
  EXPECT_EQ(account().interest(core::kAllSides, "a", "q", &two, two.origin), 4u);
  EXPECT_EQ(account().interest(core::kAllSides, "a", "q", &other, other.origin), 3u);
}

TEST_F(Interest, OneRouteSpeaksForSeveralOrigins) {
  Peer& route = peer(SessionKind::kRoute);
  core::Shard& shard = machine_.shard(0);
  const core::OriginId edge = machine_.server.origin_id("edge"), border = machine_.server.origin_id("border");
  shard.add_peer_interest(route, account(), Side::kRoutedLeafs, "a", "q", 2, edge);
  shard.add_peer_interest(route, account(), Side::kRoutedLeafs, "a", "q", 3, border);
  EXPECT_EQ(account().interest(core::kAllSides, "a", "q", nullptr), 5u);
  shard.add_peer_interest(route, account(), Side::kRoutedLeafs, "a", "q", 7, edge);
  EXPECT_EQ(account().interest(core::kAllSides, "a", "q", nullptr, edge), 3u);
  EXPECT_EQ(account().interest(core::kAllSides, "a", "q", nullptr, border), 7u);
  EXPECT_TRUE(shard.remove_peer_interest(route, account(), Side::kRoutedLeafs, "a", "q", edge));
  EXPECT_FALSE(shard.remove_peer_interest(route, account(), Side::kRoutedLeafs, "a", "q", edge));
  EXPECT_EQ(account().interest(core::kAllSides, "a", "q", nullptr), 3u);
}

TEST_F(Interest, QueuesPreferOurOwnMembers) {
  Client& client = machine_.connect(0);
  client.send("SUB a q 1\r\n");
  machine_.settle();
  Peer& leaf = peer(SessionKind::kLeaf, "edge");
  Peer& hub = peer(SessionKind::kLeaf, "center");
  wants(leaf, Side::kLeafs, "a", "q", 1000);
  wants(hub, Side::kHubs, "a", "q", 1000);
  for (int n = 0; n < 50; ++n) publish("a", SessionKind::kClient);
  machine_.turn(0);
  EXPECT_EQ(leaf.take() + hub.take(), "");
  EXPECT_EQ(client.take().size(), 50 * std::string_view("MSG a 1 1\r\nx\r\n").size());
  machine_.hang_up(client);
  machine_.settle();
  for (int n = 0; n < 50; ++n) publish("a", SessionKind::kClient);
  EXPECT_NE(leaf.take(), "");
  EXPECT_NE(hub.take(), "");
}

}  // namespace
}  // namespace peregrine::test
