#include "net/control/monitor_json.h"

#include <cmath>
#include <string>

#include "core/go_format.h"

namespace peregrine::net::control {
namespace {

// Go escapes what HTML could take for markup; inside JSON those bytes occur in strings only.
std::string to_text(const Json& json, int indent) {
  const std::string raw = json.dump(indent, ' ', false, Json::error_handler_t::replace);
  std::string text;
  text.reserve(raw.size() + raw.size() / 32);
  for (size_t i = 0; i < raw.size(); ++i) {
    switch (raw[i]) {
      case '<':
        text += "\\u003c";
        break;
      case '>':
        text += "\\u003e";
        break;
      case '&':
        text += "\\u0026";
        break;
      case '\xE2':
        if (raw.compare(i, 3, "\u2028") == 0 || raw.compare(i, 3, "\u2029") == 0) {
          text += raw[i + 2] == '\xA8' ? "\\u2028" : "\\u2029";
          i += 2;
        } else {
          text += raw[i];
        }
        break;
      default:
        text += raw[i];
    }
  }
  return text;
}

}  // namespace

Json go_number(double value) {
  if (std::nearbyint(value) == value && std::abs(value) < 9e15) return static_cast<int64_t>(value);
  return value;
}

Json go_seconds(config::Duration duration) { return go_number(static_cast<double>(duration.count()) / 1e9); }

void put_write_timeout(Json& json, config::WriteTimeout policy) {
  if (policy == config::WriteTimeout::kClose) json["write_timeout"] = "close";
  if (policy == config::WriteTimeout::kRetry) json["write_timeout"] = "retry";
}

void put_subjects(Json& json, const char* name, const std::optional<config::SubjectPermission>& subjects) {
  if (!subjects) return;
  Json& to = json[name] = Json::object();
  if (subjects->allow && !subjects->allow->empty()) to["allow"] = *subjects->allow;
  if (!subjects->deny.empty()) to["deny"] = subjects->deny;
}

std::string rtt_text(int64_t rtt_ns) {
  return core::format_duration(rtt_ns > 1'000 && rtt_ns < 1'000'000 ? rtt_ns / 1000 * 1000 : rtt_ns);
}

Json answer_head(const ServerFacts& facts, int64_t now_ns) {
  Json json = Json::object();
  json["server_id"] = facts.server_id;
  json["now"] = core::format_time(now_ns);
  return json;
}

HttpAnswer json_answer(const Json& json, int status, int indent) {
  return {status, to_text(json, indent), "application/json", {{"Access-Control-Allow-Origin", "*"}}};
}

}  // namespace peregrine::net::control
