// What several monitoring endpoints show of connections, subscriptions and accounts, and the sums over the shards.
//
// Functions of their arguments; any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/snapshot.h"
#include "net/control/monitor_json.h"
#include "net/control/monitor_params.h"

namespace peregrine::net::control {

struct MergedAccount {
  uint64_t connections = 0, leafnodes = 0, total_connections = 0, slow_consumers = 0;
  core::Traffic traffic;
  core::SublistStats sublist;
  double fanout = 0;  // sum over all cached results
};

void add(core::Traffic& sum, const core::Traffic& part);
void add(core::KindCounts& sum, const core::KindCounts& part);
void add(MergedAccount& sum, const core::SublistStats& part);

// In the order of their names. `only` = "" for all.
std::vector<std::pair<std::string, MergedAccount>> merge_accounts(const std::vector<core::ShardSnapshot>& shards,
                                                                  std::string_view only);
void put_sublist_stats(Json& json, const MergedAccount& account);

// `account` "" = leave it out.
Json sub_detail(const core::SubRow& sub, const std::string& account);
Json connection_row(const core::ConnRow& row, int64_t now_ns, bool auth, MonitorParams::Subs subs);

}  // namespace peregrine::net::control
