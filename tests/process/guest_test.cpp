// The library is a guest: the program sees none of its descriptors, and it
// leaves nothing behind, however often the server is restarted.
#include "support/root.hpp"
#include "threads.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <csignal>
#include <set>
#include <string>

namespace continuity::test {
namespace {

std::size_t threads_of(const Process& process) {
  return test::threads_of(process.pid());
}

std::size_t descriptors_of(const Process& process) {
  return names_in("/proc/" + std::to_string(process.pid()) + "/fd").size();
}

// Of those that it has not from whoever started the tests; -1: there is none.
int highest_descriptor(const Process& process) {
  const std::set<std::string> inherited = names_in("/proc/self/fd");
  int highest = -1;
  for (const std::string& name : names_in("/proc/" + std::to_string(process.pid()) + "/fd")) {
    if (inherited.count(name) == 0) {
      highest = std::max(highest, std::stoi(name));
    }
  }
  return highest;
}

// With one connection open: when it has been answered, all earlier ones have
// been closed.
std::size_t descriptors_serving_one(const Place& place, const Process& server) {
  Connection one(place.address());
  one.ask("hello");
  return descriptors_of(server);
}

// Sooner or later: a conversation may have ended and its channel still be open.
bool comes_down_to(const Place& place, const Process& server, std::size_t count) {
  return wait_until([&] { return descriptors_serving_one(place, server) <= count; });
}

// What it says when it has heard that the client before has gone: until then that
// one's connection is open beside the one that asks.
std::string least_descriptors(const Place& place) {
  constexpr int times = 20;
  std::string least = answer_from(place.address(), "descriptors");
  for (int i = 1; i < times; ++i) {
    least = std::min(least, answer_from(place.address(), "descriptors"));
  }
  return least;
}

// What it says of its forks, and of a child.
struct Forks {
  long faults;
  long threads;
  long mappings;
  long arenas;
};

Forks forks_of(const Arguments& arguments, const Environment& environment) {
  Arguments command{FORKING_SERVER};
  command.insert(command.end(), arguments.begin(), arguments.end());
  Process server = Process::start(command, environment);
  const std::string line = server.next_line();
  REQUIRE(server.wait_exit() == 0);
  return {.faults = number_in(line, "faults"),
          .threads = number_in(line, "threads"),
          .mappings = number_in(line, "mappings"),
          .arenas = number_in(line, "arenas")};
}

// The fewest page faults in a fork. Where the stack begins is drawn at each start, and in one
// of ten fork uses a page more of it: the fewest of so many differ once in ten million times.
long fewest_faults(const Arguments& arguments, const Environment& environment) {
  constexpr int times = 8;
  long fewest = forks_of(arguments, environment).faults;
  for (int i = 1; i < times; ++i) {
    fewest = std::min(fewest, forks_of(arguments, environment).faults);
  }
  return fewest;
}

// A server of one thread, and what it says of itself.
class OneThread {
 public:
  OneThread(const Arguments& arguments, const std::string& preloaded)
      : server_(start_alone(ONE_THREAD_SERVER, arguments, preloaded, directory_)),
        single_(number_in(server_.next_line(), "single")) {}

  [[nodiscard]] bool is_single() const { return single_ == 1; }
  [[nodiscard]] std::size_t threads() const { return threads_of(server_); }
  [[nodiscard]] std::set<std::string> identities() const { return identities_of(server_.pid()); }

 private:
  TempDir directory_{};
  Process server_;
  long single_;
};

bool sees(const Place& place, const std::string& expected) {
  return wait_until([&] { return answer_from(place.address(), "descriptors") == expected; });
}

}  // namespace

TEST_CASE("the program sees the descriptors that it sees without the library") {
  const Arguments arguments = GENERATE(Arguments{"loop"}, Arguments{"epoll-level"});
  Place native_place;
  native_place.with_library = false;
  const Process native = native_place.start(arguments);
  const std::string expected = least_descriptors(native_place);
  REQUIRE(expected.rfind("open=", 0) == 0);

  const Place place;
  Process server = place.start(arguments);
  CHECK(sees(place, expected));
  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart(arguments);
    CHECK(sees(place, expected));
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  CHECK(sees(place, expected));
}

TEST_CASE("a server with few descriptors has a short table of them") {
  constexpr int short_table = 64;  // what the kernel has for every process
  const Place place;
  const Process server = place.start({"epoll-level"});

  CHECK(highest_descriptor(server) < short_table);
}

TEST_CASE("neither descriptors nor threads grow with the number of restarts") {
  const Place place;
  Process server = place.start({"epoll-level"});
  CHECK(threads_of(server) == 2);  // the program's and ours
  const std::size_t descriptors = descriptors_serving_one(place, server);

  for (int i = 0; i < 6; ++i) {
    Process successor = place.restart({"epoll-level"});
    CHECK(left_by_itself(server));
    server = std::move(successor);
    CHECK(threads_of(server) == 2);
    CHECK(comes_down_to(place, server, descriptors));
  }
}

TEST_CASE("a fork copies no page for the library that it does not copy for any other thread") {
  const TempDir directory;
  const Environment environment{"LD_PRELOAD=" CONTINUITY_LIBRARY,
                                "CONTINUITY_DIR=" + directory.path()};

  CHECK(fewest_faults({}, environment) <= fewest_faults({"thread"}, {}));
}

TEST_CASE("a forked child has no thread, no arena and few mappings of the library") {
  const TempDir directory;
  const Forks native = forks_of({}, {});
  const Forks with_library =
      forks_of({}, {"LD_PRELOAD=" CONTINUITY_LIBRARY, "CONTINUITY_DIR=" + directory.path()});

  CHECK(with_library.threads == 1);
  CHECK(with_library.arenas == 0);
  // The library's code; what is relocated; what a child finds wiped; the rest.
  CHECK(with_library.mappings <= native.mappings + 4);
}

// On other machines libc is told of it.
#if defined(__x86_64__) && defined(__GLIBC__)
TEST_CASE("a program with one thread is one for libc under the library") {
  CHECK_FALSE(OneThread({"thread"}, "").is_single());

  const OneThread with_library({}, CONTINUITY_LIBRARY);
  CHECK(with_library.threads() == 2);
  CHECK(with_library.is_single());
}

TEST_CASE("a fork copies no page for the library") {
  const TempDir directory;
  const Environment environment{"LD_PRELOAD=" CONTINUITY_LIBRARY,
                                "CONTINUITY_DIR=" + directory.path()};

  CHECK(fewest_faults({}, environment) <= fewest_faults({}, {}));
}

TEST_CASE("the thread that libc does not know never uses libc's malloc") {
  constexpr const char* both = CONTINUITY_LIBRARY ":" MALLOC_WATCH;
  REQUIRE(OneThread({}, both).is_single());
  Process watched = Process::start({ONE_THREAD_SERVER, "thread"}, {"LD_PRELOAD=" MALLOC_WATCH});
  CHECK(watched.wait_exit() == 128 + SIGABRT);

  const std::string shape = GENERATE("loop", "poll", "epoll-level", "prefork");
  CAPTURE(shape);
  Place place;
  place.with_library = false;
  place.environment = {std::string("LD_PRELOAD=") + both, "CONTINUITY_PROBATION=10ms"};
  Process server = place.start({shape});
  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart({shape});
    CHECK(answer_from(place.address()).rfind("pid=", 0) == 0);
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  const Process failing = place.spawn_listening({"--end", "exit1", "poll"});
  CHECK(wait_until([&] { return server.logged("before it was ready; serving on") == 1; }));
  CHECK(server.is_running());
}
#endif

TEST_CASE("where the program becomes another user, all of its threads do") {
  if (needs_root()) {
    return;
  }
  const OneThread followed({"becomes-nobody"}, CONTINUITY_LIBRARY);
  CHECK(followed.threads() == 2);
  CHECK(wait_until([&] { return followed.identities().size() == 1; }));
  // Past libc nobody hears of it, and the test sees the difference.
  CHECK(OneThread({"becomes-nobody-by-number"}, CONTINUITY_LIBRARY).identities().size() == 2);
}

TEST_CASE("a server has as many descriptors as its limit allows, and hands over with them") {
  // Below what the kernel's table has at first, and two and three times further.
  const std::string limit = GENERATE("64", "300", "1100");
  const std::string how = GENERATE("accepts", "connects");
  CAPTURE(limit, how);
  const auto had = [](Process& server) { return number_in(server.next_line(), "had"); };
  Place native_place;
  native_place.program = FILLING_SERVER;
  native_place.with_library = false;
  Process native = native_place.spawn({limit, how});
  const long all = had(native);
  REQUIRE(all > std::stol(limit) / 2);

  Place place;
  place.program = FILLING_SERVER;
  Process server = place.spawn({limit, how});
  CHECK(had(server) == all);
  for (int i = 0; i < 2; ++i) {
    Process successor = place.spawn({limit, how});
    CHECK(had(successor) == all);
    successor.await_log("took over " + place.printed_address());
    CHECK(answer_from(place.address()) == answer_of(successor));
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
}

TEST_CASE("failed attempts leave no descriptors behind") {
  const Place place;
  Process server = place.start({"epoll-level"});
  std::size_t failures = 0;
  const auto fail_by = [&](const char* end) {
    const Process failing = place.spawn_listening({"--end", end, "poll"});
    ++failures;
    CHECK(wait_until([&] { return server.logged("before it was ready; serving on") == failures; }));
  };
  fail_by("exit1");  // a stand-in that has been made is kept for the next time
  const std::size_t descriptors = descriptors_serving_one(place, server);

  for (const char* end : {"exit0", "kill", "exit1", "segv"}) {
    fail_by(end);
    CHECK(comes_down_to(place, server, descriptors));
  }
  CHECK(wait_until([&] { return threads_of(server) == 2; }));
}

TEST_CASE("a program that never binds has neither a thread nor a file of the library") {
  const TempDir directory;
  Process native = Process::start({"cat"});
  Process cat = Process::start(
      {"cat"}, {"LD_PRELOAD=" CONTINUITY_LIBRARY, "CONTINUITY_DIR=" + directory.path()});
  for (Process* process : {&native, &cat}) {
    process->send("still here\n");
    REQUIRE(process->next_line() == "still here");
  }

  CHECK(threads_of(cat) == 1);
  CHECK(descriptors_of(cat) == descriptors_of(native));
  CHECK(names_in(directory.path()).empty());
}

TEST_CASE("of all generations only the running one is to be found at the rendezvous") {
  const Place place;
  Process server = place.start({"poll"});
  for (int i = 0; i < 3; ++i) {
    Process successor = place.restart({"poll"});
    CHECK(left_by_itself(server));
    server = std::move(successor);
    CHECK(files_below(place.rendezvous()).size() == 1);
  }
}

}  // namespace continuity::test
