// What all leafnode connections of a server have in common: the listener's INFO, who may connect, the loop subjects,
// which connections there are, and the remotes this server connects to.
//
// Made by main before the shards run, stopped with them. Settings are immutable; the rest is behind one mutex, touched
// when a connection opens or closes or when the cluster changes, never per message. A leafnode connection itself is a
// LeafSession on the shard that accepted or dialled it; this class reaches it by post() only. Source: nats-server's
// server/leafnode.go; parity.md section 7.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "cluster/dialer.h"
#include "cluster/peer_info.h"
#include "cluster/peer_link.h"
#include "cluster/peer_tls.h"
#include "core/auth.h"
#include "core/server.h"
#include "net/reactor.h"

namespace peregrine::cluster {

class LeafRemote;

class LeafNodes {
 public:
  // `port`: the one listened on, 0 = none. `address`: of this server if it listens on all of them, empty = ask the
  // kernel. `cluster_name` says what our cluster is called now, "" = we have none.
  LeafNodes(core::Server& server, Dialer& dialer, int port, const std::string& address, PeerTls tls,
            std::function<std::string()> cluster_name);
  ~LeafNodes();
  LeafNodes(const LeafNodes&) = delete;
  LeafNodes& operator=(const LeafNodes&) = delete;

  // For net::PeerListener.
  net::OpenSession opener();
  // When the shards run: connects to the remotes. Any thread.
  void connect_remotes();
  // No connection is made any more.
  void stop() { stopping_.store(true, std::memory_order_relaxed); }
  bool stopping() const { return stopping_.load(std::memory_order_relaxed); }

  // Where else in the cluster leafnodes may connect ("host:port"); those that are connected are told.
  void set_cluster_urls(const std::vector<std::string>& urls);
  // "host:port" of our own listener, as others should know it; empty without one.
  const std::string& own_url() const { return own_url_; }
  // Set before the shards run: told of every leafnode connection's account, on its shard.
  std::function<void(const std::string& account)> on_connected;

  // --- for sessions and remotes, any thread ---
  core::Server& server() { return server_; }
  Dialer& dialer() { return dialer_; }
  const config::LeafNodes& options() const { return server_.options.leafnodes; }
  const PeerTls& tls() const { return tls_; }
  const PeerClocks& clocks(bool accepted) const { return accepted ? accepted_ : solicited_; }
  // What this server calls itself towards leafnodes and hubs; empty for a hub without a cluster.
  std::string cluster_name() const;
  // INFO without what is the connection's own: client_id, nonce, compression.
  PeerInfo info() const;
  core::Auth::Plan plan(const core::Credentials& credentials) const;
  // "$LDS.<22 characters>": one per account and life of the server.
  std::string loop_subject(const std::string& account);

  // A connection that has been accepted and authenticated.
  struct Registration {
    uint32_t shard = 0;
    uint64_t cid = 0;
    std::string server, cluster, account, remote_account;
    bool hub = false;  // we are its hub
  };
  // Notes it. True when it takes the place of an older one of the same server, which is told and closed.
  bool enter(const Registration& registration);
  void leave(uint64_t cid);
  // Whether a leafnode of that cluster is connected to us: connecting to it as well would be a loop.
  bool is_leaf_cluster(const std::string& account, const std::string& cluster) const;

 private:
  void announce();

  core::Server& server_;
  Dialer& dialer_;
  const std::function<std::string()> cluster_name_;
  const PeerTls tls_;
  PeerClocks accepted_, solicited_;
  std::string own_url_, own_host_;
  const int port_;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::vector<std::string> cluster_urls_;
  std::map<std::string, std::string> loop_subjects_;
  std::map<uint64_t, Registration> registered_;  // by cid
  std::vector<std::unique_ptr<LeafRemote>> remotes_;
};

}  // namespace peregrine::cluster
