#include "cluster/gateway_settings.h"

#include <gtest/gtest.h>

#include "core/gateway_reply.h"

namespace peregrine::cluster {
namespace {

// As seen on the wire: a reply of nats-server 2.9.10 in a cluster named C1.
TEST(GatewaySettings, HashesAreThoseOfNatsServer) {
  EXPECT_EQ(gateway_hash("C1"), "lAT7oY");
  EXPECT_EQ(old_gateway_hash("").size(), 4u);
  EXPECT_EQ(old_gateway_hash("abc"), "ba78");  // SHA-256 of FIPS 180-2's example
}

TEST(KnownUrls, AreMetByTheNamesOfACertificate) {
  const auto urls = [](std::vector<std::string> hosts) {
    std::vector<config::Url> out;
    for (std::string& host : hosts) out.emplace_back().host = std::move(host);
    return out;
  };
  EXPECT_TRUE(names_host_of({"other", "a.example"}, urls({"b.example", "A.Example"})));
  EXPECT_FALSE(names_host_of({"a.example"}, urls({"b.example", "example", "x.a.example"})));
  EXPECT_FALSE(names_host_of({}, urls({"a"})));
  EXPECT_FALSE(names_host_of({"a"}, {}));
  // A star is one label, the first.
  EXPECT_TRUE(names_host_of({"*.example"}, urls({"a.example"})));
  EXPECT_TRUE(names_host_of({"*"}, urls({"localhost"})));
  EXPECT_FALSE(names_host_of({"*"}, urls({"a.example"})));
  EXPECT_FALSE(names_host_of({"*.example"}, urls({"example", "b.a.example"})));
  EXPECT_FALSE(names_host_of({"a.*"}, urls({"a.example"})));
  EXPECT_FALSE(names_host_of({""}, urls({"a"})));
}

TEST(GatewaySettings, MappedRepliesComeApartAgain) {
  config::Options options;
  options.gateway.name = "C1";
  const GatewaySettings settings(options, "NID");
  const std::string mapped = settings.reply_prefix + "inbox.1";
  ASSERT_TRUE(core::is_gateway_reply(mapped));
  const core::GatewayReply reply = core::parse_gateway_reply(mapped);
  EXPECT_EQ(reply.cluster, "lAT7oY");
  EXPECT_EQ(reply.server, gateway_hash("NID"));
  EXPECT_EQ(reply.plain, "inbox.1");
  const std::string old = settings.old_reply_prefix + "inbox.1";
  ASSERT_TRUE(core::is_gateway_reply(old));
  EXPECT_EQ(core::parse_gateway_reply(old).cluster, settings.old_cluster_hash);
  EXPECT_EQ(core::parse_gateway_reply(old).plain, "inbox.1");
  EXPECT_FALSE(core::is_gateway_reply("_GR_.short"));
  EXPECT_FALSE(core::is_gateway_reply("$GR.x"));
  EXPECT_FALSE(core::is_gateway_reply(""));
}

}  // namespace
}  // namespace peregrine::cluster
