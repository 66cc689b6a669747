#include "families.hpp"

#include <catch2/catch.hpp>

namespace continuity::test {

std::set<pid_t> workers_of(const Process& master, std::size_t count) {
  std::set<pid_t> workers;
  wait_until([&] {
    workers = family_of(master.pid());
    workers.erase(master.pid());
    return workers.size() == count;
  });
  CHECK(workers.size() == count);
  return workers;
}

pid_t logged_by(const std::string& line) {
  return static_cast<pid_t>(std::stol(line.substr(line.find('[') + 1)));
}

double milliseconds_in(const std::string& line) {
  return std::stod(line.substr(line.rfind(" in ") + 4));
}

void restarts_family_without_loss(const Arguments& arguments, const Place& place, int usually) {
  const int restarts = restarts_to_make(usually);
  Process server = place.start(arguments);
  Load load(place.address(), server);
  for (int i = 0; i < restarts; ++i) {
    const auto before = server_processes();
    restart_under_load(place, arguments, load, server);
    CHECK(have_ended(before));
    CHECK(none_is_left_but(server.pid()));
  }
  check_nothing_was_lost(load, restarts);
}

}  // namespace continuity::test
