// What is in flight: contiguous ranges of sequence numbers, each with the time of its last transmission and whether the
// peer has reported it (RFC 2018) or we believe it lost (RFC 6675, 8985).
//
// Invariants: ranges are sorted, contiguous, not empty: range[i].end == range[i + 1].start; together they cover
// [SND.UNA, SND.NXT) while anything is in flight. A range is never both sacked and lost.
// pipe() = bytes neither sacked nor lost: what RFC 6675 estimates to be in the network.
// Sending at one time in sequence extends the last range: a window of small segments is a handful of ranges.
#pragma once

#include <cstdint>
#include <vector>

#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

struct SentRange {
  uint32_t start, end;
  int64_t at_ns;  // of the last transmission
  bool sacked = false;
  bool lost = false;
  bool retransmitted = false;
  uint32_t bytes() const { return end - start; }
};

class Scoreboard {
 public:
  bool empty() const { return head_ == ranges_.size(); }
  size_t size() const { return ranges_.size() - head_; }
  SentRange* begin() { return ranges_.data() + head_; }
  SentRange* end() { return ranges_.data() + ranges_.size(); }
  const SentRange* begin() const { return ranges_.data() + head_; }
  const SentRange* end() const { return ranges_.data() + ranges_.size(); }

  uint32_t pipe() const { return total_ - sacked_ - lost_; }
  uint32_t sacked_bytes() const { return sacked_; }
  uint32_t lost_bytes() const { return lost_; }
  uint32_t highest_sacked() const { return highest_sacked_; }  // valid while sacked_bytes() > 0

  void sent(uint32_t start, uint32_t end, int64_t now_ns) {
    total_ += end - start;
    if (!empty()) {
      SentRange& last = ranges_.back();
      if (last.at_ns == now_ns && !last.sacked && !last.lost && !last.retransmitted && end - last.start < (1u << 20)) {
        last.end = end;
        return;
      }
    }
    ranges_.push_back({start, end, now_ns});
  }

  // [start, end) lies within one lost range: it is in the network again.
  void resent(uint32_t start, uint32_t end, int64_t now_ns) {
    size_t i = split(start);
    const size_t after_last = split(end);
    for (; i < after_last; ++i) {
      SentRange& range = ranges_[i];
      if (range.lost) lost_ -= range.bytes();
      range.lost = false;
      range.retransmitted = true;
      range.at_ns = now_ns;
    }
  }

  // Removes what is before `ack`. visit(range, part) for each range or part of one removed: range as it was.
  template <class Visit>
  void acknowledge(uint32_t ack, Visit&& visit) {
    while (!empty()) {
      SentRange& range = ranges_[head_];
      if (at_or_before(ack, range.start)) return;
      const uint32_t part = after(range.end, ack) ? ack - range.start : range.bytes();
      visit(range, part);
      total_ -= part;
      if (range.sacked) sacked_ -= part;
      if (range.lost) lost_ -= part;
      if (part < range.bytes()) {
        range.start += part;
        return;
      }
      pop();
    }
  }

  // visit(range) for each range newly reported within [start, end).
  template <class Visit>
  void sack(uint32_t start, uint32_t end, Visit&& visit) {
    if (empty()) return;
    // Most reports repeat what is known: look before splitting.
    size_t i = find(start);
    for (; i < ranges_.size() && before(ranges_[i].start, end); ++i) {
      if (ranges_[i].sacked) continue;
      if (before(ranges_[i].start, start)) i = split(start);
      if (after(ranges_[i].end, end)) split(end);
      SentRange& range = ranges_[i];
      visit(range);
      if (range.lost) lost_ -= range.bytes();
      range.lost = false;
      range.sacked = true;
      sacked_ += range.bytes();
      if (sacked_ == range.bytes() || after(range.end, highest_sacked_)) highest_sacked_ = range.end;
    }
    merge_sacked();
  }

  void mark_lost(SentRange& range) {
    if (range.lost || range.sacked) return;
    range.lost = true;
    lost_ += range.bytes();
  }
  // The first `bytes` at the head, unless sacked (NewReno has nothing better to go by).
  void mark_head_lost(uint32_t bytes) {
    if (empty() || ranges_[head_].sacked || ranges_[head_].lost) return;
    if (ranges_[head_].bytes() > bytes) split(ranges_[head_].start + bytes);
    mark_lost(ranges_[head_]);
  }
  void mark_all_lost() {
    for (SentRange& range : *this) mark_lost(range);
  }
  void unmark_lost() {  // the loss was none
    for (SentRange& range : *this) range.lost = false;
    lost_ = 0;
  }
  void forget_sacks() {  // the peer may have thrown away what it had reported (RFC 2018 section 8)
    for (SentRange& range : *this) range.sacked = false;
    sacked_ = 0;
  }

  const SentRange* first_lost() const {
    if (lost_ == 0) return nullptr;
    for (const SentRange& range : *this) {
      if (range.lost) return &range;
    }
    return nullptr;
  }

  void clear() {
    ranges_.clear();
    head_ = 0;
    total_ = sacked_ = lost_ = 0;
  }

 private:
  size_t find(uint32_t seq) const {
    size_t low = head_, high = ranges_.size();
    while (high - low > 1) {
      const size_t middle = (low + high) / 2;
      if (after(ranges_[middle].start, seq)) {
        high = middle;
      } else {
        low = middle;
      }
    }
    return low;
  }
  // Makes `seq` the beginning of a range and returns its index (size() of the vector if seq is the end of all).
  size_t split(uint32_t seq) {
    const size_t i = find(seq);
    if (at_or_before(seq, ranges_[i].start)) return i;
    if (at_or_before(ranges_[i].end, seq)) return i + 1;
    SentRange tail = ranges_[i];
    tail.start = seq;
    ranges_[i].end = seq;
    ranges_.insert(ranges_.begin() + static_cast<ptrdiff_t>(i) + 1, tail);
    return i + 1;
  }
  void pop() {
    if (++head_ == ranges_.size()) {
      ranges_.clear();
      head_ = 0;
    } else if (head_ >= 64 && head_ * 2 >= ranges_.size()) {
      ranges_.erase(ranges_.begin(), ranges_.begin() + static_cast<ptrdiff_t>(head_));
      head_ = 0;
    }
  }
  // Neighbours that are sacked become one: a peer that reports byte by byte cannot make the list long for long.
  void merge_sacked() {
    size_t to = head_;
    for (size_t from = head_ + 1; from < ranges_.size(); ++from) {
      if (ranges_[to].sacked && ranges_[from].sacked) {
        ranges_[to].end = ranges_[from].end;
        if (ranges_[from].at_ns > ranges_[to].at_ns) ranges_[to].at_ns = ranges_[from].at_ns;
        ranges_[to].retransmitted |= ranges_[from].retransmitted;
      } else if (++to != from) {
        ranges_[to] = ranges_[from];
      }
    }
    ranges_.resize(to + 1);
  }

  std::vector<SentRange> ranges_;
  size_t head_ = 0;
  uint32_t total_ = 0, sacked_ = 0, lost_ = 0;
  uint32_t highest_sacked_ = 0;
};

}  // namespace peregrine::net::tcp
