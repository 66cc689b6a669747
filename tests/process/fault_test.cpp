// A kernel that has no descriptor or no memory left, at each call of the library
// in turn: somebody answers every client, whichever call it was.
#include "place.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <thread>

namespace continuity::test {
namespace {

// More calls than a generation makes from its start until it has handed over.
constexpr int last_call = 260;

std::string failing(int call) {
  return "CONTINUITY_TEST_FAIL=" + std::to_string(call) + ":" +
         std::to_string(call % 2 == 0 ? EMFILE : ENOMEM);
}

// Who answers; somebody must.
std::string answer_of_either(const Place& place, const Process& one, const Process& other) {
  std::string answer = answer_from(place.address());
  CHECK((answer == answer_of(one) || answer == answer_of(other)));
  return answer;
}

// What a restart comes to: the successor answers, or has ended. Nobody is
// refused meanwhile. True if it took over. (Its log tells nothing: that may be
// the call that failed.)
bool ends_well(const Place& place, const Process& predecessor, Process& successor) {
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  while (successor.is_running() &&
         answer_of_either(place, predecessor, successor) != answer_of(successor)) {
    if (Clock::now() > deadline) {
      FAIL("the successor neither took over nor ended");
    }
    // As fast as it can it would run out of ports in five seconds.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return answer_of_either(place, predecessor, successor) == answer_of(successor);
}

struct FaultyPlace : Place {
  FaultyPlace() {
    environment = {"LD_PRELOAD=" CONTINUITY_FAULTY_LIBRARY, "CONTINUITY_PROBATION=20ms"};
  }
};

}  // namespace

TEST_CASE("whichever call of a predecessor fails, every client is answered") {
  int taken_over = 0;
  for (int call = 1; call <= last_call; ++call) {
    CAPTURE(call);
    FaultyPlace place;
    const Environment sound = place.environment;
    place.environment.push_back(failing(call));
    const Process predecessor = place.start({"epoll-level"});
    place.environment = sound;
    Process successor = place.spawn({"epoll-level"});
    taken_over += ends_well(place, predecessor, successor) ? 1 : 0;
  }
  // If the library did nothing at all, everybody would be answered, too.
  CHECK(taken_over > last_call / 2);
}

TEST_CASE("whichever call of a successor fails, every client is answered") {
  int taken_over = 0;
  for (int call = 1; call <= last_call; ++call) {
    CAPTURE(call);
    FaultyPlace place;
    const Process predecessor = place.start({"epoll-level"});
    place.environment.push_back(failing(call));
    Process successor = place.spawn({"epoll-level"});
    taken_over += ends_well(place, predecessor, successor) ? 1 : 0;
  }
  CHECK(taken_over > last_call / 4);
  CHECK(taken_over < last_call);  // the calls did fail
}

}  // namespace continuity::test
