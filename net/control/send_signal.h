// `--signal command[=pid | pid file | prefix*]`: one process tells another what to do.
//
// Runs on the main thread of a process that does nothing else and then exits.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace peregrine::net::control {

// Commands: stop (KILL), quit (INT), term (TERM), reopen (USR1), reload (HUP), ldm (USR2). Without a pid the only
// running server is meant; with prefix* all whose pid begins with it. Returns "" (exit 0) or nats-server's error text
// (print it, exit 1).
std::string send_signal(std::string_view argument);

// Pids, ascending, of the running servers: processes whose name contains "nats-server" (what pgrep finds) or is
// "peregrine", except ourselves and the dead. The name is the main thread's, so that thread must keep the one it was
// started with.
std::vector<int> running_servers();

}  // namespace peregrine::net::control
