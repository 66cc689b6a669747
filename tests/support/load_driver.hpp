// continuity-load, run beside the servers of a test: clients that open a fresh
// connection for every request, judge every outcome and find for every
// connection the process that serves it.
#pragma once

#include "support/process.hpp"

#include <string>
#include <sys/types.h>

namespace continuity::test {

class Load {
 public:
  // Every request is a line, and every answer a line with a pid.
  Load(const std::string& address, const Process& server, int clients = 8);
  // Four, for servers that are killed, of which nobody waits for data before it accepts. A
  // request that was `reset`, and by nobody in `resets_of`, had been accepted by nobody: it
  // was in a queue. One that was `closed` had been accepted.
  static Load silent(const std::string& address, const Process& server);
  // Does not look who serves it.
  explicit Load(const std::string& address);

  // One answer of the client: a JSON object in one line.
  std::string tell(const std::string& command);
  // A number out of the last answer to `stats`.
  long count(const std::string& name);
  std::string stats() { return tell("stats"); }

  void watch(pid_t pid) { tell("watch " + std::to_string(pid)); }
  // From now on every connection must be served by this process.
  void only(pid_t pid) { tell("only " + std::to_string(pid)); }
  // Waits until so many more requests have been answered well.
  bool await_ok(long requests);

  void open(const std::string& id) { tell("open " + id); }  // all but the end of a request
  std::string finish(const std::string& id);                // its outcome
  void keep(const std::string& id) { tell("keep " + id); }  // one request, and it stays open
  std::string again(const std::string& id);                 // the second one's outcome
  void drop(const std::string& id) { tell("drop " + id); }

 private:
  enum class Owners { unknown, known, before_data };
  Load(const std::string& address, int clients, Owners owners);

  Process process_;
};

// The value of a string or a number in such an answer.
std::string json_value(const std::string& object, const std::string& name);
// Of such an answer: the requests that were reset when this process had accepted them.
long resets_of(const std::string& stats, pid_t process);

}  // namespace continuity::test
