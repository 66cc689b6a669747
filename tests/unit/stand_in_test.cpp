// The deaf socket: nobody can reach it, and the program cannot tell.
#include "core/stand_in.hpp"

#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

namespace continuity::test {
namespace {

// Long enough for a handshake on the loopback, which needs microseconds.
constexpr Nanoseconds a_while = 30 * millisecond;

bool can_connect(const Address& where, int type = SOCK_STREAM) {
  const OwnedFd fd = own(::socket(where.family(), type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), where.get(), where.length) == 0) {
    return true;
  }
  pollfd entry{.fd = fd.get(), .events = POLLOUT, .revents = 0};
  const timespec timeout = to_timespec(a_while);
  return errno == EINPROGRESS && ::ppoll(&entry, 1, &timeout, nullptr) > 0 &&
         (entry.revents & POLLERR) == 0;
}

int stand_in_for(StandIns& stand_ins, int fd, bool blocking = false) {
  const auto stand_in = stand_ins.get(fd, described(fd), blocking);
  REQUIRE(stand_in.has_value());
  return *stand_in;
}

// At every address of that port.
OwnedFd listen_beside(const Address& other) {
  OwnedFd fd = own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(listen_in_group(fd, address("0.0.0.0:" + std::to_string(other.port()))));
  return fd;
}

}  // namespace

TEST_CASE("nobody can connect to a stand-in for TCP", "[stand-in]") {
  const auto* text = GENERATE("127.0.0.1:0", "[::1]:0");
  if (*text == '[' && !has_ipv6()) {
    WARN("no IPv6 on this machine");
    return;
  }
  const OwnedFd listener = listen_at(text);
  REQUIRE(can_connect(name_of(listener.get())));
  StandIns stand_ins(libc_sys(), -1);

  const int fd = stand_in_for(stand_ins, listener.get());

  CHECK(is_listening(libc_sys(), fd));
  CHECK(name_of(fd).family() == address(text).family());
  CHECK_FALSE(can_connect(name_of(fd)));
  CHECK(::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC) < 0);
  CHECK(errno == EAGAIN);
}

// Dropping every packet instead would cut off who has begun to connect.
TEST_CASE("a listener that is closed to newcomers twice is so in the same way", "[stand-in]") {
  const auto least_hops = [](int fd) {
    int hops = 0;
    socklen_t size = sizeof hops;
    ::getsockopt(fd, IPPROTO_IP, IP_MINTTL, &hops, &size);
    return hops;
  };
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const Listener what = described(listener.get());
  REQUIRE(close_to_newcomers(libc_sys(), listener.get(), what, false).has_value());
  const int once = least_hops(listener.get());

  CHECK(close_to_newcomers(libc_sys(), listener.get(), what, false).has_value());

  CHECK(least_hops(listener.get()) == once);
  CHECK_FALSE(can_connect(name_of(listener.get())));
}

TEST_CASE("a listener that was closed to newcomers lets them in again", "[stand-in]") {
  const bool grouped = GENERATE(false, true);
  CAPTURE(grouped);
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const Listener what = described(listener.get());
  REQUIRE(close_to_newcomers(libc_sys(), listener.get(), what, grouped).has_value());
  REQUIRE_FALSE(can_connect(name_of(listener.get())));

  open_to_newcomers(libc_sys(), listener.get(), what);

  CHECK(can_connect(name_of(listener.get())));
}

TEST_CASE("newcomers of a closed listener come to the next that fits, its queue stays",
          "[stand-in]") {
  const int on = 1;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const Address where = name_of(listener.get());
  ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  const OwnedFd next = listen_beside(where);
  const OwnedFd queued = connect_to(where);
  REQUIRE(becomes_readable(listener.get()));
  REQUIRE(
      close_to_newcomers(libc_sys(), listener.get(), described(listener.get()), false).has_value());
  if (!is_passed_over(libc_sys(), listener.get())) {
    WARN("without CAP_NET_RAW newcomers are turned away for a moment");
    return;
  }

  const OwnedFd newcomer = connect_to(where);

  CHECK(becomes_readable(next.get()));
  const OwnedFd accepted = own(::accept(listener.get(), nullptr, nullptr));
  CHECK(accepted.is_open());
}

TEST_CASE("the filter of a stand-in cannot be taken off again", "[stand-in]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  StandIns stand_ins(libc_sys(), -1);
  const int fd = stand_in_for(stand_ins, listener.get());
  const int unused = 0;
  CHECK(::setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused) != 0);
  CHECK_FALSE(can_connect(name_of(fd)));
}

TEST_CASE("a stand-in for UNIX leaves no file and cannot be connected to", "[stand-in]") {
  const auto type = GENERATE(SOCK_STREAM, SOCK_SEQPACKET);
  const TempDirectory directory;
  const TempDirectory room;
  const OwnedFd listener = listen_at("unix:" + directory.path() + "/s", 0, type);
  REQUIRE(can_connect(name_of(listener.get()), type));
  const OwnedFd place = open_directory(room);
  StandIns stand_ins(libc_sys(), place.get());

  const int fd = stand_in_for(stand_ins, listener.get());

  CHECK(room.entries().empty());
  CHECK(is_listening(libc_sys(), fd));
  CHECK(described(fd).type == type);
  CHECK(name_of(fd).family() == AF_UNIX);
  CHECK(name_of(fd).abstract_name().empty());
  CHECK_FALSE(can_connect(name_of(fd), type));
}

TEST_CASE("a stand-in blocks if it is to, and is the same one for the same kind", "[stand-in]") {
  const OwnedFd one = listen_at("127.0.0.1:0");
  const OwnedFd two = listen_at("127.0.0.1:0");
  FakeSys<0> sys;
  StandIns stand_ins(sys, -1);
  const int polled = stand_in_for(stand_ins, one.get(), false);
  const int blocking = stand_in_for(stand_ins, one.get(), true);
  CHECK((::fcntl(polled, F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(blocking, F_GETFL) & O_NONBLOCK) == 0);
  CHECK((::fcntl(polled, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(polled != blocking);
  CHECK(stand_in_for(stand_ins, two.get(), false) == polled);
  CHECK(stand_in_for(stand_ins, two.get(), true) == blocking);
  CHECK(sys.open().size() == 2);
  stand_ins.clear();
  CHECK(sys.open().empty());
}

TEST_CASE("a stand-in has the receive time-out of its listener", "[stand-in]") {
  const OwnedFd patient = listen_at("127.0.0.1:0");
  const OwnedFd hasty = listen_at("127.0.0.1:0");
  const timeval timeout{.tv_sec = 0, .tv_usec = 20'000};
  ::setsockopt(hasty.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  StandIns stand_ins(libc_sys(), -1);

  const int fd = stand_in_for(stand_ins, hasty.get(), true);

  CHECK(fd != stand_in_for(stand_ins, patient.get(), true));
  CHECK(::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC) < 0);  // comes back by itself
  CHECK(errno == EAGAIN);
}

TEST_CASE("a stand-in that is polled is neither readable nor broken", "[stand-in]") {
  const TempDirectory directory;
  const OwnedFd place = open_directory(directory);
  for (const std::string& text : {std::string("127.0.0.1:0"), "unix:" + directory.path() + "/s"}) {
    const OwnedFd listener = listen_at(text);
    StandIns stand_ins(libc_sys(), place.get());
    pollfd entry{.fd = stand_in_for(stand_ins, listener.get()),
                 .events = POLLIN | POLLOUT | POLLRDHUP,
                 .revents = 0};
    const timespec at_once{};
    CHECK(::ppoll(&entry, 1, &at_once, nullptr) == 0);
  }
}

TEST_CASE("where a stand-in cannot be made, nothing is left open", "[stand-in]") {
  const auto code = GENERATE(EMFILE, ENOMEM, EINTR);
  const TempDirectory directory;
  const TempDirectory room;
  const OwnedFd place = open_directory(room);
  const OwnedFd tcp = listen_at("127.0.0.1:0");
  const OwnedFd local = listen_at("unix:" + directory.path() + "/s");
  for (const OwnedFd* listener : {&tcp, &local}) {
    FakeSys<0> sys;
    const Listener kind = described(listener->get());
    const int failures = for_each_failure(sys, code, [&](int n) {
      CAPTURE(n);
      StandIns stand_ins(sys, place.get());
      const auto stand_in = stand_ins.get(listener->get(), kind, false);
      CHECK(sys.open().size() == (stand_in ? 1 : 0));
      stand_ins.clear();
      CHECK(sys.open().empty());
      for (const std::string& name : room.entries()) {  // unlink was what failed
        ::unlink((room.path() + "/" + name).c_str());
      }
    });
    CHECK(failures >= 6);
  }
}

TEST_CASE("a UNIX stand-in is refused where there is no directory for it", "[stand-in]") {
  const TempDirectory directory;
  const OwnedFd listener = listen_at("unix:" + directory.path() + "/s");
  FakeSys<0> sys;
  StandIns stand_ins(sys, -1);
  const auto stand_in = stand_ins.get(listener.get(), described(listener.get()), false);
  CHECK_FALSE(stand_in.has_value());
  CHECK(sys.open().empty());
}

}  // namespace continuity::test
