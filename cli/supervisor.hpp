// The parent of a server that stays in the foreground while runs of the server follow each
// other: what a service manager, a container or a supervisor wants to see. It restarts the
// server when it is told to, starts it again when it has failed, and ends as the server ends.
#pragma once

#include "cli/arrivals.hpp"
#include "cli/command.hpp"
#include "cli/keeper.hpp"
#include "cli/notify.hpp"
#include "cli/server_run.hpp"
#include "core/log.hpp"
#include "core/options.hpp"
#include "core/processes.hpp"

#include <optional>
#include <set>
#include <sys/signalfd.h>

namespace continuity::cli {

struct SupervisorChoices {
  std::vector<std::string> command;
  Nanoseconds start_timeout = 0;  // of a run that is to follow another
  Nanoseconds stop_timeout = 0;
  unsigned again = 5;  // how often in a row it is started again after a failure
  bool keeps = true;   // the listeners, while none of its processes is left
};

// The name, in the abstract namespace, at which the supervisor with this pid is asked to
// restart its server. Pids mean something in one namespace of pids only.
Address control_address(const Sys& sys, pid_t supervisor);

class Supervisor {
 public:
  Supervisor(const Sys& sys, SupervisorChoices choices);
  // Until the server has ended: its status.
  int run();

 private:
  enum class Phase { starting, serving, restarting, pausing, stopping };
  // What a restart comes to, for who has asked for it.
  struct Answer {
    Exit exit;
    std::string sentence;
  };
  struct Run {
    pid_t started = 0;  // whom we have started
    pid_t main = 0;     // our child that leads it: another one where that has become a daemon
    std::uint64_t generation = 0;
  };

  bool prepare();
  void wait_for_something();
  void on_time();
  void on_signals();
  void on_signal(int signal);
  void on_notices();
  void on_control();
  void on_request();
  void on_arrivals();

  void begin_run();
  void on_hangup();
  void request_restart(OwnedFd asker);
  void answer(OwnedFd& asker, const Answer& answer);
  void finish_restart(const Answer& answer);
  void fail_restart(const std::string& why);
  void look_at_start();
  void stop_if_it_serves(const Run& run, std::vector<Server>& all);
  void look_at_restart();
  void note_serving(Run& run, const Server& seen);
  void come_to_serve();
  void forget_stored();
  void keep(Server* serving);
  void reap();
  void on_end(pid_t pid, int status);
  void on_end_of_next(pid_t pid, int status);
  void on_end_in_probation(const std::string& how, int status);
  void on_end_of_server(int status);
  void start_again(const std::string& why, bool has_served);
  void begin_to_stop(int signal);
  void kill_all();
  void end(int status);

  std::vector<Server> look();
  static Server* find(std::vector<Server>& all, std::uint64_t generation);
  Server* find_new(std::vector<Server>& all);
  [[nodiscard]] pid_t child_above(pid_t process) const;
  [[nodiscard]] std::set<pid_t> children() const;
  [[nodiscard]] bool has_unknown_children() const;
  void schedule(Nanoseconds wait) { next_look_ = after(*sys_, wait); }

  const Sys* sys_;
  SupervisorChoices choices_;
  Options options_;
  Log log_;
  OwnedFd proc_;
  Processes processes_;
  Manager manager_;
  ServerNotices notices_;
  std::optional<Rendezvous> rendezvous_;
  std::optional<Arrivals> arrivals_;
  ServerCommand command_;
  Keeper keeper_;
  bool has_stored_ = false;  // the manager has copies
  OwnedFd signals_;
  OwnedFd control_;
  OwnedFd asker_;    // of the restart under way
  OwnedFd request_;  // who has come and not said anything yet
  Nanoseconds request_deadline_ = never;
  Nanoseconds next_stranger_ = 0;  // then one is named again
  Phase phase_ = Phase::starting;
  std::vector<Run> old_;           // those that finish what they have in hand
  std::optional<Run> now_;         // serves
  std::optional<Run> next_;        // is to follow it
  std::string identity_;           // of the server, once it has been seen
  std::set<std::uint64_t> known_;  // generations that were there before `next_`
  bool has_arrived_ = false;       // somebody else has been announced since
  bool wants_restart_ = false;     // SIGHUP has come when it could not be done
  bool took_over_ = false;         // `next_` serves, and is on probation
  bool server_is_ready_ = false;   // it has said so itself
  bool announced_ = false;         // READY=1 has been said
  unsigned failures_ = 0;          // in a row
  Nanoseconds began_ = 0;          // of the phase
  Nanoseconds deadline_ = never;   // of the phase
  Nanoseconds next_look_ = never;
  bool killed_ = false;
  int last_status_ = 0;  // of the server, as a shell has it
  bool ended_ = false;
};

}  // namespace continuity::cli
