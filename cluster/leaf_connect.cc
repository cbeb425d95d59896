#include "cluster/leaf_connect.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <nlohmann/json.hpp>

namespace peregrine::cluster {
namespace {

using Json = nlohmann::ordered_json;

bool same_name(std::string_view key, std::string_view lower) {
  return key.size() == lower.size() && std::equal(key.begin(), key.end(), lower.begin(), [](char a, char b) {
           return std::tolower(static_cast<unsigned char>(a)) == b;
         });
}

// A field of the wrong type is an error, null leaves the default.
bool read(const Json& value, std::string& to) {
  if (value.is_string()) to = value.get<std::string>();
  return value.is_string() || value.is_null();
}
bool read(const Json& value, bool& to) {
  if (value.is_boolean()) to = value.get<bool>();
  return value.is_boolean() || value.is_null();
}
bool read(const Json& value, int64_t& to) {
  if (value.is_number_integer()) to = value.get<int64_t>();
  return value.is_number_integer() || value.is_null();
}
bool read(const Json& value, std::vector<std::string>& to) {
  if (value.is_null()) return true;
  if (!value.is_array()) return false;
  for (const Json& each : value) {
    if (!each.is_string()) return false;
    to.push_back(each.get<std::string>());
  }
  return true;
}

// nothing if it is not one to three numbers with dots between them, whatever follows
std::optional<std::array<int, 3>> components(std::string_view version) {
  if (version.starts_with('v') || version.starts_with('V')) version.remove_prefix(1);
  std::array<int, 3> out{};
  for (size_t n = 0; n < out.size(); ++n) {
    const auto [end, error] = std::from_chars(version.data(), version.data() + version.size(), out[n]);
    if (error != std::errc() || out[n] < 0) return std::nullopt;
    version.remove_prefix(static_cast<size_t>(end - version.data()));
    if (n + 1 == out.size()) break;
    if (!version.starts_with('.')) return std::nullopt;
    version.remove_prefix(1);
  }
  return out;
}

}  // namespace

std::optional<LeafConnect> parse_leaf_connect(std::string_view json) {
  const Json tree = Json::parse(json, nullptr, false);
  if (!tree.is_object()) return std::nullopt;
  LeafConnect to;
  bool good = true;
  for (const auto& [key, value] : tree.items()) {
    if (same_name(key, "version")) good &= read(value, to.version);
    else if (same_name(key, "nkey")) good &= read(value, to.nkey);
    else if (same_name(key, "jwt")) good &= read(value, to.jwt);
    else if (same_name(key, "sig")) good &= read(value, to.sig);
    else if (same_name(key, "user")) good &= read(value, to.user);
    else if (same_name(key, "pass")) good &= read(value, to.password);
    else if (same_name(key, "auth_token")) good &= read(value, to.token);
    else if (same_name(key, "server_id")) good &= read(value, to.server_id);
    else if (same_name(key, "domain")) good &= read(value, to.domain);
    else if (same_name(key, "name")) good &= read(value, to.name);
    else if (same_name(key, "is_hub")) good &= read(value, to.is_hub);
    else if (same_name(key, "cluster")) good &= read(value, to.cluster);
    else if (same_name(key, "headers")) good &= read(value, to.headers);
    else if (same_name(key, "jetstream")) good &= read(value, to.jetstream);
    else if (same_name(key, "deny_pub")) good &= read(value, to.deny_publish);
    else if (same_name(key, "isolate")) good &= read(value, to.isolate);
    else if (same_name(key, "compress_mode")) good &= read(value, to.compression);
    else if (same_name(key, "gateway")) good &= read(value, to.gateway);
    else if (same_name(key, "remote_account")) good &= read(value, to.remote_account);
    else if (same_name(key, "protocol")) good &= read(value, to.protocol);
    else if (same_name(key, "lang")) good &= read(value, to.lang);
  }
  if (!good) return std::nullopt;
  return to;
}

std::string to_json(const LeafConnect& connect) {
  Json json = Json::object();
  const auto put = [&](const char* name, const auto& value) {
    if (value != std::decay_t<decltype(value)>{}) json[name] = value;
  };
  put("version", connect.version);
  put("nkey", connect.nkey);
  put("jwt", connect.jwt);
  put("sig", connect.sig);
  put("user", connect.user);
  put("pass", connect.password);
  put("auth_token", connect.token);
  put("server_id", connect.server_id);
  put("domain", connect.domain);
  put("name", connect.name);
  put("is_hub", connect.is_hub);
  put("cluster", connect.cluster);
  put("headers", connect.headers);
  put("jetstream", connect.jetstream);
  put("deny_pub", connect.deny_publish);
  put("isolate", connect.isolate);
  put("compress_mode", connect.compression);
  put("gateway", connect.gateway);
  put("remote_account", connect.remote_account);
  put("protocol", connect.protocol);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool version_at_least(std::string_view version, std::string_view least) {
  const auto have = components(version), want = components(least);
  return have && want && *have >= *want;
}

}  // namespace peregrine::cluster
