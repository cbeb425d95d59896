#include "net/tls/context.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <set>

#include "config/limits.h"
#include "net/socket.h"
#include "net/tls/names.h"
#include "net/tls/texts.h"

namespace peregrine::net::tls {
namespace {

// A key with a passphrase would be asked for on the terminal otherwise.
int no_passphrase(char*, int, int, void*) { return -1; }

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

File open(const std::string& path, std::string& error) {
  File file(std::fopen(path.c_str(), "re"));
  if (file == nullptr) error = fmt::format("open {}: {}", path, errno_text(errno));
  return file;
}

template <class T, void (*Release)(T*)>
struct Releasing {
  void operator()(T* object) const { Release(object); }
};
using Certificate = std::unique_ptr<X509, Releasing<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Releasing<EVP_PKEY, EVP_PKEY_free>>;

int64_t nanoseconds(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return 0;
  return static_cast<int64_t>(timegm(&parts)) * 1'000'000'000;
}

}  // namespace

bool Context::lets_in(std::string_view key) const {
  return pins_.empty() || std::find(pins_.begin(), pins_.end(), key) != pins_.end();
}

std::string Context::load_certificate(const config::TlsCertificate& pair, const std::string& which) {
  SSL_CTX* context = context_.get();
  const auto wrong = [&](std::string_view why) {
    ERR_clear_error();
    return fmt::format("error parsing X509 certificate/key pair{}: {}", which, why);
  };
  std::string error;
  const File certificates = open(pair.cert_file, error);
  if (certificates == nullptr) return wrong(error);
  const File keys = open(pair.key_file, error);
  if (keys == nullptr) return wrong(error);
  const Certificate own(PEM_read_X509(certificates.get(), nullptr, no_passphrase, nullptr));
  if (own == nullptr) return wrong("tls: failed to find any PEM data in certificate input");
  const Key key(PEM_read_PrivateKey(keys.get(), nullptr, no_passphrase, nullptr));
  if (key == nullptr) return wrong("tls: failed to find any PEM data in key input");
  if (X509_check_private_key(own.get(), key.get()) != 1) return wrong("tls: private key does not match public key");
  if (SSL_CTX_use_certificate(context, own.get()) != 1 || SSL_CTX_use_PrivateKey(context, key.get()) != 1)
    return wrong(last_error());
  SSL_CTX_clear_chain_certs(context);
  while (const Certificate next{PEM_read_X509(certificates.get(), nullptr, no_passphrase, nullptr)}) {
    if (SSL_CTX_add1_chain_cert(context, next.get()) != 1) return wrong(last_error());
  }
  ERR_clear_error();  // the end of the file is one
  if (not_after_ns_ == 0) not_after_ns_ = nanoseconds(X509_get0_notAfter(own.get()));
  return "";
}

std::string Context::load_authorities(const std::string& file) {
  std::string error;
  const File from = open(file, error);
  if (from == nullptr) return error;
  X509_STORE* store = SSL_CTX_get_cert_store(context_.get());
  int count = 0;
  while (const Certificate each{PEM_read_X509(from.get(), nullptr, no_passphrase, nullptr)}) {
    if (X509_STORE_add_cert(store, each.get()) == 1) ++count;
  }
  ERR_clear_error();
  return count == 0 ? "failed to parse root ca certificate" : "";
}

config::Result<std::shared_ptr<const Context>> Context::make(const config::Tls& tls, Use use) {
  const std::shared_ptr<Context> made(new Context(tls, use));
  made->context_.reset(SSL_CTX_new(TLS_method()), SSL_CTX_free);
  SSL_CTX* context = made->context_.get();
  if (context == nullptr) return config::Error{last_error()};
  made->checks_clients_ = tls.verify || use == Use::kBoth;
  made->checks_servers_ = !tls.insecure;
  made->timeout_ns_ = config::tls_timeout(tls).count();
  made->pins_ = tls.pinned_certs;

  SSL_CTX_set_options(
      context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  // A chain is what the file says, whatever else is known.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 0);
  X509_VERIFY_PARAM* rules = SSL_CTX_get0_param(context);
  X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN);
  X509_VERIFY_PARAM_set_hostflags(rules, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);

  int oldest = tls.min_version == "1.3" ? TLS1_3_VERSION : TLS1_2_VERSION;
  if (!tls.cipher_suites.empty()) {
    const config::Result<std::string> ciphers = cipher_list(tls.cipher_suites, tls.allow_insecure_cipher_suites);
    if (!ciphers) return config::Error{ciphers.error()};
    if (ciphers->empty()) oldest = TLS1_3_VERSION;
    else if (SSL_CTX_set_cipher_list(context, ciphers->c_str()) != 1) return config::Error{last_error()};
  }
  if (SSL_CTX_set_min_proto_version(context, oldest) != 1) return config::Error{last_error()};
  if (!tls.curve_preferences.empty()) {
    const config::Result<std::string> groups = group_list(tls.curve_preferences);
    if (!groups) return config::Error{groups.error()};
    if (SSL_CTX_set1_groups_list(context, groups->c_str()) != 1) return config::Error{last_error()};
  }

  if (!tls.certs.empty() && !tls.cert_file.empty())
    return config::Error{"error parsing tls config, cannot combine 'cert_file' option with 'certs' option"};
  if (!tls.cert_file.empty() && tls.key_file.empty()) return config::Error{"missing 'key_file' in TLS configuration"};
  if (tls.cert_file.empty() && !tls.key_file.empty()) return config::Error{"missing 'cert_file' in TLS configuration"};
  // nats-server starts without and then fails every handshake.
  if (use != Use::kRemote && tls.cert_file.empty() && tls.certs.empty())
    return config::Error{"TLS of a listener needs 'cert_file' and 'key_file'"};
  std::vector<config::TlsCertificate> pairs = tls.certs;
  if (!tls.cert_file.empty()) pairs.push_back({tls.cert_file, tls.key_file});
  std::set<int> kinds;
  for (size_t n = 0; n < pairs.size(); ++n) {
    const std::string which = tls.certs.empty() ? "" : fmt::format(" {}/{}", n + 1, pairs.size());
    if (const std::string error = made->load_certificate(pairs[n], which); !error.empty()) return config::Error{error};
    // OpenSSL picks by what the other side can verify, not by the name it asked for.
    if (!kinds.insert(EVP_PKEY_get_base_id(SSL_CTX_get0_privatekey(context))).second) {
      return config::Error{fmt::format(
          "certificate{}: a second one with the same kind of key is not supported by this version yet", which)};
    }
  }

  if (!tls.ca_file.empty()) {
    if (const std::string error = made->load_authorities(tls.ca_file); !error.empty()) return config::Error{error};
  } else {
    SSL_CTX_set_default_verify_paths(context);
    ERR_clear_error();
  }
  return std::shared_ptr<const Context>(made);
}

std::string Context::reload() const {
  const config::Result<std::shared_ptr<const Context>> fresh = make(tls_, use_);
  if (!fresh) return fresh.error();
  const std::shared_ptr<ssl_ctx_st> context = (*fresh)->get();
  not_after_ns_.store((*fresh)->not_after_ns(), std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  context_ = context;
  return "";
}

}  // namespace peregrine::net::tls
