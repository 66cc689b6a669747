// What a server says to systemd (sd_notify): READY=1 shows that a successor is ready, and
// with CONTINUITY_READY=notify nothing else does. What a predecessor says of the service
// is not passed on.
#include "restarts.hpp"
#include "support/datagrams.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <csignal>
#include <poll.h>
#include <unistd.h>

namespace continuity::test {
namespace {

struct NotifyPlace : Place {
  NotifyPlace() { environment = {"CONTINUITY_READY=notify"}; }
};

// Who has been told to say that it is ready says it by one byte.
void tell(const Process& server) {
  server.send("!");
}

// NOTIFY_SOCKET, as systemd has one.
class Manager {
 public:
  Manager() {
    const SocketAddress where(path_);
    fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    REQUIRE(::bind(fd_, where.get(), where.length) == 0);
  }
  ~Manager() { ::close(fd_); }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  [[nodiscard]] std::string variable() const { return "NOTIFY_SOCKET=" + path_; }
  // What it is told next; empty: nothing, for so long.
  [[nodiscard]] std::string next(std::chrono::milliseconds longest = patience) const {
    pollfd entry{.fd = fd_, .events = POLLIN, .revents = 0};
    std::array<char, 512> text{};
    if (::poll(&entry, 1, static_cast<int>(longest.count())) <= 0) {
      return "";
    }
    const ssize_t size = ::recv(fd_, text.data(), text.size(), 0);
    return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
  }

 private:
  TempDir directory_;
  std::string path_ = directory_.path() + "/notify";
  int fd_ = -1;
};

}  // namespace

TEST_CASE("a successor that has not said READY=1 takes nothing from its predecessor") {
  const std::string loop =
      GENERATE("threads", "pool", "timeout", "poll", "poll-blocking", "select", "epoll-level",
               "epoll-edge", "epoll-oneshot", "prefork", "prefork-epoll", "prefork-pool");
  CAPTURE(loop);
  const int restarts = restarts_to_make(3);
  const NotifyPlace place;
  Process server = place.start({loop});
  Load load(place.address(), server);
  for (int i = 0; i < restarts; ++i) {
    load.only(server.pid());
    Process successor = place.spawn_listening({"--say-ready-later", "sendto", loop});
    load.watch(successor.pid());
    CHECK(load.await_ok(300));  // it waits meanwhile
    CHECK(successor.logged("took over") == 0);

    tell(successor);

    successor.await_log("took over " + place.printed_address());
    load.only(successor.pid());
    CHECK(load.await_ok(100));
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  check_nothing_was_lost(load, restarts);
}

TEST_CASE("a datagram successor that has not said READY=1 receives nothing", "[datagram]") {
  const std::string loop =
      GENERATE("recvfrom", "recvmmsg", "poll", "poll-and-block", "select", "epoll", "threads");
  CAPTURE(loop);
  const int restarts = restarts_to_make(3);
  constexpr std::uint64_t some = 300;
  NotifyPlace place;
  place.program = DATAGRAM_SERVER;
  Process server = place.spawn_listening({loop});
  REQUIRE(ask_by_datagram(place.address(), "x") == "x " + answer_of(server));
  DatagramLoad load(place.address());
  for (int i = 0; i < restarts; ++i) {
    load.only({server.pid()});
    Process successor = place.spawn_listening({"--say-ready", "1", loop});
    CHECK(load.await_answers(some));
    load.only({});
    tell(successor);
    successor.await_log("took over " + place.printed_address());
    load.only({successor.pid()});
    CHECK(load.await_answers(some));
    CHECK(left_by_itself(server));
    server = std::move(successor);
  }
  nothing_went_astray(load, some * static_cast<std::uint64_t>(restarts));
}

TEST_CASE("READY=1 is heard however it is said") {
  const std::string how = GENERATE("sendto", "sendmsg", "send", "write");
  const bool has_manager = GENERATE(true, false);
  CAPTURE(how, has_manager);
  NotifyPlace place;
  const Manager manager;
  if (has_manager) {
    place.environment.push_back(manager.variable());
  }
  Process server = place.start({"--say-ready", how, "epoll-level"});
  if (has_manager) {
    CHECK(manager.next() == "READY=1");
  }
  Process successor = place.spawn_listening({"--say-ready-later", how, "epoll-level"});
  CHECK(answer_from(place.address()) == answer_of(server));
  tell(successor);
  successor.await_log("took over ");
  if (has_manager) {
    CHECK(manager.next() == "READY=1\nSTATUS=serving");
    CHECK(manager.next() == "MAINPID=" + std::to_string(successor.pid()));
  }
  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(left_by_itself(server));
}

TEST_CASE("a successor that never says READY=1 is told to end, and changes nothing") {
  const std::string loop = GENERATE("threads", "epoll-level");
  CAPTURE(loop);
  NotifyPlace place;
  place.environment.emplace_back("CONTINUITY_READY_TIMEOUT=300ms");
  Process server = place.start({loop});
  Load load(place.address(), server);
  load.only(server.pid());
  Process successor = place.spawn_listening({"--say-ready-later", "sendto", loop});
  server.await_log("was not ready within 0.3 s (CONTINUITY_READY_TIMEOUT)");
  CHECK(successor.wait_exit() == 128 + SIGTERM);
  CHECK(load.await_ok(100));
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

TEST_CASE("a successor that is killed before it says READY=1 loses nothing") {
  const std::string loop = GENERATE("threads", "poll", "epoll-level", "prefork");
  CAPTURE(loop);
  const NotifyPlace place;
  Process server = place.start({loop});
  Load load(place.address(), server);
  load.only(server.pid());
  for (int i = 0; i < 3; ++i) {
    Process successor = place.spawn_listening({"--say-ready-later", "sendto", loop});
    CHECK(load.await_ok(100));
    successor.signal(SIGKILL);
    server.await_log("was killed by SIGKILL before it was ready; serving on");
    CHECK(load.await_ok(50));
  }
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

TEST_CASE("READY=1 shows readiness before the first wait, whatever CONTINUITY_READY is") {
  Place place;
  const Manager manager;
  place.environment = {manager.variable()};
  Process server = place.start({"epoll-level"});
  Process successor =
      place.spawn_listening({"--say-ready", "sendto", "--end", "hang", "epoll-level"});
  successor.await_log("took over ");
  CHECK(manager.next() == "READY=1");
  tell(successor);  // until now it has waited for nothing
  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(left_by_itself(server));
}

TEST_CASE("systemd hears of the successor's pid, and not that its predecessor stops") {
  Place place;
  const Manager manager;
  place.environment = {manager.variable()};
  Process server = place.start({"--say-stopping", "epoll-level"});
  Process successor = place.restart({"--say-stopping", "epoll-level"});
  CHECK(manager.next() == "MAINPID=" + std::to_string(successor.pid()));
  CHECK(left_by_itself(server));

  successor.signal(SIGTERM);
  successor.wait_exit();
  CHECK(manager.next() == "STOPPING=1");  // the owner's, and the first one
}

}  // namespace continuity::test
