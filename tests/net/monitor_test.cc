#include "net/monitor.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <regex>
#include <thread>

namespace peregrine::net {
namespace {

using Json = nlohmann::ordered_json;
using core::ConnRow;
using core::LogLevel;

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kStart = 1'785'665'472'345'000'000;  // 2026-08-02T10:11:12.345Z

class LinesLog final : public core::Log {
 public:
  void write(LogLevel level, std::string_view text) override {
    std::lock_guard lock(mutex_);
    lines_.emplace_back(level, text);
  }
  bool has(LogLevel level, const std::string& text) const {
    std::lock_guard lock(mutex_);
    return std::find(lines_.begin(), lines_.end(), std::pair(level, text)) != lines_.end();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::pair<LogLevel, std::string>> lines_;
};

// A server that only exists as numbers. It applies the filters, as shards do, and remembers what it was asked.
class FakeSource final : public MonitorSource {
 public:
  FakeSource() {
    facts_.server_id = "NFAKE";
    facts_.server_name = "fake";
    facts_.version = "2.15.1";
    facts_.go = "c++";
    facts_.host = "127.0.0.1";
    facts_.port = 4222;
    facts_.options = std::make_shared<config::Options>();
    facts_.start_ns = kStart;
    facts_.config_load_ns = kStart;
    facts_.peregrine_version = "0.1.0";
    facts_.backend = "epoll";
    facts_.cores = 4;
    facts_.shards = 2;
  }

  ServerFacts facts() override { return facts_; }
  std::vector<core::ShardSnapshot> shards() override { return shards_; }
  Health health() override { return health_; }
  std::vector<core::RouteRow> routes(bool) override { return routes_; }
  std::vector<core::GatewayRow> gateways(const core::GatewayzQuery&) override { return gateways_; }

  core::ConnRows connections(const core::ConnzQuery& query) override {
    std::lock_guard lock(mutex_);
    connz_query_ = query;
    core::ConnRows found;
    found.account_known = query.account.empty() || query.account == "$G" || query.account == "APP";
    for (const ConnRow& row : rows_) {
      const bool closed = row.stop_ns != 0;
      if ((query.state == core::ConnState::kOpen && closed) || (query.state == core::ConnState::kClosed && !closed))
        continue;
      if (!query.account.empty() && row.account != query.account) continue;
      ++found.total;
      if (query.cid != 0 && row.cid != query.cid) continue;
      if (!query.user.empty() && row.authorized_user != query.user) continue;
      if (!query.mqtt_client.empty() && row.mqtt_client != query.mqtt_client) continue;
      found.rows.push_back(row);
      if (!query.subs) found.rows.back().subs.clear();
    }
    std::reverse(found.rows.begin(), found.rows.end());  // their order is the monitor's work
    return found;
  }

  core::SubRows subscriptions(const core::SubszQuery& query) override {
    std::lock_guard lock(mutex_);
    subsz_query_ = query;
    core::SubRows found;
    for (const core::SubRow& row : subs_) {
      if (!query.account.empty() && row.account != query.account) continue;
      if (!query.test.empty() && row.subject != query.test) continue;
      ++found.total;
      if (found.rows.size() < query.keep) found.rows.push_back(row);
    }
    return found;
  }

  ServerFacts facts_;
  std::vector<core::ShardSnapshot> shards_;
  std::vector<core::RouteRow> routes_;
  std::vector<core::GatewayRow> gateways_;
  std::vector<ConnRow> rows_;
  std::vector<core::SubRow> subs_;
  Health health_;
  std::mutex mutex_;
  core::ConnzQuery connz_query_;
  core::SubszQuery subsz_query_;
};

class MonitorTest : public testing::Test {
 protected:
  void SetUp() override { serve(""); }

  void serve(const std::string& base) {
    monitor_ = std::make_unique<Monitor>(source_, log_);
    ASSERT_EQ(monitor_->start("127.0.0.1", -1, base), "");
    client_ = std::make_unique<httplib::Client>("127.0.0.1", monitor_->port());
    client_->set_keep_alive(true);
    client_->set_decompress(false);
    client_->set_url_encode(false);  // the tests say what goes over the wire
  }

  httplib::Response get(const std::string& path) {
    auto result = client_->Get(path);
    if (!result) {
      ADD_FAILURE() << path << ": " << httplib::to_string(result.error());
      return {};
    }
    return *result;
  }

  Json json(const std::string& path) {
    const httplib::Response response = get(path);
    EXPECT_EQ(response.status, 200) << path << " " << response.body;
    EXPECT_EQ(response.get_header_value("Content-Type"), "application/json");
    EXPECT_EQ(response.get_header_value("Access-Control-Allow-Origin"), "*");
    EXPECT_FALSE(response.get_header_value("Date").empty());
    return Json::parse(response.body);
  }

  void expect_bad(const std::string& path, const std::string& text) {
    const httplib::Response response = get(path);
    EXPECT_EQ(response.status, 400) << path;
    EXPECT_EQ(response.body, text) << path;
    EXPECT_EQ(response.get_header_value("Content-Type"), "text/plain; charset=utf-8");
  }

  static std::vector<std::string> keys(const Json& object) {
    std::vector<std::string> names;
    for (const auto& [name, value] : object.items()) names.push_back(name);
    return names;
  }

  std::vector<uint64_t> cids(const std::string& path) {
    std::vector<uint64_t> out;
    const Json answer = json(path);
    for (const Json& row : answer["connections"]) out.push_back(row["cid"]);
    return out;
  }

  // Three open connections and two closed ones, different in everything that can be sorted by.
  void add_connections() {
    const int64_t now =
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
            .count();
    for (uint64_t cid : {5, 6, 7}) {
      ConnRow row;
      row.cid = cid;
      row.kind = "Client";
      row.type = "nats";
      row.ip = "127.0.0.1";
      row.port = static_cast<uint16_t>(40000 + cid);
      row.start_ns = now - static_cast<int64_t>(100 - cid) * kSecond;
      row.last_activity_ns = now - (cid == 6 ? 50 : cid == 5 ? 20 : 10) * kSecond;
      row.rtt_ns = cid == 6 ? 481'999 : cid == 5 ? 2'300'456 : 0;
      row.account = cid == 7 ? "APP" : "$G";
      row.authorized_user = cid == 7 ? "joe" : "";
      row.subscriptions = cid == 5 ? 1 : cid == 6 ? 3 : 2;
      row.pending_bytes = cid == 5 ? 9 : cid == 6 ? 7 : 8;
      row.traffic = {cid * 2, 1000 - cid, 100 - cid, cid * 5};
      if (cid == 5) row.subs = {{"", "foo.*", "", "1", 4, 0, 5}, {"", "bar.>", "q", "2", 0, 10, 5}};
      source_.rows_.push_back(row);
    }
    for (uint64_t cid : {8, 9}) {
      ConnRow row;
      row.cid = cid;
      row.kind = "Client";
      row.type = "nats";
      row.ip = "::1";
      row.port = 1;
      row.start_ns = kStart;
      row.last_activity_ns = kStart + 3 * kSecond;
      row.stop_ns = kStart + (cid == 8 ? 65 : 64) * kSecond;
      row.reason = cid == 8 ? "Stale Connection" : "Client Closed";
      row.account = "$G";
      source_.rows_.push_back(row);
    }
  }

  LinesLog log_;
  FakeSource source_;
  std::unique_ptr<Monitor> monitor_;
  std::unique_ptr<httplib::Client> client_;
};

// ---- HTTP

TEST_F(MonitorTest, SaysWhereItListens) {
  EXPECT_TRUE(log_.has(LogLevel::kInfo, fmt::format("Starting http monitor on 127.0.0.1:{}", monitor_->port())));
  EXPECT_TRUE(monitor_->running());
}

TEST_F(MonitorTest, ATakenPortIsAnErrorInTheWordsOfNatsServer) {
  Monitor second(source_, log_);
  EXPECT_EQ(second.start("127.0.0.1", monitor_->port(), ""),
            fmt::format("can't listen to the monitor port: listen tcp 127.0.0.1:{}: bind: address already in use",
                        monitor_->port()));
  EXPECT_FALSE(second.running());
}

TEST_F(MonitorTest, AddressesThatCannotBeBound) {
  Monitor second(source_, log_);
  EXPECT_EQ(second.start("192.0.2.1", -1, ""),
            "can't listen to the monitor port: listen tcp 192.0.2.1:0: bind: cannot assign requested address");
  EXPECT_EQ(second.start("not a host", -1, ""),
            "can't listen to the monitor port: listen tcp: lookup not a host: no such host");
}

TEST_F(MonitorTest, AllAddressesMeansBothFamilies) {
  Monitor both(source_, log_);
  ASSERT_EQ(both.start("0.0.0.0", -1, ""), "");
  EXPECT_EQ(httplib::Client("127.0.0.1", both.port()).Get("/healthz")->status, 200);
  EXPECT_EQ(httplib::Client("::1", both.port()).Get("/healthz")->status, 200);
}

TEST_F(MonitorTest, StopsAndStartsAgain) {
  get("/healthz");  // leaves a kept-alive connection behind
  const auto begin = std::chrono::steady_clock::now();
  monitor_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin,
            std::chrono::seconds(4));  // a connection kept alive is waited for 5 s
  EXPECT_FALSE(monitor_->running());
  serve("");
  EXPECT_EQ(get("/healthz").status, 200);
}

TEST_F(MonitorTest, UnknownPaths) {
  for (const char* path : {"/nope", "/varz/", "/connz/x", "/VARZ", "/varzz", "/debug/vars"}) {
    const httplib::Response response = get(path);
    EXPECT_EQ(response.status, 404) << path;
    EXPECT_EQ(response.body, "404 page not found\n");
    EXPECT_EQ(response.get_header_value("Content-Type"), "text/plain; charset=utf-8");
    EXPECT_EQ(response.get_header_value("X-Content-Type-Options"), "nosniff");
  }
  EXPECT_EQ(get("/raftz").status, 404);
}

TEST_F(MonitorTest, UncleanPathsAreSentToTheCleanOne) {
  const httplib::Response response = get("//connz?limit=3");
  EXPECT_EQ(response.status, 307);
  EXPECT_EQ(response.get_header_value("Location"), "/connz?limit=3");
  EXPECT_EQ(response.body, "<a href=\"/connz?limit=3\">Temporary Redirect</a>.\n\n");
  EXPECT_EQ(get("/a/../varz").get_header_value("Location"), "/varz");
}

int dial(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 ? fd : -1;
}

TEST_F(MonitorTest, APathCannotWriteHeaders) {
  const int fd = dial(monitor_->port());
  const std::string request = "GET //x%0d%0aSet-Cookie:a%22%3Cb%3E?c=%41 HTTP/1.1\r\nConnection: close\r\n\r\n";
  ASSERT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, static_cast<size_t>(n));
  close(fd);
  EXPECT_NE(answer.find("\r\nLocation: /x%0D%0ASet-Cookie:a%22<b>?c=%41\r\n"), std::string::npos) << answer;
  EXPECT_NE(answer.find("<a href=\"/x%0D%0ASet-Cookie:a%22&lt;b&gt;?c=%41\">"), std::string::npos) << answer;
}

TEST_F(MonitorTest, OtherMethods) {
  EXPECT_EQ(client_->Post("/varz", "body", "text/plain")->status, 405);
  EXPECT_EQ(client_->Delete("/varz")->status, 405);
  const auto head = client_->Head("/varz");
  EXPECT_EQ(head->status, 200);
  EXPECT_TRUE(head->body.empty());
  EXPECT_GT(std::stoi(head->get_header_value("Content-Length")), 500);
  EXPECT_EQ(get("/varz").status, 200);  // the connection is still in step
}

TEST_F(MonitorTest, ManyRequestsOnOneConnection) {
  for (int i = 0; i < 200; ++i) ASSERT_EQ(get("/healthz").status, 200);
}

TEST_F(MonitorTest, IdleConnectionsDoNotKeepOthersOut) {
  std::vector<std::unique_ptr<httplib::Client>> idle;
  for (int i = 0; i < 20; ++i) {
    idle.push_back(std::make_unique<httplib::Client>("127.0.0.1", monitor_->port()));
    idle.back()->set_keep_alive(true);
    ASSERT_EQ(idle.back()->Get("/healthz")->status, 200);
  }
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(httplib::Client("127.0.0.1", monitor_->port()).Get("/healthz")->status, 200);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(4));
}

TEST_F(MonitorTest, ConcurrentScrapes) {
  add_connections();
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      httplib::Client client("127.0.0.1", monitor_->port());
      for (int i = 0; i < 25; ++i) {
        for (const char* path : {"/varz", "/connz?subs=1", "/subsz?subs=1", "/healthz"})
          good += client.Get(path)->status == 200;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 8 * 25 * 4);
  EXPECT_EQ(json("/varz")["http_req_stats"]["/connz"], 200);
}

TEST_F(MonitorTest, ADrippingRequestIsCutOff) {
  const int fd = dial(monitor_->port());
  bool cut = false;
  // A byte every 300 ms would satisfy any limit on a single read; these take more than 11 seconds.
  pollfd poll_fd{fd, POLLIN, 0};
  for (char c : std::string("GET /varz HTTP/1.1\r\nHost: somewhere\r\n")) {
    char byte;
    cut = send(fd, &c, 1, MSG_NOSIGNAL) != 1 ||
          (poll(&poll_fd, 1, 300) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) <= 0);
    if (cut) break;
  }
  EXPECT_TRUE(cut);
  close(fd);
}

TEST_F(MonitorTest, GarbageHurtsNobody) {
  for (const std::string& bytes :
       {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11), std::string("CONNECT {}\r\nPING\r\n"),
        std::string(100'000, 'A'), "GET /" + std::string(60'000, 'a') + " HTTP/1.1\r\n\r\n",
        std::string("GET /%00%ff%0a HTTP/1.1\r\n\r\n"),
        "GET /connz?" + std::string(5'000, '&') + " HTTP/1.1\r\n\r\n"}) {
    const int fd = dial(monitor_->port());
    ASSERT_GE(fd, 0);
    [[maybe_unused]] const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    char buffer[4096];
    while (recv(fd, buffer, sizeof(buffer), 0) > 0) {
    }
    close(fd);
  }
  EXPECT_EQ(get("/healthz").status, 200);
}

TEST_F(MonitorTest, IndexLinksWork) {
  const httplib::Response response = get("/");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.get_header_value("Content-Type"), "text/html; charset=utf-8");
  int links = 0;
  const std::regex link("href=\"([^\"]+)\"");
  for (std::sregex_iterator it(response.body.begin(), response.body.end(), link), end; it != end; ++it, ++links) {
    EXPECT_EQ(get((*it)[1]).status, 200) << (*it)[1];
  }
  EXPECT_GE(links, 10);
}

TEST_F(MonitorTest, BasePath) {
  for (const char* base : {"/nats", "nats/", "/nats/"}) {
    serve(base);
    EXPECT_EQ(get("/nats/varz").status, 200) << base;
    EXPECT_EQ(get("/nats").status, 200) << base;
    EXPECT_EQ(get("/varz").status, 404) << base;
    EXPECT_EQ(get("/").status, 404) << base;
    EXPECT_EQ(get("/natsvarz").status, 404) << base;
    EXPECT_NE(get("/nats").body.find("href=\"/nats/connz\""), std::string::npos);
    EXPECT_EQ(json("/nats/varz")["http_req_stats"]["/varz"], 2) << base;  // without the prefix
  }
}

// ---- /varz

TEST_F(MonitorTest, VarzHasTheFieldsOfNatsServerInItsOrder) {
  source_.facts_.system_account = "$SYS";
  source_.facts_.git_commit = "abc";
  const std::vector<std::string> expected = {"server_id",
                                             "server_name",
                                             "version",
                                             "proto",
                                             "git_commit",
                                             "go",
                                             "host",
                                             "port",
                                             "max_connections",
                                             "ping_interval",
                                             "ping_max",
                                             "http_host",
                                             "http_port",
                                             "http_base_path",
                                             "https_port",
                                             "auth_timeout",
                                             "max_control_line",
                                             "max_payload",
                                             "max_pending",
                                             "cluster",
                                             "gateway",
                                             "leaf",
                                             "mqtt",
                                             "websocket",
                                             "jetstream",
                                             "tls_timeout",
                                             "write_deadline",
                                             "start",
                                             "now",
                                             "uptime",
                                             "mem",
                                             "cores",
                                             "gomaxprocs",
                                             "cpu",
                                             "connections",
                                             "total_connections",
                                             "routes",
                                             "remotes",
                                             "leafnodes",
                                             "in_msgs",
                                             "in_bytes",
                                             "in_client_msgs",
                                             "in_client_bytes",
                                             "out_msgs",
                                             "out_bytes",
                                             "out_client_msgs",
                                             "out_client_bytes",
                                             "slow_consumers",
                                             "stale_connections",
                                             "stalled_clients",
                                             "subscriptions",
                                             "http_req_stats",
                                             "config_load_time",
                                             "config_digest",
                                             "system_account",
                                             "slow_consumer_stats",
                                             "stale_connection_stats",
                                             "disk_io_wait_stats",
                                             "peregrine"};
  const Json varz = json("/varz");
  EXPECT_EQ(keys(varz), expected);
  EXPECT_EQ(varz["start"], "2026-08-02T10:11:12.345Z");
  EXPECT_EQ(varz["max_connections"], 65536);
  EXPECT_EQ(varz["ping_interval"], 120'000'000'000);
  EXPECT_EQ(varz["write_deadline"], 10'000'000'000);
  EXPECT_EQ(varz["cluster"].dump(), "{}");
  EXPECT_EQ(varz["gomaxprocs"], 2);
  EXPECT_GT(varz["mem"], 1'000'000);
  const std::string body = get("/varz").body;
  EXPECT_NE(body.find("\n  \"auth_timeout\": 2,\n"), std::string::npos);  // not 2.0
  EXPECT_NE(body.find("\n  \"cluster\": {},\n"), std::string::npos);
  EXPECT_TRUE(body.starts_with("{\n  \"server_id\": \"NFAKE\",\n"));
  EXPECT_TRUE(body.ends_with("\n}"));
}

TEST_F(MonitorTest, VarzShowsWhatIsOnlyThereWhenSet) {
  auto options = std::make_shared<config::Options>();
  options->server_tags = {"a", "b"};
  options->server_metadata = {{"k", "v"}};
  options->feature_flags = {{"f", true}};
  options->max_subscriptions = 11;
  options->authorization.timeout = std::chrono::milliseconds(1500);
  options->http_base_path = "/x";
  options->write_timeout = config::WriteTimeout::kRetry;
  options->config_digest = "sha256:00";
  options->http_host = "10.0.0.1";
  options->http_port = -1;
  source_.facts_.options = options;
  source_.facts_.auth_required = source_.facts_.tls_required = source_.facts_.tls_verify = true;
  source_.facts_.ip = "1.2.3.4";
  source_.facts_.connect_urls = {"1.2.3.4:4222"};
  source_.facts_.ws_connect_urls = {"1.2.3.4:80"};
  const Json varz = json("/varz");
  const std::vector<std::string> names = keys(varz);
  const auto after = [&names](const char* name) {
    const auto it = std::find(names.begin(), names.end(), name);
    return it == names.end() || it + 1 == names.end() ? std::string() : *(it + 1);
  };
  EXPECT_EQ(after("port"), "auth_required");
  EXPECT_EQ(after("auth_required"), "tls_required");
  EXPECT_EQ(after("tls_required"), "tls_verify");
  EXPECT_EQ(after("tls_verify"), "ip");
  EXPECT_EQ(after("ip"), "connect_urls");
  EXPECT_EQ(after("connect_urls"), "ws_connect_urls");
  EXPECT_EQ(after("max_connections"), "max_subscriptions");
  EXPECT_EQ(after("write_deadline"), "write_timeout");
  EXPECT_EQ(after("config_digest"), "tags");
  EXPECT_EQ(after("tags"), "metadata");
  EXPECT_EQ(after("metadata"), "feature_flags");
  EXPECT_EQ(varz["auth_timeout"], 1.5);
  EXPECT_EQ(varz["http_host"], "10.0.0.1");
  EXPECT_EQ(varz["http_port"], -1);
  EXPECT_EQ(varz["write_timeout"], "retry");
  EXPECT_EQ(varz["connect_urls"], Json({"1.2.3.4:4222"}));
}

TEST_F(MonitorTest, VarzAddsTheShardsUp) {
  for (uint32_t n : {0, 1}) {
    core::ShardSnapshot shard;
    shard.shard = n;
    shard.cpu = static_cast<int>(n);
    shard.connections = 2 + n;
    shard.total_connections = 10;
    shard.traffic = {100, 1000, 200, 2000};
    shard.client_traffic = {90, 900, 190, 1900};
    shard.slow_consumers.clients = 1;
    shard.stale_connections.routes = 2;
    shard.stalled_clients = 3;
    shard.rings.overflows = 40 + n;
    core::AccountSnapshot account;
    account.name = "$G";
    account.sublist.num_subscriptions = 7;
    account.sublist.memory_bytes = 512;
    shard.accounts.push_back(account);
    source_.shards_.push_back(shard);
  }
  const Json varz = json("/varz");
  EXPECT_EQ(varz["connections"], 5);
  EXPECT_EQ(varz["total_connections"], 20);
  EXPECT_EQ(varz["in_msgs"], 200);
  EXPECT_EQ(varz["out_bytes"], 4000);
  EXPECT_EQ(varz["in_client_msgs"], 180);
  EXPECT_EQ(varz["out_client_bytes"], 3800);
  EXPECT_EQ(varz["slow_consumers"], 2);
  EXPECT_EQ(varz["slow_consumer_stats"].dump(), R"({"clients":2,"routes":0,"gateways":0,"leafs":0})");
  EXPECT_EQ(varz["stale_connections"], 4);
  EXPECT_EQ(varz["stale_connection_stats"]["routes"], 4);
  EXPECT_EQ(varz["stalled_clients"], 6);
  EXPECT_EQ(varz["subscriptions"], 14);
  EXPECT_EQ(varz["peregrine"]["backend"], "epoll");
  EXPECT_EQ(varz["peregrine"]["shard_stats"][1]["rings"]["overflows"], 41);
  EXPECT_EQ(varz["peregrine"]["shard_stats"][1]["index_bytes"], 512);
}

TEST_F(MonitorTest, RequestsAreCountedByEndpoint) {
  for (const char* path : {"/", "/connz", "/connz", "/subsz", "/subscriptionsz", "/healthz", "/nope"}) get(path);
  get("/varz");
  EXPECT_EQ(json("/varz")["http_req_stats"].dump(), R"({"/":1,"/connz":2,"/healthz":1,"/subsz":2,"/varz":2})");
}

// ---- /connz

TEST_F(MonitorTest, ConnzEmpty) {
  const Json connz = json("/connz");
  EXPECT_EQ(keys(connz), (std::vector<std::string>{"server_id", "now", "num_connections", "total", "offset", "limit",
                                                   "connections"}));
  EXPECT_EQ(connz["limit"], 1024);
  EXPECT_EQ(connz["connections"].dump(), "[]");
}

TEST_F(MonitorTest, ConnzRow) {
  add_connections();
  const Json connz = json("/connz");
  EXPECT_EQ(connz["num_connections"], 3);
  EXPECT_EQ(connz["total"], 3);
  const Json& row = connz["connections"][0];
  EXPECT_EQ(keys(row), (std::vector<std::string>{"cid", "kind", "type", "ip", "port", "start", "last_activity", "rtt",
                                                 "uptime", "idle", "pending_bytes", "in_msgs", "out_msgs", "in_bytes",
                                                 "out_bytes", "subscriptions"}));
  EXPECT_EQ(row["rtt"], "2.300456ms");
  EXPECT_EQ(row["uptime"], "1m35s");
  EXPECT_EQ(row["idle"], "20s");
  EXPECT_EQ(connz["connections"][1]["rtt"], "481µs");
  EXPECT_EQ(connz["connections"][2]["rtt"], "0s");
}

TEST_F(MonitorTest, ConnzRowWithEverything) {
  add_connections();
  ConnRow& row = source_.rows_[2];
  row.stalls = 1;
  row.name = "<b>&name";
  row.lang = "go";
  row.version = "1.2";
  row.tls_version = "1.3";
  row.tls_cipher_suite = "TLS_AES_128_GCM_SHA256";
  row.tls_peer_certs = {{"CN=x", "aa", "bb"}};
  row.tls_first = true;
  row.jwt = "jwt";
  row.issuer_key = "A";
  row.tags = {"t"};
  row.mqtt_client = "m";
  row.proxy_key = "P";
  row.subs = {{"", "a", "", "1", 0, 0, 7}};
  const Json shown = json("/connz?cid=7&auth=1&subs=1")["connections"][0];
  EXPECT_EQ(keys(shown), (std::vector<std::string>{"cid",
                                                   "kind",
                                                   "type",
                                                   "ip",
                                                   "port",
                                                   "start",
                                                   "last_activity",
                                                   "rtt",
                                                   "uptime",
                                                   "idle",
                                                   "pending_bytes",
                                                   "in_msgs",
                                                   "out_msgs",
                                                   "in_bytes",
                                                   "out_bytes",
                                                   "stalls",
                                                   "subscriptions",
                                                   "name",
                                                   "lang",
                                                   "version",
                                                   "tls_version",
                                                   "tls_cipher_suite",
                                                   "tls_peer_certs",
                                                   "tls_first",
                                                   "authorized_user",
                                                   "account",
                                                   "subscriptions_list",
                                                   "jwt",
                                                   "issuer_key",
                                                   "name_tag",
                                                   "tags",
                                                   "mqtt_client",
                                                   "proxy"}));
  EXPECT_EQ(shown["name"], "<b>&name");
  EXPECT_NE(get("/connz").body.find(R"("name": "\u003cb\u003e\u0026name")"), std::string::npos);
  EXPECT_EQ(shown["tls_peer_certs"].dump(), R"([{"subject":"CN=x","spki_sha256":"aa","cert_sha256":"bb"}])");
  EXPECT_EQ(shown["proxy"].dump(), R"({"key":"P"})");
  // Without auth no credentials.
  const Json bare = json("/connz?cid=7")["connections"][0];
  for (const char* name : {"authorized_user", "account", "jwt", "issuer_key", "name_tag", "tags", "tls_peer_certs"}) {
    EXPECT_FALSE(bare.contains(name)) << name;
  }
}

TEST_F(MonitorTest, ConnzAuthLeavesTheGlobalAccountOut) {
  add_connections();
  const Json rows = json("/connz?auth=true")["connections"];
  EXPECT_FALSE(rows[0].contains("account"));
  EXPECT_EQ(rows[0]["name_tag"], "$G");
  EXPECT_EQ(rows[2]["account"], "APP");
  EXPECT_EQ(rows[2]["authorized_user"], "joe");
}

TEST_F(MonitorTest, ConnzSubs) {
  add_connections();
  EXPECT_FALSE(json("/connz?subs=0")["connections"][0].contains("subscriptions_list"));
  EXPECT_FALSE(source_.connz_query_.subs);
  for (const char* yes : {"1", "t", "T", "TRUE", "true", "True"}) {
    EXPECT_EQ(json(std::string("/connz?subs=") + yes)["connections"][0]["subscriptions_list"].dump(),
              R"(["foo.*","bar.>"])")
        << yes;
  }
  for (const char* detail : {"detail", "DETAIL"}) {
    EXPECT_EQ(
        json(std::string("/connz?subs=") + detail)["connections"][0]["subscriptions_list_detail"].dump(),
        R"([{"subject":"foo.*","sid":"1","msgs":4,"cid":5},{"subject":"bar.>","qgroup":"q","sid":"2","msgs":0,"max":10,"cid":5}])");
  }
  EXPECT_FALSE(json("/connz?subs=1")["connections"][1].contains("subscriptions_list"));  // it has none
}

TEST_F(MonitorTest, ConnzStates) {
  add_connections();
  EXPECT_EQ(cids("/connz?state=open"), (std::vector<uint64_t>{5, 6, 7}));
  EXPECT_EQ(cids("/connz?state=CLOSED"), (std::vector<uint64_t>{8, 9}));
  EXPECT_EQ(cids("/connz?state=any"), (std::vector<uint64_t>{5, 6, 7, 8, 9}));
  EXPECT_EQ(cids("/connz?state=all"), (std::vector<uint64_t>{5, 6, 7, 8, 9}));
  const Json closed = json("/connz?state=closed")["connections"][0];
  EXPECT_EQ(closed["stop"], "2026-08-02T10:12:17.345Z");
  EXPECT_EQ(closed["reason"], "Stale Connection");
  EXPECT_EQ(closed["uptime"], "1m5s");
  EXPECT_EQ(closed["idle"], "1m2s");
  source_.rows_[3].subs = {{"", "a.>", "", "9", 0, 0, 8}};
  EXPECT_EQ(json("/connz?state=closed&subs=detail")["connections"][0]["subscriptions_list_detail"].dump(),
            R"([{"account":"$G","account_tag":"$G","subject":"a.>","sid":"9","msgs":0,"cid":8}])");
}

TEST_F(MonitorTest, ConnzFilters) {
  add_connections();
  EXPECT_EQ(cids("/connz?cid=6"), std::vector<uint64_t>{6});
  EXPECT_EQ(json("/connz?cid=6")["limit"], 1);
  EXPECT_EQ(json("/connz?cid=6")["total"], 3);
  EXPECT_EQ(cids("/connz?cid=8"), std::vector<uint64_t>{});
  EXPECT_EQ(cids("/connz?cid=8&state=closed"), std::vector<uint64_t>{8});
  EXPECT_EQ(cids("/connz?cid=77"), std::vector<uint64_t>{});
  EXPECT_EQ(cids("/connz?user=joe"), std::vector<uint64_t>{7});
  EXPECT_EQ(cids("/connz?acc=APP"), std::vector<uint64_t>{7});
  EXPECT_EQ(json("/connz?acc=APP")["total"], 1);
  EXPECT_EQ(cids("/connz?acc=$G"), (std::vector<uint64_t>{5, 6}));
  EXPECT_EQ(cids("/connz?acc=%24G"), (std::vector<uint64_t>{5, 6}));
  source_.rows_[1].mqtt_client = "m 1";
  EXPECT_EQ(cids("/connz?mqtt_client=m+1"), std::vector<uint64_t>{6});
  EXPECT_EQ(cids("/connz?mqtt_client=m%201"), std::vector<uint64_t>{6});
}

TEST_F(MonitorTest, ConnzOfAnUnknownAccountIsHowNatsServerAnswersIt) {
  add_connections();
  const Json connz = json("/connz?acc=nope");
  EXPECT_EQ(connz["server_id"], "");
  EXPECT_EQ(connz["total"], 0);
  EXPECT_TRUE(connz["connections"].is_null());
}

TEST_F(MonitorTest, ConnzSorts) {
  add_connections();
  const std::map<std::string, std::vector<uint64_t>> expected = {
      {"", {5, 6, 7}},           {"cid", {5, 6, 7}},     {"start", {5, 6, 7}},     {"subs", {6, 7, 5}},
      {"pending", {5, 7, 6}},    {"msgs_to", {5, 6, 7}}, {"msgs_from", {7, 6, 5}}, {"bytes_to", {7, 6, 5}},
      {"bytes_from", {5, 6, 7}}, {"last", {7, 5, 6}},    {"idle", {6, 5, 7}},      {"uptime", {7, 6, 5}},
      {"rtt", {5, 6, 7}}};
  for (const auto& [sort, order] : expected) EXPECT_EQ(cids("/connz?sort=" + sort), order) << sort;
  EXPECT_EQ(cids("/connz?sort=stop&state=closed"), (std::vector<uint64_t>{8, 9}));
  EXPECT_EQ(cids("/connz?sort=reason&state=closed"), (std::vector<uint64_t>{9, 8}));
  EXPECT_EQ(source_.connz_query_.sort, core::ConnSort::kReason);
}

TEST_F(MonitorTest, ConnzPages) {
  add_connections();
  EXPECT_EQ(cids("/connz?limit=2"), (std::vector<uint64_t>{5, 6}));
  EXPECT_EQ(cids("/connz?limit=2&offset=2"), std::vector<uint64_t>{7});
  EXPECT_EQ(source_.connz_query_.keep, 4u);
  const Json beyond = json("/connz?offset=9");
  EXPECT_EQ(beyond["num_connections"], 0);
  EXPECT_EQ(beyond["total"], 3);
  EXPECT_EQ(beyond["offset"], 9);
  EXPECT_EQ(beyond["connections"].dump(), "[]");
  EXPECT_EQ(cids("/connz?offset=-5&limit=-1"), (std::vector<uint64_t>{5, 6, 7}));
  EXPECT_EQ(cids("/connz?offset=%2B1&limit=%2B1"), std::vector<uint64_t>{6});
  EXPECT_EQ(cids("/connz?offset=9223372036854775807&limit=9223372036854775807"), std::vector<uint64_t>({}));
  EXPECT_EQ(cids("/connz?limit=1&limit=3"), std::vector<uint64_t>{5});  // the first one counts
}

TEST_F(MonitorTest, ConnzErrors) {
  expect_bad("/connz?sort=x", "invalid sorting option: x");
  expect_bad("/connz?sort=stop", "sort by stop only valid on closed connections");
  expect_bad("/connz?sort=reason&state=all", "sort by reason only valid on closed connections");
  expect_bad("/connz?limit=a", "Error decoding int for 'limit': strconv.Atoi: parsing \"a\": invalid syntax");
  expect_bad("/connz?limit=1.5", "Error decoding int for 'limit': strconv.Atoi: parsing \"1.5\": invalid syntax");
  expect_bad("/connz?limit=+1", "Error decoding int for 'limit': strconv.Atoi: parsing \" 1\": invalid syntax");
  expect_bad("/connz?limit=%2B-1", "Error decoding int for 'limit': strconv.Atoi: parsing \"+-1\": invalid syntax");
  expect_bad("/connz?limit=-", "Error decoding int for 'limit': strconv.Atoi: parsing \"-\": invalid syntax");
  expect_bad("/connz?offset=99999999999999999999",
             "Error decoding int for 'offset': strconv.Atoi: parsing \"99999999999999999999\": value out of range");
  expect_bad("/connz?cid=-1", "Error decoding uint64 for 'cid': strconv.ParseUint: parsing \"-1\": invalid syntax");
  expect_bad("/connz?auth=yes",
             "Error decoding boolean for 'auth': strconv.ParseBool: parsing \"yes\": invalid syntax");
  expect_bad("/connz?auth=%0A",
             "Error decoding boolean for 'auth': strconv.ParseBool: parsing \"\\n\": invalid syntax");
  expect_bad("/connz?subs=x", "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"x\": invalid syntax");
  expect_bad("/connz?state=foo", "Error decoding state for foo");
  expect_bad("/connz?auth=yes&limit=a",
             "Error decoding boolean for 'auth': strconv.ParseBool: parsing \"yes\": invalid syntax");
}

TEST_F(MonitorTest, NamesThatAreNotUtf8StillMakeJson) {
  add_connections();
  source_.rows_[0].name = "bad \xff\xc3 bytes";
  EXPECT_EQ(json("/connz")["connections"][0]["name"], "bad \xef\xbf\xbd\xef\xbf\xbd bytes");
}

// ---- /subsz

TEST_F(MonitorTest, SubszAddsTheShardsUp) {
  for (uint64_t n : {1, 2}) {
    core::ShardSnapshot shard;
    core::AccountSnapshot account;
    account.name = "$G";
    account.sublist.num_subscriptions = n;
    account.sublist.num_cache = n;                        // 1 and 2 cached results,
    account.sublist.avg_fanout = static_cast<double>(n);  // of 1 and 2 receivers each
    account.sublist.num_inserts = 10;
    account.sublist.num_removes = 4;
    account.sublist.num_matches = 10;
    account.sublist.cache_hits = 1;
    account.sublist.max_fanout = 5 * n;
    shard.accounts.push_back(account);
    account.name = "APP";
    account.sublist = {};
    account.sublist.num_subscriptions = 100;
    shard.accounts.push_back(account);
    source_.shards_.push_back(shard);
  }
  const Json subsz = json("/subsz?acc=$G");
  EXPECT_EQ(keys(subsz), (std::vector<std::string>{"server_id", "now", "num_subscriptions", "num_cache", "num_inserts",
                                                   "num_removes", "num_matches", "cache_hit_rate", "max_fanout",
                                                   "avg_fanout", "total", "offset", "limit"}));
  EXPECT_EQ(subsz["num_subscriptions"], 3);
  EXPECT_EQ(subsz["num_inserts"], 20);
  EXPECT_EQ(subsz["cache_hit_rate"], 0.1);
  EXPECT_EQ(subsz["max_fanout"], 10);
  EXPECT_DOUBLE_EQ(subsz["avg_fanout"], 5.0 / 3.0);
  EXPECT_EQ(json("/subsz")["num_subscriptions"], 203);
  EXPECT_EQ(json("/subscriptionsz?acc=nope")["num_subscriptions"], 0);
  EXPECT_NE(get("/subsz?acc=nope").body.find("\"avg_fanout\": 0,"), std::string::npos);
}

TEST_F(MonitorTest, SubszListsAndPages) {
  for (uint64_t n = 0; n < 5; ++n)
    source_.subs_.push_back({n < 4 ? "$G" : "APP", fmt::format("s.{}", n), n == 1 ? "q" : "", fmt::format("{}", n), n,
                             n == 2 ? 9u : 0u, 5});
  EXPECT_FALSE(json("/subsz").contains("subscriptions_list"));
  EXPECT_EQ(json("/subsz")["total"], 0);
  const Json all = json("/subsz?subs=1");
  EXPECT_EQ(all["total"], 5);
  EXPECT_EQ(all["subscriptions_list"][1].dump(),
            R"({"account":"$G","account_tag":"$G","subject":"s.1","qgroup":"q","sid":"1","msgs":1,"cid":5})");
  EXPECT_EQ(all["subscriptions_list"][2]["max"], 9);
  const Json some = json("/subsz?subs=1&offset=1&limit=2");
  EXPECT_EQ(some["total"], 5);
  ASSERT_EQ(some["subscriptions_list"].size(), 2u);
  EXPECT_EQ(some["subscriptions_list"][0]["subject"], "s.1");
  EXPECT_EQ(json("/subsz?subs=1&acc=APP")["total"], 1);
  EXPECT_EQ(json("/subsz?subs=1&test=s.3")["subscriptions_list"][0]["sid"], "3");
  EXPECT_FALSE(json("/subsz?subs=1&offset=10").contains("subscriptions_list"));
}

TEST_F(MonitorTest, SubszErrors) {
  expect_bad("/subsz?test=foo.*", "invalid test subject, must be valid publish subject: foo.*");
  expect_bad("/subsz?test=foo..", "invalid test subject, must be valid publish subject: foo..");
  expect_bad("/subsz?test=.", "invalid test subject, must be valid publish subject: .");
  expect_bad("/subsz?test=%3E", "invalid test subject, must be valid publish subject: >");
  EXPECT_EQ(get("/subsz?test=a.*b.%3Ec").status, 200);  // wildcards inside a token are letters
  expect_bad("/subsz?subs=detail",
             "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"detail\": invalid syntax");
  expect_bad("/subsz?offset=x", "Error decoding int for 'offset': strconv.Atoi: parsing \"x\": invalid syntax");
  expect_bad("/subsz?limit=x", "Error decoding int for 'limit': strconv.Atoi: parsing \"x\": invalid syntax");
}

// ---- /healthz and the rest

TEST_F(MonitorTest, Healthz) {
  for (const char* path :
       {"/healthz", "/healthz?details=1", "/healthz?js-enabled-only=1", "/healthz?js-server-only=true",
        "/healthz?js-meta-only=1", "/healthz?account=NO", "/healthz?account=A&stream=S&consumer=C"}) {
    json(path);
    EXPECT_EQ(get(path).body, R"({"status":"ok"})") << path;
  }
  EXPECT_EQ(get("/healthz?js-enabled=1").status, 200);
  EXPECT_TRUE(log_.has(LogLevel::kWarn, "Healthcheck: js-enabled deprecated, use js-enabled-only instead"));
  for (const char* name : {"js-enabled", "js-enabled-only", "js-server-only", "js-meta-only", "details"}) {
    expect_bad(fmt::format("/healthz?{}=x", name),
               fmt::format("Error decoding boolean for '{}': strconv.ParseBool: parsing \"x\": invalid syntax", name));
  }
}

TEST_F(MonitorTest, HealthzOfBadCombinations) {
  httplib::Response response = get("/healthz?stream=S");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.body, R"({"status":"error","error":"\"account\" must not be empty when checking stream health"})");
  EXPECT_EQ(response.get_header_value("Content-Type"), "application/json");
  EXPECT_TRUE(
      log_.has(LogLevel::kWarn, R"(Healthcheck failed: "\"account\" must not be empty when checking stream health")"));
  response = get("/healthz?account=A&consumer=C&details=1");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(
      response.body,
      R"({"status":"error","errors":[{"type":"BAD_REQUEST","error":"\"stream\" must not be empty when checking consumer health"}]})");
  EXPECT_TRUE(log_.has(LogLevel::kWarn, "Healthcheck failed: 1 errors"));
}

TEST_F(MonitorTest, HealthzOfAServerThatIsNotReady) {
  source_.health_ = {false, "not ready"};
  EXPECT_EQ(get("/healthz").status, 500);
  EXPECT_EQ(get("/healthz").body, R"({"status":"error","error":"not ready"})");
  EXPECT_EQ(get("/healthz?details=1").body,
            R"({"status":"error","errors":[{"type":"CONNECTION","error":"not ready"}]})");
}

TEST_F(MonitorTest, GatewaysByDirectionAndName) {
  auto options = std::make_shared<config::Options>(*source_.facts_.options);
  options->gateway.name = "A";
  source_.facts_.options = options;
  source_.facts_.gateway_port = 7222;
  source_.facts_.gateway_host = "10.0.0.1";
  core::GatewayRow row;
  row.name = "B";
  row.outbound = row.is_configured = true;
  row.conn.cid = 7;
  row.conn.kind = "Gateway";
  row.accounts.push_back(
      {.name = "$G", .mode = "Interest-Only", .subscriptions = 1, .queue_subscriptions = 0, .subs = {}});
  row.accounts[0].subs.emplace_back().subject = "foo";
  source_.gateways_.push_back(row);
  row.outbound = false;
  row.conn.cid = 8;
  source_.gateways_.push_back(row);
  row.conn.cid = 9;
  source_.gateways_.push_back(row);
  const Json answer = json("/gatewayz?accs=1&subs=1");
  EXPECT_EQ(keys(answer), (std::vector<std::string>{"server_id", "now", "name", "host", "port", "outbound_gateways",
                                                    "inbound_gateways"}));
  EXPECT_EQ(answer["outbound_gateways"]["B"]["connection"]["cid"], 7);
  EXPECT_EQ(answer["outbound_gateways"]["B"]["configured"], true);
  EXPECT_EQ(answer["outbound_gateways"]["B"]["accounts"][0]["subscriptions_list"][0], "foo");
  ASSERT_EQ(answer["inbound_gateways"]["B"].size(), 2u);
  EXPECT_EQ(answer["inbound_gateways"]["B"][1]["connection"]["cid"], 9);
  EXPECT_EQ(json("/gatewayz?gw_name=C")["outbound_gateways"].dump(), "null");
}

TEST_F(MonitorTest, WhatIsNotConfiguredIsEmpty) {
  Json routez = json("/routez?subs=detail");
  EXPECT_EQ(keys(routez), (std::vector<std::string>{"server_id", "server_name", "now", "num_routes", "routes"}));
  EXPECT_EQ(routez["routes"].dump(), "[]");
  EXPECT_EQ(keys(json("/gatewayz")),
            (std::vector<std::string>{"server_id", "now", "outbound_gateways", "inbound_gateways"}));
  EXPECT_EQ(keys(json("/leafz")), (std::vector<std::string>{"server_id", "now", "leafnodes", "leafs"}));
  const Json jsz = json("/jsz?acc=x");
  EXPECT_EQ(keys(jsz), (std::vector<std::string>{"memory", "storage", "reserved_memory", "reserved_storage", "accounts",
                                                 "ha_assets", "api", "server_id", "now", "disabled", "config",
                                                 "streams", "consumers", "messages", "bytes", "total"}));
  EXPECT_EQ(jsz["disabled"], true);
  EXPECT_EQ(get("/ipqueuesz").body, "{}");
  expect_bad("/routez?subs=x", "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"x\": invalid syntax");
  expect_bad("/gatewayz?accs=x", "Error decoding boolean for 'accs': strconv.ParseBool: parsing \"x\": invalid syntax");
  expect_bad("/leafz?subs=x", "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"x\": invalid syntax");
  expect_bad("/jsz?streams=x",
             "Error decoding boolean for 'streams': strconv.ParseBool: parsing \"x\": invalid syntax");
  expect_bad("/accstatz?unused=x",
             "Error decoding boolean for 'unused': strconv.ParseBool: parsing \"x\": invalid syntax");
}

TEST_F(MonitorTest, Accounts) {
  for (int n = 0; n < 2; ++n) {
    core::ShardSnapshot shard;
    core::AccountSnapshot account;
    account.name = "$G";
    account.connections = 3;
    account.traffic = {1, 2, 3, 4};
    account.sublist.num_subscriptions = 5;
    shard.accounts.push_back(account);
    account = {};
    account.name = "IDLE";
    shard.accounts.push_back(account);
    source_.shards_.push_back(shard);
  }
  EXPECT_EQ(json("/accountz")["accounts"].dump(), R"(["$G","IDLE"])");
  const Json detail = json("/accountz?acc=$G")["account_detail"];
  EXPECT_EQ(keys(detail), (std::vector<std::string>{"account_name", "update_time", "expired", "complete",
                                                    "jetstream_enabled", "leafnode_connections", "client_connections",
                                                    "subscriptions", "name_tag", "sublist_stats"}));
  EXPECT_EQ(detail["client_connections"], 6);
  EXPECT_EQ(detail["sublist_stats"]["num_subscriptions"], 10);
  expect_bad("/accountz?acc=no", "Account no does not exist");
  const Json used = json("/accstatz")["account_statz"];
  ASSERT_EQ(used.size(), 1u);
  EXPECT_EQ(used[0]["conns"], 6);
  EXPECT_EQ(used[0]["sent"]["msgs"], 6);
  EXPECT_EQ(used[0]["sent"]["bytes"], 8);
  EXPECT_EQ(used[0]["received"]["msgs"], 2);
  EXPECT_EQ(keys(used[0]["sent"]), (std::vector<std::string>{"msgs", "bytes", "gateways", "routes", "leafs"}));
  EXPECT_EQ(json("/accstatz?unused=1")["account_statz"].size(), 2u);
}

}  // namespace
}  // namespace peregrine::net
