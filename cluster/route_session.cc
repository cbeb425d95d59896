#include "cluster/route_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cluster/gateways.h"
#include "cluster/mesh.h"
#include "core/auth.h"
#include "core/gateway_reply.h"
#include "core/go_format.h"
#include "core/shard.h"
#include "net/socket.h"

namespace peregrine::cluster {

using core::CloseReason;

namespace error_text {
constexpr std::string_view kClientOnRoutePort = "attempted to connect to route port";
}  // namespace error_text

RouteSession::RouteSession(core::Shard& shard, Mesh& mesh, net::Opened opened, RouteOrigin origin)
    : PeerLink(shard, core::SessionKind::kRoute, std::move(opened),
               origin.solicited ? mesh.settings().solicited : mesh.settings().accepted),
      mesh_(mesh),
      origin_(std::move(origin)) {}

void RouteSession::start() {
  shard.server().log.info("{} - Route connection created", label());
  const PeerTls::Block& tls = mesh_.settings().tls;
  if (tls == nullptr) return on_secured();
  dialled_ = origin_.url.host;
  start_tls(tls, origin_.solicited ? mesh_.tls_name(dialled_) : std::string());
}

void RouteSession::on_wrong_name() { mesh_.forget_tls_name(dialled_); }

void RouteSession::on_secured() {
  const RouteSettings& settings = mesh_.settings();
  if (origin_.solicited) {
    connected_ = true;
    permissions =
        settings.permissions == nullptr ? nullptr : std::make_unique<core::PermissionState>(settings.permissions);
    send_connect();
    if (!settings.delays_info()) send_info(settings.compression, 0);
  } else {
    awaits_connect_ = true;
    send_info(settings.compression, 0);
  }
  if (settings.compresses()) watch_handshake();
  else start_pings();
}

void RouteSession::on_operation(const PeerOperation& operation) {
  if (!connected_ && operation.verb != PeerVerb::kConnect) return auth_violation({});
  switch (operation.verb) {
    case PeerVerb::kConnect:
      return on_connect(operation.text);
    case PeerVerb::kInfo:
      return on_info(operation.text);
    case PeerVerb::kRoutedSub:
      return on_sub(operation, false);
    case PeerVerb::kLeafSub:
      return on_sub(operation, true);
    case PeerVerb::kRoutedUnsub:
      return on_unsub(operation, false);
    case PeerVerb::kLeafUnsub:
      return on_unsub(operation, true);
    case PeerVerb::kRoutedMessage:
    case PeerVerb::kHeaderMessage:
    case PeerVerb::kLeafMessage:
      return on_message(operation);
    default:  // A+ and A- mean nothing on a route
      return;
  }
}

// ---------------------------------------------------------------------------------------------------- handshake

void RouteSession::send_connect() {
  PeerConnect connect;
  connect.user = origin_.url.user;
  connect.password = origin_.url.password;
  connect.tls_required = secured();
  connect.headers = mesh_.settings().headers;
  connect.name = mesh_.server_id();
  connect.cluster = mesh_.cluster_name();
  connect.cluster_dynamic = mesh_.name_is_dynamic();
  connect.lnoc = connect.lnocu = true;
  shard.server().log.debug("{} - Route connect msg sent", label());
  send_line("CONNECT " + to_json(connect) + "\r\n");
}

void RouteSession::send_info(std::string_view mode, int pool_index) {
  PeerInfo info = mesh_.info();
  info.nonce = make_nonce(shard.random().next(), shard.random().next());
  info.route_account = origin_.account;
  info.route_pool_idx = pool_index;
  info.gossip_mode = origin_.gossip_mode;
  const std::string& configured = mesh_.settings().compression;
  if (configured != compression::kNotSupported)
    info.compression = configured == compression::kAuto ? configured : std::string(mode);
  send_line("INFO " + to_json(info) + " \r\n");
}

void RouteSession::on_connect(std::string_view json) {
  std::optional<PeerConnect> connect = parse_connect(json);
  if (!connect) return protocol_violation(json);
  if (origin_.solicited || connected_) return;
  check_password(*connect);
}

void RouteSession::check_password(const PeerConnect& connect) {
  const RouteSettings& settings = mesh_.settings();
  if (settings.known_urls)
    return shows_certificate_of(*settings.known_urls) ? connect_accepted(connect) : auth_violation(connect.user);
  if (settings.user.empty()) return connect_accepted(connect);
  if (connect.user != settings.user) return auth_violation(connect.user);
  if (!core::Auth::is_bcrypt(settings.password)) {
    if (!core::Auth::compare_plain(settings.password, connect.password)) return auth_violation(connect.user);
    return connect_accepted(connect);
  }
  // Milliseconds on purpose: a worker compares.
  wait_for_answer();
  shard.server().workers.run([home = &shard, id = cid, expected = settings.password, connect] {
    const bool same = core::Auth::compare_bcrypt(expected, connect.password);
    home->post([id, same, connect](core::Shard& on) {
      auto* session = static_cast<RouteSession*>(on.find(id));
      if (session == nullptr || session->closing()) return true;
      session->unhold(core::kHoldPeer);
      if (!same) session->auth_violation(connect.user);
      else session->connect_accepted(connect);
      if (!session->waiting()) session->go_on();
      return true;
    });
  });
}

void RouteSession::connect_accepted(const PeerConnect& connect) {
  if (!connect.lang.empty()) return fail(error_text::kClientOnRoutePort, CloseReason::kWrongPort);
  if (!connect.gateway.empty()) {
    return fail(fmt::format("Rejecting connection from gateway {} on the Route port", core::quote(connect.gateway)),
                CloseReason::kWrongGateway);
  }
  credentials_accepted();
  pending_connect_ = std::make_unique<PeerConnect>(connect);
  if (connect.cluster == mesh_.cluster_name()) return finish_connect();
  wait_for_answer();
  mesh_.judge_name({shard.index(), cid}, connect.cluster, connect.cluster_dynamic, true, connect.name);
}

void RouteSession::finish_connect() {
  const std::unique_ptr<PeerConnect> connect = std::move(pending_connect_);
  const RouteSettings& settings = mesh_.settings();
  connected_ = true;
  remote_id_ = connect->name;
  lnoc_ = connect->lnoc;
  lnocu_ = connect->lnocu;
  headers = settings.headers && connect->headers;
  if (settings.permissions != nullptr) permissions = std::make_unique<core::PermissionState>(settings.permissions);
}

void RouteSession::name_judged(bool accepted) {
  const bool of_connect = pending_connect_ != nullptr;
  if (!accepted) {
    if (!of_connect) return close(CloseReason::kClusterNameConflict);
    return fail(fmt::format("Rejecting connection, cluster name {} does not match {}",
                            core::quote(pending_connect_->cluster), core::quote(mesh_.cluster_name())),
                CloseReason::kClusterNameConflict);
  }
  unhold(core::kHoldPeer);
  if (of_connect) finish_connect();
  else if (pending_info_) on_first_info();
  if (!closing() && !waiting()) go_on();
}

void RouteSession::on_info(std::string_view json) {
  std::optional<PeerInfo> info = parse_info(json);
  if (!info) return protocol_violation(json);
  if (info_received_) return on_later_info(std::move(*info));
  if (info->server_id == mesh_.server_id()) {
    remote_id_ = info->server_id;
    return close(CloseReason::kDuplicateRoute);
  }
  remote_ = std::move(*info);
  if (remote_.cluster.empty() || remote_.cluster == mesh_.cluster_name()) return on_first_info();
  pending_info_ = true;
  wait_for_answer();
  mesh_.judge_name({shard.index(), cid}, remote_.cluster, remote_.cluster_dynamic, false, remote_.server_id);
}

// The other side has said who it is. With compression to agree on this happens twice: the second INFO is the one that
// counts.
void RouteSession::on_first_info() {
  pending_info_ = false;
  const RouteSettings& settings = mesh_.settings();
  if (!origin_.solicited && remote_.server_name == mesh_.server_name()) {
    shard.server().log.error("{} - Remote server has a duplicate name: {}", label(), core::quote(remote_.server_name));
    return close(CloseReason::kDuplicateServerName);
  }
  if (settings.compresses()) {
    const bool negotiated = negotiated_;
    if (!negotiated && agree_on_compression()) return;
    if (closing()) return;
    if (!negotiated || origin_.solicited) start_pings();
  } else {
    const bool old = remote_.compression.empty() || settings.compression == compression::kNotSupported;
    compression_ = old ? compression::kNotSupported : compression::kOff;
  }
  info_received_ = true;
  headers = settings.headers && remote_.headers;
  remote_id_ = remote_.server_id;
  remote_name_ = remote_.server_name;
  lnoc_ = remote_.lnoc;
  lnocu_ = remote_.lnocu;
  ask_to_register();
}

// True if bytes are compressed from here on: then another INFO follows.
bool RouteSession::agree_on_compression() {
  negotiated_ = true;
  const RouteSettings& settings = mesh_.settings();
  std::optional<std::string_view> mode = select_compression(settings.compression, remote_.compression);
  if (!mode) {
    fail(fmt::format("unsupported route compression mode {}", core::quote(remote_.compression)),
         CloseReason::kProtocolViolation);
    return false;
  }
  if (*mode == compression::kAuto)
    mode = compression_for_rtt(std::max<int64_t>(shard.now_ns() - start_ns_, 1), settings.rtt_thresholds_ns);
  compression_ = *mode;
  if (!needs_compression(*mode)) return false;
  auto filter = make_s2_filter(&shard.pool(), *mode);
  s2_ = filter.get();
  // Who dialled says so in clear, the other side answers compressed already.
  if (origin_.solicited) send_info(*mode, 0);
  switch_to(std::move(filter));
  if (!origin_.solicited) {
    send_info(*mode, 0);
    start_pings();
  }
  return true;
}

void RouteSession::ask_to_register() {
  if (origin_.url.host.empty()) {
    origin_.url.scheme = "nats-route";
    origin_.url.host = remote_.host;
    origin_.url.port = static_cast<int>(remote_.port);
  }
  if (remote_.ip.empty())
    remote_.ip = fmt::format("nats-route://{}/", net::host_and_port(ip(), static_cast<int>(remote_.port)));
  if (origin_.solicited) remote_.route_account = origin_.account;
  else origin_.account = remote_.route_account;
  wait_for_answer();
  mesh_.hello({{shard.index(), cid}, origin_, remote_});
  origin_.gossip_mode = 0;
}

void RouteSession::registered(const Registration& registration) {
  registered_ = true;
  pool_index_ = registration.pool_index;
  no_pool_ = registration.no_pool;
  if (origin_.solicited && mesh_.settings().delays_info()) send_info(compression_, std::max(pool_index_, 0));
  shard.listen_to_interest(*this);
  // Answers on their way back to that server; see gateway_session.h.
  if (mesh_.gateways != nullptr && carries(core::kGlobalAccountName)) {
    shard.add_peer_interest(*this, shard.account(core::kGlobalAccount), core::Side::kReplies,
                            fmt::format("{}{}.{}.>", core::kGatewayReply, mesh_.gateways->settings().cluster_hash,
                                        gateway_hash(remote_id_)),
                            {}, 1);
  }
  if (registration.grow) {
    grow_ = true;
    ping_now();
  }
  go_on();
}

void RouteSession::refused(CloseReason reason, const std::string& error, bool no_reconnect) {
  no_reconnect_ |= no_reconnect;
  if (!error.empty()) return fail(error, reason);
  close(reason);
}

void RouteSession::set_origin(bool solicited, bool configured) {
  origin_.solicited = solicited;
  origin_.configured = configured;
}

void RouteSession::on_later_info(PeerInfo info) {
  if (!info.route_acc_add_reqid.empty()) {
    if (!info.route_account.empty()) mesh_.account_moves({shard.index(), cid}, std::move(info));
    return;
  }
  if (!info.gateway.empty()) {
    if (mesh_.gateways != nullptr) {
      mesh_.gateways->heard_of(info.gateway, info.gateway_urls);
    } else if (shard.server().options.gateway.name.empty()) {
      shard.server().log.error("Received information about gateway {} from {}, but gateway is not configured",
                               core::quote(info.gateway), remote_id_);
    }
    return;
  }
  if (info.server_id != remote_id_) return mesh_.heard_of(std::move(info), no_pool_);
  if (info.ldm) return mesh_.remote_in_lame_duck({shard.index(), cid});
  remote_.import_subjects = std::move(info.import_subjects);
  if (std::exchange(remote_.export_subjects, info.export_subjects) == info.export_subjects || !registered_) return;
  // What it did not let us ask for it has forgotten: everything is said once more.
  shard.stop_listening(*this);
  telling_again_ = true;
  shard.listen_to_interest(*this);
}

void RouteSession::on_pong() {
  if (s2_ != nullptr && mesh_.settings().compression == compression::kAuto) {
    const std::string_view mode = compression_for_rtt(rtt_ns(), mesh_.settings().rtt_thresholds_ns);
    if (mode != compression_) {
      compression_ = mode;
      s2_->set_mode(mode);
    }
  }
  if (!grow_) return;
  grow_ = false;
  mesh_.pool_connection_is_good({shard.index(), cid});
}

void RouteSession::on_going() {
  if (registered_) shard.stop_listening(*this);
  mesh_.farewell({{shard.index(), cid}, origin_, remote_id_, no_reconnect_});
}

bool RouteSession::describe(core::RouteRow& row, bool subs) const {
  if (!registered_) return false;
  PeerLink::describe(row.conn, false);
  row.remote_id = remote_id_;
  row.remote_name = remote_name_;
  row.did_solicit = origin_.solicited;
  row.is_configured = origin_.configured;
  row.import_subjects = remote_.import_subjects;
  row.export_subjects = remote_.export_subjects;
  row.account = origin_.account;
  row.compression = compression_;
  if (!subs) return true;
  for (const core::Subscription* sub : interest()) {
    if (sub->side == core::Side::kReplies) continue;  // our own doing
    core::Account& account = shard.account(sub->peer_place().account);
    core::SubRow& to = row.conn.subs.emplace_back();
    to.subject = account.side(sub->side).subject_of(*sub);
    to.queue = account.side(sub->side).queue_of(*sub);
    to.cid = cid;
    to.msgs = sub->messages();
    // What nats-server knows it by: the line it came with.
    const bool of_leaf = sub->side == core::Side::kRoutedLeafs;
    if (lnocu_) to.sid = of_leaf ? "L " : "R ";
    if (const auto named = origins_.find(sub->origin()); lnocu_ && of_leaf)
      to.sid.append(named == origins_.end() ? std::string() : named->second).push_back(' ');
    if (origin_.account.empty()) to.sid.append(account.name).push_back(' ');
    to.sid.append(to.subject);
    if (!to.queue.empty()) to.sid.append(" ").append(to.queue);
  }
  return true;
}

}  // namespace peregrine::cluster
