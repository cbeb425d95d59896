#include "net/monitor.h"

#include <fmt/format.h>

#include <chrono>
#include <iterator>
#include <map>
#include <mutex>
#include <string_view>

#include "net/control/http_server.h"
#include "net/control/monitor_answers.h"
#include "net/control/process_stats.h"

namespace peregrine::net {
namespace {

using control::HttpAnswer;
using control::HttpRequest;

int64_t wall_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// "/a/./b//c/../d" -> "/a/b/d"; a trailing slash stays, as Go's ServeMux has it. Always begins with '/'.
std::string clean_path(std::string_view path) {
  std::string out;
  bool directory = path.empty();
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    directory = part.empty() || part == "." || part == "..";
    if (part == "..") out.resize(out.empty() ? 0 : out.rfind('/'));
    else if (!part.empty() && part != ".") out.append("/").append(part);
    begin = end + 1;
  }
  return directory || out.empty() ? out + "/" : out;
}

std::string html_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// The path came decoded: a line break in it must not become one in a header.
std::string url_path(std::string_view path) {
  std::string out;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 0x20 && byte < 0x7F && c != '%' && c != '?' && c != '#' && c != '"') out += c;
    else fmt::format_to(std::back_inserter(out), "%{:02X}", byte);
  }
  return out;
}

std::string index_page(const std::string& base, const std::string& nats_level, const std::string& own_version) {
  static constexpr std::pair<const char*, const char*> kLinks[] = {
      {"/varz", "General"},         {"/connz", "Connections"},      {"/subsz", "Subscriptions"},
      {"/accountz", "Accounts"},    {"/accstatz", "Account Stats"}, {"/routez", "Routes"},
      {"/leafz", "LeafNodes"},      {"/gatewayz", "Gateways"},      {"/jsz", "JetStream"},
      {"/healthz", "Health Probe"},
  };
  std::string links;
  for (const auto& [path, name] : kLinks)
    links += fmt::format("    <li><a href=\"{0}{1}\">{2}</a> <code>{1}</code></li>\n", base, path, name);
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Peregrine</title>\n"
      "    <style>body {{ font-family: system-ui, sans-serif; margin: 2rem }} li {{ margin: .4rem 0 }} code {{ color: "
      "#777 }}</style>\n"
      "  </head>\n  <body>\n    <h1>Peregrine {}</h1>\n    <p>Speaks NATS as nats-server {} does.</p>\n    <ul>\n{}    "
      "</ul>\n"
      "  </body>\n</html>\n",
      own_version, nats_level, links);
}

}  // namespace

struct Monitor::Impl {
  Impl(MonitorSource& source, core::Log& log) : source(source), log(log) {}

  void count(const char* endpoint) {
    std::lock_guard lock(mutex);
    ++requests[endpoint];
  }

  HttpAnswer answer(const HttpRequest& request) {
    const std::string clean = clean_path(request.path);
    if (clean != request.path) {
      const std::string location = url_path(clean) + (request.query.empty() ? "" : "?" + request.query);
      return {307,
              fmt::format("<a href=\"{}\">Temporary Redirect</a>.\n\n", html_text(location)),
              "text/html; charset=utf-8",
              {{"Location", location}}};
    }
    std::string_view path = clean;
    if (!path.starts_with(base)) return control::not_found();
    path.remove_prefix(base.size());
    if (path.empty() || (base.empty() && path == "/")) {
      count("/");
      const ServerFacts facts = source.facts();
      return {200, index_page(base, facts.version, facts.peregrine_version), "text/html; charset=utf-8", {}};
    }

    const int64_t now_ns = wall_ns();
    const auto counted = [this](const char* endpoint, HttpAnswer answer) {
      count(endpoint);
      return answer;
    };
    if (path == "/varz") {
      count("/varz");
      control::MonitorNumbers numbers{now_ns, stats.cpu_percent(), control::ProcessStats::resident_bytes(), {}};
      {
        std::lock_guard lock(mutex);
        numbers.requests = requests;
      }
      return control::answer_varz(source, numbers);
    }
    if (path == "/connz") return counted("/connz", control::answer_connz(source, request, now_ns));
    if (path == "/subsz" || path == "/subscriptionsz")
      return counted("/subsz", control::answer_subsz(source, request, now_ns));
    if (path == "/healthz") return counted("/healthz", control::answer_healthz(source, request, log));
    if (path == "/routez") return counted("/routez", control::answer_routez(source, request, now_ns));
    if (path == "/gatewayz") return counted("/gatewayz", control::answer_gatewayz(source, request, now_ns));
    if (path == "/leafz") return counted("/leafz", control::answer_leafz(source, request, now_ns));
    if (path == "/accountz") return counted("/accountz", control::answer_accountz(source, request, now_ns));
    if (path == "/accstatz") return counted("/accstatz", control::answer_accstatz(source, request, now_ns));
    if (path == "/jsz") return counted("/jsz", control::answer_jsz(source, request, now_ns));
    if (path == "/ipqueuesz") return control::answer_ipqueuesz(request);
    if (path == "/raftz") return control::plain_answer(404, "No Raft nodes registered");
    return control::not_found();
  }

  MonitorSource& source;
  core::Log& log;
  std::string base;  // "" or "/prefix"
  control::ProcessStats stats;
  std::mutex mutex;
  std::map<std::string, uint64_t> requests;
  control::HttpServer server;  // last: its threads use the rest
};

Monitor::Monitor(MonitorSource& source, core::Log& log) : impl_(std::make_unique<Impl>(source, log)) {}
Monitor::~Monitor() { stop(); }

std::string Monitor::start(const std::string& host, int port, const std::string& base_path,
                           std::shared_ptr<const tls::Context> tls) {
  const bool secure = tls != nullptr;
  impl_->base = clean_path(base_path);
  while (impl_->base.ends_with('/')) impl_->base.pop_back();
  const std::string reason = impl_->server.start(
      host, port, [impl = impl_.get()](const HttpRequest& request) { return impl->answer(request); }, std::move(tls));
  if (!reason.empty()) return "can't listen to the monitor port: " + reason;
  const bool v6 = host.find(':') != std::string::npos;
  impl_->log.info("Starting http{} monitor on {}{}{}:{}", secure ? "s" : "", v6 ? "[" : "", host, v6 ? "]" : "",
                  impl_->server.port());
  return {};
}

void Monitor::stop() { impl_->server.stop(); }
bool Monitor::running() const { return impl_->server.port() != 0; }
int Monitor::port() const { return impl_->server.port(); }

}  // namespace peregrine::net
