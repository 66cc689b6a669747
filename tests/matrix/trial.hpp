// What the trials of one process and of several have in common.
#pragma once

#include "cell.hpp"
#include "support/process.hpp"

#include <cerrno>
#include <exception>
#include <initializer_list>
#include <optional>
#include <string>

namespace continuity::test {

// As the hooks of the library say it.
constexpr const char* it_happens = "continuity-test: it happens";

// For the hooks: when what happens. Nothing: it is done by the trial itself.
inline std::string event_of(const Cell& cell, const std::string& action) {
  return cell.when == "later"
             ? ""
             : cell.when + ":" + std::to_string(static_cast<int>(cell.message)) + ":" + action;
}

inline void add_faults(Environment& environment, const Conditions& conditions,
                       const std::string& event) {
  if (event.empty() && conditions.without.empty()) {
    return;
  }
  environment.push_back("LD_PRELOAD=" CONTINUITY_FAULTY_LIBRARY);
  if (!event.empty()) {
    environment.push_back("CONTINUITY_TEST_AT=" + event);
  }
  if (!conditions.without.empty()) {
    environment.push_back("CONTINUITY_TEST_FAIL=" + conditions.without + ":" +
                          std::to_string(ENOSYS));
  }
}

// What all have said, for a cell that is not as it should be.
inline std::string logs_of(std::initializer_list<std::optional<Process>*> processes) {
  std::string text;
  for (auto* process : processes) {
    if (*process) {
      for (const std::string& line : (**process).log()) {
        text += "\n    " + line;
      }
    }
  }
  return text;
}

template <typename Trial>
Result result_of(Trial trial) {
  Result result;
  try {
    result = trial.run();
  } catch (const std::exception& problem) {
    result.problem = problem.what();
  }
  if (!result.problem.empty()) {
    result.problem += trial.logs();
  }
  return result;
}

}  // namespace continuity::test
