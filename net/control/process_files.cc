#include "net/control/process_files.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "net/socket.h"

namespace peregrine::net::control {
namespace {

// Returns 0 or errno.
int write_at(const std::string& path, const std::string& content, mode_t mode) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) return errno;
  const ssize_t n = write(fd, content.data(), content.size());
  const int error = n < 0 ? errno : n != static_cast<ssize_t>(content.size()) ? ENOSPC : 0;
  const int closed = close(fd) == 0 ? 0 : errno;
  return error != 0 ? error : closed;
}

std::string write_file(const std::string& path, const std::string& content, mode_t mode) {
  struct stat status {};
  // A device or a link somebody put there on purpose is written to, not replaced.
  const bool replaceable = lstat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode);
  int error = EACCES;
  if (replaceable) {
    const size_t slash = path.rfind('/') + 1;  // npos + 1 = 0
    const std::string beside = fmt::format("{}.{}.{}.new", path.substr(0, slash), path.substr(slash), getpid());
    error = write_at(beside, content, mode);
    if (error == 0 && rename(beside.c_str(), path.c_str()) != 0) error = errno;
    if (error != 0) unlink(beside.c_str());
  }
  // A file prepared for us in a directory which is not ours.
  if (error == EACCES || error == EPERM) error = write_at(path, content, mode);
  return error == 0 ? "" : fmt::format("open {}: {}", path, errno_text(error));
}

std::string url(std::string_view scheme, const std::string& host, int port) {
  return host.find(':') == std::string::npos ? fmt::format("{}://{}:{}", scheme, host, port)
                                             : fmt::format("{}://[{}]:{}", scheme, host, port);
}

}  // namespace

std::string write_pid_file(const std::string& path) { return write_file(path, std::to_string(getpid()), 0600); }

std::vector<std::string> listener_urls(std::string_view scheme, const std::string& host, int port) {
  in_addr v4{};
  in6_addr v6{};
  const bool any_v4 = host.empty() || (inet_pton(AF_INET, host.c_str(), &v4) == 1 && v4.s_addr == INADDR_ANY);
  const bool any_v6 = inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6);
  if (!any_v4 && !any_v6) return {url(scheme, host, port)};
  std::vector<std::string> urls;
  for (const std::string& address : interface_addresses()) urls.push_back(url(scheme, address, port));
  if (urls.empty()) urls.push_back(url(scheme, host, port));
  return urls;
}

std::string ports_file_path(const std::string& directory, std::string_view executable) {
  const std::string_view name = executable.substr(executable.rfind('/') + 1);
  return fmt::format("{}{}{}_{}.ports", directory, directory.ends_with('/') ? "" : "/", name, getpid());
}

std::string write_ports_file(const std::string& path, const Ports& ports) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  const auto add = [&json](const char* key, const std::vector<std::string>& urls) {
    if (!urls.empty()) json[key] = urls;
  };
  add("nats", ports.nats);
  add("monitoring", ports.monitoring);
  add("cluster", ports.cluster);
  add("profile", ports.profile);
  add("websocket", ports.websocket);
  add("leafnodes", ports.leafnodes);
  return write_file(path, json.dump(), 0666);
}

std::string remove_ports_file(const std::string& path) {
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return fmt::format("remove {}: {}", path, errno_text(errno));
}

}  // namespace peregrine::net::control
