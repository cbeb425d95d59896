// The kinds of load. Each run connects, warms up, measures one window, drains, verifies, and returns one JSON object.
//
// A run throws Failure when anything was lost, duplicated, out of order or damaged: a number without proof is no
// number. All runs are single-threaded around one epoll: the generator must be cheap, and one core has to be enough for
// it.
//
// In flight: publishers stay within `window_bytes` of what their slowest receiver has confirmed by receiving it. No
// server may ever see a slow consumer here, and how much memory traffic is in flight is the same for every server.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "bench/load_frames.h"
#include "bench/load_probe.h"
#include "bench/load_wire.h"

namespace peregrine::bench {

struct Environment {
  Target target;     // where messages and requests are published
  Target receivers;  // where subscribers and responders connect: the same, or another server that has a way to it
  bool split = false;
  Probe probe;
  double warmup_s = 0.5;
  double duration_s = 2.0;
};

enum class Shape {
  kFanOut,  // every subscriber gets every message of every publisher (1->1, 1->N, N->1)
  kShare,   // every message goes to exactly one subscriber: a queue group, or subjects divided among them
  kPairs,   // publisher i feeds subscriber i
  kSink     // nobody subscribes
};

struct StreamPlan {
  Shape shape = Shape::kFanOut;
  uint32_t publishers = 1;
  uint32_t subscribers = 1;
  uint32_t payload_bytes = 16;
  uint32_t subjects = 1;
  SubjectChoice choice = SubjectChoice::kPublisher;
  bool wildcard = false;             // subscribers use one pattern instead of literals
  bool queue = false;                // subscribers form a queue group
  bool own_write = false;            // each message in its own write
  bool count_subscriptions = false;  // measure the subscribing too (rate, memory)
  uint64_t window_bytes = 0;         // published bytes in flight, 0: chosen by shape
};
nlohmann::json run_stream(const Environment& env, const StreamPlan& plan);

struct RequestPlan {
  uint32_t requesters = 1;
  uint32_t responders = 1;  // in one queue group when more than one
  uint32_t depth = 1;       // requests each requester keeps in flight
  uint32_t payload_bytes = 16;
};
nlohmann::json run_request(const Environment& env, const RequestPlan& plan);

struct PacedPlan {
  double rate = 10'000;  // messages per second
  uint32_t payload_bytes = 16;
  uint32_t subscribers = 1;
  bool spin = false;  // busy-wait for the next send time and for messages: only with a core of its own
};
nlohmann::json run_paced(const Environment& env, const PacedPlan& plan);

struct ChurnPlan {
  uint32_t live = 1024;        // subscriptions alive at any time
  uint32_t pairs = 64;         // SUB + UNSUB pairs per batch
  uint32_t publish_every = 8;  // pairs per verified message to one that is alive
  uint32_t batches_in_flight = 4;
};
nlohmann::json run_churn(const Environment& env, const ChurnPlan& plan);

struct IdlePlan {
  uint32_t connections = 10'000;
  double settle_s = 4.0;  // the first PING of most servers comes within two seconds
};
nlohmann::json run_idle(const Environment& env, const IdlePlan& plan);

// Joins what two samples at the edges of a window tell with the messages moved in between.
nlohmann::json window_json(const Environment& env, const Sample& begin, const Sample& end, double messages_in,
                           double messages_out);
class Histogram;
nlohmann::json latency_json(const Histogram& histogram);
nlohmann::json memory_json(const Memory& before, const Memory& after, double count);

}  // namespace peregrine::bench
