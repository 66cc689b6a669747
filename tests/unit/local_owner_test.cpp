// A generation of one process: its live connections, and what it does with
// listeners that nobody claimed.
#include "core/local_owner.hpp"

#include "fake_program.hpp"
#include "fake_sys.hpp"

#include <catch2/catch.hpp>

namespace continuity::test {
namespace {

constexpr std::array<std::uint32_t, 1> first{1};
constexpr std::array<std::uint32_t, 1> second_one{2};

struct Scene {
  FakeSys<0> sys;
  TempDirectory directory;
  OwnedFd place = open_directory(directory);
  OwnedFd proc = open_proc();
  OwnedFd claimed = listen_at("127.0.0.1:0", SOCK_NONBLOCK);
  OwnedFd unclaimed;
  Log log;
  FakeProgram program;
  FakeOwner owner;

  explicit Scene(const std::string& unclaimed_address = "127.0.0.1:0")
      : unclaimed(listen_at(unclaimed_address, SOCK_NONBLOCK)),
        owner(sys, log, proc.get(), place.get(), program, {claimed.get(), unclaimed.get()}) {}

  // As after a take-over of the first listener.
  void retire_first() {
    auto items = owner.inventory();
    std::uint32_t id = 0;
    for (Owner::Item& item : items) {
      item.listener.id = ++id;
    }
    REQUIRE(owner.prepare(items));
    REQUIRE(owner.retire(first, after(sys, second)));
    owner.sweep();
  }
};

OwnedFd accept_from(int fd) {
  return {libc_sys(), ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC)};
}

}  // namespace

TEST_CASE("live connections are those of retired listeners, as long as they are open", "[owner]") {
  Scene scene;
  const OwnedFd client = connect_to(name_of(scene.claimed.get()));
  const OwnedFd other_client = connect_to(name_of(scene.unclaimed.get()));
  OwnedFd accepted = accept_from(scene.claimed.get());
  const OwnedFd other = accept_from(scene.unclaimed.get());
  REQUIRE((accepted.is_open() && other.is_open()));
  CHECK(scene.owner.connections() == 0);  // nothing has been retired
  scene.retire_first();
  CHECK(scene.owner.connections() == 1);
  CHECK(scene.owner.connections() == 1);
  accepted.reset();
  CHECK(scene.owner.connections() == 0);
}

TEST_CASE("most looks cost one call, however many descriptors are open", "[owner]") {
  Scene scene;
  const OwnedFd client = connect_to(name_of(scene.claimed.get()));
  const OwnedFd accepted = accept_from(scene.claimed.get());
  scene.retire_first();
  REQUIRE(scene.owner.connections() == 1);
  const int looks = scene.sys.count(Call::getdents);
  const int stats = scene.sys.count(Call::fstat);
  CHECK(scene.owner.connections() == 1);
  CHECK(scene.sys.count(Call::getdents) == looks);
  CHECK(scene.sys.count(Call::fstat) == stats + 1);
}

TEST_CASE("not knowing how many connections there are is no reason to leave", "[owner]") {
  const auto code = GENERATE(EMFILE, ENOMEM);
  Scene scene;
  scene.retire_first();
  scene.sys.fail_next(Call::openat, code);
  CHECK(scene.owner.connections() == 1);
  CHECK(scene.owner.connections() == 0);
}

TEST_CASE("what an unclaimed listener has queued is accepted before it is closed", "[owner]") {
  Scene scene;
  const Address name = name_of(scene.unclaimed.get());
  scene.retire_first();
  scene.owner.forget_listeners();  // the probation is over
  std::vector<OwnedFd> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(connect_to(name));
  }
  // The program accepts one whenever it gets to run.
  int accepted = 0;
  scene.sys.hooks.ppoll = [&](pollfd* fds, nfds_t count, const timespec* timeout) {
    accepted += accept_from(scene.unclaimed.get()).is_open() ? 1 : 0;
    return ::ppoll(fds, count, timeout, nullptr);
  };

  scene.owner.close_listeners(second_one);

  CHECK(accepted == 5);
  CHECK_FALSE(accept_from(scene.unclaimed.get()).is_open());
  CHECK(is_listening(libc_sys(), scene.unclaimed.get()));  // the stand-in
  CHECK_FALSE(connect_to(name).is_open());
}

TEST_CASE("a UNIX listener that was closed in the probation is there again after a revival",
          "[owner]") {
  const TempDirectory elsewhere;
  Scene scene("unix:" + elsewhere.path() + "/socket");
  const Address name = name_of(scene.unclaimed.get());
  scene.retire_first();
  scene.owner.close_listeners(second_one);
  REQUIRE(name_of(scene.unclaimed.get()).unix_path() != name.unix_path());  // the stand-in

  SECTION("the successor dies") {
    scene.owner.revive();
    const OwnedFd client = connect_to(name);
    CHECK(client.is_open());
    CHECK(accept_from(scene.unclaimed.get()).is_open());
  }
  SECTION("the probation ends") {
    scene.owner.forget_listeners();
    CHECK_FALSE(connect_to(name).is_open());
  }
}

TEST_CASE("a program that does not accept holds the closing up for a second, not for ever",
          "[owner]") {
  Scene scene;
  scene.retire_first();
  const auto name = name_of(scene.unclaimed.get());
  const OwnedFd client = connect_to(name);
  Nanoseconds time = second;
  play_time(scene.sys, time);
  scene.owner.close_listeners(second_one);
  CHECK(time < 3 * second);
  CHECK_FALSE(connect_to(name).is_open());
}

}  // namespace continuity::test
