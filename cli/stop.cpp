// continuity stop: the deliberate end of a server, all its generations.
#include "cli/describe.hpp"
#include "core/options.hpp"
#include "core/processes.hpp"

#include <algorithm>
#include <csignal>
#include <memory>

namespace continuity::cli {
namespace {

struct Ending {
  pid_t pid = 0;
  OwnedFd process{};  // a pidfd: a number may be somebody else's by now
};

bool has_ended(const Ending& ending) {
  pollfd entry{.fd = ending.process.get(), .events = POLLIN, .revents = 0};
  const timespec at_once{};
  return !ending.process.is_open() || libc_sys().ppoll(&entry, 1, &at_once) > 0;
}

// A signal of its choice, which counts as an end on purpose: nobody comes back for it.
int stop_signal_of(Server& server) {
  const auto start = server.start();
  const int chosen = start ? options_of(start->environment).stop_signal : SIGTERM;
  return chosen == 0 ? SIGTERM : chosen;
}

// A predecessor that is on probation, or gives what it has to a successor.
bool can_come_back(const Server& server) {
  return server.answer == Server::Answer::report && !server.serves();
}

// Who could take everything back first, so that there is nobody who does; then who starts
// up, so that it does not take over from one that is about to end; and last who serves.
void put_in_order(std::vector<Server>& servers) {
  const auto rank = [](const Server& one) {
    return can_come_back(one) ? 0 : one.report.phase == ReportedPhase::starting ? 1 : 2;
  };
  std::stable_sort(servers.begin(), servers.end(),
                   [&](const Server& one, const Server& other) { return rank(one) < rank(other); });
}

// Those that have been told to end.
class Endings {
 public:
  Exit end(const Server& server, pid_t pid, int signal) {
    Ending ending{.pid = pid, .process = OwnedFd(libc_sys(), libc_sys().pidfd_open(pid, 0))};
    // Root could be told to end anybody's.
    if (server.answer == Server::Answer::report && !server.is_trusted() &&
        processes_.user_of(pid) != server.sender.uid) {
      return complain(Exit::failed,
                      compose("pid {} is not user {}'s; it is let be", pid, server.sender.uid));
    }
    if (ending.process.is_open() &&
        libc_sys().pidfd_send_signal(ending.process.get(), signal) != 0 && errno != ESRCH) {
      return complain(Exit::failed, compose("pid {}: {}", pid, error_text(errno)));
    }
    all_.push_back(std::move(ending));
    return Exit::done;
  }

  void await(Nanoseconds until, Nanoseconds pause) const {
    while (!std::all_of(all_.begin(), all_.end(), has_ended) && now(libc_sys()) < until) {
      pause_for(libc_sys(), pause);
    }
  }

  // Those that have ended, or have not.
  [[nodiscard]] std::vector<pid_t> that_have(bool ended) const {
    std::vector<pid_t> found;
    for (const Ending& ending : all_) {
      if (has_ended(ending) == ended) {
        found.push_back(ending.pid);
      }
    }
    return found;
  }

 private:
  OwnedFd proc_ = open_proc(libc_sys());
  Processes processes_{libc_sys(), proc_.get()};
  std::vector<Ending> all_;
};

struct Arguments {
  std::string name;
  Nanoseconds timeout = 30 * second;
  bool as_json = false;
};

// Each is told once; how it went is known of all at the end.
Exit tell_and_wait(std::vector<Server>& servers, Nanoseconds timeout, Endings& endings) {
  put_in_order(servers);
  const Nanoseconds deadline = after(libc_sys(), timeout);
  for (Server& server : servers) {
    // A successor that is starting is not at the rendezvous yet.
    if (server.report.phase == ReportedPhase::granted && server.report.rival_pid > 1) {
      if (const Exit exit = endings.end(server, server.report.rival_pid, SIGTERM);
          exit != Exit::done) {
        return exit;
      }
    }
    // Those before are given a moment: of who ends in their sight they know that it was meant
    // to, but not where the kernel is slow to say how it ended.
    if (!can_come_back(server)) {
      endings.await(std::min(deadline, after(libc_sys(), second)), millisecond);
    }
    if (const Exit exit = endings.end(server, server.pid, stop_signal_of(server));
        exit != Exit::done) {
      return exit;
    }
  }
  endings.await(deadline, 5 * millisecond);
  std::string left;
  for (const pid_t pid : endings.that_have(false)) {
    left += (left.empty() ? "pid " : ", pid ") + std::to_string(pid);
  }
  return left.empty() ? Exit::done
                      : complain(Exit::timed_out,
                                 compose("{} still there after {} s", left, in_seconds(timeout)));
}

Exit stop(const Arguments& given) {
  std::vector<Server> servers;
  if (const Exit exit = find_named(given.name, servers); exit != Exit::done) {
    return exit;
  }
  Endings endings;
  const Exit exit = tell_and_wait(servers, given.timeout, endings);
  if (given.as_json) {
    print_json(Json{{"ended", endings.that_have(true)}, {"left", endings.that_have(false)}});
  } else if (exit == Exit::done) {
    print_lines(compose("{} has ended\n", given.name));
  }
  return exit;
}

}  // namespace

void add_stop(CLI::App& application, Exit& exit) {
  Command command(application, "stop", "End a server, all its generations");
  auto given = std::make_shared<Arguments>();
  command.add_text("NAME", given->name, "what it is called, or a pid", Command::Need::yes);
  command.add_duration("--timeout", given->timeout, "how long to wait for that (30s)");
  command.add_flag("--json", given->as_json, "as JSON");
  command.on_call([given, &exit] { exit = stop(*given); });
}

}  // namespace continuity::cli
