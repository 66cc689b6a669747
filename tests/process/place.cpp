#include "place.hpp"

#include <csignal>
#include <stdexcept>

namespace continuity::test {

Environment Place::variables() const {
  Environment result;
  if (with_library) {
    result = {"LD_PRELOAD=" CONTINUITY_LIBRARY, "CONTINUITY_DIR=" + rendezvous(),
              "CONTINUITY_PROBATION=50ms"};
  }
  result.insert(result.end(), environment.begin(), environment.end());
  return result;
}

Process Place::spawn(const Arguments& arguments, const Given& given) const {
  std::vector<std::string> command{program};
  command.insert(command.end(), arguments.begin(), arguments.end());
  command.insert(command.end(), addresses.begin(), addresses.end());
  return Process::start(command, variables(), given);
}

Process Place::spawn_listening(const Arguments& arguments, const Given& given) const {
  Process server = spawn(arguments, given);
  std::string line;
  do {
    line = server.next_line();
  } while (line.rfind("listening ", 0) != 0);
  if (const auto pid = static_cast<pid_t>(number_in(line, "pid")); pid != server.pid()) {
    server.follow(pid);
  }
  return server;
}

Process Place::start(const Arguments& arguments, const Given& given) const {
  Process server = spawn_listening(arguments, given);
  if (const std::string answer = answer_from(address()); answer.rfind("pid=", 0) != 0) {
    throw std::runtime_error("the first server answered: " + answer);
  }
  return server;
}

Process Place::restart(const Arguments& arguments) const {
  Process server = spawn_listening(arguments);
  server.await_log("took over " + printed_address());
  return server;
}

std::string Place::printed_address(std::size_t index) const {
  const std::string& text = addresses.at(index);
  return text.front() == '/' || text.front() == '@' ? "unix:" + text : text;
}

std::string answer_of(const Process& server) {
  return "pid=" + std::to_string(server.pid());
}

bool left_by_itself(Process& server) {
  server.await_log("no connection left; leaving (SIGTERM)");
  const int status = server.wait_exit();
  return status == 0 || status == 128 + SIGTERM;
}

bool left_by_return(Process& server) {
  return server.wait_exit() == 0;
}

// A program that is slow to look finds both in one: the descriptor tells that there is news.
bool left_after_events(Process& server) {
  std::string line = server.next_line();
  if (line.rfind("taken over ", 0) == 0) {
    line = server.next_line();
  }
  return line.rfind("completed ", 0) == 0 && server.wait_exit() == 0;
}

long number_in(const std::string& line, const std::string& name) {
  const auto found = line.find(name + "=");
  if (found == std::string::npos) {
    throw std::runtime_error("no " + name + " in: " + line);
  }
  return std::stol(line.substr(found + name.size() + 1));
}

}  // namespace continuity::test
