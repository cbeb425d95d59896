// What this kernel's io_uring can do, found by trying it: version numbers lie (vendor kernels, seccomp, sysctl).
//
// Runs on a small ring of its own on the calling thread, a fraction of a millisecond, once per process; the result is
// plain data that every shard's Backend is made from.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

namespace peregrine::net::uring {

// The defaults are what measured best; tests turn features off to run the fallbacks.
struct Options {
  uint32_t submission_entries = 1024;
  uint32_t completion_entries = 8192;
  // Receive buffers shared by all connections of a shard; memory is touched only as traffic needs it. With incremental
  // buffers the kernel packs many small receives into one buffer, so few large ones are best; as few as will do, since
  // the kernel takes them in turn and they are to stay in the L2 cache; and each twice what one receive may bring
  // (128 KiB): with less, most receives are cut where a block ends, and the peer's thread is woken for every piece
  // (2 x 128 KiB -> 2 x 256 KiB: 1 KiB messages 231 -> 159 ns; four, or 2 x 512 KiB, bring no more). Without
  // incremental buffers, each receive takes a whole one.
  uint16_t incremental_buffers = 2;  // a power of two, as is plain_buffers
  uint32_t incremental_bytes = 256 * 1024;
  uint16_t plain_buffers = 256;
  uint32_t plain_bytes = 16 * 1024;
  // Sends whose pieces average at least this much go out without a copy; 0 = never, the default: kSent then has to wait
  // for the peer's ACK, so a sender is held to one batch per round trip, and nothing here (loopback, veth) can show the
  // gain.
  uint32_t zero_copy_min_bytes = 0;
  bool zero_copy_on_loopback = false;  // it always copies there; for tests
  bool allow_deferred = true;
  bool allow_incremental = true;
  bool allow_limited = true;
};

struct Features {
  uint32_t setup_flags = 0;  // IORING_SETUP_*
  bool incremental = false;  // IOU_PBUF_RING_INC
  bool limited = false;      // a multishot receive can be told to end after so many bytes
  bool zero_copy = false;    // SEND_ZC with usage reports
  std::vector<std::string> notes;
};

struct Refusal {
  bool unavailable =
      false;        // not to be had here, use another backend; otherwise something is wrong (no memory, no descriptors)
  std::string why;  // with the remedy
};

std::expected<Features, Refusal> probe(const Options& options);

// A failed io_uring_setup (negative errno) in words.
Refusal setup_refused(int error);

// Newer than liburing 2.3's header.
inline constexpr uint16_t kBufferRingIncremental = 2;      // IOU_PBUF_RING_INC, 6.12
inline constexpr uint32_t kCqeBufferMore = 1u << 4;        // IORING_CQE_F_BUF_MORE, 6.12
inline constexpr uint16_t kZeroCopyReportUsage = 1u << 3;  // IORING_SEND_ZC_REPORT_USAGE, 6.2
inline constexpr uint32_t kZeroCopyCopied = 1u << 31;      // IORING_NOTIF_USAGE_ZC_COPIED

}  // namespace peregrine::net::uring
