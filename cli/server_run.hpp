// One run of a supervised server: a child in a session of its own, under the library.
#pragma once

#include "core/result.hpp"

#include <csignal>
#include <string>
#include <sys/types.h>
#include <vector>

namespace continuity::cli {

// LD_PRELOAD as a server is to have it: ours, with the library in front if it is not there
// yet, from beside us, from the prefix that we are installed in, or wherever the loader finds
// it by name.
std::string preload_variable();

struct ServerCommand {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // NAME=value, on top of ours; NAME alone: unset
  sigset_t mask{};                       // which signals it starts with
};
// The child's pid, or why it could not be executed.
Result<pid_t> start_server(const ServerCommand& command);

// As a shell has it: what it exited with, or 128 and the signal that ended it.
int exit_status_of(int wait_status);
// An end that somebody has asked for, as in libcontinuity(7): status 0, and TERM, INT, QUIT
// and HUP, whether the kernel or a handler made an end of it.
bool was_asked_to_end(int wait_status);
// "exited with status 3", "was killed by SIGSEGV".
std::string how_it_ended(int wait_status);

}  // namespace continuity::cli
