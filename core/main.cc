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
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <tuple>

#include "cluster/dialer.h"
#include "cluster/gateways.h"
#include "cluster/leaf_nodes.h"
#include "cluster/mesh.h"
#include "config/flags.h"
#include "core/cpuset.h"
#include "core/go_format.h"
#include "core/server.h"
#include "core/shard.h"
#include "net/backend_choice.h"
#include "net/broker.h"
#include "net/control/log_sink.h"
#include "net/control/process_files.h"
#include "net/control/send_signal.h"
#include "net/control/shard_source.h"
#include "net/control/signals.h"
#include "net/listener.h"
#include "net/monitor.h"
#include "net/socket.h"

namespace peregrine {
namespace {

using net::control::Signal;

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

std::string join(const std::vector<int>& numbers) {
  std::string text;
  for (const int n : numbers) text += (text.empty() ? "" : ",") + std::to_string(n);
  return text;
}

std::string host_port(const std::string& host, int port) {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

// client_advertise: host[:port], as INFO shows it.
std::pair<std::string, int> advertised(const std::string& text, int own_port) {
  const size_t colon = text.rfind(':');
  const bool has_port = colon != std::string::npos && (text.find(':') == colon || text[colon - 1] == ']');
  std::string host = has_port ? text.substr(0, colon) : text;
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return {host, has_port ? std::atoi(text.c_str() + colon + 1) : own_port};
}

// The control thread's view of a running server.
class Control {
 public:
  // `mesh`: null without a cluster.
  Control(core::Server& server, net::Broker& broker, cluster::Mesh* mesh, net::control::LogSink& log)
      : server_(server), broker_(broker), mesh_(mesh), log_(log) {}

  // Until a signal ends the server.
  void run(net::control::Signals& signals) {
    while (!done_) {
      const auto signal = signals.wait(lame_duck_ ? 20 : -1);
      if (signal) on_signal(*signal);
      if (lame_duck_) lame_duck_step();
    }
  }

 private:
  void on_signal(Signal signal) {
    log_.info("Trapped \"{}\" signal", net::control::signal_text(signal));
    switch (signal) {
      case Signal::kInterrupt:
        done_ = true;
        return;
      case Signal::kTerminate:
        if (!lame_duck_) done_ = true;  // lame duck mode is already the way out
        return;
      case Signal::kReload:
        log_.warn("config reload comes with a later version; nothing was changed");
        return;
      case Signal::kReopenLog:
        log_.reopen();
        return;
      case Signal::kLameDuck:
        begin_lame_duck();
        return;
    }
  }

  void begin_lame_duck() {
    if (lame_duck_) return;
    log_.info("Entering lame duck mode, stop accepting new clients");
    broker_.stop_listening();
    server_.change_info([](core::ServerInfo& info) {
      info.lame_duck = true;
      info.connect_urls.clear();
    });
    if (mesh_ != nullptr) mesh_->enter_lame_duck();
    if (server_.clients() == 0) {
      done_ = true;
      return;
    }
    lame_duck_ = true;
    closing_at_ns_ = net::monotonic_ns() + server_.options.lame_duck_grace_period.count();
    broker_.run_on_shards(
        [](core::Shard& shard) {
          shard.announce_info();
          return true;
        },
        5000);
  }

  void lame_duck_step() {
    if (server_.clients() == 0) {
      log_.info("All clients are gone");
      done_ = true;
      return;
    }
    if (closing_at_ns_ == 0 || net::monotonic_ns() < closing_at_ns_) return;
    closing_at_ns_ = 0;
    log_.info("Closing existing clients");
    const int64_t over = (server_.options.lame_duck_duration - server_.options.lame_duck_grace_period).count();
    broker_.run_on_shards(
        [over](core::Shard& shard) {
          shard.begin_lame_duck(over);
          return true;
        },
        5000);
  }

  core::Server& server_;
  net::Broker& broker_;
  cluster::Mesh* mesh_;
  net::control::LogSink& log_;
  bool done_ = false;
  bool lame_duck_ = false;
  int64_t closing_at_ns_ = 0;
};

std::string leaf_host(const config::Options& options) {
  return options.leafnodes.host.empty() ? config::kDefaultHost : options.leafnodes.host;
}

std::string cluster_host(const config::Options& options) {
  return options.cluster.host.empty() ? config::kDefaultHost : options.cluster.host;
}

bool any_address(const std::string& host) { return host.empty() || host == "0.0.0.0" || host == "::"; }

// Where others reach a listener on `host`: the kernel's addresses, or the backend's own.
std::vector<std::string> reachable_addresses(const net::BackendChoice& choice, const std::string& host) {
  if (choice.addresses.empty()) return net::reachable_addresses(host);
  return any_address(host) ? choice.addresses : std::vector<std::string>{host};
}

// Where clients reach this server, as the other members tell theirs.
std::vector<std::string> client_urls(const net::BackendChoice& choice, const core::ServerInfo& info,
                                     const config::Options& options) {
  if (!options.client_advertise.empty()) return {host_port(info.host, info.port)};
  std::vector<std::string> urls;
  for (const std::string& address : reachable_addresses(choice, options.host))
    urls.push_back(host_port(address, options.port));
  return urls;
}

// Binds the cluster's port and makes the mesh. "" or why not.
std::string open_cluster(const config::Options& options, const net::BackendChoice& choice, uint32_t shards,
                         core::Server& server, cluster::Dialer& dialer, const cluster::Gateways* gateways,
                         const cluster::LeafNodes* leafs, uint64_t seed, net::Listeners& listeners,
                         std::unique_ptr<cluster::Mesh>& mesh) {
  const std::string host = cluster_host(options);
  auto opened = choice.open(host, options.cluster.port, static_cast<int>(shards));
  if (!opened) return fmt::format("Error listening on router port: {} - {}", options.cluster.port, opened.error());
  listeners = *opened;
  cluster::MeshPlan plan;
  plan.port = listeners.port;
  plan.client_urls = client_urls(choice, server.info(), options);
  if (gateways != nullptr) plan.gateway_url = gateways->url();
  if (leafs != nullptr) plan.leafnode_url = leafs->own_url();
  for (const std::string& address : choice.addresses.empty() ? net::interface_addresses() : choice.addresses)
    plan.own_addresses.push_back(host_port(address, listeners.port));
  mesh = std::make_unique<cluster::Mesh>(server, dialer, std::move(plan), seed);
  return "";
}

std::string gateway_host(const config::Options& options) {
  return options.gateway.host.empty() ? config::kDefaultHost : options.gateway.host;
}

// How other clusters reach the gateway port.
cluster::GatewayPlan plan_gateways(const net::BackendChoice& choice, const config::Options& options, int port) {
  if (!options.gateway.advertise.empty()) {
    const auto [host, advertised_port] = advertised(options.gateway.advertise, port);
    return {host, advertised_port};
  }
  const std::vector<std::string> reachable = reachable_addresses(choice, gateway_host(options));
  return {reachable.empty() ? gateway_host(options) : reachable.front(), port};
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
            plan.cores.empty() ? std::string(", not pinned") : fmt::format(" on cores {}", join(plan.cores)));
  net::raise_open_files_limit();

  // The port first: INFO and every URL name it. Nobody is accepted before the shards run.
  auto listeners = choice->open(options.host, options.port, static_cast<int>(plan.shards));
  if (!listeners)
    return fatal(
        fmt::format("Error listening on port: {}, \"{}\"", host_port(options.host, options.port), listeners.error()));
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
      std::tie(info.host, info.port) = advertised(options.client_advertise, options.port);
    });
  }

  // Outlives the broker: its sessions say goodbye to it.
  net::Broker* running = nullptr;
  cluster::Dialer dialer(server, [&running](uint32_t shard) -> net::Reactor& { return running->reactor(shard); });
  std::unique_ptr<cluster::Gateways> gateways;
  int gateway_port = 0;
  std::vector<int> gateway_fds;
  if (!options.gateway.name.empty() && options.gateway.port != 0) {
    auto opened = choice->open(gateway_host(options), options.gateway.port, static_cast<int>(plan.shards));
    if (!opened)
      return fatal(fmt::format("Error listening on gateway port: {} - {}", options.gateway.port, opened.error()));
    gateway_port = opened->port;
    gateway_fds = opened->fds;
    gateways = std::make_unique<cluster::Gateways>(server, dialer, plan_gateways(*choice, options, gateway_port), seed);
  }
  std::unique_ptr<cluster::Mesh> mesh;
  net::Listeners route_listeners, leaf_listeners;
  std::unique_ptr<cluster::LeafNodes> leafs;
  if (options.leafnodes.port != 0) {
    auto opened = choice->open(leaf_host(options), options.leafnodes.port, static_cast<int>(plan.shards));
    if (!opened)
      return fatal(fmt::format("Error listening on leafnode port: {} - {}", options.leafnodes.port, opened.error()));
    leaf_listeners = *opened;
  }
  if (options.leafnodes.defined) {
    const std::vector<std::string>& addresses = choice->addresses;
    leafs = std::make_unique<cluster::LeafNodes>(
        server, dialer, leaf_listeners.port, addresses.empty() ? std::string() : addresses.front(),
        [&] { return mesh != nullptr ? mesh->cluster_name() : options.cluster.name; });
  }
  if (options.cluster.port != 0) {
    error = open_cluster(options, *choice, plan.shards, server, dialer, gateways.get(), leafs.get(), seed,
                         route_listeners, mesh);
    if (!error.empty()) return fatal(error);
    if (leafs != nullptr)
      mesh->on_leafnode_urls = [to = leafs.get()](const std::vector<std::string>& urls) { to->set_cluster_urls(urls); };
  }

  if (mesh != nullptr && gateways != nullptr) {
    mesh->gateways = gateways.get();
    mesh->on_gateway_urls = [&](const std::vector<std::string>& urls) { gateways->set_cluster_urls(urls); };
    gateways->tell_routes = [&](const std::string& line) { mesh->tell_members(line); };
  }

  net::BrokerPlan broker_plan;
  broker_plan.shards = plan.shards;
  broker_plan.cores = plan.cores;
  broker_plan.make_backend = choice->make;
  broker_plan.listeners = listeners->fds;
  broker_plan.seed = seed;
  if (mesh != nullptr) broker_plan.peer_listeners.push_back({route_listeners.fds, mesh->opener()});
  if (gateways != nullptr) broker_plan.peer_listeners.push_back({gateway_fds, gateways->opener()});
  if (leaf_listeners.port != 0) broker_plan.peer_listeners.push_back({leaf_listeners.fds, leafs->opener()});
  net::Broker broker(server, std::move(broker_plan));
  running = &broker;

  net::ServerFacts facts;
  facts.server_id = identity.id;
  facts.server_name = identity.name;
  facts.version = identity.version;
  facts.go = identity.go;
  facts.host = options.host;
  facts.port = options.port;
  facts.leaf_port = leaf_listeners.port;
  facts.auth_required = server.auth.announced();
  facts.options = std::make_shared<const config::Options>(options);
  facts.start_ns = started_ns;
  facts.config_load_ns = started_ns;
  facts.peregrine_version = PEREGRINE_VERSION;
  facts.backend = choice->name;
  facts.cluster_port = route_listeners.port;
  if (gateways != nullptr) {
    facts.gateway_port = gateway_port;
    facts.gateway_host = plan_gateways(*choice, options, gateway_port).host;
  }
  facts.describe_backend = choice->describe;
  facts.cores = static_cast<int>(allowed.cpus.size());
  facts.shards = static_cast<int>(plan.shards);
  net::control::ShardSource source(server, broker, facts);
  net::Monitor monitor(source, *log);
  if (options.http_port != 0) {
    error = monitor.start(options.http_host.empty() ? options.host : options.http_host, options.http_port,
                          options.http_base_path);
    if (!error.empty()) return fatal(error);
  }

  log->start_async();
  error = broker.start();
  if (!error.empty()) return fatal(error);
  for (const std::string& note : broker.backend_report().notes) log->info("{}: {}", broker.backend_report().name, note);
  if (leaf_listeners.port != 0)
    log->info("Listening for leafnode connections on {}", host_port(leaf_host(options), leaf_listeners.port));
  if (leafs != nullptr) leafs->connect_remotes();
  log->info("Listening for client connections on {}", host_port(options.host, options.port));
  log->info("Server is ready");
  if (mesh != nullptr) {
    log->info("Cluster name is {}", mesh->cluster_name());
    if (mesh->name_is_dynamic()) log->warn("Cluster name was dynamically generated, consider setting one");
    log->info("Listening for route connections on {}", host_port(cluster_host(options), route_listeners.port));
    mesh->start();
  }

  if (gateways != nullptr) {
    log->info("Listening for gateways connections on {}", host_port(gateway_host(options), gateway_port));
    gateways->start();
  }

  if (!options.pid_file.empty()) {
    if (error = net::control::write_pid_file(options.pid_file); !error.empty()) return fatal(error);
  }
  std::string ports_file;
  if (!options.ports_file_dir.empty()) {
    ports_file = net::control::ports_file_path(options.ports_file_dir, argv0);
    net::control::Ports ports;
    if (any_address(options.host) && !choice->addresses.empty()) {
      for (const std::string& address : choice->addresses) {
        ports.nats.push_back("nats://" + host_port(address, options.port));
      }
    } else {
      ports.nats = net::control::listener_urls("nats", options.host, options.port);
    }
    if (monitor.running()) {
      ports.monitoring = net::control::listener_urls(
          "http", options.http_host.empty() ? options.host : options.http_host, monitor.port());
    }
    if (mesh != nullptr)
      ports.cluster = net::control::listener_urls("nats", cluster_host(options), route_listeners.port);
    if (leaf_listeners.port != 0)
      ports.leafnodes = net::control::listener_urls("nats", leaf_host(options), leaf_listeners.port);
    if (error = net::control::write_ports_file(ports_file, ports); !error.empty()) log->error("{}", error);
  }

  net::control::Signals signals;
  Control(server, broker, mesh.get(), *log).run(signals);

  log->info("Initiating Shutdown...");
  monitor.stop();
  if (gateways != nullptr) gateways->stop();
  if (mesh != nullptr) mesh->stop();
  if (leafs != nullptr) leafs->stop();
  broker.stop();
  if (!ports_file.empty()) net::control::remove_ports_file(ports_file);
  log->info("Server Exiting..");
  log->flush();
  return 0;
}

int run(int argc, char** argv) {
  const std::string argv0 = argc > 0 ? argv[0] : "peregrine";
  const std::string program = argv0.substr(argv0.rfind('/') + 1);
  auto command = config::parse_command_line(argc, argv);
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
