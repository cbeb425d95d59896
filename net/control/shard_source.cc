#include "net/control/shard_source.h"

#include <algorithm>
#include <mutex>

#include "core/client_session.h"
#include "core/peer_session.h"
#include "core/subject.h"
#include "net/control/conn_order.h"

namespace peregrine::net::control {
namespace {

constexpr size_t kSessionSlice = 512;  // sessions looked at per turn
constexpr size_t kDetailSlice = 64;    // ... of which the subscriptions are listed

// What the shards have put together so far; outlives the question if a shard is late.
template <class Rows>
struct Gathered {
  std::mutex mutex;
  Rows rows;
};

bool wanted(const core::ConnRow& row, const core::ConnzQuery& query) {
  if (query.cid != 0 && row.cid != query.cid) return false;
  if (!query.user.empty() && row.authorized_user != query.user) return false;
  if (!query.account.empty() && row.account != query.account) return false;
  return query.mqtt_client.empty();
}

// max_closed_clients is the server's; each shard keeps as many. What stopped before this is over the limit.
int64_t oldest_remembered_ns(Broker& broker, int most, int timeout_ms) {
  auto gathered = std::make_shared<Gathered<std::vector<int64_t>>>();
  broker.run_on_shards(
      [gathered](core::Shard& shard) {
        std::lock_guard lock(gathered->mutex);
        for (const core::ConnRow& row : shard.closed_rows()) gathered->rows.push_back(row.stop_ns);
        return true;
      },
      timeout_ms);
  std::lock_guard lock(gathered->mutex);
  std::vector<int64_t>& stops = gathered->rows;
  if (most <= 0 || stops.size() <= static_cast<size_t>(most)) return 0;
  const auto first = stops.end() - most;
  std::nth_element(stops.begin(), first, stops.end());
  return *first;
}

}  // namespace

ShardSource::ShardSource(core::Server& server, Broker& broker, ServerFacts facts)
    : server_(server), broker_(broker), facts_(std::move(facts)) {}

ServerFacts ShardSource::facts() {
  ServerFacts facts = facts_;
  const core::ServerInfo info = server_.info();
  facts.connect_urls = info.connect_urls;
  facts.cluster_name = info.cluster;
  return facts;
}

std::vector<core::ShardSnapshot> ShardSource::shards() {
  auto gathered = std::make_shared<Gathered<std::vector<core::ShardSnapshot>>>();
  const bool all = broker_.run_on_shards(
      [this, gathered](core::Shard& shard) {
        core::ShardSnapshot snapshot = shard.snapshot();
        snapshot.cpu = broker_.core_of(shard.index());
        std::lock_guard lock(gathered->mutex);
        gathered->rows.push_back(std::move(snapshot));
        return true;
      },
      kTimeoutMs);
  if (!all) server_.log.warn("monitoring: a shard did not answer within {} ms", kTimeoutMs);
  std::lock_guard lock(gathered->mutex);
  std::vector<core::ShardSnapshot> rows = gathered->rows;
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.shard < b.shard; });
  return rows;
}

core::ConnRows ShardSource::connections(const core::ConnzQuery& query) {
  // One shard's part of the work; it goes on where the last slice stopped.
  struct Part {
    explicit Part(const core::ConnzQuery& query) : first({query.sort, query.now_ns}, query.keep) {}
    bool begun = false;
    // The cids of the shard's sessions are taken in the first slice: sessions that come or go meanwhile do not shift
    // the others.
    std::vector<uint64_t> cids;
    size_t at = 0;
    FirstRows first;
    size_t detailed = 0;  // rows that have got their subscriptions
  };
  struct State {
    std::mutex mutex;
    core::ConnRows rows;
    std::vector<Part> parts;
  };
  auto state = std::make_shared<State>();
  state->rows.account_known = query.account.empty() || query.account == "$G";
  if (!state->rows.account_known) return state->rows;
  state->parts.assign(broker_.shards().size(), Part(query));
  const int64_t oldest_ns = query.state == core::ConnState::kOpen
                                ? 0
                                : oldest_remembered_ns(broker_, server_.options.max_closed_clients, kTimeoutMs);
  const bool all = broker_.run_on_shards(
      [state, query, oldest_ns](core::Shard& shard) {
        Part& part = state->parts[shard.index()];
        std::vector<core::ConnRow>& rows = part.first.rows();
        uint64_t total = 0;
        if (!part.begun) {
          part.begun = true;
          if (query.state != core::ConnState::kClosed) {
            for (const core::Session* session : shard.sessions()) {
              const bool leaf = session->kind == core::SessionKind::kLeaf;
              const bool wanted = leaf || (session->kind == core::SessionKind::kClient && !query.only_leafnodes);
              if (wanted && !session->closing()) part.cids.push_back(session->cid);
            }
            total += part.cids.size();
            std::sort(part.cids.begin(), part.cids.end());
          }
          if (query.state != core::ConnState::kOpen) {
            for (const core::ConnRow& row : shard.closed_rows()) {
              if (row.stop_ns < oldest_ns) continue;
              if (!query.account.empty() && row.account != query.account) continue;
              ++total;
              if (wanted(row, query)) part.first.put(core::ConnRow(row));
            }
          }
        }
        const bool by_cid = query.sort == core::ConnSort::kCid || query.sort == core::ConnSort::kStart;
        for (size_t n = 0; n < kSessionSlice && part.at < part.cids.size(); ++n, ++part.at) {
          if (by_cid && part.first.full() && part.cids[part.at] > rows.front().cid) {  // so are all that follow
            part.at = part.cids.size();
            break;
          }
          if (query.cid != 0 && part.cids[part.at] != query.cid) continue;
          const core::Session* session = shard.find(part.cids[part.at]);
          if (session == nullptr) continue;
          core::ConnRow row;
          session->describe(row, false);
          if (wanted(row, query)) part.first.put(std::move(row));
        }
        bool done = part.at >= part.cids.size();
        // Only what is shown needs its subscriptions.
        if (done) {
          for (size_t n = 0; n < kDetailSlice && part.detailed < rows.size(); ++n, ++part.detailed) {
            core::ConnRow& row = rows[part.detailed];
            if (!query.subs) row.subs.clear();
            const core::Session* session = query.subs && row.stop_ns == 0 ? shard.find(row.cid) : nullptr;
            if (session != nullptr) session->describe(row, true);
          }
          done = part.detailed >= rows.size();
        }
        std::lock_guard lock(state->mutex);
        state->rows.total += total;
        if (done) {
          for (core::ConnRow& row : rows) state->rows.rows.push_back(std::move(row));
        }
        return done;
      },
      kTimeoutMs);
  if (!all) server_.log.warn("monitoring: a shard did not answer within {} ms", kTimeoutMs);
  std::lock_guard lock(state->mutex);
  return state->rows;
}

std::vector<core::RouteRow> ShardSource::routes(bool subs) {
  auto gathered = std::make_shared<Gathered<std::vector<core::RouteRow>>>();
  const bool all = broker_.run_on_shards(
      [gathered, subs](core::Shard& shard) {
        std::vector<core::RouteRow> rows;
        for (const core::Session* session : shard.sessions()) {
          if (session->kind != core::SessionKind::kRoute || session->closing()) continue;
          core::RouteRow row;
          if (static_cast<const core::PeerSession*>(session)->describe(row, subs)) rows.push_back(std::move(row));
        }
        std::lock_guard lock(gathered->mutex);
        for (core::RouteRow& row : rows) gathered->rows.push_back(std::move(row));
        return true;
      },
      kTimeoutMs);
  if (!all) server_.log.warn("monitoring: a shard did not answer within {} ms", kTimeoutMs);
  std::lock_guard lock(gathered->mutex);
  std::vector<core::RouteRow> rows = gathered->rows;
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.conn.cid < b.conn.cid; });
  return rows;
}

std::vector<core::GatewayRow> ShardSource::gateways(const core::GatewayzQuery& query) {
  auto gathered = std::make_shared<Gathered<std::vector<core::GatewayRow>>>();
  const bool all = broker_.run_on_shards(
      [gathered, query](core::Shard& shard) {
        std::vector<core::GatewayRow> rows;
        for (const core::Session* session : shard.sessions()) {
          if (session->kind != core::SessionKind::kGateway || session->closing()) continue;
          core::GatewayRow row;
          if (static_cast<const core::PeerSession*>(session)->describe(row, query)) rows.push_back(std::move(row));
        }
        std::lock_guard lock(gathered->mutex);
        for (core::GatewayRow& row : rows) gathered->rows.push_back(std::move(row));
        return true;
      },
      kTimeoutMs);
  if (!all) server_.log.warn("monitoring: a shard did not answer within {} ms", kTimeoutMs);
  std::lock_guard lock(gathered->mutex);
  std::vector<core::GatewayRow> rows = gathered->rows;
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.conn.cid < b.conn.cid; });
  return rows;
}

core::SubRows ShardSource::subscriptions(const core::SubszQuery& query) {
  struct State {
    std::mutex mutex;
    std::vector<std::vector<core::SubRow>> rows;
    uint64_t total = 0;
  };
  auto state = std::make_shared<State>();
  state->rows.resize(broker_.shards().size());
  if (!query.account.empty() && query.account != "$G") return {};
  auto cids = std::make_shared<std::vector<std::vector<uint64_t>>>(broker_.shards().size());
  auto done = std::make_shared<std::vector<size_t>>(broker_.shards().size(), SIZE_MAX);
  const bool all = broker_.run_on_shards(
      [state, cids, done, query](core::Shard& shard) {
        std::vector<uint64_t>& mine = (*cids)[shard.index()];
        size_t& at = (*done)[shard.index()];
        if (at == SIZE_MAX) {
          at = 0;
          for (const core::Session* session : shard.sessions()) {
            if (session->kind == core::SessionKind::kClient) mine.push_back(session->cid);
          }
          std::sort(mine.begin(), mine.end());
        }
        std::vector<core::SubRow> rows;
        uint64_t total = 0;
        for (size_t n = 0; n < kSessionSlice && at < mine.size(); ++n, ++at) {
          const auto* session = static_cast<const core::ClientSession*>(shard.find(mine[at]));
          if (session == nullptr || session->account == nullptr) continue;
          session->for_each_subscription([&](const core::Subscription& sub) {
            const std::string_view subject = session->account->sublist.subject_of(sub);
            if (!query.test.empty() && !core::match_subject(subject, query.test)) return;
            ++total;
            if (query.keep != 0 && state->rows[shard.index()].size() + rows.size() >= query.keep) return;
            core::SubRow& row = rows.emplace_back();
            row.account = session->account->name;
            row.subject = subject;
            row.queue = session->account->sublist.queue_of(sub);
            row.sid = sub.sid();
            row.msgs = sub.delivered;
            if (sub.limited) row.max = shard.subscription_limit(sub);
            row.cid = session->cid;
          });
        }
        std::lock_guard lock(state->mutex);
        state->total += total;
        for (core::SubRow& row : rows) state->rows[shard.index()].push_back(std::move(row));
        return at >= mine.size();
      },
      kTimeoutMs);
  if (!all) server_.log.warn("monitoring: a shard did not answer within {} ms", kTimeoutMs);
  core::SubRows result;
  std::lock_guard lock(state->mutex);
  result.total = state->total;
  for (const auto& rows : state->rows) result.rows.insert(result.rows.end(), rows.begin(), rows.end());
  return result;
}

Health ShardSource::health() {
  // It does not listen any more: nats-server's readyForConnections() has no other words for that.
  if (server_.lame_duck()) return {false, "failed to be ready for connections after 1ms: server"};
  return {};
}

}  // namespace peregrine::net::control
