#include "net/tls/filter.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "net/tls/texts.h"

namespace peregrine::net::tls {
namespace {

constexpr size_t kRecord = 16 * 1024;  // the most plain bytes of one record
constexpr unsigned char kAlertRecord = 21, kHandshakeRecord = 22;
constexpr unsigned char kLeastVersionOfNothing = 0x10;  // SSL 3 and all TLS say 3

bool is_address(const std::string& text) {
  std::array<unsigned char, 16> address;
  return inet_pton(AF_INET, text.c_str(), address.data()) == 1 ||
         inet_pton(AF_INET6, text.c_str(), address.data()) == 1;
}

long bio_control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

int bio_create(BIO* bio) {
  BIO_set_init(bio, 1);
  return 1;
}

core::TlsPeerCert shown(X509* certificate) {
  return {subject_of(certificate), key_of(certificate), fingerprint_of(certificate)};
}

}  // namespace

void Filter::Free::operator()(SSL* ssl) const { SSL_free(ssl); }

// OpenSSL's door to the connection: input_ on one side, `wire` on the other, nothing in between.
BIO_METHOD* Filter::bio_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "peregrine");
    BIO_meth_set_create(made, bio_create);
    BIO_meth_set_read(made, bio_read);
    BIO_meth_set_write(made, bio_write);
    BIO_meth_set_ctrl(made, bio_control);
    return made;
  }();
  return method;
}

int Filter::bio_read(BIO* bio, char* to, int size) {
  BIO_clear_retry_flags(bio);
  std::string_view& input = static_cast<Filter*>(BIO_get_data(bio))->input_;
  if (input.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const size_t n = std::min(static_cast<size_t>(size), input.size());
  std::memcpy(to, input.data(), n);
  input.remove_prefix(n);
  return static_cast<int>(n);
}

int Filter::bio_write(BIO* bio, const char* from, int size) {
  BIO_clear_retry_flags(bio);
  static_cast<Filter*>(BIO_get_data(bio))->wire.append({from, static_cast<size_t>(size)});
  return size;
}

// Keeps what is wrong with the certificates, which OpenSSL forgets when it fails.
int Filter::on_verify(int good, X509_STORE_CTX* store) {
  if (good == 1) return 1;
  auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* filter = static_cast<Filter*>(SSL_get_app_data(ssl));
  const int code = X509_STORE_CTX_get_error(store);
  Failure& refused = filter->refused_;
  if (!refused.text.empty()) return 0;
  if (code == X509_V_ERR_HOSTNAME_MISMATCH || code == X509_V_ERR_IP_ADDRESS_MISMATCH)
    refused.kind = Failure::Kind::kWrongName;
  std::string shown;
  STACK_OF(X509)* sent = X509_STORE_CTX_get0_untrusted(store);
  for (int n = 0; n < sk_X509_num(sent); ++n) {
    X509* each = sk_X509_value(sent, n);
    shown += fmt::format("{}{} SHA-256: {}", n == 0 ? "" : "; ", subject_of(each), fingerprint_of(each));
  }
  refused.text = fmt::format("tls: failed to verify certificate: {} ({})",
                             certificate_error(code, X509_STORE_CTX_get0_cert(store), filter->server_), shown);
  return 0;
}

Filter::Filter(core::BufferPool* pool, std::shared_ptr<const Context> context, std::string server, Owner& owner)
    : core::Filter(pool),
      context_(std::move(context)),
      server_(std::move(server)),
      owner_(owner),
      ssl_(SSL_new(context_->get().get())) {
  if (ssl_ == nullptr) return;  // out of memory: begin() says so
  SSL* ssl = ssl_.get();
  BIO* bio = BIO_new(bio_method());
  BIO_set_data(bio, this);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_app_data(ssl, this);
  if (server_.empty()) {
    SSL_set_accept_state(ssl);
    if (context_->checks_clients()) SSL_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
    return;
  }
  SSL_set_connect_state(ssl);
  if (context_->checks_servers()) SSL_set_verify(ssl, SSL_VERIFY_PEER, on_verify);
  if (is_address(server_)) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), server_.c_str());
  } else {
    SSL_set_tlsext_host_name(ssl, server_.c_str());
    SSL_set1_host(ssl, server_.c_str());
  }
}

Filter::~Filter() = default;

void Filter::begin() {
  if (ssl_ == nullptr) {
    fail({Failure::Kind::kOther, "tls: out of memory"});
  } else if (!server_.empty()) {
    shake_hands();
  }
}

bool Filter::decode(std::string_view bytes, std::string& plain) {
  if (state_ == State::kFailed || bytes.empty()) return state_ != State::kFailed;
  if (state_ == State::kEnded) return true;  // nothing may follow, and nobody cares
  if (may_be_plain_ && untouched() && static_cast<unsigned char>(bytes[0]) != kHandshakeRecord) stay_plain();
  if (state_ == State::kPlain) {
    plain.append(bytes);
    return true;
  }
  input_ = bytes;
  if (state_ == State::kHandshake) {
    if (!looks_like_tls())
      return fail({Failure::Kind::kNotTls, "tls: first record does not look like a TLS handshake"});
    shake_hands();
  }
  received_ += bytes.size();
  const bool good = state_ == State::kEstablished ? read_records(plain) : state_ != State::kFailed;
  input_ = {};
  return good;
}

// The first two bytes: what kind of record, and the version's first half.
bool Filter::looks_like_tls() {
  if (received_ > 1) return true;
  const auto kind = static_cast<unsigned char>(input_[0]);
  if (received_ == 0 && kind != kAlertRecord && kind != kHandshakeRecord) return false;
  const size_t version = received_ == 0 ? 1 : 0;
  return input_.size() <= version || static_cast<unsigned char>(input_[version]) < kLeastVersionOfNothing;
}

void Filter::shake_hands() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result != 1) {
    if (SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ) return;
    if (refused_.text.empty()) refused_.text = last_error();
    fail(refused_);
    return;
  }
  describe_peer();
  state_ = State::kEstablished;
  if (!context_->lets_in(peer_certificates_.empty() ? std::string_view() : peer_certificates_.front().spki_sha256)) {
    finish();
    fail({Failure::Kind::kOther, "certificate not pinned"});
    return;
  }
  owner_.tls_established();
}

void Filter::describe_peer() {
  SSL* ssl = ssl_.get();
  version_ = SSL_version(ssl) == TLS1_3_VERSION ? "1.3" : "1.2";
  if (const char* name = SSL_CIPHER_standard_name(SSL_get_current_cipher(ssl))) cipher_suite_ = name;
  X509* own = SSL_get0_peer_certificate(ssl);
  if (own == nullptr) return;
  peer_certificates_.push_back(shown(own));
  peer_names_ = dns_names(own);
  STACK_OF(X509)* chain = SSL_get_peer_cert_chain(ssl);
  for (int n = 0; n < sk_X509_num(chain); ++n) {
    X509* each = sk_X509_value(chain, n);
    if (X509_cmp(each, own) != 0) peer_certificates_.push_back(shown(each));
  }
}

bool Filter::stay_plain() {
  if (!may_be_plain_ || state_ != State::kHandshake || !untouched()) return false;
  state_ = State::kPlain;
  return true;
}

void Filter::describe(core::ConnRow& row) const {
  row.tls_version = version_;
  row.tls_cipher_suite = cipher_suite_;
  row.tls_peer_certs = peer_certificates_;
  row.tls_first = first_;
}

bool Filter::fail(Failure failure) {
  state_ = State::kFailed;
  error_ = failure.text;
  owner_.tls_failed(failure);
  return false;
}

bool Filter::read_records(std::string& plain) {
  static thread_local std::array<char, kRecord> record;
  for (;;) {
    ERR_clear_error();
    const int size = SSL_read(ssl_.get(), record.data(), static_cast<int>(record.size()));
    if (size <= 0) {
      switch (SSL_get_error(ssl_.get(), size)) {
        case SSL_ERROR_WANT_READ:
          return true;
        case SSL_ERROR_ZERO_RETURN:
          state_ = State::kEnded;
          owner_.tls_ended();
          return true;
        default:
          state_ = State::kFailed;
          error_ = last_error();
          return false;
      }
    }
    const std::string_view bytes(record.data(), static_cast<size_t>(size));
    if (upper_ == nullptr) {
      plain.append(bytes);
    } else if (!upper_->decode(bytes, plain)) {
      state_ = State::kFailed;
      error_ = upper_->error();
      return false;
    }
  }
}

void Filter::carry(std::unique_ptr<core::Filter> upper) { upper_ = std::move(upper); }

void Filter::encode(core::Outbox& plain) {
  if (state_ == State::kPlain) return pass(plain);
  if (state_ != State::kEstablished && state_ != State::kEnded) return plain.clear();
  if (upper_ == nullptr) return write_records(plain);
  upper_->encode(plain);
  write_records(upper_->wire);
}

void Filter::pass(core::Outbox& plain) {
  std::array<iovec, 64> pieces;
  while (!plain.empty()) {
    const size_t count = plain.gather(pieces.data(), pieces.size(), SIZE_MAX);
    size_t size = 0;
    for (size_t n = 0; n < count; ++n) {
      wire.append({static_cast<const char*>(pieces[n].iov_base), pieces[n].iov_len});
      size += pieces[n].iov_len;
    }
    plain.consume(size);
  }
}

// Full records: many lines go into one, a large payload is encrypted from where it lies.
void Filter::write_records(core::Outbox& from) {
  static thread_local std::array<char, kRecord> joined;
  std::array<iovec, 64> pieces;
  while (!from.empty()) {
    const size_t count = from.gather(pieces.data(), pieces.size(), kRecord);
    const char* bytes = static_cast<const char*>(pieces[0].iov_base);
    size_t size = std::min(pieces[0].iov_len, kRecord);
    if (size < kRecord && count > 1) {
      bytes = joined.data();
      size = 0;
      for (size_t n = 0; n < count && size < kRecord; ++n) {
        const size_t part = std::min(pieces[n].iov_len, kRecord - size);
        std::memcpy(joined.data() + size, pieces[n].iov_base, part);
        size += part;
      }
    }
    ERR_clear_error();
    if (SSL_write(ssl_.get(), bytes, static_cast<int>(size)) != static_cast<int>(size)) {
      from.clear();  // the connection is broken; reading will show it
      return;
    }
    from.consume(size);
  }
}

void Filter::finish() {
  if (said_goodbye_ || (state_ != State::kEstablished && state_ != State::kEnded)) return;
  said_goodbye_ = true;
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
}

}  // namespace peregrine::net::tls
