// Commands on standard input, each answered by one line of JSON.
#pragma once

#include "held.hpp"
#include "owners.hpp"
#include "statistics.hpp"

#include <string>

namespace continuity::load {

class Control {
 public:
  Control(Watched& watched, Statistics& statistics, Held& held)
      : watched_(watched), statistics_(statistics), held_(held) {}

  // The answer to every command but `quit`.
  std::string answer(const std::string& command);

 private:
  Watched& watched_;
  Statistics& statistics_;
  Held& held_;
};

}  // namespace continuity::load
