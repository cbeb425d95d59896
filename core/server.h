// What all shards of one server share: identity, options, and the few counters that are about the whole server.
//
// Made by main before the first shard, destroyed after the last one. Immutable except the atomics; those are touched
// when a connection opens or closes, never per message. Reads of info() happen on every shard; a change (lame duck, a
// port that the kernel picked) is a new immutable text swapped in by the control thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/options.h"
#include "core/auth.h"
#include "core/hash.h"
#include "core/interest.h"
#include "core/log.h"
#include "core/standstill.h"
#include "core/sublist.h"

namespace peregrine::core {

class Shard;

// Runs work that takes milliseconds (bcrypt) off the shards; implemented over a TBB arena in main.
class Workers {
 public:
  virtual ~Workers() = default;
  virtual void run(std::function<void()> work) = 0;
};

struct ServerIdentity {
  std::string id;  // public server nkey, "N..."
  std::string name;
  std::string version = PEREGRINE_NATS_LEVEL;  // the nats-server level whose core protocol we match
  std::string go = "peregrine-" PEREGRINE_VERSION;
};

// What clients are told in INFO; see parity.md section 1.2.
struct ServerInfo {
  std::string host;
  int port = 0;
  std::vector<std::string> connect_urls;
  std::string cluster;  // empty = none
  bool cluster_dynamic = false;
  bool lame_duck = false;
};

class Server {
 public:
  Server(config::Options options, ServerIdentity identity, HashKey hash_key, Log& log, Workers& workers);

  const config::Options options;
  const ServerIdentity identity;
  const HashKey hash_key;
  const Auth auth;
  Log& log;
  Workers& workers;

  // An INFO line for one client.
  std::string info_line(uint64_t cid, std::string_view client_ip, std::string_view account) const;
  // Changes it as one step; any thread.
  void change_info(const std::function<void(ServerInfo&)>& change);
  ServerInfo info() const;
  bool lame_duck() const { return lame_duck_.load(std::memory_order_relaxed); }
  // Changes with it.
  uint16_t info_serial() const { return info_serial_.load(std::memory_order_acquire); }

  uint64_t next_cid() { return next_cid_.fetch_add(1, std::memory_order_relaxed) + 1; }
  // Counts a client in, or refuses it (max_connections).
  bool admit_client();
  void client_gone() { clients_.fetch_sub(1, std::memory_order_relaxed); }
  int64_t clients() const { return clients_.load(std::memory_order_relaxed); }

  // The number of an account, given out when first asked for; nullopt when there are kMaxAccounts already. Numbers and
  // names never change. Rare: when a peer names an account it has not named before.
  static constexpr uint32_t kMaxAccounts = 100'000;
  std::optional<uint32_t> account_number(std::string_view name);
  std::string account_name(uint32_t number) const;

  // The same for the same name, on all shards; never kNoOrigin.
  OriginId origin_id(std::string_view cluster) const {
    const OriginId id = origin_hash_(cluster) >> 24;
    return id == kNoOrigin ? 1 : id;
  }

  // A leafnode cluster connects: its id, and its name for those who will be told of its interest. kNoOrigin when there
  // have been kMaxOrigins already.
  static constexpr size_t kMaxOrigins = 100'000;
  OriginId name_origin(std::string_view cluster);
  std::string origin_name(OriginId origin) const;

  Standstill standstill;       // of the sessions on their shards
  bool tells_origins = false;  // there are routes; set before any shard runs
  std::vector<Shard*> shards;  // filled before any shard runs

 private:
  void rebuild();

  const KeyedHash origin_hash_;

  mutable std::mutex info_mutex_;  // INFO is written at accept and on rare changes, never per message
  ServerInfo info_;
  std::string info_head_, info_tail_;
  std::atomic<uint64_t> next_cid_{4};  // nats-server's first client is 5 too: the first ids are its internal clients'
  std::atomic<int64_t> clients_{0};
  std::atomic<bool> lame_duck_{false};
  std::atomic<uint16_t> info_serial_{0};
  mutable std::mutex accounts_mutex_;
  std::vector<std::string> account_names_{"$G"};
  std::unordered_map<OriginId, std::string> origin_names_;
  std::unordered_map<std::string, uint32_t> account_numbers_{{"$G", 0}};
};

// A fresh public server nkey: 'N' + base32 of an Ed25519 public key with checksum, 56 characters.
std::string make_server_id();

}  // namespace peregrine::core
