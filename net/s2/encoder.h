// Bytes -> chunks of an S2 stream, one flush at a time.
//
// One Encoder per shard: it holds the tables, and every compressed session of the shard uses it in turn. What a session
// must remember between flushes is an EncoderStream. Each call writes whole chunks, so that the receiver can decode all
// it was given without waiting for more. Blocks hold up to 64 KiB and use only what S2 allows; a piece that would not
// shrink by a thirty-second is written as it is. No allocation once an effort has been used.
//
// The stream begins with its identifier once; nats-server writes it again at every flush, and every reader takes both.
// kUncompressed is what nats-server calls s2_uncompressed: the framing and its checksums alone.
// Source: Snappy framing format 1.0; nats-server server.go s2WriterOptions, client.go flushOutbound.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "net/s2/block_encoder.h"
#include "net/s2/format.h"

namespace peregrine::net::s2 {

enum class Level : uint8_t { kUncompressed, kFast, kBetter, kBest };

struct EncoderStream {
  Level level = Level::kFast;  // may change between flushes (s2_auto)
  bool begun = false;
};

// What stands before `size` bytes that are sent as they are, for who has them elsewhere: the stream's identifier, if it
// has not begun, the chunk's head and the checksum. `crc`: of the bytes (crc32c.h). write_head() writes head_size()
// bytes.
inline constexpr size_t kMostHead = kChunkHeader + kIdentifierS2.size() + kChunkHeader + kChecksum;
size_t head_size(const EncoderStream& stream);
void write_head(EncoderStream& stream, size_t size, uint32_t crc, char* to);

class Encoder {
 public:
  static constexpr size_t kBlock = BlockEncoder::kMaxInput;

  // What encode() may write for `size` bytes of input, whatever they are.
  static constexpr size_t max_encoded(size_t size) {
    return kChunkHeader + kIdentifierS2.size() + size + (size / kBlock + 1) * (kChunkHeader + kChecksum);
  }

  // Writes all of `pieces` to `to`, which has room for max_encoded(their sum); returns how many bytes that took.
  size_t encode(EncoderStream& stream, std::span<const iovec> pieces, char* to);
  size_t encode(EncoderStream& stream, std::string_view bytes, char* to) {
    const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    return encode(stream, std::span(&piece, 1), to);
  }

 private:
  char* chunk(Level level, std::string_view block, char* to);

  BlockEncoder blocks_;
  std::unique_ptr<char[]> joined_;  // one block's worth of small pieces
};

}  // namespace peregrine::net::s2
