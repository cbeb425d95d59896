// Who is made to wait, and who never is: kinds of traffic as a shard's turns see them, in made-up time.
#include "net/pacer.h"

#include <gtest/gtest.h>

namespace peregrine::net {
namespace {

constexpr int64_t kTurnNs = 2'000;

struct Outcome {
  uint64_t turns = 0, messages = 0, pauses = 0;
  int64_t paused_ns = 0;
};

// Publishers that write `batch` messages of `size` bytes every `every_ns`, whatever the shard does.
Outcome stream(Pacer& pacer, int64_t& now, int64_t for_ns, int64_t every_ns, uint32_t connections = 1,
               uint64_t batch = 1, size_t size = 40, int64_t turn_ns = kTurnNs) {
  Outcome outcome;
  int64_t written_until = now;
  for (const int64_t end = now + for_ns; now < end;) {
    TurnInput input;
    const auto writes = static_cast<uint64_t>((now - written_until) / every_ns);
    if (writes == 0) {
      pacer.idle(now);
      now += every_ns;  // parked until the next write
      continue;
    }
    written_until += static_cast<int64_t>(writes) * every_ns;
    input.connections = static_cast<uint32_t>(std::min<uint64_t>(writes, connections));
    input.messages = writes * batch;
    input.bytes = input.messages * size;
    const int64_t pause = pacer.pause_after(now, input);
    EXPECT_TRUE(pause == 0 || (pause >= Pacer::kShortestNs && pause <= Pacer::kLongestNs)) << pause;
    ++outcome.turns;
    outcome.messages += input.messages;
    outcome.pauses += pause > 0;
    outcome.paused_ns += pause;
    now += turn_ns + pause;
  }
  return outcome;
}

// Requesters who each write again only when they have been answered: a turn finds one message of each, at most.
Outcome closed_loop(Pacer& pacer, int64_t& now, int64_t for_ns, uint32_t requesters, int64_t think_ns,
                    int64_t turn_ns = kTurnNs) {
  Outcome outcome;
  for (const int64_t end = now + for_ns; now < end;) {
    const TurnInput input{requesters, requesters, requesters * size_t{60}};
    const int64_t pause = pacer.pause_after(now, input);
    ++outcome.turns;
    outcome.pauses += pause > 0;
    outcome.paused_ns += pause;
    pacer.idle(now + turn_ns);
    now += turn_ns + think_ns + pause;
  }
  return outcome;
}

constexpr int64_t kSecond = 1'000'000'000;

TEST(Pacer, MessagesWrittenOneByOneAreGatheredUnderLoad) {
  Pacer pacer;
  int64_t now = kSecond;
  stream(pacer, now, kSecond / 100, 1'000);
  const Outcome outcome = stream(pacer, now, kSecond, 1'000);
  EXPECT_GT(outcome.messages, 30 * outcome.turns);
}

TEST(Pacer, NobodyWaitsBelowTheBusyRate) {
  for (const int64_t every_ns : {5'000, 10'000, 100'000, 10'000'000}) {
    Pacer pacer;
    int64_t now = kSecond;
    EXPECT_EQ(stream(pacer, now, kSecond, every_ns).pauses, 0u) << every_ns;
  }
}

// Where a system call costs three times as much, a shard has no time left at 150 000 messages a second: it must gather
// there, and has time enough at 120 000 if turns are cheap again.
TEST(Pacer, DearTurnsMakeAShardBusyAtALowerRate) {
  constexpr int64_t kDearNs = 6'000;
  Pacer dear, cheap;
  int64_t now = kSecond;
  stream(dear, now, kSecond / 10, 6'600, 1, 1, 40, kDearNs);
  const Outcome outcome = stream(dear, now, kSecond, 6'600, 1, 1, 40, kDearNs);
  EXPECT_GT(outcome.messages, 8 * outcome.turns);
  EXPECT_EQ(stream(cheap, now, kSecond, 6'600).pauses, 0u);
}

TEST(Pacer, DearTurnsOrNot100000AreNotMadeToWait) {
  Pacer pacer;
  int64_t now = kSecond;
  EXPECT_EQ(stream(pacer, now, kSecond, 10'000, 1, 1, 40, 20'000).pauses, 0u);
}

TEST(Pacer, ARequesterIsNotMadeToWait) {
  for (const uint32_t requesters : {1u, 16u, 256u}) {
    Pacer pacer;
    int64_t now = kSecond;
    closed_loop(pacer, now, kSecond, requesters, 1'000);
    const Outcome outcome = closed_loop(pacer, now, kSecond, requesters, 1'000);
    EXPECT_LE(outcome.pauses, outcome.turns / 1000 + 1) << requesters;
  }
}

TEST(Pacer, ARequesterIsNotMadeToWaitWhereTurnsAreDear) {
  for (const uint32_t requesters : {1u, 16u, 256u}) {
    Pacer pacer;
    int64_t now = kSecond;
    closed_loop(pacer, now, kSecond, requesters, 1'000, 6'000);
    const Outcome outcome = closed_loop(pacer, now, kSecond, requesters, 1'000, 6'000);
    EXPECT_LE(outcome.pauses, outcome.turns / 1000 + 1) << requesters;
  }
}

// A flood has ended, requesters come: the good name of its pauses is used up within a few of theirs.
TEST(Pacer, ARequesterAfterAFloodWaitsAFewTimesAtMost) {
  Pacer pacer;
  int64_t now = kSecond;
  ASSERT_GT(stream(pacer, now, kSecond, 500).pauses, 1000u);
  EXPECT_LE(closed_loop(pacer, now, kSecond / 10, 16, 1'000).pauses, 24u);
}

TEST(Pacer, LargeBatchesAreTurnsEnoughByThemselves) {
  Pacer pacer;
  int64_t now = kSecond;
  stream(pacer, now, kSecond / 10, 20'000, 1, 1000);
  const Outcome outcome = stream(pacer, now, kSecond, 20'000, 1, 1000);
  EXPECT_LE(outcome.pauses, outcome.turns / 100);
}

TEST(Pacer, PublishersOfTheirOwnPaceAreNotMergedSoTheyDoNotWait) {
  Pacer pacer;
  int64_t now = kSecond;
  // A thousand publishers, 300 000 messages a second together: a pause brings no two of the same one.
  stream(pacer, now, kSecond / 10, 3'300, 1000);
  const Outcome outcome = stream(pacer, now, kSecond, 3'300, 1000);
  EXPECT_LE(outcome.pauses, outcome.turns / 1000 + 1);
}

TEST(Pacer, StopsWhenTheLoadStops) {
  Pacer pacer;
  int64_t now = kSecond;
  ASSERT_GT(stream(pacer, now, kSecond / 10, 1'000).pauses, 0u);
  stream(pacer, now, kSecond / 100, 10'000);
  EXPECT_EQ(stream(pacer, now, kSecond, 10'000).pauses, 0u);
}

// Every fifth pause brings nothing: the publisher was off its core, or read answers. Given up each time, as it once
// was, most turns would be without a pause.
TEST(Pacer, APublisherThatStopsForAMomentChangesNothing) {
  constexpr int64_t kEveryNs = 1'000;
  Pacer pacer;
  int64_t now = kSecond;
  stream(pacer, now, kSecond / 10, kEveryNs);
  uint64_t turns = 0, pauses = 0, waiting = 1;
  for (const int64_t end = now + kSecond; now < end; ++turns) {
    const int64_t pause = pacer.pause_after(now, {1, waiting, waiting * 40});
    pauses += pause > 0;
    now += kTurnNs + pause;
    waiting = pause > 0 && pauses % 5 == 0 ? 1 : static_cast<uint64_t>((kTurnNs + pause) / kEveryNs);
  }
  EXPECT_GT(pauses, turns * 8 / 10) << turns;
}

TEST(Pacer, BeingOffTheCoreOnceChangesNothing) {
  Pacer pacer;
  int64_t now = kSecond;
  stream(pacer, now, kSecond / 10, 1'000);
  for (int n = 0; n < 5; ++n) pacer.pause_after(now += 4'000'000, {1, 4000, 160'000});
  const Outcome outcome = stream(pacer, now, kSecond / 10, 1'000);
  EXPECT_GT(outcome.messages, 20 * outcome.turns);
}

}  // namespace
}  // namespace peregrine::net
