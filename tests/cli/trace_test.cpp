// continuity trace: what the last restarts took, as events and as a picture.
#include "command.hpp"
#include "support/waiting.hpp"

#include <catch2/catch.hpp>

namespace continuity::test {

TEST_CASE("trace has a span for every step that was taken, one after the other") {
  const Place place;
  Process first = place.start({"loop"});
  const Process second = place.restart({"loop"});
  REQUIRE(left_by_itself(first));
  nlohmann::json events;
  const auto span = [&](const std::string& name) {
    for (const auto& event : events) {
      if (event["name"] == name) {
        return event;
      }
    }
    return nlohmann::json{};
  };
  REQUIRE(wait_until([&] {
    events = run_command(place, {"trace", "tiny-server"}).json()["traceEvents"];
    return !span("draining").is_null();
  }));
  for (const char* name : {"granting", "starting", "going deaf", "probation", "draining"}) {
    CAPTURE(name);
    REQUIRE(span(name).is_object());
    CHECK(span(name)["ph"] == "X");
    CHECK(span(name)["dur"].get<long>() >= 0);
  }
  CHECK(span("going deaf")["pid"] == first.pid());
  CHECK(span("starting")["pid"] == second.pid());
  CHECK(span("starting")["ts"].get<long>() <= span("going deaf")["ts"].get<long>());
  CHECK(span("done")["ph"] == "i");
}

TEST_CASE("trace draws a picture where it is told to") {
  const Place place;
  Process first = place.start({"loop"});
  const Process second = place.restart({"loop"});
  const std::string path = place.directory / "restart.svg";
  const Said said = run_command(place, {"trace", "tiny-server", "--out", path});
  CHECK(said.status == 0);
  const std::string picture = read_file(path);
  CHECK(picture.rfind("<svg ", 0) == 0);
  CHECK_THAT(picture, Catch::Contains("going deaf, "));
  CHECK_THAT(picture, Catch::EndsWith("</svg>\n"));
}

TEST_CASE("of a server that was never restarted there is nothing to trace") {
  const Place place;
  const Process server = place.start({"loop"});
  const Said said = run_command(place, {"trace", "tiny-server"});
  CHECK(said.status == 1);
  CHECK_THAT(said.errors, Catch::Contains("has not been restarted yet"));
}

TEST_CASE("what trace cannot write is said") {
  const Place place;
  Process first = place.start({"loop"});
  const Process second = place.restart({"loop"});
  const Said said = run_command(place, {"trace", "tiny-server", "--out", "/proc/none/x"});
  CHECK(said.status == 1);
  CHECK_THAT(said.errors, Catch::Contains("/proc/none/x"));
}

}  // namespace continuity::test
