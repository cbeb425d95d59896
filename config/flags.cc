#include "config/flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstring>
#include <functional>
#include <map>
#include <optional>

#include "config/characters.h"
#include "config/keys.h"
#include "config/load.h"
#include "config/url.h"
#include "config/validate.h"

#ifndef PEREGRINE_VERSION
#define PEREGRINE_VERSION "0.0.0"
#endif
#ifndef PEREGRINE_NATS_LEVEL
#define PEREGRINE_NATS_LEVEL "0.0.0"
#endif

namespace peregrine::config {
namespace {

enum class Takes { kNothing, kNumber, kText };

// Everything the flags say. Each is applied after the file, in the order of the table.
struct Merge {
  Options options;
  std::vector<std::string> errors;
  std::vector<std::string> refused;  // flags this version has not built, as they are called in the table
  bool tls_off = false;
  bool tls_given = false;
  bool routes_given = false;
};

struct Flag {
  std::vector<std::string> names;  // as typed, without dashes
  Takes takes = Takes::kText;
  std::string placeholder;
  std::string doc;
  // Either an option of the key table of that name...
  std::string option;
  // ... or something of its own.
  std::function<void(Merge&, const std::string& value)> apply = nullptr;
};

struct Group {
  std::string title;
  std::vector<Flag> flags;
};

bool is_true(const std::string& value) { return value == "true"; }

std::vector<std::string> split_commas(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    std::string part(text.substr(0, comma));
    part.erase(0, part.find_first_not_of(' ') == std::string::npos ? part.size() : part.find_first_not_of(' '));
    if (!part.empty()) out.push_back(std::move(part));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  return out;
}

std::vector<Url> read_url_list(Merge& merge, const std::string& text, std::string_view what) {
  std::vector<Url> urls;
  for (const std::string& part : split_commas(text)) {
    Result<Url> url = parse_url(part, what);
    if (url) urls.push_back(std::move(*url));
    else merge.errors.push_back(url.error());
  }
  return urls;
}

void apply_cluster(Merge& merge, const std::string& value) {
  Cluster& cluster = merge.options.cluster;
  if (value.empty()) {  // no clustering, whatever the file says
    cluster = {};
    return;
  }
  const Result<Url> url = parse_url(value, "cluster");
  if (!url) {
    merge.errors.push_back(url.error());
    return;
  }
  if (url->port == 0) {
    merge.errors.push_back(fmt::format("address {}: missing port in address", url->host));
    return;
  }
  if (!url->user.empty() && url->password.empty()) {
    merge.errors.push_back("expected cluster password to be set");
    return;
  }
  cluster.defined = true;
  cluster.host = url->host;
  cluster.port = url->port;
  cluster.authorization.user = url->user;
  cluster.authorization.password = url->password;
  if (!is_built("cluster")) merge.refused.push_back("cluster");
}

void apply_routes(Merge& merge, const std::string& value) {
  merge.options.cluster.routes = read_url_list(merge, value, "route");
  merge.routes_given = !value.empty();
}

void apply_leafnode(Merge& merge, const std::string& value) {
  std::vector<Url> urls = read_url_list(merge, value, "leafnode");
  if (urls.empty()) return;
  RemoteLeaf& remote = merge.options.leafnodes.remotes.emplace_back();
  remote.urls = std::move(urls);
  merge.options.leafnodes.defined = true;
  if (!is_built("leafnodes")) merge.refused.push_back("leafnode");
}

std::function<void(Merge&, const std::string&)> tls_file(std::string Tls::*field) {
  return [field](Merge& merge, const std::string& value) {
    if (!merge.options.tls) merge.options.tls.emplace();
    (*merge.options.tls).*field = value;
    merge.tls_given = true;
  };
}

void apply_tls(Merge& merge, const std::string& value) {
  if (is_true(value)) merge.tls_given = true;
  else merge.tls_off = true;
}

void apply_tlsverify(Merge& merge, const std::string& value) {
  if (!merge.options.tls) merge.options.tls.emplace();
  merge.options.tls->verify = is_true(value);
  merge.tls_given = true;
}

void set_trace(Merge& merge, const std::string& value, bool debug, bool verbose) {
  merge.options.trace = is_true(value);
  if (debug) merge.options.debug = is_true(value);
  if (verbose) merge.options.trace_verbose = is_true(value);
}

// Flags that decide what to do at all are looked at before anything is merged.
void decided_before(Merge&, const std::string&) {}

void apply_dv(Merge& merge, const std::string& value) { set_trace(merge, value, true, false); }
void apply_dvv(Merge& merge, const std::string& value) { set_trace(merge, value, true, true); }
void apply_vv(Merge& merge, const std::string& value) { set_trace(merge, value, false, true); }
void apply_user(Merge& merge, const std::string& value) { merge.options.authorization.user = value; }
void apply_pass(Merge& merge, const std::string& value) { merge.options.authorization.password = value; }
void apply_auth(Merge& merge, const std::string& value) { merge.options.authorization.token = value; }
void apply_cluster_name(Merge& merge, const std::string& value) { merge.options.cluster.name = value; }
void apply_cluster_advertise(Merge& merge, const std::string& value) { merge.options.cluster.advertise = value; }
void apply_no_advertise(Merge& merge, const std::string& value) { merge.options.cluster.no_advertise = is_true(value); }
void apply_connect_retries(Merge& merge, const std::string& value) {
  merge.options.cluster.connect_retries = static_cast<int>(std::strtol(value.c_str(), nullptr, 0));
}

// Applied top to bottom: a combination such as -DV comes after what it combines.
const std::vector<Group>& groups() {
  using Takes::kNothing;
  using Takes::kNumber;
  using Takes::kText;
  static const std::vector<Group> table = {
      {"Server",
       {
           {{"a", "addr", "net"}, kText, "<host>", "address for clients (0.0.0.0)", "host"},
           {{"p", "port"}, kNumber, "<port>", "port for clients (4222), -1 = random", "port"},
           {{"n", "name", "server_name"}, kText, "<name>", "name of this server (its id)", "server_name"},
           {{"c", "config"},
            kText,
            "<file>",
            "configuration: .yaml or .yml is YAML, anything else NATS's grammar",
            "",
            decided_before},
           {{"t"}, kNothing, "", "check the configuration and exit", "", decided_before},
           {{"m", "http_port"}, kNumber, "<port>", "monitoring over HTTP", "http_port"},
           {{"ms", "https_port"}, kNumber, "<port>", "monitoring over HTTPS", "https_port"},
           {{"P", "pid"}, kText, "<file>", "write the process id to this file", "pid_file"},
           {{"ports_file_dir"}, kText, "<dir>", "write <program>_<pid>.ports to this directory", "ports_file_dir"},
           {{"client_advertise"}, kText, "<host:port>", "address told to clients", "client_advertise"},
           {{"sl", "signal"},
            kText,
            "<word[=pid]>",
            "ldm stop quit term reopen reload, to a pid or pid file",
            "",
            decided_before},
       }},
      {"Logging",
       {
           {{"l", "log"}, kText, "<file>", "log to this file", "log_file"},
           {{"log_size_limit"}, kNumber, "<bytes>", "begin a new log file at this size", "logfile_size_limit"},
           {{"T", "logtime"}, kNothing, "", "time in front of every line (true)", "logtime"},
           {{"logtime_utc"}, kNothing, "", "in UTC", "logtime_utc"},
           {{"s", "syslog"}, kNothing, "", "log to syslog", "syslog"},
           {{"r", "remote_syslog"}, kText, "<address>", "syslog at udp://host:port", "remote_syslog"},
           {{"D", "debug"}, kNothing, "", "debug lines", "debug"},
           {{"V", "trace"}, kNothing, "", "trace the protocol", "trace"},
           {{"DV"}, kNothing, "", "both", "", apply_dv},
           {{"DVV"}, kNothing, "", "both, with the system account", "", apply_dvv},
           {{"VV"}, kNothing, "", "trace with the system account", "", apply_vv},
           {{"max_traced_msg_len"}, kNumber, "<bytes>", "show no more of a traced message", "max_traced_msg_len"},
       }},
      {"Authorization",
       {
           {{"user"}, kText, "<user>", "user that clients must name", "", apply_user},
           {{"pass"}, kText, "<password>", "and its password", "", apply_pass},
           {{"auth"}, kText, "<token>", "token that clients must show", "", apply_auth},
       }},
      {"TLS",
       {
           {{"tls"}, kNothing, "", "encrypt client connections", "", apply_tls},
           {{"tlscert"}, kText, "<file>", "certificate", "", tls_file(&Tls::cert_file)},
           {{"tlskey"}, kText, "<file>", "its private key", "", tls_file(&Tls::key_file)},
           {{"tlscacert"},
            kText,
            "<file>",
            "authority that clients' certificates come from",
            "",
            tls_file(&Tls::ca_file)},
           {{"tlsverify"}, kNothing, "", "clients must have one", "", apply_tlsverify},
       }},
      {"Cluster",
       {
           {{"cluster", "cluster_listen"}, kText, "<url>", "listen for routes", "", apply_cluster},
           {{"routes"}, kText, "<url,url>", "connect to these servers", "", apply_routes},
           {{"cluster_name"}, kText, "<name>", "name of the cluster", "", apply_cluster_name},
           {{"cluster_advertise"}, kText, "<host:port>", "address told to other servers", "", apply_cluster_advertise},
           {{"no_advertise"}, kNothing, "", "do not tell clients about other servers", "", apply_no_advertise},
           {{"connect_retries"}, kNumber, "<n>", "retries of routes learnt from others", "", apply_connect_retries},
       }},
      {"JetStream",
       {
           {{"js", "jetstream"}, kNothing, "", "streams", "jetstream"},
           {{"sd", "store_dir"}, kText, "<dir>", "their directory", "store_dir"},
       }},
      {"Peregrine",
       {
           {{"shards"}, kText, "<n|auto>", "number of shards (one per CPU)", "shards"},
           {{"cores"}, kText, "<n,n>", "CPUs to pin them to", "cores"},
           {{"backend"}, kText, "<name>", "auto, uring or epoll", "backend"},
           {{"idle"}, kText, "<how>", "adaptive, spin or park", "idle"},
           {{"leafnode"}, kText, "<url,url>", "connect to a hub as a leaf node", "", apply_leafnode},
       }},
      {"Common",
       {
           {{"h", "help"}, kNothing, "", "this page", "", decided_before},
           {{"help_tls"}, kNothing, "", "about TLS", "", decided_before},
           {{"v", "version"}, kNothing, "", "version", "", decided_before},
           {{"profile"}, kNumber, "<port>", "Go profiling in nats-server", "prof_port"},
       }},
  };
  return table;
}

const Flag* find_flag(std::string_view name) {
  for (const Group& group : groups()) {
    for (const Flag& flag : group.flags) {
      if (std::find(flag.names.begin(), flag.names.end(), name) != flag.names.end()) return &flag;
    }
  }
  return nullptr;
}

// Go's strconv.ParseBool.
std::optional<bool> parse_go_bool(std::string_view text) {
  for (const std::string_view yes : {"1", "t", "T", "true", "TRUE", "True"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"0", "f", "F", "false", "FALSE", "False"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

// Go's flag syntax -> CLI11's. The given flags, in CLI11's spelling and reversed as it wants them.
struct Normalised {
  std::vector<std::string> arguments;
  std::string bare_word;  // what ended the flags
};

Result<Normalised> normalise(int argc, const char* const* argv) {
  Normalised out;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--") {
      if (i + 1 < argc) out.bare_word = argv[i + 1];
      break;
    }
    if (argument.size() < 2 || argument[0] != '-') {
      out.bare_word = argument;
      break;
    }
    std::string_view name = argument.substr(argument[1] == '-' ? 2 : 1);
    if (name.empty() || name[0] == '-' || name[0] == '=') return Error{fmt::format("bad flag syntax: {}", argument)};
    std::optional<std::string> value;
    const std::size_t equals = name.find('=');
    if (equals != std::string_view::npos) {
      value = std::string(name.substr(equals + 1));
      name = name.substr(0, equals);
    }
    const Flag* flag = find_flag(name);
    if (flag == nullptr) {
      std::vector<std::string_view> known;
      for (const Group& group : groups()) {
        for (const Flag& row : group.flags) {
          for (const std::string& word : row.names) {
            if (word.size() > 2) known.push_back(word);
          }
        }
      }
      const std::string hint = nearest(name, known);
      return Error{fmt::format("flag provided but not defined: -{}{}", name,
                               hint.empty() ? "" : fmt::format(", did you mean -{}?", hint))};
    }
    if (flag->takes == Takes::kNothing) {
      const std::optional<bool> on = parse_go_bool(value.value_or("true"));
      if (!on) return Error{fmt::format("invalid boolean value \"{}\" for -{}: parse error", *value, name)};
      value = *on ? "true" : "false";
    } else if (!value) {
      if (i + 1 >= argc) return Error{fmt::format("flag needs an argument: -{}", name)};
      value = argv[++i];
    }
    if (flag->takes == Takes::kNumber) {
      char* end = nullptr;
      errno = 0;
      (void)std::strtoll(value->c_str(), &end, 0);
      if (value->empty() || *end != '\0' || std::isspace(static_cast<unsigned char>((*value)[0]))) {
        return Error{fmt::format("invalid value \"{}\" for flag -{}: parse error", *value, name)};
      }
      if (errno == ERANGE)
        return Error{fmt::format("invalid value \"{}\" for flag -{}: value out of range", *value, name)};
    }
    // "--x=" would make CLI11 take the next argument, and "--x" "-1" would make it see a flag.
    if (value->empty()) {
      out.arguments.push_back(fmt::format("--{}", flag->names[0]));
      out.arguments.push_back("");
    } else {
      out.arguments.push_back(fmt::format("--{}={}", flag->names[0], *value));
    }
  }
  std::reverse(out.arguments.begin(), out.arguments.end());
  return out;
}

// CLI11 with one option per row; the last of several equal flags wins.
using Given = std::map<const Flag*, std::string>;

Result<Given> parse_with_cli11(std::vector<std::string> arguments) {
  CLI::App app;
  app.set_help_flag();  // ours looks like nats-server's
  Given given;
  for (const Group& group : groups()) {
    for (const Flag& flag : group.flags) {
      app.add_option_function<std::string>("--" + flag.names[0],
                                           [&given, &flag](const std::string& value) { given[&flag] = value; })
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
          ->allow_extra_args(false);
    }
  }
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    return Error{error.what()};
  }
  return given;
}

void apply_option(Merge& merge, const Flag& flag, const std::string& text) {
  const Key* key = options_section().find(flag.option);
  Value value;
  value.kind = Value::Kind::kString;
  value.text = text;
  std::int64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool numeric = !text.empty() && code == std::errc{} && end == text.data() + text.size();
  if (flag.takes == Takes::kNothing) {
    value.kind = Value::Kind::kBool;
    value.boolean = is_true(text);
  } else if (flag.takes == Takes::kNumber) {
    value.kind = Value::Kind::kInteger;
    value.integer = std::strtoll(text.c_str(), nullptr, 0);
  } else if (flag.option == "shards" && numeric) {
    value.kind = Value::Kind::kInteger;
    value.integer = number;
  } else if (flag.option == "cores") {
    value.kind = Value::Kind::kArray;
    for (const std::string& part : split_commas(text)) {
      Value item;
      item.kind = Value::Kind::kString;
      item.text = part;
      if (std::from_chars(part.data(), part.data() + part.size(), item.integer).ptr == part.data() + part.size()) {
        item.kind = Value::Kind::kInteger;
      }
      value.items.push_back(std::move(item));
    }
  }
  Binder binder;
  key->bind(binder, &merge.options, value);
  for (const Problem& problem : binder.errors())
    merge.errors.push_back(fmt::format("-{}: {}", flag.names[0], problem.text));

  Value map;
  map.kind = Value::Kind::kMap;
  map.members.push_back({flag.option, value});
  if (unsupported(options_section(), map).empty()) return;
  merge.refused.push_back(key->built ? fmt::format("{} {}", flag.names.back(), text) : flag.names.back());
}

// Checks that need all flags at once.
void apply_tls_and_routes(Merge& merge) {
  if (merge.tls_off) {
    merge.options.tls.reset();
  } else if (merge.tls_given) {
    const Tls tls = merge.options.tls.value_or(Tls{});
    if (tls.cert_file.empty()) merge.errors.push_back("TLS Server certificate must be present and valid");
    else if (tls.key_file.empty()) merge.errors.push_back("TLS Server private key must be present and valid");
    if (!is_built("tls")) merge.refused.push_back("tls");
  }
  if (!merge.routes_given) return;
  if (!merge.options.cluster.defined) {
    merge.errors.push_back("solicited routes require cluster capabilities, e.g. --cluster");
  } else if (!is_built("cluster")) {
    merge.refused.push_back("routes");
  }
}

std::string base_name(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

Result<bool> read_signal(Command& command, const std::string& text, const Sources& sources) {
  const std::size_t equals = text.find('=');
  command.kind = Command::Kind::kSignal;
  command.signal = text.substr(0, equals);
  static constexpr std::string_view kWords[] = {"ldm", "stop", "quit", "term", "reopen", "reload"};
  if (std::find(std::begin(kWords), std::end(kWords), command.signal) == std::end(kWords)) {
    return Error{fmt::format("unknown signal \"{}\"", command.signal)};
  }
  if (equals == std::string::npos) return true;
  command.signal_target = text.substr(equals + 1);
  if (command.signal_target.find('=') != std::string::npos) {
    return Error{fmt::format("invalid signal parameters: [{}]",
                             command.signal_target.substr(command.signal_target.find('=') + 1))};
  }
  if (!command.signal_target.empty()) {
    if (const Result<std::string> pid_file = sources.read(command.signal_target)) command.signal_target = *pid_file;
  }
  while (!command.signal_target.empty() && std::isspace(static_cast<unsigned char>(command.signal_target.back()))) {
    command.signal_target.pop_back();
  }
  std::string_view digits = command.signal_target;
  if (!digits.empty() && digits.back() == '*') digits.remove_suffix(1);
  if (digits.find_first_not_of("0123456789") != std::string_view::npos) {
    return Error{fmt::format("invalid pid: {}", digits)};
  }
  return true;
}

}  // namespace

Result<Command> parse_command_line(int argc, const char* const* argv) {
  return parse_command_line(argc, argv, system_sources());
}

Result<Command> parse_command_line(int argc, const char* const* argv, const Sources& sources, const MoreChecks& more) {
  Command command;
  command.program = argc > 0 && argv[0] != nullptr ? base_name(argv[0]) : "peregrine";
  const auto fail = [&](std::string_view text) { return Error{fmt::format("{}: {}", command.program, text)}; };

  Result<Normalised> normalised = normalise(argc, argv);
  if (!normalised) return Error{normalised.error()};
  const Result<Given> given = parse_with_cli11(std::move(normalised->arguments));
  if (!given) return fail(given.error());
  const auto text_of = [&](std::string_view name) {
    const auto found = given->find(find_flag(name));
    return found == given->end() ? std::string() : found->second;
  };

  const std::string word = to_lower(normalised->bare_word);
  if (is_true(text_of("version")) || word == "version") {
    command.kind = Command::Kind::kVersion;
    return command;
  }
  if (is_true(text_of("help")) || word == "help") {
    command.kind = Command::Kind::kHelp;
    return command;
  }
  if (is_true(text_of("help_tls"))) {
    command.kind = Command::Kind::kHelpTls;
    return command;
  }
  if (!word.empty()) return fail(fmt::format("unrecognized command: \"{}\"", normalised->bare_word));
  if (const std::string signal = text_of("signal"); !signal.empty()) {
    const Result<bool> read = read_signal(command, signal, sources);
    if (!read) return fail(read.error());
    return command;
  }

  LoadedFile loaded;
  const bool check = is_true(text_of("t"));
  const std::string file = text_of("config");
  if (!file.empty()) {
    loaded = load_file(file, sources);
    if (check && loaded.errors.empty() && !loaded.warnings.empty()) {
      return fail(to_text(loaded.warnings));  // nats-server's -t is strict
    }
  } else if (check) {
    return fail("must specify [-c, --config] option to check configuration file syntax");
  }

  Merge merge;
  merge.options = loaded.options;
  for (const Group& group : groups()) {
    for (const Flag& flag : group.flags) {
      const auto found = given->find(&flag);
      if (found == given->end()) continue;
      if (flag.option.empty()) flag.apply(merge, found->second);
      else apply_option(merge, flag, found->second);
    }
  }
  apply_tls_and_routes(merge);
  loaded.options = std::move(merge.options);
  if (loaded.errors.empty() && merge.errors.empty()) finish(loaded, more);
  for (std::string& text : merge.errors) loaded.errors.push_back({{}, std::move(text)});
  if (merge.errors.empty()) {
    for (const std::string& name : merge.refused) {
      loaded.errors.push_back({{}, fmt::format("flag -{} is not supported by this version yet", name)});
    }
  }
  if (!loaded.errors.empty()) {
    std::vector<Problem> all = loaded.warnings;
    all.insert(all.end(), loaded.errors.begin(), loaded.errors.end());
    return fail(to_text(all));
  }

  command.options = std::move(loaded.options);
  for (const Problem& warning : loaded.warnings) command.warnings.push_back(warning.to_string());
  if (check) {
    command.kind = Command::Kind::kCheckConfig;
    command.report =
        fmt::format("{}: configuration file {} is valid ({})", command.program, file, command.options.config_digest);
  }
  return command;
}

std::string version_text(std::string_view program) {
  if (program == "nats-server") return fmt::format("{}: v{}", program, PEREGRINE_NATS_LEVEL);
  return fmt::format("{}: v{} (nats-server v{})", program, PEREGRINE_VERSION, PEREGRINE_NATS_LEVEL);
}

std::string help_text(std::string_view program) {
  constexpr int kColumn = 36;
  constexpr std::size_t kWidth = 100;
  const auto dashed = [](const std::string& name) {
    const bool letters = name.size() <= 2 || (name[0] >= 'A' && name[0] <= 'Z');
    return (letters ? "-" : "--") + name;
  };
  const auto needs = [](const Group& group, const Flag& flag) -> std::string {
    if (!flag.option.empty()) return flag.option;
    if (group.title == "TLS") return "tls";
    if (group.title == "Cluster") return "cluster";
    return flag.names[0] == "leafnode" ? "leafnodes" : "";
  };

  std::string out = fmt::format("Usage: {} [options]\n", program);
  std::vector<std::string> later;
  for (const Group& group : groups()) {
    std::string rows;
    for (const Flag& flag : group.flags) {
      const std::string option = needs(group, flag);
      if (!option.empty() && !is_built(option)) {
        later.push_back(dashed(flag.names.back()));
        continue;
      }
      std::string left;
      for (const std::string& name : flag.names) left += (left.empty() ? "" : ", ") + dashed(name);
      if (!flag.placeholder.empty()) left += " " + flag.placeholder;
      rows += fmt::format("  {:<{}} {}\n", left, kColumn, flag.doc);
    }
    if (!rows.empty()) out += fmt::format("\n{}:\n{}", group.title, rows);
  }
  if (later.empty()) return out;
  out += "\nKnown, but not in this version yet:\n ";
  std::size_t column = 1;
  for (const std::string& name : later) {
    if (column + name.size() + 1 > kWidth) {
      out += "\n ";
      column = 1;
    }
    out += " " + name;
    column += name.size() + 1;
  }
  return out + "\n";
}

std::string help_tls_text() {
  return "TLS is configured in a tls section of the configuration file:\n"
         "\n"
         "  tls:\n"
         "    cert_file: server-cert.pem\n"
         "    key_file: server-key.pem\n"
         "    ca_file: ca.pem\n"
         "    verify: true\n"
         "\n"
         "or by --tls --tlscert <file> --tlskey <file> [--tlsverify --tlscacert <file>].\n" +
         std::string(is_built("tls") ? "" : "This version does not support that yet.\n") +
         "\n"
         "Sections of the same kind inside cluster, gateway, gateways[], leafnodes and remotes[] secure the "
         "connections\n"
         "between servers.\n";
}

void hide_secrets(int argc, char** argv) {
  const auto hide = [](char* from, char* to) { std::fill(from, to, '*'); };
  for (int i = 1; i < argc; ++i) {
    std::string_view argument = argv[i];
    if (argument.empty() || argument[0] != '-') continue;
    const std::size_t dashes = argument.size() > 1 && argument[1] == '-' ? 2 : 1;
    const std::size_t equals = argument.find('=');
    const std::string name(argument.substr(dashes, equals == std::string_view::npos ? equals : equals - dashes));
    const Flag* flag = find_flag(name);
    if (flag == nullptr || flag->takes == Takes::kNothing) continue;
    char* value = equals == std::string_view::npos ? (i + 1 < argc ? argv[++i] : nullptr) : argv[i] + equals + 1;
    if (value == nullptr) continue;
    if (name == "user" || name == "pass" || name == "auth") {
      hide(value, value + std::strlen(value));
    } else if (flag->names[0] == "cluster" || name == "routes" || name == "leafnode") {
      // Each URL of the list: what stands between :// and @.
      for (char* part = value; part != nullptr && *part != '\0';) {
        char* end = part + std::strcspn(part, ",");
        char* at = std::find(part, end, '@');
        char* start = std::search(part, at, "://", "://" + 3);
        if (at != end) hide(start == at ? part : start + 3, at);
        part = *end == ',' ? end + 1 : nullptr;
      }
    }
  }
}

}  // namespace peregrine::config
