#include "core/subject.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/model/linear_sublist.h"

namespace peregrine::core {
namespace {

std::string repeated(std::string_view token, size_t count) {
  std::string subject;
  for (size_t i = 0; i < count; i++) {
    if (i > 0) subject += '.';
    subject += token;
  }
  return subject;
}

TEST(Subject, ValidSubscriptionSubjects) {
  for (const char* subject : {"foo",
                              "foo.bar",
                              "*",
                              ">",
                              "foo.*",
                              "*.foo",
                              "foo.>",
                              "*.>",
                              "*.*",
                              "foo*",
                              "*foo.bar",
                              "foo>",
                              ">>",
                              "**",
                              "foo.bar>",
                              ">foo.bar",
                              "$SYS.>",
                              "_INBOX.x.*",
                              "\xC3\xA9t\xC3\xA9.caf\xC3\xA9",
                              "a\vb",
                              "-._"}) {
    EXPECT_TRUE(is_valid_subject(subject)) << subject;
  }
  EXPECT_TRUE(is_valid_subject(std::string_view("a\0b", 3)));
}

TEST(Subject, InvalidSubscriptionSubjects) {
  for (const char* subject : {"", ".", "..", ".foo", "foo.", "foo..bar", ">.foo", "foo.>.bar", ">.>", "foo.>.", "a b",
                              " ", "a\tb", "a.\r", "a\n.b", "a.b\f", "foo. .bar", "*."}) {
    EXPECT_FALSE(is_valid_subject(subject)) << subject;
  }
}

TEST(Subject, BlockBordersDoNotHideFaults) {
  // The scan works in blocks of 64: every fault, at every offset around two borders.
  for (size_t size = 1; size < 200; size++) {
    const std::string good(size, 'x');
    ASSERT_TRUE(is_valid_subject(good));
    ASSERT_TRUE(is_literal(good));
    for (size_t at = 0; at < size; at++) {
      std::string text = good;
      text[at] = ' ';
      ASSERT_FALSE(is_valid_subject(text));
      text[at] = '.';
      ASSERT_EQ(is_valid_subject(text), at > 0 && at + 1 < size) << size << " " << at;
      text[at] = '*';
      ASSERT_TRUE(is_valid_subject(text));
      ASSERT_EQ(is_literal(text), size > 1);
      if (at + 2 < size) {
        text[at] = '.';
        text[at + 2] = '.';
        const bool outer = at > 0 && at + 3 < size;
        ASSERT_EQ(is_valid_subject(text), outer);
        text[at + 1] = '.';
        ASSERT_FALSE(is_valid_subject(text));
        text[at + 1] = '*';
        ASSERT_FALSE(is_literal(text));
        ASSERT_EQ(is_valid_subject(text), outer);
        text[at + 1] = '>';
        ASSERT_FALSE(is_literal(text));
        ASSERT_FALSE(is_valid_subject(text)) << "`>` is not last";
      }
      if (at > 0 && at + 2 == size) {
        text = good;
        text[at] = '.';
        text[at + 1] = '>';
        ASSERT_TRUE(is_valid_subject(text));
        ASSERT_FALSE(is_literal(text));
      }
    }
  }
}

TEST(Subject, TooLongIsInvalid) {
  EXPECT_TRUE(is_valid_subject(std::string(kMaxSubjectBytes, 'a')));
  EXPECT_FALSE(is_valid_subject(std::string(kMaxSubjectBytes + 1, 'a')));
}

TEST(Subject, FormIsValidityAndLiterality) {
  std::mt19937 random(7);
  for (int n = 0; n < 50'000; n++) {
    std::string subject(random() % 90, 'x');
    const int faults = static_cast<int>(random() % 4);
    for (char& c : subject) {
      if (random() % 6 == 0) c = '.';
    }
    for (int i = 0; i < faults && !subject.empty(); i++) subject[random() % subject.size()] = "*> \t*>"[random() % 6];
    if (random() % 2 == 0 && subject.size() > 2)
      subject.replace(subject.size() - 2, 2, random() % 2 == 0 ? ".>" : ".*");
    const SubjectForm form = form_of(subject);
    EXPECT_EQ(form != SubjectForm::kInvalid, is_valid_subject(subject)) << subject;
    if (form == SubjectForm::kInvalid) continue;
    EXPECT_EQ(form == SubjectForm::kLiteral, is_literal(subject)) << subject;
  }
}

TEST(Subject, PublishSubjects) {
  for (const char* subject : {"foo", "foo.bar", "foo*", "f>o"})
    EXPECT_TRUE(is_valid_publish_subject(subject)) << subject;
  for (const char* subject : {"", "foo.*", ">", "*", "foo.>", "foo..bar", ".foo", "foo."})
    EXPECT_FALSE(is_valid_publish_subject(subject)) << subject;
}

TEST(Subject, CountsAndWalksTokens) {
  EXPECT_EQ(count_tokens(""), 0u);
  EXPECT_EQ(count_tokens("foo"), 1u);
  EXPECT_EQ(count_tokens("foo.bar.>"), 3u);
  EXPECT_EQ(count_tokens(".."), 3u);
  EXPECT_EQ(count_tokens(repeated("a", 1000)), 1000u);
  for (const char* subject : {"foo", "foo.bar.>", "..", "a..b", ".", "a."}) {
    std::vector<std::string> walked;
    for (const std::string_view token : Tokens(subject)) walked.emplace_back(token);
    EXPECT_EQ(walked, model::split(subject)) << subject;
  }
  for (const std::string_view token : Tokens("")) FAIL() << "no token in nothing, got " << token;
  EXPECT_EQ(first_token("foo.bar"), "foo");
  EXPECT_EQ(first_token("foo"), "foo");
}

TEST(Subject, Matches) {
  const struct {
    const char *pattern, *subject;
    bool reaches;
  } cases[] = {
      {"foo", "foo", true},           {"foo", "bar", false},    {"foo", "foo.bar", false},
      {"foo.bar", "foo", false},      {"*", "foo", true},       {"*", "foo.bar", false},
      {"foo.*", "foo.bar", true},     {"foo.*", "foo", false},  {"foo.*", "foo.bar.baz", false},
      {"*.bar", "foo.bar", true},     {"*.*", "foo.bar", true}, {">", "foo", true},
      {">", "foo.bar", true},         {"foo.>", "foo", false},  {"foo.>", "foo.bar", true},
      {"foo.>", "foo.bar.baz", true}, {"*.>", "foo", false},    {"*.>", "foo.bar", true},
      {"foo.*.>", "foo.bar", false},  {">", "$SYS.x", true},    {"foo*", "foobar", false},
      {"foo*", "foo*", true},         {"foo.*", "foo.*", true}, {"foo.*", "foo.>", true},
      {"foo.bar", "foo.*", false},    {"foo.>", "foo.>", true}, {">", "foo..bar", false},
      {"foo.*", "foo.", false},       {"*.bar", ".bar", false}, {">", "", false},
      {"foo.>", "foo.bar.", false},   {"FOO", "foo", false},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(match_subject(each.pattern, each.subject), each.reaches) << each.pattern << " " << each.subject;
    EXPECT_EQ(model::matches(each.pattern, each.subject), each.reaches)
        << "twin: " << each.pattern << " " << each.subject;
  }
  EXPECT_TRUE(match_subject(repeated("*", 1000), repeated("a", 1000)));
  EXPECT_FALSE(match_subject(repeated("*", 1000), repeated("a", 1001)));
}

TEST(Subject, Subsets) {
  const struct {
    const char *inner, *outer;
    bool subset;
  } cases[] = {
      {"foo", "foo", true},         {"foo", "*", true},
      {"*", "foo", false},          {"*", "*", true},
      {"foo.*", "foo.>", true},     {"foo.>", "foo.*", false},
      {"foo.>", "foo.>", true},     {"foo.*", ">", true},
      {"foo.*", "*.*", true},       {"foo.*", "foo.bar", false},
      {"foo", "foo.>", false},      {">", ">", true},
      {"*.>", ">", true},           {">", "*.>", false},
      {"foo.bar.>", "foo.>", true}, {"foo.>", "foo.bar.>", false},
      {"foo.bar", "foo", false},    {"foo", "foo.bar", false},
      {"foo.*.>", "foo.>", true},   {"*.bar", "foo.*", false},
  };
  for (const auto& each : cases)
    EXPECT_EQ(is_subset(each.inner, each.outer), each.subset) << each.inner << " in " << each.outer;
}

TEST(Subject, Overlaps) {
  const struct {
    const char *a, *b;
    bool overlap;
  } cases[] = {
      {"foo", "foo", true},          {"foo", "bar", false},        {"foo", "*", true},
      {"foo.*", "*.bar", true},      {"foo.*", "foo", false},      {"foo.>", "foo", false},
      {"foo.>", "*", false},         {"foo.>", "*.*", true},       {"foo.*.bar", "foo.>", true},
      {">", "a.b.c", true},          {"foo.*.x", "foo.y.*", true}, {"foo.*.x", "foo.*.y", false},
      {"foo.bar.>", "foo.*", false}, {"*.>", "foo", false},        {"*.>", "foo.bar", true},
      {"a.>", "b.>", false},         {"*a", "b", false},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(subjects_overlap(each.a, each.b), each.overlap) << each.a << " " << each.b;
    EXPECT_EQ(subjects_overlap(each.b, each.a), each.overlap) << each.b << " " << each.a;
  }
}

// All subjects of up to four tokens over a small alphabet, all patterns of up to three: definitions against answers.
TEST(Subject, RelationsFollowFromMatching) {
  std::vector<std::string> literals{""}, patterns;
  for (size_t from = 0, round = 0; round < 4; round++) {
    const size_t to = literals.size();
    for (; from < to; from++) {
      for (const char* token : {"a", "b"})
        literals.push_back((literals[from].empty() ? "" : literals[from] + ".") + token);
    }
  }
  std::vector<std::string> open{""};
  for (int round = 0; round < 3; round++) {
    std::vector<std::string> longer;
    for (const std::string& prefix : open) {
      for (const char* token : {"a", "b", "*", ">"}) {
        patterns.push_back((prefix.empty() ? "" : prefix + ".") + token);
        if (*token != '>') longer.push_back(patterns.back());
      }
    }
    open = longer;
  }
  for (const std::string& a : patterns) {
    ASSERT_TRUE(is_valid_subject(a));
    for (const std::string& b : patterns) {
      bool subset = true, overlap = false;
      for (const std::string& literal : literals) {
        if (literal.empty()) continue;
        const bool in_a = model::matches(a, literal), in_b = model::matches(b, literal);
        ASSERT_EQ(match_subject(a, literal), in_a) << a << " " << literal;
        subset = subset && (!in_a || in_b);
        overlap = overlap || (in_a && in_b);
      }
      // Two letters are not all letters: `*` reaches what neither `a` nor `b` does, which the enumeration sees as well.
      EXPECT_EQ(is_subset(a, b), subset) << a << " in " << b;
      EXPECT_EQ(subjects_overlap(a, b), overlap) << a << " " << b;
    }
  }
}

TEST(Subject, RandomBytesAgreeWithTheTwin) {
  std::mt19937_64 random(20260101);
  for (int i = 0; i < 200000; i++) {
    const auto text = [&] {
      std::string made;
      for (size_t n = random() % 9; n > 0; n--) made += "ab..*> \t"[random() % 8];
      return made;
    };
    const std::string pattern = text(), subject = text();
    if (is_valid_subject(pattern)) {
      ASSERT_EQ(match_subject(pattern, subject), model::matches(pattern, subject)) << pattern << " | " << subject;
    }
    bool valid = !subject.empty(), literal = true;
    const auto tokens = model::split(subject);
    for (size_t n = 0; n < tokens.size(); n++) {
      if (tokens[n].empty() || tokens[n].find_first_of(" \t\r\n\f") != std::string::npos) valid = false;
      if (tokens[n] == ">" && n + 1 < tokens.size()) valid = false;
      if (tokens[n] == ">" || tokens[n] == "*") literal = false;
    }
    ASSERT_EQ(is_valid_subject(subject), valid) << subject;
    ASSERT_EQ(is_literal(subject), literal) << subject;
  }
}

}  // namespace
}  // namespace peregrine::core
