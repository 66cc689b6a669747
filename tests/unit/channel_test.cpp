// A channel over real socket pairs: messages, descriptors, deadlines.
#include "core/channel.hpp"

#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <numeric>
#include <unistd.h>

namespace continuity::test {
namespace {

struct Pair {
  FakeSys<0> sys;
  Channel here;
  Channel there;

  Pair() {
    std::array<int, 2> pair{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) == 0);
    here = Channel(sys, {libc_sys(), pair[0]});
    there = Channel(sys, {libc_sys(), pair[1]});
  }
  [[nodiscard]] Nanoseconds soon() const { return after(sys, second); }
};

// Sends what the channel never would: any bytes, any number of descriptors.
void send_raw(int fd, std::string_view bytes, std::span<const int> fds = {}) {
  iovec body{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  msghdr packet{};
  packet.msg_iov = &body;
  packet.msg_iovlen = 1;
  std::vector<std::byte> control(CMSG_SPACE(fds.size_bytes()));
  if (!fds.empty()) {
    packet.msg_control = control.data();
    packet.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&packet);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  REQUIRE(::sendmsg(fd, &packet, MSG_NOSIGNAL) >= 0);
}

std::string as_text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_CASE("a message arrives with its descriptors, in order and closed on exec", "[channel]") {
  Pair pair;
  const OwnedFd one = listen_at("127.0.0.1:0");
  const OwnedFd two = listen_at("127.0.0.1:0");
  Message grant{.type = MessageType::grant};
  grant.ids = {1, 2};

  REQUIRE(pair.here.send(grant, std::array{one.get(), two.get()}, pair.soon()));
  auto received = pair.there.receive(pair.soon());

  REQUIRE(received.has_value());
  CHECK(received->message.type == MessageType::grant);
  CHECK(received->message.ids == grant.ids);
  REQUIRE(received->fds.size() == 2);
  CHECK(same_socket(received->fds[0].get(), one.get()));
  CHECK(same_socket(received->fds[1].get(), two.get()));
  CHECK((::fcntl(received->fds[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("messages are numbered", "[channel]") {
  Pair pair;
  for (std::uint32_t i = 1; i <= 3; ++i) {
    REQUIRE(pair.here.send({.type = MessageType::got}, pair.soon()));
    CHECK(pair.there.receive(pair.soon())->message.sequence == i);
  }
}

TEST_CASE("128 descriptors travel in one message and 129 are not sent", "[channel]") {
  Pair pair;
  const OwnedFd fd = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::vector<int> fds(max_fds_per_message, fd.get());
  REQUIRE(pair.here.send({.type = MessageType::grant}, fds, pair.soon()));
  const auto received = pair.there.receive(pair.soon());
  REQUIRE(received.has_value());
  CHECK(received->fds.size() == max_fds_per_message);

  const std::vector<int> more(max_fds_per_message + 1, fd.get());
  CHECK(code_of(pair.here.send({.type = MessageType::grant}, more, pair.soon())) == EMSGSIZE);
}

TEST_CASE("the largest number the kernel delivers is received and owned", "[channel]") {
  Pair pair;
  const OwnedFd fd = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::vector<int> fds(253, fd.get());
  send_raw(pair.here.fd(), as_text(*encode({.type = MessageType::grant})), fds);
  {
    const auto received = pair.there.receive(pair.soon());
    REQUIRE(received.has_value());
    CHECK(received->fds.size() == 253);
  }
  CHECK(pair.sys.open().empty());
}

TEST_CASE("a message whose descriptors were cut is refused and the rest closed", "[channel]") {
  Pair pair;
  const OwnedFd fd = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  pair.sys.hooks.recvmsg = [](int socket, msghdr* message, int flags) {
    message->msg_controllen = CMSG_SPACE(2 * sizeof(int));
    return ::recvmsg(socket, message, flags);
  };
  const std::vector<int> fds(5, fd.get());
  REQUIRE(pair.here.send({.type = MessageType::grant}, fds, pair.soon()));
  const auto before = open_descriptors();

  const auto received = pair.there.receive(pair.soon());

  REQUIRE_FALSE(received.has_value());
  CHECK(code_of(received) == EPROTO);
  CHECK(open_descriptors() == before);
  CHECK(pair.sys.open().empty());
}

TEST_CASE("a message that does not fit is refused and its descriptors closed", "[channel]") {
  Pair pair;
  const OwnedFd fd = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  send_raw(pair.here.fd(), std::string(max_message_size + 1, 'x'), std::array{fd.get()});
  CHECK(code_of(pair.there.receive(pair.soon())) == EPROTO);
  CHECK(pair.sys.open().empty());
}

TEST_CASE("garbage is refused and descriptors that came with it are closed", "[channel]") {
  Pair pair;
  const OwnedFd fd = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  send_raw(pair.here.fd(), "hello", std::array{fd.get(), fd.get()});
  CHECK(code_of(pair.there.receive(pair.soon())) == EPROTO);
  CHECK(pair.sys.open().empty());

  // The channel itself is still good.
  REQUIRE(pair.here.send({.type = MessageType::got}, pair.soon()));
  CHECK(pair.there.receive(pair.soon()).has_value());
}

TEST_CASE("an empty packet is garbage, not the end of the other side", "[channel]") {
  Pair pair;
  send_raw(pair.here.fd(), "");
  CHECK(code_of(pair.there.receive(pair.soon())) == EPROTO);
}

TEST_CASE("when nothing comes, receiving ends at its deadline", "[channel]") {
  Pair pair;
  const Nanoseconds began = now(pair.sys);
  CHECK(code_of(pair.there.receive(after(pair.sys, 20 * millisecond))) == ETIMEDOUT);
  const Nanoseconds took = now(pair.sys) - began;
  CHECK(took >= 19 * millisecond);
  CHECK(took < 2 * second);
  CHECK(code_of(pair.there.receive(0)) == ETIMEDOUT);  // a deadline long past
}

TEST_CASE("what is there is received even if the deadline has passed", "[channel]") {
  Pair pair;
  REQUIRE(pair.here.send({.type = MessageType::got}, pair.soon()));
  CHECK(pair.there.receive(0).has_value());
}

TEST_CASE("sending into a full channel ends at its deadline", "[channel]") {
  Pair pair;
  Message large{.type = MessageType::abort};
  large.text.assign(max_text, 'x');
  int code = 0;
  for (int i = 0; i < 10'000 && code == 0; ++i) {
    const auto sent = pair.here.send(large, after(pair.sys, 10 * millisecond));
    code = code_of(sent);
  }
  CHECK(code == ETIMEDOUT);
}

TEST_CASE("a side that is gone is told apart from a silent one", "[channel]") {
  Pair pair;
  pair.here.close();
  CHECK(code_of(pair.there.receive(never)) == ECONNRESET);
  const auto sent = pair.there.send({.type = MessageType::got}, pair.soon());
  CHECK(code_of(sent) == EPIPE);  // and no SIGPIPE
}

TEST_CASE("the last words of a side that is gone are still heard", "[channel]") {
  Pair pair;
  REQUIRE(pair.here.send({.type = MessageType::goodbye}, pair.soon()));
  pair.here.close();
  CHECK(pair.there.receive(never)->message.type == MessageType::goodbye);
  CHECK(code_of(pair.there.receive(never)) == ECONNRESET);
}

TEST_CASE("a signal does not end a wait", "[channel]") {
  const auto call = GENERATE(Call::ppoll, Call::recvmsg, Call::sendmsg);
  Pair pair;
  pair.sys.fail_next(call, EINTR);
  if (call == Call::sendmsg) {
    CHECK(pair.here.send({.type = MessageType::got}, pair.soon()));
  } else {
    // Comes while we wait: the first look finds nothing.
    bool sent = false;
    pair.sys.hooks.ppoll = [&](pollfd* fds, nfds_t count, const timespec* timeout) {
      if (!sent) {
        sent = true;
        CHECK(pair.here.send({.type = MessageType::got}, never));
      }
      return ::ppoll(fds, count, timeout, nullptr);
    };
    CHECK(pair.there.receive(pair.soon()).has_value());
  }
  CHECK(pair.sys.has_failed());
}

TEST_CASE("time goes on over signals that interrupt a wait", "[channel]") {
  Pair pair;
  Nanoseconds time = second;
  play_clock(pair.sys, time);
  int interruptions = 0;
  pair.sys.hooks.ppoll = [&](pollfd*, nfds_t, const timespec* timeout) {
    if (timeout->tv_sec == 0 && timeout->tv_nsec == 0) {
      return 0;
    }
    time += 10 * millisecond;
    ++interruptions;
    errno = EINTR;
    return -1;
  };
  CHECK(code_of(pair.there.receive(time + 95 * millisecond)) == ETIMEDOUT);
  CHECK(interruptions == 10);
}

TEST_CASE("who is on the other side is what the kernel says", "[channel]") {
  Pair pair;
  const auto peer = pair.here.peer();
  REQUIRE(peer.has_value());
  CHECK(peer->pid == ::getpid());
  CHECK(peer->uid == ::geteuid());
  CHECK_FALSE(Channel(libc_sys(), {}).peer().has_value());
}

TEST_CASE("a channel that was never opened fails at once, it does not wait", "[channel]") {
  Channel channel(libc_sys(), {});
  CHECK_FALSE(channel.is_open());
  CHECK(code_of(channel.receive(never)) == EBADF);
  CHECK(code_of(channel.send({.type = MessageType::got}, never)) == EBADF);
}

}  // namespace continuity::test
