#include "tests/net/tcp/wire.h"

#include <cstdlib>

namespace peregrine::net::tcp::test {

std::vector<std::vector<uint8_t>> cut_frame(const OutFrame& frame) {
  std::vector<uint8_t> payload;
  for (const PayloadView& view : frame.payload) payload.insert(payload.end(), view.data, view.data + view.size);
  if (payload.size() != frame.payload_bytes) std::abort();
  std::vector<std::vector<uint8_t>> out;
  const size_t step = frame.segment_bytes != 0 ? frame.segment_bytes : std::max<size_t>(payload.size(), 1);
  size_t at = 0;
  do {
    const size_t n = std::min(step, payload.size() - at);
    const bool last = at + n == payload.size();
    std::vector<uint8_t> bytes(frame.headers.begin(), frame.headers.end());
    bytes.insert(bytes.end(), payload.begin() + static_cast<ptrdiff_t>(at),
                 payload.begin() + static_cast<ptrdiff_t>(at + n));
    if (frame.tcp && frame.checksum_offload) {
      uint8_t* ip = bytes.data() + frame.l2_bytes;
      uint8_t* tcp = ip + frame.l3_bytes;
      const auto body = static_cast<uint32_t>(frame.l4_bytes + n);
      store32(tcp + 4, load32(tcp + 4) + static_cast<uint32_t>(at));
      if (!last) tcp[13] &= static_cast<uint8_t>(~0x09);  // FIN and PSH go with the last
      if (frame.ipv6) {
        store16(ip + 4, body);
      } else {
        store16(ip + 2, 20 + body);
        store16(ip + 10, 0);
        Checksum sum;
        sum.add(ip, 20);
        const uint16_t value = sum.final();
        std::memcpy(ip + 10, &value, 2);
      }
      // The stack has left the pseudo-header's sum, with TSO without the length.
      if (frame.segment_bytes != 0) {
        uint16_t partial;
        std::memcpy(&partial, tcp + 16, 2);
        Checksum sum;
        sum.add(&partial, 2);
        sum.add16(body);
        partial = sum.folded();
        std::memcpy(tcp + 16, &partial, 2);
      }
      Checksum sum;
      sum.add(tcp, body);
      const uint16_t value = sum.final();
      std::memcpy(tcp + 16, &value, 2);
    }
    if (frame.vlan_tci != 0) {
      const uint8_t tag[4] = {0x81, 0, static_cast<uint8_t>(frame.vlan_tci >> 8), static_cast<uint8_t>(frame.vlan_tci)};
      bytes.insert(bytes.begin() + 12, tag, tag + 4);
    }
    out.push_back(std::move(bytes));
    at += n;
  } while (at < payload.size());
  return out;
}

bool WireEnd::transmit(const OutFrame& frame) {
  if (wire_.chance(wire_.faults_[side_].refuse)) return false;
  if (frame.headers.size() > kMaxHeaders && frame.tcp) std::abort();
  for (auto& bytes : cut_frame(frame)) wire_.carry(side_, std::move(bytes));
  if (hold_payload && !frame.payload.empty()) {
    Held held;
    for (const PayloadView& view : frame.payload) {
      view.owner->hold();
      held.owners.push_back(view.owner);
    }
    held_.push_back(std::move(held));
  }
  return true;
}

void WireEnd::finish_holds() {
  std::vector<Held> done;
  done.swap(held_);
  for (Held& held : done) {
    for (Hold* owner : held.owners) owner->drop();
  }
}

void WireEnd::deliver(Stack& stack, const std::vector<uint8_t>& bytes, int64_t now_ns) {
  // Exactly as long as the frame, so that a read beyond it is seen.
  auto* copy = static_cast<uint8_t*>(std::malloc(std::max<size_t>(bytes.size(), 1)));
  std::memcpy(copy, bytes.data(), bytes.size());
  const auto token = reinterpret_cast<uint64_t>(copy);
  live_.insert(token);
  stack.input({.data = copy, .size = static_cast<uint32_t>(bytes.size()), .token = token}, now_ns);
}

void WireEnd::free_frame(uint64_t token) {
  if (live_.erase(token) != 1) std::abort();  // freed twice, or never ours
  std::free(reinterpret_cast<void*>(token));
}

void Wire::carry(int from, std::vector<uint8_t> frame) {
  ++frames;
  if (tap && !tap(from, frame)) {
    ++lost;
    return;
  }
  const Faults& faults = faults_[from];
  if (cut || chance(faults.loss)) {
    ++lost;
    return;
  }
  int64_t leaves = now_ns;
  if (faults.ns_per_byte > 0) {
    if (queued_[from] >= faults.queue_frames) {
      ++lost;
      return;
    }
    free_at_[from] = std::max(free_at_[from], now_ns) + static_cast<int64_t>(frame.size()) * faults.ns_per_byte;
    leaves = free_at_[from];
    ++queued_[from];
  }
  if (chance(faults.corrupt)) {
    const size_t bit = random.below(frame.size() * 8);
    frame[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }
  const int copies = chance(faults.duplicate) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    int64_t at = leaves + faults.delay_ns;
    if (chance(faults.reorder)) at += static_cast<int64_t>(random.below(static_cast<uint64_t>(faults.jitter_ns) + 1));
    in_flight_.push(std::make_shared<Travelling>(Travelling{at, order_++, 1 - from, frame}));
  }
}

void Wire::deliver_due(Stack* stacks[2]) {
  while (!in_flight_.empty() && in_flight_.top()->at_ns <= now_ns) {
    const auto frame = in_flight_.top();
    in_flight_.pop();
    if (faults_[1 - frame->to].ns_per_byte > 0 && queued_[1 - frame->to] > 0) --queued_[1 - frame->to];
    if (stacks[frame->to] != nullptr) ends_[frame->to].deliver(*stacks[frame->to], frame->bytes, now_ns);
  }
}

}  // namespace peregrine::net::tcp::test
