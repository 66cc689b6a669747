// continuity stop: the end of a server on purpose, however many generations there are.
#include "command.hpp"
#include "support/waiting.hpp"

#include <catch2/catch.hpp>

#include <csignal>

namespace continuity::test {

TEST_CASE("stop ends who serves, who can come back and who drains, and nobody comes back") {
  const Place place = place_with_probation(GENERATE("20ms", "30s"));
  Process first = place.start({"threads"});
  Connection held(place.address());
  REQUIRE(held.ask("hello").rfind("pid=", 0) == 0);
  const Process second = place.restart({"threads"});

  const Said said = run_command(place, {"stop", "tiny-server"});

  CHECK(said.errors.empty());
  CHECK(said.status == 0);
  CHECK_FALSE(second.is_running());
  CHECK_FALSE(first.is_running());
  CHECK(answer_from(place.address()) == "ECONNREFUSED");
  CHECK(first.logged("serving again") == 0);
}

TEST_CASE("stop ends a server of several processes") {
  const Place place;
  const Process server = place.start({"prefork"});
  const Said said = run_command(place, {"stop", "--json", "tiny-server"});
  CHECK(said.status == 0);
  CHECK(said.json()["ended"] == nlohmann::json::array({server.pid()}));
  CHECK_FALSE(server.is_running());
  CHECK(answer_from(place.address()) == "ECONNREFUSED");
}

TEST_CASE("stop ends a successor that is starting, too") {
  const Place place;
  Process first = place.start({"loop"});
  Process late = place.spawn({"--end", "hang", "loop"});
  REQUIRE(wait_until([&] {
    return server_of(run_command(place, {"list"}).json(), first.pid())["state"] == "granted";
  }));
  CHECK(run_command(place, {"stop", "tiny-server"}).status == 0);
  CHECK_FALSE(first.is_running());
  CHECK_FALSE(late.is_running());
}

TEST_CASE("stop says who does not end, with status 5") {
  const Place place;
  const Process server = place.start({"--deaf-to-signals", "loop"});
  const Said said = run_command(place, {"stop", "--json", "tiny-server", "--timeout", "200ms"});
  CHECK(said.status == 5);
  CHECK(what_is_wrong(said.json(), "stop").empty());
  CHECK(said.json()["left"] == nlohmann::json::array({server.pid()}));
  CHECK(said.json()["ended"].empty());
  CHECK_THAT(said.errors, Catch::Contains("pid " + std::to_string(server.pid()) + " still there"));
}

}  // namespace continuity::test
