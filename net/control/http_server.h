// A small HTTP/1.1 server for the monitoring port: cpp-httplib's protocol code on sockets and threads we look after
// ourselves.
//
// Owns: the listening socket, one accepting thread, and request threads that are started when a connection finds none
// free (at most kThreads) and leave when idle. A kept-alive connection occupies one of them, waiting in the kernel. A
// request must be complete within kRequestSeconds, and an idle connection is closed after the same time, so that nobody
// holds a thread for ever. With TLS all of that holds for the handshake, too; nobody is asked for a certificate.
//
// Threads: start() and stop() from one thread; the handler runs on several request threads at once and must not throw.
// Answers to GET and HEAD are the handler's; other methods get 405.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "net/tls/context.h"

namespace peregrine::net::control {

struct HttpRequest {
  std::string path;                           // decoded, without parameters
  std::map<std::string, std::string> params;  // decoded; of a repeated one the first
  std::string query;                          // as it came, without '?'

  // "" when absent.
  std::string_view param(const std::string& name) const {
    const auto it = params.find(name);
    return it == params.end() ? std::string_view{} : it->second;
  }
};

struct HttpAnswer {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::map<std::string, std::string> headers;
};

class HttpServer {
 public:
  using Handler = std::function<HttpAnswer(const HttpRequest&)>;
  static constexpr int kThreads = 32;
  static constexpr int kRequestSeconds = 5;

  HttpServer();
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Binds `host` ("" and 0.0.0.0 are all addresses of both families) and `port` (-1 = any) and serves, over TLS with
  // `tls`. Returns "" or the reason in Go's words: "listen tcp 127.0.0.1:8222: bind: address already in use".
  std::string start(const std::string& host, int port, Handler handler,
                    std::shared_ptr<const tls::Context> tls = nullptr);

  // Closes the port, lets running requests finish, returns when no handler runs any more.
  void stop();

  int port() const;  // bound; 0 = not running

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace peregrine::net::control
