// continuity upgrade: starts a server again as it was started, and ends as the restart does.
#include "command.hpp"
#include "support/waiting.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::test {
namespace {

// Its successor, once upgrade has ended well; nobody else looks after it.
Process successor_of(const Place& place, Process command) {
  REQUIRE(command.wait_exit() == 0);
  const auto told = run_command(place, {"list"}).json();  // who serves comes first
  command.follow(told["servers"][0]["pid"]);
  return command;
}

std::string environment_of(pid_t pid) {
  std::string text = read_file("/proc/" + std::to_string(pid) + "/environ");
  std::replace(text.begin(), text.end(), '\0', '\n');
  return "\n" + text;
}

std::string arguments_of(pid_t pid) {
  std::string text = read_file("/proc/" + std::to_string(pid) + "/cmdline");
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

std::string directory_of(pid_t pid) {
  return std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/cwd").string();
}

}  // namespace

TEST_CASE("upgrade starts a server as it was started, and ends when its probation is over") {
  const Place place = place_with_probation("300ms");
  const std::string loop = GENERATE("loop", "threads", "prefork-epoll");
  CAPTURE(loop);
  Process first = place.start({loop});
  const std::string arguments = arguments_of(first.pid());
  const std::string directory = directory_of(first.pid());

  Process command = start_command(place, {"upgrade", "tiny-server"});

  CHECK(command.next_line().find("is started") != std::string::npos);
  CHECK(command.next_line().find("claims from pid " + std::to_string(first.pid())) !=
        std::string::npos);
  CHECK(command.next_line().find("took over in") != std::string::npos);
  CHECK(command.next_line().find("outlived its probation") != std::string::npos);
  CHECK(left_by_itself(first));
  const Process second = successor_of(place, std::move(command));
  CHECK(second.pid() != first.pid());
  const nlohmann::json told = run_command(place, {"status", "tiny-server"}).json();
  const nlohmann::json owner = server_of(told, told["servers"][0]["pid"]);
  CHECK(owner["restarts"] == 1);
  CHECK(arguments_of(owner["pid"]) == arguments);
  CHECK(directory_of(owner["pid"]) == directory);
  CHECK_THAT(environment_of(owner["pid"]), Catch::Contains("\nCONTINUITY_PROBATION=300ms\n"));
}

TEST_CASE("what a server had at its start is what its successor starts with") {
  Place place = place_with_probation("50ms");
  // As a daemon it has become another directory's by the time that it binds.
  const TempDir directory;
  const std::string script = "cd " + directory.path() +
                             " && umask 037 && ulimit -S -n 123 && exec " +
                             std::string(TINY_SERVER) + " --daemon threads " + place.address();
  Process first = Process::start({"/bin/sh", "-c", script}, place.variables());
  first.follow(static_cast<pid_t>(number_in(first.next_line(), "pid")));
  REQUIRE(wait_until([&] { return who_answers(place) == first.pid(); }));

  const Said said = run_command(place, {"upgrade", "tiny-server"});

  CHECK(said.errors.empty());
  REQUIRE(said.status == 0);
  const pid_t second = who_answers(place);
  CHECK(second != first.pid());
  const std::string status = read_file("/proc/" + std::to_string(second) + "/limits");
  CHECK_THAT(status, Catch::Matches("[^]*Max open files +123 [^]*"));
  CHECK_THAT(read_file("/proc/" + std::to_string(second) + "/status"),
             Catch::Contains("\nUmask:\t0037\n"));
  CHECK_THAT(environment_of(second), Catch::Contains("\nPWD=" + directory.path() + "\n"));
  const auto told = run_command(place, {"stop", "tiny-server"});
  CHECK(told.status == 0);
}

TEST_CASE("upgrade takes another program, other arguments and other variables") {
  const Place place = place_with_probation("50ms");
  Process first = place.start({"loop"});
  const std::string program = place.directory / "other-server";
  std::filesystem::copy_file(TINY_SERVER, program);

  Process command = start_command(
      place, {"upgrade", "tiny-server", "--exec", program, "--env", "A_NEW=one", "--env",
              "CONTINUITY_NAME=tiny-server", "--", "threads", place.address()});

  const Process second = successor_of(place, std::move(command));
  CHECK(arguments_of(second.pid()) == program + " threads " + place.address() + " ");
  CHECK_THAT(environment_of(second.pid()), Catch::Contains("\nA_NEW=one\n"));
  CHECK(left_by_itself(first));
}

TEST_CASE("upgrade of a program that fails before it is ready ends with 1 and says why") {
  const Place place = place_with_probation("50ms");
  const Process first = place.start({"loop"});
  SECTION("it cannot be executed") {
    const Said said =
        run_command(place, {"upgrade", "tiny-server", "--exec", place.directory / "none"});
    CHECK(said.status == 1);
    CHECK_THAT(said.errors, Catch::Contains("No such file or directory"));
  }
  SECTION("it ends before it binds anything") {
    const Said said = run_command(place, {"upgrade", "tiny-server", "--", "nonsense"});
    CHECK(said.status == 1);
    CHECK_THAT(said.errors, Catch::Contains("exited with status 2"));
    CHECK_THAT(said.errors, Catch::Contains("usage: tiny-server"));
  }
  SECTION("it ends when it has bound its address") {
    const Said said = run_command(
        place, {"upgrade", "tiny-server", "--", "--end", "exit1", "loop", place.address()});
    CHECK(said.status == 1);
    CHECK_THAT(said.errors, Catch::Contains("before"));
    CHECK_THAT(said.errors, Catch::Contains("listening"));
  }
  CHECK(answer_from(place.address()) == answer_of(first));
  CHECK(files_below(place.rendezvous()).size() == 1);  // nothing is left lying about
}

TEST_CASE("upgrade of a program that is never ready ends with 5, and the program with it") {
  const Place place = place_with_probation("50ms");
  const Process first = place.start({"loop"});
  const Said said = run_command(place, {"upgrade", "tiny-server", "--timeout", "300ms", "--",
                                        "--end", "hang", "loop", place.address()});
  CHECK(said.status == 5);
  CHECK_THAT(said.errors, Catch::Contains("not ready in time"));
  CHECK(answer_from(place.address()) == answer_of(first));
}

TEST_CASE("upgrade of a program that the predecessor ends for being late ends with 5") {
  Place place = place_with_probation("50ms");
  place.environment.push_back("CONTINUITY_READY_TIMEOUT=200ms");
  const Process first = place.start({"loop"});
  const Said said = run_command(
      place, {"upgrade", "tiny-server", "--", "--end", "hang", "loop", place.address()});
  CHECK(said.status == 5);
  CHECK_THAT(said.errors, Catch::Contains("CONTINUITY_READY_TIMEOUT"));
  CHECK(answer_from(place.address()) == answer_of(first));
}

TEST_CASE("upgrade of a program that dies in its probation ends with 4") {
  const Place place = place_with_probation("20s");
  const Process first = place.start({"loop"});
  Process command = start_command(place, {"upgrade", "tiny-server"});
  command.next_line();
  command.next_line();
  CHECK(command.next_line().find("took over in") != std::string::npos);
  const pid_t second = who_answers(place);
  REQUIRE(second != first.pid());

  REQUIRE(::kill(second, SIGKILL) == 0);

  CHECK(command.await_log("failed").find("serves again") != std::string::npos);
  CHECK(command.wait_exit() == 4);
  CHECK(answer_from(place.address()) == answer_of(first));
}

TEST_CASE("what came of an upgrade is one object of JSON, whatever came of it") {
  const Place place = place_with_probation("50ms");
  const Process first = place.start({"loop"});
  const auto upgrade = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"upgrade", "--json", "tiny-server", "--"});
    arguments.push_back(place.address());
    const Said said = run_command(place, arguments);
    nlohmann::json told = said.json();
    CAPTURE(told.dump(2), said.errors);
    CHECK(what_is_wrong(told, "upgrade").empty());
    CHECK(told["predecessor"] == first.pid());
    CHECK((said.status == 0) == told["reason"].is_null());
    return told;
  };
  const auto failed = upgrade({"--end", "exit1", "loop"});
  CHECK(failed["outcome"] == "failed");
  CHECK(failed["took_over_us"].is_null());
  const std::string reason = failed["reason"];
  CHECK_THAT(reason, Catch::Contains("exited with status 1"));
  const std::string last_lines = failed["last_lines"];
  CHECK_THAT(last_lines, Catch::Contains("listening"));
  const auto done = upgrade({"poll"});
  CHECK(done["outcome"] == "done");
  CHECK(done["evidence"] == "poll");
  CHECK(done["took_over_us"].is_number());
  CHECK(done["successor"] == who_answers(place));
  CHECK(run_command(place, {"stop", "tiny-server"}).status == 0);
}

TEST_CASE("upgrade while another restart is under way is refused") {
  const Place place = place_with_probation("50ms");
  const Process first = place.start({"loop"});
  Process late = place.spawn({"--end", "hang", "loop"});
  REQUIRE(wait_until([&] {
    return server_of(run_command(place, {"list"}).json(), first.pid())["state"] == "granted";
  }));
  const Said said = run_command(place, {"upgrade", "tiny-server"});
  CHECK(said.status == 1);
  CHECK_THAT(said.errors, Catch::Contains("is granted, with pid " + std::to_string(late.pid())));
}

TEST_CASE("of two servers of one name upgrade wants to know which") {
  const Place place = place_with_probation("50ms");
  const Place other;
  Process one = place.start({"loop"});
  Process two = Process::start({TINY_SERVER, "loop", other.address()}, place.variables());
  REQUIRE(two.next_line().rfind("listening", 0) == 0);
  REQUIRE(answer_from(other.address()).rfind("pid=", 0) == 0);

  const Said said = run_command(place, {"upgrade", "tiny-server"});
  CHECK(said.status == 1);
  CHECK_THAT(said.errors, Catch::Contains(std::to_string(one.pid())));
  CHECK_THAT(said.errors, Catch::Contains(std::to_string(two.pid())));

  const Process next =
      successor_of(place, start_command(place, {"upgrade", std::to_string(one.pid())}));
  CHECK(left_by_itself(one));
  CHECK(answer_from(other.address()) == answer_of(two));
}

TEST_CASE("upgraded ten times, a server has been restarted ten times") {
  const Place place = place_with_probation("20ms");
  Process server = place.start({"epoll-level"});
  constexpr int times = 10;
  for (int i = 0; i < times; ++i) {
    Process next = successor_of(place, start_command(place, {"upgrade", "tiny-server"}));
    CHECK(wait_until([&] { return !server.is_running(); }));
    server = std::move(next);
  }
  const auto told = run_command(place, {"status", std::to_string(server.pid())}).json();
  CHECK(server_of(told, server.pid())["restarts"] == times);
  CHECK(server_of(told, server.pid())["journal"].size() == 8);
}

}  // namespace continuity::test
