// Where generations of one tiny server follow each other: its addresses, and a
// rendezvous directory that nobody else uses.
#pragma once

#include "support/client.hpp"
#include "support/process.hpp"
#include "support/temp_dir.hpp"

#include <string>
#include <vector>

namespace continuity::test {

using Arguments = std::vector<std::string>;

struct Place {
  // Runs the server; what it says is not awaited.
  [[nodiscard]] Process spawn(const Arguments& arguments, const Given& given = {}) const;
  // Runs it and waits until it listens.
  [[nodiscard]] Process spawn_listening(const Arguments& arguments, const Given& given = {}) const;
  // Runs the first generation and waits until it answers.
  [[nodiscard]] Process start(const Arguments& arguments, const Given& given = {}) const;
  // Runs a later one and waits until it has taken over.
  [[nodiscard]] Process restart(const Arguments& arguments) const;

  [[nodiscard]] const std::string& address() const { return addresses.front(); }
  // As the log has it.
  [[nodiscard]] std::string printed_address(std::size_t index = 0) const;
  [[nodiscard]] std::string rendezvous() const { return directory.path(); }
  [[nodiscard]] Environment variables() const;

  TempDir directory{};
  ReservedPort port{};
  std::vector<std::string> addresses{port.address()};
  std::string program = TINY_SERVER;
  bool with_library = true;
  bool main_leads = true;     // the process that says "listening" hands over
  Environment environment{};  // on top of what every test sets
};

// "pid=4711" as an answer of that process.
std::string answer_of(const Process& server);

// The process was asked to end by the library, since it had nothing left to do,
// and has ended.
bool left_by_itself(Process& server);
// The same of a server that asks: nobody tells it to end, it has returned.
bool left_by_return(Process& server);
// The same of one that says what its event descriptor tells.
bool left_after_events(Process& server);

// The number after `name=` in a line.
long number_in(const std::string& line, const std::string& name);

}  // namespace continuity::test
