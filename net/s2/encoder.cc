#include "net/s2/encoder.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "net/s2/crc32c.h"

namespace peregrine::net::s2 {
namespace {

char* chunk_head(uint8_t type, size_t length, char* to) {
  *to++ = static_cast<char>(type);
  for (int shift = 0; shift < 24; shift += 8) *to++ = static_cast<char>(length >> shift);
  return to;
}

char* identifier(char* to) {
  to = chunk_head(kChunkIdentifier, kIdentifierS2.size(), to);
  return std::copy(kIdentifierS2.begin(), kIdentifierS2.end(), to);
}

char* data_head(uint8_t type, size_t size, uint32_t crc, char* to) {
  to = chunk_head(type, size + kChecksum, to);
  const uint32_t checksum = masked(crc);
  for (int shift = 0; shift < 32; shift += 8) *to++ = static_cast<char>(checksum >> shift);
  return to;
}

}  // namespace

size_t head_size(const EncoderStream& stream) { return stream.begun ? kChunkHeader + kChecksum : kMostHead; }

void write_head(EncoderStream& stream, size_t size, uint32_t crc, char* to) {
  if (!stream.begun) to = identifier(to);
  stream.begun = true;
  data_head(kChunkUncompressed, size, crc, to);
}

size_t Encoder::encode(EncoderStream& stream, std::span<const iovec> pieces, char* const to) {
  char* at = to;
  size_t joined = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    std::string_view rest(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
    if (rest.empty()) continue;
    if (!stream.begun) {
      at = identifier(at);
      stream.begun = true;
    }
    // Whole blocks are read where they lie, and so is a last piece that needs no company.
    while (joined == 0 && (rest.size() >= kBlock || (i + 1 == pieces.size() && !rest.empty()))) {
      const std::string_view block = rest.substr(0, kBlock);
      at = chunk(stream.level, block, at);
      rest.remove_prefix(block.size());
    }
    while (!rest.empty()) {
      if (!joined_) joined_ = std::make_unique_for_overwrite<char[]>(kBlock);
      const std::string_view part = rest.substr(0, kBlock - joined);
      std::memcpy(joined_.get() + joined, part.data(), part.size());
      joined += part.size();
      rest.remove_prefix(part.size());
      if (joined == kBlock) {
        at = chunk(stream.level, {joined_.get(), joined}, at);
        joined = 0;
      }
    }
  }
  if (joined > 0) at = chunk(stream.level, {joined_.get(), joined}, at);
  return static_cast<size_t>(at - to);
}

char* Encoder::chunk(Level level, std::string_view block, char* to) {
  const uint32_t crc = crc32c(block.data(), block.size());
  char* const body = to + kChunkHeader + kChecksum;
  size_t size = 0;
  if (level != Level::kUncompressed) {
    const auto effort = static_cast<Effort>(static_cast<uint8_t>(level) - static_cast<uint8_t>(Level::kFast));
    size = blocks_.encode(effort, block, body, block.size() - block.size() / 32);
  }
  const bool shrunk = size > 0;
  if (!shrunk) {
    size = block.size();
    std::memcpy(body, block.data(), size);
  }
  data_head(shrunk ? kChunkCompressed : kChunkUncompressed, size, crc, to);
  return body + size;
}

}  // namespace peregrine::net::s2
