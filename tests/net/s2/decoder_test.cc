#include "net/s2/decoder.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "net/s2/block_decoder.h"
#include "net/s2/crc32c.h"

namespace peregrine::net::s2 {
namespace {

std::string identifier(std::string_view body = kIdentifierS2) {
  return std::string("\xff\x06\x00\x00", 4).append(body);
}

std::string little(size_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

std::string chunk(uint8_t type, const std::string& body) {
  return std::string(1, static_cast<char>(type)) + little(body.size(), 3) + body;
}

std::string plain_chunk(const std::string& bytes) {
  return chunk(kChunkUncompressed, little(masked_crc32c(bytes.data(), bytes.size()), 4) + bytes);
}

// A compressed chunk from elements written by hand, and what they decode to.
std::string packed_chunk(const std::string& elements, const std::string& plain) {
  std::string head;
  size_t size = plain.size();
  for (; size >= 0x80; size >>= 7) head.push_back(static_cast<char>(size | 0x80));
  head.push_back(static_cast<char>(size));
  return chunk(kChunkCompressed, little(masked_crc32c(plain.data(), plain.size()), 4) + head + elements);
}

struct Outcome {
  std::string bytes;
  DecodeError error = DecodeError::kNone;
  bool at_boundary = true;
};

// Each piece lies in memory of its own, exactly as long: reading beyond it would show.
Outcome decode(const std::string& stream, const std::vector<size_t>& cuts, Decoder& decoder) {
  Outcome outcome;
  size_t at = 0;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const size_t to = i < cuts.size() ? cuts[i] : stream.size();
    const std::vector<char> piece(stream.begin() + static_cast<long>(at), stream.begin() + static_cast<long>(to));
    at = to;
    std::string_view in(piece.data(), piece.size()), out;
    DecodeStatus status;
    while ((status = decoder.next(in, out)) == DecodeStatus::kBytes) {
      EXPECT_FALSE(out.empty());
      outcome.bytes += out;
    }
    EXPECT_TRUE(status == DecodeStatus::kError || in.empty());
    if (status == DecodeStatus::kError) break;
  }
  outcome.error = decoder.error();
  outcome.at_boundary = decoder.at_boundary();
  return outcome;
}

Outcome decode(const std::string& stream, const std::vector<size_t>& cuts = {}) {
  Decoder decoder;
  return decode(stream, cuts, decoder);
}

// Whole, cut at every place, and byte by byte.
void expect_decodes(const std::string& stream, const std::string& plain) {
  std::vector<size_t> every;
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    every.push_back(cut);
    if (stream.size() > 2000 && cut > 200 && cut % 997 != 0) continue;
    const Outcome outcome = decode(stream, {cut});
    ASSERT_EQ(outcome.error, DecodeError::kNone) << "cut at " << cut;
    ASSERT_EQ(outcome.bytes, plain) << "cut at " << cut;
    ASSERT_TRUE(outcome.at_boundary);
  }
  EXPECT_EQ(decode(stream, every).bytes, plain);
}

TEST(S2Decoder, BothIdentifiersAndRepeatedOnes) {
  expect_decodes(identifier() + plain_chunk("one") + identifier() + plain_chunk("two") + identifier(kIdentifierSnappy) +
                     plain_chunk("three") + identifier() + identifier() + plain_chunk("four"),
                 "onetwothreefour");
}

TEST(S2Decoder, SkipsPaddingAndWhatMayBeSkipped) {
  expect_decodes(identifier() + chunk(0xfe, std::string(300, '\0')) + plain_chunk("a") + chunk(0x80, "x") +
                     chunk(0x99, "") + plain_chunk("") + chunk(0xfd, std::string(70, 'y')) + plain_chunk("b"),
                 "ab");
}

TEST(S2Decoder, EveryFormOfLiteralAndCopy) {
  const std::string run(70, 'r'), longer(300, 's'), longest(70'000, 't'), huge(70'000, 'u');
  const std::string elements =
      std::string(1, 9 << 2) + "abcdefghij" +                                 // literal, length in the tag
      std::string("\xf0\x45", 2) + run +                                      // 1 byte of length
      std::string("\xf4", 1) + little(299, 2) + longer +                      // 2
      std::string("\xf8", 1) + little(69'999, 3) + longest +                  // 3
      std::string("\xfc", 1) + little(69'999, 4) + huge +                     // 4
      std::string(1, 1 | (7 << 2)) + "\x0b" +                                 // copy of 11 from 11 before
      std::string(1, static_cast<char>(2 | (63 << 2))) + little(300, 2) +     // copy of 64, 16 bit offset
      std::string(1, static_cast<char>(3 | (63 << 2))) + little(70'100, 4) +  // copy of 64, 32 bit offset
      std::string("\x01\x00", 2) +                                            // repeats: length 4
      std::string("\x11\x00", 2) +                                            // 8
      std::string("\x15\x00\x00", 3) + std::string("\x15\x00\xff", 3) +       // 8 and 263
      std::string("\x19\x00\x00\x00", 4) +                                    // 260
      std::string("\x1d\x00\x02\x00\x00", 5);                                 // 65542
  std::string plain = "abcdefghij" + run + longer + longest + huge;
  const auto copy = [&](size_t offset, size_t length) {
    for (size_t i = 0; i < length; ++i) plain.push_back(plain[plain.size() - offset]);
  };
  copy(11, 11), copy(300, 64), copy(70'100, 64);
  for (const size_t length : {4, 8, 8, 263, 260, 65'542}) copy(70'100, length);
  expect_decodes(identifier() + packed_chunk(elements, plain), plain);
}

TEST(S2Decoder, CopiesThatOverlapThemselves) {
  for (size_t offset = 1; offset <= 40; ++offset) {
    std::string plain, elements;
    for (size_t i = 0; i < offset; ++i) plain.push_back(static_cast<char>('A' + i));
    elements = std::string(1, static_cast<char>((offset - 1) << 2)) + plain;
    for (const size_t length : {1, 5, 15, 16, 17, 33, 64}) {
      elements += std::string(1, static_cast<char>(2 | ((length - 1) << 2))) + little(offset, 2);
      for (size_t i = 0; i < length; ++i) plain.push_back(plain[plain.size() - offset]);
    }
    const Outcome outcome = decode(identifier() + packed_chunk(elements, plain));
    EXPECT_EQ(outcome.bytes, plain) << offset;
  }
}

// Made by klauspost/compress v1.20.0, WriterConcurrency(1) and each level: repeats with an 8, 16 and 24 bit length.
TEST(S2Decoder, WhatTheReferenceWrites) {
  std::string plain;
  for (int n = 0; n < 9; ++n) plain += "RMSG $G orders.eu." + std::to_string(n) + ".created 5\r\nhello\r\n";
  plain += std::string(300, 'x') + std::string(70'000, '-');
  for (int n = 0; n < 6; ++n) plain += "the end of the tale";
  const std::string begin =
      "ff06000053327354774f00LENGTH006d53ae59e4a80494524d5347202447206f72646572732e65752e302e6372656174656420350d0a6865"
      "6c6c"
      "6f0d0a462600003115001d003215001d003315001d003415001d003515001d003615001d003715001d003815000b0078110119001f00002d"
      "1d00"
      "6b11";
  const auto bytes = [](const std::string& hex) {
    std::string out;
    for (size_t i = 0; i < hex.size(); i += 2)
      out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    return out;
  };
  const auto stream = [&](const std::string& length, const std::string& rest) {
    std::string hex = begin;
    return bytes(hex.replace(hex.find("LENGTH"), 6, length) + rest);
  };
  expect_decodes(stream("8100", "004874686520656e64206f66207468652074616c65111315004f"), plain);
  expect_decodes(stream("8000", "002874686520656e64206f6620010b0c74616c65111315004f"), plain);
}

TEST(S2Decoder, RefusesWhatIsBroken) {
  const std::string id = identifier();
  const auto error = [](const std::string& stream) { return decode(stream).error; };
  EXPECT_EQ(error(plain_chunk("no identifier")), DecodeError::kCorrupt);
  EXPECT_EQ(error("INFO {}\r\n"), DecodeError::kCorrupt);
  EXPECT_EQ(error(identifier("S2sTwo")), DecodeError::kCorrupt);
  EXPECT_EQ(error(chunk(0xff, "S2sTwO!")), DecodeError::kCorrupt);
  EXPECT_EQ(error(id + chunk(0x02, "reserved")), DecodeError::kUnsupported);
  EXPECT_EQ(error(id + chunk(0x7f, "reserved")), DecodeError::kUnsupported);
  EXPECT_EQ(error(id + chunk(kChunkUncompressed, "abc")), DecodeError::kCorrupt);
  EXPECT_EQ(error(id + chunk(kChunkCompressed, "abc")), DecodeError::kCorrupt);
  EXPECT_EQ(error(id + chunk(kChunkCompressed, "abcd")), DecodeError::kCorrupt);
  EXPECT_EQ(error(id + chunk(kChunkUncompressed, "abcdefgh")), DecodeError::kChecksum);
  const auto elements = [&](const std::string& bytes, size_t size) {
    return error(id + packed_chunk(bytes, std::string(size, 'a')));
  };
  EXPECT_EQ(elements(std::string("\x00", 1) + "a", 1), DecodeError::kNone);
  EXPECT_EQ(elements(std::string("\x00", 1) + "b", 1), DecodeError::kChecksum);
  EXPECT_EQ(elements("", 1), DecodeError::kCorrupt);
  EXPECT_EQ(elements(std::string("\x00", 1), 1), DecodeError::kCorrupt);         // literal without bytes
  EXPECT_EQ(elements(std::string("\x04", 1) + "aa", 1), DecodeError::kCorrupt);  // longer than the block says
  EXPECT_EQ(elements(std::string("\x00", 1) + "a", 2), DecodeError::kCorrupt);   // shorter
  EXPECT_EQ(elements(std::string("\xf0", 1), 1), DecodeError::kCorrupt);         // its length is missing
  EXPECT_EQ(elements(std::string("\xfc\xff\xff\xff\xff", 5) + "a", 1), DecodeError::kCorrupt);
  EXPECT_EQ(elements(std::string("\x00", 1) + "a" + "\x01", 5), DecodeError::kCorrupt);      // copy without an offset
  EXPECT_EQ(elements(std::string("\x00", 1) + "a" + "\x01\x02", 5), DecodeError::kCorrupt);  // from before the block
  EXPECT_EQ(elements(std::string("\x00", 1) + "a" + std::string("\x0e\x00\x00", 3), 5),
            DecodeError::kCorrupt);  // from 0
  EXPECT_EQ(elements(std::string("\x00", 1) + "a" + std::string("\x01\x00", 2), 5),
            DecodeError::kCorrupt);  // early repeat
  EXPECT_EQ(elements(std::string("\x00", 1) + "a\x01\x01" + std::string("\x15\x00", 2), 50), DecodeError::kCorrupt);
  EXPECT_EQ(elements(std::string("\x00", 1) + "a\x0e\x01", 5), DecodeError::kCorrupt);
  EXPECT_EQ(elements(std::string("\x00", 1) + "a\x0f\x01\x00\x00", 5), DecodeError::kCorrupt);
  EXPECT_EQ(error(id + chunk(kChunkCompressed, "crc_" + std::string(5, '\xff'))),
            DecodeError::kCorrupt);  // no end of varint
  EXPECT_EQ(error(id + chunk(kChunkCompressed, "crc_" + std::string("\xff\xff\xff\xff\x7f"))), DecodeError::kCorrupt);
}

TEST(S2Decoder, AnErrorIsFinal) {
  Decoder decoder;
  std::string_view in = "garbage", out;
  EXPECT_EQ(decoder.next(in, out), DecodeStatus::kError);
  const std::string good = identifier() + plain_chunk("late");
  in = good;
  EXPECT_EQ(decoder.next(in, out), DecodeStatus::kError);
  EXPECT_EQ(error_text(decoder.error()), "s2: corrupt input");
}

TEST(S2Decoder, BoundsOfBlocks) {
  const std::string full(kMaxBlock, 'f');
  EXPECT_EQ(decode(identifier() + plain_chunk(full)).bytes, full);
  EXPECT_EQ(decode(identifier() + plain_chunk(full + "f")).error, DecodeError::kCorrupt);
  EXPECT_EQ(decode(identifier() + packed_chunk(std::string("\x00", 1) + "f\x01\x01\x1d" + std::string(1, '\0') +
                                                   little(kMaxBlock - 5 - 4 - 65536, 3),
                                               full))
                .bytes,
            full);
  EXPECT_EQ(decode(identifier() + packed_chunk("", full + "f")).error, DecodeError::kCorrupt);
  // Where the stream says Snappy, Snappy's bound holds.
  const std::string small(kMaxSnappyBlock, 's');
  EXPECT_EQ(decode(identifier(kIdentifierSnappy) + plain_chunk(small)).bytes, small);
  EXPECT_EQ(decode(identifier(kIdentifierSnappy) + plain_chunk(small + "s")).error, DecodeError::kCorrupt);
}

// What was only announced costs nothing, and all that may be kept is bounded.
TEST(S2Decoder, MemoryFollowsWhatCame) {
  Decoder decoder;
  const std::string announced = identifier() + std::string("\x01\x04\x00\x40", 4) + "abcdef";
  std::string_view in = announced, out;
  EXPECT_EQ(decoder.next(in, out), DecodeStatus::kMore);
  EXPECT_FALSE(decoder.at_boundary());
  EXPECT_LE(decoder.memory(), 8192u);

  Decoder small(1000);
  std::mt19937 chance(7);
  for (int n = 0; n < 200; ++n) {
    const std::string plain(chance() % 1001, 'a');
    const std::string elements = plain.size() < 66 ? std::string(1, static_cast<char>((plain.size() - 1) << 2)) + plain
                                                   : std::string("\x00", 1) + "a";
    std::string stream = identifier() + plain_chunk(plain);
    if (!plain.empty() && plain.size() <= 60) stream += packed_chunk(elements, plain);
    const Outcome outcome = decode(stream, {chance() % stream.size()}, small);
    ASSERT_EQ(outcome.error, DecodeError::kNone);
  }
  EXPECT_LE(small.memory(), 1000 + max_block_bytes(1000) + 4096u);
}

}  // namespace
}  // namespace peregrine::net::s2
