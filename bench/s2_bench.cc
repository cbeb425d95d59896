// What compression costs a route: per byte, by level and by how much is flushed at once; and the way back.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "net/s2/crc32c.h"
#include "net/s2/decoder.h"
#include "net/s2/encoder.h"

namespace peregrine::net::s2 {
namespace {

// Route traffic as it is: lines that are alike, small JSON bodies, a token in each that is not.
std::string wire(size_t size) {
  std::mt19937 chance(1);
  std::string bytes;
  for (size_t n = 0; bytes.size() < size; ++n) {
    const std::string body =
        R"({"id":)" + std::to_string(n) + R"(,"token":")" + std::to_string(chance()) + R"(","state":"paid"})";
    bytes += "RMSG $G orders.eu." + std::to_string(chance() % 97) + ".created " + std::to_string(body.size()) + "\r\n" +
             body + "\r\n";
  }
  bytes.resize(size);
  return bytes;
}

void Encode(benchmark::State& state) {
  const std::string plain = wire(static_cast<size_t>(state.range(1)));
  std::vector<char> out(Encoder::max_encoded(plain.size()));
  Encoder encoder;
  EncoderStream stream{.level = static_cast<Level>(state.range(0)), .begun = true};
  size_t written = 0;
  for (auto _ : state) benchmark::DoNotOptimize(written = encoder.encode(stream, plain, out.data()));
  state.SetBytesProcessed(static_cast<int64_t>(plain.size()) * static_cast<int64_t>(state.iterations()));
  state.counters["percent"] = 100.0 * static_cast<double>(written) / static_cast<double>(plain.size());
}
BENCHMARK(Encode)->ArgNames({"level", "flush"})->ArgsProduct({{0, 1, 2, 3}, {200, 4096, 65536}});

void Decode(benchmark::State& state) {
  const std::string plain = wire(static_cast<size_t>(state.range(1)));
  std::vector<char> packed(Encoder::max_encoded(plain.size()));
  Encoder encoder;
  EncoderStream stream{.level = static_cast<Level>(state.range(0))};
  packed.resize(encoder.encode(stream, plain, packed.data()));
  Decoder decoder;
  for (auto _ : state) {
    std::string_view in(packed.data(), packed.size()), out;
    while (decoder.next(in, out) == DecodeStatus::kBytes) benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(plain.size()) * static_cast<int64_t>(state.iterations()));
}
BENCHMARK(Decode)->ArgNames({"level", "flush"})->ArgsProduct({{0, 1, 2, 3}, {200, 4096, 65536}});

void Checksum(benchmark::State& state) {
  const std::string plain = wire(static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(masked_crc32c(plain.data(), plain.size()));
  state.SetBytesProcessed(static_cast<int64_t>(plain.size()) * static_cast<int64_t>(state.iterations()));
}
BENCHMARK(Checksum)->Arg(200)->Arg(65536);

}  // namespace
}  // namespace peregrine::net::s2

BENCHMARK_MAIN();
