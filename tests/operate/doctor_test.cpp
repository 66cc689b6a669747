// continuity doctor: what it finds in this machine, in a command and in a process.
#include "place.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

namespace continuity::test {
namespace {

struct Report {
  int status;
  std::string text;
  [[nodiscard]] bool says(const std::string& part) const {
    return text.find(part) != std::string::npos;
  }
};

Report doctor(const Place& place, const std::string& arguments) {
  const std::string file = place.directory / "report";
  Process process = Process::start(
      {"sh", "-c", CONTINUITY_COMMAND " doctor " + arguments + " >" + file + " 2>&1"},
      {"CONTINUITY_DIR=" + place.rendezvous()});
  const int status = process.wait_exit();
  return {status, read_file(file)};
}

}  // namespace

TEST_CASE("doctor finds this machine fit, and a rendezvous directory that cannot be used") {
  Place place;
  const Report fit = doctor(place, "");
  CHECK(fit.status == 0);
  CHECK(fit.says("pidfd_open works"));
  CHECK(fit.says(place.rendezvous()));
  CHECK(doctor(place, "--json").says("\"will_work\": true"));

  Process unfit = Process::start({CONTINUITY_COMMAND, "doctor"}, {"CONTINUITY_DIR=/nonexistent"});
  CHECK(unfit.wait_exit() == 1);
}

TEST_CASE("doctor tells of a command whether the library reaches it") {
  const Place place;
  const Report good = doctor(place, "--command -- " TINY_SERVER);
  CHECK(good.status == 0);
  CHECK(good.says("the library reaches it"));
  const Report bad = doctor(place, "--command -- " UNLINKED_SERVER);
  CHECK(bad.status == 1);
  CHECK(bad.says("static"));
  CHECK(bad.says("libcontinuity-wrap.a"));
  write_file(place.directory / "script", "#!" UNLINKED_SERVER "\n");
  CHECK(doctor(place, "--command -- sh").status == 0);
  CHECK(doctor(place, "--command -- " + place.directory / "script").says("not executable"));
}

TEST_CASE("doctor looks at a process, by pid and by name, and names who else has its listener") {
  const Place place;
  const Process server = place.start({"poll"});
  const Report by_pid = doctor(place, std::to_string(server.pid()));
  CHECK(by_pid.status == 0);
  CHECK(by_pid.says("has the library"));
  CHECK(by_pid.says("1 TCP listeners"));
  CHECK_FALSE(by_pid.says("has a copy"));
  CHECK(doctor(place, "tiny-server").says("has the library"));

  const Report unknown = doctor(place, "other");
  CHECK(unknown.status == 3);
  CHECK(unknown.says("there is: tiny-server"));
}

}  // namespace continuity::test
