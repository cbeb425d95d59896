#include "cluster/peer_info.h"

#include <nlohmann/json.hpp>

#include "config/characters.h"

namespace peregrine::cluster {
namespace {

using Json = nlohmann::ordered_json;

// One pass over the fields serves both directions: a Reader takes them out of an object, a Writer puts them in.
class Reader {
 public:
  explicit Reader(const Json& from) : from_(from) {}
  bool good() const { return good_; }

  void always(const char* name, std::string& to) { read(name, to); }
  void always(const char* name, int64_t& to) { read(name, to); }
  void always(const char* name, bool& to) { read(name, to); }
  template <class T>
  void optional(const char* name, T& to) {
    read(name, to);
  }

 private:
  // As Go does it: keys in any case, unless there is one that is written right.
  const Json* find(std::string_view name) const {
    auto at = from_.find(name);
    for (auto each = from_.begin(); at == from_.end() && each != from_.end(); ++each) {
      if (config::same_letters(each.key(), name)) at = each;
    }
    return at == from_.end() || at->is_null() ? nullptr : &*at;
  }
  void read(const char* name, std::string& to) {
    if (const Json* value = find(name)) {
      if (value->is_string()) to = value->get<std::string>();
      else good_ = false;
    }
  }
  void read(const char* name, int64_t& to) {
    if (const Json* value = find(name)) {
      if (value->is_number_integer() || value->is_number_unsigned()) to = value->get<int64_t>();
      else good_ = false;
    }
  }
  void read(const char* name, bool& to) {
    if (const Json* value = find(name)) {
      if (value->is_boolean()) to = value->get<bool>();
      else good_ = false;
    }
  }
  void read(const char* name, std::vector<std::string>& to) {
    if (const Json* value = find(name)) {
      if (!value->is_array()) good_ = false;
      else
        for (const Json& each : *value) {
          if (each.is_string()) to.push_back(each.get<std::string>());
          else good_ = false;
        }
    }
  }
  void read(const char* name, std::optional<config::SubjectPermission>& to) {
    const Json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_object()) {
      good_ = false;
      return;
    }
    Reader inner(*value);
    config::SubjectPermission& subjects = to.emplace();
    if (inner.find("allow") != nullptr) inner.read("allow", subjects.allow.emplace());
    inner.read("deny", subjects.deny);
    good_ = good_ && inner.good();
  }

  const Json& from_;
  bool good_ = true;
};

class Writer {
 public:
  Json json = Json::object();

  template <class T>
  void always(const char* name, const T& value) {
    json[name] = value;
  }
  void optional(const char* name, const std::string& value) {
    if (!value.empty()) json[name] = value;
  }
  void optional(const char* name, int64_t value) {
    if (value != 0) json[name] = value;
  }
  void optional(const char* name, bool value) {
    if (value) json[name] = true;
  }
  void optional(const char* name, const std::vector<std::string>& value) {
    if (!value.empty()) json[name] = value;
  }
  void optional(const char* name, const std::optional<config::SubjectPermission>& value) {
    if (!value) return;
    Json& to = json[name] = Json::object();
    if (value->allow && !value->allow->empty()) to["allow"] = *value->allow;
    if (!value->deny.empty()) to["deny"] = value->deny;
  }
};

template <class Visitor, class Info>
void visit_info(Visitor& with, Info& info) {
  with.always("server_id", info.server_id);
  with.always("server_name", info.server_name);
  with.always("version", info.version);
  with.always("proto", info.proto);
  with.optional("git_commit", info.git_commit);
  with.always("go", info.go);
  with.always("host", info.host);
  with.always("port", info.port);
  with.always("headers", info.headers);
  with.optional("auth_required", info.auth_required);
  with.optional("tls_required", info.tls_required);
  with.optional("tls_verify", info.tls_verify);
  with.optional("tls_available", info.tls_available);
  with.always("max_payload", info.max_payload);
  with.optional("jetstream", info.jetstream);
  with.optional("ip", info.ip);
  with.optional("client_id", info.client_id);
  with.optional("nonce", info.nonce);
  with.optional("cluster", info.cluster);
  with.optional("cluster_dynamic", info.cluster_dynamic);
  with.optional("domain", info.domain);
  with.optional("connect_urls", info.connect_urls);
  with.optional("ws_connect_urls", info.ws_connect_urls);
  with.optional("ldm", info.ldm);
  with.optional("compression", info.compression);
  with.optional("connect_info", info.connect_info);
  with.optional("remote_account", info.remote_account);
  with.optional("acc_is_sys", info.acc_is_sys);
  with.optional("import", info.import_subjects);
  with.optional("export", info.export_subjects);
  with.optional("lnoc", info.lnoc);
  with.optional("lnocu", info.lnocu);
  with.optional("info_on_connect", info.info_on_connect);
  with.optional("route_pool_size", info.route_pool_size);
  with.optional("route_pool_idx", info.route_pool_idx);
  with.optional("route_account", info.route_account);
  with.optional("route_acc_add_reqid", info.route_acc_add_reqid);
  with.optional("gossip_mode", info.gossip_mode);
  with.optional("peregrine_shards", info.shards);
  with.optional("gateway", info.gateway);
  with.optional("gateway_urls", info.gateway_urls);
  with.optional("gateway_url", info.gateway_url);
  with.optional("gateway_cmd", info.gateway_cmd);
  with.optional("gateway_cmd_payload", info.gateway_cmd_payload);
  with.optional("gateway_nrp", info.gateway_nrp);
  with.optional("gateway_iom", info.gateway_iom);
  with.optional("leafnode_urls", info.leafnode_urls);
  with.optional("xkey", info.xkey);
}

template <class Visitor, class Connect>
void visit_connect(Visitor& with, Connect& connect) {
  with.always("echo", connect.echo);
  with.always("verbose", connect.verbose);
  with.always("pedantic", connect.pedantic);
  with.optional("user", connect.user);
  with.optional("pass", connect.password);
  with.always("tls_required", connect.tls_required);
  with.always("headers", connect.headers);
  with.always("name", connect.name);
  with.always("cluster", connect.cluster);
  with.optional("cluster_dynamic", connect.cluster_dynamic);
  with.optional("lnoc", connect.lnoc);
  with.optional("lnocu", connect.lnocu);
  with.optional("gateway", connect.gateway);
  with.optional("lang", connect.lang);
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

std::optional<PeerInfo> parse_info(std::string_view json) {
  const Json tree = Json::parse(json, nullptr, false);
  if (!tree.is_object()) return std::nullopt;
  PeerInfo info;
  Reader reader(tree);
  visit_info(reader, info);
  if (!reader.good()) return std::nullopt;
  return info;
}

std::string to_json(const PeerInfo& info) {
  Writer writer;
  visit_info(writer, info);
  return dump(writer.json);
}

std::string info_line(const PeerInfo& info) { return "INFO " + to_json(info) + "\r\n"; }

std::optional<PeerConnect> parse_connect(std::string_view json) {
  const Json tree = Json::parse(json, nullptr, false);
  if (!tree.is_object()) return std::nullopt;
  PeerConnect connect;
  Reader reader(tree);
  visit_connect(reader, connect);
  if (!reader.good()) return std::nullopt;
  return connect;
}

std::string to_json(const PeerConnect& connect) {
  Writer writer;
  visit_connect(writer, connect);
  return dump(writer.json);
}

std::string redact(std::string_view json) {
  Json tree = Json::parse(json, nullptr, false);
  if (!tree.is_object()) return std::string(json);
  for (const char* key : {"pass", "auth_token", "jwt", "nkey", "sig"}) {
    if (tree.contains(key)) tree[key] = "[REDACTED]";
  }
  return dump(tree);
}

std::string make_nonce(uint64_t low, uint64_t high) {
  static constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string out;
  for (int n = 0; n < 10; ++n, low >>= 6) out += kAlphabet[low & 63];
  for (int n = 0; n < 5; ++n, high >>= 6) out += kAlphabet[high & 63];
  return out;
}

}  // namespace peregrine::cluster
