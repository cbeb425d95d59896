// /accountz and /accstatz.
#include <fmt/format.h>

#include "core/go_format.h"
#include "net/control/monitor_answers.h"
#include "net/control/monitor_rows.h"

namespace peregrine::net::control {

HttpAnswer answer_accountz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  const ServerFacts facts = source.facts();
  const std::string_view wanted = request.param("acc");
  const auto accounts = merge_accounts(source.shards(), wanted);
  Json json = answer_head(facts, now_ns);
  put_unless_empty(json, "system_account", facts.system_account);
  if (wanted.empty()) {
    Json names = Json::array();
    for (const auto& [name, account] : accounts) names.push_back(name);
    put_unless_empty(json, "accounts", names);
    return json_answer(json);
  }
  if (accounts.empty()) return plain_answer(400, fmt::format("Account {} does not exist", wanted));
  const auto& [name, account] = accounts.front();
  Json& detail = json["account_detail"] = Json::object();
  detail["account_name"] = name;
  detail["update_time"] = core::format_time(facts.config_load_ns);
  put_unless_empty(detail, "is_system", name == facts.system_account);
  detail["expired"] = false;
  detail["complete"] = true;
  detail["jetstream_enabled"] = false;
  detail["leafnode_connections"] = account.leafnodes;
  detail["client_connections"] = account.connections;
  detail["subscriptions"] = account.sublist.num_subscriptions;
  detail["name_tag"] = name;
  put_sublist_stats(detail["sublist_stats"] = Json::object(), account);
  return json_answer(json);
}

HttpAnswer answer_accstatz(MonitorSource& source, const HttpRequest& request, int64_t now_ns) {
  MonitorParams params(request);
  const bool unused = params.boolean("unused");
  if (params.failed()) return params.answer();
  const auto direction = [](uint64_t msgs, uint64_t bytes) {
    const Json none = {{"msgs", 0}, {"bytes", 0}};
    return Json{{"msgs", msgs}, {"bytes", bytes}, {"gateways", none}, {"routes", none}, {"leafs", none}};
  };
  Json json = answer_head(source.facts(), now_ns);
  Json& list = json["account_statz"] = Json::array();
  for (const auto& [name, account] : merge_accounts(source.shards(), "")) {
    if (!unused && account.connections + account.leafnodes == 0) continue;
    Json& entry = list.emplace_back(Json::object());
    entry["acc"] = name;
    entry["name"] = name;
    entry["conns"] = account.connections;
    entry["leafnodes"] = account.leafnodes;
    entry["total_conns"] = account.connections + account.leafnodes;
    entry["num_subscriptions"] = account.sublist.num_subscriptions;
    entry["sent"] = direction(account.traffic.out_msgs, account.traffic.out_bytes);
    entry["received"] = direction(account.traffic.in_msgs, account.traffic.in_bytes);
    entry["slow_consumers"] = account.slow_consumers;
  }
  return json_answer(json);
}

}  // namespace peregrine::net::control
