// N shards of one server, driven by hand in one thread: every interleaving of their turns can be written down.
//
// A Client's send() waits until its shard's next acquire; what the shard sends lands in received. A turn may be taken
// in its steps (acquire, drain, think, finish, flush) to put another shard's turn in between. Received memory is lent
// as a backend would: refused now and then, and overwritten as soon as nobody has a claim to it any more.
#pragma once

#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/client_session.h"
#include "core/shard.h"

namespace peregrine::test {

class ImmediateWorkers final : public core::Workers {
 public:
  void run(std::function<void()> work) override { work(); }
};

// What a shard's clients have sent, for as long as anybody reads or borrows it.
class Received final : public core::Lender {
 public:
  explicit Received(size_t most_lent) : most_lent_(most_lent) {}
  uint32_t take(std::string_view bytes) {
    pieces_.push_back({std::make_unique<char[]>(bytes.size()), bytes.size(), 1});
    std::memcpy(pieces_.back().memory.get(), bytes.data(), bytes.size());
    return static_cast<uint32_t>(pieces_.size() - 1);
  }
  std::string_view at(uint32_t token) const { return {pieces_[token].memory.get(), pieces_[token].size}; }
  bool lend(uint32_t token) override {
    if (++asked_ % 5 == 0 || lent_bytes_ >= most_lent_) return false;
    ++pieces_[token].held;
    lent_bytes_ += pieces_[token].size;
    return true;
  }
  void take_back(uint32_t token) override {
    lent_bytes_ -= pieces_[token].size;
    release(token);
  }
  void release(uint32_t token) {
    Piece& piece = pieces_[token];
    if (piece.held == 0) std::abort();  // given back more often than lent
    if (--piece.held > 0) return;
    std::memset(piece.memory.get(), 0xdb, piece.size);
    piece.memory.reset();
  }
  size_t lent_bytes() const { return lent_bytes_; }

 private:
  struct Piece {
    std::unique_ptr<char[]> memory;
    size_t size;
    uint32_t held;
  };
  const size_t most_lent_;
  std::vector<Piece> pieces_;
  size_t lent_bytes_ = 0;
  uint64_t asked_ = 0;
};

struct Client {
  uint32_t shard = 0;
  core::Session* session = nullptr;  // null once the server has closed
  std::string pending;               // written by the client, not yet acquired
  std::string received;              // written by the server
  bool closed = false;
  bool reads = true;  // false: it takes nothing, its outbox fills

  void send(std::string_view text) { pending.append(text); }
  // Takes what has been received so far.
  std::string take() { return std::exchange(received, {}); }
};

class Machine {
 public:
  explicit Machine(uint32_t shards, config::Options options = {}, uint32_t ring_bytes = 64 * 1024)
      : server(std::move(options), {.id = "NTEST", .name = "test"}, {1, 2}, log, workers),
        rings_(shards, ring_bytes, ring_bytes) {
    for (uint32_t n = 0; n < shards; ++n) {
      shards_.push_back(std::make_unique<core::Shard>(server, n, shards, &rings_, 42 + n, now_ns, now_ns));
      shards_.back()->set_waker([] {});
      received_.push_back(std::make_unique<Received>(size_t{1} << 20));
      shards_.back()->pool().set_lender(received_.back().get());
      haulers_.push_back(std::make_unique<Hauler>(*this, n));
      shards_.back()->set_carrier(haulers_.back().get());
      server.shards.push_back(shards_.back().get());
    }
    acquired_.resize(shards);
  }

  // A connected client (INFO taken), quiet unless `connect` says otherwise.
  Client& connect(uint32_t shard, std::string_view connect =
                                      R"({"verbose":false,"pedantic":false,"headers":true,"no_responders":true})") {
    clients_.push_back(std::make_unique<Client>());
    Client& client = *clients_.back();
    client.shard = shard;
    core::Shard& on = *shards_[shard];
    on.begin_turn(now_ns, now_ns);
    client.session = on.open_client(static_cast<uint32_t>(clients_.size() - 1), "127.0.0.1", 1);
    if (!connect.empty()) client.send("CONNECT " + std::string(connect) + "\r\n");
    turn(shard);
    client.take();
    return client;
  }

  // A session of another kind, made by `make(shard, conn)`.
  template <class Make>
  Client& adopt(uint32_t shard, Make&& make) {
    clients_.push_back(std::make_unique<Client>());
    Client& client = *clients_.back();
    client.shard = shard;
    core::Shard& on = *shards_[shard];
    on.begin_turn(now_ns, now_ns);
    client.session = on.adopt(make(on, static_cast<uint32_t>(clients_.size() - 1)));
    return client;
  }

  void turn(uint32_t shard) {
    acquire(shard);
    drain(shard);
    think(shard);
    finish(shard);
    flush(shard);
  }
  // Turns of all shards until nothing moves any more.
  void settle() {
    for (int quiet = 0, turns = 0; quiet < 3 && turns < 100'000; ++turns) {
      const std::string before = fingerprint();
      for (uint32_t n = 0; n < shards_.size(); ++n) turn(n);
      quiet = fingerprint() == before ? quiet + 1 : 0;
    }
  }

  void acquire(uint32_t shard) {
    shards_[shard]->begin_turn(now_ns, now_ns);
    for (auto& client : clients_) {
      if (client->shard != shard || client->pending.empty() || client->session == nullptr || client->session->held())
        continue;
      acquired_[shard].push_back({client.get(), std::exchange(client->pending, {})});
    }
  }
  void drain(uint32_t shard) { shards_[shard]->drain_rings(); }
  void think(uint32_t shard) {
    for (auto& [client, bytes] : acquired_[shard]) {
      if (client->session == nullptr) continue;
      const uint32_t token = received_[shard]->take(bytes);
      core::BufferPool& pool = shards_[shard]->pool();
      pool.begin_reading(received_[shard]->at(token), token);
      client->session->feed(received_[shard]->at(token));
      pool.end_reading();
      received_[shard]->release(token);
    }
    acquired_[shard].clear();
  }
  void finish(uint32_t shard) { shards_[shard]->end_turn(); }
  void flush(uint32_t shard) {
    core::Shard& on = *shards_[shard];
    if (on.output_stuck() && on.rules.hold_stuck_output) return;
    std::vector<core::Session*> dirty;
    dirty.swap(on.dirty());
    for (core::Session* session : dirty) {
      session->dirty = false;
      Client& client = *clients_[session->conn];
      if (session->gone()) continue;
      session->reading = !session->held() && !session->closing();
      if (session->held_by(core::kHoldRing) && !session->abort()) continue;
      if (client.reads) take_output(*session, client);
      if (session->closing() && (session->abort() || session->outbox.empty())) {
        client.closed = true;
        client.session = nullptr;
        on.closed(*session, core::CloseReason::kClientClosed);
      }
    }
  }

  void hang_up(Client& client) {
    core::Session* session = std::exchange(client.session, nullptr);
    if (session != nullptr) shards_[client.shard]->closed(*session, core::CloseReason::kClientClosed);
  }

  void pass(int64_t ns) { now_ns += ns; }
  core::Shard& shard(uint32_t n) { return *shards_[n]; }
  // As with a backend whose memory is all in use: what crosses is copied into the rings, and they overflow.
  void lend_nothing() {
    for (auto& shard : shards_) shard->pool().set_lender(nullptr);
  }
  size_t lent_bytes(uint32_t shard) const { return received_[shard]->lent_bytes(); }
  void set_rules(const std::function<void(core::CrossingRules&)>& change) {
    for (auto& shard : shards_) change(shard->rules);
  }

  bool moves = false;  // publishers may change shards
  int64_t on_core_percent = 100;

  core::NullLog log;
  ImmediateWorkers workers;
  int64_t now_ns = 1'000'000'000'000;
  core::Server server;

 private:
  static void take_output(core::Session& session, Client& client) {
    while (!session.outbox.empty()) {
      iovec iov[8];
      const size_t n = session.outbox.gather(iov, 8, 1 << 20);
      size_t bytes = 0;
      for (size_t i = 0; i < n; ++i) {
        client.received.append(static_cast<const char*>(iov[i].iov_base), iov[i].iov_len);
        bytes += iov[i].iov_len;
      }
      session.outbox.consume(bytes);
    }
  }
  std::string fingerprint() const {
    std::string text;
    for (const auto& client : clients_) {
      text += std::to_string(client->received.size()) + "," + std::to_string(client->pending.size()) + ";";
    }
    for (const auto& shard : shards_) {
      const core::ShardSnapshot s = shard->snapshot();
      text += std::to_string(s.rings.records_in) + "," + std::to_string(s.rings.overflow_pending) + ";";
    }
    return text;
  }

  // A client's connection between two shards.
  struct Hauled final : core::CarriedConnection {
    Hauled(Client& client, uint32_t conn) : client(client), conn(conn) {}
    Client& client;
    const uint32_t conn;
  };
  class Hauler final : public core::Carrier {
   public:
    Hauler(Machine& machine, uint32_t shard) : machine_(machine), shard_(shard) {}
    bool can_carry() const override { return machine_.moves; }
    int64_t core_time_ns() const override { return machine_.now_ns * machine_.on_core_percent / 100; }
    std::unique_ptr<core::CarriedConnection> give(core::Session& session) override {
      Client& client = *machine_.clients_[session.conn];
      for (const auto& [other, bytes] : machine_.acquired_[shard_]) {
        if (other == &client) return nullptr;
      }
      client.session = nullptr;
      return std::make_unique<Hauled>(client, session.conn);
    }
    uint32_t take(std::unique_ptr<core::CarriedConnection> connection) override {
      auto& hauled = static_cast<Hauled&>(*connection);
      hauled.client.shard = shard_;
      return hauled.conn;
    }
    void bind(core::Session& session) override { machine_.clients_[session.conn]->session = &session; }

   private:
    Machine& machine_;
    const uint32_t shard_;
  };

  core::RingMatrix rings_;
  std::vector<std::unique_ptr<Received>> received_;
  std::vector<std::unique_ptr<Hauler>> haulers_;
  std::vector<std::unique_ptr<core::Shard>> shards_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<std::vector<std::pair<Client*, std::string>>> acquired_;
};

}  // namespace peregrine::test
