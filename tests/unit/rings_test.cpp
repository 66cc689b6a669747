// What a program has asked of an io_uring, when its listeners are handed over.
#include "core/rings.hpp"

#include "core/retirement.hpp"
#include "fake_program.hpp"
#include "fake_sys.hpp"
#include "tests/support/waiting.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <optional>
#include <string_view>
#include <sys/syscall.h>
#include <unistd.h>

namespace continuity::test {
namespace {

constexpr std::array<std::uint32_t, 1> first{1};

// False, and said, where io_uring is forbidden or not in the kernel.
bool has_rings() {
  // Who may make one is told that it cannot be here.
  if (::syscall(SYS_io_uring_setup, 1, nullptr) < 0 && errno == EFAULT) {
    return true;
  }
  WARN("skipped: no io_uring here: errno " << errno);
  return false;
}

// As read() of a file of /proc that says this; `told`: so much of it has been read.
ssize_t tell(std::string_view text, std::size_t& told, void* buffer, std::size_t size) {
  const std::size_t part = std::min(size, text.size() - told);
  std::memcpy(buffer, text.data() + told, part);
  told = part == 0 ? 0 : told + part;
  return static_cast<ssize_t>(part);
}

// A program with one listener, that accepts by a ring.
struct Scene {
  static constexpr unsigned slots = 4;

  FakeSys<0> sys;
  TempDirectory directory;
  OwnedFd place = open_directory(directory);
  OwnedFd proc = open_proc();
  OwnedFd listener = listen_at("127.0.0.1:0");
  FakeProgram program;
  Retirement retirement{sys, proc.get(), place.get(), program, is_ours};
  io_uring ring{};
  bool fixed = false;

  explicit Scene(unsigned flags = 0) { REQUIRE(::io_uring_queue_init(8, &ring, flags) == 0); }
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;
  ~Scene() { ::io_uring_queue_exit(&ring); }

  void put_into_slot(unsigned slot) {
    const int fd = listener.get();
    REQUIRE(::io_uring_register_files_sparse(&ring, slots) == 0);
    REQUIRE(::io_uring_register_files_update(&ring, slot, &fd, 1) == 1);
    fixed = true;
    file = static_cast<int>(slot);
  }
  void ask() {
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring);
    if (fixed) {
      ::io_uring_prep_multishot_accept_direct(sqe, file, nullptr, nullptr, 0);
      sqe->flags |= IOSQE_FIXED_FILE;
    } else {
      ::io_uring_prep_multishot_accept(sqe, listener.get(), nullptr, nullptr, SOCK_CLOEXEC);
    }
    REQUIRE(::io_uring_submit(&ring) == 1);
  }
  // What the ring has completed; nothing if nothing comes.
  std::optional<int> next(Nanoseconds patience = 5 * second) {
    __kernel_timespec timeout{.tv_sec = 0, .tv_nsec = patience};
    io_uring_cqe* done = nullptr;
    if (::io_uring_wait_cqe_timeout(&ring, &done, &timeout) != 0) {
      return std::nullopt;
    }
    const int result = done->res;
    ::io_uring_cqe_seen(&ring, done);
    return result;
  }
  // A descriptor, or a slot.
  void drop(int connection) const {
    if (!fixed) {
      ::close(connection);
    }
  }
  bool accepts() {
    const OwnedFd client = connect_to(name);
    const auto accepted = next(second);
    if (accepted && *accepted >= 0) {
      drop(*accepted);
    }
    return accepted && *accepted >= 0;
  }
  RingInfo info() const { return Rings(libc_sys(), proc.get()).look(ring.ring_fd); }

  Status prepare() {
    Listener described_one = described(listener.get());
    described_one.id = 1;
    return retirement.prepare({{.listener = described_one,
                                .fd = listener.get(),
                                .inode = socket_inode(libc_sys(), listener.get())}});
  }
  bool retire() {
    const bool clear = retirement.retire(first, after(sys, second));
    retirement.sweep();
    return clear;
  }

  Address name = name_of(listener.get());
  int file = -1;
};

}  // namespace

// ---- What the kernel writes ---------------------------------------------------------

TEST_CASE("of a ring's list the accepts that wait are counted, and nothing else", "[rings]") {
  const RingInfo info = parse_ring_info(
      "pos:\t0\nino:\t4711\nSqMask:\t0x7\nSQEs:\t1\n"
      "    0: opcode:ACCEPT, fd:5, flags:0, off:0, addr:0x0, rw_flags:0x0, buf_index:0\n"
      "    1: opcode:READ, fd:5, flags:0, off:0, addr:0x0, rw_flags:0x0, buf_index:0\n"
      "CQEs:\t1\n    1: user_data:7, res:13, flag:2\n"
      "SqThread:\t-1\nUserFiles:\t0\nUserBufs:\t0\n"
      "PollList:\n  op=13, task_works=0\n  op=6, task_works=0\n  op=13, task_works=1\n"
      "  op=130, task_works=0\n  op=1\nCqOverflowList:\n  user_data=13, res=0, flags=0\n");
  CHECK(info.complete);
  CHECK_FALSE(info.doubtful);
  CHECK_FALSE(info.has_kernel_thread);
  CHECK(info.accepts == 2);
  CHECK(info.receives == 0);
  CHECK(info.queued_accepts == 1);
  CHECK(info.sockets.empty());
}

TEST_CASE("of a ring's list the receives that wait are counted, whatever they are called",
          "[rings]") {
  const RingInfo info = parse_ring_info(
      "PollList:\n  op=10, task_works=0\n  op=27, task_works=0\n  op=22, task_works=0\n"
      "  op=1, task_works=0\n  op=4, task_works=0\n  op=49, task_works=0\n"
      "  op=9, task_works=0\n  op=26, task_works=0\n  op=6, task_works=0\n");
  CHECK(info.receives == 6);
  CHECK(info.accepts == 0);
}

TEST_CASE("the sockets in a ring's table are found, by inode where the kernel tells it",
          "[rings]") {
  const RingInfo now = parse_ring_info(
      "UserFiles:\t600\n    2: socket:[1432140]\n    3: /var/log/socket:[1]\n"
      "    4: anon_inode:[eventpoll]\n  511: socket:[7]\nUserBufs:\t1\n    0: 0x7f00/4096\n"
      "PollList:\n");
  REQUIRE(now.sockets.size() == 2);
  CHECK(now.sockets[0].slot == 2);
  CHECK(now.sockets[0].inode == 1432140);
  CHECK(now.sockets[1].slot == 511);
  CHECK(now.sockets[1].inode == 7);

  const RingInfo before = parse_ring_info(
      "UserFiles:\t4\n    0: TCP\n    1: <none>\n    2: access.log\n    3: UNIX-STREAM\n"
      "UserBufs:\t0\nPollList:\n");
  REQUIRE(before.sockets.size() == 2);
  CHECK(before.sockets[0].slot == 0);
  CHECK(before.sockets[0].inode == 0);
  CHECK(before.sockets[1].slot == 3);
}

TEST_CASE("a ring that a thread of the kernel's serves is known as such", "[rings]") {
  CHECK(parse_ring_info("SqThread:\t4711\nSqThreadCpu:\t0\nPollList:\n").has_kernel_thread);
}

TEST_CASE("a ring that was in use when it was looked at is known as such", "[rings]") {
  CHECK_FALSE(parse_ring_info("").complete);
  CHECK_FALSE(parse_ring_info("pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t4711\n").complete);
  const RingInfo locked = parse_ring_info("UserFiles:\t4\nUserBufs:\t0\nPollList:\n");
  CHECK(locked.complete);
  CHECK(locked.doubtful);
}

TEST_CASE("a line of the memory map names a ring, or does not", "[rings]") {
  CHECK(parse_ring_mapping("7f7978ffc000-7f7978ffd000 rw-s 10000000 00:10 1432126                  "
                           "  anon_inode:[io_uring]") == 1432126);
  for (const char* line : {"", "anon_inode:[io_uring]",
                           "7f79-7f7a rw-p 00000000 00:10 1432126 /tmp/anon_inode:[eventpoll]",
                           "7f79-7f7a rw-s 10000000 00:10 x anon_inode:[io_uring]"}) {
    CAPTURE(line);
    CHECK(parse_ring_mapping(line) == 0);
  }
}

// ---- Going deaf, and coming back ----------------------------------------------------

TEST_CASE("an accept that waits in a ring ends, and the next one finds nobody", "[rings]") {
  if (!has_rings()) {
    return;
  }
  Scene scene;
  const bool fixed = GENERATE(false, true);
  CAPTURE(fixed);
  if (fixed) {
    scene.put_into_slot(2);
  }
  scene.ask();
  CHECK(scene.accepts());
  REQUIRE(scene.prepare());
  CHECK_FALSE(scene.next(0));
  CHECK(scene.accepts());  // until it is retired

  CHECK(scene.retire());

  CHECK(scene.next() == -ECANCELED);
  scene.ask();
  const OwnedFd client = connect_to(scene.name);
  CHECK(client.is_open());
  CHECK_FALSE(scene.next(200 * millisecond));
  CHECK(scene.info().accepts == 1);
}

TEST_CASE("without the cancelling a ring goes on accepting", "[rings]") {
  if (!has_rings()) {
    return;
  }
  Scene scene;
  scene.ask();
  REQUIRE(scene.prepare());
  scene.sys.hooks.io_uring_register = [](int, unsigned, void*, unsigned) { return 0; };
  scene.retire();
  CHECK(scene.accepts());
}

TEST_CASE("what a ring waits for on a stand-in waits on the listener after a revival", "[rings]") {
  if (!has_rings()) {
    return;
  }
  Scene scene;
  const bool fixed = GENERATE(false, true);
  CAPTURE(fixed);
  if (fixed) {
    scene.put_into_slot(2);
  }
  scene.ask();
  for (int i = 0; i < 3; ++i) {
    CAPTURE(i);
    REQUIRE(scene.prepare());
    CHECK(scene.retire());
    CHECK(scene.next() == -ECANCELED);
    scene.ask();
    CHECK_FALSE(scene.next(10 * millisecond));

    scene.retirement.revive();

    CHECK(scene.next() == -ECANCELED);
    scene.ask();
    CHECK(scene.accepts());
  }
}

TEST_CASE("what else waits on the listener in a ring is left alone", "[rings]") {
  if (!has_rings()) {
    return;
  }
  Scene scene;
  io_uring_sqe* sqe = ::io_uring_get_sqe(&scene.ring);
  ::io_uring_prep_poll_add(sqe, scene.listener.get(), POLLIN);
  REQUIRE(::io_uring_submit(&scene.ring) == 1);
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  CHECK_FALSE(scene.next(10 * millisecond));
}

// ---- Datagrams ------------------------------------------------------------------------

namespace {

// A program with one datagram socket, from which it receives by a ring.
struct DatagramScene : Scene {
  DatagramScene() {
    listener = own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const sockaddr_in any{
        .sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
    REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0);
    name = name_of(listener.get());
  }
  void receive() {
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring);
    ::io_uring_prep_recv(sqe, fixed ? file : listener.get(), &byte, 1, 0);
    sqe->flags |= fixed ? IOSQE_FIXED_FILE : 0U;
    REQUIRE(::io_uring_submit(&ring) == 1);
  }
  void send_one() const {
    const OwnedFd client = own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    REQUIRE(::sendto(client.get(), "x", 1, 0, name.get(), name.length) == 1);
  }
  char byte = 0;
};

}  // namespace

TEST_CASE("a receive that waits in a ring ends, and the next one hears nothing", "[rings]") {
  if (!has_rings()) {
    return;
  }
  DatagramScene scene;
  const bool fixed = GENERATE(false, true);
  CAPTURE(fixed);
  if (fixed) {
    scene.put_into_slot(2);
  }
  scene.receive();
  for (int i = 0; i < 3; ++i) {
    CAPTURE(i);
    const Aside successors(scene.listener.get());
    REQUIRE(scene.prepare());
    CHECK_FALSE(scene.next(0));

    CHECK(scene.retire());

    CHECK(scene.next() == -ECANCELED);
    scene.receive();
    scene.send_one();
    CHECK_FALSE(scene.next(200 * millisecond));
    CHECK(scene.info().receives == 1);
    // It would answer from the same address, and the datagram is the successor's.
    CHECK(name_of(scene.listener.get()).port() == scene.name.port());
    char byte = 0;
    CHECK(::recv(successors.get(), &byte, 1, MSG_DONTWAIT) == 1);

    scene.retirement.revive();

    CHECK(scene.next() == -ECANCELED);
    scene.receive();
    scene.send_one();
    CHECK(scene.next() == 1);
    scene.receive();
  }
}

TEST_CASE("without the cancelling a ring goes on receiving", "[rings]") {
  if (!has_rings()) {
    return;
  }
  DatagramScene scene;
  scene.receive();
  REQUIRE(scene.prepare());
  scene.sys.hooks.io_uring_register = [](int, unsigned, void*, unsigned) { return 0; };
  scene.retire();
  scene.send_one();
  CHECK(scene.next() == 1);
}

TEST_CASE("the address that a ring's datagrams came to is free after the probation", "[rings]") {
  if (!has_rings()) {
    return;
  }
  DatagramScene scene;
  const bool fixed = GENERATE(false, true);
  CAPTURE(fixed);
  if (fixed) {
    scene.put_into_slot(2);
  }
  scene.receive();
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  CHECK(scene.next() == -ECANCELED);
  scene.receive();

  scene.retirement.forget_listeners();

  CHECK(scene.next() == -ECANCELED);
  const OwnedFd next = own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto is_free = [&] { return ::bind(next.get(), scene.name.get(), scene.name.length) == 0; };
  // What was cancelled lets go of it a moment later.
  CHECK(wait_until(is_free, std::chrono::seconds(1)));
}

TEST_CASE("a datagram socket that is received from by calls keeps its place beside a ring",
          "[rings]") {
  if (!has_rings()) {
    return;
  }
  DatagramScene scene;
  scene.program.waits_for = scene.listener.get();
  const std::uint64_t inode = socket_inode(libc_sys(), scene.listener.get());
  REQUIRE(scene.prepare());
  CHECK(scene.retire());
  CHECK(socket_inode(libc_sys(), scene.listener.get()) == inode);
}

TEST_CASE("several processes can each make what answers for one datagram socket", "[rings]") {
  DatagramScene scene;
  const Listener one = described(scene.listener.get());
  const StandIns stand_ins(libc_sys(), scene.place.get());
  const OwnedFd first_one = stand_ins.answering_for(scene.listener.get(), one);
  const OwnedFd second_one = stand_ins.answering_for(scene.listener.get(), one);
  CHECK(first_one.is_open());
  CHECK(second_one.is_open());
}

TEST_CASE("a ring with which it cannot be done is a reason not to begin", "[rings]") {
  if (!has_rings()) {
    return;
  }
  struct Row {
    int code;
    const char* reason;
  };
  const auto row = GENERATE(values<Row>({{EEXIST, "one thread of the program only"},
                                         {EINVAL, "this kernel cannot cancel"},
                                         {EACCES, "the program has restricted it"},
                                         {EPERM, "Operation not permitted"}}));
  CAPTURE(row.code);
  Scene scene;
  scene.ask();
  scene.sys.hooks.io_uring_register = [&](int, unsigned, void*, unsigned) {
    errno = row.code;
    return -1;
  };

  const auto prepared = scene.prepare();

  REQUIRE_FALSE(prepared.has_value());
  CHECK(prepared.error().code == ENOTSUP);
  CHECK(scene.retirement.obstacle().find(row.reason) != std::string::npos);
  CHECK(scene.retirement.obstacle().find("io_uring " + std::to_string(scene.ring.ring_fd)) == 0);
  CHECK(scene.sys.open().empty());
  CHECK(scene.accepts());
}

TEST_CASE("a ring with which it cannot be done, and that accepts nothing, is no reason",
          "[rings]") {
  if (!has_rings()) {
    return;
  }
  Scene scene;
  scene.sys.hooks.io_uring_register = [](int, unsigned, void*, unsigned) {
    errno = EEXIST;
    return -1;
  };
  CHECK(scene.prepare());
  CHECK(scene.retire());
  CHECK(scene.retirement.obstacle().empty());
}

TEST_CASE("a ring that is polled is a reason not to begin only where it may accept", "[rings]") {
  if (!has_rings()) {
    return;
  }
  struct Row {
    const char* what;
    bool called;
    bool accepts;
    bool fixed;
    bool refused;
  };
  const auto row =
      GENERATE(values<Row>({{"something else waits for connections", true, false, false, false},
                            {"nobody knows who waits for them", false, false, false, true},
                            {"it accepts just now", true, true, false, true},
                            {"the listener is in its table", true, false, true, true}}));
  CAPTURE(row.what);
  Scene scene(IORING_SETUP_SQPOLL);
  scene.program.waits_for = row.called ? scene.listener.get() : -1;
  if (row.fixed) {
    scene.put_into_slot(2);
  }
  if (row.accepts) {
    scene.ask();
  }

  CHECK(scene.prepare().has_value() == !row.refused);

  CHECK((scene.retirement.obstacle().find("IORING_SETUP_SQPOLL") != std::string::npos) ==
        row.refused);
}

TEST_CASE("what an epoll waits for is no affair of a ring that is polled", "[rings]") {
  if (!has_rings()) {
    return;
  }
  Scene scene(IORING_SETUP_SQPOLL);
  const OwnedFd epoll(libc_sys(), ::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN, .data = {.fd = scene.listener.get()}};
  REQUIRE(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, scene.listener.get(), &event) == 0);

  CHECK(scene.prepare());
  CHECK(scene.retire());
  CHECK(scene.retirement.obstacle().empty());
}

TEST_CASE("what a ring refuses us, its own thread is asked to do", "[rings]") {
  if (!has_rings()) {
    return;
  }
  // As the kernel answers all threads but one.
  struct Issuer : RingIssuer {
    bool reach(int) override { return reachable; }
    int call(int ring, unsigned operation, void* argument, unsigned count) override {
      ++calls;
      return libc_sys().io_uring_register(ring, operation, argument, count);
    }
    bool reachable = true;
    int calls = 0;
  };
  Scene scene;
  scene.sys.hooks.io_uring_register = [](int, unsigned, void*, unsigned) {
    errno = EEXIST;
    return -1;
  };
  Issuer issuer;
  const Rings rings(scene.sys, scene.proc.get(), &issuer);
  const std::array<int, 1> all{scene.ring.ring_fd};
  const std::array<int, 1> listeners{scene.listener.get()};
  scene.ask();

  CHECK(rings.why_not(scene.ring.ring_fd, {}) == nullptr);
  CHECK(issuer.calls == 0);  // nothing has been changed
  CHECK(rings.end_accepts(all, listeners) == Rings::Ended::some);
  CHECK(issuer.calls == 1);
  CHECK(scene.next() == -ECANCELED);
  CHECK(rings.end_accepts(all, listeners) == Rings::Ended::none);
  CHECK(issuer.calls == 1);  // it waits for nothing: its thread is left alone

  scene.ask();
  issuer.reachable = false;
  CHECK(rings.why_not(scene.ring.ring_fd, {}) != nullptr);
}

TEST_CASE("a ring in use is looked at until it is not, for a while", "[rings]") {
  if (!has_rings()) {
    return;
  }
  const Nanoseconds used_until = GENERATE(1, 10) * 100 * millisecond + second;
  CAPTURE(used_until);
  Scene scene;
  Nanoseconds time = second;
  FakeSys<10> sys;
  play_time(sys, time);
  std::size_t told = 0;
  sys.hooks.read = [&](int, void* buffer, std::size_t size) {
    return tell(time < used_until ? "" : "PollList:\n", told, buffer, size);
  };

  const char* reason = Rings(sys, scene.proc.get()).why_not(scene.ring.ring_fd, {});
  if (used_until < 2 * second) {
    CHECK(reason == nullptr);
  } else {
    REQUIRE(reason != nullptr);
    CHECK(std::string(reason).find("it is in use all the time") != std::string::npos);
    CHECK(time < used_until);
  }
}

TEST_CASE("a ring whose table the kernel does not name is not taken from", "[rings]") {
  if (!has_rings()) {
    return;
  }
  Scene scene;
  const std::string text = "UserFiles:\t1\n    0: TCP\nPollList:\n  op=13, task_works=0\n";
  FakeSys<10> old;
  std::size_t told = 0;
  old.hooks.read = [&](int, void* buffer, std::size_t size) {
    return tell(text, told, buffer, size);
  };
  const char* reason = Rings(old, scene.proc.get()).why_not(scene.ring.ring_fd, {});
  REQUIRE(reason != nullptr);
  CHECK(std::string(reason).find("which sockets are its fixed files") != std::string::npos);
}

TEST_CASE("a ring whose descriptor has been closed is seen by its mapping", "[rings]") {
  if (!has_rings()) {
    return;
  }
  Scene scene;
  const std::array<int, 1> known{scene.ring.ring_fd};
  CHECK_FALSE(Rings(libc_sys(), scene.proc.get()).any_closed(known));
  CHECK(Rings(libc_sys(), scene.proc.get()).any_closed({}));
}

TEST_CASE("a program without a ring is asked nothing about any", "[rings]") {
  FakeSys<0> sys;
  TempDirectory directory;
  const OwnedFd place = open_directory(directory);
  const OwnedFd proc = open_proc();
  const OwnedFd listener = listen_at("127.0.0.1:0", SOCK_NONBLOCK);
  FakeProgram program;
  Retirement retirement(sys, proc.get(), place.get(), program, is_ours);
  Listener one = described(listener.get());
  one.id = 1;
  REQUIRE(retirement.prepare({{.listener = one,
                               .fd = listener.get(),
                               .inode = socket_inode(libc_sys(), listener.get())}}));
  CHECK(retirement.retire(first, after(sys, second)));
  retirement.sweep();
  retirement.revive();
  CHECK(sys.count(Call::io_uring_register) == 0);
}

// ---- Draining -------------------------------------------------------------------------

TEST_CASE("connections that only a ring has are waited for", "[rings]") {
  if (!has_rings()) {
    return;
  }
  Scene scene;
  scene.put_into_slot(0);
  scene.ask();
  Log log;
  FakeOwner owner(scene.sys, log, scene.proc.get(), scene.place.get(), scene.program,
                  {scene.listener.get()});
  std::optional<OwnedFd> client(connect_to(scene.name));
  const auto slot = scene.next();
  REQUIRE(slot);
  REQUIRE(*slot >= 0);
  auto items = owner.inventory();
  items.at(0).listener.id = 1;
  REQUIRE(owner.prepare(items));
  CHECK(owner.retire(first, after(scene.sys, second)));
  owner.sweep();

  CHECK(owner.connections() == 1);

  int none = -1;
  REQUIRE(::io_uring_register_files_update(&scene.ring, static_cast<unsigned>(*slot), &none, 1) ==
          1);
  CHECK(owner.connections() == 0);
}

}  // namespace continuity::test
