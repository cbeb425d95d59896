#include "cluster/compression.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace peregrine::cluster {
namespace {

std::string chosen(std::string_view local, std::string_view remote) {
  const auto mode = select_compression(local, remote);
  return mode ? std::string(*mode) : "unknown";
}

TEST(Compression, IsAgreedOnAsNatsServerDoes) {
  for (const char* local : {"accept", "s2_fast", "s2_auto"}) {
    EXPECT_EQ(chosen(local, ""), "not supported") << local;
    EXPECT_EQ(chosen(local, "not supported"), "not supported") << local;
    EXPECT_EQ(chosen(local, "off"), "off") << local;
    EXPECT_EQ(chosen(local, "zip"), "unknown") << local;
  }
  EXPECT_EQ(chosen("accept", "accept"), "off");
  EXPECT_EQ(chosen("s2_best", "accept"), "s2_best");
  EXPECT_EQ(chosen("accept", "s2_better"), "s2_better");
  EXPECT_EQ(chosen("accept", "s2_auto"), "s2_fast");
  EXPECT_EQ(chosen("s2_fast", "s2_best"), "s2_fast") << "each side for its own direction";
}

TEST(Compression, AutoGoesByRoundTripTime) {
  constexpr std::array<int64_t, 3> kThresholds = {10, 50, 100};
  EXPECT_EQ(compression_for_rtt(10, kThresholds), "s2_uncompressed");
  EXPECT_EQ(compression_for_rtt(11, kThresholds), "s2_fast");
  EXPECT_EQ(compression_for_rtt(100, kThresholds), "s2_better");
  EXPECT_EQ(compression_for_rtt(101, kThresholds), "s2_best");
  constexpr std::array<int64_t, 2> kNoneBelow = {0, 50};
  EXPECT_EQ(compression_for_rtt(1, kNoneBelow), "s2_fast");
  EXPECT_EQ(compression_for_rtt(60, kNoneBelow), "s2_fast") << "there is no level above the last threshold";
}

TEST(Compression, TheFilterGivesBackWhatWentIn) {
  struct NoSink final : core::ReleaseSink {
    void release_to(uint32_t, core::SharedBytes*) override {}
  } sink;
  core::BufferPool pool(0, &sink);
  for (const char* mode : {"s2_uncompressed", "s2_fast", "s2_better", "s2_best"}) {
    const auto writer = make_s2_filter(&pool, mode);
    const auto reader = make_s2_filter(&pool, mode);
    core::Outbox plain(&pool);
    std::string sent, received;
    for (int n = 0; n < 300; ++n) {
      const std::string line = "RMSG $G subject." + std::to_string(n) + " 2000\r\n" + std::string(2000, 'a' + n % 26);
      plain.append(line);
      sent += line;
      if (n % 70 == 0) writer->encode(plain);
    }
    writer->encode(plain);
    EXPECT_TRUE(plain.empty());
    const size_t wire = writer->wire.pending();
    if (std::string_view(mode) != "s2_uncompressed") {
      EXPECT_LT(wire, sent.size() / 10) << mode;
    }
    std::array<iovec, 4> pieces;
    while (!writer->wire.empty()) {
      const size_t n = writer->wire.gather(pieces.data(), pieces.size(), 777);
      const size_t size = std::min<size_t>(pieces[0].iov_len, 777);
      ASSERT_GT(n, 0u);
      ASSERT_TRUE(reader->decode({static_cast<const char*>(pieces[0].iov_base), size}, received));
      writer->wire.consume(size);
    }
    EXPECT_EQ(received, sent) << mode;
  }
  const auto reader = make_s2_filter(&pool, "s2_fast");
  std::string nothing;
  EXPECT_FALSE(reader->decode("INFO {}\r\n", nothing)) << "plain text is not a stream";
  EXPECT_NE(reader->error(), "");
}

// Framing alone copies no payload: not when it is sent, and where a chunk was received whole, not there either.
TEST(Compression, UncompressedPayloadsStayWhereTheyLie) {
  struct NoSink final : core::ReleaseSink {
    void release_to(uint32_t, core::SharedBytes*) override {}
  } sink;
  core::BufferPool pool(0, &sink);
  const auto writer = make_s2_filter(&pool, "s2_uncompressed");
  const auto reader = make_s2_filter(&pool, "s2_uncompressed");
  core::SharedBytes* const payload = pool.share(std::string(20'000, 'p') + "\r\n");
  core::Outbox plain(&pool);
  std::string sent;
  for (int n = 0; n < 7; ++n) {
    plain.append("LMSG foo 20000\r\n");
    plain.append_shared(payload, 0);
    sent += "LMSG foo 20000\r\n" + std::string(payload->data, payload->size);
  }
  writer->encode(plain);
  std::array<iovec, 64> pieces;
  const size_t count = writer->wire.gather(pieces.data(), pieces.size(), SIZE_MAX);
  std::string wire;
  size_t by_reference = 0;
  for (size_t n = 0; n < count; ++n) {
    if (pieces[n].iov_base == payload->data) ++by_reference;
    wire.append(static_cast<const char*>(pieces[n].iov_base), pieces[n].iov_len);
  }
  EXPECT_EQ(by_reference, 7u);
  writer->wire.clear();
  EXPECT_EQ(payload->refs, 1u);
  pool.drop(payload);

  ASSERT_TRUE(reader->decodes_in_place());
  std::string received;
  size_t messages = 0, gathered = 0;
  for (size_t at = 0; at < wire.size(); at += 50'000) {
    std::string_view in = std::string_view(wire).substr(at, 50'000), piece;
    const std::string_view all = in;
    for (;;) {
      ASSERT_TRUE(reader->decode_piece(in, piece));
      if (piece.empty()) break;
      ++messages;
      received += piece;
      EXPECT_TRUE(piece.starts_with("LMSG ") && piece.ends_with("p\r\n")) << "a chunk for each large payload";
      if (reader->piece_was_gathered()) {
        ++gathered;
        const std::string kept = reader->take_gathered();
        EXPECT_TRUE(piece.data() >= kept.data() && piece.end() <= kept.data() + kept.size());
      } else {
        EXPECT_TRUE(piece.data() > all.data() && piece.end() <= all.end());
      }
    }
  }
  EXPECT_EQ(received, sent);
  EXPECT_EQ(messages, 7u);
  EXPECT_EQ(gathered, 2u);
}

}  // namespace
}  // namespace peregrine::cluster
