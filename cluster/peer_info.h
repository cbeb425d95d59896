// INFO and CONNECT as servers say them to each other: JSON <-> values.
//
// Pure functions, any thread, never on the message path. Fields keep nats-server's names and order, because people read
// them in logs and captures; what is empty is left out where nats-server leaves it out. Unknown fields are ignored; a
// field of the wrong type makes the whole line bad, as in Go. Source: nats-server's struct Info (server/server.go) and
// connectInfo (server/route.go); parity.md sections 1.2 and 5.1.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/options.h"

namespace peregrine::cluster {

// What a server of this level says it speaks: 0 nothing special, 1 INFO at any time, 2 accounts, 3 message tracing.
inline constexpr int kPeerProtocol = 3;

// PeerInfo::gossip_mode, of a server that is new: may who hears of it tell others?
inline constexpr int64_t kGossipDisabled = 1, kGossipOverride = 2;

struct PeerInfo {
  std::string server_id;
  std::string server_name;
  std::string version;
  int64_t proto = 0;
  std::string git_commit;
  std::string go;
  std::string host;
  int64_t port = 0;
  bool headers = false;
  bool auth_required = false;
  bool tls_required = false;
  bool tls_verify = false;
  bool tls_available = false;
  int64_t max_payload = 0;
  bool jetstream = false;
  std::string ip;
  int64_t client_id = 0;
  std::string nonce;
  std::string cluster;
  bool cluster_dynamic = false;
  std::string domain;
  std::vector<std::string> connect_urls;
  std::vector<std::string> ws_connect_urls;
  bool ldm = false;
  std::string compression;
  bool connect_info = false;
  std::string remote_account;
  bool acc_is_sys = false;
  // routes
  std::optional<config::SubjectPermission> import_subjects, export_subjects;
  bool lnoc = false;
  bool lnocu = false;
  bool info_on_connect = false;
  int64_t route_pool_size = 0;
  int64_t route_pool_idx = 0;
  std::string route_account;
  std::string route_acc_add_reqid;
  int64_t gossip_mode = 0;
  int64_t shards = 0;  // Peregrine's, at least 1; 0 = a nats-server
  // gateways
  std::string gateway;
  std::vector<std::string> gateway_urls;
  std::string gateway_url;
  int64_t gateway_cmd = 0;
  std::string gateway_cmd_payload;  // base64, as it travels
  bool gateway_nrp = false;
  bool gateway_iom = false;
  // leafnodes
  std::vector<std::string> leafnode_urls;
  std::string xkey;
};

// Nothing if it is not an object, or a field has the wrong type.
std::optional<PeerInfo> parse_info(std::string_view json);
std::string to_json(const PeerInfo& info);
std::string info_line(const PeerInfo& info);

// What a route says of itself in CONNECT (gateways too, with `gateway`).
struct PeerConnect {
  bool echo = true;
  bool verbose = false;
  bool pedantic = false;
  std::string user;
  std::string password;
  bool tls_required = false;
  bool headers = false;
  std::string name;  // server id
  std::string cluster;
  bool cluster_dynamic = false;
  bool lnoc = false;
  bool lnocu = false;
  std::string gateway;
  std::string lang;  // clients have one, servers do not
};

std::optional<PeerConnect> parse_connect(std::string_view json);
std::string to_json(const PeerConnect& connect);

// A CONNECT or INFO line for the trace log, secrets replaced.
std::string redact(std::string_view json);

// 11 random bytes in unpadded base64url; `random` gives them.
std::string make_nonce(uint64_t random_low, uint64_t random_high);

}  // namespace peregrine::cluster
