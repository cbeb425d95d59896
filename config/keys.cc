#include "config/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "config/characters.h"
#include "config/mapping.h"
#include "config/rows.h"

namespace peregrine::config {
namespace {

bool asks_for_nothing(const Value& value) {
  switch (value.kind) {
    case Value::Kind::kNull:
      return true;
    case Value::Kind::kBool:
      return !value.boolean;
    case Value::Kind::kInteger:
      return value.integer == 0;
    case Value::Kind::kString:
      return value.text.empty();
    case Value::Kind::kArray:
      return value.items.empty();
    case Value::Kind::kMap:
      return value.members.empty();
    case Value::Kind::kFloat:
    case Value::Kind::kDatetime:
      return false;
  }
  return false;
}

// What does the same meanwhile.
std::string_view instead_of(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> kInstead[] = {
      {"leafnodes.remotes[].nkey", ": give user and password in the url, nats://user:password@host:port"},
      {"leafnodes.remotes[].credentials", ": give user and password in the url, nats://user:password@host:port"},
      {"leafnodes.authorization.nkey", ": give user and password, or users"},
      {"cluster.tls.verify_and_map", ": use verify_cert_and_check_known_urls, or user and password in authorization"},
      {"gateway.tls.verify_and_map", ": use verify_cert_and_check_known_urls, or user and password in authorization"},
      {"leafnodes.tls.verify_and_map", ": use verify, and user and password in authorization"},
  };
  for (const auto& [option, text] : kInstead) {
    if (option == name) return text;
  }
  return {};
}

void collect_unsupported(const Section& section, const Value& map, const std::string& prefix,
                         std::vector<Problem>& out) {
  for (const Member& member : map.members) {
    const Key* key = section.find(to_lower(member.key));
    if (key == nullptr) continue;  // the binder has said so
    const Value& value = member.value;
    const std::string name = prefix + key->names[0];
    if (!key->built) {
      if (key->harmless ? !key->harmless(value) : !asks_for_nothing(value)) {
        out.push_back(
            {value.position, fmt::format("\"{}\" is not supported by this version yet{}", name, instead_of(name))});
      }
      continue;
    }
    if (!key->unbuilt_value.empty() && value.text == key->unbuilt_value) {
      out.push_back({value.position, fmt::format("\"{}: {}\" is not supported by this version yet", name, value.text)});
    }
    if (key->section == nullptr) continue;
    if (value.kind == Value::Kind::kMap && !key->named) {
      collect_unsupported(*key->section, value, name + ".", out);
    }
    for (const Value& item : value.items) {
      if (item.kind == Value::Kind::kMap) collect_unsupported(*key->section, item, name + "[].", out);
    }
    if (key->named) {
      for (const Member& entry : value.members) {
        if (entry.value.kind == Value::Kind::kMap)
          collect_unsupported(*key->section, entry.value, name + "." + entry.key + ".", out);
      }
    }
  }
}

}  // namespace

Key Key::later() && {
  built = false;
  return std::move(*this);
}

Key Key::later(std::function<bool(const Value&)> is_harmless) && {
  built = false;
  harmless = std::move(is_harmless);
  return std::move(*this);
}

const Key* Section::find(std::string_view name) const {
  for (const Key& key : keys) {
    for (const std::string& known : key.names) {
      if (known == name) return &key;
    }
  }
  return nullptr;
}

std::vector<Problem> unsupported(const Section& section, const Value& map) {
  std::vector<Problem> problems;
  collect_unsupported(section, map, "", problems);
  return problems;
}

bool is_built(std::string_view option) {
  const Key* key = options_section().find(option);
  return key != nullptr && key->built;
}

std::vector<std::string> split_names(std::string_view names) {
  std::vector<std::string> out;
  for (;;) {
    const std::size_t bar = names.find('|');
    out.emplace_back(names.substr(0, bar));
    if (bar == std::string_view::npos) return out;
    names.remove_prefix(bar + 1);
  }
}

bool read_text(Binder& binder, const Value& value, std::string_view name, std::string& out) {
  if (value.kind != Value::Kind::kString) {
    // A password of digits or a name like 007 reads as a number; nats-server refuses it, and so do we, but we say how
    // to write it.
    const bool quotable =
        value.kind == Value::Kind::kInteger || value.kind == Value::Kind::kFloat || value.kind == Value::Kind::kBool;
    binder.type_error(value, name, quotable ? "a string (in quotes)" : "a string");
    return false;
  }
  out = value.text;
  return true;
}

bool read_bool(Binder& binder, const Value& value, std::string_view name, bool& out) {
  if (value.kind != Value::Kind::kBool) {
    binder.type_error(value, name, "true or false");
    return false;
  }
  out = value.boolean;
  return true;
}

bool read_integer(Binder& binder, const Value& value, std::string_view name, std::int64_t min, std::int64_t max,
                  std::int64_t& out) {
  if (value.kind != Value::Kind::kInteger) {
    binder.type_error(value, name, "an integer");
    return false;
  }
  if (value.integer > max) {
    binder.error(value.position, fmt::format("{} value is too big: {} is more than {}", name, value.integer, max));
    return false;
  }
  if (value.integer < min) {
    binder.error(value.position,
                 min == 0 ? fmt::format("{} value can not be negative", name)
                          : fmt::format("{} value is too small: {} is less than {}", name, value.integer, min));
    return false;
  }
  out = value.integer;
  return true;
}

bool read_words(Binder& binder, const Value& value, std::string_view name, std::vector<std::string>& out) {
  if (value.kind == Value::Kind::kString) {
    out.push_back(value.text);
    return true;
  }
  if (value.kind != Value::Kind::kArray) {
    binder.type_error(value, name, "a string or a list of strings");
    return false;
  }
  bool ok = true;
  for (const Value& item : value.items) {
    if (item.kind != Value::Kind::kString) {
      binder.error(item.position,
                   fmt::format("an entry of \"{}\" must be a string, got {}", name, describe(item.kind)));
      ok = false;
    } else {
      out.push_back(item.text);
    }
  }
  return ok;
}

bool read_urls(Binder& binder, const Value& value, std::string_view kind, std::vector<Url>& out) {
  std::vector<std::string> texts;
  bool ok = read_words(binder, value, fmt::format("{} url", kind), texts);
  std::vector<std::string> seen;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const Position& position = i < value.items.size() && ok ? value.items[i].position : value.position;
    if (std::find(seen.begin(), seen.end(), texts[i]) != seen.end()) {
      binder.warn(position, fmt::format("invalid use of field \"{}\": Duplicate {} entry detected", texts[i], kind));
      continue;
    }
    seen.push_back(texts[i]);
    Result<Url> url = parse_url(texts[i], kind);
    if (!url) {
      binder.error(position, url.error());
      ok = false;
    } else {
      out.push_back(std::move(*url));
    }
  }
  return ok;
}

bool read_duration(Binder& binder, const Value& value, std::string_view name, Seconds seconds, Duration& out) {
  const bool number = value.kind == Value::Kind::kInteger || value.kind == Value::Kind::kFloat;
  const bool suffixed = number && !value.text.empty() && (value.text.back() < '0' || value.text.back() > '9');
  if (value.kind == Value::Kind::kString || (suffixed && value.yaml)) {
    const Result<Duration> read = parse_duration(value.text);
    if (!read) {
      binder.error(value.position, fmt::format("error parsing {}: {}", name, read.error()));
      return false;
    }
    out = *read;
    return true;
  }
  const bool accepted = value.kind == Value::Kind::kInteger
                            ? seconds != Seconds::kRefuse
                            : value.kind == Value::Kind::kFloat && seconds == Seconds::kAllow;
  if (!accepted) {
    binder.error(value.position,
                 fmt::format("\"{}\" must be a duration such as \"2m\", got {}{}", name, describe(value.kind),
                             suffixed ? fmt::format(": put {} in quotes", value.text) : ""));
    return false;
  }
  const double amount = value.kind == Value::Kind::kFloat ? value.real : static_cast<double>(value.integer);
  const Result<Duration> read = duration_from_seconds(amount);
  if (!read) {
    binder.error(value.position, fmt::format("error parsing {}: {}", name, read.error()));
    return false;
  }
  if (seconds == Seconds::kWarn) {
    binder.warn(value.position,
                fmt::format("invalid use of field \"{0}\": {0} should be converted to a duration", name));
  }
  out = *read;
  return true;
}

bool is_valid_subject(std::string_view subject) {
  if (subject.empty()) return false;
  bool closed = false;  // after '>' nothing may follow
  for (;;) {
    const std::size_t dot = subject.find('.');
    const std::string_view token = subject.substr(0, dot);
    if (token.empty() || closed || token.find_first_of(" \t\n\r\f") != std::string_view::npos) return false;
    closed = token == ">";
    if (dot == std::string_view::npos) return true;
    subject.remove_prefix(dot + 1);
  }
}

void read_compression(Binder& binder, const Value& value, std::string_view on, Compression& out) {
  const auto read_mode = [&](const Value& mode) {
    static constexpr std::string_view kModes[] = {"off", "accept", "s2_fast", "s2_better", "s2_best", "s2_auto"};
    if (mode.kind == Value::Kind::kBool) {
      out.mode = mode.boolean ? on : "off";
      return;
    }
    std::string word;
    if (!read_text(binder, mode, "compression", word)) return;
    word = to_lower(word);
    if (word == "enabled" || word == "on" || word == "true") word = on;
    if (word == "disabled" || word == "not supported" || word == "not_supported" || word == "false") word = "off";
    if (word == "auto" || word == "fast" || word == "better" || word == "best") word = "s2_" + word;
    if (std::find(std::begin(kModes), std::end(kModes), word) == std::end(kModes)) {
      binder.error(mode.position, fmt::format("unsupported compression mode \"{}\"", mode.text));
      return;
    }
    out.mode = word;
  };
  if (value.kind != Value::Kind::kMap) {
    read_mode(value);
    return;
  }
  for (const Member& member : value.members) {
    const std::string name = to_lower(member.key);
    if (name == "mode") {
      read_mode(member.value);
    } else if (name == "rtt_thresholds" || name == "thresholds" || name == "rtts" || name == "rtt") {
      if (member.value.kind != Value::Kind::kArray) {
        binder.type_error(member.value, name, "a list of durations");
        continue;
      }
      for (const Value& item : member.value.items) {
        Duration threshold{};
        if (read_duration(binder, item, name, Seconds::kRefuse, threshold)) out.rtt_thresholds.push_back(threshold);
      }
    } else if (!member.value.used_as_variable) {
      binder.error(member.value.position, fmt::format("unknown field \"{}\"", member.key));
    }
  }
}

namespace {

// Percent as an integer or as text with an optional sign.
bool read_weight(Binder& binder, const Value& value, int& out) {
  std::int64_t weight = -1;
  if (value.kind == Value::Kind::kInteger) {
    weight = value.integer;
  } else if (value.kind == Value::Kind::kString) {
    std::string digits = value.text;
    if (!digits.empty() && digits.back() == '%') digits.pop_back();
    if (const Result<std::int64_t> number = parse_integer(digits)) weight = *number;
  }
  if (weight < 0 || weight > 100) {
    const bool quoted = value.kind == Value::Kind::kString;
    binder.error(value.position,
                 fmt::format("Invalid weight {0}{1}{0} for mapping destination", quoted ? "\"" : "", value.text));
    return false;
  }
  out = static_cast<int>(weight);
  return true;
}

bool read_destination(Binder& binder, const Value& value, MappingDestination& out) {
  if (value.kind != Value::Kind::kMap) {
    binder.error(value.position, "Expected an entry for the mapping destination");
    return false;
  }
  bool weighted = false;
  bool ok = true;
  for (const Member& member : value.members) {
    const std::string name = to_lower(member.key);
    if (name == "dest" || name == "destination") {
      ok = read_text(binder, member.value, name, out.destination) && ok;
    } else if (name == "weight") {
      weighted = true;
      ok = read_weight(binder, member.value, out.weight) && ok;
    } else if (name == "cluster") {
      ok = read_text(binder, member.value, name, out.cluster) && ok;
    } else {
      binder.error(member.value.position, fmt::format("unknown field \"{}\" for mapping destination", member.key));
      ok = false;
    }
  }
  if (!weighted) {
    binder.error(value.position, fmt::format("Missing weight for mapping destination \"{}\"", out.destination));
    return false;
  }
  return ok;
}

}  // namespace

void read_mappings(Binder& binder, const Value& value, std::vector<Mapping>& out) {
  if (value.kind != Value::Kind::kMap) {
    binder.type_error(value, "mappings", "a map of subjects");
    return;
  }
  out.clear();
  for (const Member& member : value.members) {
    if (!is_valid_subject(member.key)) {
      binder.error(member.value.position, fmt::format("Subject \"{}\" is not a valid subject", member.key));
      continue;
    }
    Mapping mapping{member.key, {}};
    if (member.value.kind == Value::Kind::kString) {
      mapping.destinations.push_back({member.value.text, 100, ""});
    } else if (member.value.kind == Value::Kind::kArray) {
      for (const Value& item : member.value.items) {
        MappingDestination destination;
        if (read_destination(binder, item, destination)) mapping.destinations.push_back(std::move(destination));
      }
    } else {
      MappingDestination destination;
      if (!read_destination(binder, member.value, destination)) continue;
      mapping.destinations.push_back(std::move(destination));
    }
    if (const std::optional<std::string> wrong = check_mapping(mapping)) {
      const std::string to =
          member.value.kind == Value::Kind::kString ? fmt::format(" to \"{}\"", member.value.text) : "";
      binder.error(member.value.position,
                   fmt::format("Error adding mapping for \"{}\"{} : {}", member.key, to, *wrong));
      continue;
    }
    out.push_back(std::move(mapping));
  }
}

}  // namespace peregrine::config
