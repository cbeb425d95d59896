#include "net/sim/scheduler.h"

#include <algorithm>

namespace peregrine::net::sim {

size_t Scheduler::add(Actor actor) {
  entries_.push_back({std::move(actor)});
  return entries_.size() - 1;
}

void Scheduler::remove(size_t number) { entries_[number] = {.actor = {}, .removed = true}; }

void Scheduler::stall(size_t number, int64_t for_ns) { entries_[number].stalled_until_ns = network_.now_ns() + for_ns; }

bool Scheduler::runnable(const Entry& entry) const {
  if (entry.removed || entry.stalled_until_ns > network_.now_ns()) return false;
  return !entry.asleep || entry.actor.backend->has_work() ||
         entry.actor.backend->parked_until_ns() <= network_.now_ns();
}

void Scheduler::run_one(size_t number) {
  // By value: a turn may add actors.
  const Actor actor = entries_[number].actor;
  network_.note(number);
  if (entries_[number].asleep) {
    entries_[number].asleep = false;
    if (actor.awake) actor.awake();
  }
  ++turns_;
  const bool busy = actor.turn();
  network_.advance_to(
      network_.now_ns() + 1 +
      static_cast<int64_t>(network_.random().below(static_cast<uint64_t>(network_.options().turn_ns_max))));
  if (busy || entries_[number].removed) return;
  if (actor.try_sleep && !actor.try_sleep()) return;
  actor.backend->park(actor.deadline_ns ? actor.deadline_ns() : INT64_MAX);
  entries_[number].asleep = true;
}

bool Scheduler::step() {
  network_.run_due();
  runnable_.clear();
  for (size_t n = 0; n < entries_.size(); ++n) {
    if (runnable(entries_[n])) runnable_.push_back(n);
  }
  if (!runnable_.empty()) {
    run_one(runnable_[network_.random().below(runnable_.size())]);
    return true;
  }
  int64_t next = network_.next_ns();
  for (const Entry& entry : entries_) {
    if (entry.removed) continue;
    int64_t at = entry.asleep ? entry.actor.backend->parked_until_ns() : network_.now_ns();
    if (entry.asleep && entry.actor.backend->has_work()) at = network_.now_ns();
    if (at != INT64_MAX) next = std::min(next, std::max(at, entry.stalled_until_ns));
  }
  if (next == INT64_MAX) return false;
  network_.advance_to(next);
  return true;
}

bool Scheduler::run_until(const std::function<bool()>& done, int64_t patience_ns) {
  const int64_t until = network_.now_ns() + patience_ns;
  while (!done()) {
    if (network_.now_ns() > until || !step()) return done();
  }
  return true;
}

void Scheduler::run_for(int64_t ns) {
  const int64_t until = network_.now_ns() + ns;
  network_.at(until, [] {});  // time passes even when nothing happens
  while (network_.now_ns() < until) step();
}

bool Scheduler::settle(int64_t patience_ns) {
  const int64_t until = network_.now_ns() + patience_ns;
  while (network_.now_ns() <= until) {
    network_.run_due();
    const bool busy = std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      return !entry.removed && (entry.stalled_until_ns > network_.now_ns() || runnable(entry));
    });
    if (!busy && network_.next_ns() == Network::kNever) return true;
    step();
  }
  return false;
}

}  // namespace peregrine::net::sim
