// A stream of S2 or Snappy chunks, cut anywhere -> the bytes inside, as views.
//
// Owned by one session, on its shard. Reads all of S2 except dictionaries, which streams do not have: both identifiers,
// repeated wherever they come (nats-server begins a new stream at every flush), compressed and uncompressed chunks,
// padding and other skippable chunks, blocks up to `max_block`. Nothing is passed on before its CRC was right.
//
// Memory: a chunk that lies whole in what was received is decoded from there, or, when it is not compressed, passed on
// where it lies. Otherwise it is gathered first, in a buffer that grows with what really came and not with what was
// announced; who wants to keep what is passed on from there may have it. At most max_block + max_block_bytes(max_block)
// bytes in all, taken once and kept. Errors are values and final: after one, every call answers the same. Source:
// Snappy framing format 1.0; nats-server reads with klauspost/compress/s2, whose limits these are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "net/s2/format.h"

namespace peregrine::net::s2 {

enum class DecodeError : uint8_t { kNone, kCorrupt, kChecksum, kUnsupported };

// What klauspost/compress says of the same input: the words of nats-server's logs.
std::string_view error_text(DecodeError error);

enum class DecodeStatus : uint8_t { kMore, kBytes, kError };

class Decoder {
 public:
  explicit Decoder(size_t max_block = kMaxBlock) : max_block_(max_block) {}

  // Takes from the front of `in`. kBytes: `out` (never empty) is valid until the next call and as long as what `in`
  // viewed; call again, also when `in` is empty now. kMore: `in` is used up. kError: see error().
  DecodeStatus next(std::string_view& in, std::string_view& out);

  // What the last `out` views was gathered: the caller may take the memory, the view stays good as long as that does.
  bool last_was_gathered() const { return passed_on_; }
  std::string take_gathered() {
    passed_on_ = false;
    return std::move(gathered_);
  }

  DecodeError error() const { return error_; }
  // True between chunks: a connection that ends here has not lost anything.
  bool at_boundary() const { return header_bytes_ == 0; }
  size_t memory() const { return gathered_.capacity() + decoded_capacity_; }

 private:
  DecodeStatus fail(DecodeError error) {
    error_ = error;
    return DecodeStatus::kError;
  }
  DecodeError accept_header();
  DecodeError finish_chunk(std::string_view chunk, std::string_view& out);
  void gather(std::string_view piece);
  size_t max_decoded() const { return snappy_ && max_block_ > kMaxSnappyBlock ? kMaxSnappyBlock : max_block_; }

  const size_t max_block_;
  unsigned char header_[kChunkHeader] = {};
  uint8_t header_bytes_ = 0;  // of header_, which are there; 4: inside a chunk
  bool identified_ = false;
  bool snappy_ = false;
  DecodeError error_ = DecodeError::kNone;
  uint32_t left_ = 0;       // bytes of the chunk not taken yet
  bool passed_on_ = false;  // `gathered_` is what the caller reads
  std::string gathered_;
  size_t decoded_capacity_ = 0;
  std::unique_ptr<char[]> decoded_bytes_;
};

}  // namespace peregrine::net::s2
