// CONNECT: what it says, and whether it is let in.
#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "core/client_session.h"
#include "core/go_format.h"
#include "core/shard.h"

namespace peregrine::core {
namespace {

// Go's encoding/json finds fields without regard to case.
bool same_key(std::string_view key, std::string_view lower) {
  return key.size() == lower.size() && std::equal(key.begin(), key.end(), lower.begin(), [](char a, char b) {
           return std::tolower(static_cast<unsigned char>(a)) == b;
         });
}

// A field of the wrong type is an error, null leaves the default; as in Go.
bool read(const nlohmann::json& value, bool& to) {
  if (value.is_null()) return true;
  if (!value.is_boolean()) return false;
  to = value.get<bool>();
  return true;
}
bool read(const nlohmann::json& value, std::string& to) {
  if (value.is_null()) return true;
  if (!value.is_string()) return false;
  to = value.get<std::string>();
  return true;
}
bool read(const nlohmann::json& value, int& to) {
  if (value.is_null()) return true;
  if (!value.is_number_integer()) return false;
  to = static_cast<int>(std::clamp<int64_t>(value.get<int64_t>(), -1000, 1000));
  return true;
}

std::string redact(std::string_view json) {
  nlohmann::ordered_json tree = nlohmann::ordered_json::parse(json, nullptr, false);
  if (!tree.is_object()) return std::string(json);
  for (const char* key : {"pass", "auth_token", "jwt", "nkey", "sig", "proxy_sig"}) {
    if (tree.contains(key)) tree[key] = "[REDACTED]";
  }
  return tree.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void ClientSession::on_connect(std::string_view text) {
  if (shard.tracing()) shard.trace(*this, "<<-", "CONNECT " + redact(text));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  Operation operation;
  operation.kind = Operation::Kind::kConnect;
  operation.subject = text;
  if (!json.is_object() && !json.is_null()) return fail(ParseStatus::kBadArguments, operation);

  Credentials credentials;
  if (connect_received_ && connected_ != nullptr && connected_->login != nullptr)
    credentials = connected_->login->credentials;
  std::string nkey, jwt, sig, account_name;
  bool wants_headers = headers, wants_no_responders = no_responders, new_account = false, tls = false;
  std::string name, lang, version;
  bool good = true;
  for (const auto& [key, value] : json.items()) {
    if (same_key(key, "verbose")) good &= read(value, verbose_);
    else if (same_key(key, "pedantic")) good &= read(value, pedantic_);
    else if (same_key(key, "echo")) good &= read(value, echo);
    else if (same_key(key, "tls_required")) good &= read(value, tls);
    else if (same_key(key, "user")) good &= read(value, credentials.user);
    else if (same_key(key, "pass")) good &= read(value, credentials.password);
    else if (same_key(key, "auth_token")) good &= read(value, credentials.token);
    else if (same_key(key, "nkey")) good &= read(value, nkey);
    else if (same_key(key, "jwt")) good &= read(value, jwt);
    else if (same_key(key, "sig")) good &= read(value, sig);
    else if (same_key(key, "name")) good &= read(value, name);
    else if (same_key(key, "lang")) good &= read(value, lang);
    else if (same_key(key, "version")) good &= read(value, version);
    else if (same_key(key, "protocol")) good &= read(value, protocol_);
    else if (same_key(key, "headers")) good &= read(value, wants_headers);
    else if (same_key(key, "no_responders")) good &= read(value, wants_no_responders);
    else if (same_key(key, "account")) good &= read(value, account_name);
    else if (same_key(key, "new_account")) good &= read(value, new_account);
  }
  if (!good) return fail(ParseStatus::kBadArguments, operation);

  rtt_ns_ = std::max<int64_t>(shard.now_ns() - start_ns_, 1);
  rtt_at_ns_ = 0;  // an estimate: the first ping measures
  headers = wants_headers && !shard.server().options.no_header_support;
  no_responders = wants_no_responders;
  if (connect_received_) {
    // A second CONNECT may make it another user: what the first one subscribed goes.
    while (Subscription* sub = sids_.any(pool())) shard.remove_subscription(*sub);
  }
  connect_received_ = true;
  if (!name.empty() || !lang.empty() || !version.empty()) {
    Connected& to = connected();
    to.name = std::move(name);
    to.lang = std::move(lang);
    to.version = std::move(version);
  }

  const Auth& auth = shard.server().auth;
  credentials.nkey_or_jwt = !nkey.empty();
  if (auth.required()) login().credentials = credentials;
  Auth::Plan plan = auth.plan(credentials);
  if (plan.refused) return auth_violation(credentials);
  if (!account_name.empty() || new_account) return auth_violation(credentials);
  if (plan.compare && !plan.bcrypt && !Auth::compare_plain(plan.expected, plan.offered))
    return auth_violation(credentials);
  if (!plan.compare || !plan.bcrypt) return on_authenticated(std::move(plan.identity));

  // bcrypt costs milliseconds on purpose: a worker compares, the connection waits, the shard goes on.
  suspended_ = true;
  hold(kHoldAuth);
  shard.server().workers.run([home = &shard, id = cid, plan = std::move(plan), credentials] {
    const bool same = Auth::compare_bcrypt(plan.expected, plan.offered);
    home->post([id, same, identity = plan.identity, credentials](Shard& shard) {
      auto* session = static_cast<ClientSession*>(shard.find(id));
      if (session == nullptr || session->closing()) return true;
      session->suspended_ = false;
      session->unhold(kHoldAuth);
      if (!same) {
        session->auth_violation(credentials);
        return true;
      }
      session->on_authenticated(identity);
      session->take_up();
      return true;
    });
  });
}

void ClientSession::on_authenticated(Identity identity) {
  authenticated_ = true;
  bind(std::move(identity));
  if (protocol_ < 0 || protocol_ > 1) {
    refuse(error_text::kInvalidClientProtocol);
    shard.server().log.error("{} - {}", label(), error_text::kInvalidClientProtocol);
    return close(CloseReason::kBadClientProtocolVersion);
  }
  if (no_responders && !headers) {
    refuse(error_text::kNoRespondersNeedHeaders);
    shard.server().log.error("{} - {}", label(), error_text::kNoRespondersNeedHeaders);
    return close(CloseReason::kNoRespondersNeedHeaders);
  }
  if (verbose_) answer(kOk);
  arm_timer();
}

void ClientSession::auth_violation(const Credentials& credentials) {
  Log& log = shard.server().log;
  if (!credentials.user.empty()) {
    log.error("{} - authentication error - User {}", label(), quote(credentials.user));
  } else if (!credentials.token.empty()) {
    log.error("{} - authentication error - Token \"[REDACTED]\"", label());
  } else {
    log.error("{} - authentication error", label());
  }
  refuse(error_text::kAuthorizationViolation);
  close(CloseReason::kAuthenticationFailure);
}

ClientSession::Connected& ClientSession::connected() {
  if (connected_ == nullptr) connected_ = std::make_unique<Connected>();
  return *connected_;
}

ClientSession::Login& ClientSession::login() {
  Connected& to = connected();
  if (to.login == nullptr) to.login = std::make_unique<Login>();
  return *to.login;
}

const std::string& ClientSession::user() const {
  static const std::string kNobody;
  return connected_ == nullptr || connected_->login == nullptr ? kNobody : connected_->login->user;
}

}  // namespace peregrine::core
