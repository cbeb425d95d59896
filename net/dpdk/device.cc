#include "net/dpdk/device.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "net/dpdk/eal.h"
#include "net/socket.h"

namespace peregrine::net::dpdk {
namespace {

constexpr uint32_t kEthernetBytes = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + 4;  // with one 802.1Q tag
constexpr uint32_t kPoolCache = 256;
constexpr uint32_t kXdpFrames = 8192;
constexpr int kSendBufferBytes = 256 << 20;  // a limit, not memory
constexpr uint64_t kTxChecksums = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
constexpr uint64_t kRxChecksums = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
constexpr uint64_t kRssWanted = RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP;
// net_af_packet: what a frame of its ring has besides the packet (TPACKET2_HDRLEN, rounded up), and the ring's default.
constexpr uint32_t kRingHeader = 64, kRingFrame = 2048;
constexpr uint32_t kTsoBytes = 60 * 1024;  // an IP packet's length is 16 bits; below it with every header

bool wants(const config::DpdkPort& port, const char* offload) {
  return std::find(port.offloads.begin(), port.offloads.end(), offload) != port.offloads.end();
}

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

// This process's sockets of a kind, in the order they were made: descriptors are given out lowest first.
std::vector<int> sockets_of(int family) {
  std::vector<int> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    const int fd = std::atoi(entry.path().filename().c_str());
    int domain = 0;
    socklen_t size = sizeof(domain);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == family) found.push_back(fd);
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool is_bound_to(int fd, unsigned interface) {
  sockaddr_ll at{};
  socklen_t size = sizeof(at);
  return getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0 && at.sll_ifindex == static_cast<int>(interface);
}

// The number behind `name` in a virtual device's arguments.
uint32_t argument(const std::string& device, const std::string& name, uint32_t otherwise) {
  const size_t at = device.find("," + name + "=");
  return at == std::string::npos
             ? otherwise
             : static_cast<uint32_t>(std::strtoul(device.c_str() + at + name.size() + 2, nullptr, 10));
}

std::string plural(uint32_t n, const char* what) { return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s"); }

}  // namespace

tcp::Interface interface_of(const config::DpdkPort& port) {
  tcp::Interface interface;
  interface.mtu = static_cast<uint16_t>(port.mtu);
  interface.vlan = static_cast<uint16_t>(port.vlan);
  for (const std::string& text : port.addresses) {
    const size_t slash = text.find('/');
    tcp::InterfaceAddress address;
    tcp::IpAddress::parse(text.substr(0, slash), address.address);
    address.prefix = static_cast<uint8_t>(std::stoi(text.substr(slash + 1)));
    interface.addresses.push_back(address);
  }
  tcp::IpAddress gateway;
  if (tcp::IpAddress::parse(port.gateway, gateway)) interface.gateway4 = gateway;
  if (tcp::IpAddress::parse(port.gateway6, gateway)) interface.gateway6 = gateway;
  return interface;
}

std::expected<std::unique_ptr<Device>, std::string> Device::open(uint16_t number, const config::DpdkPort& port,
                                                                 const DevicePlan& plan) {
  // Drivers complain of what they merely lack (interrupts, secondary processes).
  HeldMessages held;
  std::unique_ptr<Device> device(new Device(number, port));
  std::string why = device->configure(plan);
  device->others_sockets_ = sockets_of(AF_XDP);
  if (why.empty()) why = device->set_up_queues(plan);
  if (why.empty()) why = device->start(plan);
  if (!why.empty()) return std::unexpected(fmt::format("port {}: {}", port.device, why));
  return device;
}

std::string Device::configure(const DevicePlan& plan) {
  rte_eth_dev_info info{};
  if (const int error = rte_eth_dev_info_get(number_, &info); error != 0) {
    return fmt::format("does not tell about itself: {}", errno_text(-error));
  }
  driver_ = info.driver_name;
  char name[RTE_ETH_NAME_MAX_LEN];
  name_ = rte_eth_dev_get_name_by_port(number_, name) == 0 ? name : options_.device;
  shards_ = plan.shards;
  numa_node_ = rte_eth_dev_socket_id(number_);
  dma_ = !starts_with(driver_, "net_");
  // Virtio and the like are PCI devices whose drivers are called net_virtio, net_ixgbe ...: what is virtual is what
  // was created by us.
  if (!starts_with(name_, "net_")) dma_ = true;
  if (starts_with(driver_, "net_af_") && info.if_index != 0) {
    char interface[IF_NAMESIZE];
    if (if_indextoname(info.if_index, interface) != nullptr) kernel_interface_ = interface;
  }

  const auto queues = static_cast<uint16_t>(options_.queues != 0 ? static_cast<uint32_t>(options_.queues) : shards_);
  const uint16_t most = std::min(info.max_rx_queues, info.max_tx_queues);
  if (options_.queues > most) {
    return fmt::format("has {}, not {}; set queues: auto{}", plural(most, "queue"), options_.queues,
                       starts_with(driver_, "net_af_packet") ? ", or give the device more (qpairs=N)" : "");
  }
  if (options_.queues > static_cast<int>(shards_)) {
    return fmt::format("queues: {} but there are only {}; set queues: auto or more shards", options_.queues,
                       plural(shards_, "shard"));
  }
  rx_queues_ = std::min(queues, most);
  tx_queues_ = rx_queues_;

  interface_ = interface_of(options_);
  rte_ether_addr mac{};
  if (const int error = rte_eth_macaddr_get(number_, &mac); error != 0) {
    return fmt::format("has no MAC address: {}", errno_text(-error));
  }
  std::memcpy(interface_.mac.data(), mac.addr_bytes, interface_.mac.size());

  rte_eth_conf conf{};
  const auto mtu = static_cast<uint16_t>(options_.mtu);
  if (mtu > info.max_mtu) return fmt::format("mtu {} is more than the {} it can", mtu, info.max_mtu);
  conf.rxmode.mtu = mtu;
  uint32_t ring_frame = 0;
  if (starts_with(driver_, "net_af_packet")) {
    // It says that it takes no more than 1514 bytes, and takes what fits its ring: into any mbuf, however small.
    ring_frame = argument(options_.device, "framesz", kRingFrame);
    if (mtu + kEthernetBytes + kRingHeader > ring_frame) {
      return fmt::format(
          "mtu {} does not fit its ring's frames of {} bytes; add framesz=16384,blocksz=65536 to the device", mtu,
          ring_frame);
    }
    conf.rxmode.mtu = std::min<uint16_t>(mtu, RTE_ETHER_MTU);
  }
  // What a device offers but must be told to leave is never asked for: LRO, fast free (our frames are not all of one
  // pool), timestamps.
  if (wants(options_, "checksum")) {
    rx_offloads_ |= info.rx_offload_capa & kRxChecksums;
    // net_tap sums in software, and wrongly where a piece of the payload is odd in length and not the last.
    if ((info.tx_offload_capa & kTxChecksums) == kTxChecksums && !starts_with(driver_, "net_tap")) {
      tx_offloads_ |= kTxChecksums;
      interface_.checksum_offload = true;
    }
  }
  if (wants(options_, "multi_segment") && (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0) {
    tx_offloads_ |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    multi_segment_ = true;
    const uint16_t chain = info.tx_desc_lim.nb_mtu_seg_max != 0 ? info.tx_desc_lim.nb_mtu_seg_max : 8;
    largest_chain_ = std::clamp<uint16_t>(chain, 1, 16);
  }
  if (wants(options_, "tso") && interface_.checksum_offload && multi_segment_ &&
      (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_TCP_TSO) != 0) {
    tx_offloads_ |= RTE_ETH_TX_OFFLOAD_TCP_TSO;
    interface_.tso_bytes = kTsoBytes;
  }
  // Every view costs a descriptor beside the headers'.
  interface_.max_views = multi_segment_ && largest_chain_ > 1 ? static_cast<uint16_t>(largest_chain_ - 1) : 16;
  if (options_.vlan != 0 && wants(options_, "vlan")) {
    rx_offloads_ |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
    if ((info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_VLAN_INSERT) != 0) {
      tx_offloads_ |= RTE_ETH_TX_OFFLOAD_VLAN_INSERT;
      interface_.vlan_offload = true;
    }
  }
  rss_types_ = info.flow_type_rss_offloads & kRssWanted;
  reta_size_ = info.reta_size;
  key_size_ = info.hash_key_size;
  if (rx_queues_ > 1 && rss_types_ != 0) {
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf.rx_adv_conf.rss_conf.rss_hf = rss_types_;
    rx_offloads_ |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH;
  }
  // tun sends a connection to the queue that last sent for it. net_af_packet's queues would be as good, by a hash of
  // the connection, but its driver lets frames roll over to another queue when one is full
  // (PACKET_FANOUT_FLAG_ROLLOVER).
  const bool keeps = rss_types_ != 0 || starts_with(driver_, "net_tap");
  software_spread_ = shards_ > 1 && (rx_queues_ < shards_ || (rx_queues_ > 1 && !keeps));
  if (options_.spread == config::DpdkSpread::kSoftware) software_spread_ = shards_ > 1;
  if (options_.spread == config::DpdkSpread::kHardware && software_spread_) {
    if (rx_queues_ < shards_) {
      return fmt::format("spread: hardware needs a queue per shard, and there are {} for {}; set spread: auto",
                         plural(rx_queues_, "queue"), plural(shards_, "shard"));
    }
    return "spread: hardware, but the device does not keep a connection on its queue; set spread: auto";
  }

  conf.rxmode.offloads = rx_offloads_;
  conf.txmode.offloads = tx_offloads_;
  conf.intr_conf.rxq = plan.interrupts ? 1 : 0;
  interrupts_ = plan.interrupts;
  int error = rte_eth_dev_configure(number_, rx_queues_, tx_queues_, &conf);
  if (error != 0 && plan.interrupts) {
    conf.intr_conf.rxq = 0;
    interrupts_ = false;
    error = rte_eth_dev_configure(number_, rx_queues_, tx_queues_, &conf);
  }
  if (error != 0) return fmt::format("cannot be configured: {}", errno_text(-error));
  rx_descriptors_ = static_cast<uint16_t>(options_.rx_descriptors);
  tx_descriptors_ = static_cast<uint16_t>(options_.tx_descriptors);
  if (rte_eth_dev_adjust_nb_rx_tx_desc(number_, &rx_descriptors_, &tx_descriptors_) != 0) {
    return "does not take that many descriptors; leave rx_descriptors and tx_descriptors at their default";
  }
  frame_bytes_ = std::max<uint32_t>({RTE_MBUF_DEFAULT_DATAROOM, mtu + kEthernetBytes, ring_frame});
  if (info.min_rx_bufsize != UINT32_MAX) frame_bytes_ = std::max(frame_bytes_, info.min_rx_bufsize);
  return "";
}

// net_af_xdp tells the kernel of its pool as one run of frames without gaps, as many bytes as the frames have. Ordinary
// pools let no frame cross a page, so that the last of them would lie beyond what the kernel takes.
static rte_mempool* packed_pool(const std::string& name, uint32_t frames, uint16_t private_bytes, uint16_t room,
                                int node) {
  rte_pktmbuf_pool_private about{};
  about.mbuf_data_room_size = room;
  about.mbuf_priv_size = private_bytes;
  const auto bytes = static_cast<unsigned>(sizeof(rte_mbuf) + private_bytes + room);
  rte_mempool* const pool = rte_mempool_create_empty(name.c_str(), frames, bytes, kPoolCache, sizeof(about), node,
                                                     RTE_MEMPOOL_F_NO_IOVA_CONTIG);
  if (pool == nullptr) return nullptr;
  if (rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), nullptr) == 0) {
    rte_pktmbuf_pool_init(pool, &about);
    if (rte_mempool_populate_default(pool) >= 0 && pool->nb_mem_chunks == 1) {
      rte_mempool_obj_iter(pool, rte_pktmbuf_init, nullptr);
      return pool;
    }
  }
  rte_mempool_free(pool);
  rte_errno = ENOMEM;
  return nullptr;
}

std::string Device::make_pool(std::vector<rte_mempool*>& pools, const std::string& name, uint32_t frames,
                              uint16_t private_bytes) {
  const auto room = static_cast<uint16_t>(frame_bytes_ + RTE_PKTMBUF_HEADROOM);
  const int node = numa_node_ < 0 ? SOCKET_ID_ANY : numa_node_;
  rte_mempool* const pool = starts_with(driver_, "net_af_xdp")
                                ? packed_pool(name, frames, private_bytes, room, node)
                                : rte_pktmbuf_pool_create(name.c_str(), frames, kPoolCache, private_bytes, room, node);
  if (pool == nullptr) {
    return fmt::format("no memory for {} frames of {} bytes ({}); set dpdk.memory higher", frames, frame_bytes_,
                       errno_text(rte_errno));
  }
  pools.push_back(pool);
  return "";
}

std::string Device::set_up_queues(const DevicePlan& plan) {
  const auto node = static_cast<unsigned>(std::max(numa_node_, 0));
  for (uint16_t queue = 0; queue < rx_queues_; ++queue) {
    // What the device holds, what a turn works on, what waits for other shards, and the caches.
    // net_af_xdp fills a ring of its own besides, and copies what is sent into frames of this pool.
    const uint32_t own_rings = starts_with(driver_, "net_af_xdp") ? kXdpFrames : 0;
    const uint32_t frames = rx_descriptors_ + 2048u + kPoolCache * (shards_ + 1) + own_rings;
    if (std::string why = make_pool(rx_pools_, fmt::format("rx{}.{}", number_, queue), frames, 0); !why.empty()) {
      return why;
    }
    if (const int error = rte_eth_rx_queue_setup(number_, queue, rx_descriptors_, node, nullptr, rx_pools_.back());
        error != 0) {
      return fmt::format("receive queue {} cannot be set up: {}", queue, errno_text(-error));
    }
  }
  for (uint16_t queue = 0; queue < tx_queues_; ++queue) {
    if (const int error = rte_eth_tx_queue_setup(number_, queue, tx_descriptors_, node, nullptr); error != 0) {
      return fmt::format("transmit queue {} cannot be set up: {}", queue, errno_text(-error));
    }
  }
  for (uint32_t shard = 0; shard < shards_; ++shard) {
    // What the device holds, what waits for it here, what the ring to another shard holds.
    const uint32_t frames = tx_descriptors_ + 2 * plan.waiting + 1024u + kPoolCache;
    if (std::string why = make_pool(tx_pools_, fmt::format("tx{}.{}", number_, shard), frames, plan.private_bytes);
        !why.empty()) {
      return why;
    }
  }
  return "";
}

// Key and table as the device has them, not as we would have set them. Without either, nothing is predicted.
std::string Device::read_rss() {
  if (rx_queues_ < 2 || rss_types_ == 0 || reta_size_ == 0 || key_size_ == 0) return "";
  std::vector<uint8_t> key(key_size_);
  rte_eth_rss_conf conf{};
  conf.rss_key = key.data();
  conf.rss_key_len = key_size_;
  std::vector<rte_eth_rss_reta_entry64> entries((reta_size_ + RTE_ETH_RETA_GROUP_SIZE - 1) / RTE_ETH_RETA_GROUP_SIZE);
  for (auto& entry : entries) entry.mask = UINT64_MAX;
  if (rte_eth_dev_rss_hash_conf_get(number_, &conf) != 0 ||
      rte_eth_dev_rss_reta_query(number_, entries.data(), reta_size_) != 0) {
    return "";
  }
  std::vector<uint16_t> reta(reta_size_);
  for (uint16_t n = 0; n < reta_size_; ++n) {
    reta[n] = entries[n / RTE_ETH_RETA_GROUP_SIZE].reta[n % RTE_ETH_RETA_GROUP_SIZE];
    if (reta[n] >= rx_queues_) return "";
  }
  rss_.set(std::move(key), std::move(reta));
  return "";
}

std::string Device::start(const DevicePlan& plan) {
  if (const int error = rte_eth_dev_start(number_); error != 0) {
    return fmt::format("does not start: {}", errno_text(-error));
  }
  started_ = true;
  // Devices that cannot be told are told by their kernel interface's own MTU.
  rte_eth_dev_set_mtu(number_, static_cast<uint16_t>(options_.mtu));
  if (options_.promiscuous) rte_eth_promiscuous_enable(number_);
  // Neighbour discovery is multicast.
  const bool v6 = std::any_of(options_.addresses.begin(), options_.addresses.end(),
                              [](const std::string& text) { return text.find(':') != std::string::npos; });
  if (v6) rte_eth_allmulticast_enable(number_);
  use_kernel_sockets(plan);
  for (uint16_t queue = 0; interrupts_ && interrupt_fds_.size() < rx_queues_; ++queue) {
    const int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(number_, queue);
    if (fd < 0) interrupts_ = false;
    else interrupt_fds_.push_back(fd);
  }
  if (plan.interrupts_required && !interrupts_) {
    return "has no receive interrupts; set dpdk.idle: adaptive or spin";
  }
  look_at_link();
  return read_rss();
}

void Device::use_kernel_sockets(const DevicePlan& plan) {
  std::vector<int> sockets;
  if (starts_with(driver_, "net_af_packet")) {
    const unsigned interface = if_nametoindex(kernel_interface_.c_str());
    for (const int fd : sockets_of(AF_PACKET)) {
      if (!is_bound_to(fd, interface)) continue;
      const int wanted = kSendBufferBytes;
      if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof(wanted)) != 0) lazy_fds_.push_back(fd);
      sockets.push_back(fd);
    }
  } else if (starts_with(driver_, "net_af_xdp")) {
    for (const int fd : sockets_of(AF_XDP)) {  // made with the queues; they do not say whose they are
      if (!std::binary_search(others_sockets_.begin(), others_sockets_.end(), fd)) sockets.push_back(fd);
    }
  } else {
    return;
  }
  if (plan.interrupts && sockets.size() == rx_queues_) {
    interrupts_ = true;
    interrupt_fds_ = sockets;
  }
}

void Device::push() const {
  for (const int fd : lazy_fds_) {
    [[maybe_unused]] const ssize_t sent = sendto(fd, nullptr, 0, MSG_DONTWAIT, nullptr, 0);
  }
}

Device::~Device() {
  if (started_) rte_eth_dev_stop(number_);
  rte_eth_dev_close(number_);
  for (rte_mempool* pool : rx_pools_) rte_mempool_free(pool);
  for (rte_mempool* pool : tx_pools_) rte_mempool_free(pool);
}

bool Device::look_at_link() {
  bool up = false;
  uint32_t mbps = 0;
  rte_eth_link link{};
  if (rte_eth_link_get_nowait(number_, &link) == 0) {
    up = link.link_status == RTE_ETH_LINK_UP;
    mbps = link.link_speed;
  }
  if (!kernel_interface_.empty()) {
    const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    kernel_interface_.copy(request.ifr_name, IFNAMSIZ - 1);
    up = fd && ioctl(fd.get(), SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) != 0 &&
         (request.ifr_flags & IFF_RUNNING) != 0;
  }
  link_mbps_.store(mbps == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : mbps, std::memory_order_relaxed);
  link_up_.store(up, std::memory_order_relaxed);
  return up;
}

std::vector<std::string> Device::offloads() const {
  std::vector<std::string> names;
  if ((rx_offloads_ & kRxChecksums) != 0) names.push_back("rx_checksum");
  if (interface_.checksum_offload) names.push_back("tx_checksum");
  if (interface_.tso_bytes != 0) names.push_back("tso");
  if (multi_segment_) names.push_back("multi_segment");
  if ((rx_offloads_ & RTE_ETH_RX_OFFLOAD_VLAN_STRIP) != 0) names.push_back("vlan_strip");
  if (interface_.vlan_offload) names.push_back("vlan_insert");
  return names;
}

std::string Device::describe() const {
  const auto& mac = interface_.mac;
  const std::vector<std::string> offload = offloads();
  std::string text = fmt::format("{}: {:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}, {}, mtu {}", name_, mac[0], mac[1],
                                 mac[2], mac[3], mac[4], mac[5], fmt::join(options_.addresses, " "), options_.mtu);
  if (options_.vlan != 0) text += fmt::format(", vlan {}", options_.vlan);
  text += fmt::format(", {} for {}", plural(rx_queues_, "queue"), plural(shards_, "shard"));
  if (shards_ > 1) text += software_spread_ ? ", spread by software" : ", spread by the device";
  text += offload.empty() ? ", no offloads" : fmt::format(", offloads {}", fmt::join(offload, " "));
  text += fmt::format(", link {}", link_up() ? "up" : "down");
  return text;
}

}  // namespace peregrine::net::dpdk
