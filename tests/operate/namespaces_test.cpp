// Two containers that hand over to each other: they share a network and the directory where
// they meet, and neither sees a process of the other's.
#include "place.hpp"
#include "support/load_driver.hpp"
#include "support/root.hpp"
#include "support/waiting.hpp"

#include <catch2/catch.hpp>

#include <csignal>

namespace continuity::test {
namespace {

// A server in namespaces of its own, the first process there. What it says of pids is true
// in there only.
Process start_container(const Place& place, const Arguments& loop) {
  Arguments command{"unshare",      "--mount",      "--pid",    "--fork",
                    "--mount-proc", "--kill-child", TINY_SERVER};
  command.insert(command.end(), loop.begin(), loop.end());
  command.push_back(place.address());
  Process container = Process::start(command, place.variables());
  std::string line;
  do {
    line = container.next_line();
  } while (line.rfind("listening ", 0) != 0);
  return container;
}

}  // namespace

TEST_CASE("two sets of namespaces hand over to each other, and nothing is lost") {
  if (needs_root()) {
    return;
  }
  const std::string loop = GENERATE("threads", "prefork-epoll");
  CAPTURE(loop);
  Place place;
  Process current = start_container(place, {loop});
  Load load(place.address());
  REQUIRE(load.await_ok(50));
  for (int i = 0; i < 3; ++i) {
    Process next = start_container(place, {loop});
    next.await_log("took over " + place.printed_address());
    current.await_log("no connection left; leaving");
    current.wait_exit();
    current = std::move(next);
    REQUIRE(load.await_ok(50));
  }
  load.stats();
  CHECK(load.count("failed") == 0);
}

TEST_CASE("a successor in another set of namespaces that crashes on probation is replaced") {
  if (needs_root()) {
    return;
  }
  Place place;
  place.environment = {"CONTINUITY_PROBATION=20s"};
  Process first = start_container(place, {"poll"});
  // Who has not waited yet cannot be followed.
  REQUIRE(answer_from(place.address()).rfind("pid=", 0) == 0);
  Process second = start_container(place, {"poll"});
  second.await_log("took over " + place.printed_address());
  second.signal(SIGKILL);  // and its container with it
  first.await_log("serving again");
  CHECK(answer_from(place.address()).rfind("pid=", 0) == 0);
}

TEST_CASE("the first process of a container leaves though it has no handler for the signal") {
  if (needs_root()) {
    return;
  }
  Place place;
  place.environment = {"CONTINUITY_STOP_TIMEOUT=1h"};
  Process first = start_container(place, {"poll"});
  // Who has not waited yet cannot be followed.
  REQUIRE(answer_from(place.address()).rfind("pid=", 0) == 0);
  Process second = start_container(place, {"poll"});
  second.await_log("took over " + place.printed_address());
  first.await_log("no connection left; leaving (SIGTERM)");
  CHECK(first.wait_exit() == 128 + SIGTERM);
}

}  // namespace continuity::test
