#include "config/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

#include "config/limits.h"
#include "config/size_and_time.h"
#include "config/url.h"

namespace peregrine::config {
namespace {

// Empty if `text` is a host, host:port, or [v6] with or without one. As in nats-server a bare IPv6 address needs
// brackets.
std::string wrong_advertise(const std::string& text) {
  if (text.find(':') == std::string::npos || (text.front() == '[' && text.back() == ']')) return {};
  const Result<Listen> parsed = parse_host_port(text);
  return parsed ? "" : parsed.error();
}

class Check {
 public:
  explicit Check(const Options& options) : options_(options) {}

  Findings run() {
    sizes();
    lame_duck();
    names();
    advertised();
    users();
    accounts();
    peers();
    native();
    check_dpdk(options_, findings_);
    return std::move(findings_);
  }

 private:
  void error(std::string option, std::string text) { findings_.errors.push_back({std::move(option), std::move(text)}); }
  void warn(std::string option, std::string text) {
    findings_.warnings.push_back({std::move(option), std::move(text)});
  }

  void sizes() {
    if (options_.max_payload > options_.max_pending) {
      // The one of the two that is not as it always is has a line to point at.
      error(options_.max_payload == Options{}.max_payload ? "max_pending" : "max_payload",
            fmt::format("max_payload ({}) cannot be higher than max_pending ({})", options_.max_payload,
                        options_.max_pending));
    }
    if (options_.max_payload > kAdvisedPayloadBytes) {
      warn("max_payload",
           fmt::format("Maximum payloads over {} are generally discouraged and could lead to poor performance",
                       format_size(kAdvisedPayloadBytes)));
    }
  }

  void lame_duck() {
    if (options_.lame_duck_grace_period >= options_.lame_duck_duration) {
      error(
          "lame_duck_grace_period",
          fmt::format("lame duck grace period ({}) should be strictly lower than lame duck duration ({})",
                      format_duration(options_.lame_duck_grace_period), format_duration(options_.lame_duck_duration)));
    }
  }

  void names() {
    if (options_.server_name.find(' ') != std::string::npos) error("server_name", "server name cannot contain spaces");
    if (options_.cluster.name.find(' ') != std::string::npos) error("cluster", "cluster name cannot contain spaces");
    if (!options_.gateway.name.empty() && !options_.cluster.name.empty() &&
        options_.gateway.name != options_.cluster.name) {
      error("gateway", "cluster name conflicts between cluster and gateway definitions");
    }
  }

  void advertised() {
    const auto check = [&](const char* option, const char* what, const std::string& text) {
      if (const std::string why = wrong_advertise(text); !why.empty())
        error(option, fmt::format("invalid {} \"{}\": {}", what, text, why));
    };
    check("client_advertise", "client_advertise", options_.client_advertise);
    check("cluster", "cluster advertise", options_.cluster.advertise);
    check("gateway", "gateway advertise", options_.gateway.advertise);
    check("leafnodes", "leafnodes advertise", options_.leafnodes.advertise);
  }

  void users() {
    std::set<std::string> seen;
    const auto check = [&](const std::vector<User>& users, const std::string& option) {
      for (const User& user : users) {
        const bool is_nkey = !user.nkey.empty();
        const std::string& name = is_nkey ? user.nkey : user.user;
        if (!seen.insert(name).second) {
          error(option, fmt::format("Duplicate {} \"{}\" detected", is_nkey ? "nkey" : "user", name));
        }
      }
    };
    check(options_.authorization.users, "authorization");
    for (const Account& account : options_.accounts) check(account.users, "accounts");

    const std::string& name = options_.no_auth_user;
    if (name.empty()) return;
    if (!options_.operators.empty()) {
      error("no_auth_user", "no_auth_user not compatible with Trusted Operator");
    } else if (seen.empty()) {
      error("no_auth_user", fmt::format("no_auth_user: \"{}\" present, but users/nkeys are not defined", name));
    } else if (seen.count(name) == 0) {
      error("no_auth_user",
            fmt::format(
                "no_auth_user: \"{}\" not present as user or nkey in authorization block or account configuration",
                name));
    }
  }

  void accounts() {
    std::set<std::string> names;
    for (const Account& account : options_.accounts) names.insert(account.name);
    const bool any_users = [&] {
      for (const Account& account : options_.accounts) {
        if (!account.users.empty()) return true;
      }
      return false;
    }();
    if (any_users && !options_.authorization.user.empty())
      error("accounts", "Can not have a single user/pass and accounts");
    if (any_users && !options_.authorization.token.empty()) error("accounts", "Can not have a token and accounts");
    for (const Account& account : options_.accounts) {
      for (const AccountExport& item : account.exports) {
        for (const std::string& name : item.accounts) {
          if (names.count(name) == 0) {
            error("accounts",
                  fmt::format("\"{}\" account not defined for {} export", name, item.service ? "service" : "stream"));
          }
        }
      }
      for (const AccountImport& item : account.imports) {
        if (!item.account.empty() && names.count(item.account) == 0) {
          error("accounts", fmt::format("\"{}\" account not defined for {} import", item.account,
                                        item.service ? "service" : "stream"));
        }
      }
    }
  }

  void peers() {
    std::set<std::string> pinned;
    for (const std::string& name : options_.cluster.accounts) {
      if (!pinned.insert(name).second)
        error("cluster", fmt::format("found duplicate account name \"{}\" in pinned accounts list", name));
    }
    if (!pinned.empty() && options_.cluster.pool_size < 0) {
      error("cluster", "pool_size cannot be negative if pinned accounts are specified");
    }
    leafnodes();
    if (options_.gateway.port != 0 && options_.gateway.name.empty()) error("gateway", "gateway has no name");
    if (options_.http_port != 0 && options_.https_port != 0) {
      error("https_port",
            fmt::format("can't specify both HTTP ({}) and HTTPs ({}) ports", options_.http_port, options_.https_port));
    } else if (options_.https_port != 0 && !options_.tls) {
      error("https_port", "TLS cert and key required for HTTPS");
    }
    if (options_.websocket.port != 0 && !options_.websocket.tls && !options_.websocket.no_tls) {
      error("websocket", "websocket requires TLS configuration");
    }
  }

  void leafnodes() {
    const LeafNodes& leafs = options_.leafnodes;
    const auto account = [&](const std::string& name, std::string_view where, const std::string& option) {
      if (name.empty() || name == "$G") return;
      if (std::any_of(options_.accounts.begin(), options_.accounts.end(),
                      [&](const Account& each) { return each.name == name; })) {
        return;
      }
      error(option, name == "$SYS"
                        ? fmt::format("leafnode {} of the system account is not supported by this version yet", where)
                        : fmt::format("cannot find local account \"{}\" specified in leafnode {}", name, where));
    };
    account(leafs.authorization.account, "authorization", "leafnodes.authorization");
    std::set<std::string> users;
    for (const User& user : leafs.authorization.users) {
      account(user.account, "authorization", "leafnodes.authorization");
      if (!users.insert(user.user).second)
        error("leafnodes", fmt::format("duplicate user \"{}\" detected in leafnode authorization", user.user));
    }
    std::set<std::string> names;
    for (size_t n = 0; n < leafs.remotes.size(); ++n) {
      const RemoteLeaf& remote = leafs.remotes[n];
      const std::string option = fmt::format("leafnodes.remotes[{}]", n);
      account(remote.account, "remote", option);
      if (remote.urls.empty()) error(option, "leafnode remote has no urls");
      std::string list, shown;
      bool websocket = false, plain = false;
      for (const Url& url : remote.urls) {
        const bool ws = url.scheme == "ws" || url.scheme == "wss";
        (ws ? websocket : plain) = true;
        if (ws) {
          error(option, fmt::format("leafnode remote \"{}://{}\" is not supported by this version yet: give the hub's "
                                    "port for leafnodes, nats://host:7422 or tls://host:7422",
                                    url.scheme, url.host));
        }
        list += fmt::format("{} {}:{} ", url.user, url.host, url.port);
        shown += fmt::format("{}\"{}\"", shown.empty() ? "" : " ", redacted(url));
      }
      if (websocket && plain) {
        error(option,
              fmt::format("remote leaf node configuration cannot have a mix of websocket and non-websocket urls: [{}]",
                          shown));
      }
      const std::string name = remote.account.empty() ? "$G" : remote.account;
      if (!names.insert(list + name).second)
        error(option, fmt::format("duplicate remote urls=[{}], account=\"{}\"", shown, name));
    }
    if (leafs.min_version.empty()) return;
    int major = 0, minor = 0, patch = 0;
    if (std::sscanf(leafs.min_version.c_str(), "%*[vV]%d.%d.%d", &major, &minor, &patch) != 3 &&
        std::sscanf(leafs.min_version.c_str(), "%d.%d.%d", &major, &minor, &patch) != 3) {
      error("leafnodes", fmt::format("invalid leafnode's minimum version: invalid semver \"{}\"", leafs.min_version));
    } else if (major < 2 || (major == 2 && minor < 8)) {
      error("leafnodes", "the minimum version should be at least 2.8.0");
    }
  }

  void native() {
    const Native& native = options_.native;
    if (!native.cores.empty() && native.shards > static_cast<int>(native.cores.size())) {
      error("shards", fmt::format("shards: {} but cores lists only {}", native.shards, native.cores.size()));
    }
    if (native.cores.size() > static_cast<std::size_t>(kMostShards))
      error("cores", fmt::format("more than {} cores", kMostShards));
    if ((native.ring_bytes & (native.ring_bytes - 1)) != 0) {
      error("ring_bytes", fmt::format("ring_bytes must be a power of two, got {}", native.ring_bytes));
    }
    if (native.inline_payload_bytes > largest_inline_payload_bytes(native.ring_bytes)) {
      error("inline_payload_bytes",
            fmt::format("inline_payload_bytes ({}) cannot be more than a quarter of ring_bytes ({})",
                        native.inline_payload_bytes, native.ring_bytes));
    }
  }

  const Options& options_;
  Findings findings_;
};

}  // namespace

Findings validate(const Options& options) { return Check(options).run(); }

void complete(Options& options) {
  static const Options kDefaults;
  const auto fill = [](auto& field, const auto& fallback) {
    if (field == std::remove_cvref_t<decltype(field)>{}) field = fallback;
  };
  fill(options.host, kDefaults.host);
  fill(options.port, kDefaults.port);
  fill(options.max_control_line, kDefaults.max_control_line);
  fill(options.max_payload, kDefaults.max_payload);
  fill(options.max_pending, kDefaults.max_pending);
  fill(options.ping_interval, kDefaults.ping_interval);
  fill(options.ping_max, kDefaults.ping_max);
  fill(options.write_deadline, kDefaults.write_deadline);
  fill(options.max_closed_clients, kDefaults.max_closed_clients);
  fill(options.lame_duck_duration, kDefaults.lame_duck_duration);
  fill(options.lame_duck_grace_period, kDefaults.lame_duck_grace_period);
  fill(options.connect_error_reports, kDefaults.connect_error_reports);
  fill(options.reconnect_error_reports, kDefaults.reconnect_error_reports);
  fill(options.cluster.name, options.gateway.name);  // a super-cluster's members are clusters, if only of one
  if (!options.http_base_path.empty()) {
    const std::string path = std::filesystem::path("/" + options.http_base_path).lexically_normal().string();
    const std::size_t last = path.find_last_not_of('/');
    options.http_base_path = last == std::string::npos ? "" : path.substr(0, last + 1);
    while (options.http_base_path.rfind("//", 0) == 0) options.http_base_path.erase(0, 1);
  }
}

}  // namespace peregrine::config
