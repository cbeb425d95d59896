// The order of /connz, and a heap that keeps no more rows than a page can show.
//
// Plain values; used on shards' threads (each on its own object) and on request threads. Source: the sort options of
// nats-server's server/monitor_sort_opts.go; equal ones stand by cid, so that pages do not overlap.
#pragma once

#include <cstdint>
#include <vector>

#include "core/snapshot.h"

namespace peregrine::net::control {

struct ConnOrder {
  core::ConnSort sort;
  int64_t now_ns;  // an open connection's uptime ends here

  bool operator()(const core::ConnRow& a, const core::ConnRow& b) const;
};

// Of all rows put in, the first `keep` in that order (0 = all); in no order themselves.
class FirstRows {
 public:
  FirstRows(ConnOrder order, size_t keep) : order_(order), keep_(keep) {}

  void put(core::ConnRow&& row);
  std::vector<core::ConnRow>& rows() { return rows_; }
  bool full() const { return keep_ != 0 && rows_.size() == keep_; }  // rows().front() is the last one in that order

 private:
  ConnOrder order_;
  size_t keep_;
  std::vector<core::ConnRow> rows_;  // once full, a heap with the last one on top
};

}  // namespace peregrine::net::control
