// A server that starts its successor itself, as a deploy hook does: then the
// successor is below its predecessor, and none of it.
#include "families.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <optional>

namespace continuity::test {
namespace {

// All generations write to where the first one does.
class Chain {
 public:
  Chain(const Place& place, const Arguments& arguments)
      : place_(place), first_(place.start(arguments)), now_(first_.pid()) {}

  // The successor, once it has taken over.
  pid_t deploy(const std::function<void(pid_t)>& when_it_listens = [](pid_t) {}) {
    const pid_t before = now_;
    ::kill(before, SIGHUP);
    std::string line;
    do {
      line = first_.next_line();
    } while (line.rfind("listening ", 0) != 0);
    now_ = static_cast<pid_t>(number_in(line, "pid"));
    when_it_listens(now_);
    first_.await_log("took over " + place_.printed_address() + " from pid " +
                     std::to_string(before));
    return now_;
  }
  void await_leaving(pid_t process) {
    first_.await_log("continuity[" + std::to_string(process) + "]: no connection left; leaving");
  }
  [[nodiscard]] Process& first() { return first_; }
  [[nodiscard]] pid_t now() const { return now_; }

 private:
  const Place& place_;
  Process first_;
  pid_t now_;
};

void deploys_without_loss(const Arguments& arguments) {
  CAPTURE(arguments);
  constexpr int times = 3;
  const FamilyPlace place;
  Chain chain(place, arguments);
  Load load(place.address(), chain.first());
  for (int i = 0; i < times; ++i) {
    const auto old_ones = server_processes();
    const pid_t before = chain.now();
    load.open("first");
    load.keep("kept");
    const pid_t after = chain.deploy([&](pid_t successor) { load.watch(successor); });
    load.only(after);
    CHECK(load.finish("first") == "ok");
    CHECK(load.again("kept") == "ok");
    load.drop("kept");
    CHECK(load.await_ok(20));
    // What the successor has does not keep it.
    Connection kept_by_successor(place.address());
    CHECK(number_in(kept_by_successor.ask("hello"), "pid") > 0);
    chain.await_leaving(before);
    CHECK(have_ended(old_ones));
  }
  std::string log;
  for (const std::string& line : chain.first().log()) {
    log += line + "\n";
  }
  INFO(log);
  check_nothing_was_lost(load, times);
}

}  // namespace

TEST_CASE("restarted under load, nothing is lost: by a server that starts its successor") {
  const std::string loop = GENERATE("threads", "epoll-level", "prefork");
  deploys_without_loss({"--deploy", "clean", loop});
}

TEST_CASE("restarted under load, nothing is lost: the successor's child, or a daemon, serves") {
  const Arguments how =
      GENERATE(Arguments{"--supervised"}, Arguments{"--daemon"}, Arguments{"--background", "after"},
               Arguments{"--background", "twice"});
  Arguments arguments{"--deploy", "clean"};
  arguments.insert(arguments.end(), how.begin(), how.end());
  arguments.emplace_back("threads");
  deploys_without_loss(arguments);
}

// What the successor was started with it has, though nobody is served there.
TEST_CASE("connections that its successor has inherited do not keep a server") {
  const bool supervised = GENERATE(false, true);
  CAPTURE(supervised);
  const FamilyPlace place;
  Arguments arguments{"--deploy", "leaky", "threads"};
  if (supervised) {
    arguments.insert(arguments.begin(), "--supervised");
  }
  Chain chain(place, arguments);
  std::optional<Connection> held(place.address());
  REQUIRE(held->ask("hello") == answer_of(chain.first()));

  const pid_t successor = chain.deploy();

  CHECK(held->ask("hello") == answer_of(chain.first()));
  CHECK(chain.first().logged("leaving") == 0);
  held.reset();
  CHECK(left_by_itself(chain.first()));
  CHECK(answer_from(place.address()) == "pid=" + std::to_string(successor));
}

TEST_CASE("what a server starts is not its successor unless CONTINUITY_NEW says so") {
  FamilyPlace place;
  Process server = place.start({"--deploy", "unsaid", "threads"});
  server.signal(SIGHUP);
  CHECK(server.next_line() == "bind EADDRINUSE");
  CHECK(answer_from(place.address()) == answer_of(server));
}

}  // namespace continuity::test
