// Mapped replies: how the answer to a request that came through a gateway finds its way back.
//
// The interest of a requester's fresh inbox may reach the other cluster later than its request, so the gateway that
// sends the request writes the way back into the reply subject: `_GR_.<cluster>.<server>.<reply>`, both hashes of six
// characters. Nobody but peers sees that: a client that gets the request is shown the plain reply, and for two seconds
// what it publishes there is turned into the mapped subject, which goes nowhere but back. Pure functions and a small
// table per client, used on its shard. Source: nats-server's server/gateway.go; parity.md section 6.6.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>

namespace peregrine::core {

inline constexpr std::string_view kGatewayReply = "_GR_.";
inline constexpr std::string_view kOldGatewayReply = "$GR.";  // before 2.2: `$GR.<cluster, 4 hex digits>.<reply>`
inline constexpr size_t kGatewayHashSize = 6;
inline constexpr size_t kGatewayReplyHead = kGatewayReply.size() + 2 * (kGatewayHashSize + 1);
inline constexpr size_t kOldGatewayReplyHead = kOldGatewayReply.size() + 5;

inline bool is_gateway_reply(std::string_view subject) {
  return (subject.size() > kGatewayReplyHead && subject.starts_with(kGatewayReply)) ||
         (subject.size() > kOldGatewayReplyHead && subject.starts_with(kOldGatewayReply));
}
// The parts of one; `server` is empty in the old form.
struct GatewayReply {
  std::string_view cluster, server, plain;
};
inline GatewayReply parse_gateway_reply(std::string_view subject) {
  if (subject[0] == kOldGatewayReply[0]) {
    return {subject.substr(kOldGatewayReply.size(), 4), {}, subject.substr(kOldGatewayReplyHead)};
  }
  return {subject.substr(kGatewayReply.size(), kGatewayHashSize),
          subject.substr(kGatewayReply.size() + kGatewayHashSize + 1, kGatewayHashSize),
          subject.substr(kGatewayReplyHead)};
}

// What one client was shown plain and is mapped when it answers. Bounded by time, and so by the requests it got.
class GatewayReplies {
 public:
  static constexpr int64_t kValidNs = 2'000'000'000;

  void remember(std::string_view mapped, int64_t now_ns) {
    forget_expired(now_ns);
    const std::string plain(parse_gateway_reply(mapped).plain);
    by_plain_[plain] = {std::string(mapped), now_ns + kValidNs};
    order_.push_back({now_ns + kValidNs, plain});
  }
  // The mapped subject; empty if there is none (any more). Good until the next call.
  std::string_view find(std::string_view plain, int64_t now_ns) {
    forget_expired(now_ns);
    const auto at = by_plain_.find(std::string(plain));
    return at == by_plain_.end() ? std::string_view() : std::string_view(at->second.mapped);
  }
  bool empty() const { return by_plain_.empty(); }

 private:
  struct Mapped {
    std::string mapped;
    int64_t until_ns;
  };
  struct Expiry {
    int64_t at_ns;
    std::string plain;
  };
  void forget_expired(int64_t now_ns) {
    for (; !order_.empty() && order_.front().at_ns <= now_ns; order_.pop_front()) {
      const auto at = by_plain_.find(order_.front().plain);
      if (at != by_plain_.end() && at->second.until_ns <= now_ns) by_plain_.erase(at);  // not renewed meanwhile
    }
  }
  std::unordered_map<std::string, Mapped> by_plain_;
  std::deque<Expiry> order_;
};

}  // namespace peregrine::core
