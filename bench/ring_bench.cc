// A record through the ring between two shards: on one thread (instructions alone) and between two (cache lines too).
#include "core/ring.h"

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>

namespace peregrine::core {
namespace {

void OneThread(benchmark::State& state) {
  Ring ring(1 << 20);
  const std::string record(static_cast<size_t>(state.range(0)), 'x');
  const auto size = static_cast<uint32_t>(record.size());
  const int64_t batch = state.range(1);
  for (auto _ : state) {
    for (int64_t n = 0; n < batch; ++n) {
      std::memcpy(ring.reserve(size), record.data(), size);
      ring.commit(size);
    }
    ring.publish();
    uint32_t got;
    const uint64_t limit = ring.snapshot();
    while (const char* at = ring.peek(limit, got)) {
      benchmark::DoNotOptimize(at);
      ring.pop(got);
    }
    ring.finish();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * batch);
}
BENCHMARK(OneThread)->ArgNames({"bytes", "batch"})->Args({64, 1})->Args({64, 32})->Args({1024, 32});

void TwoThreads(benchmark::State& state) {
  Ring ring(1 << 20);
  const auto size = static_cast<uint32_t>(state.range(0));
  const int64_t batch = state.range(1);
  std::atomic<bool> stop{false};
  std::thread consumer([&] {
    uint32_t got;
    while (!stop.load(std::memory_order_relaxed)) {
      const uint64_t limit = ring.snapshot();
      bool any = false;
      while (const char* at = ring.peek(limit, got)) {
        benchmark::DoNotOptimize(at[0]);
        ring.pop(got);
        any = true;
      }
      if (any) ring.finish();
      else std::this_thread::yield();
    }
  });
  const std::string record(size, 'x');
  for (auto _ : state) {
    for (int64_t n = 0; n < batch; ++n) {
      char* to;
      while ((to = ring.reserve(size)) == nullptr) {
        ring.publish();
        std::this_thread::yield();
      }
      std::memcpy(to, record.data(), size);
      ring.commit(size);
    }
    ring.publish();
  }
  stop = true;
  consumer.join();
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * batch);
}
BENCHMARK(TwoThreads)->ArgNames({"bytes", "batch"})->Args({64, 1})->Args({64, 32})->Args({1024, 32})->UseRealTime();

}  // namespace
}  // namespace peregrine::core

BENCHMARK_MAIN();
