// Certificates for tests, made on the spot: files in a directory that goes away with the object.
#pragma once

#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "config/options.h"

namespace peregrine::net::tls::test {

// An authority and what it signs. Keys are P-256, or RSA for the other kind.
class Certificates {
 public:
  Certificates() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tls-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    key_ = make_key(false);
    static int authorities = 0;
    authority_ = sign("authority " + std::to_string(++authorities), key_, "CA:TRUE", "", 1);
    write("ca.pem", authority_);
  }
  ~Certificates() {
    X509_free(authority_);
    EVP_PKEY_free(key_);
    std::filesystem::remove_all(directory_);
  }
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  // `names`: "DNS:a,IP:127.0.0.1"; `days`: how long it is good, from now; negative = it was.
  config::TlsCertificate make(const std::string& name, const std::string& names, int days = 1, bool rsa = false) {
    EVP_PKEY* key = make_key(rsa);
    X509* certificate = sign(name, key, "CA:FALSE", names, days);
    config::TlsCertificate files{path(name + ".pem"), path(name + "-key.pem")};
    write(name + ".pem", certificate);
    std::FILE* file = std::fopen(files.key_file.c_str(), "w");
    PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return files;
  }

  // A block with that certificate, which trusts this authority.
  config::Tls block(const std::string& name, const std::string& names = "DNS:localhost,IP:127.0.0.1") {
    config::Tls tls;
    const config::TlsCertificate files = make(name, names);
    tls.cert_file = files.cert_file;
    tls.key_file = files.key_file;
    tls.ca_file = ca_file();
    return tls;
  }

  std::string ca_file() const { return path("ca.pem"); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }

 private:
  static EVP_PKEY* make_key(bool rsa) { return rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256"); }

  X509* sign(const std::string& name, EVP_PKEY* key, const char* basic, const std::string& names, int days) {
    X509* certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -7L * 24 * 3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), days * 24L * 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME* subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("Test"), -1, -1, 0);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1,
                               -1, 0);
    X509_set_issuer_name(certificate, authority_ != nullptr ? X509_get_subject_name(authority_) : subject);
    add(certificate, NID_basic_constraints, basic);
    if (!names.empty()) add(certificate, NID_subject_alt_name, names.c_str());
    X509_sign(certificate, key_, EVP_sha256());
    return certificate;
  }

  static void add(X509* certificate, int what, const char* value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, what, value);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }

  void write(const std::string& name, X509* certificate) {
    std::FILE* file = std::fopen(path(name).c_str(), "w");
    PEM_write_X509(file, certificate);
    std::fclose(file);
  }

  std::filesystem::path directory_;
  EVP_PKEY* key_ = nullptr;
  X509* authority_ = nullptr;
  long serial_ = 0;
};

}  // namespace peregrine::net::tls::test
