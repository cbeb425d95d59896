// relay: the floor. Moves the same bytes as a broker would, for the same connections, with no protocol and no
// decisions.
//
// What a broker costs above this is the broker's own work; what this costs is the kernel's, and no broker using the
// same sockets gets below it. One thread, epoll, no allocation while bytes flow.
//
// Every connection opens with one line, answered by "ok":
//   pub CHANNEL FRAME all|spread ACK     bytes go to all (or to one, in turn) of the channel's subscribers, in whole
//   frames of
//                                        FRAME bytes (1: as they come, for a publisher that has its receivers to
//                                        itself); without subscribers they are dropped, and every ACK bytes earn a
//                                        "PONG"
//   sub CHANNEL
//   requester INDEX FRAME                bytes go to the first responder (whole frames)
//   responder FRAME AT                   each frame goes to the requester whose index stands at byte AT (16 bits,
//   little endian)
//
//   relay [--port N] [--host H] [--ports_file_dir DIR] [--buffer BYTES]
//
// Flow control is the kernel's: while a receiver is full, its senders are not read. (The load generator bounds what is
// in flight.)
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

volatile sig_atomic_t stop_wanted = 0;

constexpr size_t kFrameBytesMax = 256 * 1024;

enum class Role { kNone, kPublisher, kSubscriber, kRequester, kResponder };

struct Link;

struct Channel {
  std::vector<Link*> subscribers;
  size_t turn = 0;
};

// One connection. `pending` holds what its socket did not take; `partial` what is not yet a whole frame.
struct Link {
  int fd = -1;
  Role role = Role::kNone;
  Channel* channel = nullptr;
  size_t frame = 1;
  bool spread = false;
  size_t ack_bytes = 0, unacknowledged = 0;
  uint32_t index = 0;
  size_t index_at = 0;
  std::string partial, pending;
  bool unread = false;  // edge-triggered readable, not read because a receiver was full
  bool writable = true;
};

class Relay {
 public:
  Relay(const std::string& host, int port, size_t buffer_bytes)
      : buffer_(buffer_bytes + kFrameBytesMax), read_bytes_(buffer_bytes) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port < 0 ? 0 : port));
    inet_pton(AF_INET, host.c_str(), &address.sin_addr);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 4096) != 0) {
      std::perror("relay: listen");
      std::exit(1);
    }
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    watch(listener_, nullptr);
  }

  int port() const { return port_; }

  void run() {
    while (!stop_wanted) {
      epoll_event events[256];
      const int n = epoll_wait(epoll_, events, 256, -1);
      for (int i = 0; i < n; ++i) {
        Link* link = static_cast<Link*>(events[i].data.ptr);
        if (!link) {
          accept_all();
          continue;
        }
        if (events[i].events & EPOLLOUT) {
          link->writable = true;
          if (!link->pending.empty()) drain(*link);
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read(*link);
      }
      if (resume_) resume();
      bury();
    }
  }

 private:
  void watch(int fd, Link* link) {
    epoll_event e{};
    e.events = link ? EPOLLIN | EPOLLOUT | EPOLLET : EPOLLIN;
    e.data.ptr = link;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e);
  }

  void accept_all() {
    for (;;) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) return;
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      auto link = std::make_unique<Link>();
      link->fd = fd;
      watch(fd, link.get());
      links_[fd] = std::move(link);
    }
  }

  // Appends to the receiver; the common case is one send() and nothing left.
  void send_to(Link& to, const char* from, size_t size) {
    if (to.pending.empty() && to.writable) {
      const ssize_t n = send(to.fd, from, size, MSG_NOSIGNAL);
      if (n == static_cast<ssize_t>(size)) return;
      if (n > 0) from += n, size -= static_cast<size_t>(n);
      to.writable = false;
    }
    to.pending.append(from, size);
    ++full_;
  }

  void drain(Link& link) {
    const ssize_t n = send(link.fd, link.pending.data(), link.pending.size(), MSG_NOSIGNAL);
    if (n > 0) link.pending.erase(0, static_cast<size_t>(n));
    link.writable = link.pending.empty();
    if (link.pending.empty()) resume_ = true;
  }

  bool receivers_full(const Link& from) const {
    if (full_ == 0) return false;
    if (from.role == Role::kRequester) return responder_ && !responder_->pending.empty();
    if (from.role != Role::kPublisher) return false;
    for (const Link* s : from.channel->subscribers) {
      if (!s->pending.empty()) return true;
    }
    return false;
  }

  void resume() {
    resume_ = false;
    for (auto& [fd, link] : links_) {
      if (link->unread) read(*link);
    }
  }

  // Edge-triggered: reads until the socket is empty, a short read says it is, or a receiver is full.
  void read(Link& link) {
    link.unread = false;
    for (;;) {
      if (receivers_full(link)) {
        link.unread = true;
        return;
      }
      std::memcpy(buffer_.data(), link.partial.data(), link.partial.size());
      const size_t room = read_bytes_;
      const ssize_t n = recv(link.fd, buffer_.data() + link.partial.size(), room, 0);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return close_link(link);
      if (n < 0) return;
      const size_t have = link.partial.size() + static_cast<size_t>(n);
      const size_t used = link.role == Role::kNone ? introduce(link, have) : move(link, have);
      link.partial.assign(buffer_.data() + used, have - used);
      if (static_cast<size_t>(n) < room) return;
    }
  }

  size_t move(Link& link, size_t have) {
    const char* const data = buffer_.data();
    const size_t whole = have - have % link.frame;
    if (whole == 0) return 0;
    switch (link.role) {
      case Role::kPublisher:
        publish(link, data, whole);
        break;
      case Role::kRequester:
        if (responder_) send_to(*responder_, data, whole);
        break;
      case Role::kResponder:
        answer(link, data, whole);
        break;
      default:
        break;
    }
    return whole;
  }

  void publish(Link& link, const char* data, size_t size) {
    std::vector<Link*>& subscribers = link.channel->subscribers;
    if (subscribers.empty()) {
      if (link.ack_bytes == 0) return;
      link.unacknowledged += size;
      for (; link.unacknowledged >= link.ack_bytes; link.unacknowledged -= link.ack_bytes) send_to(link, "PONG\r\n", 6);
    } else if (link.spread) {
      // Shares as even as whole frames allow, one write each: the least a queue group can cost.
      const size_t frames = size / link.frame;
      const size_t receivers = std::min(frames, subscribers.size());
      for (size_t i = 0, at = 0; i < receivers; ++i) {
        const size_t share = (frames / receivers + (i < frames % receivers ? 1 : 0)) * link.frame;
        send_to(*subscribers[link.channel->turn++ % subscribers.size()], data + at, share);
        at += share;
      }
    } else {
      for (Link* s : subscribers) send_to(*s, data, size);
    }
  }

  // Answers that come together leave together, one write for each requester.
  void answer(const Link& link, const char* data, size_t size) {
    for (size_t at = 0; at < size;) {
      uint16_t index;
      std::memcpy(&index, data + at + link.index_at, 2);
      size_t run = link.frame;
      for (; at + run < size && std::memcmp(data + at + run + link.index_at, &index, 2) == 0; run += link.frame) {
      }
      if (index < requesters_.size() && requesters_[index]) send_to(*requesters_[index], data + at, run);
      at += run;
    }
  }

  size_t introduce(Link& link, size_t have) {
    const char* newline = static_cast<const char*>(std::memchr(buffer_.data(), '\n', have));
    if (!newline) return 0;
    std::istringstream words(std::string(buffer_.data(), static_cast<size_t>(newline - buffer_.data())));
    std::string role;
    int channel = 0;
    words >> role;
    if (role == "pub") {
      std::string mode;
      words >> channel >> link.frame >> mode >> link.ack_bytes;
      link.role = Role::kPublisher;
      link.spread = mode == "spread";
      link.channel = &channels_[channel];
    } else if (role == "sub") {
      words >> channel;
      link.role = Role::kSubscriber;
      link.channel = &channels_[channel];
      link.channel->subscribers.push_back(&link);
    } else if (role == "requester") {
      words >> link.index >> link.frame;
      link.role = Role::kRequester;
      if (requesters_.size() <= link.index) requesters_.resize(link.index + 1);
      requesters_[link.index] = &link;
    } else if (role == "responder") {
      words >> link.frame >> link.index_at;
      link.role = Role::kResponder;
      responder_ = &link;
    }
    if (link.frame == 0) link.frame = 1;
    if (link.frame > kFrameBytesMax) send_to(link, "frame too large\n", 16);
    else send_to(link, "ok\n", 3);
    return static_cast<size_t>(newline + 1 - buffer_.data());
  }

  void close_link(Link& link) {
    if (link.channel && link.role == Role::kSubscriber) std::erase(link.channel->subscribers, &link);
    if (link.role == Role::kRequester) requesters_[link.index] = nullptr;
    if (responder_ == &link) responder_ = nullptr;
    dead_.push_back(link.fd);
  }

  void bury() {
    for (int fd : dead_) {
      if (links_.erase(fd)) close(fd);
    }
    dead_.clear();
  }

  std::vector<char> buffer_;
  size_t read_bytes_;
  int epoll_ = -1, listener_ = -1, port_ = 0;
  std::map<int, std::unique_ptr<Link>> links_;
  std::map<int, Channel> channels_;
  std::vector<Link*> requesters_;
  Link* responder_ = nullptr;
  std::vector<int> dead_;
  uint64_t full_ = 0;  // how often a receiver was full; while it never happened nobody is asked
  bool resume_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"The floor: moves bytes between connections with no protocol"};
  std::string host = "127.0.0.1", ports_dir;
  int port = -1;
  size_t buffer_bytes = 64 * 1024;
  app.add_option("--host", host)->capture_default_str();
  app.add_option("--port", port, "-1: any free port")->capture_default_str();
  app.add_option("--ports_file_dir", ports_dir, "Write relay_PID.ports (JSON) there");
  app.add_option("--buffer", buffer_bytes, "Bytes per read")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  struct sigaction action {};
  action.sa_handler = [](int) { stop_wanted = 1; };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);

  Relay relay(host, port, buffer_bytes);
  std::printf("relay listening on %s:%d\n", host.c_str(), relay.port());
  std::fflush(stdout);
  std::filesystem::path ports_file;
  if (!ports_dir.empty()) {
    ports_file = std::filesystem::path(ports_dir) / ("relay_" + std::to_string(getpid()) + ".ports");
    std::ofstream(ports_file) << "{\"nats\":[\"relay://" << host << ":" << relay.port() << "\"]}\n";
  }
  relay.run();
  if (!ports_file.empty()) std::filesystem::remove(ports_file);
  return 0;
}
