#include "cluster/peer_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cluster/peer_info.h"
#include "cluster/peer_tls.h"
#include "core/delivery.h"
#include "core/go_format.h"
#include "core/hash.h"
#include "core/run.h"
#include "core/trace.h"

namespace peregrine::cluster {
namespace {

constexpr uint32_t kRestAfterRefusal = 32;  // messages, before a run is tried again

using core::CloseReason;
using core::SessionKind;

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kFirstPingNs = kSecondNs;

// What a kind of connection is called.
struct KindNames {
  std::string_view log, id;  // "Router - rid:7"
  std::string_view tls;      // its TLS handshake
};

constexpr KindNames names(SessionKind kind) {
  switch (kind) {
    case SessionKind::kRoute:
      return {"Router", "rid", "route"};
    case SessionKind::kGateway:
      return {"Gateway", "gid", "gateway"};
    case SessionKind::kLeaf:
    case SessionKind::kHub:
      return {"Leafnode", "lid", "leafnode"};
    case SessionKind::kClient:
      break;
  }
  return {"Client", "cid", "client"};
}

std::string_view verb_text(PeerVerb verb) {
  switch (verb) {
    case PeerVerb::kInfo:
      return "INFO";
    case PeerVerb::kConnect:
      return "CONNECT";
    case PeerVerb::kPing:
      return "PING";
    case PeerVerb::kPong:
      return "PONG";
    case PeerVerb::kOk:
      return "+OK";
    case PeerVerb::kErr:
      return "-ERR";
    case PeerVerb::kRoutedSub:
      return "RS+";
    case PeerVerb::kRoutedUnsub:
      return "RS-";
    case PeerVerb::kLeafSub:
      return "LS+";
    case PeerVerb::kLeafUnsub:
      return "LS-";
    case PeerVerb::kAccountSub:
      return "A+";
    case PeerVerb::kAccountUnsub:
      return "A-";
    case PeerVerb::kRoutedMessage:
      return "RMSG";
    case PeerVerb::kLeafMessage:
      return "LMSG";
    case PeerVerb::kHeaderMessage:
      return "HMSG";
  }
  return "";
}

}  // namespace

PeerLink::PeerLink(core::Shard& shard, SessionKind kind, net::Opened opened, const PeerClocks& clocks)
    : PeerSession(shard, kind, shard.server().next_cid(), opened.conn, std::move(opened.ip), opened.port),
      clocks_(clocks) {
  limits_.max_line = static_cast<size_t>(shard.server().options.max_control_line) * 16;
  if (clocks_.auth_timeout_ns > 0) auth_deadline_ns_ = start_ns_ + clocks_.auth_timeout_ns;
}

std::string PeerLink::label() const {
  const std::string_view id = names(kind).id;
  return ip().find(':') == std::string::npos ? fmt::format("{}:{} - {}:{}", ip(), port(), id, cid)
                                             : fmt::format("[{}]:{} - {}:{}", ip(), port(), id, cid);
}

void PeerLink::describe(core::ConnRow& row, bool) const {
  row.cid = cid;
  row.kind = names(kind).log;
  row.ip = ip();
  row.port = port();
  row.start_ns = start_wall_ns_;
  row.last_activity_ns = last_activity_ns_ + start_wall_ns_ - start_ns_;
  row.rtt_ns = rtt_ns_;
  row.pending_bytes = outbox.pending();
  row.traffic = traffic;
  row.stalls = stalls;
  row.subscriptions = subscription_count();
  row.name = remote_name_;
  if (filter() != nullptr) filter()->describe(row);
}

// ---------------------------------------------------------------------------------------------------- input

void PeerLink::feed(std::string_view in) {
  if (closing()) return;
  last_activity_ns_ = shard.now_ns();
  if (waiting()) {
    backlog_.append(in);
    return;
  }
  backlog_.append(work_on(in));
}

// Returns what it leaves for later.
std::string_view PeerLink::work_on(std::string_view in) {
  thinking_ = true;
  const std::string_view rest = think(in);
  thinking_ = false;
  shard.current_run().close();
  return rest;
}

std::string_view PeerLink::think(std::string_view in) {
  PeerOperation operation;
  core::Run& run = shard.current_run();
  for (;;) {
    if (awaits_connect_ && !in.empty() && parser_.between_operations()) [[unlikely]] {
      if (in.front() != 'C' && in.front() != 'c') {
        auth_violation({});
        return {};
      }
    }
    if (run.is_open()) run.take_alike(in);
    const std::string_view before = in;
    const PeerStatus status = parser_.next(in, limits_, operation);
    rest_ = in;
    if (run.is_open()) {
      if (status == PeerStatus::kOperation && has_payload(operation.verb) && continues_run(operation)) continue;
      run.close();
      if (closing()) return {};
    }
    if (status == PeerStatus::kMore) {
      if (parser_.awaits_payload() && is_stranger()) auth_violation({});  // it is not kept for a stranger
      return {};
    }
    if (status != PeerStatus::kOperation) {
      parse_failed(status, before);
      return {};
    }
    if (shard.tracing()) [[unlikely]]
      trace_in(operation);
    awaits_connect_ = false;
    if (operation.verb <= PeerVerb::kErr && operation.verb >= PeerVerb::kPing && is_stranger()) [[unlikely]] {
      auth_violation({});
      return {};
    }
    switch (operation.verb) {
      case PeerVerb::kPing:
        send_line(core::kPong);
        break;
      case PeerVerb::kPong:
        pings_out_ = 0;
        if (ping_sent_ns_ != 0) rtt_ns_ = std::max<int64_t>(shard.now_ns() - ping_sent_ns_, 1);
        ping_sent_ns_ = 0;
        on_pong();
        break;
      case PeerVerb::kOk:
        break;
      case PeerVerb::kErr:
        on_error(operation.text);
        break;
      default:
        if (parser_.last_was_gathered() && operation.payload.size() >= core::BufferPool::kReferFrom) {
          core::BufferPool& pool = shard.pool();
          const core::BufferPool::Reading before = pool.begin_gathered(parser_.take_gathered());
          on_operation(operation);
          pool.end_gathered(before);
        } else {
          on_operation(operation);
        }
    }
    if (closing()) return {};
    if (switched_ != nullptr) [[unlikely]] {
      core::Filter* to = std::exchange(switched_, nullptr);
      if (!in.empty()) {
        std::string decoded;  // `in` may lie in what was decoded before
        const bool good = to->decode(in, decoded);
        if (closing()) return {};
        if (!good) {
          shard.server().log.error("{} - {}", label(), to->error());
          close(CloseReason::kReadError);
          return {};
        }
        decoded_ = std::move(decoded);
        in = decoded_;
      }
    }
    if (enough_interest_) {
      enough_interest_ = false;
      if (!waiting() && !in.empty()) shard.wait_for_turn(*this);
    }
    if (waiting()) return in;
  }
}

bool PeerLink::lies_whole(const PeerOperation& operation) const {
  return !parser_.last_was_split() && operation.payload.data() + operation.payload.size() + 2 == rest_.data();
}

bool PeerLink::repeats(const PeerOperation& operation, size_t alike) const {
  return rest_.size() > alike && core::same_bytes(rest_.data(), line_of(operation), alike);
}

bool PeerLink::opens_run(const PeerOperation& operation, core::Account& account, std::string_view subject,
                         core::SideSet sides) {
  if (singly_ > 0) {
    --singly_;
    return false;
  }
  if (shard.tracing() || !lies_whole(operation) || subject.front() == '$' || subject.front() == '_') return false;
  const char* const line = line_of(operation);
  const std::string_view prefix(line, static_cast<size_t>(subject.data() - line));
  if (!prefix.substr(1).starts_with("MSG ") || !repeats(operation, prefix.size() + subject.size() + 1)) return false;
  core::Operation message;
  message.kind = core::Operation::Kind::kPub;
  message.subject = subject;
  message.payload = operation.payload;
  if (shard.current_run().open(this, account, message, prefix, sides)) return true;
  singly_ = kRestAfterRefusal;
  return false;
}

bool PeerLink::adds_to_run(const PeerOperation& operation, PeerVerb verb, size_t tokens) {
  if (operation.verb != verb || operation.tokens.size() != tokens || !lies_whole(operation)) return false;
  core::Operation message;
  message.kind = core::Operation::Kind::kPub;
  message.subject = operation.tokens.back();
  message.payload = operation.payload;
  return shard.current_run().add(message);
}

void PeerLink::wait_for_answer() { hold(core::kHoldPeer); }

void PeerLink::go_on() {
  unhold(core::kHoldPeer);
  if (!waiting()) take_up();
}

void PeerLink::take_up() {
  if (waiting() || closing()) return;
  std::string in;
  in.swap(backlog_);
  const std::string_view rest = work_on(std::string_view(in).substr(backlog_at_));
  backlog_at_ = 0;
  if (rest.empty()) return;
  // A long list is worked on where it lies, slice by slice.
  if (rest.end() == in.data() + in.size()) {
    backlog_at_ = in.size() - rest.size();
    backlog_ = std::move(in);
  } else {
    backlog_ = rest;
  }
}

void PeerLink::switch_to(std::unique_ptr<core::Filter> filter) {
  if (thinking_) switched_ = filter.get();
  set_filter(std::move(filter));
}

// ---------------------------------------------------------------------------------------------------- TLS

void PeerLink::start_tls(std::shared_ptr<const net::tls::Context> context, std::string server) {
  shard.server().log.debug("{} - Starting TLS {} {} handshake", label(), names(kind).tls,
                           server.empty() ? "server" : "client");
  tls_deadline_ns_ = shard.now_ns() + context->timeout_ns();
  auth_deadline_ns_ = INT64_MAX;
  arm_timer();
  auto filter = std::make_unique<net::tls::Filter>(&shard.pool(), std::move(context), std::move(server),
                                                   static_cast<net::tls::Owner&>(*this));
  tls_ = filter.get();
  switch_to(std::move(filter));
  tls_->begin();
  shard.mark_dirty(*this);
}

void PeerLink::send_in_clear(std::string_view line) {
  if (shard.tracing()) shard.trace(*this, "->>", line.substr(0, line.size() - 2));
  tls_->wire.append_line(line);
  shard.mark_dirty(*this);
}

void PeerLink::tls_established() {
  tls_deadline_ns_ = INT64_MAX;
  if (clocks_.auth_timeout_ns > 0) auth_deadline_ns_ = shard.now_ns() + clocks_.auth_timeout_ns;
  arm_timer();
  shard.server().log.debug("{} - TLS handshake complete", label());
  shard.server().log.debug("{} - TLS version {}, cipher suite {}", label(), tls_->version(), tls_->cipher_suite());
  if (!closing()) on_secured();
}

void PeerLink::tls_failed(const net::tls::Failure& failure) {
  tls_deadline_ns_ = INT64_MAX;
  if (closing()) return;
  // Leafnode ports are looked at by load balancers and their like.
  const bool probe = kind == SessionKind::kLeaf && tls_->accepts() && failure.kind == net::tls::Failure::Kind::kNotTls;
  shard.server().log.log(probe ? core::LogLevel::kDebug : core::LogLevel::kError, "{} - TLS {} handshake error: {}",
                         label(), names(kind).tls, failure.text);
  if (failure.kind == net::tls::Failure::Kind::kWrongName) on_wrong_name();
  close(CloseReason::kTlsHandshakeError);
}

// What came before is still to be thought about.
void PeerLink::tls_ended() {
  ended_ns_ = shard.now_ns();
  arm_timer();
}

// ---------------------------------------------------------------------------------------------------- refusals

void PeerLink::parse_failed(PeerStatus status, std::string_view rest) {
  core::Log& log = shard.server().log;
  if (is_stranger()) return auth_violation({});
  switch (status) {
    case PeerStatus::kUnknown:
      return unknown_operation(rest);
    case PeerStatus::kLine:
      log.error("{} - maximum control line exceeded", label());
      send_error(core::error_text::kMaxControlLine);
      return close(CloseReason::kMaxControlLine);
    case PeerStatus::kMaxPayload:
      log.error("{} - maximum payload exceeded", label());
      send_error(core::error_text::kMaxPayload);
      return close(CloseReason::kMaxPayload);
    default:
      return protocol_violation("message arguments");
  }
}

bool PeerLink::read_receivers(std::span<const std::string_view> tokens, core::Message& message) {
  if (tokens.size() == 1) message.reply = tokens[0];
  if (tokens.size() < 2) return true;
  const bool with_reply = tokens[0] == "+";
  if (!with_reply && tokens[0] != "|") return false;
  if (with_reply) message.reply = tokens[1];
  message.queues = tokens.subspan(with_reply ? 2 : 1);
  return true;
}

std::string PeerLink::input_of(const PeerOperation& operation) {
  return std::string(verb_text(operation.verb)).append(" ").append(operation.text).append(core::kCrLf);
}

void PeerLink::unknown_operation(std::string_view input) {
  shard.server().log.error("{} - {} parser ERROR, state=0, i=0: proto='{}...'", label(), names(kind).log,
                           core::quote(input.substr(0, std::min<size_t>(32, input.find('\n')))));
  send_error(core::error_text::kUnknownProtocolOperation);
  close(CloseReason::kProtocolViolation);
}

void PeerLink::auth_violation(std::string_view user) {
  core::Log& log = shard.server().log;
  if (user.empty()) log.error("{} - authentication error", label());
  else log.error("{} - authentication error - User {}", label(), core::quote(user));
  send_error(core::error_text::kAuthorizationViolation);
  close(CloseReason::kAuthenticationFailure);
}

bool PeerLink::shows_certificate_of(const std::vector<config::Url>& urls) const {
  return tls_ != nullptr && names_host_of(tls_->peer_names(), urls);
}

void PeerLink::protocol_violation(std::string_view what) {
  shard.server().log.error("{} - Parse Error: {}", label(), core::quote(what.substr(0, 256)));
  close(CloseReason::kProtocolViolation);
}

bool PeerLink::may_want_more(const core::Account& account) {
  const auto most = static_cast<size_t>(shard.server().options.native.max_peer_subscriptions);
  if (interest_in(account.number) < most) return true;
  shard.server().log.error("{} - {}: {} of account {}", label(), core::error_text::kMaxSubscriptions, most,
                           core::quote(account.name));
  send_error(core::error_text::kMaxSubscriptions);
  close(CloseReason::kMaxSubscriptions);
  return false;
}

void PeerLink::on_error(std::string_view text) {
  log_error_of_peer(text);
  close(CloseReason::kParseError);
}

void PeerLink::log_error_of_peer(std::string_view text) {
  shard.server().log.error("{} - {} Error {}", label(), error_word(), core::printable(text.substr(0, 1024)));
}

void PeerLink::fail(std::string_view text, CloseReason reason) {
  shard.server().log.error("{} - {}", label(), text);
  if (shard.tracing()) shard.trace(*this, "->>", fmt::format("-ERR {}", text));
  send_error(text);
  close(reason);
}

void PeerLink::send_line(std::string_view line) {
  if (shard.tracing()) [[unlikely]]
    shard.trace(*this, "->>",
                line.starts_with("CONNECT ") ? "CONNECT " + redact(line.substr(8))
                                             : std::string(line.substr(0, line.size() - 2)));
  send(line);
}

void PeerLink::trace_in(const PeerOperation& operation) {
  std::string text(verb_text(operation.verb));
  if (operation.verb == PeerVerb::kConnect) text += " " + redact(operation.text);
  else if (!operation.text.empty()) text.append(" ").append(operation.text);
  shard.trace(*this, "<<-", text);
  if (!has_payload(operation.verb)) return;
  core::trace_payload(shard, *this, "<<-", operation.payload, operation.header_size);
}

// ---------------------------------------------------------------------------------------------------- clocks

void PeerLink::watch_handshake() {
  if (clocks_.ping_interval_ns == 0) return;
  handshake_deadline_ns_ = shard.now_ns() + clocks_.ping_interval_ns * (clocks_.ping_max + 1);
  arm_timer();
}

void PeerLink::start_pings() {
  handshake_deadline_ns_ = INT64_MAX;
  if (clocks_.ping_interval_ns > 0) {
    const int64_t first = std::min(kFirstPingNs, clocks_.ping_interval_ns);
    const auto jitter = static_cast<int64_t>(shard.random().below(static_cast<uint64_t>(first / 5 + 1)));
    ping_due_ns_ = shard.now_ns() + first + jitter;
  }
  arm_timer();
}

void PeerLink::ping_now() {
  ++pings_out_;
  ping_sent_ns_ = shard.now_ns();
  send_line(core::kPing);
}

void PeerLink::credentials_accepted() {
  auth_deadline_ns_ = INT64_MAX;
  arm_timer();
}

void PeerLink::arm_timer() {
  int64_t at = std::min({ping_due_ns_, auth_deadline_ns_, handshake_deadline_ns_, tls_deadline_ns_, ended_ns_});
  if (blocked_since_ns != 0 && clocks_.write_deadline_ns > 0)
    at = std::min(at, blocked_since_ns + clocks_.write_deadline_ns);
  if (at == INT64_MAX) return timer_.cancel();
  shard.timers().arm(timer_, at, this, [](void* self) { static_cast<PeerLink*>(self)->on_timer(); });
}

void PeerLink::on_timer() {
  if (closing()) return;
  const int64_t now = shard.now_ns();
  core::Log& log = shard.server().log;
  if (now >= ended_ns_) return close(CloseReason::kClientClosed);
  if (now >= tls_deadline_ns_) {
    tls_deadline_ns_ = INT64_MAX;
    const bool probe = kind == SessionKind::kLeaf && tls_->accepts();
    log.log(probe ? core::LogLevel::kDebug : core::LogLevel::kError, "{} - TLS handshake timeout", label());
    return close(CloseReason::kTlsHandshakeError);
  }
  if (now >= auth_deadline_ns_) {
    log.debug("{} - {}", label(), core::error_text::kAuthenticationTimeout);
    send_error(core::error_text::kAuthenticationTimeout);
    return close(CloseReason::kAuthenticationTimeout);
  }
  if (now >= handshake_deadline_ns_) {
    log.debug("{} - Stale Client Connection - Closing", label());
    shard.count_stale(kind);
    send_error(core::error_text::kStaleConnection);
    return close(CloseReason::kStaleConnection);
  }
  const int64_t deadline = clocks_.write_deadline_ns;
  if (blocked_since_ns != 0 && deadline > 0 && now >= blocked_since_ns + deadline) {
    if (!slow_) shard.count_slow_consumer(kind);
    log.info("{} - Slow Consumer {}: WriteDeadline of {} exceeded with {} bytes pending", label(),
             slow_ ? "State" : "Detected", core::format_duration(deadline), outbox.pending());
    if (clocks_.close_on_write_deadline || !authenticated())
      return close(CloseReason::kSlowConsumerWriteDeadline, true);
    slow_ = true;
    blocked_since_ns = now;
  }
  if (now >= ping_due_ns_) {
    on_ping_due(now);
    if (closing()) return;
  }
  arm_timer();
}

void PeerLink::on_ping_due(int64_t now) {
  if (pings_out_ + 1 > clocks_.ping_max) {
    shard.server().log.debug("{} - Stale Client Connection - Closing", label());
    shard.count_stale(kind);
    send_error(core::error_text::kStaleConnection);
    return close(CloseReason::kStaleConnection);
  }
  ping_now();
  ping_due_ns_ = now + clocks_.ping_interval_ns;
}

// ---------------------------------------------------------------------------------------------------- the end

void PeerLink::on_detach() {
  CloseReason reason = close_reason();
  // The peer hung up in the middle of it.
  if (tls_deadline_ns_ != INT64_MAX && (reason == CloseReason::kClientClosed || reason == CloseReason::kReadError)) {
    shard.server().log.error("{} - TLS {} handshake error: EOF", label(), names(kind).tls);
    reason = CloseReason::kTlsHandshakeError;
  }
  shard.server().log.info("{} - {} connection closed: {}{}", label(), names(kind).log, core::text(reason),
                          closing_name().empty() ? "" : " - Remote: " + closing_name());
  backlog_ = {};
  on_going();
}

}  // namespace peregrine::cluster
