#include "core/subject.h"

#include <algorithm>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace peregrine::core {
namespace {

// One bit per byte of a block of up to 64: a usual subject is one block, so validity is a handful of word operations.
struct Marks {
  uint64_t dot = 0;
  uint64_t star = 0;
  uint64_t greater = 0;
  uint64_t space = 0;
};

constexpr size_t kBlock = 64;

#if defined(__SSE2__)
void mark16(const char* p, unsigned shift, Marks& marks) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const auto bits = [&](__m128i equal) { return uint64_t{static_cast<uint16_t>(_mm_movemask_epi8(equal))} << shift; };
  const auto is = [&](char c) { return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(c)); };
  marks.dot |= bits(is('.'));
  marks.star |= bits(is('*'));
  marks.greater |= bits(is('>'));
  const __m128i blank = _mm_or_si128(_mm_or_si128(is(' '), is('\t')), _mm_or_si128(is('\r'), is('\n')));
  marks.space |= bits(_mm_or_si128(blank, is('\f')));
}
#else
void mark16(const char* p, unsigned shift, Marks& marks) {
  for (unsigned i = 0; i < 16; i++) {
    const uint64_t bit = uint64_t{1} << (shift + i);
    const char c = p[i];
    if (c == '.') marks.dot |= bit;
    else if (c == '*') marks.star |= bit;
    else if (c == '>') marks.greater |= bit;
    else if (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f') marks.space |= bit;
  }
}
#endif

Marks mark_block(const char* p, size_t size) {
  Marks marks;
  unsigned at = 0;
  for (; at + 16 <= size; at += 16) mark16(p + at, at, marks);
  if (at < size) {
    char tail[16] = {};
    std::memcpy(tail, p + at, size - at);
    mark16(tail, at, marks);
  }
  return marks;
}

// Where a whole-token wildcard stands, and whether tokens are empty, depends on the neighbours of each byte; across
// block borders they are carried.
struct Scan {
  bool valid = true;      // as a subscription subject
  bool wildcard = false;  // any whole-token wildcard
};

Scan scan(std::string_view subject) {
  Scan result;
  if (subject.empty()) return {false, false};
  bool after_dot = true;  // the start counts as a separator: a leading '.' is an empty token
  for (size_t at = 0; at < subject.size(); at += kBlock) {
    const size_t size = std::min(kBlock, subject.size() - at);
    const Marks marks = mark_block(subject.data() + at, size);
    const bool last_block = at + size == subject.size();
    const uint64_t end_bit = uint64_t{1} << (size - 1);
    const uint64_t starts = (marks.dot << 1) | (after_dot ? 1 : 0);
    // "Followed by a separator": inside the block, or at its border.
    const bool dot_follows = !last_block && subject[at + size] == '.';
    const uint64_t before_dot = (marks.dot >> 1) | (dot_follows ? end_bit : 0);
    const uint64_t before_end = last_block ? end_bit : 0;
    const uint64_t empty = (starts & marks.dot) | (before_end & marks.dot);
    const uint64_t fwc_inside = starts & marks.greater & before_dot;
    if (empty | marks.space | fwc_inside) result.valid = false;
    if (starts & (marks.star | marks.greater) & (before_dot | before_end)) result.wildcard = true;
    after_dot = (marks.dot & end_bit) != 0;
  }
  return result;
}

bool may_have_wildcard(std::string_view subject) {
#if defined(__SSE2__)
  if (subject.size() >= 16) {
    const auto wild = [](const char* p) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
      return _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('*')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('>')));
    };
    __m128i found = wild(subject.data() + subject.size() - 16);
    for (size_t at = 0; at + 16 < subject.size(); at += 16) found = _mm_or_si128(found, wild(subject.data() + at));
    return _mm_movemask_epi8(found) != 0;
  }
#endif
  for (const char c : subject) {
    if (c == '*' || c == '>') return true;
  }
  return false;
}

bool is_fwc(std::string_view token) { return token.size() == 1 && token[0] == '>'; }
bool is_pwc(std::string_view token) { return token.size() == 1 && token[0] == '*'; }

// Takes the next token off `rest`; false when none is left. `more` must start as true.
bool take(std::string_view& rest, bool& more, std::string_view& token) {
  if (!more) return false;
  const auto* dot = static_cast<const char*>(std::memchr(rest.data(), '.', rest.size()));
  if (dot == nullptr) {
    token = rest;
    more = false;
  } else {
    const size_t size = static_cast<size_t>(dot - rest.data());
    token = rest.substr(0, size);
    rest.remove_prefix(size + 1);
  }
  return true;
}

bool has_empty_token(std::string_view rest, bool more) {
  std::string_view token;
  while (take(rest, more, token)) {
    if (token.empty()) return true;
  }
  return false;
}

}  // namespace

SubjectForm form_of(std::string_view subject) {
#if defined(__SSE2__)
  // Nearly always: up to 64 bytes with neither wildcards nor blanks, so that dots are all there is to look at.
  const size_t size = subject.size();
  if (size >= 16 && size <= kBlock) {
    uint64_t dots = 0;
    __m128i other = _mm_setzero_si128();
    const auto look = [&](size_t at) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(subject.data() + at));
      const auto is = [&](char c) { return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(c)); };
      const __m128i blank = _mm_set1_epi8(0x20);  // and what is below: scan() sorts that out
      other = _mm_or_si128(
          other, _mm_or_si128(_mm_or_si128(is('*'), is('>')), _mm_cmpeq_epi8(_mm_min_epu8(bytes, blank), bytes)));
      dots |= uint64_t{static_cast<uint16_t>(_mm_movemask_epi8(is('.')))} << at;
    };
    for (size_t at = 0; at + 16 < size; at += 16) look(at);
    look(size - 16);
    if (_mm_movemask_epi8(other) == 0) {
      const uint64_t ends = uint64_t{1} | uint64_t{1} << (size - 1);
      return (dots & (dots << 1 | ends)) == 0 ? SubjectForm::kLiteral : SubjectForm::kInvalid;
    }
  }
#endif
  if (subject.size() > kMaxSubjectBytes) return SubjectForm::kInvalid;
  const Scan found = scan(subject);
  if (!found.valid) return SubjectForm::kInvalid;
  return found.wildcard ? SubjectForm::kPattern : SubjectForm::kLiteral;
}

bool is_valid_subject(std::string_view subject) { return form_of(subject) != SubjectForm::kInvalid; }

bool is_literal(std::string_view subject) {
  // Nearly always there is neither character, whole token or not; every SUB asks.
  if (!may_have_wildcard(subject)) return true;
  return !scan(subject).wildcard;
}

size_t count_tokens(std::string_view subject) {
  if (subject.empty()) return 0;
  size_t dots = 0;
  for (const char c : subject) dots += c == '.';
  return dots + 1;
}

bool match_subject(std::string_view pattern, std::string_view subject) {
  if (pattern.empty() || subject.empty()) return false;
  bool more_pattern = true, more_subject = true;
  std::string_view want, have;
  while (take(pattern, more_pattern, want)) {
    if (is_fwc(want) && !more_pattern) return more_subject && !has_empty_token(subject, more_subject);
    if (!take(subject, more_subject, have) || have.empty()) return false;
    if (!is_pwc(want) && want != have) return false;
    // A `*` or `>` published is a token like any other and reaches only wildcards: no literal can contain it.
  }
  return !more_subject;
}

bool is_subset(std::string_view inner, std::string_view outer) {
  if (inner.empty() || outer.empty()) return false;
  bool more_inner = true, more_outer = true;
  std::string_view in, out;
  while (take(outer, more_outer, out)) {
    if (!take(inner, more_inner, in)) return false;
    if (is_fwc(out)) return true;
    if (is_fwc(in)) return false;  // any number of tokens does not fit into one
    if (is_pwc(out)) continue;
    if (in != out) return false;  // `*` in `foo` is false here too
  }
  return !more_inner;
}

bool subjects_overlap(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return false;
  bool more_a = true, more_b = true;
  std::string_view from_a, from_b;
  while (true) {
    const bool have_a = take(a, more_a, from_a);
    const bool have_b = take(b, more_b, from_b);
    if (!have_a || !have_b) return have_a == have_b;
    if (is_fwc(from_a) || is_fwc(from_b)) return true;
    if (!is_pwc(from_a) && !is_pwc(from_b) && from_a != from_b) return false;
  }
}

}  // namespace peregrine::core
