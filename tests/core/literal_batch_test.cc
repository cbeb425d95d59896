#include "core/literal_batch.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <string>
#include <vector>

#include "core/random.h"
#include "tests/core/machine.h"

namespace peregrine::core {
namespace {

struct Change {
  Side side;
  uint32_t account;
  uint64_t hash;
  bool interested;
  bool operator==(const Change&) const = default;
};

// What the other shard reads: changes in order, those taken back left out.
std::vector<Change> read_all(Ring& ring, size_t* records = nullptr) {
  std::vector<Change> changes;
  const uint64_t limit = ring.snapshot();
  uint32_t size;
  while (const char* bytes = ring.peek(limit, size)) {
    LiteralInterestRecord record;
    std::memcpy(&record, bytes, sizeof(record));
    EXPECT_EQ(record.type, CrossingType::kLiteralInterest);
    EXPECT_EQ(record.size(), size);
    EXPECT_LE(record.count, LiteralInterestRecord::kMost);
    for (uint32_t n = 0; n < record.count; ++n) {
      uint64_t hash;
      std::memcpy(&hash, bytes + sizeof(record) + n * sizeof(hash), sizeof(hash));
      if ((record.void_ones >> n & 1) != 0) continue;
      changes.push_back({record.side, record.account, hash, (record.interested >> n & 1) != 0});
    }
    ring.pop(size);
    if (records != nullptr) ++*records;
  }
  ring.finish();
  return changes;
}

std::vector<Change> published(Ring& ring, LiteralBatch& batch, size_t* records = nullptr) {
  batch.close(ring);
  ring.publish();
  return read_all(ring, records);
}

constexpr Side kSide = Side::kClients;

TEST(LiteralBatch, ChangesLieSideBySideInOneRecord) {
  Ring ring(16384);
  LiteralBatch batch;
  std::vector<Change> expected;
  for (uint64_t n = 0; n < 3 * LiteralInterestRecord::kMost; ++n) {
    expected.push_back({kSide, 0, n * 0x9E3779B97F4A7C15, n % 3 != 0});
    batch.add(ring, kSide, 0, expected.back().hash, expected.back().interested);
  }
  EXPECT_TRUE(ring.empty()) << "not before it is published";
  size_t records = 0;
  EXPECT_EQ(published(ring, batch, &records), expected);
  EXPECT_EQ(records, 3u);
  EXPECT_EQ(batch.take_records(), 3u);
  EXPECT_EQ(batch.take_bytes(), 3u * 24 + 3 * 64 * 8);
}

TEST(LiteralBatch, AnotherAccountOrSideTakesAnotherRecord) {
  Ring ring(16384);
  LiteralBatch batch;
  std::vector<Change> expected{
      {kSide, 0, 1, true}, {kSide, 7, 2, true}, {Side::kLeafs, 7, 3, false}, {kSide, 0, 4, true}};
  for (const Change& each : expected) batch.add(ring, each.side, each.account, each.hash, each.interested);
  size_t records = 0;
  EXPECT_EQ(published(ring, batch, &records), expected);
  EXPECT_EQ(records, 4u);
}

TEST(LiteralBatch, WhatComesAndGoesIsNotTold) {
  Ring ring(16384);
  LiteralBatch batch;
  constexpr uint64_t kA = uint64_t{11} << 32, kB = uint64_t{12} << 32, kC = uint64_t{13} << 32, kLikeC = kC | 1;
  const auto add = [&](uint64_t hash, bool interested) { ASSERT_TRUE(batch.add(ring, kSide, 0, hash, interested)); };
  add(kA, true);
  add(kA, false);
  const uint64_t before = ring.position();
  EXPECT_TRUE(published(ring, batch).empty());
  EXPECT_EQ(ring.position(), before) << "nothing is written";
  // From under others, and an end that is followed by a new beginning.
  add(kA, true);
  add(kB, false);
  add(kC, true);
  add(kA, false);
  add(kB, true);
  EXPECT_EQ(published(ring, batch), (std::vector<Change>{{kSide, 0, kC, true}}));
  // What is published is out of reach.
  add(kC, false);
  EXPECT_EQ(published(ring, batch), (std::vector<Change>{{kSide, 0, kC, false}}));
  // Not if there is another one that the other shard takes for it, from before or since.
  add(kC, true);
  add(kLikeC, true);
  batch.still_wanted(kLikeC);
  add(kC, false);
  EXPECT_EQ(published(ring, batch).back(), (Change{kSide, 0, kC, false}));
  add(kLikeC, true);
  EXPECT_EQ(published(ring, batch).size(), 1u);
  add(kC, true);
  batch.still_wanted(kLikeC);
  add(kC, false);
  EXPECT_EQ(published(ring, batch).back(), (Change{kSide, 0, kC, false}));
}

TEST(LiteralBatch, AFullRingSaysNo) {
  Ring ring(1024);
  LiteralBatch batch;
  uint64_t added = 0;
  while (batch.add(ring, kSide, 0, (1000 + added) << 32, true)) ++added;
  EXPECT_GT(added, 50u);
  EXPECT_FALSE(batch.add(ring, kSide, 0, 1, true));
  EXPECT_EQ(published(ring, batch).size(), added);
  EXPECT_TRUE(batch.add(ring, kSide, 0, 1, true));
  EXPECT_EQ(published(ring, batch).size(), 1u);
}

// What the other shard knows, whenever it looks, is what is so: subjects come and go as the index tells it
// (InterestChange), some of one hash, some with hashes that the other shard cannot tell apart, and some that share a
// place in the batch's memory of the latest changes.
TEST(LiteralBatch, TheLastWordAgainstAMap) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    Ring ring(seed % 2 == 0 ? 1024 : 16384);
    LiteralBatch batch;
    constexpr uint64_t kSubjects = 24;
    const auto hash_of = [](uint64_t subject) {
      return (subject / 4 % 3 + 64 * (subject / 12)) << 32 | (subject % 4) / 2;
    };
    std::array<bool, kSubjects> subscribed{};
    std::map<uint64_t, bool> known;  // by 32 bits
    const auto wanted = [&](uint64_t hash) {
      for (uint64_t each = 0; each < kSubjects; ++each) {
        if (subscribed[each] && hash_of(each) >> 32 == hash >> 32) return true;
      }
      return false;
    };
    const auto look = [&] {
      for (const Change& change : published(ring, batch)) known[change.hash >> 32] = change.interested;
    };
    for (int step = 0; step < 20'000; ++step) {
      const uint64_t subject = random.below(kSubjects), hash = hash_of(subject);
      subscribed[subject] = !subscribed[subject];
      if (!subscribed[subject] && wanted(hash)) {
        batch.still_wanted(hash);
      } else if (!batch.add(ring, kSide, 0, hash, subscribed[subject])) {
        look();
        ASSERT_TRUE(batch.add(ring, kSide, 0, hash, subscribed[subject]));
      }
      if (random.below(30) != 0) continue;
      look();
      for (uint64_t each = 0; each < kSubjects; ++each)
        ASSERT_EQ(known[hash_of(each) >> 32], wanted(hash_of(each))) << "seed " << seed;
    }
  }
}

// --- in a server

using test::Client;
using test::Machine;

// 64 changes are 24 bytes and 8 each; what is subscribed and unsubscribed in one turn is nothing.
TEST(LiteralBatch, BytesBetweenShards) {
  Machine machine(2);
  Client& a = machine.connect(0);
  machine.settle();
  const auto bytes = [&] { return machine.shard(0).snapshot().rings.bytes_out; };
  const auto before = bytes();
  for (int n = 0; n < 256; ++n) a.send("SUB inbox." + std::to_string(n) + " " + std::to_string(n) + "\r\n");
  machine.turn(0);
  const auto after = bytes();
  EXPECT_EQ(after - before, 4u * 24 + 256 * 8);
  machine.settle();
  for (int n = 1000; n < 1200; ++n) {
    const std::string sid = std::to_string(n);
    a.send("SUB inbox." + sid + " " + sid + "\r\nUNSUB " + sid + "\r\n");
  }
  machine.turn(0);
  machine.settle();
  EXPECT_EQ(bytes(), after);
  EXPECT_EQ(machine.shard(1).snapshot().rings.records_in, 4u);
}

// A pattern between two literals, and a queue: all are known to the other shard in the order they were made.
TEST(LiteralBatch, OtherInterestInBetween) {
  Machine machine(2);
  Client& a = machine.connect(0);
  Client& b = machine.connect(1);
  a.send("SUB one 1\r\nSUB two.* 2\r\nSUB three q 3\r\nSUB four 4\r\nUNSUB 1\r\n");
  machine.settle();
  for (const char* subject : {"one", "two.x", "three", "four"}) b.send("PUB " + std::string(subject) + " 1\r\nx\r\n");
  machine.settle();
  EXPECT_EQ(a.take(), "MSG two.x 2 1\r\nx\r\nMSG three 3 1\r\nx\r\nMSG four 4 1\r\nx\r\n");
}

}  // namespace
}  // namespace peregrine::core
