#include "net/epoll/backend.h"

#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "net/carried_socket.h"
#include "net/clock.h"

namespace peregrine::net::epoll {
namespace {

constexpr size_t kBatch = 512;  // readiness events per epoll_wait
// One recv asks for what acquire() may still take, but not less than this: large ones were cheaper per byte, in noisy
// runs.
constexpr uint32_t kReceiveBytes = 64 * 1024;
constexpr uint32_t kSlabBytes = Backend::kAcquireBytes + 2 * kReceiveBytes;  // one acquire() always fits one empty slab
constexpr size_t kSpareSlabs = 2;
constexpr size_t kMostSlabs = 8;  // in use: no more is lent
constexpr int kAcceptsPerTurn = 64;
constexpr size_t kDrainBytes = 256 * 1024;  // thrown away per turn from one lingering connection

// epoll_event::data: generation << 32 | slot; slots from kListenerBase up are listeners, kWakeSlot is the eventfd.
constexpr uint32_t kListenerBase = 0xf000'0000;
constexpr uint32_t kWakeSlot = UINT32_MAX;
constexpr uint32_t kRetrySlot = UINT32_MAX;  // in the deadline queue: listeners may accept again

bool out_of_resources(int error) { return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM; }

}  // namespace

Backend::Backend(int& error) {
  report_.name = "epoll";
  error = 0;
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  wake_fd_.reset(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = kWakeSlot;
  if (!epoll_ || !wake_fd_ || epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_fd_.get(), &event) != 0) {
    error = -errno;
    return;
  }
  batch_.resize(kBatch);
  // Tried once, since a seccomp profile may know epoll_wait only.
  const timespec no_time{};
  if (epoll_pwait2(epoll_.get(), batch_.data(), 1, &no_time, nullptr) < 0 && errno != EINTR) {
    have_pwait2_ = false;
    report_.notes.push_back("no epoll_pwait2: timers have millisecond steps");
  }
}

Backend::~Backend() = default;

int64_t Backend::now_ns() const { return clock_ns(CLOCK_MONOTONIC); }
int64_t Backend::core_time_ns() const { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

int Backend::listen(int fd, uint32_t listener) {
  Listener entry{Fd(fd), listener, true};
  if (const int error = set_nonblocking(fd); error < 0) return error;
  set_tcp_options(fd);
  epoll_event event{};
  event.events = resting_ ? 0 : static_cast<uint32_t>(EPOLLIN);
  event.data.u64 = kListenerBase + listeners_.size();
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
  listeners_.push_back(std::move(entry));
  return 0;
}

void Backend::stop_listening(uint32_t listener) {
  for (Listener& each : listeners_) {
    if (each.number != listener || !each.open) continue;
    each.open = false;
    each.fd.reset();
  }
}

void Backend::rest_listeners(int error) {
  ++accept_errors_.count;
  accept_errors_.last_error = error;
  if (resting_) return;
  resting_ = true;
  for (uint32_t n = 0; n < listeners_.size(); ++n) {
    epoll_event event{};
    event.data.u64 = kListenerBase + n;
    if (listeners_[n].open) epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listeners_[n].fd.get(), &event);
  }
  deadlines_.add(now_ns() + kAcceptRetryNs, kRetrySlot, 0);
}

void Backend::accept_some(uint32_t index, std::vector<Event>& out) {
  for (int n = 0; n < kAcceptsPerTurn && listeners_[index].open && !resting_; ++n) {
    SocketAddress remote;
    socklen_t size = SocketAddress::kCapacity;
    Fd fd(accept4(listeners_[index].fd.get(), remote.data(), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (out_of_resources(errno)) rest_listeners(errno);
      if (errno == EAGAIN || resting_) return;
      continue;  // the peer gave up meanwhile (ECONNABORTED and the network errors of accept(2)), or EINTR
    }
    const ConnId id = conns_.take();
    Conn& conn = conns_[id];
    conn.fd = std::move(fd);
    conn.state = State::kOpen;
    conn.remote = remote;
    arm(id, EPOLLIN);
    out.push_back({.kind = Event::Kind::kAccepted, .conn = id, .listener = listeners_[index].number});
  }
}

void Backend::dial(const Address& to, uint64_t tag, int64_t timeout_ns) {
  const auto fail = [&](int error) {
    queued_.push_back({.kind = Event::Kind::kDialFailed, .error = error, .tag = tag});
  };
  const auto address = SocketAddress::parse(to);
  if (!address) return fail(-EINVAL);
  Fd fd(socket(address->family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!fd) return fail(-errno);
  set_tcp_options(fd.get());
  if (connect(fd.get(), address->data(), address->size()) != 0 && errno != EINPROGRESS) return fail(-errno);
  const ConnId id = conns_.take();
  Conn& conn = conns_[id];
  conn.fd = std::move(fd);
  conn.state = State::kDialing;
  conn.tag = tag;
  conn.remote = *address;
  arm(id, EPOLLOUT);
  deadlines_.add(now_ns() + timeout_ns, id, conn.generation);
}

void Backend::fail_dial(ConnId id, int error) {
  queued_.push_back({.kind = Event::Kind::kDialFailed, .error = error, .tag = conns_[id].tag});
  conns_.retire(id);
}

void Backend::finish_dial(ConnId id, std::vector<Event>& out) {
  Conn& conn = conns_[id];
  int error = 0;
  socklen_t size = sizeof(error);
  if (getsockopt(conn.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error != 0) return fail_dial(id, -error);
  conn.state = State::kOpen;
  arm(id, EPOLLIN);
  out.push_back({.kind = Event::Kind::kDialed, .conn = id, .tag = conn.tag});
}

uint32_t Backend::wanted(const Conn& conn) const {
  return (conn.paused ? 0u : static_cast<uint32_t>(EPOLLIN)) | (conn.blocked ? static_cast<uint32_t>(EPOLLOUT) : 0u);
}

void Backend::arm(ConnId id, uint32_t wanted) {
  Conn& conn = conns_[id];
  if (conn.armed == wanted) return;
  const int operation = conn.armed == 0 ? EPOLL_CTL_ADD : wanted == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  epoll_event event{};
  event.events = wanted;
  event.data.u64 = static_cast<uint64_t>(conn.generation) << 32 | id;
  conn.armed = wanted;
  // Fails only for want of memory or watches (fs.epoll.max_user_watches); a connection we would never hear of again
  // must go.
  if (epoll_ctl(epoll_.get(), operation, conn.fd.get(), &event) == 0) return;
  const int error = -errno;
  if (conn.state == State::kDialing) {
    deadlines_.add(0, id, conn.generation);
  } else {
    finish(id, error);
  }
}

void Backend::finish(ConnId id, int error) {
  Conn& conn = conns_[id];
  conn.fd.reset();
  conn.armed = 0;
  conn.state = State::kClosed;
  queued_.push_back({.kind = Event::Kind::kClosed, .conn = id, .error = error});
}

Backend::Slab& Backend::slab_with_room() {
  if (!slabs_.empty()) {
    Slab& slab = slabs_[slab_];
    if (slab.held == 0) slab.used = 0;
    if (slab.used + kReceiveBytes <= kSlabBytes) return slab;
  }
  if (!spare_slabs_.empty()) {
    slab_ = spare_slabs_.back();
    spare_slabs_.pop_back();
  } else {
    slab_ = static_cast<uint32_t>(slabs_.size());
    slabs_.emplace_back();
  }
  Slab& slab = slabs_[slab_];
  slab.used = 0;
  if (slab.memory == nullptr) slab.memory = std::make_unique_for_overwrite<char[]>(kSlabBytes);
  return slab;
}

void Backend::release(const Event& event) {
  if (event.kind == Event::Kind::kData) take_back(event.buffer);
}

// Lent bytes usually come back in the same turn. The slab being filled is as good as any other.
bool Backend::lend(uint32_t buffer) {
  if (slabs_.size() - spare_slabs_.size() > kMostSlabs) return false;
  ++slabs_[buffer].held;
  return true;
}

void Backend::take_back(uint32_t buffer) {
  Slab& slab = slabs_[buffer];
  if (--slab.held > 0 || buffer == slab_) return;
  if (spare_slabs_.size() >= kSpareSlabs) slab.memory.reset();
  spare_slabs_.push_back(buffer);
}

void Backend::receive(ConnId id, std::vector<Event>& out) {
  Conn& conn = conns_[id];
  if (conn.received_turn == turn_) return;  // told twice in one acquire(); the level will tell again
  conn.received_turn = turn_;
  Slab& slab = slab_with_room();
  char* const at = slab.memory.get() + slab.used;
  const size_t left = received_ < kAcquireBytes ? kAcquireBytes - received_ : 0;
  const size_t size = std::min<size_t>(std::max<size_t>(left, kReceiveBytes), kSlabBytes - slab.used);
  ssize_t n;
  do n = recv(conn.fd.get(), at, size, MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n > 0) {
    ++slab.held;
    // The next bytes start on a cache line of their own.
    slab.used += static_cast<uint32_t>((n + 63) & ~63);
    received_ += static_cast<size_t>(n);
    out.push_back(
        {.kind = Event::Kind::kData, .conn = id, .data = at, .size = static_cast<uint32_t>(n), .buffer = slab_});
    return;
  }
  if (n < 0 && errno == EAGAIN) return;
  const int error = conn.error != 0 ? conn.error : n < 0 ? -errno : 0;
  finish(id, error);
}

void Backend::drain(ConnId id) {
  Conn& conn = conns_[id];
  // MSG_TRUNC on TCP throws the bytes away without copying them.
  for (size_t dropped = 0; dropped < kDrainBytes;) {
    const ssize_t n = recv(conn.fd.get(), nullptr, kReceiveBytes, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return finish(id, 0);
    dropped += static_cast<size_t>(n);
  }
}

void Backend::handle_conn(ConnId id, uint32_t ready, std::vector<Event>& out) {
  Conn& conn = conns_[id];
  switch (conn.state) {
    case State::kDialing:
      return finish_dial(id, out);
    case State::kLingering:
      return drain(id);
    case State::kOpen:
      break;
    case State::kFree:
    case State::kClosed:
      return;
  }
  const bool broken = (ready & (EPOLLERR | EPOLLHUP)) != 0;
  if ((ready & EPOLLOUT) != 0 || broken) {
    if (conn.blocked) {
      conn.blocked = false;
      out.push_back({.kind = Event::Kind::kWritable, .conn = id});
    } else if ((conn.armed & EPOLLOUT) != 0) {
      arm(id, wanted(conn));
      if (conn.state != State::kOpen) return;
    }
  }
  if ((ready & EPOLLIN) == 0 && !broken) return;
  if (conn.paused) return arm(id, wanted(conn));
  receive(id, out);
}

void Backend::handle(const epoll_event& event, std::vector<Event>& out) {
  const auto slot = static_cast<uint32_t>(event.data.u64);
  if (slot == kWakeSlot) {
    // Before the caller drains its rings: a waker that finds the flag still set published before this exchange.
    wake_pending_.exchange(false, std::memory_order_acq_rel);
  } else if (slot >= kListenerBase) {
    accept_some(slot - kListenerBase, out);
  } else if (conns_[slot].generation == event.data.u64 >> 32) {
    handle_conn(slot, event.events, out);
  }
}

void Backend::expire() {
  if (deadlines_.empty()) return;
  const int64_t now = now_ns();
  Deadline due;
  while (deadlines_.pop_due(now, due)) {
    if (due.slot == kRetrySlot) {
      resting_ = false;
      for (uint32_t n = 0; n < listeners_.size(); ++n) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = kListenerBase + n;
        if (listeners_[n].open) epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listeners_[n].fd.get(), &event);
      }
      continue;
    }
    const Conn& conn = conns_[due.slot];
    if (conn.generation != due.generation) continue;
    if (conn.state == State::kDialing) fail_dial(due.slot, -ETIMEDOUT);
    if (conn.state == State::kLingering) finish(due.slot, 0);
  }
}

void Backend::acquire(std::vector<Event>& out) {
  ++turn_;
  received_ = 0;
  conns_.recycle();
  expire();
  for (const Event& event : queued_) {
    out.push_back(event);
    if (event.kind == Event::Kind::kClosed) conns_.retire(event.conn);
  }
  queued_.clear();
  if (batch_next_ == batch_end_) {
    const int n = epoll_wait(epoll_.get(), batch_.data(), static_cast<int>(batch_.size()), 0);
    batch_next_ = 0;
    batch_end_ = n > 0 ? static_cast<size_t>(n) : 0;
  }
  while (batch_next_ < batch_end_ && received_ < kAcquireBytes) handle(batch_[batch_next_++], out);
}

SendResult Backend::send(ConnId id, std::span<const iovec> iov) {
  Conn* conn = conns_.holds(id) ? &conns_[id] : nullptr;
  if (conn == nullptr || conn->state != State::kOpen) return {SendResult::Status::kFailed, 0, -EPIPE};
  if (conn->error != 0) return {SendResult::Status::kFailed, 0, conn->error};
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(iov.data());
  message.msg_iovlen = std::min<size_t>(iov.size(), IOV_MAX);
  ssize_t n;
  do n = sendmsg(conn->fd.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n >= 0) return {SendResult::Status::kDone, static_cast<size_t>(n), 0};
  if (errno == EAGAIN) {
    conn->blocked = true;
    arm(id, wanted(*conn) | conn->armed);  // keeps a read interest that a pause has not yet had to take away
    return {SendResult::Status::kBlocked, 0, 0};
  }
  const int error = -errno;
  conn->error = error;
  // The peer may have sent before it went. shutdown() makes sure that reading on comes to an end.
  shutdown(conn->fd.get(), SHUT_RDWR);
  conn->paused = false;
  conn->blocked = false;
  arm(id, EPOLLIN);
  return {SendResult::Status::kFailed, 0, error};
}

void Backend::pause(ConnId id) {
  if (conns_.holds(id) && conns_[id].state == State::kOpen && conns_[id].error == 0) conns_[id].paused = true;
}

void Backend::resume(ConnId id) {
  if (!conns_.holds(id) || conns_[id].state != State::kOpen || !conns_[id].paused) return;
  Conn& conn = conns_[id];
  conn.paused = false;
  arm(id, wanted(conn) | conn.armed);
}

std::unique_ptr<core::CarriedConnection> Backend::give(ConnId id) {
  Conn& conn = conns_[id];
  if (conn.state != State::kOpen || conn.error != 0 || !conn.paused || conn.blocked) return nullptr;
  arm(id, 0);
  if (conn.state != State::kOpen) return nullptr;
  auto carried = std::make_unique<CarriedSocket>(std::move(conn.fd), conn.remote);
  conns_.retire(id);
  return carried;
}

ConnId Backend::take(std::unique_ptr<core::CarriedConnection> connection) {
  auto& carried = static_cast<CarriedSocket&>(*connection);
  const ConnId id = conns_.take();
  Conn& conn = conns_[id];
  conn.remote = carried.remote;
  conn.fd = std::move(carried.fd);
  conn.state = State::kOpen;
  arm(id, EPOLLIN);
  return id;
}

void Backend::close(ConnId id, bool abort) {
  if (!conns_.holds(id)) return;
  Conn& conn = conns_[id];
  if (conn.state != State::kOpen && conn.state != State::kLingering) return;
  if (abort || conn.error != 0) {
    reset_on_close(conn.fd.get());
    return finish(id, 0);
  }
  if (conn.state == State::kLingering) return;
  if (shutdown(conn.fd.get(), SHUT_WR) != 0) return finish(id, 0);  // the peer has reset it
  conn.state = State::kLingering;
  conn.paused = false;
  conn.blocked = false;
  deadlines_.add(now_ns() + kLingerNs, id, conn.generation);
  arm(id, EPOLLIN);
}

Address Backend::remote_address(ConnId id) const { return conns_.holds(id) ? conns_[id].remote.numeric() : Address(); }

Address Backend::local_address(ConnId id) const {
  return conns_.holds(id) && conns_[id].fd ? SocketAddress::local_of(conns_[id].fd.get()).numeric() : Address();
}

void Backend::park(int64_t deadline_ns) {
  if (!queued_.empty() || batch_next_ < batch_end_) return;
  const int64_t until = std::min(deadline_ns, deadlines_.next_ns());
  const int64_t wait_ns = until == INT64_MAX ? -1 : std::max<int64_t>(until - now_ns(), 0);
  if (wait_ns == 0) return;
  int n;
  if (have_pwait2_) {
    const timespec wait{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
    n = epoll_pwait2(epoll_.get(), batch_.data(), static_cast<int>(batch_.size()), wait_ns < 0 ? nullptr : &wait,
                     nullptr);
  } else {
    // Rounded up: waking before the deadline would spin.
    const int64_t wait_ms = std::min<int64_t>((wait_ns + kMillisecond - 1) / kMillisecond, INT_MAX);
    n = epoll_wait(epoll_.get(), batch_.data(), static_cast<int>(batch_.size()),
                   wait_ns < 0 ? -1 : static_cast<int>(wait_ms));
  }
  batch_next_ = 0;
  batch_end_ = n > 0 ? static_cast<size_t>(n) : 0;
}

void Backend::wake() {
  if (wake_pending_.exchange(true, std::memory_order_acq_rel)) return;
  const uint64_t one = 1;
  // Cannot block: the counter would need 2^64 wake-ups.
  [[maybe_unused]] const ssize_t written = write(wake_fd_.get(), &one, sizeof(one));
}

}  // namespace peregrine::net::epoll
