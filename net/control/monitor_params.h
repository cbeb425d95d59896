// The parameters of a monitoring request, read with nats-server's rules and complaints.
//
// Lives as long as one answer is made, on its thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/control/http_server.h"
#include "net/monitor.h"

namespace peregrine::net::control {

// Reads parameters one after the other; after the first bad one every further read is skipped and answer() says why.
class MonitorParams {
 public:
  explicit MonitorParams(const HttpRequest& request) : request_(request) {}

  bool boolean(const char* name);
  int64_t integer(const char* name);
  uint64_t unsigned_integer(const char* name);

  // `subs` of /connz and others: a boolean or the word detail.
  struct Subs {
    bool list = false, detail = false;
  };
  Subs subs();
  core::ConnState state();

  bool failed() const { return !error_.empty(); }
  HttpAnswer answer() const;

 private:
  void fail(const char* type, const char* name, const char* function, std::string_view text, const char* why);
  template <class Number>
  Number bad_number(const char* name, const char* type, const char* function, std::string_view text);
  template <class Number>
  Number parse(const char* name, const char* type, const char* function, std::string_view text,
               std::string_view digits);

  const HttpRequest& request_;
  std::string error_;
};

// The part of a list from `offset`, `limit` long, as far as it exists.
template <class Row>
std::span<const Row> page(const std::vector<Row>& rows, int64_t offset, int64_t limit) {
  const size_t begin = std::min(rows.size(), static_cast<size_t>(offset));
  return std::span(rows).subspan(begin, std::min(rows.size() - begin, static_cast<size_t>(limit)));
}

inline size_t rows_needed(int64_t offset, int64_t limit) {
  return static_cast<size_t>(offset) + static_cast<size_t>(limit);
}

}  // namespace peregrine::net::control
