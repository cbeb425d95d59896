// Cipher suites and curves: the names of configuration files are Go's, OpenSSL has others.
//
// Pure functions, any thread. Source: crypto/tls of Go, whose names nats-server takes (server/ciphersuites.go).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/result.h"

namespace peregrine::net::tls {

// The suites of TLS 1.2 among them, for SSL_CTX_set_cipher_list; empty = none. Go chooses those of TLS 1.3 itself:
// naming them changes nothing, as in nats-server.
config::Result<std::string> cipher_list(const std::vector<std::string>& names, bool allow_insecure);

// For SSL_CTX_set1_groups_list.
config::Result<std::string> group_list(const std::vector<std::string>& names);

}  // namespace peregrine::net::tls
