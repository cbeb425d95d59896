#include "core/ring.h"

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <thread>

#include "core/random.h"

namespace peregrine::core {
namespace {

std::string record_of(uint64_t n, Random& random) {
  std::string text = std::to_string(n) + ":";
  text.resize(text.size() + random.below(90), static_cast<char>('a' + n % 26));
  return text;
}

bool produce(Ring& ring, std::string_view record) {
  char* to = ring.reserve(static_cast<uint32_t>(record.size()));
  if (to == nullptr) return false;
  std::memcpy(to, record.data(), record.size());
  ring.commit(static_cast<uint32_t>(record.size()));
  return true;
}

TEST(Ring, NothingIsSeenBeforeItIsPublished) {
  Ring ring(1024);
  ASSERT_TRUE(produce(ring, "one"));
  uint32_t size = 0;
  EXPECT_EQ(ring.peek(ring.snapshot(), size), nullptr);
  EXPECT_TRUE(ring.unpublished());
  ring.publish();
  EXPECT_FALSE(ring.unpublished());
  const char* at = ring.peek(ring.snapshot(), size);
  ASSERT_NE(at, nullptr);
  EXPECT_EQ(std::string(at, size), "one");
  ring.pop(size);
  EXPECT_TRUE(ring.empty());
}

TEST(Ring, FullSaysNoAndRoomComesBackWithFinish) {
  Ring ring(1024);
  int produced = 0;
  while (produce(ring, std::string(50, 'x'))) ++produced;
  EXPECT_GT(produced, 10);
  ring.publish();
  uint32_t size;
  const uint64_t limit = ring.snapshot();
  while (ring.peek(limit, size) != nullptr) ring.pop(size);
  EXPECT_FALSE(produce(ring, std::string(50, 'x'))) << "the consumer has not given anything back yet";
  ring.finish();
  EXPECT_TRUE(produce(ring, std::string(50, 'x')));
}

TEST(Ring, RecordsOfEverySizeAgainstADeque) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    Ring ring(1024);
    std::deque<std::string> twin;
    uint64_t n = 0;
    for (int step = 0; step < 20'000; ++step) {
      if (random.below(2) == 0) {
        std::string record(random.below(ring.max_record() + 1), static_cast<char>('a' + n++ % 26));
        if (produce(ring, record)) twin.push_back(std::move(record));
        ring.publish();
      } else {
        uint32_t size;
        const char* at = ring.peek(ring.snapshot(), size);
        ASSERT_EQ(at == nullptr, twin.empty()) << "seed " << seed;
        if (at == nullptr) continue;
        ASSERT_EQ(std::string_view(at, size), twin.front()) << "seed " << seed;
        twin.pop_front();
        ring.pop(size);
        ring.finish();
      }
    }
  }
}

// Run under TSan by scripts/check: two threads, every byte compared.
TEST(Ring, TwoThreads) {
  Ring ring(4096);
  constexpr uint64_t kRecords = 50'000;
  std::thread producer([&] {
    Random random(1);
    for (uint64_t n = 0; n < kRecords; ++n) {
      const std::string record = record_of(n, random);
      while (!produce(ring, record)) {
        ring.publish();
        std::this_thread::yield();
      }
      if (random.below(8) == 0) ring.publish();
    }
    ring.publish();
  });
  Random random(1);
  uint64_t n = 0;
  bool same = true;
  while (n < kRecords && same) {
    const uint64_t limit = ring.snapshot();
    uint32_t size;
    bool any = false;
    while (const char* at = ring.peek(limit, size)) {
      any = true;
      // The producer draws once more per record, for its publishing.
      const std::string expected = record_of(n++, random);
      random.below(8);
      same = same && std::string_view(at, size) == expected;
      ring.pop(size);
    }
    if (any) ring.finish();
    else std::this_thread::yield();
  }
  producer.join();
  EXPECT_TRUE(same);
  EXPECT_EQ(n, kRecords);
}

}  // namespace
}  // namespace peregrine::core
