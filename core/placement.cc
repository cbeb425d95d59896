#include "core/placement.h"

#include <algorithm>
#include <utility>

#include "core/client_luggage.h"
#include "core/client_session.h"
#include "core/shard.h"

namespace peregrine::core {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr uint32_t kBusyPermille = 500;

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
  if (!most || moving_ != nullptr || carrier_ == nullptr || stopped_ || session.kind != SessionKind::kClient) return;
  const int64_t now = shard_.now_ns();
  if (now < next_ns_ || now < heading.not_before_ns) return;
  auto& client = static_cast<ClientSession&>(session);
  if (!client.can_move() || !carrier_->can_carry() || !is_welcome(session)) return;
  moving_ = &client;
  target_ = heading.target;
  until_ns_ = now + settings.patience_ns;
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

// It stays, for now, and is read from again.
void Placement::give_up() {
  ClientSession& session = *std::exchange(moving_, nullptr);
  session.heading->not_before_ns = shard_.now_ns() + kSecondNs;
  session.unhold(kHoldMoving);
}

void Placement::forget(Session& session) {
  if (moving_ == &session) moving_ = nullptr;
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
