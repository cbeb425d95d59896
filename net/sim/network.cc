#include "net/sim/network.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "net/sim/backend.h"
#include "net/sim/client.h"

namespace peregrine::net::sim {
namespace {

// Far above any real descriptor, so that a test which closes one by mistake hurts nobody.
constexpr int kFirstFd = 1 << 24;

std::pair<std::string, std::string> pair_of(const std::string& a, const std::string& b) {
  return a < b ? std::pair(a, b) : std::pair(b, a);
}

}  // namespace

Options Options::drawn_from(uint64_t seed) {
  core::Random random(seed ^ 0x73696d);
  const auto one_of = [&](auto... values) {
    const int64_t all[] = {static_cast<int64_t>(values)...};
    return all[random.below(sizeof...(values))];
  };
  Options options;
  options.delay_min_ns = one_of(1'000, 20'000, 200'000);
  options.delay_max_ns = options.delay_min_ns * one_of(1, 2, 20, 200);
  options.segment_bytes_max = static_cast<uint32_t>(one_of(3, 64, 1460, 4096, 65536));
  options.tiny_segment_percent = static_cast<uint32_t>(one_of(0, 10, 50));
  options.window_bytes = static_cast<uint32_t>(one_of(1024, 16 * 1024, 128 * 1024, 1024 * 1024));
  options.pending_percent = static_cast<uint32_t>(one_of(0, 50, 100));
  options.short_send_percent = static_cast<uint32_t>(one_of(0, 20, 80));
  options.late_event_percent = static_cast<uint32_t>(one_of(0, 10, 50));
  options.turn_ns_max = one_of(2'000, 20'000, 1'000'000);
  return options;
}

Network::Network(uint64_t seed, Options options) : random_(seed), options_(options) {}

Network::~Network() {
  // Segments that came early hold their stream, which holds them.
  for (auto& [id, weak] : streams_) {
    const std::shared_ptr<Stream> stream = weak.lock();
    if (stream == nullptr) continue;
    for (End& end : stream->end) std::exchange(end.early, {}).clear();
  }
}

// ---- time

void Network::note(uint64_t what) {
  for (int n = 0; n < 8; ++n) {  // FNV-1a
    fingerprint_ ^= what >> (8 * n) & 0xff;
    fingerprint_ *= 0x100000001b3u;
  }
}

void Network::at(int64_t ns, std::function<void()> action) {
  timers_.push({ns, timer_count_++, std::make_shared<std::function<void()>>(std::move(action))});
}

void Network::run_due() {
  while (!timers_.empty() && timers_.top().at_ns <= now_ns_) {
    const auto action = timers_.top().action;
    timers_.pop();
    (*action)();
  }
}

int64_t Network::delay_ns() {
  return options_.delay_min_ns +
         static_cast<int64_t>(random_.below(static_cast<uint64_t>(options_.delay_max_ns - options_.delay_min_ns) + 1));
}

// ---- listening and dialing

std::vector<int> Network::listen(const std::string& host, uint16_t port, int count) {
  if (port == 0) port = next_port_++;
  std::vector<int> fds;
  for (int n = 0; n < count; ++n) {
    fds.push_back(kFirstFd + static_cast<int>(listeners_.size()));
    listeners_.push_back({{host, port}});
  }
  return fds;
}

uint16_t Network::port_of(int fd) const { return listeners_.at(static_cast<size_t>(fd - kFirstFd)).address.port; }

int Network::start_listening(int fd, Backend* backend, uint32_t number) {
  const auto index = static_cast<size_t>(fd - kFirstFd);
  if (fd < kFirstFd || index >= listeners_.size() || !listeners_[index].open) return -EBADF;
  listeners_[index].backend = backend;
  listeners_[index].number = number;
  return 0;
}

void Network::stop_listening(int fd) {
  Listener& listener = listeners_.at(static_cast<size_t>(fd - kFirstFd));
  listener.open = false;
  listener.backend = nullptr;
}

Client& Network::dial(const std::string& from, const Address& to) {
  clients_.push_back(std::make_unique<Client>(*this, from, to));
  return *clients_.back();
}

std::shared_ptr<Stream> Network::connect(const std::string& from, const Address& to, Endpoint* owner, uint32_t handle) {
  if (streams_.size() % 256 == 255) std::erase_if(streams_, [](const auto& each) { return each.second.expired(); });
  auto stream = std::make_shared<Stream>();
  stream->id = ++stream_count_;
  stream->end[0].owner = owner;
  stream->end[0].handle = handle;
  stream->end[0].address = {from, next_port_};
  next_port_ = next_port_ == 65535 ? 32768 : static_cast<uint16_t>(next_port_ + 1);
  stream->end[1].address = to;
  streams_[stream->id] = stream;
  transmit(*stream, 0, Segment::Kind::kConnect);
  return stream;
}

void Network::on_connect(Stream& stream) {
  const Address& to = stream.end[1].address;
  std::vector<Listener*> accepting;
  for (Listener& each : listeners_) {
    if (each.open && each.backend != nullptr && each.address.host == to.host && each.address.port == to.port)
      accepting.push_back(&each);
  }
  const auto refusal = refusals_.find({to.host, to.port});
  bool refused = accepting.empty() || chance(options_.refuse_percent);
  if (refusal != refusals_.end()) {
    refused = true;
    if (--refusal->second == 0) refusals_.erase(refusal);
  }
  if (refused) return transmit(stream, 1, Segment::Kind::kRefused);
  const Listener& taken = *accepting[random_.below(accepting.size())];
  End& end = stream.end[1];
  end.owner = taken.backend;
  end.connected = true;
  end.handle = kNoConn;
  taken.backend->incoming(shared(stream), taken.number);
  transmit(stream, 1, Segment::Kind::kConnected);
}

void Network::refuse_dials(const Address& to, int count) { refusals_[{to.host, to.port}] += count; }

// ---- carrying

std::shared_ptr<Stream> Network::shared(Stream& stream) { return streams_.at(stream.id).lock(); }

bool Network::parted(const Stream& stream) const {
  return partitions_.contains(pair_of(stream.end[0].address.host, stream.end[1].address.host));
}

void Network::transmit(Stream& stream, int from, Segment::Kind kind, std::string bytes, uint32_t read) {
  Segment segment{shared(stream), from, kind, 0, std::move(bytes), read};
  if (kind == Segment::Kind::kConnected || kind == Segment::Kind::kBytes || kind == Segment::Kind::kEnd) {
    segment.number = stream.end[from].next_out++;
  }
  at(now_ns_ + delay_ns(), [this, segment = std::move(segment)] { deliver(segment); });
}

void Network::deliver(Segment segment) {
  Stream& stream = *segment.stream;
  if (parted(stream)) {
    held_.push_back(std::move(segment));
    return;
  }
  note(stream.id << 16 | static_cast<uint64_t>(segment.from) << 8 | static_cast<uint64_t>(segment.kind));
  note(static_cast<uint64_t>(now_ns_) ^ segment.bytes.size());
  const int side = 1 - segment.from;
  End& end = stream.end[side];
  switch (segment.kind) {
    case Segment::Kind::kConnect:
      return on_connect(stream);
    case Segment::Kind::kRefused:
      if (end.owner != nullptr) std::exchange(end.owner, nullptr)->connected(end.handle, -ECONNREFUSED);
      return;
    case Segment::Kind::kReset:
      return on_reset(stream, side);
    case Segment::Kind::kRead:
      end.outstanding -= segment.read;
      if (end.owner != nullptr && end.connected) end.owner->room(end.handle);
      return;
    case Segment::Kind::kConnected:
    case Segment::Kind::kBytes:
    case Segment::Kind::kEnd:
      return accept_in_order(std::move(segment));
  }
}

void Network::accept_in_order(Segment segment) {
  Stream& stream = *segment.stream;
  const int side = 1 - segment.from;
  End& end = stream.end[side];
  const auto keep = segment.stream;
  end.early.emplace(segment.number, std::move(segment));
  for (auto next = end.early.find(end.next_in); next != end.early.end(); next = end.early.find(end.next_in)) {
    const Segment now = std::move(next->second);
    end.early.erase(next);
    ++end.next_in;
    if (end.owner == nullptr) {
      // Closed: bytes that nobody will read are answered by a reset; a bare FIN is not.
      if (now.kind != Segment::Kind::kEnd) transmit(stream, side, Segment::Kind::kReset);
      continue;
    }
    switch (now.kind) {
      case Segment::Kind::kConnected:
        end.connected = true;
        end.owner->connected(end.handle, 0);
        break;
      case Segment::Kind::kBytes:
        bytes_carried_ += now.bytes.size();
        end.inbox += now.bytes;
        end.owner->arrived(end.handle);
        break;
      case Segment::Kind::kEnd:
        end.ended = true;
        end.owner->arrived(end.handle);
        break;
      default:
        break;
    }
  }
}

void Network::on_reset(Stream& stream, int side) {
  End& end = stream.end[side];
  end.early.clear();
  if (end.owner == nullptr || end.error != 0) return;
  end.error = -ECONNRESET;
  if (end.connected) {
    end.owner->arrived(end.handle);
  } else {
    std::exchange(end.owner, nullptr)->connected(end.handle, -ECONNRESET);
  }
}

uint32_t Network::room(const Stream& stream, int side) const {
  const End& end = stream.end[side];
  return end.outstanding >= options_.window_bytes ? 0 : options_.window_bytes - end.outstanding;
}

uint32_t Network::write(Stream& stream, int side, std::string_view bytes) {
  End& end = stream.end[side];
  const auto taken = static_cast<uint32_t>(std::min<size_t>(bytes.size(), room(stream, side)));
  end.outstanding += taken;
  bytes = bytes.substr(0, taken);
  while (!bytes.empty()) {
    uint64_t size =
        chance(options_.tiny_segment_percent) ? 1 + random_.below(8) : 1 + random_.below(options_.segment_bytes_max);
    size = std::min<uint64_t>(size, bytes.size());
    transmit(stream, side, Segment::Kind::kBytes, std::string(bytes.substr(0, size)));
    bytes.remove_prefix(size);
  }
  return taken;
}

std::string Network::read(Stream& stream, int side, size_t at_most) {
  End& end = stream.end[side];
  std::string bytes = end.inbox.substr(0, at_most);
  end.inbox.erase(0, bytes.size());
  if (!bytes.empty()) transmit(stream, side, Segment::Kind::kRead, {}, static_cast<uint32_t>(bytes.size()));
  return bytes;
}

void Network::finish(Stream& stream, int side) {
  End& end = stream.end[side];
  if (end.finished || end.error != 0) return;
  end.finished = true;
  transmit(stream, side, Segment::Kind::kEnd);
}

void Network::leave(Stream& stream, int side) {
  End& end = stream.end[side];
  if (end.owner == nullptr) return;
  if (end.error == 0 && (!end.inbox.empty() || !end.finished)) return reset(stream, side);
  end.owner = nullptr;
  end.inbox.clear();
}

void Network::reset(Stream& stream, int side) {
  End& end = stream.end[side];
  if (end.owner == nullptr) return;
  end.owner = nullptr;
  end.inbox.clear();
  end.early.clear();
  if (end.error == 0) transmit(stream, side, Segment::Kind::kReset);
}

// ---- faults

void Network::partition(const std::string& a, const std::string& b) { partitions_.insert(pair_of(a, b)); }

void Network::heal(const std::string& a, const std::string& b) {
  partitions_.erase(pair_of(a, b));
  std::vector<Segment> held;
  held.swap(held_);
  for (Segment& segment : held) {
    if (parted(*segment.stream)) {
      held_.push_back(std::move(segment));
    } else {
      at(now_ns_ + delay_ns(), [this, segment = std::move(segment)] { deliver(segment); });
    }
  }
}

void Network::heal_all() {
  while (!partitions_.empty()) {
    const auto pair = *partitions_.begin();
    heal(pair.first, pair.second);
  }
}

template <class Match>
void Network::cut_matching(Match&& match) {
  std::vector<std::shared_ptr<Stream>> doomed;
  for (auto it = streams_.begin(); it != streams_.end();) {
    const auto stream = it->second.lock();
    if (stream == nullptr) {
      it = streams_.erase(it);
      continue;
    }
    if (match(*stream)) doomed.push_back(stream);
    ++it;
  }
  for (const auto& stream : doomed) {
    on_reset(*stream, 0);
    on_reset(*stream, 1);
  }
}

void Network::cut(const std::string& a, const std::string& b) {
  cut_matching([pair = pair_of(a, b)](const Stream& stream) {
    return pair_of(stream.end[0].address.host, stream.end[1].address.host) == pair;
  });
}

void Network::cut_all() {
  cut_matching([](const Stream&) { return true; });
}

}  // namespace peregrine::net::sim
