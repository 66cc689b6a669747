// continuity supervise, and continuity reload, which asks it for a restart.
#include "cli/command.hpp"
#include "cli/describe.hpp"
#include "cli/output.hpp"
#include "cli/supervisor.hpp"
#include "core/proc_text.hpp"

#include <array>
#include <memory>

namespace continuity::cli {
namespace {

Exit reload(pid_t supervisor) {
  const Sys& sys = libc_sys();
  const Address name = control_address(sys, supervisor);
  Channel channel(sys, OwnedFd(sys, sys.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  if (!channel.is_open()) {
    return complain(Exit::system, "no socket can be made");
  }
  if (sys.connect(channel.fd(), name.get(), name.length) != 0) {
    return complain(Exit::unknown, compose("pid {} is no continuity supervise", supervisor));
  }
  // Anybody can take a name in the abstract namespace.
  const auto peer = channel.peer();
  if (!peer || peer->pid != supervisor ||
      (peer->uid != sys.geteuid() && peer->uid != 0 && sys.geteuid() != 0)) {
    return complain(Exit::failed, compose("somebody else answers for pid {}", supervisor));
  }
  constexpr std::string_view request = "restart";
  std::array<char, 4096> answer{};
  ssize_t size = -1;
  if (sys.write(channel.fd(), request.data(), request.size()) > 0) {
    size = sys.read(channel.fd(), answer.data(), answer.size());
  }
  std::string_view told(answer.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  int exit = 0;
  if (!read_number(take_word(told), exit, 10)) {
    return complain(Exit::failed,
                    compose("pid {} has ended, or does not restart for us", supervisor));
  }
  told.remove_prefix(std::min<std::size_t>(told.size(), 1));
  if (exit != 0) {
    return complain(static_cast<Exit>(exit), told);
  }
  print_lines(compose("{}\n", told));
  return Exit::done;
}

}  // namespace

void add_supervise(CLI::App& application, Exit& exit) {
  Command command(application, "supervise", "Run a server in the foreground, and restart it");
  auto choices = std::make_shared<SupervisorChoices>();
  command.add_duration("--start-timeout", choices->start_timeout, "of a run that is to take over");
  command.add_duration("--stop-timeout", choices->stop_timeout,
                       "after which what is told to stop is killed");
  command.add_number("--again", choices->again, "starts in a row after failures (5)");
  command.add_flag("--no-keep", choices->keeps, "let go of its listeners while it is started again",
                   false);
  command.add_texts("COMMAND", choices->command, "the server, after --", Command::Need::yes);
  command.end_with_arguments();
  command.on_call(
      [choices, &exit] { exit = static_cast<Exit>(Supervisor(libc_sys(), *choices).run()); });
}

void add_reload(CLI::App& application, Exit& exit) {
  Command command(application, "reload", "Have a supervisor restart its server, and wait");
  auto supervisor = std::make_shared<pid_t>(0);
  command.add_pid("--supervisor", *supervisor, "the pid of continuity supervise",
                  Command::Need::yes);
  command.on_call([supervisor, &exit] { exit = reload(*supervisor); });
}

}  // namespace continuity::cli
