// The directory in which generations find each other.
#include "core/rendezvous.hpp"

#include "fake_sys.hpp"
#include "sockets.hpp"
#include "support/root.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace continuity::test {
namespace {

using Door = Rendezvous::Door;

constexpr uid_t somebody_else = 65'534;

mode_t mode_of(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777U : 0;
}

std::string user_of() {
  return std::to_string(::geteuid());
}

std::string own_of(const TempDirectory& base) {
  return base.path() + "/" + user_of();
}

void make_older(const std::string& path, time_t seconds) {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  time.tv_sec -= seconds;
  const timespec times[2] = {time, time};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
}

struct Umask {
  explicit Umask(mode_t mask) : before(::umask(mask)) {}
  ~Umask() { ::umask(before); }
  Umask(const Umask&) = delete;
  Umask& operator=(const Umask&) = delete;
  mode_t before;
};

// Why the directory cannot be used; empty: it can.
std::string problem_of(const Sys& sys, const std::string& base) {
  std::string problem;
  const auto rendezvous = Rendezvous::open(sys, base, sys.geteuid(), problem);
  CHECK(rendezvous.has_value() == problem.empty());
  CHECK(problem.find('\n') == std::string::npos);
  return problem;
}

// Lines that connect_all writes.
struct Lines {
  FakeSys<1> sys;
  Log log;
  std::vector<std::string> lines{};
  Lines() {
    sys.hooks.write = [this](int, const void* data, std::size_t size) {
      lines.emplace_back(static_cast<const char*>(data), size);
      return static_cast<ssize_t>(size);
    };
    sys.hooks.openat = [](int, const char*, int, mode_t) { return 1000; };
    log.open(sys, LogLevel::debug, "log");
  }
};

Rendezvous open_in(const Sys& sys, const std::string& base) {
  std::string problem;
  auto rendezvous = Rendezvous::open(sys, base, sys.geteuid(), problem);
  INFO(problem);
  REQUIRE(rendezvous.has_value());
  return std::move(*rendezvous);
}

// /run/continuity and /tmp lead elsewhere.
void redirect(FakeKernel& sys, const std::string& run, const std::string& tmp) {
  const auto lead = [run, tmp](const char* path) -> std::string {
    const std::string text = path;
    return text == "/run/continuity" ? run : text == "/tmp" ? tmp : text;
  };
  sys.hooks.openat = [lead](int dir, const char* path, int flags, mode_t mode) {
    return ::openat(dir, lead(path).c_str(), flags, mode);
  };
  sys.hooks.mkdirat = [lead](int dir, const char* path, mode_t mode) {
    return ::mkdirat(dir, lead(path).c_str(), mode);
  };
  sys.hooks.fchmodat = [lead](int dir, const char* path, mode_t mode) {
    return ::fchmodat(dir, lead(path).c_str(), mode, 0);
  };
  sys.hooks.fstatat = [lead](int dir, const char* path, struct stat* status, int flags) {
    return ::fstatat(dir, lead(path).c_str(), status, flags);
  };
}

}  // namespace

TEST_CASE("the directory of a user is made, 0700 whatever the umask is", "[rendezvous]") {
  const auto mask = GENERATE(mode_t{0}, mode_t{022}, mode_t{077}, mode_t{0777});
  const TempDirectory base;
  {
    const Umask changed(mask);
    CHECK(problem_of(libc_sys(), base.path()).empty());
  }
  CHECK(mode_of(own_of(base)) == 0700);
  CHECK(problem_of(libc_sys(), base.path()).empty());
}

TEST_CASE("a user who is not root gets a directory under any umask", "[rendezvous]") {
  if (needs_root()) {
    return;
  }
  const TempDirectory base;
  ::chmod(base.path().c_str(), 01777);
  const pid_t child = ::fork();
  if (child == 0) {
    ::umask(0777);
    std::string problem;
    const bool opened =
        ::seteuid(somebody_else) == 0 &&
        Rendezvous::open(libc_sys(), base.path(), somebody_else, problem).has_value();
    ::_exit(opened ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("the directory of another user is there only when it is that user's", "[rendezvous]") {
  if (needs_root()) {
    return;
  }
  const TempDirectory base;
  FakeSys<0> sys;
  int given_away = 0;
  sys.hooks.fchown = [&](int fd, uid_t user, gid_t group) {
    ++given_away;
    CHECK(::access((base.path() + "/" + std::to_string(somebody_else)).c_str(), F_OK) != 0);
    return ::fchown(fd, user, group);
  };
  std::string problem;
  CHECK(Rendezvous::open(sys, base.path(), somebody_else, problem));
  CHECK(Rendezvous::open(sys, base.path(), somebody_else, problem));
  CHECK(problem.empty());
  CHECK(given_away == 1);
  CHECK(base.entries() == std::vector<std::string>{std::to_string(somebody_else)});
}

TEST_CASE("a base with the set-group-id bit is as good as any", "[rendezvous]") {
  const TempDirectory base;
  ::chmod(base.path().c_str(), 02755);
  CHECK(problem_of(libc_sys(), base.path()).empty());
  CHECK(mode_of(own_of(base)) == 0700);
}

TEST_CASE("a base that is missing, a file or a link is named, and what to do", "[rendezvous]") {
  const TempDirectory directory;
  const std::string path = directory.path() + "/base";
  CHECK_THAT(problem_of(libc_sys(), path),
             Catch::Contains(path + " does not exist") && Catch::Contains("CONTINUITY_DIR"));

  std::ofstream(path) << "x";
  CHECK_THAT(problem_of(libc_sys(), path), Catch::Contains("is not a directory"));

  std::filesystem::remove(path);
  std::filesystem::create_directory(directory.path() + "/real");
  std::filesystem::create_directory_symlink("real", path);
  CHECK_THAT(problem_of(libc_sys(), path), Catch::Contains("is a symbolic link"));
}

TEST_CASE("a base that everybody may write to is refused, unless it is sticky", "[rendezvous]") {
  const TempDirectory base;
  ::chmod(base.path().c_str(), 0777);
  CHECK_THAT(problem_of(libc_sys(), base.path()), Catch::Contains("written by everybody"));
  CHECK(base.entries().empty());
  ::chmod(base.path().c_str(), 01777);
  CHECK(problem_of(libc_sys(), base.path()).empty());
}

TEST_CASE("a directory of ours with another mode is refused and named", "[rendezvous]") {
  const auto mode = GENERATE(mode_t{0755}, mode_t{0770}, mode_t{0701}, mode_t{01700}, mode_t{0500});
  const TempDirectory base;
  std::filesystem::create_directory(own_of(base));
  ::chmod(own_of(base).c_str(), mode);
  CHECK_THAT(problem_of(libc_sys(), base.path()), Catch::Contains("must be 700"));
  CHECK(mode_of(own_of(base)) == mode);
}

TEST_CASE("a directory of ours that is a file or a link is refused", "[rendezvous]") {
  const TempDirectory base;
  std::ofstream(own_of(base)) << "x";
  CHECK_THAT(problem_of(libc_sys(), base.path()), Catch::Contains("is not a directory"));
  std::filesystem::remove(own_of(base));
  std::filesystem::create_directory(base.path() + "/real");
  ::chmod((base.path() + "/real").c_str(), 0700);
  std::filesystem::create_directory_symlink("real", own_of(base));
  CHECK_FALSE(problem_of(libc_sys(), base.path()).empty());
}

TEST_CASE("a directory under our name that belongs to somebody else is refused", "[rendezvous]") {
  const TempDirectory base;
  FakeSys<0> sys;
  sys.hooks.geteuid = [] { return somebody_else; };
  std::filesystem::create_directory(base.path() + "/" + std::to_string(somebody_else));
  ::chmod((base.path() + "/" + std::to_string(somebody_else)).c_str(), 0700);
  if (needs_root()) {
    return;
  }
  CHECK_THAT(problem_of(sys, base.path()),
             Catch::Contains("belongs to user 0, not to user " + std::to_string(somebody_else)));
  CHECK(sys.open().empty());
}

TEST_CASE("a base that belongs to another user is refused", "[rendezvous]") {
  if (needs_root()) {
    return;
  }
  const TempDirectory base;
  REQUIRE(::chown(base.path().c_str(), somebody_else - 1, somebody_else - 1) == 0);
  FakeSys<0> sys;
  sys.hooks.geteuid = [] { return somebody_else; };
  CHECK_THAT(problem_of(sys, base.path()),
             Catch::Contains("belongs to user " + std::to_string(somebody_else - 1)));
  CHECK(base.entries().empty());
}

TEST_CASE("a base that cannot be written to is named", "[rendezvous]") {
  const TempDirectory base;
  FakeSys<0> sys;
  for (const int code : {EROFS, ENOSPC, EACCES}) {
    sys.fail_next(Call::mkdirat, code);
    CHECK_THAT(problem_of(sys, base.path()),
               Catch::Contains("cannot be made") && Catch::Contains(error_text(code)));
    CHECK(sys.open().empty());
  }
}

TEST_CASE("without CONTINUITY_DIR root makes /run/continuity, which all may enter and none list",
          "[rendezvous]") {
  const TempDirectory directory;
  FakeSys<0> sys;
  sys.hooks.geteuid = [] { return ::geteuid(); };
  redirect(sys, directory.path() + "/run", directory.path());
  std::string problem;
  const auto rendezvous = Rendezvous::open(sys, "", ::geteuid(), problem);
  REQUIRE(rendezvous.has_value());
  if (::geteuid() == 0) {
    CHECK(rendezvous->path() == "/run/continuity/0");
    CHECK(mode_of(directory.path() + "/run") == 0711);
    CHECK(mode_of(directory.path() + "/run/0") == 0700);
  }
}

TEST_CASE(
    "without /run/continuity a user finds a place in /tmp, past squatters, and finds it again",
    "[rendezvous]") {
  const TempDirectory tmp;
  FakeSys<0> sys;
  sys.hooks.geteuid = [] { return ::geteuid(); };
  redirect(sys, tmp.path() + "/run", tmp.path());
  std::ofstream(tmp.path() + "/run") << "in the way";
  const std::string name = "/continuity-" + std::to_string(::geteuid());
  CHECK(open_in(sys, "").path() == "/tmp" + name);
  std::filesystem::remove_all(tmp.path() + name);

  std::ofstream(tmp.path() + name) << "a file";
  std::filesystem::create_directory(tmp.path() + name + ".1");
  ::chmod((tmp.path() + name + ".1").c_str(), 0777);
  CHECK(open_in(sys, "").path() == "/tmp" + name + ".2");
  CHECK(open_in(sys, "").path() == "/tmp" + name + ".2");

  for (int i = 2; i < 10; ++i) {
    std::filesystem::remove_all(tmp.path() + name + "." + std::to_string(i));
    std::ofstream(tmp.path() + name + "." + std::to_string(i)) << "x";
  }
  CHECK_FALSE(problem_of(sys, "").empty());
}

TEST_CASE("a place in /tmp is found again when a squatter has let go of an earlier one",
          "[rendezvous]") {
  const TempDirectory tmp;
  FakeSys<0> sys;
  redirect(sys, tmp.path() + "/run", tmp.path());
  std::ofstream(tmp.path() + "/run") << "in the way";
  const std::string name = "/continuity-" + std::to_string(::geteuid());
  std::ofstream(tmp.path() + name) << "a file";
  REQUIRE(open_in(sys, "").path() == "/tmp" + name + ".1");
  std::filesystem::remove(tmp.path() + name);

  CHECK(open_in(sys, "").path() == "/tmp" + name + ".1");
  CHECK_FALSE(std::filesystem::exists(tmp.path() + name));
}

TEST_CASE("a squatter in /tmp is not used when CONTINUITY_DIR was given", "[rendezvous]") {
  const TempDirectory tmp;
  FakeSys<0> sys;
  redirect(sys, tmp.path() + "/run", tmp.path());
  CHECK_FALSE(problem_of(sys, tmp.path() + "/none").empty());
  CHECK(tmp.entries().empty());
}

TEST_CASE("who publishes is found under identity and generation, and answers", "[rendezvous]") {
  const TempDirectory base;
  FakeSys<0> sys;
  Lines lines;
  Rendezvous rendezvous = open_in(sys, base.path());
  const auto door = rendezvous.publish("redis-server", 0xabc);
  REQUIRE(door.has_value());
  const std::string user = std::to_string(::geteuid());
  const std::string name = user + "/redis-server.0000000000000abc.sock";
  CHECK(base.entries() == std::vector<std::string>{user, name});

  auto peers = rendezvous.connect_all(1, lines.log);
  REQUIRE(peers.size() == 1);
  CHECK(peers[0].name == name);
  CHECK(peers[0].channel.is_open());
  CHECK(peers[0].owner == ::geteuid());
  CHECK(rendezvous.knock(name) == Door::open);
  CHECK(rendezvous.connect_all(0xabc, lines.log).empty());  // ourselves
  CHECK(lines.lines.empty());

  rendezvous.withdraw("redis-server", 0xabc);
  CHECK(rendezvous.connect_all(1, lines.log).empty());
  CHECK(rendezvous.knock(name) == Door::missing);
  CHECK(base.entries().size() == 1);
  std::filesystem::remove_all(own_of(base));
  CHECK(rendezvous.knock(name) == Door::missing);
}

TEST_CASE("many generations are found at once, each by its own name", "[rendezvous]") {
  const TempDirectory base;
  Lines lines;
  Rendezvous rendezvous = open_in(libc_sys(), base.path());
  std::vector<OwnedFd> doors;
  for (std::uint64_t generation = 1; generation <= 20; ++generation) {
    auto door = rendezvous.publish("s", generation);
    REQUIRE(door.has_value());
    doors.push_back(std::move(*door));
  }
  CHECK(rendezvous.connect_all(7, lines.log).size() == 19);
}

TEST_CASE("a socket that nobody listens on any more is removed and named", "[rendezvous]") {
  const TempDirectory base;
  Lines lines;
  Rendezvous rendezvous = open_in(libc_sys(), base.path());
  auto door = rendezvous.publish("dead", 1);
  const auto living = rendezvous.publish("living", 2);
  door->reset();
  CHECK(rendezvous.knock(user_of() + "/dead.0000000000000001.sock") == Door::refuses);

  const auto peers = rendezvous.connect_all(3, lines.log);

  CHECK(peers.size() == 1);
  REQUIRE(lines.lines.size() == 1);
  CHECK_THAT(lines.lines[0], Catch::Contains("dead.0000000000000001.sock"));
  CHECK(base.entries().size() == 2);
}

TEST_CASE("what a process killed at the wrong moment has left is removed once it is old",
          "[rendezvous]") {
  const TempDirectory base;
  Lines lines;
  Rendezvous rendezvous = open_in(libc_sys(), base.path());
  const std::string own = own_of(base);
  const auto leave = [&](const std::string& name, bool old) {
    listen_at("unix:" + own + "/" + name, 0, SOCK_SEQPACKET);
    make_older(own + "/" + name, old ? 120 : 0);
  };
  leave(".stand-in.4711.1020", true);
  leave(".stand-in.4712.1020", false);
  leave(".0000000000000001.sock", true);
  leave(".0000000000000002.sock", false);
  for (const char* name : {"/.1000.4711", "/.1000.4712", "/.1000.4713", "/.x.4711"}) {
    std::filesystem::create_directory(base.path() + name);
    make_older(base.path() + name, 120);
  }
  make_older(base.path() + "/.1000.4712", 0);
  std::ofstream(base.path() + "/.1000.4713/file") << "x";
  make_older(base.path() + "/.1000.4713", 120);

  CHECK(rendezvous.connect_all(3, lines.log).empty());

  const auto is_there = [&](const std::string& path) { return std::filesystem::exists(path); };
  CHECK_FALSE(is_there(own + "/.stand-in.4711.1020"));
  CHECK(is_there(own + "/.stand-in.4712.1020"));
  CHECK_FALSE(is_there(own + "/.0000000000000001.sock"));
  CHECK(is_there(own + "/.0000000000000002.sock"));
  CHECK(is_there(base.path() + "/.1000.4711") == (::geteuid() != 0));  // of root's making only
  CHECK(is_there(base.path() + "/.1000.4712"));
  CHECK(is_there(base.path() + "/.1000.4713/file"));
  CHECK(is_there(base.path() + "/.x.4711"));
}

TEST_CASE("what is no socket of ours is left alone", "[rendezvous]") {
  const TempDirectory base;
  Lines lines;
  Rendezvous rendezvous = open_in(libc_sys(), base.path());
  std::ofstream(own_of(base) + "/readme") << "x";
  const OwnedFd stream = listen_at("unix:" + own_of(base) + "/stream.0000000000000001.sock");

  CHECK(rendezvous.connect_all(3, lines.log).empty());

  CHECK(lines.lines.size() == 1);  // EPROTOTYPE, named
  CHECK(base.entries().size() == 3);
}

TEST_CASE("a link in the directory is not followed, wherever it leads", "[rendezvous]") {
  const TempDirectory base;
  Lines lines;
  Rendezvous rendezvous = open_in(libc_sys(), base.path());
  const std::string elsewhere = base.path() + "/elsewhere";
  const OwnedFd socket = listen_at("unix:" + elsewhere, 0, SOCK_SEQPACKET);
  std::filesystem::create_symlink(elsewhere, own_of(base) + "/x.0000000000000001.sock");

  CHECK(rendezvous.connect_all(3, lines.log).empty());

  CHECK(lines.lines.size() == 1);
  CHECK_FALSE(becomes_readable(socket.get(), 0));  // nobody has knocked
  CHECK(rendezvous.knock(std::to_string(::geteuid()) + "/x.0000000000000001.sock") == Door::open);
}

TEST_CASE("root looks at so many sockets of another user and no more", "[rendezvous]") {
  if (needs_root()) {
    return;
  }
  const TempDirectory base;
  Lines lines;
  std::string problem;
  auto theirs = Rendezvous::open(libc_sys(), base.path(), somebody_else, problem);
  REQUIRE(theirs.has_value());
  std::vector<OwnedFd> doors;
  for (std::uint64_t generation = 10; generation < 210; ++generation) {
    auto door = theirs->publish("s", generation);
    REQUIRE(door.has_value());
    doors.push_back(std::move(*door));
  }
  Rendezvous ours = open_in(libc_sys(), base.path());

  CHECK(ours.connect_all(2, lines.log).size() == 128);

  REQUIRE(lines.lines.size() == 1);
  CHECK_THAT(lines.lines[0], Catch::Contains("has 200 sockets at the rendezvous; only 128"));
}

TEST_CASE("a file called like a socket is not taken for a dead generation without a word",
          "[rendezvous]") {
  const TempDirectory base;
  Lines lines;
  Rendezvous rendezvous = open_in(libc_sys(), base.path());
  std::ofstream(own_of(base) + "/x.0000000000000001.sock") << "x";
  CHECK(rendezvous.connect_all(3, lines.log).empty());
  CHECK(lines.lines.size() == 1);
}

TEST_CASE("a full queue at the door is no proof of death", "[rendezvous]") {
  const TempDirectory base;
  Rendezvous rendezvous = open_in(libc_sys(), base.path());
  const auto door = rendezvous.publish("s", 1);
  const std::string name = user_of() + "/s.0000000000000001.sock";
  std::vector<Rendezvous::Peer> held;
  Lines lines;
  const auto knock = [&] {
    auto peers = rendezvous.connect_all(2, lines.log);
    std::move(peers.begin(), peers.end(), std::back_inserter(held));
    return !peers.empty();
  };
  while (held.size() < 100 && knock()) {
  }
  REQUIRE(held.size() < 100);  // the queue is full
  CHECK(rendezvous.knock(name) == Door::open);
  CHECK(base.entries().size() == 2);
}

TEST_CASE("who finds the queue at the door full waits for a moment", "[rendezvous]") {
  const TempDirectory base;
  FakeSys<0> sys;
  Lines lines;
  Rendezvous rendezvous = open_in(sys, base.path());
  const auto door = rendezvous.publish("s", 1);
  int refused = 0;
  sys.hooks.connect = [&](int fd, const sockaddr* address, socklen_t length) {
    if (refused < 3) {
      ++refused;
      errno = EAGAIN;
      return -1;
    }
    return ::connect(fd, address, length);
  };
  CHECK(rendezvous.connect_all(2, lines.log).size() == 1);
  CHECK(refused == 3);
}

TEST_CASE("a failure of our own is no proof of death", "[rendezvous]") {
  const TempDirectory base;
  FakeSys<0> sys;
  Rendezvous rendezvous = open_in(sys, base.path());
  const auto door = rendezvous.publish("s", 1);
  for (const int code : {EMFILE, ENOMEM}) {
    sys.fail_next(Call::socket, code);
    CHECK(rendezvous.knock(user_of() + "/s.0000000000000001.sock") == Door::open);
  }
}

TEST_CASE("a directory however deep works, with a name of 64 characters", "[rendezvous]") {
  const TempDirectory base;
  std::string deep = base.path();
  for (int i = 0; i < 12; ++i) {
    deep += "/" + std::string(60, 'd');
  }
  std::filesystem::create_directories(deep);
  Lines lines;
  Rendezvous rendezvous = open_in(libc_sys(), deep);
  const auto door = rendezvous.publish(std::string(64, 'n'), ~std::uint64_t{0});
  REQUIRE(door.has_value());
  CHECK(rendezvous.connect_all(1, lines.log).size() == 1);
  CHECK(rendezvous.knock(user_of() + "/" + std::string(64, 'n') + ".ffffffffffffffff.sock") ==
        Door::open);
}

TEST_CASE("a name of 64 characters is found in the directory of any user", "[rendezvous]") {
  if (needs_root()) {
    return;
  }
  const TempDirectory base;
  Lines lines;
  std::string problem;
  auto theirs = Rendezvous::open(libc_sys(), base.path(), somebody_else, problem);
  REQUIRE(theirs.has_value());
  const auto door = theirs->publish(std::string(64, 'n'), 1);
  REQUIRE(door.has_value());
  const auto peers = theirs->connect_all(2, lines.log);
  REQUIRE(peers.size() == 1);
  CHECK(theirs->knock(peers[0].name) == Door::open);
}

TEST_CASE("root finds what other users have published, and who they are", "[rendezvous]") {
  if (needs_root()) {
    return;
  }
  const TempDirectory base;
  Lines lines;
  std::string problem;
  auto theirs = Rendezvous::open(libc_sys(), base.path(), somebody_else, problem);
  REQUIRE(theirs.has_value());
  struct stat status {};
  REQUIRE(::fstat(theirs->directory(), &status) == 0);
  CHECK(status.st_uid == somebody_else);
  CHECK((status.st_mode & 07777U) == 0700);
  const auto door = theirs->publish("s", 1);
  Rendezvous ours = open_in(libc_sys(), base.path());
  auto peers = ours.connect_all(2, lines.log);
  REQUIRE(peers.size() == 1);
  CHECK(peers[0].owner == somebody_else);
  CHECK(ours.knock(peers[0].name) == Door::open);

  // A directory that somebody else can enter, or that is another's, proves nothing.
  peers.clear();
  const std::string path = base.path() + "/" + std::to_string(somebody_else);
  ::chmod(path.c_str(), 0777);
  CHECK(ours.connect_all(2, lines.log).empty());
  ::chmod(path.c_str(), 0700);
  REQUIRE(::chown(path.c_str(), somebody_else - 1, 0) == 0);
  CHECK(ours.connect_all(2, lines.log).empty());
}

TEST_CASE("between bind and listen nobody finds a door that refuses", "[rendezvous]") {
  const TempDirectory base;
  FakeSys<0> sys;
  Lines lines;
  Rendezvous rendezvous = open_in(sys, base.path());
  std::size_t seen = 99;
  sys.hooks.listen = [&](int fd, int backlog) {
    seen = rendezvous.connect_all(2, lines.log).size();
    return ::listen(fd, backlog);
  };
  REQUIRE(rendezvous.publish("s", 1).has_value());
  CHECK(seen == 0);
  CHECK(lines.lines.empty());
  CHECK(base.entries().size() == 2);
}

TEST_CASE("a door is found before it is announced by who asks for that", "[rendezvous]") {
  const TempDirectory base;
  Lines lines;
  Rendezvous rendezvous = open_in(libc_sys(), base.path());
  const auto door = rendezvous.make_door(1);
  REQUIRE(door.has_value());
  CHECK(rendezvous.connect_all(0, lines.log).empty());
  CHECK(rendezvous.connect_all(0, lines.log, true).size() == 1);
  REQUIRE(rendezvous.announce("s", 1).has_value());
  CHECK(rendezvous.connect_all(0, lines.log).size() == 1);
  CHECK(rendezvous.connect_all(0, lines.log, true).size() == 1);
}

TEST_CASE("a door that is announced while it is looked for is found", "[rendezvous]") {
  const TempDirectory base;
  FakeSys<0> sys;
  Lines lines;
  Rendezvous rendezvous = open_in(sys, base.path());
  const auto door = rendezvous.make_door(1);
  REQUIRE(door.has_value());
  bool announced = false;
  sys.hooks.connect = [&](int fd, const sockaddr* address, socklen_t size) {
    if (!std::exchange(announced, true)) {
      REQUIRE(rendezvous.announce("s", 1).has_value());
    }
    return ::connect(fd, address, size);
  };
  CHECK(rendezvous.connect_all(0, lines.log, true).size() == 1);
  CHECK(announced);
}

TEST_CASE("what has been announced already is not published anew", "[rendezvous]") {
  const TempDirectory base;
  Lines lines;
  Rendezvous rendezvous = open_in(libc_sys(), base.path());
  const auto door = rendezvous.make_door(1);
  REQUIRE(door.has_value());
  REQUIRE(rendezvous.announce("s", 1).has_value());
  CHECK(rendezvous.announce("s", 1).has_value());
  rendezvous.withdraw("s", 1);
  CHECK_FALSE(rendezvous.announce("s", 1).has_value());
}

TEST_CASE("what cannot be published leaves neither descriptor nor file", "[rendezvous]") {
  const auto code = GENERATE(EMFILE, ENOMEM, EINTR);
  const TempDirectory base;
  FakeSys<0> sys;
  int published = 0;
  const int failures = for_each_failure(sys, code, [&](int n) {
    CAPTURE(n);
    std::string problem;
    auto rendezvous = Rendezvous::open(sys, base.path(), ::geteuid(), problem);
    if (!rendezvous) {
      CHECK_FALSE(problem.empty());
      CHECK(sys.open().empty());
      return;
    }
    const auto door = rendezvous->publish("s", 1);
    if (door) {
      ++published;
      CHECK(is_listening(libc_sys(), door->get()));
      std::filesystem::remove(own_of(base) + "/s.0000000000000001.sock");
    }
    CHECK(base.entries() == std::vector<std::string>{user_of()});
    CHECK(sys.open().size() == (door ? 3 : 2));  // base, directory, door
  });
  CHECK(failures >= 8);
  CHECK(published >= 1);
  CHECK(sys.open().empty());
}

}  // namespace continuity::test
