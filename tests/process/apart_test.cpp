// While nothing is to be done the library's thread has a table of descriptors of its own, and
// the program's thread gives it the other one back when somebody comes.
#include "family_tree.hpp"
#include "restarts.hpp"
#include "support/root.hpp"
#include "threads.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <csignal>
#include <set>
#include <string>
#include <sys/stat.h>

namespace continuity::test {
namespace {

constexpr auto knocks = 20;

// Whether a thread of the process's has other descriptors than its first one.
bool is_apart(pid_t process) {
  const auto descriptors_of = [&](const std::string& thread) {
    return names_in(threads_below(process) + "/" + thread + "/fd");
  };
  const auto first = descriptors_of(std::to_string(process));
  for (const std::string& thread : names_in(threads_below(process))) {
    const auto own = descriptors_of(thread);
    if (!own.empty() && own.size() < first.size() / 2) {
      return true;
    }
  }
  return false;
}

bool comes_apart(pid_t process) {
  return wait_until([&] { return is_apart(process); });
}

// That takes a new wait of the program's.
bool comes_apart(const Place& place, const Process& server) {
  return wait_until([&] {
    answer_from(place.address());
    return is_apart(server.pid());
  });
}

// Whether it answers who asks what it holds.
bool answers(const std::string& directory, pid_t process) {
  Process list =
      Process::start({CONTINUITY_COMMAND, "list", "--json"}, {"CONTINUITY_DIR=" + directory});
  std::string said;
  for (;;) {
    try {
      said += list.next_line();
    } catch (const std::exception&) {
      break;
    }
  }
  return said.find("\"pid\": " + std::to_string(process)) != std::string::npos &&
         said.find("\"state\": \"active\"") != std::string::npos;
}

// A server that watches over its waits.
class Waiting {
 public:
  explicit Waiting(const Arguments& arguments = {})
      : server_(start_alone(WAITING_SERVER, arguments, CONTINUITY_LIBRARY, directory_)) {
    REQUIRE(server_.next_line() == "waiting");
  }

  [[nodiscard]] pid_t pid() const { return server_.pid(); }
  [[nodiscard]] bool answers() const { return test::answers(directory_.path(), pid()); }
  // What it says of its waits until it has seen to all that it was told.
  std::string says_nothing_but() {
    server_.send("say done\n");
    return server_.next_line();
  }
  void tell(const std::string& command) const { server_.send(command + "\n"); }
  [[nodiscard]] std::set<std::string> users() const { return identities_of(pid()); }

 private:
  TempDir directory_{};
  Process server_;
};

}  // namespace

#if defined(__x86_64__) && defined(__GLIBC__)
TEST_CASE("a program with one thread shares its descriptors with none of the library's") {
  const Place threaded_place;
  const Place place;
  const Process threaded = threaded_place.start({"epoll-oneshot"});
  const Process server = place.start({"epoll-level"});
  CHECK_FALSE(is_apart(server.pid()));  // while it may be restarted at once

  CHECK(comes_apart(place, server));
  CHECK(threads_of(server.pid()) == 2);
  answer_from(threaded_place.address());
  CHECK_FALSE(is_apart(threaded.pid()));
}

TEST_CASE("restarts of a server whose library waits apart lose nothing") {
  const std::string shape = GENERATE("epoll-level", "epoll-edge");
  CAPTURE(shape);
  constexpr int restarts = 3;
  Place place;
  place.environment = {"CONTINUITY_PROBATION=10ms"};
  Process server = place.start({shape});
  Load load(place.address(), server);
  for (int i = 0; i < restarts; ++i) {
    CHECK(comes_apart(server.pid()));
    restart_under_load(place, {shape}, load, server);
  }
  check_nothing_was_lost(load, restarts);
}

TEST_CASE("a restart that fails leaves a server whose library waits apart again") {
  Place place;
  place.environment = {"CONTINUITY_PROBATION=10ms"};
  Process server = place.start({"epoll-level"});
  for (std::size_t failures = 1; failures <= 2; ++failures) {
    REQUIRE(comes_apart(place, server));
    const Process failing = place.spawn_listening({"--end", "exit1", "poll"});
    CHECK(wait_until([&] { return server.logged("before it was ready; serving on") == failures; }));
  }
  CHECK(comes_apart(place, server));
  const Process successor = place.restart({"epoll-level"});
  CHECK(left_by_itself(server));
}

TEST_CASE("who waits apart is reached while the program's thread is busy") {
  Place place;
  Process server = place.start({"epoll-level"});
  Connection busy(place.address());
  const std::string fifo = place.directory.path() + "/fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  const bool is_blocked = GENERATE(false, true);
  CAPTURE(is_blocked);
  REQUIRE(comes_apart(place, server));
  // In its own code, and in a call that ends when somebody writes.
  busy.send(is_blocked ? "wait " + fifo + "\n" : "work 3000\n");

  const Process successor = place.restart({"epoll-level"});

  CHECK(answer_from(place.address()) == answer_of(successor));
  if (is_blocked) {
    write_file(fifo, "x");
  }
  CHECK(busy.receive_line() == answer_of(server));
}

TEST_CASE("a family whose members wait apart is restarted without loss") {
  FamilyPlace place("CONTINUITY_PROBATION=10ms");
  Process server = place.start({"prefork-epoll"});
  Load load(place.address());
  constexpr std::ptrdiff_t workers = 4;
  const auto workers_are_apart = [&] {
    const auto family = family_of(server.pid());
    return std::count_if(family.begin(), family.end(), is_apart) == workers;
  };
  for (int i = 0; i < 2; ++i) {
    CHECK(wait_until(workers_are_apart));
    Process successor = place.restart({"prefork-epoll"});
    CHECK(load.await_ok(20));
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
}

TEST_CASE("the program's waits are what they are without who waits apart") {
  const Arguments arguments = GENERATE(Arguments{}, Arguments{"joined"});
  const bool is_shared = GENERATE(false, true);
  CAPTURE(arguments, is_shared);
  Waiting server(arguments);
  REQUIRE(comes_apart(server.pid()));
  if (is_shared) {
    server.tell("share");
  }
  for (int i = 0; i < knocks; ++i) {
    CHECK(server.answers());
    // So that the next one has to wake it anew.
    if (i % 8 == 0) {
      CHECK(wait_until([&] { return threads_of(server.pid()) == 2; }));
    }
  }
  CHECK(server.says_nothing_but() == "done");
}

TEST_CASE("who waits apart is reached when the program has come to wait otherwise") {
  const std::string other = GENERATE("another", "poll");
  CAPTURE(other);
  Waiting server;
  REQUIRE(comes_apart(server.pid()));
  server.tell(other);
  CHECK(server.says_nothing_but() == "done");
  CHECK(server.answers());
}

TEST_CASE("who made the library's thread through a filter of system calls lets it wait apart") {
  // A new one might not let the program make another.
  const Waiting filtered({"filtered"});
  const Waiting server({"filtered-before"});
  CHECK(comes_apart(server.pid()));
  CHECK_FALSE(is_apart(filtered.pid()));
  CHECK(filtered.answers());
}

TEST_CASE("a program that cannot help who waits apart does when it can") {
  if (needs_root()) {
    return;
  }
  Waiting server;
  REQUIRE(comes_apart(server.pid()));
  server.tell("become-nobody");
  CHECK(server.says_nothing_but() == "done");
  REQUIRE(wait_until([&] { return threads_of(server.pid()) == 2; }));
  server.tell("no-threads");
  CHECK(server.says_nothing_but() == "done");
  CHECK_FALSE(server.answers());
  CHECK(threads_of(server.pid()) == 2);

  server.tell("threads");
  CHECK(server.says_nothing_but() == "done");
  CHECK(wait_until([&] { return server.answers(); }));
}

TEST_CASE("where the program becomes another user, who waits apart does") {
  if (needs_root()) {
    return;
  }
  const Arguments arguments = GENERATE(Arguments{}, Arguments{"joined"});
  CAPTURE(arguments);
  Waiting server(arguments);
  REQUIRE(comes_apart(server.pid()));
  REQUIRE(server.users().size() == 1);
  const auto root = server.users();
  server.tell("become-nobody");
  CHECK(server.says_nothing_but() == "done");
  CHECK(wait_until([&] { return server.users().size() == 1 && server.users() != root; }));
}
#endif

}  // namespace continuity::test
