#include "config/url.h"

#include <fmt/format.h>

#include <charconv>

namespace peregrine::config {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool percent_decode(std::string_view text, std::string& out) {
  out.clear();
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = hex_digit(text[i + 1]);
    const int low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0) return false;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return true;
}

bool parse_port(std::string_view text, int& port) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), port);
  return code == std::errc{} && end == text.data() + text.size() && port >= -1 && port <= 65535;
}

// Splits "host:port" or "[v6]:port"; false if there is no port or the colons do not fit.
bool split(std::string_view text, std::string_view& host, std::string_view& port) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  host = text.substr(0, colon);
  port = text.substr(colon + 1);
  if (!host.empty() && host.front() == '[') {
    if (host.back() != ']') return false;
    host = host.substr(1, host.size() - 2);
    return host.find_first_of("[]") == std::string_view::npos;
  }
  return host.find_first_of("[]:") == std::string_view::npos;
}

}  // namespace

Result<Listen> parse_host_port(std::string_view text) {
  std::string_view host;
  std::string_view port;
  if (!split(text, host, port)) return Error{fmt::format("could not parse address string \"{}\"", text)};
  Listen listen;
  listen.host = host;
  if (!parse_port(port, listen.port)) return Error{fmt::format("could not parse port \"{}\"", port)};
  return listen;
}

Listen advertised(std::string_view text, int own_port) {
  if (const auto given = parse_host_port(text); given && given->port > 0) return *given;
  if (text.size() > 1 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  return {std::string(text), own_port};
}

Result<Url> parse_url(std::string_view text, std::string_view what) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);

  std::string_view rest = text;
  const std::size_t scheme_end = rest.find("://");
  const std::size_t user_end = rest.rfind('@');
  const std::string_view shown = user_end == std::string_view::npos ? text : text.substr(user_end + 1);
  const Error invalid{fmt::format("error parsing {} url [\"{}\"]", what, shown)};
  if (scheme_end == std::string_view::npos || scheme_end == 0) return invalid;

  Url url;
  url.scheme = rest.substr(0, scheme_end);
  for (char& c : url.scheme) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const bool known = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
    if (!known) return invalid;
  }
  rest.remove_prefix(scheme_end + 3);

  const std::size_t slash = rest.find_first_of("/?#");
  if (slash != std::string_view::npos) {
    url.path = rest.substr(slash);
    rest = rest.substr(0, slash);
  }
  const std::size_t at = rest.rfind('@');
  if (at != std::string_view::npos) {
    const std::string_view credentials = rest.substr(0, at);
    rest.remove_prefix(at + 1);
    const std::size_t colon = credentials.find(':');
    if (!percent_decode(credentials.substr(0, colon), url.user)) return invalid;
    if (colon != std::string_view::npos && !percent_decode(credentials.substr(colon + 1), url.password)) return invalid;
  }

  std::string_view host;
  std::string_view port;
  if (split(rest, host, port)) {
    url.host = host;
    if (!port.empty() && !parse_port(port, url.port)) return invalid;
  } else if (rest.size() >= 2 && rest.front() == '[' && rest.back() == ']') {
    url.host = rest.substr(1, rest.size() - 2);
  } else if (rest.find_first_of("[]:") == std::string_view::npos) {
    url.host = rest;
  } else {
    return invalid;
  }
  for (const char c : url.host) {
    if (static_cast<unsigned char>(c) <= ' ' || c == '"' || c == '<' || c == '>' || c == 127) return invalid;
  }
  return url;
}

std::string redacted(const Url& url) {
  const std::string credentials = url.user.empty() && url.password.empty() ? "" : "[REDACTED]@";
  const bool v6 = url.host.find(':') != std::string::npos;
  const std::string port = url.port == 0 ? "" : fmt::format(":{}", url.port);
  return fmt::format("{}://{}{}{}{}{}{}", url.scheme, credentials, v6 ? "[" : "", url.host, v6 ? "]" : "", port,
                     url.path);
}

}  // namespace peregrine::config
