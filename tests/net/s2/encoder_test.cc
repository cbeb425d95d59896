#include "net/s2/encoder.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "net/s2/decoder.h"

namespace {
std::atomic<size_t> allocations{0};
}

void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* bytes = std::malloc(size)) return bytes;
  std::abort();
}
void* operator new[](size_t size) { return operator new(size); }
void operator delete[](void* bytes) noexcept { std::free(bytes); }
void operator delete[](void* bytes, size_t) noexcept { std::free(bytes); }
void operator delete(void* bytes) noexcept { std::free(bytes); }
void operator delete(void* bytes, size_t) noexcept { std::free(bytes); }

namespace peregrine::net::s2 {
namespace {

constexpr Level kLevels[] = {Level::kUncompressed, Level::kFast, Level::kBetter, Level::kBest};

std::string wire(size_t messages) {
  std::string bytes;
  for (size_t n = 0; n < messages; ++n) {
    const std::string body = R"({"id":)" + std::to_string(n) + R"(,"total":)" + std::to_string(n * 7 % 900) + "}";
    bytes += "RMSG $G orders.eu." + std::to_string(n % 97) + ".created " + std::to_string(body.size()) + "\r\n" + body +
             "\r\n";
  }
  return bytes;
}

std::string noise(size_t size, uint32_t seed) {
  std::mt19937 chance(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(chance());
  return bytes;
}

// In memory exactly as large as promised, so that one byte too many shows.
std::string encode(Encoder& encoder, EncoderStream& stream, std::span<const iovec> pieces) {
  size_t size = 0;
  for (const iovec& piece : pieces) size += piece.iov_len;
  const auto out = std::make_unique_for_overwrite<char[]>(Encoder::max_encoded(size));
  const size_t written = encoder.encode(stream, pieces, out.get());
  EXPECT_LE(written, Encoder::max_encoded(size));
  return {out.get(), written};
}
std::string encode(Encoder& encoder, EncoderStream& stream, const std::string& bytes) {
  const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  return encode(encoder, stream, std::span(&piece, 1));
}

std::string decode(Decoder& decoder, std::string_view in) {
  std::string bytes;
  std::string_view out;
  DecodeStatus status;
  while ((status = decoder.next(in, out)) == DecodeStatus::kBytes) bytes += out;
  EXPECT_EQ(status, DecodeStatus::kMore) << error_text(decoder.error());
  EXPECT_TRUE(decoder.at_boundary());
  return bytes;
}

TEST(S2Encoder, RoundTripAtEverySize) {
  Encoder encoder;
  const std::string text = wire(4000), random = noise(200'000, 3), zeros(200'000, '\0');
  for (const Level level : kLevels) {
    EncoderStream stream{.level = level};
    Decoder decoder;
    for (size_t size = 1; size < 200'000; size = size < 300 ? size + 1 : size * 5 / 4)
      for (const std::string* source : {&text, &random, &zeros}) {
        const std::string plain = source->substr(size % 7, size);
        ASSERT_EQ(decode(decoder, encode(encoder, stream, plain)), plain) << size;
      }
    for (const size_t size : {65'535, 65'536, 65'537, 131'072})
      ASSERT_EQ(decode(decoder, encode(encoder, stream, text.substr(0, size))), text.substr(0, size));
  }
}

TEST(S2Encoder, PeriodsAndLongMatches) {
  Encoder encoder;
  for (const Level level : kLevels)
    for (size_t period = 1; period < 70'000; period = period < 40 ? period + 1 : period * 3 / 2) {
      EncoderStream stream{.level = level};
      Decoder decoder;
      const std::string unit = noise(period, static_cast<uint32_t>(period));
      std::string plain;
      while (plain.size() < 100'000) plain += unit;
      const std::string packed = encode(encoder, stream, plain);
      ASSERT_EQ(decode(decoder, packed), plain) << period;
      if (level != Level::kUncompressed && period < 1000) {
        EXPECT_LT(packed.size(), 2 * period + 200) << period;
      }
    }
}

TEST(S2Encoder, PiecesOfAllSizes) {
  Encoder encoder;
  std::mt19937 chance(11);
  const std::string text = wire(20'000);
  for (int round = 0; round < 60; ++round) {
    EncoderStream stream{.level = kLevels[round % 4]};
    Decoder decoder;
    std::vector<iovec> pieces;
    std::string plain;
    for (int n = static_cast<int>(chance() % 40); n >= 0; --n) {
      const size_t size = chance() % 4 == 0 ? chance() % 150'000 : chance() % 300;
      const size_t from = chance() % (text.size() - size);
      pieces.push_back({const_cast<char*>(text.data()) + from, size});
      plain += text.substr(from, size);
    }
    ASSERT_EQ(decode(decoder, encode(encoder, stream, pieces)), plain) << round;
  }
}

// Each flush stands alone: what was given can be decoded, whole, before anything else is written.
TEST(S2Encoder, EveryFlushIsComplete) {
  Encoder encoder;
  EncoderStream stream;
  Decoder decoder;
  for (int n = 0; n < 1000; ++n) {
    stream.level = kLevels[n / 100 % 4];  // and the level may change between them
    const std::string plain = n % 3 == 0 ? std::string("PING\r\n") : wire(static_cast<size_t>(n) / 10 + 1);
    ASSERT_EQ(decode(decoder, encode(encoder, stream, plain)), plain);
  }
}

TEST(S2Encoder, BeginsItsStreamOnce) {
  Encoder encoder;
  EncoderStream one, two;
  EXPECT_EQ(encode(encoder, one, std::string()), "");
  EXPECT_EQ(encode(encoder, one, "abc").substr(0, 10), std::string("\xff\x06\x00\x00S2sTwO", 10));
  EXPECT_EQ(encode(encoder, one, "abc"), encode(encoder, two, "abc").substr(10));
}

TEST(S2Encoder, WhatDoesNotShrinkStaysAsItIs) {
  Encoder encoder;
  EncoderStream stream{.level = Level::kBest, .begun = true};
  const std::string plain = noise(150'000, 9);
  const std::string packed = encode(encoder, stream, plain);
  EXPECT_EQ(packed.size(), plain.size() + 3 * (kChunkHeader + kChecksum));
  EXPECT_EQ(packed[0], kChunkUncompressed);
}

TEST(S2Encoder, EffortsPayOff) {
  Encoder encoder;
  const std::string plain = wire(20'000);
  size_t sizes[4];
  for (size_t i = 0; i < 4; ++i) {
    EncoderStream stream{.level = kLevels[i]};
    sizes[i] = encode(encoder, stream, plain).size();
  }
  EXPECT_GT(sizes[0], plain.size());
  EXPECT_LT(sizes[1], plain.size() / 2);
  EXPECT_LT(sizes[2], sizes[1]);
  EXPECT_LE(sizes[3], sizes[2]);
}

TEST(S2Encoder, AllocatesNothingWhenWarm) {
  Encoder encoder;
  const std::string text = wire(3000);
  std::vector<char> out(Encoder::max_encoded(text.size()));
  Decoder decoder;
  EncoderStream stream;
  const auto turn = [&] {
    for (const Level level : kLevels) {
      stream.level = level;
      const iovec pieces[] = {{const_cast<char*>(text.data()), 100},
                              {const_cast<char*>(text.data()) + 100, text.size() - 100}};
      const size_t size = encoder.encode(stream, pieces, out.data());
      std::string_view in(out.data(), size / 3), bytes;
      while (decoder.next(in, bytes) == DecodeStatus::kBytes) continue;
      in = std::string_view(out.data(), size).substr(size / 3);
      while (decoder.next(in, bytes) == DecodeStatus::kBytes) continue;
    }
  };
  turn();
  turn();
  const size_t before = allocations;
  for (int n = 0; n < 10; ++n) turn();
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(decoder.error(), DecodeError::kNone);
}

}  // namespace
}  // namespace peregrine::net::s2
