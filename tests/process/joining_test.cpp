// Servers in which a listener does not simply come over fork: each process finds
// its generation by what it holds, or by what it was forked from.
#include "restarts.hpp"

#include <catch2/catch.hpp>

namespace continuity::test {
namespace {

// Fresh connections only: these serve one at a time. Who binds for itself takes
// over for itself: then there are several `take_overs`.
void family_restarts(const std::string& shape, std::size_t take_overs = 1) {
  const int times = restarts_to_make(5);
  Place place;
  place.program = FAMILY_SERVER;
  place.environment.emplace_back("CONTINUITY_LOG=debug");
  Process server = place.start({shape});
  Load load(place.address(), server);
  std::string said;
  for (int i = 0; i < times; ++i) {
    Process successor = place.spawn_listening({shape});
    load.watch(successor.pid());
    CHECK(wait_until([&] { return successor.logged("took over") >= take_overs; }));
    load.only(successor.pid());
    CHECK(load.await_ok(20));
    CHECK(left_by_itself(server));
    for (const std::string& line : server.log()) {
      said += line + "\n";
    }
    server = std::move(successor);
  }
  INFO(said);
  check_nothing_was_lost(load, times);
}

}  // namespace

TEST_CASE("restarted under load, nothing is lost: workers that inherit over exec") {
  family_restarts("exec");
}
TEST_CASE("restarted under load, nothing is lost: workers started by posix_spawn") {
  family_restarts("spawn");
}
TEST_CASE("restarted under load, nothing is lost: workers started by vfork") {
  family_restarts("vfork");
}
TEST_CASE("restarted under load, nothing is lost: workers that listen after exec") {
  family_restarts("exec-listen");
}
TEST_CASE("restarted under load, nothing is lost: workers that are given the listener") {
  family_restarts("given");
}
TEST_CASE("restarted under load, nothing is lost: a socket of its own for each worker") {
  family_restarts("each", 3);
}
TEST_CASE("restarted under load, nothing is lost: a socket each, the parent's too") {
  family_restarts("all", 4);
}
TEST_CASE("restarted under load, nothing is lost: a master that executes itself anew") {
  family_restarts("master");
}

}  // namespace continuity::test
