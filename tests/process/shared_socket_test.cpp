// The listener is one socket with two owners for a while. Until the take-over
// the successor leaves no trace on it; after it the predecessor does not.
#include "place.hpp"
#include "support/load_driver.hpp"

#include <catch2/catch.hpp>

#include <csignal>

namespace continuity::test {
namespace {

constexpr const char* of_first = "keepidle=11 priority=4 rcvbuf=22528 nonblock=0 backlog=10";

}  // namespace

TEST_CASE("a successor that dies leaves flags, options and backlog as they were") {
  const Place place;
  const Process predecessor = place.start({"--options", "11", "--backlog", "10", "threads"});
  REQUIRE(answer_from(place.address(), "options") == of_first);

  Process successor = place.spawn_listening(
      {"--options", "99", "--backlog", "3", "--nonblocking", "--end", "kill", "threads"});
  CHECK(successor.wait_exit() == 128 + SIGKILL);

  CHECK(answer_from(place.address(), "options") == of_first);
  CHECK(answer_from(place.address()) == answer_of(predecessor));
}

TEST_CASE("while a successor starts, flags, options and backlog are the predecessor's") {
  const Place place;
  const Process predecessor = place.start({"--options", "11", "--backlog", "10", "threads"});

  const Process successor = place.spawn_listening(
      {"--options", "99", "--backlog", "3", "--nonblocking", "--end", "hang", "threads"});

  CHECK(answer_from(place.address(), "options") == of_first);
  CHECK(answer_from(place.address()) == answer_of(predecessor));
}

TEST_CASE("at the take-over the listener gets the successor's flags, options and backlog") {
  const Place place;
  Process predecessor = place.start({"--options", "11", "--backlog", "10", "threads"});

  const Process successor =
      place.restart({"--options", "99", "--backlog", "3", "--nonblocking", "poll"});

  CHECK(answer_from(place.address(), "options") ==
        "keepidle=99 priority=1 rcvbuf=202752 nonblock=1 backlog=3");
  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(left_by_itself(predecessor));
}

TEST_CASE("a successor's blocking listener blocks, although the predecessor's did not") {
  const Place place;
  Process predecessor = place.start({"poll"});
  const Process successor = place.restart({"threads"});

  CHECK(answer_from(place.address(), "options").find(" nonblock=0 ") != std::string::npos);
  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(left_by_itself(predecessor));
}

TEST_CASE("a successor asks its listener before the take-over and is told what it set itself") {
  const Place place;
  const Process predecessor = place.start({"--options", "11", "--backlog", "10", "threads"});

  Process successor =
      place.spawn({"--options", "99", "--nonblocking", "--describe", "--end", "hang", "poll"});

  CHECK(successor.next_line().rfind("options keepidle=99 priority=1 rcvbuf=202752 nonblock=1", 0) ==
        0);
  CHECK(answer_from(place.address(), "options") == of_first);
  CHECK(answer_from(place.address()) == answer_of(predecessor));
}

TEST_CASE("shutdown of its listener by a retired server deafens nobody but itself") {
  const Place place;
  const Arguments arguments{"--shutdown", "loop"};
  Process server = place.start(arguments);
  Load load(place.address(), server);

  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart(arguments);
    load.watch(successor.pid());
    load.only(successor.pid());
    server.await_log("no connection left; leaving");
    CHECK(server.next_line() == "accept EINVAL");  // out of the accept it slept in
    CHECK(server.wait_exit() == 1);
    CHECK(load.await_ok(50));
    server = std::move(successor);
  }
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

TEST_CASE("shutdown of its listener by a successor that is not ready does not deafen") {
  const Place place;
  const Process predecessor = place.start({"loop"});
  Process successor = place.spawn_listening({"--shutdown", "--end", "hang", "loop"});

  CHECK(answer_from(place.address()) == answer_of(predecessor));
  successor.signal(SIGKILL);
  successor.wait_exit();
  CHECK(answer_from(place.address()) == answer_of(predecessor));
}

}  // namespace continuity::test
