// What the library does beyond the published loop: for C and whatever can call C, for
// event loops, and for programs that want to know how their restart went.
#include "restarts.hpp"
#include "support/datagrams.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <optional>
#include <sys/un.h>
#include <unistd.h>

namespace continuity::test {
namespace {

struct AskingPlace : Place {
  explicit AskingPlace(const char* asking = ASKING_POLL) {
    program = asking;
    environment = {"LD_PRELOAD="};
  }
};

// The next event of the restart, which begins like this.
std::string await_event(Process& server, const std::string& state) {
  std::string line = server.next_line();
  INFO(line);
  CHECK(line.rfind(state + " ", 0) == 0);
  return line;
}

}  // namespace

TEST_CASE("restarted under load, nothing is lost: asks in C, from an event loop") {
  const AskingPlace place;
  restarts_without_loss({}, place, left_after_events);
}

TEST_CASE("restarted under load, nothing is lost: asks in Python, through ctypes") {
  const AskingPlace place("python3");
  restarts_without_loss({SOURCE_TREE "/tests/process/servers/asking.py", UPGRADER_LIBRARY}, place,
                        left_after_events);
}

TEST_CASE("restarted under load, nothing is lost: asks in each of its workers, one group") {
  const AskingPlace place(ASKING_FAMILY);
  Process server = place.start({"own"});
  Load load(place.address(), server);
  for (int i = 0; i < restarts_to_make(5); ++i) {
    load.open("in flight");
    Process successor = place.spawn_listening({"own"});
    load.watch(successor.pid());
    load.only(successor.pid());
    CHECK(load.finish("in flight") == "ok");
    CHECK(load.await_ok(20));
    CHECK(server.wait_exit() == 0);
    server = std::move(successor);
  }
  check_nothing_was_lost(load, restarts_to_make(5));
}

// What it has forked accepts until it is told: nobody holds that off.
TEST_CASE("restarted under load, nothing is lost: asks, and forks workers that are told") {
  const AskingPlace place(ASKING_FAMILY);
  Process server = place.start({"shared"});
  Load load(place.address(), server);
  for (int i = 0; i < restarts_to_make(5); ++i) {
    load.open("in flight");
    Process successor = place.spawn_listening({"shared"});
    load.watch(successor.pid());
    successor.await_log("took over " + place.address());
    CHECK(load.finish("in flight") == "ok");
    CHECK(server.wait_exit() == 0);
    load.only(successor.pid());
    CHECK(load.await_ok(20));
    server = std::move(successor);
  }
  check_nothing_was_lost(load, restarts_to_make(5));
}

TEST_CASE("restarted under load, nothing is lost: asks in many threads at once") {
  AskingPlace place(ASKING_FAMILY);
  std::vector<ReservedPort> ports(8);
  place.addresses.clear();
  for (const ReservedPort& port : ports) {
    place.addresses.push_back(port.address());
  }
  Process server = place.start({"threads"});
  Load load(place.address(), server);
  for (int i = 0; i < restarts_to_make(5); ++i) {
    Process successor = place.spawn_listening({"threads"});
    load.watch(successor.pid());
    load.only(successor.pid());
    CHECK(load.await_ok(20));
    for (const std::string& address : place.addresses) {
      CHECK(answer_from(address) == answer_of(successor));
    }
    CHECK(left_by_return(server));
    server = std::move(successor);
  }
  check_nothing_was_lost(load, restarts_to_make(5));
}

TEST_CASE("a program that asks is told who took over, how long it took, that it survived") {
  const AskingPlace place;
  Process predecessor = place.start({"--probation", "2000"});
  Process successor = place.restart({"--probation", "2000"});

  const std::string taken_over = await_event(predecessor, "taken over");
  CHECK(number_in(taken_over, "successor") == successor.pid());
  CHECK(number_in(taken_over, "predecessor") == 0);
  const long millisecond = 1'000'000;
  CHECK(number_in(taken_over, "start") > 0);
  CHECK(number_in(taken_over, "switch") > 0);
  CHECK(number_in(taken_over, "lived") < 2000 * millisecond);
  const std::string completed = await_event(predecessor, "completed");
  CHECK(number_in(completed, "successor") == successor.pid());
  CHECK(number_in(completed, "switch") == number_in(taken_over, "switch"));
  CHECK(number_in(completed, "lived") >= 2000 * millisecond);
  CHECK(predecessor.wait_exit() == 0);

  const Process third = place.restart({});
  CHECK(number_in(await_event(successor, "taken over"), "predecessor") == predecessor.pid());
}

TEST_CASE("a program that asks is told that its successor has failed, and serves on") {
  const AskingPlace place;
  Process predecessor = place.start({"--probation", "60000"});
  Process successor = place.restart({});
  await_event(predecessor, "taken over");
  CHECK(answer_from(place.address()) == answer_of(successor));

  successor.send("die\n");
  const std::string rolled_back = await_event(predecessor, "rolled back");
  CHECK(number_in(rolled_back, "successor") == successor.pid());
  CHECK(answer_from(place.address()) == answer_of(predecessor));

  const Process second = place.restart({});
  await_event(predecessor, "taken over");
  CHECK(answer_from(place.address()) == answer_of(second));
}

TEST_CASE("a program that asks has chosen the signal that tells it of its success") {
  const AskingPlace place;
  const Arguments arguments{"--signal", std::to_string(SIGUSR2), "--probation", "1000"};
  Process predecessor = place.start(arguments);
  const Process successor = place.restart(arguments);
  await_event(predecessor, "taken over");
  std::string line = predecessor.next_line();
  if (line != "told of success") {  // the signal is sent a moment after the event
    CHECK(line.rfind("completed ", 0) == 0);
    line = predecessor.next_line();
  }
  CHECK(line == "told of success");
}

TEST_CASE("what a program that asks has chosen comes before the environment") {
  AskingPlace place;
  place.environment.emplace_back("CONTINUITY_NAME=of-the-environment");
  const Process first = place.start({"--name", "chosen"});
  CHECK(files_below(place.rendezvous()).front().find("/chosen.") != std::string::npos);

  Process stranger = place.spawn({});
  CHECK(stranger.next_line().rfind("listen EADDRINUSE", 0) == 0);
  CHECK(stranger.wait_exit() == 1);
  const Process successor = place.restart({"--name", "chosen"});
}

TEST_CASE("listen replaces a socket file at which nobody listens, and no other") {
  AskingPlace place;
  const TempDir files;
  place.addresses = {"unix:" + (files / "socket")};
  const auto path = files / "socket";
  const SocketAddress address(path);
  const int dead = ::socket(AF_UNIX, SOCK_STREAM, 0);
  REQUIRE(::bind(dead, address.get(), address.length) == 0);
  ::close(dead);

  Process server = place.spawn_listening({});
  CHECK(answer_from(path) == answer_of(server));
  place.environment.emplace_back("CONTINUITY_DISABLE=1");
  Process rival = place.spawn({});
  CHECK(rival.next_line().rfind("listen EADDRINUSE", 0) == 0);
  CHECK(answer_from(path) == answer_of(server));
}

TEST_CASE("a program that asks and runs under the preload is served by what it asks") {
  AskingPlace place(GENERATE(ASKING_SERVER, ASKING_STATIC_SERVER));
  CAPTURE(place.program);
  place.environment = {"LD_PRELOAD=" CONTINUITY_LIBRARY};
  restarts_without_loss({}, place, left_by_return);

  // One of us has it, and the other nothing.
  Process server = place.start({});
  CHECK(files_below(place.rendezvous()).size() == 1);
  const std::string maps = read_file("/proc/" + std::to_string(server.pid()) + "/maps");
  CHECK(maps.find("/libcontinuity.so") != std::string::npos);
}

TEST_CASE("a program that asks late is served by the preload") {
  AskingPlace place;
  place.environment = {"LD_PRELOAD=" CONTINUITY_LIBRARY};
  const ReservedPort other;
  const Arguments arguments{"--bind-first", std::to_string(other.number())};
  Process predecessor = place.start(arguments);
  predecessor.await_log("has bound a socket already; that serves it");
  const Process successor = place.spawn_listening(arguments);
  predecessor.await_log("handed 0.0.0.0:" + arguments.back() + ", " + place.address() + " over");
  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(left_by_itself(predecessor));
}

TEST_CASE("a program that asks and is ready gets one more of its predecessor's, under load") {
  AskingPlace place;
  const ReservedPort port;
  const std::string& second = port.address();
  place.environment.insert(place.environment.end(),
                           {"CONTINUITY_UNCLAIMED=60s", "CONTINUITY_PROBATION=300ms"});
  const bool waits = GENERATE(false, true);  // until the predecessor's probation is over
  CAPTURE(waits);
  place.addresses.push_back(second);
  Process server =
      place.start(waits ? Arguments{"--signal", std::to_string(SIGUSR2)} : Arguments{});
  Load load(second, server);
  place.addresses.pop_back();
  Process successor = place.restart({});
  await_event(server, "taken over");
  if (waits) {
    CHECK(server.next_line() == "told of success");
  }
  CHECK(answer_from(second) == answer_of(server));
  load.watch(successor.pid());
  CHECK(load.await_ok(20));

  successor.send("get " + second + "\n");

  CHECK(successor.next_line() == "got");
  successor.await_log("took over " + second);
  CHECK(answer_from(second) == answer_of(successor));
  CHECK(load.await_ok(20));
  CHECK(left_after_events(server));
  // And it is handed on with the rest.
  place.addresses.push_back(second);
  const Process third = place.spawn_listening({});
  load.watch(third.pid());
  CHECK(left_after_events(successor));
  CHECK(load.await_ok(20));
  CHECK(answer_from(second) == answer_of(third));
  CHECK(load.count("failed") == 0);
}

TEST_CASE("a program that asks and is ready gets a listener beside its predecessor's, under load") {
  AskingPlace place;
  const ReservedPort port;
  place.environment.insert(place.environment.end(),
                           {"CONTINUITY_UNCLAIMED=60s", "CONTINUITY_PROBATION=300ms"});
  place.addresses.push_back(port.address());
  Process server = place.start({});
  Load load(port.address(), server);
  place.addresses.pop_back();
  Process successor = place.restart({});
  load.watch(successor.pid());
  successor.send("get *:" + std::to_string(port.number()) + "\n");
  CHECK(successor.next_line() == "got");
  successor.await_log("took over " + port.address());
  CHECK(load.await_ok(50));
  CHECK(load.count("failed") == 0);
}

TEST_CASE("a program that asks is not told to leave before what it has left is closed") {
  AskingPlace place;
  const ReservedPort port;
  place.environment.insert(place.environment.end(),
                           {"CONTINUITY_UNCLAIMED=800ms", "CONTINUITY_PROBATION=100ms"});
  place.addresses.push_back(port.address());
  Process server = place.start({"--signal", std::to_string(SIGUSR2)});
  place.addresses.pop_back();
  const Process successor = place.restart({});
  await_event(server, "taken over");
  CHECK(server.next_line() == "told of success");
  // It has no connection in hand, and each of these is a chance to leave.
  for (int i = 0; i < 5; ++i) {
    CHECK(answer_from(port.address()) == answer_of(server));
  }
  CHECK(left_after_events(server));
  CHECK(answer_from(port.address()) == "ECONNREFUSED");
}

TEST_CASE("a program that asks is told why it gets nothing more") {
  AskingPlace place;
  const ReservedPort port;
  place.environment.emplace_back("CONTINUITY_UNCLAIMED=0s");
  place.addresses.push_back(port.address());
  Process server = place.start({"--probation", "60000"});
  place.addresses.pop_back();
  Process successor = place.restart({"--probation", "60000"});
  server.await_log("is closed: " + port.address());

  server.send("get " + port.address() + "\n");
  await_event(server, "taken over");
  CHECK(server.next_line() ==
        "get EALREADY: a successor has taken over from this process, which gets nothing more");
  successor.send("get " + port.address() + "\n");
  CHECK(successor.next_line() == "get ENOENT: ");
}

TEST_CASE("what a program that asks got and closed stays its predecessor's, under load") {
  AskingPlace place;
  place.environment.emplace_back("CONTINUITY_UNCLAIMED=60s");
  const ReservedPort port;
  const std::string first = place.address();
  place.addresses.push_back(port.address());
  Process server = place.start({});
  Load load(first, server);
  place.addresses.front() = "drop=" + first;
  Process successor = place.spawn({});
  CHECK(successor.next_line() == "listening pid=" + std::to_string(successor.pid()));
  server.await_log("did not claim " + first);
  CHECK(answer_from(first) == answer_of(server));
  CHECK(answer_from(port.address()) == answer_of(successor));
  // And it can be got again.
  load.watch(successor.pid());
  successor.send("get " + first + "\n");
  CHECK(successor.next_line() == "got");
  CHECK(answer_from(first) == answer_of(successor));
  CHECK(load.await_ok(20));
  CHECK(load.count("failed") == 0);
}

TEST_CASE("what a program that asks closed and got again is its own") {
  const AskingPlace place;
  AskingPlace again;
  again.environment.emplace_back("CONTINUITY_DIR=" + place.rendezvous());
  again.addresses = {"drop=" + place.address(), place.address()};
  Process server = place.start({});
  Process successor = again.spawn({});
  CHECK(successor.next_line() == "listening pid=" + std::to_string(successor.pid()));
  CHECK(left_after_events(server));
  CHECK(answer_from(place.address()) == answer_of(successor));
}

TEST_CASE("what a program that asks moves to another number is taken over, under load") {
  AskingPlace place;
  const std::string address = place.address();
  Process server = place.start({});
  Load load(address, server);
  place.addresses.front() = "move=" + address;
  for (int i = 0; i < 2; ++i) {
    Process successor = place.spawn({});
    load.watch(successor.pid());
    CHECK(successor.next_line() == "listening pid=" + std::to_string(successor.pid()));
    CHECK(left_after_events(server));
    CHECK(load.await_ok(20));
    server = std::move(successor);
  }
  CHECK(answer_from(address) == answer_of(server));
  CHECK(load.count("failed") == 0);
}

TEST_CASE("a program that asks gets [::] as its predecessor has it, without IPv4 or with it") {
  AskingPlace place;
  const ReservedPort port;
  const std::string number = std::to_string(port.number());
  place.addresses = {"v6only=" + number, "0.0.0.0:" + number};
  Process server = place.spawn_listening({});
  Process successor = place.spawn_listening({});
  successor.await_log("took over ");
  CHECK(left_after_events(server));
  CHECK(server.logged("does not need") + server.logged("listens beside") == 0);
  CHECK(answer_from("[::1]:" + number) == answer_of(successor));
  CHECK(answer_from("127.0.0.1:" + number) == answer_of(successor));
}

TEST_CASE("a program that asks hands on what it has named, from run to run") {
  AskingPlace place;
  const Arguments arguments{"--state", "runs"};
  std::string runs = "state:";
  Process server;
  for (int i = 0; i < 3; ++i) {
    Process successor = place.spawn(arguments);
    runs += " " + std::to_string(successor.pid());
    CHECK(successor.next_line() == runs);
    CHECK(successor.next_line() == "listening pid=" + std::to_string(successor.pid()));
    if (i > 0) {
      CHECK(left_after_events(server));
    }
    server = std::move(successor);
  }
  Process other = place.spawn({"--state", "another"});
  CHECK(other.next_line() == "state: " + std::to_string(other.pid()));
  CHECK(left_after_events(server));
}

TEST_CASE("a program that asks takes over a name and nothing else") {
  AskingPlace place;
  place.environment.emplace_back("CONTINUITY_UNCLAIMED=100ms");
  Process predecessor = place.start({"--state", "runs"});
  const std::string first = predecessor.pid() > 0 ? std::to_string(predecessor.pid()) : "";
  const ReservedPort other;
  const std::string old_address = place.address();
  place.addresses = {other.address()};
  Process successor = place.spawn({"--state", "runs"});
  CHECK(successor.next_line() == "state: " + first + " " + std::to_string(successor.pid()));
  CHECK(left_after_events(predecessor));
  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(answer_from(old_address) == "ECONNREFUSED");
}

TEST_CASE("a program under the preload is not handed what has a name") {
  AskingPlace place;
  place.environment.emplace_back("CONTINUITY_NAME=of-any-face");
  Process asking = place.start({"--state", "runs"});
  place.program = TINY_SERVER;
  place.environment = {"CONTINUITY_NAME=of-any-face", "LD_PRELOAD=" CONTINUITY_LIBRARY};
  const Process preloaded = place.restart({"poll"});
  CHECK(left_after_events(asking));
  const auto memfds = [&] {
    const std::string directory = "/proc/" + std::to_string(preloaded.pid()) + "/fd";
    return std::count_if(std::filesystem::directory_iterator(directory), {}, [](const auto& one) {
      std::error_code error;
      return std::filesystem::read_symlink(one.path(), error).string().find("runs") !=
             std::string::npos;
    });
  };
  CHECK(memfds() == 0);
}

TEST_CASE("a program that asks starts its own successor, and hears that it has succeeded") {
  const AskingPlace place;
  Process server = place.start({"--probation", "1000"});
  Load load(place.address(), server);
  load.open("in flight");
  server.send("upgrade\n");
  // Both write into one pipe.
  const std::string begun = server.next_line() + " " + server.next_line();
  const long successor = number_in(begun, "listening pid");
  CHECK(begun.find("taken over successor=" + std::to_string(successor)) != std::string::npos);
  CHECK(load.finish("in flight") == "ok");
  const std::string said = server.next_line() + " " + server.next_line();
  CHECK(said.find("upgraded to pid=" + std::to_string(successor)) != std::string::npos);
  CHECK(said.find("completed successor=" + std::to_string(successor)) != std::string::npos);
  CHECK(load.await_ok(20));
  server.follow(static_cast<pid_t>(successor));
  CHECK(load.count("failed") == 0);
}

TEST_CASE("a program that asks hears why the successor that it started has failed") {
  const AskingPlace place;
  Process server = place.start({});
  server.send("upgrade false\n");
  CHECK(server.next_line().find("upgrade ECHILD: the new run, pid ") == 0);
  server.send("upgrade /nowhere/to/be/found\n");
  CHECK(server.next_line() ==
        "upgrade ENOENT: /nowhere/to/be/found: start a new run: No such file or directory");
  CHECK(answer_from(place.address()) == answer_of(server));
}

// The place's address has no "udp:", since the load asks there.
TEST_CASE("no datagram is lost or answered twice by a program that asks", "[datagram]") {
  const std::string host = GENERATE("127.0.0.1", "0.0.0.0", "[::1]", "[::]");
  CAPTURE(host);
  const bool is_v6 = host.front() == '[';
  const ReservedPort port(is_v6 ? AF_INET6 : AF_INET);
  AskingPlace place;
  const std::string bound = host + ":" + std::to_string(port.number());
  place.addresses = {"udp:" + bound};
  Process server = place.spawn_listening({});
  DatagramLoad load(port.address());
  const int restarts = restarts_to_make(3);
  constexpr std::uint64_t some = 200;
  CHECK(load.await_answers(some));
  for (int i = 0; i < restarts; ++i) {
    load.only({});
    Process successor = place.spawn_listening({});
    successor.await_log("took over " + bound);
    CHECK(load.await_answers(some));
    load.only({successor.pid()});
    CHECK(load.await_answers(some));
    CHECK(left_after_events(server));
    server = std::move(successor);
  }
  nothing_went_astray(load, some * static_cast<std::uint64_t>(restarts));
}

// A UNIX path is one socket's alone: what is under way at the take-over is answered from
// another, which has no name.
TEST_CASE("no UNIX datagram is lost or answered twice by a program that asks", "[datagram]") {
  const TempDir files;
  const bool is_abstract = GENERATE(false, true);
  const std::string name = is_abstract ? "@" + (files / "name") : files / "socket";
  AskingPlace place;
  place.addresses = {"unix-dgram:" + name};
  Process server = place.spawn_listening({});
  DatagramLoad load(name);
  constexpr std::uint64_t some = 200;
  CHECK(load.await_answers(some));
  for (int i = 0; i < 3; ++i) {
    load.only({});
    Process successor = place.spawn_listening({});
    successor.await_log("took over unix:" + name);
    CHECK(load.await_answers(some));
    load.only({successor.pid()});
    CHECK(load.await_answers(some));
    CHECK(left_after_events(server));
    server = std::move(successor);
  }
  const auto totals = load.finish();
  CHECK(totals.lost == 0);
  CHECK(totals.twice == 0);
  CHECK(totals.stale == 0);
}

TEST_CASE("a program that asks hands over a seqpacket socket, with what waits in its queue") {
  const TempDir files;
  const std::string path = files / "socket";
  AskingPlace place;
  place.addresses = {"unix-seqpacket:" + path};
  Process server = place.spawn_listening({});
  for (int i = 0; i < 3; ++i) {
    Process successor = place.spawn({"--hold"});
    CHECK(successor.next_line() == "holding");
    std::optional<Connection> open(std::in_place, path, SOCK_SEQPACKET);
    CHECK(open->ask("hello") == answer_of(server));
    server.signal(SIGSTOP);
    Connection waiting(path, SOCK_SEQPACKET);
    waiting.send("hello\n");
    successor.send("go on\n");
    server.signal(SIGCONT);
    CHECK(successor.next_line() == "listening pid=" + std::to_string(successor.pid()));
    const std::string answer = waiting.receive_line();
    CHECK((answer == answer_of(server) || answer == answer_of(successor)));
    CHECK(Connection(path, SOCK_SEQPACKET).ask("hello") == answer_of(successor));
    CHECK(open->ask("hello") == answer_of(server));
    open.reset();
    server = std::move(successor);
  }
}

TEST_CASE("a dead socket file of any kind gives way, a live one does not") {
  const std::string kind = GENERATE("unix:", "unix-dgram:", "unix-seqpacket:");
  CAPTURE(kind);
  const TempDir files;
  AskingPlace place;
  place.addresses = {kind + (files / "socket")};
  {
    Process killed = place.spawn_listening({});
    killed.signal(SIGKILL);
    killed.wait_exit();
  }
  REQUIRE(std::filesystem::exists(files / "socket"));
  const Process server = place.spawn_listening({});
  place.environment.emplace_back("CONTINUITY_DISABLE=1");
  Process rival = place.spawn({});
  CHECK(rival.next_line().rfind("listen EADDRINUSE", 0) == 0);
}

}  // namespace continuity::test
