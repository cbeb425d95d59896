#include "cluster/peer_parser.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace peregrine::cluster {
namespace {

struct VerbName {
  std::string_view name;
  PeerVerb verb;
};
// By first letter; nats-server takes verbs in any case.
constexpr std::array<VerbName, 15> kVerbs = {{
    {"RMSG", PeerVerb::kRoutedMessage},
    {"LMSG", PeerVerb::kLeafMessage},
    {"HMSG", PeerVerb::kHeaderMessage},
    {"RS+", PeerVerb::kRoutedSub},
    {"RS-", PeerVerb::kRoutedUnsub},
    {"LS+", PeerVerb::kLeafSub},
    {"LS-", PeerVerb::kLeafUnsub},
    {"A+", PeerVerb::kAccountSub},
    {"A-", PeerVerb::kAccountUnsub},
    {"PING", PeerVerb::kPing},
    {"PONG", PeerVerb::kPong},
    {"INFO", PeerVerb::kInfo},
    {"CONNECT", PeerVerb::kConnect},
    {"+OK", PeerVerb::kOk},
    {"-ERR", PeerVerb::kErr},
}};
constexpr size_t kLongestVerb = 7;
constexpr size_t kGrowth = 8;
constexpr size_t kKeptBytes = 64 * 1024;  // of a split operation's buffers, for the next one

bool is_blank(char c) { return c == ' ' || c == '\t'; }
char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }

// Behind verbs without arguments nobody looks, and JSON may follow CONNECT at once.
bool needs_blank(PeerVerb verb) {
  return verb != PeerVerb::kPing && verb != PeerVerb::kPong && verb != PeerVerb::kOk && verb != PeerVerb::kConnect;
}

// The verb `line` begins with; null if it is none. `complete`: all of its letters are there.
const VerbName* find_verb(std::string_view line, bool& complete) {
  for (const VerbName& each : kVerbs) {
    const size_t n = std::min(line.size(), each.name.size());
    if (!std::equal(line.begin(), line.begin() + static_cast<std::ptrdiff_t>(n), each.name.begin(),
                    [](char a, char b) { return upper(a) == b; })) {
      continue;
    }
    complete = line.size() >= each.name.size();
    return &each;
  }
  return nullptr;
}

// Digits only, at most nine: nothing larger fits a message. -1 if it is not that.
int64_t parse_size(std::string_view text) {
  if (text.empty() || text.size() > 9) return -1;
  int64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return -1;
    value = value * 10 + (c - '0');
  }
  return value;
}

}  // namespace

PeerStatus PeerParser::next(std::string_view& in, const Limits& limits, PeerOperation& operation) {
  if (held_) {
    held_ = false;
    line_.clear();
    payload_.clear();
    if (payload_.capacity() > kKeptBytes) payload_.shrink_to_fit();
    if (line_.capacity() > kKeptBytes) line_.shrink_to_fit();
  }
  if (in.empty()) return PeerStatus::kMore;
  if (in_payload_) return take_payload(in, operation);

  const auto* lf = static_cast<const char*>(std::memchr(in.data(), '\n', in.size()));
  const size_t here = lf == nullptr ? in.size() : static_cast<size_t>(lf - in.data());
  if (line_.size() + here > limits.max_line) return PeerStatus::kLine;
  if (lf == nullptr) {
    line_.append(in);
    in = {};
    bool complete = false;  // garbage is refused at once, without waiting for an LF that may never come
    return find_verb(std::string_view(line_).substr(0, kLongestVerb), complete) == nullptr ? PeerStatus::kUnknown
                                                                                           : PeerStatus::kMore;
  }
  std::string_view line = in.substr(0, here);
  in.remove_prefix(here + 1);
  const bool split = !line_.empty();
  if (split) {
    line_.append(line);
    line = line_;
  }
  if (line.ends_with('\r')) line.remove_suffix(1);
  const PeerStatus status = parse_line(line, limits, operation);
  if (status != PeerStatus::kOperation) return status;
  if (!has_payload(operation.verb)) {
    held_ = split;
    return status;
  }
  const size_t size = payload_size_;
  if (in.size() >= size + 2) {
    if (in[size] != '\r' || in[size + 1] != '\n') return PeerStatus::kUnknown;
    operation.payload = in.substr(0, size);
    in.remove_prefix(size + 2);
    held_ = split;
    return status;
  }
  // The payload is not all here: the line is kept, and parsed again when it is.
  if (!split) line_.assign(line);
  in_payload_ = true;
  return take_payload(in, operation);
}

PeerStatus PeerParser::take_payload(std::string_view& in, PeerOperation& operation) {
  const size_t wanted = size_t{payload_size_} + 2 - payload_.size();
  const size_t n = std::min(wanted, in.size());
  // Grown in few steps, and by what has come: not touched, the rest of it costs nobody anything.
  if (payload_.size() + n > payload_.capacity())
    payload_.reserve(std::min(payload_.size() + wanted, kGrowth * (payload_.size() + n)));
  payload_.append(in.substr(0, n));
  in.remove_prefix(n);
  if (payload_.size() > payload_size_ && payload_[payload_size_] != '\r') return PeerStatus::kUnknown;
  if (n < wanted) return PeerStatus::kMore;
  if (!payload_.ends_with("\r\n")) return PeerStatus::kUnknown;
  in_payload_ = false;
  held_ = true;
  std::string_view line = line_;
  if (line.ends_with('\r')) line.remove_suffix(1);
  const PeerStatus status = parse_line(line, {.max_line = line_.size(), .max_payload = -1}, operation);
  operation.payload = std::string_view(payload_).substr(0, payload_size_);
  return status;
}

PeerStatus PeerParser::parse_line(std::string_view line, const Limits& limits, PeerOperation& operation) {
  bool complete = false;
  const VerbName* verb = line.empty() ? nullptr : find_verb(line, complete);
  if (verb == nullptr || !complete) return PeerStatus::kUnknown;
  operation.verb = verb->verb;
  std::string_view text = line.substr(verb->name.size());
  if (needs_blank(verb->verb) && (text.empty() || !is_blank(text.front()))) return PeerStatus::kUnknown;
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  operation.text = text;
  operation.payload = {};
  operation.header_size = 0;
  tokens_.clear();
  operation.tokens = {};
  if (verb->verb <= PeerVerb::kErr) return PeerStatus::kOperation;

  for (size_t at = 0, start = 0;; ++at) {
    if (at < text.size() && !is_blank(text[at])) continue;
    if (at > start) tokens_.push_back(text.substr(start, at - start));
    start = at + 1;
    if (at >= text.size()) break;
  }
  size_t count = tokens_.size();
  if (has_payload(verb->verb)) {
    const size_t sizes = verb->verb == PeerVerb::kHeaderMessage ? 2 : 1;
    if (count <= sizes) return PeerStatus::kBadArguments;
    const int64_t size = parse_size(tokens_[count - 1]);
    const int64_t header_size = sizes == 2 ? parse_size(tokens_[count - 2]) : 0;
    if (size < 0 || header_size < 0 || header_size > size) return PeerStatus::kBadArguments;
    if (limits.max_payload >= 0 && size > limits.max_payload) return PeerStatus::kMaxPayload;
    payload_size_ = static_cast<uint32_t>(size);
    operation.header_size = static_cast<uint32_t>(header_size);
    count -= sizes;
  }
  operation.tokens = std::span<const std::string_view>(tokens_).first(count);
  return PeerStatus::kOperation;
}

}  // namespace peregrine::cluster
