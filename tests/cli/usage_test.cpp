// What the command says to who calls it wrongly, or asks how to.
#include "command.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <sstream>

namespace continuity::test {

TEST_CASE("wrong usage is one line, and status 2") {
  const Place place;
  using Line = std::vector<std::string>;
  for (const Line& line :
       {Line{}, Line{"nonsense"}, Line{"--nonsense"}, Line{"status"}, Line{"list", "extra"},
        Line{"list", "--nonsense"}, Line{"upgrade"}, Line{"upgrade", "x", "--timeout", "soon"},
        Line{"upgrade", "x", "--env", "novalue"}, Line{"stop", "x", "--timeout", "-1"},
        Line{"stop"}, Line{"check"}}) {
    CAPTURE(line);
    const Said said = run_command(place, line);
    CHECK(said.status == 2);
    CHECK(said.output.empty());
    CHECK(said.errors.rfind("continuity: ", 0) == 0);
    CHECK(std::count(said.errors.begin(), said.errors.end(), '\n') == 1);
    CHECK_THAT(said.errors, Catch::Contains("--help"));
  }
}

TEST_CASE("help fits a terminal of 80 columns and 24 lines") {
  const Place place;
  for (const std::vector<std::string>& line : {std::vector<std::string>{"--help"},
                                               {"list", "--help"},
                                               {"status", "--help"},
                                               {"upgrade", "--help"},
                                               {"stop", "--help"},
                                               {"trace", "--help"},
                                               {"check", "--help"}}) {
    CAPTURE(line);
    const Said said = run_command(place, line);
    CHECK(said.status == 0);
    CHECK(said.errors.empty());
    std::istringstream lines(said.output);
    int count = 0;
    for (std::string one; std::getline(lines, one); ++count) {
      CAPTURE(one);
      CHECK(one.size() <= 80);
    }
    CHECK(count > 3);
    CHECK(count <= 24);
  }
}

TEST_CASE("the version is that of the library") {
  const Place place;
  CHECK(run_command(place, {"--version"}).output.rfind("continuity 0.", 0) == 0);
}

TEST_CASE("a directory that cannot be used is the system's failure") {
  const Place place;
  const Said said = run_command(place, {"list"}, {"CONTINUITY_DIR=/proc/none"});
  CHECK(said.status == 111);
  CHECK_THAT(said.errors, Catch::Contains("/proc/none"));
}

TEST_CASE("what is no terminal gets no colours") {
  const Place place;
  const Process server = place.start({"loop"});
  CHECK(run_command(place, {"list"}).output.find('\x1b') == std::string::npos);
}

}  // namespace continuity::test
