// The JSON of a run: one shape for all kinds, so that whoever reads it needs no cases.
#include <algorithm>

#include "bench/load_histogram.h"
#include "bench/load_runs.h"

namespace peregrine::bench {

using nlohmann::json;

json window_json(const Environment& env, const Sample& begin, const Sample& end, double messages_in,
                 double messages_out) {
  const double wall_ns = static_cast<double>(end.wall_ns - begin.wall_ns);
  const double messages = messages_in + messages_out;
  json out = {{"seconds", wall_ns / 1e9},
              {"messages_in", messages_in},
              {"messages_out", messages_out},
              {"messages_per_second", messages * 1e9 / wall_ns},
              {"generator_cpu_share", static_cast<double>(end.generator_cpu_ns - begin.generator_cpu_ns) / wall_ns},
              {"steal_share", static_cast<double>(end.steal_ns - begin.steal_ns) / wall_ns}};
  if (env.probe.has_server()) {
    const double cpu_ns = static_cast<double>(end.server_cpu_ns - begin.server_cpu_ns);
    out["server_cpu_ns"] = cpu_ns;
    out["server_cpu_share"] = cpu_ns / wall_ns;
    // What neither the server nor we used: other people's work on this machine, in cores.
    const double ours_ns = cpu_ns + static_cast<double>(end.generator_cpu_ns - begin.generator_cpu_ns);
    out["others_cpu_share"] =
        std::max(0.0, static_cast<double>(end.machine_busy_ns - begin.machine_busy_ns) - ours_ns) / wall_ns;
    out["server_user_ns"] = end.server_user_ns - begin.server_user_ns;
    out["server_system_ns"] = end.server_system_ns - begin.server_system_ns;
    out["server_switches"] = end.server_switches - begin.server_switches;
    if (messages > 0) {
      out["cpu_ns_per_message"] = cpu_ns / messages;
      out["messages_per_cpu_second"] = cpu_ns > 0 ? messages * 1e9 / cpu_ns : 0;
    }
  }
  return out;
}

json latency_json(const Histogram& h) {
  json curve = json::array();
  for (const auto& [percent, ns] : h.curve()) curve.push_back({percent, static_cast<double>(ns) / 1e3});
  const auto us = [&h](double percent) { return static_cast<double>(h.percentile_ns(percent)) / 1e3; };
  return {{"unit", "us"},
          {"count", h.count()},
          {"min", static_cast<double>(h.min_ns()) / 1e3},
          {"mean", h.mean_ns() / 1e3},
          {"p50", us(50)},
          {"p90", us(90)},
          {"p99", us(99)},
          {"p99_9", us(99.9)},
          {"p99_99", us(99.99)},
          {"max", static_cast<double>(h.max_ns()) / 1e3},
          {"curve", curve}};
}

json memory_json(const Memory& before, const Memory& after, double count) {
  const auto each = [count](uint64_t a, uint64_t b) {
    return (static_cast<double>(b) - static_cast<double>(a)) / count;
  };
  return {{"resident_before", before.resident_bytes},
          {"resident_after", after.resident_bytes},
          {"resident_each", each(before.resident_bytes, after.resident_bytes)},
          {"anonymous_each", each(before.anonymous_bytes, after.anonymous_bytes)}};
}

}  // namespace peregrine::bench
