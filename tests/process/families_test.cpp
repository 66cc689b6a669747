// Servers of several processes are restarted like those of one: under load,
// whole, and nobody of the old generation accepts afterwards or stays.
#include "families.hpp"

#include "support/root.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <optional>
#include <sys/stat.h>
#include <utility>

namespace continuity::test {
namespace {

constexpr const char* long_probation = "CONTINUITY_PROBATION=60s";

// A second server that is not allowed to follow.
void is_refused(const Place& place, const Arguments& arguments) {
  Process second = place.spawn(arguments);
  CHECK(second.next_line() == "bind EADDRINUSE");
  CHECK(second.wait_exit() == 1);
}

// A successor that has taken over, with its line about it.
struct Successor {
  Process process;
  std::string line;
};
Successor follow(const Place& place, const Arguments& arguments, Load& load) {
  Successor successor{place.spawn_listening(arguments), {}};
  load.watch(successor.process.pid());
  successor.line = successor.process.await_log("took over " + place.printed_address());
  load.only(successor.process.pid());
  return successor;
}

// `in_time`: all could be told to accept no more; who could not takes one more.
void nothing_was_lost(Load& load, bool in_time = true) {
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
  CHECK((!in_time || load.count("stale") == 0));
}

}  // namespace

// ---- Preforked --------------------------------------------------------------------

TEST_CASE("restarted under load, nothing is lost: preforked, workers in accept") {
  restarts_family_without_loss({"prefork"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: preforked, workers with an epoll each") {
  restarts_family_without_loss({"prefork-epoll"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: preforked, workers with threads in accept") {
  restarts_family_without_loss({"prefork-pool"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: workers that end after three requests") {
  restarts_family_without_loss({"--max-requests", "3", "prefork"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: workers that nobody tells to end") {
  restarts_family_without_loss({"fork-and-forget"}, FamilyPlace{});
}

TEST_CASE("a preforked server without the library loses connections when it is restarted") {
  FamilyPlace place;
  place.with_library = false;
  check_it_loses({"prefork"}, place);
}

TEST_CASE("a worker that is forked while its generation is deaf never accepts") {
  const std::string loop = GENERATE("prefork", "prefork-pool");
  CAPTURE(loop);
  const FamilyPlace place;
  Process server = place.start({loop});
  Load load(place.address(), server);
  load.keep("kept");
  const Process successor = follow(place, {loop}, load).process;

  for (int i = 0; i < 3; ++i) {
    server.signal(SIGUSR2);
    const auto late = static_cast<pid_t>(number_in(server.next_line(), "pid"));
    CHECK(comes_to_accept(late));
    CHECK(load.await_ok(100));
  }

  CHECK(load.again("kept") == "ok");
  const auto old_ones = family_of(server.pid());
  load.drop("kept");
  CHECK(left_by_itself(server));
  CHECK(have_ended(old_ones));
  nothing_was_lost(load);
}

TEST_CASE("workers that are forked again and again while a successor takes over lose nothing") {
  const FamilyPlace place;
  const Arguments arguments{"--max-requests", "1", "prefork"};
  Process server = place.start(arguments);
  Load load(place.address(), server);
  for (int i = 0; i < 5; ++i) {
    Process successor = follow(place, arguments, load).process;
    CHECK(load.await_ok(20));
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  nothing_was_lost(load);
}

TEST_CASE("the worker that has asked for all may die right afterwards") {
  FamilyPlace place(long_probation);
  Process server = place.start({"prefork"});
  Load load(place.address(), server);

  Successor successor = follow(place, {"prefork"}, load);
  const pid_t asker = logged_by(successor.line);
  REQUIRE(asker != successor.process.pid());
  ::kill(asker, SIGKILL);

  CHECK(have_ended({asker}));
  CHECK(load.await_ok(200));
  CHECK(server.logged("serving again") == 0);
  CHECK_FALSE(workers_of(successor.process, 4).contains(asker));
  CHECK(load.count("failed") <= 1);  // what the dead one had in hand
  CHECK(load.count("stale") == 0);
}

TEST_CASE("while one worker of a successor lives, nobody takes the listeners back") {
  FamilyPlace place(long_probation);
  Process server = place.start({"fork-and-forget"});
  Load load(place.address(), server, 4);
  Process successor = follow(place, {"fork-and-forget"}, load).process;

  auto workers = workers_of(successor, 4);
  while (workers.size() > 1) {
    ::kill(*workers.begin(), SIGKILL);
    CHECK(have_ended({*workers.begin()}));
    workers.erase(workers.begin());
  }

  CHECK(answer_from(place.address()) == "pid=" + std::to_string(*workers.begin()));
  CHECK(load.await_ok(50));
  CHECK(server.logged("serving again") == 0);
  CHECK(load.count("stale") == 0);
}

TEST_CASE("when all processes of a successor are killed, every worker serves again") {
  const std::string loop = GENERATE("prefork", "prefork-pool");
  CAPTURE(loop);
  FamilyPlace place(long_probation);
  Process server = place.start({loop});
  const auto workers = workers_of(server, 4);
  for (std::size_t cycle = 1; cycle <= 3; ++cycle) {
    Process successor = place.restart({loop});
    const auto killed = family_of(successor.pid());

    successor.signal(SIGKILL);  // its workers follow it, also one that was forked just now

    CHECK(have_ended(killed));
    CHECK(wait_until([&] { return server.logged("serving again") == cycle; }));
    CHECK(who_answers(place.address(), workers.size()) == workers);
  }
}

TEST_CASE("the signal to leave goes to the main process, which waits for no client") {
  const FamilyPlace place;
  Process server = place.start({"prefork"});
  const Process successor = place.restart({"prefork"});

  server.await_log("no connection left; leaving (SIGTERM)");
  CHECK(server.wait_exit() == 0);  // 9: a worker was told
}

TEST_CASE("a worker that is stopped makes the restart be refused, and is named") {
  const FamilyPlace place;
  Process server = place.start({"prefork"});
  Load load(place.address(), server, 4);
  REQUIRE(load.await_ok(10));
  const auto workers = workers_of(server, 4);
  // Until all wait for work: one that is stopped before is deaf when it does.
  REQUIRE(who_answers(place.address(), workers.size()) == workers);
  const pid_t stopped = *workers.begin();
  ::kill(stopped, SIGSTOP);

  is_refused(place, {"prefork"});
  server.await_log("pid " + std::to_string(stopped) + " of this generation does not answer");
  CHECK(load.await_ok(20));

  ::kill(stopped, SIGCONT);
  const Process successor = follow(place, {"prefork"}, load).process;
  CHECK(load.await_ok(20));
  CHECK(left_by_itself(server));
  nothing_was_lost(load);
}

TEST_CASE("a child that has the listener and no library is named, and no restart begins") {
  const FamilyPlace place;
  const Arguments arguments{"--stranger", "prefork"};
  Process server = place.start(arguments);
  const auto stranger = static_cast<pid_t>(number_in(server.next_line(), "pid"));
  Load load(place.address(), server, 4);
  // Until it has executed.
  REQUIRE(wait_until([&] {
    return read_file("/proc/" + std::to_string(stranger) + "/cmdline").find("--idle") !=
           std::string::npos;
  }));

  is_refused(place, {"prefork"});
  server.await_log("pid " + std::to_string(stranger) + " has a listener of ours");
  CHECK(load.await_ok(20));

  ::kill(stranger, SIGKILL);
  CHECK(have_ended({stranger}));
  const Process successor = follow(place, {"prefork"}, load).process;
  CHECK(load.await_ok(20));
  CHECK(left_by_itself(server));
  nothing_was_lost(load);
}

// ---- Daemons ----------------------------------------------------------------------

TEST_CASE("restarted under load, nothing is lost: a daemon since before it binds, preforked") {
  restarts_family_without_loss({"--daemon", "prefork"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: a daemon since after it has bound") {
  restarts_family_without_loss({"--background", "after", "threads"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: a daemon since it has bound, preforked") {
  restarts_family_without_loss({"--background", "after", "prefork"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: two forks and a session of its own") {
  restarts_family_without_loss({"--background", "twice", "epoll-level"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: two forks, a session, and workers") {
  // The daemon may be forking workers before the process that has bound is gone:
  // then one of them leads.
  FamilyPlace place;
  place.main_leads = false;
  restarts_family_without_loss({"--background", "twice", "prefork"}, place);
}
TEST_CASE("a daemon can be restarted that has forked workers before and after its parent ended") {
  FamilyPlace place;
  const Arguments arguments{"--background", "late", "--workers", "1", "prefork"};
  Process first = place.spawn(arguments);
  REQUIRE(first.next_line().rfind("listening ", 0) == 0);
  REQUIRE(answer_from(place.address()).rfind("pid=", 0) == 0);
  Process second = place.spawn(arguments);
  const auto daemon = static_cast<pid_t>(number_in(second.next_line(), "pid"));
  second.await_log("took over " + place.printed_address());
  const auto worker = static_cast<pid_t>(number_in(answer_from(place.address()), "pid"));
  first.send("go on\n");
  second.send("go on\n");
  CHECK(second.wait_exit() == 0);
  // With nobody above it the daemon has an agent from now on, and with nobody beside it
  // that leads.
  ::kill(daemon, SIGUSR2);
  REQUIRE(second.next_line().rfind("worker pid=", 0) == 0);
  ::kill(worker, SIGKILL);
  CHECK(have_ended({worker}));

  Process third = place.spawn(arguments);
  third.await_log("took over " + place.printed_address());

  CHECK(have_ended(family_of(daemon)));
  third.send("go on\n");
  CHECK(third.wait_exit() == 0);
  CHECK(answer_from(place.address()).rfind("pid=", 0) == 0);
}

TEST_CASE("restarted under load, nothing is lost: beside a helper forked before the bind") {
  restarts_family_without_loss({"--helper", "threads"}, FamilyPlace{});
}

TEST_CASE("workers whose parent has bound and gone are restarted, and all of them leave") {
  const FamilyPlace place;
  const Arguments arguments{"--workers", "3", "leave-workers"};
  std::set<pid_t> workers;
  std::optional<Load> load;
  for (int i = 0; i < 4; ++i) {
    Process parent = place.spawn_listening(arguments);
    if (load) {
      parent.await_log("took over " + place.printed_address());
    }
    CHECK(parent.wait_exit() == 0);
    const auto old_ones = std::exchange(workers, {});
    for (int worker = 0; worker < 3; ++worker) {
      workers.insert(static_cast<pid_t>(number_in(parent.next_line(), "pid")));
    }
    if (!load) {
      load.emplace(place.address());
    }
    CHECK(load->await_ok(50));
    CHECK(have_ended(old_ones));
    CHECK(server_processes() == workers);
    CHECK(who_answers(place.address(), 3) == workers);
  }
  nothing_was_lost(*load);
}

// ---- Users ------------------------------------------------------------------------

TEST_CASE("restarted under load, nothing is lost: by a server that becomes another user") {
  if (needs_root()) {
    return;
  }
  const Arguments arguments = GENERATE(
      Arguments{"--nobody", "workers", "prefork"},
      Arguments{"--nobody", "workers", "prefork-epoll"}, Arguments{"--nobody", "before", "threads"},
      Arguments{"--nobody", "after", "threads"}, Arguments{"--nobody", "before", "prefork"},
      Arguments{"--nobody", "after", "prefork"}, Arguments{"--nobody", "to-and-fro", "threads"},
      Arguments{"--nobody", "to-and-fro", "prefork"},
      Arguments{"--background", "after", "--nobody", "workers", "prefork"});
  CAPTURE(arguments);
  const FamilyPlace place;
  ::chmod(place.rendezvous().c_str(), 0711);
  restarts_family_without_loss(arguments, place, 2);
}

TEST_CASE("restarted under load, nothing is lost: by workers in a root directory of their own") {
  if (needs_root()) {
    return;
  }
  const bool as_nobody = GENERATE(false, true);
  CAPTURE(as_nobody);
  const FamilyPlace place;
  ::chmod(place.rendezvous().c_str(), 0711);
  const std::string root = place.directory / "root";
  std::filesystem::create_directory(root);
  Arguments arguments{"--chroot", root};
  if (as_nobody) {
    arguments.insert(arguments.end(), {"--nobody", "workers"});
  }
  arguments.emplace_back("prefork");
  restarts_family_without_loss(arguments, place, 2);
}

TEST_CASE("restarted under load, nothing is lost: with no new privileges") {
  restarts_family_without_loss({"--no-new-privileges", "prefork"}, FamilyPlace{});
}

// ---- Connections in other hands ------------------------------------------------------

TEST_CASE("restarted under load, nothing is lost: connections are passed to another process") {
  restarts_family_without_loss({"pass"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: passed to a process older than the listener") {
  restarts_family_without_loss({"--serving-helper", "pass"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: a program for each connection") {
  restarts_family_without_loss({"exec"}, FamilyPlace{});
}
TEST_CASE("restarted under load, nothing is lost: serves copies of what it accepts") {
  restarts_family_without_loss({"copies"}, FamilyPlace{});
}

TEST_CASE("a connection that only a child or another process holds keeps the server") {
  const Arguments shape =
      GENERATE(Arguments{"fork"}, Arguments{"exec"}, Arguments{"pass"},
               Arguments{"--serving-helper", "pass"}, Arguments{"copies"}, Arguments{"prefork"});
  CAPTURE(shape);
  const FamilyPlace place("CONTINUITY_PROBATION=1ms");
  Process server = place.start(shape);
  std::optional<Connection> held(place.address());
  const std::string answer = held->ask("hello");
  const Process successor = place.restart(shape);

  // Whoever asks after the end of the probation asks while it is drained.
  server.await_log("finishing ");
  for (int i = 0; i < 20; ++i) {
    REQUIRE(held->ask("hello") == answer);
    REQUIRE(number_in(answer_from(place.address()), "pid") != server.pid());
  }
  CHECK(server.is_running());
  CHECK(server.logged("leaving") == 0);
  held.reset();
  CHECK(left_by_itself(server));
}

// ---- Many ---------------------------------------------------------------------------

namespace {

constexpr double deaf_within = 200;  // milliseconds

// The longest take-over of these restarts.
double take_over_of(int workers, int restarts) {
  FamilyPlace place;
  const Arguments arguments{"--workers", std::to_string(workers), "prefork"};
  Process server = place.start(arguments);
  workers_of(server, static_cast<std::size_t>(workers));
  Load load(place.address(), server, 4);
  double longest = 0;
  for (int i = 0; i < restarts; ++i) {
    const auto before = server_processes();
    Successor successor = follow(place, arguments, load);
    longest = std::max(longest, milliseconds_in(successor.line));
    CHECK(load.await_ok(20));
    CHECK(left_by_itself(server));
    CHECK(have_ended(before));
    server = std::move(successor.process);
    workers_of(server, static_cast<std::size_t>(workers));
  }
  nothing_was_lost(load, longest <= deaf_within);
  return longest;
}

}  // namespace

TEST_CASE("64 workers in accept are deaf within 200 ms, and nothing is lost", "[alone]") {
  const double longest = take_over_of(64, 5);
  WARN("the longest take-over took " << longest << " ms");
  CHECK(longest < deaf_within);
}

TEST_CASE("1000 workers are restarted, and nothing is lost", "[alone]") {
  WARN("the longest take-over took " << take_over_of(1000, 2) << " ms");
}

namespace {

// What there is of a family: its processes, and the descriptors of each.
struct Inventory {
  std::size_t processes = 0;
  std::multiset<std::size_t> descriptors;
  std::size_t files = 0;
  bool operator==(const Inventory&) const = default;
  // What is under way may be counted at first, and have ended at last.
  [[nodiscard]] bool is_no_more_than(const Inventory& other) const {
    return processes == other.processes && files == other.files &&
           descriptors.size() == other.descriptors.size() &&
           std::equal(descriptors.begin(), descriptors.end(), other.descriptors.begin(),
                      [](std::size_t now, std::size_t before) { return now <= before; });
  }
};

Inventory inventory_of(const Place& place) {
  Inventory found;
  for (const pid_t process : server_processes()) {
    ++found.processes;
    std::error_code gone;
    const std::filesystem::directory_iterator open("/proc/" + std::to_string(process) + "/fd",
                                                   gone);
    found.descriptors.insert(static_cast<std::size_t>(std::distance(begin(open), end(open))));
  }
  found.files = files_below(place.rendezvous()).size();
  return found;
}

std::string to_text(const Inventory& inventory) {
  std::string text = std::to_string(inventory.processes) + " processes, " +
                     std::to_string(inventory.files) + " files, descriptors:";
  for (const std::size_t count : inventory.descriptors) {
    text += " " + std::to_string(count);
  }
  return text;
}

}  // namespace

TEST_CASE("thirty restarts of a preforked server leave no process, descriptor or file behind") {
  constexpr int restarts = 30;
  const std::string loop = GENERATE("prefork", "prefork-epoll");
  CAPTURE(loop);
  const FamilyPlace place("CONTINUITY_PROBATION=1ms");
  Process server = place.start({loop});
  // The first one had no predecessor: counting begins with the second.
  Inventory first;
  for (int i = 0; i < restarts; ++i) {
    const auto before = server_processes();
    Process successor = place.restart({loop});
    REQUIRE(left_by_itself(server));
    REQUIRE(have_ended(before));
    server = std::move(successor);
    if (i == 0) {
      workers_of(server, 4);
      // Until its predecessor's end has been noticed and put away.
      first = inventory_of(place);
      wait_until([&] { return std::exchange(first, inventory_of(place)) == inventory_of(place); });
    }
  }
  INFO("at first " << to_text(first));
  const bool same = wait_until([&] { return inventory_of(place).is_no_more_than(first); });
  INFO("at last " << to_text(inventory_of(place)));
  CHECK(same);
}

}  // namespace continuity::test
