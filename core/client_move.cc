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
  if (counted_) --account->connections;
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
  to->state = std::move(static_cast<ClientState&>(*this));
  return to;
}

ClientSession::ClientSession(Shard& shard, uint32_t conn, std::unique_ptr<Luggage> from)
    : Session(shard, SessionKind::kClient, from->cid, conn, std::move(from->ip), from->port),
      ClientState(std::move(from->state)) {
  from->server = nullptr;
  if (from->has_account) account = &shard.account(from->account);
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
}

void ClientSession::arrived() {
  arm_timer();
  // What this shard's clients were told while it was on its way.
  if (info_serial_ != shard.server().info_serial()) announce_info();
}

}  // namespace peregrine::core
