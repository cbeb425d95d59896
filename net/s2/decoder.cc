#include "net/s2/decoder.h"

#include <algorithm>
#include <cstring>

#include "net/s2/block_decoder.h"
#include "net/s2/crc32c.h"

namespace peregrine::net::s2 {
namespace {

constexpr size_t kGrowth = 8;

}  // namespace

std::string_view error_text(DecodeError error) {
  switch (error) {
    case DecodeError::kNone:
      return "";
    case DecodeError::kCorrupt:
      return "s2: corrupt input";
    case DecodeError::kChecksum:
      return "s2: corrupt input, crc mismatch";
    case DecodeError::kUnsupported:
      return "s2: unsupported input";
  }
  return "";
}

DecodeStatus Decoder::next(std::string_view& in, std::string_view& out) {
  if (error_ != DecodeError::kNone) return DecodeStatus::kError;
  if (passed_on_) gathered_.clear();
  passed_on_ = false;
  while (!in.empty()) {
    if (header_bytes_ < kChunkHeader) {
      const size_t n = std::min(in.size(), kChunkHeader - header_bytes_);
      std::memcpy(header_ + header_bytes_, in.data(), n);
      header_bytes_ = static_cast<uint8_t>(header_bytes_ + n);
      in.remove_prefix(n);
      if (header_bytes_ < kChunkHeader) return DecodeStatus::kMore;
      if (const DecodeError error = accept_header(); error != DecodeError::kNone) return fail(error);
      if (left_ == 0) header_bytes_ = 0;  // only what may be skipped is ever empty
      continue;
    }

    const std::string_view piece = in.substr(0, left_);
    in.remove_prefix(piece.size());
    left_ -= static_cast<uint32_t>(piece.size());
    if (header_[0] >= kChunkFirstSkippable && header_[0] != kChunkIdentifier) {
      if (left_ == 0) header_bytes_ = 0;
      continue;
    }
    std::string_view chunk = piece;
    const bool gathers = left_ > 0 || !gathered_.empty();
    if (gathers) {
      gather(piece);
      if (left_ > 0) return DecodeStatus::kMore;
      chunk = gathered_;
    }
    header_bytes_ = 0;
    out = {};
    if (const DecodeError error = finish_chunk(chunk, out); error != DecodeError::kNone) return fail(error);
    passed_on_ = gathers && header_[0] == kChunkUncompressed && !out.empty();
    if (gathers && !passed_on_) gathered_.clear();
    if (!out.empty()) return DecodeStatus::kBytes;
  }
  return DecodeStatus::kMore;
}

// Decides by type and length alone, before a byte of the chunk is kept.
DecodeError Decoder::accept_header() {
  const uint8_t type = header_[0];
  left_ = header_[1] | (static_cast<uint32_t>(header_[2]) << 8) | (static_cast<uint32_t>(header_[3]) << 16);
  if (!identified_ && type != kChunkIdentifier) return DecodeError::kCorrupt;
  switch (type) {
    case kChunkIdentifier:
      if (left_ != kIdentifierS2.size()) return DecodeError::kCorrupt;
      identified_ = true;
      return DecodeError::kNone;
    case kChunkCompressed:
      if (left_ < kChecksum || left_ - kChecksum > max_block_bytes(max_decoded())) return DecodeError::kCorrupt;
      return DecodeError::kNone;
    case kChunkUncompressed:
      if (left_ < kChecksum || left_ - kChecksum > max_decoded()) return DecodeError::kCorrupt;
      return DecodeError::kNone;
    default:
      return type < kChunkFirstSkippable ? DecodeError::kUnsupported : DecodeError::kNone;
  }
}

// Grown in few steps, and by what has come: not touched, the rest of it costs nobody anything.
void Decoder::gather(std::string_view piece) {
  const size_t needed = gathered_.size() + piece.size();
  if (needed > gathered_.capacity()) gathered_.reserve(std::min<size_t>(needed + left_, kGrowth * needed));
  gathered_.append(piece);
}

DecodeError Decoder::finish_chunk(std::string_view chunk, std::string_view& out) {
  if (header_[0] == kChunkIdentifier) {
    if (chunk != kIdentifierS2 && chunk != kIdentifierSnappy) return DecodeError::kCorrupt;
    snappy_ = chunk == kIdentifierSnappy;
    return DecodeError::kNone;
  }
  const auto* head = reinterpret_cast<const unsigned char*>(chunk.data());
  const uint32_t checksum = head[0] | (static_cast<uint32_t>(head[1]) << 8) | (static_cast<uint32_t>(head[2]) << 16) |
                            (static_cast<uint32_t>(head[3]) << 24);
  chunk.remove_prefix(kChecksum);
  if (header_[0] == kChunkCompressed) {
    const auto block = block_head(chunk);
    if (!block || block->decoded_size > max_decoded()) return DecodeError::kCorrupt;
    if (block->decoded_size + kDecodeSlack > decoded_capacity_) {
      const size_t capacity = std::min(max_block_, std::max<size_t>(4096, 2 * block->decoded_size)) + kDecodeSlack;
      decoded_bytes_ = std::make_unique_for_overwrite<char[]>(capacity);
      decoded_capacity_ = capacity;
    }
    if (!decode_block(chunk.substr(block->head_size), decoded_bytes_.get(), block->decoded_size))
      return DecodeError::kCorrupt;
    chunk = {decoded_bytes_.get(), block->decoded_size};
  }
  if (masked_crc32c(chunk.data(), chunk.size()) != checksum) return DecodeError::kChecksum;
  out = chunk;
  return DecodeError::kNone;
}

}  // namespace peregrine::net::s2
