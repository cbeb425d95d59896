// JSON as nats-server's monitoring writes it: numbers, times, order and escapes as Go's encoder, and the pieces that
// several endpoints share.
//
// Functions of their arguments; any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "config/options.h"
#include "net/control/http_server.h"
#include "net/monitor.h"

namespace peregrine::net::control {

using Json = nlohmann::ordered_json;

// Go prints 2.0 as 2.
Json go_number(double value);
Json go_seconds(config::Duration duration);

template <class Value>
void put_unless_empty(Json& object, const char* key, const Value& value) {
  if (value != Value{}) object[key] = value;
}
void put_write_timeout(Json& json, config::WriteTimeout policy);
void put_subjects(Json& json, const char* name, const std::optional<config::SubjectPermission>& subjects);

// nats-server shows round trips below a millisecond in whole microseconds.
std::string rtt_text(int64_t rtt_ns);
// What most answers begin with.
Json answer_head(const ServerFacts& facts, int64_t now_ns);

// indent < 0 = on one line.
HttpAnswer json_answer(const Json& json, int status = 200, int indent = 2);

}  // namespace peregrine::net::control
