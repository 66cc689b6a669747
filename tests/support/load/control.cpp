#include "control.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <sstream>
#include <vector>

namespace continuity::load {
namespace {

std::vector<pid_t> read_pids(std::istream& words) {
  std::vector<pid_t> pids;
  for (pid_t pid = 0; words >> pid;) {
    pids.push_back(pid);
  }
  return pids;
}

std::string describe(const std::string& id, const Held::Answered& answered) {
  const auto& [verdict, owner] = answered;
  return fmt::format(R"({{"id":{},"outcome":{},"detail":{},"pid":{}}})", json_string(id),
                     json_string(name_of(verdict.outcome)), json_string(verdict.detail), owner);
}

}  // namespace

std::string Control::answer(const std::string& command) {
  std::istringstream words(command);
  std::string verb;
  words >> verb;
  if (verb == "stats") {
    return statistics_.total().to_json();
  }
  if (verb == "mark") {
    return statistics_.mark().to_json();
  }
  if (verb == "watch" || verb == "only") {
    const auto pids = read_pids(words);
    verb == "watch" ? watched_.add(pids) : watched_.restrict_to(pids);
    return fmt::format(R"({{"{}":[{}]}})", verb, fmt::join(pids, ","));
  }

  std::string id;
  words >> id;
  if (id.empty()) {
    return fmt::format(R"({{"error":{}}})", json_string("cannot read the command " + command));
  }
  if (verb == "open") {
    return describe(id, held_.open(id));
  }
  if (verb == "finish") {
    return describe(id, held_.finish(id));
  }
  if (verb == "keep") {
    return describe(id, held_.keep(id));
  }
  if (verb == "again") {
    return describe(id, held_.again(id));
  }
  if (verb == "drop") {
    held_.drop(id);
    return describe(id, {});
  }
  return fmt::format(R"({{"error":{}}})", json_string("no command " + verb));
}

}  // namespace continuity::load
