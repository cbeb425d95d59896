#include "cluster/compression.h"

#include <algorithm>
#include <array>
#include <vector>

#include "net/s2/decoder.h"
#include "net/s2/encoder.h"

namespace peregrine::cluster {
namespace {

namespace s2 = net::s2;

s2::Level level_of(std::string_view mode) {
  if (mode == compression::kUncompressed) return s2::Level::kUncompressed;
  if (mode == compression::kBetter) return s2::Level::kBetter;
  if (mode == compression::kBest) return s2::Level::kBest;
  return s2::Level::kFast;
}

class S2Filter final : public CompressionFilter {
 public:
  S2Filter(core::BufferPool* pool, std::string_view mode) : CompressionFilter(pool) { set_mode(mode); }

  void set_mode(std::string_view mode) override { stream_.level = level_of(mode); }

  bool decode(std::string_view bytes, std::string& plain) override {
    std::string_view out;
    for (;;) {
      switch (decoder_.next(bytes, out)) {
        case s2::DecodeStatus::kMore:
          return true;
        case s2::DecodeStatus::kBytes:
          plain.append(out);
          break;
        case s2::DecodeStatus::kError:
          return false;
      }
    }
  }

  void encode(core::Outbox& plain) override {
    // A block of input at a time, so that what it becomes fits one chunk of an outbox.
    static constexpr size_t kStep = 48 * 1024;
    static_assert(s2::Encoder::max_encoded(kStep) <= core::BufferPool::kLargeChunk);
    std::array<iovec, 64> pieces;
    while (!plain.empty()) {
      size_t n = plain.gather(pieces.data(), pieces.size(), kStep);
      size_t size = 0;
      for (size_t i = 0; i < n; ++i) {
        pieces[i].iov_len = std::min(pieces[i].iov_len, kStep - size);
        size += pieces[i].iov_len;
      }
      char* to = wire.reserve(s2::Encoder::max_encoded(size));
      wire.commit(encoder().encode(stream_, std::span(pieces.data(), n), to));
      plain.consume(size);
    }
  }

  std::string_view error() const override { return s2::error_text(decoder_.error()); }

 private:
  // The tables are large and of no use to anybody between two flushes: one set per shard's thread.
  static s2::Encoder& encoder() {
    static thread_local s2::Encoder encoder;
    return encoder;
  }

  s2::Decoder decoder_;
  s2::EncoderStream stream_;
};

}  // namespace

std::optional<std::string_view> select_compression(std::string_view local, std::string_view remote) {
  using namespace compression;
  if (remote.empty() || remote == kNotSupported) return kNotSupported;
  if (remote == kOff) return kOff;
  if (remote == kAccept) return local == kAccept ? kOff : local;
  for (const std::string_view mode : {kUncompressed, kFast, kBetter, kBest, kAuto}) {
    if (remote != mode) continue;
    if (local != kAccept) return local;
    return mode == kAuto ? kFast : mode;
  }
  return std::nullopt;
}

std::string_view compression_for_rtt(int64_t rtt_ns, std::span<const int64_t> thresholds_ns) {
  static constexpr std::array<std::string_view, 4> kLevels = {compression::kUncompressed, compression::kFast,
                                                              compression::kBetter, compression::kBest};
  for (size_t n = 0; n < thresholds_ns.size() && n < kLevels.size(); ++n) {
    if (rtt_ns <= thresholds_ns[n]) return kLevels[n];
  }
  if (thresholds_ns.size() >= 3) return kLevels[3];
  return thresholds_ns.empty() ? kLevels[1] : kLevels[thresholds_ns.size() - 1];
}

std::unique_ptr<CompressionFilter> make_s2_filter(core::BufferPool* pool, std::string_view mode) {
  return std::make_unique<S2Filter>(pool, mode);
}

}  // namespace peregrine::cluster
