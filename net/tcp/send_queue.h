// Bytes accepted by send() and not yet acknowledged, by sequence number: references to memory, never segments, so that
// a retransmission is cut anew for whatever the segment size is by then.
//
// Pieces are contiguous: piece[i].seq + piece[i].size == piece[i + 1].seq. Each holds its memory (port.h: Hold): a
// shared Block of copied bytes, or the caller's own memory (ReferenceSend).
#pragma once

#include <cstdint>
#include <vector>

#include "net/tcp/port.h"

namespace peregrine::net::tcp {

// kBlockBytes from the Port, filled from the front by all connections of the stack in turn; freed with the last byte
// anybody needs.
class Block final : public Hold {
 public:
  static Block* make(Port& port);
  static constexpr uint32_t kLargest = Port::kBlockBytes - 64;
  uint32_t room() const { return kLargest - used_; }
  uint8_t* append(const void* bytes, uint32_t size) {
    uint8_t* at = reinterpret_cast<uint8_t*>(this) + kHeader + used_;
    std::memcpy(at, bytes, size);
    used_ += size;
    return at;
  }

 private:
  static constexpr uint32_t kHeader = Port::kBlockBytes - kLargest;
  explicit Block(Port& port) : port_(&port) {}
  void released() override;
  Port* port_;
  uint32_t used_ = 0;
};

// The block being filled, one per stack.
class BlockFiller {
 public:
  explicit BlockFiller(Port& port) : port_(port) {}
  ~BlockFiller() {
    if (block_ != nullptr) block_->drop();
  }
  BlockFiller(const BlockFiller&) = delete;
  BlockFiller& operator=(const BlockFiller&) = delete;
  // Never null, with at least `room` bytes free (at most kLargest).
  Block* block(uint32_t room = 1) {
    if (block_ != nullptr && block_->room() < room) {
      block_->drop();
      block_ = nullptr;
    }
    if (block_ == nullptr) block_ = Block::make(port_);
    return block_;
  }

 private:
  Port& port_;
  Block* block_ = nullptr;
};

class SendQueue {
 public:
  explicit SendQueue(uint32_t seq) : end_(seq) {}
  ~SendQueue() { clear(); }
  SendQueue(const SendQueue&) = delete;
  SendQueue& operator=(const SendQueue&) = delete;

  bool empty() const { return head_ == pieces_.size(); }
  uint32_t end() const { return end_; }
  uint32_t bytes() const { return empty() ? 0 : end_ - pieces_[head_].seq; }

  void append_copy(BlockFiller& filler, const uint8_t* bytes, uint32_t size);
  void append_reference(const uint8_t* bytes, uint32_t size, Hold* owner);  // takes a hold of its own
  void acknowledge(uint32_t seq);                                           // drops what is before `seq`
  void clear();

  // Views of up to `bytes` from `seq` on; stops at max_views. Returns how many bytes they cover.
  uint32_t gather(uint32_t seq, uint32_t bytes, PayloadView* views, uint32_t max_views, uint32_t& count) const;
  // Makes [seq, seq + bytes), which must be in the queue and at most Block::kLargest long, one piece by copying it:
  // many small pieces do not fit the NIC's descriptors.
  void compact(BlockFiller& filler, uint32_t seq, uint32_t bytes);
  // Copies what `owner` still holds, so that the owner is no longer needed.
  void copy_references(BlockFiller& filler, const Hold* owner);

 private:
  struct Piece {
    uint32_t seq, size;
    const uint8_t* data;
    Hold* owner;
  };
  size_t find(uint32_t seq) const;  // index of the piece that contains seq
  void split(uint32_t seq);         // makes seq the beginning of a piece
  void drop_front();

  std::vector<Piece> pieces_;
  size_t head_ = 0;
  uint32_t end_;
};

}  // namespace peregrine::net::tcp
