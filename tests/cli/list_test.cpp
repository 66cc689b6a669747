// continuity list and continuity status: who is there, and what they are doing.
#include "command.hpp"
#include "core/rendezvous.hpp"
#include "support/waiting.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>

namespace continuity::test {
namespace {

using nlohmann::json;

// A generation that is nobody's: at the rendezvous, and answers with what it is told to.
class Impostor {
 public:
  Impostor(const Place& place, std::uint64_t generation, Message answer)
      : answer_(std::move(answer)) {
    std::string problem;
    rendezvous_ = Rendezvous::open(libc_sys(), place.rendezvous(), ::geteuid(), problem);
    door_ = std::move(*rendezvous_->publish(answer_.identity, generation));
    thread_ = std::thread([this] { serve(); });
  }
  ~Impostor() {
    ended_.store(true);
    ::shutdown(door_.get(), SHUT_RDWR);
    thread_.join();
  }
  Impostor(const Impostor&) = delete;
  Impostor& operator=(const Impostor&) = delete;

 private:
  void serve() {
    while (!ended_.load()) {
      pollfd entry{.fd = door_.get(), .events = POLLIN, .revents = 0};
      ::poll(&entry, 1, 100);
      const int fd = ::accept4(door_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) {
        continue;
      }
      Channel channel(libc_sys(), OwnedFd(libc_sys(), fd));
      while (channel.receive(after(libc_sys(), 10 * second))) {
        static_cast<void>(channel.send(answer_, after(libc_sys(), second)));
      }
    }
  }

  Message answer_;
  std::optional<Rendezvous> rendezvous_;
  OwnedFd door_;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace

TEST_CASE("where nobody is, list says so and has done its work") {
  const Place place;
  const Said said = run_command(place, {"list", "--json"});
  CHECK(said.status == 0);
  CHECK(said.errors.empty());
  CHECK(said.json() == json{{"servers", json::array()}});
}

TEST_CASE("list tells of each server what it is, and status what it has been through") {
  const Place place;
  Process first = place.start({"prefork-epoll"});
  Connection held(place.address());
  REQUIRE(held.ask("hello").rfind("pid=", 0) == 0);
  json before;
  REQUIRE(wait_until([&] {  // its agent may be a moment behind
    before = run_command(place, {"list"}).json();
    return server_of(before, first.pid())["state"] == "active";
  }));
  CHECK(what_is_wrong(before).empty());
  const json alone = server_of(before, first.pid());
  CHECK(alone["name"] == "tiny-server");
  CHECK(alone["state"] == "active");
  CHECK(alone["user"] == ::geteuid());
  CHECK(alone["pids"].size() == 5);  // four workers
  CHECK(alone["listeners"][0]["address"] == place.address());
  CHECK(alone["restarts"] == 0);

  const Process second = place.restart({"prefork-epoll"});

  json after;
  REQUIRE(wait_until([&] {
    after = run_command(place, {"status", "tiny-server"}).json();
    return server_of(after, second.pid())["state"] == "active" &&
           server_of(after, first.pid())["state"] == "draining";
  }));
  CHECK(what_is_wrong(after).empty());
  const json owner = server_of(after, second.pid());
  CHECK(owner["restarts"] == 1);
  CHECK(owner["connections"] == 0);
  REQUIRE(owner["journal"].size() == 1);
  const json& restart = owner["journal"][0];
  CHECK(restart["predecessor"] == first.pid());
  CHECK(restart["outcome"] == "done");
  CHECK(restart["evidence"] == "epoll");
  const json& steps = restart["steps_us"];
  const char* const order[] = {"found", "claimed", "granted", "ready", "retired", "healthy"};
  for (std::size_t i = 1; i < std::size(order); ++i) {
    CAPTURE(order[i], steps.dump());
    REQUIRE(steps.contains(order[i]));
    CHECK(steps[order[i - 1]] <= steps[order[i]]);
  }
  CHECK_FALSE(steps.contains("left"));  // it has a connection
  const json draining = server_of(after, first.pid());
  CHECK(draining["successor"] == second.pid());
  CHECK(draining["connections"] == 1);
  REQUIRE(draining["held_by"].size() == 1);
  CHECK(draining["held_by"][0]["peer"].get<std::string>().rfind("127.0.0.1:", 0) == 0);
  CHECK(draining["held_by"][0]["idle_ms"].is_number());
}

TEST_CASE("that a predecessor has left is in its successor's journal") {
  const Place place;
  Process first = place.start({"loop"});
  const Process second = place.restart({"loop"});
  REQUIRE(left_by_itself(first));
  CHECK(wait_until([&] {
    const json told = run_command(place, {"status", "tiny-server"}).json();
    return server_of(told, second.pid())["journal"][0]["steps_us"].contains("left");
  }));
}

TEST_CASE("a server that asks is listed like one that is preloaded") {
  Place place;
  place.program = ASKING_SERVER;
  place.with_library = false;
  place.environment = {"CONTINUITY_DIR=" + place.rendezvous()};
  const Process server = place.start({});
  CHECK(wait_until([&] {
    const json told = run_command(place, {"list", "--json"}).json();
    return server_of(told, server.pid())["state"] == "active";
  }));
}

TEST_CASE("a pid names a server as well") {
  const Place place;
  const Process server = place.start({"loop"});
  const Said said = run_command(place, {"status", std::to_string(server.pid())});
  CHECK(said.status == 0);
  CHECK(server_of(said.json(), server.pid())["name"] == "tiny-server");
}

TEST_CASE("a server that is stopped keeps nobody from the others") {
  const Place place;
  Place other;
  Process stopped = place.start({"loop"});
  Process running = Process::start({TINY_SERVER, "loop", other.address()}, [&] {
    auto all = place.variables();
    all.push_back("CONTINUITY_NAME=running");
    return all;
  }());
  REQUIRE(running.next_line().rfind("listening", 0) == 0);
  REQUIRE(answer_from(other.address()).rfind("pid=", 0) == 0);
  stopped.signal(SIGSTOP);

  json told;
  const bool listed = wait_until([&] {
    told = run_command(place, {"list"}).json();
    return server_of(told, running.pid())["state"] == "active";
  });

  stopped.signal(SIGCONT);
  CHECK(listed);
  CHECK(what_is_wrong(told).empty());
  CHECK(server_of(told, stopped.pid())["state"] == "silent");
  CHECK(server_of(told, running.pid())["state"] == "active");
}

TEST_CASE("of an earlier release only the name is known") {
  const Place place;
  Message no{.type = MessageType::abort};
  no.identity = "old";
  no.code = EPROTO;
  const Impostor old(place, 0xabc, no);
  const Said said = run_command(place, {"list"});
  CHECK(said.status == 0);
  REQUIRE(said.json()["servers"].size() == 1);
  CHECK(said.json()["servers"][0]["name"] == "old");
  CHECK(said.json()["servers"][0]["state"] == "unknown");
  const Said refused = run_command(place, {"upgrade", "old"});
  CHECK(refused.status == 1);
  CHECK_THAT(refused.errors, Catch::Contains("earlier release"));
}

TEST_CASE("a name that nobody has is told, and which there are") {
  const Place place;
  const Process server = place.start({"loop"});
  for (const char* command : {"status", "upgrade", "stop"}) {
    CAPTURE(command);
    const Said said = run_command(place, {command, "nginx"});
    CHECK(said.status == 3);
    CHECK(said.output.empty());
    CHECK(said.errors == "continuity: nobody is called nginx; there is tiny-server\n");
  }
}

namespace {

// So many generations, each of a server of its own.
std::vector<std::unique_ptr<Impostor>> crowd(const Place& place, std::size_t count) {
  std::vector<std::unique_ptr<Impostor>> servers;
  for (std::size_t i = 0; i < count; ++i) {
    Message report{.type = MessageType::report};
    report.identity = "server-" + std::to_string(i);
    report.phase = ReportedPhase::active;
    report.pid = 4'000'000;  // nobody has it
    servers.push_back(std::make_unique<Impostor>(place, i + 1, report));
  }
  return servers;
}

}  // namespace

// The processor's time, of which others on the machine take none, and what is more than where
// nobody is: for that the kernel looks through all connections that there are, a hundred thousand
// in TIME_WAIT among them.
TEST_CASE("two hundred generations are listed in less than 50 ms", "[alone]") {
  using std::chrono::microseconds;
  const auto spent = [] {
    rusage usage{};
    ::getrusage(RUSAGE_CHILDREN, &usage);
    return std::chrono::seconds(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           microseconds(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  };
  const auto best_of_several = [&](std::size_t count) {
    const Place place;
    const auto servers = crowd(place, count);
    microseconds best{std::chrono::hours(1)};
    for (int i = 0; i < 10; ++i) {
      const auto before = spent();
      const Said said = run_command(place, {"list"});
      best = std::min<microseconds>(best, spent() - before);
      REQUIRE(said.json()["servers"].size() == count);
    }
    return best;
  };
  const auto none = best_of_several(0);
  const auto many = best_of_several(200);
  CAPTURE(none.count(), many.count());
  CHECK((many - none).count() < 50'000);
}

// Time is no measure on a busy machine; what is asked of the kernel is.
TEST_CASE("what list costs grows with the number of servers, and no faster") {
  if (::access("/usr/bin/strace", X_OK) != 0) {
    WARN("skipped: no strace");
    return;
  }
  const auto calls_for = [](std::size_t count) {
    const Place place;
    const auto servers = crowd(place, count);
    const TempDir directory;
    Process traced = Process::start(
        {"/usr/bin/strace", "-f", "-o", directory / "calls", CONTINUITY_COMMAND, "list", "--json"},
        {"CONTINUITY_DIR=" + place.rendezvous()});
    CHECK(traced.wait_exit() == 0);
    const std::string calls = read_file(directory / "calls");
    return std::count(calls.begin(), calls.end(), '\n');
  };
  const auto few = calls_for(20);
  const auto many = calls_for(200);
  CAPTURE(few, many);
  constexpr long most_each = 120;
  CHECK(many - few < 180 * most_each);
}

}  // namespace continuity::test
