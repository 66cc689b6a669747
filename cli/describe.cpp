#include "cli/describe.hpp"

#include "core/processes.hpp"

#include <array>
#include <cstdio>
#include <unistd.h>

namespace continuity::cli {
namespace {

constexpr std::array<const char*, restart_steps> step_names{
    "found", "claimed", "granted", "ready", "retired", "healthy", "drained", "left"};

Json to_json(const Restart& restart) {
  Json steps = Json::object();
  const std::int64_t found = restart.at(RestartStep::found);
  for (std::size_t i = 0; i < restart_steps; ++i) {
    const std::int64_t time = restart.steps.at(i);
    if (time != 0) {
      steps[step_names.at(i)] = (time - found) / microsecond;
    }
  }
  return {{"predecessor", restart.predecessor},       {"successor", restart.successor},
          {"outcome", name_of(restart.outcome)},      {"evidence", name_of(restart.evidence)},
          {"claimed_at", restart.wall / millisecond}, {"steps_us", std::move(steps)}};
}

Json to_json(const Connection& connection) {
  Json json = {
      {"pid", connection.pid}, {"fd", connection.fd}, {"peer", nullptr}, {"idle_ms", nullptr}};
  if (connection.peer.length > 0) {
    json["peer"] = to_string(connection.peer);
  }
  if (connection.idle) {
    json["idle_ms"] = *connection.idle;
  }
  return json;
}

}  // namespace

Json to_json(const Server& server, const Connections& connections, bool in_depth) {
  const Message& report = server.report;
  const auto live = connections.of(server);
  Json listeners = Json::array();
  for (const Listener& listener : report.listeners) {
    Json one = {{"address", to_string(listener.address)},
                {"type", listener.is_datagram()         ? "datagram"
                         : listener.type == SOCK_STREAM ? "stream"
                                                        : "seqpacket"}};
    if (const auto queue = connections.queue_at(listener.address); in_depth && queue) {
      one["queued"] = queue->length;
      one["backlog"] = queue->limit;
    }
    listeners.push_back(std::move(one));
  }
  Json json = {{"name", server.name},
               {"generation", compose("{:016x}", server.generation)},
               {"user", server.user},
               {"state", server.state()},
               {"pid", server.pid},
               {"pids", report.members},
               {"age_ms", nullptr},
               {"listeners", std::move(listeners)},
               {"listeners_total", report.total},
               {"connections", live.size()},
               {"restarts", report.restarts}};
  if (const auto age = age_of(server.pid); age) {
    json["age_ms"] = *age / millisecond;
  }
  if (report.rival_pid != 0) {
    json["successor"] = report.rival_pid;
  }
  if (report.duration != 0) {
    json["ends_in_ms"] = report.duration / millisecond;
  }
  if (in_depth) {
    Json held = Json::array();
    constexpr std::size_t most = 100;
    for (std::size_t i = 0; i < std::min(live.size(), most); ++i) {
      held.push_back(to_json(live[i]));
    }
    json["held_by"] = std::move(held);
    Json journal = Json::array();
    for (const Restart& restart : report.journal) {
      journal.push_back(to_json(restart));
    }
    json["journal"] = std::move(journal);
  }
  return json;
}

std::string in_words(std::int64_t nanoseconds) {
  constexpr std::int64_t minute = 60;
  constexpr std::int64_t hour = 60 * minute;
  constexpr std::int64_t day = 24 * hour;
  const std::int64_t seconds = nanoseconds / second;
  if (seconds < 2 * minute) {
    return compose("{} s", seconds);
  }
  if (seconds < 2 * hour) {
    return compose("{} min", seconds / minute);
  }
  return seconds < 2 * day ? compose("{} h", seconds / hour) : compose("{} d", seconds / day);
}

std::optional<std::int64_t> age_of(pid_t process) {
  const OwnedFd proc = open_proc(libc_sys());
  const std::uint64_t started = Processes(libc_sys(), proc.get()).start_time(process);
  if (started == 0) {
    return std::nullopt;
  }
  const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const Nanoseconds time = time_of(libc_sys(), CLOCK_BOOTTIME);
  return std::max<std::int64_t>(time - static_cast<std::int64_t>(started * (second / ticks)), 0);
}

const char* name_of(RestartStep step) {
  return step_names.at(static_cast<std::size_t>(step));
}

const char* name_of(RestartOutcome outcome) {
  switch (outcome) {
    case RestartOutcome::under_way:
      return "under-way";
    case RestartOutcome::done:
      return "done";
    case RestartOutcome::ended:
      return "ended";
    case RestartOutcome::timed_out:
      return "timed-out";
    case RestartOutcome::rolled_back:
      return "rolled-back";
  }
  return "under-way";
}

const char* name_of(Evidence evidence) {
  constexpr std::array<const char*, 9> names{"unknown", "accept", "poll",   "select", "epoll",
                                             "receive", "ring",   "listen", "said"};
  return names.at(static_cast<std::size_t>(evidence));
}

Colour colour_of(const Server& server) {
  const std::string state = server.state();
  if (state == "active") {
    return Colour::green;
  }
  return state == "silent" || state == "unknown" ? Colour::red : Colour::yellow;
}

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void print_json(const Json& json) {
  // What a server is called need not be UTF-8.
  print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace continuity::cli
