// Servers that send a signal to their process group when they end, started by one
// script: predecessor and successor are in one group.
#include "families.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <unistd.h>

namespace continuity::test {
namespace {

// A script that starts a server whenever it is told to, all in its own group,
// which is not the test's.
class Script {
 public:
  explicit Script(const Place& place)
      : process_(Process::start(
            {"setsid", "sh", "-c",
             "exec 3<&0; while read -r line; do \"$0\" $line <&3 & done; wait", place.program},
            place.variables())) {}

  // The pid of a server that listens.
  pid_t start_server(const std::string& arguments, const std::string& address) {
    process_.send(arguments + " " + address + "\n");
    std::string line;
    do {
      line = process_.next_line();
    } while (line.rfind("listening ", 0) != 0);
    return static_cast<pid_t>(number_in(line, "pid"));
  }
  // All that its servers say.
  Process& log() { return process_; }
  [[nodiscard]] bool is_running() const { return process_.is_running(); }

 private:
  Process process_;
};

std::string said_by(pid_t process, const std::string& text) {
  return "continuity[" + std::to_string(process) + "]: " + text;
}

std::string is_pid(pid_t process) {
  return "pid=" + std::to_string(process);
}

}  // namespace

TEST_CASE("a server that kills its process group when it ends does not hit its successor") {
  const std::string how = GENERATE("zero", "negative", "killpg");
  const std::string loop = GENERATE("threads", "fork-and-forget");
  CAPTURE(how, loop);
  const FamilyPlace place;
  const std::string arguments = "--kills-group " + how + " " + loop;
  Script script(place);
  pid_t server = script.start_server(arguments, place.address());
  CHECK(answer_from(place.address()).rfind("pid=", 0) == 0);
  Load load(place.address());
  for (int i = 0; i < 3; ++i) {
    const auto old_ones = family_of(server);
    const pid_t successor = script.start_server(arguments, place.address());
    script.log().await_log("took over " + place.address() + " from pid " + std::to_string(server));
    script.log().await_log(said_by(server, "no connection left; leaving (SIGTERM)"));
    CHECK(have_ended(old_ones));  // its workers have heard of it
    server = successor;
  }
  CHECK(load.await_ok(50));
  CHECK(load.count("failed") == 0);
  CHECK(script.is_running());
}

TEST_CASE("a successor that kills its process group when it ends does not hit its predecessor") {
  const std::string when = GENERATE("before it is ready", "on probation", "after it");
  CAPTURE(when);
  FamilyPlace place;
  if (when == "on probation") {
    place.environment = {"CONTINUITY_PROBATION=30s"};
  }
  Script script(place);
  const pid_t server = script.start_server("--kills-group zero threads", place.address());
  Connection held(place.address());
  REQUIRE(held.ask("hello") == is_pid(server));
  const std::string hangs = when == "before it is ready" ? "--end hang " : "";
  const pid_t successor =
      script.start_server(hangs + "--kills-group zero threads", place.address());
  if (when == "on probation") {
    script.log().await_log("took over ");
  } else if (when == "after it") {
    script.log().await_log("finishing 1 connection");
  }

  ::kill(successor, SIGTERM);

  CHECK(have_ended({successor}));
  CHECK(held.ask("hello") == is_pid(server));
  if (when == "before it is ready") {
    script.log().await_log("serving on");
    CHECK(answer_from(place.address()) == is_pid(server));
  } else if (when == "on probation") {
    script.log().await_log("as it was meant to; not serving again");
  }
}

TEST_CASE("that predecessor and successor are in one process group is said beforehand") {
  const FamilyPlace place;
  Script script(place);
  const pid_t server = script.start_server("threads", place.address());
  REQUIRE(answer_from(place.address()) == is_pid(server));  // so that it can be followed
  const std::string group = std::to_string(::getpgid(server));
  const pid_t successor = script.start_server("threads", place.address());
  script.log().await_log(said_by(
      server, "pid " + std::to_string(successor) + " is in our process group, " + group + ":"));
}

// What the above must not do, and what is prevented there.
TEST_CASE("a server that kills its process group without a restart hits all that are in it") {
  const std::string how = GENERATE("zero", "negative", "killpg");
  const bool with_library = GENERATE(false, true);
  CAPTURE(how, with_library);
  const ReservedPort elsewhere;
  FamilyPlace place;
  place.with_library = with_library;
  Script script(place);
  const pid_t server = script.start_server("--kills-group " + how + " threads", place.address());
  const pid_t other = script.start_server("threads", elsewhere.address());

  ::kill(server, SIGTERM);

  CHECK(have_ended({server, other}));
  CHECK(script.log().wait_exit() == 128 + SIGTERM);
}

}  // namespace continuity::test
