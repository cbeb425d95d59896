#include "net/s2/block_decoder.h"

#include <cstring>

#include "net/s2/format.h"

namespace peregrine::net::s2 {
namespace {

uint32_t little_endian(const unsigned char* at, size_t bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value |= static_cast<uint32_t>(at[i]) << (8 * i);
  return value;
}

// The source may overlap its own copy: then the bytes between repeat themselves.
void copy_within(char* to, size_t offset, size_t length) {
  const char* from = to - offset;
  if (offset >= 16) {  // a step never reads what it wrote itself; the last one may write up to 15 bytes too many
    for (size_t done = 0; done < length; done += 16) std::memcpy(to + done, from + done, 16);
  } else if (offset == 1) {
    std::memset(to, *from, length);
  } else if (length < 16) {
    for (size_t i = 0; i < length; ++i) to[i] = from[i];
  } else {  // each step doubles what is there to copy from
    for (; length > offset; to += offset, length -= offset, offset *= 2) std::memcpy(to, from, offset);
    std::memcpy(to, from, length);
  }
}

}  // namespace

std::optional<BlockHead> block_head(std::string_view in) {
  uint64_t size = 0;
  for (size_t i = 0; i < 5 && i < in.size(); ++i) {
    const auto byte = static_cast<unsigned char>(in[i]);
    size |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      if (size > UINT32_MAX) return std::nullopt;
      return BlockHead{static_cast<size_t>(size), i + 1};
    }
  }
  return std::nullopt;
}

bool decode_block(std::string_view elements, char* const to, size_t decoded_size) {
  const auto* in = reinterpret_cast<const unsigned char*>(elements.data());
  const unsigned char* const end = in + elements.size();
  size_t done = 0;
  size_t offset = 0;  // 0 until the first copy: a repeat before it has nothing to repeat
  while (in < end) {
    const unsigned char tag = *in++;
    const auto left = static_cast<size_t>(end - in);
    size_t length;
    switch (tag & 3) {
      case kLiteral: {
        length = static_cast<size_t>(tag >> 2) + 1;
        if (length <= 16 && left >= 16 && length <= decoded_size - done) {  // most of them; slack takes the rest
          std::memcpy(to + done, in, 16);
          in += length;
          done += length;
          continue;
        }
        if (length > 60) {
          const size_t extra = length - 60;
          if (left < extra) return false;
          length = static_cast<size_t>(little_endian(in, extra)) + 1;
          in += extra;
        }
        if (length > static_cast<size_t>(end - in) || length > decoded_size - done) return false;
        std::memcpy(to + done, in, length);
        in += length;
        done += length;
        continue;
      }
      case kCopy1: {
        if (left < 1) return false;
        const size_t given = (static_cast<size_t>(tag & 0xe0) << 3) | *in++;
        length = (tag >> 2) & 7;
        if (given != 0) {
          offset = given;
        } else if (length >= 5) {  // a repeat whose length stands behind it, in 1, 2 or 3 bytes
          const size_t extra = length - 4;
          if (static_cast<size_t>(end - in) < extra) return false;
          constexpr size_t kBase[] = {4, 1u << 8, 1u << 16};
          length = little_endian(in, extra) + kBase[extra - 1];
          in += extra;
        }
        length += 4;
        break;
      }
      case kCopy2:
        if (left < 2) return false;
        length = static_cast<size_t>(tag >> 2) + 1;
        offset = little_endian(in, 2);
        in += 2;
        break;
      default:
        if (left < 4) return false;
        length = static_cast<size_t>(tag >> 2) + 1;
        offset = little_endian(in, 4);
        in += 4;
        break;
    }
    if (offset == 0 || offset > done || length > decoded_size - done) return false;
    copy_within(to + done, offset, length);
    done += length;
  }
  return done == decoded_size;
}

}  // namespace peregrine::net::s2
