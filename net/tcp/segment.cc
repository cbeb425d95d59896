#include "net/tcp/segment.h"

#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

namespace {

enum Option : uint8_t {
  kEnd = 0,
  kNop = 1,
  kMss = 2,
  kWindowScale = 3,
  kSackPermitted = 4,
  kSack = 5,
  kTimestamp = 8,
  kUserTimeout = 28
};

void read_timestamp(const uint8_t* value, Segment& out) {
  out.has_timestamp = true;
  out.timestamp = load32(value);
  out.timestamp_echo = load32(value + 4);
}

bool parse_options(const uint8_t* p, const uint8_t* end, Segment& out) {
  // What nearly every segment of a connection carries: NOP, NOP, timestamp (RFC 7323 appendix A).
  if (end - p == 12 && load32(p) == 0x0101080a) {
    read_timestamp(p + 4, out);
    return true;
  }
  const bool syn = out.has(kSyn);
  while (p < end) {
    const uint8_t kind = p[0];
    if (kind == kEnd) return true;
    if (kind == kNop) {
      ++p;
      continue;
    }
    if (end - p < 2) return false;
    const uint8_t length = p[1];
    if (length < 2 || length > end - p) return false;
    const uint8_t* value = p + 2;
    switch (kind) {
      case kMss:
        if (syn && length == 4) out.mss = load16(value);
        break;
      case kWindowScale:
        // RFC 7323 section 2.3: larger shifts are taken for 14.
        if (syn && length == 3) out.window_scale = static_cast<int8_t>(value[0] > 14 ? 14 : value[0]);
        break;
      case kSackPermitted:
        if (syn && length == 2) out.sack_permitted = true;
        break;
      case kSack:
        if (length >= 10 && (length - 2) % 8 == 0) {
          out.sack_count = 0;
          for (; out.sack_count < (length - 2) / 8 && out.sack_count < 4; ++out.sack_count, value += 8) {
            out.sack[out.sack_count] = {load32(value), load32(value + 4)};
          }
        }
        break;
      case kTimestamp:
        if (length == 10) read_timestamp(value, out);
        break;
      case kUserTimeout:
        if (length == 4) {
          const uint32_t wish = load16(value);
          out.user_timeout_s = (wish & 0x7fff) * ((wish & 0x8000) != 0 ? 60 : 1);
        }
        break;
      default:
        break;
    }
    p += length;
  }
  return true;
}

}  // namespace

Drop parse_segment(const uint8_t* data, size_t size, Segment& out) {
  if (size < 20) return Drop::tcp_truncated;
  const size_t header = (data[12] >> 4) * 4u;
  if (header < 20 || header > size) return Drop::tcp_data_offset;
  out.source_port = load16(data);
  out.destination_port = load16(data + 2);
  out.seq = load32(data + 4);
  out.ack = load32(data + 8);
  out.flags = data[13];
  out.window = load16(data + 14);
  out.payload = data + header;
  out.payload_bytes = static_cast<uint32_t>(size - header);
  if (out.source_port == 0 || out.destination_port == 0) return Drop::tcp_port_zero;
  if ((out.flags & (kFin | kSyn | kRst | kAck)) == 0) return Drop::tcp_flags;
  if (out.has(kSyn) && (out.flags & (kFin | kRst)) != 0) return Drop::tcp_flags;
  if (!parse_options(data + 20, data + header, out)) return Drop::tcp_options;
  return kNotDropped;
}

uint32_t write_header(uint8_t* out, const HeaderFields& fields) {
  uint8_t* p = out + 20;
  if (fields.mss != 0) {
    store32(p, uint32_t{kMss} << 24 | 4u << 16 | fields.mss);
    p += 4;
  }
  if (fields.has_timestamp) {
    if (fields.sack_permitted) {
      store32(p, uint32_t{kSackPermitted} << 24 | 2u << 16 | uint32_t{kTimestamp} << 8 | 10);
    } else {
      store32(p, 0x01010000u | uint32_t{kTimestamp} << 8 | 10);
    }
    store32(p + 4, fields.timestamp);
    store32(p + 8, fields.timestamp_echo);
    p += 12;
  } else if (fields.sack_permitted) {
    store32(p, 0x01010000u | uint32_t{kSackPermitted} << 8 | 2);
    p += 4;
  }
  if (fields.window_scale >= 0) {
    store32(p, 0x01000000u | uint32_t{kWindowScale} << 16 | 3u << 8 | static_cast<uint8_t>(fields.window_scale));
    p += 4;
  }
  if (fields.user_timeout != 0) {
    store32(p, uint32_t{kUserTimeout} << 24 | 4u << 16 | fields.user_timeout);
    p += 4;
  }
  if (fields.sack_count > 0) {
    store32(p, 0x01010000u | uint32_t{kSack} << 8 | (2u + fields.sack_count * 8u));
    p += 4;
    for (int i = 0; i < fields.sack_count; ++i, p += 8) {
      store32(p, fields.sack[i].start);
      store32(p + 4, fields.sack[i].end);
    }
  }
  const auto size = static_cast<uint32_t>(p - out);
  store16(out, fields.source_port);
  store16(out + 2, fields.destination_port);
  store32(out + 4, fields.seq);
  store32(out + 8, fields.ack);
  out[12] = static_cast<uint8_t>(size / 4 << 4);
  out[13] = fields.flags;
  store16(out + 14, fields.window);
  store32(out + 16, 0);  // checksum, urgent pointer
  return size;
}

}  // namespace peregrine::net::tcp
