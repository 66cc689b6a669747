// The files of CONTINUITY_HIDE: which they are, and how they change places.
#include "core/hidden_files.hpp"

#include "child.hpp"
#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>

namespace continuity::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t generation = 0xabc;

void write(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

std::string read(const std::string& path) {
  std::string text;
  std::ifstream(path) >> text;
  return text;
}

// A pid file, and what a successor has beside it.
struct Hidden {
  TempDirectory directory;
  std::string path{directory.path() + "/server.pid"};
  std::string beside{path + HiddenFiles::suffix(generation)};
  OwnedFd place{open_directory(directory)};
  FakeSys<21> sys;
  HiddenFiles files{sys, path};

  [[nodiscard]] std::string lock() const { return directory.path() + "/.0000000000000abc.hide"; }
};

}  // namespace

TEST_CASE("what can be hidden are absolute paths of files", "[hide]") {
  for (const char* good : {"/a", "/run/x.pid", "/a:/b", "/a:/b/c:/d"}) {
    CAPTURE(good);
    CHECK(are_hidable(good));
  }
  for (const char* bad : {"", "a", "a:/b", "/a:b", ":/a", "/a:", "/a::/b", "/", "/a/"}) {
    CAPTURE(bad);
    CHECK_FALSE(are_hidable(bad));
  }
  std::string many = "/a";
  for (std::size_t i = 1; i < HiddenFiles::most; ++i) {
    many += ":/a";
  }
  CHECK(are_hidable(many));
  CHECK_FALSE(are_hidable(many + ":/a"));
}

TEST_CASE("only a path with one of the last names is looked at", "[hide]") {
  constexpr const char* paths = "/run/x.pid:/srv/y.sock";
  CHECK(is_last_name_among(paths, last_name("x.pid")));
  CHECK(is_last_name_among(paths, last_name("/elsewhere/y.sock")));
  CHECK_FALSE(is_last_name_among(paths, last_name("/run/x.pid2")));
  CHECK_FALSE(is_last_name_among(paths, last_name("/run/x.pid/")));
  CHECK_FALSE(is_last_name_among(paths, last_name("/run")));
  CHECK_FALSE(is_last_name_among(paths, ""));
}

TEST_CASE("a hidden file is found by every path to it, and by no other", "[hide]") {
  Hidden hidden;
  const std::string base = hidden.directory.path();
  fs::create_directory(base + "/below");
  fs::create_directory_symlink(base, base + "/below/up");
  CHECK(hidden.files.find(AT_FDCWD, hidden.path) == 0);
  CHECK(hidden.files.find(AT_FDCWD, base + "/below/../server.pid") == 0);
  CHECK(hidden.files.find(AT_FDCWD, base + "/below/up/server.pid") == 0);
  CHECK(hidden.files.find(hidden.place.get(), "server.pid") == 0);
  CHECK(hidden.files.find(hidden.place.get(), "below/up/./server.pid") == 0);
  CHECK_FALSE(hidden.files.find(AT_FDCWD, base + "/below/server.pid"));
  CHECK_FALSE(hidden.files.find(hidden.place.get(), "below/server.pid"));
  CHECK_FALSE(hidden.files.find(AT_FDCWD, "server.pid"));
  CHECK_FALSE(hidden.files.find(AT_FDCWD, base + "/missing/server.pid"));
  CHECK_FALSE(hidden.files.find(-1, "server.pid"));
}

TEST_CASE("a directory may be made after the start", "[hide]") {
  const TempDirectory base;
  const std::string path = base.path() + "/later/server.pid";
  HiddenFiles files(libc_sys(), path);
  CHECK_FALSE(files.find(AT_FDCWD, path));
  fs::create_directory(base.path() + "/later");
  CHECK(files.find(AT_FDCWD, path) == 0);
}

TEST_CASE("the file beside takes the place of the one that was there", "[hide]") {
  const bool was_there = GENERATE(true, false);
  CAPTURE(was_there);
  Hidden hidden;
  write(hidden.beside, "new");
  if (was_there) {
    write(hidden.path, "old");
  }
  CHECK(hidden.files.take_place(0, generation));
  CHECK(read(hidden.path) == "new");
  CHECK(fs::exists(hidden.beside) == was_there);
  CHECK(read(hidden.beside) == (was_there ? "old" : ""));
}

TEST_CASE("what has nothing beside it stays", "[hide]") {
  Hidden hidden;
  write(hidden.path, "old");
  CHECK(hidden.files.take_place(0, generation));
  CHECK(read(hidden.path) == "old");
}

TEST_CASE("a file system that cannot exchange renames, one that is closed is reported", "[hide]") {
  Hidden hidden;
  write(hidden.path, "old");
  write(hidden.beside, "new");
  hidden.sys.fail_next(Call::renameat2, EACCES);
  const auto placed = hidden.files.take_place(0, generation);
  REQUIRE_FALSE(placed);
  CHECK(placed.error().code == EACCES);
  CHECK(read(hidden.path) == "old");
  hidden.sys.fail_next(Call::renameat2, EINVAL);
  CHECK(hidden.files.take_place(0, generation));
  CHECK(read(hidden.path) == "new");
  CHECK_FALSE(fs::exists(hidden.beside));
}

TEST_CASE("a predecessor takes back what is its own, and nothing else", "[hide]") {
  Hidden hidden;
  write(hidden.path, "old");
  hidden.files.note_own();
  CHECK_FALSE(hidden.files.is_replaced(0));
  write(hidden.beside, "new");
  SECTION("the successor never took the place") {
    hidden.files.put_back(generation);
    CHECK(read(hidden.path) == "old");
  }
  SECTION("it did") {
    REQUIRE(hidden.files.take_place(0, generation));
    CHECK(hidden.files.is_replaced(0));
    hidden.files.put_back(generation);
    CHECK(read(hidden.path) == "old");
    CHECK_FALSE(hidden.files.is_replaced(0));
  }
  SECTION("and has removed its file since") {
    REQUIRE(hidden.files.take_place(0, generation));
    fs::remove(hidden.path);
    hidden.files.put_back(generation);
    CHECK(read(hidden.path) == "old");
  }
  SECTION("and its lock goes, too") {
    REQUIRE(HiddenFiles(libc_sys(), hidden.path).hold(hidden.place.get(), generation));
    hidden.files.expect_at(hidden.place.get());
    hidden.files.put_back(generation);
    CHECK_FALSE(fs::exists(hidden.lock()));
  }
  SECTION("there is a file of another generation") {
    write(hidden.path + HiddenFiles::suffix(9), "other");
    hidden.files.put_back(generation);
    CHECK(read(hidden.path + HiddenFiles::suffix(9)) == "other");
  }
  CHECK_FALSE(fs::exists(hidden.beside));
}

TEST_CASE("a predecessor that has succeeded removes what has been replaced, and nothing else",
          "[hide]") {
  Hidden hidden;
  write(hidden.path, "predecessor");
  hidden.files.note_own();
  write(hidden.beside, "successor");

  hidden.files.remove_replaced(generation);  // before the two have changed places
  CHECK(read(hidden.path) == "predecessor");
  CHECK(read(hidden.beside) == "successor");

  CHECK(hidden.files.take_place(0, generation));
  hidden.files.remove_replaced(generation);
  CHECK(read(hidden.path) == "successor");
  CHECK_FALSE(fs::exists(hidden.beside));
}

// On file systems that give the number of a removed file to the next one made.
TEST_CASE("a file that has the number of one's own is not taken for it", "[hide]") {
  Hidden hidden;
  write(hidden.path, "old");
  hidden.files.note_own();
  for (int i = 0; i < 100; ++i) {
    CAPTURE(i);
    fs::remove(hidden.path);
    write(hidden.path, "new");
    REQUIRE(hidden.files.is_replaced(0));
  }
}

TEST_CASE("a predecessor without the file leaves the successor's alone", "[hide]") {
  Hidden hidden;
  hidden.files.note_own();
  write(hidden.beside, "new");
  REQUIRE(hidden.files.take_place(0, generation));
  CHECK(hidden.files.is_replaced(0));
  hidden.files.put_back(generation);
  CHECK(read(hidden.path) == "new");
}

TEST_CASE("what is beside is swept away once its generation is dead", "[hide]") {
  Hidden hidden;
  const std::string foreign = hidden.path + ".continuity-old";
  write(hidden.beside, "left");
  write(foreign, "mine");
  SECTION("it has no lock any more") {
    hidden.files.sweep(hidden.place.get());
    CHECK_FALSE(fs::exists(hidden.beside));
  }
  SECTION("it lives, and so does a process forked from it") {
    HiddenFiles sweeper(libc_sys(), hidden.path);
    {
      HiddenFiles starting(libc_sys(), hidden.path);
      REQUIRE(starting.hold(hidden.place.get(), generation));
      sweeper.sweep(hidden.place.get());
      CHECK(fs::exists(hidden.beside));
    }
    {
      std::optional<HiddenFiles> starting(std::in_place, libc_sys(), hidden.path);
      REQUIRE(starting->hold(hidden.place.get(), generation));
      Child child;
      REQUIRE(child.is_ready());
      starting.reset();
      sweeper.sweep(hidden.place.get());
      CHECK(fs::exists(hidden.beside));
    }
    sweeper.sweep(hidden.place.get());
    CHECK_FALSE(fs::exists(hidden.beside));
    CHECK_FALSE(fs::exists(hidden.lock()));
  }
  SECTION("it lets go") {
    REQUIRE(hidden.files.hold(hidden.place.get(), generation));
    hidden.files.let_go(generation);
    CHECK_FALSE(fs::exists(hidden.beside));
    CHECK_FALSE(fs::exists(hidden.lock()));
  }
  SECTION("who has hidden nothing lets nothing go") {
    hidden.files.let_go(generation);
    CHECK(fs::exists(hidden.beside));
  }
  CHECK(read(foreign) == "mine");
}

TEST_CASE("only a lock of ours is swept away, whatever it resembles", "[hide]") {
  Hidden hidden;
  const std::string stranger = hidden.directory.path() + "/.continuity-notes.hide";
  write(stranger, "somebody's");
  write(hidden.lock(), "");

  hidden.files.sweep(hidden.place.get());

  CHECK(fs::exists(stranger));
  CHECK_FALSE(fs::exists(hidden.lock()));
}

TEST_CASE("a path that is too long for a UNIX address is reached through its directory", "[hide]") {
  const TempDirectory base;
  const std::string name = GENERATE(std::string("s"), std::string(60, 's'));
  const std::string path = base.path() + "/" + name;
  const HiddenFiles files(libc_sys(), path);
  const std::string beside = files.short_path_beside(0, generation);
  CHECK(beside.size() < 108);
  const OwnedFd listener = listen_at("unix:" + beside);
  CHECK(listener.is_open());
  CHECK(fs::is_socket(path + HiddenFiles::suffix(generation)));
}

TEST_CASE("no failure of the kernel leaves a descriptor open or a file lost", "[hide]") {
  Hidden hidden;
  for_each_failure(hidden.sys, EIO, [&](int) {
    write(hidden.path, "old");
    write(hidden.beside, "new");
    {
      HiddenFiles files(hidden.sys, hidden.path);
      files.find(AT_FDCWD, hidden.path);
      files.sweep(hidden.place.get());
      static_cast<void>(files.hold(hidden.place.get(), generation));
      files.note_own();
      static_cast<void>(files.take_place(0, generation));
      files.put_back(generation);
    }
    CHECK(fs::exists(hidden.path));
  });
  CHECK(hidden.sys.open().size() == 1);  // of the files that all tests have
}

}  // namespace continuity::test
