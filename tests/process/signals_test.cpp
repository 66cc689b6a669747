// Signals from outside, to either side, at any time: what libcontinuity(7) says of them.
#include "families.hpp"
#include "place.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <csignal>
#include <optional>

namespace continuity::test {
namespace {

constexpr int by_signal = 128;
const auto asking_signals = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};
const auto all_signals = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGKILL};

// Two generations, and a connection that the older one has in hand.
struct Two {
  explicit Two(const Arguments& arguments, const Environment& environment) {
    place.environment = environment;
    predecessor.emplace(place.start(arguments));
    held.emplace(place.address());
    held_by = held->ask("hello");
    successor.emplace(place.restart(arguments));
    REQUIRE(answer_from(place.address()).rfind("pid=", 0) == 0);
  }

  void ends(int signal, int status) {
    successor->signal(signal);
    CHECK(successor->wait_exit() == status);
  }
  // The predecessor holds on to the connection, and to nothing else.
  void check_over() {
    CHECK(wait_until([&] { return answer_from(place.address()) == "ECONNREFUSED"; }));
    CHECK(held->ask("hello") == held_by);
    CHECK(predecessor->logged("; serving again") == 0);
  }
  void check_revived() {
    predecessor->await_log("after it took over; serving again");
    CHECK(answer_from(place.address()).rfind("pid=", 0) == 0);
    CHECK(held->ask("hello") == held_by);
  }

  FamilyPlace place;
  std::optional<Process> predecessor{};
  std::optional<Process> successor{};
  std::optional<Connection> held{};
  std::string held_by{};
};

Environment on_probation() {
  return {"CONTINUITY_PROBATION=30s"};
}

// A kernel without pidfds, which tells nothing of who has ended.
Environment on_probation_without_pidfd() {
  return {"CONTINUITY_PROBATION=30s", "LD_PRELOAD=" CONTINUITY_FAULTY_LIBRARY,
          "CONTINUITY_TEST_FAIL=pidfd_open:" + std::to_string(ENOSYS)};
}

}  // namespace

TEST_CASE("a successor on probation that is asked to end has not failed") {
  const std::string loop = GENERATE("epoll-level", "pool", "prefork");
  const int signal = GENERATE(values(asking_signals));
  CAPTURE(loop, signal);
  Two two({loop}, on_probation());
  const bool tells_workers = loop == "prefork" && signal == SIGTERM;
  two.ends(signal, tells_workers ? 0 : by_signal + signal);
  two.predecessor->await_log("as it was meant to; not serving again");
  two.check_over();
}

TEST_CASE("a successor on probation that is killed is succeeded by its predecessor") {
  const std::string loop = GENERATE("epoll-level", "pool", "prefork");
  const int signal = GENERATE(SIGKILL, SIGSEGV, SIGABRT);
  CAPTURE(loop, signal);
  Two two({loop}, on_probation());
  two.ends(signal, by_signal + signal);
  two.check_revived();
}

TEST_CASE("which exit status of a successor on probation tells that it has failed") {
  const auto [status, fails] =
      GENERATE(table<int, bool>({{0, false}, {143, false}, {1, true}, {255, true}}));
  const std::string loop = GENERATE("epoll-level", "prefork");
  const bool with_pidfd = GENERATE(true, false);
  CAPTURE(loop, status, with_pidfd);
  Two two({"--exit-on-signal", std::to_string(status), loop},
          with_pidfd ? on_probation() : on_probation_without_pidfd());
  two.ends(SIGPWR, status);
  if (fails) {
    two.check_revived();
  } else {
    two.predecessor->await_log("as it was meant to; not serving again");
    two.check_over();
  }
}

TEST_CASE("where the kernel tells nothing, a successor that does not say goodbye has failed") {
  Two two({"epoll-level"}, on_probation_without_pidfd());
  two.ends(SIGTERM, by_signal + SIGTERM);
  two.check_revived();
}

TEST_CASE("a successor that ends after its probation is nobody's to replace") {
  const int signal = GENERATE(values(all_signals));
  CAPTURE(signal);
  Two two({"epoll-level"}, {"CONTINUITY_PROBATION=10ms"});
  two.predecessor->await_log("finishing 1 connection");
  two.ends(signal, by_signal + signal);
  two.check_over();
}

TEST_CASE("a successor that is told to end before it is ready changes nothing") {
  const int signal = GENERATE(values(all_signals));
  CAPTURE(signal);
  const Place place;
  Process predecessor = place.start({"loop"});
  Process successor = place.spawn_listening({"--end", "hang", "loop"});
  successor.signal(signal);
  CHECK(successor.wait_exit() == by_signal + signal);
  predecessor.await_log("before it was ready; serving on");
  CHECK(answer_from(place.address()) == answer_of(predecessor));
}

TEST_CASE("a predecessor that ends leaves its successor what it has claimed") {
  const int signal = GENERATE(values(all_signals));
  CAPTURE(signal);
  const Place place;
  Process predecessor = place.start({"loop"});
  Process successor = place.spawn_listening({"--end", "hang", "loop"});
  predecessor.signal(signal);
  CHECK(predecessor.wait_exit() == by_signal + signal);
  Connection early(place.address());
  successor.send("go on\n");
  CHECK(early.ask("hello") == answer_of(successor));
}

// What was said and is not answered yet: the predecessor is stopped where it would let go.
struct Asking {
  Asking() {
    place.environment = {"LD_PRELOAD=" CONTINUITY_FAULTY_LIBRARY, "CONTINUITY_TEST_AT=got:7:stop",
                         "CONTINUITY_PROBATION=30s"};
    predecessor = place.start({"loop"});
    place.environment.clear();
    successor = place.spawn({"loop"});
    predecessor.await_log("it happens");
    REQUIRE(wait_until([&] { return predecessor.is_stopped(); }));
  }

  Place place{};
  Process predecessor{};
  Process successor{};
};

// It waits with all signals blocked: it has taken over when it hears of one.
TEST_CASE("a successor that ends while its predecessor lets go ends as on probation") {
  const int signal = GENERATE(values(all_signals));
  CAPTURE(signal);
  Asking asking;
  asking.successor.signal(signal);
  asking.predecessor.signal(SIGCONT);
  CHECK(asking.successor.wait_exit() == by_signal + signal);
  if (signal == SIGKILL) {
    asking.predecessor.await_log("after it took over; serving again");
    CHECK(answer_from(asking.place.address()) == answer_of(asking.predecessor));
  } else {
    asking.predecessor.await_log("as it was meant to; not serving again");
    CHECK(wait_until([&] { return answer_from(asking.place.address()) == "ECONNREFUSED"; }));
  }
}

TEST_CASE("a predecessor that ends while it lets go leaves its successor everything") {
  const int signal = GENERATE(values(all_signals));
  CAPTURE(signal);
  Asking asking;
  Connection early(asking.place.address());
  asking.predecessor.signal(signal);
  asking.predecessor.signal(SIGCONT);
  CHECK(asking.predecessor.wait_exit() == by_signal + signal);
  CHECK(early.ask("hello") == answer_of(asking.successor));
}

TEST_CASE("a predecessor that ends after it has handed over takes nothing with it") {
  const int signal = GENERATE(values(all_signals));
  const std::string probation = GENERATE("30s", "10ms");
  CAPTURE(signal, probation);
  Two two({"epoll-level"}, {"CONTINUITY_PROBATION=" + probation});
  if (probation == "10ms") {
    two.predecessor->await_log("finishing 1 connection");
  }
  two.predecessor->signal(signal);
  CHECK(two.predecessor->wait_exit() == by_signal + signal);
  CHECK(answer_from(two.place.address()) == answer_of(*two.successor));
  // And it can be followed.
  const Process next = two.place.restart({"epoll-level"});
  CHECK(answer_from(two.place.address()) == answer_of(next));
}

}  // namespace continuity::test
