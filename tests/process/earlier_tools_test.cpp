// What earlier tools of this kind got wrong, each case reproduced with them.
// Those that are not here stand where they belong: a failed start
// (failed_successor_test.cpp), UNIX paths (files_test.cpp), close_range and
// deafness to signals (restart_test.cpp).
#include "place.hpp"
#include "support/load_driver.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <sys/syscall.h>

namespace continuity::test {
namespace {

// A signal must meet a thread in accept, not still on its way there.
bool is_in_accept(const Process& server) {
  const std::filesystem::directory_iterator tasks("/proc/" + std::to_string(server.pid()) +
                                                  "/task");
  return std::any_of(begin(tasks), end(tasks), [](const auto& task) {
    return read_file(task.path() / "syscall").rfind(std::to_string(SYS_accept) + " ", 0) == 0;
  });
}

}  // namespace

TEST_CASE("TCP and UDP on one port stay two sockets across restarts") {
  const Place place;
  Process server = place.start({"--udp", "threads"});
  const auto ask_udp = [&] { return Connection(place.address(), SOCK_DGRAM).ask("hello"); };
  CHECK(ask_udp() == "udp " + answer_of(server));

  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart({"--udp", "threads"});
    CHECK(left_by_itself(server));
    CHECK(answer_from(place.address()) == answer_of(successor));
    CHECK(ask_udp() == "udp " + answer_of(successor));
    server = std::move(successor);
  }
}

TEST_CASE("two binds to port 0 are two ports, and a second start has two others") {
  Place place;
  place.addresses = {"127.0.0.1:0", "127.0.0.1:0"};
  Process first = place.spawn({"poll"});
  const std::string first_line = first.next_line();
  Process second = place.spawn({"poll"});
  const std::string second_line = second.next_line();

  const auto check_server = [](const Process& server, const std::string& line) {
    const std::string host = "127.0.0.1:";
    const long port = number_in(line, "port");
    const long other = number_in(line, "other");
    CHECK(port != other);
    CHECK(answer_from(host + std::to_string(port)) == answer_of(server));
    CHECK(answer_from(host + std::to_string(other)) == answer_of(server));
  };
  check_server(first, first_line);
  check_server(second, second_line);
}

TEST_CASE("accept on a listener that does not block says EAGAIN, in every generation") {
  const Place place;
  Process first = place.spawn({"--nonblocking", "--try-accept", "poll"});
  CHECK(first.next_line() == "accept EAGAIN");
  CHECK(first.next_line().rfind("listening", 0) == 0);
  CHECK(answer_from(place.address()) == answer_of(first));

  Process second = place.spawn({"--nonblocking", "--try-accept", "poll"});
  CHECK(second.next_line() == "accept EAGAIN");
  second.await_log("took over");
  CHECK(left_by_itself(first));
}

TEST_CASE("listen without bind gets a port from the kernel") {
  Place place;
  place.addresses = {"none"};
  Process server = place.spawn({"poll"});
  const long port = number_in(server.next_line(), "port");

  CHECK(port > 0);
  CHECK(answer_from("127.0.0.1:" + std::to_string(port)) == answer_of(server));
}

TEST_CASE("a server whose libraries use sockets before main restarts like any other") {
  Place place;
  place.program = EARLY_SERVER;
  Process server = place.start({"epoll-level"});
  Load load(place.address(), server);
  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart({"epoll-level"});
    load.watch(successor.pid());
    load.only(successor.pid());
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  CHECK(load.await_ok(20));
  CHECK(load.count("failed") + load.count("stale") == 0);
}

TEST_CASE("a thread that has jumped out of accept does not hold the restart up") {
  const Place place;
  Process server = place.start({"jump"});
  REQUIRE(wait_until([&] { return is_in_accept(server); }));
  server.signal(SIGUSR2);
  REQUIRE(server.next_line() == "jumped");
  REQUIRE(answer_from(place.address()) == answer_of(server));

  const Process successor = place.restart({"jump"});

  CHECK(left_by_itself(server));
  CHECK(server.logged("did not come back from accept") == 0);
  CHECK(answer_from(place.address()) == answer_of(successor));
}

TEST_CASE("a thread that was cancelled in accept does not hold the restart up") {
  const Place place;
  Process server = place.start({"cancel"});
  REQUIRE(wait_until([&] { return is_in_accept(server); }));
  server.signal(SIGUSR2);
  REQUIRE(server.next_line() == "cancelled");
  REQUIRE(answer_from(place.address()) == answer_of(server));

  const Process successor = place.restart({"cancel"});

  CHECK(left_by_itself(server));
  CHECK(server.logged("did not come back from accept") == 0);
  CHECK(answer_from(place.address()) == answer_of(successor));
}

}  // namespace continuity::test
