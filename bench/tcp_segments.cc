// What the TCP stack costs per segment, in instructions: two stacks on a cable of memory, driven as a backend would.
//
//   valgrind --tool=callgrind --toggle-collect='tcp_bench_receive*' build/bench/tcp_segments [SEGMENTS] [PAYLOAD]
//   valgrind --tool=callgrind --toggle-collect='tcp_bench_send*'    build/bench/tcp_segments [SEGMENTS] [PAYLOAD]
//   valgrind --tool=callgrind --toggle-collect='tcp_bench_syn*'     build/bench/tcp_segments [SEGMENTS] [PAYLOAD]
// and divide what callgrind collected by SEGMENTS (default 20000). Turns of 32 segments; checksums are the NIC's, as on
// any port this is for. receive = input() to release(), the ACK of the turn's burst included; send = send() and
// flush(), and the input() of that ACK; syn = a SYN of a flood that is not answered. A third argument, whatever it is:
// without header prediction, as of connections of which there are too many to be remembered.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "net/tcp/segment.h"
#include "net/tcp/stack.h"
#include "net/tcp/wire.h"

namespace {

using namespace peregrine::net;
using namespace peregrine::net::tcp;

class MemoryPort final : public Port {
 public:
  bool transmit(const OutFrame& frame) override {
    std::vector<uint8_t>& to = frames[used++];
    to.assign(frame.headers.begin(), frame.headers.end());
    for (const PayloadView& view : frame.payload) to.insert(to.end(), view.data, view.data + view.size);
    return true;
  }
  void free_frame(uint64_t) override {}
  std::vector<std::vector<uint8_t>> frames = std::vector<std::vector<uint8_t>>(256);
  size_t used = 0;
};

int64_t now = 1'000'000'000'000;
std::vector<Event> events;

}  // namespace

extern "C" {

__attribute__((noinline)) void tcp_bench_input(Stack& to, MemoryPort& from) {
  for (size_t i = 0; i < from.used; ++i) {
    to.input({.data = from.frames[i].data(),
              .size = static_cast<uint32_t>(from.frames[i].size()),
              .ip_checksum_good = true,
              .l4_checksum_good = true},
             now);
  }
  from.used = 0;
}

__attribute__((noinline)) void tcp_bench_receive(Stack& to, MemoryPort& from) {
  tcp_bench_input(to, from);
  to.advance(now);
  to.acquire(events);
  for (const Event& event : events) to.release(event);
  to.flush(now);
}

__attribute__((noinline)) void tcp_bench_send(Stack& stack, MemoryPort& acks, ConnId conn, const char* bytes,
                                              size_t size) {
  tcp_bench_input(stack, acks);
  stack.advance(now);
  for (int i = 0; i < 32; ++i) {
    const iovec iov{const_cast<char*>(bytes), size};
    if (stack.send(conn, {&iov, 1}).status != SendResult::Status::kDone) std::abort();
    stack.flush(now);  // a segment each: the worst case
  }
}

// Of a flood: each from somewhere else, and checksums as the driver left them, unverified.
__attribute__((noinline)) void tcp_bench_syn(Stack& to, const std::vector<std::vector<uint8_t>>& frames) {
  for (const std::vector<uint8_t>& frame : frames) {
    to.input({.data = frame.data(), .size = static_cast<uint32_t>(frame.size())}, now);
  }
}
}

namespace {

std::vector<std::vector<uint8_t>> syns(size_t count, uint32_t from) {
  std::vector<std::vector<uint8_t>> frames;
  for (size_t n = 0; n < count; ++n) {
    std::vector<uint8_t> frame = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 3, 8, 0};
    frame.resize(58);
    uint8_t* ip = frame.data() + 14;
    ip[0] = 0x45;
    store16(ip + 2, 44);
    ip[8] = 64;
    ip[9] = 6;
    const auto source = static_cast<uint32_t>(from + n * 2654435761u);
    store32(ip + 12, 0xc6120000u | (source & 0x1ffff));
    store32(ip + 16, 0x0a000002u);
    Checksum sum;
    sum.add(ip, 20);
    const uint16_t ip_sum = sum.final();
    std::memcpy(ip + 10, &ip_sum, 2);
    uint8_t* tcp = ip + 20;
    store16(tcp, 1024 + source % 64000);
    store16(tcp + 2, 4222);
    store32(tcp + 4, source);
    tcp[12] = 0x60;
    tcp[13] = kSyn;
    store16(tcp + 14, 64240);
    store32(tcp + 20, 0x020405b4);
    Checksum whole;
    add_pseudo_header(whole, false, ip + 12, ip + 16, 24, 6);
    whole.add(tcp, 24);
    const uint16_t tcp_sum = whole.final();
    std::memcpy(tcp + 16, &tcp_sum, 2);
    frames.push_back(std::move(frame));
  }
  return frames;
}

}  // namespace

int main(int argc, char** argv) {
  const size_t segments = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20000;
  const size_t payload = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 128;
  MemoryPort ports[2];
  Options options;
  options.secret[0] = 1;
  options.header_prediction = argc < 4;
  Stack client(options, ports[0], now), server(options, ports[1], now);
  Stack* stacks[2] = {&client, &server};
  IpAddress addresses[2];
  for (int i = 0; i < 2; ++i) {
    Interface interface;
    interface.mac = {2, 0, 0, 0, 0, static_cast<uint8_t>(i + 1)};
    const uint8_t v4[4] = {10, 0, 0, static_cast<uint8_t>(i + 1)};
    addresses[i] = IpAddress::v4(v4);
    interface.addresses = {{addresses[i], 24}};
    interface.checksum_offload = true;
    if (stacks[i]->add_interface(interface, false) != 0) return 1;
  }
  server.listen(std::nullopt, 4222, 0);
  client.dial(addresses[1], 4222, 0, 1'000'000'000, now);
  ConnId conn = kNoConn;
  for (int i = 0; i < 20; ++i) {
    now += 1'000'000;
    for (int side = 0; side < 2; ++side) {
      tcp_bench_input(*stacks[side], ports[1 - side]);
      stacks[side]->advance(now);
      events.clear();
      stacks[side]->acquire(events);
      for (const Event& event : events) {
        if (side == 0 && event.kind == Event::Kind::kDialed) conn = event.conn;
      }
      stacks[side]->flush(now);
    }
  }
  const std::vector<char> bytes(payload, 'x');
  // Turns of 32 full segments need a larger window than a connection starts with.
  for (int turn = 0; turn < 200; ++turn) {
    now += 100'000;
    tcp_bench_input(client, ports[1]);
    client.advance(now);
    const iovec iov{const_cast<char*>(bytes.data()), payload};
    for (int i = 0; i < 8; ++i) client.send(conn, {&iov, 1});
    client.flush(now);
    events.clear();
    client.acquire(events);
    tcp_bench_input(server, ports[0]);
    server.advance(now);
    events.clear();
    server.acquire(events);
    for (const Event& event : events) server.release(event);
    server.flush(now);
  }
  for (size_t done = 0; done < segments; done += 32) {
    now += 100'000;
    tcp_bench_send(client, ports[1], conn, bytes.data(), payload);
    events.clear();
    client.acquire(events);
    events.clear();
    tcp_bench_receive(server, ports[0]);
  }
  // Until records and answers are used up; what is measured comes after that.
  const size_t before = options.max_half_open + options.cookies_per_second;
  for (const auto& frame : syns(before, 1)) {
    server.input({.data = frame.data(), .size = static_cast<uint32_t>(frame.size())}, now);
    ports[1].used = 0;
  }
  const auto flood = syns(segments, 77);
  tcp_bench_syn(server, flood);
  std::printf("%lu SYNs dropped, ", server.stats().dropped(Drop::tcp_syn_rate));
  std::printf("%lu segments of %zu bytes received, %lu sent\n", server.stats().segments_in, payload,
              client.stats().segments_out);
  return 0;
}
