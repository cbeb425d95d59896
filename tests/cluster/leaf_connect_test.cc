#include "cluster/leaf_connect.h"

#include <gtest/gtest.h>

namespace peregrine::cluster {
namespace {

TEST(LeafConnect, SaysWhatNatsServerSays) {
  LeafConnect connect;
  connect.version = "2.15.1";
  connect.user = "a";
  connect.password = "b";
  connect.server_id = "NX";
  connect.name = "edge";
  connect.cluster = "edge";
  connect.headers = true;
  connect.deny_publish = {"secret.>"};
  connect.compression = "s2_fast";
  connect.remote_account = "$G";
  connect.protocol = 3;
  EXPECT_EQ(to_json(connect),
            R"({"version":"2.15.1","user":"a","pass":"b","server_id":"NX","name":"edge","cluster":"edge",)"
            R"("headers":true,"deny_pub":["secret.>"],"compress_mode":"s2_fast","remote_account":"$G","protocol":3})");
}

TEST(LeafConnect, IsReadAsGoReadsIt) {
  const auto connect = parse_leaf_connect(
      R"({"VERSION":"2.9.10","Is_Hub":true,"auth_token":"t","domain":null,"tls_required":false,"compression":true,)"
      R"("deny_pub":["a","b"],"lang":"go"})");
  ASSERT_TRUE(connect);
  EXPECT_EQ(connect->version, "2.9.10");
  EXPECT_TRUE(connect->is_hub);
  EXPECT_EQ(connect->token, "t");
  EXPECT_EQ(connect->deny_publish, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(connect->lang, "go");
  EXPECT_FALSE(parse_leaf_connect(R"({"name":5})"));
  EXPECT_FALSE(parse_leaf_connect(R"({"headers":"yes"})"));
  EXPECT_FALSE(parse_leaf_connect(R"({"deny_pub":"a"})"));
  EXPECT_FALSE(parse_leaf_connect("[]"));
  EXPECT_FALSE(parse_leaf_connect("{"));
}

TEST(LeafConnect, VersionsAreCompared) {
  EXPECT_TRUE(version_at_least("2.9.10", "2.9.10"));
  EXPECT_TRUE(version_at_least("v2.10.0", "2.9.10"));
  EXPECT_TRUE(version_at_least("2.11.0-beta.1", "2.10.99"));
  EXPECT_FALSE(version_at_least("2.9.9", "2.9.10"));
  EXPECT_FALSE(version_at_least("1.99.99", "2.0.0"));
  for (const char* bad : {"", "x", "2", "2.9", "2.9.x", "2..9"}) EXPECT_FALSE(version_at_least(bad, "0.0.0")) << bad;
}

}  // namespace
}  // namespace peregrine::cluster
