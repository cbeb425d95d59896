// Subject mappings: what a publisher calls `old.a` reaches the subscribers as `new.a`.
//
// SubjectTransform is one source and one destination, immutable. SubjectMappings is all of an account's on one shard,
// used on its thread only (it keeps scratch memory). The most specific source wins: a literal before `*` before `>`,
// from the left; nats-server leaves the order of overlapping sources to chance. A mapped subject is not mapped again.
// Source: nats-server's server/subject_transform.go, selectMappedSubject in server/accounts.go; parity.md section 2.4.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/mapping.h"
#include "config/options.h"
#include "core/random.h"

namespace peregrine::core {

class SubjectTransform {
 public:
  // REQUIRES: config::parse_destination() accepts the two.
  SubjectTransform(std::string_view source, std::string_view destination);

  // Appends the destination for a subject of the source. `tokens` are the subject's.
  // REQUIRES: the subject matches the source
  void apply(const std::vector<std::string_view>& tokens, Random& random, std::string& out) const;

 private:
  size_t source_tokens_;
  std::vector<config::DestinationToken> tokens_;
};

class SubjectMappings {
 public:
  // `cluster` is the name of ours, empty = none: destinations of other clusters are left out.
  // REQUIRES: config::check_mapping() found nothing
  SubjectMappings(const std::vector<config::Mapping>& mappings, std::string_view cluster);

  // The subject to deliver on instead, until the next call. Nothing: no mapping speaks of `subject`. Empty: the weights
  // want the message lost (or the subject has become too long to be one).
  std::optional<std::string_view> map(std::string_view subject, Random& random);

 private:
  struct Destination {
    SubjectTransform transform;
    uint64_t below;  // chosen if the draw out of 100 is below this and below no earlier one's
  };
  struct Source {
    std::vector<std::string> tokens;
    std::vector<Destination> destinations;
  };
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  static std::vector<Destination> choices(const config::Mapping& mapping, std::string_view cluster);
  static bool more_specific(const Source& a, const Source& b);
  static bool matches(const Source& source, const std::vector<std::string_view>& tokens);
  const Source* find(std::string_view subject) const;

  std::unordered_map<std::string, Source, TextHash, std::equal_to<>> literals_;
  std::vector<Source> patterns_;  // most specific first

  std::vector<std::string_view> tokens_;  // of the subject in hand
  std::string mapped_;
};

}  // namespace peregrine::core
