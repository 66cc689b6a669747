// Datagram servers: every question is answered once, from the right address, and
// after the take-over by the successor.
#include "families.hpp"
#include "place.hpp"
#include "rings.hpp"
#include "support/datagrams.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

namespace continuity::test {
namespace {

struct DatagramPlace : Place {
  explicit DatagramPlace(std::string address = "") {
    program = DATAGRAM_SERVER;
    if (!address.empty()) {
      addresses = {std::move(address)};
    }
  }
  // Runs the first generation and waits until it answers.
  [[nodiscard]] Process start(const Arguments& arguments) const {
    Process server = spawn_listening(arguments);
    REQUIRE(ask_by_datagram(address(), "x").rfind("x pid=", 0) == 0);
    if (with_library) {
      await_announcement(*this);  // of receives by a ring nothing is heard at once
    }
    return server;
  }
};

struct RingDatagramPlace : DatagramPlace {
  explicit RingDatagramPlace(std::string address = "") : DatagramPlace(std::move(address)) {
    program = RING_DATAGRAM_SERVER;
  }
};

bool needs_ring(const std::string& loop) {
  return loop.rfind("ring", 0) == 0;
}

std::set<pid_t> processes_of(const Process& server) {
  auto all = family_of(server.pid());
  all.insert(server.pid());
  return all;
}

void restarts_without_loss(const DatagramPlace& place, const Arguments& arguments,
                           int usually = 3) {
  const int restarts = restarts_to_make(usually);
  constexpr std::uint64_t some = 200;
  Process server = place.start(arguments);
  DatagramLoad load(place.address());
  CHECK(load.await_answers(some));
  for (int i = 0; i < restarts; ++i) {
    load.only({});
    const auto old_ones = processes_of(server);
    Process successor = place.restart(arguments);
    CHECK(load.await_answers(some));  // and all its workers have been forked
    load.only(processes_of(successor));
    CHECK(load.await_answers(some));
    CHECK(left_by_itself(server));
    CHECK(have_ended(old_ones));
    server = std::move(successor);
  }
  nothing_went_astray(load, some * static_cast<std::uint64_t>(restarts));
}

}  // namespace

TEST_CASE("no datagram is lost or answered twice", "[datagram]") {
  const std::string loop = GENERATE("recvfrom", "recvmsg", "recvmmsg", "poll", "poll-and-block",
                                    "select", "epoll", "epoll-edge", "threads");
  CAPTURE(loop);
  restarts_without_loss(DatagramPlace(), {loop});
}

TEST_CASE("no datagram is lost or answered twice: receives by io_uring", "[datagram]") {
  if (!has_rings()) {
    return;
  }
  const std::string loop = GENERATE("ring", "ring-fixed", "ring-multishot", "ring-issuer");
  CAPTURE(loop);
  restarts_without_loss(RingDatagramPlace(), {loop});
}

TEST_CASE("no datagram is lost or answered twice: receives by io_uring, IPv6", "[datagram]") {
  if (has_rings()) {
    const ReservedPort port(AF_INET6);
    restarts_without_loss(RingDatagramPlace(port.address()), {"ring"});
  }
}

TEST_CASE("no datagram is lost or answered twice: workers that receive by io_uring", "[datagram]") {
  if (has_rings()) {
    restarts_without_loss(RingDatagramPlace(), {"--workers", "3", "ring"});
  }
}

TEST_CASE("what a ring receives and cannot be handed over is refused with the reason",
          "[datagram]") {
  if (!has_rings()) {
    return;
  }
  const TempDir directory;
  const bool polled = GENERATE(true, false);
  CAPTURE(polled);
  const RingDatagramPlace place(polled ? "" : directory.path() + "/socket");
  const Arguments arguments{polled ? "ring-polled" : "ring"};
  Process server = place.start(arguments);

  Process second = place.spawn(arguments);

  CHECK(second.next_line() == "bind EADDRINUSE");
  CHECK(second.wait_exit() == 1);
  server.await_log(polled ? "IORING_SETUP_SQPOLL" : "where nothing else could answer");
  CHECK(ask_by_datagram(place.address(), "y") == "y " + answer_of(server));
}

TEST_CASE("a change of what an epoll asks of a datagram socket meets a restart", "[datagram]") {
  restarts_without_loss(DatagramPlace(), {"epoll-changing"}, 20);
}

TEST_CASE("no datagram is lost or answered twice: a socket for each thread", "[datagram]") {
  const std::string loop = GENERATE("recvfrom", "epoll");
  CAPTURE(loop);
  restarts_without_loss(DatagramPlace(), {"--sockets", "4", loop});
}

TEST_CASE("no datagram is lost or answered twice: workers on one socket", "[datagram]") {
  const std::string loop = GENERATE("recvfrom", "epoll");
  CAPTURE(loop);
  restarts_without_loss(DatagramPlace(), {"--workers", "3", loop});
}

TEST_CASE("no datagram is lost or answered twice: IPv6, UNIX by path and by name", "[datagram]") {
  const std::string kind = GENERATE("IPv6", "path", "name");
  const std::string loop = GENERATE("epoll", "recvfrom");
  CAPTURE(kind, loop);
  const ReservedPort port(AF_INET6);
  const TempDir directory;
  const std::string address = kind == "IPv6"   ? port.address()
                              : kind == "path" ? directory.path() + "/socket"
                                               : "@datagrams-" + std::to_string(::getpid()) + loop;
  restarts_without_loss(DatagramPlace(address), {loop});
}

TEST_CASE("a group of datagram sockets grows and shrinks, and no datagram is lost", "[datagram]") {
  DatagramPlace place;
  place.environment = {"CONTINUITY_PROBATION=300ms"};
  Process server = place.start({"--sockets", "4", "epoll"});
  DatagramLoad load(place.address(), 16, 2);  // some to each socket
  for (const char* sockets : {"2", "4", "2", "6", "2"}) {
    Process successor = place.restart({"--sockets", sockets, "epoll"});
    CHECK(load.await_answers(500));
    CHECK(left_by_itself(server));  // and has closed what is left over
    CHECK(load.await_answers(500));
    server = std::move(successor);
  }
  nothing_went_astray(load, 5000);
}

TEST_CASE("what a predecessor still has to answer leaves from the address it was asked at",
          "[datagram]") {
  const std::string loop = GENERATE("recvfrom", "threads", "epoll", "ring", "ring-multishot");
  CAPTURE(loop);
  if (needs_ring(loop) && !has_rings()) {
    return;
  }
  DatagramPlace place;
  place.program = needs_ring(loop) ? RING_DATAGRAM_SERVER : DATAGRAM_SERVER;
  place.environment = {"CONTINUITY_PROBATION=0ms"};  // there is time to answer nevertheless
  Process server = place.start({loop});
  std::string answer;
  std::thread client([&] { answer = ask_by_datagram(place.address(), "slow 300 question"); });
  CHECK(server.next_line() == "asked " + answer_of(server));

  const Process successor = place.restart({loop});

  CHECK(ask_by_datagram(place.address(), "y") == "y " + answer_of(successor));
  client.join();
  CHECK(answer == "slow 300 question " + answer_of(server));
  CHECK(left_by_itself(server));
}

TEST_CASE("a datagram server whose successor is killed receives again", "[datagram]") {
  const std::string loop =
      GENERATE("recvfrom", "poll", "poll-and-block", "select", "epoll", "epoll-edge", "threads",
               "ring", "ring-fixed", "ring-multishot");
  CAPTURE(loop);
  if (needs_ring(loop) && !has_rings()) {
    return;
  }
  DatagramPlace place;
  place.program = needs_ring(loop) ? RING_DATAGRAM_SERVER : DATAGRAM_SERVER;
  place.environment = {"CONTINUITY_PROBATION=10s"};
  Process server = place.start({loop});
  for (std::size_t cycle = 1; cycle <= 5; ++cycle) {
    Process successor = place.restart({loop});
    CHECK(ask_by_datagram(place.address(), "a") == "a " + answer_of(successor));
    successor.signal(SIGKILL);
    CHECK(wait_until([&] { return server.logged("serving again") == cycle; }));
    for (int i = 0; i < 8; ++i) {  // every thread of it
      CHECK(ask_by_datagram(place.address(), "b") == "b " + answer_of(server));
    }
  }
}

TEST_CASE("a datagram successor that is not ready yet changes nothing", "[datagram]") {
  const DatagramPlace place;
  Process server = place.start({"epoll"});
  DatagramLoad load(place.address());
  load.only({server.pid()});
  for (const char* end : {"9", "11", "0", "15"}) {
    Process successor = place.spawn_listening({"--end", end, "epoll"});
    CHECK(load.await_answers(100));
    successor.signal(SIGKILL);
    successor.wait_exit();
    server.await_log("pid " + std::to_string(successor.pid()) + " was killed by SIG");
    CHECK(load.await_answers(100));
  }
  nothing_went_astray(load, 800);
}

TEST_CASE("the path of a datagram socket stays what it was over restarts", "[datagram]") {
  const TempDir directory;
  const DatagramPlace place(directory.path() + "/socket");
  Process server = place.start({"epoll"});
  REQUIRE(::chmod(place.address().c_str(), 0640) == 0);
  struct stat before {};
  REQUIRE(::stat(place.address().c_str(), &before) == 0);
  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart({"epoll"});
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  struct stat after {};
  REQUIRE(::stat(place.address().c_str(), &after) == 0);
  CHECK(after.st_ino == before.st_ino);
  CHECK(after.st_mode == before.st_mode);
  CHECK(ask_by_datagram(place.address(), "x") == "x " + answer_of(server));
}

TEST_CASE("without the library a datagram server cannot be started twice", "[datagram]") {
  DatagramPlace place;
  place.with_library = false;
  Process server = place.start({"epoll"});
  Process second = place.spawn({"epoll"});
  CHECK(second.next_line() == "bind EADDRINUSE");

  // Stopped and started, it does not answer what is asked in between.
  server.signal(SIGTERM);
  server.wait_exit();
  DatagramLoad load(place.address(), 1, 1);
  CHECK(load.await_question());
  const Process third = place.start({"epoll"});
  CHECK(load.finish(std::chrono::milliseconds(200)).lost > 0);
}

}  // namespace continuity::test
