// Two filters with a wire between them that the test cuts, bends and reads.
#include "net/tls/filter.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/buffer.h"
#include "tests/net/tls/certificates.h"

namespace peregrine::net::tls::test {
namespace {

struct NoReleases final : core::ReleaseSink {
  void release_to(uint32_t, core::SharedBytes*) override {}
};

struct End final : Owner {
  void tls_established() override {
    established = true;
    if (on_established) on_established();
  }
  void tls_failed(const Failure& why) override { failure = why; }
  void tls_ended() override { ended = true; }

  bool established = false, ended = false;
  std::optional<Failure> failure;
  std::function<void()> on_established;
};

// Counts every byte one up, so that a test sees what passed it.
class Shift final : public core::Filter {
 public:
  using core::Filter::Filter;
  bool decode(std::string_view bytes, std::string& plain) override {
    for (const char c : bytes) plain += static_cast<char>(c - 1);
    return bytes.find('!') == std::string_view::npos;
  }
  void encode(core::Outbox& plain) override {
    std::array<iovec, 64> pieces;
    while (!plain.empty()) {
      const size_t n = plain.gather(pieces.data(), 1, 1);
      ASSERT_EQ(n, 1u);
      const std::string_view bytes(static_cast<char*>(pieces[0].iov_base), pieces[0].iov_len);
      std::string shifted;
      for (const char c : bytes) shifted += static_cast<char>(c + 1);
      wire.append(shifted);
      plain.consume(bytes.size());
    }
  }
  std::string_view error() const override { return "no shift"; }
};

std::string take(core::Outbox& from) {
  std::string bytes;
  std::array<iovec, 64> pieces;
  while (!from.empty()) {
    const size_t n = from.gather(pieces.data(), pieces.size(), 1 << 20);
    size_t size = 0;
    for (size_t i = 0; i < n; ++i) {
      bytes.append(static_cast<char*>(pieces[i].iov_base), pieces[i].iov_len);
      size += pieces[i].iov_len;
    }
    from.consume(size);
  }
  return bytes;
}

class TlsFilter : public testing::Test {
 protected:
  struct Side {
    Side(core::BufferPool* pool, std::shared_ptr<const Context> context, std::string server)
        : filter(pool, std::move(context), std::move(server), end), outbox(pool) {}
    void say(std::string_view text) {
      outbox.append(text);
      filter.encode(outbox);
    }
    End end;
    Filter filter;
    core::Outbox outbox;
    std::string heard;
    bool good = true;
  };

  static std::shared_ptr<const Context> context(const config::Tls& tls, Use use) {
    auto made = Context::make(tls, use);
    EXPECT_TRUE(made) << made.error();
    return *made;
  }
  void connect(const config::Tls& server, const config::Tls& client, const std::string& name = "127.0.0.1",
               Use use = Use::kListener) {
    server_.emplace(&pool_, context(server, use), "");
    client_.emplace(&pool_, context(client, Use::kRemote), name);
    server_->filter.begin();
    client_->filter.begin();
  }
  // `step` bytes at a time, until nobody says anything any more.
  void exchange(size_t step = 1 << 20) {
    for (bool busy = true; busy;) {
      busy = pass(*client_, *server_, step);
      busy |= pass(*server_, *client_, step);
    }
  }
  static bool pass(Side& from, Side& to, size_t step) {
    const std::string bytes = take(from.filter.wire);
    for (size_t at = 0; at < bytes.size(); at += step) {
      const std::string piece = bytes.substr(at, step);  // exactly as long: ASan sees one byte too far
      to.good = to.filter.decode(piece, to.heard) && to.good;
    }
    return !bytes.empty();
  }
  std::string failure(const Side& side) { return side.end.failure ? side.end.failure->text : ""; }

  NoReleases releases_;
  core::BufferPool pool_{0, &releases_};
  Certificates certificates_;
  std::optional<Side> server_, client_;
};

TEST_F(TlsFilter, BytesPassBothWays) {
  const config::Tls block = certificates_.block("localhost");
  connect(block, block, "127.0.0.1", Use::kBoth);
  EXPECT_TRUE(server_->filter.untouched());
  exchange();
  ASSERT_TRUE(client_->end.established) << failure(*client_);
  ASSERT_TRUE(server_->end.established) << failure(*server_);
  EXPECT_FALSE(server_->filter.untouched());
  std::string large;
  for (int n = 0; n < 200'000; ++n) large += static_cast<char>('a' + n % 26);
  client_->say("one\r\n");
  client_->say(large);
  server_->say("two\r\n");
  exchange(1000);
  EXPECT_EQ(server_->heard, "one\r\n" + large);
  EXPECT_EQ(client_->heard, "two\r\n");
  EXPECT_EQ(server_->filter.version(), "1.3");
  EXPECT_EQ(server_->filter.cipher_suite(), client_->filter.cipher_suite());
  EXPECT_TRUE(server_->filter.cipher_suite().starts_with("TLS_")) << server_->filter.cipher_suite();
  ASSERT_EQ(server_->filter.peer_certificates().size(), 1u);
  EXPECT_EQ(server_->filter.peer_certificates()[0].subject, "CN=localhost,O=Test");
  EXPECT_EQ(server_->filter.peer_certificates()[0].spki_sha256.size(), 64u);
}

TEST_F(TlsFilter, AHandshakeMayBeSplitAnywhere) {
  for (const char* version : {"1.2", "1.3"}) {
    config::Tls block = certificates_.block("localhost");
    block.verify = true;
    block.min_version = version;
    if (std::string_view(version) == "1.2") block.cipher_suites = {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"};
    for (const size_t step : {1, 2, 3, 5, 7, 100}) {
      connect(block, block);
      client_->end.on_established = [&] { client_->say("early"); };
      exchange(step);
      EXPECT_TRUE(client_->end.established && server_->end.established) << step;
      EXPECT_EQ(server_->heard, "early") << step;
    }
  }
}

TEST_F(TlsFilter, WhatIsSaidTooEarlyIsNotSent) {
  const config::Tls block = certificates_.block("localhost");
  connect(block, block);
  server_->say("INFO {}\r\n");
  client_->say("CONNECT {}\r\n");
  EXPECT_TRUE(server_->outbox.empty());
  exchange();
  EXPECT_EQ(server_->heard + client_->heard, "");
  EXPECT_TRUE(server_->end.established);
}

TEST_F(TlsFilter, NoTlsIsSeenAtOnce) {
  const config::Tls block = certificates_.block("localhost");
  for (const std::string first : {"INFO {}\r\n", "GET / HTTP/1.1\r\n", "\x16\x41 ", "\x80"}) {
    connect(block, block);
    std::string plain;
    EXPECT_FALSE(server_->filter.decode(first, plain));
    ASSERT_TRUE(server_->end.failure);
    EXPECT_EQ(server_->end.failure->kind, Failure::Kind::kNotTls);
    EXPECT_EQ(failure(*server_), "tls: first record does not look like a TLS handshake");
    EXPECT_FALSE(server_->filter.decode("more", plain));
    EXPECT_EQ(plain, "");
  }
  connect(block, block);
  EXPECT_FALSE(client_->filter.decode("-ERR 'Authorization Violation'\r\n", client_->heard));
  EXPECT_EQ(client_->end.failure->kind, Failure::Kind::kNotTls);
}

TEST_F(TlsFilter, GarbageEndsIt) {
  const config::Tls block = certificates_.block("localhost");
  for (size_t at = 0; at < 300; at += 7) {
    connect(block, block);
    std::string hello = take(client_->filter.wire);
    ASSERT_GT(hello.size(), 100u);
    hello.resize(std::min(hello.size(), at + 6));
    hello.append(300, '\x5a');
    server_->filter.decode(hello, server_->heard);
    EXPECT_FALSE(server_->end.established);
  }
  connect(block, block);
  exchange();
  client_->say("hello");
  std::string record = take(client_->filter.wire);
  record[record.size() / 2] ^= 1;
  EXPECT_FALSE(server_->filter.decode(record, server_->heard));
  EXPECT_EQ(server_->filter.error(), "local error: tls: bad record MAC");
  EXPECT_EQ(server_->heard, "");
  exchange();
  EXPECT_EQ(client_->filter.error(), "remote error: tls: bad record MAC");
}

TEST_F(TlsFilter, WrongAuthoritiesAreRefused) {
  Certificates others;
  const config::Tls ours = certificates_.block("localhost"), theirs = others.block("other");
  connect(ours, theirs);
  exchange();
  EXPECT_FALSE(client_->end.established);
  EXPECT_TRUE(
      failure(*client_).starts_with("tls: failed to verify certificate: x509: certificate signed by unknown authority "
                                    "(CN=localhost,O=Test SHA-256: "))
      << failure(*client_);
  EXPECT_EQ(failure(*server_), "remote error: tls: unknown certificate authority");

  // The client shows what the server does not trust: with TLS 1.3 it learns that after its own handshake.
  config::Tls trusting = theirs;
  trusting.ca_file = ours.ca_file;
  connect(ours, trusting, "127.0.0.1", Use::kBoth);
  exchange();
  EXPECT_FALSE(server_->end.established);
  EXPECT_TRUE(failure(*server_).starts_with(
      "tls: failed to verify certificate: x509: certificate signed by unknown authority (CN=other,O=Test SHA-256: "))
      << failure(*server_);
  EXPECT_FALSE(client_->good);
  EXPECT_EQ(client_->filter.error(), "remote error: tls: unknown certificate authority");

  config::Tls nothing;
  nothing.ca_file = ours.ca_file;
  connect(ours, nothing, "127.0.0.1", Use::kBoth);
  exchange();
  EXPECT_EQ(failure(*server_), "tls: client didn't provide a certificate");
  EXPECT_EQ(client_->filter.error(), "remote error: tls: certificate required");

  config::Tls careless;
  careless.insecure = true;
  connect(ours, careless);
  exchange();
  EXPECT_TRUE(client_->end.established && server_->end.established);
}

TEST_F(TlsFilter, NamesAreChecked) {
  const config::Tls named = certificates_.block("named", "DNS:*.example.org,DNS:b.test,IP:10.1.2.3");
  const auto verdict = [&](const std::string& name) {
    connect(named, named, name);
    exchange();
    if (client_->end.established) return std::string("good");
    EXPECT_EQ(client_->end.failure->kind, Failure::Kind::kWrongName);
    return failure(*client_).substr(0, failure(*client_).find(" ("));
  };
  EXPECT_EQ(verdict("a.example.org"), "good");
  EXPECT_EQ(verdict("b.test"), "good");
  EXPECT_EQ(verdict("10.1.2.3"), "good");
  const std::string failed = "tls: failed to verify certificate: x509: ";
  EXPECT_EQ(verdict("a.b.example.org"), failed + "certificate is valid for *.example.org, b.test, not a.b.example.org");
  EXPECT_EQ(verdict("127.0.0.1"), failed + "certificate is valid for 10.1.2.3, not 127.0.0.1");
  const config::Tls unnamed = certificates_.block("unnamed", "");
  connect(unnamed, unnamed, "unnamed");
  exchange();
  EXPECT_FALSE(client_->end.established) << "a CN is no name";
  connect(unnamed, unnamed, "127.0.0.1");
  exchange();
  EXPECT_NE(failure(*client_).find("cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"),
            std::string::npos)
      << failure(*client_);
}

TEST_F(TlsFilter, ExpiredCertificatesAreRefused) {
  config::Tls old = certificates_.block("localhost");
  const config::TlsCertificate files = certificates_.make("old", "IP:127.0.0.1", -1);
  old.cert_file = files.cert_file;
  old.key_file = files.key_file;
  connect(old, certificates_.block("client"));
  exchange();
  EXPECT_NE(failure(*client_).find("x509: certificate has expired or is not yet valid"), std::string::npos);
  EXPECT_EQ(failure(*server_), "remote error: tls: expired certificate");
}

TEST_F(TlsFilter, OnlyPinnedKeysAreLetIn) {
  config::Tls block = certificates_.block("localhost");
  connect(block, block, "127.0.0.1", Use::kBoth);
  exchange();
  const std::string key = server_->filter.peer_certificates()[0].spki_sha256;
  block.pinned_certs = {std::string(64, '0'), key};
  connect(block, block, "127.0.0.1", Use::kBoth);
  exchange();
  EXPECT_TRUE(server_->end.established && client_->end.established);
  config::Tls other = certificates_.block("other");
  connect(block, other, "127.0.0.1", Use::kBoth);
  exchange();
  EXPECT_TRUE(client_->end.established);
  EXPECT_EQ(failure(*server_), "certificate not pinned");
  EXPECT_TRUE(client_->end.ended);
  block.pinned_certs = {std::string(64, '0')};
  connect(block, other);
  exchange();
  EXPECT_EQ(failure(*server_), "certificate not pinned") << "who shows none has none that is pinned";
}

TEST_F(TlsFilter, VersionsMustMeet) {
  config::Tls modern = certificates_.block("localhost"), old = modern;
  modern.min_version = "1.3";
  connect(modern, old);
  SSL_CTX* raw = context(old, Use::kRemote)->get().get();
  EXPECT_EQ(SSL_CTX_get_min_proto_version(raw), TLS1_2_VERSION);
  exchange();
  EXPECT_EQ(client_->filter.version(), "1.3");
}

TEST_F(TlsFilter, AnEndIsSaidAndHeard) {
  const config::Tls block = certificates_.block("localhost");
  connect(block, block);
  exchange();
  client_->say("last");
  client_->filter.finish();
  const size_t size = client_->filter.wire.pending();
  client_->filter.finish();
  EXPECT_EQ(client_->filter.wire.pending(), size) << "once";
  pass(*client_, *server_, 1 << 20);
  EXPECT_EQ(server_->heard, "last");
  EXPECT_TRUE(server_->end.ended);
  server_->say("answer");
  server_->filter.finish();
  pass(*server_, *client_, 1 << 20);
  EXPECT_EQ(client_->heard, "answer");
  EXPECT_TRUE(client_->end.ended && client_->good && server_->good);

  // Cut off: what was whole has been heard, and nothing is made up.
  connect(block, block);
  exchange();
  client_->say("whole");
  client_->say("half");
  std::string bytes = take(client_->filter.wire);
  bytes.resize(bytes.size() - 3);
  EXPECT_TRUE(server_->filter.decode(bytes, server_->heard));
  EXPECT_EQ(server_->heard, "whole");
  EXPECT_FALSE(server_->end.ended);
}

TEST_F(TlsFilter, RenegotiationIsRefused) {
  config::Tls block = certificates_.block("localhost");
  const auto server = context(block, Use::kListener);
  const auto client = context(block, Use::kRemote);
  SSL_CTX_set_max_proto_version(client->get().get(), TLS1_2_VERSION);
  server_.emplace(&pool_, server, "");
  // Not one of ours: it may ask.
  SSL* asking = SSL_new(client->get().get());
  SSL_clear_options(asking, SSL_OP_NO_RENEGOTIATION);
  BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
  SSL_set_bio(asking, in, out);
  SSL_set_connect_state(asking);
  const auto turn = [&] {
    char bytes[1 << 15];
    const int n = BIO_read(out, bytes, sizeof(bytes));
    if (n > 0) server_->good = server_->filter.decode({bytes, static_cast<size_t>(n)}, server_->heard) && server_->good;
    const std::string back = take(server_->filter.wire);
    if (!back.empty()) BIO_write(in, back.data(), static_cast<int>(back.size()));
    return n > 0 || !back.empty();
  };
  while (SSL_do_handshake(asking) != 1) ASSERT_TRUE(turn());
  turn();
  ASSERT_TRUE(server_->end.established) << failure(*server_);
  EXPECT_EQ(server_->filter.version(), "1.2");
  ASSERT_EQ(SSL_renegotiate(asking), 1);
  bool refused = false;
  for (int n = 0; n < 10 && !refused; ++n) {
    const int result = SSL_do_handshake(asking);
    refused = result != 1 && SSL_get_error(asking, result) == SSL_ERROR_SSL;
    turn();
  }
  EXPECT_TRUE(refused);
  SSL_free(asking);
}

TEST_F(TlsFilter, CarriesAnotherFilter) {
  const config::Tls block = certificates_.block("localhost");
  connect(block, block);
  exchange();
  server_->say("plain");
  server_->filter.carry(std::make_unique<Shift>(&pool_));
  pass(*server_, *client_, 1 << 20);
  EXPECT_EQ(client_->heard, "plain");
  server_->say("abc");
  pass(*server_, *client_, 1 << 20);
  EXPECT_EQ(client_->heard, "plainbcd");
  client_->filter.carry(std::make_unique<Shift>(&pool_));
  server_->say("abc");
  client_->say("xyz");
  exchange();
  EXPECT_EQ(client_->heard, "plainbcdabc");
  EXPECT_EQ(server_->heard, "xyz");
  client_->say(" ");  // what the other Shift takes for a fault
  pass(*client_, *server_, 1 << 20);
  EXPECT_FALSE(server_->good);
  EXPECT_EQ(server_->filter.error(), "no shift");
}

}  // namespace
}  // namespace peregrine::net::tls::test
