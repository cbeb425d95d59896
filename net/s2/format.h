// The numbers of the S2 stream format, which is Snappy's framing format with larger blocks and one more kind of copy.
//
// A stream is a row of chunks: type (1 byte), length (3 bytes, little endian), that many bytes. The first chunk is an
// identifier. A data chunk starts with the masked CRC of what it decodes to. A compressed block is a varint (the
// decoded length) and elements whose low two bits tell the kind. A copy of kind 1 with offset 0, which Snappy never
// writes, repeats the previous offset and may be much longer than other copies. Source: Snappy's framing_format.txt and
// format_description.txt; github.com/klauspost/compress/s2 for the repeats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace peregrine::net::s2 {

inline constexpr uint8_t kChunkCompressed = 0x00;
inline constexpr uint8_t kChunkUncompressed = 0x01;
inline constexpr uint8_t kChunkFirstSkippable = 0x80;  // 0x02..0x7f must not be skipped, from here on one may
inline constexpr uint8_t kChunkIdentifier = 0xff;

inline constexpr size_t kChunkHeader = 4;
inline constexpr size_t kChecksum = 4;
inline constexpr std::string_view kIdentifierS2 = "S2sTwO";
inline constexpr std::string_view kIdentifierSnappy = "sNaPpY";

inline constexpr size_t kMaxBlock = 4u << 20;         // decoded bytes of an S2 block
inline constexpr size_t kMaxSnappyBlock = 64u << 10;  // and in a stream that says it is Snappy's

// No sensible encoder makes more of `size` bytes: all literals cost a few bytes, Snappy's own bound is one in six.
constexpr size_t max_block_bytes(size_t size) { return 32 + size + size / 6; }

inline constexpr uint8_t kLiteral = 0;
inline constexpr uint8_t kCopy1 = 1;  // length 4..11, offset below 2048; offset 0: repeat
inline constexpr uint8_t kCopy2 = 2;  // length 1..64, 16 bit offset
inline constexpr uint8_t kCopy4 = 3;  // length 1..64, 32 bit offset

}  // namespace peregrine::net::s2
