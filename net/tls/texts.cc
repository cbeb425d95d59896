#include "net/tls/texts.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>
#include <cctype>
#include <memory>
#include <vector>

namespace peregrine::net::tls {
namespace {

std::string_view alert_text(int alert) {
  switch (alert) {
    case SSL3_AD_CLOSE_NOTIFY:
      return "close notify";
    case SSL3_AD_UNEXPECTED_MESSAGE:
      return "unexpected message";
    case SSL3_AD_BAD_RECORD_MAC:
      return "bad record MAC";
    case TLS1_AD_DECRYPTION_FAILED:
      return "decryption failed";
    case TLS1_AD_RECORD_OVERFLOW:
      return "record overflow";
    case SSL3_AD_DECOMPRESSION_FAILURE:
      return "decompression failure";
    case SSL3_AD_HANDSHAKE_FAILURE:
      return "handshake failure";
    case SSL3_AD_BAD_CERTIFICATE:
      return "bad certificate";
    case SSL3_AD_UNSUPPORTED_CERTIFICATE:
      return "unsupported certificate";
    case SSL3_AD_CERTIFICATE_REVOKED:
      return "revoked certificate";
    case SSL3_AD_CERTIFICATE_EXPIRED:
      return "expired certificate";
    case SSL3_AD_CERTIFICATE_UNKNOWN:
      return "unknown certificate";
    case SSL3_AD_ILLEGAL_PARAMETER:
      return "illegal parameter";
    case TLS1_AD_UNKNOWN_CA:
      return "unknown certificate authority";
    case TLS1_AD_ACCESS_DENIED:
      return "access denied";
    case TLS1_AD_DECODE_ERROR:
      return "error decoding message";
    case TLS1_AD_DECRYPT_ERROR:
      return "error decrypting message";
    case TLS1_AD_EXPORT_RESTRICTION:
      return "export restriction";
    case TLS1_AD_PROTOCOL_VERSION:
      return "protocol version not supported";
    case TLS1_AD_INSUFFICIENT_SECURITY:
      return "insufficient security level";
    case TLS1_AD_INTERNAL_ERROR:
      return "internal error";
    case TLS1_AD_INAPPROPRIATE_FALLBACK:
      return "inappropriate fallback";
    case TLS1_AD_USER_CANCELLED:
      return "user canceled";
    case TLS1_AD_NO_RENEGOTIATION:
      return "no renegotiation";
    case TLS13_AD_MISSING_EXTENSION:
      return "missing extension";
    case TLS1_AD_UNSUPPORTED_EXTENSION:
      return "unsupported extension";
    case TLS1_AD_CERTIFICATE_UNOBTAINABLE:
      return "certificate unobtainable";
    case TLS1_AD_UNRECOGNIZED_NAME:
      return "unrecognized name";
    case TLS1_AD_BAD_CERTIFICATE_STATUS_RESPONSE:
      return "bad certificate status response";
    case TLS1_AD_BAD_CERTIFICATE_HASH_VALUE:
      return "bad certificate hash value";
    case TLS1_AD_UNKNOWN_PSK_IDENTITY:
      return "unknown PSK identity";
    case TLS13_AD_CERTIFICATE_REQUIRED:
      return "certificate required";
    case TLS1_AD_NO_APPLICATION_PROTOCOL:
      return "no application protocol";
  }
  return {};
}

// Of a certificate: the names it is good for.
struct Names {
  std::vector<std::string> hosts, addresses;
};

Names names_of(X509* certificate) {
  Names names;
  auto* list = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int n = 0; list != nullptr && n < sk_GENERAL_NAME_num(list); ++n) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(list, n);
    const ASN1_STRING* text = name->type == GEN_DNS ? name->d.dNSName : name->d.iPAddress;
    if (name->type == GEN_DNS) {
      names.hosts.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                               static_cast<size_t>(ASN1_STRING_length(text)));
    } else if (name->type == GEN_IPADD) {
      char shown[INET6_ADDRSTRLEN];
      const int family = ASN1_STRING_length(text) == 4 ? AF_INET : AF_INET6;
      if ((ASN1_STRING_length(text) == 4 || ASN1_STRING_length(text) == 16) &&
          inet_ntop(family, ASN1_STRING_get0_data(text), shown, sizeof(shown)) != nullptr) {
        names.addresses.emplace_back(shown);
      }
    }
  }
  GENERAL_NAMES_free(list);
  return names;
}

std::string wrong_name(const std::vector<std::string>& good, std::string_view name) {
  if (good.empty()) return fmt::format("x509: certificate is not valid for any names, but wanted to match {}", name);
  return fmt::format("x509: certificate is valid for {}, not {}", fmt::join(good, ", "), name);
}

std::string hex(const unsigned char* bytes, size_t size) {
  std::string text;
  for (size_t n = 0; n < size; ++n) text += fmt::format("{:02x}", bytes[n]);
  return text;
}

}  // namespace

std::string last_error() {
  const unsigned long code = ERR_peek_error();
  if (code == 0) return "EOF";
  const int reason = ERR_GET_REASON(code);
  if (ERR_GET_LIB(code) == ERR_LIB_SSL) {
    if (reason > SSL_AD_REASON_OFFSET) {
      const std::string_view alert = alert_text(reason - SSL_AD_REASON_OFFSET);
      return alert.empty() ? fmt::format("remote error: tls: alert({})", reason - SSL_AD_REASON_OFFSET)
                           : fmt::format("remote error: tls: {}", alert);
    }
    switch (reason) {
      case SSL_R_NO_SHARED_CIPHER:
        return "tls: no cipher suite supported by both client and server";
      case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return "tls: client didn't provide a certificate";
      case SSL_R_UNSUPPORTED_PROTOCOL:
        return "tls: client offered only unsupported versions";
      case SSL_R_WRONG_SSL_VERSION:
        return "tls: server selected unsupported protocol version";
      case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
        return "local error: tls: bad record MAC";
      case SSL_R_UNEXPECTED_MESSAGE:
        return "local error: tls: unexpected message";
      case SSL_R_ENCRYPTED_LENGTH_TOO_LONG:
      case SSL_R_PACKET_LENGTH_TOO_LONG:
      case SSL_R_DATA_LENGTH_TOO_LONG:
        return "local error: tls: record overflow";
      default:
        break;
    }
  }
  const char* text = ERR_reason_error_string(code);
  return fmt::format("tls: {}", text != nullptr ? text : "unknown error");
}

std::string certificate_error(int code, X509* certificate, std::string_view name) {
  switch (code) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return "x509: certificate signed by unknown authority";
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "x509: certificate has expired or is not yet valid";
    case X509_V_ERR_INVALID_PURPOSE:
      return "x509: certificate specifies an incompatible key usage";
    case X509_V_ERR_HOSTNAME_MISMATCH:
      return wrong_name(names_of(certificate).hosts, name);
    case X509_V_ERR_IP_ADDRESS_MISMATCH: {
      const std::vector<std::string> good = names_of(certificate).addresses;
      if (!good.empty()) return wrong_name(good, name);
      return fmt::format("x509: cannot validate certificate for {} because it doesn't contain any IP SANs", name);
    }
    default:
      return fmt::format("x509: {}", X509_verify_cert_error_string(code));
  }
}

std::vector<std::string> dns_names(X509* certificate) { return names_of(certificate).hosts; }

std::string subject_of(X509* certificate) {
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> memory(BIO_new(BIO_s_mem()), BIO_free_all);
  if (memory == nullptr) return "";
  X509_NAME_print_ex(memory.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
  char* text = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &text);
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : "";
}

std::string fingerprint_of(X509* certificate) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  if (X509_digest(certificate, EVP_sha256(), digest.data(), &size) != 1) return "";
  return hex(digest.data(), size);
}

std::string key_of(X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
  if (size <= 0) return "";
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned digest_size = 0;
  const int done = EVP_Digest(der, static_cast<size_t>(size), digest.data(), &digest_size, EVP_sha256(), nullptr);
  OPENSSL_free(der);
  return done == 1 ? hex(digest.data(), digest_size) : "";
}

}  // namespace peregrine::net::tls
