#include "core/auth.h"

#include <crypt.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <chrono>
#include <memory>

namespace peregrine::core {

Auth::Auth(const config::Options& options) {
  const config::Authorization& from = options.authorization;
  timeout_ns_ = from.timeout.value_or(std::chrono::seconds(2)).count();
  if (from.default_permissions) default_permissions_ = std::make_shared<const Permissions>(*from.default_permissions);
  if (!from.users.empty()) {
    kind_ = Kind::kUsers;
    for (const config::User& user : from.users) {
      User& to = users_[user.user];
      to.name = user.user;
      to.password = user.password;
      to.permissions = user.permissions ? std::make_shared<const Permissions>(*user.permissions) : default_permissions_;
      const auto& types = user.allowed_connection_types;
      const auto listed = [&](const char* type) {
        return types.empty() || std::find(types.begin(), types.end(), type) != types.end();
      };
      to.standard = listed("STANDARD");
      to.leafnode = listed("LEAFNODE");
    }
  } else if (!from.token.empty()) {
    kind_ = Kind::kToken;
    token_ = from.token;
  } else if (!from.user.empty()) {
    kind_ = Kind::kUser;
    user_ = from.user;
    password_ = from.password;
  }
  if (!options.no_auth_user.empty()) {
    const auto at = users_.find(options.no_auth_user);
    if (at != users_.end()) no_auth_user_ = &at->second;
  }
}

Auth::Plan Auth::plan(const Credentials& credentials, ConnectionType type) const {
  Plan plan;
  const bool empty =
      credentials.user.empty() && credentials.password.empty() && credentials.token.empty() && !credentials.nkey_or_jwt;
  switch (kind_) {
    case Kind::kNone:
      // Nobody asks who it is; the log and /connz tell what it says it is.
      if (!credentials.user.empty()) plan.identity.user = credentials.user;
      else if (!credentials.token.empty()) plan.identity.user = "[REDACTED]";
      return plan;
    case Kind::kUsers: {
      if (empty && no_auth_user_ != nullptr && type == ConnectionType::kStandard) {
        plan.identity = no_auth_user();
        plan.refused = !no_auth_user_->standard;
        return plan;
      }
      const auto at = users_.find(credentials.user);
      if (at == users_.end() || !at->second.may_connect(type)) {
        plan.refused = true;
        return plan;
      }
      plan.identity = {at->second.name, at->second.permissions};
      plan.expected = at->second.password;
      plan.offered = credentials.password;
      break;
    }
    case Kind::kToken:
      plan.identity = {"[REDACTED]", default_permissions_};
      plan.expected = token_;
      plan.offered = credentials.token;
      break;
    case Kind::kUser:
      if (credentials.user != user_) {
        plan.refused = true;
        return plan;
      }
      plan.identity = {user_, default_permissions_};
      plan.expected = password_;
      plan.offered = credentials.password;
      break;
  }
  plan.compare = true;
  plan.bcrypt = is_bcrypt(plan.expected);
  return plan;
}

Identity Auth::no_auth_user() const { return {no_auth_user_->name, no_auth_user_->permissions}; }

bool Auth::plain_secrets(const config::Options& options) {
  const config::Authorization& from = options.authorization;
  const auto plain = [](const std::string& secret) { return !secret.empty() && !is_bcrypt(secret); };
  return plain(from.password) || std::any_of(from.users.begin(), from.users.end(),
                                             [&](const config::User& user) { return plain(user.password); });
}

bool Auth::is_bcrypt(std::string_view text) {
  return text.size() > 7 && text[0] == '$' && text[1] == '2' &&
         (text[2] == 'a' || text[2] == 'b' || text[2] == 'x' || text[2] == 'y') && text[3] == '$' && text[4] >= '0' &&
         text[4] <= '9' && text[5] >= '0' && text[5] <= '9' && text[6] == '$';
}

bool Auth::compare_plain(std::string_view expected, std::string_view offered) {
  return expected.size() == offered.size() && CRYPTO_memcmp(expected.data(), offered.data(), expected.size()) == 0;
}

bool Auth::compare_bcrypt(const std::string& expected, const std::string& offered) {
  auto scratch = std::make_unique<crypt_data>();  // 32 KiB: too much for a worker's stack frame
  const char* result = crypt_r(offered.c_str(), expected.c_str(), scratch.get());
  return result != nullptr && compare_plain(expected, result);
}

}  // namespace peregrine::core
