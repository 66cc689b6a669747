// One run of a supervised server: a child in a session of its own, under the library.
#pragma once

#include "core/result.hpp"

#include <csignal>
#include <functional>
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

// The same of any program: `become` prepares the child and executes it, and comes back only
// where that has failed, with errno saying why.
Result<pid_t> start_process(const std::function<void()>& become);
// As execve wants them; they point into `texts`.
std::vector<char*> as_pointers(const std::vector<std::string>& texts);

// As a shell has it: what it exited with, or 128 and the signal that ended it.
int exit_status_of(int wait_status);
// "exited with status 3", "was killed by SIGSEGV".
std::string how_it_ended(int wait_status);

}  // namespace continuity::cli
