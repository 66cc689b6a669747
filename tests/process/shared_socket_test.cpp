// The listener is one socket with two owners for a while. Until the take-over
// the successor leaves no trace on it; after it the predecessor does not.
#include "core/owned_fd.hpp"
#include "place.hpp"
#include "support/client.hpp"
#include "support/datagrams.hpp"
#include "support/load_driver.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <string>
#include <string_view>
#include <sys/un.h>
#include <vector>

namespace continuity::test {
namespace {

// How many connect to a UNIX listener from which nobody accepts.
std::size_t room_in_queue(const std::string& path) {
  constexpr std::size_t most = 64;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  std::vector<OwnedFd> connected;
  while (connected.size() < most) {
    OwnedFd fd(libc_sys(), ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      break;
    }
    connected.push_back(std::move(fd));
  }
  return connected.size();
}

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

TEST_CASE("a datagram socket gets the successor's flags and options at the take-over") {
  Place place;
  place.program = DATAGRAM_SERVER;
  place.environment = {"CONTINUITY_LOG=debug"};
  const std::string before = "rcvbuf=22528 broadcast=1 pktinfo=1 priority=4 nonblock=0 ";
  const std::string after = "rcvbuf=200704 broadcast=0 pktinfo=0 priority=0 nonblock=1 ";
  Process predecessor = place.spawn_listening({"--options", "11", "recvfrom"});
  REQUIRE(ask_by_datagram(place.address(), "options") == before + answer_of(predecessor));
  {
    const Process hangs = place.spawn_listening({"--options", "98", "--end", "0", "poll"});
    CHECK(ask_by_datagram(place.address(), "options") == before + answer_of(predecessor));
  }
  predecessor.await_log("before it was ready");

  Process successor = place.restart({"--options", "98", "poll"});

  CHECK(ask_by_datagram(place.address(), "options") == after + answer_of(successor));
  successor.await_log("5 options differ from the predecessor's and are set, 0 cannot be set");
  CHECK(left_by_itself(predecessor));
}

TEST_CASE("a UNIX listener gets the successor's flags, options and backlog at the take-over") {
  const TempDir directory;
  Place place;
  place.addresses = {directory.path() + "/socket"};
  place.environment = {"CONTINUITY_LOG=debug"};
  const std::string before = "keepidle=-1 priority=4 rcvbuf=22528 nonblock=0 backlog=0";
  Process predecessor = place.start({"--options", "11", "--backlog", "10", "threads"});
  REQUIRE(answer_from(place.address(), "options") == before);
  {
    const Process hangs = place.spawn_listening(
        {"--options", "99", "--backlog", "3", "--nonblocking", "--end", "hang", "poll"});
    CHECK(answer_from(place.address(), "options") == before);
  }
  predecessor.await_log("before it was ready");

  Process successor = place.restart({"--options", "99", "--backlog", "3", "--nonblocking", "poll"});

  CHECK(answer_from(place.address(), "options") ==
        "keepidle=-1 priority=1 rcvbuf=202752 nonblock=1 backlog=0");
  successor.await_log("3 options differ from the predecessor's and are set, 0 cannot be set");
  CHECK(left_by_itself(predecessor));
  successor.signal(SIGSTOP);
  CHECK(wait_until([&] { return successor.is_stopped(); }));
  CHECK(room_in_queue(place.address()) == 4);  // one more than the backlog
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

TEST_CASE("shutdown of a bound connection by a retired server leaves it the other half") {
  const Place place;
  const ReservedPort own;
  const ReservedPort peer;
  const SocketAddress address(peer.address());
  const OwnedFd listener(libc_sys(), ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
  REQUIRE(::bind(listener.get(), address.get(), address.length) == 0);
  REQUIRE(::listen(listener.get(), 1) == 0);
  const Process server = place.start({"threads"});
  Connection held(place.address());
  REQUIRE(held.ask("hello") == answer_of(server));

  const Process successor = place.restart({"threads"});
  held.send("ask " + own.address() + " " + peer.address() + "\n");
  const OwnedFd asked(libc_sys(), ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  char nothing = 0;
  REQUIRE(::recv(asked.get(), &nothing, 1, 0) == 0);
  constexpr std::string_view answer = "heard";
  REQUIRE(::send(asked.get(), answer.data(), answer.size(), MSG_NOSIGNAL) == 5);

  CHECK(held.receive_line() == answer);
}

}  // namespace continuity::test
