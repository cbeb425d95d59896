// 503 over several shards: a requester is told that nobody is there, also when its own shard thought that somebody was.
#include <gtest/gtest.h>

#include "core/inquiries.h"
#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

constexpr std::string_view kNobody = "HMSG in 9 35 35\r\nNATS/1.0 503\r\nNats-Subject: svc\r\n\r\n\r\n";

// A requester on shard 0 whose request is on its way (shard 0 has drained its rings) when responders elsewhere leave.
class Race {
 public:
  explicit Race(uint32_t shards, std::string_view connect = "") : machine(shards) {
    requester = connect.empty() ? &machine.connect(0) : &machine.connect(0, connect);
    requester->send("SUB in 9\r\n");
    machine.settle();
  }
  Client& responder(uint32_t shard, std::string_view text) {
    Client& client = machine.connect(shard);
    client.send(text);
    machine.settle();
    return client;
  }
  // The request, and `meanwhile` on other shards before it arrives there.
  template <class Meanwhile>
  void ask(Meanwhile&& meanwhile, int requests = 1) {
    for (int n = 0; n < requests; ++n) requester->send("PUB svc in 0\r\n\r\n");
    machine.acquire(0);
    machine.drain(0);
    meanwhile();
    machine.think(0);
    machine.finish(0);
    machine.flush(0);
    machine.settle();
  }
  void leave(Client& client, std::string_view text = "UNSUB 1\r\n") {
    client.send(text);
    machine.turn(client.shard);
  }

  // The same before its shard looks at what has come from the others.
  void leave_unaware(Client& client, std::string_view text = "UNSUB 1\r\n") {
    client.send(text);
    machine.acquire(client.shard);
    machine.think(client.shard);
    machine.finish(client.shard);
  }

  Machine machine;
  Client* requester;
};

TEST(NoResponders, OneShardThatWasThoughtInterested) {
  Race race(2);
  Client& gone = race.responder(1, "SUB svc 1\r\n");
  race.ask([&] { race.leave(gone); });
  EXPECT_EQ(race.requester->take(), kNobody);
}

TEST(NoResponders, SeveralShardsThatWereThoughtInterested) {
  Race race(4);
  Client& one = race.responder(1, "SUB svc 1\r\n");
  Client& two = race.responder(2, "SUB svc 1\r\nSUB other 2\r\n");
  Client& three = race.responder(3, "SUB * 1\r\n");
  race.ask([&] {
    race.leave(one);
    race.leave(two, "UNSUB 1\r\n");
    race.leave(three);
  });
  EXPECT_EQ(race.requester->take(), kNobody);
}

TEST(NoResponders, OneThatIsStillThereIsEnough) {
  Race race(4);
  Client& one = race.responder(1, "SUB svc 1\r\n");
  Client& two = race.responder(2, "SUB svc 1\r\n");
  Client& three = race.responder(3, "SUB svc 1\r\n");
  race.ask([&] {
    race.leave(one);
    race.leave(three);
  });
  EXPECT_EQ(race.requester->take(), "");
  EXPECT_EQ(two.take(), "MSG svc 1 in 0\r\n\r\n");
  // That request is never answered by all; the next ones are counted apart from it.
  one.send("SUB svc 1\r\n");
  race.machine.settle();
  race.ask(
      [&] {
        race.leave(one);
        race.leave(two);
      },
      3);
  EXPECT_EQ(race.requester->take(), std::string(kNobody) + std::string(kNobody) + std::string(kNobody));
}

// The member picked has gone, the pick is made again, and then that member has gone, too.
TEST(NoResponders, PicksMadeAgainEndSomewhere) {
  Race race(3);
  Client& one = race.responder(1, "");
  Client& two = race.responder(2, "");
  for (int round = 0; round < 20; ++round) {
    one.send("SUB svc q 1\r\n");
    two.send("SUB svc q 1\r\n");
    race.machine.settle();
    race.requester->send("PUB svc in 0\r\n\r\n");
    race.machine.turn(0);
    race.leave_unaware(one);
    race.machine.turn(1);  // if the record is here, the pick is made again: shard 2 has one
    race.leave_unaware(two);
    race.machine.settle();
    EXPECT_EQ(one.take() + two.take(), "");
    EXPECT_EQ(race.requester->take(), kNobody);
  }
  EXPECT_GT(race.machine.shard(1).snapshot().rings.repicks, 0u);
}

// The pick is made again on the requester's own shard: where it asks itself.
TEST(NoResponders, PicksMadeAgainAtHome) {
  Race race(2);
  Client& here = race.responder(0, "SUB svc q 1\r\n");
  Client& there = race.responder(1, "SUB svc q 1\r\nSUB svc q 2\r\nSUB svc q 3\r\nSUB svc q 4\r\n");
  int told = 0, asked = 0;
  for (int round = 0; round < 40 && told == 0; ++round) {
    race.requester->send("PUB svc in 0\r\n\r\n");
    race.machine.turn(0);  // four times of five the pick is on shard 1
    ++asked;
    // The members there go before the record comes; the one here goes before the pick made again comes home.
    race.leave_unaware(there, "UNSUB 1\r\nUNSUB 2\r\nUNSUB 3\r\nUNSUB 4\r\n");
    race.machine.turn(1);
    race.leave_unaware(here);
    race.machine.settle();
    const std::string got = race.requester->take();
    if (here.take().empty()) {
      EXPECT_EQ(got, kNobody);
      ++told;
    } else {
      EXPECT_EQ(got, "");
    }
    here.send("SUB svc q 1\r\n");
    there.send("SUB svc q 1\r\nSUB svc q 2\r\nSUB svc q 3\r\nSUB svc q 4\r\n");
    race.machine.settle();
  }
  EXPECT_EQ(told, 1) << asked;
}

// Two groups, both picked on shard 1, both made again elsewhere, and gone there: one answer, not two.
TEST(NoResponders, AnInquiryOfAnInquiry) {
  Race race(4);
  Client& one = race.responder(1, "SUB svc a 1\r\nSUB svc b 2\r\n");
  Client& left = race.responder(2, "");
  Client& right = race.responder(3, "");
  for (const bool both_leave : {true, false}) {
    race.requester->send("PUB svc in 0\r\n\r\n");
    race.machine.turn(0);
    left.send("SUB svc a 1\r\n");
    race.machine.turn(2);
    right.send("SUB svc b 1\r\n");
    race.machine.turn(3);
    race.leave_unaware(one, "UNSUB 1\r\nUNSUB 2\r\n");
    race.machine.turn(1);
    race.leave_unaware(left);
    if (both_leave) race.leave_unaware(right);
    race.machine.settle();
    EXPECT_EQ(one.take() + left.take(), "");
    EXPECT_EQ(right.take(), both_leave ? "" : "MSG svc 1 in 0\r\n\r\n");
    EXPECT_EQ(race.requester->take(), both_leave ? kNobody : "");
    one.send("SUB svc a 1\r\nSUB svc b 2\r\n");
    race.machine.settle();
  }
  EXPECT_EQ(race.machine.shard(1).snapshot().rings.repicks, 4u);
}

TEST(NoResponders, OnlyThoseWhoAskAreTold) {
  for (const char* connect : {R"({"verbose":false,"headers":true})", R"({"verbose":false,"no_responders":false})"}) {
    Race race(3, connect);
    Client& one = race.responder(1, "SUB svc 1\r\n");
    Client& two = race.responder(2, "SUB svc 1\r\n");
    race.ask([&] {
      race.leave(one);
      race.leave(two);
    });
    EXPECT_EQ(race.requester->take(), "");
  }
}

TEST(NoResponders, TheRequesterMayHaveGone) {
  Race race(3);
  Client& one = race.responder(1, "SUB svc 1\r\n");
  Client& two = race.responder(2, "SUB svc 1\r\n");
  race.requester->send("PUB svc in 0\r\n\r\n");
  race.machine.turn(0);
  race.leave(one);
  race.machine.hang_up(*race.requester);
  race.machine.turn(0);
  race.leave(two);
  race.machine.settle();
  EXPECT_EQ(one.take() + two.take(), "MSG svc 1 in 0\r\n\r\nMSG svc 1 in 0\r\n\r\n");
}

// The table is bounded: what is overwritten is not answered, and what comes after it is.
TEST(Inquiries, AreBounded) {
  core::Inquiries inquiries;
  EXPECT_EQ(inquiries.answered(uint64_t{1} << 63 | 5).id, 0u);
  const uint64_t first = inquiries.open({7, 1}, 2);
  EXPECT_TRUE(core::Inquiries::is_inquiry(first));
  EXPECT_EQ(inquiries.answered(first).id, 0u);
  uint64_t last = 0;
  for (size_t n = 0; n < core::Inquiries::kEntries; ++n) last = inquiries.open({8, 1}, 1);
  EXPECT_EQ(inquiries.answered(first).id, 0u);
  EXPECT_EQ(inquiries.answered(last).id, 8u);
  EXPECT_EQ(inquiries.answered(last).id, 0u);
}

}  // namespace
}  // namespace peregrine::test
