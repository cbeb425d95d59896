// The two files a launcher reads to find us: the pid file and the ports file.
//
// Control thread only. Functions that write return "" or the reason. Both appear whole: they are written beside their
// place and renamed into it, since launchers poll for them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace peregrine::net::control {

// Our pid, decimal, without a newline.
std::string write_pid_file(const std::string& path);

// Where clients and tools reach us, as URLs; empty lists are left out of the file.
struct Ports {
  std::vector<std::string> nats, monitoring, cluster, profile, websocket, leafnodes;
};

// "scheme://host:port" of a bound listener; for 0.0.0.0 and :: one per address of this machine's interfaces.
std::vector<std::string> listener_urls(std::string_view scheme, const std::string& host, int port);

// <directory>/<last part of `executable` as we were called>_<pid>.ports; launchers know us by argv[0], not by the real
// file.
std::string ports_file_path(const std::string& directory, std::string_view executable);

std::string write_ports_file(const std::string& path, const Ports& ports);

// At shutdown. Returns "" also when the file has gone already.
std::string remove_ports_file(const std::string& path);

}  // namespace peregrine::net::control
