#include "net/dpdk/backend.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <optional>

#include "net/clock.h"
#include "net/listener.h"

namespace peregrine::net::dpdk {
namespace {

constexpr int kFlushTries = 4;
constexpr int64_t kKeepaliveNs = 15'000'000'000;
// Answers to first SYNs a second, in a flood: by way of the kernel one costs ten times what it costs with a card.
constexpr uint32_t kVirtualCookies = 5'000;

tcp::Options stack_options(Ports& ports, uint32_t shard) {
  tcp::Options options;
  options.seed = ports.secret(0) + shard * 0x9e3779b97f4a7c15u;
  options.secret[0] = ports.secret(0);
  options.secret[1] = ports.secret(1);
  const config::Dpdk& given = ports.options();
  options.congestion = given.congestion == config::DpdkCongestion::kNewReno ? tcp::CongestionControl::kNewReno
                                                                            : tcp::CongestionControl::kCubic;
  options.user_timeout_ns = given.user_timeout.count();
  bool card = false;
  for (size_t n = 0; n < ports.size(); ++n) card = card || ports[n].dma();
  if (!card) options.cookies_per_second = kVirtualCookies;
  // As set_tcp_options() has it of the kernel (socket.h).
  options.keepalive_idle_ns = options.keepalive_interval_ns = kKeepaliveNs;
  return options;
}

}  // namespace

Backend::Backend(std::shared_ptr<Ports> ports, uint32_t shard, std::string& error)
    : ports_(std::move(ports)), shard_(shard) {
  report_.name = "dpdk";
  int failed = 0;
  lcore_ = std::make_unique<LcoreId>(failed);
  if (failed != 0) {
    error = fmt::format("shard {} gets no lcore id: {}", shard, errno_text(-failed));
    return;
  }
  lane_ = std::make_unique<Lane>(*ports_, shard);
  const int64_t now = now_ns();
  stack_ = std::make_unique<tcp::Stack>(stack_options(*ports_, shard), *lane_, now);
  for (size_t n = 0; n < ports_->size(); ++n) {
    Device& device = (*ports_)[n];
    if (stack_->add_interface(device.interface(), shard == 0) != static_cast<int>(n)) {
      error = fmt::format("port {}: its addresses do not suit the TCP stack", device.options().device);
      return;
    }
    link_up_.push_back(true);
    if (shard == 0) report_.notes.push_back(device.describe());
  }
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  const auto watch = [&](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  };
  bool watched = epoll_ && watch(doorbell().fd());
  for (const int fd : lane_->interrupt_fds()) watched = watched && watch(fd);
  if (!watched) {
    error = fmt::format("shard {} cannot wait for its queues: {}", shard, errno_text(errno));
    return;
  }
  // Naps are as short as asked for.
  prctl(PR_SET_TIMERSLACK, 1000UL);
  housekeeping(now);
}

Backend::~Backend() {
  if (stack_ == nullptr) return;
  // Connections that are closed but not acknowledged, of all shards: frames cross between them.
  const int64_t until = now_ns() + kLastWordsNs;
  std::vector<Event> events;
  // Only what has taken part counts: a broker whose start failed does not wait.
  bool counted = turning_;
  while (now_ns() < until && ports_->unquiet.load() > 0) {
    events.clear();
    acquire(events);
    for (const Event& event : events) {
      if (event.kind == Event::Kind::kData) release(event);
    }
    flush();
    if (counted && stack_->quiet() && !more_to_send_) {
      counted = false;
      --ports_->unquiet;
    }
    const timespec nap{0, 200'000};
    if (events.empty()) nanosleep(&nap, nullptr);
  }
  if (counted) --ports_->unquiet;
  if (turning_) {
    ports_->log().log(core::LogLevel::kInfo, "dpdk: shard {}: {}", shard_, Report::sums(stack_->stats()));
  }
  ports_->publish(shard_, lane_->stats(), stack_->stats());
  for (const Listener& listener : listeners_) ports_->announce_listener(listener.port, false);
  stack_.reset();
  lane_.reset();
}

int64_t Backend::now_ns() const { return clock_ns(CLOCK_MONOTONIC); }

int Backend::listen(int fd, uint32_t listener) {
  const Fd said(fd);
  const std::optional<Address> given = listener_address(fd);
  if (!given) return -EOPNOTSUPP;
  const Address& at = *given;
  std::optional<tcp::IpAddress> address;
  if (!at.host.empty() && at.host != "0.0.0.0" && at.host != "::") {
    tcp::IpAddress one;
    if (!tcp::IpAddress::parse(at.host, one)) return -EINVAL;
    address = one;
  }
  if (const int error = stack_->listen(address, at.port, listener); error != 0) return error;
  listeners_.push_back({listener, at.port});
  ports_->announce_listener(at.port, true);
  return 0;
}

void Backend::stop_listening(uint32_t listener) {
  stack_->stop_listening(listener);
  for (size_t n = 0; n < listeners_.size();) {
    if (listeners_[n].number != listener) {
      ++n;
      continue;
    }
    // Its connections live on, so the port stays a listener's to whoever routes frames.
    listeners_[n] = listeners_.back();
    listeners_.pop_back();
  }
}

void Backend::dial(const Address& to, uint64_t tag, int64_t timeout_ns) {
  tcp::IpAddress address;
  if (!tcp::IpAddress::parse(to.host, address)) {
    queued_.push_back({.kind = Event::Kind::kDialFailed, .error = -EINVAL, .tag = tag});
    return;
  }
  stack_->dial(address, to.port, tag, timeout_ns, now_ns());
}

void Backend::acquire(std::vector<Event>& out) {
  const int64_t now = now_ns();
  if (!turning_) {
    turning_ = true;
    ++ports_->unquiet;
  }
  if (now >= housekeeping_at_ns_) housekeeping(now);
  if (more_to_send_) lane_->send_waiting();
  // Before the caller drains its rings: who finds the bell rung published before this.
  doorbell().rung();
  const uint64_t refused = stack_->refused();
  const size_t events = out.size();
  if (lane_->receive(*stack_, now, kAcquireBytes)) idle_since_ns_ = 0;
  flooded_ = stack_->refused() != refused;
  stack_->advance(now);
  out.insert(out.end(), queued_.begin(), queued_.end());
  queued_.clear();
  stack_->acquire(out, kAcquireBytes);
  if (out.size() != events) flooded_ = false;
}

void Backend::flush() {
  const int64_t now = now_ns();
  for (int n = 0; n < kFlushTries; ++n) {
    const bool refused = stack_->flush(now);
    more_to_send_ = !lane_->send_waiting() || refused;
    if (!refused) return;
  }
}

void Backend::housekeeping(int64_t now) {
  housekeeping_at_ns_ = now + kHousekeepingNs;
  for (size_t n = 0; n < ports_->size(); ++n) {
    Device& device = (*ports_)[n];
    if (shard_ == 0) {
      const bool was = device.link_up();
      if (const bool up = device.look_at_link(); up != was) {
        ports_->log().log(up ? core::LogLevel::kInfo : core::LogLevel::kWarn, "dpdk: {}: link {}", device.name(),
                          up ? "up" : "down");
        for (uint32_t shard = 1; shard < ports_->shards(); ++shard) ports_->exchange().doorbell(shard).ring();
      }
    }
    const bool up = device.link_up();
    if (up == link_up_[n]) continue;
    link_up_[n] = up;
    stack_->set_link(static_cast<uint32_t>(n), up, now);
  }
  ports_->publish(shard_, lane_->stats(), stack_->stats());
  if (const std::string lost = losses_.losses(now, lane_->stats(), stack_->stats()); !lost.empty()) {
    ports_->log().log(core::LogLevel::kWarn, "dpdk: shard {}: lost {}", shard_, lost);
  }
}

void Backend::nap(int64_t wait_ns, bool interrupts) {
  const timespec wait{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
  if (!interrupts) {
    pollfd bell{doorbell().fd(), POLLIN, 0};
    ppoll(&bell, 1, &wait, nullptr);
    return;
  }
  epoll_event events[8];
  // Milliseconds, rounded up: timers of ours are not that precise.
  const int ready = epoll_wait(epoll_.get(), events, 8,
                               static_cast<int>(std::min<int64_t>((wait_ns + 999'999) / 1'000'000, INT_MAX)));
  for (int n = 0; n < ready; ++n) {
    if ((events[n].events & EPOLLERR) == 0) continue;
    // A socket whose interface went down says so until it is asked what is wrong.
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(events[n].data.fd, SOL_SOCKET, SO_ERROR, &error, &size);
  }
}

// A quarter of the time without work, up to where a person would not notice; then slowly on to kLongestNapNs.
int64_t Backend::nap_after(int64_t idle_ns) {
  return std::max({kShortestNapNs, std::min(idle_ns / 4, kLongNapNs), std::min(idle_ns / 64, kLongestNapNs)});
}

void Backend::park(int64_t deadline_ns) {
  int64_t now = now_ns();
  const int64_t until = std::min(deadline_ns, stack_->next_ns());
  if (!queued_.empty() || until <= now) return;
  if (idle_since_ns_ == 0) idle_since_ns_ = now;
  lane_->reclaim();
  Doorbell& bell = doorbell();
  const bool interrupts = lane_->all_interrupt() && !more_to_send_ && !lane_->lazy() && !flooded_;
  const bool naps = !interrupts && (lane_->polls() || more_to_send_);
  bell.will_sleep();
  if (interrupts) lane_->arm_interrupts(true);
  bool woken = bell.rung();
  if (flooded_ && !woken) {
    nap(std::clamp<int64_t>(until - now, 0, kFloodNapNs), false);
    now = now_ns();
    woken = bell.rung();
  }
  while (!woken && !bell.rung() && !lane_->poll()) {
    int64_t wait = std::min(until, housekeeping_at_ns_) - now;
    if (naps) {
      wait = std::min(wait, more_to_send_ ? kShortestNapNs : nap_after(now - idle_since_ns_));
    }
    if (wait > 0) nap(wait, interrupts);
    now = now_ns();
    if ((more_to_send_ || lane_->lazy()) && lane_->send_waiting() && more_to_send_) break;
    if (now >= until) break;
    if (now >= housekeeping_at_ns_) housekeeping(now);
  }
  if (interrupts) lane_->arm_interrupts(false);
  bell.awake();
}

}  // namespace peregrine::net::dpdk
