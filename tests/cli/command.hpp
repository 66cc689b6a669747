// The command as a user calls it, and the servers that it is called for.
#pragma once

#include "place.hpp"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace continuity::test {

struct Said {
  int status = -1;
  std::string output;
  std::string errors;
  [[nodiscard]] nlohmann::json json() const { return nlohmann::json::parse(output); }
};

// Runs `continuity ARGUMENT...` where the servers of `place` meet, until it has ended.
Said run_command(const Place& place, const std::vector<std::string>& arguments,
                 const Environment& environment = {});

// The same, and it goes on: for what is to be seen meanwhile.
Process start_command(const Place& place, const std::vector<std::string>& arguments);

// A place whose servers have this probation.
Place place_with_probation(const std::string& duration);

// The object of the server with this pid among those that list or status has told of; fails
// the test if there is none.
nlohmann::json server_of(const nlohmann::json& told, pid_t pid);

// What is wrong with it by docs/continuity.schema.json, or what that has under this name;
// empty: nothing.
std::string what_is_wrong(const nlohmann::json& told, const std::string& name = {});

// The pid of whoever answers at the place's address.
pid_t who_answers(const Place& place);

}  // namespace continuity::test
