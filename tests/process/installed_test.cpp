// What `cmake --install` puts into a prefix is complete, and works from there
// with nothing of the build tree.
#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <unistd.h>

namespace continuity::test {
namespace {

// A compiler may take longer than anything a server does.
void run(const std::vector<std::string>& command) {
  Process process = Process::start(command);
  wait_until([&] { return !process.is_running(); }, 4 * patience);
  if (process.wait_exit() != 0) {
    std::string text;
    for (const std::string& line : process.log()) {
      text += "\n" + line;
    }
    throw std::runtime_error(command.front() + " failed:" + text);
  }
}

struct Prefix {
  Prefix() { run({CMAKE_PROGRAM, "--install", BUILD_TREE, "--prefix", directory.path()}); }
  [[nodiscard]] std::string operator/(const std::string& name) const { return directory / name; }

  TempDir directory{};
};

std::vector<std::string> wrap_flags() {
  std::vector<std::string> flags;
  std::istringstream list(WRAP_FLAGS);
  for (std::string flag; list >> flag;) {
    flags.push_back(flag);
  }
  return flags;
}

}  // namespace

TEST_CASE("what is installed is the library, both archives, the header, the script, the manual") {
  const Prefix prefix;

  CHECK(files_below(prefix.directory.path()) ==
        std::vector<std::string>{
            prefix / "bin/continuity-run", prefix / "include/continuity.h",
            prefix / "include/continuity/upgrader.h", prefix / "lib/libcontinuity-upgrader.a",
            prefix / "lib/libcontinuity-upgrader.so", prefix / "lib/libcontinuity-upgrader.so.0",
            prefix / "lib/libcontinuity-upgrader.so.0.1.0", prefix / "lib/libcontinuity-wrap.a",
            prefix / "lib/libcontinuity.so", prefix / "share/man/man7/libcontinuity.7"});
  CHECK(::access((prefix / "bin/continuity-run").c_str(), X_OK) == 0);
}

TEST_CASE("restarted under load, nothing is lost: started by the installed continuity-run") {
  const Prefix prefix;
  Place place;
  place.program = prefix / "bin/continuity-run";
  place.environment = {"LD_PRELOAD="};
  restarts_without_loss({"--", TINY_SERVER, "poll"}, place);
}

TEST_CASE("restarted under load, nothing is lost: a C++17 program built with what is installed") {
  const Prefix prefix;
  Place place;
  place.program = prefix / "server";
  place.environment = {"LD_PRELOAD="};
  const std::string source = SOURCE_TREE "/tests/process/servers/asking_server.cpp";
  run({CXX_COMPILER, "-std=c++17", "-I" + prefix / "include", source, "-o", place.program,
       "-L" + prefix / "lib", "-l:libcontinuity-upgrader.a", "-pthread"});
  restarts_without_loss({}, place, left_by_return);
}

// The linker's flags come with the CMake target; so far nothing installed tells them.
TEST_CASE("restarted under load, nothing is lost: a static program linked with what is installed") {
  const Prefix prefix;
  Place place;
  place.program = prefix / "server";
  place.environment = {"LD_PRELOAD="};
  std::vector<std::string> command{C_COMPILER, "-D_GNU_SOURCE", "-static"};
  for (const auto* name :
       {"main", "answer", "accept_loops", "poll_loops", "epoll_loops", "families", "refusal"}) {
    command.push_back(SOURCE_TREE "/tests/process/servers/" + std::string(name) + ".c");
  }
  const std::vector<std::string> rest{
      "-o", place.program, "-L" + prefix / "lib", "-lcontinuity-wrap", "-lstdc++", "-pthread"};
  command.insert(command.end(), rest.begin(), rest.end());
  const auto flags = wrap_flags();
  command.insert(command.end(), flags.begin(), flags.end());
  run(command);
  restarts_without_loss({"threads"}, place);
}

}  // namespace continuity::test
