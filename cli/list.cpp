// continuity list: who is at the rendezvous.
#include "cli/describe.hpp"

#include <memory>
#include <unistd.h>

namespace continuity::cli {
namespace {

// "*:80, [::1]:81, and 3 more": as many as a line has room for.
std::string addresses_of(const Server& server) {
  constexpr std::size_t most = 3;
  std::string text;
  const auto& listeners = server.report.listeners;
  for (std::size_t i = 0; i < std::min(listeners.size(), most); ++i) {
    text += (i == 0 ? "" : ", ") + visible(to_string(listeners[i].address));
  }
  const std::size_t more = std::max<std::size_t>(server.report.total, listeners.size());
  return more > most ? compose("{}, and {} more", text, more - most) : text;
}

// "4711", "4711 +3": the main process, and how many others there are.
std::string pids_of(const Server& server) {
  const std::size_t others = server.report.members.size();
  return others > 1 ? compose("{} +{}", server.pid, others - 1) : std::to_string(server.pid);
}

std::string table_of(const std::vector<Server>& servers, const Connections& connections) {
  const bool all_users = ::geteuid() == 0;
  std::vector<std::string> head{"NAME", "STATE", "PIDS", "AGE", "CONN", "RESTARTS", "LISTENERS"};
  if (all_users) {
    head.insert(head.begin() + 1, "USER");
  }
  Table table(std::move(head));
  for (const Server& server : servers) {
    const auto age = age_of(server.pid);
    const bool known = server.answer == Server::Answer::report;
    std::vector<Table::Cell> row{
        {server.name},
        {server.state(), colour_of(server)},
        {pids_of(server)},
        {age ? in_words(*age) : "?"},
        {known ? std::to_string(connections.of(server).size()) : "?"},
        {known ? std::to_string(server.report.restarts) : "?"},
        {known                                      ? addresses_of(server)
         : server.answer == Server::Answer::earlier ? "an earlier release: no details"
                                                    : "does not answer (stopped?)"}};
    if (all_users) {
      row.insert(row.begin() + 1, {std::to_string(server.user)});
    }
    table.add(std::move(row));
  }
  return table.to_string();
}

Exit list(bool as_json) {
  const auto servers = find_servers();
  if (!servers) {
    return Exit::system;
  }
  const Connections connections;
  if (as_json || !is_for_people()) {
    Json all = Json::array();
    for (const Server& server : *servers) {
      all.push_back(to_json(server, connections, false));
    }
    print_json(Json{{"servers", std::move(all)}});
  } else if (servers->empty()) {
    print("Nobody is here.\n");
  } else {
    print(table_of(*servers, connections));
  }
  return Exit::done;
}

}  // namespace

void add_list(CLI::App& application, Exit& exit) {
  Command command(application, "list", "Who can be restarted");
  auto as_json = std::make_shared<bool>(false);
  command.add_flag("--json", *as_json, "as JSON, on a terminal too");
  command.on_call([as_json, &exit] { exit = list(*as_json); });
}

}  // namespace continuity::cli
