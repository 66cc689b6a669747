// Going deaf and coming back, on real sockets and epolls.
#include "core/retirement.hpp"

#include "fake_program.hpp"
#include "fake_sys.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

namespace continuity::test {
namespace {

constexpr std::array<std::uint32_t, 1> first{1};
constexpr std::array<std::uint32_t, 2> both{1, 2};

Retirement::Item item(std::uint32_t id, int fd) {
  Listener listener = described(fd);
  listener.id = id;
  return {.listener = listener, .fd = fd, .inode = socket_inode(libc_sys(), fd)};
}

// A program with listener 1, a second copy of it, and listener 2.
struct Scene {
  FakeSys<0> sys;
  TempDirectory directory;
  OwnedFd place = open_directory(directory);
  OwnedFd proc = open_proc();
  OwnedFd listener;
  OwnedFd other = listen_at("127.0.0.1:0", SOCK_NONBLOCK);
  OwnedFd epoll = make_epoll();
  FakeProgram program;
  Retirement retirement{sys, proc.get(), place.get(), program, is_ours};

  explicit Scene(std::string_view text = "127.0.0.1:0", int flags = SOCK_NONBLOCK)
      : listener(listen_at(text, flags)) {}

  Status prepare() { return retirement.prepare({item(1, listener.get()), item(2, other.get())}); }
  // Deaf at once, and then what may be done later.
  bool retire(std::span<const std::uint32_t> ids = first) {
    const bool clear = go_deaf(ids);
    retirement.sweep();
    return clear;
  }
  bool go_deaf(std::span<const std::uint32_t> ids = first) {
    return retirement.retire(ids, after(sys, second));
  }
};

bool is_deaf(int fd) {
  const OwnedFd accepted(libc_sys(), ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC));
  return !accepted.is_open() && errno == EAGAIN;
}

bool accepts_from(int fd) {
  return becomes_readable(fd, 200 * millisecond) &&
         OwnedFd(libc_sys(), ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC)).is_open();
}

// Events the epoll has now, by their data.
std::vector<std::uint64_t> events_of(int epoll, int timeout = 0) {
  std::array<epoll_event, 8> events{};
  const int count = ::epoll_wait(epoll, events.data(), static_cast<int>(events.size()), timeout);
  std::vector<std::uint64_t> data;
  for (int i = 0; i < count; ++i) {
    data.push_back(events.at(static_cast<std::size_t>(i)).data.u64);
  }
  std::sort(data.begin(), data.end());
  return data;
}

}  // namespace

TEST_CASE("preparing touches nothing of the program", "[retirement]") {
  Scene scene;
  watch(scene.epoll.get(), scene.listener.get(), EPOLLIN, 7);
  const auto before = registrations_of(scene.epoll.get());
  const int flags = ::fcntl(scene.listener.get(), F_GETFL);

  REQUIRE(scene.prepare());

  CHECK(registrations_of(scene.epoll.get()) == before);
  CHECK(::fcntl(scene.listener.get(), F_GETFL) == flags);
  CHECK(scene.program.events.empty());
  CHECK(same_socket(scene.retirement.copy_of(1), scene.listener.get()));
  CHECK(same_socket(scene.retirement.copy_of(2), scene.other.get()));
  CHECK(scene.retirement.copy_of(3) == -1);
  const OwnedFd client = connect_to(name_of(scene.listener.get()));
  CHECK(accepts_from(scene.listener.get()));
}

TEST_CASE("an abandoned preparation keeps no copy of a listener", "[retirement]") {
  Scene scene;
  REQUIRE(scene.prepare());
  const Address name = name_of(scene.listener.get());
  scene.retirement.abandon();
  CHECK(scene.retirement.copy_of(1) == -1);
  scene.listener.reset();
  CHECK_FALSE(connect_to(name).is_open());
}

TEST_CASE("what cannot be prepared keeps no copy of a listener", "[retirement]") {
  const auto code = GENERATE(EMFILE, ENOMEM);
  Scene scene;
  watch(scene.epoll.get(), scene.listener.get(), EPOLLIN, 7);
  int refused = 0;
  const int failures = for_each_failure(scene.sys, code, [&](int n) {
    CAPTURE(n);
    const auto prepared = scene.prepare();
    if (!prepared) {
      ++refused;
      CHECK(scene.retirement.copy_of(1) == -1);
      CHECK(scene.retirement.copy_of(2) == -1);
    }
    scene.retirement.abandon();
  });
  CHECK(failures > 10);
  CHECK(refused > 3);
  CHECK(scene.sys.open().size() <= 1);  // the stand-in
  const Address name = name_of(scene.listener.get());
  scene.listener.reset();
  CHECK_FALSE(connect_to(name).is_open());
}

TEST_CASE("a number that is something else by now is not prepared", "[retirement]") {
  Scene scene;
  const Retirement::Item stale = item(1, scene.listener.get());
  const OwnedFd secret = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  REQUIRE(::dup3(secret.get(), scene.listener.get(), O_CLOEXEC) >= 0);
  CHECK_FALSE(scene.retirement.prepare({stale}).has_value());
  CHECK(scene.retirement.copy_of(1) == -1);
}

TEST_CASE("a retired number is deaf and its queue is kept for the successor", "[retirement]") {
  Scene scene;
  const Address name = name_of(scene.listener.get());
  REQUIRE(scene.prepare());
  const Aside successor(scene.listener.get());
  const OwnedFd before = connect_to(name);

  CHECK(scene.retire());

  const OwnedFd later = connect_to(name);
  REQUIRE(later.is_open());
  CHECK(is_deaf(scene.listener.get()));
  CHECK(accepts_from(successor.get()));
  CHECK(accepts_from(successor.get()));
  CHECK(scene.retirement.is_retired(1));
  CHECK(is_listening(libc_sys(), scene.listener.get()));
}

TEST_CASE("exactly what is named is retired", "[retirement]") {
  Scene scene;
  REQUIRE(scene.prepare());
  CHECK(scene.retire(first));
  const OwnedFd client = connect_to(name_of(scene.other.get()));
  CHECK(accepts_from(scene.other.get()));
  CHECK_FALSE(scene.retirement.is_retired(2));
  REQUIRE(scene.retirement.addresses().size() == 1);
}

TEST_CASE("every copy of a listener goes deaf", "[retirement]") {
  Scene scene;
  const OwnedFd copy = copy_of(scene.listener.get());
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  const OwnedFd client = connect_to(name_of(scene.retirement.copy_of(1)));
  CHECK(is_deaf(scene.listener.get()));
  CHECK(is_deaf(copy.get()));
}

TEST_CASE("close-on-exec of a number stays what it was", "[retirement]") {
  Scene scene;
  const OwnedFd plain = own(::fcntl(scene.listener.get(), F_DUPFD, 0));
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  CHECK(::fcntl(plain.get(), F_GETFD) == 0);
  CHECK(::fcntl(scene.listener.get(), F_GETFD) == FD_CLOEXEC);
  scene.retirement.revive();
  CHECK(::fcntl(plain.get(), F_GETFD) == 0);
  CHECK(::fcntl(scene.listener.get(), F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("the epoll of a retired program watches the stand-in and reports nothing",
          "[retirement]") {
  Scene scene;
  watch(scene.epoll.get(), scene.listener.get(), EPOLLIN, 7);
  const Address name = name_of(scene.listener.get());
  REQUIRE(scene.prepare());
  CHECK(scene.retire());

  const OwnedFd client = connect_to(name);

  CHECK(events_of(scene.epoll.get(), 20).empty());
  const auto lines = registrations_of(scene.epoll.get());
  REQUIRE(lines.size() == 1);
  const auto line = parse_epoll_line(lines[0]);
  CHECK(line->data == 7);
  CHECK(line->inode == socket_inode(libc_sys(), scene.listener.get()));
  // The program may go on as it likes.
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 8}};
  CHECK(::epoll_ctl(scene.epoll.get(), EPOLL_CTL_MOD, scene.listener.get(), &event) == 0);
  CHECK(::epoll_ctl(scene.epoll.get(), EPOLL_CTL_DEL, scene.listener.get(), nullptr) == 0);
}

TEST_CASE("after a revival every registration is what it was, to the letter", "[retirement]") {
  Scene scene;
  const OwnedFd copy = copy_of(scene.listener.get());
  const OwnedFd exclusive = make_epoll();
  watch(scene.epoll.get(), scene.listener.get(), EPOLLIN | EPOLLET, 0xfedcba9876543210U);
  watch(scene.epoll.get(), copy.get(), EPOLLIN | EPOLLONESHOT | EPOLLRDHUP, 2);
  watch(scene.epoll.get(), scene.other.get(), EPOLLIN, 3);
  watch(exclusive.get(), scene.listener.get(), EPOLLIN | EPOLLEXCLUSIVE, 4);
  const auto before = registrations_of(scene.epoll.get());
  const auto before_exclusive = registrations_of(exclusive.get());

  for (int restart = 0; restart < 3; ++restart) {
    REQUIRE(scene.prepare());
    CHECK(scene.retire(both));
    CHECK(registrations_of(scene.epoll.get()) != before);
    scene.retirement.revive();
    CHECK(registrations_of(scene.epoll.get()) == before);
    CHECK(registrations_of(exclusive.get()) == before_exclusive);
    CHECK_FALSE(scene.retirement.any());
  }
}

TEST_CASE("after a revival the program accepts what was queued meanwhile", "[retirement]") {
  Scene scene;
  watch(scene.epoll.get(), scene.listener.get(), EPOLLIN | EPOLLET, 7);
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  const OwnedFd client = connect_to(name_of(scene.retirement.copy_of(1)));
  REQUIRE(events_of(scene.epoll.get(), 20).empty());

  scene.retirement.revive();

  CHECK(events_of(scene.epoll.get(), 1000) == std::vector<std::uint64_t>{7});
  CHECK(accepts_from(scene.listener.get()));
}

TEST_CASE("a one-shot registration that has fired stays silent until the program arms it",
          "[retirement]") {
  Scene scene;
  watch(scene.epoll.get(), scene.listener.get(), EPOLLIN | EPOLLONESHOT, 7);
  const OwnedFd client = connect_to(name_of(scene.listener.get()));
  REQUIRE(events_of(scene.epoll.get(), 1000).size() == 1);
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  CHECK(events_of(scene.epoll.get(), 10).empty());
  scene.retirement.revive();
  CHECK(events_of(scene.epoll.get(), 10).empty());
  epoll_event event{.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = 8}};
  CHECK(::epoll_ctl(scene.epoll.get(), EPOLL_CTL_MOD, scene.listener.get(), &event) == 0);
  CHECK(events_of(scene.epoll.get(), 1000) == std::vector<std::uint64_t>{8});
}

TEST_CASE("no internal copy outlives the program's own after a revival", "[retirement]") {
  Scene scene;
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  const Address name = name_of(scene.retirement.copy_of(1));
  scene.retirement.revive();
  scene.listener.reset();
  CHECK_FALSE(connect_to(name).is_open());  // refused, not queued for ever
}

TEST_CASE("after the probation the copies of what was retired are closed, the others are kept",
          "[retirement]") {
  Scene scene;
  REQUIRE(scene.prepare());
  CHECK(scene.retire(first));
  const Address name = name_of(scene.retirement.copy_of(1));

  scene.retirement.forget_listeners();

  CHECK(scene.retirement.copy_of(1) == -1);
  CHECK_FALSE(connect_to(name).is_open());  // nobody else had one
  // What nobody claimed goes on here, and has a queue that may not be lost.
  CHECK(same_socket(scene.retirement.copy_of(2), scene.other.get()));
  CHECK(scene.retirement.is_retired(1));
}

TEST_CASE("a number that the program closed meanwhile is left alone", "[retirement]") {
  Scene scene;
  const OwnedFd file = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  OwnedFd copy = copy_of(scene.listener.get());
  REQUIRE(scene.prepare());
  const int number = copy.get();
  REQUIRE(::dup3(file.get(), number, O_CLOEXEC) == number);
  CHECK(scene.retire());
  struct stat one {};
  struct stat two {};
  REQUIRE((::fstat(number, &one) == 0 && ::fstat(file.get(), &two) == 0));
  CHECK((one.st_ino == two.st_ino && one.st_dev == two.st_dev));
}

TEST_CASE("a revival leaves alone what the program has put in a stand-in's place", "[retirement]") {
  const bool is_socket = GENERATE(true, false);
  CAPTURE(is_socket);
  Scene scene;
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  // The program closed its listener; the number went to something else.
  const OwnedFd elsewhere = listen_at("127.0.0.1:0");
  const OwnedFd mine = is_socket ? connect_to(name_of(elsewhere.get()))
                                 : own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  REQUIRE(::dup3(mine.get(), scene.listener.get(), O_CLOEXEC) >= 0);

  scene.retirement.revive();

  struct stat one {};
  struct stat two {};
  REQUIRE((::fstat(scene.listener.get(), &one) == 0 && ::fstat(mine.get(), &two) == 0));
  CHECK((one.st_ino == two.st_ino && one.st_dev == two.st_dev));
}

TEST_CASE("a registration that the program removed meanwhile stays removed", "[retirement]") {
  Scene scene;
  watch(scene.epoll.get(), scene.listener.get(), EPOLLIN, 7);
  REQUIRE(scene.prepare());
  REQUIRE(::epoll_ctl(scene.epoll.get(), EPOLL_CTL_DEL, scene.listener.get(), nullptr) == 0);
  CHECK(scene.retire());
  CHECK(registrations_of(scene.epoll.get()).empty());
  scene.retirement.revive();
  CHECK(registrations_of(scene.epoll.get()).empty());
}

TEST_CASE("a registration made between look and swap is found by the sweep", "[retirement]") {
  Scene scene;
  REQUIRE(scene.prepare());
  scene.program.on_lock = [&] {
    scene.program.on_lock = nullptr;
    watch(scene.epoll.get(), scene.listener.get(), EPOLLIN, 7);
  };
  CHECK(scene.go_deaf());
  const OwnedFd client = connect_to(name_of(scene.retirement.copy_of(1)));
  REQUIRE(events_of(scene.epoll.get(), 20).size() == 1);  // the race: an event nobody can stop

  scene.retirement.sweep();

  CHECK(events_of(scene.epoll.get(), 20).empty());
  CHECK(is_deaf(scene.listener.get()));
  CHECK(registrations_of(scene.epoll.get()).size() == 1);
  scene.retirement.revive();
  CHECK(events_of(scene.epoll.get(), 1000) == std::vector<std::uint64_t>{7});
}

TEST_CASE("a copy made between look and swap is found by the sweep", "[retirement]") {
  Scene scene;
  REQUIRE(scene.prepare());
  OwnedFd late;
  scene.program.on_lock = [&] {
    scene.program.on_lock = nullptr;
    late = copy_of(scene.listener.get());
    watch(scene.epoll.get(), late.get(), EPOLLIN, 9);
  };
  CHECK(scene.go_deaf());
  CHECK(same_socket(late.get(), scene.retirement.copy_of(1)));

  scene.retirement.sweep();

  const OwnedFd client = connect_to(name_of(scene.retirement.copy_of(1)));
  CHECK(is_deaf(late.get()));
  CHECK(events_of(scene.epoll.get(), 20).empty());
  scene.retirement.revive();
  CHECK(accepts_from(late.get()));
  CHECK(registrations_of(scene.epoll.get()).size() == 1);
}

TEST_CASE("the copy that is kept is not taken for the program's", "[retirement]") {
  Scene scene;
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  CHECK(same_socket(scene.retirement.copy_of(1), scene.retirement.copy_of(1)));
  CHECK(name_of(scene.retirement.copy_of(1)).port() != name_of(scene.listener.get()).port());
}

TEST_CASE("a blocking listener has a stand-in that does not block until all are swapped",
          "[retirement]") {
  Scene scene("127.0.0.1:0", 0);
  REQUIRE(scene.prepare());
  int flags_while_clearing = 0;
  scene.program.on_clear = [&] {
    flags_while_clearing = ::fcntl(scene.listener.get(), F_GETFL);
    CHECK_FALSE(same_socket(scene.listener.get(), scene.retirement.copy_of(1)));
    scene.program.on_clear = nullptr;
  };
  CHECK(scene.retire());
  CHECK((flags_while_clearing & O_NONBLOCK) != 0);
  CHECK((::fcntl(scene.listener.get(), F_GETFL) & O_NONBLOCK) == 0);
  scene.retirement.revive();
  CHECK((::fcntl(scene.listener.get(), F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE("the program is told of each number, in order and under the lock", "[retirement]") {
  Scene scene("127.0.0.1:0", 0);
  watch(scene.epoll.get(), scene.other.get(), EPOLLIN, 1);
  REQUIRE(scene.prepare());
  CHECK(scene.retire(both));

  REQUIRE(scene.program.events.size() >= 4);
  CHECK(std::vector<std::string>(scene.program.events.begin(), scene.program.events.begin() + 4) ==
        std::vector<std::string>{"retired", "retired", "clear 2", "settled"});
  REQUIRE(scene.program.notes.size() == 2);
  for (const FakeProgram::Note& note : scene.program.notes) {
    const bool is_first = note.fd == scene.listener.get();
    CHECK((is_first || note.fd == scene.other.get()));
    CHECK(note.blocking == is_first);
    CHECK(note.polled == !is_first);
    CHECK(note.locked);
  }
  scene.program.notes.clear();
  scene.retirement.revive();
  REQUIRE(scene.program.notes.size() == 4);
  for (const std::size_t index : {0U, 2U}) {
    CHECK(scene.program.notes[index].what == "reviving");
    CHECK(scene.program.notes[index + 1].what == "revived");
    CHECK(scene.program.notes[index].fd == scene.program.notes[index + 1].fd);
  }
  CHECK(scene.program.locked == 0);
}

TEST_CASE("a program that is deaf and no more than that is taken back", "[retirement]") {
  const auto flags = GENERATE(0, SOCK_NONBLOCK);
  CAPTURE(flags);
  Scene scene("127.0.0.1:0", flags);
  watch(scene.epoll.get(), scene.listener.get(), EPOLLIN, 7);
  const auto before = registrations_of(scene.epoll.get());
  REQUIRE(scene.prepare());
  CHECK(scene.go_deaf());
  // Nobody has swept: the successor died before it could be told.
  CHECK(scene.program.events.back() == "clear 1");
  scene.retirement.revive();
  CHECK(scene.program.events.back() == "settled");
  const OwnedFd client = connect_to(name_of(scene.listener.get()));
  CHECK(accepts_from(scene.listener.get()));
  CHECK((::fcntl(scene.listener.get(), F_GETFL) & O_NONBLOCK) == (flags == 0 ? 0 : O_NONBLOCK));
  CHECK(registrations_of(scene.epoll.get()) == before);
}

TEST_CASE("what the successor set on the listener is put back by a revival", "[retirement]") {
  Scene scene("127.0.0.1:0", 0);
  REQUIRE(::listen(scene.listener.get(), 17) == 0);
  const Aside successor(scene.listener.get());
  const auto backlog = [&] {
    tcp_info info{};
    socklen_t size = sizeof info;
    ::getsockopt(scene.listener.get(), IPPROTO_TCP, TCP_INFO, &info, &size);
    return info.tcpi_sacked;
  };
  REQUIRE(backlog() == 17);
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  ::fcntl(successor.get(), F_SETFL, O_NONBLOCK);
  ::listen(successor.get(), 3);
  scene.retirement.revive();
  CHECK((::fcntl(scene.listener.get(), F_GETFL) & O_NONBLOCK) == 0);
  CHECK(backlog() == 17);
}

TEST_CASE("events that the program changed after the look are kept", "[retirement]") {
  Scene scene;
  watch(scene.epoll.get(), scene.listener.get(), EPOLLIN, 7);
  REQUIRE(scene.prepare());
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = 8}};
  REQUIRE(::epoll_ctl(scene.epoll.get(), EPOLL_CTL_MOD, scene.listener.get(), &event) == 0);
  const auto before = registrations_of(scene.epoll.get());
  CHECK(scene.retire());
  scene.retirement.revive();
  CHECK(registrations_of(scene.epoll.get()) == before);
}

TEST_CASE("a thread that does not come back from accept is told of", "[retirement]") {
  Scene scene;
  REQUIRE(scene.prepare());
  scene.program.accepts_clear = false;
  CHECK_FALSE(scene.retire());
  CHECK(scene.retirement.is_retired(1));
}

TEST_CASE("retiring twice, or what was never prepared, does no harm", "[retirement]") {
  Scene scene;
  constexpr std::array<std::uint32_t, 1> unknown{99};
  CHECK(scene.retire());  // nothing prepared
  REQUIRE(scene.prepare());
  CHECK(scene.retire(unknown));
  CHECK_FALSE(scene.retirement.is_retired(1));
  CHECK(scene.retire());
  CHECK(scene.retire());
  scene.retirement.sweep();
  scene.retirement.revive();
  scene.retirement.revive();
  const OwnedFd client = connect_to(name_of(scene.listener.get()));
  CHECK(accepts_from(scene.listener.get()));
}

TEST_CASE("UNIX and IPv6 listeners retire and revive", "[retirement]") {
  const TempDirectory directory;
  for (const std::string& text : {"unix:" + directory.path() + "/s", std::string("[::1]:0")}) {
    if (text.front() == '[' && !has_ipv6()) {
      WARN("no IPv6 on this machine");
      continue;
    }
    Scene scene(text);
    watch(scene.epoll.get(), scene.listener.get(), EPOLLIN, 7);
    const auto before = registrations_of(scene.epoll.get());
    const Address name = name_of(scene.listener.get());
    REQUIRE(scene.prepare());
    CHECK(scene.retire());
    CHECK(is_deaf(scene.listener.get()));
    const OwnedFd client = connect_to(name);
    REQUIRE(client.is_open());
    CHECK(is_deaf(scene.listener.get()));
    scene.retirement.revive();
    CHECK(accepts_from(scene.listener.get()));
    CHECK(registrations_of(scene.epoll.get()) == before);
    CHECK(scene.directory.entries().empty());
  }
}

TEST_CASE("many listeners retire and revive together", "[retirement]") {
  Scene scene;
  std::vector<OwnedFd> listeners;
  std::vector<Retirement::Item> items;
  std::vector<std::uint32_t> ids;
  for (std::uint32_t id = 1; id <= 100; ++id) {
    listeners.push_back(listen_at("127.0.0.1:0", SOCK_NONBLOCK));
    items.push_back(item(id, listeners.back().get()));
    ids.push_back(id);
    watch(scene.epoll.get(), listeners.back().get(), EPOLLIN, id);
  }
  const auto before = registrations_of(scene.epoll.get());
  REQUIRE(scene.retirement.prepare(items));
  CHECK(scene.retirement.retire(ids, after(scene.sys, second)));
  scene.retirement.sweep();
  CHECK(scene.retirement.addresses().size() == 100);
  for (const OwnedFd& fd : listeners) {
    CHECK(is_deaf(fd.get()));
  }
  scene.retirement.revive();
  CHECK(registrations_of(scene.epoll.get()) == before);
}

TEST_CASE("whatever call fails, a retired program is deaf and a revived one accepts as before",
          "[retirement][fault]") {
  const auto code = GENERATE(EMFILE, ENOMEM, EINTR);
  FakeSys<0> sys;
  const OwnedFd proc = open_proc();
  const OwnedFd listener = listen_at("127.0.0.1:0", SOCK_NONBLOCK);
  const OwnedFd copy = copy_of(listener.get());
  const OwnedFd epoll = make_epoll();
  watch(epoll.get(), listener.get(), EPOLLIN | EPOLLET, 7);
  const auto registrations = registrations_of(epoll.get());
  const Aside spare(listener.get());  // the successor's: no failure may end the queue
  const Address name = name_of(listener.get());
  FakeProgram program;

  const int failures = for_each_failure(sys, code, [&](int n) {
    CAPTURE(code, n);
    {
      Retirement retirement(sys, proc.get(), -1, program, is_ours);
      if (retirement.prepare({item(1, listener.get())})) {
        retirement.retire(first, after(sys, second));
        retirement.sweep();
        const OwnedFd client = connect_to(name);
        CAPTURE(sys.failed_call());
        CHECK(is_deaf(listener.get()));
        CHECK(is_deaf(copy.get()));
        retirement.revive();
        CAPTURE(sys.failed_call());
        CHECK(accepts_from(listener.get()));
      }
    }
    CHECK(sys.open().empty());
    CHECK(same_socket(listener.get(), spare.get()));
    CHECK(same_socket(copy.get(), spare.get()));
    CHECK(registrations_of(epoll.get()) == registrations);
    // For the next one, whatever this one left behind.
    ::dup3(spare.get(), listener.get(), O_CLOEXEC);
    ::dup3(spare.get(), copy.get(), O_CLOEXEC);
    if (registrations_of(epoll.get()) != registrations) {
      ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, listener.get(), nullptr);
      watch(epoll.get(), listener.get(), EPOLLIN | EPOLLET, 7);
    }
  });
  CHECK(failures > 20);
}

}  // namespace continuity::test
