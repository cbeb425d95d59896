#include "config/flags.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tests/config/world.h"

namespace peregrine::config::test {
namespace {

Result<Command> command(const std::vector<std::string>& arguments, World world = {},
                        std::string program = "/usr/bin/nats-server") {
  std::vector<const char*> argv = {program.c_str()};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  const Sources sources = world.sources();
  return parse_command_line(static_cast<int>(argv.size()), argv.data(), sources);
}

// Arguments separated by blanks.
std::vector<std::string> words(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> out;
  for (std::string word; stream >> word;) out.push_back(word);
  return out;
}

Options options(const std::string& line, World world = {}) {
  Result<Command> parsed = command(words(line), std::move(world));
  EXPECT_TRUE(parsed) << line << ": " << (parsed ? "" : parsed.error());
  if (!parsed) return {};
  EXPECT_EQ(parsed->kind, Command::Kind::kRun) << line;
  return parsed->options;
}

std::string error(const std::string& line, World world = {}) {
  const Result<Command> parsed = command(words(line), std::move(world));
  return parsed ? "" : parsed.error();
}

TEST(Flags, NoneIsTheDefaults) { EXPECT_EQ(options(""), Options{}); }

TEST(Flags, GoSyntax) {
  for (const char* line : {"-p 4333", "--p 4333", "-p=4333", "--p=4333", "-port 4333", "--port 4333", "--port=4333",
                           "-port=4333", "-p 1 -p 4333", "-p 0x10ed"}) {
    EXPECT_EQ(options(line).port, 4333) << line;
  }
  EXPECT_EQ(options("-p -1").port, -1);
  EXPECT_EQ(options("--port=-1").port, -1);
  EXPECT_EQ(options("-p 0").port, 4222);
  EXPECT_TRUE(options("-D").debug);
  EXPECT_TRUE(options("--debug=true").debug);
  EXPECT_TRUE(options("-D=1").debug);
  EXPECT_FALSE(options("-D -D=false").debug);
  EXPECT_FALSE(options("-T=false").logtime);
  EXPECT_EQ(command({"-user", "", "-p", "4333"})->options.port, 4333) << "an empty value is a value";
  EXPECT_EQ(command({"-pass", "--x=y -z", "-user=a=b"})->options.authorization.password, "--x=y -z");
  EXPECT_EQ(command({"-user=a=b"})->options.authorization.user, "a=b");
  EXPECT_EQ(command({"-pass", "[a,b]"})->options.authorization.password, "[a,b]");
  EXPECT_EQ(command({"-pass", "%%"})->options.authorization.password, "%%");
  EXPECT_EQ(command({"-pass", "{}"})->options.authorization.password, "{}");
  EXPECT_EQ(command({"-server_name", "-5"})->options.server_name, "-5");
}

TEST(Flags, GoErrors) {
  EXPECT_EQ(error("-foozle"), "flag provided but not defined: -foozle");
  EXPECT_EQ(error("--prot 5"), "flag provided but not defined: -prot, did you mean -port?");
  EXPECT_EQ(error("-server_nam x"), "flag provided but not defined: -server_nam, did you mean -server_name?");
  EXPECT_EQ(error("-p"), "flag needs an argument: -p");
  EXPECT_EQ(error("-p abc"), "invalid value \"abc\" for flag -p: parse error");
  EXPECT_EQ(error("-p 99999999999999999999"), "invalid value \"99999999999999999999\" for flag -p: value out of range");
  EXPECT_EQ(error("-D=maybe"), "invalid boolean value \"maybe\" for -D: parse error");
  EXPECT_EQ(error("---p 5"), "bad flag syntax: ---p");
  EXPECT_EQ(error("-=5"), "bad flag syntax: -=5");
  EXPECT_EQ(error("foo"), "nats-server: unrecognized command: \"foo\"");
  EXPECT_EQ(error("-D false"), "nats-server: unrecognized command: \"false\"") << "a boolean is never two words";
  EXPECT_EQ(error("-- x"), "nats-server: unrecognized command: \"x\"");
  EXPECT_EQ(error("-p 70000"), "nats-server: -p: port value is too big: 70000 is more than 65535");
  EXPECT_EQ(command({"x"}, {}, "peregrine").error(), "peregrine: unrecognized command: \"x\"")
      << "errors name the program";
}

TEST(Flags, EachSetsItsOption) {
  const Options all = options(
      "-a 127.0.0.1 -p 1 -n name -P pid -m 8222 --client_advertise adv --ports_file_dir dir -l log --log_size_limit 5 "
      "-logtime_utc -s "
      "-r udp://x -max_traced_msg_len 7 --user u --pass p -sd /store --shards 2 --cores 1,0 --backend epoll --idle "
      "park");
  EXPECT_EQ(all.host, "127.0.0.1");
  EXPECT_EQ(all.server_name, "name");
  EXPECT_EQ(all.pid_file, "pid");
  EXPECT_EQ(all.http_port, 8222);
  EXPECT_EQ(all.client_advertise, "adv");
  EXPECT_EQ(all.ports_file_dir, "dir");
  EXPECT_EQ(all.log_file, "log");
  EXPECT_EQ(all.logfile_size_limit, 5);
  EXPECT_TRUE(all.logtime_utc);
  EXPECT_TRUE(all.syslog);
  EXPECT_EQ(all.remote_syslog, "udp://x");
  EXPECT_EQ(all.max_traced_msg_len, 7);
  EXPECT_EQ(all.authorization.user, "u");
  EXPECT_EQ(all.authorization.password, "p");
  EXPECT_EQ(all.store_dir, "/store") << "without JetStream: launchers pass it";
  EXPECT_EQ(all.native.shards, 2);
  EXPECT_EQ(all.native.cores, (std::vector<int>{1, 0}));
  EXPECT_EQ(all.native.backend, Backend::kEpoll);
  EXPECT_EQ(all.native.idle, Idle::kPark);
  EXPECT_EQ(options("--addr ::1").host, "::1");
  EXPECT_EQ(options("-net x").host, "x");
  EXPECT_EQ(options("-name x").server_name, "x");
  EXPECT_EQ(options("-server_name x").server_name, "x");
  EXPECT_EQ(options("--http_port 1").http_port, 1);
  EXPECT_EQ(options("-auth t").authorization.token, "t");
  EXPECT_EQ(options("-sd=x").store_dir, "x");
  EXPECT_EQ(options("--shards auto").native.shards, 0);
}

TEST(Flags, DebugAndTraceCombine) {
  const auto levels = [](const char* line) {
    const Options parsed = options(line);
    return std::string(parsed.debug ? "D" : "") + (parsed.trace ? "V" : "") + (parsed.trace_verbose ? "v" : "");
  };
  EXPECT_EQ(levels("-D"), "D");
  EXPECT_EQ(levels("-V"), "V");
  EXPECT_EQ(levels("-DV"), "DV");
  EXPECT_EQ(levels("-VV"), "Vv");
  EXPECT_EQ(levels("-DVV"), "DVv");
  EXPECT_EQ(levels("-D -DV=false"), "");
  EXPECT_EQ(levels("--debug --trace"), "DV");
}

TEST(Flags, OverrideTheFile) {
  World world;
  world.files["a.conf"] =
      "port: 1\nhost: file\ndebug: true\nauthorization {user: f, password: f}\nserver_name: file\nlogtime: false";
  const Options merged = options("-c a.conf -p 2 -D=false -pass flag -T", world);
  EXPECT_EQ(merged.port, 2);
  EXPECT_EQ(merged.host, "file");
  EXPECT_FALSE(merged.debug);
  EXPECT_TRUE(merged.logtime);
  EXPECT_EQ(merged.authorization.user, "f");
  EXPECT_EQ(merged.authorization.password, "flag");
  EXPECT_EQ(merged.server_name, "file");
  EXPECT_EQ(merged.config_file, "a.conf");
  EXPECT_EQ(merged.config_digest.substr(0, 7), "sha256:");
  for (const char* spelling : {"-c a.conf", "--c a.conf", "-config a.conf", "--config a.conf", "--config=a.conf"}) {
    EXPECT_EQ(options(spelling, world).host, "file") << spelling;
  }
  world.files["a.yaml"] = "port: 7\n";
  EXPECT_EQ(options("-c a.yaml", world).port, 7);
  world.files["low.conf"] = "max_payload: 2MB\nmax_pending: 1MB";
  EXPECT_EQ(error("-c low.conf", world),
            "nats-server: low.conf:1:1: max_payload (2097152) cannot be higher than max_pending (1048576)");
}

TEST(Flags, ConfigErrorsNameTheProgram) {
  World world;
  world.files["bad.conf"] = "foo: 1\nbar: 2";
  EXPECT_EQ(error("-c bad.conf", world),
            "nats-server: bad.conf:1:1: unknown field \"foo\"\nbad.conf:2:1: unknown field \"bar\"");
  EXPECT_EQ(error("-c gone.conf"), "nats-server: open gone.conf: no such file or directory");
}

TEST(Flags, WarningsAreKeptAndDoNotStop) {
  World world;
  world.files["w.conf"] = "ping_interval: 5";
  const Result<Command> parsed = command({"-c", "w.conf"}, world);
  ASSERT_TRUE(parsed);
  ASSERT_EQ(parsed->warnings.size(), 1U);
  EXPECT_NE(parsed->warnings[0].find("should be converted to a duration"), std::string::npos);
}

TEST(Flags, CheckingAConfig) {
  World world;
  world.files["a.conf"] = "port: 1";
  const Result<Command> parsed = command({"-t", "-c", "a.conf"}, world);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->kind, Command::Kind::kCheckConfig);
  // The digest is nats-server's.
  EXPECT_EQ(parsed->report,
            "nats-server: configuration file a.conf is valid "
            "(sha256:5b27b68e52c25859a76c94f378c31d5a499ca677a46b38fb5f58ded229b59650)");
  EXPECT_EQ(error("-t"), "nats-server: must specify [-c, --config] option to check configuration file syntax");
  world.files["bad.conf"] = "mqtt { port: 1883 }\nfoo: 1";
  EXPECT_EQ(error("-t -c bad.conf", world),
            "nats-server: bad.conf:1:1: \"mqtt\" is not supported by this version yet\nbad.conf:2:1: unknown field "
            "\"foo\"");
  world.files["w.conf"] = "ping_interval: 5";
  EXPECT_NE(error("-t -c w.conf", world), "") << "a check is strict about warnings, as in nats-server";
}

TEST(Flags, VersionAndHelp) {
  for (const char* line : {"-v", "--version", "version", "VERSION", "-p 1 -v"}) {
    EXPECT_EQ(command(words(line))->kind, Command::Kind::kVersion) << line;
  }
  for (const char* line : {"-h", "--help", "help", "-c gone -h"})
    EXPECT_EQ(command(words(line))->kind, Command::Kind::kHelp) << line;
  EXPECT_EQ(command({"-help_tls"})->kind, Command::Kind::kHelpTls);
  EXPECT_EQ(version_text("nats-server").substr(0, 14), "nats-server: v");
  EXPECT_NE(version_text("peregrine").find("nats-server v"), std::string::npos);
  const std::string help = help_text("nats-server");
  for (const char* flag : {"--port", "--addr", "--client_advertise", "--ports_file_dir", "--signal", "--shards",
                           "--backend", "--routes", "-DVV"}) {
    EXPECT_NE(help.find(flag), std::string::npos) << flag;
  }
}

TEST(Flags, Signals) {
  World world;
  world.files["/run/pid"] = "4711\n";
  const auto parsed = [&](const char* line) {
    const Result<Command> read = command(words(line), world);
    if (!read) return read.error();
    EXPECT_EQ(read->kind, Command::Kind::kSignal);
    return read->signal + " " + read->signal_target;
  };
  EXPECT_EQ(parsed("--signal ldm=123"), "ldm 123");
  EXPECT_EQ(parsed("--signal=reload"), "reload ");
  EXPECT_EQ(parsed("-sl stop=/run/pid"), "stop 4711");
  EXPECT_EQ(parsed("-sl quit=12*"), "quit 12*");
  EXPECT_EQ(parsed("-sl foo"), "nats-server: unknown signal \"foo\"");
  EXPECT_EQ(parsed("-sl term=abc"), "nats-server: invalid pid: abc");
  EXPECT_EQ(parsed("-sl term=1=2"), "nats-server: invalid signal parameters: [2]");
}

TEST(Flags, Cluster) {
  EXPECT_EQ(error("-routes nats://a:1"), "nats-server: solicited routes require cluster capabilities, e.g. --cluster");
  const Cluster cluster =
      command({"-cluster", "nats://0.0.0.0:6222", "-routes", "nats://a:6222,nats-route://u:p@b:6222", "-m", "8222"})
          ->options.cluster;
  EXPECT_TRUE(cluster.defined);
  EXPECT_EQ(cluster.host, "0.0.0.0");
  EXPECT_EQ(cluster.port, 6222);
  ASSERT_EQ(cluster.routes.size(), 2U);
  EXPECT_EQ(cluster.routes[1], (Url{"nats-route", "u", "p", "b", 6222, ""}));
  EXPECT_EQ(command({"--cluster_listen", "nats-route://u:p@h:-1"})->options.cluster.authorization.password, "p");
  EXPECT_EQ(error("-cluster nats://u@h:1"), "nats-server: expected cluster password to be set");
  EXPECT_EQ(error("-cluster nats://h"), "nats-server: address h: missing port in address");
  EXPECT_EQ(error("-cluster h"), "nats-server: error parsing cluster url [\"h\"]");
  EXPECT_EQ(error("-cluster nats://h:1 -routes x"), "nats-server: error parsing route url [\"x\"]");
  EXPECT_EQ(command({"-cluster", ""})->options.cluster, Cluster{}) << "empty removes clustering";
  EXPECT_EQ(command({"-cluster", "", "-routes", ""})->options, Options{});
  EXPECT_EQ(command({"-cluster_name", "\"c\""})->options.cluster.name, "\"c\"") << "one launcher passes the quotes";
}

TEST(Flags, WhatIsNotBuiltIsRefusedByName) {
  EXPECT_EQ(error("-js"), "nats-server: flag -jetstream is not supported by this version yet");
  EXPECT_EQ(error("-js=false"), "");
  EXPECT_EQ(error("-ms 8443"), "nats-server: TLS cert and key required for HTTPS");
  EXPECT_NE(error("--backend dpdk").find("backend: dpdk needs a dpdk section that names a port and its addresses"),
            std::string::npos);
  EXPECT_EQ(error("-profile 1"), "nats-server: flag -profile is not supported by this version yet");
  EXPECT_EQ(error("-tls"), "nats-server: TLS Server certificate must be present and valid");
  EXPECT_EQ(error("-tls -tlscert a"), "nats-server: TLS Server private key must be present and valid");
  EXPECT_EQ(error("-tlsverify -tlscert a -tlskey b -tlscacert c"), "") << "whether there are such files is asked later";
  EXPECT_EQ(error("-tls=false"), "");
}

TEST(Flags, SecretsAreHidden) {
  std::vector<std::string> arguments = {"x",
                                        "-user",
                                        "bob",
                                        "--pass=hunter2",
                                        "-auth",
                                        "t0ken",
                                        "-p",
                                        "1",
                                        "-routes",
                                        "nats://u:p@a:1,nats://b:2",
                                        "--cluster=nats://c:d@h:1",
                                        "-D"};
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  hide_secrets(static_cast<int>(argv.size()), argv.data());
  EXPECT_EQ(arguments,
            (std::vector<std::string>{"x", "-user", "***", "--pass=*******", "-auth", "*****", "-p", "1", "-routes",
                                      "nats://***@a:1,nats://b:2", "--cluster=nats://***@h:1", "-D"}));
}

}  // namespace
}  // namespace peregrine::config::test
