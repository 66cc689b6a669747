// Options that a program set on its own socket arrive on the listener.
#include "core/socket_options.hpp"

#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>

namespace continuity::test {
namespace {

int get(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  ::getsockopt(fd, level, name, &value, &size);
  return value;
}

bool set(int fd, int level, int name, int value) {
  return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

OwnedFd model_of(int family = AF_INET) {
  return own(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

struct Setting {
  int level;
  int name;
  int value;
};

}  // namespace

TEST_CASE("nothing is changed where the program set nothing", "[options][socket]") {
  FakeSys<0> sys;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd model = model_of();

  const CarriedOver result = carry_over(sys, model.get(), listener.get());

  CHECK(result.changed == 0);
  CHECK(result.failed == 0);
  CHECK(sys.count(Call::setsockopt) == 0);
  CHECK(sys.open().empty());
}

TEST_CASE("each option that was set is carried over, and nothing else", "[options][socket]") {
  const auto setting = GENERATE(values<Setting>({
      {SOL_SOCKET, SO_KEEPALIVE, 1},
      {SOL_SOCKET, SO_OOBINLINE, 1},
      {SOL_SOCKET, SO_DONTROUTE, 1},
      {SOL_SOCKET, SO_PRIORITY, 3},
      {SOL_SOCKET, SO_RCVLOWAT, 7},
      {SOL_SOCKET, SO_TIMESTAMP, 1},
      {IPPROTO_IP, IP_TOS, 0x10},
      {IPPROTO_IP, IP_TTL, 33},
      {IPPROTO_IP, IP_FREEBIND, 1},
      {IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT},
      {IPPROTO_TCP, TCP_NODELAY, 1},
      {IPPROTO_TCP, TCP_KEEPIDLE, 77},
      {IPPROTO_TCP, TCP_KEEPINTVL, 11},
      {IPPROTO_TCP, TCP_KEEPCNT, 4},
      {IPPROTO_TCP, TCP_USER_TIMEOUT, 12345},
      {IPPROTO_TCP, TCP_DEFER_ACCEPT, 30},
      {IPPROTO_TCP, TCP_SYNCNT, 4},
      {IPPROTO_TCP, TCP_LINGER2, 9},
      {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384},
  }));
  CAPTURE(setting.level, setting.name);
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd model = model_of();
  REQUIRE(set(model.get(), setting.level, setting.name, setting.value));
  REQUIRE(get(model.get(), setting.level, setting.name) !=
          get(listener.get(), setting.level, setting.name));
  CHECK(is_carried_over(setting.level, setting.name));

  const CarriedOver result = carry_over(libc_sys(), model.get(), listener.get());

  CHECK(result.changed >= 1);
  CHECK(result.failed == 0);
  CHECK(get(listener.get(), setting.level, setting.name) ==
        get(model.get(), setting.level, setting.name));
  const CarriedOver again = carry_over(libc_sys(), model.get(), listener.get());
  CHECK(again.changed == 0);
}

TEST_CASE("each option of a datagram socket that was set is carried over", "[options][socket]") {
  const auto setting = GENERATE(values<Setting>({{SOL_SOCKET, SO_BROADCAST, 1},
                                                 {SOL_SOCKET, SO_TIMESTAMPNS, 1},
                                                 {SOL_SOCKET, SO_RXQ_OVFL, 1},
                                                 {SOL_SOCKET, SO_PRIORITY, 3},
                                                 {IPPROTO_IP, IP_PKTINFO, 1},
                                                 {IPPROTO_IP, IP_RECVTTL, 1},
                                                 {IPPROTO_IP, IP_RECVERR, 1},
                                                 {IPPROTO_IP, IP_MULTICAST_TTL, 7},
                                                 {IPPROTO_IP, IP_MULTICAST_LOOP, 0},
                                                 {IPPROTO_UDP, UDP_GRO, 1}}));
  CAPTURE(setting.level, setting.name);
  const OwnedFd listener = own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const OwnedFd model = own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  REQUIRE(set(model.get(), setting.level, setting.name, setting.value));
  REQUIRE(get(listener.get(), setting.level, setting.name) !=
          get(model.get(), setting.level, setting.name));

  const CarriedOver result = carry_over(libc_sys(), model.get(), listener.get());

  CHECK(result.changed == 1);
  CHECK(result.failed == 0);
  CHECK(get(listener.get(), setting.level, setting.name) ==
        get(model.get(), setting.level, setting.name));
  CHECK(is_carried_over(setting.level, setting.name));
}

TEST_CASE("an option that is changed by setting another one is as the program has it",
          "[options][socket]") {
  const OwnedFd listener = own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const OwnedFd model = own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  // IP_TOS sets the priority; each of the two kinds of times ends the other.
  REQUIRE(set(model.get(), IPPROTO_IP, IP_TOS, 0x10));
  REQUIRE(set(model.get(), SOL_SOCKET, SO_PRIORITY, 0));
  REQUIRE(set(model.get(), SOL_SOCKET, SO_TIMESTAMP, 1));
  REQUIRE(set(listener.get(), SOL_SOCKET, SO_TIMESTAMPNS, 1));

  CHECK(carry_over(libc_sys(), model.get(), listener.get()).failed == 0);

  CHECK(get(listener.get(), SOL_SOCKET, SO_PRIORITY) == 0);
  CHECK(get(listener.get(), SOL_SOCKET, SO_TIMESTAMP) == 1);
  CHECK(compare_options(libc_sys(), model.get(), listener.get()).empty());
}

TEST_CASE("an option that the predecessor had and the program did not set is set back",
          "[options][socket]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  REQUIRE(set(listener.get(), SOL_SOCKET, SO_KEEPALIVE, 1));
  REQUIRE(set(listener.get(), IPPROTO_TCP, TCP_NODELAY, 1));

  carry_over(libc_sys(), model_of().get(), listener.get());

  CHECK(get(listener.get(), SOL_SOCKET, SO_KEEPALIVE) == 0);
  CHECK(get(listener.get(), IPPROTO_TCP, TCP_NODELAY) == 0);
}

TEST_CASE("a priority survives a type of service that implies another", "[options][socket]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd model = model_of();
  REQUIRE(set(model.get(), IPPROTO_IP, IP_TOS, 0x08));
  REQUIRE(set(model.get(), SOL_SOCKET, SO_PRIORITY, 3));

  carry_over(libc_sys(), model.get(), listener.get());

  CHECK(get(listener.get(), IPPROTO_IP, IP_TOS) == 0x08);
  CHECK(get(listener.get(), SOL_SOCKET, SO_PRIORITY) == 3);
}

TEST_CASE("linger and time-outs are carried over whole", "[options][socket]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd model = model_of();
  const linger lingering{.l_onoff = 1, .l_linger = 5};
  const timeval timeout{.tv_sec = 3, .tv_usec = 500'000};
  REQUIRE(::setsockopt(model.get(), SOL_SOCKET, SO_LINGER, &lingering, sizeof lingering) == 0);
  REQUIRE(::setsockopt(model.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
  REQUIRE(::setsockopt(model.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0);

  const CarriedOver result = carry_over(libc_sys(), model.get(), listener.get());

  CHECK(result.changed == 3);
  linger got{};
  socklen_t size = sizeof got;
  ::getsockopt(listener.get(), SOL_SOCKET, SO_LINGER, &got, &size);
  CHECK((got.l_onoff == 1 && got.l_linger == 5));
  timeval time{};
  size = sizeof time;
  ::getsockopt(listener.get(), SOL_SOCKET, SO_RCVTIMEO, &time, &size);
  CHECK((time.tv_sec == 3 && time.tv_usec >= 500'000 && time.tv_usec < 510'000));
}

TEST_CASE("a buffer size is carried over only if the program chose one", "[options][socket]") {
  const auto name = GENERATE(SO_RCVBUF, SO_SNDBUF);
  const OwnedFd listener = listen_at("127.0.0.1:0");
  REQUIRE(set(listener.get(), SOL_SOCKET, name, 20'000));
  const int before = get(listener.get(), SOL_SOCKET, name);
  const OwnedFd model = model_of();
  REQUIRE(get(model.get(), SOL_SOCKET, name) != before);

  CHECK(carry_over(libc_sys(), model.get(), listener.get()).changed == 0);
  CHECK(get(listener.get(), SOL_SOCKET, name) == before);

  REQUIRE(set(model.get(), SOL_SOCKET, name, 30'000));
  CHECK(carry_over(libc_sys(), model.get(), listener.get()).changed == 1);
  CHECK(get(listener.get(), SOL_SOCKET, name) == get(model.get(), SOL_SOCKET, name));
}

TEST_CASE("SO_REUSEPORT and SO_REUSEADDR are switched on, never off", "[options][socket]") {
  const auto name = GENERATE(SO_REUSEPORT, SO_REUSEADDR);
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd model = model_of();
  REQUIRE(set(model.get(), SOL_SOCKET, name, 1));

  CHECK(carry_over(libc_sys(), model.get(), listener.get()).changed == 1);
  CHECK(get(listener.get(), SOL_SOCKET, name) == 1);

  REQUIRE(set(model.get(), SOL_SOCKET, name, 0));
  CHECK(carry_over(libc_sys(), model.get(), listener.get()).changed == 0);
  CHECK(get(listener.get(), SOL_SOCKET, name) == 1);
}

TEST_CASE("O_NONBLOCK is carried over both ways", "[options][socket]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd model = model_of();
  ::fcntl(model.get(), F_SETFL, O_NONBLOCK);
  CHECK(carry_over(libc_sys(), model.get(), listener.get()).changed == 1);
  CHECK((::fcntl(listener.get(), F_GETFL) & O_NONBLOCK) != 0);

  ::fcntl(model.get(), F_SETFL, 0);
  CHECK(carry_over(libc_sys(), model.get(), listener.get()).changed == 1);
  CHECK((::fcntl(listener.get(), F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE("IPv6 and UNIX listeners have their options carried over", "[options][socket]") {
  const TempDirectory directory;
  const OwnedFd local = listen_at("unix:" + directory.path() + "/s");
  const OwnedFd local_model = model_of(AF_UNIX);
  REQUIRE(set(local_model.get(), SOL_SOCKET, SO_PASSCRED, 1));
  const CarriedOver result = carry_over(libc_sys(), local_model.get(), local.get());
  CHECK(result.changed == 1);
  CHECK(result.failed == 0);
  CHECK(get(local.get(), SOL_SOCKET, SO_PASSCRED) == 1);

  if (has_ipv6()) {
    const OwnedFd v6 = listen_at("[::1]:0");
    const OwnedFd v6_model = model_of(AF_INET6);
    REQUIRE(set(v6_model.get(), IPPROTO_IPV6, IPV6_TCLASS, 0x20));
    REQUIRE(set(v6_model.get(), IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9));
    CHECK(carry_over(libc_sys(), v6_model.get(), v6.get()).changed >= 2);
    CHECK(get(v6.get(), IPPROTO_IPV6, IPV6_TCLASS) == 0x20);
    CHECK(get(v6.get(), IPPROTO_IPV6, IPV6_UNICAST_HOPS) == 9);
  }
}

TEST_CASE("what the kernel will not change is counted, and the rest is changed all the same",
          "[options][socket]") {
  FakeSys<0> sys;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd model = model_of();
  REQUIRE(set(model.get(), SOL_SOCKET, SO_KEEPALIVE, 1));
  REQUIRE(set(model.get(), IPPROTO_TCP, TCP_NODELAY, 1));
  sys.fail_next(Call::setsockopt, EPERM);

  const CarriedOver result = carry_over(sys, model.get(), listener.get());

  CHECK(result.failed == 1);
  CHECK(result.changed == 1);
  CHECK(get(listener.get(), IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(sys.open().empty());
}

TEST_CASE("what would be carried over is told, and nothing is changed", "[options][socket]") {
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd model = model_of();
  CHECK(compare_options(libc_sys(), model.get(), listener.get()).empty());
  REQUIRE(set(model.get(), IPPROTO_TCP, TCP_KEEPCNT, 7));
  const int before = get(listener.get(), IPPROTO_TCP, TCP_KEEPCNT);
  const auto changes = compare_options(libc_sys(), model.get(), listener.get());
  REQUIRE(changes.size() == 1);
  CHECK(changes[0].level == IPPROTO_TCP);
  CHECK(changes[0].name == TCP_KEEPCNT);
  CHECK(changes[0].before == before);
  CHECK(changes[0].after == 7);
  CHECK(get(listener.get(), IPPROTO_TCP, TCP_KEEPCNT) == before);
}

TEST_CASE("an option we never heard of is not carried over by itself", "[options][socket]") {
  CHECK_FALSE(is_carried_over(SOL_SOCKET, SO_ATTACH_FILTER));
  CHECK_FALSE(is_carried_over(12345, 1));
}

}  // namespace continuity::test
