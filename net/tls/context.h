// One tls{} block, read and checked: certificates, authorities and rules, ready for any number of connections.
//
// Made on the control thread at the start, used by filters (filter.h) on every shard, because OpenSSL's SSL_CTX may be.
// Files are read by make() and again by reload(), which leaves connections that exist as they are. TLS 1.2 at least, no
// renegotiation, no session tickets: servers connect seldom and stay. What cannot be used is told in nats-server's
// words. Trust follows Go's rules, which the other side lives by: certificates of `ca_file` are all trusted as they
// stand, without it the system's; names of a certificate are its SANs, never its CN. Units: nanoseconds. Source:
// nats-server's GenTLSConfig (server/opts.go).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "config/options.h"
#include "config/result.h"

struct ssl_ctx_st;

namespace peregrine::net::tls {

// What the block is for.
enum class Use {
  kListener,  // who connects is checked if the block says `verify`
  kRemote,    // we connect
  kBoth,      // routes and gateways: the same block for both ends, and who connects must show a certificate
};

class Context {
 public:
  static config::Result<std::shared_ptr<const Context>> make(const config::Tls& tls, Use use);

  // For a connection that begins now.
  std::shared_ptr<ssl_ctx_st> get() const {
    std::lock_guard lock(mutex_);
    return context_;
  }
  // Reads the files again: connections made from now on go by what they say. "" or what is wrong with them; then all
  // stays as it was. Control thread.
  std::string reload() const;
  bool checks_clients() const { return checks_clients_; }
  bool checks_servers() const { return checks_servers_; }
  int64_t timeout_ns() const { return timeout_ns_; }  // for a handshake
  // When the first certificate expires, since the epoch; 0 = there is none.
  int64_t not_after_ns() const { return not_after_ns_.load(std::memory_order_relaxed); }
  // `key`: hex SHA-256 of a SubjectPublicKeyInfo. Without pins every key is good.
  bool lets_in(std::string_view key) const;

 private:
  Context(const config::Tls& tls, Use use) : tls_(tls), use_(use) {}
  std::string load_certificate(const config::TlsCertificate& pair, const std::string& which);
  std::string load_authorities(const std::string& file);

  const config::Tls tls_;
  const Use use_;
  mutable std::mutex mutex_;  // of the next
  mutable std::shared_ptr<ssl_ctx_st> context_;
  bool checks_clients_ = false;
  bool checks_servers_ = true;
  int64_t timeout_ns_ = 0;
  mutable std::atomic<int64_t> not_after_ns_ = 0;
  std::vector<std::string> pins_;
};

}  // namespace peregrine::net::tls
