// What the command needs to know before it starts anything.
#include "cli/launch.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

namespace continuity::test {

TEST_CASE("the unit of a process is the service that it is in last") {
  CHECK(cli::unit_of("0::/system.slice/nginx.service\n") == "nginx.service");
  CHECK(cli::unit_of("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n") ==
        "x.service");
  CHECK(
      cli::unit_of("12:cpu:/system.slice/no.service\n1:name=systemd:/system.slice/yes.service\n") ==
      "yes.service");
  CHECK(cli::unit_of("0::/user.slice/user-1000.slice/session-2.scope\n").empty());
  CHECK(cli::unit_of("0::/user.slice/user@1000.service/session.scope\n").empty());
  for (const char* nothing : {"", "0::/", "garbage", ":", "::", "0::\n\n"}) {
    CAPTURE(nothing);
    CHECK(cli::unit_of(nothing).empty());
  }
}

TEST_CASE("a process of another user cannot be started again from here") {
  const Start start{.user = 4'000'000'000};
  CHECK_THAT(cli::why_not_from_here(::getpid(), start), Catch::Contains("started by user"));
  const Start own{.user = ::geteuid()};
  CHECK(cli::why_not_from_here(::getpid(), own).empty());
}

TEST_CASE("a variable that is set is there once, and one that is removed is not") {
  std::vector<std::string> environment{"A=1", "AB=2", "A=3", "=x"};
  cli::set_variable(environment, "A=4");
  CHECK(environment == std::vector<std::string>{"AB=2", "=x", "A=4"});
  cli::remove_variable(environment, "AB");
  CHECK(environment == std::vector<std::string>{"=x", "A=4"});
}

}  // namespace continuity::test
