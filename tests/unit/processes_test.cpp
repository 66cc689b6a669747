// What the kernel says of other processes, and what is made of nonsense.
#include "core/processes.hpp"

#include "child.hpp"
#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <linux/netlink.h>
#include <sys/un.h>
#include <sys/wait.h>

namespace continuity::test {
namespace {

constexpr std::string_view established =
    "   1: 0100007F:1F90 0100007F:D2F4 01 00000000:00000000 00:00000000 00000000     0        0 "
    "12345 1 0000000000000000 20 4 30 10 -1";

std::string replaced(std::string text, std::string_view what, std::string_view with) {
  const auto found = text.find(what);
  REQUIRE(found != std::string::npos);
  return text.replace(found, what.size(), with);
}

struct Scene {
  FakeSys<0> sys;
  OwnedFd proc = open_proc();
  Processes processes{sys, proc.get()};
  std::set<pid_t> self{::getpid()};

  [[nodiscard]] Processes::Held find(const Address& address, pid_t except = 0) const {
    const std::array<Address, 1> addresses{address};
    return processes.find_connections(addresses, self, {except});
  }
};

// A connection that only a forked child holds.
struct Handed {
  explicit Handed(std::string_view address = "127.0.0.1:0")
      : listener(listen_at(address)), name(name_of(listener.get())) {
    REQUIRE(child.is_ready());
    accepted.reset();
  }

  OwnedFd listener;
  Address name;
  OwnedFd client = connect_to(name);
  OwnedFd accepted = own(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  Child child{};
};

}  // namespace

// ---- Lines ------------------------------------------------------------------------

TEST_CASE("the parent comes after the last bracket, whatever the name contains", "[processes]") {
  CHECK(parse_parent("4711 (a name) S 1 4711 4711 0") == 1);
  CHECK(parse_parent("4711 () R 23 4711") == 23);
  CHECK(parse_parent("4711 (a) S 5 (b) Z 77 4711") == 77);
  CHECK(parse_parent("4711 (a\n) S 9) S 78 4711") == 78);
}

TEST_CASE("what is no process's line has no parent, and does not say that one ends",
          "[processes]") {
  for (const char* line : {"", ")", "4711 (name", "4711 (name)", "4711 (name) S", "4711 (name) S ",
                           "4711 (name) S x1 2", "4711 (name) S 99999999999999999999 1"}) {
    CAPTURE(line);
    CHECK(parse_parent(line) == 0);
    CHECK_FALSE(parse_ending(line));
    CHECK_FALSE(parse_stopped(line));
  }
}

TEST_CASE("a process on its way out is told by its flags", "[processes]") {
  CHECK(parse_ending("4711 (a) R 1 4711 4711 0 -1 4228364 0 0"));
  CHECK_FALSE(parse_ending("4711 (a) R 1 4711 4711 0 -1 4194304 0 0"));
  CHECK_FALSE(parse_ending("4711 (a) R 4 4 4 4 4 x 4 4"));
  // Its first thread has ended in each of these, and all others in the first only.
  CHECK(parse_remains("4711 (a) Z 1 4711 4711 0 -1 4228364 0 0 0 0 0 0 0 0 20 0 1 0 99"));
  CHECK_FALSE(parse_remains("4711 (a) Z 1 4711 4711 0 -1 4228364 0 0 0 0 0 0 0 0 20 0 2 0 99"));
  CHECK_FALSE(parse_remains("4711 (a) S 1 4711 4711 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 99"));
  CHECK_FALSE(parse_remains("4711 (a) Z 1"));
}

TEST_CASE("how a process has ended is read from its remains", "[processes]") {
  const auto line = [](const char* state, const char* code) {
    std::string text = std::string("4711 (a (b) c) ") + state;
    for (int field = 4; field < 52; ++field) {
      text += " 7";
    }
    return text + " " + code;
  };
  using How = ProcessEnd::How;
  CHECK(parse_end(line("Z", "0\n")) == ProcessEnd{How::exited, 0});
  CHECK(parse_end(line("X", "256\n")) == ProcessEnd{How::exited, 1});
  CHECK(parse_end(line("Z", "15\n")) == ProcessEnd{How::killed, SIGTERM});
  CHECK(parse_end(line("Z", "139\n")) == ProcessEnd{How::killed, SIGSEGV});  // with a core dump
  CHECK(parse_end(line("S", "256\n")) == ProcessEnd{});
  CHECK(parse_end(line("Z", "x\n")) == ProcessEnd{});
  CHECK(parse_end(line("Z", "")) == ProcessEnd{});
  CHECK(parse_end("4711 (a) Z 1 2") == ProcessEnd{});
  CHECK(parse_end("") == ProcessEnd{});
}

TEST_CASE("it is told who has ended on purpose, and the rest in words", "[processes]") {
  using How = ProcessEnd::How;
  for (const int signal : {SIGTERM, SIGINT, SIGQUIT, SIGHUP}) {
    CAPTURE(signal);
    CHECK(ProcessEnd{How::killed, signal}.is_on_purpose());
    CHECK(ProcessEnd{How::exited, 128 + signal}.is_on_purpose());
    CHECK_FALSE(ProcessEnd{How::exited, signal}.is_on_purpose());
  }
  for (const int signal : {SIGKILL, SIGSEGV, SIGABRT, SIGPIPE}) {
    CAPTURE(signal);
    CHECK_FALSE(ProcessEnd{How::killed, signal}.is_on_purpose());
    CHECK_FALSE(ProcessEnd{How::exited, 128 + signal}.is_on_purpose());
  }
  CHECK(ProcessEnd{How::exited, 0}.is_on_purpose());
  CHECK_FALSE(ProcessEnd{}.is_on_purpose());
  CHECK(ProcessEnd{}.text() == "ended");
  CHECK(ProcessEnd{How::exited, 3}.text() == "ended with status 3");
  CHECK(ProcessEnd{How::killed, SIGKILL}.text() == "was killed by SIGKILL");
}

TEST_CASE("a line of the TCP table is read to address, port and inode", "[processes]") {
  const auto v4 = parse_tcp_line(established);
  REQUIRE(v4.has_value());
  CHECK(v4->inode == 12345);
  CHECK(to_string(v4->local) == "127.0.0.1:8080");

  const auto v6 = parse_tcp_line(
      replaced(std::string(established), "0100007F:1F90", "00000000000000000000000001000000:0050"));
  REQUIRE(v6.has_value());
  CHECK(to_string(v6->local) == "[::1]:80");
}

TEST_CASE("sockets that listen, or that nobody has, are no connections", "[processes]") {
  const std::string line(established);
  CHECK_FALSE(parse_tcp_line(replaced(line, " 01 ", " 0A ")).has_value());
  CHECK_FALSE(parse_tcp_line(replaced(line, "12345", "0")).has_value());
  CHECK(parse_tcp_line(replaced(line, " 01 ", " 08 ")).has_value());  // the peer has finished
}

TEST_CASE("nonsense is no line of the TCP table", "[processes]") {
  const std::string line(established);
  for (const auto& [what, with] : {std::pair{"0100007F:1F90", "0100007F"},
                                   {"0100007F:1F90", "0100007G:1F90"},
                                   {"0100007F:1F90", "0100007F:11F90"},
                                   {"0100007F:1F90", "0100007F:"},
                                   {"0100007F:1F90", ":1F90"},
                                   {"0100007F:1F90", "0100007F00:1F90"},
                                   {"12345", "12x45"},
                                   {"12345", "99999999999999999999999"}}) {
    CAPTURE(with);
    CHECK_FALSE(parse_tcp_line(replaced(line, what, with)).has_value());
  }
  CHECK_FALSE(parse_tcp_line("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when "
                             "retrnsmt   uid  timeout inode")
                  .has_value());
  for (std::size_t size = 0; size < line.find("12345"); ++size) {
    CHECK_FALSE(parse_tcp_line(line.substr(0, size)).has_value());
  }
}

TEST_CASE("a line of the UNIX table is read to path or name, and inode", "[processes]") {
  const auto path =
      parse_unix_line("0000000000000000: 00000003 00000000 00000000 0001 03 12345 /a path");
  REQUIRE(path.has_value());
  CHECK(path->inode == 12345);
  CHECK(path->local.unix_path() == "/a path");

  const auto name = parse_unix_line("0000000000000000: 00000003 00000000 00000000 0001 03 7 @name");
  REQUIRE(name.has_value());
  CHECK(to_string(name->local) == "unix:@name");
}

TEST_CASE("what is not connected, has no name, or is nonsense is no UNIX connection",
          "[processes]") {
  for (const char* line : {
           "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /path",
           "0000000000000000: 00000003 00000000 00000000 0001 03 12345",
           "0000000000000000: 00000003 00000000 00000000 0001 03 12345 ",
           "0000000000000000: 00000003 00000000 00000000 0001 03 x /path",
           "Num       RefCount Protocol Flags    Type St Inode Path",
           "",
           "/path",
       }) {
    CAPTURE(line);
    CHECK_FALSE(parse_unix_line(line).has_value());
  }
}

TEST_CASE("a path longer than an address has room for is cut, not written beyond it",
          "[processes]") {
  const auto found = parse_unix_line("0000000000000000: 00000003 00000000 00000000 0001 03 7 /" +
                                     std::string(4096, 'x'));
  REQUIRE(found.has_value());
  CHECK(found->local.length <= sizeof(sockaddr_un));
  CHECK(found->local.unix_path().size() == sizeof(sockaddr_un::sun_path) - 1);
}

// ---- Processes --------------------------------------------------------------------

TEST_CASE("a process is at work unless it is stopped, or has been waited for", "[processes]") {
  const Scene scene;
  Child child;
  CHECK(scene.processes.is_at_work(child.pid()));
  REQUIRE(::kill(child.pid(), SIGSTOP) == 0);
  int status = 0;
  REQUIRE(::waitpid(child.pid(), &status, WUNTRACED) == child.pid());
  CHECK_FALSE(scene.processes.is_at_work(child.pid()));
  child.kill();
  child.reap();
  CHECK_FALSE(scene.processes.is_at_work(child.pid()));
}

TEST_CASE("a process runs until it has ended, waited for or not", "[processes]") {
  const Scene scene;
  Child child;
  const pid_t pid = child.pid();
  CHECK(is_running(scene.sys, pid));
  CHECK_FALSE(scene.processes.is_ending(pid));
  child.kill();
  CHECK(::kill(pid, 0) == 0);  // a pid still
  CHECK_FALSE(is_running(scene.sys, pid));
  CHECK(scene.processes.is_ending(pid));
  child.reap();
  CHECK_FALSE(is_running(scene.sys, pid));
  CHECK(scene.processes.is_ending(pid));
  CHECK_FALSE(is_running(scene.sys, 0));
  CHECK(scene.sys.open().empty());
}

TEST_CASE("the end of a process is waited for without a pidfd, too", "[processes]") {
  Scene scene;
  Child child;
  scene.sys.hooks.pidfd_open = [](pid_t, unsigned) {
    errno = ENOSYS;
    return -1;
  };
  int pauses = 0;
  scene.sys.hooks.ppoll = [&](pollfd*, nfds_t, const timespec*) {
    if (++pauses == 3) {
      child.kill();
    }
    return 0;
  };
  await_end(scene.sys, child.pid(), 0);
  CHECK(pauses == 0);
  await_end(scene.sys, child.pid(), after(scene.sys, 60 * second));
  CHECK(pauses == 3);
}

TEST_CASE("without a pidfd, a process is taken to run until /proc or its number tells",
          "[processes]") {
  Scene scene;
  Child child;
  const pid_t pid = child.pid();
  const int code = GENERATE(EMFILE, ENOSYS, EPERM);
  const auto seems_to_run = [&](pid_t process) {
    scene.sys.fail_next(Call::pidfd_open, code);
    return is_running(scene.sys, process);
  };
  CHECK(seems_to_run(pid));
  scene.sys.fail_next(Call::openat, EMFILE);
  CHECK_FALSE(scene.processes.is_ending(pid));
  child.kill();
  CHECK_FALSE(seems_to_run(pid));
  scene.sys.hooks.openat = [](int, const char*, int, mode_t) {  // no /proc, after chroot
    errno = ENOENT;
    return -1;
  };
  CHECK(seems_to_run(pid));
  child.reap();
  CHECK_FALSE(seems_to_run(pid));
  CHECK_FALSE(seems_to_run(0));  // to kill, that is our process group
}

TEST_CASE("a forked child is the same image, and has the same topmost", "[processes]") {
  const Scene scene;
  const Child child;
  CHECK(scene.processes.parent_of(child.pid()) == ::getpid());
  CHECK(scene.processes.parents().at(child.pid()) == ::getpid());
  CHECK(scene.processes.are_same_image(child.pid(), ::getpid()));
  CHECK(scene.processes.are_same_image(::getpid(), child.pid()));
  CHECK(scene.processes.topmost(child.pid()) == scene.processes.topmost(::getpid()));
}

TEST_CASE("a child that has executed is another image, and its own topmost", "[processes]") {
  const Scene scene;
  // Says so when it runs: between fork and exec it would be the same.
  std::array<int, 2> pipe{};
  REQUIRE(::pipe(pipe.data()) == 0);
  const pid_t executed = ::fork();
  if (executed == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(pipe[1], STDOUT_FILENO);
    ::execl("/bin/sh", "sh", "-c", "echo; exec sleep 1000", nullptr);
    ::_exit(1);
  }
  char byte = 0;
  CHECK(::read(pipe[0], &byte, 1) == 1);
  CHECK_FALSE(scene.processes.are_same_image(executed, ::getpid()));
  CHECK(scene.processes.topmost(executed) == executed);
  ::kill(executed, SIGKILL);
  ::waitpid(executed, nullptr, 0);
  ::close(pipe[0]);
  ::close(pipe[1]);
  CHECK_FALSE(scene.processes.are_same_image(executed, ::getpid()));
}

TEST_CASE("a grandchild's topmost is not its parent where that is the same image, too",
          "[processes]") {
  const Scene scene;
  std::array<int, 2> pipe{};
  REQUIRE(::pipe(pipe.data()) == 0);
  const Child child([&] {
    const pid_t parent = ::getpid();
    const pid_t younger = ::fork();
    if (younger == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (::getppid() == parent) {  // which may have been killed before
        ::pause();
      }
      ::_exit(0);
    }
    if (::write(pipe[1], &younger, sizeof younger) != sizeof younger) {
      ::_exit(1);
    }
  });
  pid_t grandchild = 0;
  REQUIRE(::read(pipe[0], &grandchild, sizeof grandchild) == sizeof grandchild);
  ::close(pipe[0]);
  ::close(pipe[1]);
  CHECK(scene.processes.parent_of(grandchild) == child.pid());
  CHECK(scene.processes.topmost(grandchild) == scene.processes.topmost(::getpid()));
  CHECK(scene.processes.is_below(grandchild, {::getpid()}));
}

TEST_CASE("what is mapped is found by the end of its name", "[processes]") {
  const Scene scene;
  CHECK(scene.processes.has_mapped(::getpid(), "/libc.so.6"));
  CHECK_FALSE(scene.processes.has_mapped(::getpid(), "/libc.so.7"));
  CHECK_FALSE(scene.processes.has_mapped(0, "/libc.so.6"));
  CHECK(scene.processes.file_at(reinterpret_cast<std::uintptr_t>(&::getpid)) == "/libc.so.6");
  CHECK(scene.processes.file_at(0).empty());
}

// ---- What they hold ---------------------------------------------------------------

TEST_CASE("a connection that only a forked child holds is found until it is closed",
          "[processes]") {
  const bool has_diagnosis = GENERATE(true, false);
  const std::string address = GENERATE("127.0.0.1:0", "[::1]:0");
  CAPTURE(has_diagnosis, address);
  if (address.front() == '[' && !has_ipv6()) {
    return;
  }
  Scene scene;
  if (!has_diagnosis) {  // the table in /proc must do
    scene.sys.hooks.socket = [](int, int, int) {
      errno = EPROTONOSUPPORT;
      return -1;
    };
  }
  Handed handed(address);
  const auto held = scene.find(handed.name);
  CHECK(held.count == 1);
  CHECK(held.process == handed.child.pid());
  CHECK(scene.processes.still_holds(held));

  handed.child.kill();
  CHECK_FALSE(scene.processes.still_holds(held));
  CHECK(scene.find(handed.name).count == 0);
  CHECK(scene.sys.open().empty());
}

TEST_CASE("with the kernel's diagnosis no table of connections is read", "[processes]") {
  Scene scene;
  const Handed handed;
  bool was_read = false;
  scene.sys.hooks.openat = [&](int directory, const char* path, int flags, mode_t mode) {
    was_read = was_read || std::string_view(path).find("net/tcp") != std::string_view::npos;
    return ::openat(directory, path, flags, mode);
  };
  CHECK(scene.find(handed.name).count == 1);
  CHECK_FALSE(was_read);
  scene.sys.fail_next(Call::sendmsg, EPERM);
  CHECK(scene.find(handed.name).count == 1);
  CHECK(was_read);
}

TEST_CASE("an answer of the kernel that is cut off or nonsense makes the table be read",
          "[processes]") {
  // What is handed out, what it says of its length, and of its kind. Each makes the real table
  // be read, which takes long where other tests have left thousands of connections in it.
  const auto [size, length, type] =
      GENERATE(table<std::size_t, std::uint32_t, std::uint16_t>({{0, 0U, NLMSG_ERROR},
                                                                 {0, 16U, 20},
                                                                 {4, 15U, NLMSG_ERROR},
                                                                 {4, 0xffffffffU, 20},
                                                                 {16, 15U, 20},
                                                                 {16, 16U, NLMSG_ERROR},
                                                                 {16, 80U, 20},
                                                                 {20, 16U, 20},
                                                                 {20, 80U, NLMSG_ERROR},
                                                                 {88, 0U, 20},
                                                                 {88, 80U, 20},
                                                                 {88, 0xffffffffU, NLMSG_ERROR}}));
  CAPTURE(size, length, type);
  Scene scene;
  const Handed handed;
  int answers = 0;
  nlmsghdr header{};
  header.nlmsg_len = length;
  header.nlmsg_type = type;
  scene.sys.hooks.recvmsg = [&, size = size](int, msghdr* message, int) -> ssize_t {
    if (++answers > 4) {
      return 0;
    }
    std::memcpy(message->msg_iov->iov_base, &header, std::min(size, sizeof header));
    return static_cast<ssize_t>(size);
  };
  CHECK(scene.find(handed.name).count == 1);
  CHECK(scene.sys.open().empty());
}

TEST_CASE("connections of others, of the roots and of what is left out are not counted",
          "[processes]") {
  Scene scene;
  const Handed handed;
  const OwnedFd other = listen_at("127.0.0.1:0");
  CHECK(scene.find(handed.name).count == 1);
  CHECK(scene.find(name_of(other.get())).count == 0);
  CHECK(scene.find(handed.name, handed.child.pid()).count == 0);
  scene.self.insert(handed.child.pid());
  CHECK(scene.find(handed.name).count == 0);
}

TEST_CASE("a connection through a UNIX path is found in a child", "[processes]") {
  const Scene scene;
  const TempDirectory directory;
  const Handed handed("unix:" + directory.path() + "/server");
  CHECK(scene.find(handed.name).process == handed.child.pid());
}

TEST_CASE("nothing is held by what was never found", "[processes]") {
  const Scene scene;
  CHECK_FALSE(scene.processes.still_holds({}));
}

TEST_CASE("a child that holds a listener is found, once, and not when it has closed it",
          "[processes]") {
  const Scene scene;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd copy = copy_of(listener.get());
  const std::array<std::uint64_t, 1> inodes{socket_inode(scene.sys, listener.get())};
  const Child holder;
  const Child closer([&] {
    ::close(listener.get());
    ::close(copy.get());
  });
  CHECK(scene.processes.find_holders(inodes, scene.self, {}) == std::vector<pid_t>{holder.pid()});
  CHECK(scene.processes.find_holders(inodes, {::getpid(), holder.pid()}, {}).empty());
  CHECK(scene.processes.find_holders(inodes, scene.self, {holder.pid()}).empty());
}

TEST_CASE("whatever call fails while others are looked at, nothing stays open", "[processes]") {
  const auto code = GENERATE(EMFILE, ENOMEM, EACCES);
  Scene scene;
  const Handed handed;
  const std::array<std::uint64_t, 1> inodes{socket_inode(scene.sys, handed.listener.get())};
  // There is a call or more for every process of this machine: the first ones
  // show all the kinds there are.
  int found = 0;
  for (int n = 1; n < 60; ++n) {
    CAPTURE(code, n);
    scene.sys.fail_nth(n, code);
    const auto held = scene.find(handed.name);
    static_cast<void>(scene.processes.find_holders(inodes, scene.self, {}));
    static_cast<void>(scene.processes.topmost(handed.child.pid()));
    CHECK(scene.sys.has_failed());
    scene.sys.stop_failing();
    found += held.count == 1 ? 1 : 0;
    CHECK((held.count == 0 || held.process == handed.child.pid()));
    CHECK(scene.sys.open().empty());
  }
  CHECK(found > 0);
  CHECK(scene.find(handed.name).count == 1);
}

}  // namespace continuity::test
