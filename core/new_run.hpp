// A new run of this program, started by itself: as whoever started it would, with nothing
// of ours or of the program's but the environment and the standard descriptors.
#pragma once

#include "core/owned_fd.hpp"
#include "core/result.hpp"

#include <string>
#include <vector>

namespace continuity {

// What this program was started as. Servers write their state over it, and the file that
// it was started from may be another one by the time of the restart: the new version.
struct CommandLine {
  std::string program;
  std::vector<std::string> arguments;
};
CommandLine own_command_line(const Sys& sys, int proc);

class NewRun {
 public:
  // Descriptors above standard error are closed in it, no signal is blocked.
  static Result<NewRun> start(const Sys& sys, const CommandLine& command);

  [[nodiscard]] pid_t pid() const { return pid_; }
  // Readable when it has ended. -1: that is known.
  [[nodiscard]] int end() const { return end_.get(); }
  // Takes notice of its end, if it has ended; the program may have been faster.
  void reap();
  [[nodiscard]] bool has_failed() const { return !how_it_ended_.empty(); }
  // "exited with status 3"; empty: it lives, or has ended well (it may be a daemon).
  [[nodiscard]] const std::string& how_it_ended() const { return how_it_ended_; }

 private:
  NewRun(pid_t pid, OwnedFd end) : pid_(pid), end_(std::move(end)) {}

  pid_t pid_;
  OwnedFd end_;
  std::string how_it_ended_;
};

}  // namespace continuity
