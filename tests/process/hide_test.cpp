// CONTINUITY_HIDE: servers that refuse to run twice, before they bind, are
// restarted all the same. Without it they refuse, or the trial would say nothing.
#include "place.hpp"
#include "restarts.hpp"
#include "support/root.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <csignal>
#include <filesystem>

namespace continuity::test {
namespace {

// What is hidden, or an attempt left behind.
std::vector<std::string> beside(const Place& place) {
  std::vector<std::string> names = files_below(place.rendezvous());
  names.erase(std::remove_if(names.begin(), names.end(),
                             [](const std::string& name) {
                               return name.find(".continuity-") == std::string::npos &&
                                      name.find(".hide") == std::string::npos;
                             }),
              names.end());
  return names;
}

bool is_clean(const Place& place) {
  const bool clean = wait_until([&] { return beside(place).empty(); });
  for (const std::string& name : beside(place)) {
    UNSCOPED_INFO("left: " << name);
  }
  return clean;
}

// A server that has a pid file, and refuses in one of these ways.
struct Refusing : Place {
  explicit Refusing(std::string how) : way(std::move(how)) {
    pid_file = directory / "server.pid";
    if (way == "connect" || way == "stat") {
      path = directory / "server.sock";
      addresses = {path};
      arguments = {"--remove", path};
    }
    arguments.insert(arguments.end(), {"--pid-file", pid_file, "--refuse", way});
    environment = {"CONTINUITY_HIDE=" + pid_file + (path.empty() ? "" : ":" + path)};
  }
  [[nodiscard]] Arguments with(const Arguments& more) const {
    Arguments all = arguments;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  // The pid file comes to name it, a moment after it has taken over.
  [[nodiscard]] bool comes_to_name(const Process& server) const {
    return wait_until([&] { return read_file(pid_file) == naming(server); });
  }
  // What the pid file of this process says.
  [[nodiscard]] std::string naming(const Process& server) const {
    const std::string prefix = way == "flock" || way == "lockf" ? "tiny-server " : "";
    return prefix + std::to_string(server.pid()) + "\n";
  }

  std::string way;
  std::string pid_file;
  std::string path;
  Arguments arguments;
};

const std::vector<std::string> all_ways{"pid", "flock", "lockf", "connect", "stat"};

}  // namespace

TEST_CASE(
    "restarted under load, nothing is lost: a server that refuses to run twice, hidden from") {
  const std::string way = GENERATE(from_range(all_ways));
  CAPTURE(way);
  const Refusing place(way);
  const Arguments arguments = place.with({"threads"});
  Process server = place.start(arguments);
  Load load(place.address(), server);

  for (int i = 0; i < 3; ++i) {
    restart_under_load(place, arguments, load, server);
    CHECK(read_file(place.pid_file) == place.naming(server));
    CHECK(is_clean(place));
  }

  check_nothing_was_lost(load, 3);
  server.signal(SIGTERM);
  CHECK(server.wait_exit() == 0);
  CHECK_FALSE(std::filesystem::exists(place.pid_file));
}

TEST_CASE(
    "without CONTINUITY_HIDE a server that refuses to run twice refuses, and the first serves") {
  const std::string way = GENERATE(from_range(all_ways));
  CAPTURE(way);
  Refusing place(way);
  place.environment.clear();
  const Process server = place.start(place.with({"threads"}));

  Process second = place.spawn(place.with({"threads"}));

  CHECK(second.next_line() == "refused by " + way);
  CHECK(second.wait_exit() == 1);
  CHECK(answer_from(place.address()) == answer_of(server));
  CHECK(read_file(place.pid_file) == place.naming(server));
}

TEST_CASE("a successor that dies before it is ready leaves the hidden files the predecessor's") {
  const std::string way = GENERATE(from_range(all_ways));
  const std::string end = GENERATE("exit0", "exit1", "kill");
  CAPTURE(way, end);
  const Refusing place(way);
  Process server = place.start(place.with({"threads"}));

  Process failing = place.spawn_listening(place.with({"--end", end, "threads"}));
  failing.wait_exit();
  server.await_log("before it was ready; serving on");

  CHECK(is_clean(place));
  CHECK(read_file(place.pid_file) == place.naming(server));
  CHECK(answer_from(place.address()) == answer_of(server));
  Process next = place.restart(place.with({"threads"}));
  CHECK(place.comes_to_name(next));
  CHECK(left_by_itself(server));
  CHECK(is_clean(place));
}

TEST_CASE("a successor that dies in its probation gives the hidden files back") {
  const std::string way = GENERATE(from_range(all_ways));
  CAPTURE(way);
  Refusing place(way);
  place.environment.emplace_back("CONTINUITY_PROBATION=30s");
  Process server = place.start(place.with({"threads"}));
  for (std::size_t i = 1; i <= 2; ++i) {
    Process killed = place.restart(place.with({"threads"}));
    CHECK(place.comes_to_name(killed));
    REQUIRE(answer_from(place.address()) == answer_of(killed));

    killed.signal(SIGKILL);
    killed.wait_exit();
    CHECK(wait_until([&] { return server.logged("serving again") == i; }));

    CHECK(read_file(place.pid_file) == place.naming(server));
    CHECK(answer_from(place.address()) == answer_of(server));
  }
  server.signal(SIGTERM);
  CHECK(server.wait_exit() == 0);
  CHECK_FALSE(std::filesystem::exists(place.pid_file));
}

TEST_CASE("until it is ready, the files of a successor are beside the predecessor's") {
  const Refusing place("pid");
  Process server = place.start(place.with({"threads"}));
  Process successor = place.spawn_listening(place.with({"--end", "hang", "threads"}));

  CHECK(read_file(place.pid_file) == place.naming(server));
  const auto names = beside(place);
  CHECK(std::count_if(names.begin(), names.end(), [](const std::string& name) {
          return name.find("server.pid.continuity-") != std::string::npos;
        }) == 1);
  successor.send("go on\n");
  successor.await_log("took over " + place.printed_address());

  CHECK(place.comes_to_name(successor));
  CHECK(left_by_itself(server));
  CHECK(is_clean(place));
}

TEST_CASE("nothing is hidden from a server that follows nobody") {
  const std::string way = GENERATE(from_range(all_ways));
  CAPTURE(way);
  const Refusing place(way);

  Process first = place.spawn_listening(place.with({"--end", "hang", "threads"}));

  CHECK(beside(place).empty());
  CHECK(read_file(place.pid_file) == place.naming(first));
  first.send("go on\n");
  CHECK(answer_from(place.address()) == answer_of(first));
  CHECK(beside(place).empty());
}

TEST_CASE("a server refuses to run beside one of another name, whatever is hidden") {
  Refusing place("pid");
  const Process server = place.start(place.with({"threads"}));
  place.environment.emplace_back("CONTINUITY_NAME=another");

  Process stranger = place.spawn(place.with({"threads"}));

  CHECK(stranger.next_line() == "refused by pid");
  CHECK(stranger.wait_exit() == 1);
  CHECK(beside(place).empty());
}

// How else a server comes to be the process that it is.
TEST_CASE("hidden files follow a server through its forks") {
  const Arguments shape = GENERATE(values<Arguments>({{"--daemon", "threads"},
                                                      {"--background", "after", "threads"},
                                                      {"--background", "twice", "threads"},
                                                      {"prefork"},
                                                      {"prefork-epoll"}}));
  const std::string way = GENERATE("pid", "flock");
  CAPTURE(shape, way);
  Refusing place(way);
  place.main_leads = false;
  Process server = place.start(place.with(shape));
  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart(place.with(shape));
    CHECK(place.comes_to_name(successor));
    server.await_log("no connection left; leaving (SIGTERM)");
    server.wait_exit();
    CHECK(read_file(place.pid_file) == place.naming(successor));  // still
    server = std::move(successor);
    CHECK(is_clean(place));
  }
}

// As apache does it: those who wait for work may not rename the files.
TEST_CASE("the master exchanges hidden files that its workers may not touch") {
  if (needs_root()) {
    return;
  }
  const std::string shape = GENERATE("prefork", "prefork-epoll");
  const std::string way = GENERATE("pid", "flock");
  CAPTURE(shape, way);
  Refusing place(way);
  std::filesystem::permissions(place.rendezvous(), std::filesystem::perms(0711));
  place.main_leads = false;
  const Arguments arguments = place.with({"--nobody", "workers", "--workers", "12", shape});
  Process server = place.start(arguments);
  Load load(place.address(), server);
  for (int i = 0; i < 5; ++i) {
    Process successor = place.restart(arguments);
    load.watch(successor.pid());
    CHECK(place.comes_to_name(successor));
    server.await_log("no connection left; leaving (SIGTERM)");
    server.wait_exit();
    CHECK(place.comes_to_name(successor));
    CHECK(successor.logged("stays the predecessor's") == 0);
    server = std::move(successor);
    CHECK(is_clean(place));
  }
  CHECK(load.await_ok(100));
  CHECK(load.count("failed") == 0);
}

// Root may still do it when it binds, and nobody when it serves.
TEST_CASE("what may not be exchanged is said, and the server serves") {
  if (needs_root()) {
    return;
  }
  Refusing place("flock");
  std::filesystem::permissions(place.rendezvous(), std::filesystem::perms(0711));
  const std::string closed = place.directory / "closed";
  std::filesystem::create_directory(closed);
  place.pid_file = closed + "/server.pid";
  place.environment = {"CONTINUITY_HIDE=" + place.pid_file};
  const Arguments arguments{"--pid-file", place.pid_file, "--refuse", "flock"};
  const auto with = [&](Arguments more) {
    more.insert(more.begin(), arguments.begin(), arguments.end());
    return more;
  };
  const Process server = place.start(with({"threads"}));

  Process successor = place.spawn(with({"--nobody", "after", "threads"}));

  successor.await_log("put it in its place: Permission denied; it stays the predecessor's");
  CHECK(answer_from(place.address()) == answer_of(successor));
}

TEST_CASE("a hidden file is the same by every path to it") {
  Refusing place("pid");
  const std::string real = place.directory / "real";
  const std::string linked = place.directory / "linked";
  std::filesystem::create_directory(real);
  std::filesystem::create_directory_symlink(real, linked);
  const bool variable_by_link = GENERATE(true, false);
  place.pid_file = (variable_by_link ? real + "/../real/." : linked) + "/server.pid";
  place.environment = {"CONTINUITY_HIDE=" + (variable_by_link ? linked : real) + "/server.pid"};
  const Arguments arguments{"--pid-file", place.pid_file, "--refuse", "pid", "threads"};
  Process server = place.start(arguments);

  Process successor = place.restart(arguments);

  CHECK(place.comes_to_name(successor));
  CHECK(read_file(real + "/server.pid") == place.naming(successor));
  CHECK(left_by_itself(server));
  CHECK(is_clean(place));
}

TEST_CASE("what a killed start has left beside, the next start removes") {
  Refusing place("pid");
  const Process server = place.start(place.with({"threads"}));
  const std::string left = place.pid_file + ".continuity-0123456789abcdef";
  const std::string other = place.pid_file + ".continuity-backup";
  write_file(left, "4711\n");
  write_file(other, "mine\n");

  const Process successor = place.restart(place.with({"threads"}));

  CHECK_FALSE(std::filesystem::exists(left));
  CHECK(read_file(other) == "mine\n");
  std::filesystem::remove(other);
}

// A socket that nobody hands over is bound beside, and takes its place.
TEST_CASE("a stale UNIX path that is hidden is replaced at the take-over") {
  Refusing place("pid");
  const std::string path = place.directory / "control.sock";
  place.environment = {"CONTINUITY_HIDE=" + place.pid_file + ":" + path};
  const Arguments arguments = place.with({"--remove", path, "poll"});
  const Process server = place.start(arguments);
  {
    Place other;
    other.addresses = {path};
    Process dead = other.start({"poll"});
    dead.signal(SIGKILL);
    dead.wait_exit();
  }
  REQUIRE(answer_from(path) == "ECONNREFUSED");
  place.addresses.push_back(path);

  const Process successor = place.restart(arguments);

  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(answer_from(path) == answer_of(successor));
  CHECK(is_clean(place));
}

}  // namespace continuity::test
