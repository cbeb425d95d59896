#include "net/control/monitor_answers.h"

#include <utility>

#include "core/go_format.h"
#include "net/control/monitor_json.h"
#include "net/control/monitor_params.h"

namespace peregrine::net::control {

HttpAnswer plain_answer(int status, std::string text) {
  return {status, std::move(text), "text/plain; charset=utf-8", {}};
}

HttpAnswer not_found() {
  HttpAnswer answer = plain_answer(404, "404 page not found\n");
  answer.headers["X-Content-Type-Options"] = "nosniff";
  return answer;
}

HttpAnswer answer_healthz(MonitorSource& source, const HttpRequest& request, core::Log& log) {
  MonitorParams params(request);
  const bool old_js_enabled = params.boolean("js-enabled");
  if (old_js_enabled) log.warn("Healthcheck: js-enabled deprecated, use js-enabled-only instead");
  for (const char* name : {"js-enabled-only", "js-server-only", "js-meta-only"}) params.boolean(name);
  const bool details = params.boolean("details");
  if (params.failed()) return params.answer();

  int status = 200;
  std::string error;
  const char* type = "BAD_REQUEST";
  if (request.param("account").empty() && !request.param("stream").empty()) {
    status = 400;
    error = "\"account\" must not be empty when checking stream health";
  } else if (request.param("stream").empty() && !request.param("consumer").empty()) {
    status = 400;
    error = "\"stream\" must not be empty when checking consumer health";
  } else if (const Health health = source.health(); !health.ok) {
    status = 500;
    error = health.error;
    type = "CONNECTION";
  }
  // The js-* parameters change nothing on a server without JetStream.
  Json json = Json::object();
  json["status"] = error.empty() ? "ok" : "error";
  if (!error.empty()) {
    if (details) {
      json["errors"] = Json::array({{{"type", type}, {"error", error}}});
      log.warn("Healthcheck failed: 1 errors");
    } else {
      json["error"] = error;
      log.warn("Healthcheck failed: {}", core::quote(error));
    }
  }
  return json_answer(json, status, -1);
}

HttpAnswer answer_jsz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  MonitorParams params(request);
  for (const char* name : {"accounts", "streams", "consumers", "direct-consumers", "config"}) params.boolean(name);
  for (const char* name : {"offset", "limit"}) params.integer(name);
  for (const char* name : {"leader-only", "raft", "stream-leader-only"}) params.boolean(name);
  if (params.failed()) return params.answer();
  Json json = Json::object();
  for (const char* name : {"memory", "storage", "reserved_memory", "reserved_storage", "accounts", "ha_assets"})
    json[name] = 0;
  json["api"] = {{"level", 0}, {"total", 0}, {"errors", 0}};
  json["server_id"] = source.facts().server_id;
  json["now"] = core::format_time(now_ns);
  json["disabled"] = true;
  json["config"] = {{"max_memory", 0}, {"max_storage", 0}};
  for (const char* name : {"streams", "consumers", "messages", "bytes", "total"}) json[name] = 0;
  return json_answer(json);
}

HttpAnswer answer_ipqueuesz(const HttpRequest& request) {
  MonitorParams params(request);
  params.boolean("all");
  if (params.failed()) return params.answer();
  return json_answer(Json::object());
}

}  // namespace peregrine::net::control
