#include "support/load_driver.hpp"

#include <stdexcept>

namespace continuity::test {

std::string json_value(const std::string& object, const std::string& name) {
  const std::string key = "\"" + name + "\":";
  const auto found = object.find(key);
  if (found == std::string::npos) {
    throw std::runtime_error("no " + name + " in " + object);
  }
  auto begin = object.find_first_not_of(' ', found + key.size());
  if (object.at(begin) == '"') {
    ++begin;
    return object.substr(begin, object.find('"', begin) - begin);
  }
  return object.substr(begin, object.find_first_of(",}", begin) - begin);
}

long resets_of(const std::string& stats, pid_t process) {
  const auto all = stats.find("\"failed_by_pid\":");
  const auto found = stats.find("\"" + std::to_string(process) + "\":{", all);
  const auto end = stats.find('}', found);
  const std::string key = "\"reset\":";
  const auto reset = stats.find(key, found);
  return found == std::string::npos || reset > end ? 0
                                                   : std::stol(stats.substr(reset + key.size()));
}

Load::Load(const std::string& address, int clients, Owners owners) {
  std::vector<std::string> command{CONTINUITY_LOAD,
                                   "--connect",
                                   address,
                                   "--send",
                                   "hello\\n",
                                   "--expect",
                                   "pid=",
                                   "--timeout",
                                   "15s",
                                   "--clients",
                                   std::to_string(clients)};
  if (owners != Owners::unknown) {
    command.emplace_back(owners == Owners::known ? "--owners" : "--silent");
  }
  process_ = Process::start(command);
}

Load::Load(const std::string& address, const Process& server, int clients)
    : Load(address, clients, Owners::known) {
  watch(server.pid());
}

Load::Load(const std::string& address) : Load(address, 8, Owners::unknown) {}

Load Load::silent(const std::string& address, const Process& server) {
  Load load(address, 4, Owners::before_data);
  load.watch(server.pid());
  return load;
}

std::string Load::tell(const std::string& command) {
  process_.send(command + "\n");
  return process_.next_line();
}

long Load::count(const std::string& name) {
  return std::stol(json_value(stats(), name));
}

bool Load::await_ok(long requests) {
  const long wanted = count("ok") + requests;
  return wait_until([&] { return count("ok") >= wanted; });
}

std::string Load::finish(const std::string& id) {
  return json_value(tell("finish " + id), "outcome");
}

std::string Load::again(const std::string& id) {
  return json_value(tell("again " + id), "outcome");
}

}  // namespace continuity::test
