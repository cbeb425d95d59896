#include "net/tls/context.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/net/tls/certificates.h"

namespace peregrine::net::tls::test {
namespace {

std::string error(const config::Tls& tls, Use use = Use::kBoth) {
  const auto made = Context::make(tls, use);
  return made ? "" : made.error();
}

TEST(TlsContext, ReadsWhatABlockNames) {
  Certificates certificates;
  config::Tls tls = certificates.block("server");
  tls.cipher_suites = {"TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"};
  tls.curve_preferences = {"X25519", "CurveP256"};
  tls.min_version = "1.3";
  tls.timeout = std::chrono::milliseconds(1500);
  const auto made = Context::make(tls, Use::kListener);
  ASSERT_TRUE(made) << made.error();
  EXPECT_EQ((*made)->timeout_ns(), 1'500'000'000);
  EXPECT_GT((*made)->not_after_ns(), 0);
  EXPECT_FALSE((*made)->checks_clients());
  EXPECT_TRUE((*Context::make(tls, Use::kBoth))->checks_clients()) << "routes and gateways";
  EXPECT_EQ(error({}, Use::kRemote), "") << "who dials needs no certificate";
}

TEST(TlsContext, SaysWhatItCannotUse) {
  Certificates certificates;
  const config::Tls good = certificates.block("server");
  const std::string nowhere = certificates.path("nowhere.pem");
  std::ofstream(certificates.path("empty.pem")) << "nothing\n";

  config::Tls tls = good;
  tls.cert_file = nowhere;
  EXPECT_EQ(error(tls), "error parsing X509 certificate/key pair: open " + nowhere + ": no such file or directory");
  tls = good;
  tls.cert_file = certificates.path("empty.pem");
  EXPECT_EQ(error(tls),
            "error parsing X509 certificate/key pair: tls: failed to find any PEM data in certificate input");
  tls = good;
  tls.key_file = certificates.make("other", "").key_file;
  EXPECT_EQ(error(tls), "error parsing X509 certificate/key pair: tls: private key does not match public key");
  tls = good;
  tls.key_file.clear();
  EXPECT_EQ(error(tls), "missing 'key_file' in TLS configuration");
  tls = good;
  tls.cert_file.clear();
  EXPECT_EQ(error(tls), "missing 'cert_file' in TLS configuration");
  tls = good;
  tls.ca_file = certificates.path("empty.pem");
  EXPECT_EQ(error(tls), "failed to parse root ca certificate");
  tls.ca_file = nowhere;
  EXPECT_EQ(error(tls), "open " + nowhere + ": no such file or directory");
  EXPECT_EQ(error({}, Use::kListener), "TLS of a listener needs 'cert_file' and 'key_file'");
  tls = good;
  tls.cipher_suites = {"TLS_NO"};
  EXPECT_EQ(error(tls), "unrecognized cipher TLS_NO");
  tls.cipher_suites = {"TLS_RSA_WITH_AES_128_CBC_SHA"};
  EXPECT_EQ(error(tls),
            "insecure cipher suites configured without 'allow_insecure_cipher_suites' option set: "
            "TLS_RSA_WITH_AES_128_CBC_SHA");
  tls.allow_insecure_cipher_suites = true;
  EXPECT_EQ(error(tls), "");
  tls = good;
  tls.curve_preferences = {"CurveP1"};
  EXPECT_EQ(error(tls), "unrecognized curve preference CurveP1");
}

TEST(TlsContext, ReadsItsFilesAgain) {
  Certificates certificates;
  const config::Tls tls = certificates.block("server");
  const auto made = Context::make(tls, Use::kListener);
  ASSERT_TRUE(made) << made.error();
  const std::shared_ptr<ssl_ctx_st> before = (*made)->get();
  const int64_t expires = (*made)->not_after_ns();
  certificates.make("server", "DNS:localhost", 30);
  EXPECT_EQ((*made)->reload(), "");
  EXPECT_NE((*made)->get(), before);
  EXPECT_GT((*made)->not_after_ns(), expires);
  const std::shared_ptr<ssl_ctx_st> good = (*made)->get();
  std::ofstream(tls.cert_file) << "nothing\n";
  EXPECT_NE((*made)->reload(), "");
  EXPECT_EQ((*made)->get(), good) << "what can not be read changes nothing";
}

TEST(TlsContext, TakesACertificateOfEachKind) {
  Certificates certificates;
  config::Tls tls;
  tls.certs = {certificates.make("a", "DNS:a"), certificates.make("b", "DNS:b", 1, true)};
  EXPECT_EQ(error(tls), "");
  tls.certs.push_back(certificates.make("c", "DNS:c"));
  EXPECT_EQ(error(tls), "certificate 3/3: a second one with the same kind of key is not supported by this version yet");
  tls.cert_file = "x";
  tls.key_file = "y";
  EXPECT_EQ(error(tls), "error parsing tls config, cannot combine 'cert_file' option with 'certs' option");
}

}  // namespace
}  // namespace peregrine::net::tls::test
