// One compressed S2 block -> its bytes.
//
// Pure functions, any thread. They read nothing behind `in` and write nothing behind `capacity`; whatever the block
// holds, the answer is a value. The caller gives `to` with kDecodeSlack bytes more than the block decodes to: short
// copies are made sixteen bytes at a time and may write beyond their end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace peregrine::net::s2 {

inline constexpr size_t kDecodeSlack = 32;

struct BlockHead {
  size_t decoded_size;
  size_t head_size;  // bytes of `in` the length itself took
};

// How much the block says it decodes to; nothing when that is no varint of at most 32 bits.
std::optional<BlockHead> block_head(std::string_view in);

// Decodes what stands behind the head into exactly `decoded_size` bytes at `to`; false: the block is corrupt.
bool decode_block(std::string_view elements, char* to, size_t decoded_size);

}  // namespace peregrine::net::s2
