// What one user may publish and subscribe: allow and deny lists compiled from the options.
//
// Immutable after construction; one object is shared by all connections of a user, on all shards. What changes per
// connection (cached results, reply allowances) lives in PermissionState, owned by the session. Source: nats-server's
// canSubscribe, pubAllowedFullCheck, checkDenySub in server/client.go; parity.md section 3.4.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/options.h"

namespace peregrine::core {

class Permissions {
 public:
  explicit Permissions(const config::Permissions& from);

  bool can_publish(std::string_view subject) const;
  // `queue` empty = plain subscription.
  bool can_subscribe(std::string_view subject, std::string_view queue) const;
  // Whether deliveries to this subscription need denied(): it may receive subjects the deny list names.
  bool needs_delivery_check(std::string_view subject, std::string_view queue) const;
  bool denied(std::string_view subject, std::string_view queue) const;

  bool limits_publish() const { return publish_allow_.has_value() || !publish_deny_.empty(); }
  const std::optional<config::ResponsePermission>& responses() const { return responses_; }
  const config::Permissions& source() const { return source_; }

 private:
  struct Entry {
    std::string subject;
    std::string queue;  // may be a wildcard pattern; empty = plain
  };
  static std::vector<Entry> compile(const std::vector<std::string>& from);
  static bool any_match(const std::vector<Entry>& entries, std::string_view subject);
  static void match_queue(const std::vector<Entry>& entries, std::string_view subject, std::string_view queue,
                          bool& plain, bool& has_queue, bool& queue_matches);

  const config::Permissions source_;
  std::optional<std::vector<Entry>> publish_allow_;
  std::vector<Entry> publish_deny_;
  std::optional<std::vector<Entry>> subscribe_allow_;
  std::vector<Entry> subscribe_deny_;
  std::optional<config::ResponsePermission> responses_;
};

// A connection's side of its permissions: the publish cache (bounded) and the replies it may send.
class PermissionState {
 public:
  explicit PermissionState(std::shared_ptr<const Permissions> permissions) : permissions(std::move(permissions)) {}

  bool may_publish(std::string_view subject, int64_t now_ns);
  // A message with this reply subject is being delivered to the connection: it may answer (allow_responses).
  void expect_reply(std::string_view reply, int64_t now_ns);

  const std::shared_ptr<const Permissions> permissions;
  bool check_deliveries = false;  // some subscription overlaps the deny list

  size_t replies() const { return replies_.size(); }

 private:
  static constexpr size_t kCacheMax = 128;     // as nats-server
  static constexpr size_t kRepliesMax = 4096;  // above it expired ones are looked for
  static constexpr size_t kRepliesMost = 65536;

  struct Reply {
    int64_t at_ns;
    int64_t count;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  bool response_allowed(std::string_view subject, int64_t now_ns);
  void prune_replies(int64_t now_ns);

  std::unordered_map<std::string, bool, Hash, std::equal_to<>> publish_cache_;
  std::unordered_map<std::string, Reply, Hash, std::equal_to<>> replies_;
  size_t prune_at_ = kRepliesMax;
};

}  // namespace peregrine::core
