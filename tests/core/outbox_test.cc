#include "core/outbox.h"

#include <gtest/gtest.h>

#include <string>

#include "core/random.h"

namespace peregrine::core {
namespace {

struct Releases final : ReleaseSink {
  int count = 0;
  void release_to(uint32_t, SharedBytes*) override { ++count; }
};

std::string front(const Outbox& outbox, size_t max_bytes) {
  iovec iov[64];
  std::string text;
  const size_t n = outbox.gather(iov, 64, max_bytes);
  for (size_t i = 0; i < n; ++i) text.append(static_cast<const char*>(iov[i].iov_base), iov[i].iov_len);
  return text;
}

TEST(Outbox, EmptyOwnsNothing) {
  Releases releases;
  BufferPool pool(0, &releases);
  Outbox outbox(&pool);
  EXPECT_EQ(pool.bytes_in_use(), 0u);
  outbox.append("hello");
  EXPECT_GT(pool.bytes_in_use(), 0u);
  outbox.consume(5);
  EXPECT_EQ(pool.bytes_in_use(), 0u);
  EXPECT_TRUE(outbox.empty());
}

TEST(Outbox, LinesOfOurOwnTakeLittle) {
  Releases releases;
  BufferPool pool(0, &releases);
  Outbox outbox(&pool);
  outbox.append_line(std::string(400, 'i'));
  outbox.append_line("PING\r\n");
  EXPECT_LE(pool.bytes_in_use(), 512u);
  outbox.append(std::string(400, 'm'));  // a message behind it
  EXPECT_LE(pool.bytes_in_use(), 512u + 4096u);
  outbox.consume(outbox.pending());
  EXPECT_EQ(pool.bytes_in_use(), 0u);
}

TEST(Outbox, AgainstAString) {
  Releases releases;
  BufferPool pool(0, &releases);
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Random random(seed);
    Outbox outbox(&pool);
    std::string twin;
    for (int step = 0; step < 3000; ++step) {
      const std::string text(1 + random.below(step % 50 == 0 ? 100'000 : 300),
                             static_cast<char>('a' + random.below(26)));
      switch (random.below(5)) {
        case 4:
          outbox.append_line(text);
          twin += text;
          break;
        case 0:
          outbox.append(text);
          twin += text;
          break;
        case 1:
          if (text.size() <= BufferPool::kLargeChunk) {
            std::memcpy(outbox.reserve(text.size()), text.data(), text.size());
            outbox.commit(text.size());
            twin += text;
          }
          break;
        case 2: {
          SharedBytes* shared = pool.share(text);
          const auto offset = static_cast<uint32_t>(random.below(text.size() + 1));
          outbox.append_shared(shared, offset);
          pool.drop(shared);
          twin += text.substr(offset);
          break;
        }
        default: {
          ASSERT_TRUE(twin.starts_with(front(outbox, 4096))) << "seed " << seed;
          const size_t n = random.below(twin.size() + 1);
          outbox.consume(n);
          twin.erase(0, n);
        }
      }
      ASSERT_EQ(outbox.pending(), twin.size()) << "seed " << seed;
    }
    while (!outbox.empty()) {
      const std::string text = front(outbox, 1 << 16);
      ASSERT_TRUE(!text.empty() && twin.starts_with(text)) << "seed " << seed;
      outbox.consume(text.size());
      twin.erase(0, text.size());
    }
    EXPECT_TRUE(twin.empty());
  }
  EXPECT_EQ(pool.bytes_in_use(), 0u);
}

TEST(Outbox, MovedToAnotherSharedBytesStayWhereTheyLie) {
  Releases releases;
  BufferPool pool(0, &releases);
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Random random(seed);
    Outbox from(&pool), to(&pool);
    std::string twin;
    SharedBytes* const shared = pool.share(std::string(5000, 's'));
    for (int step = 0; step < 200; ++step) {
      if (random.below(2) == 0) {
        from.append_shared(shared, 0);
        twin += std::string(5000, 's');
      } else {
        const std::string own(1 + random.below(9000), 'o');
        from.append(own);
        twin += own;
      }
      if (random.below(4) != 0) continue;
      std::string seen;
      const size_t had = to.pending(), enough = random.below(8000), most = 1 + random.below(20'000);
      const size_t left = from.pending();
      const size_t moved = from.move_to(to, enough, most, [&](std::string_view bytes) { seen += bytes; });
      ASSERT_EQ(seen, twin.substr(0, moved)) << "seed " << seed;
      ASSERT_LE(moved, most);
      ASSERT_EQ(from.pending(), left - moved);
      ASSERT_EQ(to.pending(), had + moved);
      // Fewer than it might have been: because shared bytes end there.
      if (moved < std::min(most, left)) {
        ASSERT_GE(moved, enough);
        ASSERT_EQ(seen.back(), 's');
      }
      iovec iov[64];
      const size_t n = to.gather(iov, 64, SIZE_MAX);
      for (size_t i = 0; i < n; ++i) {
        const char* const bytes = static_cast<const char*>(iov[i].iov_base);
        if (*bytes == 's') {
          ASSERT_TRUE(bytes >= shared->data && bytes < shared->data + shared->size);
        }
      }
      twin.erase(0, moved);
      to.consume(to.pending());
    }
    from.clear();
    EXPECT_EQ(shared->refs, 1u) << "seed " << seed;
    pool.drop(shared);
  }
  EXPECT_EQ(pool.bytes_in_use(), 0u);
}

TEST(Outbox, AppendingDoesNotMoveWhatIsInFlight) {
  Releases releases;
  BufferPool pool(0, &releases);
  Outbox outbox(&pool);
  outbox.append("in flight");
  iovec iov[4];
  ASSERT_EQ(outbox.gather(iov, 4, 1 << 20), 1u);
  for (int n = 0; n < 10'000; ++n) outbox.append("more and more of it");
  EXPECT_EQ(std::string(static_cast<char*>(iov[0].iov_base), iov[0].iov_len), "in flight");
  outbox.consume(iov[0].iov_len);
  EXPECT_EQ(front(outbox, 19).substr(0, 19), "more and more of it");
}

TEST(Outbox, ForeignPayloadGoesHomeOnce) {
  Releases releases;
  BufferPool pool(1, &releases);
  SharedBytes origin{1, 5, "bytes", nullptr, 0};
  SharedBytes* wrapped = pool.wrap(&origin, "bytes", 0);
  {
    Outbox one(&pool), two(&pool);
    one.append_shared(wrapped, 0);
    two.append_shared(wrapped, 0);
    pool.drop(wrapped);
    one.consume(5);
    EXPECT_EQ(releases.count, 0);
  }
  EXPECT_EQ(releases.count, 1);
}

}  // namespace
}  // namespace peregrine::core
