// Which compression two servers agree on, and the filter that does it.
//
// select_compression() is what each side computes for its own sending direction from its own mode and the one the other
// side's INFO shows; modes are the words of INFO. Pure functions, any thread. The filter belongs to its session.
// Source: nats-server's selectCompressionMode and selectS2AutoModeBasedOnRTT (server/server.go); parity.md 5.7.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/filter.h"

namespace peregrine::cluster {

namespace compression {
inline constexpr std::string_view kNotSupported = "not supported";
inline constexpr std::string_view kOff = "off";
inline constexpr std::string_view kAccept = "accept";
inline constexpr std::string_view kAuto = "s2_auto";
inline constexpr std::string_view kUncompressed = "s2_uncompressed";
inline constexpr std::string_view kFast = "s2_fast";
inline constexpr std::string_view kBetter = "s2_better";
inline constexpr std::string_view kBest = "s2_best";
}  // namespace compression

// Whether such a mode means that bytes are S2 frames (kAuto and kAccept are wishes, not results).
inline bool needs_compression(std::string_view mode) {
  return !mode.empty() && mode != compression::kNotSupported && mode != compression::kOff;
}

// Nothing if `remote` is no mode at all.
std::optional<std::string_view> select_compression(std::string_view local, std::string_view remote);

// What s2_auto means at this round-trip time. A threshold of 0 leaves its level out.
std::string_view compression_for_rtt(int64_t rtt_ns, std::span<const int64_t> thresholds_ns);

// `mode`: a result, s2_uncompressed to s2_best.
class CompressionFilter : public core::Filter {
 public:
  using core::Filter::Filter;
  virtual void set_mode(std::string_view mode) = 0;  // from the next flush on
};
std::unique_ptr<CompressionFilter> make_s2_filter(core::BufferPool* pool, std::string_view mode);

}  // namespace peregrine::cluster
