#include "net/control/conn_order.h"

#include <algorithm>

namespace peregrine::net::control {

using core::ConnRow;
using core::ConnSort;

bool ConnOrder::operator()(const ConnRow& a, const ConnRow& b) const {
  const auto ascending = [&](const auto& x, const auto& y) { return x != y ? x < y : a.cid < b.cid; };
  const auto descending = [&](const auto& x, const auto& y) { return x != y ? y < x : a.cid < b.cid; };
  const auto uptime = [this](const ConnRow& row) { return (row.stop_ns != 0 ? row.stop_ns : now_ns) - row.start_ns; };
  switch (sort) {
    case ConnSort::kCid:
    case ConnSort::kStart:
      break;
    case ConnSort::kSubs:
      return descending(a.subscriptions, b.subscriptions);
    case ConnSort::kPending:
      return descending(a.pending_bytes, b.pending_bytes);
    case ConnSort::kMsgsTo:
      return descending(a.traffic.out_msgs, b.traffic.out_msgs);
    case ConnSort::kMsgsFrom:
      return descending(a.traffic.in_msgs, b.traffic.in_msgs);
    case ConnSort::kBytesTo:
      return descending(a.traffic.out_bytes, b.traffic.out_bytes);
    case ConnSort::kBytesFrom:
      return descending(a.traffic.in_bytes, b.traffic.in_bytes);
    case ConnSort::kLast:
      return descending(a.last_activity_ns, b.last_activity_ns);
    case ConnSort::kIdle:  // longest idle first
      return ascending(a.last_activity_ns, b.last_activity_ns);
    case ConnSort::kUptime:
      return ascending(uptime(a), uptime(b));
    case ConnSort::kStop:
      return descending(a.stop_ns, b.stop_ns);
    case ConnSort::kReason:
      return ascending(a.reason, b.reason);
    case ConnSort::kRtt:
      return descending(a.rtt_ns, b.rtt_ns);
  }
  return a.cid < b.cid;
}

void FirstRows::put(ConnRow&& row) {
  if (keep_ == 0 || rows_.size() < keep_) {
    rows_.push_back(std::move(row));
    if (rows_.size() == keep_) std::make_heap(rows_.begin(), rows_.end(), order_);
    return;
  }
  if (!order_(row, rows_.front())) return;
  std::pop_heap(rows_.begin(), rows_.end(), order_);
  rows_.back() = std::move(row);
  std::push_heap(rows_.begin(), rows_.end(), order_);
}

}  // namespace peregrine::net::control
