// The table of configuration keys: what each is called, what it takes, its default, and whether this version can do
// what it asks.
//
// One row per key, next to each other, so that the table can be read as documentation and checked as data: the
// reference file's test walks it, the binder binds by it, and unsupported() refuses by it. A feature that gets built
// flips its row from later() to nothing.
//
// A row knows the type it binds into only inside its closure; Section and Key are plain data otherwise. Sections are
// made once, on first use, and live for ever. A Section may only be bound to the type it was written for (its
// function's comment says which).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "config/binder.h"
#include "config/options.h"
#include "config/value.h"

namespace peregrine::config {

struct Key {
  std::vector<std::string> names;  // NATS's own name, then its aliases
  std::string type;                // for people: "size", "duration", "list of URLs"
  std::string fallback;            // the default as a file would say it, empty if there is none
  std::string doc;
  std::function<void(Binder&, void* target, const Value&)> bind;
  const Section* section = nullptr;  // keys of the map, or of the maps in the array, or (named) of the maps in the map
  bool named = false;
  bool built = true;
  // Values of a key that is not built which ask for nothing, and so need no refusal. Null: false, "" and empty
  // collections.
  std::function<bool(const Value&)> harmless;
  // A single value of a built key that is not built; refused as `"key: value"`.
  std::string unbuilt_value;

  // Marks a row as known but not built in this version.
  Key later() &&;
  Key later(std::function<bool(const Value&)> harmless) &&;
};

struct Section {
  std::string name;
  std::vector<Key> keys;
  // By any of its names; `name` in lower case.
  const Key* find(std::string_view name) const;
};

const Section& options_section();               // Options
const Section& tls_section();                   // Tls
const Section& authorization_section();         // Authorization, of clients, routes and gateways
const Section& leaf_authorization_section();    // Authorization
const Section& simple_authorization_section();  // Authorization, of websocket and mqtt
const Section& permissions_section();           // Permissions
const Section& account_section();               // Account
const Section& cluster_section();               // Cluster
const Section& gateway_section();               // Gateway
const Section& leafnodes_section();             // LeafNodes
const Section& websocket_section();             // Websocket
const Section& mqtt_section();                  // nothing: names only
const Section& dpdk_section();                  // Dpdk
const Section& jetstream_section();             // Options (jetstream, store_dir)

// Every key of the tree that asks for something this version has not built, refused by name.
std::vector<Problem> unsupported(const Section& section, const Value& map);

// Whether the top-level option of that name is built: the command line refuses by the same table.
bool is_built(std::string_view option);

}  // namespace peregrine::config
