#include "core/client_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/go_format.h"
#include "core/shard.h"
#include "core/subject.h"
#include "core/trace.h"

namespace peregrine::core {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kFirstPingNs = 2 * kSecondNs;
constexpr int64_t kRttMaxAgeNs = 3600 * kSecondNs;
constexpr uint32_t kRestAfterRefusal =
    64;  // what can not be a run (two queue groups, say) is not asked for each message
constexpr size_t kReferGatheredFrom = 8192;  // less is cheaper copied than kept
constexpr size_t kShownBytes = 32;           // of what the parser does not understand

// Subjects the server keeps for itself (parity.md 1.4-07).
constexpr std::string_view kRaft = "$NRG.";
constexpr std::string_view kServiceReply = "_R_.";
constexpr std::string_view kJetStreamAck = "$JS.ACK.";

bool is_reserved_reply(std::string_view reply) {
  return reply.starts_with(kServiceReply) || reply.starts_with(kJetStreamAck) ||
         (reply.starts_with(kGatewayReply) && reply.size() > kGatewayReply.size());
}

std::string_view verb_text(Operation::Kind kind) {
  switch (kind) {
    case Operation::Kind::kPub:
      return "PUB";
    case Operation::Kind::kHpub:
      return "HPUB";
    case Operation::Kind::kSub:
      return "SUB";
    case Operation::Kind::kUnsub:
      return "UNSUB";
    case Operation::Kind::kConnect:
      return "CONNECT";
    case Operation::Kind::kPing:
      return "PING";
    case Operation::Kind::kPong:
      return "PONG";
    case Operation::Kind::kOk:
      return "+OK";
    case Operation::Kind::kErr:
      return "-ERR";
    case Operation::Kind::kInfo:
      return "INFO";
  }
  return "";
}

std::string_view last_word(std::string_view text) {
  const size_t end = text.find_last_not_of(" \t") + 1;  // npos + 1 = 0
  return text.substr(0, end).substr(text.substr(0, end).find_last_of(" \t") + 1);
}

// Why arguments were refused, as far as nats-server says it; never what may hold a password.
std::string wrong_arguments(const Operation& operation, bool headers) {
  switch (operation.kind) {
    case Operation::Kind::kPub:
      return fmt::format("processPub Parse Error: {}", quote(operation.subject));
    case Operation::Kind::kHpub:
      if (!headers) return "message headers not supported";
      return fmt::format("processHeaderPub Parse Error: {}", quote(operation.subject));
    case Operation::Kind::kSub:
      return fmt::format("processSub Parse Error: {}", quote(operation.subject));
    case Operation::Kind::kUnsub:
      return fmt::format("processUnsub Parse Error: {}", quote(operation.subject));
    default:
      return fmt::format("Bad {} arguments", verb_text(operation.kind));
  }
}

// The operation lies in the same buffer as what follows it.
bool whole(const Operation& operation, std::string_view in) {
  return operation.payload.data() + operation.payload.size() + 2 == in.data();
}

// The next message is on the same subject, as far as can be seen at a glance.
bool continues(const Operation& operation, std::string_view in) {
  const size_t size = operation.subject.size();
  return in.size() > 4 + size && in[4 + size] == ' ' && same_bytes(in.data() + 4, operation.subject.data(), size);
}

}  // namespace

// An idle connection costs less than 1 KiB in all (bench: connections-10k), and this is most of it.
static_assert(sizeof(ClientSession) <= 640);

ClientSession::ClientSession(Shard& shard, uint64_t cid, uint32_t conn, std::string ip, uint16_t port)
    : Session(shard, SessionKind::kClient, cid, conn, std::move(ip), port) {}

ClientSession::~ClientSession() {
  if (packed_) return;
  if (counted_) --account->connections;
  shard.server().client_gone();
}

void ClientSession::start() {
  Server& server = shard.server();
  const bool admitted = server.admit_client();
  server.log.debug("{} - Client connection created", label());
  if (!server.auth.required()) {
    authenticated_ = true;
    bind({});
  }
  info_serial_ = server.info_serial();
  send(server.info_line(cid, ip(), {}));
  if (!admitted) {
    server.log.error("{} - {}", label(), error_text::kMaxConnections);
    refuse(error_text::kMaxConnections);
    close(CloseReason::kMaxConnections);
    return;
  }
  const int64_t first = std::min<int64_t>(kFirstPingNs, server.options.ping_interval.count());
  ping_due_ns_ = start_ns_ + first + static_cast<int64_t>(shard.random().below(static_cast<uint64_t>(first / 5 + 1)));
  arm_timer();
}

void ClientSession::bind(Identity identity) {
  Account& to = shard.account(kGlobalAccount);
  if (!counted_) {
    counted_ = true;
    ++to.connections;
    ++to.total_connections;
  }
  account = &to;
  permissions = identity.permissions == nullptr ? nullptr : std::make_unique<PermissionState>(identity.permissions);
  if (!identity.user.empty()) login().user = identity.user;
}

ParserLimits ClientSession::limits() const {
  const auto& options = shard.server().options;
  return {.max_control_line = static_cast<uint32_t>(options.max_control_line),
          .max_payload = options.max_payload,
          .headers = headers,
          .connect_first = !authenticated_};
}

void ClientSession::feed(std::string_view in) {
  if (closing()) return;
  last_activity_ns_ = shard.now_ns();
  if (shard.placement().relieving()) [[unlikely]]
    shard.placement().fed(*this);
  if (suspended_ || held_by(kHoldTurn)) return keep(in);
  keep(think(in));
  shard.current_run().close();
}

void ClientSession::keep(std::string_view rest) {
  if (rest.empty()) return;
  if (backlog_ == nullptr) backlog_ = std::make_unique<Backlog>();
  backlog_->bytes.append(rest);
}

void ClientSession::take_up() {
  if (suspended_ || closing() || backlog_ == nullptr) return;
  std::unique_ptr<Backlog> in = std::move(backlog_);
  const std::string_view rest = think(std::string_view(in->bytes).substr(in->at));
  shard.current_run().close();
  if (rest.empty()) return;
  // A long list is worked on where it lies, slice by slice.
  in->at = in->bytes.size() - rest.size();
  backlog_ = std::move(in);
}

// Returns what it leaves for later.
std::string_view ClientSession::think(std::string_view in) {
  ParserLimits limits = this->limits();
  Operation operation;
  Run& run = shard.current_run();
  uint32_t rest = 0;  // messages before the next try at a run
  for (;;) {
    bool was_run = false;
    if (run.is_open()) run.take_alike(in);
    ParseStatus status = parser_.next(in, limits, operation);
    if (run.is_open()) {
      if (status == ParseStatus::kOperation && operation.kind == Operation::Kind::kPub && whole(operation, in) &&
          run.add(operation)) {
        continue;
      }
      run.close();
      if (closing()) return {};
      was_run = true;
    }
    if (status == ParseStatus::kOperation && operation.kind == Operation::Kind::kPub && account != nullptr &&
        account->sublist.is_large() && !was_run && whole(operation, in) && !continues(operation, in)) {
      status = publish_ahead(in, limits, operation);
      if (closing()) return {};
    }
    if (status != ParseStatus::kOperation) {
      if (status == ParseStatus::kMore) return {};
      if (status == ParseStatus::kNotConnected && shard.server().auth.has_no_auth_user()) {
        // The connection becomes that user, then the verb is executed.
        const Auth::Plan plan = shard.server().auth.plan({});
        if (!plan.refused) {
          authenticated_ = true;
          bind(plan.identity);
          limits = this->limits();
          continue;
        }
      }
      fail(status, operation);
      return {};
    }
    switch (operation.kind) {
      case Operation::Kind::kPub:
      case Operation::Kind::kHpub:
        last_in_ns_ = last_activity_ns_;
        if (rest != 0) {
          --rest;
        } else if ((was_run || continues(operation, in)) && may_run(operation) && whole(operation, in)) {
          if (run.open(this, *account, operation)) continue;
          rest = kRestAfterRefusal;
        }
        if (operation.payload.size() >= kReferGatheredFrom && !whole(operation, in)) {
          BufferPool& pool = shard.pool();
          const BufferPool::Reading before = pool.begin_gathered(parser_.take_gathered());
          on_pub(operation);
          pool.end_gathered(before);
          break;
        }
        on_pub(operation);
        break;
      case Operation::Kind::kSub:
      case Operation::Kind::kUnsub:
        if (take_interest(in, limits, operation)) return in;
        break;
      case Operation::Kind::kPing:
        on_ping();
        break;
      case Operation::Kind::kPong:
        on_pong();
        break;
      case Operation::Kind::kConnect:
        on_connect(operation.subject);
        limits = this->limits();
        break;
      case Operation::Kind::kOk:
        break;
      case Operation::Kind::kErr:
        shard.server().log.error("{} - Client Error {}", label(), printable(operation.subject));
        close(CloseReason::kParseError);
        break;
      case Operation::Kind::kInfo:
        // Nothing in it concerns a server, but it has to be JSON.
        if (!nlohmann::json::accept(operation.subject)) fail(ParseStatus::kBadArguments, operation);
        break;
    }
    if (closing()) return {};
    if (suspended_) return in;
  }
}

void ClientSession::fail(ParseStatus status, const Operation& operation) {
  Log& log = shard.server().log;
  const std::string_view what = operation.subject;
  switch (status) {
    case ParseStatus::kUnknown:
      refuse(error_text::kUnknownProtocolOperation);
      log.error("{} - Client parser ERROR: proto='{}...'", label(), quote(what.substr(0, kShownBytes)));
      close(CloseReason::kProtocolViolation);
      return;
    case ParseStatus::kBadArguments:
      if (shard.tracing() && operation.kind != Operation::Kind::kConnect)
        shard.trace(*this, "<<-", fmt::format("{} {}", verb_text(operation.kind), what));
      log.error("{} - {}", label(), wrong_arguments(operation, headers));
      close(CloseReason::kProtocolViolation);
      return;
    case ParseStatus::kControlLine:
      log.error("{} - maximum control line exceeded", label());
      refuse(error_text::kMaxControlLine);
      close(CloseReason::kMaxControlLine);
      return;
    case ParseStatus::kMaxPayload:
      if (shard.tracing()) shard.trace(*this, "<<-", fmt::format("{} {}", verb_text(operation.kind), what));
      log.error("{} - maximum payload exceeded: {} vs {}", label(), last_word(what),
                shard.server().options.max_payload);
      refuse(error_text::kMaxPayload);
      close(CloseReason::kMaxPayload);
      return;
    case ParseStatus::kNotConnected:
      auth_violation({});
      return;
    case ParseStatus::kOperation:
    case ParseStatus::kMore:
      return;
  }
}

// ---------------------------------------------------------------------------------------------------- answers

// A line to the client that is not a message.
void ClientSession::answer(std::string_view line) {
  if (shard.tracing()) [[unlikely]]
    shard.trace(*this, "->>", line == kOk ? "OK" : line.substr(0, line.size() - kCrLf.size()));
  send(line);
}

void ClientSession::refuse(std::string_view text) {
  if (shard.tracing()) [[unlikely]]
    shard.trace(*this, "->>", fmt::format("-ERR {}", text));
  send_error(text);
}

// Behind the connection, once it is let in: "v<version>:<lang>:<name>" - "<account>/user:<user>", as far as known.
std::string ClientSession::label() const {
  std::string label = Session::label();
  if (connected_ == nullptr || account == nullptr) return label;
  std::string client = connected_->version.empty() ? "" : "v" + connected_->version;
  for (const std::string* part : {&connected_->lang, &connected_->name}) {
    if (!part->empty()) client += (client.empty() ? "" : ":") + *part;
  }
  if (!client.empty()) label += " - " + quote(client);
  if (!user().empty()) {
    const bool token = user() == "[REDACTED]";
    label += " - " + quote(fmt::format("{}/{}", account->name, token ? "token" : "user:" + user()));
  }
  return label;
}

// ---------------------------------------------------------------------------------------------------- messages

// Publishes to a large index: some messages are parsed ahead, and what their subjects lead to is fetched, in steps,
// while others are dealt with; otherwise each would wait for memory three times. Takes `operation` and what follows it,
// up to something that is not a whole PUB; that is left in `operation`, with its status.
ParseStatus ClientSession::publish_ahead(std::string_view& in, const ParserLimits& limits, Operation& operation) {
  constexpr size_t kAhead = 16;
  const Sublist& sublist = account->sublist;
  std::array<Operation, kAhead> operations;
  std::array<uint64_t, kAhead> prepared;
  last_in_ns_ = last_activity_ns_;
  for (;;) {
    ParseStatus status;
    size_t n = 0;
    bool more;
    do {
      prepared[n] = sublist.prepare(operation.subject);
      operations[n++] = operation;
      status = parser_.next(in, limits, operation);
      more = status == ParseStatus::kOperation && operation.kind == Operation::Kind::kPub && whole(operation, in);
    } while (more && n < kAhead);
    if (n > 1) {
      for (size_t i = 0; i < n; ++i) sublist.prefetch(prepared[i]);
      for (size_t i = 0; i < n; ++i) sublist.prefetch_receiver(prepared[i]);
    }
    for (size_t i = 0; i < n; ++i) {
      on_pub(operations[i]);
      if (closing()) return ParseStatus::kMore;
    }
    if (!more) return status;
  }
}

// Nothing is to be asked or answered for this message that a run does not know of.
bool ClientSession::may_run(const Operation& operation) const {
  const char first = operation.subject.empty() ? '$' : operation.subject.front();
  return operation.kind == Operation::Kind::kPub && !pedantic_ && !verbose_ && permissions == nullptr &&
         account->mappings == nullptr && gateway_replies_ == nullptr && !shard.tracing() && first != '$' &&
         first != '_';
}

void ClientSession::on_pub(const Operation& operation) {
  std::string_view subject = operation.subject;
  bool mapped = false;
  // Mapped before anything is judged: permissions speak of the subject it becomes.
  if (account->mappings != nullptr) [[unlikely]] {
    if (const std::optional<std::string_view> to = account->mappings->map(subject, shard.random())) {
      subject = *to;
      mapped = true;
    }
  }
  if (shard.tracing()) [[unlikely]] {
    std::string line(operation.kind == Operation::Kind::kHpub ? "HPUB " : "PUB ");
    line.append(operation.subject).push_back(' ');
    if (!operation.reply.empty()) line.append(operation.reply).push_back(' ');
    if (operation.kind == Operation::Kind::kHpub) line += std::to_string(operation.header_size) + " ";
    shard.trace(*this, "<<-", line + std::to_string(operation.payload.size()));
    if (mapped) shard.trace(*this, "<<-", fmt::format("MAPPING {} -> {}", operation.subject, subject));
  }
  if (pedantic_ && !is_valid_publish_subject(operation.subject)) refuse(error_text::kInvalidPublishSubject);
  if (shard.tracing()) [[unlikely]]
    trace_payload(shard, *this, "<<-", operation.payload, operation.header_size);
  ++traffic.in_msgs;
  traffic.in_bytes += operation.payload.size();
  ++account->traffic.in_msgs;
  account->traffic.in_bytes += operation.payload.size();

  const char first = subject.empty() ? '\0' : subject.front();  // empty: a mapping wants it lost
  if (first == '_' && subject.starts_with(kGatewayReply)) [[unlikely]] {
    return permission_violation("Publish", subject, {}, {});
  }
  if (permissions != nullptr && !permissions->may_publish(subject, shard.now_ns())) [[unlikely]] {
    return permission_violation("Publish", subject, {}, {});
  }
  if (first == '$' && (subject.starts_with(kRaft) || subject.starts_with(kOldGatewayReply))) [[unlikely]] {
    return permission_violation("Publish", subject, {}, {});
  }
  if (!operation.reply.empty() && (operation.reply[0] == '_' || operation.reply[0] == '$') &&
      is_reserved_reply(operation.reply)) [[unlikely]] {
    refuse(fmt::format("Permissions Violation for Publish with Reply of {}", quote(operation.reply)));
    shard.server().log.error("{} - Publish Violation - Reply {}", label(), quote(operation.reply));
    return;
  }
  if (verbose_) answer(kOk);

  Message message;
  message.subject = subject;
  message.reply = operation.reply;
  message.payload = operation.payload;
  message.header_size = operation.header_size;
  message.from = this;
  if (gateway_replies_ != nullptr) [[unlikely]] {
    if (const std::string_view mapped = gateway_replies_->find(subject, shard.now_ns()); !mapped.empty()) {
      message.subject = mapped;
      message.only = kWayBack;
    } else if (gateway_replies_->empty()) {
      gateway_replies_.reset();
    }
  }
  const bool taken = !subject.empty() && shard.delivery().publish(*account, message);
  if (!taken && no_responders && !operation.reply.empty()) send_no_responders(subject, operation.reply);
}

void ClientSession::remember_reply(std::string_view mapped) {
  if (gateway_replies_ == nullptr) gateway_replies_ = std::make_unique<GatewayReplies>();
  gateway_replies_->remember(mapped, shard.now_ns());
}

// Nobody is there: the requester is told at once, on its own subscription of the reply subject.
void ClientSession::send_no_responders(std::string_view subject, std::string_view reply) {
  const Match match = account->sublist.match(reply);
  for (Subscription* sub : match.plain) {
    if (sub->session != this || sub->closed) continue;
    const size_t size = 32 + subject.size();
    send(fmt::format("HMSG {} {} {} {}\r\nNATS/1.0 503\r\nNats-Subject: {}\r\n\r\n\r\n", reply, sub->sid(), size, size,
                     subject));
    return;
  }
}

const SubscriptionPool& ClientSession::pool() const { return shard.subscriptions(); }

void ClientSession::permission_violation(std::string_view what, std::string_view subject, std::string_view queue,
                                         std::string_view sid) {
  std::string text = fmt::format("Permissions Violation for {} to {}", what, quote(subject));
  if (!queue.empty()) text += fmt::format(" using queue {}", quote(queue));
  refuse(text);
  shard.server().log.error("{} - {} Violation - Subject {}{}{}", label(), what, quote(subject),
                           queue.empty() ? "" : fmt::format(", Queue: {}", quote(queue)),
                           sid.empty() ? "" : fmt::format(", SID {}", sid));
}

// ---------------------------------------------------------------------------------------------------- PING and time

void ClientSession::on_ping() {
  if (shard.tracing()) [[unlikely]]
    shard.trace(*this, "<<-", "PING");
  answer(kPong);
  last_in_ns_ = shard.now_ns();
  if (!connect_received_ || first_pong_sent_) return;
  first_pong_sent_ = true;
  if (protocol_ >= 1) send(shard.server().info_line(cid, ip(), account->name));
}

void ClientSession::announce_info() {
  info_serial_ = shard.server().info_serial();
  if (closing() || protocol_ < 1 || !first_pong_sent_) return;
  send(shard.server().info_line(cid, ip(), {}));
}

void ClientSession::on_pong() {
  if (shard.tracing()) [[unlikely]]
    shard.trace(*this, "<<-", "PONG");
  pings_out_ = 0;
  if (ping_sent_ns_ == 0) return;
  rtt_ns_ = std::max<int64_t>(shard.now_ns() - ping_sent_ns_, 1);
  rtt_at_ns_ = shard.now_ns();
  ping_sent_ns_ = 0;
}

void ClientSession::arm_timer() {
  const auto& options = shard.server().options;
  int64_t at = ping_due_ns_;
  if (!authenticated_) at = std::min(at, start_ns_ + shard.server().auth.timeout_ns());
  if (blocked_since_ns != 0) at = std::min(at, blocked_since_ns + options.write_deadline.count());
  shard.timers().arm(timer_, at, this, [](void* self) { static_cast<ClientSession*>(self)->on_timer(); });
}

void ClientSession::on_timer() {
  if (closing()) return;
  const auto& options = shard.server().options;
  const int64_t now = shard.now_ns();
  Log& log = shard.server().log;
  if (!authenticated_ && now >= start_ns_ + shard.server().auth.timeout_ns() && !suspended_) {
    log.error("{} - authentication timeout", label());
    refuse(error_text::kAuthenticationTimeout);
    return close(CloseReason::kAuthenticationTimeout);
  }
  if (blocked_since_ns != 0 && now >= blocked_since_ns + options.write_deadline.count()) {
    ++account->slow_consumers;
    shard.count_slow_consumer(kind);
    log.info("{} - Slow Consumer Detected: WriteDeadline of {} ms exceeded with {} bytes pending", label(),
             options.write_deadline.count() / 1'000'000, outbox.pending());
    return close(CloseReason::kSlowConsumerWriteDeadline, true);
  }
  if (now >= ping_due_ns_) {
    parser_.release_memory();
    const int64_t interval = options.ping_interval.count();
    const bool need_rtt = rtt_ns_ == 0 || rtt_at_ns_ == 0 || now - rtt_at_ns_ > kRttMaxAgeNs;
    const bool active = last_in_ns_ != 0 && now - last_in_ns_ < interval;
    if (!active || need_rtt) {
      if (pings_out_ + 1 > options.ping_max) {
        log.debug("{} - Stale Client Connection - Closing", label());
        shard.count_stale(kind);
        refuse(error_text::kStaleConnection);
        return close(CloseReason::kStaleConnection);
      }
      ++pings_out_;
      ping_sent_ns_ = now;
      answer(kPing);
    }
    ping_due_ns_ = now + interval;
  }
  arm_timer();
}

void ClientSession::describe(ConnRow& row, bool subs) const {
  const int64_t to_wall = start_wall_ns_ - start_ns_;
  row.cid = cid;
  row.kind = "Client";
  row.type = "nats";
  row.ip = ip();
  row.port = port();
  row.start_ns = start_wall_ns_;
  row.last_activity_ns = last_activity_ns_ + to_wall;
  row.rtt_ns = rtt_ns_;
  row.pending_bytes = outbox.pending();
  row.traffic = traffic;
  row.stalls = stalls;
  row.subscriptions = sids_.size();
  if (filter() != nullptr) filter()->describe(row);
  if (connected_ != nullptr) {
    row.name = connected_->name;
    row.lang = connected_->lang;
    row.version = connected_->version;
    row.authorized_user = user();
  }
  if (account != nullptr) row.account = account->name;
  if (!subs) return;
  sids_.for_each(pool(), [&](const Subscription& sub) {
    SubRow& to = row.subs.emplace_back();
    to.subject = account->sublist.subject_of(sub);
    to.queue = account->sublist.queue_of(sub);
    to.sid = sub.sid();
    to.msgs = sub.delivered;
    if (sub.limited) to.max = shard.subscription_limit(sub);
    to.cid = cid;
  });
}

}  // namespace peregrine::core
