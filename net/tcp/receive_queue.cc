#include "net/tcp/receive_queue.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

Chunk* Chunk::make(uint32_t capacity) {
  auto* chunk = static_cast<Chunk*>(std::malloc(sizeof(Chunk) + capacity));
  if (chunk == nullptr) throw std::bad_alloc();
  chunk->size = 0;
  chunk->capacity = capacity;
  return chunk;
}

void ReceiveQueue::free_chunk(Chunk* chunk) {
  *bytes_held_ -= chunk->size;
  std::free(chunk);
}

void ReceiveQueue::add(size_t at, uint32_t start, const uint8_t* bytes, uint32_t size) {
  // A stream of segments behind a gap becomes a few pieces: the one before grows while it has room, and the next has
  // room from the start.
  const bool continues = at > 0 && pieces_[at - 1].end == start;
  if (continues) {
    Piece& previous = pieces_[at - 1];
    if (previous.chunk->capacity - previous.chunk->size >= size) {
      std::memcpy(previous.chunk->data + previous.chunk->size, bytes, size);
      previous.chunk->size += size;
      previous.end += size;
      *bytes_held_ += size;
      return;
    }
  }
  Chunk* chunk = Chunk::make(continues ? std::max(size, std::min(8 * size, 16384u)) : size);
  std::memcpy(chunk->data, bytes, size);
  chunk->size = size;
  *bytes_held_ += size;
  pieces_.insert(pieces_.begin() + static_cast<ptrdiff_t>(at), Piece{start, start + size, chunk});
}

uint32_t ReceiveQueue::insert(uint32_t seq, const uint8_t* bytes, uint32_t size, bool& full, SackBlock& known) {
  const uint32_t end = seq + size;
  uint32_t kept = 0;
  uint32_t at_seq = seq;
  size_t i = 0;
  while (i < pieces_.size() && at_or_before(pieces_[i].end, seq)) ++i;
  while (before(at_seq, end)) {
    const uint32_t gap_end = i < pieces_.size() ? earlier(end, pieces_[i].start) : end;
    if (before(at_seq, gap_end)) {
      if (pieces_.size() >= kMaxPieces) {
        full = true;
        break;
      }
      const size_t count = pieces_.size();
      add(i, at_seq, bytes + (at_seq - seq), gap_end - at_seq);
      i += pieces_.size() - count;
      kept += gap_end - at_seq;
      at_seq = gap_end;
    }
    if (i < pieces_.size() && before(at_seq, end)) {
      const uint32_t known_end = earlier(end, pieces_[i].end);
      if (known.start == known.end) known = {at_seq, known_end};
      if (known.end == at_seq) known.end = known_end;
      at_seq = known_end;
      ++i;
    }
  }
  if (kept > 0) {
    std::copy_backward(recent_, recent_ + 3, recent_ + 4);
    recent_[0] = seq;
    recent_count_ = static_cast<uint8_t>(std::min(recent_count_ + 1, 4));
  }
  return kept;
}

Chunk* ReceiveQueue::take_in_order(uint32_t rcv_nxt) {
  while (!pieces_.empty() && at_or_before(pieces_.front().start, rcv_nxt)) {
    const Piece piece = pieces_.front();
    pieces_.erase(pieces_.begin());
    if (at_or_before(piece.end, rcv_nxt)) {
      free_chunk(piece.chunk);
      continue;
    }
    Chunk* chunk = piece.chunk;
    *bytes_held_ -= chunk->size;
    if (const uint32_t skip = rcv_nxt - piece.start; skip > 0) {
      chunk->size -= skip;
      std::memmove(chunk->data, chunk->data + skip, chunk->size);
    }
    return chunk;
  }
  if (pieces_.empty()) recent_count_ = 0;
  return nullptr;
}

void ReceiveQueue::push_ready(const uint8_t* bytes, uint32_t size) {
  ready_bytes_ += size;
  *bytes_held_ += size;
  if (has_ready()) {
    Chunk* last = ready_.back();
    const uint32_t n = std::min(last->capacity - last->size, size);
    std::memcpy(last->data + last->size, bytes, n);
    last->size += n;
    bytes += n;
    size -= n;
  }
  if (size == 0) return;
  // Doubles, so that a paused stream of tiny segments ends in few chunks and one tiny segment does not cost a page.
  const uint32_t capacity = std::max(size, std::clamp(ready_bytes_, 512u, 65536u));
  Chunk* chunk = Chunk::make(capacity);
  std::memcpy(chunk->data, bytes, size);
  chunk->size = size;
  ready_.push_back(chunk);
}

void ReceiveQueue::push_ready(Chunk* chunk) {
  ready_bytes_ += chunk->size;
  *bytes_held_ += chunk->size;
  ready_.push_back(chunk);
}

Chunk* ReceiveQueue::take_ready() {
  if (!has_ready()) return nullptr;
  Chunk* chunk = ready_[ready_head_++];
  ready_bytes_ -= chunk->size;
  *bytes_held_ -= chunk->size;
  if (ready_head_ == ready_.size()) {
    ready_.clear();
    ready_head_ = 0;
  }
  return chunk;
}

uint8_t ReceiveQueue::blocks(SackBlock* out, uint8_t max) const {
  uint8_t count = 0;
  const auto run_at = [this](size_t i) {  // pieces that touch are one block
    SackBlock run{pieces_[i].start, pieces_[i].end};
    for (size_t before_i = i; before_i > 0 && pieces_[before_i - 1].end == run.start; --before_i) {
      run.start = pieces_[before_i - 1].start;
    }
    for (size_t next = i + 1; next < pieces_.size() && pieces_[next].start == run.end; ++next)
      run.end = pieces_[next].end;
    return run;
  };
  const auto add_run = [&](const SackBlock& run) {
    for (uint8_t k = 0; k < count; ++k) {
      if (out[k].start == run.start) return;
    }
    out[count++] = run;
  };
  for (uint8_t r = 0; r < recent_count_ && count < max; ++r) {
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (at_or_before(pieces_[i].start, recent_[r]) && before(recent_[r], pieces_[i].end)) {
        add_run(run_at(i));
        break;
      }
    }
  }
  for (size_t i = 0; i < pieces_.size() && count < max; ++i) {
    if (i == 0 || pieces_[i - 1].end != pieces_[i].start) add_run(run_at(i));
  }
  return count;
}

void ReceiveQueue::clear_gaps() {
  for (const Piece& piece : pieces_) free_chunk(piece.chunk);
  pieces_.clear();
  recent_count_ = 0;
}

void ReceiveQueue::clear() {
  clear_gaps();
  for (size_t i = ready_head_; i < ready_.size(); ++i) free_chunk(ready_[i]);
  ready_.clear();
  ready_head_ = 0;
  ready_bytes_ = 0;
}

}  // namespace peregrine::net::tcp
