// Servers that did not bind: the first run was given its sockets by systemd or inetd,
// which keep a copy of each and know nothing of the library. It is restarted by being run
// again, without them: then it binds.
#include "restarts.hpp"
#include "support/datagrams.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::test {
namespace {

// Who starts servers on demand: it has the socket, and keeps it.
class Manager {
 public:
  explicit Manager(const std::string& address, int type = SOCK_STREAM) {
    const SocketAddress where(address);
    const int on = 1;
    fd_ = ::socket(where.get()->sa_family, type | SOCK_CLOEXEC, 0);
    ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    REQUIRE(::bind(fd_, where.get(), where.length) == 0);
    if (type == SOCK_STREAM) {
      REQUIRE(::listen(fd_, 128) == 0);
    }
  }
  ~Manager() { ::close(fd_); }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  [[nodiscard]] Given gives(bool as_inetd = false) const {
    return {.sockets = {fd_}, .by_inetd = as_inetd};
  }

 private:
  int fd_ = -1;
};

// `first`: what the run has that is given a socket, and has no need to make room for it.
void restarts_without_loss(const Arguments& first, const Arguments& arguments, const Place& place,
                           const Given& given) {
  const int restarts = restarts_to_make(5);
  Process server = place.start(first, given);
  Load load(place.address(), server);
  for (int i = 0; i < restarts; ++i) {
    restart_under_load(place, arguments, load, server);
  }
  check_nothing_was_lost(load, restarts);
}

}  // namespace

TEST_CASE("restarted under load, nothing is lost: a listener that systemd has made") {
  const std::string loop = GENERATE("loop", "threads", "poll", "select", "epoll-level", "prefork");
  CAPTURE(loop);
  const Place place;
  const Manager systemd(place.address());
  restarts_without_loss({loop}, {loop}, place, systemd.gives());
}

TEST_CASE("restarted under load, nothing is lost: a listener that inetd has made") {
  const std::string loop = GENERATE("threads", "epoll-level");
  CAPTURE(loop);
  const Place place;
  const Manager inetd(place.address());
  restarts_without_loss({loop}, {loop}, place, inetd.gives(true));
}

TEST_CASE("restarted under load, nothing is lost: UNIX listeners that systemd has made") {
  const std::string kind = GENERATE("path", "name");
  CAPTURE(kind);
  Place place;
  place.addresses = {kind == "path" ? place.directory.path() + "/socket"
                                    : "@given-" + std::to_string(::getpid())};
  const Manager systemd(place.address());
  restarts_without_loss({"epoll-level"}, {"--remove", place.address(), "epoll-level"}, place,
                        systemd.gives());
}

TEST_CASE("no datagram is lost or answered twice: a socket that systemd has made", "[datagram]") {
  const std::string loop = GENERATE("recvfrom", "epoll");
  CAPTURE(loop);
  const int restarts = restarts_to_make(3);
  constexpr std::uint64_t some = 200;
  Place place;
  place.program = DATAGRAM_SERVER;
  const Manager systemd(place.address(), SOCK_DGRAM);
  Process server = place.spawn_listening({loop}, systemd.gives());
  REQUIRE(ask_by_datagram(place.address(), "x") == "x " + answer_of(server));
  DatagramLoad load(place.address());
  for (int i = 0; i < restarts; ++i) {
    load.only({});
    Process successor = place.restart({loop});
    load.only({successor.pid()});
    CHECK(load.await_answers(some));
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  nothing_went_astray(load, some * static_cast<std::uint64_t>(restarts));
}

TEST_CASE("a successor that dies before it is ready leaves a server that systemd has started") {
  const Place place;
  const Manager systemd(place.address());
  Process server = place.start({"epoll-level"}, systemd.gives());
  Load load(place.address(), server);
  load.only(server.pid());
  for (int i = 0; i < 3; ++i) {
    Process successor = place.spawn({"--end", "kill", "epoll-level"});
    CHECK(successor.wait_exit() == 128 + SIGKILL);
    server.await_log("serving on");
    CHECK(load.await_ok(50));
  }
  INFO(load.stats());
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

// What they give is theirs: whoever is started with it shares it, as without the library.
TEST_CASE("two servers that systemd gives one listener share it, and neither is told to leave") {
  const Place place;
  const Manager systemd(place.address());
  Process first = place.start({"epoll-level"}, systemd.gives());
  Process second = place.spawn_listening({"epoll-level"}, systemd.gives());
  const auto answered_by = [&](const Process& server) {
    return wait_until([&] { return answer_from(place.address()) == answer_of(server); });
  };
  CHECK(answered_by(second));
  first.signal(SIGTERM);
  first.wait_exit();
  CHECK(first.logged("handed") == 0);
  CHECK(answered_by(second));
}

TEST_CASE("a server that systemd-socket-activate has started is followed") {
  const std::string activate = "/usr/bin/systemd-socket-activate";
  if (!std::filesystem::exists(activate)) {
    WARN("skipped: no systemd-socket-activate");
    return;
  }
  const Place place;
  std::vector<std::string> command{activate, "--listen=" + place.address()};
  for (const std::string& variable : place.variables()) {
    command.push_back("--setenv=" + variable);
  }
  command.insert(command.end(), {place.program, "epoll-level", place.address()});
  Process server = Process::start(command);  // itself without the library
  server.await_log("Listening on");
  REQUIRE(answer_from(place.address()) == answer_of(server));  // it starts by this

  Load load(place.address(), server);
  Process successor = place.restart({"epoll-level"});
  load.only(successor.pid());
  CHECK(left_by_itself(server));
  CHECK(load.await_ok(50));
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

TEST_CASE("without the library a server that systemd has started cannot be started twice") {
  Place place;
  place.with_library = false;
  const Manager systemd(place.address());
  const Process server = place.start({"epoll-level"}, systemd.gives());
  Process second = place.spawn({"epoll-level"});
  CHECK(second.next_line() == "bind EADDRINUSE");
  CHECK(second.wait_exit() == 1);
  CHECK(answer_from(place.address()) == answer_of(server));
}

}  // namespace continuity::test
