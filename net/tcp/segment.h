// A TCP segment as a view: header fields and the options we know (RFC 9293 section 3.1, 7323, 2018, 5482).
//
// parse_segment() never reads outside [data, data + size) whatever the bytes are, allocates nothing, and either fills
// `out` or names the reason. Options: a broken length drops the segment; a known option of a wrong size is ignored, as
// is everything unknown. MSS, window scale and SACK-permitted count only with SYN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "net/tcp/stats.h"

namespace peregrine::net::tcp {

inline constexpr uint8_t kFin = 0x01, kSyn = 0x02, kRst = 0x04, kPsh = 0x08, kAck = 0x10, kUrg = 0x20, kEce = 0x40,
                         kCwr = 0x80;

inline constexpr Drop kNotDropped = Drop::kCount;

struct SackBlock {
  uint32_t start, end;
};

struct Segment {
  uint16_t source_port = 0, destination_port = 0;
  uint32_t seq = 0, ack = 0;
  uint16_t window = 0;  // as on the wire, unscaled
  uint8_t flags = 0;
  bool has_timestamp = false;
  uint32_t timestamp = 0, timestamp_echo = 0;
  uint16_t mss = 0;          // 0: not given
  int8_t window_scale = -1;  // -1: not given
  bool sack_permitted = false;
  uint32_t user_timeout_s = 0;  // RFC 5482; 0: not given
  uint8_t sack_count = 0;
  SackBlock sack[4];
  const uint8_t* payload = nullptr;
  uint32_t payload_bytes = 0;

  bool has(uint8_t flag) const { return (flags & flag) != 0; }
  // Sequence space taken (RFC 9293: SEG.LEN).
  uint32_t length() const { return payload_bytes + (has(kSyn) ? 1 : 0) + (has(kFin) ? 1 : 0); }
};

Drop parse_segment(const uint8_t* data, size_t size, Segment& out);

// What goes into a segment of ours. write_header() returns its size: 20 to 60, a multiple of 4. The checksum field is
// 0.
struct HeaderFields {
  uint16_t source_port, destination_port;
  uint32_t seq, ack;
  uint8_t flags;
  uint16_t window;
  uint16_t mss = 0;
  int8_t window_scale = -1;
  bool sack_permitted = false;
  bool has_timestamp = false;
  uint32_t timestamp = 0, timestamp_echo = 0;
  uint16_t user_timeout = 0;  // as on the wire: seconds, or minutes with the highest bit; 0: left out
  uint8_t sack_count = 0;     // at most 4, 3 with a timestamp
  SackBlock sack[4];
};
uint32_t write_header(uint8_t* out, const HeaderFields& fields);

}  // namespace peregrine::net::tcp
