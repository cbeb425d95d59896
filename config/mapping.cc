#include "config/mapping.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <set>
#include <utility>

namespace peregrine::config {
namespace {

using Kind = DestinationToken::Kind;

constexpr std::string_view kBlanks = "\t\n\f\r ";
constexpr std::string_view kInvalidSubject = "invalid subject";

// Only the capitals may be written small.
constexpr std::pair<std::string_view, Kind> kFunctions[] = {
    {"Wildcard", Kind::kWildcard},
    {"Partition", Kind::kPartition},
    {"Split", Kind::kSplit},
    {"SplitFromLeft", Kind::kSplitFromLeft},
    {"SplitFromRight", Kind::kSplitFromRight},
    {"SliceFromLeft", Kind::kSliceFromLeft},
    {"SliceFromRight", Kind::kSliceFromRight},
    {"Left", Kind::kLeft},
    {"Right", Kind::kRight},
    {"Random", Kind::kRandom},
};

bool is_spelling(std::string_view name, std::string_view function) {
  return std::equal(name.begin(), name.end(), function.begin(), function.end(), [](char have, char want) {
    const bool capital = want >= 'A' && want <= 'Z';
    return have == want || (capital && have == want - 'A' + 'a');
  });
}

std::vector<std::string_view> tokens_of(std::string_view subject) {
  std::vector<std::string_view> tokens;
  for (;;) {
    const std::size_t dot = subject.find('.');
    tokens.push_back(subject.substr(0, dot));
    if (dot == std::string_view::npos) return tokens;
    subject.remove_prefix(dot + 1);
  }
}

std::string_view trim(std::string_view text, std::string_view blanks) {
  const std::size_t first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

// As Go's strconv.Atoi: an optional sign and digits.
std::optional<std::int64_t> number_of(std::string_view text) {
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return std::nullopt;
  }
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<std::int64_t> argument(std::string_view text) { return number_of(trim(text, " ")); }

bool is_function(std::string_view token) {
  return token.size() > 4 && token.starts_with("{{") && token.ends_with("}}");
}

struct Call {
  Kind kind;
  std::vector<std::string_view> arguments;  // at least one, as the text between the commas
};

// Whoever calls checks is_function() first. Nothing: no function of ours.
std::optional<Call> take_call(std::string_view token) {
  const std::string_view inner = trim(token.substr(2, token.size() - 4), kBlanks);
  const std::size_t open = inner.find('(');
  if (open == std::string_view::npos || !inner.ends_with(')')) return std::nullopt;
  const std::string_view name = trim(inner.substr(0, open), kBlanks);
  const auto* function = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                      [&](const auto& one) { return is_spelling(name, one.first); });
  if (function == std::end(kFunctions)) return std::nullopt;
  Call call{function->second, {}};
  std::string_view rest = inner.substr(open + 1, inner.size() - open - 2);
  for (;;) {
    const std::size_t comma = rest.find(',');
    call.arguments.push_back(rest.substr(0, comma));
    if (comma == std::string_view::npos) return call;
    rest.remove_prefix(comma + 1);
    // Blanks after a comma belong to it; anywhere else they may be a delimiter's, and are refused there.
    rest.remove_prefix(std::min(rest.find_first_not_of(kBlanks), rest.size()));
  }
}

Error mistake(std::string_view what, std::string_view token) {
  return {fmt::format("invalid mapping destination: {} in {}", what, token)};
}

// One destination token; its wildcards still 1-based in `wildcards`.
Result<DestinationToken> parse_token(std::string_view token, std::vector<std::int64_t>& wildcards) {
  constexpr std::string_view kTooFew = "not enough arguments passed to the function";
  constexpr std::string_view kTooMany = "too many arguments passed to the function";
  constexpr std::string_view kInvalid = "function argument is invalid or in the wrong format";
  DestinationToken out;
  out.text = token;
  if (token.size() > 1 && token.front() == '$') {
    if (const std::optional<std::int64_t> wildcard = number_of(token.substr(1))) {
      out.kind = Kind::kWildcard;
      wildcards.push_back(*wildcard);
    }
    return out;  // `$` begins many a subject that is no reference
  }
  if (token == ">") {
    out.kind = Kind::kRest;
    return out;
  }
  if (!is_function(token)) return out;

  const std::optional<Call> call = take_call(token);
  if (!call) return mistake("unknown function", token);
  const std::vector<std::string_view>& arguments = call->arguments;
  const bool none = arguments.size() == 1 && arguments[0].empty();
  out.kind = call->kind;
  out.text.clear();
  switch (call->kind) {
    case Kind::kWildcard: {
      if (none) return mistake(kTooFew, token);
      if (arguments.size() > 1) return mistake(kTooMany, token);
      const std::optional<std::int64_t> wildcard = argument(arguments[0]);
      if (!wildcard) return mistake(kInvalid, token);
      wildcards.push_back(*wildcard);
      return out;
    }
    case Kind::kPartition:
    case Kind::kRandom: {
      if (call->kind == Kind::kRandom && arguments.size() > 1) return mistake(kTooFew, token);  // its words
      const std::optional<std::int64_t> number = argument(arguments[0]);
      if (!number || *number > std::numeric_limits<std::int32_t>::max()) return mistake(kInvalid, token);
      out.number = static_cast<std::int32_t>(*number);
      for (std::size_t n = 1; n < arguments.size(); ++n) {
        const std::optional<std::int64_t> wildcard = argument(arguments[n]);
        if (!wildcard) return mistake(kInvalid, token);
        wildcards.push_back(*wildcard);
      }
      return out;
    }
    case Kind::kSplit: {
      if (arguments.size() < 2) return mistake(kTooFew, token);
      if (arguments.size() > 2) return mistake(kTooMany, token);
      const std::optional<std::int64_t> wildcard = argument(arguments[0]);
      if (!wildcard || arguments[1].find(' ') != std::string_view::npos) return mistake(kInvalid, token);
      wildcards.push_back(*wildcard);
      out.text = arguments[1];
      return out;
    }
    default: {
      if (arguments.size() < 2) return mistake(kTooFew, token);
      if (arguments.size() > 2) return mistake(kTooMany, token);
      const std::optional<std::int64_t> wildcard = argument(arguments[0]);
      const std::optional<std::int64_t> number = argument(arguments[1]);
      if (!wildcard || !number || *number > std::numeric_limits<std::int32_t>::max() ||
          *number < std::numeric_limits<std::int32_t>::min()) {
        return mistake(kInvalid, token);
      }
      wildcards.push_back(*wildcard);
      out.number = static_cast<std::int32_t>(*number);
      return out;
    }
  }
}

// What an account refuses before the destination is taken apart, so that its words come first.
std::optional<std::string> check_account_destination(std::string_view destination) {
  bool closed = false;  // after `>` nothing may follow
  for (const std::string_view token : tokens_of(destination)) {
    if (token.empty() || closed) {
      return token.empty() ? "invalid mapping destination: invalid transform"
                           : mistake("invalid transform", token).text;
    }
    if (is_function(token)) {
      if (!take_call(token)) return mistake("unknown function", token).text;
    } else if (token == ">") {
      closed = true;
    } else if (token.find_first_of(kBlanks) != std::string_view::npos) {
      return "invalid mapping destination: invalid transform";
    }
  }
  return std::nullopt;
}

}  // namespace

Result<std::vector<DestinationToken>> parse_destination(std::string_view source, std::string_view destination) {
  std::vector<std::size_t> positions;  // of the source's `*`
  bool source_rest = false;
  const std::vector<std::string_view> source_tokens = tokens_of(source);
  for (std::size_t n = 0; n < source_tokens.size(); ++n) {
    if (source_tokens[n] == "*") positions.push_back(n);
    if (source_tokens[n] == ">") source_rest = true;
  }
  bool rest = false;
  const std::vector<std::string_view> destination_tokens = tokens_of(destination);
  for (const std::string_view token : destination_tokens) {
    if (token.empty() || token == "*" || rest) return Error{std::string(kInvalidSubject)};
    rest = token == ">";
  }
  if (rest != source_rest) return Error{std::string(kInvalidSubject)};

  const bool literal = positions.empty() && !source_rest;
  std::vector<DestinationToken> out;
  for (const std::string_view token : destination_tokens) {
    std::vector<std::int64_t> wildcards;
    Result<DestinationToken> read = parse_token(token, wildcards);
    if (!read) return Error{read.error()};
    if (literal && read->kind == Kind::kPartition) wildcards.clear();  // nats-server takes the whole subject then
    for (const std::int64_t wildcard : wildcards) {
      if (literal) return mistake("wildcard index out of range", token);
      if (wildcard > static_cast<std::int64_t>(positions.size())) {
        return mistake("wildcard index out of range", fmt::format("{}: [{}]", token, wildcard));
      }
      // There is no wildcard 0; to nats-server it is the first token.
      read->sources.push_back(wildcard < 1 ? 0 : positions[static_cast<std::size_t>(wildcard - 1)]);
    }
    out.push_back(std::move(*read));
  }
  return out;
}

std::optional<std::string> check_mapping(const Mapping& mapping) {
  std::set<std::string_view> seen;
  std::map<std::string_view, int> weights;  // by cluster
  for (const MappingDestination& to : mapping.destinations) {
    if (!seen.insert(to.destination).second) return fmt::format("duplicate entry for \"{}\"", to.destination);
    if ((weights[to.cluster] += to.weight) > 100) return "total weight needs to be <= 100";
    // nats-server lets this one pass, and crashes when it is used.
    if (to.destination.empty()) return std::string(kInvalidSubject);
    if (std::optional<std::string> wrong = check_account_destination(to.destination)) return wrong;
    const Result<std::vector<DestinationToken>> tokens = parse_destination(mapping.source, to.destination);
    if (!tokens) return tokens.error();
  }
  return std::nullopt;
}

std::string unchanged_destination(std::string_view source) {
  std::string out;
  int wildcard = 0;
  for (const std::string_view token : tokens_of(source)) {
    if (!out.empty()) out += '.';
    out += token == "*" ? fmt::format("${}", ++wildcard) : std::string(token);
  }
  return out;
}

}  // namespace peregrine::config
