#include "net/control/monitor_params.h"

#include <fmt/format.h>

#include <charconv>

#include "core/go_format.h"
#include "net/control/monitor_answers.h"

namespace peregrine::net::control {
namespace {

using core::ConnState;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

}  // namespace

void MonitorParams::fail(const char* type, const char* name, const char* function, std::string_view text,
                         const char* why) {
  error_ = fmt::format("Error decoding {} for '{}': strconv.{}: parsing {}: {}", type, name, function,
                       core::quote(text), why);
}

template <class Number>
Number MonitorParams::bad_number(const char* name, const char* type, const char* function, std::string_view text) {
  if (!failed()) fail(type, name, function, text, "invalid syntax");
  return 0;
}

template <class Number>
Number MonitorParams::parse(const char* name, const char* type, const char* function, std::string_view text,
                            std::string_view digits) {
  if (failed() || text.empty()) return 0;
  Number value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc::invalid_argument || end != digits.data() + digits.size()) {
    return bad_number<Number>(name, type, function, text);
  }
  if (error == std::errc::result_out_of_range) {
    fail(type, name, function, text, "value out of range");
    return 0;
  }
  return value;
}

bool MonitorParams::boolean(const char* name) {
  const std::string_view text = request_.param(name);
  if (failed() || text.empty()) return false;
  for (const char* yes : {"1", "t", "T", "TRUE", "true", "True"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"0", "f", "F", "FALSE", "false", "False"}) {
    if (text == no) return false;
  }
  fail("boolean", name, "ParseBool", text, "invalid syntax");
  return false;
}

int64_t MonitorParams::integer(const char* name) {
  const std::string_view text = request_.param(name);
  const std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
  return digits.starts_with('-') && text.starts_with('+') ? bad_number<int64_t>(name, "int", "Atoi", text)
                                                          : parse<int64_t>(name, "int", "Atoi", text, digits);
}

uint64_t MonitorParams::unsigned_integer(const char* name) {
  const std::string_view text = request_.param(name);
  return parse<uint64_t>(name, "uint64", "ParseUint", text, text);
}

MonitorParams::Subs MonitorParams::subs() {
  if (lower(request_.param("subs")) == "detail") return {false, true};
  return {boolean("subs"), false};
}

core::ConnState MonitorParams::state() {
  const std::string text = lower(request_.param("state"));
  if (failed() || text.empty() || text == "open") return ConnState::kOpen;
  if (text == "closed") return ConnState::kClosed;
  if (text == "any" || text == "all") return ConnState::kAll;
  error_ = fmt::format("Error decoding state for {}", request_.param("state"));
  return ConnState::kOpen;
}

HttpAnswer MonitorParams::answer() const { return plain_answer(400, error_); }

}  // namespace peregrine::net::control
