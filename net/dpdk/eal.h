// DPDK's environment (EAL), once per process: memory, threads' lcore ids, its messages in our log.
//
// start() is called on the main thread before any other thread of ours exists; it lets the EAL work on a thread of its
// own, so that the main thread keeps its CPUs and its name. Nothing of DPDK's reaches stdout or stderr: its messages go
// to our log at dpdk.log_level, what it prints while starting is caught, and a failure comes back as one line with what
// to do about it. DPDK cannot be started twice in a process: one Eal at a time, and none after one has failed.
//
// Threads that use mempools want an lcore id (their cache): LcoreId takes one for the life of a shard's thread.
//
// No header of DPDK is included here or in any other header outside net/dpdk/.
#pragma once

#include <expected>
#include <memory>
#include <string>

#include "config/options.h"
#include "core/log.h"

namespace peregrine::net::dpdk {

class Eal {
 public:
  static std::expected<std::unique_ptr<Eal>, std::string> start(const config::Dpdk& options, core::Log& log);
  ~Eal();  // after every port is closed and every LcoreId is gone
  Eal(const Eal&) = delete;
  Eal& operator=(const Eal&) = delete;

  // Makes a device known: a virtual one is created, a PCI one has been found by start(). The port number, or why not.
  std::expected<uint16_t, std::string> attach(const config::DpdkPort& port);

  const std::string& file_prefix() const { return file_prefix_; }

 private:
  Eal() = default;

  std::string file_prefix_;
  bool huge_pages_ = true;
};

// While it lives, DPDK's errors stay out of our log: whoever opens a device reports them as one line, or knows better.
class HeldMessages {
 public:
  HeldMessages();
  ~HeldMessages();
  HeldMessages(const HeldMessages&) = delete;
  HeldMessages& operator=(const HeldMessages&) = delete;

  std::string take();  // those since the last call, in one line
};

class LcoreId {
 public:
  explicit LcoreId(int& error);  // 0 or -errno
  ~LcoreId();
  LcoreId(const LcoreId&) = delete;
  LcoreId& operator=(const LcoreId&) = delete;

 private:
  bool taken_ = false;
};

}  // namespace peregrine::net::dpdk
