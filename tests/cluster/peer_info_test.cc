#include "cluster/peer_info.h"

#include <gtest/gtest.h>

namespace peregrine::cluster {
namespace {

TEST(PeerInfo, IsWrittenInNatsServersOrderWithoutWhatIsEmpty) {
  PeerInfo info;
  info.server_id = "NA";
  info.server_name = "a";
  info.version = "2.15.1";
  info.proto = 3;
  info.go = "x";
  info.host = "0.0.0.0";
  info.port = 6222;
  info.headers = true;
  info.max_payload = 1048576;
  info.cluster = "C";
  info.lnoc = info.lnocu = true;
  info.route_pool_size = 3;
  EXPECT_EQ(
      to_json(info),
      "{\"server_id\":\"NA\",\"server_name\":\"a\",\"version\":\"2.15.1\",\"proto\":3,\"go\":\"x\",\"host\":\"0.0."
      "0.0\",\"port\":6222,\"headers\":true,\"max_payload\":1048576,\"cluster\":\"C\",\"lnoc\":true,\"lnocu\":"
      "true,\"route_pool_size\":3}");
}

TEST(PeerInfo, ComesBackAsItWas) {
  PeerInfo info;
  info.server_id = "NA";
  info.connect_urls = {"a:4222", "b:4222"};
  info.import_subjects.emplace().allow = {"foo.>"};
  info.export_subjects.emplace().deny = {"bar"};
  info.leafnode_urls = {"a:7422"};
  info.gossip_mode = 2;
  info.ip = "nats-route://10.0.0.1:6222/";
  const auto again = parse_info(to_json(info));
  ASSERT_TRUE(again);
  EXPECT_EQ(to_json(*again), to_json(info));
  EXPECT_EQ(again->import_subjects->allow, info.import_subjects->allow);
  EXPECT_FALSE(again->export_subjects->allow);
}

TEST(PeerInfo, AWrongTypeIsNoInfo) {
  EXPECT_FALSE(parse_info("[]"));
  EXPECT_FALSE(parse_info("{"));
  EXPECT_FALSE(parse_info("{\"port\":\"6222\"}"));
  EXPECT_FALSE(parse_info("{\"server_id\":1}"));
  EXPECT_FALSE(parse_info("{\"connect_urls\":[1]}"));
  EXPECT_FALSE(parse_info("{\"import\":3}"));
  EXPECT_FALSE(parse_info("{\"import\":{\"allow\":\"foo\"}}"));
  EXPECT_FALSE(parse_info("{\"proto\":1.5}"));
  EXPECT_TRUE(parse_info("{\"port\":null,\"never heard of\":{\"it\":[]}}"));
}

TEST(PeerConnect, KeepsItsSecretsOutOfTheLog) {
  PeerConnect connect;
  connect.user = "u";
  connect.password = "hunter2";
  connect.name = "NA";
  connect.cluster = "C";
  const std::string json = to_json(connect);
  EXPECT_TRUE(json.starts_with("{\"echo\":true,\"verbose\":false,\"pedantic\":false,\"user\":\"u\",\"pass\":"));
  EXPECT_EQ(redact(json).find("hunter2"), std::string::npos);
  const auto again = parse_connect(json);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->password, "hunter2");
  EXPECT_FALSE(parse_connect("{\"user\":5}"));
}

TEST(Nonce, IsFifteenCharactersOfBase64) {
  EXPECT_EQ(make_nonce(0, 0), "AAAAAAAAAAAAAAA");
  EXPECT_EQ(make_nonce(UINT64_MAX, UINT64_MAX), "_______________");
}

}  // namespace
}  // namespace peregrine::cluster
