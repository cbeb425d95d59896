// The slow honest twin of core::Sublist: a list, walked from front to back, with its own idea of what a token is.
//
// Mirrors every call made on the index; difference() says in words how an answer of the index differs from the list's,
// empty when it doesn't. Group ids are checked against what an index of another shard gives the same group.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/sublist.h"

namespace peregrine::model {

inline std::vector<std::string> split(std::string_view subject) {
  std::vector<std::string> tokens{""};
  for (const char c : subject) {
    if (c == '.') tokens.emplace_back();
    else tokens.back().push_back(c);
  }
  return tokens;
}

inline bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& subject) {
  for (const auto& token : subject) {
    if (token.empty()) return false;
  }
  for (size_t i = 0; i < pattern.size(); i++) {
    if (i >= subject.size()) return false;
    if (pattern[i] == ">" && i + 1 == pattern.size()) return true;
    if (pattern[i] != "*" && pattern[i] != subject[i]) return false;
  }
  return pattern.size() == subject.size();
}

// The same two by text.
inline bool matches(std::string_view pattern, std::string_view subject) {
  return matches(split(pattern), split(subject));
}

class LinearSublist {
 public:
  using QueueKey = std::pair<std::string, std::string>;  // subject, queue: what interest is told by

  LinearSublist(core::HashKey key, uint32_t account) : other_shard_(key, core::kMaxShards - 1, account) {}
  ~LinearSublist() {}

  core::InterestChange insert(core::Subscription& sub, std::string_view subject, std::string_view queue) {
    subs_.push_back({&sub, std::string(subject), std::string(queue), split(subject)});
    const auto count = static_cast<uint32_t>(count_of(subject, queue));
    using Kind = core::InterestChange::Kind;
    if (!queue.empty()) return {.kind = Kind::kWeight, .weight = count};
    return {.kind = count == 1 ? Kind::kFirst : Kind::kNone};
  }

  core::InterestChange remove(core::Subscription& sub) {
    const auto found = std::find_if(subs_.begin(), subs_.end(), [&](const Listed& each) { return each.sub == &sub; });
    const Listed gone = *found;
    subs_.erase(found);
    const auto count = static_cast<uint32_t>(count_of(gone.subject, gone.queue));
    using Kind = core::InterestChange::Kind;
    if (!gone.queue.empty()) return {.kind = Kind::kWeight, .weight = count};
    return {.kind = count == 0 ? Kind::kLast : Kind::kNone};
  }

  void set_remote(uint32_t shard, std::string_view subject, bool interested) {
    if (interested) remote_[{std::string(subject), shard}] = split(subject);
    else remote_.erase({std::string(subject), shard});
  }

  void set_remote_queue(uint32_t shard, std::string_view subject, std::string_view queue, uint32_t weight) {
    auto& weights = remote_queues_[{std::string(subject), std::string(queue)}];
    if (weight == 0) weights.erase(shard);
    else weights[shard] = weight;
    if (weights.empty()) remote_queues_.erase({std::string(subject), std::string(queue)});
  }

  std::string difference(core::Sublist& index, std::string_view subject) {
    const auto tokens = split(subject);
    std::multiset<const core::Subscription*> plain;
    // By queue name: a group is everybody of that name the message reaches.
    std::map<std::string, std::multiset<const core::Subscription*>> members;
    std::map<std::string, std::map<uint32_t, uint32_t>> weights;
    core::ShardSet shards = 0;
    for (const Listed& each : subs_) {
      if (!matches(each.tokens, tokens)) continue;
      if (each.queue.empty()) {
        plain.insert(each.sub);
      } else {
        members[each.queue].insert(each.sub);
        weights[each.queue];
      }
    }
    for (const auto& [key, pattern] : remote_) {
      if (matches(pattern, tokens)) shards |= core::ShardSet{1} << key.second;
    }
    for (const auto& [key, per_shard] : remote_queues_) {
      if (!matches(split(key.first), tokens)) continue;
      for (const auto& [shard, weight] : per_shard) weights[key.second][shard] += weight;
      members[key.second];
    }
    std::map<uint64_t, std::string> by_id;
    for (const auto& [queue, unused] : members) by_id[id_of(queue)] = queue;

    std::ostringstream out;
    out << "match(\"" << subject << "\"): ";
    const core::Match match = index.match(subject);
    const std::multiset<const core::Subscription*> got(match.plain.begin(), match.plain.end());
    if (got != plain) return out << got.size() << " plain, expected " << plain.size(), out.str();
    if (match.shards != shards) return out << "shards " << match.shards << ", expected " << shards, out.str();
    if (match.groups.size() != members.size())
      return out << match.groups.size() << " groups, expected " << members.size(), out.str();
    std::set<uint64_t> seen;
    for (const core::QueueGroup& group : match.groups) {
      if (!seen.insert(group.id).second) return out << "a group twice", out.str();
      const auto known = by_id.find(group.id);
      if (known == by_id.end()) return out << "a group with an unexpected id", out.str();
      const auto& key = known->second;
      const std::multiset<const core::Subscription*> local(group.local.begin(), group.local.end());
      if (local != members[key]) return out << "members of " << key, out.str();
      std::map<uint32_t, uint32_t> remote;
      uint64_t sum = 0;
      for (const core::ShardWeight& each : group.remote) {
        remote[each.shard] = each.weight;
        sum += each.weight;
      }
      if (remote.size() != group.remote.size() || remote != weights[key] || sum != group.remote_weight)
        return out << "weights of " << key, out.str();
    }
    // Last, as it may end the life of `match`.
    for (const uint64_t id : seen) {
      const core::QueueGroup* group = index.find_group(subject, id);
      if (group == nullptr || group->id != id) return out << "find_group does not find", out.str();
    }
    if (index.find_group(subject, 0x1234) != nullptr) return out << "find_group finds what is not there", out.str();
    return {};
  }

  // What for_each_interest should say: (subject, queue, weight).
  std::set<std::tuple<std::string, std::string, uint32_t>> interest() const {
    std::set<std::tuple<std::string, std::string, uint32_t>> all;
    for (const Listed& each : subs_) {
      const auto weight = each.queue.empty() ? 0 : static_cast<uint32_t>(count_of(each.subject, each.queue));
      all.insert({each.subject, each.queue, weight});
    }
    return all;
  }

  uint64_t id_of(const std::string& queue) {
    const auto known = ids_.find(queue);
    if (known != ids_.end()) return known->second;
    core::Subscription sub(nullptr, "1");
    other_shard_.insert(sub, "any.subject", queue);
    const uint64_t id = other_shard_.match("any.subject").groups[0].id;
    other_shard_.remove(sub);
    ids_[queue] = id;
    return id;
  }

 private:
  struct Listed {
    core::Subscription* sub;
    std::string subject;
    std::string queue;
    std::vector<std::string> tokens;
  };

  size_t count_of(std::string_view subject, std::string_view queue) const {
    return static_cast<size_t>(std::count_if(subs_.begin(), subs_.end(), [&](const Listed& each) {
      return each.subject == subject && each.queue == queue;
    }));
  }

  std::vector<Listed> subs_;
  std::map<std::pair<std::string, uint32_t>, std::vector<std::string>> remote_;  // (subject, shard) -> tokens
  std::map<QueueKey, std::map<uint32_t, uint32_t>> remote_queues_;
  core::Sublist other_shard_;
  std::map<std::string, uint64_t> ids_;
};

}  // namespace peregrine::model
