// Whoever only asks is told, and nothing of a restart waits for it or changes by it.
#include "conversation.hpp"
#include "core/holder.hpp"
#include "core/start.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

namespace continuity::test {
namespace {

// One that connects, and says one thing after the other.
class Asker {
 public:
  explicit Asker(World& world) : world_(world), channel_(channel_to_only_one(world)) {}
  Message ask(const Message& message) {
    REQUIRE(channel_.send(message, never));
    return hear();
  }
  Message status() { return ask({.type = MessageType::status}); }
  Message hear() {
    world_.settle();
    auto received = channel_.receive(0);
    return received ? std::move(received->message) : Message{};
  }
  void close() {
    channel_.close();
    world_.settle();
  }

 private:
  World& world_;
  Channel channel_;
};

// A successor, up to a step.
class Successor {
 public:
  explicit Successor(World& world) : peer_(world) {}
  void claim() {
    Message hello{.type = MessageType::hello};
    hello.protocol_min = hello.protocol_max = protocol_version;
    hello.generation = 7;
    REQUIRE(peer_.ask(hello).type == MessageType::inventory);
    Message claim{.type = MessageType::claim};
    claim.ids = {1};
    REQUIRE(peer_.ask(claim).type == MessageType::grant);
    REQUIRE(peer_.ask({.type = MessageType::got}).type == MessageType{});
  }
  Message take_over() {
    claim();
    Message ready{.type = MessageType::ready};
    ready.ids = {1};
    ready.evidence = Evidence::epoll;
    Message retired = peer_.ask(ready);
    REQUIRE(retired.type == MessageType::retired);
    return retired;
  }
  void end() { peer_.close(); }

 private:
  Asker peer_;
};

}  // namespace

TEST_CASE("who asks is told what a server is and listens on", "[status]") {
  World world;
  const std::vector<std::string> addresses(2, "127.0.0.1:0");
  const Predecessor server(world, addresses, 5, "one");
  Asker asker(world);
  for (int times = 0; times < 3; ++times) {
    const Message report = asker.status();
    CHECK(report.type == MessageType::report);
    CHECK(report.identity == "one");
    CHECK(report.generation == 5);
    CHECK(report.pid == ::getpid());
    CHECK(report.phase == ReportedPhase::active);
    CHECK(report.restarts == 0);
    CHECK(report.journal.empty());
    CHECK(report.total == 2);
    REQUIRE(report.listeners.size() == 2);
    CHECK(same_endpoint(report.listeners[1].address, server.wanted(1).address));
  }
  CHECK(server.owner.calls.empty());
}

TEST_CASE("who asks in the middle of a restart changes nothing of it", "[status]") {
  World world;
  const Predecessor server(world);
  Asker asker(world);
  Successor successor(world);
  successor.claim();
  const auto calls = server.owner.calls;
  const Message report = asker.status();
  CHECK(report.phase == ReportedPhase::granted);
  CHECK(report.rival_pid == ::getpid());
  CHECK(report.duration == world.options.ready_timeout);
  CHECK(report.ids == std::vector<std::uint32_t>{1});
  REQUIRE(report.journal.size() == 1);
  CHECK(report.journal[0].outcome == RestartOutcome::under_way);
  CHECK(report.journal[0].at(RestartStep::claimed) != 0);
  CHECK(report.journal[0].at(RestartStep::ready) == 0);
  CHECK(server.owner.calls == calls);
  CHECK(server.holder.phase() == HolderPhase::granted);
}

TEST_CASE("a successor is handed what has been, and what showed that it is ready", "[status]") {
  World world;
  const Predecessor server(world);
  {
    Successor failed(world);
    failed.claim();
    failed.end();
  }
  world.pass(second);
  Successor successor(world);
  const Message retired = successor.take_over();
  CHECK(retired.restarts == 1);
  REQUIRE(retired.journal.size() == 2);
  CHECK(retired.journal[0].outcome == RestartOutcome::ended);
  const Restart& last = retired.journal[1];
  CHECK(last.outcome == RestartOutcome::under_way);
  CHECK(last.evidence == Evidence::epoll);
  CHECK(last.at(RestartStep::found) <= last.at(RestartStep::claimed));
  CHECK(last.at(RestartStep::claimed) <= last.at(RestartStep::granted));
  CHECK(last.at(RestartStep::granted) <= last.at(RestartStep::ready));
  CHECK(last.at(RestartStep::ready) <= last.at(RestartStep::retired));
  CHECK(last.at(RestartStep::claimed) - retired.journal[0].at(RestartStep::claimed) >= second);
  CHECK(last.wall >= 1000 * second);  // in the world's time
}

TEST_CASE("a restart that was taken back is told as such", "[status]") {
  World world;
  const Predecessor server(world);
  Successor successor(world);
  successor.take_over();
  Asker asker(world);
  CHECK(asker.status().phase == ReportedPhase::probation);
  successor.end();
  const Message report = asker.status();
  CHECK(report.phase == ReportedPhase::active);
  REQUIRE(report.journal.size() == 1);
  CHECK(report.journal[0].outcome == RestartOutcome::rolled_back);
}

TEST_CASE("what drains tells when it had succeeded, and when it had nothing left", "[status]") {
  World world;
  Predecessor server(world);
  server.owner.live_connections = 1;
  Successor successor(world);
  successor.take_over();
  world.pass(world.options.probation);
  Asker asker(world);
  Message report = asker.status();
  CHECK(report.phase == ReportedPhase::draining);
  REQUIRE(report.journal.size() == 1);
  CHECK(report.journal[0].outcome == RestartOutcome::done);
  CHECK(report.journal[0].at(RestartStep::healthy) != 0);
  CHECK(report.journal[0].at(RestartStep::drained) == 0);
  server.owner.live_connections = 0;
  world.pass(second);
  report = asker.status();
  CHECK(report.phase == ReportedPhase::leaving);
  CHECK(report.journal[0].at(RestartStep::drained) != 0);
}

TEST_CASE("who asks in the middle of its own restart is hung up on", "[status]") {
  World world;
  const Predecessor server(world);
  Asker asker(world);
  Message hello{.type = MessageType::hello};
  hello.protocol_min = hello.protocol_max = protocol_version;
  REQUIRE(asker.ask(hello).type == MessageType::inventory);
  CHECK(asker.status().type == MessageType::abort);
}

TEST_CASE("who never asks again is not kept", "[status]") {
  World world;
  const Predecessor server(world);
  Asker asker(world);
  REQUIRE(asker.status().type == MessageType::report);
  world.pass(3 * second);
  Asker other(world);
  CHECK(other.status().type == MessageType::report);
}

TEST_CASE("a journal keeps the last restarts, and the number of all", "[status]") {
  Journal journal;
  CHECK(journal.current() == nullptr);
  for (pid_t pid = 1; pid <= 10; ++pid) {
    journal.add({.successor = pid});
  }
  REQUIRE(journal.all().size() == Journal::room);
  CHECK(journal.all().front().successor == 3);
  CHECK(journal.current()->successor == 10);
}

TEST_CASE("how a server was started is read as it was written", "[status]") {
  const Start start{.program = "/usr/sbin/a server",
                    .directory = "/",
                    .arguments = {"server", "", "-c", "x\ny"},
                    .environment = {"A=1", "B=", "nonsense"},
                    .mask = 0027,
                    .user = 4'294'967'295,
                    .limits = {{.resource = 7, .soft = 1024, .hard = ~std::uint64_t{0}}}};
  const auto read = read_start(write_start(start));
  REQUIRE(read.has_value());
  CHECK(*read == start);
}

TEST_CASE("what is not how a server was started is not taken for it", "[status]") {
  using namespace std::string_literals;
  const std::string good = "p/bin/x\0ax\0"s;
  CHECK(read_start(good).has_value());
  CHECK(read_start(good + "zof a later release\0"s).has_value());
  for (const std::string& bad :
       {""s, "p/bin/x\0"s, "ax\0"s, good + "u"s, good + "\0"s, good + "u12x\0"s, good + "u\0"s,
        good + "l7:1\0"s, good + "l7:1:2:3\0"s, good + "l64:1:2\0"s, good + "m9\0"s,
        good + "l-1:1:2\0"s}) {
    CAPTURE(bad);
    CHECK_FALSE(read_start(bad).has_value());
  }
}

}  // namespace continuity::test
