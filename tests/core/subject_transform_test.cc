// Subject mappings. What the functions make of a subject, and the refusals, are nats-server's;
// tests/conversation/talks/mapping.talk holds the common ones against it over a socket.
#include "core/subject_transform.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

using config::check_mapping;
using config::Mapping;
using core::SubjectMappings;

constexpr const char* kUnmapped = "(unmapped)";

std::string map(SubjectMappings& mappings, std::string_view subject) {
  static core::Random random(7);
  const std::optional<std::string_view> to = mappings.map(subject, random);
  return to ? std::string(*to) : kUnmapped;
}

// `subject` through one mapping; what is wrong with the mapping if something is.
std::string map(const std::string& source, const std::string& destination, std::string_view subject) {
  const Mapping mapping{source, {{destination, 100, ""}}};
  if (const auto wrong = check_mapping(mapping)) return *wrong;
  SubjectMappings mappings({mapping}, "");
  return map(mappings, subject);
}

// How often each destination is chosen, in percent.
std::map<std::string, int> shares(const Mapping& mapping, std::string_view subject, std::string_view cluster = "") {
  EXPECT_EQ(check_mapping(mapping).value_or(""), "");
  SubjectMappings mappings({mapping}, cluster);
  std::map<std::string, int> out;
  constexpr int kDraws = 20'000;
  for (int n = 0; n < kDraws; ++n) ++out[map(mappings, subject)];
  for (auto& [to, count] : out) count = (count + kDraws / 200) / (kDraws / 100);
  return out;
}

TEST(SubjectTransform, MovesWildcards) {
  EXPECT_EQ(map("a", "b", "a"), "b");
  EXPECT_EQ(map("a", "b", "a.a"), kUnmapped);
  EXPECT_EQ(map("a.*", "b", "a.x"), "b");
  EXPECT_EQ(map("a.*.*", "b.$2.{{ Wildcard( 1 ) }}", "a.x.y"), "b.y.x");
  EXPECT_EQ(map("a.>", "b.>", "a.x.y"), "b.x.y");
  EXPECT_EQ(map(">", "all.>", "x"), "all.x");
  EXPECT_EQ(map("*.a.>", "b.$1.>", "x.a.y.z"), "b.x.y.z");
  EXPECT_EQ(map("a.*", "$SYS.$1.$x", "a.x"), "$SYS.x.$x");
  EXPECT_EQ(map("a.*", "b.$0", "a.x"), "b.a") << "no wildcard has the number 0; nats-server takes the first token";
}

TEST(SubjectTransform, DoesNotMapWhatTheSourceDoesNotMatch) {
  EXPECT_EQ(map("a.*", "b.$1", "a"), kUnmapped);
  EXPECT_EQ(map("a.*", "b.$1", "a."), kUnmapped);
  EXPECT_EQ(map("a.*", "b.$1", "a.>"), kUnmapped);
  EXPECT_EQ(map("a.*", "b.$1", "a.*"), "b.*");
  EXPECT_EQ(map("a.>", "b.>", "a"), kUnmapped);
  EXPECT_EQ(map("a.>", "b.>", "a..x"), "b..x") << "reaches nobody under either name";
}

TEST(SubjectTransform, SplitsAndSlices) {
  EXPECT_EQ(map("*", "{{split(1,-)}}", "-abc-def--ghi-"), "abc.def.ghi");
  EXPECT_EQ(map("*", "x.{{split(1,-)}}", "--a"), "x..a");
  EXPECT_EQ(map("*", "x.{{split(1,ab)}}", "1ab2aab3"), "x.1.2a.3");
  EXPECT_EQ(map("*", "x.{{split(1,)}}",
                "a\xC3\xA9\xFF"
                "b"),
            "x.a.\xC3\xA9.\xFF.b");
  EXPECT_EQ(map("*", "x.{{split(1,-)}}", "-"), "x.");
  EXPECT_EQ(map("*", "{{SplitFromLeft(1,3)}}", "12345"), "123.45");
  EXPECT_EQ(map("*", "{{splitfromright(1, 3)}}", "12345"), "12.345");
  EXPECT_EQ(map("*", "{{SliceFromLeft(1,3)}}", "1234567890"), "123.456.789.0");
  EXPECT_EQ(map("*", "{{SliceFromLeft(1,5)}}", "1234567890"), "12345.67890");
  EXPECT_EQ(map("*", "{{SliceFromRight(1,3)}}", "1234567890"), "1.234.567.890");
  EXPECT_EQ(map("*", "{{slicefromright(1,5)}}", "1234567890"), "12345.67890");
  EXPECT_EQ(map("*", "{{left(1,2)}}.{{right(1,2)}}", "abcd"), "ab.cd");
  for (const char* size : {"0", "-1", "5", "6", "2147483647", "-2147483648"}) {
    for (const char* function :
         {"splitfromleft", "splitfromright", "slicefromleft", "slicefromright", "left", "right"}) {
      EXPECT_EQ(map("*", std::string("{{") + function + "(1," + size + ")}}", "12345"), "12345") << function << size;
    }
  }
}

TEST(SubjectTransform, PartitionsAreThoseOfEveryNatsServer) {
  EXPECT_EQ(map("*.*", "{{partition(1000,1,2)}}", "foo.bar"), "720");  // FNV-1a("foobar") = 0xbf9cf968
  EXPECT_EQ(map("*", "{{partition(1000000,1)}}", "a"), "2220");        // FNV-1a("a") = 0xe40c292c
  EXPECT_EQ(map("a.b", "{{partition(1000000)}}", "a.b"), map("*.*", "{{partition(1000000)}}", "a.b"));
  EXPECT_NE(map("*.*", "{{partition(1000000)}}", "a.b"), map("*.*", "{{partition(1000000,1,2)}}", "a.b"))
      << "without wildcards the whole subject counts, dots too";
  EXPECT_EQ(map("*", "{{partition(0,1)}}", "a"), "0");
}

TEST(SubjectTransform, RandomStaysBelowItsBound) {
  const auto found = shares({"r", {{"r.{{random(4)}}", 100, ""}}}, "r");
  EXPECT_EQ(found.size(), 4u);
  for (const auto& [to, share] : found) EXPECT_NEAR(share, 25, 3) << to;
  EXPECT_EQ(map("r", "{{random(0)}}", "r"), "0");
  EXPECT_EQ(map("r", "{{random(-1)}}", "r"), "0");
}

TEST(SubjectTransform, RefusesWhatNatsServerRefuses) {
  const std::string kBad = "invalid mapping destination: ";
  EXPECT_EQ(map("a", "b.*", ""), "invalid subject");
  EXPECT_EQ(map("a.>", "b", ""), "invalid subject");
  EXPECT_EQ(map("a", "b.>", ""), "invalid subject");
  EXPECT_EQ(map("a", "", ""), "invalid subject");
  EXPECT_EQ(map("a", "b..c", ""), kBad + "invalid transform");
  EXPECT_EQ(map("a", "b c", ""), kBad + "invalid transform");
  EXPECT_EQ(map("a.>", "b.>.c", ""), kBad + "invalid transform in c");
  EXPECT_EQ(map("a", "b.$1", ""), kBad + "wildcard index out of range in $1");
  EXPECT_EQ(map("a.*", "b.$2", ""), kBad + "wildcard index out of range in $2: [2]");
  EXPECT_EQ(map("a.>", "{{wildcard(1)}}.>", ""), kBad + "wildcard index out of range in {{wildcard(1)}}: [1]");
  EXPECT_EQ(map("a.*", "{{foo(1)}}", ""), kBad + "unknown function in {{foo(1)}}");
  EXPECT_EQ(map("a.*", "{{WILDCARD(1)}}", ""), kBad + "unknown function in {{WILDCARD(1)}}");
  EXPECT_EQ(map("a.*", "{{x}}", ""), kBad + "unknown function in {{x}}");
  EXPECT_EQ(map("a.*", "{{wildcard()}}", ""), kBad + "not enough arguments passed to the function in {{wildcard()}}");
  EXPECT_EQ(map("a.*", "{{split(1)}}", ""), kBad + "not enough arguments passed to the function in {{split(1)}}");
  EXPECT_EQ(map("a.*", "{{wildcard(1,1)}}", ""),
            kBad + "too many arguments passed to the function in {{wildcard(1,1)}}");
  const std::string kFormat = "function argument is invalid or in the wrong format in ";
  for (const char* token : {"{{partition()}}", "{{partition(2147483648,1)}}", "{{random(2147483648)}}", "{{random(x)}}",
                            "{{split(1,a b)}}", "{{left(1,2147483648)}}", "{{left(x,1)}}", "{{wildcard(+-1)}}"}) {
    EXPECT_EQ(map("a.*", token, ""), kBad + kFormat + token);
  }
}

TEST(SubjectMappings, WeightsShareTheMessages) {
  using Shares = std::map<std::string, int>;
  const auto near = [](const Shares& found, const Shares& wanted) {
    ASSERT_EQ(found.size(), wanted.size());
    for (const auto& [to, share] : wanted) EXPECT_NEAR(found.count(to) ? found.at(to) : -100, share, 3) << to;
  };
  near(shares({"a", {{"b", 70, ""}, {"c", 30, ""}}}, "a"), {{"b", 70}, {"c", 30}});
  // The rest stays, unless the source is among the destinations.
  near(shares({"a.*", {{"b.$1", 25, ""}}}, "a.x"), {{"b.x", 25}, {"a.x", 75}});
  near(shares({"a", {{"a", 50, ""}, {"b", 20, ""}}}, "a"), {{"a", 50}, {"b", 20}, {"", 30}});
  near(shares({"a", {{"a", 0, ""}}}, "a"), {{"", 100}});
  near(shares({"a", {}}, "a"), {{"a", 100}});
}

TEST(SubjectMappings, ClusterEntriesCountInTheirCluster) {
  using Shares = std::map<std::string, int>;
  const Mapping mapping{"a", {{"b", 100, ""}, {"c", 100, "east"}}};
  EXPECT_EQ(shares(mapping, "a"), (Shares{{"b", 100}}));
  EXPECT_EQ(shares(mapping, "a", "west"), (Shares{{"b", 100}}));
  EXPECT_EQ(shares(mapping, "a", "east"), (Shares{{"c", 100}}));
  EXPECT_EQ(shares({"a", {{"c", 100, "east"}}}, "a", "west"), (Shares{{"a", 100}}));
  EXPECT_EQ(check_mapping({"a", {{"b", 60, ""}, {"c", 60, ""}}}), "total weight needs to be <= 100");
  EXPECT_EQ(check_mapping({"a", {{"b", 60, ""}, {"b", 10, "east"}}}), "duplicate entry for \"b\"");
}

TEST(SubjectMappings, TheMostSpecificSourceWins) {
  SubjectMappings mappings({{">", {{"rest.>", 100, ""}}},
                            {"a.>", {{"2.>", 100, ""}}},
                            {"a.*", {{"1.$1", 100, ""}}},
                            {"*.b", {{"3.$1", 100, ""}}},
                            {"a.b", {{"0", 100, ""}}},
                            {"a.*.c", {{"4", 100, ""}}},
                            {"a.*.*", {{"5", 100, ""}}},
                            {"a.b", {{"00", 100, ""}}}},
                           "");
  EXPECT_EQ(map(mappings, "a.b"), "00") << "of a source named twice the last counts";
  EXPECT_EQ(map(mappings, "a.x"), "1.x");
  EXPECT_EQ(map(mappings, "a.x.c"), "4");
  EXPECT_EQ(map(mappings, "a.x.y"), "5");
  EXPECT_EQ(map(mappings, "a.x.y.z"), "2.x.y.z");
  EXPECT_EQ(map(mappings, "x.b"), "3.x");
  EXPECT_EQ(map(mappings, "x"), "rest.x");
}

TEST(SubjectMappings, ASubjectTooLongToBeOneIsLost) {
  std::string destination = "{{wildcard(1)}}";
  for (int n = 0; n < 1100; ++n) destination += ".$1";
  EXPECT_EQ(map("*", destination, std::string(4096, 'x')), "");
}

TEST(SubjectMappings, PermissionsSpeakOfTheNewSubject) {
  config::Options options;
  options.mappings = {{"a", {{"b", 100, ""}}}, {"lost", {{"lost", 0, ""}}}};
  config::User allowed, denied;
  allowed.user = "allowed";
  denied.user = "denied";
  allowed.password = denied.password = "x";
  allowed.permissions.emplace();
  allowed.permissions->publish.emplace().allow = {{"b"}};
  denied.permissions.emplace();
  denied.permissions->publish.emplace().deny = {"b"};
  options.authorization.users = {allowed, denied};
  Machine machine(2, options);
  const auto talk = [&](const std::string& user) {
    Client& client = machine.connect(
        1,
        R"({"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"pass":"x","user":")" + user + "\"}");
    client.send("SUB > 1\r\nPUB a 1\r\nx\r\nPUB lost r 1\r\nx\r\nPING\r\n");
    machine.settle();
    return client.take();
  };
  EXPECT_EQ(talk("allowed"), "MSG b 1 1\r\nx\r\n-ERR 'Permissions Violation for Publish to \"\"'\r\nPONG\r\n");
  EXPECT_EQ(talk("denied"),
            "-ERR 'Permissions Violation for Publish to \"b\"'\r\n"
            "HMSG r 1 32 32\r\nNATS/1.0 503\r\nNats-Subject: \r\n\r\n\r\nPONG\r\n");
}

}  // namespace
}  // namespace peregrine::test
