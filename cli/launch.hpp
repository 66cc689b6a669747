// Starting a server once more, as it was started, and looking after what comes of it.
#pragma once

#include "cli/command.hpp"
#include "core/owned_fd.hpp"
#include "core/result.hpp"
#include "core/start.hpp"

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace continuity::cli {

// Where what a run writes goes to: a file of the predecessor's if that writes to one, or else
// a new one, in which the reason of a failure can be looked up.
class Output {
 public:
  // Nothing, and said: there is no place for it.
  static std::optional<Output> make(const std::string& name, pid_t predecessor);
  [[nodiscard]] int standard_output() const { return out_.get(); }
  [[nodiscard]] int standard_error() const { return error_.get(); }
  // The last lines that came since.
  [[nodiscard]] std::string last_lines() const;
  // Its path, if it is a new one.
  [[nodiscard]] const std::string& path() const { return path_; }
  // A new file is of no use to anybody any more.
  void remove();

 private:
  OwnedFd out_;
  OwnedFd error_;
  std::string path_{};
  std::string read_from_{};
  off_t begin_ = 0;
};

// What a run wrote last, on standard error.
void show_last_lines(const Output& output);

// A server that was started by this process: it, what it has started, and what it left
// behind as a daemon, which come to this process when their parent ends.
class Run {
 public:
  // In a session of its own, with nothing of this process's but `output`.
  static Result<Run> start(const Start& start, const Output& output);

  [[nodiscard]] pid_t pid() const { return pid_; }
  // Waits for those that have ended. False: none is left.
  bool is_running();
  // How the first process has ended: "exited with status 1"; empty: it has not.
  [[nodiscard]] const std::string& how_it_ended() const { return how_it_ended_; }
  // Whether the process belongs to it, or did when it was last asked.
  bool has(pid_t process);
  // Tells all of it to end, and waits for that; in the end they are killed.
  void end();

 private:
  explicit Run(pid_t pid) : pid_(pid), known_{pid} {}

  pid_t pid_;
  std::string how_it_ended_{};
  std::set<pid_t> known_;
};

// Why a process that is started from here would not be the server's successor: another
// user, network or systemd unit. Empty: it can.
std::string why_not_from_here(pid_t server, const Start& start);

// The unit of systemd's that such a text of /proc/PID/cgroup names last; empty: none.
std::string unit_of(std::string_view cgroup);

// Puts "NAME=value" into the environment, or takes it out.
void set_variable(std::vector<std::string>& environment, const std::string& variable);
void remove_variable(std::vector<std::string>& environment, std::string_view name);

}  // namespace continuity::cli
