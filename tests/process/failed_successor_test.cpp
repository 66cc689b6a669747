// A restart that fails changes nothing: the predecessor serves on, and the next
// attempt succeeds.
#include "core/wire.hpp"
#include "place.hpp"
#include "support/load_driver.hpp"

#include <catch2/catch.hpp>

#include <csignal>

namespace continuity::test {
namespace {

// Every way to end between listen and the first wait, and how it looks outside.
struct End {
  std::string name;
  int status;
  const char* text;
};

void survives(const Arguments& loop, const End& end) {
  CAPTURE(loop, end.name);
  const Place place;
  Process predecessor = place.start(loop);
  Load load(place.address(), predecessor);

  Arguments failing = loop;
  failing.insert(failing.begin(), {"--end", end.name});
  Process successor = place.spawn_listening(failing);
  load.watch(successor.pid());
  load.only(predecessor.pid());
  CHECK(successor.wait_exit() == end.status);

  predecessor.await_log("pid " + std::to_string(successor.pid()) + " " + end.text +
                        " before it was ready; serving on");
  CHECK(load.await_ok(100));
  CHECK(load.count("stale") == 0);

  Process next = place.spawn(loop);
  load.watch(next.pid());
  next.await_log("took over " + place.address());
  load.only(next.pid());
  CHECK(load.await_ok(100));
  CHECK(left_by_itself(predecessor));
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

void survives_all_ends(const Arguments& loop) {
  for (const End& end :
       {End{"exit0", 0, "ended with status 0"}, End{"exit1", 1, "ended with status 1"},
        End{"segv", 128 + SIGSEGV, "was killed by SIGSEGV"},
        End{"kill", 128 + SIGKILL, "was killed by SIGKILL"}}) {
    survives(loop, end);
  }
}

}  // namespace

TEST_CASE("an accept loop serves on when a successor ends before it is ready") {
  survives_all_ends({"loop"});
}

TEST_CASE("an event loop serves on when a successor ends before it is ready") {
  survives_all_ends({"epoll-level"});
}

TEST_CASE("a server that is run to check and exits, like nginx -t, leaves the running one alone") {
  const Place place;
  Process server = place.start({"poll"});

  for (int check = 0; check < 5; ++check) {
    Process checking = place.spawn_listening({"--end", "exit0", "poll"});
    CHECK(checking.wait_exit() == 0);
    CHECK(answer_from(place.address()) == answer_of(server));
  }
  CHECK(server.logged("handed") == 0);
}

TEST_CASE("a successor that hangs before it is ready is told to end in time") {
  Place place;
  place.environment = {"CONTINUITY_READY_TIMEOUT=200ms"};
  Process predecessor = place.start({"loop"});
  Load load(place.address(), predecessor);
  load.only(predecessor.pid());

  Process successor = place.spawn_listening({"--end", "hang", "loop"});

  predecessor.await_log("pid " + std::to_string(successor.pid()) + " was not ready within 0.2 s");
  CHECK(successor.wait_exit() == 128 + SIGTERM);
  CHECK(load.await_ok(100));
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

TEST_CASE("a successor that comes to itself after its time never accepts") {
  constexpr int told_to_end = 75;
  Place place;
  place.environment = {"CONTINUITY_READY_TIMEOUT=200ms"};
  Process predecessor = place.start({"loop"});
  Process late = place.spawn_listening({"--deaf-to-signals", "--end", "hang", "loop"});
  predecessor.await_log("was not ready within 0.2 s");

  late.send("go on\n");

  CHECK(late.wait_exit() == told_to_end);
  CHECK(late.logged("this program ends") == 1);
  CHECK(answer_from(place.address()) == answer_of(predecessor));
}

// Whoever was to hear that it is deaf is not there any more, and it has not looked yet
// whether a race left something behind.
TEST_CASE("a predecessor whose successor dies while numbers move accepts again") {
  const Arguments loop = GENERATE(Arguments{"loop"}, Arguments{"threads"}, Arguments{"pool"});
  CAPTURE(loop);
  Place place;
  place.environment = {
      "LD_PRELOAD=" CONTINUITY_FAULTY_LIBRARY,
      "CONTINUITY_TEST_AT=swap:" + std::to_string(static_cast<int>(MessageType::ready)) + ":stop"};
  Process predecessor = place.start(loop);
  place.environment.clear();
  Process successor = place.spawn(loop);
  REQUIRE(wait_until([&] { return predecessor.is_stopped(); }));

  successor.signal(SIGKILL);
  CHECK(successor.wait_exit() == 128 + SIGKILL);
  predecessor.signal(SIGCONT);

  predecessor.await_log("after it took over; serving again");
  CHECK(answer_from(place.address()) == answer_of(predecessor));
  Process next = place.restart(loop);
  CHECK(answer_from(place.address()) == answer_of(next));
  CHECK(left_by_itself(predecessor));
}

TEST_CASE("a predecessor that dies while its successor starts leaves it the listener") {
  const Place place;
  Process predecessor = place.start({"loop"});
  Process successor = place.spawn_listening({"--end", "hang", "loop"});
  predecessor.signal(SIGKILL);
  predecessor.wait_exit();

  // Nobody accepts now, but whoever comes waits in the queue.
  Connection early(place.address());
  successor.send("go on\n");

  CHECK(early.ask("hello") == answer_of(successor));
  CHECK(successor.logged("which has ended") == 1);
}

}  // namespace continuity::test
