// The faces beside the preload library: the archive that is linked into static
// servers, and SocketUpgrader for servers that ask. Each restarts like a
// preloaded server, and each follows each of the others, since all speak one
// protocol. And how much is lost without them.
#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>

namespace continuity::test {
namespace {

struct Face {
  const char* program;
  Arguments arguments;
  const char* preload;
  Leaving leaving;
};

const Face preloaded{TINY_SERVER, {"threads"}, "LD_PRELOAD=" CONTINUITY_LIBRARY, left_by_itself};
const Face linked{LINKED_SERVER, {"threads"}, "LD_PRELOAD=", left_by_itself};
const Face asking{ASKING_SERVER, {}, "LD_PRELOAD=", left_by_return};

void show(Place& place, const Face& face) {
  place.program = face.program;
  place.environment = {"CONTINUITY_NAME=of-any-face", face.preload};
}

void shows_no_loss(const Face& face, const Arguments& arguments) {
  Place place;
  place.program = face.program;
  place.environment = {face.preload};
  restarts_without_loss(arguments, place, face.leaving);
}

}  // namespace

TEST_CASE("restarted under load, nothing is lost: linked static, a thread per connection") {
  shows_no_loss(linked, {"threads"});
}
TEST_CASE("restarted under load, nothing is lost: linked static, pool of threads in accept") {
  shows_no_loss(linked, {"pool"});
}
TEST_CASE("restarted under load, nothing is lost: linked static, poll") {
  shows_no_loss(linked, {"poll"});
}
TEST_CASE("restarted under load, nothing is lost: linked static, select") {
  shows_no_loss(linked, {"select"});
}
TEST_CASE("restarted under load, nothing is lost: linked static, epoll, edge-triggered") {
  shows_no_loss(linked, {"epoll-edge"});
}
TEST_CASE("restarted under load, nothing is lost: asks, by the published loop") {
  shows_no_loss(asking, {});
}
TEST_CASE("restarted under load, nothing is lost: asks, pool of threads in accept") {
  shows_no_loss(asking, {"--pool"});
}

TEST_CASE("a static server has no library in it that could be preloaded") {
  Place place;
  place.program = GENERATE(LINKED_SERVER, UNLINKED_SERVER);
  const Process server = place.start({"threads"});

  const std::string maps = read_file("/proc/" + std::to_string(server.pid()) + "/maps");
  CHECK(maps.find(place.program) != std::string::npos);
  CHECK(maps.find(".so") == std::string::npos);
}

TEST_CASE("a static server without the archive loses connections, preloaded or not") {
  Place place;
  place.program = UNLINKED_SERVER;
  check_it_loses({"threads"}, place);
  check_it_loses({"epoll-edge"}, place);
}

TEST_CASE("an asking server that is refused an answer loses connections") {
  Place place;
  place.program = ASKING_SERVER;
  place.environment = {asking.preload, "CONTINUITY_DISABLE=1"};
  check_it_loses({}, place);
}

// Each of the six pairs once, in a round.
TEST_CASE("preloaded, linked and asking servers of one name follow each other, under load") {
  const std::array<const Face*, 6> round{&linked, &asking, &preloaded,
                                         &asking, &linked, &preloaded};
  Place place;
  const Face* serving = &preloaded;
  show(place, *serving);
  Process server = place.start(serving->arguments);
  Load load(place.address(), server);
  for (const Face* next : round) {
    INFO(serving->program << " is followed by " << next->program);
    show(place, *next);
    restart_under_load(place, next->arguments, load, server, serving->leaving);
    serving = next;
  }
  check_nothing_was_lost(load, round.size());
}

TEST_CASE("an asking server leaves when it wants to, and the log does not say otherwise") {
  Place place;
  place.program = ASKING_SERVER;
  place.environment = {asking.preload, "CONTINUITY_STOP_TIMEOUT=1ms"};
  Process predecessor = place.start({"--linger"});
  const Process successor = place.restart({"--linger"});
  REQUIRE(predecessor.next_line() == "completed");

  predecessor.await_log("no connection left; it may leave now");
  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(predecessor.is_running());
  predecessor.send("go on\n");
  CHECK(predecessor.wait_exit() == 0);
  CHECK(predecessor.logged("SIG") == 0);
}

}  // namespace continuity::test
