// CRC-32C (Castagnoli) as Snappy's framing format wants it: over the uncompressed bytes, rotated and offset ("masked"),
// because a CRC over data that holds its own CRC says little.
//
// Pure functions, any thread. The processor's own instruction where it has one (asked once, at start), tables
// elsewhere. The instruction takes three cycles but can begin every cycle: longer input goes through it in three
// strands, whose results are then joined. Source: Snappy framing format 1.0, section 3; RFC 3720 B.4 for the check
// values in the tests.
#pragma once

#include <cstddef>
#include <cstdint>

namespace peregrine::net::s2 {

// `crc`: of what stands before these bytes; 0 = nothing.
uint32_t crc32c(const void* bytes, size_t size, uint32_t crc = 0);

inline uint32_t masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }
inline uint32_t masked_crc32c(const void* bytes, size_t size) { return masked(crc32c(bytes, size)); }

// The two ways, apart, so that a test can hold one against the other.
uint32_t crc32c_by_table(const void* bytes, size_t size, uint32_t crc = 0);
bool crc32c_has_instruction();

}  // namespace peregrine::net::s2
