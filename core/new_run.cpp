#include "core/new_run.hpp"

#include "core/log.hpp"
#include "core/options.hpp"
#include "core/proc_text.hpp"
#include "core/processes.hpp"

#include <csignal>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace continuity {

CommandLine own_command_line(const Sys& sys, int proc) {
  CommandLine command;
  command.program = read_link(sys, proc, "self/exe");
  command.arguments = split_at_zeros(read_proc(sys, proc, "self/cmdline"));
  return command;
}

Result<NewRun> NewRun::start(const Sys& sys, const CommandLine& command) {
  std::vector<char*> arguments;
  for (const std::string& argument : command.arguments) {
    arguments.push_back(const_cast<char*>(argument.c_str()));  // NOLINT: execve does not write
  }
  arguments.push_back(nullptr);
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_init(&actions);
  sigset_t none;
  sigset_t usual;
  ::sigemptyset(&none);
  ::sigemptyset(&usual);
  ::sigaddset(&usual, SIGPIPE);  // servers ignore it, and exec would leave it so
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &usual);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  pid_t pid = -1;
  const int code = ::posix_spawnp(&pid, command.program.c_str(), &actions, &attributes,
                                  arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (code != 0) {
    return Error{"start a new run", code};
  }
  return NewRun(pid, OwnedFd(sys, sys.pidfd_open(pid, 0)));
}

void NewRun::reap() {
  int status = 0;
  const pid_t reaped = ::waitpid(pid_, &status, WNOHANG);
  if (reaped == 0) {
    return;
  }
  end_.reset();
  if (reaped != pid_) {
    how_it_ended_ = "ended";  // and the program knows how
  } else if (WIFSIGNALED(status)) {
    how_it_ended_ = compose("was ended by {}", signal_name(WTERMSIG(status)));
  } else if (WEXITSTATUS(status) != 0) {
    how_it_ended_ = compose("exited with status {}", WEXITSTATUS(status));
  }
}

}  // namespace continuity
