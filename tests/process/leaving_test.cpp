// After the take-over: what keeps a predecessor, how it is told to end, and how
// it takes its listeners back if the successor does not live.
#include "place.hpp"
#include "support/load_driver.hpp"

#include <catch2/catch.hpp>

#include <csignal>

namespace continuity::test {

TEST_CASE("a predecessor stays until its last connection has ended, and no longer") {
  const Place place;
  Process predecessor = place.start({"epoll-level"});
  Process successor;
  {
    Connection kept(place.address());
    REQUIRE(kept.ask("hello") == answer_of(predecessor));
    successor = place.restart({"epoll-level"});
    predecessor.await_log("finishing 1 connection");

    CHECK(kept.ask("hello") == answer_of(predecessor));
    CHECK(predecessor.logged("leaving") == 0);
  }
  CHECK(left_by_itself(predecessor));
  CHECK(answer_from(place.address()) == answer_of(successor));
}

TEST_CASE("several generations finish their connections side by side") {
  const Place place;
  Process first = place.start({"threads"});
  Connection of_first(place.address());
  REQUIRE(of_first.ask("hello") == answer_of(first));
  Process second = place.restart({"threads"});
  Connection of_second(place.address());
  REQUIRE(of_second.ask("hello") == answer_of(second));
  const Process third = place.restart({"threads"});

  CHECK(answer_from(place.address()) == answer_of(third));
  CHECK(of_first.ask("hello") == answer_of(first));
  CHECK(of_second.ask("hello") == answer_of(second));
}

TEST_CASE("CONTINUITY_SUCCESS_SIGNAL tells the predecessor, and nobody else") {
  Place place;
  place.environment = {"CONTINUITY_SUCCESS_SIGNAL=USR1"};
  Process predecessor = place.start({"loop"});
  Process failing = place.spawn_listening({"--end", "exit1", "loop"});
  failing.wait_exit();
  Process successor;
  {
    const Connection keeps_it(place.address());
    successor = place.restart({"loop"});
    CHECK(predecessor.next_line() == "told of success");
  }
  CHECK(left_by_itself(predecessor));
  successor.signal(SIGUSR1);  // its own line is the first of that kind
  CHECK(successor.next_line() == "told of success");
}

TEST_CASE("CONTINUITY_STOP_SIGNAL is what ends the predecessor") {
  Place place;
  place.environment = {"CONTINUITY_STOP_SIGNAL=INT"};
  Process predecessor = place.start({"loop"});
  const Process successor = place.restart({"loop"});

  predecessor.await_log("leaving (SIGINT)");
  CHECK(predecessor.wait_exit() == 128 + SIGINT);
}

TEST_CASE("a predecessor that does not end when told is killed after CONTINUITY_STOP_TIMEOUT") {
  Place place;
  place.environment = {"CONTINUITY_STOP_TIMEOUT=100ms"};
  Process predecessor = place.start({"--deaf-to-signals", "loop"});
  const Process successor = place.restart({"--deaf-to-signals", "loop"});

  predecessor.await_log("ending with SIGKILL");
  CHECK(predecessor.wait_exit() == 128 + SIGKILL);
}

TEST_CASE("a successor killed in its probation gives the listener back") {
  const std::string loop =
      GENERATE("loop", "pool", "poll", "poll-blocking", "select", "epoll-edge", "epoll-oneshot");
  CAPTURE(loop);
  Place place;
  place.environment = {"CONTINUITY_PROBATION=30s"};
  Process predecessor = place.start({loop});
  Process successor = place.restart({loop});
  REQUIRE(answer_from(place.address()) == answer_of(successor));

  successor.signal(SIGKILL);
  successor.wait_exit();

  CHECK(answer_from(place.address()) == answer_of(predecessor));
  CHECK(answer_from(place.address()) == answer_of(predecessor));
  predecessor.await_log("serving again");
  Process next = place.restart({loop});
  CHECK(answer_from(place.address()) == answer_of(next));
}

// Threads asleep in accept go to the stand-in and back, many times: none may be
// forgotten on the listener of somebody else.
TEST_CASE("threads in accept follow their listener through many retirements and revivals") {
  constexpr int cycles = 30;
  Place place;
  place.environment = {"CONTINUITY_PROBATION=10s"};
  Process server = place.start({"pool"});
  Load load(place.address(), server, 16);
  for (int cycle = 0; cycle < cycles; ++cycle) {
    Process killed = place.spawn_listening({"pool"});
    load.watch(killed.pid());
    killed.await_log("took over " + place.printed_address());
    load.only(killed.pid());
    CHECK(load.await_ok(50));
    // Who connects from here on may be served by either.
    load.tell("only " + std::to_string(server.pid()) + " " + std::to_string(killed.pid()));
    CHECK(load.await_ok(50));
    killed.signal(SIGKILL);
    server.await_log("pid " + std::to_string(killed.pid()) + " was killed by SIGKILL");
    CHECK(load.await_ok(20));
  }
  Process successor = place.spawn_listening({"pool"});
  load.watch(successor.pid());
  successor.await_log("took over " + place.printed_address());
  load.only(successor.pid());
  CHECK(load.await_ok(1000));
  INFO(load.stats());
  CHECK(load.count("stale") == 0);
}

TEST_CASE("a successor killed in its probation leaves its flags and backlog nowhere") {
  Place place;
  place.environment = {"CONTINUITY_PROBATION=30s"};
  const Process predecessor = place.start({"--backlog", "10", "threads"});
  const std::string before = answer_from(place.address(), "options");
  Process successor = place.restart({"--backlog", "3", "--nonblocking", "poll"});
  REQUIRE(answer_from(place.address()) == answer_of(successor));

  successor.signal(SIGKILL);
  successor.wait_exit();

  CHECK(answer_from(place.address(), "options") == before);
  CHECK(answer_from(place.address()) == answer_of(predecessor));
}

TEST_CASE("an address that the successor does not claim is served until CONTINUITY_UNCLAIMED") {
  const ReservedPort dropped;
  Place place;
  place.environment = {"CONTINUITY_UNCLAIMED=300ms"};
  place.addresses.push_back(dropped.address());
  Process predecessor = place.start({"poll"});
  place.addresses.pop_back();

  const Process successor = place.restart({"poll"});

  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(answer_from(dropped.address()) == answer_of(predecessor));
  predecessor.await_log("did not claim is closed");
  CHECK(answer_from(dropped.address()) == "ECONNREFUSED");
  CHECK(left_by_itself(predecessor));
}

TEST_CASE("an address that the successor adds is its own") {
  const ReservedPort added;
  Place place;
  Process predecessor = place.start({"poll"});
  place.addresses.push_back(added.address());

  const Process successor = place.restart({"poll"});

  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(answer_from(added.address()) == answer_of(successor));
  CHECK(left_by_itself(predecessor));
}

// A server that binds a second address when it serves the first already.
struct LatePlace : Place {
  ReservedPort late{};
  Arguments arguments{"--late", late.address(), "threads"};

  [[nodiscard]] Process start_with_both() const {
    Process server = start(arguments);
    bind_late(server);
    REQUIRE(answer_from(late.address()) == answer_of(server));
    return server;
  }
  static void bind_late(Process& server) {
    server.send("go on\n");
    REQUIRE(server.next_line() == "late");
  }
  // It is ready there at its first accept, a moment after it has listened.
  void take_over_late(Process& taker, const Process& giver) const {
    bind_late(taker);
    taker.await_log("took over " + late.address() + " from pid " + std::to_string(giver.pid()));
  }
};

TEST_CASE("a listener that is bound when another one already serves is taken over, too") {
  const std::string probation = GENERATE("50ms", "30s");
  CAPTURE(probation);
  LatePlace place;
  place.environment = {"CONTINUITY_PROBATION=" + probation};
  Process predecessor = place.start_with_both();

  Process successor = place.restart(place.arguments);
  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(answer_from(place.late.address()) == answer_of(predecessor));
  place.take_over_late(successor, predecessor);

  CHECK(answer_from(place.late.address()) == answer_of(successor));
  CHECK(answer_from(place.address()) == answer_of(successor));
  if (probation == "50ms") {
    CHECK(left_by_itself(predecessor));
    CHECK(answer_from(place.late.address()) == answer_of(successor));
  }
}

TEST_CASE("restarted under load, nothing is lost: a second address bound when the first serves") {
  const LatePlace place;
  Process server = place.start_with_both();
  Load early(place.address(), server, 4);
  Load late(place.late.address(), server, 4);

  for (int restart = 0; restart < 5; ++restart) {
    Process successor = place.spawn_listening(place.arguments);
    early.watch(successor.pid());
    late.watch(successor.pid());
    successor.await_log("took over " + place.address());
    early.only(successor.pid());
    CHECK(late.await_ok(10));
    CHECK(answer_from(place.late.address()) == answer_of(server));
    place.take_over_late(successor, server);
    late.only(successor.pid());
    CHECK(early.await_ok(10));
    CHECK(late.await_ok(10));
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  INFO(early.stats() << late.stats());
  CHECK(early.count("failed") + early.count("stale") == 0);
  CHECK(late.count("failed") + late.count("stale") == 0);
}

TEST_CASE("a successor killed in its probation gives back what it has bound later, too") {
  LatePlace place;
  place.environment = {"CONTINUITY_PROBATION=30s"};
  Process predecessor = place.start_with_both();
  Process successor = place.restart(place.arguments);
  place.take_over_late(successor, predecessor);
  REQUIRE(answer_from(place.address()) == answer_of(successor));
  REQUIRE(answer_from(place.late.address()) == answer_of(successor));

  successor.signal(SIGKILL);
  successor.wait_exit();

  CHECK(answer_from(place.address()) == answer_of(predecessor));
  CHECK(answer_from(place.late.address()) == answer_of(predecessor));
  predecessor.await_log("serving again");
  Process next = place.restart(place.arguments);
  place.take_over_late(next, predecessor);
  CHECK(answer_from(place.address()) == answer_of(next));
  CHECK(answer_from(place.late.address()) == answer_of(next));
}

}  // namespace continuity::test
