// Addresses as they stand in files and flags: host:port and URLs. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "config/options.h"
#include "config/result.h"

namespace peregrine::config {

// "host:port", ":port", "[::1]:port"; -1 is a port (random).
Result<Listen> parse_host_port(std::string_view text);

// What an `advertise` option tells others: "host:port", or "host" with the listener's own port.
Listen advertised(std::string_view text, int own_port);

// "nats://user:pass@host:port/path"; user and password are percent-decoded, port -1 is allowed. `what` names the kind
// of URL in errors, which never repeat a password.
Result<Url> parse_url(std::string_view text, std::string_view what);

// The URL with user and password replaced: for logs.
std::string redacted(const Url& url);

}  // namespace peregrine::config
