// TLS: any bytes, whole and in two pieces, in front of a handshake and in its middle, must not establish anything; and
// of records that are bent on their way nothing may come out but what had been said before the bend.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/buffer.h"
#include "net/tls/filter.h"

namespace {

using namespace peregrine;
using namespace peregrine::net::tls;

struct NoReleases final : core::ReleaseSink {
  void release_to(uint32_t, core::SharedBytes*) override {}
};

struct Side final : Owner {
  Side(core::BufferPool* pool, std::shared_ptr<const Context> context, const std::string& server)
      : filter(pool, std::move(context), server, *this), outbox(pool) {
    filter.begin();
  }
  void tls_established() override { established = true; }
  void tls_failed(const Failure&) override {
    if (established || failed) std::abort();
    failed = true;
  }
  void tls_ended() override {}

  void hear(std::string_view bytes) {
    const std::string own(bytes);  // exactly as long: one byte too far is seen
    filter.decode(own, heard);
  }
  std::string said() {
    std::string bytes;
    iovec piece;
    while (filter.wire.gather(&piece, 1, 1) == 1) {
      bytes.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
      filter.wire.consume(piece.iov_len);
    }
    return bytes;
  }

  Filter filter;
  core::Outbox outbox;
  std::string heard;
  bool established = false, failed = false;
};

void require(bool condition) {
  if (!condition) std::abort();
}

std::shared_ptr<const Context> context() {
  config::Tls tls;
  tls.cert_file = "tests/conversation/cert.pem";
  tls.key_file = "tests/conversation/key.pem";
  tls.ca_file = tls.cert_file;
  auto made = Context::make(tls, Use::kListener);
  require(made.has_value());
  return *made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static NoReleases releases;
  static core::BufferPool pool(0, &releases);
  static const std::shared_ptr<const Context> block = context();
  if (size < 4) return 0;
  const uint8_t mode = data[0] % 4;
  const size_t cut = data[1] | data[2] << 8;
  const std::string bytes(reinterpret_cast<const char*>(data) + 3, size - 3);

  Side server(&pool, block, ""), client(&pool, block, "127.0.0.1");
  if (mode < 2) {
    Side& alone = mode == 0 ? server : client;
    alone.hear(std::string_view(bytes).substr(0, cut % bytes.size()));
    alone.hear(std::string_view(bytes).substr(cut % bytes.size()));
    require(!alone.established && alone.heard.empty());
    return 0;
  }
  if (mode == 2) {  // in the middle of it
    server.hear(client.said());
    server.said();
    server.hear(bytes);
    require(!server.established && server.heard.empty());
    return 0;
  }
  for (int n = 0; n < 3; ++n) {
    server.hear(client.said());
    client.hear(server.said());
  }
  require(server.established && client.established);
  const std::string text = "PING\r\n" + std::string(300, 'x');
  std::string records;
  for (int n = 0; n < 3; ++n) {
    client.outbox.append(text);
    client.filter.encode(client.outbox);
    records += client.said();
  }
  for (size_t n = 0; n < bytes.size(); ++n) records[(cut + n) % records.size()] ^= bytes[n];
  server.hear(records);
  require((text + text + text).starts_with(server.heard));
  return 0;
}
