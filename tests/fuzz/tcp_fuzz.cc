// The stack under any frames whatever: into a listener and an established connection, with correct checksums where the
// input asks for it (else nothing but the checksum would be tested). What a peer sends must not crash it, leak, make it
// deliver more than one stream's bytes, or hold more than it may.
//
// Input: records of {op, length, bytes}. Op: deliver as a raw frame; as an IPv4 or IPv6 body; as a TCP segment to the
// connection with numbers near its own; let time pass; pause, resume, send, close.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <unordered_set>
#include <vector>

#include "net/tcp/packet.h"
#include "net/tcp/segment.h"
#include "net/tcp/stack.h"
#include "net/tcp/wire.h"

namespace {

using namespace peregrine::net;
using namespace peregrine::net::tcp;

constexpr uint8_t kOurMac[6] = {2, 0, 0, 0, 0, 1}, kPeerMac[6] = {2, 0, 0, 0, 0, 2};
constexpr uint8_t kOur4[4] = {10, 0, 0, 1}, kPeer4[4] = {10, 0, 0, 2};

class FuzzPort final : public Port {
 public:
  bool transmit(const OutFrame& frame) override {
    uint64_t bytes = 0;
    for (const PayloadView& view : frame.payload) {
      bytes += view.size;
      for (uint32_t i = 0; i < view.size; ++i) seen_ = static_cast<uint8_t>(seen_ + view.data[i]);  // readable memory
    }
    if (bytes != frame.payload_bytes || frame.headers.size() < 14) std::abort();
    if (!frame.tcp || frame.ipv6) return true;
    const uint8_t* tcp = frame.headers.data() + frame.l2_bytes + frame.l3_bytes;
    if ((tcp[13] & kSyn) != 0) iss = load32(tcp + 4);
    next = load32(tcp + 4) + frame.payload_bytes;
    acked = load32(tcp + 8);
    return true;
  }
  void free_frame(uint64_t token) override {
    if (live.erase(token) != 1) std::abort();
    std::free(reinterpret_cast<void*>(token));
  }
  std::unordered_set<uint64_t> live;
  uint32_t iss = 0, next = 0, acked = 0;

 private:
  volatile uint8_t seen_ = 0;
};

class World {
 public:
  World() {
    Options options;
    options.secret[0] = 1;
    options.max_half_open = 4;
    options.max_connections = 8;
    options.max_time_wait = 4;
    options.reassembly_bytes = 1 << 20;
    stack = std::make_unique<Stack>(options, port, now);
    Interface interface;
    std::memcpy(interface.mac.data(), kOurMac, 6);
    IpAddress v6;
    IpAddress::parse("fd00::1", v6);
    interface.addresses = {{IpAddress::v4(kOur4), 24}, {v6, 64}};
    if (stack->add_interface(interface, true) != 0) std::abort();
    if (stack->listen(std::nullopt, 4222, 1) != 0) std::abort();
    uint8_t segment[20] = {};
    store16(segment, 50000);
    store16(segment + 2, 4222);
    store32(segment + 4, 1000);
    segment[12] = 0x50;
    segment[13] = kSyn;
    store16(segment + 14, 65535);
    tcp4(segment, sizeof(segment));
    store32(segment + 4, 1001);
    store32(segment + 8, port.iss + 1);
    segment[13] = kAck;
    tcp4(segment, sizeof(segment));
    turn();
  }
  ~World() {
    stack.reset();
    if (!port.live.empty()) std::abort();
  }

  void deliver(const std::vector<uint8_t>& bytes) {
    auto* copy = static_cast<uint8_t*>(std::malloc(std::max<size_t>(bytes.size(), 1)));
    if (!bytes.empty()) std::memcpy(copy, bytes.data(), bytes.size());
    const auto token = reinterpret_cast<uint64_t>(copy);
    port.live.insert(token);
    const Frame frame{.data = copy, .size = static_cast<uint32_t>(bytes.size()), .token = token};
    (void)classify(frame);
    stack->input(frame, now);
  }

  void ip4(const uint8_t* body, size_t size, uint8_t protocol) {
    std::vector<uint8_t> f(14 + 20 + size);
    std::memcpy(f.data(), kOurMac, 6);
    std::memcpy(f.data() + 6, kPeerMac, 6);
    store16(f.data() + 12, kEtherIpv4);
    uint8_t* ip = f.data() + 14;
    ip[0] = 0x45;
    store16(ip + 2, static_cast<uint32_t>(20 + size));
    ip[8] = 64;
    ip[9] = protocol;
    std::memcpy(ip + 12, kPeer4, 4);
    std::memcpy(ip + 16, kOur4, 4);
    Checksum sum;
    sum.add(ip, 20);
    const uint16_t value = sum.final();
    std::memcpy(ip + 10, &value, 2);
    if (size > 0) std::memcpy(ip + 20, body, size);
    deliver(f);
  }

  void tcp4(const uint8_t* segment, size_t size) {
    std::vector<uint8_t> copy(segment, segment + size);
    if (size >= 18) {
      store16(copy.data() + 16, 0);
      Checksum sum;
      add_pseudo_header(sum, false, kPeer4, kOur4, static_cast<uint32_t>(size), kProtocolTcp);
      sum.add(copy.data(), size);
      const uint16_t value = sum.final();
      std::memcpy(copy.data() + 16, &value, 2);
    }
    ip4(copy.data(), copy.size(), kProtocolTcp);
  }

  void icmp(bool v6, const uint8_t* bytes, size_t size) {
    std::vector<uint8_t> copy(bytes, bytes + size);
    if (size < 4) return;
    store16(copy.data() + 2, 0);
    Checksum sum;
    uint8_t from[16] = {0xfd, 0}, to[16] = {0xfd, 0};
    from[15] = 2;
    to[15] = 1;
    if (v6) add_pseudo_header(sum, true, from, to, static_cast<uint32_t>(size), kProtocolIcmpv6);
    sum.add(copy.data(), size);
    const uint16_t value = sum.final();
    std::memcpy(copy.data() + 2, &value, 2);
    if (!v6) return ip4(copy.data(), size, kProtocolIcmp);
    std::vector<uint8_t> f(14 + 40);
    std::memcpy(f.data(), kOurMac, 6);
    std::memcpy(f.data() + 6, kPeerMac, 6);
    store16(f.data() + 12, kEtherIpv6);
    f[14] = 0x60;
    store16(f.data() + 18, static_cast<uint32_t>(size));
    f[20] = kProtocolIcmpv6;
    f[21] = 255;
    std::memcpy(f.data() + 22, from, 16);
    std::memcpy(f.data() + 38, to, 16);
    f.insert(f.end(), copy.begin(), copy.end());
    deliver(f);
  }

  void turn() {
    stack->advance(now);
    std::vector<Event> events;
    stack->acquire(events);
    for (const Event& event : events) {
      if (event.kind == Event::Kind::kData) stack->release(event);
    }
    stack->flush(now);
    if (stack->stats().bytes_queued_in > (1 << 20) + (1 << 17) || stack->stats().connections > 8) std::abort();
  }

  FuzzPort port;
  int64_t now = 1'000'000'000'000;
  std::unique_ptr<Stack> stack;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  {
    Segment segment;
    const std::vector<uint8_t> own(data, data + size);
    (void)parse_segment(own.data(), own.size(), segment);
  }
  World world;
  while (size >= 2) {
    const uint8_t op = data[0];
    const size_t n = std::min<size_t>(data[1], size - 2);
    std::vector<uint8_t> bytes(data + 2, data + 2 + n);
    data += 2 + n;
    size -= 2 + n;
    switch (op % 8) {
      case 0:
        if (bytes.size() >= 14 && (op & 8) != 0) std::memcpy(bytes.data(), kOurMac, 6);
        world.deliver(bytes);
        break;
      case 1:
        world.tcp4(bytes.data(), bytes.size());
        break;
      case 2:
      case 3:
        if (bytes.size() < 20) break;
        store16(bytes.data(), 50000);
        store16(bytes.data() + 2, 4222);
        // Distances instead of absolute numbers: a mutation then stays near the window.
        store32(bytes.data() + 4,
                world.port.acked + static_cast<uint32_t>(static_cast<int16_t>(load16(bytes.data() + 4))));
        store32(bytes.data() + 8,
                world.port.next + static_cast<uint32_t>(static_cast<int16_t>(load16(bytes.data() + 8))));
        world.tcp4(bytes.data(), bytes.size());
        break;
      case 4:
        world.icmp((op & 8) != 0, bytes.data(), bytes.size());
        break;
      case 5:
        world.now += int64_t{1'000'000} << (op >> 3) % 16;
        break;
      case 6: {
        const iovec iov{bytes.data(), bytes.size()};
        if (!bytes.empty()) (void)world.stack->send(0, {&iov, 1});
        break;
      }
      case 7:
        if ((op >> 3) % 4 == 0) world.stack->pause(0);
        if ((op >> 3) % 4 == 1) world.stack->resume(0);
        if ((op >> 3) % 4 == 2) world.stack->close(0, false);
        if ((op >> 3) % 4 == 3) world.stack->close(0, true);
        break;
    }
    if ((op & 0x80) == 0) world.turn();
  }
  world.turn();
  return 0;
}
