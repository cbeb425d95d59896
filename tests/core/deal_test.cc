// Queue groups in runs: each message to one member, every member with the same chance, wherever it lives.
#include "core/deal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "core/random.h"
#include "tests/core/machine.h"

namespace peregrine::test {
namespace {

std::string number(int n) {
  std::string digits = std::to_string(n);
  return std::string(8 - digits.size(), '0') + digits;
}

// The sequence numbers by member ("<client> <sid>"), read from whole messages only.
void collect(Client& client, size_t which, std::map<std::string, std::vector<int>>& by_member) {
  const std::string got = client.take();
  for (size_t at = 0; at < got.size();) {
    const size_t line = got.find("\r\n", at);
    ASSERT_NE(line, std::string::npos);
    const std::string text = got.substr(at, line - at);
    ASSERT_TRUE(text.starts_with("MSG work ")) << text;
    const std::string sid = text.substr(9, text.find(' ', 9) - 9);
    const size_t size = std::stoul(text.substr(text.rfind(' ') + 1));
    ASSERT_GE(size, 8u);
    ASSERT_LE(line + 2 + size + 2, got.size());
    by_member[std::to_string(which) + " " + sid].push_back(std::stoi(got.substr(line + 2, 8)));
    ASSERT_EQ(got.substr(line + 2 + size, 2), "\r\n");
    at = line + 2 + size + 2;
  }
}

// Sizes that stay, sizes that vary, sizes too large for a record; rings large and tiny; replies now and then.
TEST(Deal, EveryMessageOnceInOrderAndByChance) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const uint32_t shards = 1 + seed % 3;
    Machine machine(shards, {}, seed % 2 == 0 ? 1024 : 64 * 1024);
    core::Random random(seed);
    Client& publisher = machine.connect(0);
    std::vector<Client*> members;
    for (uint32_t n = 0; n < 6; ++n) {
      members.push_back(&machine.connect(n % shards));
      // One connection with two members; sids short and long.
      members.back()->send("SUB work q " + std::string(n == 2 ? "a-rather-long-sid" : std::to_string(n + 1)) + "\r\n");
      if (n == 4) members.back()->send("SUB work q 77\r\n");
    }
    machine.settle();
    constexpr int kMessages = 14'000;
    std::string text;
    const auto flush = [&] {
      publisher.send(text);
      text.clear();
      machine.settle();
    };
    for (int n = 0; n < kMessages;) {
      const uint64_t kind = random.below(12);
      const size_t size = 8 + (kind == 0 ? random.below(6000) : random.below(60));
      for (uint64_t run = random.below(kind == 1 ? 2000 : 40); run > 0 && n < kMessages; --run, ++n) {
        const size_t now = kind == 2 ? 8 + random.below(300) : size;
        const std::string reply = kind == 3 ? " answer." + std::to_string(n) : "";
        text +=
            "PUB work" + reply + " " + std::to_string(now) + "\r\n" + number(n) + std::string(now - 8, 'x') + "\r\n";
      }
      if (random.below(6) == 0) text += "PING\r\n";
      if (text.size() > 200'000) flush();
    }
    flush();
    publisher.take();

    std::map<std::string, std::vector<int>> by_member;
    for (size_t n = 0; n < members.size(); ++n) collect(*members[n], n, by_member);
    ASSERT_EQ(by_member.size(), 7u);
    std::vector<int> times(kMessages, 0);
    for (const auto& [member, numbers] : by_member) {
      EXPECT_TRUE(std::is_sorted(numbers.begin(), numbers.end())) << member << " seed " << seed;
      for (const int n : numbers) ++times[static_cast<size_t>(n)];
      // Seven members: 2000 each, give or take five times what chance does (41).
      EXPECT_NEAR(static_cast<double>(numbers.size()), 2000.0, 205.0) << member << " seed " << seed;
    }
    EXPECT_EQ(std::count(times.begin(), times.end(), 1), kMessages) << "seed " << seed;
    uint64_t in = 0, out = 0;
    for (uint32_t n = 0; n < shards; ++n) {
      const core::ShardSnapshot snapshot = machine.shard(n).snapshot();
      in += snapshot.traffic.in_msgs;
      out += snapshot.traffic.out_msgs;
      EXPECT_EQ(snapshot.pending_bytes, 0u);
    }
    EXPECT_EQ(in, uint64_t{kMessages});
    EXPECT_EQ(out, uint64_t{kMessages});
  }
}

// Two consecutive messages are as likely to go to the same member as any two are: chance is drawn for each message.
TEST(Deal, EachMessageIsDrawnAnew) {
  Machine machine(1);
  Client& publisher = machine.connect(0);
  Client& one = machine.connect(0);
  Client& two = machine.connect(0);
  one.send("SUB work q 1\r\n");
  two.send("SUB work q 1\r\n");
  machine.settle();
  std::string text;
  for (int n = 0; n < 4000; ++n) text += "PUB work 8\r\n" + number(n) + "\r\n";
  publisher.send(text);
  machine.settle();
  std::map<std::string, std::vector<int>> by_member;
  collect(one, 0, by_member);
  collect(two, 1, by_member);
  int followed = 0;
  for (const auto& [member, numbers] : by_member) {
    for (size_t n = 1; n < numbers.size(); ++n) followed += numbers[n] == numbers[n - 1] + 1 ? 1 : 0;
  }
  EXPECT_NEAR(followed, 2000, 160);
}

// A member that must be asked about each message (it leaves after some) keeps its fair share, and no more.
TEST(Deal, MembersWithALimitGetTheirShare) {
  Machine machine(2);
  Client& publisher = machine.connect(0);
  Client& limited = machine.connect(0);
  Client& free = machine.connect(0);
  Client& far = machine.connect(1);
  limited.send("SUB work q 1\r\nUNSUB 1 500\r\n");
  free.send("SUB work q 1\r\n");
  far.send("SUB work q 1\r\n");
  machine.settle();
  std::string text;
  for (int n = 0; n < 900; ++n) text += "PUB work 8\r\n" + number(n) + "\r\n";
  publisher.send(text);
  machine.settle();
  std::map<std::string, std::vector<int>> by_member;
  collect(limited, 0, by_member);
  EXPECT_NEAR(static_cast<double>(by_member["0 1"].size()), 300.0, 75.0);
  for (int n = 0; n < 3; ++n) {
    publisher.send(text);
    machine.settle();
  }
  collect(limited, 0, by_member);
  collect(free, 1, by_member);
  collect(far, 2, by_member);
  EXPECT_EQ(by_member["0 1"].size(), 500u);
  EXPECT_EQ(by_member["0 1"].size() + by_member["1 1"].size() + by_member["2 1"].size(), 3600u);
}

// A member that does not want its own messages back gets none; the others get all.
TEST(Deal, NotBackToWhoSentIt) {
  Machine machine(1);
  Client& publisher = machine.connect(0, R"({"verbose":false,"echo":false})");
  Client& other = machine.connect(0);
  publisher.send("SUB work q 1\r\n");
  other.send("SUB work q 1\r\n");
  machine.settle();
  std::string text;
  for (int n = 0; n < 200; ++n) text += "PUB work 8\r\n" + number(n) + "\r\n";
  publisher.send(text);
  machine.settle();
  EXPECT_EQ(publisher.take(), "");
  std::map<std::string, std::vector<int>> by_member;
  collect(other, 0, by_member);
  EXPECT_EQ(by_member["0 1"].size(), 200u);
}

// A member that takes nothing is closed when more than max_pending waits for it, also in the middle of runs.
TEST(Deal, SlowMemberIsClosed) {
  config::Options options;
  options.max_pending = 2 << 20;
  Machine machine(1, options);
  Client& publisher = machine.connect(0);
  Client& slow = machine.connect(0);
  Client& quick = machine.connect(0);
  slow.send("SUB work q 1\r\n");
  quick.send("SUB work q 1\r\n");
  machine.settle();
  slow.reads = false;
  std::string text;
  for (int n = 0; n < 3000; ++n) text += "PUB work 16\r\n0123456789abcdef\r\n";
  for (int n = 0; n < 100 && !slow.closed; ++n) {
    publisher.send(text);
    machine.turn(0);
    machine.pass(10'000'000);
    machine.turn(0);
  }
  machine.settle();
  EXPECT_TRUE(slow.closed);
  EXPECT_FALSE(quick.closed);
  EXPECT_EQ(machine.shard(0).snapshot().slow_consumers.clients, 1u);
}

}  // namespace
}  // namespace peregrine::test
