// CONNECT as leafnodes say it: JSON <-> values; and the versions in it.
//
// Pure functions, any thread, never on the message path. Fields keep nats-server's names and order; what is empty is
// left out; unknown fields are ignored, a field of the wrong type makes the line bad, names are found without regard to
// case, as in Go. Source: nats-server's leafConnectInfo (server/leafnode.go); parity.md 7.2-03.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace peregrine::cluster {

struct LeafConnect {
  std::string version;
  std::string nkey, jwt, sig;
  std::string user, password, token;
  std::string server_id;
  std::string domain;
  std::string name;  // of the server
  bool is_hub = false;
  std::string cluster;
  bool headers = false;
  bool jetstream = false;
  std::vector<std::string> deny_publish;
  bool isolate = false;
  std::string compression;
  std::string gateway;
  std::string remote_account;
  int64_t protocol = 0;
  std::string lang;  // clients have one, servers do not; read only
};

std::optional<LeafConnect> parse_leaf_connect(std::string_view json);
std::string to_json(const LeafConnect& connect);

// Whether `version` ("2.9.10", "v2.11.0-beta.1") is `least` or later; false if it is no version.
bool version_at_least(std::string_view version, std::string_view least);

}  // namespace peregrine::cluster
