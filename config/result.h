// Result<T>: a value, or the text of an error.
//
// The standard std::expected would do, but clang 14 cannot compile libstdc++ 12's, and the fuzz targets are built with
// clang. Loading a configuration happens once at start, so an error is a sentence for a human, not a code.
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace peregrine::config {

struct Error {
  std::string text;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  // REQUIRES: has_value()
  T& operator*() { return std::get<0>(state_); }
  const T& operator*() const { return std::get<0>(state_); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }

  // REQUIRES: !has_value()
  const std::string& error() const { return std::get<1>(state_).text; }

 private:
  std::variant<T, Error> state_;
};

}  // namespace peregrine::config
