#include "net/uring/backend.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "net/carried_socket.h"
#include "net/clock.h"

namespace peregrine::net::uring {
namespace {

constexpr uint16_t kBufferGroup = 0;
constexpr size_t kEventsPerAcquire = 4096;    // completions; a storm of accepts or closes is cut into turns as well
constexpr size_t kReceiveBytes = 128 * 1024;  // of one multishot receive, and of one acquire(): what stays in the cache
constexpr uint32_t kChase =
    8;  // so many receives of less than kChasedBytes in a row: a multishot one chases the sender
constexpr uint32_t kChasedBytes = 1024;
constexpr uint32_t kBatchBytes = 32 * 1024;  // whoever writes that much at once is not a flood of small writes
constexpr uint32_t kRetrySlot = UINT32_MAX;  // in the deadline queue: listeners may accept again
constexpr uint32_t kGenerationMask = 0xff'ffff;

bool out_of_resources(int error) {
  return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
}

}  // namespace

Backend::Backend(const Options& options, const Features& features, int& error)
    : options_(options), features_(features) {
  report_.name = "uring";
  report_.notes = features.notes;
  io_uring_params params{};
  params.flags = features.setup_flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  params.cq_entries = options.completion_entries;
  error = io_uring_queue_init_params(options.submission_entries, &ring_, &params);
  if (error != 0) return;
  ring_made_ = true;
  // Spares the kernel a descriptor look-up per enter; nothing is lost without it.
  io_uring_register_ring_fd(&ring_);
  const bool incremental = features.incremental;
  error = buffers_.open(&ring_, kBufferGroup, incremental ? options.incremental_buffers : options.plain_buffers,
                        incremental ? options.incremental_bytes : options.plain_bytes, incremental);
  if (error != 0) return;
  wake_fd_.reset(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake_fd_) error = -errno;
}

Backend::~Backend() {
  if (ring_made_) io_uring_queue_exit(&ring_);
}

int64_t Backend::now_ns() const { return clock_ns(CLOCK_MONOTONIC); }
int64_t Backend::core_time_ns() const { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

// Op 8 bits, generation 24, slot 32.
uint64_t Backend::user_data(Op op, ConnId id) const {
  const bool conn = op == Op::kConnect || op == Op::kReceive || op == Op::kSend;
  const uint64_t generation = conn ? conns_[id].generation & kGenerationMask : 0;
  return static_cast<uint64_t>(op) << 56 | generation << 32 | id;
}

// ---- submitting

io_uring_sqe* Backend::take_sqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe == nullptr) {
    submit(false);
    sqe = io_uring_get_sqe(&ring_);  // still none when the kernel is out of memory or its completion backlog is full
  }
  return sqe;
}

void Backend::submit(bool run_completions) {
  if (run_completions) {
    io_uring_submit_and_get_events(&ring_);
  } else if (io_uring_sq_ready(&ring_) > 0) {
    io_uring_submit(&ring_);
  }
  if (io_uring_sq_ready(&ring_) == 0) {
    spare_gathers_.insert(spare_gathers_.end(), used_gathers_.begin(), used_gathers_.end());
    used_gathers_.clear();
  }
}

void Backend::need_attention(ConnId id) {
  if (conns_[id].attention) return;
  conns_[id].attention = true;
  attention_.push_back(id);
}

bool Backend::cancel(Op op, ConnId id) {
  io_uring_sqe* sqe = take_sqe();
  if (sqe == nullptr) return false;
  io_uring_prep_cancel64(sqe, user_data(op, id), 0);
  io_uring_sqe_set_data64(sqe, user_data(Op::kCancel, 0));
  return true;
}

bool Backend::arm_receive(ConnId id) {
  if (buffers_.empty()) return false;
  io_uring_sqe* sqe = take_sqe();
  if (sqe == nullptr) return false;
  Conn& conn = conns_[id];
  if (receiving_ == Receiving::kOnce || conn.chased == parks_) {
    io_uring_prep_recv(sqe, conn.fd.get(), nullptr, kReceiveBytes, 0);
  } else {
    io_uring_prep_recv_multishot(sqe, conn.fd.get(), nullptr, 0, 0);
    if (features_.limited) sqe->file_index = kReceiveBytes;  // named `optlen` in newer headers
  }
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = kBufferGroup;
  io_uring_sqe_set_data64(sqe, user_data(Op::kReceive, id));
  conn.receiving = true;
  conn.received = false;
  conn.receive_ends = false;
  return true;
}

bool Backend::submit_send(ConnId id) {
  io_uring_sqe* sqe = take_sqe();
  if (sqe == nullptr) return false;
  Conn& conn = conns_[id];
  if (conn.gather == kNoGather) {
    if (conn.send_is_zero_copy) {
      io_uring_prep_send_zc(sqe, conn.fd.get(), conn.piece.iov_base, conn.piece.iov_len, MSG_NOSIGNAL, 0);
    } else {
      io_uring_prep_send(sqe, conn.fd.get(), conn.piece.iov_base, conn.piece.iov_len, MSG_NOSIGNAL);
    }
  } else {
    const msghdr* message = &gathers_[conn.gather].message;
    if (conn.send_is_zero_copy) {
      io_uring_prep_sendmsg_zc(sqe, conn.fd.get(), message, MSG_NOSIGNAL);
    } else {
      io_uring_prep_sendmsg(sqe, conn.fd.get(), message, MSG_NOSIGNAL);
    }
    used_gathers_.push_back(conn.gather);
    conn.gather = kNoGather;
  }
  if (conn.send_is_zero_copy) {
    sqe->ioprio |= kZeroCopyReportUsage;
    ++zero_copy_sends_;
  }
  io_uring_sqe_set_data64(sqe, user_data(Op::kSend, id));
  conn.sending = SendStage::kSubmitted;
  return true;
}

bool Backend::serve(ConnId id) {
  Conn& conn = conns_[id];
  switch (conn.state) {
    case State::kFree:
    case State::kClosed:
      return true;
    case State::kDialing: {
      if (!conn.connect_wanted) return true;
      io_uring_sqe* sqe = take_sqe();
      if (sqe == nullptr) return false;
      io_uring_prep_connect(sqe, conn.fd.get(), conn.remote.data(), conn.remote.size());
      io_uring_sqe_set_data64(sqe, user_data(Op::kConnect, id));
      conn.connect_wanted = false;
      conn.connecting = true;
      return true;
    }
    case State::kDying:
      if (conn.cancelled) return true;
      if (conn.connecting && !cancel(Op::kConnect, id)) return false;
      if (conn.receiving && !cancel(Op::kReceive, id)) return false;
      if (conn.sending == SendStage::kSubmitted && !cancel(Op::kSend, id)) return false;
      conn.cancelled = true;
      return true;
    case State::kOpen:
    case State::kEnding:
    case State::kLingering:
      break;
  }
  if (conn.sending == SendStage::kWanted && !submit_send(id)) return false;
  if (conn.receiving) {
    if (!conn.paused || conn.receive_ends) return true;
    if (!cancel(Op::kReceive, id)) return false;
    conn.receive_ends = true;
    return true;
  }
  if (conn.paused || conn.ended) return true;
  if (receiving_ == Receiving::kHeld) {
    need_attention(id);
    return true;
  }
  return arm_receive(id);
}

bool Backend::arm_listeners() {
  for (uint32_t n = 0; n < listeners_.size(); ++n) {
    Listener& listener = listeners_[n];
    if (!listener.open || listener.accepting || resting_) continue;
    io_uring_sqe* sqe = take_sqe();
    if (sqe == nullptr) return false;
    io_uring_prep_multishot_accept(sqe, listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, user_data(Op::kAccept, n));
    listener.accepting = true;
  }
  return true;
}

bool Backend::arm_wake() {
  if (wake_armed_) return true;
  io_uring_sqe* sqe = take_sqe();
  if (sqe == nullptr) return false;
  io_uring_prep_poll_multishot(sqe, wake_fd_.get(), POLLIN);
  io_uring_sqe_set_data64(sqe, user_data(Op::kWake, 0));
  wake_armed_ = true;
  return true;
}

// Turns what connections need into SQEs. Two rounds: receives that got nothing last time go before those that did.
void Backend::serve_all() {
  arm_wake();
  arm_listeners();
  if (attention_.empty()) return;
  attention_now_.clear();
  attention_now_.swap(attention_);
  attention_late_.clear();
  bool room = true;
  const auto serve_one = [&](ConnId id) {
    conns_[id].attention = false;
    room = serve(id);
    if (!room) need_attention(id);
  };
  for (const ConnId id : attention_now_) {
    const Conn& conn = conns_[id];
    if (conn.attention && conn.received && !conn.receiving && conn.sending != SendStage::kWanted) {
      attention_late_.push_back(id);
    } else if (conn.attention) {
      serve_one(id);
    }
  }
  for (const ConnId id : attention_late_) {
    if (conns_[id].attention) serve_one(id);
  }
}

// No pause has followed the last turn.
void Backend::end_hold() {
  if (receiving_ == Receiving::kOn) return;
  const bool held = receiving_ == Receiving::kHeld && !attention_.empty();
  receiving_ = Receiving::kOn;
  if (!held) return;
  serve_all();
  if (io_uring_sq_ready(&ring_) > 0) submit(io_uring_cq_ready(&ring_) == 0);
}

void Backend::flush() {
  if (receiving_ == Receiving::kOnce) receiving_ = Receiving::kHeld;
  serve_all();
  // While completions are waiting the kernel is not asked for more: received bytes stay bounded.
  const bool run = io_uring_cq_ready(&ring_) == 0 && io_uring_sq_ready(&ring_) > 0;
  submit(run);
}

void Backend::park(int64_t deadline_ns) {
  end_hold();
  if (++parks_ == 0) parks_ = 1;
  serve_all();
  if (!queued_.empty() || !ended_.empty() || io_uring_cq_ready(&ring_) > 0) return submit(false);
  const int64_t until = std::min(deadline_ns, deadlines_.next_ns());
  const int64_t wait_ns = until == INT64_MAX ? -1 : std::max<int64_t>(until - now_ns(), 0);
  if (wait_ns == 0) return submit(true);
  __kernel_timespec wait{.tv_sec = wait_ns / 1'000'000'000, .tv_nsec = wait_ns % 1'000'000'000};
  io_uring_cqe* cqe = nullptr;
  io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, wait_ns < 0 ? nullptr : &wait, nullptr);
  submit(false);  // hands the gathers back
}

// With deferred task work the kernel receives only while this thread is in it: what is not in the CQ by now has not
// been written. Without, it may be writing this moment.
void Backend::rest() {
  if ((features_.setup_flags & IORING_SETUP_DEFER_TASKRUN) == 0) return;
  if (io_uring_cq_ready(&ring_) > 0 || (IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0) return;
  buffers_.rest();
}

void Backend::wake() {
  if (wake_pending_.exchange(true, std::memory_order_acq_rel)) return;
  const uint64_t one = 1;
  // Cannot block: the counter would need 2^64 wake-ups. Nobody reads it; the poll tells of every write.
  [[maybe_unused]] const ssize_t written = write(wake_fd_.get(), &one, sizeof(one));
}

// ---- completing

// Completions that are due but not in the CQ yet.
void Backend::take_due() {
  if ((IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0) {
    io_uring_get_events(&ring_);
  }
}

void Backend::gather(int64_t for_ns) {
  sleep_for(for_ns);
  receiving_ = Receiving::kOnce;
  serve_all();
  if (io_uring_sq_ready(&ring_) > 0) return submit(true);
  // The CQ may hold what came before the pause; a turn with that alone would have waited for nothing.
  take_due();
}

void Backend::acquire(std::vector<Event>& out) {
  if (receiving_ == Receiving::kHeld) end_hold();
  received_ = 0;
  conns_.recycle();
  expire();
  for (const Event& event : queued_) {
    out.push_back(event);
    conns_.retire(event.conn);
    if (event.kind == Event::Kind::kDialFailed) out.back().conn = kNoConn;
  }
  queued_.clear();
  ended_now_.clear();
  ended_now_.swap(ended_);

  if (io_uring_cq_ready(&ring_) == 0) take_due();
  unsigned taken = 0;
  unsigned head;
  io_uring_cqe* cqe;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    if (received_ >= kReceiveBytes || taken == kEventsPerAcquire) break;
    ++taken;
    complete(*cqe, out);
  }
  io_uring_cq_advance(&ring_, taken);

  for (const Ended& each : ended_now_) {
    const Conn& conn = conns_[each.id];
    if (conn.generation == each.generation && conn.state == State::kOpen) die(each.id, each.error);
  }
}

void Backend::complete(const io_uring_cqe& cqe, std::vector<Event>& out) {
  const auto op = static_cast<Op>(cqe.user_data >> 56);
  const auto slot = static_cast<uint32_t>(cqe.user_data);
  switch (op) {
    case Op::kCancel:
      return;
    case Op::kWake:
      // Before the caller drains its rings: a waker that finds the flag still set published before this exchange.
      wake_pending_.exchange(false, std::memory_order_acq_rel);
      if ((cqe.flags & IORING_CQE_F_MORE) == 0) wake_armed_ = false;
      return;
    case Op::kAccept:
      return on_accept(slot, cqe, out);
    case Op::kConnect:
      return on_connect(slot, cqe.res, out);
    case Op::kReceive:
      return on_receive(slot, cqe, out);
    case Op::kSend:
      return on_send(slot, cqe, out);
  }
}

int Backend::listen(int fd, uint32_t listener) {
  Listener entry{Fd(fd), listener, true, false};
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) return -errno;
  set_tcp_options(fd);
  listeners_.push_back(std::move(entry));
  return 0;
}

void Backend::stop_listening(uint32_t listener) {
  for (uint32_t n = 0; n < listeners_.size(); ++n) {
    Listener& each = listeners_[n];
    if (each.number != listener || !each.open) continue;
    each.open = false;
    // The accept request holds the socket, so that closing alone would leave the port taken: refuse new connections at
    // once, cancel.
    shutdown(each.fd.get(), SHUT_RDWR);
    each.fd.reset();
    if (each.accepting) cancel(Op::kAccept, n);
    submit(io_uring_cq_ready(&ring_) == 0);
  }
}

void Backend::on_accept(uint32_t index, const io_uring_cqe& cqe, std::vector<Event>& out) {
  Listener& listener = listeners_[index];
  if ((cqe.flags & IORING_CQE_F_MORE) == 0) listener.accepting = false;
  if (cqe.res >= 0) {
    Fd fd(cqe.res);
    if (!listener.open) return;
    const ConnId id = conns_.take();
    Conn& conn = conns_[id];
    conn.remote = SocketAddress::remote_of(fd.get());
    conn.fd = std::move(fd);
    conn.state = State::kOpen;
    conn.zero_copy = features_.zero_copy && (options_.zero_copy_on_loopback || !conn.remote.loopback());
    need_attention(id);
    out.push_back({.kind = Event::Kind::kAccepted, .conn = id, .listener = listener.number});
    return;
  }
  if (listener.open && out_of_resources(cqe.res)) {
    ++accept_errors_.count;
    accept_errors_.last_error = -cqe.res;
    if (!resting_) deadlines_.add(now_ns() + kAcceptRetryNs, kRetrySlot, 0);
    resting_ = true;
  }
}

void Backend::dial(const Address& to, uint64_t tag, int64_t timeout_ns) {
  const ConnId id = conns_.take();
  Conn& conn = conns_[id];
  conn.state = State::kDialing;
  conn.dialed = true;
  conn.tag = tag;
  const auto address = SocketAddress::parse(to);
  if (!address) return die(id, -EINVAL);
  conn.fd.reset(socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!conn.fd) return die(id, -errno);
  set_tcp_options(conn.fd.get());
  conn.remote = *address;
  conn.connect_wanted = true;
  deadlines_.add(now_ns() + timeout_ns, id, conn.generation);
  need_attention(id);
}

void Backend::on_connect(ConnId id, int result, std::vector<Event>& out) {
  Conn& conn = conns_[id];
  conn.connecting = false;
  if (conn.state == State::kDying) return finish_if_quiet(id);
  if (result < 0) return die(id, result);
  conn.state = State::kOpen;
  conn.dialed = false;
  conn.zero_copy = features_.zero_copy && (options_.zero_copy_on_loopback || !conn.remote.loopback());
  need_attention(id);
  out.push_back({.kind = Event::Kind::kDialed, .conn = id, .tag = conn.tag});
}

void Backend::on_receive(ConnId id, const io_uring_cqe& cqe, std::vector<Event>& out) {
  Conn& conn = conns_[id];
  if ((cqe.flags & IORING_CQE_F_MORE) == 0) {
    conn.receiving = false;
    conn.receive_ends = false;
    need_attention(id);
  }
  if ((cqe.flags & IORING_CQE_F_BUFFER) != 0) {
    const auto block = static_cast<uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
    const uint32_t bytes = cqe.res > 0 ? static_cast<uint32_t>(cqe.res) : 0;
    const auto filled = buffers_.filled(block, bytes, (cqe.flags & kCqeBufferMore) != 0);
    conn.received = true;
    received_ += bytes;
    Event* const last = out.empty() ? nullptr : &out.back();
    if (bytes > 0 && conn.state == State::kOpen && last != nullptr && last->kind == Event::Kind::kData &&
        last->conn == id && last->buffer == block && last->data + last->size == filled.data) {
      last->size += bytes;  // small receives lie behind each other in their block: one piece, and frames whole
      if (++pieces_ >= kChase && last->size < pieces_ * kChasedBytes) conn.chased = parks_;
    } else if (bytes > 0 && conn.state == State::kOpen) {
      buffers_.hold(block);
      pieces_ = 1;
      if (bytes >= kBatchBytes) conn.chased = 0;
      out.push_back({.kind = Event::Kind::kData, .conn = id, .data = filled.data, .size = bytes, .buffer = block});
    } else {
      buffers_.drop(block);
    }
  }
  if (conn.state == State::kDying) return finish_if_quiet(id);
  switch (cqe.res) {
    case -ENOBUFS:
    case -ECANCELED:
    case -EINTR:
    case -EAGAIN:
      return;  // armed again by the next flush, unless paused
    default:
      if (cqe.res <= 0) end_of_stream(id, cqe.res);
  }
}

void Backend::release(const Event& event) {
  if (event.kind == Event::Kind::kData) buffers_.release(static_cast<uint16_t>(event.buffer));
}

void Backend::end_of_stream(ConnId id, int error) {
  Conn& conn = conns_[id];
  conn.ended = true;
  if (conn.error != 0) error = conn.error;  // a send failed first
  switch (conn.state) {
    case State::kOpen:
      ended_.push_back({id, conn.generation, error});
      return;
    case State::kEnding:
      if (error < 0) die(id, 0);  // otherwise the peer may still be reading
      return;
    default:
      return die(id, 0);
  }
}

SendResult Backend::send(ConnId id, std::span<const iovec> iov) {
  Conn* conn = conns_.holds(id) ? &conns_[id] : nullptr;
  if (conn == nullptr || conn->state != State::kOpen) return {SendResult::Status::kFailed, 0, -EPIPE};
  if (conn->error != 0) return {SendResult::Status::kFailed, 0, conn->error};
  if (conn->sending != SendStage::kNone || iov.empty())
    return {SendResult::Status::kFailed, 0, -EINVAL};  // the caller's bug
  iov = iov.first(std::min<size_t>(iov.size(), IOV_MAX));
  conn->send_is_zero_copy = false;
  if (conn->zero_copy) {
    size_t bytes = 0;
    for (const iovec& piece : iov) bytes += piece.iov_len;
    conn->send_is_zero_copy = bytes / iov.size() >= options_.zero_copy_min_bytes;
  }
  if (iov.size() == 1) {
    conn->piece = iov[0];
  } else {
    if (spare_gathers_.empty()) {
      spare_gathers_.push_back(static_cast<uint32_t>(gathers_.size()));
      gathers_.emplace_back();
    }
    conn->gather = spare_gathers_.back();
    spare_gathers_.pop_back();
    Gather& gather = gathers_[conn->gather];
    gather.pieces.assign(iov.begin(), iov.end());
    gather.message = {};
    gather.message.msg_iov = gather.pieces.data();
    gather.message.msg_iovlen = gather.pieces.size();
  }
  conn->sending = SendStage::kWanted;
  need_attention(id);
  return {SendResult::Status::kPending, 0, 0};
}

void Backend::on_send(ConnId id, const io_uring_cqe& cqe, std::vector<Event>& out) {
  Conn& conn = conns_[id];
  if ((cqe.flags & IORING_CQE_F_NOTIF) != 0) {
    if ((static_cast<uint32_t>(cqe.res) & kZeroCopyCopied) != 0) {
      ++zero_copy_copied_;
      conn.zero_copy = options_.zero_copy_on_loopback;
    }
    return sent(id, conn.send_result, out);
  }
  if ((cqe.flags & IORING_CQE_F_MORE) != 0) {
    conn.send_result = cqe.res;  // taken, but the memory is in use until the notification
    return;
  }
  sent(id, cqe.res, out);
}

void Backend::sent(ConnId id, int result, std::vector<Event>& out) {
  Conn& conn = conns_[id];
  conn.sending = SendStage::kNone;
  if (conn.state == State::kDying) return finish_if_quiet(id);
  const auto bytes = static_cast<uint32_t>(std::max(result, 0));
  out.push_back({.kind = Event::Kind::kSent, .conn = id, .error = std::min(result, 0), .size = bytes});
  if (conn.state == State::kEnding) return result < 0 ? die(id, 0) : start_lingering(id);
  if (result >= 0) return;
  // The peer may have sent before it went: read on to the end, which shutdown() makes sure comes.
  conn.error = result;
  shutdown(conn.fd.get(), SHUT_RDWR);
  conn.paused = false;
  need_attention(id);
}

void Backend::pause(ConnId id) {
  if (!conns_.holds(id) || conns_[id].state != State::kOpen || conns_[id].error != 0) return;
  conns_[id].paused = true;
  need_attention(id);
}

void Backend::resume(ConnId id) {
  if (!conns_.holds(id) || conns_[id].state != State::kOpen) return;
  conns_[id].paused = false;
  need_attention(id);
}

// ---- changing shards

std::unique_ptr<core::CarriedConnection> Backend::give(ConnId id) {
  Conn& conn = conns_[id];
  if (conn.state != State::kOpen || conn.error != 0 || conn.ended || !conn.paused || conn.receiving ||
      conn.sending != SendStage::kNone) {
    return nullptr;
  }
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
  conn.zero_copy = features_.zero_copy && (options_.zero_copy_on_loopback || !conn.remote.loopback());
  need_attention(id);
  return id;
}

// ---- closing

void Backend::close(ConnId id, bool abort) {
  if (!conns_.holds(id)) return;
  Conn& conn = conns_[id];
  if (conn.state != State::kOpen && conn.state != State::kEnding && conn.state != State::kLingering) return;
  if (abort || conn.error != 0) {
    reset_on_close(conn.fd.get());
    // Zero-copy memory is given back only when the queue is purged, and the socket is closed only when it is given
    // back: disconnecting resets and purges at once.
    if (conn.send_is_zero_copy && conn.sending == SendStage::kSubmitted) {
      const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
      connect(conn.fd.get(), &nowhere, sizeof(nowhere));
    }
    return die(id, 0);
  }
  if (conn.state != State::kOpen) return;
  conn.paused = false;
  deadlines_.add(now_ns() + kLingerNs, id, conn.generation);
  if (conn.sending == SendStage::kNone) return start_lingering(id);
  conn.state = State::kEnding;
  need_attention(id);
}

void Backend::start_lingering(ConnId id) {
  Conn& conn = conns_[id];
  if (conn.ended || shutdown(conn.fd.get(), SHUT_WR) != 0) return die(id, 0);
  conn.state = State::kLingering;
  need_attention(id);
}

void Backend::die(ConnId id, int error) {
  Conn& conn = conns_[id];
  if (conn.state == State::kDying || conn.state == State::kClosed) return;
  conn.state = State::kDying;
  conn.error = error;
  if (conn.sending == SendStage::kWanted) {
    conn.sending = SendStage::kNone;
    if (conn.gather != kNoGather) spare_gathers_.push_back(std::exchange(conn.gather, kNoGather));
  }
  need_attention(id);
  finish_if_quiet(id);
}

void Backend::finish_if_quiet(ConnId id) {
  Conn& conn = conns_[id];
  if (conn.connecting || conn.receiving || conn.sending != SendStage::kNone) return;
  conn.fd.reset();
  conn.state = State::kClosed;
  const auto kind = conn.dialed ? Event::Kind::kDialFailed : Event::Kind::kClosed;
  queued_.push_back({.kind = kind, .conn = id, .error = conn.error, .tag = conn.dialed ? conn.tag : 0});
}

void Backend::expire() {
  if (deadlines_.empty()) return;
  const int64_t now = now_ns();
  Deadline due;
  while (deadlines_.pop_due(now, due)) {
    if (due.slot == kRetrySlot) {
      resting_ = false;
      continue;
    }
    const Conn& conn = conns_[due.slot];
    if (conn.generation != due.generation) continue;
    if (conn.state == State::kDialing) die(due.slot, -ETIMEDOUT);
    if (conn.state == State::kEnding || conn.state == State::kLingering) die(due.slot, 0);
  }
}

Address Backend::remote_address(ConnId id) const { return conns_.holds(id) ? conns_[id].remote.numeric() : Address(); }

Address Backend::local_address(ConnId id) const {
  return conns_.holds(id) && conns_[id].fd ? SocketAddress::local_of(conns_[id].fd.get()).numeric() : Address();
}

}  // namespace peregrine::net::uring
