#include "core/permissions.h"

#include <algorithm>

#include "core/subject.h"

namespace peregrine::core {

std::vector<Permissions::Entry> Permissions::compile(const std::vector<std::string>& from) {
  std::vector<Entry> entries;
  entries.reserve(from.size());
  for (const std::string& text : from) {
    const size_t blank = text.find_first_of(" \t");
    if (blank == std::string::npos) {
      entries.push_back({text, {}});
    } else {
      const size_t queue = text.find_first_not_of(" \t", blank);
      entries.push_back({text.substr(0, blank), queue == std::string::npos ? std::string{} : text.substr(queue)});
    }
  }
  return entries;
}

Permissions::Permissions(const config::Permissions& from) : source_(from), responses_(from.allow_responses) {
  if (from.publish) {
    if (from.publish->allow) publish_allow_ = compile(*from.publish->allow);
    publish_deny_ = compile(from.publish->deny);
  }
  // allow_responses alone: nothing may be published but answers.
  if (responses_ && !publish_allow_ && publish_deny_.empty()) publish_allow_.emplace();
  if (from.subscribe) {
    if (from.subscribe->allow && !from.subscribe->allow->empty()) subscribe_allow_ = compile(*from.subscribe->allow);
    subscribe_deny_ = compile(from.subscribe->deny);
  }
}

bool Permissions::any_match(const std::vector<Entry>& entries, std::string_view subject) {
  for (const Entry& entry : entries) {
    if (match_subject(entry.subject, subject)) return true;
  }
  return false;
}

bool Permissions::can_publish(std::string_view subject) const {
  if (publish_allow_ && !any_match(*publish_allow_, subject)) return false;
  return !any_match(publish_deny_, subject);
}

void Permissions::match_queue(const std::vector<Entry>& entries, std::string_view subject, std::string_view queue,
                              bool& plain, bool& has_queue, bool& queue_matches) {
  plain = has_queue = queue_matches = false;
  for (const Entry& entry : entries) {
    if (!match_subject(entry.subject, subject)) continue;
    if (entry.queue.empty()) {
      plain = true;
    } else {
      has_queue = true;
      if (entry.queue == queue || match_subject(entry.queue, queue)) queue_matches = true;
    }
  }
}

bool Permissions::can_subscribe(std::string_view subject, std::string_view queue) const {
  bool plain, has_queue, queue_matches;
  if (subscribe_allow_) {
    match_queue(*subscribe_allow_, subject, queue, plain, has_queue, queue_matches);
    if (!(!queue.empty() && has_queue ? queue_matches : plain)) return false;
  }
  if (!subscribe_deny_.empty()) {
    match_queue(subscribe_deny_, subject, queue, plain, has_queue, queue_matches);
    if (plain || (!queue.empty() && queue_matches)) return false;
  }
  return true;
}

bool Permissions::needs_delivery_check(std::string_view subject, std::string_view queue) const {
  if (subscribe_deny_.empty() || (queue.empty() && is_literal(subject))) return false;
  for (const Entry& entry : subscribe_deny_) {
    if (subjects_overlap(entry.subject, subject)) return true;
  }
  return false;
}

bool Permissions::denied(std::string_view subject, std::string_view queue) const {
  bool plain, has_queue, queue_matches;
  match_queue(subscribe_deny_, subject, queue, plain, has_queue, queue_matches);
  return plain || (!queue.empty() && queue_matches);
}

bool PermissionState::may_publish(std::string_view subject, int64_t now_ns) {
  if (!permissions->limits_publish()) return true;
  const auto hit = publish_cache_.find(subject);
  if (hit != publish_cache_.end()) {
    if (hit->second) return true;
    return permissions->responses() && response_allowed(subject, now_ns);
  }
  const bool allowed = permissions->can_publish(subject);
  if (!allowed && permissions->responses()) return response_allowed(subject, now_ns);
  // A random walk through subjects may empty the cache again and again; it can not grow it.
  if (publish_cache_.size() >= kCacheMax) publish_cache_.clear();
  publish_cache_.emplace(subject, allowed);
  return allowed;
}

void PermissionState::expect_reply(std::string_view reply, int64_t now_ns) {
  if (!permissions->responses() || permissions->can_publish(reply)) return;
  if (replies_.size() >= prune_at_) prune_replies(now_ns);
  replies_.insert_or_assign(std::string(reply), Reply{now_ns, 0});
}

bool PermissionState::response_allowed(std::string_view subject, int64_t now_ns) {
  const auto at = replies_.find(subject);
  if (at == replies_.end()) return false;
  const auto& rule = *permissions->responses();
  ++at->second.count;
  const bool spent = rule.max > 0 && at->second.count > rule.max;
  const bool late = rule.expires.count() > 0 && now_ns - at->second.at_ns > rule.expires.count();
  if (!spent && !late) return true;
  replies_.erase(at);
  return false;
}

void PermissionState::prune_replies(int64_t now_ns) {
  const auto& rule = *permissions->responses();
  std::erase_if(replies_, [&](const auto& item) {
    return (rule.max > 0 && item.second.count >= rule.max) ||
           (rule.expires.count() > 0 && now_ns - item.second.at_ns > rule.expires.count());
  });
  // Without a limit and without an end nothing is ever spent: then the older half has had its time.
  if (replies_.size() > kRepliesMost) {
    std::vector<int64_t> times;
    times.reserve(replies_.size());
    for (const auto& item : replies_) times.push_back(item.second.at_ns);
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    const int64_t last = *middle;
    size_t excess = replies_.size() / 2;
    std::erase_if(replies_, [&](const auto& item) { return item.second.at_ns <= last && excess > 0 && excess-- > 0; });
  }
  prune_at_ = std::max(kRepliesMax, std::min(replies_.size() * 2, kRepliesMost + 1));
}

}  // namespace peregrine::core
