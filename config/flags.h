// The command line: nats-server's flags and ours, in Go's flag syntax -> what to do, with which Options.
//
// Syntax: one or two dashes, `-x value` or `-x=value`; a boolean is `-x` or `-x=false`, never two words; the first bare
// word ends the flags and must be `version` or `help`. Options are merged defaults <- file <- flags and checked as a
// whole.
//
// The syntax is rewritten into CLI11's (which knows no -DV or -ms), and CLI11 does the rest. No side effects beyond
// reading the file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/options.h"
#include "config/parser.h"
#include "config/result.h"
#include "config/validate.h"

namespace peregrine::config {

struct Command {
  enum class Kind {
    kRun,
    kVersion,      // print version_text()
    kHelp,         // print help_text()
    kHelpTls,      // print help_tls_text()
    kCheckConfig,  // -t, and the file is fine: print `report` to stderr, exit 0
    kSignal,       // send `signal` to `signal_target`, exit
  };
  Kind kind = Kind::kRun;
  std::string program;  // basename of argv[0]: peregrine, or nats-server through a link
  Options options;
  std::vector<std::string> warnings;  // lines for stderr; they stop nothing
  std::string report;
  std::string signal;         // ldm stop quit term reopen reload
  std::string signal_target;  // a pid, a pid prefix ending in '*', or empty: the only process of this program
};

// The error is complete text for stderr (it names the program where nats-server would), and the exit code is 1.
// `more`: see load.h.
Result<Command> parse_command_line(int argc, const char* const* argv, const Sources& sources,
                                   const MoreChecks& more = nullptr);
Result<Command> parse_command_line(int argc, const char* const* argv);

std::string help_text(std::string_view program);
std::string help_tls_text();
// `nats-server: v2.15.1` under that name; under our own both our version and nats-server's level.
std::string version_text(std::string_view program);

// Overwrites passwords, tokens and URL credentials in argv with '*', so that a process list does not show them. After
// parsing.
void hide_secrets(int argc, char** argv);

}  // namespace peregrine::config
