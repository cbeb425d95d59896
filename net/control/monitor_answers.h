// What each monitoring endpoint answers: parameters in, JSON or an error line out, in nats-server's names, order and
// texts.
//
// Functions of their arguments and of what the source says at that moment; no sockets. Called on request threads,
// several at once.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "net/control/http_server.h"
#include "net/monitor.h"

namespace peregrine::net::control {

// What the monitor itself adds to /varz.
struct MonitorNumbers {
  int64_t now_ns = 0;
  double cpu_percent = 0;
  int64_t resident_bytes = 0;
  std::map<std::string, uint64_t> requests;  // http_req_stats
};

HttpAnswer answer_varz(MonitorSource& source, const MonitorNumbers& numbers);
HttpAnswer answer_connz(MonitorSource& source, const HttpRequest& request, int64_t now_ns);
HttpAnswer answer_subsz(MonitorSource& source, const HttpRequest& request, int64_t now_ns);
HttpAnswer answer_healthz(MonitorSource& source, const HttpRequest& request, core::Log& log);
HttpAnswer answer_routez(MonitorSource& source, const HttpRequest& request, int64_t now_ns);
HttpAnswer answer_gatewayz(MonitorSource& source, const HttpRequest& request, int64_t now_ns);
HttpAnswer answer_leafz(MonitorSource& source, const HttpRequest& request, int64_t now_ns);
HttpAnswer answer_accountz(MonitorSource& source, const HttpRequest& request, int64_t now_ns);
HttpAnswer answer_accstatz(MonitorSource& source, const HttpRequest& request, int64_t now_ns);
HttpAnswer answer_jsz(MonitorSource& source, const HttpRequest& request, int64_t now_ns);
HttpAnswer answer_ipqueuesz(const HttpRequest& request);

HttpAnswer plain_answer(int status, std::string text);
HttpAnswer not_found();

}  // namespace peregrine::net::control
