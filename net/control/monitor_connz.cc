// /connz and /subsz.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>

#include "core/go_format.h"
#include "net/control/conn_order.h"
#include "net/control/monitor_answers.h"
#include "net/control/monitor_rows.h"

namespace peregrine::net::control {
namespace {

using core::ConnRow;
using core::ConnSort;
using core::ConnState;

constexpr int64_t kDefaultLimit = 1024;

std::optional<ConnSort> parse_sort(std::string_view text) {
  static constexpr std::pair<std::string_view, ConnSort> kSorts[] = {
      {"", ConnSort::kCid},
      {"cid", ConnSort::kCid},
      {"start", ConnSort::kStart},
      {"subs", ConnSort::kSubs},
      {"pending", ConnSort::kPending},
      {"msgs_to", ConnSort::kMsgsTo},
      {"msgs_from", ConnSort::kMsgsFrom},
      {"bytes_to", ConnSort::kBytesTo},
      {"bytes_from", ConnSort::kBytesFrom},
      {"last", ConnSort::kLast},
      {"idle", ConnSort::kIdle},
      {"uptime", ConnSort::kUptime},
      {"stop", ConnSort::kStop},
      {"reason", ConnSort::kReason},
      {"rtt", ConnSort::kRtt},
  };
  for (const auto& [name, sort] : kSorts) {
    if (name == text) return sort;
  }
  return std::nullopt;
}

// A subject somebody can publish to: no empty token, no wildcard.
bool is_literal_subject(std::string_view subject) {
  for (size_t begin = 0; begin <= subject.size();) {
    const size_t end = std::min(subject.find('.', begin), subject.size());
    const std::string_view token = subject.substr(begin, end - begin);
    if (token.empty() || token == "*" || token == ">") return false;
    begin = end + 1;
  }
  return true;
}

}  // namespace

HttpAnswer answer_connz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  MonitorParams params(request);
  const bool auth = params.boolean("auth");
  const MonitorParams::Subs subs = params.subs();
  int64_t offset = params.integer("offset");
  int64_t limit = params.integer("limit");
  core::ConnzQuery query;
  query.cid = params.unsigned_integer("cid");
  query.state = params.state();
  if (params.failed()) return params.answer();

  const std::string_view sort_name = request.param("sort");
  const std::optional<ConnSort> sort = parse_sort(sort_name);
  if (!sort) return plain_answer(400, fmt::format("invalid sorting option: {}", sort_name));
  if (query.state != ConnState::kClosed && (*sort == ConnSort::kStop || *sort == ConnSort::kReason)) {
    return plain_answer(400, fmt::format("sort by {} only valid on closed connections", sort_name));
  }
  offset = std::max<int64_t>(0, offset);
  if (limit <= 0) limit = kDefaultLimit;
  if (query.cid != 0) limit = 1;
  query.user = request.param("user");
  query.account = request.param("acc");
  query.mqtt_client = request.param("mqtt_client");
  query.subs = subs.list || subs.detail;
  query.sort = *sort;
  query.keep = rows_needed(offset, limit);
  query.now_ns = now_ns;
  core::ConnRows found = source.connections(query);

  Json json = Json::object();
  // For an account it does not know nats-server leaves its id out and the list null.
  json["server_id"] = found.account_known ? source.facts().server_id : "";
  json["now"] = core::format_time(now_ns);
  if (found.account_known) std::sort(found.rows.begin(), found.rows.end(), ConnOrder{*sort, now_ns});
  const std::span<const ConnRow> shown = page(found.rows, offset, limit);
  json["num_connections"] = found.account_known ? shown.size() : 0;
  json["total"] = found.account_known ? found.total : 0;
  json["offset"] = offset;
  json["limit"] = limit;
  json["connections"] = nullptr;
  if (found.account_known) {
    Json& list = json["connections"] = Json::array();
    for (const ConnRow& row : shown) list.push_back(connection_row(row, now_ns, auth, subs));
  }
  return json_answer(json);
}

HttpAnswer answer_subsz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  MonitorParams params(request);
  const bool subs = params.boolean("subs");
  int64_t offset = params.integer("offset");
  int64_t limit = params.integer("limit");
  if (params.failed()) return params.answer();
  core::SubszQuery query;
  query.account = request.param("acc");
  query.test = request.param("test");
  if (!query.test.empty() && !is_literal_subject(query.test)) {
    return plain_answer(400, "invalid test subject, must be valid publish subject: " + query.test);
  }
  offset = std::max<int64_t>(0, offset);
  if (limit <= 0) limit = kDefaultLimit;
  query.keep = rows_needed(offset, limit);

  MergedAccount sum;
  for (const core::ShardSnapshot& shard : source.shards()) {
    for (const core::AccountSnapshot& account : shard.accounts) {
      if (query.account.empty() || account.name == query.account) add(sum, account.sublist);
    }
  }
  core::SubRows found;
  if (subs) found = source.subscriptions(query);

  Json json = answer_head(source.facts(), now_ns);
  put_sublist_stats(json, sum);
  json["total"] = found.total;
  json["offset"] = offset;
  json["limit"] = limit;
  const std::span<const core::SubRow> shown = page(found.rows, offset, limit);
  if (!shown.empty()) {
    Json& list = json["subscriptions_list"] = Json::array();
    for (const core::SubRow& sub : shown) list.push_back(sub_detail(sub, sub.account));
  }
  return json_answer(json);
}

}  // namespace peregrine::net::control
