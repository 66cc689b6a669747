// Another user of the machine, who wants to keep a server from being restarted, or its
// listeners for himself. What he can reach he may do anything with.
#include "core/wire.hpp"
#include "place.hpp"
#include "restarts.hpp"
#include "support/root.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace continuity::test {
namespace {

namespace fs = std::filesystem;

constexpr uid_t nobody = 65'534;

// A process of another user, which does something, says so, and goes on existing with
// what it has opened until the test is over.
class Attacker {
 public:
  // What is done there; what it answers is the attacker's report.
  using Attack = std::function<int()>;

  explicit Attacker(const Attack& attack, uid_t user = nobody) {
    std::array<int, 2> pipe{};
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0 || (pid_ = ::fork()) < 0) {
      throw std::runtime_error("no attacker");
    }
    if (pid_ == 0) {
      const bool is_other =
          ::setgroups(0, nullptr) == 0 && ::setgid(user) == 0 && ::setuid(user) == 0;
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // forgotten by a process that becomes another user
      const int report = is_other ? attack() : -1;
      if (::write(pipe[1], &report, sizeof report) != sizeof report) {
        ::_exit(1);
      }
      for (;;) {
        ::pause();
      }
    }
    ::close(pipe[1]);
    if (::read(pipe[0], &report_, sizeof report_) != sizeof report_) {
      report_ = -1;
    }
    ::close(pipe[0]);
  }
  ~Attacker() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Attacker(const Attacker&) = delete;
  Attacker& operator=(const Attacker&) = delete;

  [[nodiscard]] int report() const { return report_; }

 private:
  pid_t pid_ = -1;
  int report_ = -1;
};

// A connection to the door; -1, with errno.
int knock(const std::string& door) {
  const SocketAddress address(door);
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
  return ::connect(fd, address.get(), address.length) == 0 ? fd : -1;
}

void say(int fd, const Message& message) {
  const auto bytes = encode(message);
  ::send(fd, bytes->data(), bytes->size(), MSG_NOSIGNAL);
}

Message greeting() {
  Message hello{.type = MessageType::hello};
  hello.protocol_min = hello.protocol_max = protocol_version;
  hello.identity = "tiny-server";
  hello.generation = 1;
  return hello;
}

// Whether anything comes there before the end. Whoever was let in would be told the
// inventory.
bool hears_anything(int fd) {
  std::array<char, 512> buffer{};
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&entry, 1, 20'000) > 0 && ::recv(fd, buffer.data(), buffer.size(), 0) > 0;
}

std::string door_of(const Place& place) {
  const auto doors = files_below(place.rendezvous());
  REQUIRE(doors.size() == 1);
  return doors.front();
}

// A server of root's under load, in a place that everybody may pass through.
struct Served {
  Place place;
  Process server;
  Load load;
  std::string door;

  Served() : server(start(place)), load(place.address(), server), door(door_of(place)) {}
  static Process start(const Place& place) {
    fs::permissions(place.rendezvous(), static_cast<fs::perms>(0711));
    return place.start({"epoll-level"});
  }
  // With an attacker at work, and no client notices.
  void restart() {
    restart_under_load(place, {"epoll-level"}, load, server);
    check_nothing_was_lost(load, 1);
  }
};

// ---- At the door ---------------------------------------------------------------------

TEST_CASE("another user does not come to the door, and restarts go on") {
  if (needs_root()) {
    return;
  }
  Served served;
  const Attacker attacker([&] { return knock(served.door) < 0 ? errno : 0; });
  CHECK(attacker.report() == EACCES);
  served.restart();
}

// Somebody has opened the directory to everybody, or the attacker was handed the way.
class OpenDoor {
 public:
  explicit OpenDoor(const Served& served) : directory_(served.place.rendezvous() + "/0") {
    fs::permissions(directory_, static_cast<fs::perms>(0711));
    fs::permissions(served.door, static_cast<fs::perms>(0777));
  }
  // So that the next start finds it as it must be.
  ~OpenDoor() { close(); }
  void close() const { fs::permissions(directory_, static_cast<fs::perms>(0700)); }
  OpenDoor(const OpenDoor&) = delete;
  OpenDoor& operator=(const OpenDoor&) = delete;

 private:
  std::string directory_;
};

TEST_CASE("another user who stands at an open door hears nothing, whatever he says there") {
  if (needs_root()) {
    return;
  }
  Served served;
  const OpenDoor open(served);
  const Attacker attacker([&] {
    int heard = 0;
    const std::array<std::function<void(int)>, 4> attempts{
        [](int fd) { say(fd, greeting()); },
        [](int fd) {
          Message join{.type = MessageType::join};
          join.fresh = false;
          say(fd, join);
        },
        [](int fd) { ::send(fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL); }, [](int) {}};
    for (const auto& attempt : attempts) {
      const int fd = knock(served.door);
      attempt(fd);
      heard += hears_anything(fd) ? 1 : 0;
    }
    return heard;
  });
  CHECK(attacker.report() == 0);
  served.server.await_log("user 65534 knocked at the rendezvous socket; ignored");
  open.close();
  served.restart();
}

TEST_CASE("another user who floods an open door takes neither the service nor a restart") {
  if (needs_root()) {
    return;
  }
  Served served;
  const OpenDoor open(served);
  {
    // As fast as it can, without an end.
    const Attacker flood([&] {
      if (::fork() == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
          ::close(knock(served.door));
        }
      }
      return 0;
    });
    served.server.await_log("knocked at the rendezvous socket; ignored");
    CHECK(served.load.await_ok(500));
    open.close();  // who is in the queue stays there
    served.restart();
  }
  served.restart();
}

TEST_CASE("an open directory is refused aloud, and the service goes on") {
  if (needs_root()) {
    return;
  }
  Served served;
  const OpenDoor open(served);
  Process second = served.place.spawn({"epoll-level"});
  CHECK(second.next_line() == "bind EADDRINUSE");
  CHECK(second.wait_exit() == 1);
  CHECK(second.logged("has mode 711, must be 700: chmod it, or set CONTINUITY_DIR") == 1);
  CHECK(served.load.await_ok(20));
  open.close();
  served.restart();
}

// ---- Where they meet -------------------------------------------------------------------

// The names below a base that everybody may write to, /tmp for instance, taken before
// anybody meets there.
void plant(const std::string& path, int kind) {
  switch (kind) {
    case 0:
      ::close(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
      break;
    case 1:
      ::mkfifo(path.c_str(), 0666);
      break;
    case 2:
      ::mkdir(path.c_str(), 0700);
      break;
    case 3:
      ::mkdir(path.c_str(), 0777);
      break;
    case 4: {
      const std::string target = path + ".target";
      ::mkdir(target.c_str(), 0777);
      ::symlink(target.c_str(), path.c_str());
      break;
    }
    default: {
      const SocketAddress address(path);
      const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
      if (::bind(fd, address.get(), address.length) == 0) {
        ::listen(fd, 5);
      }
      break;
    }
  }
}

TEST_CASE("whatever another user has put in the place of the directory is refused aloud") {
  if (needs_root()) {
    return;
  }
  const auto kind = GENERATE(range(0, 6));
  CAPTURE(kind);
  Place place;
  fs::permissions(place.rendezvous(), static_cast<fs::perms>(01777));
  const std::string own = place.rendezvous() + "/0";
  const Attacker attacker([&] {
    plant(own, kind);
    return 0;
  });
  REQUIRE(fs::exists(fs::symlink_status(own)));

  Process server = place.start({"poll"});

  CHECK(answer_from(place.address()) == answer_of(server));
  Process second = place.spawn({"poll"});
  CHECK(second.next_line() == "bind EADDRINUSE");
  second.wait_exit();
  for (Process* process : {&server, &second}) {
    CAPTURE(process->log());
    CHECK(process->logged("rendezvous directory " + own) == 1);
    CHECK(process->logged("set CONTINUITY_DIR to a directory of your own; until then this "
                          "program cannot be restarted without loss") == 1);
  }
}

// A /tmp and a /run of their own for servers of a user and for whoever is there first.
class OtherTmp {
 public:
  OtherTmp() {
    // The build tree stays where it is, also if that is below /tmp.
    constexpr const char* script = R"(
      mount --make-rprivate /
      mount --bind "$1" /mnt
      mount -t tmpfs -o mode=1777 none /tmp
      mkdir -p "$1"
      mount --bind /mnt "$1"
      mount -t tmpfs none /run
      echo ready
      exec sleep 600)";
    space_ = Process::start({"unshare", "--mount", "sh", "-ec", script, "sh", BUILD_TREE});
    space_.next_line();
  }
  // Before a command that is run there, as this user.
  [[nodiscard]] Arguments entered_as(uid_t user) const {
    const std::string number = std::to_string(user);
    return {"--mount=/proc/" + std::to_string(space_.pid()) + "/ns/mnt",
            "--wdns=/",
            "setpriv",
            "--reuid=" + number,
            "--regid=" + number,
            "--clear-groups"};
  }
  void run_as(uid_t user, const std::string& script) const {
    Arguments command{"nsenter"};
    for (const std::string& argument : entered_as(user)) {
      command.push_back(argument);
    }
    command.insert(command.end(), {"sh", "-ec", script});
    Process shell = Process::start(command);
    REQUIRE(shell.wait_exit() == 0);
  }

 private:
  Process space_;
};

// A server of user 1234, whose names in /tmp another one has squatted.
class SquattedPlace : public Place {
 public:
  SquattedPlace() {
    // The library comes last: it would make the directory of whom root becomes.
    with_library = false;
    environment = {"CONTINUITY_PROBATION=50ms"};
    program = "nsenter";
    arguments = tmp.entered_as(victim);
    arguments.insert(arguments.end(),
                     {"env", "LD_PRELOAD=" CONTINUITY_LIBRARY, TINY_SERVER, "epoll-level"});
  }
  void squat(const std::string& names) const {
    tmp.run_as(nobody, "cd /tmp; for n in " + names +
                           "; do case $n in *[02468]) mkdir $n;; *[135])"
                           " touch $n;; *7) mkfifo $n;; *) ln -s / $n;; esac; done");
  }
  static constexpr uid_t victim = 1234;
  OtherTmp tmp;
  Arguments arguments;
};

TEST_CASE("a server meets its successor in /tmp past whoever was there first, and has gone") {
  if (needs_root()) {
    return;
  }
  const SquattedPlace place;
  place.squat("continuity-1234 continuity-1234.1 continuity-1234.7");
  Process server = place.start(place.arguments);
  Load load(place.address(), server);
  place.tmp.run_as(SquattedPlace::victim, "ls /tmp/continuity-1234.2/tiny-server.*");
  place.tmp.run_as(nobody, "rmdir /tmp/continuity-1234");
  for (int i = 0; i < 3; ++i) {
    restart_under_load(place, place.arguments, load, server);
  }
  check_nothing_was_lost(load, 3);
}

TEST_CASE("where every name in /tmp is taken by another user, that is said, with what to do") {
  if (needs_root()) {
    return;
  }
  const SquattedPlace place;
  place.squat("continuity-1234 $(seq -f continuity-1234.%g 9)");
  Process server = place.start(place.arguments);
  Process second = place.spawn(place.arguments);
  CHECK(second.next_line() == "bind EADDRINUSE");
  second.wait_exit();
  CHECK(answer_from(place.address()) == answer_of(server));
  for (Process* process : {&server, &second}) {
    CAPTURE(process->log());
    CHECK(process->logged("set CONTINUITY_DIR to a directory of your own; until then this "
                          "program cannot be restarted without loss") == 1);
  }
}

TEST_CASE("another user's directory under a name of his own is no place to meet him") {
  if (needs_root()) {
    return;
  }
  // Where everybody may make a directory, he has one with a server in it that says to
  // be ours, holds the address of ours, and another that ours is to bind.
  Place place;
  place.program = TINY_SERVER;
  fs::permissions(place.rendezvous(), static_cast<fs::perms>(01777));
  const ReservedPort free_port;
  const std::string his = place.rendezvous() + "/" + std::to_string(nobody);
  const std::array addresses{place.address(), free_port.address()};
  const Attacker attacker([&] {
    ::mkdir(his.c_str(), 0700);
    const SocketAddress door(his + "/tiny-server.00000000000000ff.sock");
    const int listener = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (::bind(listener, door.get(), door.length) != 0 || ::listen(listener, 16) != 0) {
      return 1;
    }
    if (::fork() != 0) {
      return 0;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    Message inventory{.type = MessageType::inventory};
    inventory.protocol_min = inventory.protocol_max = protocol_version;
    inventory.identity = "tiny-server";
    inventory.state = HolderState::on_probation;  // for ever
    for (const std::string& text : addresses) {
      const SocketAddress address(text);
      const int model = ::socket(AF_INET, SOCK_STREAM, 0);
      Address named;
      std::memcpy(&named.storage, &address.storage, address.length);
      named.length = address.length;
      inventory.listeners.push_back(*describe_socket(libc_sys(), model, &named));
      inventory.listeners.back().id = static_cast<std::uint32_t>(inventory.listeners.size());
    }
    for (;;) {
      const int fd = ::accept(listener, nullptr, nullptr);
      say(fd, inventory);
    }
  });
  REQUIRE(attacker.report() == 0);

  Process server = place.start({"epoll-level"});
  CHECK(server.logged("says that it holds " + place.address() + ", and nobody does; ignored") == 1);
  Load load(place.address(), server);
  for (int i = 0; i < 3; ++i) {
    restart_under_load(place, {"epoll-level"}, load, server);
  }
  check_nothing_was_lost(load, 3);
}

TEST_CASE("a listener that another user has made is never taken over by root") {
  if (needs_root()) {
    return;
  }
  // He runs the same server, with the library, before root does.
  Place place;
  fs::permissions(place.rendezvous(), static_cast<fs::perms>(01777));
  place.environment = {"CONTINUITY_NAME=tiny-server"};
  std::vector<std::string> command{"setpriv",   "--reuid=65534", "--regid=65534", "--clear-groups",
                                   TINY_SERVER, "poll",          place.address()};
  Process his = Process::start(command, place.variables());
  his.next_line();
  CHECK(wait_until([&] {  // under the name by which it is found
    const auto doors = files_below(place.rendezvous());
    return doors.size() == 1 && doors.front().find("/tiny-server.") != std::string::npos;
  }));

  Process ours = place.spawn({"poll"});

  CHECK(ours.next_line() == "bind EADDRINUSE");  // as without the library
  CHECK(ours.wait_exit() == 1);
  CAPTURE(ours.log());
  CHECK(ours.logged("which user 65534 has made, and we are user 0; not taken") == 1);
  CHECK(answer_from(place.address()) == answer_of(his));
}

}  // namespace
}  // namespace continuity::test
