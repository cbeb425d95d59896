// How a client changes shards: packed here, unpacked there (placement.h).
#include "core/client_luggage.h"
#include "core/shard.h"

namespace peregrine::core {

bool ClientSession::can_move() const {
  return !closing() && sids_.size() == 0 && authenticated_ && !suspended_ && backlog_ == nullptr && filter() == nullptr;
}

std::unique_ptr<ClientSession::Luggage> ClientSession::pack() {
  auto to = std::make_unique<Luggage>(shard.server());
  packed_ = true;
  timer_.cancel();
  to->cid = cid;
  to->ip = ip();
  to->port = port();
  to->has_account = account != nullptr;
  if (account != nullptr) to->account = account->number;
  to->counted = std::exchange(counted_, false);
  if (to->counted) --account->connections;
  to->echo = echo;
  to->headers = headers;
  to->no_responders = no_responders;
  to->permissions = std::move(permissions);
  to->traffic = traffic;
  to->stalls = stalls;
  to->heading = std::move(heading);
  to->start_wall_ns = start_wall_ns_;
  to->start_ns = start_ns_;
  to->last_activity_ns = last_activity_ns_;
  to->parser = std::move(parser_);
  to->connected = std::move(connected_);
  to->gateway_replies = std::move(gateway_replies_);
  to->verbose = verbose_;
  to->pedantic = pedantic_;
  to->connect_received = connect_received_;
  to->authenticated = authenticated_;
  to->first_pong_sent = first_pong_sent_;
  to->pings_out = pings_out_;
  to->protocol = protocol_;
  to->info_serial = info_serial_;
  to->ping_due_ns = ping_due_ns_;
  to->ping_sent_ns = ping_sent_ns_;
  to->last_in_ns = last_in_ns_;
  to->rtt_ns = rtt_ns_;
  to->rtt_at_ns = rtt_at_ns_;
  return to;
}

ClientSession::ClientSession(Shard& shard, uint32_t conn, std::unique_ptr<Luggage> from)
    : Session(shard, SessionKind::kClient, from->cid, conn, std::move(from->ip), from->port) {
  from->server = nullptr;
  if (from->has_account) account = &shard.account(from->account);
  counted_ = from->counted;
  if (counted_) ++account->connections;
  echo = from->echo;
  headers = from->headers;
  no_responders = from->no_responders;
  permissions = std::move(from->permissions);
  traffic = from->traffic;
  stalls = from->stalls;
  heading = std::move(from->heading);
  start_wall_ns_ = from->start_wall_ns;
  start_ns_ = from->start_ns;
  last_activity_ns_ = from->last_activity_ns;
  parser_ = std::move(from->parser);
  connected_ = std::move(from->connected);
  gateway_replies_ = std::move(from->gateway_replies);
  verbose_ = from->verbose;
  pedantic_ = from->pedantic;
  connect_received_ = from->connect_received;
  authenticated_ = from->authenticated;
  first_pong_sent_ = from->first_pong_sent;
  pings_out_ = from->pings_out;
  protocol_ = from->protocol;
  info_serial_ = from->info_serial;
  ping_due_ns_ = from->ping_due_ns;
  ping_sent_ns_ = from->ping_sent_ns;
  last_in_ns_ = from->last_in_ns;
  rtt_ns_ = from->rtt_ns;
  rtt_at_ns_ = from->rtt_at_ns;
}

void ClientSession::arrived() {
  arm_timer();
  // What this shard's clients were told while it was on its way.
  if (info_serial_ != shard.server().info_serial()) announce_info();
}

}  // namespace peregrine::core
