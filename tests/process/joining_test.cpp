// Servers in which a listener does not simply come over fork: each process finds
// its generation by what it holds, or by what it was forked from.
#include "core/wire.hpp"
#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <csignal>

namespace continuity::test {
namespace {

// Fresh connections only: these serve one at a time. Who binds for itself takes
// over for itself: then there are several `take_overs`.
void family_restarts(const std::string& shape, std::size_t take_overs = 1) {
  const int times = restarts_to_make(5);
  Place place;
  place.program = FAMILY_SERVER;
  place.environment.emplace_back("CONTINUITY_LOG=debug");
  Process server = place.start({shape});
  Load load(place.address(), server);
  std::string said;
  for (int i = 0; i < times; ++i) {
    Process successor = place.spawn_listening({shape});
    load.watch(successor.pid());
    CHECK(wait_until([&] { return successor.logged("took over") >= take_overs; }));
    load.only(successor.pid());
    CHECK(load.await_ok(20));
    CHECK(left_by_itself(server));
    for (const std::string& line : server.log()) {
      said += line + "\n";
    }
    server = std::move(successor);
  }
  INFO(said);
  check_nothing_was_lost(load, times);
}

std::string number_of(MessageType message) {
  return std::to_string(static_cast<int>(message));
}

// Servers of which a process is stopped in the middle of a conversation.
struct LatePlace : Place {
  LatePlace() {
    program = FAMILY_SERVER;
    environment = {"CONTINUITY_LOG=debug"};
  }
  void stage(const std::string& when) {
    unstaged_ = environment;
    environment.insert(environment.end(), {"LD_PRELOAD=" CONTINUITY_FAULTY_LIBRARY,
                                           "CONTINUITY_TEST_AT=" + when + ":stop"});
  }
  Process start_staged(const Arguments& arguments, const std::string& when) {
    stage(when);
    Process server = start(arguments);
    environment = unstaged_;
    return server;
  }
  Process spawn_stopped(const Arguments& arguments, const std::string& when) {
    stage(when);
    Process server = spawn(arguments);
    environment = unstaged_;
    await_stop(server);
    return server;
  }
  void await_stop(Process& server) {
    stopped_ = static_cast<pid_t>(number_in(server.await_log("it happens"), "pid"));
    const std::string stat = "/proc/" + std::to_string(stopped_) + "/stat";
    CHECK(wait_until([&] { return read_file(stat).find(") T ") != std::string::npos; }));
  }
  void go_on() const { ::kill(stopped_, SIGCONT); }

 private:
  Environment unstaged_;
  pid_t stopped_ = 0;
};

void listen_late(Process& server) {
  server.signal(SIGUSR2);
  CHECK(server.next_line().rfind("late ", 0) == 0);
}

void ends_without_loss(const Place& place, Load& load, Process& server, Process& successor) {
  server.await_log("did not claim is closed: " + place.address());
  load.only(successor.pid());
  CHECK(load.await_ok(100));
  CHECK(left_by_itself(server));
  CHECK(load.await_ok(20));
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

}  // namespace

TEST_CASE("restarted under load, nothing is lost: workers that inherit over exec") {
  family_restarts("exec");
}
TEST_CASE("restarted under load, nothing is lost: workers started by posix_spawn") {
  family_restarts("spawn");
}
TEST_CASE("restarted under load, nothing is lost: workers started by vfork") {
  family_restarts("vfork");
}
TEST_CASE("restarted under load, nothing is lost: workers that listen after exec") {
  family_restarts("exec-listen");
}
TEST_CASE("restarted under load, nothing is lost: workers that are given the listener") {
  family_restarts("given");
}
TEST_CASE("restarted under load, nothing is lost: a socket of its own for each worker") {
  family_restarts("each", 3);
}
TEST_CASE("restarted under load, nothing is lost: a socket each, the parent's too") {
  family_restarts("all", 4);
}
TEST_CASE("restarted under load, nothing is lost: a master that executes itself anew") {
  family_restarts("master");
}

// More members than the predecessor has, which are bound by workers, or fewer.
TEST_CASE("a group of which each worker has a member grows and shrinks, and nothing is lost") {
  LatePlace place;
  place.environment.emplace_back("CONTINUITY_UNCLAIMED=100ms");
  Process server = place.start({"one"});
  Load load(place.address(), server);
  const int restarts = restarts_to_make(6);
  for (int i = 0; i < restarts; ++i) {
    const std::string shape = std::array{"each", "all", "one"}.at(static_cast<std::size_t>(i) % 3);
    CAPTURE(i, shape);
    Process successor = place.spawn_listening({shape});
    load.watch(successor.pid());
    successor.await_log("took over " + place.address());
    CHECK(load.await_ok(100));
    CHECK(left_by_itself(server));
    load.only(successor.pid());
    CHECK(load.await_ok(100));
    server = std::move(successor);
  }
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

// What a process listens on only when the successor has been told what there is.
TEST_CASE("a worker that listens while a successor starts loses nothing, and is closed") {
  LatePlace place;
  Process server = place.start({"one-listens-late"});
  Load load(place.address(), server);
  Process successor = place.spawn_stopped({"one"}, "before:" + number_of(MessageType::ready));
  listen_late(server);
  server.await_log("one more listener has come up");
  load.watch(successor.pid());
  place.go_on();
  successor.await_log("took over " + place.address());
  ends_without_loss(place, load, server, successor);
}

TEST_CASE("a worker that listens while its generation goes deaf loses nothing, and is closed") {
  LatePlace place;
  place.environment.emplace_back("CONTINUITY_PROBATION=3s");
  Process server =
      place.start_staged({"one-listens-late"}, "before:" + number_of(MessageType::retired));
  Load load(place.address(), server);
  Process successor = place.spawn_listening({"one"});
  load.watch(successor.pid());
  place.await_stop(server);
  listen_late(server);
  place.go_on();
  successor.await_log("took over " + place.address());
  ends_without_loss(place, load, server, successor);
}

TEST_CASE("a worker that listens on probation loses nothing, and is closed") {
  LatePlace place;
  place.environment.emplace_back("CONTINUITY_PROBATION=3s");
  Process server = place.start({"one-listens-late"});
  Load load(place.address(), server);
  Process successor = place.spawn_listening({"one"});
  load.watch(successor.pid());
  successor.await_log("took over " + place.address());
  listen_late(server);
  ends_without_loss(place, load, server, successor);
}

TEST_CASE("a worker that listens while its generation drains loses nothing, and is closed") {
  LatePlace place;
  Process server = place.start({"one-listens-late"});
  Load load(place.address(), server);
  load.open("first");
  Process successor = place.spawn_listening({"one"});
  load.watch(successor.pid());
  successor.await_log("took over " + place.address());
  server.await_log("finishing 1 connection");
  listen_late(server);
  server.await_log("one more listener has come up");
  CHECK(load.finish("first") == "ok");
  ends_without_loss(place, load, server, successor);
}

// It is no member of its generation before its first wait, and its parent has bound nothing.
TEST_CASE("a worker that binds what its generation has handed over never accepts") {
  const std::string probation = GENERATE("50ms", "3s");
  CAPTURE(probation);
  LatePlace place;
  place.environment.emplace_back("CONTINUITY_PROBATION=" + probation);
  Process server = place.start({"one-binds-late"});
  Load load(place.address(), server);
  load.open("first");
  Process successor = place.spawn_listening({"one"});
  load.watch(successor.pid());
  successor.await_log("took over " + place.address());
  load.only(successor.pid());
  if (probation == "50ms") {
    server.await_log("finishing 1 connection");
  }
  listen_late(server);
  CHECK(load.await_ok(100));
  CHECK(load.finish("first") == "ok");
  CHECK(left_by_itself(server));
  CHECK(load.await_ok(20));
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
  CHECK(successor.logged("begins to take over") == 0);
}

}  // namespace continuity::test
