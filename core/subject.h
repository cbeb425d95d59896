// Subject rules: pure functions over text, any thread, no allocation, linear in the text.
//
// A subject is tokens separated by '.'. `*` stands for exactly one token and `>` for one or more trailing ones; both
// are wildcards only as whole tokens (`foo*` is literal). No token is empty and none holds space, tab, CR, LF or FF;
// any other byte is a letter. All functions take any bytes. Those that speak of subscription subjects answer false for
// malformed ones; the ones about two patterns (is_subset, subjects_overlap) expect valid subscription subjects and
// answer something harmless otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace peregrine::core {

// The index packs a length into 22 bits. Far above any sensible max_control_line; longer subjects count as invalid.
inline constexpr size_t kMaxSubjectBytes = (size_t{1} << 22) - 1;

// May be subscribed to: wildcards allowed.
bool is_valid_subject(std::string_view subject);

// Has no wildcard token. Says nothing about validity.
bool is_literal(std::string_view subject);

// Both in one look, for every SUB.
enum class SubjectForm : uint8_t { kInvalid, kLiteral, kPattern };
SubjectForm form_of(std::string_view subject);

// What a pedantic client may publish to: valid and literal.
inline bool is_valid_publish_subject(std::string_view subject) {
  return is_literal(subject) && is_valid_subject(subject);
}

// Separators + 1; 0 for the empty subject. For max_subscription_tokens.
size_t count_tokens(std::string_view subject);

// Does a message published on `subject` reach a subscription to `pattern`? Wildcards in `subject` are plain tokens
// (parity 1.4-04), a subject with an empty token reaches nobody.
bool match_subject(std::string_view pattern, std::string_view subject);

// Every subject that reaches `inner` reaches `outer` too: `foo.*` in `foo.>`, `foo.bar` in `*.*`, anything in itself.
bool is_subset(std::string_view inner, std::string_view outer);

// Some literal subject reaches both: what a deny pattern needs to know of a subscription.
bool subjects_overlap(std::string_view a, std::string_view b);

// for (std::string_view token : Tokens(subject)): one more than there are separators, also empty ones; none for the
// empty subject.
class Tokens {
 public:
  class Iterator {
   public:
    Iterator() = default;
    explicit Iterator(std::string_view rest) : rest_(rest), done_(false) { cut(); }
    std::string_view operator*() const { return rest_.substr(0, size_); }
    Iterator& operator++() {
      if (size_ == rest_.size()) {
        done_ = true;
      } else {
        rest_.remove_prefix(size_ + 1);
        cut();
      }
      return *this;
    }
    bool operator==(const Iterator& other) const { return done_ && other.done_; }

   private:
    void cut() {
      const size_t dot = rest_.find('.');
      size_ = dot == std::string_view::npos ? rest_.size() : dot;
    }
    std::string_view rest_;
    size_t size_ = 0;
    bool done_ = true;
  };

  explicit Tokens(std::string_view subject) : subject_(subject) {}
  Iterator begin() const { return subject_.empty() ? Iterator() : Iterator(subject_); }
  Iterator end() const { return {}; }

 private:
  std::string_view subject_;
};

// The first token; the whole subject when there is only one.
inline std::string_view first_token(std::string_view subject) { return subject.substr(0, subject.find('.')); }

}  // namespace peregrine::core
