// continuity trace: the last restarts as a picture, and for chrome://tracing.
#include "cli/describe.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>

namespace continuity::cli {
namespace {

// What goes on between two steps, and on whose side.
struct Span {
  const char* name;
  RestartStep from;
  RestartStep to;
  bool of_successor;
  const char* colour;
};
constexpr std::array spans{
    Span{"found", RestartStep::found, RestartStep::claimed, true, "#9aa7b1"},
    Span{"granting", RestartStep::claimed, RestartStep::granted, false, "#7a9cc6"},
    Span{"starting", RestartStep::granted, RestartStep::ready, true, "#6fa978"},
    Span{"going deaf", RestartStep::ready, RestartStep::retired, false, "#c94c4c"},
    Span{"probation", RestartStep::retired, RestartStep::healthy, true, "#d9a441"},
    Span{"draining", RestartStep::healthy, RestartStep::drained, false, "#a58bc0"},
    Span{"leaving", RestartStep::drained, RestartStep::left, false, "#777777"},
};

// The step that a span ends with; of those that were never taken, the next one that was. A
// successor does not hear of its predecessor's last connection.
std::int64_t end_of(const Restart& restart, RestartStep step) {
  for (auto i = static_cast<std::size_t>(step); i < restart_steps; ++i) {
    if (restart.steps.at(i) != 0) {
      return restart.steps.at(i);
    }
  }
  return 0;
}

// Complete events of the Trace Event Format; times are microseconds.
Json events_of(const std::vector<Restart>& restarts) {
  Json events = Json::array();
  for (const Restart& restart : restarts) {
    for (const pid_t pid : {restart.predecessor, restart.successor}) {
      events.push_back({{"ph", "M"},
                        {"name", "process_name"},
                        {"pid", pid},
                        {"args", {{"name", compose("pid {}", pid)}}}});
    }
    for (const Span& span : spans) {
      const std::int64_t from = restart.at(span.from);
      const std::int64_t to = end_of(restart, span.to);
      const pid_t pid = span.of_successor ? restart.successor : restart.predecessor;
      if (from != 0 && to != 0) {
        events.push_back({{"ph", "X"},
                          {"name", span.name},
                          {"cat", "restart"},
                          {"pid", pid},
                          {"tid", pid},
                          {"ts", from / microsecond},
                          {"dur", (to - from) / microsecond}});
      }
    }
    const auto* const last = std::max_element(restart.steps.begin(), restart.steps.end());
    events.push_back({{"ph", "i"},
                      {"s", "g"},
                      {"name", name_of(restart.outcome)},
                      {"pid", restart.successor},
                      {"tid", restart.successor},
                      {"ts", *last / microsecond}});
  }
  return events;
}

// The same as a picture. A restart takes fractions of a millisecond here and hours there, so
// each span is as wide as its words, and says how long it was.
std::string picture_of(const std::string& name, const std::vector<Restart>& restarts) {
  constexpr int row = 96;
  constexpr int width = 150;
  constexpr int margin = 20;
  const int columns = static_cast<int>(spans.size());
  std::string text = compose(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      2 * margin + columns * width, margin + static_cast<int>(restarts.size()) * row);
  int top = margin;
  for (const Restart& restart : restarts) {
    text += compose("<text x=\"{}\" y=\"{}\">{}: pid {} by pid {}, {}</text>\n", margin, top, name,
                    restart.predecessor, restart.successor, name_of(restart.outcome));
    int left = margin;
    for (const Span& span : spans) {
      const std::int64_t from = restart.at(span.from);
      const std::int64_t to = end_of(restart, span.to);
      if (from == 0 || to == 0) {
        continue;
      }
      const int y = top + (span.of_successor ? 34 : 10);
      text += compose(
          "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"20\" fill=\"{}\"/>\n"
          "<text x=\"{}\" y=\"{}\">{}, {} ms</text>\n",
          left, y, width - 4, span.colour, left + 4, y + 14, span.name, in_milliseconds(to - from));
      left += width;
    }
    top += row;
  }
  return text + "</svg>\n";
}

// A name may hold what XML reads otherwise.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '&':
        result += "&amp;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

Exit write(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  return file ? Exit::done : complain(Exit::failed, compose("{}: cannot be written", path));
}

Exit trace(const std::string& name, const std::string& path) {
  std::vector<Server> servers;
  if (const Exit exit = find_named(name, servers); exit != Exit::done) {
    return exit;
  }
  // Who serves knows of all of them; who drains, only of those before it left off.
  const auto& journal = servers.front().report.journal;
  if (journal.empty()) {
    return complain(Exit::failed, compose("{} has not been restarted yet", name));
  }
  const std::string events =
      Json{{"displayTimeUnit", "ms"}, {"traceEvents", events_of(journal)}}.dump(
          1, ' ', false, Json::error_handler_t::replace) +
      "\n";
  if (path.empty()) {
    print(events);
    return Exit::done;
  }
  return write(
      path, path.ends_with(".svg") ? picture_of(escaped(servers.front().name), journal) : events);
}

}  // namespace

void add_trace(CLI::App& application, Exit& exit) {
  struct Arguments {
    std::string name;
    std::string path;
  };
  Command command(application, "trace", "The last restarts, step by step");
  auto given = std::make_shared<Arguments>();
  command.add_text("NAME", given->name, "what it is called, or a pid", Command::Need::yes);
  command.add_text("--out", given->path, "X.svg: a picture; else events for chrome://tracing");
  command.on_call([given, &exit] { exit = trace(given->name, given->path); });
}

}  // namespace continuity::cli
