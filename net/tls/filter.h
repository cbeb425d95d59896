// TLS of one connection: records in, records out, between a session and its bytes (core/filter.h).
//
// Owned by its session, on its shard; sans-I/O: OpenSSL reads what decode() is given and writes into `wire`. Until the
// handshake is done nothing comes out of decode(), and what the session says is thrown away (it has been told when to
// speak). Afterwards it may carry another filter: compress, then encrypt. The handshake's public-key work, about a
// millisecond, is done on the shard: servers connect seldom. A connection that ends without the peer's close_notify is
// cut as far as we are concerned; a message is only whole with its last byte anyway. Renegotiation is refused. Errors
// read like Go's. Source: RFC 8446, RFC 5246; nats-server's doTLSHandshake (server/client.go).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/filter.h"
#include "core/snapshot.h"
#include "net/tls/context.h"

struct bio_st;
struct bio_method_st;
struct ssl_st;
struct x509_store_ctx_st;

namespace peregrine::net::tls {

struct Failure {
  enum class Kind {
    kOther,
    kNotTls,     // the peer's first bytes are no TLS at all
    kWrongName,  // its certificate is good, but not for the name we dialled
  };
  Kind kind = Kind::kOther;
  std::string text;
};

// Whose connection it is. All of it comes from within begin() and decode(), each at most once.
class Owner {
 public:
  virtual ~Owner() = default;
  virtual void tls_established() = 0;
  virtual void tls_failed(const Failure& failure) = 0;  // in the handshake; what tells the peer is in `wire`
  virtual void tls_ended() = 0;                         // the peer has said that nothing follows
};

class Filter final : public core::Filter {
 public:
  // `server`: whose certificate we expect, a name or a numeric address; with it we dial, empty = we accept.
  Filter(core::BufferPool* pool, std::shared_ptr<const Context> context, std::string server, Owner& owner);
  ~Filter() override;

  // The filter is in its place now: who dials, speaks.
  void begin();

  bool accepts() const { return server_.empty(); }
  bool established() const { return state_ == State::kEstablished; }
  // Of a connection that is accepted: who begins with something else than a handshake stays in clear,
  void allow_plain() { may_be_plain_ = true; }
  // and who has not begun yet may be told so. False: no.
  bool stay_plain();
  bool is_plain() const { return state_ == State::kPlain; }
  // The handshake was there before a word was said.
  void mark_first() { first_ = true; }
  // An owner that is nobody else's.
  void keep(std::unique_ptr<Owner> owner) { kept_ = std::move(owner); }
  // Nothing has come from the peer yet, not a byte.
  bool untouched() const { return received_ == 0; }
  // Of an established connection, as /connz says it.
  const std::string& version() const { return version_; }
  const std::string& cipher_suite() const { return cipher_suite_; }
  const std::vector<core::TlsPeerCert>& peer_certificates() const { return peer_certificates_; }
  // The DNS names its own certificate is for.
  const std::vector<std::string>& peer_names() const { return peer_names_; }

  // --- core::Filter
  bool decode(std::string_view bytes, std::string& plain) override;
  void encode(core::Outbox& plain) override;
  std::string_view error() const override { return error_; }
  void finish() override;
  void describe(core::ConnRow& row) const override;
  void carry(std::unique_ptr<core::Filter> upper) override;

 private:
  enum class State : uint8_t { kHandshake, kEstablished, kPlain, kEnded, kFailed };

  static bio_method_st* bio_method();
  static int bio_read(bio_st* bio, char* to, int size);
  static int bio_write(bio_st* bio, const char* from, int size);
  static int on_verify(int good, x509_store_ctx_st* store);

  bool looks_like_tls();
  void shake_hands();
  void describe_peer();
  bool fail(Failure failure);
  bool read_records(std::string& plain);
  void write_records(core::Outbox& from);
  void pass(core::Outbox& plain);

  const std::shared_ptr<const Context> context_;
  const std::string server_;
  Owner& owner_;
  State state_ = State::kHandshake;
  struct Free {
    void operator()(ssl_st* ssl) const;
  };
  std::unique_ptr<ssl_st, Free> ssl_;
  std::string_view input_;  // of decode(), what OpenSSL has not read yet
  uint64_t received_ = 0;
  bool said_goodbye_ = false;
  bool may_be_plain_ = false;
  bool first_ = false;
  std::unique_ptr<Owner> kept_;
  std::unique_ptr<core::Filter> upper_;
  std::string error_;
  Failure refused_;  // what was wrong with the peer's certificate
  std::string version_, cipher_suite_;
  std::vector<core::TlsPeerCert> peer_certificates_;
  std::vector<std::string> peer_names_;
};

}  // namespace peregrine::net::tls
