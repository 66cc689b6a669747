// How a server was started, as another process tells it: what is taken for that can be
// written again, and says the same.
#include "core/start.hpp"
#include "fuzz.hpp"

namespace continuity::fuzz {

void run(Bytes input) {
  const auto start = read_start(as_text(input));
  if (!start) {
    return;
  }
  require(!start->program.empty() && !start->arguments.empty(), "there is something to start");
  require((start->mask & ~static_cast<mode_t>(0777)) == 0, "a mask is one");
  for (const Start::Limit& limit : start->limits) {
    require(limit.resource >= 0 && limit.resource < 64, "a limit has a number that is bounded");
  }
  const auto again = read_start(write_start(*start));
  require(again && *again == *start, "what is read is what was written");
}

}  // namespace continuity::fuzz
