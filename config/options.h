// Options: every knob of a server, as one value.
//
// Who owns it: the config loader (config/load.h, config/flags.h) builds it once at start from defaults <- file <-
// command line; from then on it is immutable and may be read by every thread without a lock. A reload builds a second
// one and compares (==) the two.
//
// Names are NATS's own configuration keys. The comment behind a field says: alias keys, unit, default where it is not
// visible, and why that default. "Zero means" is spelled out wherever zero does not mean zero. Durations carry their
// unit in the type; sizes are bytes. std::optional marks the places where "not configured" and "configured empty"
// behave differently.
//
// Plain aggregates with value semantics; no function here can fail, no field is derived from another one
// (config/limits.h derives).
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace peregrine::config {

using Duration = std::chrono::nanoseconds;  // Go's time.Duration: 64 bits of nanoseconds, about 292 years each way

inline constexpr int kDefaultPort = 4222;
inline constexpr int kDefaultMonitorPort = 8222;  // a convention: monitoring is off until it is asked for
inline constexpr int kDefaultLeafPort = 7422;     // default for remote leafnode URLs without a port
inline constexpr int kRandomPort = -1;            // the kernel picks; the ports file and the log say which
inline constexpr const char* kDefaultHost = "0.0.0.0";

// What to do with a connection whose socket took nothing for write_deadline.
enum class WriteTimeout {
  kDefault,  // by kind: a client is closed, a route, gateway or leafnode retries
  kClose,
  kRetry,
};

// ---------------------------------------------------------------------------------------------------- shared blocks

// scheme://[user[:password]@]host[:port] of a route, gateway or leafnode. `port` is 0 when the text has none.
struct Url {
  std::string scheme;
  std::string user;
  std::string password;
  std::string host;  // IPv6 without brackets
  int port = 0;
  std::string path;  // with its leading slash; WebSocket leafnodes and account resolvers only
  bool operator==(const Url&) const = default;
};

// host:port of one listener. Port 0 = no such listener, -1 = random.
struct Listen {
  std::string host;  // empty = the default host of that listener
  int port = 0;
  bool operator==(const Listen&) const = default;
};

// tls{}
struct TlsCertificate {
  std::string cert_file;
  std::string key_file;
  bool operator==(const TlsCertificate&) const = default;
};

struct Tls {
  std::string cert_file;        // PEM
  std::string key_file;         // PEM
  std::string ca_file;          // PEM
  bool verify = false;          // a client certificate is required and checked
  bool verify_and_map = false;  // and names the user; implies verify
  // routes and gateways: certificate SANs must be among the configured URLs
  bool verify_cert_and_check_known_urls = false;
  bool insecure = false;                       // solicited connections only: do not check the other side's certificate
  std::vector<std::string> cipher_suites;      // empty = library default
  std::vector<std::string> curve_preferences;  // empty = library default
  bool allow_insecure_cipher_suites = false;
  std::string min_version;                 // "1.2" | "1.3"; empty = 1.2
  std::optional<Duration> timeout;         // handshake; default 2 s
  bool handshake_first = false;            // (first, immediate) TLS before INFO
  Duration handshake_first_fallback{};     // 0 = wait for ever; "auto" = 50 ms, then INFO is sent in clear
  std::vector<std::string> pinned_certs;   // lower-case hex SHA-256 of SubjectPublicKeyInfo
  std::int64_t connection_rate_limit = 0;  // handshakes per second; 0 = unlimited
  std::vector<TlsCertificate> certs;       // (certificates) instead of cert_file/key_file
  bool operator==(const Tls&) const = default;
};

// Subjects of one direction. An absent `allow` permits everything, an empty one nothing (publish side); `deny` wins
// over `allow`.
struct SubjectPermission {
  std::optional<std::vector<std::string>> allow;
  std::vector<std::string> deny;
  bool operator==(const SubjectPermission&) const = default;
};

// allow_responses: a subscriber may publish to the reply subject of a message it received. true in a file means the
// defaults below.
struct ResponsePermission {
  std::int64_t max = 1;                        // (max_msgs) messages per reply subject; -1 = unlimited
  Duration expires = std::chrono::minutes(2);  // (expiration, ttl) after the request; negative = never
  bool operator==(const ResponsePermission&) const = default;
};

// permissions{} of a user. An absent direction permits everything, except that allow_responses without publish permits
// replies only.
struct Permissions {
  std::optional<SubjectPermission> publish;    // (pub, import)
  std::optional<SubjectPermission> subscribe;  // (sub, export); entries may be "subject queue"
  std::optional<ResponsePermission> allow_responses;
  bool operator==(const Permissions&) const = default;
};

// One entry of users[]: either user/password or nkey.
struct User {
  std::string user;      // (username)
  std::string password;  // (pass) plain, or bcrypt when it begins with $2a$ (or $2b$, $2x$, $2y$)
  std::string nkey;      // public user key U...
  std::string account;  // the accounts{} entry it stands in; empty = the global account $G. leafnodes: local account of
                        // the remote
  std::optional<Permissions> permissions;  // (permission, authorization) absent = default_permissions, else everything
  // (connection_types, clients) upper case: STANDARD WEBSOCKET LEAFNODE LEAFNODE_WS MQTT MQTT_WS IN_PROCESS; empty =
  // all
  std::vector<std::string> allowed_connection_types;
  bool proxy_required = false;
  bool operator==(const User&) const = default;
};

// auth_callout{} (auth_hook): authentication delegated to a service on the bus.
struct AuthCallout {
  std::string issuer;                         // public account nkey
  std::string account;                        // default: global account
  std::vector<std::string> auth_users;        // (users) users that bypass the callout
  std::string xkey;                           // (key) public curve key: encrypts requests
  std::vector<std::string> allowed_accounts;  // empty = all
  bool operator==(const AuthCallout&) const = default;
};

// authorization{}. user/password, token and users exclude each other.
struct Authorization {
  bool defined = false;             // the block is present, even if empty
  std::string user;                 // (username)
  std::string password;             // (pass) plain or bcrypt
  std::string token;                // plain or bcrypt
  std::optional<Duration> timeout;  // for CONNECT to arrive and be accepted; default 2 s, with TLS its timeout + 1 s
  std::vector<User> users;
  std::optional<Permissions> default_permissions;  // (permissions) for users without their own
  std::optional<AuthCallout> auth_callout;
  bool proxy_required = false;
  std::string nkey;     // leafnodes only
  std::string account;  // leafnodes only
  bool operator==(const Authorization&) const = default;
};

// One mapping: messages for `source` go to one of the destinations, by weight.
struct MappingDestination {
  std::string destination;  // (dest) may use {{wildcard(1)}}, $1, {{partition(...)}}, ...
  int weight = 100;         // percent
  std::string cluster;      // only in this cluster; empty = everywhere
  bool operator==(const MappingDestination&) const = default;
};

struct Mapping {
  std::string source;
  std::vector<MappingDestination> destinations;
  bool operator==(const Mapping&) const = default;
};

// compression of routes and leafnodes.
struct Compression {
  std::string mode;                      // off accept s2_fast s2_better s2_best s2_auto; empty = the block's default
  std::vector<Duration> rtt_thresholds;  // s2_auto: where the level changes; empty = 10 ms, 50 ms, 100 ms
  bool operator==(const Compression&) const = default;
};

// ---------------------------------------------------------------------------------------------------- accounts

struct LatencyExport {
  int sampling = 100;  // percent; 0 = by header
  std::string subject;
  bool operator==(const LatencyExport&) const = default;
};

struct AccountExport {
  std::string subject;
  bool service = false;               // false = stream
  std::vector<std::string> accounts;  // who may import; empty = everybody
  std::string response_type;          // (response) singleton | stream | chunked; empty = singleton
  Duration response_threshold{};      // (threshold, ...) 0 = 2 minutes
  std::optional<LatencyExport> latency;
  int account_token_position = 0;  // 0 = none
  bool allow_trace = false;
  bool operator==(const AccountExport&) const = default;
};

struct AccountImport {
  std::string account;
  std::string subject;
  bool service = false;
  std::string prefix;  // streams, old
  std::string to;
  bool share = false;        // services: show the requester's info
  bool allow_trace = false;  // streams
  bool operator==(const AccountImport&) const = default;
};

// jetstream: of an account. -1 = unlimited.
struct AccountJetStream {
  std::int64_t max_memory = -1;  // bytes
  std::int64_t max_store = -1;   // bytes
  std::int64_t max_streams = -1;
  std::int64_t max_consumers = -1;
  bool max_bytes_required = false;
  std::int64_t memory_max_stream_bytes = -1;  // bytes
  std::int64_t disk_max_stream_bytes = -1;    // bytes
  std::int64_t max_ack_pending = -1;
  std::string cluster_traffic;  // system | owner
  bool operator==(const AccountJetStream&) const = default;
};

// limits{} of an account: absent = unlimited.
struct AccountLimits {
  std::optional<std::int64_t> max_connections;    // (max_conn)
  std::optional<std::int64_t> max_subscriptions;  // (max_subs) per connection
  std::optional<std::int64_t> max_payload;        // (max_pay) bytes
  std::optional<std::int64_t> max_leafnodes;      // (max_leafs)
  bool operator==(const AccountLimits&) const = default;
};

struct MsgTrace {
  std::string dest;
  int sampling = 100;  // percent
  bool operator==(const MsgTrace&) const = default;
};

struct Account {
  std::string name;
  std::string nkey;
  std::vector<User> users;
  std::vector<AccountImport> imports;
  std::vector<AccountExport> exports;
  std::vector<Mapping> mappings;
  std::optional<Permissions> default_permissions;
  AccountLimits limits;
  std::optional<MsgTrace> msg_trace;  // (trace_dest)
  std::optional<AccountJetStream> jetstream;
  bool operator==(const Account&) const = default;
};

// resolver: MEMORY | URL(...) | {type: full|cache, dir, ...}
struct Resolver {
  std::string type;  // "", "memory", "url", "full", "cache"
  std::string url;
  std::string dir;
  bool allow_delete = false;
  bool hard_delete = false;
  std::int64_t limit = 0;
  Duration ttl{};
  Duration interval{};
  Duration timeout{};
  bool operator==(const Resolver&) const = default;
};

// ---------------------------------------------------------------------------------------------------- peers

// cluster{}
struct Cluster {
  std::string name;  // empty = random ("dynamic"), taken over from the first route that has a name
  std::string host;  // (net) default 0.0.0.0
  int port = 0;      // 0 = no cluster listener
  std::vector<Url> routes;
  Authorization authorization;             // user, password, timeout only
  std::optional<Permissions> permissions;  // import = publish, export = subscribe
  std::optional<Tls> tls;                  // both directions; verify is forced
  std::string advertise;                   // (cluster_advertise) host[:port] told to other servers
  bool no_advertise = false;               // do not tell clients about the other members
  int connect_retries = 0;                 // of implicit routes
  bool connect_backoff = false;            // 1 s doubling to 30 s instead of 1 s each
  int pool_size = 0;                       // connections per peer; 0 = 3, -1 = one, unpooled
  std::vector<std::string> accounts;       // accounts with a route of their own; the system account always is
  Compression compression;                 // default accept
  Duration ping_interval{};                // 0 = global, capped at 30 s
  int ping_max = 0;                        // 0 = global
  Duration write_deadline{};               // 0 = global
  WriteTimeout write_timeout = WriteTimeout::kDefault;  // routes: retry
  bool defined = false;                                 // the block or a -cluster flag is present
  bool operator==(const Cluster&) const = default;
};

struct RemoteGateway {
  std::string name;
  std::vector<Url> urls;  // (url)
  std::optional<Tls> tls;
  bool operator==(const RemoteGateway&) const = default;
};

// gateway{}
struct Gateway {
  std::string name;
  std::string host;  // (net) default 0.0.0.0
  int port = 0;
  std::vector<RemoteGateway> gateways;
  Authorization authorization;  // user, password, timeout only
  std::optional<Tls> tls;
  std::string advertise;
  int connect_retries = 0;
  bool connect_backoff = false;
  bool reject_unknown_cluster = false;  // (reject_unknown)
  Duration write_deadline{};            // 0 = global
  WriteTimeout write_timeout = WriteTimeout::kDefault;
  bool defined = false;
  bool operator==(const Gateway&) const = default;
};

struct HttpProxy {
  std::string url;
  std::string username;
  std::string password;
  Duration timeout{};
  bool operator==(const HttpProxy&) const = default;
};

struct RemoteLeaf {
  std::vector<Url> urls;    // (url)
  std::string account;      // (local) local account; empty = $G
  std::string credentials;  // (creds) file
  std::string nkey;         // (seed)
  std::optional<Tls> tls;
  bool hub = false;                       // this side acts as the hub
  std::vector<std::string> deny_imports;  // (deny_import)
  std::vector<std::string> deny_exports;  // (deny_export)
  bool no_randomize = false;              // (dont_randomize)
  Compression compression;                // default s2_auto
  Duration first_info_timeout{};          // 0 = 1 s
  Duration dial_timeout{};                // 0 = leafnodes.dial_timeout
  bool ws_compression = false;            // (ws_compress, websocket_compress, websocket_compression)
  bool ws_no_masking = false;             // (websocket_no_masking)
  bool disabled = false;
  bool ignore_discovered_servers = false;
  bool isolate_leafnode_interest = false;  // (isolate, local_isolation)
  bool request_isolation = false;
  std::optional<HttpProxy> proxy;
  bool jetstream_cluster_migrate = false;  // (js_cluster_migrate)
  Duration jetstream_cluster_migrate_delay{};
  bool operator==(const RemoteLeaf&) const = default;
};

// leafnodes{} (leaf)
struct LeafNodes {
  std::string host;             // (net) default 0.0.0.0
  int port = 0;                 // 0 = no leafnode listener
  Authorization authorization;  // + nkey, account; users[].account
  std::string advertise;        // (leafnode_advertise)
  bool no_advertise = false;
  std::optional<Tls> tls;
  Compression compression;                 // default s2_auto
  std::string min_version;                 // (minimum_version) "2.8.0" or later
  Duration reconnect{};                    // (reconnect_delay, reconnect_interval) 0 = 1 s
  Duration dial_timeout{};                 // 0 = 1 s
  bool isolate_leafnode_interest = false;  // (isolate)
  Duration write_deadline{};               // 0 = global
  WriteTimeout write_timeout = WriteTimeout::kDefault;
  std::vector<RemoteLeaf> remotes;
  bool defined = false;
  bool operator==(const LeafNodes&) const = default;
};

// websocket{} (ws)
struct Websocket {
  std::string host;  // (net) default 0.0.0.0
  int port = 0;      // 0 = no WebSocket listener
  std::string advertise;
  std::optional<Tls> tls;
  bool no_tls = false;  // needed to run without tls{}
  bool same_origin = false;
  std::vector<std::string> allowed_origins;  // (allowed_origin, origins, ...) empty = any
  Duration handshake_timeout{};              // 0 = none
  bool compression = false;                  // (compress)
  Authorization authorization;               // user, password, token, timeout only
  std::string no_auth_user;
  std::string jwt_cookie;
  std::string user_cookie;
  std::string pass_cookie;
  std::string token_cookie;
  std::map<std::string, std::string> headers;  // added to the upgrade response
  Duration ping_interval{};                    // 0 = global
  bool defined = false;
  bool operator==(const Websocket&) const = default;
};

// ---------------------------------------------------------------------------------------------------- ours

enum class Backend {
  kAuto,
  kDpdk,
  kUring,
  kEpoll
};  // auto: dpdk if configured, else uring if the kernel lets us, else epoll
enum class Idle {
  kAdaptive,  // spin for spin_us after work, then park in the kernel: an idle server costs nothing
  kSpin,      // never park: lowest latency, a core at 100 %
  kPark,      // park at once
};

// The rest of the file's dimensions that nats-server does not have.
struct Native {
  int shards = 0;  // number of shards; 0 = auto: one per CPU this process may use (affinity mask and cgroup quota)
  std::vector<int> cores;  // CPUs to pin shard 0, 1, ... to; empty = the allowed CPUs in order
  Backend backend = Backend::kAuto;
  Idle idle = Idle::kAdaptive;
  std::int64_t spin_us = 50;  // adaptive: microseconds of empty turns before a shard parks
  // Bytes of each delivery ring between two shards; a power of two. There are shards*(shards-1) of them.
  std::int64_t ring_bytes = 1 << 20;
  // A payload up to this many bytes is copied into the ring or outbox; above it is shared by reference with a count.
  std::int64_t inline_payload_bytes = 2048;
  // Subscriptions of one account that one connection of another server may ask for; one more and it is cut off.
  std::int64_t max_peer_subscriptions = 1 << 24;
  bool operator==(const Native&) const = default;
};

// ---------------------------------------------------------------------------------------------------- dpdk

enum class DpdkIdle {
  kAdaptive,   // sleeps that grow while nothing comes: next to no CPU, the first frame after a pause waits a little
  kSpin,       // never sleeps: lowest latency, every shard's core at 100 %
  kInterrupt,  // sleeps until the device interrupts; refused if the device cannot
};
enum class DpdkSpread {
  kAuto,      // by the device if it can be trusted to keep a connection on its queue, else by software
  kHardware,  // the queue a frame arrives on is its shard
  kSoftware,  // our own hash over the addresses; frames cross to their shard by a ring
};
enum class DpdkIova { kAuto, kVa, kPa };
enum class DpdkCongestion { kCubic, kNewReno };

// One network port taken from the kernel, and the addresses it answers on.
struct DpdkPort {
  std::string device;  // PCI address, or a virtual device with its arguments: "net_af_packet0,iface=eth1"
  int queues = 0;      // receive (and transmit) queues; 0 = one per shard, or as many as the device has
  int rx_descriptors = 1024;
  int tx_descriptors = 1024;
  std::vector<std::string> addresses;  // "10.0.0.2/24", "fd00::2/64"; at least one
  std::string gateway;                 // IPv4, inside the subnet of an address
  std::string gateway6;
  int mtu = 1500;
  int vlan = 0;  // frames carry this tag; 0 = untagged
  // Of checksum, tso, multi_segment, vlan: what may be left to the device if it offers it. Software does the rest.
  std::vector<std::string> offloads = {"checksum", "tso", "multi_segment", "vlan"};
  DpdkSpread spread = DpdkSpread::kAuto;
  bool promiscuous = false;
  bool operator==(const DpdkPort&) const = default;
};

struct Dpdk {
  std::vector<DpdkPort> ports;
  std::vector<int> lcores;  // CPUs of shard 0, 1, ...; empty = `cores`, or the allowed CPUs in order
  std::int64_t memory = std::int64_t{512} << 20;  // bytes taken at start for frames and send buffers, in MiB steps
  bool huge_pages = true;
  std::string huge_dir;  // mount point of hugetlbfs; empty = the first one found
  DpdkIova iova = DpdkIova::kAuto;
  std::string file_prefix;  // of the files other DPDK tools look for; empty = peregrine-<pid>
  bool telemetry = true;    // answers dpdk-telemetry.py
  DpdkCongestion congestion = DpdkCongestion::kCubic;
  // What was sent may go unacknowledged for so long (RFC 5482); 0 = fifteen timeouts, or as the peer wishes
  Duration user_timeout = Duration::zero();
  DpdkIdle idle = DpdkIdle::kAdaptive;
  std::string log_level = "warning";    // of DPDK's own messages in our log
  std::vector<std::string> extra_args;  // for the EAL, behind ours
  bool defined = false;
  bool operator==(const Dpdk&) const = default;
};

// ---------------------------------------------------------------------------------------------------- top level

struct Options {
  // --- clients
  std::string host = kDefaultHost;       // (net; listen sets host and port)
  int port = kDefaultPort;               // -1 = random
  std::string client_advertise;          // host[:port] in connect_urls instead of our own addresses
  std::string server_name;               // no spaces; empty = the server id
  std::vector<std::string> server_tags;  // lower case, no doubles
  std::map<std::string, std::string> server_metadata;

  // --- limits
  std::int64_t max_control_line = 4096;  // bytes of a protocol line; 0 = default. Peers get 16 times that
  std::int64_t max_payload = 1 << 20;    // bytes of headers + message, <= max_pending, fits 31 bits; 0 = default
  std::int64_t max_pending = 64 << 20;   // bytes waiting for one client before it is a slow consumer; 0 = default
  std::int64_t max_connections = 65536;  // (max_conn) -1 = refuse everybody, which is also what a file's 0 becomes
  std::int64_t max_subscriptions = 0;    // (max_subs) per connection; 0 = unlimited
  int max_subscription_tokens = 0;       // (max_sub_tokens) 0 = unlimited, else <= 255
  Duration ping_interval = std::chrono::minutes(2);    // an integer in a file means seconds
  int ping_max = 2;                                    // unanswered pings before a connection is stale
  Duration write_deadline = std::chrono::seconds(10);  // an integer in a file means seconds
  WriteTimeout write_timeout = WriteTimeout::kDefault;
  bool no_fast_producer_stall = false;                         // do not hold producers of a slow consumer back
  std::int64_t max_closed_clients = 10000;                     // closed connections remembered for /connz
  std::int64_t max_traced_msg_len = 0;                         // bytes shown of a traced message; 0 = all
  Duration lame_duck_duration = std::chrono::minutes(2);       // over which clients are closed; >= 30 s in a file
  Duration lame_duck_grace_period = std::chrono::seconds(10);  // before the first is closed; < lame_duck_duration
  bool no_header_support = false;                              // INFO headers:false, HPUB refused
  bool disable_sublist_cache = false;                          // (no_sublist_cache) match results are not cached
  std::int64_t connect_error_reports = 3600;                   // log every n-th failed first dial of a peer
  std::int64_t reconnect_error_reports = 1;                    // log every n-th failed redial

  // --- log
  bool debug = false;
  bool trace = false;
  bool trace_verbose = false;  // and the system account; implies trace
  bool trace_headers = false;  // headers only; implies trace
  bool logtime = true;         // a time in front of every line
  bool logtime_utc = false;
  std::string log_file;                 // (logfile) empty = stderr
  std::int64_t logfile_size_limit = 0;  // (log_size_limit) bytes, then rotate; 0 = never
  std::int64_t logfile_max_num = 0;     // (log_max_num) files kept, current one included; 0 = all
  bool syslog = false;
  std::string remote_syslog;   // udp://host:port, tcp://..., unix path; empty = local
  std::string pid_file;        // (pidfile)
  std::string ports_file_dir;  // <exe>_<pid>.ports is written there

  // --- monitoring
  std::string http_host;       // from http/https host:port; empty = `host`
  int http_port = 0;           // (monitor_port; http sets it) 0 = off, -1 = random
  int https_port = 0;          // (https sets it)
  std::string http_base_path;  // empty = "/"
  int prof_port = 0;           // Go profiling; refused
  int prof_block_rate = 0;

  // --- security
  std::optional<Tls> tls;
  bool allow_non_tls = false;  // with tls{}: clients may stay in clear
  Authorization authorization;
  std::string no_auth_user;  // a user of users[] that connections without credentials become
  std::vector<Account> accounts;
  std::vector<Mapping> mappings;          // (maps) of the global account
  std::string system_account;             // (system) empty = $SYS
  bool no_system_account = false;         // (no_system, no_sys_acc)
  std::vector<std::string> operators;     // (operator, root, roots, root_operator, root_operators) JWT or file
  std::vector<std::string> trusted_keys;  // (trusted) public operator keys
  Resolver resolver;                      // (account_resolver, accounts_resolver)
  std::optional<Tls> resolver_tls;
  std::map<std::string, std::string> resolver_preload;  // account key -> JWT
  std::vector<std::string> resolver_pinned_accounts;
  std::string default_sentinel;
  bool proxy_protocol = false;
  std::vector<std::string> trusted_proxies;  // proxies{trusted[{key}]}
  std::string ocsp_mode;                     // ocsp: "" (not configured) auto always must never
  std::vector<std::string> ocsp_urls;
  std::string ocsp_cache_type;  // ocsp_cache: "" (not configured) none local
  std::map<std::string, bool> feature_flags;

  // --- other listeners and peers
  Cluster cluster;
  Gateway gateway;
  LeafNodes leafnodes;
  Websocket websocket;

  // --- JetStream: only what launchers pass; the rest of jetstream{} and mqtt{} is checked when they are built
  bool jetstream = false;
  std::string store_dir;                                 // (storedir) accepted without JetStream
  std::map<std::string, std::string> default_js_domain;  // account -> domain
  bool mqtt = false;                                     // an mqtt{} block is present

  // --- ours
  Native native;
  Dpdk dpdk;

  // --- where it came from
  std::string config_file;    // empty = none
  std::string config_digest;  // "sha256:<hex>" over the parsed file; empty without one
  bool operator==(const Options&) const = default;
};

}  // namespace peregrine::config
