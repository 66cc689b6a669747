// continuity status: one server in depth.
#include "cli/describe.hpp"

#include <algorithm>
#include <memory>
#include <unistd.h>

namespace continuity::cli {
namespace {

constexpr Nanoseconds watch_interval = second;

std::string line(const char* title, const std::string& text) {
  return compose("  {:<14} {}\n", title, text);
}

// What keeps it: the connections that have been idle for longest.
std::string describe_connections(const std::vector<Connection>& live) {
  constexpr std::size_t most = 5;
  std::string text = line("connections", std::to_string(live.size()));
  for (std::size_t i = 0; i < std::min(live.size(), most); ++i) {
    const Connection& one = live[i];
    text += compose(
        "    {}, pid {}{}\n", one.peer.length > 0 ? to_string(one.peer) : "a local peer", one.pid,
        one.idle ? compose(", idle for {} s", in_seconds(*one.idle * millisecond)) : "");
  }
  return live.size() > most ? text + compose("    and {} more\n", live.size() - most) : text;
}

std::string describe_listeners(const Server& server, const Connections& connections) {
  constexpr std::size_t most = 10;
  std::string text = line("listeners", std::to_string(server.report.total));
  const auto& listeners = server.report.listeners;
  for (std::size_t i = 0; i < std::min(listeners.size(), most); ++i) {
    const auto queue = connections.queue_at(listeners[i].address);
    text += compose("    {}{}{}\n", visible(to_string(listeners[i].address)),
                    listeners[i].is_datagram() ? " (datagrams)" : "",
                    queue ? compose(", queue {} of {}", queue->length, queue->limit) : "");
  }
  return server.report.total > most
             ? text + compose("    and {} more\n", server.report.total - most)
             : text;
}

std::string time_of_day(std::int64_t wall) {
  const time_t seconds = wall / second;
  tm parts{};
  std::array<char, 32> text{};
  ::localtime_r(&seconds, &parts);
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts)};
}

// The steps of a restart, in milliseconds since the successor greeted.
std::string describe_restart(const Restart& restart) {
  std::string text = line(
      "last restart", compose("{}, pid {} by pid {}: {}", time_of_day(restart.wall),
                              restart.predecessor, restart.successor, name_of(restart.outcome)));
  const std::int64_t found = restart.at(RestartStep::found);
  for (std::size_t i = 0; i < restart_steps; ++i) {
    const auto step = static_cast<RestartStep>(i);
    if (restart.at(step) != 0) {
      text += compose("    {:<10} {:>12} ms{}\n", name_of(step),
                      in_milliseconds(restart.at(step) - found),
                      step == RestartStep::ready && restart.evidence != Evidence::unknown
                          ? compose("  ({})", name_of(restart.evidence))
                          : "");
    }
  }
  return text;
}

std::string describe(const Server& server, const Connections& connections) {
  const auto age = age_of(server.pid);
  const Message& report = server.report;
  std::string text = compose("{}, pid {}: {}\n", paint(Colour::bold, server.name), server.pid,
                             paint(colour_of(server), server.state()));
  if (age) {
    text += line("age", in_words(*age));
  }
  if (server.answer != Server::Answer::report) {
    return text + line("details", server.answer == Server::Answer::earlier
                                      ? "none: it runs an earlier release"
                                      : "none: it does not answer (stopped?)");
  }
  if (report.members.size() > 1) {
    std::string pids;
    for (const pid_t pid : report.members) {
      pids += (pids.empty() ? "" : " ") + std::to_string(pid);
    }
    text += line("processes", pids);
  }
  if (report.rival_pid != 0) {
    text += line("successor", compose("pid {}", report.rival_pid));
  }
  if (report.duration != 0) {
    text += line(report.phase == ReportedPhase::granted ? "must be ready" : "goes on for",
                 compose("{}{} s", report.phase == ReportedPhase::granted ? "in " : "",
                         in_seconds(report.duration)));
  }
  text += describe_listeners(server, connections);
  text += describe_connections(connections.of(server));
  text += line("restarts", std::to_string(report.restarts));
  if (!report.journal.empty()) {
    text += describe_restart(report.journal.back());
  }
  return text;
}

// `before`: what is written before people see it.
Exit show(const std::string& name, bool as_json, const char* before = "") {
  std::vector<Server> servers;
  if (const Exit exit = find_named(name, servers); exit != Exit::done) {
    return exit;
  }
  const Connections connections;
  if (as_json || !is_for_people()) {
    Json all = Json::array();
    for (const Server& server : servers) {
      all.push_back(to_json(server, connections, true));
    }
    print_json(Json{{"servers", std::move(all)}});
    return Exit::done;
  }
  std::string text;
  for (const Server& server : servers) {
    text += (text.empty() ? "" : "\n") + describe(server, connections);
  }
  print(before);
  print_lines(text);
  return Exit::done;
}

// Until it is interrupted, or there is nobody any more.
Exit watch(const std::string& name, bool as_json) {
  for (;;) {
    // The screen is cleared when there is something to show.
    if (const Exit exit = show(name, as_json, "\x1b[H\x1b[2J"); exit != Exit::done) {
      return exit;
    }
    pause_for(libc_sys(), watch_interval);
  }
}

}  // namespace

void add_status(CLI::App& application, Exit& exit) {
  struct Arguments {
    std::string name;
    bool as_json = false;
    bool watch = false;
  };
  Command command(application, "status", "One server in depth");
  auto given = std::make_shared<Arguments>();
  command.add_text("NAME", given->name, "what it is called, or a pid", Command::Need::yes);
  command.add_flag("--json", given->as_json, "as JSON, on a terminal too");
  command.add_flag("--watch", given->watch, "again every second");
  command.on_call([given, &exit] {
    exit = given->watch ? watch(given->name, given->as_json) : show(given->name, given->as_json);
  });
}

}  // namespace continuity::cli
