// Bytes of a route, gateway or leafnode connection -> protocol operations; stops at any byte and goes on from there.
//
// One per session, used by its shard only. All peer protocols share a form: a verb, tokens, and for messages a payload
// whose size ends the line. What the tokens mean is the session's business (an RS+ of a route names an account, one of
// a gateway too, an LS+ of a leafnode does not). Views are good until the next call: they point into the caller's
// buffer, or into the parser's own when the operation was split across buffers; only then is anything copied, once, and
// memory for a payload grows with the bytes that have arrived. Bounds: a line up to `max_line`, a payload up to
// `max_payload` (checked before any byte of it is kept). Source: nats-server's server/parser.go; parity.md sections 5
// to 7.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace peregrine::cluster {

enum class PeerVerb : uint8_t {
  kInfo,
  kConnect,
  kPing,
  kPong,
  kOk,
  kErr,
  kRoutedSub,     // RS+
  kRoutedUnsub,   // RS-
  kLeafSub,       // LS+
  kLeafUnsub,     // LS-
  kAccountSub,    // A+
  kAccountUnsub,  // A-
  // with a payload
  kRoutedMessage,  // RMSG
  kLeafMessage,    // LMSG
  kHeaderMessage,  // HMSG
};
constexpr bool has_payload(PeerVerb verb) { return verb >= PeerVerb::kRoutedMessage; }

struct PeerOperation {
  PeerVerb verb;
  std::string_view text;                     // what follows the verb: JSON of INFO and CONNECT, the text of -ERR
  std::span<const std::string_view> tokens;  // the same in tokens, sizes of a message left out; none for JSON
  std::string_view payload;                  // headers and body, without the closing CR LF
  uint32_t header_size = 0;                  // HMSG
};

enum class PeerStatus : uint8_t {
  kOperation,     // `operation` is filled
  kMore,          // the buffer is used up; come back with more
  kUnknown,       // not a verb, or a payload without its CR LF
  kBadArguments,  // a message whose sizes are missing or wrong
  kLine,          // line longer than max_line
  kMaxPayload,    // announced size above max_payload
};

class PeerParser {
 public:
  struct Limits {
    size_t max_line = 1 << 20;  // INFO lists every URL of a cluster, RMSG every queue group
    int64_t max_payload = -1;   // < 0: none
  };

  // Takes the next operation from the front of `in`, which is shortened by what was used. After an error the parser
  // must not be used again.
  PeerStatus next(std::string_view& in, const Limits& limits, PeerOperation& operation);
  // Nothing of an operation has been taken that was not returned.
  bool between_operations() const { return held_ || (line_.empty() && !in_payload_); }
  // The last operation was split across buffers: its views are not into the caller's.
  bool last_was_split() const { return held_; }
  // ... and its payload is in memory of the parser's own, which the caller may have: the view stays as it is.
  bool last_was_gathered() const { return held_ && !payload_.empty(); }
  std::string take_gathered() { return std::move(payload_); }
  // What it has waited for since kMore is the payload of a message.
  bool awaits_payload() const { return in_payload_; }
  size_t memory_bytes() const { return line_.capacity() + payload_.capacity(); }

 private:
  PeerStatus parse_line(std::string_view line, const Limits& limits, PeerOperation& operation);
  PeerStatus take_payload(std::string_view& in, PeerOperation& operation);

  std::vector<std::string_view> tokens_;
  std::string line_;     // of a split operation: its line so far, or all of it while the payload is awaited
  std::string payload_;  // and its payload so far
  uint32_t payload_size_ = 0;
  bool in_payload_ = false;
  bool held_ = false;  // the last operation's views point into line_ and payload_
};

}  // namespace peregrine::cluster
