// What the load generator puts on the wire, and how it recognises every byte of it when it comes back.
//
// A payload carries its own proof (little endian):
//   bytes 0..7    sequence number (48 bits, per publisher) and publisher (16 bits)
//   bytes 8..15   index of the subject (32 bits) and a check over all three (32 bits)
//   bytes 16..    a slice of a fixed random pattern, chosen by the sequence number
// A shorter payload is cut off; order and content are then compared against the next expected message, which needs one
// publisher, one subject and every message at every subscriber.
//
// Cost: the publisher patches 16 bytes in frames encoded once; the checker compares a line that never changes its
// length, and the payload. A few nanoseconds a message, far below any broker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "bench/load_wire.h"

namespace peregrine::bench {

enum class SubjectChoice {
  kPublisher,
  kCycle,
  kRandom
};  // by publisher id; round robin; pseudo-random by sequence number

// Subjects, sids and sizes of one run. Every line of a run has the same length, which is what makes checking cheap.
class Layout {
 public:
  // `subjects_per_sid`: how many subjects have the same sid, each on another connection, so that each connection's sids
  // count up, as those of client libraries do; 0 = the sid is always 1. `publishers`: a crowd of them gets smaller
  // batches, so that all together stay in the cache.
  Layout(uint32_t payload_bytes, uint32_t subjects, SubjectChoice choice, uint32_t subjects_per_sid, bool raw,
         uint32_t publishers = 1);

  uint32_t payload_bytes() const { return payload_bytes_; }
  uint32_t subjects() const { return subjects_; }
  size_t sent_line_bytes() const { return sent_line_.size(); }
  size_t received_line_bytes() const { return received_line_.size(); }
  size_t sent_frame_bytes() const { return sent_line_.size() + payload_bytes_ + 2; }
  size_t received_frame_bytes() const { return received_line_.size() + payload_bytes_ + 2; }

  uint32_t subject_of(uint32_t publisher, uint64_t sequence) const {
    switch (choice_) {
      case SubjectChoice::kPublisher:
        return subjects_ == 1 ? 0 : publisher;
      case SubjectChoice::kCycle:
        return static_cast<uint32_t>(sequence % subjects_);
      case SubjectChoice::kRandom: {
        uint64_t x = (sequence + 1) * 0x9E3779B97F4A7C15u;
        x = (x ^ (x >> 31)) * 0xBF58476D1CE4E5B9u;
        return static_cast<uint32_t>(((x >> 32) * subjects_) >> 32);
      }
    }
    return 0;
  }

  std::string subject(uint32_t index) const;
  std::string wildcard() const;  // a pattern that matches all subjects
  std::string sid(uint32_t index) const;

  void write_sent_line(char* to, uint32_t index) const;
  void write_received_line(char* to, uint32_t index) const;
  // Whether a slot of the pre-encoded batch keeps its subject for every sequence number that falls on it.
  bool lines_fixed() const {
    return subjects_ == 1 || choice_ == SubjectChoice::kPublisher ||
           (choice_ == SubjectChoice::kCycle && frames_in_batch_ % subjects_ == 0);
  }
  bool same_line(const char* received, uint32_t index) const {
    if (lines_.empty()) [[unlikely]]
      return slow_same_line(received, index);
    return std::memcmp(received, lines_.data() + index * received_line_.size(), received_line_.size()) == 0;
  }

  // Payload of a message: the 16 leading bytes, and where in the pattern the rest lies.
  static void write_head(char* to, uint32_t publisher, uint64_t sequence, uint32_t index) {
    const uint64_t word = sequence | static_cast<uint64_t>(publisher) << 48;
    const uint64_t tail = index | static_cast<uint64_t>(check(word, index)) << 32;
    std::memcpy(to, &word, 8);
    std::memcpy(to + 8, &tail, 8);
  }
  static uint32_t check(uint64_t word, uint32_t index) {
    return static_cast<uint32_t>(((word ^ (static_cast<uint64_t>(index) << 20)) * 0x9E3779B97F4A7C15u) >> 32) | 1u;
  }
  static uint64_t mix(uint64_t word) {
    word = (word ^ (word >> 29)) * 0xBF58476D1CE4E5B9u;
    return word ^ (word >> 32);
  }
  uint32_t frames_in_batch() const { return frames_in_batch_; }
  // The slice repeats with the batch, so that frames encoded once stay right for every sequence number of their slot.
  const char* body(uint64_t sequence) const { return pattern_.data() + (sequence & (frames_in_batch_ - 1) & 63) * 8; }

 private:
  bool slow_same_line(const char* received, uint32_t index) const;
  void write_subject(char* to, uint32_t index) const;
  void write_sid(char* to, uint32_t index) const;

  uint32_t payload_bytes_;
  uint32_t subjects_;
  SubjectChoice choice_;
  uint32_t subjects_per_sid_;
  uint32_t frames_in_batch_ = 0;
  std::string sent_line_, received_line_;  // of subject 0
  size_t sent_subject_at_ = 0, received_subject_at_ = 0, received_sid_at_ = 0;
  std::vector<char> lines_;  // all received lines, when they are few
  std::vector<char> pattern_;
};

// One publishing connection: a ring of pre-encoded frames, patched and written as credit allows.
// Invariant: completed() <= prepared_ <= limit given to pump().
class Publisher {
 public:
  struct Options {
    uint32_t id = 0;
    size_t write_bytes_max = 64 * 1024;
    bool own_write = false;  // every message in its own write
    uint32_t ack_every = 0;  // PING after that many frames; the PONG acknowledges them
  };
  Publisher(const Layout& layout, const Options& options, const Target& target, const std::string& introduction);

  // Writes messages with sequence numbers below `limit` until the socket is full, the limit is met, or `writes_max`
  // writes.
  void pump(uint64_t limit, uint32_t writes_max);
  // The socket may have room again / may have something to read (PING, PONG, -ERR).
  void writable() { blocked_ = false; }
  void readable();

  bool blocked() const { return blocked_; }
  bool idle() const { return from_ == to_ && control_.empty(); }
  uint64_t completed() const { return completed_; }
  uint64_t acknowledged() const { return acknowledged_; }
  uint64_t writes() const { return writes_; }
  uint32_t id() const { return options_.id; }
  Connection& connection() { return connection_; }

 private:
  void prepare(uint64_t frames);
  void encode_batch();
  void next_control();

  const Layout& layout_;
  Options options_;
  Connection connection_;
  std::vector<char> batch_;
  uint64_t prepared_ = 0;
  uint64_t completed_ = 0;
  uint64_t acknowledged_ = 0;
  uint64_t pinged_at_ = 0;
  uint64_t writes_ = 0;
  const char* from_ = nullptr;
  const char* to_ = nullptr;
  bool writing_control_ = false;
  bool blocked_ = false;
  std::string control_;  // goes out at the next frame boundary
  std::string control_out_;
  std::string line_;
};

// One receiving connection: checks count, order and content of everything that arrives.
class Subscriber {
 public:
  enum class Order {
    kExact,      // every message of every publisher, each publisher's in sequence
    kIncreasing  // a share of the messages (queue group, own subjects): sequence grows, sums are compared at the end
  };
  struct Options {
    uint32_t id = 0;
    uint32_t publishers = 1;
    uint32_t only_publisher = UINT32_MAX;  // when every publisher has its own subscriber
    Order order = Order::kExact;
  };
  Subscriber(const Layout& layout, const Options& options, const Target& target, const std::string& introduction);

  // Reads once through the caller's scratch buffer. Returns messages received. arrived[p] counts messages per
  // publisher.
  size_t readable(std::vector<char>& scratch, uint64_t* arrived);

  uint64_t received() const { return received_; }
  uint64_t reads() const { return reads_; }
  uint64_t next(uint32_t publisher) const { return next_[publisher % next_.size()]; }
  uint64_t sum() const { return sum_; }
  Connection& connection() { return connection_; }

 private:
  size_t feed(const char* data, size_t size, uint64_t* arrived);
  size_t control(const char* data, size_t size);
  void accept(uint64_t word, uint32_t index, uint64_t* arrived);
  [[noreturn]] void mismatch(const char* what, const char* at, size_t available) const;

  const Layout& layout_;
  Options options_;
  Connection connection_;
  std::vector<uint64_t> next_;  // by publisher; a single one when only one is listened to
  uint64_t received_ = 0;
  uint64_t reads_ = 0;
  uint64_t sum_ = 0;
  std::string carry_;           // an incomplete frame (or the head of a large one) from the last read
  const char* body_ = nullptr;  // expected rest of a large payload in progress
  size_t body_left_ = 0;        // including CRLF
};

}  // namespace peregrine::bench
