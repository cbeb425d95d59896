// What may cross one leafnode connection: subjects we may send there, and subjects whose interest we may tell there.
//
// Owned by a LeafSession. Lists of patterns, scanned: they are short, and most subjects are decided by their first
// byte, because the usual lists only name the server's own subjects ("$JS.API.>"). The verdict on a subject that has to
// be looked at is cached (bounded). A queue qualifier ("foo workers") means nothing here: such an entry is left out of
// what is told, as in nats-server. Source: canSubscribeInternal and pubAllowedFullCheck in server/client.go; parity.md
// 7.2-07.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/options.h"

namespace peregrine::cluster {

class LeafPermissions {
 public:
  // Replaces both lists; null = everything.
  void set(const config::SubjectPermission* send, const config::SubjectPermission* tell);
  void deny_sending(const std::vector<std::string>& subjects);
  void deny_telling(const std::vector<std::string>& subjects);

  // A literal subject.
  bool may_send(std::string_view subject);
  // `subject` may have wildcards: a broader one than what is allowed may be told, messages are looked at one by one.
  bool may_tell(std::string_view subject) const;

 private:
  struct Rules {
    std::optional<std::vector<std::string>> allow;
    std::vector<std::string> deny;
    bool only_dollar = true;  // all there is are denies of subjects that begin with '$'
    void note();
    bool allows(std::string_view subject, bool broader) const;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  static constexpr size_t kCacheMax = 128;

  Rules send_, tell_;
  std::unordered_map<std::string, bool, Hash, std::equal_to<>> cache_;
};

}  // namespace peregrine::cluster
