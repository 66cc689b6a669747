// A server with thousands of listeners: more than the descriptors that a process may
// have by default, and each is held twice during a restart.
#include "families.hpp"
#include "support/datagrams.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sys/resource.h>

namespace continuity::test {
namespace {

struct ManyPlace : Place {
  explicit ManyPlace(int listeners) : count(listeners) {
    program = MANY_SERVER;
    number = port.address().substr(port.address().rfind(':') + 1);
    addresses = {number};
    environment = {"CONTINUITY_PROBATION=200ms"};
  }
  // Another server of the same rendezvous.
  [[nodiscard]] Process start_somebody() {
    const std::string own = std::exchange(program, TINY_SERVER);
    addresses = {port.address()};
    Process somebody = start({"epoll-level"});
    program = own;
    addresses = {number};
    return somebody;
  }
  [[nodiscard]] Arguments arguments() const { return {std::to_string(count)}; }
  [[nodiscard]] std::string address_of(int index) const {
    constexpr int hosts_each = 250;
    return "127.1." + std::to_string(index / hosts_each) + "." +
           std::to_string(1 + index % hosts_each) + ":" + number;
  }
  int count;
  std::string number{};
};

// How often a process has asked at the rendezvous who is there.
std::size_t looks_of(Process& process, const Process& other) {
  return process.logged("pid " + std::to_string(other.pid()) + " (\"tiny-server\") offers");
}

// As many as there may be, with two descriptors for each: of a starting successor, which has
// the listener and what takes its options, and of the predecessor, which keeps a copy.
int as_many_as_possible() {
  constexpr rlim_t most = 10'000;
  constexpr rlim_t others = 500;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<int>(std::min(most, (limit.rlim_max - others) / 2));
}

std::size_t descriptors_of(const Process& process) {
  const std::filesystem::directory_iterator all("/proc/" + std::to_string(process.pid()) + "/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

std::string limits_of(const Process& process) {
  std::ifstream limits("/proc/" + std::to_string(process.pid()) + "/limits");
  for (std::string line; std::getline(limits, line);) {
    if (line.rfind("Max open files", 0) == 0) {
      return line;
    }
  }
  return "";
}

}  // namespace

TEST_CASE("thousands of listeners are taken over, whatever the limit of descriptors is",
          "[alone]") {
  constexpr int every = 97;  // asked
  const ManyPlace place(as_many_as_possible());
  Process server = place.spawn_listening(place.arguments());
  REQUIRE(answer_from(place.address_of(0)) == answer_of(server));
  const auto own = static_cast<std::size_t>(place.count) + 64;
  const std::string limits = limits_of(server);
  for (int i = 0; i < 2; ++i) {
    Process successor = place.spawn_listening(place.arguments());
    const std::string line = successor.await_log("took over ");
    INFO(line);

    CHECK(left_by_itself(server));

    std::string wrong;
    for (int k = 0; k < place.count; k += every) {
      if (answer_from(place.address_of(k)) != answer_of(successor)) {
        wrong += place.address_of(k) + " ";
      }
    }
    CHECK(wrong.empty());
    CHECK(descriptors_of(successor) < own);  // none is kept for each
    CHECK(limits_of(successor) == limits);
    server = std::move(successor);
  }
}

// To the library of the tests those above 1,024 are what those above 65,536 are to the other.
TEST_CASE("a listener with a number above all that most programs have is handed over") {
  ManyPlace place(2);
  place.environment.emplace_back("LD_PRELOAD=" CONTINUITY_FAULTY_LIBRARY);
  place.addresses.emplace_back("2000");
  Process server = place.spawn_listening(place.arguments());
  REQUIRE(answer_from(place.address_of(1)) == answer_of(server));

  const Process successor = place.spawn_listening(place.arguments());

  CHECK(left_by_itself(server));
  CHECK(answer_from(place.address_of(0)) == answer_of(successor));
  CHECK(answer_from(place.address_of(1)) == answer_of(successor));
}

// The library's own stack has 256 KB.
TEST_CASE("a server whose threads have much memory each for themselves is restarted") {
  ManyPlace place(1);
  place.program += GENERATE("-200", "-400");
  Process server = place.spawn_listening(place.arguments());
  REQUIRE(answer_from(place.address_of(0)) == answer_of(server));

  const Process successor = place.spawn_listening(place.arguments());

  CHECK(left_by_itself(server));
  CHECK(answer_from(place.address_of(0)) == answer_of(successor));
}

TEST_CASE("a successor of thousands of listeners that is not ready changes nothing") {
  constexpr std::size_t some = 16;
  const ManyPlace place(4'000);
  Process server = place.spawn_listening(place.arguments());
  REQUIRE(answer_from(place.address_of(0)) == answer_of(server));
  const std::size_t before = descriptors_of(server);
  Process successor = place.spawn(place.arguments());
  CHECK(wait_until([&] { return descriptors_of(server) > before + 3'000; }));

  successor.signal(SIGKILL);

  server.await_log("serving ");
  CHECK(wait_until([&] { return descriptors_of(server) < before + some; }));
  CHECK(answer_from(place.address_of(3'999)) == answer_of(server));
}

TEST_CASE("of many binds to free addresses only the first asks who has them") {
  const std::string kind = GENERATE("streams", "datagrams");
  CAPTURE(kind);
  ManyPlace place(40);
  const Process somebody = place.start_somebody();
  place.environment.emplace_back("CONTINUITY_LOG=debug");
  Arguments arguments = place.arguments();
  if (kind == "datagrams") {
    arguments.insert(arguments.begin(), "--datagrams");
  }

  Process server = place.spawn_listening(arguments);

  CHECK(looks_of(server, somebody) == 1);
}

TEST_CASE("a thousand datagram sockets are taken over") {
  const ManyPlace place(1'200);
  const Arguments arguments{"--datagrams", std::to_string(place.count)};
  Process server = place.spawn_listening(arguments);
  REQUIRE(ask_by_datagram(place.address_of(0), "x") == "x " + answer_of(server));

  Process successor = place.spawn_listening(arguments);
  successor.await_log("took over ");

  for (int k = 0; k < place.count; ++k) {
    REQUIRE(ask_by_datagram(place.address_of(k), "y") == "y " + answer_of(successor));
  }
  CHECK(left_by_itself(server));
}

}  // namespace continuity::test
