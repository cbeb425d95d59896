// What the simulations of clusters and of their edges have in common: addresses, seeds from the environment, clients
// that read numbered messages, and waiting for agreement.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

#include "config/url.h"
#include "core/random.h"
#include "tests/net/sim_broker.h"

namespace peregrine::cluster::testing {

namespace sim = net::sim;

inline constexpr int64_t kSecond = sim::Scheduler::kSecond;
inline constexpr uint16_t kRoutePort = 6222, kGatewayPort = 7222, kLeafPort = 7422;
inline constexpr const char* kConnect =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"protocol\":1}\r\n";

inline std::string host_of(size_t n) { return "10.0.0." + std::to_string(n + 1); }
inline std::string client_host_of(size_t n) { return "10.0.9." + std::to_string(n + 1); }

inline config::Url url_of(const std::string& scheme, const std::string& host, int port) {
  config::Url url;
  url.scheme = scheme;
  url.host = host;
  url.port = port;
  return url;
}

inline uint64_t environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Connections are lost, late and cut by the seed, but nobody is refused: that is done on purpose.
inline sim::Options network_options(uint64_t seed) {
  sim::Options options = sim::Options::drawn_from(seed);
  options.refuse_percent = 0;
  return options;
}

// Messages "<publisher> <number> ...", and how they are published.
inline std::string numbered(const std::string& publisher, int number, core::Random& random) {
  return publisher + " " + std::to_string(number) + " " + std::string(random.below(300), '.');
}
inline std::string pub(const std::string& subject, const std::string& payload) {
  return "PUB " + subject + " " + std::to_string(payload.size()) + "\r\n" + payload + "\r\n";
}

// Takes what came to a client apart, also over several pieces: on_message(subject, publisher, number) for each numbered
// message, on_line for everything else.
class NumberedReader {
 public:
  template <class OnMessage, class OnLine>
  void read(sim::Client& from, OnMessage&& on_message, OnLine&& on_line) {
    rest_ += from.take();
    for (size_t end; (end = rest_.find("\r\n")) != std::string::npos;) {
      const std::string line = rest_.substr(0, end);
      if (!line.starts_with("MSG ")) {
        rest_.erase(0, end + 2);
        on_line(line);
        continue;
      }
      const size_t size = std::stoul(line.substr(line.rfind(' ') + 1));
      if (rest_.size() < end + 2 + size + 2) return;
      const std::string payload = rest_.substr(end + 2, size);
      rest_.erase(0, end + 2 + size + 2);
      const size_t blank = payload.find(' ');
      on_message(line.substr(4, line.find(' ', 4) - 4), payload.substr(0, blank),
                 std::atoi(payload.c_str() + blank + 1));
    }
  }

 private:
  std::string rest_;
};

// Until `disagreement()` is "". Looking is dear: ten times in a virtual second.
template <class Disagreement>
bool agree_within(sim::Network& network, sim::Scheduler& scheduler, int64_t ns, Disagreement&& disagreement) {
  int64_t next = 0;
  return scheduler.run_until(
      [&] {
        if (network.now_ns() < next) return false;
        next = network.now_ns() + kSecond / 10;
        return disagreement().empty();
      },
      ns);
}

}  // namespace peregrine::cluster::testing
