#include "core/placement.h"

#include <algorithm>
#include <utility>

#include "core/client_luggage.h"
#include "core/client_session.h"
#include "core/shard.h"

namespace peregrine::core {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr uint32_t kBusyPermille = 500, kOverloadedPermille = 900;

}  // namespace

void Placement::start_over(Session& session, uint32_t target, uint64_t messages, uint64_t bytes) {
  Heading& heading = *session.heading;
  heading.target = target;
  heading.messages = messages;
  heading.bytes = bytes;
  heading.from_messages = session.traffic.in_msgs - messages;
  heading.from_bytes = session.traffic.in_bytes - bytes;
  heading.rate_messages = 0;
  heading.rate_from_ns = shard_.now_ns();
}

void Placement::crossed(Session& session, uint32_t target, uint64_t messages, uint64_t bytes) {
  if (session.heading == nullptr) session.heading = std::make_unique<Heading>();
  Heading& heading = *session.heading;
  if (heading.target == target) {
    heading.messages += messages;
    heading.bytes += bytes;
  } else {
    // Somewhere else, now and then, is no reason to forget.
    if (session.traffic.in_msgs - heading.from_messages <= 2 * heading.messages) return;
    start_over(session, target, messages, bytes);
  }
  if (heading.messages >= settings.messages || heading.bytes >= settings.bytes) [[unlikely]]
    consider(session);
}

void Placement::consider(Session& session) {
  Heading& heading = *session.heading;
  // The next look is about what comes from now on.
  const uint64_t messages = std::exchange(heading.messages, 0), bytes = std::exchange(heading.bytes, 0);
  const uint64_t of_messages = session.traffic.in_msgs - std::exchange(heading.from_messages, session.traffic.in_msgs);
  const uint64_t of_bytes = session.traffic.in_bytes - std::exchange(heading.from_bytes, session.traffic.in_bytes);
  heading.rate_messages += messages;
  const bool most = 4 * messages >= 3 * of_messages || (4 * bytes >= 3 * of_bytes && 2 * messages >= of_messages);
  if (!most || session.kind != SessionKind::kClient) return;
  auto& client = static_cast<ClientSession&>(session);
  if (free_to_move(client, shard_.now_ns()) && is_welcome(session)) begin(client, heading.target);
}

bool Placement::free_to_move(const ClientSession& session, int64_t now_ns) const {
  return moving_ == nullptr && !stopped_ && now_ns >= next_ns_ && now_ns >= session.heading->not_before_ns &&
         carrier_ != nullptr && carrier_->can_carry() && session.can_move();
}

void Placement::begin(ClientSession& session, uint32_t target) {
  moving_ = &session;
  target_ = target;
  until_ns_ = shard_.now_ns() + settings.patience_ns;
  fenced_ = false;
  session.hold(kHoldMoving);
}

bool Placement::is_welcome(Session& session) const {
  Heading& heading = *session.heading;
  const int64_t now = shard_.now_ns();
  const Load::Seen there = shard_.server().shards[heading.target]->load().look(now);
  if (there.permille < kBusyPermille) return true;
  const int64_t over = now - heading.rate_from_ns;
  if (over < settings.rate_ns) return false;
  const auto rate = static_cast<double>(heading.rate_messages) * 1e6 / static_cast<double>(over);
  heading.rate_messages = 0;
  heading.rate_from_ns = now;
  return 2 * rate >= there.messages;
}

uint32_t Placement::idlest(int64_t now_ns) const {
  const std::vector<Shard*>& shards = shard_.server().shards;
  uint32_t best = shard_.index(), least = kBusyPermille;
  for (uint32_t n = 0; n < shards.size(); ++n) {
    const uint32_t permille = n == shard_.index() ? UINT32_MAX : shards[n]->load().look(now_ns).permille;
    if (permille >= least) continue;
    best = n;
    least = permille;
  }
  return best;
}

void Placement::judge(int64_t now_ns) {
  look_at_ns_ = now_ns + settings.window_ns;
  ClientSession* const candidate = std::exchange(candidate_, nullptr);
  candidate_messages_ = most_ = 0;
  const int64_t looked_ns = std::exchange(looked_ns_, 0);
  const Load::Seen own = shard_.load().look(now_ns);
  if (own.permille < kOverloadedPermille || stopped_ || carrier_ == nullptr || !carrier_->can_carry()) return;
  // Who shares its core with others is not helped by more work elsewhere on this machine.
  const int64_t core_ns = carrier_->core_time_ns(), had_ns = core_ns - std::exchange(looked_core_ns_, core_ns);
  looked_ns_ = now_ns;
  if (looked_ns == 0 || had_ns * 1000 < kOverloadedPermille * (now_ns - looked_ns)) return;
  const uint32_t target = idlest(now_ns);
  if (target == shard_.index()) return;
  if (candidate != nullptr && free_to_move(*candidate, now_ns)) {
    begin(*candidate, target);
    return;
  }
  ++window_;
  most_ = std::max<uint64_t>(own.messages * static_cast<uint64_t>(settings.window_ns) / 2'000'000, 1);
}

void Placement::fed(ClientSession& session) {
  if (session.heading == nullptr) session.heading = std::make_unique<Heading>();
  Heading& heading = *session.heading;
  if (heading.window != window_) {
    heading.window = window_;
    heading.window_messages = session.traffic.in_msgs;
    return;
  }
  const uint64_t messages = session.traffic.in_msgs - heading.window_messages;
  if (messages > most_) {
    if (candidate_ != &session) return;
    candidate_ = nullptr;
    candidate_messages_ = 0;
  } else if (messages > candidate_messages_ && free_to_move(session, shard_.now_ns())) {
    candidate_ = &session;
    candidate_messages_ = messages;
  }
}

// It stays, for now, and is read from again.
void Placement::give_up() {
  ClientSession& session = *std::exchange(moving_, nullptr);
  session.heading->not_before_ns = shard_.now_ns() + kSecondNs;
  session.unhold(kHoldMoving);
}

void Placement::forget(Session& session) {
  if (moving_ == &session) moving_ = nullptr;
  if (candidate_ == &session) candidate_ = nullptr;
}

void Placement::stop() {
  stopped_ = true;
  if (moving_ != nullptr) give_up();
}

bool Placement::step() {
  if (moving_ == nullptr) return false;
  ClientSession& session = *moving_;
  if (session.closing()) {
    moving_ = nullptr;
    return false;
  }
  if (!session.can_move() || shard_.now_ns() > until_ns_) {
    give_up();
    return false;
  }
  // What was received before the pause comes still, and may cause more to cross.
  if (!fenced_ || session.traffic.in_msgs != fenced_messages_) set_fence();
  const bool quiet =
      !session.reading && !session.sending && session.nothing_to_send() && session.held_only_by(kHoldMoving);
  return quiet && fence_passed() && hand_over();
}

void Placement::set_fence() {
  fenced_ = shard_.delivery_positions(fence_);
  fenced_messages_ = moving_->traffic.in_msgs;
}

bool Placement::fence_passed() const { return !settings.fence || (fenced_ && shard_.deliveries_read(fence_)); }

bool Placement::hand_over() {
  Server& server = shard_.server();
  if (!server.standstill.begin_handover()) return false;
  std::unique_ptr<CarriedConnection> connection = carrier_->give(*moving_);
  const bool given = connection != nullptr;
  if (given) {
    ClientSession& session = *std::exchange(moving_, nullptr);
    Heading& heading = *session.heading;
    const int64_t now = shard_.now_ns();
    const bool calm = now > heading.not_before_ns + 4 * heading.rest_s * kSecondNs;
    heading.rest_s =
        heading.rest_s == 0 || calm ? settings.rest_s : std::min(2 * heading.rest_s, settings.rest_longest_s);
    heading.not_before_ns = now + heading.rest_s * kSecondNs;
    next_ns_ = now + settings.gap_ns;
    ++moved_out_;
    struct Parcel {
      std::unique_ptr<ClientSession::Luggage> luggage;
      std::unique_ptr<CarriedConnection> connection;
    };
    auto parcel = std::make_shared<Parcel>(session.pack(), std::move(connection));
    shard_.depart(session);
    server.shards[target_]->post([parcel = std::move(parcel)](Shard& there) {
      there.arrive(std::move(parcel->luggage), std::move(parcel->connection));
      return true;
    });
  }
  server.standstill.end_handover();
  return given;
}

}  // namespace peregrine::core
