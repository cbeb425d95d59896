// The half of a route session that works once it is registered: interest and messages, both ways.
#include <algorithm>
#include <charconv>
#include <utility>

#include "cluster/gateways.h"
#include "cluster/mesh.h"
#include "cluster/route_session.h"
#include "core/gateway_reply.h"
#include "core/go_format.h"
#include "core/run.h"
#include "core/shard.h"
#include "core/subject.h"

namespace peregrine::cluster {
namespace {

using core::CloseReason;
using core::Side;

constexpr size_t kOriginsKept = 10'000;
constexpr size_t kUnknownAccountsSaid = 64;  // how many are named in the log, per connection

// At most nine digits, as sizes everywhere in the protocol; -1 if it is not that.
int64_t parse_number(std::string_view text) {
  if (text.empty() || text.size() > 9) return -1;
  int64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return -1;
    value = value * 10 + (c - '0');
  }
  return value;
}

void append_number(std::string& to, uint64_t number) {
  char digits[20];
  to.append(digits, std::to_chars(digits, digits + sizeof(digits), number).ptr);
}

}  // namespace

bool RouteSession::carries(std::string_view account) const {
  if (!origin_.account.empty()) return account == origin_.account;
  if (no_pool_) return true;
  const RouteSettings& settings = mesh_.settings();
  return !settings.pinned(account) &&
         RouteSettings::pool_index(account, settings.pool_size(remote_.shards)) == pool_index_ &&
         std::find(given_up_.begin(), given_up_.end(), account) == given_up_.end();
}

core::Account* RouteSession::find_account(std::string_view name) {
  if (name == account_name_ && account_ != nullptr) [[likely]]
    return account_;
  if (!mesh_.settings().knows(name)) {
    if (unknown_accounts_.size() < kUnknownAccountsSaid &&
        std::find(unknown_accounts_.begin(), unknown_accounts_.end(), name) == unknown_accounts_.end()) {
      unknown_accounts_.emplace_back(name);
      shard.server().log.debug("{} - Unknown account {}: nobody here is in it", label(), core::quote(name));
    }
    return nullptr;
  }
  account_ = shard.find_or_make_account(name);
  account_name_ = name;
  return account_;
}

core::OriginId RouteSession::origin_of(std::string_view cluster) {
  const core::OriginId id = shard.server().origin_id(cluster);
  if (id == std::exchange(last_origin_, id)) return id;
  if (origins_.size() < kOriginsKept) origins_.try_emplace(id, cluster);
  return id;
}

void RouteSession::give_up_account(const std::string& account) {
  given_up_.push_back(account);
  carried_.clear();
  core::Account* gone = find_account(account);
  if (gone == nullptr) return;
  // Rare, and bounded by what the account has here: told in one piece.
  const std::deque<core::Subscription*> all = interest();
  for (core::Subscription* sub : all) {
    if (sub->peer_place().account == gone->number) shard.remove_subscription(*sub);
  }
}

// ---------------------------------------------------------------------------------------------------- interest in

// RS+ [account] subject [queue weight]; LS+ the same behind the leafnode cluster it stands for.
void RouteSession::on_sub(const PeerOperation& operation, bool leaf) {
  count_interest();
  auto tokens = operation.tokens;
  std::string_view origin;
  if (leaf) {
    if (tokens.empty()) return protocol_violation(operation.text);
    origin = tokens[0];
    tokens = tokens.subspan(1);
  }
  std::string_view name = origin_.account;
  if (name.empty()) {
    if (tokens.empty()) return protocol_violation(operation.text);
    name = tokens[0];
    tokens = tokens.subspan(1);
  }
  if (tokens.size() != 1 && tokens.size() != 3) return protocol_violation(operation.text);
  const std::string_view subject = tokens[0];
  const std::string_view queue = tokens.size() == 3 ? tokens[1] : std::string_view();
  // nats-server does not mind a weight that is none.
  const int64_t weight = queue.empty() ? 1 : std::max<int64_t>(parse_number(tokens[2]), 1);

  core::Account* account = find_account(name);
  if (account == nullptr) return;
  if (!given_up_.empty() && std::find(given_up_.begin(), given_up_.end(), name) != given_up_.end()) return;
  if (permissions != nullptr && !permissions->permissions->can_subscribe(subject, {})) {
    shard.server().log.debug("{} - Can not export {}, ignoring remote subscription request", label(),
                             core::quote(subject));
    return;
  }
  if (!core::is_valid_subject(subject)) {
    shard.server().log.error("{} - Could not insert subscription: invalid subject {}", label(), core::quote(subject));
    return send_error("Invalid Subscription");
  }
  if (!may_want_more(*account)) return;
  const Side side = leaf ? Side::kRoutedLeafs : Side::kRoutes;
  // Old servers take an LS+ back without saying whose it was.
  const core::OriginId origin_id = leaf && lnocu_ ? origin_of(origin) : core::kNoOrigin;
  shard.add_peer_interest(*this, *account, side, subject, queue, static_cast<uint32_t>(weight), origin_id);
}

// RS- [account] subject [queue]; LS- behind the origin if the peer says origins there, else as old servers do.
void RouteSession::on_unsub(const PeerOperation& operation, bool leaf) {
  count_interest();
  auto tokens = operation.tokens;
  std::string_view origin;
  const size_t fixed = (leaf && lnocu_ ? 1 : 0) + (origin_.account.empty() ? 1 : 0) + 1;
  if (tokens.size() != fixed && tokens.size() != fixed + 1) return protocol_violation(operation.text);
  if (leaf && lnocu_) {
    origin = tokens[0];
    tokens = tokens.subspan(1);
  }
  std::string_view name = origin_.account;
  if (name.empty()) {
    name = tokens[0];
    tokens = tokens.subspan(1);
  }
  core::Account* account = find_account(name);
  if (account == nullptr) return;
  const std::string_view subject = tokens[0];
  const std::string_view queue = tokens.size() == 2 ? tokens[1] : std::string_view();
  const core::OriginId origin_id = leaf && lnocu_ ? shard.server().origin_id(origin) : core::kNoOrigin;
  shard.remove_peer_interest(*this, *account, leaf ? Side::kRoutedLeafs : Side::kRoutes, subject, queue, origin_id);
}

// ---------------------------------------------------------------------------------------------------- messages in

// RMSG [account] subject [reply], or with queue groups [account] subject + reply queue... and [account] subject |
// queue... HMSG the same with headers; LMSG with the origin cluster in front and the size of the headers always there.
void RouteSession::on_message(const PeerOperation& operation) {
  auto tokens = operation.tokens;
  core::Message message;
  message.payload = operation.payload;
  message.header_size = operation.header_size;
  if (operation.verb == PeerVerb::kLeafMessage) {
    const int64_t header_size = tokens.size() < 2 ? -1 : parse_number(tokens.back());
    if (header_size < 0 || static_cast<size_t>(header_size) > operation.payload.size())
      return protocol_violation(operation.text);
    message.header_size = static_cast<uint32_t>(header_size);
    message.origin = tokens.front();
    message.origin_id = shard.server().origin_id(message.origin);
    tokens = tokens.subspan(1, tokens.size() - 2);
  }
  std::string_view name = origin_.account;
  if (name.empty()) {
    if (tokens.empty()) return protocol_violation(operation.text);
    name = tokens[0];
    tokens = tokens.subspan(1);
  }
  if (tokens.empty()) return protocol_violation(operation.text);
  message.subject = tokens[0];
  if (!read_receivers(tokens.subspan(1), message)) return protocol_violation(operation.text);
  core::Account* account = find_account(name);
  const bool plain = operation.verb == PeerVerb::kRoutedMessage && tokens.size() == 1;
  if (plain && account != nullptr && opens_run(operation, *account, message.subject)) return;
  const size_t size = message.payload.size();
  ++traffic.in_msgs;
  traffic.in_bytes += size;
  shard.count_peer_messages(1, size);
  if (account == nullptr) return;
  message.from = this;
  message.source = core::SessionKind::kRoute;
  message.all_queues = false;
  if (mesh_.gateways != nullptr && core::is_gateway_reply(message.subject)) [[unlikely]] {
    deliver_gateway_reply(mesh_.gateways->settings(), *this, *account, message);
    return;
  }
  shard.delivery().publish(*account, message);
}

bool RouteSession::continues_run(const PeerOperation& operation) {
  return adds_to_run(operation, PeerVerb::kRoutedMessage, origin_.account.empty() ? 2 : 1);
}

// ---------------------------------------------------------------------------------------------------- our interest out

core::SideSet RouteSession::listens_to() const { return core::told(core::SessionKind::kRoute); }

bool RouteSession::listens_to(const core::Account& account) const {
  if (account.number >= carried_.size()) carried_.resize(account.number + 1);
  int8_t& known = carried_[account.number];
  if (known == 0) known = carries(account.name) ? 1 : -1;
  return known > 0;
}

bool RouteSession::ready_for_replay() const { return outbox.pending() < kReplayPending; }

// What leafnodes of a cluster want is told for each cluster by itself (LS+, LS-), so that a message is not sent back to
// it by way of the other server, and a queue group prefers clients to leafnodes there, too. Servers that say no origin
// when they take it back (before 2.10) are told as if it were our own.
void RouteSession::interest_changed(core::Account& account, Side side, std::string_view subject, std::string_view queue,
                                    core::OriginId origin) {
  if (closing()) return;
  if (permissions != nullptr && !permissions->permissions->can_publish(subject)) return;
  const core::KeyedHash& hash = shard.sid_hash();
  uint64_t key = hash.combine(hash(subject, account.number), queue.empty() ? 0 : hash(queue, 1));
  if (lnoc_ && lnocu_ && side == Side::kLeafs && origin != core::kNoOrigin) {
    const uint32_t weight = account.interest_of_origin(subject, queue, origin);
    key = hash.combine(key, origin);
    if (told_.exchange(key, weight) == weight && (weight == 0 || !telling_again_)) return;
    tell(account, weight != 0 ? "LS+ " : "LS- ", shard.server().origin_name(origin), subject, queue, weight);
    return;
  }
  uint32_t weight = 0;
  if (lnoc_ && lnocu_) {
    weight = account.interest(core::kClientsOnly, subject, queue, this) +
             account.interest_of_origin(subject, queue, core::kNoOrigin);
    if (queue.empty()) weight = std::min(weight, 1u);
  } else {
    weight = account.interest(listens_to(), subject, queue, this);
  }
  if (told_.exchange(key, weight) == weight && (weight == 0 || !telling_again_)) return;
  tell(account, weight != 0 ? "RS+ " : "RS- ", {}, subject, queue, weight);
}

void RouteSession::tell(const core::Account& account, std::string_view verb, std::string_view origin,
                        std::string_view subject, std::string_view queue, uint32_t weight) {
  const size_t at_most = verb.size() + origin.size() + account.name.size() + subject.size() + queue.size() + 16;
  if (at_most > core::BufferPool::kLargeChunk) return;  // longer than any line a peer would take
  char* const start = outbox.reserve(at_most);
  char* at = core::put(start, verb);
  if (!origin.empty()) at = core::put(core::put(at, origin), " ");
  if (origin_.account.empty()) at = core::put(core::put(at, account.name), " ");
  at = core::put(at, subject);
  if (!queue.empty()) {
    at = core::put(core::put(at, " "), queue);
    if (weight != 0) at = std::to_chars(core::put(at, " "), start + at_most, weight).ptr;
  }
  at = core::put(at, core::kCrLf);
  if (shard.tracing()) [[unlikely]]
    shard.trace(*this, "->>", std::string_view(start, static_cast<size_t>(at - start) - core::kCrLf.size()));
  outbox.commit(static_cast<size_t>(at - start));
  shard.mark_dirty(*this);
}

// ---------------------------------------------------------------------------------------------------- messages out

bool RouteSession::accepts(const core::Message& message, const core::Subscription& sub) {
  if (permissions != nullptr) {
    const core::Sublist& side = shard.account(sub.peer_place().account).side(sub.side);
    if (permissions->permissions->denied(message.subject, side.queue_of(sub))) return false;
  }
  // Never back to the leafnode cluster it came from.
  return message.origin_id == core::kNoOrigin || sub.origin() != message.origin_id;
}

void RouteSession::message_line(std::string& line, const core::Account& account, const core::Message& message,
                                const core::PeerTarget& target) {
  const bool with_headers = headers && message.header_size != 0;
  const bool with_origin = lnoc_ && message.source == core::SessionKind::kLeaf && !message.origin.empty();
  if (with_origin) line.append("LMSG ").append(message.origin).push_back(' ');
  else line.append(with_headers ? "HMSG " : "RMSG ");
  if (origin_.account.empty()) line.append(account.name).push_back(' ');
  line.append(message.subject).push_back(' ');
  if (!target.queues.empty()) {
    if (message.reply.empty()) line.append("| ");
    else line.append("+ ").append(message.reply).push_back(' ');
    for (const std::string_view queue : target.queues) line.append(queue).push_back(' ');
  } else if (!message.reply.empty()) {
    line.append(message.reply).push_back(' ');
  }
  if (with_headers || with_origin) {
    append_number(line, with_headers ? message.header_size : 0);
    line.push_back(' ');
  }
  append_number(line, message.payload.size() - (with_headers ? 0 : message.header_size));
  line.append(core::kCrLf);
}

}  // namespace peregrine::cluster
