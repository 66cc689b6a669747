// continuity check: a restart that is not one.
#include "command.hpp"
#include "support/root.hpp"
#include "support/temp_dir.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <fstream>
#include <sys/stat.h>

namespace continuity::test {
namespace {

using nlohmann::json;

Said check(const Place& place, const Arguments& arguments,
           const std::vector<std::string>& options = {}) {
  std::vector<std::string> line{"check"};
  line.insert(line.end(), options.begin(), options.end());
  line.insert(line.end(), {"--", TINY_SERVER});
  line.insert(line.end(), arguments.begin(), arguments.end());
  return run_command(place, line);  // which finds the library beside itself
}

}  // namespace

TEST_CASE("check says what would be claimed, added, dropped and changed, and nothing is") {
  Place place;
  const ReservedPort dropped;
  const ReservedPort added;
  place.addresses.push_back(dropped.address());
  const std::string loop = GENERATE("loop", "threads");
  CAPTURE(loop);
  Process server = place.start({"--backlog", "100", loop});

  const Said said =
      check(place, {"--backlog", "50", "--options", "7", loop, place.address(), added.address()});

  CHECK(said.errors.empty());
  REQUIRE(said.status == 0);
  const json report = said.json();
  CAPTURE(report.dump(2));
  CHECK(what_is_wrong(report, "check").empty());
  REQUIRE(report["claims"].size() == 1);
  CHECK(report["claims"][0]["address"] == place.address());
  CHECK(report["claims"][0]["backlog"] == json{{"before", 100}, {"after", 50}});
  CHECK_FALSE(report["claims"][0]["options"].empty());
  CHECK(report["new"] == json::array({added.address()}));
  CHECK(report["dropped"] == json::array({dropped.address()}));
  CHECK(report["ready"] == "accept");
  CHECK(report["took_ms"].is_number());
  CHECK(report["memory_kib"] > 100);
  CHECK(answer_from(place.address()).rfind("pid=", 0) == 0);
  CHECK(answer_from(dropped.address()).rfind("pid=", 0) == 0);
  CHECK(server.logged("handed") == 0);
  const json told = run_command(place, {"list"}).json();
  REQUIRE(told["servers"].size() == 1);  // nobody else is left
  CHECK(told["servers"][0]["state"] == "active");
}

TEST_CASE("check of the same command changes nothing, and a restart afterwards works") {
  const Place place;
  Process server = place.start({"epoll-level"});
  const json report = check(place, {"epoll-level", place.address()}).json();
  REQUIRE(report["claims"].size() == 1);
  CHECK(report["claims"][0]["options"].empty());
  CHECK_FALSE(report["claims"][0].contains("backlog"));
  CHECK(report["new"].empty());
  CHECK(report["dropped"].empty());
  CHECK(report["ready"] == "epoll");
  const Process second = place.restart({"epoll-level"});
  CHECK(left_by_itself(server));
}

TEST_CASE("check hears of it from a worker of another user, in a directory of its own as well") {
  if (needs_root()) {
    return;
  }
  const TempDir root;
  const bool has_root = GENERATE(false, true);
  const std::string loop = GENERATE("prefork", "prefork-epoll");
  Arguments arguments{"--nobody", "workers"};
  if (has_root) {
    arguments.insert(arguments.end(), {"--chroot", root.path()});
  }
  arguments.push_back(loop);
  CAPTURE(arguments);
  const Place place;
  const Process server = place.start(arguments);
  arguments.push_back(place.address());
  const Said said = check(place, arguments);
  CHECK(said.errors.empty());
  REQUIRE(said.status == 0);
  CHECK(said.json()["claims"][0]["address"] == place.address());
  CHECK(answer_from(place.address()).rfind("pid=", 0) == 0);
}

TEST_CASE("check believes nobody but the command that it has started") {
  const Place place;
  const Process server = place.start({"loop"});
  // It finds the command's name, as anybody can, and has something to say.
  const std::string lie =
      "import os, re, socket, sys\n"
      "name = re.search(r'CONTINUITY_REHEARSAL=@(\\w+)', open(sys.argv[1]).read())[1]\n"
      "s = socket.socket(socket.AF_UNIX)\n"
      "s.connect('\\0' + name)\n"
      "try:\n"
      "  s.sendall(b'ready 1\\nclaimed 1.2.3.4:5 1 1\\nend\\n')\n"
      "  s.recv(1)\n"
      "except ConnectionError: pass\n"
      "print('lied', flush=True)\n";
  const std::string seen = place.directory / "seen";
  REQUIRE(::mkfifo(seen.c_str(), 0600) == 0);
  Process liar = Process::start({"python3", "-c", lie, seen});
  const std::string fifo = place.directory / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  Process command =
      start_command(place, {"check", "--", "/bin/sh", "-c",
                            "env >" + seen + "; read -r line <" + fifo + "; exec \"$@\"", "sh",
                            TINY_SERVER, "loop", place.address()});
  CHECK(liar.next_line() == "lied");
  std::ofstream(fifo) << "go\n";
  CHECK(command.wait_exit() == 0);
  std::string all;
  for (std::string line; line != "}";) {
    line = command.next_line();
    all += line;
  }
  CHECK(all.find("1.2.3.4") == std::string::npos);
  CHECK(all.find(place.address()) != std::string::npos);
}

TEST_CASE("check of a command that fails says what it wrote") {
  const Place place;
  const Process server = place.start({"loop"});
  const Said said = check(place, {"--end", "exit1", "loop", place.address()});
  CHECK(said.status == 1);
  CHECK_THAT(said.errors, Catch::Contains("exited with status 1"));
  CHECK_THAT(said.errors, Catch::Contains("listening"));
  CHECK(answer_from(place.address()) == answer_of(server));
}

TEST_CASE("check of a command that is never ready ends it, with status 5") {
  const Place place;
  const Process server = place.start({"loop"});
  const Said said =
      check(place, {"--end", "hang", "loop", place.address()}, {"--timeout", "300ms"});
  CHECK(said.status == 5);
  CHECK(answer_from(place.address()) == answer_of(server));
  CHECK(run_command(place, {"list"}).json()["servers"].size() == 1);
}

TEST_CASE("check where nobody is to be followed tells what would be new") {
  const Place place;
  const json report = check(place, {"loop", place.address()}).json();
  CHECK(report["claims"].empty());
  CHECK(report["new"] == json::array({place.address()}));
  CHECK(answer_from(place.address()) == "ECONNREFUSED");
}

}  // namespace continuity::test
