// Makers of table rows (keys.h), by the kind of value a key takes. Included by the tables only.
//
// `S` is the struct a row binds into, `access` a member pointer or a callable S& -> field&. Names are
// "name|alias|alias".
#pragma once

#include <fmt/format.h>

#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

#include "config/keys.h"
#include "config/size_and_time.h"
#include "config/url.h"

namespace peregrine::config {

std::vector<std::string> split_names(std::string_view names);

// Readers of one value; they report to the binder and return false if the value does not fit.
bool read_text(Binder& binder, const Value& value, std::string_view name, std::string& out);
bool read_bool(Binder& binder, const Value& value, std::string_view name, bool& out);
bool read_integer(Binder& binder, const Value& value, std::string_view name, std::int64_t min, std::int64_t max,
                  std::int64_t& out);
bool read_words(Binder& binder, const Value& value, std::string_view name, std::vector<std::string>& out);
bool read_urls(Binder& binder, const Value& value, std::string_view kind, std::vector<Url>& out);

enum class Seconds {
  kWarn,    // an integer is seconds, as in the early days, with a warning
  kAllow,   // integers and floats are seconds
  kRefuse,  // only texts with a unit
};
bool read_duration(Binder& binder, const Value& value, std::string_view name, Seconds seconds, Duration& out);

inline Key make_row(std::string_view names, std::string_view type, std::string_view fallback, std::string_view doc,
                    std::function<void(Binder&, void*, const Value&)> bind) {
  Key key;
  key.names = split_names(names);
  key.type = type;
  key.fallback = fallback;
  key.doc = doc;
  key.bind = std::move(bind);
  return key;
}

// A row with a reader of its own: fn(Binder&, S&, const Value&).
template <class S, class Fn>
Key custom(std::string_view names, std::string_view type, std::string_view fallback, std::string_view doc, Fn fn) {
  return make_row(names, type, fallback, doc, [fn](Binder& binder, void* target, const Value& value) {
    fn(binder, *static_cast<S*>(target), value);
  });
}

template <class S, class Access>
Key text(std::string_view names, Access access, std::string_view fallback, std::string_view doc) {
  const std::string name = split_names(names)[0];
  return custom<S>(names, "string", fallback, doc, [=](Binder& binder, S& target, const Value& value) {
    read_text(binder, value, name, std::invoke(access, target));
  });
}

template <class S, class Access>
Key flag(std::string_view names, Access access, std::string_view fallback, std::string_view doc) {
  const std::string name = split_names(names)[0];
  return custom<S>(names, "boolean", fallback, doc, [=](Binder& binder, S& target, const Value& value) {
    read_bool(binder, value, name, std::invoke(access, target));
  });
}

template <class S, class Access>
Key integer(std::string_view names, Access access, std::int64_t min, std::int64_t max, std::string_view fallback,
            std::string_view doc, std::string_view type = "integer") {
  const std::string name = split_names(names)[0];
  return custom<S>(names, type, fallback, doc, [=](Binder& binder, S& target, const Value& value) {
    std::int64_t number = 0;
    if (!read_integer(binder, value, name, min, max, number)) return;
    auto& field = std::invoke(access, target);
    field = static_cast<std::remove_reference_t<decltype(field)>>(number);
  });
}

template <class S, class Access>
Key size(std::string_view names, Access access, std::int64_t min, std::int64_t max, std::string_view fallback,
         std::string_view doc) {
  return integer<S>(names, access, min, max, fallback, doc, "size");
}

template <class S, class Access>
Key duration(std::string_view names, Access access, Seconds seconds, std::string_view fallback, std::string_view doc) {
  const std::string name = split_names(names)[0];
  return custom<S>(names, "duration", fallback, doc, [=](Binder& binder, S& target, const Value& value) {
    Duration read{};
    if (read_duration(binder, value, name, seconds, read)) std::invoke(access, target) = read;
  });
}

// A word or a list of words.
template <class S, class Access>
Key words(std::string_view names, Access access, std::string_view fallback, std::string_view doc) {
  const std::string name = split_names(names)[0];
  return custom<S>(names, "list of strings", fallback, doc, [=](Binder& binder, S& target, const Value& value) {
    std::vector<std::string> read;
    if (read_words(binder, value, name, read)) std::invoke(access, target) = std::move(read);
  });
}

template <class S, class Access>
Key urls(std::string_view names, Access access, std::string_view kind, std::string_view doc) {
  return custom<S>(names, "list of URLs", "[]", doc,
                   [=, kind = std::string(kind)](Binder& binder, S& target, const Value& value) {
                     std::vector<Url> read;
                     if (read_urls(binder, value, kind, read)) std::invoke(access, target) = std::move(read);
                   });
}

// One of a few words.
template <class S, class Access, class E>
Key choice(std::string_view names, Access access, std::vector<std::pair<std::string, E>> choices,
           std::string_view fallback, std::string_view doc) {
  const std::string name = split_names(names)[0];
  std::string type;
  for (const auto& [word, meaning] : choices) type += (type.empty() ? "" : " | ") + word;
  return custom<S>(names, type, fallback, doc, [=](Binder& binder, S& target, const Value& value) {
    for (const auto& [word, meaning] : choices) {
      if (value.kind == Value::Kind::kString && value.text == word) {
        std::invoke(access, target) = meaning;
        return;
      }
    }
    std::string expected;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      expected += fmt::format("{}'{}'", i == 0 ? "" : i + 1 == choices.size() ? " or " : ", ", choices[i].first);
    }
    binder.error(value.position, fmt::format("{} must be {}", name, expected));
  });
}

// host:port, or a port alone.
template <class S, class Host, class Port>
Key listen(std::string_view names, Host host, Port port, std::string_view fallback, std::string_view doc) {
  return custom<S>(names, "host:port or port", fallback, doc, [=](Binder& binder, S& target, const Value& value) {
    if (value.kind == Value::Kind::kInteger) {
      std::int64_t number = 0;
      if (!read_integer(binder, value, "port", -1, 65535, number)) return;
      std::invoke(host, target).clear();
      std::invoke(port, target) = static_cast<int>(number);
      return;
    }
    if (value.kind != Value::Kind::kString) {
      binder.error(value.position, fmt::format("expected port or host:port, got {}", describe(value.kind)));
      return;
    }
    Result<Listen> read = parse_host_port(value.text);
    if (!read) {
      binder.error(value.position, read.error());
      return;
    }
    std::invoke(host, target) = std::move(read->host);
    std::invoke(port, target) = read->port;
  });
}

template <class S, class Access>
Key port(std::string_view names, Access access, std::string_view fallback, std::string_view doc) {
  return integer<S>(names, access, -1, 65535, fallback, doc, "port");
}

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

// A map with keys of its own, into a struct or an optional struct. after(Binder&, S&, const Value&) checks what the
// keys cannot.
template <class S, class Access, class After>
Key block(std::string_view names, Access access, const Section& section, std::string_view doc, After after) {
  const std::string name = split_names(names)[0];
  Key key = custom<S>(names, "map", "{}", doc, [=, section = &section](Binder& binder, S& target, const Value& value) {
    if (value.kind != Value::Kind::kMap) {
      binder.type_error(value, name, "a map");
      return;
    }
    auto& field = std::invoke(access, target);
    if constexpr (IsOptional<std::remove_reference_t<decltype(field)>>::value) {
      binder.bind(*section, &field.emplace(), value);
    } else {
      binder.bind(*section, &field, value);
    }
    after(binder, target, value);
  });
  key.section = &section;
  return key;
}

template <class S, class Access>
Key block(std::string_view names, Access access, const Section& section, std::string_view doc) {
  return block<S>(names, access, section, doc, [](Binder&, S&, const Value&) {});
}

// A list of maps, into a vector of structs. after(Binder&, element&, const Value& element) checks each.
template <class S, class Access, class After>
Key blocks(std::string_view names, Access access, const Section& section, std::string_view doc, After after) {
  const std::string name = split_names(names)[0];
  Key key = custom<S>(
      names, "list of maps", "[]", doc, [=, section = &section](Binder& binder, S& target, const Value& value) {
        if (value.kind != Value::Kind::kArray) {
          binder.type_error(value, name, "an array of maps");
          return;
        }
        auto& field = std::invoke(access, target);
        field.clear();
        for (const Value& item : value.items) {
          if (item.kind != Value::Kind::kMap) {
            binder.error(item.position,
                         fmt::format("an entry of \"{}\" must be a map, got {}", name, describe(item.kind)));
            continue;
          }
          field.emplace_back();
          binder.bind(*section, &field.back(), item);
          after(binder, field.back(), item);
        }
      });
  key.section = &section;
  return key;
}

// A map of free names to texts or booleans.
template <class S, class Access>
Key text_map(std::string_view names, Access access, std::string_view doc) {
  const std::string name = split_names(names)[0];
  return custom<S>(names, "map of strings", "{}", doc, [=](Binder& binder, S& target, const Value& value) {
    if (value.kind != Value::Kind::kMap) {
      binder.type_error(value, name, "a map");
      return;
    }
    auto& field = std::invoke(access, target);
    field.clear();
    for (const Member& member : value.members) read_text(binder, member.value, member.key, field[member.key]);
  });
}

// A key that is only known by name: checked for existence, bound to nothing.
inline Key known(std::string_view names, std::string_view type, std::string_view doc) {
  return make_row(names, type, "", doc, [](Binder&, void*, const Value&) {});
}

template <class S, class Access>
Key write_timeout_row(Access access, std::string_view doc) {
  return choice<S, Access, WriteTimeout>(
      "write_timeout", access,
      {{"default", WriteTimeout::kDefault}, {"close", WriteTimeout::kClose}, {"retry", WriteTimeout::kRetry}},
      "default", doc);
}

// NATS's rule for a subject with wildcards: tokens without white space, none empty, '>' only as the last.
bool is_valid_subject(std::string_view subject);

// compression: mode | boolean | {mode, rtt_thresholds}; `on` is the mode that true stands for.
void read_compression(Binder& binder, const Value& value, std::string_view on, Compression& out);

// Spread default_permissions over the users without permissions of their own, once the block is read.
void complete_authorization(Authorization& authorization);
void complete_account(Account& account);

// mappings: {source: destination | {destination, weight, cluster} | [those]}
void read_mappings(Binder& binder, const Value& value, std::vector<Mapping>& out);

}  // namespace peregrine::config
