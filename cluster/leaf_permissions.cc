#include "cluster/leaf_permissions.h"

#include <algorithm>

#include "core/subject.h"

namespace peregrine::cluster {
namespace {

constexpr std::string_view kMqtt = "$MQTT.";  // implicitly allowed between servers, unless it is denied

bool any_match(const std::vector<std::string>& patterns, std::string_view subject) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return core::match_subject(pattern, subject); });
}

// `entry` without its queue qualifier; `qualified` says whether it had one.
std::string subject_part(const std::string& entry, bool& qualified) {
  const size_t blank = entry.find_first_of(" \t");
  qualified = blank != std::string::npos;
  return entry.substr(0, blank);
}

void append(std::vector<std::string>& to, const std::vector<std::string>& from, bool keep_qualified) {
  for (const std::string& entry : from) {
    bool qualified;
    std::string subject = subject_part(entry, qualified);
    if (qualified && !keep_qualified) continue;
    if (std::find(to.begin(), to.end(), subject) == to.end()) to.push_back(std::move(subject));
  }
}

}  // namespace

void LeafPermissions::Rules::note() {
  only_dollar =
      !allow && std::all_of(deny.begin(), deny.end(), [](const std::string& s) { return s.starts_with('$'); });
}

bool LeafPermissions::Rules::allows(std::string_view subject, bool broader) const {
  if (only_dollar && !subject.starts_with('$')) return true;
  if (allow && !subject.starts_with(kMqtt) && !any_match(*allow, subject)) {
    const bool covers = broader && !core::is_literal(subject) &&
                        std::any_of(allow->begin(), allow->end(),
                                    [&](const std::string& entry) { return core::match_subject(subject, entry); });
    if (!covers) return false;
  }
  return !any_match(deny, subject);
}

void LeafPermissions::set(const config::SubjectPermission* send, const config::SubjectPermission* tell) {
  send_ = tell_ = {};
  if (send != nullptr) {
    if (send->allow) append(send_.allow.emplace(), *send->allow, true);
    append(send_.deny, send->deny, true);
  }
  if (tell != nullptr) {
    if (tell->allow && !tell->allow->empty()) append(tell_.allow.emplace(), *tell->allow, false);
    append(tell_.deny, tell->deny, false);
  }
  send_.note();
  tell_.note();
  cache_.clear();
}

void LeafPermissions::deny_sending(const std::vector<std::string>& subjects) {
  append(send_.deny, subjects, true);
  send_.note();
  cache_.clear();
}

void LeafPermissions::deny_telling(const std::vector<std::string>& subjects) {
  append(tell_.deny, subjects, false);
  tell_.note();
}

bool LeafPermissions::may_send(std::string_view subject) {
  if (send_.only_dollar && !subject.starts_with('$')) return true;
  if (const auto known = cache_.find(subject); known != cache_.end()) return known->second;
  const bool allowed = send_.allows(subject, false);
  // A random walk through subjects may empty the cache again and again; it can not grow it.
  if (cache_.size() >= kCacheMax) cache_.clear();
  cache_.emplace(subject, allowed);
  return allowed;
}

bool LeafPermissions::may_tell(std::string_view subject) const { return tell_.allows(subject, true); }

}  // namespace peregrine::cluster
