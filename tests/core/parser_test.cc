// The parser is fed whole, byte by byte and at seeded cuts: the operations must not depend on how the bytes arrive.
#include "core/parser.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/random.h"

namespace peregrine::core {
namespace {

// What an operation says, as text, so that two runs compare.
std::string describe(const Operation& op) {
  static constexpr const char* kNames[] = {"PUB",  "HPUB", "SUB", "UNSUB", "CONNECT",
                                           "PING", "PONG", "OK",  "ERR",   "INFO"};
  std::string text = kNames[static_cast<int>(op.kind)];
  switch (op.kind) {
    case Operation::Kind::kPub:
    case Operation::Kind::kHpub:
      return text + "|" + std::string(op.subject) + "|" + std::string(op.reply) + "|" + std::to_string(op.header_size) +
             "|" + std::string(op.payload);
    case Operation::Kind::kSub:
      return text + "|" + std::string(op.subject) + "|" + std::string(op.queue) + "|" + std::string(op.sid);
    case Operation::Kind::kUnsub:
      return text + "|" + std::string(op.sid) + "|" + std::to_string(op.max);
    case Operation::Kind::kConnect:
    case Operation::Kind::kErr:
    case Operation::Kind::kInfo:
      return text + "|" + std::string(op.subject);
    default:
      return text;
  }
}

struct Outcome {
  std::vector<std::string> operations;
  ParseStatus status = ParseStatus::kMore;
  bool operator==(const Outcome&) const = default;
};

constexpr ParserLimits kLimits{.max_control_line = 4096, .max_payload = 1 << 20, .headers = true};

// Feeds `bytes` in pieces that end at `cuts`; each piece lives in memory of its own, so that a view kept too long is
// seen by ASan.
Outcome feed(std::string_view bytes, const std::vector<size_t>& cuts, const ParserLimits& limits = kLimits) {
  Parser parser;
  Outcome outcome;
  size_t from = 0;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const size_t to = i < cuts.size() ? cuts[i] : bytes.size();
    const std::vector<char> piece(bytes.begin() + static_cast<std::ptrdiff_t>(from),
                                  bytes.begin() + static_cast<std::ptrdiff_t>(to));
    from = to;
    std::string_view in(piece.data(), piece.size());
    Operation op;
    while ((outcome.status = parser.next(in, limits, op)) == ParseStatus::kOperation)
      outcome.operations.push_back(describe(op));
    if (outcome.status != ParseStatus::kMore) return outcome;
    EXPECT_TRUE(in.empty());
  }
  return outcome;
}

std::vector<size_t> every_byte(size_t size) {
  std::vector<size_t> cuts;
  for (size_t i = 1; i < size; ++i) cuts.push_back(i);
  return cuts;
}

Outcome feed_every_way(std::string_view bytes, const ParserLimits& limits = kLimits) {
  const Outcome whole = feed(bytes, {}, limits);
  EXPECT_EQ(feed(bytes, every_byte(bytes.size()), limits), whole) << "byte by byte";
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Random random(seed);
    std::vector<size_t> cuts;
    for (size_t at = 1 + random.below(20); at < bytes.size(); at += 1 + random.below(40)) cuts.push_back(at);
    EXPECT_EQ(feed(bytes, cuts, limits), whole) << "seed " << seed;
  }
  return whole;
}

std::vector<std::string> operations(std::string_view bytes) {
  const Outcome outcome = feed_every_way(bytes);
  EXPECT_EQ(outcome.status, ParseStatus::kMore);
  return outcome.operations;
}

ParseStatus status(std::string_view bytes, const ParserLimits& limits = kLimits) {
  return feed_every_way(bytes, limits).status;
}

using Operations = std::vector<std::string>;

TEST(Parser, EveryVerb) {
  EXPECT_EQ(operations("CONNECT {\"verbose\":false}\r\nPING\r\nPONG\r\n+OK\r\nSUB foo 1\r\nSUB foo.* q 22\r\nUNSUB "
                       "1\r\nUNSUB 22 5\r\n"
                       "PUB foo 5\r\nhello\r\nPUB foo reply 0\r\n\r\nHPUB foo 12 14\r\nNATS/1.0\r\n\r\nxx\r\n"
                       "HPUB foo bar 12 12\r\nNATS/1.0\r\n\r\n\r\n-ERR 'x'\r\nINFO {}\r\n"),
            (Operations{"CONNECT|{\"verbose\":false}", "PING", "PONG", "OK", "SUB|foo||1", "SUB|foo.*|q|22",
                        "UNSUB|1|-1", "UNSUB|22|5", "PUB|foo||0|hello", "PUB|foo|reply|0|",
                        "HPUB|foo||12|NATS/1.0\r\n\r\nxx", "HPUB|foo|bar|12|NATS/1.0\r\n\r\n", "ERR|'x'", "INFO|{}"}));
}

TEST(Parser, CaseBlanksAndLineEnds) {
  EXPECT_EQ(
      operations("pub\t foo \t 2\r\nhi\r\nPuB  foo  r  2 \nhi\r\nsub foo 1\nping\nPING whatever follows\r\nunsub 1\n"),
      (Operations{"PUB|foo||0|hi", "PUB|foo|r|0|hi", "SUB|foo||1", "PING", "PING", "UNSUB|1|-1"}));
}

TEST(Parser, LongLinesOfManyMessagesTakeTheFastPathToTheSameEnd) {
  std::string bytes;
  Operations expected;
  Random random(7);
  for (int n = 0; n < 500; ++n) {
    const std::string subject(1 + random.below(70), static_cast<char>('a' + n % 26));
    const std::string reply = n % 3 == 0 ? "_INBOX." + std::to_string(n) : "";
    const std::string payload(random.below(200), static_cast<char>(random.below(256)));
    bytes += "PUB " + subject + (reply.empty() ? "" : " " + reply) + " " + std::to_string(payload.size()) + "\r\n" +
             payload + "\r\n";
    expected.push_back("PUB|" + subject + "|" + reply + "|0|" + payload);
  }
  EXPECT_EQ(feed(bytes, {}).operations, expected);
  EXPECT_EQ(feed(bytes, every_byte(bytes.size())).operations, expected);
}

// What is known at a glance ends between 30 and 64 bytes: lines of any length, with and without others behind them.
TEST(Parser, InterestOfEveryLength) {
  for (size_t size = 1; size <= 80; ++size) {
    const std::string text(size, 'x');
    const std::string sub = "SUB " + text + " 1\r\n", queue = "SUB x " + text + " 1\r\n",
                      sid = "SUB x " + text + "\r\n", unsub = "UNSUB " + text + "\r\n",
                      max = "UNSUB " + text + " 7\r\n";
    const Operations each = {"SUB|" + text + "||1", "SUB|x|" + text + "|1", "SUB|x||" + text, "UNSUB|" + text + "|-1",
                             "UNSUB|" + text + "|7"};
    EXPECT_EQ(operations(sub + queue + sid + unsub + max), each) << size;
    EXPECT_EQ(operations(max + unsub + sid + queue + sub), Operations(each.rbegin(), each.rend())) << size;
  }
}

TEST(Parser, GarbageIsRefusedAtItsFirstByte) {
  for (const char* text :
       {"X", "GET / HTTP/1.1\r\n", "PUX", "\r\n", "\n", " PING\r\n", "\x16\x03\x01", "MSG foo 1 2\r\n", "RS+ foo\r\n",
        "A+ x\r\n", "LS+ foo\r\n", "PUB\r\n", "SUB\r\n", "-ERROR x\r\n", "HMSG x\r\n"}) {
    EXPECT_EQ(status(text), ParseStatus::kUnknown) << text;
  }
}

TEST(Parser, WrongArgumentsAreNotAProtocolError) {
  for (const char* text :
       {"PUB foo\r\n", "PUB foo a b 2\r\n", "PUB foo -1\r\n", "PUB foo x\r\n", "PUB foo 1234567890\r\n", "PUB foo \r\n",
        "SUB \r\n", "SUB foo\r\n", "SUB a b c d\r\n", "UNSUB \r\n", "UNSUB 1 2 3\r\n", "HPUB foo 5\r\n",
        "HPUB foo 5 4\r\n", "HPUB foo -1 4\r\n", "HPUB a b c 4 5\r\n"}) {
    EXPECT_EQ(status(text), ParseStatus::kBadArguments) << text;
  }
  EXPECT_EQ(status("HPUB foo 12 12\r\n", {.max_control_line = 4096, .max_payload = 100, .headers = false}),
            ParseStatus::kBadArguments);
}

TEST(Parser, PayloadMustEndInCrLf) {
  EXPECT_EQ(status("PUB foo 2\r\nabc\r\n"), ParseStatus::kUnknown);
  EXPECT_EQ(status("PUB foo 2\r\nab\n\n"), ParseStatus::kUnknown);
  EXPECT_EQ(status("PUB foo 2\r\nab\rX"), ParseStatus::kUnknown);
  EXPECT_EQ(status("PUB foo 3\r\nab\r\nPING\r\n"), ParseStatus::kUnknown);
}

TEST(Parser, ControlLineLimitCountsArguments) {
  const ParserLimits limits{.max_control_line = 64, .max_payload = 100};
  const std::string fits(62, 'a');
  EXPECT_EQ(status("SUB " + fits + " 1\r\n", limits), ParseStatus::kMore);
  EXPECT_EQ(status("SUB " + fits + "b 1\r\n", limits), ParseStatus::kControlLine);
  EXPECT_EQ(status("PUB " + fits + "b 1\r\nx\r\n", limits), ParseStatus::kControlLine);
  // Without an end in sight it is refused as soon as it is too long.
  EXPECT_EQ(status("SUB " + std::string(200, 'a'), limits), ParseStatus::kControlLine);
  // What PING swallows is dropped, not kept.
  EXPECT_EQ(status("PING " + std::string(5000, 'a') + "\r\n", limits), ParseStatus::kMore);
}

TEST(Parser, MaxPayloadIsCheckedOnTheDeclaredSize) {
  const ParserLimits limits{.max_control_line = 4096, .max_payload = 10, .headers = true};
  EXPECT_EQ(status("PUB foo 10\r\n0123456789\r\n", limits), ParseStatus::kMore);
  EXPECT_EQ(status("PUB foo 11\r\n", limits), ParseStatus::kMaxPayload);
  EXPECT_EQ(status("HPUB foo 5 11\r\n", limits), ParseStatus::kMaxPayload);
}

TEST(Parser, ConnectFirst) {
  const ParserLimits limits{.max_control_line = 4096, .max_payload = 10, .connect_first = true};
  EXPECT_EQ(status("PING\r\n", limits), ParseStatus::kNotConnected);
  EXPECT_EQ(status("GET /", limits), ParseStatus::kNotConnected);
  EXPECT_EQ(feed("CONNECT {}\r\n", {}, limits).operations, Operations{"CONNECT|{}"});
}

TEST(Parser, AnnouncingAPayloadCostsNothingUntilItComes) {
  Parser parser;
  Operation op;
  std::string_view in = "PUB foo 1000000\r\nab";
  EXPECT_EQ(parser.next(in, kLimits, op), ParseStatus::kMore);
  EXPECT_LT(parser.memory_bytes(), 1024u);
}

TEST(Parser, IdleAgainAfterASplitOperation) {
  Parser parser;
  Operation op;
  for (const std::string_view piece : {"PU", "B foo 3\r", "\nab", "c\r", "\n"}) {
    std::string_view in = piece;
    while (parser.next(in, kLimits, op) == ParseStatus::kOperation) EXPECT_EQ(describe(op), "PUB|foo||0|abc");
  }
  EXPECT_TRUE(parser.idle());
}

}  // namespace
}  // namespace peregrine::core
