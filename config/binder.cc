#include "config/binder.h"

#include <fmt/format.h>

#include <algorithm>

#include "config/characters.h"
#include "config/keys.h"

namespace peregrine::config {
namespace {

// A file with more mistakes than this is not a configuration with typing errors; and each look-up takes a while.
constexpr std::size_t kMostHints = 20;

}  // namespace

// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours cost one each.
std::string nearest(std::string_view word, const std::vector<std::string_view>& known) {
  constexpr std::size_t kLongest = 64;  // no option is longer, and the work is quadratic
  if (word.size() > kLongest) return {};
  std::size_t best = std::max<std::size_t>(1, word.size() / 3) + 1;
  std::string_view found;
  for (const std::string_view candidate : known) {
    std::vector<std::size_t> before(candidate.size() + 1);
    std::vector<std::size_t> above(candidate.size() + 1);
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j <= candidate.size(); ++j) above[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      row[0] = i;
      for (std::size_t j = 1; j <= candidate.size(); ++j) {
        const std::size_t change = word[i - 1] == candidate[j - 1] ? 0 : 1;
        row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + change});
        if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] && word[i - 2] == candidate[j - 1]) {
          row[j] = std::min(row[j], before[j - 2] + 1);
        }
      }
      before.swap(above);
      above.swap(row);
    }
    if (above[candidate.size()] < best) {
      best = above[candidate.size()];
      found = candidate;
    }
  }
  return std::string(found);
}

void Binder::bind(const Section& section, void* target, const Value& map) {
  for (const Member& member : map.members) {
    const std::string name = to_lower(member.key);
    const Key* key = section.find(name);
    if (key != nullptr) {
      seen_.push_back(key);
      if (member.value.kind == Value::Kind::kNull) {
        error(member.value.position, fmt::format("\"{}\" has no value", member.key));
      } else {
        key->bind(*this, target, member.value);
      }
      continue;
    }
    if (member.value.used_as_variable) continue;
    std::string hint;
    if (errors_.size() < kMostHints) {
      std::vector<std::string_view> known;
      for (const Key& row : section.keys) known.insert(known.end(), row.names.begin(), row.names.end());
      hint = nearest(name, known);
    }
    error(member.value.position, fmt::format("unknown field \"{}\"{}", member.key,
                                             hint.empty() ? "" : fmt::format(", did you mean \"{}\"?", hint)));
  }
}

void Binder::type_error(const Value& value, std::string_view name, std::string_view expected) {
  const bool show =
      value.kind == Value::Kind::kString && value.text.size() <= 40 && name.find("pass") == std::string_view::npos;
  error(value.position, fmt::format("\"{}\" must be {}, got {}{}", name, expected, describe(value.kind),
                                    show ? fmt::format(" \"{}\"", value.text) : ""));
}

}  // namespace peregrine::config
