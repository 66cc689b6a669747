// The main job: a server is restarted by being run again, under load, and no
// client notices; for every shape of server. And how much is lost without the
// library, since a count of losses says something only if it can count.
#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <filesystem>

namespace continuity::test {
namespace {

void loses_without_library(const Arguments& arguments) {
  Place place;
  place.with_library = false;
  check_it_loses(arguments, place);
}

}  // namespace

TEST_CASE("restarted under load, nothing is lost: accept loop, one connection at a time") {
  restarts_without_loss({"loop"});
}
TEST_CASE("restarted under load, nothing is lost: accept loop, a thread per connection") {
  restarts_without_loss({"threads"});
}
TEST_CASE("restarted under load, nothing is lost: pool of threads, all in accept") {
  restarts_without_loss({"pool"});
}
TEST_CASE("restarted under load, nothing is lost: a process per connection") {
  restarts_without_loss({"fork"});
}
TEST_CASE("restarted under load, nothing is lost: accept with SO_RCVTIMEO") {
  restarts_without_loss({"timeout"});
}
TEST_CASE("restarted under load, nothing is lost: poll") {
  restarts_without_loss({"poll"});
}
TEST_CASE("restarted under load, nothing is lost: poll, with a blocking listener") {
  restarts_without_loss({"poll-blocking"});
}
TEST_CASE("restarted under load, nothing is lost: select") {
  restarts_without_loss({"select"});
}
TEST_CASE("restarted under load, nothing is lost: epoll, level-triggered") {
  restarts_without_loss({"epoll-level"});
}
TEST_CASE("restarted under load, nothing is lost: epoll, edge-triggered") {
  restarts_without_loss({"epoll-edge"});
}
TEST_CASE("restarted under load, nothing is lost: epoll, oneshot, shared by threads") {
  restarts_without_loss({"epoll-oneshot"});
}
TEST_CASE("restarted under load, nothing is lost: epoll, exclusive, one per thread") {
  restarts_without_loss({"epoll-exclusive"});
}

TEST_CASE("restarted under load, nothing is lost: accepts on a copy of the listener") {
  restarts_without_loss({"--dup", "loop"});
}
TEST_CASE("restarted under load, nothing is lost: polls a copy of the listener") {
  restarts_without_loss({"--dup", "epoll-level"});
}
TEST_CASE("restarted under load, nothing is lost: binds, closes and binds again") {
  restarts_without_loss({"--rebind", "poll"});
}
TEST_CASE("restarted under load, nothing is lost: closes all it does not know, by close") {
  restarts_without_loss({"--close-others", "loop", "epoll-level"});
}
TEST_CASE("restarted under load, nothing is lost: closes all it does not know, by close_range") {
  restarts_without_loss({"--close-others", "range", "pool"});
}
TEST_CASE("restarted under load, nothing is lost: closes all it does not know, by closefrom") {
  restarts_without_loss({"--close-others", "from", "select"});
}
TEST_CASE("restarted under load, nothing is lost: goes to the background by daemon") {
  restarts_without_loss({"--daemon", "threads"});
}
TEST_CASE("restarted under load, nothing is lost: ignores every signal it can") {
  Place place;
  place.environment = {"CONTINUITY_STOP_SIGNAL=KILL"};
  Process server = place.start({"--deaf-to-signals", "poll"});
  Load load(place.address(), server);
  const int restarts = restarts_to_make(5);
  for (int i = 0; i < restarts; ++i) {
    Process successor = place.restart({"--deaf-to-signals", "poll"});
    load.watch(successor.pid());
    load.only(successor.pid());
    CHECK(server.wait_exit() == 128 + SIGKILL);
    server = std::move(successor);
  }
  CHECK(load.count("failed") + load.count("stale") == 0);
}

TEST_CASE("restarted under load, nothing is lost: [::1]") {
  const ReservedPort port(AF_INET6);
  Place place;
  place.addresses = {port.address()};
  restarts_without_loss({"poll"}, place);
}

TEST_CASE("restarted under load, nothing is lost: a UNIX path, removed before bind and at exit") {
  Place place;
  const std::string path = place.directory / "server.sock";
  place.addresses = {path};
  restarts_without_loss({"--remove", path, "epoll-level"}, place);
}

TEST_CASE("restarted under load, nothing is lost: a UNIX path and accept") {
  Place place;
  const std::string path = place.directory / "server.sock";
  place.addresses = {path};
  restarts_without_loss({"--remove", path, "pool"}, place);
}

TEST_CASE("restarted under load, nothing is lost: an abstract UNIX address") {
  Place place;
  place.addresses = {"@" + place.directory.path()};
  restarts_without_loss({"threads"}, place);
}

TEST_CASE("restarted under load, nothing is lost: several listeners of all kinds") {
  const ReservedPort port(AF_INET6);
  Place place;
  const std::string path = place.directory / "server.sock";
  place.addresses = {place.address(), port.address(), path};
  const Arguments arguments{"--remove", path, "epoll-level"};
  Process server = place.start(arguments);
  Load v4(place.addresses[0], server, 3);
  Load v6(place.addresses[1], server, 3);
  Load unix_path(place.addresses[2], server, 3);

  const int restarts = restarts_to_make(5);
  for (int i = 0; i < restarts; ++i) {
    Process successor = place.spawn_listening(arguments);
    for (Load* load : {&v4, &v6, &unix_path}) {
      load->watch(successor.pid());
    }
    successor.await_log("took over " + place.printed_address(0) + ", " + place.printed_address(1) +
                        ", " + place.printed_address(2) + " from pid " +
                        std::to_string(server.pid()));
    for (Load* load : {&v4, &v6, &unix_path}) {
      load->only(successor.pid());
      CHECK(load->await_ok(10));
    }
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  for (Load* load : {&v4, &v6, &unix_path}) {
    INFO(load->stats());
    CHECK(load->count("failed") + load->count("stale") == 0);
  }
}

TEST_CASE("without the library, threads in accept lose connections") {
  loses_without_library({"loop"});
  loses_without_library({"threads"});
  loses_without_library({"pool"});
  loses_without_library({"fork"});
  loses_without_library({"timeout"});
}

TEST_CASE("without the library, event loops lose connections") {
  loses_without_library({"poll"});
  loses_without_library({"poll-blocking"});
  loses_without_library({"select"});
  loses_without_library({"epoll-level"});
  loses_without_library({"epoll-edge"});
  loses_without_library({"epoll-oneshot"});
  loses_without_library({"epoll-exclusive"});
}

TEST_CASE("without the library, a server at a UNIX path loses it") {
  Place place;
  place.with_library = false;
  const std::string path = place.directory / "server.sock";
  place.addresses = {path};
  Process first = place.start({"--remove", path, "poll"});
  const Process second = place.start({"--remove", path, "poll"});
  Load load(path);
  CHECK(load.await_ok(10));

  first.signal(SIGTERM);

  CHECK(first.wait_exit() == 0);
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK(wait_until([&] { return load.count("failed") > 0; }));
}

// To the kernel a negative one is the longest there is; php-fpm says -1.
TEST_CASE("a successor that listens with a negative backlog has the longest queue") {
  const Place place;
  const Process predecessor = place.start({"--backlog", "10", "threads"});
  const std::string before = answer_from(place.address(), "options");
  REQUIRE(before.find("backlog=10") != std::string::npos);

  const Process successor = place.restart({"--backlog", "-1", "threads"});

  REQUIRE(answer_from(place.address()) == answer_of(successor));
  CHECK(number_in(answer_from(place.address(), "options"), "backlog") > 100);
}

}  // namespace continuity::test
