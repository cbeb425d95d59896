#include "cluster/peer_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace peregrine::cluster {
namespace {

struct Seen {
  PeerVerb verb;
  std::string text;
  std::vector<std::string> tokens;
  std::string payload;
  uint32_t header_size;
  bool operator==(const Seen&) const = default;
};

// Feeds `bytes` cut into pieces of `piece` bytes.
PeerStatus feed(std::string_view bytes, size_t piece, std::vector<Seen>& seen, PeerParser::Limits limits = {}) {
  PeerParser parser;
  while (!bytes.empty()) {
    // A copy of its own: views into a piece that is gone are seen by the sanitizer.
    const std::string copy(bytes.substr(0, piece));
    bytes.remove_prefix(copy.size());
    std::string_view in = copy;
    PeerOperation operation;
    for (;;) {
      const PeerStatus status = parser.next(in, limits, operation);
      if (status == PeerStatus::kMore) break;
      if (status != PeerStatus::kOperation) return status;
      Seen& each = seen.emplace_back();
      each.verb = operation.verb;
      each.text = operation.text;
      for (const std::string_view token : operation.tokens) each.tokens.emplace_back(token);
      each.payload = operation.payload;
      each.header_size = operation.header_size;
    }
  }
  return PeerStatus::kMore;
}

constexpr std::string_view kStream =
    "INFO {\"server_id\":\"A\",\"x\": 1}\r\nCONNECT {}\r\nRS+ $G foo.>\r\nRS+ $G foo q 3\r\nrs- $G foo\r\nLS+ bar\r\n"
    "A- ACC\r\nPING\r\nPONG\r\n+OK\r\n-ERR 'Some text'\r\n"
    "RMSG $G foo 5\r\nhello\r\nRMSG $G foo + reply q1 q2 2\r\nhi\r\nHMSG $G foo reply 12 14\r\nNATS/1.0\r\n\r\nok\r\n"
    "LMSG foo 0\r\n\r\nRMSG\t$G  foo | q1   1\n\n\r\nPING\r\n";

TEST(PeerParser, TakesTheSameOperationsHoweverTheBytesAreCut) {
  std::vector<Seen> whole;
  ASSERT_EQ(feed(kStream, kStream.size(), whole), PeerStatus::kMore);
  ASSERT_EQ(whole.size(), 17u);
  EXPECT_EQ(whole[0].text, "{\"server_id\":\"A\",\"x\": 1}");
  EXPECT_EQ(whole[3].tokens, (std::vector<std::string>{"$G", "foo", "q", "3"}));
  EXPECT_EQ(whole[4].verb, PeerVerb::kRoutedUnsub);
  EXPECT_EQ(whole[10].text, "'Some text'");
  EXPECT_EQ(whole[11].payload, "hello");
  EXPECT_EQ(whole[12].tokens, (std::vector<std::string>{"$G", "foo", "+", "reply", "q1", "q2"}));
  EXPECT_EQ(whole[13].payload, "NATS/1.0\r\n\r\nok");
  EXPECT_EQ(whole[13].header_size, 12u);
  EXPECT_EQ(whole[14].payload, "");
  EXPECT_EQ(whole[15].payload, "\n");
  for (size_t piece = 1; piece < kStream.size(); ++piece) {
    std::vector<Seen> cut;
    ASSERT_EQ(feed(kStream, piece, cut), PeerStatus::kMore) << piece;
    ASSERT_EQ(cut, whole) << piece;
  }
}

TEST(PeerParser, RefusesWhatIsWrong) {
  const auto status = [](std::string_view bytes, PeerParser::Limits limits = {}) {
    std::vector<Seen> seen;
    const PeerStatus whole = feed(bytes, bytes.size(), seen, limits);
    EXPECT_EQ(feed(bytes, 1, seen, limits), whole) << bytes;
    return whole;
  };
  EXPECT_EQ(status("GARBAGE"), PeerStatus::kUnknown);
  EXPECT_EQ(status("\r\n"), PeerStatus::kUnknown);
  for (const char* bare :
       {"RS+\r\n", "RS-x\r\n", "LS-\r\n", "A+\r\n", "RMSG\r\n", "RMSG5\r\n", "-ERR\r\n", "INFO{}\r\n"})
    EXPECT_EQ(status(bare), PeerStatus::kUnknown) << bare;
  EXPECT_EQ(status("RMSG 5\r\n"), PeerStatus::kBadArguments);
  EXPECT_EQ(status("RMSG $G foo x\r\n"), PeerStatus::kBadArguments);
  EXPECT_EQ(status("HMSG $G foo 9 5\r\n"), PeerStatus::kBadArguments);
  EXPECT_EQ(status("HMSG $G foo 99999999999999999999 5\r\n"), PeerStatus::kBadArguments);
  EXPECT_EQ(status("RMSG $G foo 5\r\nhelloXX"), PeerStatus::kUnknown);
  EXPECT_EQ(status("RMSG $G foo 100\r\n", {.max_payload = 99}), PeerStatus::kMaxPayload);
  EXPECT_EQ(status("RS+ " + std::string(100, 'a'), {.max_line = 64, .max_payload = -1}), PeerStatus::kLine);
}

TEST(PeerParser, WhatItHasGatheredMayBeKept) {
  const std::string body(5000, 'g');
  const std::string bytes = "RMSG $G foo 5000\r\n" + body + "\r\nRMSG $G foo 2\r\nhi\r\n";
  PeerParser parser;
  PeerOperation operation;
  std::string_view in = std::string_view(bytes).substr(0, 1000);
  ASSERT_EQ(parser.next(in, {}, operation), PeerStatus::kMore);
  in = std::string_view(bytes).substr(1000);
  ASSERT_EQ(parser.next(in, {}, operation), PeerStatus::kOperation);
  ASSERT_TRUE(parser.last_was_gathered());
  const std::string kept = parser.take_gathered();
  EXPECT_EQ(operation.payload.data(), kept.data());
  ASSERT_EQ(parser.next(in, {}, operation), PeerStatus::kOperation);
  EXPECT_FALSE(parser.last_was_gathered());
  EXPECT_EQ(operation.payload, "hi");
  EXPECT_EQ(kept.substr(0, 5000), body);
}

}  // namespace
}  // namespace peregrine::cluster
