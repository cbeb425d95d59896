// Bytes that could not be handed on at once: behind a gap (reassembly), or in order for a connection that is paused.
//
// Everything here is copied (a received frame is never kept) and counted in `bytes_held`, which the stack bounds.
// Invariants of the pieces behind a gap: sorted, not overlapping, all after RCV.NXT; what came first wins, so that a
// blind injector cannot replace bytes. Pieces are bounded in number besides: kMaxPieces.
#pragma once

#include <cstdint>
#include <vector>

#include "net/tcp/segment.h"

namespace peregrine::net::tcp {

// Heap memory of received bytes; becomes a kData event and is freed when that is released.
struct Chunk {
  uint32_t size, capacity;
  char data[];
  static Chunk* make(uint32_t capacity);
};

class ReceiveQueue {
 public:
  static constexpr size_t kMaxPieces = 1024;

  explicit ReceiveQueue(uint64_t* bytes_held) : bytes_held_(bytes_held) {}
  ~ReceiveQueue() { clear(); }
  ReceiveQueue(const ReceiveQueue&) = delete;
  ReceiveQueue& operator=(const ReceiveQueue&) = delete;

  bool empty() const { return pieces_.empty() && ready_head_ == ready_.size(); }
  bool has_gap() const { return !pieces_.empty(); }
  bool has_ready() const { return ready_head_ < ready_.size(); }
  uint32_t ready_bytes() const { return ready_bytes_; }

  // Out of order. Returns bytes newly kept; 0 for a duplicate. `full`: something had to be left out. [known_start,
  // known_end): the part that was there already (empty if none), for D-SACK.
  uint32_t insert(uint32_t seq, const uint8_t* bytes, uint32_t size, bool& full, SackBlock& known);
  // The next piece if it is in order now: a chunk that begins at rcv_nxt. Null otherwise. The chunk is the caller's.
  Chunk* take_in_order(uint32_t rcv_nxt);

  void push_ready(const uint8_t* bytes, uint32_t size);
  void push_ready(Chunk* chunk);
  Chunk* take_ready();

  // SACK blocks, the one with the latest segment first (RFC 2018 section 4). Returns the count.
  uint8_t blocks(SackBlock* out, uint8_t max) const;
  void clear_gaps();
  void clear();

 private:
  struct Piece {
    uint32_t start, end;
    Chunk* chunk;
  };
  void add(size_t at, uint32_t start, const uint8_t* bytes, uint32_t size);
  void free_chunk(Chunk* chunk);

  uint64_t* bytes_held_;
  std::vector<Piece> pieces_;
  std::vector<Chunk*> ready_;
  size_t ready_head_ = 0;
  uint32_t ready_bytes_ = 0;
  uint32_t recent_[4] = {};  // sequence numbers that arrived last, latest first
  uint8_t recent_count_ = 0;
};

}  // namespace peregrine::net::tcp
