// SUB and UNSUB in rows: however the bytes of one arrive, the client hears and has the same, and each line counts from
// the next one on.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/random.h"
#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

struct Result {
  std::string heard;
  std::set<std::string> subscriptions;  // "subject queue sid"
  uint64_t inserted = 0;
  bool closed = false;
  bool operator==(const Result&) const = default;
};

constexpr const char* kQuiet = R"({"verbose":false,"pedantic":false,"user":"u","pass":"p"})";
constexpr const char* kVerbose = R"({"verbose":true,"pedantic":false,"user":"u","pass":"p"})";

// `piece`: how many bytes come next; a turn for each piece.
Result hear(const std::string& text, const config::Options& options, const char* connect,
            const std::function<size_t()>& piece) {
  Machine machine(2, options);
  Client& client = machine.connect(0, connect);
  client.take();
  for (size_t at = 0; at < text.size() && !client.closed;) {
    const size_t n = std::min(piece(), text.size() - at);
    client.send(text.substr(at, n));
    at += n;
    machine.settle();
  }
  Result result;
  result.heard = client.take();
  result.closed = client.closed;
  result.inserted = machine.shard(0).account(0).sublist.stats().num_inserts;
  if (!client.closed) {
    core::ConnRow row;
    client.session->describe(row, true);
    for (const core::SubRow& sub : row.subs) {
      std::string name = sub.subject + " " + sub.queue + " " + sub.sid;
      if (sub.max != 0) name += " max " + std::to_string(sub.max);
      result.subscriptions.insert(name);
    }
    EXPECT_EQ(result.subscriptions.size(), row.subs.size());
  }
  return result;
}

// All at once, byte by byte, and cut anywhere.
Result hear_every_way(const std::string& text, const config::Options& options = {}, const char* connect = kQuiet) {
  const Result whole = hear(text, options, connect, [&] { return text.size(); });
  EXPECT_EQ(hear(text, options, connect, [] { return size_t{1}; }), whole) << "byte by byte";
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    core::Random random(seed);
    EXPECT_EQ(hear(text, options, connect, [&] { return size_t{1} + random.below(200); }), whole) << "seed " << seed;
  }
  return whole;
}

using Subs = std::set<std::string>;

TEST(ClientInterest, EachLineCountsFromTheNextOneOn) {
  const std::string message = " 2\r\nhi\r\n";
  const std::string text = "SUB a.b.c 1\r\nPUB a.b.c" + message + "UNSUB 1\r\nPUB a.b.c" + message +
                           "SUB a.* 2\r\nSUB a.b 3\r\nPUB a.b" + message + "UNSUB 3\r\nUNSUB 2\r\nPUB a.b" + message +
                           "SUB a.b 2\r\nPUB a.b" + message + "PING\r\n";
  const Result result = hear_every_way(text);
  // Which of two comes first is not said.
  EXPECT_TRUE(result.heard.starts_with("MSG a.b.c 1" + message)) << result.heard;
  EXPECT_TRUE(result.heard.ends_with("MSG a.b 2" + message + "PONG\r\n")) << result.heard;
  EXPECT_EQ(std::count(result.heard.begin(), result.heard.end(), 'M'), 4);
  EXPECT_EQ(result.subscriptions, Subs{"a.b  2"});
}

TEST(ClientInterest, ASidThatIsTakenStaysWithItsSubject) {
  const Result result =
      hear_every_way("SUB a 1\r\nSUB b 1\r\nSUB c q 1\r\nSUB a 2\r\nUNSUB 3\r\nUNSUB 2\r\nSUB b 2\r\n");
  EXPECT_EQ(result.subscriptions, (Subs{"a  1", "b  2"}));
  EXPECT_EQ(result.heard, "");
}

TEST(ClientInterest, UnsubWithMaxAmongOthers) {
  const std::string text =
      "SUB a 1\r\nSUB a 2\r\nUNSUB 1 2\r\nUNSUB 2 1\r\nPUB a 0\r\n\r\nUNSUB 1 1\r\nSUB b 3\r\nUNSUB 3 7\r\nUNSUB 9 "
      "1\r\n";
  const Result result = hear_every_way(text);
  EXPECT_EQ(result.subscriptions, Subs{"b  3 max 7"});
  EXPECT_EQ(std::count(result.heard.begin(), result.heard.end(), 'M'), 2);
}

TEST(ClientInterest, VerboseAnswersEachLine) {
  const Result result = hear_every_way(
      "SUB a 1\r\nSUB b q 2\r\nSUB a 1\r\nUNSUB 2\r\nUNSUB 2\r\nSUB a..b 3\r\nUNSUB 1 5\r\n", {}, kVerbose);
  EXPECT_EQ(result.heard, "+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n-ERR 'Invalid Subject'\r\n+OK\r\n");
  EXPECT_EQ(result.subscriptions, Subs{"a  1 max 5"});
}

TEST(ClientInterest, WhatIsRefusedStopsNoRow) {
  const std::string text =
      "SUB a 1\r\nSUB a..b 2\r\nSUB b _sys_ 3\r\nSUB .a 4\r\nSUB > 5\r\nSUB a.>.b 6\r\nUNSUB 5\r\n";
  const Result result = hear_every_way(text);
  EXPECT_EQ(result.heard,
            "-ERR 'Invalid Subject'\r\n-ERR 'Permissions Violation for Subscription to \"b\" using queue \"_sys_\"'\r\n"
            "-ERR 'Invalid Subject'\r\n-ERR 'Invalid Subject'\r\n");
  EXPECT_EQ(result.subscriptions, Subs{"a  1"});
}

TEST(ClientInterest, LimitsAreAskedForEachLine) {
  config::Options options;
  options.max_subscriptions = 2;
  Result result = hear_every_way("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nUNSUB 1\r\nSUB d 4\r\nSUB e 5\r\n", options);
  EXPECT_EQ(result.subscriptions, (Subs{"b  2", "d  4"}));
  EXPECT_EQ(result.heard, "-ERR 'maximum subscriptions exceeded'\r\n-ERR 'maximum subscriptions exceeded'\r\n");

  options.max_subscriptions = 0;
  options.max_subscription_tokens = 3;
  result = hear_every_way("SUB a.b.c 1\r\nSUB a.b.c.d 2\r\nSUB a.> 3\r\n", options);
  EXPECT_EQ(result.subscriptions, (Subs{"a.b.c  1", "a.>  3"}));
  EXPECT_EQ(result.heard, "-ERR 'Permissions Violation for Subscription to \"a.b.c.d\", too many tokens'\r\n");
}

TEST(ClientInterest, PermissionsAreAskedForEachLine) {
  config::Options options;
  config::User& user = options.authorization.users.emplace_back();
  user.user = "u";
  user.password = "p";
  user.permissions.emplace().subscribe.emplace().allow = {"foo.>"};
  const Result result =
      hear_every_way("SUB foo.a 1\r\nSUB bar.a 2\r\nSUB foo.* 3\r\nUNSUB 1\r\nSUB * 4\r\nSUB foo.a q 5\r\n", options);
  EXPECT_EQ(result.subscriptions, (Subs{"foo.*  3", "foo.a q 5"}));
  EXPECT_EQ(result.heard,
            "-ERR 'Permissions Violation for Subscription to \"bar.a\"'\r\n"
            "-ERR 'Permissions Violation for Subscription to \"*\"'\r\n");
}

TEST(ClientInterest, ARowEndsWithWhatIsNoVerb) {
  const Result result = hear_every_way("SUB a 1\r\nSUB b 2\r\nSUBA b 3\r\nSUB c 4\r\n");
  EXPECT_TRUE(result.closed);
  EXPECT_EQ(result.inserted, 2u);
  EXPECT_EQ(result.heard, "-ERR 'Unknown Protocol Operation'\r\n");
}

// More lines than one turn takes, sids of all kinds, subjects of all lengths; what is left is what a plain map says.
TEST(ClientInterest, ALongRowAgainstAMap) {
  core::Random random(7);
  std::string text;
  std::map<std::string, std::string> model;
  for (int n = 0; n < 4000; ++n) {
    const uint64_t kind = random.below(3);
    std::string sid = std::to_string(random.below(900));
    if (kind == 1) sid = "s" + sid;
    if (kind == 2) sid += "0000000000";
    if (random.below(2) == 0) {
      std::string subject(1 + random.below(70), 'a');
      for (size_t at = 1; at + 1 < subject.size(); at += 2) subject[at] = random.below(2) == 0 ? '.' : 'b';
      const std::string queue = random.below(5) == 0 ? "q" : "";
      text += "SUB " + subject + (queue.empty() ? " " : " q ") + sid + "\r\n";
      model.emplace(sid, subject + " " + queue + " " + sid);
    } else {
      text += "UNSUB " + sid + "\r\n";
      model.erase(sid);
    }
  }
  Subs expected;
  for (const auto& [sid, name] : model) expected.insert(name);
  const Result whole = hear(text, {}, kQuiet, [&] { return text.size(); });
  EXPECT_EQ(whole.subscriptions, expected);
  EXPECT_EQ(whole.heard, "");
  core::Random cuts(8);
  EXPECT_EQ(hear(text, {}, kQuiet, [&] { return size_t{1} + cuts.below(3000); }), whole);
}

}  // namespace
}  // namespace peregrine::test
