// Publish to outbox, without a network: parse, match, encode and append, on one shard and across two (driven by one
// thread).
#include <benchmark/benchmark.h>

#include <string>

#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

std::string publishes(size_t payload, int count) {
  std::string bytes;
  for (int n = 0; n < count; ++n)
    bytes += "PUB orders.created " + std::to_string(payload) + "\r\n" + std::string(payload, 'x') + "\r\n";
  return bytes;
}

constexpr int kBatch = 256;

void run(benchmark::State& state, uint32_t shards, uint32_t reader_shard, size_t payload, int readers) {
  Machine machine(shards, {}, 1 << 20);
  Client& publisher = machine.connect(0);
  std::vector<Client*> all;
  for (int n = 0; n < readers; ++n) {
    all.push_back(&machine.connect(reader_shard));
    all.back()->send("SUB orders.created 1\r\n");
  }
  machine.settle();
  const std::string batch = publishes(payload, kBatch);
  for (auto _ : state) {
    publisher.pending = batch;
    machine.turn(0);
    if (shards > 1) machine.turn(reader_shard);
    for (Client* reader : all) reader->received.clear();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * kBatch * readers);
}

void SameShard(benchmark::State& state) {
  run(state, 1, 0, static_cast<size_t>(state.range(0)), static_cast<int>(state.range(1)));
}
BENCHMARK(SameShard)
    ->ArgNames({"bytes", "readers"})
    ->Args({16, 1})
    ->Args({1024, 1})
    ->Args({16384, 1})
    ->Args({16, 10})
    ->Args({16, 100})
    ->Args({4096, 10});

void AcrossShards(benchmark::State& state) {
  run(state, 2, 1, static_cast<size_t>(state.range(0)), static_cast<int>(state.range(1)));
}
BENCHMARK(AcrossShards)
    ->ArgNames({"bytes", "readers"})
    ->Args({16, 1})
    ->Args({1024, 1})
    ->Args({16384, 1})
    ->Args({16, 10});

}  // namespace
}  // namespace peregrine::test

BENCHMARK_MAIN();
