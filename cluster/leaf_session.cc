#include "cluster/leaf_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "cluster/leaf_remote.h"
#include "core/go_format.h"
#include "core/subject.h"

namespace peregrine::cluster {
namespace {

using core::CloseReason;
using core::SessionKind;

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kConnectInfoNs = 2 * kSecondNs;
constexpr int64_t kAfterLoopNs = 30 * kSecondNs;
constexpr int64_t kAfterSameClusterNs = 30 * kSecondNs;
constexpr int64_t kAfterViolationNs = 30 * kSecondNs;
constexpr int64_t kAfterMinVersionNs = 5 * kSecondNs;
constexpr size_t kReplayPending = 1 << 20;  // bytes that may wait before existing interest is told further

// -ERR texts, exact.
constexpr std::string_view kWrongPort = "attempted to connect to leaf node port";
constexpr std::string_view kConnectedToWrongPort = "attempted to connect to wrong port";
constexpr std::string_view kClusterHasSpaces = "cluster name cannot contain spaces";
constexpr std::string_view kSameCluster = "remote leafnode has same cluster name";
constexpr std::string_view kMinVersion = "connection rejected since minimum version required is";
constexpr std::string_view kStaleLeaf = "Stale Leaf Node Connection - Closing";

constexpr std::string_view kLoopPrefix = "$LDS.";
constexpr std::string_view kGatewayReply = "_GR_.";
constexpr std::string_view kOldGatewayReply = "$GR.";
constexpr std::string_view kServiceReply = "_R_.";
constexpr std::string_view kJetStreamAck = "$JS.ACK.";

// The servers' own: no permission applies to interest in them.
bool is_internal(std::string_view subject) {
  return subject.starts_with(kLoopPrefix) || subject.starts_with(kGatewayReply) ||
         subject.starts_with(kOldGatewayReply);
}

void append_number(std::string& to, uint64_t number) {
  char digits[20];
  to.append(digits, std::to_chars(digits, digits + sizeof(digits), number).ptr);
}

std::vector<int64_t> thresholds(const config::Compression& from) {
  std::vector<int64_t> to;
  for (const config::Duration& each : from.rtt_thresholds) to.push_back(each.count());
  if (to.empty()) to = {10'000'000, 50'000'000, 100'000'000};
  return to;
}

}  // namespace

LeafSession::LeafSession(LeafNodes& nodes, core::Shard& shard, net::Opened opened, LeafRemote* remote)
    : PeerLink(shard, SessionKind::kLeaf, std::move(opened), nodes.clocks(remote == nullptr)),
      nodes_(nodes),
      remote_(remote),
      stage_(remote == nullptr ? Stage::kAwaitConnect : Stage::kAwaitInfo),
      spoke_(remote != nullptr && !remote->options().hub),
      isolated_(nodes.options().isolate_leafnode_interest ||
                (remote != nullptr && remote->options().isolate_leafnode_interest)),
      told_hash_(shard.server().hash_key.k0, shard.server().hash_key.k1, 0x6c656166) {
  echo = false;
  limits_.max_payload = shard.server().options.max_payload;
}

LeafSession::~LeafSession() = default;

void LeafSession::start() {
  core::Server& server = shard.server();
  if (accepted()) {
    server.log.info("{} - Leafnode connection created", label());
    nonce_ = make_nonce(shard.random().next(), shard.random().next());
    const PeerTls::Block& tls = nodes_.tls().leafnodes;
    const bool tls_first = tls != nullptr && nodes_.options().tls->handshake_first;
    if (!tls_first) greet();
    if (tls != nullptr) start_tls(tls, {});
    // Who does not begin within that time waits for INFO.
    const int64_t patience = tls_first ? nodes_.options().tls->handshake_first_fallback.count() : 0;
    if (patience > 0) arm_stage_timer(patience);
    arm_timer();
    return;
  }
  server.log.info("{} - Leafnode connection created for account: {}", label(), remote_->account());
  account = shard.find_or_make_account(remote_->account());
  config::SubjectPermission send, tell;
  send.deny = remote_->options().deny_exports;
  tell.deny = remote_->options().deny_imports;
  allowed_.set(&send, &tell);
  if (remote_->tls_first()) start_tls(remote_->tls(), remote_->tls_name());
  else wait_for_info();
}

void LeafSession::wait_for_info() {
  const int64_t wait = remote_->options().first_info_timeout.count();
  arm_stage_timer(wait > 0 ? wait : kSecondNs);
}

void LeafSession::greet() {
  greeted_ = true;
  PeerInfo info = own_info();
  if (nodes_.options().compression.mode != compression::kNotSupported) info.compression = wanted_compression();
  // With a handshake that has been waited for in vain.
  if (tls_untouched()) send_in_clear(info_line(info));
  else send_info(info);
}

void LeafSession::on_secured() {
  if (accepted()) {
    if (greeted_) return;
    stage_timer_.cancel();
    mark_tls_first();
    return greet();
  }
  wait_for_info();  // another one comes, if compression is agreed on
  if (const std::unique_ptr<PeerInfo> info = std::move(first_info_)) on_first_info(*info);
}

void LeafSession::on_wrong_name() {
  if (remote_ != nullptr) remote_->forget_tls_name();
}

void LeafSession::announce(const std::string& line) {
  if (!closing() && up() && accepted()) send_line(line);
}

void LeafSession::arm_stage_timer(int64_t in_ns) {
  shard.timers().arm(stage_timer_, shard.now_ns() + in_ns, this,
                     [](void* self) { static_cast<LeafSession*>(self)->on_stage_timeout(); });
}

void LeafSession::on_stage_timeout() {
  if (closing()) return;
  core::Log& log = shard.server().log;
  if (accepted() && !greeted_) {
    if (tls_untouched()) greet();
    return;
  }
  if (stage_ == Stage::kAwaitInfo) {
    log.error("{} - no INFO from the hub in time", label());
    return close(CloseReason::kReadError);
  }
  if (stage_ != Stage::kAwaitConnectInfo) return;
  log.debug("{} - {}", label(), kStaleLeaf);
  send_error(kStaleLeaf);
  close(CloseReason::kStaleConnection);
}

void LeafSession::on_operation(const PeerOperation& operation) {
  switch (operation.verb) {
    case PeerVerb::kInfo:
      return on_info(operation.text);
    case PeerVerb::kConnect:
      if (stage_ != Stage::kAwaitConnect) return protocol_violation("CONNECT");
      return on_connect(operation.text);
    case PeerVerb::kLeafSub:
    case PeerVerb::kLeafUnsub:
    case PeerVerb::kLeafMessage:
    case PeerVerb::kHeaderMessage:
      if (!up()) return accepted() ? auth_violation({}) : protocol_violation(operation.text);
      if (operation.verb == PeerVerb::kLeafSub) return on_sub(operation);
      if (operation.verb == PeerVerb::kLeafUnsub) return on_unsub(operation);
      return on_message(operation);
    default:
      return unknown_operation(input_of(operation));
  }
}

// ---------------------------------------------------------------------------------------------------- handshake

PeerInfo LeafSession::own_info() const {
  PeerInfo info = nodes_.info();
  info.client_id = static_cast<int64_t>(cid);
  info.nonce = nonce_;
  return info;
}

std::string LeafSession::info_line(const PeerInfo& info) const { return "INFO " + to_json(info) + " \r\n"; }

void LeafSession::send_info(const PeerInfo& info) { send_line(info_line(info)); }

std::string_view LeafSession::wanted_compression() const {
  const std::string& mode = (accepted() ? nodes_.options().compression : remote_->options().compression).mode;
  return mode.empty() ? compression::kAuto : std::string_view(mode);
}

std::string_view LeafSession::auto_compression(int64_t rtt_ns) const {
  return compression_for_rtt(rtt_ns,
                             thresholds(accepted() ? nodes_.options().compression : remote_->options().compression));
}

bool LeafSession::negotiate(std::string_view theirs) {
  compression_settled_ = true;
  const std::string_view ours = wanted_compression();
  if (!needs_compression(ours)) {
    compression_ =
        theirs.empty() || ours == compression::kNotSupported ? compression::kNotSupported : compression::kOff;
    return false;
  }
  const std::optional<std::string_view> chosen = select_compression(ours, theirs);
  if (!chosen) {
    fail(fmt::format("unsupported route compression mode {}", core::quote(theirs)), CloseReason::kProtocolViolation);
    return false;
  }
  const bool automatic = *chosen == compression::kAuto;
  compression_ = automatic ? auto_compression(std::max<int64_t>(shard.now_ns() - start_ns_, 1)) : *chosen;
  if (!needs_compression(compression_)) return false;
  PeerInfo info = own_info();
  info.compression = ours == compression::kAuto ? compression::kAuto : std::string_view(compression_);
  // The solicitor's INFO is the last thing it says in clear, the acceptor's the first that is compressed.
  if (!accepted()) send_info(info);
  std::unique_ptr<CompressionFilter> filter = make_s2_filter(&shard.pool(), compression_);
  s2_ = filter.get();
  switch_to(std::move(filter));
  if (accepted()) send_info(info);
  return true;
}

void LeafSession::on_pong() {
  if (s2_ == nullptr || wanted_compression() != compression::kAuto) return;
  const std::string_view mode = auto_compression(rtt_ns());
  if (mode == compression_) return;
  compression_ = mode;
  s2_->set_mode(mode);
}

void LeafSession::on_info(std::string_view json) {
  const std::optional<PeerInfo> info = parse_info(json);
  if (!info) return protocol_violation("INFO");
  if (accepted()) {
    // All an acceptor learns from INFO is the compression.
    if (stage_ == Stage::kAwaitConnect && !compression_settled_) negotiate(info->compression);
    return;
  }
  if (stage_ == Stage::kAwaitInfo) return on_first_info(*info);
  remote_->discovered(info->leafnode_urls);
  use_permissions(*info);
  if (!info->remote_account.empty()) connect_.remote_account = info->remote_account;
  if (info->connect_info && stage_ == Stage::kAwaitConnectInfo) come_up();
}

void LeafSession::on_first_info(const PeerInfo& info) {
  core::Log& log = shard.server().log;
  if (!compression_settled_) {
    if (!secured()) {
      if (info.tls_required) remote_->hub_wants_tls();
      if (const PeerTls::Block& tls = remote_->tls(); tls != nullptr) {
        first_info_ = std::make_unique<PeerInfo>(info);
        stage_timer_.cancel();
        return start_tls(tls, remote_->tls_name());
      }
    }
    // Hubs with no_advertise name no URLs; no other port promises an INFO after CONNECT, though.
    if (info.client_id == 0 || (info.leafnode_urls.empty() && !info.info_on_connect)) {
      log.error("{} - {}", label(), kConnectedToWrongPort);
      return close(CloseReason::kWrongPort);
    }
    if (negotiate(info.compression) || closing()) return;
  }
  if (info.cluster.find(' ') != std::string::npos) return fail(kClusterHasSpaces, CloseReason::kProtocolViolation);
  nonce_ = info.nonce;
  headers = info.headers && !shard.server().options.no_header_support;
  remote_name_ = info.server_name.empty() ? info.server_id : info.server_name;
  remote_cluster_ = info.cluster;
  if (!remote_cluster_.empty()) origin_ = shard.server().name_origin(remote_cluster_);
  remote_->discovered(info.leafnode_urls);
  use_permissions(info);
  stage_ = Stage::kAwaitConnectInfo;
  send_connect();
  arm_stage_timer(kConnectInfoNs);
  if (!info.info_on_connect || info.connect_info) come_up();
}

// What the hub allows, and what we do not want.
void LeafSession::use_permissions(const PeerInfo& info) {
  if (!info.import_subjects && !info.export_subjects) return;
  allowed_.set(info.export_subjects ? &*info.export_subjects : nullptr,
               info.import_subjects ? &*info.import_subjects : nullptr);
  allowed_.deny_sending(remote_->options().deny_exports);
  allowed_.deny_telling(remote_->options().deny_imports);
  if (up()) deny_jetstream();
}

void LeafSession::send_connect() {
  const core::Server& server = shard.server();
  connect_.version = server.identity.version;
  connect_.user = remote_->user();
  connect_.password = remote_->password();
  if (connect_.password.empty()) connect_.token = connect_.user;
  connect_.server_id = server.identity.id;
  connect_.name = server.identity.name;
  connect_.is_hub = !spoke_;
  connect_.cluster = nodes_.cluster_name();
  connect_.headers = headers;
  connect_.deny_publish = remote_->options().deny_imports;
  connect_.isolate = remote_->options().request_isolation;
  connect_.compression = compression_;
  connect_.remote_account = account->name;
  connect_.protocol = kPeerProtocol;
  send_line("CONNECT " + to_json(connect_) + "\r\n");
  server.log.debug("{} - Remote leafnode connect msg sent", label());
  connect_.remote_account.clear();  // from here on the hub's
}

void LeafSession::on_connect(std::string_view json) {
  std::optional<LeafConnect> connect = parse_leaf_connect(json);
  if (!connect) return protocol_violation("CONNECT");
  connect_ = std::move(*connect);
  core::Credentials credentials;
  credentials.user = connect_.user;
  credentials.password = connect_.password;
  credentials.token = connect_.token;
  credentials.nkey_or_jwt = !connect_.nkey.empty() || !connect_.jwt.empty();
  core::Auth::Plan plan = nodes_.plan(credentials);
  if (plan.refused || (plan.compare && !plan.bcrypt && !core::Auth::compare_plain(plan.expected, plan.offered)))
    return refuse_credentials();
  stage_ = Stage::kAuthenticating;
  if (!plan.bcrypt) return on_authenticated(plan.identity);
  // bcrypt costs milliseconds on purpose: a worker compares, the connection waits, the shard goes on.
  wait_for_answer();
  shard.server().workers.run([home = &shard, id = cid, plan = std::move(plan)] {
    const bool same = core::Auth::compare_bcrypt(plan.expected, plan.offered);
    home->post([id, same, identity = plan.identity](core::Shard& on) {
      auto* session = static_cast<LeafSession*>(on.find(id));
      if (session == nullptr || session->closing()) return true;
      if (same) session->on_authenticated(identity);
      else session->refuse_credentials();
      if (!session->closing()) session->go_on();
      return true;
    });
  });
}

void LeafSession::refuse_credentials() {
  if (!connect_.user.empty() || connect_.token.empty()) return auth_violation(connect_.user);
  shard.server().log.error("{} - authentication error - Token \"[REDACTED]\"", label());
  send_error(core::error_text::kAuthorizationViolation);
  close(CloseReason::kAuthenticationFailure);
}

void LeafSession::refuse(std::string_view text, core::CloseReason reason) {
  shard.server().log.error("{} - {} - Account:{}", label(), text, core::kGlobalAccountName);
  send_error(text);
  close(reason);
}

void LeafSession::on_authenticated(const core::Identity& identity) {
  credentials_accepted();
  if (!connect_.lang.empty()) return refuse(kWrongPort, CloseReason::kWrongPort);
  if (connect_.cluster.find(' ') != std::string::npos)
    return refuse(kClusterHasSpaces, CloseReason::kProtocolViolation);
  const std::string cluster = nodes_.cluster_name();
  if (!cluster.empty() && connect_.cluster == cluster) return refuse(kSameCluster, CloseReason::kClusterNamesIdentical);
  if (!connect_.gateway.empty()) {
    shard.server().log.error("{} - wrong gateway", label());
    return fail(fmt::format("Rejecting connection from gateway {} on the leafnode port", core::quote(connect_.gateway)),
                CloseReason::kWrongGateway);
  }
  account = &shard.account(core::kGlobalAccount);
  PeerInfo info = nodes_.info();
  info.client_id = static_cast<int64_t>(cid);
  info.connect_info = true;
  info.remote_account = account->name;
  if (identity.permissions != nullptr) {
    info.import_subjects = identity.permissions->source().subscribe;
    info.export_subjects = identity.permissions->source().publish;
  }
  const std::string& least = nodes_.options().min_version;
  if (!least.empty() && !version_at_least(connect_.version, least)) {
    send_info(info);
    return refuse(fmt::format("{} {}", kMinVersion, core::quote(least)), CloseReason::kMinimumVersionRequired);
  }
  headers = connect_.headers && !shard.server().options.no_header_support;
  if (compression_.empty())
    compression_ = connect_.compression.empty() ? std::string(compression::kNotSupported) : connect_.compression;
  remote_name_ = connect_.name;
  remote_cluster_ = connect_.cluster;
  if (!remote_cluster_.empty()) origin_ = shard.server().name_origin(remote_cluster_);
  isolated_ |= connect_.isolate;
  spoke_ = connect_.is_hub;
  // The user's permissions are the spoke's; seen from here, what it may subscribe is what we may send.
  allowed_.set(info.import_subjects ? &*info.import_subjects : nullptr,
               info.export_subjects ? &*info.export_subjects : nullptr);
  allowed_.deny_sending(connect_.deny_publish);
  if (identity.permissions != nullptr) permissions = std::make_unique<core::PermissionState>(identity.permissions);
  registered_ = true;
  if (nodes_.enter({shard.index(), cid, connect_.name, connect_.cluster, account->name, connect_.remote_account,
                    !connect_.is_hub})) {
    shard.server().log.warn("{} - Replacing connection from same server", label());
  }
  send_info(info);
  come_up();
}

// JetStream's subjects stay on their side: a request would be answered by both otherwise.
void LeafSession::deny_jetstream() {
  const auto& defaults = shard.server().options.default_js_domain;
  if (const auto at = defaults.find(account->name); at != defaults.end() && at->second.empty()) return;
  static const std::vector<std::string> kDenied = {"$JS.API.>", "$KV.>", "$OBJ.>"};
  allowed_.deny_sending(kDenied);
  allowed_.deny_telling(kDenied);
}

void LeafSession::come_up() {
  stage_timer_.cancel();
  stage_ = Stage::kUp;
  if (!accepted() && !remote_cluster_.empty() && nodes_.is_leaf_cluster(account->name, remote_cluster_)) {
    stage_ = Stage::kAwaitConnectInfo;
    return on_loop(true);
  }
  deny_jetstream();
  ++account->leafnodes;
  loop_subject_ = nodes_.loop_subject(account->name);
  always_.insert(loop_subject_);
  // Where there are gateways, replies that came through them may go back this way.
  if (const config::Gateway& gateway = shard.server().options.gateway; !gateway.name.empty() && gateway.port != 0) {
    always_.insert(std::string(kGatewayReply) + ">");
    always_.insert(std::string(kOldGatewayReply) + "*.>");
  }
  for (const config::Mapping& mapping : shard.server().options.mappings) {
    if (allowed_.may_tell(mapping.source)) always_.insert(mapping.source);
  }
  for (const std::string& subject : always_) {
    told_.exchange(told_key(subject, {}), 1);
    tell(subject, {}, 1);
  }
  shard.listen_to_interest(*this);
  if (nodes_.on_connected) nodes_.on_connected(account->name);
  start_pings();
}

void LeafSession::on_going() {
  stage_timer_.cancel();
  if (up()) {
    --account->leafnodes;
    shard.stop_listening(*this);
  }
  if (registered_) nodes_.leave(cid);
  if (remote_ != nullptr) remote_->lost();
}

// Who says so closes the connection, or does not mind going on.
void LeafSession::on_error(std::string_view text) {
  core::Log& log = shard.server().log;
  log_error_of_peer(text);
  const auto delayed = [&](int64_t ns, std::string_view why) {
    if (remote_ != nullptr) remote_->delay_reconnect(ns);
    log.error("{} - Leafnode connection dropped {}. Delaying attempt to reconnect for {}", label(), why,
              core::format_duration(ns));
  };
  if (text.find(kSameCluster) != std::string_view::npos) {
    delayed(kAfterSameClusterNs, "with same cluster name error");
  } else if (text.find(kMinVersion) != std::string_view::npos) {
    delayed(kAfterMinVersionNs, "due to minimum version requirement");
  } else if (text.find("Loop detected") != std::string_view::npos) {
    on_loop(false);
  }
}

// ---------------------------------------------------------------------------------------------------- interest

void LeafSession::on_loop(bool tell) {
  if (remote_ != nullptr) remote_->delay_reconnect(kAfterLoopNs);
  const std::string text =
      fmt::format("Loop detected for leafnode account={}. Delaying attempt to reconnect for {}",
                  core::quote(account != nullptr ? account->name : std::string()), core::format_duration(kAfterLoopNs));
  if (tell) return fail(text, CloseReason::kProtocolViolation);
  shard.server().log.error("{} - {}", label(), text);
  close(CloseReason::kProtocolViolation);
}

void LeafSession::permission_violation(std::string_view what, std::string_view subject) {
  if (spoke_) return;  // the hub has told us what is allowed and does not send what is not
  if (remote_ != nullptr) remote_->delay_reconnect(kAfterViolationNs);
  send_error(fmt::format("Permissions Violation for {} to {}", what, core::quote(subject)));
  shard.server().log.error("{} - {} Violation on {} - Check other side configuration", label(), what,
                           core::quote(subject));
  close(CloseReason::kProtocolViolation);
}

void LeafSession::on_sub(const PeerOperation& operation) {
  count_interest();
  const auto tokens = operation.tokens;
  if (tokens.size() != 1 && tokens.size() != 3) return protocol_violation(operation.text);
  const std::string_view subject = tokens[0];
  if (subject == loop_subject_) return on_loop(true);
  std::string_view queue;
  uint32_t weight = 1;
  if (tokens.size() == 3) {
    queue = tokens[1];
    const std::string_view digits = tokens[2];
    if (std::from_chars(digits.data(), digits.data() + digits.size(), weight).ec != std::errc() || weight == 0)
      weight = 1;
  }
  if (!is_internal(subject) && core::is_literal(subject) && !allowed_.may_send(subject))
    return permission_violation("Subscription", subject);
  if (!core::is_valid_subject(subject)) {
    shard.server().log.error("{} - Could not insert subscription: sublist: invalid subject", label());
    return send_error("Invalid Subscription");
  }
  const auto most = shard.server().options.max_subscriptions;
  if (most > 0 && subscription_count() >= static_cast<size_t>(most)) {
    shard.server().log.error("{} - {}", label(), core::error_text::kMaxSubscriptions);
    return send_error(core::error_text::kMaxSubscriptions);
  }
  if (!may_want_more(*account)) return;
  shard.add_peer_interest(*this, *account, side(), subject, queue, weight, origin_);
}

void LeafSession::on_unsub(const PeerOperation& operation) {
  count_interest();
  const auto tokens = operation.tokens;
  if (tokens.empty() || tokens.size() > 2) return;
  shard.remove_peer_interest(*this, *account, side(), tokens[0], tokens.size() == 2 ? tokens[1] : std::string_view(),
                             origin_);
}

bool LeafSession::ready_for_replay() const { return outbox.pending() < kReplayPending; }

void LeafSession::interest_changed(core::Account& account, core::Side, std::string_view subject, std::string_view queue,
                                   core::OriginId) {
  if (closing()) return;
  const bool loop = subject.starts_with(kLoopPrefix);
  // A loop may close at any server: loop subjects go everywhere.
  core::SideSet sides = loop ? core::kAllSides : core::told(spoke_ ? SessionKind::kHub : SessionKind::kLeaf);
  if (isolated_) sides &= static_cast<core::SideSet>(~(core::bit(core::Side::kLeafs) | core::bit(core::Side::kHubs)));
  uint32_t weight = account.interest(sides, subject, queue, this, origin_);
  if (weight != 0 && !is_internal(subject) && !allowed_.may_tell(subject)) weight = 0;
  if (queue.empty() && always_.find(subject) != always_.end()) weight = 1;
  if (told_.exchange(told_key(subject, queue), weight) != weight) tell(subject, queue, weight);
}

void LeafSession::tell(std::string_view subject, std::string_view queue, uint32_t weight) {
  std::string line(weight != 0 ? "LS+ " : "LS- ");
  line.append(subject);
  if (!queue.empty()) {
    line.append(1, ' ').append(queue);
    if (weight != 0) {
      line.push_back(' ');
      append_number(line, weight);
    }
  }
  send_line(line.append(core::kCrLf));
}

// ---------------------------------------------------------------------------------------------------- messages

void LeafSession::on_message(const PeerOperation& operation) {
  const auto tokens = operation.tokens;
  const bool plain = tokens.size() == 1 && operation.verb == PeerVerb::kLeafMessage;
  if (plain && permissions == nullptr && account->mappings == nullptr && (!spoke_ || allowed_.may_tell(tokens[0])) &&
      opens_run(operation, *account, tokens[0], core::reach(spoke_ ? SessionKind::kHub : SessionKind::kLeaf))) {
    return;
  }
  core::Message message;
  message.subject = tokens[0];
  message.payload = operation.payload;
  message.header_size = operation.header_size;
  message.all_queues = false;
  if (!read_receivers(tokens.subspan(1), message)) return protocol_violation(operation.text);
  const size_t bytes = message.payload.size();
  ++traffic.in_msgs;
  traffic.in_bytes += bytes;
  shard.count_peer_messages(1, bytes);

  const char first = message.subject.front();
  const bool reply = (first == '_' && message.subject.starts_with(kServiceReply)) ||
                     (first == '$' && message.subject.starts_with(kJetStreamAck));
  if (spoke_) {
    const bool way_back = first == '_' && message.subject.starts_with(kGatewayReply);
    if (!reply && !way_back && !allowed_.may_tell(message.subject)) return;
  } else if (!reply && permissions != nullptr && !permissions->may_publish(message.subject, shard.now_ns())) {
    return permission_violation("Publish", message.subject);
  }
  if (account->mappings != nullptr) [[unlikely]] {
    if (const std::optional<std::string_view> to = account->mappings->map(message.subject, shard.random())) {
      if (shard.tracing()) shard.trace(*this, "<<-", fmt::format("MAPPING {} -> {}", message.subject, *to));
      if (to->empty()) return;
      message.subject = *to;
      // The sender could not know the groups behind the mapping.
      if (message.queues.empty()) message.all_queues = true;
    }
  }
  // A mapped reply on its way back through our gateways.
  if (first == '_' && message.subject.starts_with(kGatewayReply)) [[unlikely]]
    message.only = core::kWayBack;
  message.from = this;
  message.source = spoke_ ? SessionKind::kHub : SessionKind::kLeaf;
  message.origin = remote_cluster_;
  message.origin_id = origin_;
  shard.delivery().publish(*account, message);
}

bool LeafSession::accepts(const core::Message& message, const core::Subscription&) {
  if (origin_ != core::kNoOrigin && message.origin_id == origin_) return false;
  return allowed_.may_send(message.subject);
}

void LeafSession::message_line(std::string& to, const core::Account&, const core::Message& message,
                               const core::PeerTarget& target) {
  const bool with_headers = headers && message.header_size != 0;
  to.append(with_headers ? "HMSG " : "LMSG ").append(message.subject).push_back(' ');
  if (!target.queues.empty()) {
    if (message.reply.empty()) to.append("| ");
    else to.append("+ ").append(message.reply).push_back(' ');
    for (const std::string_view queue : target.queues) to.append(queue).push_back(' ');
  } else if (!message.reply.empty()) {
    to.append(message.reply).push_back(' ');
  }
  const size_t skip = headers ? 0 : message.header_size;
  if (with_headers) {
    append_number(to, message.header_size);
    to.push_back(' ');
  }
  append_number(to, message.payload.size() - skip);
  to.append(core::kCrLf);
  if (permissions != nullptr && !message.reply.empty()) permissions->expect_reply(message.reply, shard.now_ns());
}

void LeafSession::describe(core::ConnRow& row, bool subs) const {
  PeerLink::describe(row, subs);
  if (accepted()) row.version = connect_.version;
  row.up = up();
  row.spoke = spoke_;
  row.isolated = isolated_;
  row.compression = compression_;
  if (account != nullptr) row.account = account->name;
  if (!subs || account == nullptr) return;
  for (const core::Subscription* sub : interest()) {
    core::SubRow& to = row.subs.emplace_back();
    to.subject = account->side(sub->side).subject_of(*sub);
    to.queue = account->side(sub->side).queue_of(*sub);
    to.cid = cid;
  }
}

}  // namespace peregrine::cluster
