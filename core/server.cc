#include "core/server.h"

#include <openssl/evp.h>

#include <array>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "config/limits.h"

namespace peregrine::core {

Server::Server(config::Options options_in, ServerIdentity identity_in, HashKey key, Log& log_in, Workers& workers_in)
    : options(std::move(options_in)),
      identity(std::move(identity_in)),
      hash_key(key),
      auth(options),
      log(log_in),
      workers(workers_in),
      origin_hash_(key.k0, key.k1, 0x6f726967696e) {
  info_.host = options.host;
  info_.port = options.port;
  info_.cluster = options.cluster.name;
  rebuild();
}

// The line is the same for all clients but for the fields in the middle; those two texts are kept ready.
void Server::rebuild() {
  nlohmann::ordered_json head;
  head["server_id"] = identity.id;
  head["server_name"] = identity.name;
  head["version"] = identity.version;
  head["proto"] = 1;
  head["go"] = identity.go;
  head["host"] = info_.host;
  head["port"] = info_.port;
  head["headers"] = !options.no_header_support;
  if (auth.announced()) head["auth_required"] = true;
  if (options.tls) {
    const bool optional = config::allows_plain_clients(options);
    if (!optional) head["tls_required"] = true;
    if (options.tls->verify) head["tls_verify"] = true;
    if (optional) head["tls_available"] = true;
  }
  head["max_payload"] = options.max_payload;
  info_head_ = "INFO " + head.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  info_head_.pop_back();
  info_tail_.clear();
  if (!info_.cluster.empty())
    info_tail_ +=
        ",\"cluster\":" + nlohmann::json(info_.cluster).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (info_.cluster_dynamic) info_tail_ += ",\"cluster_dynamic\":true";
  if (!info_.connect_urls.empty()) info_tail_ += ",\"connect_urls\":" + nlohmann::json(info_.connect_urls).dump();
  if (info_.lame_duck) info_tail_ += ",\"ldm\":true";
}

std::string Server::info_line(uint64_t cid, std::string_view client_ip, std::string_view account) const {
  std::lock_guard lock(info_mutex_);
  std::string line;
  line.reserve(info_head_.size() + info_tail_.size() + 160);
  line += info_head_;
  line += ",\"client_id\":";
  line += std::to_string(cid);
  line += ",\"client_ip\":\"";
  line += client_ip;
  line += '"';
  line += info_tail_;
  if (!account.empty()) {
    line += ",\"connect_info\":true,\"remote_account\":";
    line += nlohmann::json(account).dump();
  }
  line += "} \r\n";
  return line;
}

void Server::change_info(const std::function<void(ServerInfo&)>& change) {
  std::lock_guard lock(info_mutex_);
  change(info_);
  lame_duck_.store(info_.lame_duck, std::memory_order_relaxed);
  rebuild();
  info_serial_.fetch_add(1, std::memory_order_release);
}

ServerInfo Server::info() const {
  std::lock_guard lock(info_mutex_);
  return info_;
}

bool Server::admit_client() {
  const int64_t before = clients_.fetch_add(1, std::memory_order_relaxed);
  return before < options.max_connections;  // 0 and below: nobody
}

namespace {

std::string base32(const unsigned char* data, size_t size) {
  static constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  std::string out;
  uint32_t bits = 0;
  int have = 0;
  for (size_t i = 0; i < size; ++i) {
    bits = (bits << 8) | data[i];
    have += 8;
    while (have >= 5) {
      out += kAlphabet[(bits >> (have - 5)) & 31];
      have -= 5;
    }
  }
  if (have > 0) out += kAlphabet[(bits << (5 - have)) & 31];
  return out;
}

// CRC-16/XMODEM, as nkeys uses it.
uint16_t crc16(const unsigned char* data, size_t size) {
  uint16_t crc = 0;
  for (size_t i = 0; i < size; ++i) {
    crc = static_cast<uint16_t>(crc ^ (data[i] << 8));
    for (int bit = 0; bit < 8; ++bit) crc = static_cast<uint16_t>((crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1);
  }
  return crc;
}

}  // namespace

std::optional<uint32_t> Server::account_number(std::string_view name) {
  std::lock_guard lock(accounts_mutex_);
  const std::string key(name);
  if (const auto at = account_numbers_.find(key); at != account_numbers_.end()) return at->second;
  if (account_names_.size() >= kMaxAccounts) return std::nullopt;
  const auto number = static_cast<uint32_t>(account_names_.size());
  account_names_.push_back(key);
  account_numbers_.emplace(key, number);
  return number;
}

std::string Server::account_name(uint32_t number) const {
  std::lock_guard lock(accounts_mutex_);
  return account_names_[number];
}

OriginId Server::name_origin(std::string_view cluster) {
  const OriginId origin = origin_id(cluster);
  std::lock_guard lock(accounts_mutex_);
  if (origin_names_.size() >= kMaxOrigins && !origin_names_.contains(origin)) return kNoOrigin;
  origin_names_.emplace(origin, cluster);
  return origin;
}

std::string Server::origin_name(OriginId origin) const {
  std::lock_guard lock(accounts_mutex_);
  const auto at = origin_names_.find(origin);
  return at == origin_names_.end() ? std::string() : at->second;
}

std::string make_server_id() {
  EVP_PKEY* key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  std::array<unsigned char, 35> raw{};
  raw[0] = 13 << 3;  // nkeys prefix byte of a server: 'N'
  size_t size = 32;
  const bool made = key != nullptr && EVP_PKEY_get_raw_public_key(key, raw.data() + 1, &size) == 1;
  EVP_PKEY_free(key);
  if (!made) throw std::runtime_error("cannot make a server key: OpenSSL has no Ed25519");
  const uint16_t crc = crc16(raw.data(), 33);
  raw[33] = static_cast<unsigned char>(crc & 0xff);
  raw[34] = static_cast<unsigned char>(crc >> 8);
  return base32(raw.data(), raw.size());
}

}  // namespace peregrine::core
