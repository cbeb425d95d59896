// What went wrong, in the words Go has for it, because people search for what nats-server's log says.
//
// For the thread whose OpenSSL error queue it is. Source: crypto/tls (alert.go, handshake_*.go) and crypto/x509
// (verify.go) of Go.
#pragma once

#include <string>
#include <string_view>
#include <vector>

struct x509_st;

namespace peregrine::net::tls {

// The first error in the queue; "EOF" for an empty one.
std::string last_error();

// "x509: ...": `code` is OpenSSL's X509_V_ERR_*, `certificate` the peer's own, `name` whom we dialled.
std::string certificate_error(int code, x509_st* certificate, std::string_view name);

// "CN=localhost,O=Example", as Go and RFC 2253 write it.
std::string subject_of(x509_st* certificate);
// What it is good for, of DNS names.
std::vector<std::string> dns_names(x509_st* certificate);
// Hex SHA-256 of the whole certificate, and of the SubjectPublicKeyInfo in it.
std::string fingerprint_of(x509_st* certificate);
std::string key_of(x509_st* certificate);

}  // namespace peregrine::net::tls
