// continuity upgrade: starts a server once more and tells what comes of it.
#include "cli/describe.hpp"
#include "cli/launch.hpp"
#include "core/processes.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <unistd.h>

namespace continuity::cli {
namespace {

constexpr Nanoseconds look_interval = 10 * millisecond;
constexpr Nanoseconds start_time = 5 * second;
constexpr Nanoseconds verdict_time = 5 * second;

struct Arguments {
  std::string name;
  std::string program;
  std::vector<std::string> variables;
  Nanoseconds timeout = 120 * second;
  bool as_json = false;
  std::vector<std::string> arguments;  // instead of those that it was started with
};

// What is known of the attempt, as docs/continuity.schema.json has it; for people it is told
// when it happens.
class Tale {
 public:
  explicit Tale(bool as_json) : as_json_(as_json) {}

  void say(const std::string& text) const {
    if (!as_json_) {
      print_lines(text + "\n");
    }
  }
  void note(const char* what, Json value) { facts_[what] = std::move(value); }
  // Why it has failed.
  Exit fail(Exit exit, const std::string& why) {
    facts_["reason"] = why;
    return complain(exit, why);
  }
  void end(Exit exit) {
    facts_["outcome"] = exit == Exit::done          ? "done"
                        : exit == Exit::rolled_back ? "rolled-back"
                        : exit == Exit::timed_out   ? "timed-out"
                                                    : "failed";
    if (as_json_) {
      print_json(facts_);
    }
  }

 private:
  bool as_json_;
  Json facts_{{"outcome", nullptr},      {"started", nullptr},  {"predecessor", nullptr},
              {"successor", nullptr},    {"evidence", nullptr}, {"ready_us", nullptr},
              {"took_over_us", nullptr}, {"reason", nullptr},   {"last_lines", nullptr},
              {"output", nullptr}};
};

// Follows one run from its start to its outcome: what the predecessor says of it, and once
// that has gone, what the successor says.
class Follower {
 public:
  Follower(Server predecessor, Run run, Nanoseconds began, Tale& tale)
      : predecessor_(std::move(predecessor)), run_(std::move(run)), began_(began), tale_(&tale) {}

  Exit follow(Nanoseconds deadline) {
    for (;;) {
      const bool running = run_.is_running();
      if (const auto exit = look(); exit) {
        return *exit;
      }
      // The kernel tells us first: what its predecessor makes of it takes a moment.
      verdict_ = running ? never : std::min(verdict_, after(libc_sys(), verdict_time));
      if (!running && (!claimed_ || now(libc_sys()) >= verdict_)) {
        return tale_->fail(Exit::failed, compose("pid {} {} before it had taken over", run_.pid(),
                                                 run_.how_it_ended()));
      }
      if (now(libc_sys()) >= deadline) {
        run_.end();
        // It may have taken over at the last moment.
        const auto exit = look();
        return exit && *exit != Exit::failed
                   ? *exit
                   : tale_->fail(Exit::timed_out, "it was not ready in time, and has been ended");
      }
      pause_for(libc_sys(), look_interval);
    }
  }

 private:
  std::optional<Exit> look() {
    if (!predecessor_gone_) {
      predecessor_gone_ = !predecessor_.refresh();
    }
    return predecessor_gone_ ? look_at_successor() : look_at_predecessor();
  }

  std::optional<Exit> look_at_predecessor() {
    const Restart* const attempt = find_attempt(predecessor_.report);
    if (attempt == nullptr) {
      if (predecessor_.report.state == HolderState::on_probation) {
        say_once(waits_, compose("waits: pid {} is on probation itself for {} s more",
                                 predecessor_.pid, in_seconds(predecessor_.report.duration)));
      }
      return std::nullopt;
    }
    tell(*attempt);
    switch (attempt->outcome) {
      case RestartOutcome::under_way:
        return std::nullopt;
      case RestartOutcome::done:
        return succeed(attempt->successor);
      case RestartOutcome::ended:
        run_.is_running();
        return tale_->fail(
            Exit::failed,
            compose("pid {} {} before it was ready; pid {} serves on", attempt->successor,
                    run_.how_it_ended().empty() ? "ended" : run_.how_it_ended(), predecessor_.pid));
      case RestartOutcome::timed_out:
        return tale_->fail(
            Exit::timed_out,
            compose("pid {} was not ready in time (CONTINUITY_READY_TIMEOUT); pid {} "
                    "serves on",
                    attempt->successor, predecessor_.pid));
      case RestartOutcome::rolled_back:
        return tale_->fail(
            Exit::rolled_back,
            compose("pid {} failed {} ms after it took over; pid {} serves again",
                    attempt->successor,
                    in_milliseconds(now(libc_sys()) - attempt->at(RestartStep::retired)),
                    predecessor_.pid));
    }
    return std::nullopt;
  }

  // The predecessor has left, or died: who is there now?
  std::optional<Exit> look_at_successor() {
    auto servers = find_servers();
    if (!servers) {
      return Exit::system;
    }
    for (Server& server : *servers) {
      if (server.answer == Server::Answer::report && server.name == predecessor_.name &&
          run_.has(server.pid) && server.serves() &&
          server.report.phase != ReportedPhase::starting) {
        if (const Restart* const attempt = find_attempt(server.report); attempt != nullptr) {
          tell(*attempt);
        }
        return server.report.state == HolderState::on_probation
                   ? std::nullopt
                   : std::optional(succeed(server.pid));
      }
    }
    return std::nullopt;
  }

  // The attempt of our run, by whom it is told.
  const Restart* find_attempt(const Message& report) {
    const auto found =
        std::find_if(report.journal.rbegin(), report.journal.rend(), [&](const Restart& one) {
          return one.at(RestartStep::found) >= began_ && run_.has(one.successor);
        });
    return found != report.journal.rend() ? &*found : nullptr;
  }

  void tell(const Restart& attempt) {
    const std::int64_t claimed = attempt.at(RestartStep::claimed);
    say_once(claimed_,
             compose("pid {} claims from pid {}", attempt.successor, attempt.predecessor));
    tale_->note("successor", attempt.successor);
    if (attempt.at(RestartStep::retired) != 0) {
      const std::int64_t ready = attempt.at(RestartStep::ready);
      tale_->note("evidence", name_of(attempt.evidence));
      tale_->note("ready_us", (ready - claimed) / microsecond);
      tale_->note("took_over_us", (attempt.at(RestartStep::retired) - ready) / microsecond);
      say_once(took_over_, compose("pid {} was ready after {} ms ({}), and took over in {} ms",
                                   attempt.successor, in_milliseconds(ready - claimed),
                                   name_of(attempt.evidence),
                                   in_milliseconds(attempt.at(RestartStep::retired) - ready)));
    }
  }

  Exit succeed(pid_t successor) {
    tale_->note("successor", successor);
    tale_->say(compose("pid {} has outlived its probation", successor));
    return Exit::done;
  }

  void say_once(bool& said, const std::string& text) {
    if (!std::exchange(said, true)) {
      tale_->say(text);
    }
  }

  Server predecessor_;
  Run run_;
  Nanoseconds began_;
  Tale* tale_;
  Nanoseconds verdict_ = never;
  bool predecessor_gone_ = false;
  bool waits_ = false;
  bool claimed_ = false;
  bool took_over_ = false;
};

// What is to be started, and that it can be. Nothing, and said why: it cannot.
std::optional<Start> prepare(const Arguments& given, Server& server) {
  const auto refuse = [](const std::string& sentence) {
    complain(Exit::failed, sentence);
    return std::nullopt;
  };
  if (server.answer != Server::Answer::report) {
    return refuse(server.answer == Server::Answer::earlier
                      ? compose("pid {} runs an earlier release, which does not tell how it was "
                                "started; start it again by hand, this once",
                                server.pid)
                      : compose("pid {} does not answer (stopped?)", server.pid));
  }
  // It may have been started just now.
  const Nanoseconds deadline = after(libc_sys(), start_time);
  while (server.report.phase == ReportedPhase::starting && now(libc_sys()) < deadline &&
         server.refresh()) {
    pause_for(libc_sys(), look_interval);
  }
  if (server.report.phase != ReportedPhase::active) {
    return refuse(compose("pid {} is {}, with pid {}; try again when that has ended", server.pid,
                          server.state(), server.report.rival_pid));
  }
  if (!server.is_trusted()) {
    return refuse(compose("pid {} is user {}, and this is user {}: start it again by hand",
                          server.sender.pid, server.sender.uid, ::geteuid()));
  }
  auto start = server.start();
  if (!start) {
    return refuse(compose("how pid {} was started cannot be found out", server.pid));
  }
  if (const std::string why = why_not_from_here(server.pid, *start); !why.empty()) {
    return refuse(why);
  }
  if (!given.program.empty()) {
    std::error_code error;
    start->program = std::filesystem::absolute(given.program, error).string();
    start->arguments.front() = given.program;
  }
  if (!given.arguments.empty()) {
    start->arguments.resize(1);
    start->arguments.insert(start->arguments.end(), given.arguments.begin(), given.arguments.end());
  }
  remove_variable(start->environment, "CONTINUITY_NEW");
  for (const std::string& variable : given.variables) {
    set_variable(start->environment, variable);
  }
  // Whatever its parent is, it is no sibling of the server's.
  const OwnedFd proc = open_proc(libc_sys());
  const std::set<pid_t> members(server.report.members.begin(), server.report.members.end());
  if (Processes(libc_sys(), proc.get()).is_below(::getpid(), members)) {
    set_variable(start->environment, "CONTINUITY_NEW=1");
  }
  return start;
}

Exit upgrade(const Arguments& given) {
  if (std::any_of(given.variables.begin(), given.variables.end(), [](const std::string& one) {
        return one.find('=') == std::string::npos || one.front() == '=';
      })) {
    return complain(Exit::usage, "--env wants NAME=VALUE; see continuity upgrade --help");
  }
  Server server;
  if (const Exit exit = find_active(given.name, server); exit != Exit::done) {
    return exit;
  }
  const auto start = prepare(given, server);
  if (!start) {
    return Exit::failed;
  }
  auto output = Output::make(server.name, server.pid);
  if (!output) {
    return Exit::system;
  }
  Tale tale(given.as_json);
  tale.note("predecessor", server.pid);
  const Nanoseconds began = now(libc_sys());
  auto run = Run::start(*start, *output);
  if (!run) {
    output->remove();
    tale.end(tale.fail(Exit::failed, compose("{}: {}: {}", start->program, run.error().step,
                                             error_text(run.error().code))));
    return Exit::failed;
  }
  tale.note("started", run->pid());
  tale.say(compose("pid {} is started", run->pid()));
  Follower follower(std::move(server), std::move(*run), began, tale);
  const Exit exit = follower.follow(began + given.timeout);
  if (exit != Exit::done) {
    show_last_lines(*output);
    tale.note("last_lines", output->last_lines());
    output->remove();
  } else if (!output->path().empty()) {
    tale.note("output", output->path());
    tale.say(compose("what it writes is in {}", output->path()));
  }
  tale.end(exit);
  return exit;
}

}  // namespace

void add_upgrade(CLI::App& application, Exit& exit) {
  Command command(application, "upgrade", "Start a server again and see it take over");
  auto given = std::make_shared<Arguments>();
  command.add_text("NAME", given->name, "what it is called, or a pid", Command::Need::yes);
  command.add_text("--exec", given->program, "another program");
  command.add_texts("--env", given->variables, "NAME=VALUE, on top of what it had");
  command.add_duration("--timeout", given->timeout, "to be ready and healthy (2m)");
  command.add_flag("--json", given->as_json, "what came of it, as JSON");
  command.add_texts("ARGUMENT", given->arguments,
                    "after --: instead of those that it was started with");
  command.on_call([given, &exit] { exit = upgrade(*given); });
}

}  // namespace continuity::cli
