// Servers that wait for everything by io_uring, and call nothing that is wrapped.
#include "restarts.hpp"
#include "rings.hpp"

#include <catch2/catch.hpp>

#include <csignal>

namespace continuity::test {
namespace {

constexpr const char* long_probation = "CONTINUITY_PROBATION=60s";

struct RingPlace : Place {
  explicit RingPlace(const std::string& variable = {}) {
    program = RING_SERVER;
    if (!variable.empty()) {
      environment = {variable};
    }
  }

  // Nobody tells the library of the first accept: the server can answer a little before
  // it can be followed.
  [[nodiscard]] Process start_followable(const Arguments& arguments) const {
    Process server = start(arguments);
    await_announcement(*this);
    return server;
  }
};

void restarts_ring_server(const Arguments& arguments, const RingPlace& place = RingPlace()) {
  if (!has_rings()) {
    return;
  }
  const int restarts = restarts_to_make(5);
  Process server = place.start_followable(arguments);
  Load load(place.address(), server);
  for (int i = 0; i < restarts; ++i) {
    restart_under_load(place, arguments, load, server);
  }
  check_nothing_was_lost(load, restarts);
}

// Who serves a connection that no descriptor shows is told by its answers alone.
void restarts_without_owners(const Arguments& arguments, const RingPlace& place) {
  const int restarts = restarts_to_make(5);
  Process server = place.start_followable(arguments);
  Load load(place.address());
  for (int i = 0; i < restarts; ++i) {
    restart_under_load(place, arguments, load, server);
    CHECK(answer_from(place.address()) == answer_of(server));
  }
  check_nothing_was_lost(load, restarts);
}

// The running server refuses to hand over, and nothing changes.
void refuses(const Arguments& arguments, const RingPlace& place, const std::string& reason) {
  Process server = place.start_followable(arguments);
  Load load(place.address());
  for (int i = 0; i < 3; ++i) {
    Process second = place.spawn(arguments);
    CHECK(second.next_line() == "bind EADDRINUSE");
    CHECK(second.wait_exit() == 1);
    server.await_log(reason);
    server.await_log("cannot hand over");
  }
  CHECK(load.await_ok(100));
  CHECK(server.logged("handed") == 0);
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
}

}  // namespace

TEST_CASE("restarted under load, nothing is lost: io_uring, one accept at a time") {
  restarts_ring_server({"single"});
}
TEST_CASE("restarted under load, nothing is lost: io_uring, multishot accept") {
  restarts_ring_server({"multishot"});
}
TEST_CASE("restarted under load, nothing is lost: io_uring, made before the listener") {
  restarts_ring_server({"early"});
}
TEST_CASE("restarted under load, nothing is lost: io_uring that obeys one thread") {
  restarts_ring_server({"issuer"});
}
TEST_CASE("restarted under load, nothing is lost: io_uring that obeys one thread of several") {
  restarts_ring_server({"--threads", "issuer"});
}
TEST_CASE("restarted under load, nothing is lost: io_uring that obeys one thread, at times") {
  restarts_ring_server({"--masked-by-turns", "issuer"});
}
TEST_CASE("restarted under load, nothing is lost: io_uring, all in fixed files") {
  if (has_rings()) {
    restarts_without_owners({"direct"}, RingPlace());
  }
}

TEST_CASE("restarted under load, nothing is lost: epoll, and files by a ring that is polled") {
  restarts_ring_server({"files"});
}

TEST_CASE("restarted under load, nothing is lost: io_uring, made by syscall()") {
  RingPlace place;
  place.program = STATIC_RING_SERVER;
  restarts_ring_server({"--by-syscall", "multishot"}, place);
}
TEST_CASE("restarted under load, nothing is lost: io_uring that only READY=listen gives away") {
  RingPlace place("CONTINUITY_READY=listen");
  place.program = STATIC_RING_SERVER;
  restarts_ring_server({"multishot"}, place);
}

TEST_CASE("a server that accepts by io_uring loses connections without the library") {
  if (!has_rings()) {
    return;
  }
  RingPlace place;
  place.with_library = false;
  Process server = place.start({"multishot"});
  Load load(place.address());
  Process second = place.spawn({"multishot"});
  CHECK(second.next_line() == "bind EADDRINUSE");
  CHECK(second.wait_exit() == 1);

  server.signal(SIGTERM);
  server.wait_exit();

  CHECK(wait_until([&] { return load.count("failed") > 0; }));
}

TEST_CASE("a successor that has a ring and accepts nothing by it is not ready") {
  if (!has_rings()) {
    return;
  }
  const RingPlace place("CONTINUITY_READY_TIMEOUT=200ms");
  Process server = place.start_followable({"multishot"});
  Load load(place.address());

  Process idle = place.spawn_listening({"--idle", "multishot"});

  server.await_log("was not ready within 0.2 s");
  CHECK(idle.wait_exit() == 128 + SIGTERM);
  CHECK(load.await_ok(100));
  CHECK(load.count("failed") == 0);
  CHECK(answer_from(place.address()) == answer_of(server));
}

TEST_CASE("a ring server serves again, and can be followed, when its successor is killed") {
  if (!has_rings()) {
    return;
  }
  const std::string mode = GENERATE("single", "multishot", "direct", "issuer");
  CAPTURE(mode);
  const RingPlace place(long_probation);
  Process server = place.start_followable({mode});
  for (std::size_t cycle = 1; cycle <= 5; ++cycle) {
    CAPTURE(cycle);
    Process successor = place.restart({mode});
    CHECK(answer_from(place.address()) == answer_of(successor));
    Connection kept(place.address());
    CHECK(kept.ask("hello") == answer_of(successor));

    successor.signal(SIGKILL);
    successor.wait_exit();
    // Whoever comes now is in the queue of both.
    CHECK(answer_from(place.address()) == answer_of(server));
    CHECK(wait_until([&] { return server.logged("serving again") == cycle; }));
  }
}

TEST_CASE("nobody but the successor accepts by a ring after the take-over") {
  if (!has_rings()) {
    return;
  }
  const std::string mode = GENERATE("single", "multishot", "direct", "issuer");
  CAPTURE(mode);
  const RingPlace place(long_probation);
  Process server = place.start_followable({mode});
  const Process successor = place.restart({mode});
  for (int i = 0; i < 200; ++i) {
    REQUIRE(answer_from(place.address()) == answer_of(successor));
  }
}

TEST_CASE("a ring that obeys one thread, which takes no signal, is refused with the reason") {
  if (has_rings()) {
    refuses({"--masked", "issuer"}, RingPlace(), "it obeys one thread of the program only");
  }
}

TEST_CASE("a ring with a thread of the kernel's is refused with the reason") {
  if (has_rings()) {
    refuses({"poll"}, RingPlace(), "IORING_SETUP_SQPOLL");
  }
}

TEST_CASE("a worker that accepts by a ring and cannot be told is refused with the reason") {
  if (has_rings()) {
    refuses({"--past-libc", "--worker", "multishot"}, RingPlace(),
            "waits by io_uring and calls nothing");
  }
}

TEST_CASE("restarted under load, nothing is lost: workers that wait by a ring alone") {
  const std::string parent = GENERATE("--worker", "--idle-parent");
  const std::string mode = GENERATE("single", "multishot", "issuer");
  CAPTURE(parent, mode);
  restarts_ring_server({parent, mode});
}

TEST_CASE("restarted under load, nothing is lost: a daemon that waits by a ring alone") {
  restarts_ring_server({"--daemon", "multishot"});
}

TEST_CASE("workers that wait by a ring alone serve again when their successor is killed") {
  if (!has_rings()) {
    return;
  }
  const RingPlace place(long_probation);
  Process server = place.start_followable({"--idle-parent", "multishot"});
  for (std::size_t cycle = 1; cycle <= 3; ++cycle) {
    CAPTURE(cycle);
    Process successor = place.restart({"--idle-parent", "multishot"});
    CHECK(answer_from(place.address()) == answer_of(successor));

    successor.signal(SIGKILL);
    successor.wait_exit();

    // Its workers live a moment longer, and end with what they accept then.
    CHECK(wait_until([&] { return server.logged("serving again") == cycle; }));
    CHECK(answer_from(place.address()) == answer_of(server));
  }
}

TEST_CASE("a ring whose descriptor is closed is refused with the reason") {
  if (has_rings()) {
    refuses({"closed"}, RingPlace(), "an io_uring whose descriptor it has closed");
  }
}

}  // namespace continuity::test
