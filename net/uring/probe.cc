#include "net/uring/probe.h"

#include <liburing.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "net/socket.h"
#include "net/uring/buffers.h"

namespace peregrine::net::uring {
namespace {

constexpr uint32_t kFlagSets[] = {
    // One thread, completions run only when we ask: no interrupts in the middle of a turn, and a flag that says when to
    // ask.
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
        IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    0,
};

constexpr uint16_t kBufferGroup = 0;
constexpr uint16_t kProbeBuffers = 4;
constexpr uint32_t kProbeBufferBytes = 4096;

// A profile may allow io_uring_setup and refuse the rest.
Refusal call_refused(const char* call, int error) {
  return {true, std::string(call) + " refused (" + errno_text(error) +
                    "): allow io_uring_enter and io_uring_register in the seccomp profile to use io_uring"};
}

Refusal lacks(const std::string& what, const std::string& since) {
  return {true, "io_uring here lacks " + what + " (Linux " + since + " has it)"};
}

std::string first_line(const char* path) {
  char text[64] = {};
  if (FILE* file = fopen(path, "re")) {
    if (fgets(text, sizeof(text), file) == nullptr) text[0] = 0;
    fclose(file);
  }
  text[strcspn(text, "\n")] = 0;
  return text;
}

// A ring for trying things; every question asks for exactly one completion.
class Trial {
 public:
  ~Trial() {
    if (made_) io_uring_queue_exit(&ring_);
  }

  int make(uint32_t flags) {
    io_uring_params params{};
    params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = 64;
    const int result = io_uring_queue_init_params(16, &ring_, &params);
    made_ = result == 0;
    features_ = params.features;
    return result;
  }
  uint32_t features() const { return features_; }
  io_uring* ring() { return &ring_; }
  io_uring_sqe* sqe() { return io_uring_get_sqe(&ring_); }

  struct Answer {
    int result;
    uint32_t flags;
  };
  Answer answer() {
    __kernel_timespec second{.tv_sec = 1, .tv_nsec = 0};
    io_uring_cqe* cqe = nullptr;
    const int result = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &second, nullptr);
    if (result < 0) return {result, 0};
    if (cqe == nullptr) return {-ETIME, 0};
    const Answer answer{cqe->res, cqe->flags};
    io_uring_cqe_seen(&ring_, cqe);
    return answer;
  }

 private:
  io_uring ring_{};
  uint32_t features_ = 0;
  bool made_ = false;
};

// `limit` > 0: the request ends by itself after that many bytes; kernels that do not know the field refuse it.
bool multishot_receive_works(Trial& trial, uint32_t limit) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return false;
  const Fd ours(pair[0]);
  Fd theirs(pair[1]);
  io_uring_sqe* sqe = trial.sqe();
  io_uring_prep_recv_multishot(sqe, ours.get(), nullptr, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = kBufferGroup;
  sqe->file_index = limit;
  if (write(theirs.get(), "x", 1) != 1) return false;
  const auto first = trial.answer();
  const bool works =
      first.result == 1 && (first.flags & IORING_CQE_F_MORE) != 0 && (first.flags & IORING_CQE_F_BUFFER) != 0;
  if (!works) return false;
  theirs.reset();
  const auto last = trial.answer();
  return last.result == 0 && (last.flags & IORING_CQE_F_MORE) == 0;
}

bool multishot_accept_works(Trial& trial) {
  const Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;  // no path: the kernel picks an abstract name
  socklen_t size = sizeof(name);
  if (bind(listener.get(), reinterpret_cast<sockaddr*>(&name), sizeof(sa_family_t)) != 0 ||
      ::listen(listener.get(), 4) != 0 || getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    return false;
  }
  io_uring_prep_multishot_accept(trial.sqe(), listener.get(), nullptr, nullptr, SOCK_CLOEXEC);
  const Fd dialer(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(dialer.get(), reinterpret_cast<sockaddr*>(&name), size) != 0) return false;
  const auto accepted = trial.answer();
  if (accepted.result < 0) return false;
  const Fd taken(accepted.result);
  return (accepted.flags & IORING_CQE_F_MORE) != 0;
}

// Over UDP to ourselves: needs no peer and knows the same flags as TCP.
bool zero_copy_works(Trial& trial) {
  const Fd self(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto any = SocketAddress::parse({"127.0.0.1", 0});
  if (!self || bind(self.get(), any->data(), any->size()) != 0) return false;
  const SocketAddress local = SocketAddress::local_of(self.get());
  if (connect(self.get(), local.data(), local.size()) != 0) return false;
  io_uring_sqe* sqe = trial.sqe();
  io_uring_prep_send_zc(sqe, self.get(), "x", 1, 0, 0);
  sqe->ioprio |= kZeroCopyReportUsage;
  const auto sent = trial.answer();
  if (sent.result != 1 || (sent.flags & IORING_CQE_F_MORE) == 0) return false;
  return (trial.answer().flags & IORING_CQE_F_NOTIF) != 0;
}

}  // namespace

Refusal setup_refused(int error) {
  switch (-error) {
    case EPERM: {
      const std::string disabled = first_line("/proc/sys/kernel/io_uring_disabled");
      if (disabled == "1" || disabled == "2") {
        return {true, "io_uring_setup refused (EPERM): sysctl kernel.io_uring_disabled=" + disabled +
                          "; set it to 0 to use io_uring"};
      }
      return {true,
              "io_uring_setup refused (EPERM): container seccomp profile; start with --security-opt seccomp=<profile "
              "that allows "
              "io_uring_setup, io_uring_enter and io_uring_register> to use io_uring"};
    }
    case EACCES:
      return {true, "io_uring_setup refused (EACCES): a security module forbids it; change its policy to use io_uring"};
    case ENOSYS:
      return {true,
              "io_uring_setup refused (ENOSYS): kernel without io_uring, or a seccomp profile that hides it (Podman, "
              "CRI-O); start with "
              "--security-opt seccomp=<profile that allows io_uring_setup, io_uring_enter and io_uring_register> to "
              "use io_uring"};
    case EINVAL:
      return {true,
              "io_uring_setup refused (EINVAL): the kernel is too old; Linux 6.1 or newer is needed to use io_uring"};
    default:
      return {false, "io_uring_setup: " + errno_text(error)};
  }
}

std::expected<Features, Refusal> probe(const Options& options) {
  Features features;
  Buffers incremental;
  Buffers plain;
  Trial trial;  // goes before the buffers
  int result = -EINVAL;
  for (const uint32_t flags : kFlagSets) {
    if (!options.allow_deferred && (flags & IORING_SETUP_DEFER_TASKRUN) != 0) continue;
    result = trial.make(flags);
    features.setup_flags = flags;
    if (result != -EINVAL) break;
  }
  if (result != 0) return std::unexpected(setup_refused(result));
  if ((features.setup_flags & IORING_SETUP_DEFER_TASKRUN) == 0) {
    features.notes.push_back("no deferred task work (Linux 6.1): completions may interrupt a turn");
  }
  constexpr uint32_t kNeeded =
      IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG | IORING_FEAT_FAST_POLL;
  if ((trial.features() & kNeeded) != kNeeded) return std::unexpected(lacks("basic features", "5.11"));
  io_uring_prep_nop(trial.sqe());
  if (const auto nop = trial.answer(); nop.result != 0)
    return std::unexpected(call_refused("io_uring_enter", nop.result));
  features.incremental = options.allow_incremental &&
                         incremental.open(trial.ring(), kBufferGroup, kProbeBuffers, kProbeBufferBytes, true) == 0;
  if (!features.incremental) {
    features.notes.push_back("no incremental receive buffers (Linux 6.12): one buffer per receive");
    if (const int error = plain.open(trial.ring(), kBufferGroup, kProbeBuffers, kProbeBufferBytes, false); error != 0) {
      if (error == -ENOMEM) return std::unexpected(Refusal{false, "io_uring buffers: " + errno_text(error)});
      if (error == -EPERM || error == -EACCES || error == -ENOSYS)
        return std::unexpected(call_refused("io_uring_register", error));
      return std::unexpected(lacks("provided-buffer rings", "5.19"));
    }
  }
  if (!multishot_receive_works(trial, 0)) return std::unexpected(lacks("multishot receive", "6.0"));
  features.limited = options.allow_limited && multishot_receive_works(trial, kProbeBufferBytes);
  if (options.zero_copy_min_bytes > 0) {
    features.zero_copy = zero_copy_works(trial);
    if (!features.zero_copy)
      features.notes.push_back("no zero-copy send with usage reports (Linux 6.2): sends are copied");
  }
  // Last, since its request stays armed until the ring goes.
  if (!multishot_accept_works(trial)) return std::unexpected(lacks("multishot accept", "5.19"));
  return features;
}

}  // namespace peregrine::net::uring
