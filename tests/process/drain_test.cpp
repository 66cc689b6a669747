// While a predecessor finishes: what it is told, and what it waits for.
#include "families.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::test {

// ---- CONTINUITY_RETIRE_SIGNAL -------------------------------------------------------

TEST_CASE(
    "CONTINUITY_RETIRE_SIGNAL goes to the main process when the probation is over, and once") {
  const std::string loop = GENERATE("threads", "prefork");
  CAPTURE(loop);
  const FamilyPlace place("CONTINUITY_RETIRE_SIGNAL=QUIT");
  Process server = place.start({"--tell-signals", loop});
  std::optional<Connection> held(place.address());
  REQUIRE(held->ask("hello").rfind("pid=", 0) == 0);

  const Process successor = place.restart({"--tell-signals", loop});

  CHECK(server.next_line() == "told QUIT " + answer_of(server));
  CHECK(server.logged("leaving") == 0);  // the connection is there still
  held.reset();
  CHECK(left_by_itself(server));
  CHECK_THROWS_WITH(server.next_line(), Catch::Contains("no next line"));
}

TEST_CASE("with CONTINUITY_RETIRE_SIGNAL=auto a server gets what it is known to want") {
  struct Row {
    const char* program;  // the executable's name; empty: the tiny server's own
    const char* name;
    const char* comm;
    const char* signal;
  };
  const auto row = GENERATE(values<Row>({{"nginx", "", "", "QUIT"},
                                         {"php-fpm8.2", "", "", "QUIT"},
                                         {"httpd", "", "", "WINCH"},
                                         {"", "haproxy", "", "USR1"},
                                         {"", "", "unicorn", "QUIT"},
                                         {"lighttpd", "shop", "server", "INT"}}));
  const std::string loop = GENERATE("threads", "prefork");
  CAPTURE(row.program, row.name, row.comm, loop);
  FamilyPlace place("CONTINUITY_RETIRE_SIGNAL=auto");
  if (*row.program != 0) {
    place.program = place.directory / row.program;
    std::filesystem::copy_file(TINY_SERVER, place.program);
  }
  if (*row.name != 0) {
    place.environment.push_back("CONTINUITY_NAME=" + std::string(row.name));
  }
  const Arguments arguments{"--comm", *row.comm != 0 ? row.comm : "tiny", "--tell-signals", loop};
  Process server = place.start(arguments);
  std::optional<Connection> held(place.address());
  REQUIRE(held->ask("hello").rfind("pid=", 0) == 0);

  const Process successor = place.restart(arguments);

  CHECK(server.next_line() == "told " + std::string(row.signal) + " " + answer_of(server));
  server.await_log("CONTINUITY_RETIRE_SIGNAL=auto");
  held.reset();
  CHECK(left_by_itself(server));
}

TEST_CASE("with CONTINUITY_RETIRE_SIGNAL=auto an unknown server gets no signal, and says so") {
  const FamilyPlace place("CONTINUITY_RETIRE_SIGNAL=auto");
  Process server = place.start({"--tell-signals", "threads"});
  const Process successor = place.restart({"--tell-signals", "threads"});

  server.await_log(
      "CONTINUITY_RETIRE_SIGNAL=auto: no signal is known for tiny-server; none is sent");
  CHECK(left_by_itself(server));
  CHECK_THROWS_WITH(server.next_line(), Catch::Contains("no next line"));
}

// ---- CONTINUITY_DRAIN_TIMEOUT -------------------------------------------------------

namespace {

// Takes the place of a server that has been asked to answer when a file can be
// read: the test decides when.
class Gate {
 public:
  Gate() { ::mkfifo(path_.c_str(), 0600); }
  ~Gate() { ::close(end_); }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  [[nodiscard]] std::string request() const { return "wait " + path_ + "\n"; }
  // Until somebody reads from it, nobody can write to it.
  [[nodiscard]] bool is_awaited() {
    return wait_until([&] {
      end_ = ::open(path_.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
      return end_ >= 0;
    });
  }
  void open() const { REQUIRE(::write(end_, "x", 1) == 1); }

 private:
  TempDir directory_{};
  std::string path_ = directory_ / "gate";
  int end_ = -1;
};

// Told to stop it goes on: what it has in hand is all that ends it.
const Environment lenient{"CONTINUITY_DRAIN_TIMEOUT=100ms", "CONTINUITY_STOP_SIGNAL=CONT"};

}  // namespace

TEST_CASE("idle connections end with CONTINUITY_DRAIN_TIMEOUT, and without it they do not") {
  const std::string loop = GENERATE("threads", "epoll-level", "poll", "prefork-epoll");
  const bool is_unix = GENERATE(false, true);
  CAPTURE(loop, is_unix);
  FamilyPlace patient;
  FamilyPlace place("CONTINUITY_DRAIN_TIMEOUT=100ms");
  if (is_unix) {
    patient.addresses = {patient.directory / "socket"};
    place.addresses = {place.directory / "socket"};
  }
  Process other = patient.start({loop});
  Process server = place.start({loop});
  Connection kept(patient.address());
  const std::string answer = kept.ask("hello");
  Connection used(place.address());
  REQUIRE(used.ask("hello").rfind("pid=", 0) == 0);
  const Process other_successor = patient.restart({loop});
  other.await_log("finishing ");

  const Process successor = place.restart({loop});

  server.await_log("CONTINUITY_DRAIN_TIMEOUT: 1 connection (of pid ");
  CHECK(used.receive_line() == "closed");
  CHECK(left_by_itself(server));
  CHECK(server.logged("not waiting any longer") == 0);
  CHECK(kept.ask("hello") == answer);
  CHECK(other.logged("leaving") == 0);
}

TEST_CASE("a request in hand when CONTINUITY_DRAIN_TIMEOUT ends is answered whole") {
  const std::string loop = GENERATE("threads", "prefork");
  CAPTURE(loop);
  Gate gate;
  FamilyPlace place;
  place.environment = lenient;
  Process server = place.start({loop});
  Connection idle(place.address());
  const std::string answer = idle.ask("hello");
  Connection half_sent(place.address());
  half_sent.send("hel");
  Connection at_work(place.address());
  at_work.send(gate.request());
  REQUIRE(gate.is_awaited());  // and who came before has been accepted, too

  const Process successor = place.restart({loop});
  server.await_log("idle ones are told to end");
  CHECK(idle.receive_line() == "closed");
  half_sent.send("lo\n");
  CHECK(half_sent.receive_line().rfind("pid=", 0) == 0);
  gate.open();
  CHECK(at_work.receive_line().rfind("pid=", 0) == 0);
}

TEST_CASE("what is not answered within a second after CONTINUITY_DRAIN_TIMEOUT is cut") {
  const FamilyPlace place("CONTINUITY_DRAIN_TIMEOUT=1ms");
  Process server = place.start({"threads"});
  Connection half_sent(place.address());
  half_sent.send("hel");
  REQUIRE(answer_from(place.address()) == answer_of(server));  // after which both are accepted
  const Process successor = place.restart({"threads"});

  server.await_log("CONTINUITY_DRAIN_TIMEOUT: 1 connection (of pid " +
                   std::to_string(server.pid()) + ", to 127.0.0.1:");
  server.await_log("left; not waiting any longer");
  server.await_log("time is over; leaving (SIGTERM)");
  CHECK(server.wait_exit() == 128 + SIGTERM);
  CHECK(half_sent.receive_line() == "closed");
}

TEST_CASE("a connection of a child's is named, and left to the child") {
  const FamilyPlace place("CONTINUITY_DRAIN_TIMEOUT=1ms");
  Process server = place.start({"fork"});
  Connection held(place.address());
  const std::string answer = held.ask("hello");
  const Process successor = place.restart({"fork"});

  server.await_log("CONTINUITY_DRAIN_TIMEOUT: 1 connection (of pid " + answer.substr(4) +
                   ", to 127.0.0.1:");
  server.await_log("time is over; leaving (SIGTERM)");
  CHECK(server.wait_exit() == 128 + SIGTERM);
  CHECK(held.ask("hello") == answer);
}

}  // namespace continuity::test
