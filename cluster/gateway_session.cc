#include "cluster/gateway_session.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>

#include "cluster/gateways.h"
#include "cluster/route_settings.h"
#include "core/gateway_reply.h"
#include "core/go_format.h"
#include "core/subject.h"

namespace peregrine::cluster {
namespace {

using core::CloseReason;
using core::Side;

constexpr int64_t kGossip = 1, kAllSubsStart = 2, kAllSubsComplete = 3;  // gateway_cmd
constexpr core::OriginId kGuess = 1;  // origin of the subscription that stands for a guess
constexpr std::string_view kEverything = ">";
constexpr int64_t kRecentNs = 2'000'000'000;  // an inbox younger than this may be unknown to the other cluster

std::string base64(std::string_view text) {
  std::string out((text.size() + 2) / 3 * 4, '\0');
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), reinterpret_cast<const unsigned char*>(text.data()),
                  static_cast<int>(text.size()));
  return out;
}

// Nothing if it is not base64.
std::optional<std::string> from_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0 || text.size() > 4096) return std::nullopt;
  std::string out(text.size() / 4 * 3, '\0');
  const int n = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (n < 0) return std::nullopt;
  out.resize(static_cast<size_t>(n) - static_cast<size_t>(text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0));
  return out;
}

}  // namespace

std::string_view text(InterestMode mode) {
  switch (mode) {
    case InterestMode::kOptimistic:
      return "Optimistic";
    case InterestMode::kTransitioning:
      return "Transitioning";
    case InterestMode::kInterestOnly:
      return "Interest-Only";
  }
  return "";
}

GatewaySession::GatewaySession(core::Shard& shard, Gateways& gateways, net::Opened opened)
    : PeerLink(shard, core::SessionKind::kGateway, std::move(opened), gateways.settings().accepted),
      gateways_(gateways),
      outbound_(false) {
  limits_.max_payload = INT32_MAX / 2;
}

GatewaySession::GatewaySession(core::Shard& shard, Gateways& gateways, net::Opened opened, std::string to,
                               config::Url url)
    : PeerLink(shard, core::SessionKind::kGateway, std::move(opened), gateways.settings().solicited),
      gateways_(gateways),
      outbound_(true),
      name_(std::move(to)),
      url_(std::move(url)) {}

void GatewaySession::start() {
  core::Log& log = shard.server().log;
  if (outbound_) {
    log.info("{} - Creating outbound gateway connection to {}", label(), core::quote(name_));
    const PeerTls::Block& tls = gateways_.settings().tls_towards(name_);
    if (tls != nullptr) start_tls(tls, gateways_.tls_name(name_, url_.host));
    else on_secured();
    return;
  }
  log.info("{} - Processing inbound gateway connection", label());
  if (const PeerTls::Block& tls = gateways_.settings().tls.gateways; tls != nullptr) start_tls(tls, {});
  else on_secured();
}

void GatewaySession::on_secured() {
  if (outbound_) return watch_handshake();
  send_line(gateways_.info_line());
  arm_timer();
}

void GatewaySession::on_wrong_name() { gateways_.forget_tls_name(name_, url_.host); }

void GatewaySession::on_operation(const PeerOperation& operation) {
  if (is_stranger() && operation.verb != PeerVerb::kConnect) return auth_violation({});
  switch (operation.verb) {
    case PeerVerb::kInfo:
      return on_info(operation.text);
    case PeerVerb::kConnect:
      if (outbound_) return protocol_violation("CONNECT");
      return on_connect(operation.text);
    case PeerVerb::kRoutedSub:
      return outbound_ ? on_sub(operation) : refuse_interest("RS+");
    case PeerVerb::kRoutedUnsub:
      return outbound_ ? on_unsub(operation) : refuse_interest("RS-");
    case PeerVerb::kAccountSub:
    case PeerVerb::kAccountUnsub:
      if (!outbound_) return refuse_interest(operation.verb == PeerVerb::kAccountSub ? "A+" : "A-");
      return on_account_wanted(operation.text, operation.verb == PeerVerb::kAccountSub);
    case PeerVerb::kRoutedMessage:
    case PeerVerb::kHeaderMessage:
      return on_message(operation);
    default:
      return unknown_operation(input_of(operation));
  }
}

void GatewaySession::refuse_interest(std::string_view verb) {
  shard.server().log.error("{} - Received {} from gateway on inbound connection", label(), verb);
  close(CloseReason::kProtocolViolation);
}

// ---------------------------------------------------------------------------------------------------- handshake

void GatewaySession::on_connect(std::string_view json) {
  const std::optional<PeerConnect> connect = parse_connect(json);
  if (!connect) return protocol_violation(json);
  const GatewaySettings& settings = gateways_.settings();
  if (settings.known_urls)
    return shows_certificate_of(*settings.known_urls) ? accepted(*connect) : auth_violation(connect->user);
  if (settings.user.empty()) return accepted(*connect);
  if (connect->user != settings.user) return auth_violation(connect->user);
  if (!core::Auth::is_bcrypt(settings.password)) {
    if (!core::Auth::compare_plain(settings.password, connect->password)) return auth_violation(connect->user);
    return accepted(*connect);
  }
  wait_for_answer();
  shard.server().workers.run([home = &shard, id = cid, connect = *connect, expected = settings.password] {
    const bool same = core::Auth::compare_bcrypt(expected, connect.password);
    home->post([id, same, connect](core::Shard& on) {
      auto* session = static_cast<GatewaySession*>(on.find(id));
      if (session == nullptr || session->closing()) return true;
      if (same) {
        session->accepted(connect);
        session->go_on();
      } else {
        session->auth_violation(connect.user);
      }
      return true;
    });
  });
}

void GatewaySession::accepted(const PeerConnect& connect) {
  if (connect.gateway.empty()) return fail("attempted to connect to gateway port", CloseReason::kWrongPort);
  const GatewaySettings& settings = gateways_.settings();
  if (settings.reject_unknown && !gateways_.is_configured(connect.gateway)) {
    shard.server().log.error("{} - Rejecting connection from gateway {}", label(), core::quote(connect.gateway));
    shard.server().log.error("{} - wrong gateway", label());
    send_error(fmt::format("Connection to gateway {} rejected", core::quote(settings.name)));
    return close(CloseReason::kWrongGateway);
  }
  connected_ = true;
  credentials_accepted();
  start_pings();
}

void GatewaySession::on_info(std::string_view json) {
  const std::optional<PeerInfo> info = parse_info(json);
  if (!info) return protocol_violation(json);
  const bool first = !info_received_;
  info_received_ = true;
  if (first) {
    remote_name_ = info->server_id;
    server_name_ = info->server_name;
  }
  if (outbound_) return on_outbound_info(*info, first);
  if (first) on_inbound_info(*info);
}

void GatewaySession::on_outbound_info(const PeerInfo& info, bool first) {
  core::Log& log = shard.server().log;
  const GatewaySettings& settings = gateways_.settings();
  // Commands come with a gateway name too; only gossip names another one.
  if (info.gateway.empty())
    return fail(fmt::format("Attempt to connect to gateway {} using wrong port", core::quote(name_)),
                CloseReason::kWrongPort);
  if (info.gateway != name_) {
    if (!first && info.gateway_cmd == kGossip) return gateways_.heard_of(info.gateway, info.gateway_urls);
    log.error("{} - Failing connection to gateway {}, remote gateway name is {}", label(), core::quote(name_),
              core::quote(info.gateway));
    send_error(fmt::format("Connection from {} rejected, wanted to connect to {}, this is {}",
                           core::quote(settings.name), core::quote(name_), core::quote(info.gateway)));
    return close(CloseReason::kWrongGateway);
  }
  if (!first && info.gateway_cmd > 0) return on_command(info);
  if (gateways_.is_own_server(info.server_name)) {
    log.error("{} - Remote server has a duplicate name: {}", label(), core::quote(info.server_name));
    return close(CloseReason::kDuplicateServerName);
  }
  gateways_.learn_urls(name_, info.gateway_urls);
  if (first) {
    headers = settings.headers && info.headers;
    old_prefix_ = !info.gateway_nrp;
    interest_only_ = info.gateway_iom;
    PeerConnect connect;
    connect.echo = false;
    connect.user = url_.user.empty() ? settings.user : url_.user;
    connect.password = url_.user.empty() ? settings.password : url_.password;
    connect.tls_required = secured();
    connect.name = gateways_.server_id();
    connect.gateway = settings.name;
    send_line("CONNECT " + to_json(connect) + "\r\n");
    log.debug("{} - Gateway connect protocol sent to {}", label(), core::quote(name_));
    send_line(gateways_.info_line());
    if (!gateways_.register_outbound(*this)) return close(CloseReason::kWrongGateway);
    registered_ = true;
    log.info("{} - Outbound gateway connection to {} ({}) registered", label(), core::quote(name_), info.server_id);
    core::Account& account = shard.account(core::kGlobalAccount);
    shard.add_peer_interest(*this, account, Side::kReplies,
                            fmt::format("{}{}.>", core::kGatewayReply, gateway_hash(name_)), {}, 1);
    shard.add_peer_interest(*this, account, Side::kReplies,
                            fmt::format("{}{}.>", core::kOldGatewayReply, old_gateway_hash(name_)), {}, 1);
    if (!interest_only_) {
      guess(account);
      for (const std::string& each : gateways_.accounts_with_leafnodes()) leafnode_connected(each);
    }
    start_pings();
  }
  gateways_.tell_cluster(info.gateway, info.gateway_urls);
}

void GatewaySession::on_inbound_info(const PeerInfo& info) {
  core::Log& log = shard.server().log;
  if (gateways_.is_own_server(info.server_name)) {
    log.error("{} - Remote server has a duplicate name: {}", label(), core::quote(info.server_name));
    return close(CloseReason::kDuplicateServerName);
  }
  name_ = info.gateway;
  registered_ = true;
  headers = gateways_.settings().headers && info.headers;
  log.info("{} - Inbound gateway connection from {} ({}) registered", label(), core::quote(name_), info.server_id);
  gateways_.register_inbound(*this, info);
  announce_account(std::string(core::kGlobalAccountName), kAllSubsStart);
  shard.listen_to_interest(*this);
}

void GatewaySession::on_command(const PeerInfo& info) {
  const std::optional<std::string> account = from_base64(info.gateway_cmd_payload);
  if (!account) return;
  if (info.gateway_cmd != kAllSubsStart && info.gateway_cmd != kAllSubsComplete) {
    shard.server().log.warn("Received unknown command {} from gateway {}", info.gateway_cmd, core::quote(name_));
    return;
  }
  if (modes_.size() >= kMostAccounts && !modes_.contains(*account)) return;
  note_mode(*account, info.gateway_cmd);
  if (interest_only_ || info.gateway_cmd == kAllSubsStart) return;
  if (core::Account* known = find_account(*account)) stop_guessing(*known);
}

// INFO with a command and nothing else in it.
void GatewaySession::announce_account(const std::string& account, int command) {
  PeerInfo info;
  info.gateway = gateways_.settings().name;
  info.gateway_cmd = command;
  info.gateway_cmd_payload = base64(account);
  send_line("INFO " + to_json(info) + "\r\n");
  note_mode(account, command);
}

void GatewaySession::note_mode(const std::string& account, int64_t command) {
  modes_[account] = command == kAllSubsStart ? InterestMode::kTransitioning : InterestMode::kInterestOnly;
  shard.server().log.debug("{} - Gateway {}: switching account {} to Interest-Only mode{}", label(), core::quote(name_),
                           core::quote(account), command == kAllSubsStart ? "" : " complete");
}

void GatewaySession::on_pong() {
  if (!outbound_) return;
  peer_rtt_ns = rtt_ns();
}

void GatewaySession::on_going() {
  if (!outbound_ && registered_) shard.stop_listening(*this);
  gateways_.farewell(*this, registered_);
}

// ---------------------------------------------------------------------------------------------------- interest

core::SideSet GatewaySession::listens_to() const {
  return core::bit(Side::kClients) | core::bit(Side::kLeafs) | core::bit(Side::kRoutes) | core::bit(Side::kRoutedLeafs);
}

bool GatewaySession::listens_to(const core::Account& account) const { return gateways_.settings().knows(account.name); }

// A queue counts once for the whole cluster, whatever its members.
void GatewaySession::interest_changed(core::Account& account, Side, std::string_view subject, std::string_view queue,
                                      core::OriginId) {
  const uint32_t wanted = account.interest(listens_to(), subject, queue, nullptr) != 0 ? 1 : 0;
  const core::KeyedHash& hash = shard.sid_hash();
  const uint64_t key = hash.combine(hash(subject, account.number), queue.empty() ? 0 : hash(queue, 1));
  if (told_.exchange(key, wanted) == wanted) return;
  std::string line(wanted != 0 ? "RS+ " : "RS- ");
  line.append(account.name).append(" ").append(subject);
  if (!queue.empty()) line.append(" ").append(queue).append(wanted != 0 ? " 1" : "");
  line.append("\r\n");
  send_line(line);
}

bool GatewaySession::ready_for_replay() const { return outbox.pending() < kReplayPending; }

void GatewaySession::replay_done() {
  if (std::exchange(replayed_, true)) return;
  announce_account(std::string(core::kGlobalAccountName), kAllSubsComplete);
}

core::Account* GatewaySession::find_account(std::string_view name) {
  return gateways_.settings().knows(name) ? shard.find_or_make_account(name) : nullptr;
}

void GatewaySession::on_sub(const PeerOperation& operation) {
  const auto& tokens = operation.tokens;
  if (tokens.size() != 2 && tokens.size() != 4) return protocol_violation(operation.text);
  core::Account* account = find_account(tokens[0]);
  count_interest();
  if (account == nullptr) return;
  if (!core::is_valid_subject(tokens[1])) {
    shard.server().log.debug("{} - Could not insert subscription: invalid subject", label());
    return;
  }
  if (optimistic(*account)) {
    if (tokens.size() == 2) {
      // Takes back what RS- said; a pattern for all it covers.
      const auto at = guesses_.find(account->number);
      if (at == guesses_.end()) return;
      std::erase_if(at->second.unwanted, [&](const std::string& each) { return core::match_subject(tokens[1], each); });
      return;
    }
    guess(*account);  // who has a queue group has not said A-
  }
  if (!may_want_more(*account)) return;
  shard.add_peer_interest(*this, *account, Side::kGateways, tokens[1], tokens.size() == 4 ? tokens[2] : "", 1);
}

void GatewaySession::on_unsub(const PeerOperation& operation) {
  const auto& tokens = operation.tokens;
  if (tokens.size() != 2 && tokens.size() != 3) return protocol_violation(operation.text);
  core::Account* account = find_account(tokens[0]);
  count_interest();
  if (account == nullptr) return;
  if (optimistic(*account) && tokens.size() == 2) {
    auto& unwanted = guesses_[account->number].unwanted;
    if (unwanted.size() < kMostUnwanted) unwanted.emplace(tokens[1]);
    modes_.try_emplace(account->name, InterestMode::kOptimistic);
    return;
  }
  shard.remove_peer_interest(*this, *account, Side::kGateways, tokens[1], tokens.size() == 3 ? tokens[2] : "");
}

// ---------------------------------------------------------------------------------------------------- optimistic mode

bool GatewaySession::optimistic(const core::Account& account) const {
  if (interest_only_) return false;
  const auto at = modes_.find(account.name);
  return at == modes_.end() || at->second == InterestMode::kOptimistic;
}

void GatewaySession::guess(core::Account& account) {
  Guess& to = guesses_[account.number];
  if (to.everything == nullptr)
    to.everything = shard.add_peer_interest(*this, account, Side::kGateways, kEverything, {}, 1, kGuess);
}

void GatewaySession::stop_guessing(core::Account& account) {
  const auto at = guesses_.find(account.number);
  if (at == guesses_.end()) return;
  core::Subscription* everything = at->second.everything;
  guesses_.erase(at);
  if (everything != nullptr) shard.remove_subscription(*everything);
}

// A+ and A-: of an account nobody there has subscribed in.
void GatewaySession::on_account_wanted(std::string_view name, bool wanted) {
  count_interest();
  core::Account* account = find_account(name);
  if (account == nullptr || !optimistic(*account)) return;
  modes_.try_emplace(account->name, InterestMode::kOptimistic);
  stop_guessing(*account);
  if (wanted) guess(*account);
}

// Nobody here can be subscribed in an account that does not exist.
void GatewaySession::answer_no_account(std::string_view name) {
  if (modes_.contains(name) || modes_.size() >= kMostAccounts) return;
  shard.server().log.debug("{} - Unknown account {} for gateway message", label(), core::quote(name));
  modes_.emplace(name, InterestMode::kOptimistic);
  send_line(fmt::format("A- {}\r\n", name));
}

// nats-server listens for this event in the system account.
void GatewaySession::leafnode_connected(const std::string& account) {
  if (interest_only_ || !registered_ || closing()) return;
  const core::ServerIdentity& identity = shard.server().identity;
  const std::string event = fmt::format(R"({{"server":{{"name":{},"id":{}}},"acc":{}}})", core::quote(identity.name),
                                        core::quote(identity.id), core::quote(account));
  send_line(fmt::format("RMSG {0} {0}.ACCOUNT.{1}.LEAFNODE.CONNECT {2}\r\n{3}\r\n", kSystemAccountName, account,
                        event.size(), event));
}

bool GatewaySession::describe(core::GatewayRow& row, const core::GatewayzQuery& query) const {
  if (!registered_) return false;
  PeerLink::describe(row.conn, false);
  row.name = name_;
  row.outbound = outbound_;
  row.is_configured = outbound_ && gateways_.is_configured(name_);
  if (!query.accounts) return true;
  for (const auto& [account, mode] : modes_) {
    if (!query.account.empty() && query.account != account) continue;
    auto& to = row.accounts.emplace_back();
    to.name = account;
    to.mode = text(mode);
  }
  if (!outbound_) return true;
  for (auto& to : row.accounts) {
    const core::Account* known = gateways_.settings().knows(to.name) ? &shard.account(core::kGlobalAccount) : nullptr;
    const auto guess = known != nullptr ? guesses_.find(known->number) : guesses_.end();
    if (guess != guesses_.end()) to.no_interest = guess->second.unwanted.size();
  }
  for (const core::Subscription* sub : interest()) {
    if (sub->side != Side::kGateways || sub->origin() == kGuess) continue;
    core::Account& account = shard.account(sub->peer_place().account);
    const auto at = std::find_if(row.accounts.begin(), row.accounts.end(),
                                 [&](const auto& each) { return each.name == account.name; });
    if (at == row.accounts.end()) continue;
    const core::Sublist& side = account.side(Side::kGateways);
    ++at->subscriptions;
    if (!side.queue_of(*sub).empty()) ++at->queue_subscriptions;
    if (!query.subs) continue;
    core::SubRow& to = at->subs.emplace_back();
    to.subject = side.subject_of(*sub);
    to.queue = side.queue_of(*sub);
    to.cid = cid;
  }
  return true;
}

// ---------------------------------------------------------------------------------------------------- messages

bool GatewaySession::accepts(const core::Message& message, const core::Subscription& sub) {
  if (sub.origin() != kGuess) [[likely]]
    return true;
  const auto at = guesses_.find(sub.peer_place().account);
  return at == guesses_.end() || !at->second.unwanted.contains(std::string(message.subject));
}

// The interest of an inbox this server has known for less than two seconds may not have reached the other cluster.
bool GatewaySession::reply_needs_a_way_back(const core::Account& account, std::string_view reply) const {
  if (reply.empty() || core::is_gateway_reply(reply)) return false;
  if (account.last_interest_ns() == 0 || shard.now_ns() - account.last_interest_ns() >= kRecentNs) return false;
  auto& with_index = const_cast<core::Account&>(account);
  for (const Side side : {Side::kClients, Side::kLeafs, Side::kRoutes, Side::kRoutedLeafs}) {
    if ((account.live_sides() & core::bit(side)) != 0 && !with_index.side(side).match(reply).empty()) return true;
  }
  return false;
}

void GatewaySession::message_line(std::string& line, const core::Account& account, const core::Message& message,
                                  const core::PeerTarget& target) {
  const bool with_headers = headers && message.header_size != 0;
  line.append(with_headers ? "HMSG " : "RMSG ").append(account.name).append(" ").append(message.subject).append(" ");
  const auto append_reply = [&] {
    if (reply_needs_a_way_back(account, message.reply)) {
      const GatewaySettings& settings = gateways_.settings();
      line.append(old_prefix_ ? settings.old_reply_prefix : settings.reply_prefix);
    }
    line.append(message.reply).append(" ");
  };
  if (!target.queues.empty()) {
    line.append(message.reply.empty() ? "| " : "+ ");
    if (!message.reply.empty()) append_reply();
    for (const std::string_view queue : target.queues) line.append(queue).append(" ");
  } else if (!message.reply.empty()) {
    append_reply();
  }
  const size_t skip = headers ? 0 : message.header_size;
  if (with_headers) fmt::format_to(std::back_inserter(line), "{} ", message.header_size);
  fmt::format_to(std::back_inserter(line), "{}\r\n", message.payload.size() - skip);
}

void GatewaySession::on_message(const PeerOperation& operation) {
  if (outbound_) return protocol_violation(operation.text);
  const auto& tokens = operation.tokens;
  if (tokens.size() < 2) return protocol_violation(operation.text);
  core::Account* account = find_account(tokens[0]);
  const bool plain = tokens.size() == 2 && operation.verb == PeerVerb::kRoutedMessage;
  if (plain && account != nullptr && opens_run(operation, *account, tokens[1])) return;
  ++traffic.in_msgs;
  traffic.in_bytes += operation.payload.size();
  shard.count_peer_messages(1, operation.payload.size());
  core::Message message;
  message.subject = tokens[1];
  message.payload = operation.payload;
  message.header_size = operation.header_size;
  message.from = this;
  message.source = core::SessionKind::kGateway;
  message.all_queues = false;
  if (!read_receivers(tokens.subspan(2), message)) return protocol_violation(operation.text);
  if (account == nullptr) return answer_no_account(tokens[0]);
  if (core::is_gateway_reply(message.subject)) [[unlikely]] {
    deliver_gateway_reply(gateways_.settings(), *this, *account, message);
    return;
  }
  shard.delivery().publish(*account, message);
}

bool deliver_gateway_reply(const GatewaySettings& settings, core::Session& from, core::Account& account,
                           core::Message message) {
  core::Delivery& delivery = from.shard.delivery();
  const core::GatewayReply reply = core::parse_gateway_reply(message.subject);
  if (reply.cluster != (reply.server.empty() ? settings.old_cluster_hash : settings.cluster_hash)) return false;
  if (from.kind == core::SessionKind::kGateway && !reply.server.empty() && reply.server != settings.server_hash) {
    // For another server of this cluster, which knows the requester. If it is gone, this one does what it can.
    core::Message on = message;
    on.only = core::bit(Side::kReplies);
    if (delivery.publish(account, on)) return true;
  }
  message.subject = reply.plain;
  // Whoever waits for it in this cluster, queue groups too, and other clusters: they may have asked through ours.
  message.source = core::SessionKind::kGateway;
  message.all_queues = true;
  message.only = core::kAllSides;
  // A service reply is for the one who asked alone.
  if (reply.plain.starts_with("_R_.")) message.only &= static_cast<core::SideSet>(~core::bit(Side::kGateways));
  return delivery.publish(account, message);
}

}  // namespace peregrine::cluster
