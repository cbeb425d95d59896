// Timers of one shard: a hierarchical wheel of 1 ms ticks (4 levels of 256 slots: 49 days).
//
// Owned by one shard; intrusive, so that arming allocates nothing. A Timer fires once, at or up to 1 ms after its time,
// never early; it may be re-armed or cancelled at any time, also from the callback. Destroying an armed timer cancels
// it. Cost: arm and cancel O(1); advance O(ticks passed), with long sleeps skipped level by level.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace peregrine::core {

class TimerWheel;

class Timer {
 public:
  Timer() = default;
  ~Timer() { cancel(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  bool armed() const { return next_ != nullptr; }
  int64_t at_ns() const { return at_tick_ * 1'000'000; }
  inline void cancel();

 private:
  friend class TimerWheel;
  Timer* next_ = nullptr;
  Timer* prev_ = nullptr;
  int64_t at_tick_ = 0;
  TimerWheel* wheel_ = nullptr;
  void* context_ = nullptr;
  void (*fire_)(void*) = nullptr;
};

class TimerWheel {
 public:
  explicit TimerWheel(int64_t now_ns) : tick_(now_ns / kTickNs) {
    for (auto& level : slots_) {
      for (Timer& slot : level) slot.next_ = slot.prev_ = &slot;
    }
  }
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;
  ~TimerWheel() {
    for (auto& level : slots_) {
      for (Timer& slot : level) {
        while (slot.next_ != &slot) unlink(*slot.next_);
        slot.next_ = slot.prev_ = nullptr;
      }
    }
  }

  void arm(Timer& timer, int64_t at_ns, void* context, void (*fire)(void*)) {
    timer.cancel();
    timer.at_tick_ = (at_ns + kTickNs - 1) / kTickNs;
    if (timer.at_tick_ <= tick_) timer.at_tick_ = tick_ + 1;
    timer.context_ = context;
    timer.fire_ = fire;
    timer.wheel_ = this;
    ++armed_;
    link(timer);
  }

  // Fires what is due. Returns how many timers fired.
  int advance(int64_t now_ns) {
    const int64_t target = now_ns / kTickNs;
    int fired = 0;
    if (armed_ == 0) {
      if (target > tick_) tick_ = target;
      return 0;
    }
    while (tick_ < target) {
      ++tick_;
      if ((tick_ & kMask) == 0) cascade();
      Timer& slot = slots_[0][tick_ & kMask];
      // Taken one by one: a callback may cancel its neighbours.
      while (slot.next_ != &slot) {
        Timer& timer = *slot.next_;
        unlink(timer);
        if (timer.at_tick_ > tick_) {
          ++armed_;
          timer.wheel_ = this;
          link(timer);
          continue;
        }
        ++fired;
        timer.fire_(timer.context_);
      }
      if (armed_ == 0) {
        tick_ = target;
        break;
      }
    }
    return fired;
  }

  // When the shard must wake at the latest; INT64_MAX without timers. Exact within the first level, else the next
  // cascade (never later than the first timer).
  int64_t next_ns() const {
    if (armed_ == 0) return INT64_MAX;
    int64_t first = INT64_MAX;
    for (int64_t t = tick_ + 1; t <= tick_ + kSlots; ++t) {
      const Timer& slot = slots_[0][t & kMask];
      if (slot.next_ != &slot) {
        first = t;
        break;
      }
    }
    // The next turn of the first level brings down what waits above it.
    const int64_t wrap = ((tick_ >> kBits) + 1) << kBits;
    if (first > wrap) first = std::min(first, next_cascade(wrap));
    return first * kTickNs;
  }

  uint64_t armed() const { return armed_; }

 private:
  friend class Timer;
  static constexpr int64_t kTickNs = 1'000'000;
  static constexpr int kBits = 8, kSlots = 1 << kBits, kMask = kSlots - 1, kLevels = 4;

  void link(Timer& timer) {
    const int64_t delta = timer.at_tick_ - tick_;
    int level = 0;
    while (level < kLevels - 1 && delta >= (int64_t{1} << (kBits * (level + 1)))) ++level;
    int64_t at = timer.at_tick_;
    const int64_t horizon = (int64_t{1} << (kBits * kLevels)) - 1;
    if (delta > horizon) at = tick_ + horizon;
    Timer& slot = slots_[level][(at >> (kBits * level)) & kMask];
    timer.next_ = &slot;
    timer.prev_ = slot.prev_;
    slot.prev_->next_ = &timer;
    slot.prev_ = &timer;
  }

  void unlink(Timer& timer) {
    timer.prev_->next_ = timer.next_;
    timer.next_->prev_ = timer.prev_;
    timer.next_ = timer.prev_ = nullptr;
    timer.wheel_ = nullptr;
    --armed_;
  }

  // A lower level has wrapped: spread the next slot of the level above.
  void cascade() {
    for (int level = 1; level < kLevels; ++level) {
      const int64_t index = (tick_ >> (kBits * level)) & kMask;
      Timer& slot = slots_[level][index];
      Timer list;
      list.next_ = list.prev_ = &list;
      if (slot.next_ != &slot) {
        list.next_ = slot.next_;
        list.prev_ = slot.prev_;
        list.next_->prev_ = &list;
        list.prev_->next_ = &list;
        slot.next_ = slot.prev_ = &slot;
      }
      while (list.next_ != &list) {
        Timer& timer = *list.next_;
        list.next_ = timer.next_;
        timer.next_->prev_ = &list;
        link(timer);
      }
      list.next_ = list.prev_ = nullptr;
      if (index != 0) break;
    }
  }

  // The first tick at or after `t` (a multiple of kSlots) at which a cascade finds something.
  int64_t next_cascade(int64_t t) const {
    for (int n = 0; n < kSlots; ++n, t += kSlots) {
      const int64_t index = (t >> kBits) & kMask;
      if (slots_[1][index].next_ != &slots_[1][index]) return t;
      if (index == 0) return t;
    }
    return t;
  }

  int64_t tick_;
  uint64_t armed_ = 0;
  std::array<std::array<Timer, kSlots>, kLevels> slots_;
};

inline void Timer::cancel() {
  if (wheel_ != nullptr) wheel_->unlink(*this);
}

}  // namespace peregrine::core
