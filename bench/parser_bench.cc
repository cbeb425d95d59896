// What it costs to find PUB lines in a received buffer, by payload size and by how much of it straddles buffers.
#include "core/parser.h"

#include <benchmark/benchmark.h>

#include <string>

namespace peregrine::core {
namespace {

constexpr ParserLimits kLimits{.max_control_line = 4096, .max_payload = 1 << 20, .headers = true};

std::string messages(size_t payload, int count, const char* reply) {
  std::string bytes;
  for (int n = 0; n < count; ++n) {
    bytes += "PUB orders.eu.created." + std::to_string(n % 10) + " " + reply + std::to_string(payload) + "\r\n" +
             std::string(payload, 'x') + "\r\n";
  }
  return bytes;
}

void run(benchmark::State& state, const std::string& bytes, size_t piece) {
  int64_t count = 0;
  for (auto _ : state) {
    Parser parser;
    Operation op;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      std::string_view in = std::string_view(bytes).substr(at, piece);
      while (parser.next(in, kLimits, op) == ParseStatus::kOperation) {
        benchmark::DoNotOptimize(op.payload.data());
        ++count;
      }
    }
  }
  state.SetItemsProcessed(count);
  state.SetBytesProcessed(static_cast<int64_t>(bytes.size()) * static_cast<int64_t>(state.iterations()));
}

void Pub(benchmark::State& state) { run(state, messages(static_cast<size_t>(state.range(0)), 1000, ""), SIZE_MAX / 2); }
BENCHMARK(Pub)->Arg(0)->Arg(16)->Arg(128)->Arg(1024)->Arg(16384);

void PubWithReply(benchmark::State& state) {
  run(state, messages(static_cast<size_t>(state.range(0)), 1000, "_INBOX.abcdefghijklmnop.1 "), SIZE_MAX / 2);
}
BENCHMARK(PubWithReply)->Arg(16);

// Pieces of this size, as from a network: the message that straddles each end is copied.
void PubInPieces(benchmark::State& state) { run(state, messages(128, 1000, ""), static_cast<size_t>(state.range(0))); }
BENCHMARK(PubInPieces)->Arg(64)->Arg(1460)->Arg(65536);

}  // namespace
}  // namespace peregrine::core

BENCHMARK_MAIN();
