// The wiring list: options -> log -> shards -> listeners -> monitoring -> signals. The only file of core that looks
// right.
//
// Exit codes as nats-server: 0 after a signal or a question answered, 1 when the start failed. The pid never changes
// (launchers know the server by it), and the main thread stays the control thread: it owns signals, files and the lame
// duck clock.
#include <fmt/format.h>
#include <oneapi/tbb/task_arena.h>
#include <openssl/rand.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include "cluster/peering.h"
#include "config/flags.h"
#include "config/limits.h"
#include "config/url.h"
#include "core/cpuset.h"
#include "core/go_format.h"
#include "core/server.h"
#include "core/shard.h"
#include "net/backend_choice.h"
#include "net/broker.h"
#include "net/control/control_loop.h"
#include "net/control/log_sink.h"
#include "net/control/process_files.h"
#include "net/control/send_signal.h"
#include "net/control/shard_source.h"
#include "net/control/signals.h"
#include "net/monitor.h"
#include "net/socket.h"
#include "net/tls/clients.h"

namespace peregrine {
namespace {

// bcrypt and its kin, on threads of their own: at most half the cores, so that a storm of logins leaves the shards
// theirs.
class ArenaWorkers final : public core::Workers {
 public:
  explicit ArenaWorkers(int threads) : arena_(std::max(threads, 1) + 1, 1) {}
  void run(std::function<void()> work) override { arena_.enqueue(std::move(work)); }

 private:
  oneapi::tbb::task_arena arena_;
};

struct Plan {
  uint32_t shards;
  std::vector<int> cores;
};

// Which shard runs where: `cores` as given, else the CPUs this process may use, in order.
Plan plan_shards(const config::Options& options, const core::CpuAllowance& allowed, std::string& error) {
  Plan plan;
  plan.shards = static_cast<uint32_t>(options.native.shards);
  plan.cores = options.native.cores;
  if (plan.shards == 0) {
    plan.shards = static_cast<uint32_t>(plan.cores.empty() ? allowed.shards() : static_cast<int>(plan.cores.size()));
  }
  plan.shards = std::clamp<uint32_t>(plan.shards, 1, core::kMaxShards);
  if (plan.cores.empty()) {
    // More shards than CPUs (a test, say): the scheduler places them better than a pin could.
    if (plan.shards <= allowed.cpus.size()) plan.cores.assign(allowed.cpus.begin(), allowed.cpus.begin() + plan.shards);
  } else if (plan.cores.size() < plan.shards) {
    error = fmt::format("cores: names {} CPUs for {} shards", plan.cores.size(), plan.shards);
  }
  for (const int cpu : plan.cores) {
    if (std::find(allowed.cpus.begin(), allowed.cpus.end(), cpu) == allowed.cpus.end()) {
      error = fmt::format("cores: CPU {} is not among those this process may use", cpu);
    }
  }
  return plan;
}

// With a dpdk section, its words on where shards run and what they do without work stand in place of the general ones.
void use_dpdk_settings(config::Options& options) {
  const config::Backend backend = options.native.backend;
  const bool used = backend == config::Backend::kDpdk || (backend == config::Backend::kAuto && options.dpdk.defined);
  if (!used) return;
  if (!options.dpdk.lcores.empty()) options.native.cores = options.dpdk.lcores;
  options.native.idle = options.dpdk.idle == config::DpdkIdle::kSpin ? config::Idle::kSpin : config::Idle::kAdaptive;
}

int fail(const std::string& program, const std::string& why) {
  std::fprintf(stderr, "%s: %s\n", program.c_str(), why.c_str());
  return 1;
}

int serve(const config::Options& given, const std::vector<std::string>& warnings, const std::string& argv0,
          const std::string& program) {
  config::Options options = given;
  net::control::block_signals();
  std::string error;
  auto log = net::control::LogSink::open(options, program, error);
  if (log == nullptr) return fail(program, error);
  const auto fatal = [&](const std::string& why) {
    log->write(core::LogLevel::kFatal, why);
    log->flush();
    return 1;
  };
  const int64_t started_ns = net::wall_clock_ns();

  core::ServerIdentity identity;
  identity.id = core::make_server_id();
  identity.name = options.server_name.empty() ? identity.id : options.server_name;
  log->info("Starting {}", program);
  log->info("  Version:  {}", identity.version);
  log->info("  Peregrine: {}", PEREGRINE_VERSION);
  if (!options.cluster.name.empty()) log->info("  Cluster:  {}", options.cluster.name);
  log->info("  Name:     {}", identity.name);
  log->info("  ID:       {}", identity.id);
  if (!options.config_file.empty())
    log->info("Using configuration file: {} ({})", options.config_file, options.config_digest);
  for (const std::string& warning : warnings) log->warn("{}", warning);

  if (core::Auth::plain_secrets(options)) log->warn("Plaintext passwords detected, use nkeys or bcrypt");

  const core::CpuAllowance allowed = core::allowed_cpus();
  use_dpdk_settings(options);
  const Plan plan = plan_shards(options, allowed, error);
  if (!error.empty()) return fatal(error);
  auto choice = net::choose_backend(options, plan.shards, *log);
  if (!choice) return fatal(choice.error());
  const bool best = options.native.backend == config::Backend::kAuto && choice->name == "uring";
  log->info("{}{}", choice->log_line, best ? " (auto: the kernel lets us use io_uring)" : "");
  log->info("Shards: {}{}", plan.shards,
            plan.cores.empty() ? std::string(", not pinned") : fmt::format(" on cores {}", fmt::join(plan.cores, ",")));
  net::raise_open_files_limit();

  // The port first: INFO and every URL name it. Nobody is accepted before the shards run.
  auto listeners = choice->open(options.host, options.port, static_cast<int>(plan.shards));
  if (!listeners)
    return fatal(fmt::format("Error listening on port: {}, \"{}\"",
                             net::host_and_port(options.host, std::max(options.port, 0)), listeners.error()));
  options.port = listeners->port;

  core::HashKey key;
  uint64_t seed = 0;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&key), sizeof(key)) != 1 ||
      RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof(seed)) != 1) {
    return fatal("no random numbers from OpenSSL");
  }
  ArenaWorkers workers(static_cast<int>(allowed.cpus.size() / 2));
  core::Server server(options, identity, key, *log, workers);

  if (!options.client_advertise.empty()) {
    server.change_info([&](core::ServerInfo& info) {
      const config::Listen shown = config::advertised(options.client_advertise, options.port);
      info.host = shown.host;
      info.port = shown.port;
    });
  }

  // Outlives the broker: its sessions say goodbye to it.
  cluster::Peering peering(server, *choice, plan.shards, seed);
  if (error = peering.open(); !error.empty()) return fatal(error);

  net::BrokerPlan broker_plan;
  broker_plan.shards = plan.shards;
  broker_plan.cores = plan.cores;
  broker_plan.make_backend = choice->make;
  broker_plan.listeners = listeners->fds;
  broker_plan.seed = seed;
  std::shared_ptr<const net::tls::Context> client_context, monitor_tls;
  if (options.tls) {
    auto context = net::tls::Context::make(*options.tls, net::tls::Use::kListener);
    if (!context) return fatal(context.error());
    client_context = *context;
    broker_plan.client_tls = std::make_shared<const net::tls::Clients>(client_context, options);
    if (options.https_port != 0) monitor_tls = client_context;
  }
  peering.add_listeners(broker_plan);
  const std::shared_ptr<const net::tls::Clients> client_tls = broker_plan.client_tls;
  net::Broker broker(server, std::move(broker_plan));
  peering.run_on(broker);

  net::ServerFacts facts;
  facts.server_id = identity.id;
  facts.server_name = identity.name;
  facts.version = identity.version;
  facts.go = identity.go;
  const config::Listen shown = options.client_advertise.empty()
                                   ? config::Listen{options.host, options.port}
                                   : config::advertised(options.client_advertise, options.port);
  facts.host = shown.host;
  facts.port = shown.port;
  facts.leaf_port = peering.leaf_port();
  if (options.tls) {
    facts.tls_required = !config::allows_plain_clients(options);
    facts.tls_verify = options.tls->verify;
    facts.client_tls = client_context;
  }
  facts.auth_required = server.auth.required();
  facts.options = std::make_shared<const config::Options>(options);
  facts.start_ns = started_ns;
  facts.config_load_ns = started_ns;
  facts.peregrine_version = PEREGRINE_VERSION;
  facts.backend = choice->name;
  facts.cluster_port = peering.route_port();
  facts.gateway_port = peering.gateway_port();
  facts.gateway_host = peering.gateway_host();
  const cluster::PeerTls& tls = peering.tls();
  facts.cluster_tls = tls.routes;
  facts.gateway_tls = tls.gateways;
  facts.leaf_tls = tls.leafnodes;
  facts.describe_backend = choice->describe;
  facts.cores = static_cast<int>(allowed.cpus.size());
  facts.shards = static_cast<int>(plan.shards);
  net::control::ShardSource source(server, broker, facts);
  net::Monitor monitor(source, *log);
  if (const int port = monitor_tls == nullptr ? options.http_port : options.https_port; port != 0) {
    error = monitor.start(config::monitoring_host(options), port, options.http_base_path, monitor_tls);
    if (!error.empty()) return fatal(error);
  }

  log->start_async();
  error = broker.start();
  if (!error.empty()) return fatal(error);
  // Before anybody is told that the server is ready, and not before it has its ports: who fails for want of them leaves
  // the file of the server that has them alone.
  if (!options.pid_file.empty()) {
    if (error = net::control::write_pid_file(options.pid_file); !error.empty())
      return fatal("Could not write pidfile: " + error);
  }
  for (const std::string& note : broker.backend_report().notes) log->info("{}: {}", broker.backend_report().name, note);
  peering.start_leafnodes();
  log->info("Listening for client connections on {}", net::host_and_port(options.host, options.port));
  if (options.tls) {
    const bool optional = config::allows_plain_clients(options);
    log->info("TLS {} for client connections", optional ? "available" : "required");
    if (client_tls->first() && client_tls->patience_ns() == 0)
      log->warn("Clients that are not using \"TLS Handshake First\" option will fail to connect");
  }
  log->info("Server is ready");
  peering.start_clusters();

  std::string ports_file;
  if (!options.ports_file_dir.empty()) {
    ports_file = net::control::ports_file_path(options.ports_file_dir, argv0);
    net::control::Ports ports;
    if (net::is_any_address(options.host) && !choice->addresses.empty()) {
      for (const std::string& address : choice->addresses) {
        ports.nats.push_back("nats://" + net::host_and_port(address, options.port));
      }
    } else {
      ports.nats = net::control::listener_urls(options.tls ? "tls" : "nats", options.host, options.port);
    }
    if (monitor.running()) {
      ports.monitoring = net::control::listener_urls(monitor_tls == nullptr ? "http" : "https",
                                                     config::monitoring_host(options), monitor.port());
    }
    if (peering.route_port() != 0)
      ports.cluster =
          net::control::listener_urls(options.cluster.tls ? "tls" : "nats", peering.route_host(), peering.route_port());
    if (peering.leaf_port() != 0)
      ports.leafnodes = net::control::listener_urls("nats", peering.leaf_host(), peering.leaf_port());
    if (error = net::control::write_ports_file(ports_file, ports); !error.empty())
      log->error("Error writing ports file ({}): {}", ports_file, error);
  }

  net::control::Signals signals;
  net::control::ControlLoop::Certificates certificates = tls.all();
  if (client_context != nullptr) certificates.emplace_back("tls", client_context);
  net::control::ControlLoop(
      server, broker, [&peering] { peering.enter_lame_duck(); }, std::move(certificates), *log)
      .run(signals);

  log->info("Initiating Shutdown...");
  monitor.stop();
  peering.stop();
  broker.stop();
  if (!ports_file.empty()) net::control::remove_ports_file(ports_file);
  log->info("Server Exiting..");
  log->flush();
  return 0;
}

// What the options name on the disk.
config::Findings check_files(const config::Options& options) {
  config::Findings findings = cluster::check_tls(options);
  if (options.tls) {
    const auto context = net::tls::Context::make(*options.tls, net::tls::Use::kListener);
    if (!context) findings.errors.push_back({"tls", "tls: " + context.error()});
  }
  return findings;
}

int run(int argc, char** argv) {
  const std::string argv0 = argc > 0 ? argv[0] : "peregrine";
  const std::string program = argv0.substr(argv0.rfind('/') + 1);
  auto command = config::parse_command_line(argc, argv, config::system_sources(), check_files);
  if (!command) {
    std::fprintf(stderr, "%s\n", command.error().c_str());
    return 1;
  }
  using Kind = config::Command::Kind;
  switch (command->kind) {
    case Kind::kVersion:
      std::printf("%s\n", config::version_text(program).c_str());
      return 0;
    case Kind::kHelp:
      std::fputs(config::help_text(program).c_str(), stdout);
      return 0;
    case Kind::kHelpTls:
      std::fputs(config::help_tls_text().c_str(), stdout);
      return 0;
    case Kind::kCheckConfig:
      std::fprintf(stderr, "%s\n", command->report.c_str());
      return 0;
    case Kind::kSignal: {
      const std::string target = command->signal_target.empty() ? "" : "=" + command->signal_target;
      const std::string error = net::control::send_signal(command->signal + target);
      return error.empty() ? 0 : fail(program, error);
    }
    case Kind::kRun:
      config::hide_secrets(argc, argv);
      return serve(command->options, command->warnings, argv0, program);
  }
  return 1;
}

}  // namespace
}  // namespace peregrine

int main(int argc, char** argv) { return peregrine::run(argc, argv); }
