// Packet scripts: one stack, a peer made of lines, virtual time. Every .pkt file beside this one is a test.
//
// A line is one step; `#` begins a comment. Sequence numbers count from each side's SYN = 0; times are milliseconds.
//   set NAME VALUE              before anything else: sack timestamps window_scale ecn cookies mtu ipv6 initial_window
//                               receive_window keepalive_idle keepalive_interval keepalive_probes max_retries isn
//                               user_timeout newreno
//   listen | dial               our side opens
//   < FLAGS SEQ[:END] [ack N] [win N] [mss N] [sackok] [ts VAL [ECR]] [older] [ws N] [uto N] [sack A:B...] [ce]
//                               [bad]
//                               a segment arrives; FLAGS of S F R P . E W (or -), as tcpdump prints them
//   > FLAGS SEQ[:END] [...]     the next segment we send has these flags and numbers, and each option that is named;
//                               `nosack`, `nots`, `nows` and `nouto`: has none. `ts` alone: any
//   none                        nothing (more) was sent
//   +MS                         time passes; timers fire when they are due
//   drain                       forget what was sent
//   accepted | dialed | data N | closed ERRNO | failed ERRNO | writable
//                               what the owner is told next (data: bytes in all since the last `data`)
//   send N | close | abort | pause | resume
//   queue N | turn              like send, but nothing leaves before the turn ends
//   toobig MTU SEQ              an ICMP error (or ICMPv6 packet too big) that quotes our segment at SEQ
//   unreachable CODE SEQ        the same, destination unreachable
//   stat NAME N | state NAME    a counter of stats.h (drop reasons too); the connection's state
//   remember NAME | above NAME  our initial sequence number, kept; the present one is higher
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <utility>

#include "net/tcp/packet.h"
#include "net/tcp/segment.h"
#include "tests/net/tcp/wire.h"

namespace peregrine::net::tcp::test {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr uint32_t kPeerIss = 4'000'000'000u;

class Script final : public Port {
 public:
  // Empty: the script went as written.
  std::string run(std::istream& in) {
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) {
      line = line.substr(0, line.find('#'));
      std::istringstream words(line);
      std::string verb;
      if (!(words >> verb)) continue;
      const std::string wrong = step(verb, words);
      if (!wrong.empty()) return "line " + std::to_string(number) + ": " + line + "\n  " + wrong;
    }
    return "";
  }

  bool transmit(const OutFrame& frame) override {
    for (auto& bytes : cut_frame(frame)) {
      Packet packet;
      Frame view{.data = bytes.data(), .size = static_cast<uint32_t>(bytes.size())};
      EXPECT_EQ(parse_packet(view, packet), kNotDropped);
      if (packet.ethertype == kEtherArp || packet.protocol == kProtocolIcmpv6) {
        questions_.push_back(bytes);
      } else if (packet.protocol == kProtocolTcp) {
        Checksum sum;
        add_pseudo_header(sum, packet.ipv6, packet.source, packet.destination, packet.body_bytes, kProtocolTcp);
        sum.add(packet.body, packet.body_bytes);
        EXPECT_TRUE(sum.good());
        sent_.push_back(std::move(bytes));
      }
    }
    return true;
  }
  void free_frame(uint64_t) override {}
  uint16_t choose_local_port(const Flow&) override { return 40000; }

 private:
  IpAddress ours() const { return parse(ipv6_ ? "fd00::1" : "10.0.0.1"); }
  IpAddress peer() const { return parse(ipv6_ ? "fd00::2" : "10.0.0.2"); }
  static IpAddress parse(const std::string& text) {
    IpAddress address;
    EXPECT_TRUE(IpAddress::parse(text, address));
    return address;
  }

  void start() {
    if (stack_ != nullptr) return;
    options_.reference_bytes = UINT32_MAX;
    options_.secret[0] = 11;
    options_.secret[1] = 12;
    stack_ = std::make_unique<Stack>(options_, *this, now_);
    Interface interface;
    interface.mac = {2, 0, 0, 0, 0, 1};
    interface.mtu = mtu_;
    interface.addresses = {{ours(), static_cast<uint8_t>(ipv6_ ? 64 : 24)}};
    EXPECT_EQ(stack_->add_interface(interface, false), 0);
  }

  // One turn, as a backend takes it.
  void turn() {
    stack_->advance(now_);
    std::vector<Event> events;
    stack_->acquire(events);
    for (const Event& event : events) {
      if (event.kind == Event::Kind::kData) {
        data_ += event.size;
        stack_->release(event);
        continue;
      }
      if (event.kind == Event::Kind::kAccepted || event.kind == Event::Kind::kDialed) conn_ = event.conn;
      events_.push_back(event);
    }
    stack_->flush(now_);
    answer();
  }

  // Who has the peer's address? We do: MAC 02:..:02.
  void answer() {
    while (!questions_.empty()) {
      std::vector<uint8_t> q = std::move(questions_.front());
      questions_.pop_front();
      if (load16(q.data() + 12) == kEtherArp) {
        if (load16(q.data() + 20) != 1) continue;
        std::vector<uint8_t> a = q;
        std::memcpy(a.data(), q.data() + 6, 6);
        const uint8_t mac[6] = {2, 0, 0, 0, 0, 2};
        std::memcpy(a.data() + 6, mac, 6);
        store16(a.data() + 20, 2);
        std::memcpy(a.data() + 22, mac, 6);
        std::memcpy(a.data() + 28, q.data() + 38, 4);
        std::memcpy(a.data() + 32, q.data() + 22, 6);
        std::memcpy(a.data() + 38, q.data() + 28, 4);
        deliver(a);
      } else if (q[54] == 135) {
        uint8_t body[32] = {136};
        body[4] = 0x60;
        std::memcpy(body + 8, q.data() + 62, 16);
        body[24] = 2;
        body[25] = 1;
        body[26] = 2;
        body[31] = 2;
        icmpv6(body, sizeof(body), 255);
      }
      stack_->flush(now_);
    }
  }

  void deliver(const std::vector<uint8_t>& bytes) {
    kept_.push_back(bytes);  // until the script ends: the stack may hold on to it
    stack_->input({.data = kept_.back().data(), .size = static_cast<uint32_t>(bytes.size())}, now_);
  }

  std::vector<uint8_t> ip_packet(const uint8_t* body, size_t size, uint8_t protocol, uint8_t ecn, uint8_t hops) {
    std::vector<uint8_t> f(14);
    const uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
    std::memcpy(f.data(), macs, 12);
    store16(f.data() + 12, ipv6_ ? kEtherIpv6 : kEtherIpv4);
    if (ipv6_) {
      uint8_t ip[40] = {0x60, static_cast<uint8_t>(ecn << 4)};
      store16(ip + 4, static_cast<uint32_t>(size));
      ip[6] = protocol;
      ip[7] = hops;
      std::memcpy(ip + 8, peer().bytes.data(), 16);
      std::memcpy(ip + 24, ours().bytes.data(), 16);
      f.insert(f.end(), ip, ip + 40);
    } else {
      uint8_t ip[20] = {0x45, ecn};
      store16(ip + 2, static_cast<uint32_t>(20 + size));
      ip[8] = hops;
      ip[9] = protocol;
      std::memcpy(ip + 12, peer().v4_bytes(), 4);
      std::memcpy(ip + 16, ours().v4_bytes(), 4);
      Checksum sum;
      sum.add(ip, 20);
      const uint16_t value = sum.final();
      std::memcpy(ip + 10, &value, 2);
      f.insert(f.end(), ip, ip + 20);
    }
    f.insert(f.end(), body, body + size);
    return f;
  }

  void icmpv6(uint8_t* body, size_t size, uint8_t hops) {
    Checksum sum;
    add_pseudo_header(sum, true, peer().bytes.data(), ours().bytes.data(), static_cast<uint32_t>(size),
                      kProtocolIcmpv6);
    sum.add(body, size);
    const uint16_t value = sum.final();
    std::memcpy(body + 2, &value, 2);
    deliver(ip_packet(body, size, kProtocolIcmpv6, 0, hops));
  }

  static uint8_t flags_of(const std::string& text) {
    uint8_t flags = 0;
    for (const char c : text) {
      flags |= c == 'S'   ? kSyn
               : c == 'F' ? kFin
               : c == 'R' ? kRst
               : c == 'P' ? kPsh
               : c == '.' ? kAck
               : c == 'E' ? kEce
               : c == 'W' ? kCwr
                          : 0;
    }
    return flags;
  }

  struct Line {
    uint8_t flags = 0;
    uint32_t seq = 0, bytes = 0;
    std::map<std::string, std::vector<int64_t>> fields;
    bool has(const char* name) const { return fields.contains(name); }
    uint32_t get(const char* name, size_t i = 0) const { return static_cast<uint32_t>(fields.at(name).at(i)); }
  };

  static Line read_line(std::istream& words) {
    Line line;
    std::string word;
    words >> word;
    line.flags = flags_of(word);
    words >> word;
    const size_t colon = word.find(':');
    line.seq = static_cast<uint32_t>(std::stoll(word));
    if (colon != std::string::npos) line.bytes = static_cast<uint32_t>(std::stoll(word.substr(colon + 1))) - line.seq;
    std::string name;
    while (words >> word) {
      if (std::isdigit(static_cast<unsigned char>(word[0])) != 0 || word[0] == '-') {
        line.fields[name].push_back(std::stoll(word));
        if (const size_t at = word.find(':'); at != std::string::npos) {
          line.fields[name].push_back(std::stoll(word.substr(at + 1)));
        }
      } else {
        name = word;
        line.fields[name];
      }
    }
    return line;
  }

  std::string arrive(std::istream& words) {
    const Line line = read_line(words);
    HeaderFields h{.source_port = dialing_ ? uint16_t{4222} : uint16_t{50000},
                   .destination_port = dialing_ ? uint16_t{40000} : uint16_t{4222},
                   .seq = kPeerIss + line.seq,
                   .ack = line.has("ack") ? iss_ + line.get("ack") : 0,
                   .flags = line.flags,
                   .window = static_cast<uint16_t>(line.has("win") ? line.get("win") : 65535)};
    if (line.has("mss")) h.mss = static_cast<uint16_t>(line.get("mss"));
    if (line.has("ws")) h.window_scale = static_cast<int8_t>(line.get("ws"));
    if (line.has("uto")) h.user_timeout = static_cast<uint16_t>(line.get("uto"));
    h.sack_permitted = line.has("sackok");
    if (line.has("ts")) {
      h.has_timestamp = true;
      h.timestamp = line.get("ts");
      // `ts VAL` echoes our latest, with `older` the one before.
      h.timestamp_echo = line.fields.at("ts").size() > 1 ? line.get("ts", 1) : line.has("older") ? older_ts_ : last_ts_;
    }
    if (line.has("sack")) {
      const auto& ends = line.fields.at("sack");
      for (size_t i = 0; i + 1 < ends.size(); i += 2) {
        h.sack[h.sack_count++] = {iss_ + static_cast<uint32_t>(ends[i]), iss_ + static_cast<uint32_t>(ends[i + 1])};
      }
    }
    std::vector<uint8_t> body(60 + line.bytes);
    const uint32_t size = write_header(body.data(), h);
    body.resize(size + line.bytes);
    Checksum sum;
    add_pseudo_header(sum, ipv6_, ipv6_ ? peer().bytes.data() : peer().v4_bytes(),
                      ipv6_ ? ours().bytes.data() : ours().v4_bytes(), static_cast<uint32_t>(body.size()),
                      kProtocolTcp);
    sum.add(body.data(), body.size());
    uint16_t value = sum.final();
    if (line.has("bad")) value ^= 0x1234;
    std::memcpy(body.data() + 16, &value, 2);
    deliver(ip_packet(body.data(), body.size(), kProtocolTcp, line.has("ce") ? 3 : 0, 64));
    turn();
    return "";
  }

  std::string leave(std::istream& words) {
    const Line line = read_line(words);
    if (sent_.empty()) return "nothing was sent";
    const std::vector<uint8_t> bytes = std::move(sent_.front());
    sent_.pop_front();
    Packet packet;
    EXPECT_EQ(parse_packet({.data = bytes.data(), .size = static_cast<uint32_t>(bytes.size())}, packet), kNotDropped);
    Segment s;
    EXPECT_EQ(parse_segment(packet.body, packet.body_bytes, s), kNotDropped);
    if (s.has(kSyn)) iss_ = s.seq;
    if (s.has_timestamp) older_ts_ = std::exchange(last_ts_, s.timestamp);
    std::ostringstream got;
    got << "flags " << std::hex << int{s.flags} << std::dec << " seq " << s.seq - iss_ << ":"
        << s.seq - iss_ + s.payload_bytes << " ack " << s.ack - kPeerIss << " win " << s.window << " mss " << s.mss
        << " ws " << int{s.window_scale} << " uto " << s.user_timeout_s << " ts " << s.has_timestamp << " sackok "
        << s.sack_permitted;
    for (int i = 0; i < s.sack_count; ++i) {
      got << " sack " << s.sack[i].start - kPeerIss << ":" << s.sack[i].end - kPeerIss;
    }
    const auto wrong = [&](const char* what) { return std::string(what) + " differs: " + got.str(); };
    // PSH is a hint: only asked about when the script says so.
    const uint8_t mask = (line.flags & kPsh) != 0 ? 0xff : static_cast<uint8_t>(~kPsh);
    if ((s.flags & mask) != line.flags) return wrong("flags");
    const bool foreign = s.has(kRst) && !s.has(kAck) && line.has("absolute");
    if (!foreign && s.seq - iss_ != line.seq) return wrong("seq");
    if (s.payload_bytes != line.bytes) return wrong("length");
    if (line.has("ack") && s.ack - kPeerIss != line.get("ack")) return wrong("ack");
    if (line.has("win") && s.window != line.get("win")) return wrong("win");
    if (line.has("mss") && s.mss != line.get("mss")) return wrong("mss");
    if (line.has("ws") && s.window_scale != static_cast<int>(line.get("ws"))) return wrong("ws");
    if (line.has("nows") && s.window_scale != -1) return wrong("ws");
    if (line.has("uto") && s.user_timeout_s != line.get("uto")) return wrong("uto");
    if (line.has("nouto") && s.user_timeout_s != 0) return wrong("uto");
    if (line.has("sackok") && !s.sack_permitted) return wrong("sackok");
    if (line.has("nosackok") && s.sack_permitted) return wrong("sackok");
    if (line.has("ts") && !s.has_timestamp) return wrong("ts");
    if (line.has("ts") && line.fields.at("ts").size() == 1 && s.timestamp_echo != line.get("ts")) return wrong("echo");
    if (line.has("nots") && s.has_timestamp) return wrong("ts");
    if (line.has("nosack") && s.sack_count != 0) return wrong("sack");
    if (line.has("ect") && packet.ecn != 2) return wrong("ect");
    if (line.has("noect") && packet.ecn != 0) return wrong("ect");
    if (line.has("sack")) {
      const auto& ends = line.fields.at("sack");
      if (ends.size() != s.sack_count * 2u) return wrong("sack");
      for (size_t i = 0; i < ends.size(); i += 2) {
        if (s.sack[i / 2].start - kPeerIss != ends[i] || s.sack[i / 2].end - kPeerIss != ends[i + 1])
          return wrong("sack");
      }
    }
    return "";
  }

  std::string icmp(uint8_t type, uint8_t code, uint32_t value, uint32_t seq) {
    uint8_t body[8 + 48] = {type, code};
    if (ipv6_) {
      store32(body + 4, value);
    } else {
      store16(body + 6, value);
    }
    uint8_t* q = body + 8;
    const size_t ip = ipv6_ ? 40 : 20;
    if (ipv6_) {
      q[0] = 0x60;
      q[6] = kProtocolTcp;
      std::memcpy(q + 8, ours().bytes.data(), 16);
      std::memcpy(q + 24, peer().bytes.data(), 16);
    } else {
      q[0] = 0x45;
      q[9] = kProtocolTcp;
      std::memcpy(q + 12, ours().v4_bytes(), 4);
      std::memcpy(q + 16, peer().v4_bytes(), 4);
    }
    store16(q + ip, dialing_ ? 40000 : 4222);
    store16(q + ip + 2, dialing_ ? 4222 : 50000);
    store32(q + ip + 4, iss_ + seq);
    const size_t size = 8 + ip + 8;
    if (ipv6_) {
      icmpv6(body, size, 64);
    } else {
      Checksum sum;
      sum.add(body, size);
      const uint16_t sum_value = sum.final();
      std::memcpy(body + 2, &sum_value, 2);
      deliver(ip_packet(body, size, kProtocolIcmp, 0, 64));
    }
    turn();
    return "";
  }

  std::string expect_event(Event::Kind kind, std::istream& words) {
    if (events_.empty()) return "nothing has happened";
    const Event event = events_.front();
    events_.pop_front();
    if (event.kind != kind) return "another event: " + std::to_string(static_cast<int>(event.kind));
    int error = 0;
    if (words >> error && event.error != -error) return "error " + std::to_string(event.error);
    return "";
  }

  std::string step(const std::string& verb, std::istream& words) {
    if (verb == "set") return set(words);
    start();
    if (verb == "listen") {
      EXPECT_EQ(stack_->listen(std::nullopt, 4222, 1), 0);
    } else if (verb == "dial") {
      dialing_ = true;
      stack_->dial(peer(), 4222, 1, 30'000 * kMs, now_);
      turn();
      turn();
    } else if (verb == "<") {
      return arrive(words);
    } else if (verb == ">") {
      return leave(words);
    } else if (verb == "none") {
      return sent_.empty() ? "" : "something was sent";
    } else if (verb == "drain") {
      sent_.clear();
    } else if (verb[0] == '+') {
      const int64_t until = now_ + static_cast<int64_t>(std::stod(verb.substr(1)) * kMs);
      for (int64_t next; (next = stack_->next_ns()) <= until;) {
        now_ = std::max(now_, next);
        turn();
      }
      now_ = until;
      turn();
    } else if (verb == "accepted") {
      return expect_event(Event::Kind::kAccepted, words);
    } else if (verb == "dialed") {
      return expect_event(Event::Kind::kDialed, words);
    } else if (verb == "failed") {
      return expect_event(Event::Kind::kDialFailed, words);
    } else if (verb == "closed") {
      return expect_event(Event::Kind::kClosed, words);
    } else if (verb == "writable") {
      return expect_event(Event::Kind::kWritable, words);
    } else if (verb == "quiet") {
      return events_.empty() ? "" : "event " + std::to_string(static_cast<int>(events_.front().kind));
    } else if (verb == "data") {
      size_t n = 0;
      words >> n;
      const size_t got = data_;
      data_ = 0;
      if (got != n) return "got " + std::to_string(got);
    } else if (verb == "turn") {
      turn();
    } else if (verb == "send" || verb == "queue") {
      size_t n = 0;
      words >> n;
      const std::string bytes(n, 'x');
      const iovec iov{const_cast<char*>(bytes.data()), n};
      const SendResult result = stack_->send(conn_, {&iov, 1});
      if (result.status != SendResult::Status::kDone || result.bytes != n) return "not taken";
      if (verb == "send") turn();
    } else if (verb == "close" || verb == "abort") {
      stack_->close(conn_, verb == "abort");
      turn();
    } else if (verb == "pause") {
      stack_->pause(conn_);
    } else if (verb == "resume") {
      stack_->resume(conn_);
      turn();
      turn();
    } else if (verb == "toobig") {
      uint32_t mtu = 0, seq = 0;
      words >> mtu >> seq;
      return icmp(ipv6_ ? 2 : 3, ipv6_ ? 0 : 4, mtu, seq);
    } else if (verb == "unreachable") {
      uint32_t code = 0, seq = 0;
      words >> code >> seq;
      return icmp(ipv6_ ? 1 : 3, static_cast<uint8_t>(code), 0, seq);
    } else if (verb == "stat") {
      return stat(words);
    } else if (verb == "state") {
      std::string name;
      words >> name;
      const std::string state = stack_->connection_state(conn_).state;
      if (state != name) return "is " + state;
    } else if (verb == "remember") {
      remembered_ = iss_;
    } else if (verb == "above") {
      if (!after(iss_, remembered_)) return "it is not";
    } else {
      return "no such step";
    }
    return "";
  }

  std::string stat(std::istream& words) {
    std::string name;
    uint64_t wanted = 0;
    words >> name >> wanted;
    bool found = false;
    uint64_t got = 0;
    stack_->stats().each([&](std::string_view n, uint64_t value) {
      if (n == name) {
        found = true;
        got = value;
      }
    });
    for (size_t i = 0; i < kDropNames.size(); ++i) {
      if (kDropNames[i] == name) {
        found = true;
        got = stack_->stats().drops[i];
      }
    }
    if (!found) return "no such counter";
    return got == wanted ? "" : "is " + std::to_string(got);
  }

  std::string set(std::istream& words) {
    std::string name;
    int64_t value = 0;
    words >> name >> value;
    if (stack_ != nullptr) return "too late";
    if (name == "sack") options_.sack = value != 0;
    else if (name == "timestamps") options_.timestamps = value != 0;
    else if (name == "window_scale") options_.window_scale = value != 0;
    else if (name == "ecn") options_.ecn = value != 0;
    else if (name == "cookies") options_.max_half_open = 0;
    else if (name == "no_cookies") options_.syn_cookies = false, options_.max_half_open = static_cast<uint32_t>(value);
    else if (name == "mtu") mtu_ = static_cast<uint16_t>(value);
    else if (name == "ipv6") ipv6_ = value != 0;
    else if (name == "initial_window") options_.initial_window = static_cast<uint32_t>(value);
    else if (name == "receive_window") options_.receive_window = static_cast<uint32_t>(value);
    else if (name == "keepalive_idle") options_.keepalive_idle_ns = value * kMs;
    else if (name == "keepalive_interval") options_.keepalive_interval_ns = value * kMs;
    else if (name == "keepalive_probes") options_.keepalive_probes = static_cast<uint8_t>(value);
    else if (name == "max_retries") options_.max_retries = static_cast<uint8_t>(value);
    else if (name == "user_timeout") options_.user_timeout_ns = value * kMs;
    else if (name == "newreno" && value != 0) options_.congestion = CongestionControl::kNewReno;
    else if (name == "isn") options_.fixed_isn = static_cast<uint32_t>(value);
    else return "no such option";
    return "";
  }

  Options options_;
  uint16_t mtu_ = 1500;
  bool ipv6_ = false, dialing_ = false;
  int64_t now_ = 1'000'000 * kMs;
  std::unique_ptr<Stack> stack_;
  ConnId conn_ = 0;
  uint32_t iss_ = 0, last_ts_ = 0, older_ts_ = 0, remembered_ = 0;
  size_t data_ = 0;
  std::deque<Event> events_;
  std::deque<std::vector<uint8_t>> sent_, questions_, kept_;
};

class PacketScript : public testing::TestWithParam<std::string> {};

TEST_P(PacketScript, GoesAsWritten) {
  std::ifstream in(std::filesystem::path(PACKET_SCRIPTS) / (GetParam() + ".pkt"));
  ASSERT_TRUE(in.good());
  Script script;
  EXPECT_EQ(script.run(in), "") << GetParam() << ".pkt";
}

std::vector<std::string> scripts() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(PACKET_SCRIPTS)) {
    if (entry.path().extension() == ".pkt") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, PacketScript, testing::ValuesIn(scripts()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace peregrine::net::tcp::test
