#include "core/auth.h"

#include <crypt.h>
#include <gtest/gtest.h>

namespace peregrine::core {
namespace {

config::Options with_users() {
  config::Options options;
  config::User alice{.user = "alice", .password = "secret"};
  alice.permissions.emplace();
  alice.permissions->publish.emplace();
  alice.permissions->publish->allow = {"foo.*", "bar"};
  alice.permissions->publish->deny = {"foo.secret"};
  alice.permissions->subscribe.emplace();
  alice.permissions->subscribe->deny = {"x.secret", "y q.*"};
  options.authorization.users = {alice, {.user = "bob", .password = "b"}};
  options.no_auth_user = "bob";
  return options;
}

TEST(Auth, UsersByName) {
  const Auth auth(with_users());
  EXPECT_TRUE(auth.required());
  EXPECT_FALSE(auth.announced()) << "no_auth_user lets everybody in";
  EXPECT_TRUE(auth.plan({.user = "carol", .password = "x"}).refused);
  const Auth::Plan plan = auth.plan({.user = "alice", .password = "secret"});
  EXPECT_TRUE(plan.compare);
  EXPECT_TRUE(Auth::compare_plain(plan.expected, plan.offered));
  EXPECT_EQ(plan.identity.user, "alice");
  const Auth::Plan nobody = auth.plan({});
  EXPECT_FALSE(nobody.refused);
  EXPECT_FALSE(nobody.compare);
  EXPECT_EQ(nobody.identity.user, "bob");
}

TEST(Auth, TokenAndBcrypt) {
  config::Options options;
  char salt[64];
  ASSERT_NE(crypt_gensalt_rn("$2b$", 4, nullptr, 0, salt, sizeof(salt)), nullptr);
  options.authorization.token = crypt("hunter2", salt);
  const Auth auth(options);
  const Auth::Plan plan = auth.plan({.token = "hunter2"});
  EXPECT_TRUE(plan.bcrypt);
  EXPECT_TRUE(Auth::compare_bcrypt(plan.expected, "hunter2"));
  EXPECT_FALSE(Auth::compare_bcrypt(plan.expected, "hunter3"));
  EXPECT_FALSE(Auth::plain_secrets(options));
  // nats tools write $2a$.
  EXPECT_TRUE(Auth::is_bcrypt("$2a$11$abcdefghijklmnopqrstuv"));
  EXPECT_FALSE(Auth::is_bcrypt("$3a$11$abc"));
}

TEST(Permissions, PublishAndSubscribe) {
  const Auth auth(with_users());
  const auto permissions = auth.plan({.user = "alice"}).identity.permissions;
  ASSERT_NE(permissions, nullptr);
  EXPECT_TRUE(permissions->can_publish("foo.a"));
  EXPECT_TRUE(permissions->can_publish("bar"));
  EXPECT_FALSE(permissions->can_publish("foo.secret"));
  EXPECT_FALSE(permissions->can_publish("baz"));
  EXPECT_TRUE(permissions->can_subscribe("x.*", ""));
  EXPECT_TRUE(permissions->needs_delivery_check("x.*", ""));
  EXPECT_FALSE(permissions->needs_delivery_check("z.*", ""));
  EXPECT_TRUE(permissions->denied("x.secret", ""));
  EXPECT_FALSE(permissions->can_subscribe("x.secret", "")) << "denied by name";
  EXPECT_TRUE(permissions->can_subscribe("y", ""));
  EXPECT_TRUE(permissions->can_subscribe("y", "other"));
  EXPECT_FALSE(permissions->can_subscribe("y", "q.1"));
}

TEST(Permissions, ResponsesAreCountedAndExpire) {
  config::Permissions from;
  from.allow_responses = config::ResponsePermission{.max = 2, .expires = std::chrono::seconds(1)};
  PermissionState state(std::make_shared<const Permissions>(from));
  EXPECT_FALSE(state.may_publish("reply.1", 0)) << "allow_responses alone allows nothing else";
  state.expect_reply("reply.1", 0);
  EXPECT_TRUE(state.may_publish("reply.1", 1));
  EXPECT_TRUE(state.may_publish("reply.1", 2));
  EXPECT_FALSE(state.may_publish("reply.1", 3));
  state.expect_reply("reply.2", 0);
  EXPECT_FALSE(state.may_publish("reply.2", 2'000'000'000));
}

// Replies that never expire and may be used for ever: the oldest ones go.
TEST(Permissions, ExpectedRepliesAreBounded) {
  config::Permissions from;
  from.allow_responses.emplace();
  from.allow_responses->max = -1;
  from.allow_responses->expires = std::chrono::nanoseconds(-1);
  PermissionState state(std::make_shared<const Permissions>(from));
  constexpr int kReplies = 300'000;
  size_t most = 0;
  for (int n = 0; n < kReplies; ++n) {
    state.expect_reply("_INBOX." + std::to_string(n), n / 10);
    most = std::max(most, state.replies());
  }
  EXPECT_GT(most, 60'000u);
  EXPECT_LE(most, 65'537u);
  for (int n = kReplies - 30'000; n < kReplies; ++n) {
    ASSERT_TRUE(state.may_publish("_INBOX." + std::to_string(n), kReplies)) << n;
  }
  EXPECT_FALSE(state.may_publish("_INBOX.0", kReplies));
}

}  // namespace
}  // namespace peregrine::core
