#include "net/control/send_signal.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/go_format.h"
#include "net/socket.h"

namespace peregrine::net::control {
namespace {

constexpr std::string_view kServerName = "nats-server";
constexpr std::string_view kOwnName = "peregrine";

int signal_number(std::string_view command) {
  if (command == "stop") return SIGKILL;
  if (command == "quit") return SIGINT;
  if (command == "term") return SIGTERM;
  if (command == "reopen") return SIGUSR1;
  if (command == "reload") return SIGHUP;
  if (command == "ldm") return SIGUSR2;
  return 0;
}

bool parse_pid(std::string_view text, int& pid) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  return error == std::errc() && end == text.data() + text.size();
}

// The content of the file called `text`, if there is one; else `text` itself.
std::string maybe_pid_file(const std::string& text) {
  std::error_code error;
  if (text.empty() || !std::filesystem::is_regular_file(text, error)) return text;
  std::ifstream file(text);
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  while (!content.empty() && std::isspace(static_cast<unsigned char>(content.back()))) content.pop_back();
  return content;
}

}  // namespace

std::vector<int> running_servers() {
  std::vector<int> pids;
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    int pid = 0;
    if (!parse_pid(it->path().filename().string(), pid) || pid == getpid()) continue;
    // "pid (name) state ...", and the name may hold anything, parentheses too
    std::string line;
    std::getline(std::ifstream(it->path() / "stat"), line);
    const size_t open = line.find('('), close = line.rfind(')');
    if (open == std::string::npos || close == std::string::npos || close + 2 >= line.size() || line[close + 2] == 'Z')
      continue;
    const std::string_view name = std::string_view(line).substr(open + 1, close - open - 1);
    if (name == kOwnName || name.find(kServerName) != std::string_view::npos) pids.push_back(pid);
  }
  std::sort(pids.begin(), pids.end());
  return pids;
}

std::string send_signal(std::string_view argument) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= argument.size();) {
    const size_t end = std::min(argument.find('=', begin), argument.size());
    parts.emplace_back(argument.substr(begin, end - begin));
    begin = end + 1;
  }
  if (parts.size() > 2) {
    std::string rest;
    for (size_t i = 2; i < parts.size(); ++i) rest += (i > 2 ? " " : "") + parts[i];
    return fmt::format("invalid signal parameters: [{}]", rest);
  }
  const std::string& command = parts[0];
  std::string expression = parts.size() == 2 ? maybe_pid_file(parts[1]) : "";
  const bool glob = expression.ends_with('*');
  if (glob) expression.pop_back();

  std::vector<int> pids(1);
  if (!expression.empty() && (!parse_pid(expression, pids[0]) || pids[0] <= 0)) return "invalid pid: " + expression;
  if (expression.empty() || glob) pids = running_servers();
  if (pids.size() > 1 && !glob) {
    std::string text = fmt::format("multiple {} processes running:", kServerName);
    for (int pid : pids) text += fmt::format("\n{}", pid);
    return text;
  }
  if (pids.empty()) return fmt::format("no {} processes running", kServerName);

  const int number = signal_number(command);
  if (number == 0) return fmt::format("unknown signal {}", core::quote(command));
  std::string errors;
  for (int pid : pids) {
    if (glob && !std::to_string(pid).starts_with(expression)) continue;
    if (kill(pid, number) != 0) {
      errors += fmt::format("\nsignal {} {}: {}", core::quote(command), pid, errno_text(errno));
    }
  }
  return errors;
}

}  // namespace peregrine::net::control
