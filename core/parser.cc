#include "core/parser.h"

#include <algorithm>
#include <array>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace peregrine::core {
namespace {

constexpr uint32_t kMaxSizeDigits = 9;  // nats-server's parseSize: more digits are an error

bool is_blank(char c) { return c == ' ' || c == '\t'; }

constexpr size_t kGrowth = 8;
constexpr size_t kShownBytes = 64;        // of what nobody understands
constexpr size_t kKeptBytes = 64 * 1024;  // a gathering buffer above this is given back after use

// Decimal digits only; -1 for anything else, as nats-server's parseSize.
int64_t parse_size(std::string_view digits) {
  if (digits.empty() || digits.size() > kMaxSizeDigits) return -1;
  int64_t n = 0;
  for (char c : digits) {
    if (c < '0' || c > '9') return -1;
    n = n * 10 + (c - '0');
  }
  return n;
}

template <size_t N>
struct Fields {
  std::array<std::string_view, N> at;
  size_t count = 0;  // N + 1 when there are more than N
};

template <size_t N>
Fields<N> split(std::string_view args) {
  Fields<N> fields;
  const char* p = args.data();
  const char* end = p + args.size();
  while (p < end) {
    while (p < end && (is_blank(*p) || *p == '\r')) ++p;
    if (p == end) break;
    const char* start = p;
    while (p < end && !is_blank(*p) && *p != '\r') ++p;
    if (fields.count == N) {
      ++fields.count;
      break;
    }
    fields.at[fields.count++] = {start, static_cast<size_t>(p - start)};
  }
  return fields;
}

// What was wrong is for the log, in operation.subject: with kUnknown the bytes themselves, with kBadArguments and
// kMaxPayload the arguments of the verb in operation.kind.
ParseStatus unknown(std::string_view what, Operation& operation) {
  operation.subject = what;
  return ParseStatus::kUnknown;
}

bool same_verb(std::string_view text, std::string_view upper) {
  if (text.size() < upper.size()) return false;
  for (size_t i = 0; i < upper.size(); ++i) {
    const char c = text[i];
    if ((c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c) != upper[i]) return false;
  }
  return true;
}

// "PUB" in any case, and a blank.
bool is_pub(const char* p) {
  return (p[0] & 0xDF) == 'P' && (p[1] & 0xDF) == 'U' && (p[2] & 0xDF) == 'B' && is_blank(p[3]);
}

#if defined(__SSE2__)
// "SUB " or "UNSUB " in any case: how long it is, 0 for anything else.
uint32_t interest_verb(std::string_view in) {
  if (in.size() < 8) return 0;
  uint64_t word;
  std::memcpy(&word, in.data(), sizeof(word));
  // From the lowest byte up; letters without the bit that is their case.
  if ((word & 0xFFDFDFDF) == 0x20425553) return 4;
  return (word & 0xFFDFDFDFDFDF) == 0x204255534E55 ? 6 : 0;
}

// Bit n: byte n is <= 0x20, unsigned: blanks, tabs, CR, LF (and control characters, which callers sort out).
template <int kBytes>
uint64_t blanks_of(const char* at) {
  const __m128i blank = _mm_set1_epi8(0x20);
  uint64_t mask = 0;
  for (int i = 0; i < kBytes / 16; ++i) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16 * i));
    const int found = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, blank), v));
    mask |= static_cast<uint64_t>(static_cast<uint32_t>(found)) << (16 * i);
  }
  return mask;
}
#endif

struct Verb {
  std::string_view name;
  Operation::Kind kind;
  bool needs_blank;  // a blank must follow the verb
  bool arguments;    // else the rest of the line is swallowed
};
constexpr std::array<Verb, 10> kVerbs{{
    {"PUB", Operation::Kind::kPub, true, true},
    {"HPUB", Operation::Kind::kHpub, true, true},
    {"SUB", Operation::Kind::kSub, true, true},
    {"UNSUB", Operation::Kind::kUnsub, true, true},
    {"CONNECT", Operation::Kind::kConnect, false, true},
    {"PING", Operation::Kind::kPing, false, false},
    {"PONG", Operation::Kind::kPong, false, false},
    {"+OK", Operation::Kind::kOk, false, false},
    {"-ERR", Operation::Kind::kErr, true, true},
    {"INFO", Operation::Kind::kInfo, false, true},
}};

// The verb a line begins with; null when no verb can still become of it. `complete` tells whether the verb is there in
// full.
const Verb* find_verb(std::string_view line, bool& complete) {
  for (const Verb& verb : kVerbs) {
    const size_t n = std::min(line.size(), verb.name.size());
    if (!same_verb(line.substr(0, n), verb.name.substr(0, n))) continue;
    if (line.size() < verb.name.size()) {
      complete = false;
      return &verb;
    }
    if (verb.needs_blank && line.size() > verb.name.size() && !is_blank(line[verb.name.size()])) continue;
    complete = line.size() > verb.name.size() || !verb.needs_blank;
    return &verb;
  }
  return nullptr;
}

}  // namespace

ParseStatus Parser::next(std::string_view& in, const ParserLimits& limits, Operation& operation) {
  if (in.empty()) return ParseStatus::kMore;
  if (state_ == State::kPayload) return take_payload(in, operation);
  if (!partial_.empty() || swallowed_) return slow_line(in, limits, operation);
  if (limits.connect_first && (in[0] | 0x20) != 'c') return ParseStatus::kNotConnected;
  if (in.size() >= 80 && is_pub(in.data())) {
    const ParseStatus status = fast_pub(in, limits, operation);
    if (status != ParseStatus::kMore) return status;
  } else if (next_interest(in, limits, operation)) {
    return ParseStatus::kOperation;
  }
  const void* lf = std::memchr(in.data(), '\n', in.size());
  if (lf == nullptr) return slow_line(in, limits, operation);
  const size_t size = static_cast<size_t>(static_cast<const char*>(lf) - in.data());
  std::string_view line = in.substr(0, size);
  in.remove_prefix(size + 1);
  const ParseStatus status = parse_line(line, limits, operation);
  if (status == ParseStatus::kOperation && state_ == State::kPayload) {
    // The usual end of a PUB: its payload lies in this buffer, nothing is copied.
    if (in.size() >= size_t{payload_size_} + 2) {
      if (in[payload_size_] != '\r' || in[payload_size_ + 1] != '\n')
        return unknown(in.substr(payload_size_), operation);
      operation.payload = in.substr(0, payload_size_);
      in.remove_prefix(payload_size_ + 2);
      state_ = State::kLine;
      return status;
    }
    keep_arguments(operation);
    return take_payload(in, operation);
  }
  return status;
}

// PUB with at most 60 bytes of arguments, single blanks between them, its line and payload in the buffer: one pass of
// 64-byte compares finds every blank and the LF. kMore means "not that simple": nothing was taken.
ParseStatus Parser::fast_pub(std::string_view& in, const ParserLimits& limits, Operation& operation) {
#if defined(__SSE2__)
  const char* const base = in.data() + 4;  // in.size() >= 80
  uint64_t mask = blanks_of<64>(base);
  const auto next = [&] {
    const auto at = static_cast<uint32_t>(__builtin_ctzll(mask | uint64_t{1} << 63));
    mask &= mask - 1;
    return at;
  };
  const uint32_t subject_end = next();
  if (subject_end == 0 || base[subject_end] != ' ') return ParseStatus::kMore;
  uint32_t size_at = subject_end + 1;
  uint32_t size_end = next();
  std::string_view reply;
  if (base[size_end] == ' ') {
    reply = {base + size_at, size_end - size_at};
    if (reply.empty()) return ParseStatus::kMore;
    size_at = size_end + 1;
    size_end = next();
  }
  if (base[size_end] != '\r' || base[size_end + 1] != '\n' || size_end > 62) return ParseStatus::kMore;
  if (size_end > limits.max_control_line || size_end - size_at - 1 >= kMaxSizeDigits) return ParseStatus::kMore;
  int64_t size = 0;
  uint32_t strange = 0;
  for (uint32_t at = size_at; at < size_end; ++at) {
    const auto digit = static_cast<uint32_t>(static_cast<uint8_t>(base[at])) - '0';
    strange |= digit > 9;
    size = size * 10 + digit;
  }
  if (strange != 0 || (limits.max_payload >= 0 && size > limits.max_payload)) return ParseStatus::kMore;
  const size_t line = 4 + size_end + 2;
  if (in.size() < line + static_cast<size_t>(size) + 2) return ParseStatus::kMore;
  const char* payload = in.data() + line;
  if (payload[size] != '\r' || payload[size + 1] != '\n')
    return unknown(in.substr(line + static_cast<size_t>(size)), operation);
  operation.kind = Operation::Kind::kPub;
  operation.subject = {base, subject_end};
  operation.reply = reply;
  operation.payload = {payload, static_cast<size_t>(size)};
  operation.header_size = 0;
  in.remove_prefix(line + static_cast<size_t>(size) + 2);
  return ParseStatus::kOperation;
#else
  (void)in, (void)limits, (void)operation;
  return ParseStatus::kMore;
#endif
}

// SUB and UNSUB with at most 60 bytes of arguments and single blanks between them are the simple ones.
bool Parser::next_interest(std::string_view& in, const ParserLimits& limits, Operation& operation) {
#if defined(__SSE2__)
  const uint32_t verb = interest_verb(in);
  if (verb == 0) return false;
  const char* const base = in.data() + verb;
  uint64_t mask;
  if (in.size() >= 64 + 8) [[likely]] {
    // UNSUB is short, and if not it is none of the simple ones.
    mask = verb == 4 ? blanks_of<64>(base) : blanks_of<32>(base);
  } else {
    // The last lines of a buffer, and the only one of a small write.
    char rest[64] = {};
    const size_t left = std::min(in.size() - verb, sizeof(rest));
    std::memcpy(rest, base, left);
    mask = blanks_of<64>(rest) & (left == 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1);
  }
  // Fields end at blanks, the last one at CR LF. Behind 60 nothing is looked at: it may not be there.
  mask |= uint64_t{1} << 63;
  const auto next = [&] {
    const auto at = static_cast<uint32_t>(__builtin_ctzll(mask));
    mask &= mask - 1;
    return at;
  };
  const uint32_t first = next();
  if (first == 0 || first > 60) return false;
  uint32_t begin = 0, end = first;  // of the last field
  if (base[first] == ' ') {
    begin = first + 1;
    end = next();
  }
  if (verb == 4) {
    if (begin == 0 || end == begin) return false;
    operation.queue = {};
    if (end <= 60 && base[end] == ' ') {
      operation.queue = {base + begin, end - begin};
      begin = end + 1;
      end = next();
    }
  }
  if (end == begin || end > 60 || (mask >> (end + 1) & 1) == 0) return false;
  if (base[end] != '\r' || base[end + 1] != '\n' || end > limits.max_control_line) return false;
  if (verb == 4) {
    operation.kind = Operation::Kind::kSub;
    operation.subject = {base, first};
    operation.sid = {base + begin, end - begin};
  } else {
    operation.kind = Operation::Kind::kUnsub;
    operation.sid = {base, first};
    operation.max = begin == 0 ? -1 : parse_size({base + begin, end - begin});
  }
  in.remove_prefix(verb + end + 2);
  return true;
#else
  (void)in, (void)limits, (void)operation;
  return false;
#endif
}

// The line is not (all) here, or its start was kept from an earlier buffer.
ParseStatus Parser::slow_line(std::string_view& in, const ParserLimits& limits, Operation& operation) {
  const void* lf = std::memchr(in.data(), '\n', in.size());
  const size_t here = lf == nullptr ? in.size() : static_cast<size_t>(static_cast<const char*>(lf) - in.data());
  bool complete = false;
  // What decides is in the first nine bytes: garbage is refused at once, without waiting for an LF that may never come.
  std::array<char, 9> head_bytes;
  size_t head_size = std::min(partial_.size(), head_bytes.size());
  std::memcpy(head_bytes.data(), partial_.data(), head_size);
  const size_t more = std::min(here, head_bytes.size() - head_size);
  std::memcpy(head_bytes.data() + head_size, in.data(), more);
  head_size += more;
  const Verb* verb = find_verb({head_bytes.data(), head_size}, complete);
  if (verb == nullptr) {
    held_ = partial_;
    held_.append(in.substr(0, kShownBytes));
    return unknown(held_, operation);
  }
  if (complete && verb->arguments) {
    // Only the arguments count against the limit, not the blanks before them; those are not even kept.
    const size_t verb_here = partial_.size() < verb->name.size() ? verb->name.size() - partial_.size() : 0;
    const bool begun = partial_.find_first_not_of(" \t", verb->name.size()) != std::string::npos;
    size_t blanks = 0;
    if (!begun) {
      while (verb_here + blanks < here && is_blank(in[verb_here + blanks])) ++blanks;
    }
    const size_t kept = begun ? partial_.size() - partial_.find_first_not_of(" \t", verb->name.size()) : 0;
    if (kept + here - verb_here - blanks > size_t{limits.max_control_line} + 1)
      return ParseStatus::kControlLine;  // 1: a CR
    const bool have_blank = partial_.size() > verb->name.size();
    if (blanks > 1 || (blanks == 1 && have_blank)) {
      if (!have_blank) partial_.append(in.substr(0, verb_here + 1));
      in.remove_prefix(verb_here + blanks);
      return in.empty() ? ParseStatus::kMore : slow_line(in, limits, operation);
    }
  }
  if (lf == nullptr) {
    if (complete && !verb->arguments) {
      // PING and its kin swallow anything up to LF; keep the verb, drop the rest.
      if (partial_.size() < verb->name.size()) partial_.append(in.substr(0, verb->name.size() - partial_.size()));
      swallowed_ = true;
    } else {
      partial_.append(in.substr(0, here));
    }
    in.remove_prefix(here);
    return ParseStatus::kMore;
  }
  partial_.append(in.substr(0, complete && !verb->arguments ? std::min(here, size_t{8}) : here));
  in.remove_prefix(here + 1);
  swallowed_ = false;
  held_.swap(partial_);  // the operation's views point into held_ until the next call
  partial_.clear();
  const ParseStatus status = parse_line(held_, limits, operation);
  if (status == ParseStatus::kOperation && state_ == State::kPayload) {
    keep_arguments(operation);
    return take_payload(in, operation);
  }
  return status;
}

void Parser::keep_arguments(const Operation& operation) {
  subject_size_ = static_cast<uint32_t>(operation.subject.size());
  reply_size_ = static_cast<uint32_t>(operation.reply.size());
  partial_.assign(operation.subject);
  partial_.append(operation.reply);
}

// Gathers what the declared size still lacks; the copy happens only for an operation that straddles buffers.
ParseStatus Parser::take_payload(std::string_view& in, Operation& operation) {
  const size_t front = size_t{subject_size_} + reply_size_;
  const size_t wanted = front + payload_size_ + 2 - partial_.size();
  const size_t n = std::min(wanted, in.size());
  // Grown in few steps, and by what has come: not touched, the rest of it costs nobody anything.
  if (partial_.size() + n > partial_.capacity())
    partial_.reserve(std::min(partial_.size() + wanted, kGrowth * (partial_.size() + n)));
  partial_.append(in.substr(0, n));
  in.remove_prefix(n);
  // A wrong end is refused at its first byte: the rest may never come.
  const size_t body = front + payload_size_;
  if (partial_.size() > body && partial_[body] != '\r')
    return unknown(std::string_view(partial_).substr(body), operation);
  if (n < wanted) return ParseStatus::kMore;
  state_ = State::kLine;
  held_.swap(partial_);
  partial_.clear();
  if (partial_.capacity() > kKeptBytes) partial_.shrink_to_fit();
  const std::string_view all = held_;
  if (!all.ends_with("\r\n")) return unknown(all.substr(body), operation);
  operation.kind = hpub_ ? Operation::Kind::kHpub : Operation::Kind::kPub;
  operation.subject = all.substr(0, subject_size_);
  operation.reply = all.substr(subject_size_, reply_size_);
  operation.payload = all.substr(front, payload_size_);
  operation.header_size = header_size_;
  return ParseStatus::kOperation;
}

ParseStatus Parser::parse_line(std::string_view line, const ParserLimits& limits, Operation& operation) {
  bool complete = false;
  const Verb* verb = line.empty() ? nullptr : find_verb(line, complete);
  if (verb == nullptr || !complete) return unknown(line, operation);
  operation.kind = verb->kind;
  if (!verb->arguments) return ParseStatus::kOperation;

  std::string_view args = line.substr(verb->name.size());
  while (!args.empty() && is_blank(args.front())) args.remove_prefix(1);
  if (args.ends_with('\r')) args.remove_suffix(1);
  if (args.size() > limits.max_control_line) return ParseStatus::kControlLine;

  operation.subject = args;
  operation.reply = operation.queue = operation.sid = operation.payload = {};
  switch (verb->kind) {
    case Operation::Kind::kPub:
      return parse_pub(args, false, limits, operation);
    case Operation::Kind::kHpub:
      return parse_pub(args, true, limits, operation);
    case Operation::Kind::kSub: {
      const auto fields = split<3>(args);
      if (fields.count != 2 && fields.count != 3) return ParseStatus::kBadArguments;
      operation.subject = fields.at[0];
      if (fields.count == 3) operation.queue = fields.at[1];
      operation.sid = fields.at[fields.count - 1];
      return ParseStatus::kOperation;
    }
    case Operation::Kind::kUnsub: {
      const auto fields = split<2>(args);
      if (fields.count != 1 && fields.count != 2) return ParseStatus::kBadArguments;
      operation.sid = fields.at[0];
      operation.max = fields.count == 2 ? parse_size(fields.at[1]) : -1;
      return ParseStatus::kOperation;
    }
    default:
      return ParseStatus::kOperation;
  }
}

ParseStatus Parser::parse_pub(std::string_view args, bool headers, const ParserLimits& limits, Operation& operation) {
  const auto fields = split<4>(args);
  const size_t sizes = headers ? 2 : 1;
  if (headers && !limits.headers) return ParseStatus::kBadArguments;
  if (fields.count != 1 + sizes && fields.count != 2 + sizes) return ParseStatus::kBadArguments;
  const int64_t size = parse_size(fields.at[fields.count - 1]);
  const int64_t header_size = headers ? parse_size(fields.at[fields.count - 2]) : 0;
  if (size < 0 || header_size < 0 || header_size > size) return ParseStatus::kBadArguments;
  if (limits.max_payload >= 0 && size > limits.max_payload) return ParseStatus::kMaxPayload;
  operation.subject = fields.at[0];
  operation.reply = fields.count == 2 + sizes ? fields.at[1] : std::string_view{};
  operation.header_size = header_size_ = static_cast<uint32_t>(header_size);
  payload_size_ = static_cast<uint32_t>(size);
  hpub_ = headers;
  state_ = State::kPayload;
  return ParseStatus::kOperation;
}

}  // namespace peregrine::core
