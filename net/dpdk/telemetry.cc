#include "net/dpdk/telemetry.h"

#include <rte_telemetry.h>

#include <cctype>
#include <mutex>

#include <nlohmann/json.hpp>

#include "net/dpdk/ports.h"

namespace peregrine::net::dpdk {
namespace {

using Json = nlohmann::ordered_json;

struct Registered {
  std::mutex mutex;
  std::weak_ptr<Ports> ports;
};

// Lives for ever: DPDK's telemetry thread ends with the process.
Registered& registered() {
  static auto* const all = new Registered;
  return *all;
}

// DPDK's dictionaries know texts, numbers and containers, nothing deeper than that.
void add(rte_tel_data* to, const std::string& name, const Json& value) {
  if (value.is_string()) {
    rte_tel_data_add_dict_string(to, name.c_str(), value.get<std::string>().c_str());
  } else if (value.is_number()) {
    rte_tel_data_add_dict_u64(to, name.c_str(), value.get<uint64_t>());
  } else if (value.is_boolean()) {
    rte_tel_data_add_dict_int(to, name.c_str(), value.get<bool>() ? 1 : 0);
  } else if (value.is_array()) {
    rte_tel_data* const list = rte_tel_data_alloc();
    if (list == nullptr) return;
    rte_tel_data_start_array(list, RTE_TEL_STRING_VAL);
    for (const Json& item : value) {
      if (item.is_string()) rte_tel_data_add_array_string(list, item.get<std::string>().c_str());
    }
    rte_tel_data_add_dict_container(to, name.c_str(), list, 0);
  }
}

void flatten(rte_tel_data* to, const Json& from) {
  for (const auto& [name, value] : from.items()) {
    if (value.is_object()) flatten(to, value);
    else add(to, name, value);
  }
}

// "/peregrine/shards,2": entry 2 of the list; without a number, how many there are.
int answer(const char* list, const char* parameters, rte_tel_data* out) {
  std::shared_ptr<Ports> ports;
  {
    std::lock_guard lock(registered().mutex);
    ports = registered().ports.lock();
  }
  if (ports == nullptr) return -1;
  const Json all = Json::parse(ports->describe(), nullptr, false);
  if (all.is_discarded()) return -1;
  const Json& rows = all[list];
  rte_tel_data_start_dict(out);
  if (parameters == nullptr || std::isdigit(static_cast<unsigned char>(parameters[0])) == 0) {
    rte_tel_data_add_dict_u64(out, list, rows.size());
    return 0;
  }
  const unsigned long n = std::strtoul(parameters, nullptr, 10);
  if (n >= rows.size()) return -1;
  flatten(out, rows[n]);
  return 0;
}

int on_ports(const char*, const char* parameters, rte_tel_data* out) { return answer("ports", parameters, out); }
int on_shards(const char*, const char* parameters, rte_tel_data* out) { return answer("shards", parameters, out); }

}  // namespace

void register_telemetry(const std::shared_ptr<Ports>& ports) {
  {
    std::lock_guard lock(registered().mutex);
    registered().ports = ports;
  }
  rte_telemetry_register_cmd("/peregrine/ports", on_ports, "Network ports. Parameters: port number (none: how many)");
  rte_telemetry_register_cmd("/peregrine/shards", on_shards,
                             "Counters of a shard's queues and TCP. Parameters: shard number (none: how many)");
}

}  // namespace peregrine::net::dpdk
