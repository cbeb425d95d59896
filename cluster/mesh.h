// Who is in the cluster: the routes of this server by remote and pool index, which of two connections stays, whom to
// dial and when again, the cluster's name, and what clients learn of the other servers.
//
// All of that lives on shard 0's thread ("home") and is touched nowhere else, so it needs no lock and is deterministic
// in the simulation. Route sessions on any shard post their questions here and get the answers posted back; two posts
// from one shard keep their order. What sessions read without asking is immutable (settings) or copied under a lock
// that is taken once per handshake (info). Dialling: see dialer.h; the connections of a pool are dialled from one shard
// after the other, so that they spread.
//
// Lifetime: made before the broker starts (its listener needs opener()), start() once the shards run, stop() before
// they are taken down; outlives the shards, because their sessions say goodbye here. start(), stop() and
// enter_lame_duck() from the control thread. Source: nats-server's server/route.go (addRoute, removeRoute,
// processImplicitRoute, connectToRoute); parity.md sections 5.1 to 5.3.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cluster/dialer.h"
#include "cluster/peer_info.h"
#include "cluster/route_session.h"
#include "cluster/route_settings.h"
#include "core/server.h"
#include "core/timer_wheel.h"
#include "net/reactor.h"

namespace peregrine::cluster {

class Gateways;

struct RouteRef {
  uint32_t shard;
  uint64_t cid;
};

struct MeshPlan {
  int port = 0;                            // the cluster listener's, also when a random one was asked for
  std::vector<std::string> client_urls;    // where clients reach this server: host:port
  std::vector<std::string> own_addresses;  // ip:port of the cluster listener on every interface
  std::string leafnode_url, gateway_url;   // our own, told to the cluster; empty = none
  PeerTls::Block tls;                      // null = in clear
  int shards = 1;
};

class Mesh {
 public:
  Mesh(core::Server& server, Dialer& dialer, MeshPlan plan, uint64_t seed);

  void start();
  void stop();
  void enter_lame_duck();
  // Makes sessions of accepted connections; any shard.
  net::OpenSession opener();

  // What the leafnode and gateway parts want to know: the URLs of the other members, told on shard 0's thread after
  // each change.
  std::function<void(const std::vector<std::string>&)> on_leafnode_urls, on_gateway_urls;
  // The gateways of this server, if it has any; set before start().
  Gateways* gateways = nullptr;
  // Says a line to every other member. On shard 0's thread.
  void tell_members(const std::string& line);

  // --- any thread
  const RouteSettings& settings() const { return settings_; }
  const std::string& server_id() const { return server_.identity.id; }
  const std::string& server_name() const { return server_.identity.name; }
  PeerInfo info() const;
  std::string cluster_name() const;
  bool name_is_dynamic() const;
  // Whom a certificate must be of, of who is dialled by `host`; and that it was not.
  std::string tls_name(const std::string& host) const;
  void forget_tls_name(const std::string& host);
  bool stopping() const { return stopping_.load(std::memory_order_relaxed); }

  // --- route sessions, on their shard
  struct Hello {
    RouteRef ref;
    RouteOrigin origin;
    PeerInfo info;         // `ip` filled
    bool dialled = false;  // by us
  };
  struct Farewell {
    RouteRef ref;
    RouteOrigin origin;
    std::string remote_id;
    bool no_reconnect = false;
  };
  void hello(Hello hello);
  void farewell(Farewell farewell);
  // The other side's cluster is called `name`: ours becomes that, or the connection goes.
  void judge_name(RouteRef ref, std::string name, bool dynamic, bool for_good, std::string remote_id);
  void heard_of(PeerInfo info, bool from_no_pool);
  void pool_connection_is_good(RouteRef ref);
  void remote_in_lame_duck(RouteRef ref);
  void account_moves(RouteRef ref, PeerInfo info);

 private:
  // A registered connection.
  struct Member {
    RouteRef ref;
    RouteOrigin origin;
    std::string remote_id, remote_name;
    int pool_index = -1;
    bool no_pool = false;
    bool dialled = false;         // by us; origin.solicited may be inherited
    bool remote_settles = false;  // and the remote has compression to agree on
    std::vector<std::string> connect_urls;
    std::string leafnode_url, gateway_url;
  };
  using Pool = std::vector<Member*>;  // by index; gaps are null

  // Dialling one URL until it is reached or given up.
  struct Attempt {
    uint64_t id;
    RouteOrigin origin;
    bool first;             // this server has not been connected to it before
    std::string remote_id;  // only while that remote is connected in some way, but not in this one; "" = any
    int failures = 0;
    int64_t delay_ns;
    core::Timer timer;
    Mesh* mesh;
  };

  // A remote's own route, or that of one of its accounts, by account and server id, and what would be told of it when.
  struct News {
    PeerInfo info;
    int64_t due_ns;
  };
  using NewsKept = std::map<std::pair<std::string, std::string>, News>;

  // Counts how often each URL was told; a server with several addresses, or two that tell the same, stays listed.
  using UrlCounts = std::map<std::string, int>;

  core::Shard& home() { return *server_.shards[0]; }
  void on_home(std::function<void()> what);
  void tell(RouteRef ref, std::function<void(RouteSession&)> what);

  // --- registering
  void add(Hello hello);
  void add_account_route(Hello hello);
  void refuse(RouteRef ref, core::CloseReason reason, std::string error, bool no_reconnect);
  void refuse_duplicate(Member* stays, const Hello& hello, bool no_reconnect);
  bool gives_way(const Member* ours, const Hello& hello) const;
  void give_way(Member* ours, Hello& hello);
  Member& enroll(Hello& hello, int pool_index, bool no_pool);
  void first_of_remote(Member& member, PeerInfo info);
  void forward(const PeerInfo& info, const RouteOrigin& origin);
  template <class Mode>
  void tell_others(PeerInfo info, Mode&& gossip_mode);
  void keep_news(const PeerInfo& info);
  void tell_kept_news();
  void make_solicited(Member* member, const config::Url& url, bool configured);
  void show_origin(const Member& member);
  // --- going
  void remove(const Farewell& farewell);
  void last_of_remote(const Member& member);
  void reconnect(const RouteOrigin& origin, const std::string& remote_id);
  void take_name(const std::string& name, bool for_good, const std::string& keep);
  // --- dialling
  void solicit(RouteOrigin origin, bool first, int64_t delay_ns, std::string remote_id = {});
  void see_to_other_routes(const Member& member);
  bool is_connected(const std::string& remote_id) const;
  void try_to_reach(uint64_t id);
  void dial_failed(uint64_t id, const DialError& error);
  void hint_at_other_port();
  bool still_wanted(const Attempt& attempt) const;
  bool is_configured(const PeerInfo& info) const;
  void consider(const PeerInfo& info, bool from_no_pool);
  // --- what others are told
  static bool count_urls(UrlCounts& counts, const std::vector<std::string>& urls, bool add);
  void announce_client_urls();
  void announce_names();
  void announce(const UrlCounts& counts, const std::function<void(const std::vector<std::string>&)>& to) const;
  template <class Visit>
  void for_each_remote(Visit&& visit);

  core::Server& server_;
  Dialer& dialer_;
  const MeshPlan plan_;
  const RouteSettings settings_;
  std::atomic<bool> stopping_{false};

  mutable std::mutex tls_mutex_;
  ServerName tls_name_;

  mutable std::mutex name_mutex_;
  std::string name_;
  bool dynamic_;
  PeerInfo info_;  // without what differs per connection

  // --- home's
  core::Random random_;
  std::map<uint64_t, std::unique_ptr<Member>> members_;                   // by cid
  std::map<std::string, Pool> remotes_;                                   // by server id
  std::map<std::string, std::map<std::string, Member*>> account_routes_;  // account, server id
  std::map<uint64_t, std::unique_ptr<Attempt>> attempts_;
  NewsKept news_;
  core::Timer news_timer_;
  uint64_t next_attempt_ = 1;
  uint32_t next_shard_ = 0;  // to dial from
  UrlCounts client_urls_, leafnode_urls_, gateway_urls_;
  bool lame_duck_ = false;
  bool hinted_ = false;
};

template <class Visit>
void Mesh::for_each_remote(Visit&& visit) {
  for (auto& [id, pool] : remotes_) {
    const auto first = std::find_if(pool.begin(), pool.end(), [](const Member* each) { return each != nullptr; });
    if (first != pool.end()) visit(**first);
  }
}

}  // namespace peregrine::cluster
