// The monitoring port: /varz /connz /subsz /healthz and their relatives over HTTP, in nats-server's names, order and
// formatting.
//
// Owns: a listening socket, an accepting thread and a small pool of request threads that grows on demand and shrinks
// when idle. It never touches a shard: a request thread asks its MonitorSource, which asks the shards over their rings,
// then merges, sorts, cuts the page and formats on its own time. All parameters and error texts are those of parity.md
// sections 4.1 to 4.3.
//
// Threads: start() and stop() from the control thread; MonitorSource's members are called from several request threads
// at once. Errors: start() says why it could not listen; a bad request is answered 400 with a line of text, an unknown
// path 404.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/options.h"
#include "core/log.h"
#include "core/snapshot.h"

namespace peregrine::net {

namespace tls {
class Context;
}

// What is known about the server as a whole. Times: nanoseconds since the Unix epoch.
struct ServerFacts {
  std::string server_id;
  std::string server_name;
  std::string version;  // the nats-server level, "2.15.1"
  int proto = 1;
  std::string git_commit;
  std::string go;            // "go" of INFO: what the server was built with
  std::string host;          // as in INFO
  int port = 0;              // the real one, also when -1 was asked for
  int gateway_port = 0;      // the real one; 0 = no gateways
  std::string gateway_host;  // as others reach it
  bool auth_required = false;
  bool tls_required = false;
  bool tls_verify = false;
  // Of the listeners; null = in clear.
  std::shared_ptr<const tls::Context> client_tls, cluster_tls, gateway_tls, leaf_tls;
  std::string ip;
  std::vector<std::string> connect_urls;
  std::vector<std::string> ws_connect_urls;
  std::shared_ptr<const config::Options> options;  // never null; a reload replaces it
  int64_t start_ns = 0;
  int64_t config_load_ns = 0;
  std::string system_account;  // empty = there is none
  std::string cluster_name;    // empty = no cluster
  int cluster_port = 0;        // the real one
  int leaf_port = 0;           // the real one; 0 = not listening

  // Ours, shown in the "peregrine" object.
  std::string peregrine_version;
  std::string backend;  // "uring", "epoll", ...
  // The backend's own numbers as JSON text, shown under its name in the "peregrine" object. Any thread; may be null.
  std::function<std::string()> describe_backend;
  int cores = 0;   // CPUs this process may use
  int shards = 0;  // shown as gomaxprocs too
  uint64_t log_lines_dropped = 0;
};

struct Health {
  bool ok = true;
  std::string error;  // e.g. "failed to be ready for connections: client listener"
};

// Where the answers come from. Thread-safe; a call may take as long as the slowest shard's turn.
class MonitorSource {
 public:
  virtual ~MonitorSource() = default;
  virtual ServerFacts facts() = 0;
  virtual std::vector<core::ShardSnapshot> shards() = 0;
  virtual core::ConnRows connections(const core::ConnzQuery& query) = 0;  // all shards' rows, totals added up
  virtual std::vector<core::RouteRow> routes(bool subs) = 0;
  virtual std::vector<core::GatewayRow> gateways(const core::GatewayzQuery& query) = 0;
  virtual core::SubRows subscriptions(const core::SubszQuery& query) = 0;
  virtual Health health() = 0;
};

class Monitor {
 public:
  Monitor(MonitorSource& source, core::Log& log);
  ~Monitor();  // stops
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // Binds, logs "Starting http monitor on host:port" and serves. `port` -1 = any free one. `base_path` as
  // http_base_path. `tls`: https. Returns "" or the reason, in the words of nats-server: "can't listen to the monitor
  // port: listen tcp ...".
  std::string start(const std::string& host, int port, const std::string& base_path,
                    std::shared_ptr<const tls::Context> tls = nullptr);
  void stop();

  bool running() const;
  int port() const;  // the bound one; 0 = not running

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace peregrine::net
