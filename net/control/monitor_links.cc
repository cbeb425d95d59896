// /routez, /gatewayz and /leafz.
#include <algorithm>

#include "core/go_format.h"
#include "net/control/conn_order.h"
#include "net/control/monitor_answers.h"
#include "net/control/monitor_rows.h"

namespace peregrine::net::control {
namespace {

using core::ConnRow;
using core::ConnSort;

Json route_detail(const core::RouteRow& route, const MonitorParams::Subs& subs, int64_t now_ns) {
  const core::ConnRow& conn = route.conn;
  Json json = Json::object();
  json["rid"] = conn.cid;
  json["remote_id"] = route.remote_id;
  json["remote_name"] = route.remote_name;
  json["did_solicit"] = route.did_solicit;
  json["is_configured"] = route.is_configured;
  json["ip"] = conn.ip;
  json["port"] = conn.port;
  json["start"] = core::format_time(conn.start_ns);
  json["last_activity"] = core::format_time(conn.last_activity_ns);
  json["rtt"] = rtt_text(conn.rtt_ns);
  json["uptime"] = core::format_uptime(std::max<int64_t>(0, now_ns - conn.start_ns));
  json["idle"] = core::format_uptime(std::max<int64_t>(0, now_ns - conn.last_activity_ns));
  put_subjects(json, "import", route.import_subjects);
  put_subjects(json, "export", route.export_subjects);
  json["pending_size"] = conn.pending_bytes;
  json["in_msgs"] = conn.traffic.in_msgs;
  json["out_msgs"] = conn.traffic.out_msgs;
  json["in_bytes"] = conn.traffic.in_bytes;
  json["out_bytes"] = conn.traffic.out_bytes;
  json["subscriptions"] = conn.subscriptions;
  for (const core::SubRow& sub : conn.subs) {
    if (subs.detail) json["subscriptions_list_detail"].push_back(sub_detail(sub, sub.account));
    else json["subscriptions_list"].push_back(sub.subject);
  }
  put_unless_empty(json, "account", route.account);
  put_unless_empty(json, "compression", route.compression);
  return json;
}

Json gateway_detail(const core::GatewayRow& row, const core::GatewayzQuery& query, const MonitorParams::Subs& subs,
                    int64_t now_ns) {
  constexpr int kInterestOnlyThreshold = 1000;  // as nats-server shows it
  Json json = Json::object();
  json["configured"] = row.is_configured;
  json["connection"] = connection_row(row.conn, now_ns, false, {});
  if (!query.accounts) return json;
  for (const core::GatewayRow::AccountRow& account : row.accounts) {
    Json each = Json::object();
    each["name"] = account.name;
    each["interest_mode"] = account.mode;
    put_unless_empty(each, "no_interest_count", account.no_interest);
    each["interest_only_threshold"] = kInterestOnlyThreshold;
    if (row.outbound) {
      put_unless_empty(each, "num_subs", account.subscriptions);
      put_unless_empty(each, "num_queue_subs", account.queue_subscriptions);
    }
    for (const core::SubRow& sub : account.subs) {
      if (subs.detail) each["subscriptions_list_detail"].push_back(sub_detail(sub, ""));
      else each["subscriptions_list"].push_back(sub.subject);
    }
    json["accounts"].push_back(std::move(each));
  }
  return json;
}

Json leaf_row(const ConnRow& row, bool subs) {
  Json json = Json::object();
  json["id"] = row.cid;
  json["name"] = row.name;
  json["is_spoke"] = row.spoke;
  put_unless_empty(json, "is_isolated", row.isolated);
  json["account"] = row.account;
  json["ip"] = row.ip;
  json["port"] = row.port;
  json["rtt"] = rtt_text(row.rtt_ns);
  json["in_msgs"] = row.traffic.in_msgs;
  json["out_msgs"] = row.traffic.out_msgs;
  json["in_bytes"] = row.traffic.in_bytes;
  json["out_bytes"] = row.traffic.out_bytes;
  json["subscriptions"] = row.subscriptions;
  if (subs && !row.subs.empty()) {
    Json& list = json["subscriptions_list"] = Json::array();
    for (const core::SubRow& sub : row.subs) list.push_back(sub.subject);
  }
  put_unless_empty(json, "compression", row.compression);
  return json;
}

}  // namespace

HttpAnswer answer_routez(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  MonitorParams params(request);
  const MonitorParams::Subs subs = params.subs();
  if (params.failed()) return params.answer();
  const ServerFacts facts = source.facts();
  const std::vector<core::RouteRow> routes = source.routes(subs.list || subs.detail);
  Json json = Json::object();
  json["server_id"] = facts.server_id;
  json["server_name"] = facts.server_name;
  json["now"] = core::format_time(now_ns);
  if (const auto& permissions = facts.options->cluster.permissions) {
    put_subjects(json, "import", permissions->publish);
    put_subjects(json, "export", permissions->subscribe);
  }
  json["num_routes"] = routes.size();
  json["routes"] = Json::array();
  for (const core::RouteRow& route : routes) json["routes"].push_back(route_detail(route, subs, now_ns));
  return json_answer(json);
}

HttpAnswer answer_gatewayz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  MonitorParams params(request);
  const MonitorParams::Subs subs = params.subs();
  core::GatewayzQuery query;
  query.accounts = params.boolean("accs");
  if (params.failed()) return params.answer();
  query.account = request.param("acc_name");
  query.accounts |= !query.account.empty();
  query.subs = query.accounts && (subs.list || subs.detail);
  const std::string_view wanted = request.param("gw_name");
  const ServerFacts facts = source.facts();
  Json json = answer_head(facts, now_ns);
  if (facts.gateway_port != 0) {
    json["name"] = facts.options->gateway.name;
    json["host"] = facts.gateway_host;
    json["port"] = facts.gateway_port;
  }
  Json& outbound = json["outbound_gateways"] = Json::object();
  Json inbound = Json::object();
  for (const core::GatewayRow& row : source.gateways(query)) {
    if (!wanted.empty() && row.name != wanted) continue;
    Json detail = gateway_detail(row, query, subs, now_ns);
    if (row.outbound) outbound[row.name] = std::move(detail);
    else inbound[row.name].push_back(std::move(detail));
  }
  if (!wanted.empty() && outbound.empty() && facts.gateway_port != 0) outbound = nullptr;
  json["inbound_gateways"] = std::move(inbound);
  return json_answer(json);
}

HttpAnswer answer_leafz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  MonitorParams params(request);
  core::ConnzQuery query;
  query.only_leafnodes = true;
  query.subs = params.boolean("subs");
  if (params.failed()) return params.answer();
  std::vector<ConnRow> rows = source.connections(query).rows;
  // Those in the middle of their handshake are not leafnodes yet.
  const std::string_view account = request.param("acc");
  std::erase_if(rows, [&](const ConnRow& row) { return !row.up || (!account.empty() && row.account != account); });
  std::sort(rows.begin(), rows.end(), ConnOrder{ConnSort::kCid, now_ns});
  Json json = answer_head(source.facts(), now_ns);
  json["leafnodes"] = rows.size();
  Json& list = json["leafs"] = Json::array();
  for (const ConnRow& row : rows) list.push_back(leaf_row(row, query.subs));
  return json_answer(json);
}

}  // namespace peregrine::net::control
