#include "net/tcp/send_queue.h"

#include <algorithm>
#include <new>

#include "net/tcp/wire.h"

namespace peregrine::net::tcp {

Block* Block::make(Port& port) {
  static_assert(sizeof(Block) <= kHeader);
  return new (port.allocate_block()) Block(port);
}

void Block::released() {
  Port* port = port_;
  this->~Block();
  port->free_block(this);
}

void SendQueue::append_copy(BlockFiller& filler, const uint8_t* bytes, uint32_t size) {
  while (size > 0) {
    Block* block = filler.block();
    const uint32_t n = std::min(size, block->room());
    const uint8_t* at = block->append(bytes, n);
    if (!empty() && pieces_.back().owner == block && pieces_.back().data + pieces_.back().size == at) {
      pieces_.back().size += n;
    } else {
      block->hold();
      pieces_.push_back({end_, n, at, block});
    }
    end_ += n;
    bytes += n;
    size -= n;
  }
}

void SendQueue::append_reference(const uint8_t* bytes, uint32_t size, Hold* owner) {
  owner->hold();
  pieces_.push_back({end_, size, bytes, owner});
  end_ += size;
}

void SendQueue::drop_front() {
  pieces_[head_].owner->drop();
  if (++head_ == pieces_.size()) {
    pieces_.clear();
    head_ = 0;
  } else if (head_ >= 64 && head_ * 2 >= pieces_.size()) {
    pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<ptrdiff_t>(head_));
    head_ = 0;
  }
}

void SendQueue::acknowledge(uint32_t seq) {
  while (!empty()) {
    Piece& piece = pieces_[head_];
    if (after(piece.seq + piece.size, seq)) {
      if (before(piece.seq, seq)) {
        const uint32_t n = seq - piece.seq;
        piece.seq += n;
        piece.data += n;
        piece.size -= n;
      }
      return;
    }
    drop_front();
  }
}

void SendQueue::clear() {
  for (size_t i = head_; i < pieces_.size(); ++i) pieces_[i].owner->drop();
  pieces_.clear();
  head_ = 0;
}

size_t SendQueue::find(uint32_t seq) const {
  size_t low = head_, high = pieces_.size();
  while (high - low > 1) {
    const size_t middle = (low + high) / 2;
    if (after(pieces_[middle].seq, seq)) {
      high = middle;
    } else {
      low = middle;
    }
  }
  return low;
}

uint32_t SendQueue::gather(uint32_t seq, uint32_t bytes, PayloadView* views, uint32_t max_views,
                           uint32_t& count) const {
  uint32_t gathered = 0;
  count = 0;
  if (empty()) return 0;
  for (size_t i = find(seq); i < pieces_.size() && gathered < bytes && count < max_views; ++i) {
    const Piece& piece = pieces_[i];
    const uint32_t skip = seq + gathered - piece.seq;
    const uint32_t n = std::min(piece.size - skip, bytes - gathered);
    views[count++] = {piece.data + skip, n, piece.owner};
    gathered += n;
  }
  return gathered;
}

void SendQueue::split(uint32_t seq) {
  const size_t i = find(seq);
  if (pieces_[i].seq == seq || seq == end_) return;
  Piece tail = pieces_[i];
  const uint32_t n = seq - tail.seq;
  tail.seq += n;
  tail.data += n;
  tail.size -= n;
  tail.owner->hold();
  pieces_[i].size = n;
  pieces_.insert(pieces_.begin() + static_cast<ptrdiff_t>(i) + 1, tail);
}

void SendQueue::compact(BlockFiller& filler, uint32_t seq, uint32_t bytes) {
  split(seq);
  split(seq + bytes);
  const size_t first = find(seq);
  Block* block = filler.block(bytes);
  const uint8_t* begin = nullptr;
  size_t last = first;
  for (uint32_t copied = 0; copied < bytes; ++last) {
    const uint8_t* at = block->append(pieces_[last].data, pieces_[last].size);
    if (begin == nullptr) begin = at;
    copied += pieces_[last].size;
    pieces_[last].owner->drop();
  }
  block->hold();
  pieces_[first] = {seq, bytes, begin, block};
  pieces_.erase(pieces_.begin() + static_cast<ptrdiff_t>(first) + 1, pieces_.begin() + static_cast<ptrdiff_t>(last));
}

void SendQueue::copy_references(BlockFiller& filler, const Hold* owner) {
  std::vector<Piece> copied;
  copied.reserve(pieces_.size() - head_);
  for (size_t i = head_; i < pieces_.size(); ++i) {
    Piece piece = pieces_[i];
    if (piece.owner != owner) {
      copied.push_back(piece);
      continue;
    }
    while (piece.size > 0) {
      Block* block = filler.block();
      const uint32_t n = std::min(piece.size, block->room());
      block->hold();
      copied.push_back({piece.seq, n, block->append(piece.data, n), block});
      piece.seq += n;
      piece.data += n;
      piece.size -= n;
    }
    piece.owner->drop();
  }
  pieces_ = std::move(copied);
  head_ = 0;
}

}  // namespace peregrine::net::tcp
