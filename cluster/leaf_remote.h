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
  // `tls`: of the entry's own tls block, null without. `number`: its place in the list; which shard it lives on follows
  // from it.
  LeafRemote(LeafNodes& nodes, config::RemoteLeaf options, PeerTls::Block tls, uint32_t number);

  void start();  // any thread, when the shard runs

  // --- on the shard's thread, for its session ---
  const config::RemoteLeaf& options() const { return options_; }
  const std::string& account() const { return account_; }
  // With which user and password: the current URL's, else the first ones among all URLs.
  const std::string& user() const { return current().user.empty() ? user_ : current().user; }
  const std::string& password() const { return current().user.empty() ? password_ : current().password; }
  // By what the current URL is to be secured, as far as is known; null = not at all.
  const PeerTls::Block& tls() const;
  bool tls_first() const { return options_.tls && options_.tls->handshake_first; }
  // Whom we expect there.
  const std::string& tls_name() const { return tls_name_.of(current().host); }
  void forget_tls_name() { tls_name_.forget_if_used(current().host); }
  // The hub has said that it wants TLS: from now on without being asked.
  void hub_wants_tls() { hub_wants_tls_ = true; }
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
  const PeerTls::Block tls_;
  const uint32_t number_;
  uint32_t shard_ = 0;             // from start() on
  std::vector<config::Url> urls_;  // the first is the current one, or the next
  std::string user_, password_;
  ServerName tls_name_;
  bool hub_wants_tls_ = false;
  bool tried_ = false;  // urls_ begins with the one tried last
  bool ever_connected_ = false;
  int64_t attempts_ = 0;
  int64_t extra_delay_ns_ = 0;
  core::Timer timer_;
};

}  // namespace peregrine::cluster
