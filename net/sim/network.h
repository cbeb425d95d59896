// A network in memory: hosts, streams between them, virtual time, one seed. Everything that happens is decided by the
// seed.
//
// Single-threaded. The Network outlives the backends, clients and scheduler that refer to it. It carries streams the
// way TCP does for those who use it: bytes in order, cut anywhere, delayed, held back by a full window, ended by FIN or
// reset. Segments of one stream are put in order again on arrival; between streams nothing is in order.
//
// How a test steps a cluster (Scheduler in scheduler.h, raw clients in client.h):
//
//   sim::Network network(seed, sim::Options::drawn_from(seed));
//   sim::Scheduler scheduler(network);
//   std::vector<int> fds = network.listen("10.0.0.1", 4222, shards);            // one per shard; stand-ins for sockets
//   for (n...) {
//     auto backend = std::make_unique<sim::Backend>(network, "10.0.0.1");        // one per shard
//     sim::Backend& net = *backend;
//     reactors[n] = std::make_unique<Reactor>(*shards[n], std::move(backend), idle, 0, wall_clock);
//     reactors[n]->listen_for_clients(fds[n]);
//     scheduler.add({.backend = &net,
//                    .turn = [..] { return reactors[n]->turn(); },
//                    .try_sleep = [..] { return shards[n]->try_sleep(); },
//                    .awake = [..] { shards[n]->awake(); },
//                    .deadline_ns = [..] { return shards[n]->next_deadline_ns(); }});
//   }
//   sim::Client& client = network.dial("10.0.9.1", {"10.0.0.1", 4222});
//   client.send("CONNECT {}\r\nPING\r\n");
//   ASSERT_TRUE(scheduler.run_until([&] { return client.received().ends_with("PONG\r\n"); })) << "seed " << seed;
//   ASSERT_TRUE(network.violations().empty());
//
// Several brokers are several hosts. Faults: partition()/heal(), cut(), refuse_dials(), Scheduler::stall(); a crash is
// the destruction of a broker's reactors (remove them from the scheduler first): its streams are reset. A failing seed
// replays exactly: fingerprint() of two runs with one seed is equal.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/random.h"
#include "net/backend.h"

namespace peregrine::net::sim {

class Backend;
class Client;
class Network;

struct Options {
  int64_t delay_min_ns = 20'000;  // one way, per segment
  int64_t delay_max_ns = 400'000;
  uint32_t segment_bytes_max = 4096;
  uint32_t tiny_segment_percent = 10;  // of the segments carry 1 to 8 bytes
  uint32_t window_bytes = 128 * 1024;  // sent and not yet read by the other side
  uint32_t pending_percent = 50;  // of the sends are kPending, as in io_uring; the others answer at once, as in epoll
  uint32_t short_send_percent = 20;  // of the sends take less than there is room for
  uint32_t late_event_percent = 10;  // of the readable connections are left for the next acquire()
  uint32_t refuse_percent = 0;       // of the dials are refused
  int64_t turn_ns_max = 20'000;      // a turn takes up to this long

  // Every knob drawn: from a quiet LAN to single bytes over a slow line. Dials are not refused.
  static Options drawn_from(uint64_t seed);
};

// Who holds ends of streams. `handle` is the holder's own number for the end.
class Endpoint {
 public:
  virtual ~Endpoint() = default;
  virtual void connected(uint32_t handle, int error) = 0;  // answers connect(); error < 0: the stream is gone
  virtual void arrived(uint32_t handle) = 0;               // bytes, end of stream or reset: look at the end
  virtual void room(uint32_t handle) = 0;                  // the other side has read
};

struct Segment;

struct End {
  Endpoint* owner = nullptr;  // null: nobody is here (any more); what arrives is answered by a reset
  uint32_t handle = 0;
  Address address;
  std::string inbox;      // arrived, unread
  bool ended = false;     // the other side's FIN has arrived
  int error = 0;          // -errno: reset
  bool finished = false;  // our FIN is out
  bool connected = false;
  uint32_t outstanding = 0;  // sent by us and not yet read there
  uint64_t next_out = 0;     // numbers of segments, for putting them in order
  uint64_t next_in = 0;
  std::map<uint64_t, Segment> early;
};

struct Stream;

struct Segment {
  enum class Kind : uint8_t { kConnect, kConnected, kRefused, kBytes, kEnd, kReset, kRead };
  std::shared_ptr<Stream> stream;
  int from = 0;
  Kind kind = Kind::kBytes;
  uint64_t number = 0;  // kConnected, kBytes, kEnd
  std::string bytes;
  uint32_t read = 0;  // kRead: the sender has read this much
};

struct Stream {
  uint64_t id = 0;
  End end[2];  // 0 dialed, 1 accepted
};

class Network {
 public:
  explicit Network(uint64_t seed, Options options = {});
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // --- for tests ---
  // Stand-ins for `count` listening sockets of one port (0: a free one; port_of() tells), to be given to
  // Backend::listen.
  std::vector<int> listen(const std::string& host, uint16_t port, int count);
  uint16_t port_of(int fd) const;
  // A raw client at `from`, dialing. The network owns it.
  Client& dial(const std::string& from, const Address& to);

  // Nothing passes between the two hosts until heal(): segments wait, as retransmission would make them.
  void partition(const std::string& a, const std::string& b);
  void heal(const std::string& a, const std::string& b);
  void heal_all();
  void cut(const std::string& a, const std::string& b);  // resets every stream between them
  void cut_all();
  void refuse_dials(const Address& to, int count);  // the next `count` of them

  int64_t now_ns() const { return now_ns_; }
  int64_t wall_ns() const { return kWallStart + now_ns_; }
  core::Random& random() { return random_; }
  bool chance(uint32_t percent) { return random_.below(100) < percent; }
  const Options& options() const { return options_; }
  uint64_t fingerprint() const { return fingerprint_; }
  // What users of a backend did against its contract (touched memory of a send in flight, released twice, ...).
  const std::vector<std::string>& violations() const { return violations_; }
  uint64_t bytes_carried() const { return bytes_carried_; }

  // --- for the scheduler ---
  static constexpr int64_t kNever = INT64_MAX;
  void run_due();  // everything due by now
  int64_t next_ns() const { return timers_.empty() ? kNever : timers_.top().at_ns; }
  void advance_to(int64_t ns) { now_ns_ = ns > now_ns_ ? ns : now_ns_; }
  void note(uint64_t what);  // into the fingerprint

  // --- for backends and clients ---
  void at(int64_t ns, std::function<void()> action);
  int64_t delay_ns();
  std::shared_ptr<Stream> connect(const std::string& from, const Address& to, Endpoint* owner, uint32_t handle);
  int start_listening(int fd, Backend* backend, uint32_t number);
  void stop_listening(int fd);
  uint32_t room(const Stream& stream, int side) const;
  uint32_t write(Stream& stream, int side, std::string_view bytes);  // takes what there is room for
  std::string read(Stream& stream, int side, size_t at_most);
  void finish(Stream& stream, int side);  // FIN behind what has been written
  void leave(Stream& stream, int side);   // the holder goes; resets if it leaves bytes unread or has not finished
  void reset(Stream& stream, int side);
  void violation(std::string what) { violations_.push_back(std::move(what)); }

 private:
  static constexpr int64_t kWallStart = 1'700'000'000'000'000'000;
  struct Timer {
    int64_t at_ns;
    uint64_t number;  // equal times: first come, first served
    std::shared_ptr<std::function<void()>> action;
    bool operator>(const Timer& other) const {
      return at_ns != other.at_ns ? at_ns > other.at_ns : number > other.number;
    }
  };
  struct Listener {
    Address address;
    Backend* backend = nullptr;  // null: bound, nobody accepts yet
    uint32_t number = 0;
    bool open = true;
  };

  void transmit(Stream& stream, int from, Segment::Kind kind, std::string bytes = {}, uint32_t read = 0);
  void deliver(Segment segment);
  void accept_in_order(Segment segment);
  void on_connect(Stream& stream);
  void on_reset(Stream& stream, int side);
  bool parted(const Stream& stream) const;
  std::shared_ptr<Stream> shared(Stream& stream);
  template <class Match>
  void cut_matching(Match&& match);

  core::Random random_;
  const Options options_;
  int64_t now_ns_ = 1'000'000'000;
  uint64_t timer_count_ = 0;
  uint64_t stream_count_ = 0;
  uint16_t next_port_ = 32768;
  uint64_t fingerprint_ = 0xcbf29ce484222325u;
  uint64_t bytes_carried_ = 0;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::vector<Listener> listeners_;  // fd = kFirstFd + index
  std::map<uint64_t, std::weak_ptr<Stream>> streams_;
  std::set<std::pair<std::string, std::string>> partitions_;
  std::vector<Segment> held_;  // by partitions
  std::map<std::pair<std::string, uint16_t>, int> refusals_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<std::string> violations_;
};

}  // namespace peregrine::net::sim
