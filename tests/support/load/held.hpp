// Connections that a command opens and a later one uses: requests that are in
// flight while a server is restarted, and connections kept alive across it.
#pragma once

#include "clients.hpp"

#include <map>
#include <string>

namespace continuity::load {

class Held {
 public:
  Held(const Target& target, const Settings& settings, Watched& watched);

  struct Answered {
    Verdict verdict;
    pid_t owner = 0;  // where owners are wanted
  };
  // Sends a request without its end, and waits until it is accepted (where
  // owners are wanted).
  Answered open(const std::string& id);
  // Sends the end of it, and drops the connection.
  Answered finish(const std::string& id);
  // Makes a request on a new connection, which stays.
  Answered keep(const std::string& id);
  // Makes one more on it.
  Answered again(const std::string& id);
  void drop(const std::string& id) { connections_.erase(id); }

 private:
  struct Entry {
    Connection connection;
    Answered answered;  // at last
  };

  Verdict begin(Entry& entry, std::string_view request, Deadline deadline);
  [[nodiscard]] Verdict end(const Entry& entry, std::string_view request, Deadline deadline) const;

  const Target& target_;
  Settings settings_;
  Watched& watched_;
  Sources sources_;
  std::map<std::string, Entry> connections_;
};

}  // namespace continuity::load
