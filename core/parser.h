// Bytes of a client connection -> protocol operations; stops at any byte and goes on from there.
//
// One per session, used by its shard only. next() takes one operation at a time from the caller's buffer; subject,
// reply and payload of the Operation are views into that buffer, or into the parser's own when the operation was split
// across buffers. They are good until the next call. Only a split operation is copied, once; memory for a split payload
// grows with the bytes that have arrived, so announcing 64 MiB costs the sender 64 MiB first (design.md section 3).
// Bounds: a control line is held up to max_control_line bytes, a payload up to max_payload + 2.
// Source for what is accepted: nats-server's server/parser.go; parity.md section 1.1.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace peregrine::core {

struct Operation {
  enum class Kind : uint8_t { kPub, kHpub, kSub, kUnsub, kConnect, kPing, kPong, kOk, kErr, kInfo };
  Kind kind;
  std::string_view subject;  // PUB, HPUB, SUB; sid of UNSUB; the argument text of CONNECT, -ERR, INFO
  std::string_view reply;    // PUB, HPUB
  std::string_view queue;    // SUB
  std::string_view sid;      // SUB, UNSUB
  int64_t max = -1;          // UNSUB: the second argument; negative = none or not a number
  std::string_view payload;  // PUB, HPUB: headers and body, without the closing CR LF
  uint32_t header_size = 0;  // HPUB
};

enum class ParseStatus : uint8_t {
  kOperation,     // `operation` is filled
  kMore,          // the buffer is used up; come back with more
  kUnknown,       // not a protocol verb, or a payload without its CR LF: -ERR 'Unknown Protocol Operation'
  kBadArguments,  // a verb with wrong arguments: closed without -ERR
  kControlLine,   // line too long
  kMaxPayload,    // declared size above max_payload; checked before any payload byte is kept
  kNotConnected,  // connect_first, and the line does not begin like CONNECT; nothing was taken
};

struct ParserLimits {
  uint32_t max_control_line;
  int64_t max_payload;         // < 0: no limit
  bool headers = false;        // HPUB is allowed
  bool connect_first = false;  // only CONNECT is acceptable now
};

class Parser {
 public:
  // Takes the next operation from the front of `in`, which is shortened by what was used. After an error status the
  // parser must not be used again (kNotConnected excepted).
  ParseStatus next(std::string_view& in, const ParserLimits& limits, Operation& operation);

  // Right behind a SUB or UNSUB: the next operation, if it is another one, whole and simple. Else false, and nothing is
  // taken: next() knows what it is.
  bool next_interest(std::string_view& in, const ParserLimits& limits, Operation& operation);

  // What the views of the last operation point into, if it was split and its payload does not lie in the caller's
  // buffer: for who wants to keep it. The views stay good as long as the string is not changed.
  std::string take_gathered() { return std::move(held_); }

  bool idle() const { return state_ == State::kLine && partial_.empty(); }
  size_t memory_bytes() const { return partial_.capacity() + held_.capacity(); }
  void release_memory() {
    if (partial_.empty()) partial_.shrink_to_fit();
    held_ = {};
  }

 private:
  enum class State : uint8_t { kLine, kPayload };

  ParseStatus parse_line(std::string_view line, const ParserLimits& limits, Operation& operation);
  ParseStatus parse_pub(std::string_view args, bool headers, const ParserLimits& limits, Operation& operation);
  ParseStatus fast_pub(std::string_view& in, const ParserLimits& limits, Operation& operation);
  ParseStatus take_payload(std::string_view& in, Operation& operation);
  ParseStatus slow_line(std::string_view& in, const ParserLimits& limits, Operation& operation);
  void keep_arguments(const Operation& operation);

  State state_ = State::kLine;
  bool hpub_ = false;
  uint32_t subject_size_ = 0, reply_size_ = 0, header_size_ = 0;
  uint32_t payload_size_ = 0;
  // kLine: the start of a line whose LF has not come. kPayload: subject, reply and the payload bytes so far.
  std::string partial_;
  bool swallowed_ = false;  // bytes of a PING, PONG or +OK line were dropped before its LF came
  std::string held_;        // what the last operation's views point into, if it was split
};

}  // namespace peregrine::core
