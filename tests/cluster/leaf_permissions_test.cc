#include "cluster/leaf_permissions.h"

#include <gtest/gtest.h>

namespace peregrine::cluster {
namespace {

TEST(LeafPermissions, EverythingIsAllowedAtFirst) {
  LeafPermissions allowed;
  EXPECT_TRUE(allowed.may_send("a"));
  EXPECT_TRUE(allowed.may_tell(">"));
}

TEST(LeafPermissions, ListsOfEachDirection) {
  const config::SubjectPermission send{.allow = {{"up.>", "both"}}, .deny = {"up.not"}};
  const config::SubjectPermission tell{.allow = std::nullopt, .deny = {"secret.*"}};
  LeafPermissions allowed;
  allowed.set(&send, &tell);
  EXPECT_TRUE(allowed.may_send("up.a"));
  EXPECT_FALSE(allowed.may_send("up.not"));
  EXPECT_FALSE(allowed.may_send("up.not"));  // from the cache
  EXPECT_FALSE(allowed.may_send("secret.a"));
  EXPECT_TRUE(allowed.may_send("$MQTT.x"));
  EXPECT_TRUE(allowed.may_tell("up.not"));
  EXPECT_FALSE(allowed.may_tell("secret.a"));
  EXPECT_TRUE(allowed.may_tell("secret.a.b"));
}

TEST(LeafPermissions, ABroaderInterestMayBeTold) {
  const config::SubjectPermission tell{.allow = {{"down.a.*", "x"}}, .deny = {}};
  LeafPermissions allowed;
  allowed.set(nullptr, &tell);
  EXPECT_TRUE(allowed.may_tell("down.a.b"));
  EXPECT_TRUE(allowed.may_tell("down.>"));
  EXPECT_TRUE(allowed.may_tell("*"));
  EXPECT_TRUE(allowed.may_tell(">"));
  EXPECT_FALSE(allowed.may_tell("up.>"));
  EXPECT_FALSE(allowed.may_tell("down.a"));
}

TEST(LeafPermissions, ServerSubjectsAreLookedAt) {
  LeafPermissions allowed;
  allowed.deny_sending({"$JS.API.>"});
  allowed.deny_telling({"$JS.API.>", "$KV.>"});
  EXPECT_TRUE(allowed.may_send("JS.API.x"));
  EXPECT_FALSE(allowed.may_send("$JS.API.INFO"));
  EXPECT_TRUE(allowed.may_send("$JS.ACK.x"));
  EXPECT_FALSE(allowed.may_tell("$KV.b.>"));
  EXPECT_TRUE(allowed.may_tell(">"));
  allowed.deny_sending({"plain"});
  EXPECT_FALSE(allowed.may_send("plain"));
}

TEST(LeafPermissions, QueueQualifiersAreOfNoUse) {
  const config::SubjectPermission tell{.allow = std::nullopt, .deny = {"foo workers"}};
  LeafPermissions allowed;
  allowed.set(nullptr, &tell);
  EXPECT_TRUE(allowed.may_tell("foo"));
}

TEST(LeafPermissions, ARandomWalkDoesNotGrowTheCache) {
  const config::SubjectPermission send{.allow = {{"ok.>"}}, .deny = {}};
  LeafPermissions allowed;
  allowed.set(&send, nullptr);
  for (int n = 0; n < 10'000; ++n) {
    EXPECT_TRUE(allowed.may_send("ok." + std::to_string(n)));
    EXPECT_FALSE(allowed.may_send("no." + std::to_string(n)));
  }
}

}  // namespace
}  // namespace peregrine::cluster
