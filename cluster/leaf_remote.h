// One entry of leafnodes.remotes: which of its URLs is next, and when to try again.
//
// Lives on one shard from start() on; everything happens on that shard's thread, connections included. There is one
// connection or one attempt at a time, for ever: a failed attempt is followed by the next URL after the reconnect time
// and a random part of it, a lost connection by one after the reconnect time and what the loss asked for (a loop:
// 30 s). Source: nats-server's connectToRemoteLeafNode and pickNextURL; parity.md 7.6.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/leaf_nodes.h"
#include "config/options.h"
#include "core/timer_wheel.h"

namespace peregrine::cluster {

class LeafRemote {
 public:
  // `number`: its place in the list; which shard it lives on follows from it.
  LeafRemote(LeafNodes& nodes, config::RemoteLeaf options, uint32_t number);

  void start();  // any thread, when the shard runs

  // --- on the shard's thread, for its session ---
  const config::RemoteLeaf& options() const { return options_; }
  const std::string& account() const { return account_; }
  // With which user and password: the current URL's, else the first ones among all URLs.
  const std::string& user() const { return current().user.empty() ? user_ : current().user; }
  const std::string& password() const { return current().user.empty() ? password_ : current().password; }
  // The hub's servers as its INFO lists them: those not in the configuration are tried too.
  void discovered(const std::vector<std::string>& urls);
  // The connection has ended.
  void lost();
  void delay_reconnect(int64_t ns) { extra_delay_ns_ = ns; }

 private:
  const config::Url& current() const { return urls_.front(); }
  void connect();
  core::Session* on_dialed(core::Shard& shard, net::Opened opened, const DialError& error);
  void arm(int64_t in_ns);

  LeafNodes& nodes_;
  const config::RemoteLeaf options_;
  const std::string account_;
  const uint32_t number_;
  uint32_t shard_ = 0;             // from start() on
  std::vector<config::Url> urls_;  // the first is the current one, or the next
  std::string user_, password_;
  bool tried_ = false;  // urls_ begins with the one tried last
  bool ever_connected_ = false;
  int64_t attempts_ = 0;
  int64_t extra_delay_ns_ = 0;
  core::Timer timer_;
};

}  // namespace peregrine::cluster
