// continuity doctor: what it finds in this machine, in a command and in a process.
#include "command.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <unistd.h>

namespace continuity::test {
namespace {

// What it has found is in its texts and remedies.
bool tells(const Said& said, const std::string& part) {
  const nlohmann::json told = said.json();
  REQUIRE(what_is_wrong(told, "doctor").empty());
  CHECK(told.at("will_work") == (said.status == 0));
  const auto& findings = told.at("findings");
  return std::any_of(findings.begin(), findings.end(), [&](const nlohmann::json& one) {
    const std::string text = one.at("text");
    const std::string remedy = one.at("remedy");
    return (text + "; " + remedy).find(part) != std::string::npos;
  });
}

}  // namespace

TEST_CASE("doctor finds this machine fit, and a rendezvous directory that cannot be used") {
  const Place place;
  const Said fit = run_command(place, {"doctor"});
  CHECK(fit.status == 0);
  CHECK(tells(fit, "pidfd_open works"));
  CHECK(tells(fit, place.rendezvous()));
  const Said unfit = run_command(place, {"doctor"}, {"CONTINUITY_DIR=/nonexistent"});
  CHECK(unfit.status == 1);
  CHECK(tells(unfit, "/nonexistent"));
}

TEST_CASE("doctor tells of a command whether the library reaches it") {
  const Place place;
  const Said good = run_command(place, {"doctor", "--", TINY_SERVER, "--json", "poll"});
  CHECK(good.status == 0);
  CHECK(tells(good, "the library reaches it"));
  const Said bad = run_command(place, {"doctor", "--command", UNLINKED_SERVER});
  CHECK(bad.status == 1);
  CHECK(tells(bad, "static"));
  CHECK(tells(bad, "libcontinuity-wrap.a"));
  write_file(place.directory / "script", "#!" UNLINKED_SERVER "\n");
  CHECK(run_command(place, {"doctor", "--", "sh"}).status == 0);
  CHECK(tells(run_command(place, {"doctor", "--", place.directory / "script"}), "not executable"));
}

TEST_CASE("doctor looks at a process, by pid and by name, and names who else has its listener") {
  const Place place;
  const Process server = place.start({"poll"});
  const Said by_pid = run_command(place, {"doctor", std::to_string(server.pid())});
  CHECK(by_pid.status == 0);
  CHECK(tells(by_pid, "has the library"));
  CHECK(tells(by_pid, "1 TCP listeners"));
  CHECK_FALSE(tells(by_pid, "has a copy"));
  CHECK(tells(run_command(place, {"doctor", "tiny-server"}), "has the library"));

  const Said unknown = run_command(place, {"doctor", "other"});
  CHECK(unknown.status == 3);
  CHECK_THAT(unknown.errors, Catch::Contains("there is tiny-server"));
}

}  // namespace continuity::test
