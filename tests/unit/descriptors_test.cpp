// Finding listeners by looking at what the process has open.
#include "core/descriptors.hpp"

#include "fake_program.hpp"
#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <sys/eventfd.h>
#include <unistd.h>

namespace continuity::test {
namespace {

Holdings find(const Sys& sys, int fd) {
  const OwnedFd proc = open_proc();
  const std::array<std::uint64_t, 1> inodes{socket_inode(libc_sys(), fd)};
  auto found = Descriptors(sys, proc.get()).find(inodes, is_ours);
  REQUIRE(found.has_value());
  return std::move(*found);
}

std::vector<int> numbers(const Holdings& holdings) {
  std::vector<int> fds;
  for (const Copy& copy : holdings.copies) {
    fds.push_back(copy.fd);
  }
  std::sort(fds.begin(), fds.end());
  return fds;
}

unsigned count_connections(std::initializer_list<Address> addresses) {
  const OwnedFd proc = open_proc();
  const std::vector<Address> list(addresses);
  const auto found = Descriptors(libc_sys(), proc.get()).find_connections(list, is_ours);
  REQUIRE(found.has_value());
  return found->count;
}

}  // namespace

TEST_CASE("a line of an epoll's list is read to the last bit", "[descriptors]") {
  const auto line = parse_epoll_line(
      "tfd:        5 events: c0000001 data: fedcba9876543210  pos:0 ino:1a2b sdev:8");
  REQUIRE(line.has_value());
  CHECK(line->fd == 5);
  CHECK(line->events == 0xc0000001U);
  CHECK(line->data == 0xfedcba9876543210U);
  CHECK(line->inode == 0x1a2bU);
}

TEST_CASE("events that the kernel reports unasked are not asked for again", "[descriptors]") {
  const auto line = parse_epoll_line("tfd: 5 events: 19 data: 5 pos:0 ino:1 sdev:8");
  REQUIRE(line.has_value());
  CHECK(line->events == EPOLLIN);
}

TEST_CASE("any other line is not a registration", "[descriptors]") {
  for (const char* line : {"", "pos:\t0", "flags:\t02", "mnt_id:\t15", "ino:\t2057",
                           "tfd:", "tfd: 5", "tfd: x events: 1", "tfd: 5 events: 19 data: 5 pos:0",
                           "tfd: 99999999999 events: 19 data: 5 pos:0 ino:1",
                           "tfd: 5 events: 19 data: 5 pos:0 ino:", "eventfd-count: 0"}) {
    CAPTURE(line);
    CHECK_FALSE(parse_epoll_line(line).has_value());
  }
}

TEST_CASE("every number of a listener is found, and no other socket", "[descriptors]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd other = listen_at("127.0.0.1:0");
  const OwnedFd copy = copy_of(listener.get());
  const OwnedFd third = copy_of(listener.get());
  std::vector<int> expected{listener.get(), copy.get(), third.get()};
  std::sort(expected.begin(), expected.end());
  CHECK(numbers(find(libc_sys(), listener.get())) == expected);
}

TEST_CASE("numbers that are ours are not found", "[descriptors]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const Aside kept(listener.get());
  const auto holdings = find(libc_sys(), listener.get());
  CHECK(numbers(holdings) == std::vector<int>{listener.get()});
}

TEST_CASE("registrations are found with their events and data, dups too", "[descriptors]") {
  const OwnedFd listener = listen_at("127.0.0.1:0", SOCK_NONBLOCK);
  const OwnedFd copy = copy_of(listener.get());
  const OwnedFd other = listen_at("127.0.0.1:0");
  const OwnedFd level = make_epoll();
  const OwnedFd exclusive = make_epoll();
  watch(level.get(), listener.get(), EPOLLIN, 0xfedcba9876543210U);
  watch(level.get(), copy.get(), EPOLLIN | EPOLLET | EPOLLRDHUP, 2);
  watch(level.get(), other.get(), EPOLLIN, 3);
  watch(exclusive.get(), listener.get(), EPOLLIN | EPOLLEXCLUSIVE, 4);
  watch(exclusive.get(), copy.get(), EPOLLIN | EPOLLONESHOT, 5);

  auto found = find(libc_sys(), listener.get()).registrations;

  std::sort(found.begin(), found.end(), [](const Registration& a, const Registration& b) {
    return std::pair(a.epoll, a.fd) < std::pair(b.epoll, b.fd);
  });
  REQUIRE(found.size() == 4);
  const auto is = [&](std::size_t index, int epoll, int fd, std::uint32_t events,
                      std::uint64_t data) {
    const Registration& one = found[index];
    return one.epoll == epoll && one.fd == fd && one.events == events && one.data == data;
  };
  CHECK(is(0, level.get(), listener.get(), EPOLLIN, 0xfedcba9876543210U));
  CHECK(is(1, level.get(), copy.get(), EPOLLIN | EPOLLET | EPOLLRDHUP, 2));
  CHECK(is(2, exclusive.get(), listener.get(), EPOLLIN | EPOLLEXCLUSIVE, 4));
  CHECK(is(3, exclusive.get(), copy.get(), EPOLLIN | EPOLLONESHOT, 5));
}

TEST_CASE("a one-shot registration that has fired is found as it is now", "[descriptors]") {
  const OwnedFd listener = listen_at("127.0.0.1:0", SOCK_NONBLOCK);
  const OwnedFd epoll = make_epoll();
  watch(epoll.get(), listener.get(), EPOLLIN | EPOLLONESHOT, 7);
  const OwnedFd client = connect_to(name_of(listener.get()));
  epoll_event event{};
  REQUIRE(::epoll_wait(epoll.get(), &event, 1, 1000) == 1);

  const auto found = find(libc_sys(), listener.get()).registrations;

  REQUIRE(found.size() == 1);
  CHECK(found[0].events == EPOLLONESHOT);
  CHECK(found[0].data == 7);
}

TEST_CASE("10,000 registrations in pieces of any size are all read", "[descriptors]") {
  std::string text = "pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t2057\n";
  for (int i = 0; i < 10'000; ++i) {
    text += "tfd: " + std::to_string(i) + " events: 19 data: " + std::to_string(i) +
            " pos:0 ino:" + (i % 1000 == 7 ? "abc" : "abcd") + " sdev:8\n";
  }
  const auto piece = GENERATE(std::size_t{97}, std::size_t{4096}, std::size_t{262'144});
  FakeSys<0> sys;
  std::size_t at = 0;
  sys.hooks.read = [&](int, void* buffer, std::size_t size) {
    const std::size_t part = std::min({piece, size, text.size() - at});
    std::memcpy(buffer, text.data() + at, part);
    at += part;
    return static_cast<ssize_t>(part);
  };
  const OwnedFd epoll = make_epoll();
  const OwnedFd proc = open_proc();
  std::vector<Registration> found;
  const std::array<std::uint64_t, 1> inodes{0xabc};

  REQUIRE(Descriptors(sys, proc.get()).find_in_epoll(epoll.get(), inodes, found).has_value());

  REQUIRE(found.size() == 10);
  CHECK(found.front().fd == 7);
  CHECK(found.back().fd == 9007);
  CHECK(found.back().epoll == epoll.get());
  CHECK(sys.open().empty());
}

TEST_CASE("an epoll closed while we look is no failure", "[descriptors]") {
  FakeSys<0> sys;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  OwnedFd epoll = make_epoll();
  watch(epoll.get(), listener.get(), EPOLLIN, 1);
  sys.hooks.readlinkat = [&](int dir, const char* path, char* buffer, std::size_t size) {
    const ssize_t length = ::readlinkat(dir, path, buffer, size);
    if (std::to_string(epoll.get()) == path) {
      epoll.reset();
    }
    return length;
  };
  const Holdings holdings = find(sys, listener.get());
  CHECK_FALSE(epoll.is_open());
  CHECK(holdings.registrations.empty());
  CHECK(numbers(holdings) == std::vector<int>{listener.get()});
}

TEST_CASE("a look that cannot be finished says so and leaves nothing open", "[descriptors]") {
  const auto code = GENERATE(EMFILE, ENOMEM);
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd epoll = make_epoll();
  watch(epoll.get(), listener.get(), EPOLLIN, 1);
  const OwnedFd proc = open_proc();
  const std::array<std::uint64_t, 1> inodes{socket_inode(libc_sys(), listener.get())};
  FakeSys<0> sys;
  const int failures = for_each_failure(sys, code, [&](int n) {
    CAPTURE(n);
    const auto found = Descriptors(sys, proc.get()).find(inodes, is_ours);
    CHECK((found.has_value() || found.error().code == code));
    CHECK(sys.open().empty());
  });
  CHECK(failures > 5);
}

TEST_CASE("accepted connections count, until they are closed", "[descriptors]") {
  const auto* text = GENERATE("127.0.0.1:0", "0.0.0.0:0");
  const OwnedFd listener = listen_at(text);
  const Address name = name_of(listener.get());
  CHECK(count_connections({name}) == 0);

  const Address reached = address("127.0.0.1:" + std::to_string(name.port()));
  const OwnedFd client = connect_to(reached);
  CHECK(count_connections({name}) == 0);  // queued: nobody's yet
  OwnedFd accepted = own(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  CHECK(count_connections({name}) == 1);
  const OwnedFd copy = copy_of(accepted.get());
  accepted.reset();
  CHECK(count_connections({name}) == 1);
  CHECK(count_connections({address("127.0.0.1:1")}) == 0);
  CHECK(count_connections({}) == 0);
}

TEST_CASE("connections of a UNIX listener count", "[descriptors]") {
  const TempDirectory directory;
  const OwnedFd listener = listen_at("unix:" + directory.path() + "/s");
  const Address name = name_of(listener.get());
  const OwnedFd client = connect_to(name);
  CHECK(count_connections({name}) == 0);
  const OwnedFd accepted = own(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  CHECK(count_connections({name}) == 1);
}

namespace {

struct Served {
  explicit Served(const std::string& text) : listener(listen_at(text)) {}
  [[nodiscard]] static bool send(int fd, std::string_view bytes) {
    return ::send(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
  }
  // What the program would read now: its size, 0 for the end; -1: nothing.
  [[nodiscard]] ssize_t read() const {
    std::array<char, 64> buffer{};
    return ::recv(accepted.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  }
  void finish_idle() const {
    FakeSys<0> sys;
    const OwnedFd proc = open_proc();
    const std::array<Address, 1> addresses{name_of(listener.get())};
    REQUIRE(Descriptors(sys, proc.get()).finish_idle(addresses, is_ours).has_value());
    CHECK(sys.open().empty());
  }

  OwnedFd listener;
  OwnedFd client = connect_to(name_of(listener.get()));
  OwnedFd accepted = own(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
};

// The kernel's times of a connection are in ticks, of 10 ms at the most.
void let_a_tick_pass() {
  const timespec tick{.tv_sec = 0, .tv_nsec = 12'000'000};
  ::nanosleep(&tick, nullptr);
}

}  // namespace

TEST_CASE("an idle connection is told to end, and what comes late is read all the same",
          "[descriptors]") {
  const TempDirectory directory;
  const bool is_unix = GENERATE(false, true);
  const Served served(is_unix ? "unix:" + directory.path() + "/s" : "127.0.0.1:0");
  const bool used = GENERATE(false, true);
  CAPTURE(is_unix, used);
  if (used) {
    REQUIRE(served.send(served.client.get(), "request"));
    REQUIRE(becomes_readable(served.accepted.get()));
    REQUIRE(served.read() == 7);
    REQUIRE(served.send(served.accepted.get(), "answer"));
    REQUIRE(becomes_readable(served.client.get()));
    std::array<char, 64> buffer{};
    REQUIRE(::recv(served.client.get(), buffer.data(), buffer.size(), 0) == 6);
  }
  REQUIRE(served.read() == -1);
  served.finish_idle();
  CHECK(becomes_readable(served.accepted.get()));
  CHECK(served.read() == 0);
  if (!is_unix) {
    REQUIRE(served.send(served.client.get(), "late"));
    let_a_tick_pass();
    CHECK(served.read() == 4);
    CHECK(served.read() == 0);
  }
  CHECK(served.send(served.accepted.get(), "goodbye"));
}

TEST_CASE("a connection on which something is under way is not told to end", "[descriptors]") {
  const Served served("127.0.0.1:0");
  const std::string what = GENERATE("not read", "not answered", "not answered after an answer");
  CAPTURE(what);
  if (what == "not answered after an answer") {
    REQUIRE(served.send(served.client.get(), "first"));
    REQUIRE(becomes_readable(served.accepted.get()));
    REQUIRE(served.read() == 5);
    REQUIRE(served.send(served.accepted.get(), "answer"));
    let_a_tick_pass();
  }
  REQUIRE(served.send(served.client.get(), "request"));
  REQUIRE(becomes_readable(served.accepted.get()));
  if (what != "not read") {
    REQUIRE(served.read() == 7);
  }
  served.finish_idle();
  CHECK(served.read() == (what == "not read" ? 7 : -1));
}

TEST_CASE("a connection whose answer has not been taken is not told to end", "[descriptors]") {
  const Served served("127.0.0.1:0");
  const std::string large(std::size_t{16} * 1024 * 1024, 'x');
  REQUIRE(::send(served.accepted.get(), large.data(), large.size(), MSG_DONTWAIT) > 0);
  served.finish_idle();
  CHECK(served.read() == -1);
}

TEST_CASE("listeners, clients and other sockets are no connections of ours", "[descriptors]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd copy = copy_of(listener.get());
  const OwnedFd elsewhere = listen_at("127.0.0.1:0");
  const OwnedFd client = connect_to(name_of(elsewhere.get()));
  const OwnedFd counter = own(::eventfd(0, EFD_CLOEXEC));
  CHECK(count_connections({name_of(listener.get())}) == 0);
}

TEST_CASE("a datagram socket on the port of a listener is no connection", "[descriptors]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const Address name = name_of(listener.get());
  const OwnedFd datagrams = own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(datagrams.get(), name.get(), name.length) == 0);
  CHECK(count_connections({name}) == 0);
}

}  // namespace continuity::test
