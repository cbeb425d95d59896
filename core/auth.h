// Who a connection is: credentials of CONNECT -> user, account and permissions.
//
// Immutable after construction, shared by all shards. check() is split in two because a bcrypt comparison takes 10-100
// ms: plan() decides on the shard, in microseconds, what has to be compared; when that is a bcrypt hash, the comparison
// runs on a worker. Source: nats-server's server/auth.go; parity.md section 3.1.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "config/options.h"
#include "core/permissions.h"

namespace peregrine::core {

struct Credentials {
  std::string user, password, token;
  bool nkey_or_jwt = false;  // brought an nkey, signature or JWT
};

// The outcome of a successful check.
struct Identity {
  std::string user;                                // shown by monitoring; empty without authorization
  std::shared_ptr<const Permissions> permissions;  // null = everything
};

// How a connection speaks to us: users may be restricted to some ways.
enum class ConnectionType : uint8_t { kStandard, kLeafnode };

class Auth {
 public:
  explicit Auth(const config::Options& options);

  bool required() const { return kind_ != Kind::kNone; }
  // INFO auth_required: not shown when connections without credentials are let in anyway.
  bool announced() const { return required() && no_auth_user_ == nullptr; }
  bool has_no_auth_user() const { return no_auth_user_ != nullptr; }
  int64_t timeout_ns() const { return timeout_ns_; }

  struct Plan {
    bool refused = false;  // no comparison can help
    Identity identity;     // granted if the comparison succeeds
    std::string expected;  // plain text or bcrypt hash
    std::string offered;
    bool compare = false;  // false: granted at once
    bool bcrypt = false;
  };
  // Leafnodes never become no_auth_user.
  Plan plan(const Credentials& credentials, ConnectionType type = ConnectionType::kStandard) const;
  Identity no_auth_user() const;

  // Whether a password or token stands in the configuration as it is typed.
  static bool plain_secrets(const config::Options& options);

  static bool is_bcrypt(std::string_view text);
  static bool compare_plain(std::string_view expected, std::string_view offered);       // constant time
  static bool compare_bcrypt(const std::string& expected, const std::string& offered);  // slow: workers only

 private:
  enum class Kind : uint8_t { kNone, kUsers, kToken, kUser };
  struct User {
    std::string name, password;
    std::shared_ptr<const Permissions> permissions;
    bool standard = true;  // may connect by plain NATS,
    bool leafnode = true;  // as a leafnode
    bool may_connect(ConnectionType type) const { return type == ConnectionType::kStandard ? standard : leafnode; }
  };
  Kind kind_ = Kind::kNone;
  std::string user_, password_, token_;
  std::shared_ptr<const Permissions> default_permissions_;
  std::unordered_map<std::string, User> users_;
  const User* no_auth_user_ = nullptr;
  int64_t timeout_ns_;
};

}  // namespace peregrine::core
