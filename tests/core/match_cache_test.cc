#include "core/match_cache.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "core/hash.h"

namespace peregrine::core {
namespace {

class MatchCacheTest : public testing::Test {
 protected:
  auto stamps_of() const {
    return [this](uint8_t bucket) { return stamps_[bucket]; };
  }
  uint64_t hash(std::string_view subject) const { return hash_(subject); }
  const Match* find(std::string_view subject) { return cache_.find(hash(subject), subject, stamps_of()); }
  void store(std::string_view subject, const Match& match, uint8_t bucket = 0) {
    cache_.store(hash(subject), subject, bucket, match, MatchCache::Copy::kLists, stamps_of());
  }
  Match match_of(size_t count) {
    plain_.assign(count, &sub_);
    return {.plain = plain_, .groups = {}, .shards = 5};
  }

  KeyedHash hash_{1, 2, 3};
  MatchCache cache_;
  std::array<uint64_t, 256> stamps_{};
  Subscription sub_{nullptr, "1"};
  std::vector<Subscription*> plain_;
};

TEST_F(MatchCacheTest, GivesBackACopy) {
  EXPECT_EQ(find("a"), nullptr);
  store("a", match_of(3));
  plain_.assign(3, nullptr);  // the cache must not look here any more
  const Match* found = find("a");
  ASSERT_NE(found, nullptr);
  ASSERT_EQ(found->plain.size(), 3u);
  EXPECT_EQ(found->plain[2], &sub_);
  EXPECT_EQ(found->shards, 5u);
  EXPECT_EQ(cache_.size(), 1u);
  EXPECT_EQ(find("b"), nullptr);
}

TEST_F(MatchCacheTest, CopiesMembersWhenAsked) {
  std::vector<Subscription*> members(5, &sub_);
  std::vector<ShardWeight> weights{{1, 2}, {3, 4}};
  std::vector<QueueGroup> groups{{77, members, weights, 6, members.size()}, {78, {}, {}, 0, 0}};
  const Match match{.plain = {}, .groups = groups, .shards = 0};
  cache_.store(hash("a"), "a", 0, match, MatchCache::Copy::kMembers, stamps_of());
  members.assign(5, nullptr);
  weights.assign(2, {0, 0});
  groups.clear();
  const Match* found = find("a");
  ASSERT_NE(found, nullptr);
  ASSERT_EQ(found->groups.size(), 2u);
  EXPECT_EQ(found->groups[0].id, 77u);
  ASSERT_EQ(found->groups[0].local.size(), 5u);
  EXPECT_EQ(found->groups[0].local[4], &sub_);
  EXPECT_EQ(found->groups[0].remote[1].shard, 3u);
  EXPECT_TRUE(found->groups[1].local.empty());
}

TEST_F(MatchCacheTest, ComparesTheSubjectNotOnlyTheHash) {
  store("a", match_of(1));
  EXPECT_EQ(cache_.find(hash("a"), "b", stamps_of()), nullptr);
}

TEST_F(MatchCacheTest, AStepOfItsBucketMakesItStale) {
  store("a", match_of(1), 7);
  store("b", match_of(1), 8);
  stamps_[7]++;
  EXPECT_EQ(find("a"), nullptr);
  EXPECT_NE(find("b"), nullptr);
  store("a", match_of(2), 7);
  EXPECT_EQ(cache_.size(), 2u) << "the stale one made room";
  EXPECT_EQ(find("a")->plain.size(), 2u);
}

TEST_F(MatchCacheTest, EraseAndClear) {
  store("a", match_of(1));
  store("b", match_of(1));
  cache_.erase(hash("a"));
  cache_.erase(hash("never"));
  EXPECT_EQ(find("a"), nullptr);
  EXPECT_NE(find("b"), nullptr);
  cache_.clear();
  EXPECT_EQ(find("b"), nullptr);
  EXPECT_EQ(cache_.size(), 0u);
  EXPECT_EQ(cache_.memory_bytes(), 0u);
}

TEST_F(MatchCacheTest, AdmitsAtTheSecondMiss) {
  EXPECT_FALSE(cache_.admit(hash("a")));
  EXPECT_TRUE(cache_.admit(hash("a")));
  EXPECT_FALSE(cache_.admit(hash("b")));
}

TEST_F(MatchCacheTest, AWalkIsHardlyEverAdmitted) {
  int admitted = 0;
  for (int i = 0; i < 1000000; i++) admitted += cache_.admit(hash("walk." + std::to_string(i)));
  EXPECT_LT(admitted, 20000) << "a Bloom filter's false answers, nothing more";
}

TEST_F(MatchCacheTest, HotOnesSurviveAFloodThatIsAdmitted) {
  std::vector<std::string> hot;
  for (int i = 0; i < 1000; i++) hot.push_back("hot." + std::to_string(i));
  for (const std::string& subject : hot) store(subject, match_of(2));
  int lost = 0;
  for (int i = 0; i < 200000; i++) {
    store("flood." + std::to_string(i), match_of(2));
    // Five looks at a hot one for each new subject.
    for (int n = 0; n < 5; n++) {
      const std::string& subject = hot[static_cast<size_t>(i * 5 + n) % hot.size()];
      if (find(subject) == nullptr) {
        lost++;
        store(subject, match_of(2));
      }
    }
  }
  EXPECT_LT(lost, 1000) << "of a million looks";
  EXPECT_LE(cache_.size(), MatchCache::kMaxSlots);
}

TEST_F(MatchCacheTest, BytesAreBounded) {
  for (int i = 0; i < 2000; i++) store("big." + std::to_string(i), match_of(10000));  // 160 MB if all were kept
  EXPECT_LE(cache_.memory_bytes(), MatchCache::kMaxBytes + MatchCache::kMaxSlots * 64);
  EXPECT_GT(cache_.size(), 50u);
  cache_.clear();
  store("huge", match_of(MatchCache::kMaxMatchBytes / 8));
  EXPECT_EQ(cache_.size(), 0u) << "one match may not take it all";
}

TEST_F(MatchCacheTest, KeepsAWorkingSetOf4096) {
  std::vector<std::string> subjects;
  for (int i = 0; i < 4096; i++) subjects.push_back("orders." + std::to_string(i));
  for (int round = 0; round < 4; round++) {
    for (const std::string& subject : subjects) {
      if (find(subject) == nullptr && cache_.admit(hash(subject))) store(subject, match_of(1));
    }
  }
  int missing = 0;
  for (const std::string& subject : subjects) missing += find(subject) == nullptr;
  EXPECT_LT(missing, 100);
}

}  // namespace
}  // namespace peregrine::core
