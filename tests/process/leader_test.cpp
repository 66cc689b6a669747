// The process that leads a generation holds its conversations. If it dies in the middle
// of a restart another one goes on, whatever has been said by then: a restart is an
// affair of generations, not of processes.
#include "families.hpp"

#include <catch2/catch.hpp>

#include <csignal>

namespace continuity::test {
namespace {

const Arguments two_workers{"--workers", "2", "fork-and-forget"};
constexpr const char* goes_on = "leads from now on, and goes on with the take-over";

// All of them, without a goodbye.
void kill_family(Process& main) {
  const auto family = family_of(main.pid());
  for (const pid_t process : family) {
    ::kill(process, SIGKILL);
  }
  CHECK(have_ended(family));
}

// The process that leads is the one that was started; its workers live on without it.
struct Predecessor {
  explicit Predecessor(const Place& place)
      : process(place.start(two_workers)), workers(workers_of(process, 2)) {
    REQUIRE(who_answers(place.address(), 2) == workers);
  }
  void lose_leader() {
    process.signal(SIGKILL);
    process.wait_exit();
  }

  Process process;
  std::set<pid_t> workers;
};

// A successor that has been granted everything, and is stopped where it would say that it
// is ready.
struct Granted {
  explicit Granted(FamilyPlace& place) {
    const Environment environment = place.environment;
    place.environment.insert(place.environment.end(), {"LD_PRELOAD=" CONTINUITY_FAULTY_LIBRARY,
                                                       "CONTINUITY_TEST_AT=before:7:stop"});
    process = place.spawn(two_workers);
    place.environment = environment;
    asker = static_cast<pid_t>(number_in(process.await_log("it happens"), "pid"));
  }
  void go_on() const {
    CHECK(comes_to_stop(asker));
    ::kill(asker, SIGCONT);
  }

  Process process{};
  pid_t asker = 0;
};

}  // namespace

TEST_CASE("who leads dies on probation: the others take back what the successor loses") {
  const FamilyPlace place("CONTINUITY_PROBATION=60s");
  Predecessor predecessor(place);
  Process successor = place.restart(two_workers);

  predecessor.lose_leader();
  predecessor.process.await_log(goes_on);
  kill_family(successor);

  CHECK(who_answers(place.address(), 2) == predecessor.workers);
  CHECK(predecessor.process.logged("serving again") == 1);
}

TEST_CASE("one leader after the other dies on probation: who is left takes everything back") {
  const FamilyPlace place("CONTINUITY_PROBATION=60s");
  Predecessor predecessor(place);
  Process successor = place.restart(two_workers);

  predecessor.lose_leader();
  const pid_t second = logged_by(predecessor.process.await_log(goes_on));
  REQUIRE(predecessor.workers.contains(second));
  ::kill(second, SIGKILL);
  predecessor.workers.erase(second);
  CHECK(have_ended({second}));
  CHECK(wait_until([&] { return predecessor.process.logged(goes_on) == 2; }));
  kill_family(successor);

  CHECK(answer_from(place.address()) == "pid=" + std::to_string(*predecessor.workers.begin()));
}

TEST_CASE("who leads dies on probation: the successor is watched no longer than it was told") {
  const FamilyPlace place("CONTINUITY_PROBATION=1s");
  Predecessor predecessor(place);
  Process successor = place.restart(two_workers);
  predecessor.lose_leader();
  predecessor.process.await_log(goes_on);

  predecessor.process.await_log("leaving");
  CHECK(have_ended(predecessor.workers));
  CHECK(predecessor.process.logged("serving again") == 0);
  Process next = place.restart(two_workers);
  CHECK(next.logged("took over") == 1);
}

TEST_CASE("who leads dies before the successor is ready: it becomes the owner all the same") {
  FamilyPlace place("CONTINUITY_PROBATION=60s");
  Predecessor predecessor(place);
  Load load(place.address());
  Granted successor(place);

  predecessor.lose_leader();
  predecessor.process.await_log(goes_on);
  CHECK(load.await_ok(20));
  CHECK(successor.process.logged("took over") == 0);
  successor.go_on();

  successor.process.await_log("took over " + place.printed_address());
  CHECK(load.await_ok(20));
  INFO(load.stats());
  CHECK(load.count("failed") <= 1);  // what the dead one had in hand
}

TEST_CASE("who leads dies before the successor is ready, and so does that: nothing has changed") {
  FamilyPlace place("CONTINUITY_PROBATION=60s");
  Predecessor predecessor(place);
  Granted successor(place);
  predecessor.lose_leader();
  predecessor.process.await_log(goes_on);

  kill_family(successor.process);

  predecessor.process.await_log("before it was ready; serving on");
  CHECK(who_answers(place.address(), 2) == predecessor.workers);
  Process next = place.restart(two_workers);
  CHECK(next.logged("took over") == 1);
}

TEST_CASE("who leads dies when it has sent, or is about to send, the last GRANT: it goes on") {
  const std::string when = GENERATE("before", "after");
  CAPTURE(when);
  FamilyPlace place("CONTINUITY_PROBATION=60s");
  const Environment environment = place.environment;
  place.environment.insert(place.environment.end(), {"LD_PRELOAD=" CONTINUITY_FAULTY_LIBRARY,
                                                     "CONTINUITY_TEST_AT=" + when + ":4:kill"});
  Predecessor predecessor(place);
  place.environment = environment;
  Process successor = place.spawn(two_workers);

  predecessor.process.await_log("it happens");
  predecessor.process.wait_exit();
  successor.await_log("took over " + place.printed_address());
  CHECK(predecessor.process.logged(goes_on) == 1);
  // And comes back with what it has, should that be the end of the other one.
  kill_family(successor);
  CHECK(who_answers(place.address(), 2) == predecessor.workers);
}

}  // namespace continuity::test
