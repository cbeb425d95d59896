// load: a raw-protocol load generator and checker for any NATS server, and for the floor (relay.cc).
//
//   load --server nats://127.0.0.1:4222 --server-pid 1234 stream --size 128 --subscribers 10
//
// Prints one JSON object on stdout. Exit code 0: measured and verified. 1: the run failed; the object then holds
// "error". The scenarios people compare servers with, and the goals, are in bench/compare/; this program knows only
// kinds of load.
#include <sched.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "bench/load_runs.h"

using namespace peregrine::bench;
using nlohmann::json;

namespace {

void pin_to(const std::vector<int>& cores) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int core : cores) CPU_SET(static_cast<size_t>(core), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) throw Failure("cannot run on the cores asked for");
}

void raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Raw-protocol load generator for NATS servers: measures, and verifies count, order and content"};
  app.require_subcommand(1);

  std::string url = "nats://127.0.0.1:4222", receivers_url;
  std::vector<int> pids, cores;
  double warmup_s = 0.5, duration_s = 2.0;
  app.add_option("--server", url, "nats://[user:password@]host:port, or relay://host:port")->capture_default_str();
  app.add_option("--receivers", receivers_url,
                 "Subscribers and responders connect there instead: another server of the cluster, gateway or leaf");
  app.add_option("--server-pid", pids, "Process whose CPU time and memory to measure (repeatable)");
  app.add_option("--cores", cores, "Run the generator on these cores only")->delimiter(',');
  app.add_option("--warmup", warmup_s, "Seconds before the measured window")->capture_default_str();
  app.add_option("--duration", duration_s, "Seconds of the measured window")->capture_default_str();

  StreamPlan stream;
  const std::map<std::string, Shape> shapes{
      {"fan", Shape::kFanOut}, {"share", Shape::kShare}, {"pairs", Shape::kPairs}, {"sink", Shape::kSink}};
  const std::map<std::string, SubjectChoice> choices{
      {"publisher", SubjectChoice::kPublisher}, {"cycle", SubjectChoice::kCycle}, {"random", SubjectChoice::kRandom}};
  CLI::App* stream_app = app.add_subcommand("stream", "Publishers as fast as the window allows");
  stream_app
      ->add_option("--shape", stream.shape,
                   "fan: all to all; share: each message to one; pairs: i to i; sink: no subscriber")
      ->transform(CLI::CheckedTransformer(shapes));
  stream_app->add_option("--publishers", stream.publishers)->capture_default_str();
  stream_app->add_option("--subscribers", stream.subscribers)->capture_default_str();
  stream_app->add_option("--size", stream.payload_bytes, "Payload bytes")->capture_default_str();
  stream_app->add_option("--subjects", stream.subjects)->capture_default_str();
  stream_app->add_option("--choice", stream.choice, "Subject of a message: by publisher, cycle, random")
      ->transform(CLI::CheckedTransformer(choices));
  stream_app->add_flag("--wildcard", stream.wildcard, "Subscribe with one pattern");
  stream_app->add_flag("--queue", stream.queue, "Subscribers form a queue group");
  stream_app->add_flag("--own-write", stream.own_write, "Each message in its own write");
  stream_app->add_flag("--count-subscriptions", stream.count_subscriptions, "Measure the subscribing too");
  stream_app->add_option("--window", stream.window_bytes, "Published bytes in flight (0: chosen by shape)");

  RequestPlan request;
  CLI::App* request_app = app.add_subcommand("request", "Request/reply, closed loop");
  request_app->add_option("--requesters", request.requesters)->capture_default_str();
  request_app->add_option("--responders", request.responders)->capture_default_str();
  request_app->add_option("--depth", request.depth, "Requests each requester keeps in flight")->capture_default_str();
  request_app->add_option("--size", request.payload_bytes)->capture_default_str();

  PacedPlan paced;
  CLI::App* paced_app = app.add_subcommand("paced", "Fixed rate, open loop: latency from the intended time of sending");
  paced_app->add_option("--rate", paced.rate, "Messages per second")->capture_default_str();
  paced_app->add_option("--size", paced.payload_bytes)->capture_default_str();
  paced_app->add_option("--subscribers", paced.subscribers)->capture_default_str();
  paced_app->add_flag("--spin", paced.spin, "Busy-wait (only with a core of its own)");

  ChurnPlan churn;
  CLI::App* churn_app = app.add_subcommand("churn", "SUB and UNSUB without end");
  churn_app->add_option("--live", churn.live)->capture_default_str();
  churn_app->add_option("--pairs", churn.pairs)->capture_default_str();
  churn_app->add_option("--publish-every", churn.publish_every)->capture_default_str();
  churn_app->add_option("--batches", churn.batches_in_flight)->capture_default_str();

  IdlePlan idle;
  CLI::App* idle_app = app.add_subcommand("idle", "Connections that do nothing: memory each, CPU of an idle server");
  idle_app->add_option("--connections", idle.connections)->capture_default_str();
  idle_app->add_option("--settle", idle.settle_s)->capture_default_str();

  CLI11_PARSE(app, argc, argv);

  json result;
  int code = 0;
  try {
    pin_to(cores);
    raise_file_limit();
    const bool split = !receivers_url.empty();
    const Environment env{Target::parse(url),
                          Target::parse(split ? receivers_url : url),
                          split,
                          Probe({pids.begin(), pids.end()}),
                          warmup_s,
                          duration_s};
    if (split && (env.target.raw || env.receivers.raw)) throw Failure("the relay knows no other servers");
    if (split && (*churn_app || *idle_app)) throw Failure("--receivers is for stream, request and paced");
    if (*stream_app) result = run_stream(env, stream);
    if (*request_app) result = run_request(env, request);
    if (*paced_app) result = run_paced(env, paced);
    if (*churn_app) result = run_churn(env, churn);
    if (*idle_app) result = run_idle(env, idle);
    if (!env.probe.server_alive()) throw Failure("the server is gone");
    result["kind"] = app.get_subcommands().front()->get_name();
    result["ok"] = true;
  } catch (const std::exception& e) {
    result = {{"ok", false}, {"error", e.what()}};
    code = 1;
  }
  std::puts(result.dump().c_str());
  return code;
}
