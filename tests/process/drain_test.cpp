// While a predecessor finishes: what it is told, and what it waits for.
#include "families.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <filesystem>
#include <optional>

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

}  // namespace continuity::test
