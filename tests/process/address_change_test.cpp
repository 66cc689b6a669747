// A configuration that moves from one address to another that overlaps with it, on one
// port: the kernel refuses the second bind, and with SO_REUSEPORT it would give the new
// listener connections before it is ready.
#include "families.hpp"
#include "support/waiting.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <csignal>
#include <list>
#include <utility>

namespace continuity::test {
namespace {

// What a server moves between, and where clients find it throughout.
struct Move {
  const char* from;
  const char* to;
  const char* clients;
};

constexpr std::array moves{
    Move{"127.0.0.1", "0.0.0.0", "127.0.0.1"}, Move{"0.0.0.0", "[::]", "127.0.0.1"},
    Move{"127.0.0.1", "[::]", "127.0.0.1"},    Move{"[::1]", "[::]", "[::1]"},
    Move{"0.0.0.0", "127.0.0.1", "127.0.0.1"},
};

class MovingPlace {
 public:
  explicit MovingPlace(const char* asking = nullptr) {
    place_.environment = {"CONTINUITY_PROBATION=300ms", "CONTINUITY_UNCLAIMED=600ms"};
    if (asking != nullptr) {
      place_.program = asking;
      place_.environment.emplace_back("LD_PRELOAD=");
    }
  }
  Place& at(const std::string& host) {
    place_.addresses = {host + ":" + port_};
    return place_;
  }
  [[nodiscard]] std::string of(const std::string& host) const { return host + ":" + port_; }

 private:
  Place place_;
  const std::string address_ = place_.address();
  const std::string port_ = address_.substr(address_.rfind(':') + 1);
};

// Runs it at another address, and waits until the predecessor has nothing to do there.
Process move_to(Place& place, const Arguments& arguments, Process& server, Load& load,
                Leaving leaving = left_by_itself) {
  Process successor = place.spawn_listening(arguments);
  load.watch(successor.pid());
  successor.await_log("took over ");
  CHECK(leaving(server));
  return successor;
}

// From one address to the other and back, twice.
void moves_without_loss(MovingPlace& places, const Move& move, const Arguments& arguments,
                        Leaving leaving = left_by_itself) {
  Process server = places.at(move.from).start(arguments);
  Load load(places.of(move.clients), server);
  for (int i = 0; i < 2; ++i) {
    for (const char* host : {move.to, move.from}) {
      server = move_to(places.at(host), arguments, server, load, leaving);
      CHECK(answer_from(places.of(move.clients)) == answer_of(server));
      CHECK(load.await_ok(50));
    }
  }
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
}

bool serves(const std::string& address, const Process& server) {
  return wait_until([&] { return answer_from(address) == answer_of(server); });
}

// The successor dies before it is ready, and nobody notices.
void serves_on(Process& server, Process& successor, Load& load) {
  successor.signal(SIGKILL);

  server.await_log("before it was ready; serving on");
  CHECK(load.await_ok(100));
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

// The owner dies on probation.
void comes_back(const std::string& address, Process& server, Process& successor) {
  successor.signal(SIGKILL);

  server.await_log("serving again");
  CHECK(serves(address, server));
  Load load(address, server);
  CHECK(load.await_ok(100));
  CHECK(load.count("failed") == 0);
}

}  // namespace

TEST_CASE("a server moves to an address that overlaps with its own, and back, under load") {
  const std::size_t index = GENERATE(range(std::size_t{0}, moves.size()));
  const Move move = moves.at(index);
  const std::string loop = index % 2 == 0 ? "loop" : "epoll-level";
  CAPTURE(move.from, move.to, loop);
  MovingPlace places;
  moves_without_loss(places, move, {loop});
}

TEST_CASE("a program that asks moves to an overlapping address, and back, under load") {
  const Move move = GENERATE(from_range(moves.begin(), moves.end()));
  CAPTURE(move.from, move.to);
  MovingPlace places(ASKING_POLL);
  moves_without_loss(places, move, {}, left_after_events);
}

// It is to make its first listener itself, and makes none for IPv6.
TEST_CASE("the published loop moves to an overlapping address, and back, under load") {
  const Move move = GENERATE(filter([](const Move& one) { return one.from[0] != '['; },
                                    from_range(moves.begin(), moves.end())));
  CAPTURE(move.from, move.to);
  MovingPlace places(ASKING_SERVER);
  moves_without_loss(places, move, {}, left_by_return);
}

TEST_CASE("a program that asks for an overlapping address and is not ready changes nothing") {
  const Move move = GENERATE(from_range(moves.begin(), moves.end()));
  CAPTURE(move.from, move.to);
  MovingPlace places(ASKING_POLL);
  Process server = places.at(move.from).start({});
  Load load(places.of(move.clients), server);
  Process successor = places.at(move.to).spawn({"--hold"});
  CHECK(successor.next_line() == "holding");
  CHECK(load.await_ok(100));

  serves_on(server, successor, load);
  CHECK(server.next_line().rfind("failed ", 0) == 0);
  const Process next = move_to(places.at(move.to), {}, server, load, left_after_events);
  CHECK(answer_from(places.of(move.clients)) == answer_of(next));
}

// The kernel would give the new one all who come, from when it listens.
TEST_CASE("a program that asks beside a stopped predecessor takes no connection from it") {
  MovingPlace places(ASKING_POLL);
  Process server = places.at("0.0.0.0").start({});
  Process successor = places.at("127.0.0.1").spawn({"--hold"});
  CHECK(successor.next_line() == "holding");
  server.signal(SIGSTOP);
  successor.send("go on\n");
  std::list<Connection> waiting;
  while (successor.is_running()) {  // it asks, and has no answer in five seconds
    waiting.emplace_back(places.of("127.0.0.1")).send("hello\n");
    wait_until([&] { return !successor.is_running(); }, std::chrono::milliseconds(100));
  }
  CHECK(successor.next_line().rfind("ready ESTALE: ", 0) == 0);
  CHECK(successor.wait_exit() == 1);

  server.signal(SIGCONT);

  CHECK(waiting.size() > 10);
  for (Connection& one : waiting) {
    CHECK(one.receive_line() == answer_of(server));
  }
}

TEST_CASE("a program that asks comes back at its address when a successor beside it dies") {
  const Move move = GENERATE(from_range(moves.begin(), moves.end()));
  CAPTURE(move.from, move.to);
  MovingPlace places(ASKING_POLL);
  Place& place = places.at(move.from);
  place.environment.insert(place.environment.end(),
                           {"CONTINUITY_PROBATION=30s", "CONTINUITY_UNCLAIMED=0s"});
  Process server = place.start({});
  Process successor = places.at(move.to).spawn_listening({});
  successor.await_log("took over ");
  server.await_log("is closed: ");
  CHECK(answer_from(places.of(move.clients)) == answer_of(successor));

  comes_back(places.of(move.clients), server, successor);
}

// What the above is about.
TEST_CASE("without the library a server cannot be started beside its own address") {
  const Move move = GENERATE(from_range(moves.begin(), moves.end()));
  CAPTURE(move.from, move.to);
  MovingPlace places;
  Place& place = places.at(move.from);
  place.with_library = false;
  const Process server = place.start({"loop"});

  Process second = places.at(move.to).spawn({"loop"});

  CHECK(second.next_line() == "bind EADDRINUSE");
  CHECK(answer_from(places.of(move.clients)) == answer_of(server));
}

TEST_CASE("a successor at an overlapping address that is not ready yet changes nothing") {
  const Move move = GENERATE(from_range(moves.begin(), moves.end()));
  CAPTURE(move.from, move.to);
  MovingPlace places;
  Process server = places.at(move.from).start({"loop"});
  Load load(places.of(move.clients), server);
  Process successor = places.at(move.to).spawn_listening({"--end", "hang", "loop"});
  CHECK(load.await_ok(100));

  serves_on(server, successor, load);
  // And the next attempt is as if that had not been.
  const Process next = move_to(places.at(move.to), {"loop"}, server, load);
  CHECK(answer_from(places.of(move.clients)) == answer_of(next));
}

TEST_CASE("a predecessor at an overlapping address comes back when its successor dies") {
  const Move move = GENERATE(from_range(moves.begin(), moves.end()));
  const bool closed = GENERATE(false, true);  // before the successor dies
  CAPTURE(move.from, move.to, closed);
  MovingPlace places;
  Place& place = places.at(move.from);
  place.environment = {"CONTINUITY_PROBATION=30s", "CONTINUITY_UNCLAIMED=0s"};
  Process server = place.start({"loop"});
  Process successor = places.at(move.to).spawn_listening({"loop"});
  successor.await_log("took over ");
  if (closed) {
    server.await_log("is closed: ");
    CHECK(answer_from(places.of(move.clients)) == answer_of(successor));
  }

  comes_back(places.of(move.clients), server, successor);
}

TEST_CASE("what a server binds itself conflicts as it would without the library") {
  // [::] and then 0.0.0.0: many servers try both, and go on with the first.
  const std::string host = GENERATE("[::]", "127.0.0.1");
  CAPTURE(host);
  MovingPlace places;
  Process server = places.at(host).start({"loop"});
  Place& both = places.at("[::]");
  both.addresses.push_back(places.of("0.0.0.0"));

  Process successor = both.spawn({"loop"});

  std::string line = successor.next_line();
  CHECK(line == "bind EADDRINUSE");
  CHECK(answer_from(places.of("127.0.0.1")) == answer_of(server));
}

}  // namespace continuity::test
