#include "cluster/route_settings.h"

#include <gtest/gtest.h>

namespace peregrine::cluster {
namespace {

// The vectors are nats-server's.
TEST(RouteSettings, AccountsHaveTheirPlaceInThePool) {
  config::Options options;
  const RouteSettings usual(options);
  EXPECT_EQ(usual.pool_size(), 3);
  EXPECT_EQ(RouteSettings::pool_index("$G", 3), 2);
  EXPECT_EQ(RouteSettings::pool_index("APP", 3), 1);
  EXPECT_EQ(RouteSettings::pool_index("$G", 5), 3);
  EXPECT_EQ(RouteSettings::pool_index("APP", 5), 4);
  EXPECT_EQ(RouteSettings::pool_index("$G", 1), 0);
  EXPECT_TRUE(usual.pinned("$SYS")) << "the system account always has a route of its own";
  options.cluster.pool_size = -1;
  const RouteSettings none(options);
  EXPECT_FALSE(none.pooled());
  EXPECT_EQ(none.pool_size(), 1);
  EXPECT_FALSE(none.pinned("$SYS"));
}

TEST(RouteSettings, TwoWithManyShardsAgreeOnALargerPool) {
  config::Options options;
  const RouteSettings eight(options, nullptr, 8);
  EXPECT_EQ(eight.pool_size(0), 3) << "a nats-server";
  EXPECT_EQ(eight.pool_size(2), 3);
  EXPECT_EQ(eight.pool_size(6), 6);
  EXPECT_EQ(RouteSettings(options, nullptr, 6).pool_size(8), 6) << "the other side comes to the same";
  EXPECT_EQ(eight.pool_size(1'000'000), 8);
  EXPECT_EQ(eight.pool_size(-1), 3);
  options.cluster.pool_size = 4;
  EXPECT_EQ(RouteSettings(options, nullptr, 8).pool_size(8), 4) << "it was chosen";
  options.cluster.pool_size = -1;
  EXPECT_EQ(RouteSettings(options, nullptr, 8).pool_size(8), 1);
}

TEST(RouteSettings, InfoWaitsWhenThereIsSomethingToSettle) {
  config::Options options;
  EXPECT_TRUE(RouteSettings(options).delays_info());
  options.cluster.compression.mode = "off";
  EXPECT_TRUE(RouteSettings(options).delays_info()) << "the pool index";
  options.cluster.pool_size = -1;
  EXPECT_FALSE(RouteSettings(options).delays_info());
  options.cluster.compression.mode = "";
  EXPECT_TRUE(RouteSettings(options).delays_info()) << "compression: accept";
}

TEST(RouteSettings, PingsAreAtMostHalfAMinuteApart) {
  config::Options options;
  options.ping_interval = std::chrono::minutes(2);
  EXPECT_EQ(RouteSettings(options).accepted.ping_interval_ns, 30'000'000'000);
  options.cluster.ping_interval = std::chrono::seconds(5);
  options.cluster.ping_max = 7;
  EXPECT_EQ(RouteSettings(options).solicited.ping_interval_ns, 5'000'000'000);
  EXPECT_EQ(RouteSettings(options).solicited.ping_max, 7);
  EXPECT_EQ(RouteSettings(options).accepted.auth_timeout_ns, 0) << "nothing to wait for";
  options.cluster.authorization.user = "u";
  EXPECT_EQ(RouteSettings(options).accepted.auth_timeout_ns, 2'000'000'000);
  EXPECT_EQ(RouteSettings(options).solicited.auth_timeout_ns, 0);
}

TEST(RouteSettings, PermissionsMayStandInTheAuthorizationBlock) {
  config::Options options;
  EXPECT_EQ(RouteSettings(options).permissions, nullptr);
  config::Permissions permissions;
  permissions.publish.emplace().allow = {"in.>"};
  permissions.subscribe.emplace().deny = {"out"};
  options.cluster.authorization.default_permissions = permissions;
  const RouteSettings settings(options);
  ASSERT_NE(settings.permissions, nullptr);
  EXPECT_TRUE(settings.permissions->can_publish("in.a"));
  EXPECT_FALSE(settings.permissions->can_publish("a"));
  EXPECT_FALSE(settings.permissions->can_subscribe("out", ""));
}

}  // namespace
}  // namespace peregrine::cluster
