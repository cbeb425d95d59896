// The connection table of a backend: ConnId -> Conn, with stable references and reused slots.
//
// Invariant: a retired slot is not taken again before the next recycle(), which acquire() calls first. So while the
// caller works on one batch of events, a ConnId means one connection, even if its kClosed is in that batch and yet
// unread. `Conn` needs `uint32_t generation`; it changes with every reuse, for what may arrive late (epoll events,
// deadlines).
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "net/backend.h"

namespace peregrine::net {

template <class Conn>
class SlotTable {
 public:
  ConnId take() {
    if (free_.empty()) {
      slots_.emplace_back();
      return static_cast<ConnId>(slots_.size() - 1);
    }
    const ConnId slot = free_.back();
    free_.pop_back();
    return slot;
  }

  void retire(ConnId slot) {
    const uint32_t generation = slots_[slot].generation + 1;
    slots_[slot] = Conn();
    slots_[slot].generation = generation;
    retired_.push_back(slot);
  }

  void recycle() {
    free_.insert(free_.end(), retired_.begin(), retired_.end());
    retired_.clear();
  }

  bool holds(ConnId slot) const { return slot < slots_.size(); }
  Conn& operator[](ConnId slot) { return slots_[slot]; }
  const Conn& operator[](ConnId slot) const { return slots_[slot]; }
  size_t size() const { return slots_.size(); }  // slots ever used, free ones included

 private:
  std::deque<Conn> slots_;
  std::vector<ConnId> free_;
  std::vector<ConnId> retired_;
};

}  // namespace peregrine::net
