// A cable between two stacks, in virtual time, from one seed: delays, loses, repeats, reorders and corrupts frames,
// refuses transmissions, limits the rate. Knows which frames are still out, so that a test can ask for none at the end.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <unordered_set>
#include <vector>

#include "core/random.h"
#include "net/tcp/stack.h"
#include "net/tcp/wire.h"

namespace peregrine::net::tcp::test {

struct Faults {
  double loss = 0, duplicate = 0, corrupt = 0, reorder = 0, refuse = 0;
  int64_t delay_ns = 100'000;      // one way
  int64_t jitter_ns = 0;           // added when a frame is reordered
  int64_t ns_per_byte = 0;         // 0: infinitely fast
  size_t queue_frames = SIZE_MAX;  // what waits for a slow link; above: dropped at the tail
};

class Wire;

// One end: the Port of one stack.
class WireEnd final : public Port {
 public:
  WireEnd(Wire& wire, int side) : wire_(wire), side_(side) {}
  bool transmit(const OutFrame& frame) override;
  void free_frame(uint64_t token) override;
  uint16_t choose_local_port(const Flow& flow) override { return fixed_port != 0 ? fixed_port : flow.local_port; }

  // Hands the stack one frame; it owns the bytes until it frees them.
  void deliver(Stack& stack, const std::vector<uint8_t>& bytes, int64_t now_ns);
  size_t frames_out() const { return live_.size(); }

  uint16_t fixed_port = 0;
  bool hold_payload = false;  // as a NIC does: read the views later
  void finish_holds();
  bool holds() const { return !held_.empty(); }

 private:
  friend class Wire;
  struct Held {
    std::vector<Hold*> owners;
  };
  Wire& wire_;
  int side_;
  std::unordered_set<uint64_t> live_;
  std::vector<Held> held_;
};

class Wire {
 public:
  Wire(uint64_t seed, const Faults& faults) : random(seed), faults_{faults, faults}, ends_{{*this, 0}, {*this, 1}} {}

  WireEnd& end(int side) { return ends_[side]; }
  Faults& faults(int side) { return faults_[side]; }  // of what `side` sends
  int64_t next_ns() const { return in_flight_.empty() ? INT64_MAX : in_flight_.top()->at_ns; }
  void deliver_due(Stack* stacks[2]);
  void carry(int from, std::vector<uint8_t> frame);

  core::Random random;
  int64_t now_ns = 0;
  bool cut = false;  // the cable is out: everything is lost
  uint64_t frames = 0, lost = 0;
  // Sees every frame a stack sends, before faults. Returning false loses it.
  std::function<bool(int from, const std::vector<uint8_t>&)> tap;

 private:
  friend class WireEnd;
  bool chance(double p) { return p > 0 && static_cast<double>(random.next() >> 11) * 0x1p-53 < p; }
  struct Travelling {
    int64_t at_ns;
    uint64_t order;
    int to;
    std::vector<uint8_t> bytes;
  };
  struct Later {
    bool operator()(const std::shared_ptr<Travelling>& a, const std::shared_ptr<Travelling>& b) const {
      return a->at_ns != b->at_ns ? a->at_ns > b->at_ns : a->order > b->order;
    }
  };
  Faults faults_[2];
  WireEnd ends_[2];
  int64_t free_at_[2] = {0, 0};
  size_t queued_[2] = {0, 0};
  uint64_t order_ = 0;
  std::priority_queue<std::shared_ptr<Travelling>, std::vector<std::shared_ptr<Travelling>>, Later> in_flight_;
};

// The frames of an OutFrame as a NIC would put them on the wire: TSO cut, checksums filled in, tag inserted.
std::vector<std::vector<uint8_t>> cut_frame(const OutFrame& frame);

}  // namespace peregrine::net::tcp::test
