// Servers with several sockets on one address: more, or fewer, from one generation to
// the next. The kernel deals connections out among all that listen.
#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <csignal>

namespace continuity::test {
namespace {

constexpr std::array<std::size_t, 4> sizes{4, 2, 4, 1};

struct GroupPlace : Place {
  GroupPlace() : address_(address()) {}
  Process spawn_with(std::size_t members, const Arguments& arguments) {
    addresses.assign(members, address_);
    return spawn_listening(arguments);
  }

 private:
  std::string address_;
};

}  // namespace

TEST_CASE("a group of listeners grows and shrinks, and no connection is lost", "[group]") {
  const std::string loop = GENERATE("epoll-level", "poll-blocking", "threads");
  CAPTURE(loop);
  const Arguments arguments{"--reuseport", loop};
  GroupPlace place;
  place.environment = {"CONTINUITY_UNCLAIMED=100ms"};
  Process server = place.spawn_with(sizes.front(), arguments);
  REQUIRE(answer_from(place.address()) == answer_of(server));  // so that it can be followed
  Load load(place.address(), server);
  const int restarts = restarts_to_make(4);
  for (int i = 1; i <= restarts; ++i) {
    Process successor =
        place.spawn_with(sizes.at(static_cast<std::size_t>(i) % sizes.size()), arguments);
    load.watch(successor.pid());
    successor.await_log("took over " + place.printed_address());
    CHECK(load.await_ok(200));
    CHECK(left_by_itself(server));  // and has closed what is left over
    load.only(successor.pid());
    CHECK(load.await_ok(200));
    server = std::move(successor);
  }
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

// The kernel lets a second server listen beside the first without any help. What the
// first has queued when it ends, is lost.
TEST_CASE("without the library a group that shrinks loses connections", "[group]") {
  const Arguments arguments{"--reuseport", "epoll-level"};
  GroupPlace place;
  place.with_library = false;
  Process server = place.spawn_with(sizes.front(), arguments);
  Load load(place.address());
  const bool lost = wait_until([&] {
    Process successor = place.spawn_with(2, arguments);
    server.signal(SIGTERM);
    server.wait_exit();
    server = std::move(successor);
    return load.count("failed") > 0;
  });
  CHECK(lost);
}

}  // namespace continuity::test
