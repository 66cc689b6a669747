// A generation must not take away the files that another one lives by.
#include "place.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <filesystem>
#include <sys/stat.h>

namespace continuity::test {
namespace {

ino_t inode_of(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

}  // namespace

TEST_CASE("a UNIX path outlives the restart: neither side removes it") {
  Place place;
  const std::string path = place.directory / "server.sock";
  place.addresses = {path};
  const Arguments arguments{"--remove", path, "poll"};
  Process server = place.start(arguments);
  const ino_t inode = inode_of(path);

  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart(arguments);
    CHECK(left_by_itself(server));
    CHECK(inode_of(path) == inode);
    CHECK(answer_from(path) == answer_of(successor));
    server = std::move(successor);
  }
}

TEST_CASE("a successor that is only run to check leaves the UNIX path where it is") {
  Place place;
  const std::string path = place.directory / "server.sock";
  place.addresses = {path};
  const Process server = place.start({"--remove", path, "loop"});
  const ino_t inode = inode_of(path);

  Process checking = place.spawn_listening({"--remove", path, "--end", "exit0", "loop"});

  CHECK(checking.wait_exit() == 0);
  CHECK(inode_of(path) == inode);
  CHECK(answer_from(path) == answer_of(server));
}

TEST_CASE("a server that nobody follows removes its UNIX path at its end") {
  Place place;
  const std::string path = place.directory / "server.sock";
  place.addresses = {path};
  Process server = place.start({"--remove", path, "loop"});

  server.signal(SIGTERM);

  CHECK(server.wait_exit() == 0);
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("the last of several generations removes its UNIX path at its end") {
  Place place;
  const std::string path = place.directory / "server.sock";
  place.addresses = {path};
  Process first = place.start({"--remove", path, "loop"});
  Process second = place.restart({"--remove", path, "loop"});
  CHECK(left_by_itself(first));

  second.signal(SIGTERM);

  CHECK(second.wait_exit() == 0);
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a path of a dead server is removed and bound anew") {
  Place place;
  const std::string path = place.directory / "server.sock";
  place.addresses = {path};
  Process first = place.start({"loop"});
  first.signal(SIGKILL);
  first.wait_exit();
  REQUIRE(std::filesystem::exists(path));

  const Process second = place.start({"--remove", path, "loop"});

  CHECK(answer_from(path) == answer_of(second));
}

TEST_CASE("a pid file that names the successor is not removed by the predecessor") {
  const Place place;
  const std::string file = place.directory / "server.pid";
  const Arguments arguments{"--pid-file", file, "loop"};
  Process server = place.start(arguments);

  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart(arguments);
    CHECK(left_by_itself(server));
    CHECK(read_file(file) == std::to_string(successor.pid()) + "\n");
    server = std::move(successor);
  }
  server.signal(SIGTERM);
  CHECK(server.wait_exit() == 0);
  CHECK_FALSE(std::filesystem::exists(file));
}

TEST_CASE("the predecessor still removes files that are its own") {
  const Place place;
  const std::string own = place.directory / "own.pid";
  Process predecessor = place.start({"--pid-file", own, "loop"});
  const Process successor = place.restart({"loop"});

  CHECK(left_by_itself(predecessor));
  CHECK_FALSE(std::filesystem::exists(own));
}

}  // namespace continuity::test
