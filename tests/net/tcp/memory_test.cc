// What a connection costs while nothing happens on it: at most 512 bytes, all told. 10,000 of them are accepted, say
// something and are answered; then everything the stack has allocated and not freed is counted, its tables included.
// They come from one host: what is known of a neighbour is known once, however many connections it has.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <new>

#include "net/tcp/packet.h"
#include "net/tcp/segment.h"
#include "tests/net/tcp/wire.h"

namespace {
uint64_t allocated_bytes = 0;
constexpr size_t kHeapHeader = 8;
void* take(size_t size, size_t alignment = 16) {
  void* const at = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (at == nullptr) throw std::bad_alloc();
  allocated_bytes += malloc_usable_size(at) + kHeapHeader;
  return at;
}
void give(void* at) {
  if (at != nullptr) allocated_bytes -= malloc_usable_size(at) + kHeapHeader;
  std::free(at);
}
}  // namespace

void* operator new(size_t size) { return take(size); }
void* operator new(size_t size, std::align_val_t alignment) { return take(size, static_cast<size_t>(alignment)); }
void operator delete(void* at) noexcept { give(at); }
void operator delete(void* at, size_t) noexcept { give(at); }
void operator delete(void* at, std::align_val_t) noexcept { give(at); }
void operator delete(void* at, size_t, std::align_val_t) noexcept { give(at); }

namespace peregrine::net::tcp::test {
namespace {

constexpr uint32_t kConnections = 10'000;
constexpr uint8_t kOurs[4] = {10, 0, 0, 1};

// Remembers the numbers of the last segment sent; counts what the stack takes for bytes to send.
class Last final : public Port {
 public:
  bool transmit(const OutFrame& frame) override {
    if (frame.tcp) {
      seq = load32(frame.headers.data() + 14 + 20 + 4);
      payload = frame.payload_bytes;
    }
    return true;
  }
  void free_frame(uint64_t) override {}
  void* allocate_block() override {
    ++blocks;
    return Port::allocate_block();
  }
  void free_block(void* block) override {
    --blocks;
    Port::free_block(block);
  }
  uint32_t seq = 0, payload = 0;
  int64_t blocks = 0;
};

struct Talk {
  Options options;
  Last port;
  int64_t now = 1'000'000'000'000;
  std::unique_ptr<Stack> stack;

  Talk() {
    options.secret[0] = 5;
    stack = std::make_unique<Stack>(options, port, now);
    Interface interface;
    interface.mac = {2, 0, 0, 0, 0, 1};
    interface.addresses = {{IpAddress::v4(kOurs), 8}};
    EXPECT_EQ(stack->add_interface(interface, false), 0);
    EXPECT_EQ(stack->listen(std::nullopt, 4222, 1), 0);
  }

  void hear(uint16_t from, HeaderFields fields, uint32_t bytes = 0) {
    fields.source_port = from;
    fields.destination_port = 4222;
    fields.window = 1000;
    fields.has_timestamp = true;
    fields.timestamp = 100;
    uint8_t frame[14 + 20 + 60 + 64] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0};
    uint8_t* const ip = frame + 14;
    const uint32_t size = write_header(ip + 20, fields) + bytes;
    ip[0] = 0x45;
    store16(ip + 2, 20 + size);
    ip[8] = 64;
    ip[9] = kProtocolTcp;
    store32(ip + 12, 0x0a010203);
    std::memcpy(ip + 16, kOurs, 4);
    stack->input({.data = frame, .size = 34 + size, .ip_checksum_good = true, .l4_checksum_good = true}, now);
  }

  // From SYN to silence.
  void converse(uint16_t from) {
    hear(from, {.seq = 1, .flags = kSyn, .mss = 1460, .window_scale = 7, .sack_permitted = true});
    const uint32_t ours = port.seq + 1;
    hear(from, {.seq = 2, .ack = ours, .flags = kAck}, 50);
    std::vector<Event> events;
    stack->acquire(events);
    ConnId conn = 0;
    for (const Event& event : events) {
      conn = event.conn;
      if (event.kind == Event::Kind::kData) stack->release(event);
    }
    char answer[100] = {};
    const iovec piece{answer, sizeof(answer)};
    EXPECT_EQ(stack->send(conn, {&piece, 1}).bytes, sizeof(answer));
    stack->flush(now);
    EXPECT_EQ(port.payload, sizeof(answer));
    hear(from, {.seq = 52, .ack = ours + static_cast<uint32_t>(sizeof(answer)), .flags = kAck});
  }
};

TEST(Memory, AnIdleConnectionCostsAtMost512BytesAllTold) {
  Talk talk;
  talk.converse(20000);  // what is allocated once
  const uint64_t before = allocated_bytes;
  const int64_t blocks = talk.port.blocks;
  for (uint32_t n = 1; n <= kConnections; ++n) talk.converse(static_cast<uint16_t>(20000 + n));
  const auto blocks_left = talk.port.blocks - blocks;
  EXPECT_EQ(talk.stack->stats().connections, kConnections + 1);
  EXPECT_EQ(talk.stack->stats().bytes_queued_out, 0u);
  EXPECT_LE(blocks_left, 1);
  const uint64_t each = (allocated_bytes - before) / kConnections;
  RecordProperty("bytes_each", static_cast<int>(each));
  std::printf("%llu bytes each\n", static_cast<unsigned long long>(each));
  EXPECT_LE(each, 512u);
  EXPECT_GE(each, 100u) << "nothing was counted";
}

}  // namespace
}  // namespace peregrine::net::tcp::test
