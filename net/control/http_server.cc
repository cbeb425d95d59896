#include "net/control/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <httplib.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <list>
#include <mutex>
#include <thread>

#include "net/socket.h"

namespace peregrine::net::control {
namespace {

using std::chrono::steady_clock;

int milliseconds_until(steady_clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
  return static_cast<int>(std::max<int64_t>(0, left));
}

// Threads on demand. httplib's own pool starts all of its threads at once and keeps them.
class Threads final : public httplib::TaskQueue {
 public:
  ~Threads() override { shutdown(); }

  void enqueue(std::function<void()> job) override {
    std::lock_guard lock(mutex_);
    join_finished();
    jobs_.push_back(std::move(job));
    if (jobs_.size() > idle_ && running_.size() < HttpServer::kThreads) {
      const auto self = running_.emplace(running_.end());
      *self = std::thread([this, self] { run(self); });
    }
    wake_.notify_one();
  }

  void shutdown() override {
    std::unique_lock lock(mutex_);
    leaving_ = true;
    wake_.notify_all();
    left_.wait(lock, [this] { return running_.empty(); });
    join_finished();
  }

 private:
  using Place = std::list<std::thread>::iterator;

  void run(Place self) {
    std::unique_lock lock(mutex_);
    while (true) {
      ++idle_;
      wake_.wait_for(lock, std::chrono::seconds(HttpServer::kRequestSeconds),
                     [this] { return leaving_ || !jobs_.empty(); });
      --idle_;
      if (jobs_.empty()) break;  // leaving, or idle for long enough
      const auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      lock.lock();
    }
    finished_.splice(finished_.end(), running_, self);
    left_.notify_all();
  }

  // A finished thread holds the lock for its last few instructions, so joining under the lock does not wait for work.
  void join_finished() {
    std::list<std::thread> gone;
    gone.swap(finished_);
    mutex_.unlock();
    for (std::thread& thread : gone) thread.join();
    mutex_.lock();
  }

  std::mutex mutex_;
  std::condition_variable wake_, left_;
  std::deque<std::function<void()>> jobs_;
  std::list<std::thread> running_, finished_;
  size_t idle_ = 0;
  bool leaving_ = false;
};

// One connection, with a deadline per request rather than per read: a peer that drips bytes does not keep its thread.
class Connection final : public httplib::Stream {
 public:
  // `tls`: null = in clear.
  Connection(int fd, int stop_fd, SSL_CTX* tls) : fd_(fd), stop_fd_(stop_fd) {
    if (tls != nullptr) ssl_.reset(SSL_new(tls));
    const int on = 1;  // httplib sends head and body apart, and the body must not wait for the head's ACK
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }

  // In clear there is nothing to do. False: no TLS came of it.
  bool shake_hands(bool secure) {
    if (!secure) return true;
    deadline_ = steady_clock::now() + std::chrono::seconds(HttpServer::kRequestSeconds);
    fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
    if (ssl_ == nullptr || SSL_set_fd(ssl_.get(), fd_) != 1) return false;
    return with_tls([this] { return SSL_accept(ssl_.get()); }) == 1;
  }
  void say_goodbye() {
    ERR_clear_error();
    if (ssl_ != nullptr && SSL_is_init_finished(ssl_.get())) SSL_shutdown(ssl_.get());
  }

  // Waits for the first byte of a request; false = the peer has gone, was idle for too long, or the server stops.
  bool wait_for_request() {
    deadline_ = steady_clock::now() + std::chrono::seconds(HttpServer::kRequestSeconds);
    if (begin_ < end_ || (ssl_ != nullptr && SSL_pending(ssl_.get()) > 0)) return begin_ < end_ || fill();
    pollfd fds[] = {{fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    while (true) {
      const int ready = poll(fds, 2, milliseconds_until(deadline_));
      if (ready < 0 && errno == EINTR) continue;
      if (ready <= 0 || fds[1].revents != 0) return false;
      return fill();
    }
  }

  bool is_readable() const override { return begin_ < end_ || wait(POLLIN); }
  bool is_writable() const override { return wait(POLLOUT); }

  ssize_t read(char* bytes, size_t size) override {
    if (begin_ == end_ && !fill()) return -1;
    const size_t n = std::min(size, end_ - begin_);
    std::memcpy(bytes, buffer_ + begin_, n);
    begin_ += n;
    return static_cast<ssize_t>(n);
  }

  ssize_t write(const char* bytes, size_t size) override {
    size_t done = 0;
    while (done < size) {
      // Progress earns more time: a large answer over a thin line is fine, a reader that has stopped is not.
      deadline_ = steady_clock::now() + std::chrono::seconds(HttpServer::kRequestSeconds);
      if (ssl_ != nullptr) {
        const auto most = static_cast<int>(std::min<size_t>(size - done, 1 << 20));
        const int n = with_tls([&] { return SSL_write(ssl_.get(), bytes + done, most); });
        if (n <= 0) return -1;
        done += static_cast<size_t>(n);
        continue;
      }
      if (!wait(POLLOUT)) return -1;
      const ssize_t n = send(fd_, bytes + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno != EINTR && errno != EAGAIN) return -1;
      if (n > 0) done += static_cast<size_t>(n);
    }
    return static_cast<ssize_t>(size);
  }

  void get_remote_ip_and_port(std::string& ip, int& port) const override { address(getpeername, ip, port); }
  void get_local_ip_and_port(std::string& ip, int& port) const override { address(getsockname, ip, port); }
  socket_t socket() const override { return fd_; }

 private:
  bool wait(short events) const {
    pollfd fd{fd_, events, 0};
    while (true) {
      const int ready = poll(&fd, 1, milliseconds_until(deadline_));
      if (ready >= 0 || errno != EINTR) return ready == 1;
    }
  }

  // Repeats what OpenSSL could not do for want of bytes or room until it can; its result, 0 or less when it is no use.
  template <class Step>
  int with_tls(Step step) {
    while (true) {
      ERR_clear_error();
      const int result = step();
      if (result > 0) return result;
      const int error = SSL_get_error(ssl_.get(), result);
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return result;
      if (!wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT)) return -1;
    }
  }

  bool fill() {
    ssize_t n;
    if (ssl_ != nullptr) {
      n = with_tls([this] { return SSL_read(ssl_.get(), buffer_, sizeof(buffer_)); });
    } else {
      n = wait(POLLIN) ? recv(fd_, buffer_, sizeof(buffer_), 0) : -1;
    }
    if (n <= 0) return false;
    begin_ = 0;
    end_ = static_cast<size_t>(n);
    return true;
  }

  template <class Get>
  void address(Get get, std::string& ip, int& port) const {
    sockaddr_storage storage{};
    socklen_t size = sizeof(storage);
    char host[NI_MAXHOST] = "", service[NI_MAXSERV] = "";
    if (get(fd_, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return;
    if (getnameinfo(reinterpret_cast<sockaddr*>(&storage), size, host, sizeof(host), service, sizeof(service),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
      return;
    }
    ip = host;
    port = std::atoi(service);
  }

  struct Free {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };

  const int fd_, stop_fd_;
  std::unique_ptr<SSL, Free> ssl_;
  steady_clock::time_point deadline_;
  char buffer_[4096];
  size_t begin_ = 0, end_ = 0;
};

// httplib's parsing and answering, over our sockets.
class Protocol final : public httplib::Server {
 public:
  Protocol(int stop_fd, std::shared_ptr<const tls::Context> tls) : stop_fd_(stop_fd), tls_(std::move(tls)) {}
  void serve(int listen_fd) {
    svr_sock_ = listen_fd;
    listen_after_bind();
  }

 private:
  bool process_and_close_socket(socket_t fd) override {
    Connection connection(fd, stop_fd_, tls_ == nullptr ? nullptr : tls_->get().get());
    bool closed = !connection.shake_hands(tls_ != nullptr);
    while (!closed && connection.wait_for_request()) {
      if (!process_request(connection, false, closed, nullptr)) break;
    }
    connection.say_goodbye();
    shutdown(fd, SHUT_RDWR);
    close(fd);
    return true;
  }

  const int stop_fd_;
  const std::shared_ptr<const tls::Context> tls_;
};

// Like Go's net.Listen("tcp", ...): the unspecified address means both families. Returns the descriptor, or -1 and the
// reason.
int listen_on(const std::string& host, int port, std::string& reason) {
  const bool any = host.empty() || host == "0.0.0.0" || host == "::";
  const std::string shown =
      host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  const auto resolve = [&](const char* name) {
    return getaddrinfo(name, std::to_string(port).c_str(), &hints, &found);
  };
  if (resolve(any ? "::" : host.c_str()) != 0) {
    reason = fmt::format("listen tcp: lookup {}: no such host", host);
    return -1;
  }
  int fd = -1, error = 0;
  for (int attempt = 0; attempt < 2 && fd < 0; ++attempt) {
    for (const addrinfo* it = found; it != nullptr && fd < 0; it = it->ai_next) {
      fd = socket(it->ai_family, it->ai_socktype | SOCK_CLOEXEC, it->ai_protocol);
      if (fd < 0) {
        error = errno;
        continue;
      }
      const int on = 1, both = any ? 0 : 1;
      setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
      if (it->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &both, sizeof(both));
      if (bind(fd, it->ai_addr, it->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0) {
        error = errno;
        close(fd);
        fd = -1;
      }
    }
    freeaddrinfo(found);
    found = nullptr;
    // A machine without IPv6 has no "::".
    if (fd >= 0 || !any || (error != EAFNOSUPPORT && error != EADDRNOTAVAIL) || resolve("0.0.0.0") != 0) break;
  }
  if (fd < 0) reason = fmt::format("listen tcp {}: bind: {}", shown, errno_text(error));
  return fd;
}

std::string http_date() {
  const time_t now = time(nullptr);
  tm parts{};
  gmtime_r(&now, &parts);
  char text[64];
  strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return text;
}

}  // namespace

struct HttpServer::Impl {
  int listen_fd = -1;
  int stop_fd = -1;
  int port = 0;
  std::atomic<bool> stopping{false};
  Handler handler;
  std::unique_ptr<Protocol> protocol;
  std::thread thread;

  void answer(const httplib::Request& request, httplib::Response& response) {
    HttpRequest plain;
    plain.path = request.path;
    if (const size_t mark = request.target.find('?'); mark != std::string::npos)
      plain.query = request.target.substr(mark + 1);
    for (const auto& [name, value] : request.params) plain.params.emplace(name, value);
    HttpAnswer answer = handler(plain);
    response.status = answer.status;
    for (const auto& [name, value] : answer.headers) response.set_header(name, value);
    response.set_header("Date", http_date());
    response.set_content(answer.body, answer.content_type);
  }
};

HttpServer::HttpServer() : impl_(std::make_unique<Impl>()) {}
HttpServer::~HttpServer() { stop(); }

int HttpServer::port() const { return impl_->port; }

std::string HttpServer::start(const std::string& host, int port, Handler handler,
                              std::shared_ptr<const tls::Context> tls) {
  std::string reason;
  impl_->listen_fd = listen_on(host, std::max(0, port), reason);
  if (impl_->listen_fd < 0) return reason;
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(impl_->listen_fd, reinterpret_cast<sockaddr*>(&bound), &size);
  impl_->port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                  : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  impl_->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  impl_->stopping = false;
  impl_->handler = std::move(handler);
  impl_->protocol = std::make_unique<Protocol>(impl_->stop_fd, std::move(tls));
  Protocol& protocol = *impl_->protocol;
  protocol.new_task_queue = [] { return new Threads; };
  protocol.set_payload_max_length(64 * 1024);  // a body is read only to be ignored
  protocol.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
    if (request.method != "GET" && request.method != "HEAD") return httplib::Server::HandlerResponse::Unhandled;
    impl_->answer(request, response);
    return httplib::Server::HandlerResponse::Handled;
  });
  // What nothing handled (httplib says 404, there being no routes) came with another method.
  const httplib::Server::HandlerWithResponse wrong_method = [](const httplib::Request& request,
                                                               httplib::Response& response) {
    if (response.status == 404 && request.method != "GET" && request.method != "HEAD") {
      response.status = 405;
      response.set_header("Allow", "GET, HEAD");
      response.set_content("405 method not allowed\n", "text/plain; charset=utf-8");
    }
    return httplib::Server::HandlerResponse::Handled;
  };
  protocol.set_error_handler(wrong_method);
  impl_->thread = std::thread([this] {
    // httplib leaves its accepting loop, and closes the socket, for errors like ECONNABORTED, too: hence a duplicate,
    // and the loop.
    while (!impl_->stopping) {
      const int fd = fcntl(impl_->listen_fd, F_DUPFD_CLOEXEC, 0);
      if (fd >= 0) impl_->protocol->serve(fd);
      if (!impl_->stopping) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
  return {};
}

void HttpServer::stop() {
  if (impl_->listen_fd < 0) return;
  impl_->stopping = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(impl_->stop_fd, &one, sizeof(one));  // ends the waits of idle connections
  shutdown(impl_->listen_fd, SHUT_RDWR);                                        // and the accept
  impl_->thread.join();
  close(impl_->listen_fd);
  close(impl_->stop_fd);
  impl_->listen_fd = -1;
  impl_->port = 0;
  impl_->protocol.reset();
}

}  // namespace peregrine::net::control
