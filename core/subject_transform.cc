#include "core/subject_transform.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "core/subject.h"

namespace peregrine::core {
namespace {

using config::DestinationToken;
using Kind = DestinationToken::Kind;

// FNV-1a, 32 bits: every NATS server puts a subject into the same partition.
class PartitionHash {
 public:
  void add(std::string_view text) {
    for (const char byte : text) state_ = (state_ ^ static_cast<unsigned char>(byte)) * 16777619u;
  }
  uint32_t of(int32_t buckets) const { return buckets == 0 ? 0 : state_ % static_cast<uint32_t>(buckets); }

 private:
  uint32_t state_ = 2166136261u;
};

uint32_t partition(const DestinationToken& to, const std::vector<std::string_view>& tokens) {
  PartitionHash hash;
  if (to.sources.empty()) {
    for (size_t n = 0; n < tokens.size(); ++n) {
      if (n != 0) hash.add(".");
      hash.add(tokens[n]);
    }
  } else {
    for (const size_t source : to.sources) hash.add(tokens[source]);
  }
  return hash.of(to.number);
}

// Bytes of the character `text` begins with; 1 for what is no UTF-8.
size_t character_bytes(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text.front());
  const size_t bytes = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
  if (bytes > text.size()) return 1;
  for (size_t n = 1; n < bytes; ++n) {
    if ((static_cast<unsigned char>(text[n]) & 0xC0) != 0x80) return 1;
  }
  return bytes;
}

// The pieces joined by dots, empty ones left out. Like nats-server this leaves an empty token where the text begins
// with two delimiters or more: such a subject reaches nobody there, nor here.
void split(std::string_view text, std::string_view delimiter, std::string& out) {
  if (delimiter.empty()) {  // every character is a piece
    for (bool first = true; !text.empty(); first = false) {
      if (!first) out += '.';
      const size_t bytes = character_bytes(text);
      out += text.substr(0, bytes);
      text.remove_prefix(bytes);
    }
    return;
  }
  for (bool first = true;; first = false) {
    const size_t end = text.find(delimiter);
    const std::string_view piece = text.substr(0, end);
    out += piece;
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + delimiter.size());
    const bool next_is_empty = text.empty() || text.starts_with(delimiter);
    if (!next_is_empty && !(first && piece.empty())) out += '.';
  }
}

void split_at(std::string_view text, size_t position, std::string& out) {
  out += text.substr(0, position);
  out += '.';
  out += text.substr(position);
}

// Pieces of `size` bytes, the first of them of `first`.
void slice(std::string_view text, size_t first, size_t size, std::string& out) {
  out += text.substr(0, first);
  for (size_t at = first; at < text.size(); at += size) {
    out += '.';
    out += text.substr(at, size);
  }
}

// The functions of a token and a number.
void cut(Kind kind, std::string_view text, int32_t number, std::string& out) {
  if (number <= 0 || static_cast<size_t>(number) >= text.size()) {  // nothing to cut
    out += text;
    return;
  }
  const auto size = static_cast<size_t>(number);
  switch (kind) {
    case Kind::kSplitFromLeft:
      return split_at(text, size, out);
    case Kind::kSplitFromRight:
      return split_at(text, text.size() - size, out);
    case Kind::kSliceFromLeft:
      return slice(text, size, size, out);
    case Kind::kSliceFromRight: {
      const size_t odd = text.size() % size;
      return slice(text, odd == 0 ? size : odd, size, out);
    }
    case Kind::kLeft:
      out += text.substr(0, size);
      return;
    case Kind::kRight:
      out += text.substr(text.size() - size);
      return;
    default:
      assert(false);
  }
}

}  // namespace

SubjectTransform::SubjectTransform(std::string_view source, std::string_view destination)
    : source_tokens_(count_tokens(source)) {
  config::Result<std::vector<DestinationToken>> tokens = config::parse_destination(source, destination);
  assert(tokens);
  if (tokens) tokens_ = std::move(*tokens);
}

void SubjectTransform::apply(const std::vector<std::string_view>& tokens, Random& random, std::string& out) const {
  bool first = true;
  for (const DestinationToken& to : tokens_) {
    if (!first) out += '.';
    first = false;
    switch (to.kind) {
      case Kind::kText:
        out += to.text;
        break;
      case Kind::kRest:
        for (size_t n = source_tokens_ - 1; n < tokens.size(); ++n) {
          if (n >= source_tokens_) out += '.';
          out += tokens[n];
        }
        break;
      case Kind::kWildcard:
        out += tokens[to.sources[0]];
        break;
      case Kind::kPartition:
        out += std::to_string(partition(to, tokens));
        break;
      case Kind::kRandom: {
        const auto bound = static_cast<uint64_t>(std::abs(int64_t{to.number}));
        out += std::to_string(bound == 0 ? 0 : random.below(bound));
        break;
      }
      case Kind::kSplit:
        split(tokens[to.sources[0]], to.text, out);
        break;
      default:
        cut(to.kind, tokens[to.sources[0]], to.number, out);
    }
  }
}

// ---------------------------------------------------------------------------------------------------- of an account

SubjectMappings::SubjectMappings(const std::vector<config::Mapping>& mappings, std::string_view cluster) {
  for (const config::Mapping& mapping : mappings) {
    Source source;
    for (const std::string_view token : Tokens(mapping.source)) source.tokens.emplace_back(token);
    source.destinations = choices(mapping, cluster);
    if (is_literal(mapping.source)) {
      literals_.insert_or_assign(mapping.source, std::move(source));
      continue;
    }
    // Of a source named twice the last counts.
    std::erase_if(patterns_, [&](const Source& other) { return other.tokens == source.tokens; });
    patterns_.push_back(std::move(source));
  }
  std::stable_sort(patterns_.begin(), patterns_.end(), more_specific);
}

std::vector<SubjectMappings::Destination> SubjectMappings::choices(const config::Mapping& mapping,
                                                                   std::string_view cluster) {
  const auto wanted = [&](std::string_view scope) {
    std::vector<const config::MappingDestination*> found;
    for (const config::MappingDestination& to : mapping.destinations) {
      if (to.cluster == scope) found.push_back(&to);
    }
    return found;
  };
  std::vector<const config::MappingDestination*> list = wanted(cluster);
  if (list.empty() && !cluster.empty()) list = wanted({});

  std::vector<std::pair<int, std::string>> weighted;
  int total = 0;
  for (const config::MappingDestination* to : list) {
    total += to->weight;
    weighted.emplace_back(to->weight, to->destination);
  }
  // What the weights leave over stays where it is, unless the source stands among the destinations (of any cluster):
  // then it is lost, on purpose.
  const bool names_itself = std::any_of(mapping.destinations.begin(), mapping.destinations.end(),
                                        [&](const auto& to) { return to.destination == mapping.source; });
  if (total < 100 && !names_itself) {
    weighted.emplace_back(100 - total, config::unchanged_destination(mapping.source));
  }

  std::vector<Destination> out;
  uint64_t below = 0;
  for (const auto& [weight, destination] : weighted) {
    below += static_cast<uint64_t>(weight);
    if (weight > 0) out.push_back({SubjectTransform(mapping.source, destination), below});
  }
  return out;
}

bool SubjectMappings::more_specific(const Source& a, const Source& b) {
  const auto rank = [](const std::string& token) { return token == ">" ? 2 : token == "*" ? 1 : 0; };
  return std::lexicographical_compare(a.tokens.begin(), a.tokens.end(), b.tokens.begin(), b.tokens.end(),
                                      [&](const auto& x, const auto& y) { return rank(x) < rank(y); });
}

bool SubjectMappings::matches(const Source& source, const std::vector<std::string_view>& tokens) {
  for (size_t n = 0; n < source.tokens.size(); ++n) {
    if (n >= tokens.size()) return false;
    const std::string_view want = source.tokens[n], have = tokens[n];
    if (want == ">") return true;
    if (have.empty() || have == ">") return false;
    if (want != "*" && want != have) return false;
  }
  return source.tokens.size() == tokens.size();
}

const SubjectMappings::Source* SubjectMappings::find(std::string_view subject) const {
  if (const auto literal = literals_.find(subject); literal != literals_.end()) return &literal->second;
  for (const Source& source : patterns_) {
    if (matches(source, tokens_)) return &source;
  }
  return nullptr;
}

std::optional<std::string_view> SubjectMappings::map(std::string_view subject, Random& random) {
  tokens_.clear();
  for (const std::string_view token : Tokens(subject)) tokens_.push_back(token);
  const Source* source = find(subject);
  if (source == nullptr) return std::nullopt;
  mapped_.clear();
  const std::vector<Destination>& choices = source->destinations;
  const uint64_t draw = choices.size() == 1 && choices[0].below == 100 ? 0 : random.below(100);
  for (const Destination& choice : choices) {
    if (draw >= choice.below) continue;
    choice.transform.apply(tokens_, random, mapped_);
    break;
  }
  if (mapped_.size() > kMaxSubjectBytes) mapped_.clear();
  return mapped_;
}

}  // namespace peregrine::core
