// What a client subscribes to, from its SUB to the end of its connection.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/client_session.h"
#include "core/go_format.h"
#include "core/shard.h"
#include "core/subject.h"

namespace peregrine::core {
namespace {

constexpr int64_t kLingerNs = 1'000'000'000;  // for a last -ERR to get out before the connection is cut
constexpr std::string_view kSystemQueue = "_sys_";

}  // namespace

inline void ClientSession::trace_removal(const Subscription& sub) const {
  if (shard.tracing()) [[unlikely]]
    trace_delsub(sub);
}

void ClientSession::trace_delsub(const Subscription& sub) const {
  shard.trace(*this, "<->", fmt::format("DELSUB {}", sub.sid()));
}

// SUB and UNSUB come in rows. Takes `operation`, and what follows it for as long as the parser sees at a glance that it
// is more of them. True: the rest of a long row is for another turn.
bool ClientSession::take_interest(std::string_view& in, const ParserLimits& limits, Operation& operation) {
  last_in_ns_ = last_activity_ns_;
  const auto& options = shard.server().options;
  const bool questions =
      permissions != nullptr || options.max_subscription_tokens > 0 || options.max_subscriptions > 0 || shard.tracing();
  do {
    if (operation.kind == Operation::Kind::kUnsub) on_unsub(operation);
    else if ((!questions && operation.queue.empty() && operation.sid.size() <= Subscription::kMaxSid) ||
             may_subscribe(operation))
      on_sub(operation);
    if (closing()) [[unlikely]]
      return false;
    if (shard.count_index_change() && !in.empty()) [[unlikely]] {
      shard.wait_for_turn(*this);
      return true;
    }
  } while (parser_.next_interest(in, limits, operation));
  return false;
}

// Whatever forbids it; then the client has been told.
bool ClientSession::may_subscribe(const Operation& operation) {
  if (shard.tracing()) {
    shard.trace(*this, "<<-",
                operation.queue.empty()
                    ? fmt::format("SUB {} {}", operation.subject, operation.sid)
                    : fmt::format("SUB {} {} {}", operation.subject, operation.queue, operation.sid));
  }
  const auto& options = shard.server().options;
  if (operation.sid.size() > Subscription::kMaxSid) {
    fail(ParseStatus::kBadArguments, operation);
    return false;
  }
  if ((permissions != nullptr && !permissions->permissions->can_subscribe(operation.subject, operation.queue)) ||
      operation.queue == kSystemQueue) {
    permission_violation("Subscription", operation.subject, operation.queue, operation.sid);
    return false;
  }
  if (options.max_subscription_tokens > 0 &&
      count_tokens(operation.subject) > static_cast<size_t>(options.max_subscription_tokens)) {
    refuse(fmt::format("Permissions Violation for Subscription to {}, too many tokens", quote(operation.subject)));
    shard.server().log.error("{} - Subscription Violation Too Many Tokens - Subject {}, SID {}", label(),
                             quote(operation.subject), operation.sid);
    return false;
  }
  if (options.max_subscriptions > 0 && sids_.size() >= static_cast<size_t>(options.max_subscriptions)) {
    shard.server().log.error("{} - {}", label(), error_text::kMaxSubscriptions);
    refuse(error_text::kMaxSubscriptions);
    return false;
  }
  return true;
}

[[gnu::always_inline]] inline void ClientSession::on_sub(const Operation& operation) {
  const KeyedHash& sid_hash = shard.sid_hash();
  if (const SidTable::Place place = sids_.locate(shard.subscriptions(), sid_hash, operation.sid); !place) {
    const SubjectForm form = form_of(operation.subject);
    if (form == SubjectForm::kInvalid) [[unlikely]]
      return refuse(error_text::kInvalidSubject);
    if (permissions != nullptr && permissions->permissions->needs_delivery_check(operation.subject, operation.queue)) {
      permissions->check_deliveries = true;
    }
    const Subscription* sub = form == SubjectForm::kLiteral && operation.queue.empty()
                                  ? shard.add_literal(*this, operation.sid, operation.subject)
                                  : shard.add_subscription(*this, operation.sid, operation.subject, operation.queue);
    sids_.insert(shard.subscriptions(), sid_hash, place, sub);
  }
  if (verbose_) answer(kOk);
}

[[gnu::always_inline]] inline void ClientSession::on_unsub(const Operation& operation) {
  if (shard.tracing()) [[unlikely]]
    trace_unsub(operation);
  if (verbose_) answer(kOk);
  const SidTable::Place place = sids_.locate(shard.subscriptions(), shard.sid_hash(), operation.sid);
  if (!place) return;
  Subscription& sub = *place.subscription;
  if (operation.max > 0 && static_cast<uint64_t>(operation.max) > sub.delivered) {
    shard.set_subscription_limit(sub, static_cast<uint64_t>(operation.max));
  } else {
    trace_removal(sub);
    sids_.erase(shard.sid_hash(), place);
    shard.remove_forgotten(sub);
  }
}

void ClientSession::trace_unsub(const Operation& operation) const {
  shard.trace(*this, "<<-",
              operation.max < 0 ? fmt::format("UNSUB {}", operation.sid)
                                : fmt::format("UNSUB {} {}", operation.sid, operation.max));
}

void ClientSession::forget(Subscription& sub) {
  trace_removal(sub);
  sids_.erase(shard.subscriptions(), shard.sid_hash(), &sub, closing());
}

bool ClientSession::detach_slice(size_t most) {
  timer_.cancel();
  std::array<Subscription*, Shard::kRemovedTogether> subs;
  while (most > 0) {
    const size_t n = sids_.some(shard.subscriptions(), subs.data(), std::min(most, subs.size()));
    if (n == 0) break;
    shard.remove_subscriptions({subs.data(), n});
    most -= n;
  }
  if (sids_.size() != 0) return false;
  shard.server().log.debug("{} - Client connection closed: {}", label(), text(close_reason()));
  if (!gone())
    shard.timers().arm(timer_, shard.now_ns() + kLingerNs, this,
                       [](void* self) { static_cast<ClientSession*>(self)->close(CloseReason::kClientClosed, true); });
  return true;
}

}  // namespace peregrine::core
