#include "cluster/compression.h"

#include <algorithm>
#include <array>
#include <vector>

#include "net/s2/crc32c.h"
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
    std::string_view piece;
    for (;;) {
      if (!decode_piece(bytes, piece)) return false;
      if (piece.empty()) return true;
      plain.append(piece);
    }
  }

  bool decodes_in_place() const override { return true; }
  bool decode_piece(std::string_view& bytes, std::string_view& piece) override {
    piece = {};
    return decoder_.next(bytes, piece) != s2::DecodeStatus::kError;
  }
  bool piece_was_gathered() const override { return decoder_.last_was_gathered(); }
  std::string take_gathered() override { return decoder_.take_gathered(); }

  void encode(core::Outbox& plain) override {
    if (stream_.level == s2::Level::kUncompressed) return frame(plain);
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
  // Heads and checksums alone: what is shared stays where it lies. A chunk ends behind a large payload, so that the
  // next one can be read in place at the other end.
  void frame(core::Outbox& plain) {
    constexpr size_t kEnough = 8 * 1024;
    while (!plain.empty()) {
      char* const head = wire.reserve(s2::kMostHead);
      const size_t head_size = s2::head_size(stream_);
      wire.commit(head_size);
      uint32_t crc = 0;
      const auto count = [&crc](std::string_view bytes) { crc = s2::crc32c(bytes.data(), bytes.size(), crc); };
      const size_t size = plain.move_to(wire, kEnough, s2::Encoder::kBlock, count);
      s2::write_head(stream_, size, crc, head);
    }
  }

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
