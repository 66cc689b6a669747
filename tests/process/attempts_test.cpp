// One restart at a time.
#include "place.hpp"
#include "support/load_driver.hpp"

#include <catch2/catch.hpp>

#include <csignal>

namespace continuity::test {

TEST_CASE("a second successor is refused while the first starts, and told of it") {
  const Place place;
  Process predecessor = place.start({"loop"});
  Process first = place.spawn_listening({"--end", "hang", "loop"});

  Process rival = place.spawn({"loop"});

  CHECK(rival.next_line() == "bind EADDRINUSE");
  CHECK(rival.wait_exit() == 1);
  rival.await_log("cannot take over " + place.address() + ": pid " +
                  std::to_string(predecessor.pid()) + " is handing over to pid " +
                  std::to_string(first.pid()));
  first.send("go on\n");
  first.await_log("took over " + place.address());
  CHECK(answer_from(place.address()) == answer_of(first));
}

TEST_CASE("with CONTINUITY_BUSY=wait a second successor follows the first") {
  Place place;
  place.environment = {"CONTINUITY_BUSY=wait"};
  Process predecessor = place.start({"loop"});
  Process first = place.spawn_listening({"--end", "hang", "loop"});
  Process second = place.spawn({"loop"});
  second.await_log("waiting: pid " + std::to_string(predecessor.pid()));

  first.send("go on\n");

  first.await_log("took over " + place.address());
  second.await_log("took over " + place.address() + " from pid " + std::to_string(first.pid()));
  CHECK(answer_from(place.address()) == answer_of(second));
  CHECK(left_by_itself(predecessor));
  CHECK(left_by_itself(first));
}

// What it has claimed is under way, but nobody's else.
TEST_CASE("with CONTINUITY_BUSY=wait a program that is in its own way is told so at once") {
  const bool wildcard_first = GENERATE(false, true);
  CAPTURE(wildcard_first);
  Place place;
  place.environment = {"CONTINUITY_BUSY=wait"};
  const std::string port = place.address().substr(place.address().rfind(':'));
  const std::string held = wildcard_first ? "0.0.0.0" + port : place.address();
  const std::string second = wildcard_first ? place.address() : "0.0.0.0" + port;
  place.addresses = {held};
  Process predecessor = place.start({"loop"});
  place.addresses = {held, second};

  Process successor = place.spawn({"loop"});

  CHECK(successor.next_line() == "bind EADDRINUSE");
  CHECK(successor.wait_exit() == 1);
  CHECK(successor.logged("waiting") == 0);
  CHECK(answer_from(place.address()) == answer_of(predecessor));
}

TEST_CASE("with CONTINUITY_BUSY=wait a second successor takes the place of one that fails") {
  Place place;
  place.environment = {"CONTINUITY_BUSY=wait"};
  Process predecessor = place.start({"loop"});
  Process first = place.spawn_listening({"--end", "hang", "loop"});
  Process second = place.spawn({"loop"});
  second.await_log("waiting: pid " + std::to_string(predecessor.pid()));

  first.signal(SIGKILL);

  second.await_log("took over " + place.address() + " from pid " +
                   std::to_string(predecessor.pid()));
  CHECK(answer_from(place.address()) == answer_of(second));
}

TEST_CASE("a successor that comes while another is on probation waits for the end of it") {
  Place place;
  place.environment = {"CONTINUITY_PROBATION=300ms"};
  Process first = place.start({"loop"});
  Process second = place.restart({"loop"});
  REQUIRE(answer_from(place.address()) == answer_of(second));
  Process third = place.spawn({"loop"});

  third.await_log("is on probation for");
  third.await_log("took over " + place.address() + " from pid " + std::to_string(second.pid()));
  CHECK(left_by_itself(first));
  CHECK(left_by_itself(second));
  CHECK(answer_from(place.address()) == answer_of(third));
}

TEST_CASE("two instances on different ports restart independently, at the same time") {
  const Place one;
  Place other;
  other.environment = {"CONTINUITY_DIR=" + one.rendezvous()};
  Process one_server = one.start({"pool"});
  Process other_server = other.start({"pool"});
  Load one_load(one.address(), one_server, 4);
  Load other_load(other.address(), other_server, 4);

  for (int restart = 0; restart < 5; ++restart) {
    Process one_successor = one.spawn({"pool"});
    Process other_successor = other.spawn({"pool"});
    one_load.watch(one_successor.pid());
    other_load.watch(other_successor.pid());
    one_successor.await_log("took over " + one.address() + " from pid " +
                            std::to_string(one_server.pid()));
    one_load.only(one_successor.pid());
    other_successor.await_log("took over " + other.address() + " from pid " +
                              std::to_string(other_server.pid()));
    other_load.only(other_successor.pid());
    CHECK(one_load.await_ok(10));
    CHECK(other_load.await_ok(10));
    CHECK(left_by_itself(one_server));
    CHECK(left_by_itself(other_server));
    one_server = std::move(one_successor);
    other_server = std::move(other_successor);
  }
  INFO(one_load.stats() << other_load.stats());
  CHECK(one_load.count("failed") + one_load.count("stale") == 0);
  CHECK(other_load.count("failed") + other_load.count("stale") == 0);
}

TEST_CASE("a program of another name does not take the address") {
  Place place;
  Process server = place.start({"loop"});
  place.environment = {"CONTINUITY_NAME=somebody-else"};

  Process stranger = place.spawn({"loop"});

  CHECK(stranger.next_line() == "bind EADDRINUSE");
  stranger.await_log("set CONTINUITY_NAME");
  CHECK(answer_from(place.address()) == answer_of(server));
}

TEST_CASE("a switched-off library leaves a second start its error") {
  Place place;
  const Process server = place.start({"loop"});
  place.environment = {"CONTINUITY_DISABLE=1"};

  Process second = place.spawn({"loop"});

  CHECK(second.next_line() == "bind EADDRINUSE");
  CHECK(second.log().empty());
}

}  // namespace continuity::test
