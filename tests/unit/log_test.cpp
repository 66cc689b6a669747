// The log: where a line goes, and where it must not.
#include "core/log.hpp"

#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <unistd.h>

namespace continuity::test {
namespace {

// Standard error as a fake: what file it is, and what is written to it.
struct StandardError {
  FakeSys<0> sys;
  struct stat status {};
  std::vector<std::string> writes{};

  StandardError() {
    status.st_mode = S_IFREG;
    status.st_dev = 8;
    status.st_ino = 15;
    sys.hooks.getpid = [] { return 4711; };
    sys.hooks.fstat = [this](int, struct stat* answer) {
      *answer = status;
      return 0;
    };
    sys.hooks.write = [this](int fd, const void* data, std::size_t size) {
      writes.push_back(std::to_string(fd) + "|" +
                       std::string(static_cast<const char*>(data), size));
      return static_cast<ssize_t>(size);
    };
  }
};

}  // namespace

TEST_CASE("a line of the log is one write, with our pid in front", "[log]") {
  StandardError standard_error;
  Log log;
  log.open(standard_error.sys, LogLevel::info, "");

  log.info("took over {} from pid {}", "127.0.0.1:80", 12);

  CHECK(standard_error.writes ==
        std::vector<std::string>{"2|continuity[4711]: took over 127.0.0.1:80 from pid 12\n"});
}

TEST_CASE("what a peer has said begins no line of the log, and moves no cursor", "[log]") {
  StandardError standard_error;
  Log log;
  log.open(standard_error.sys, LogLevel::info, "");

  log.info("refused: {}", "no\ncontinuity[1]: took over \x1b[2J\x7f\t\xc3\xa4");

  CHECK(standard_error.writes ==
        std::vector<std::string>{
            "2|continuity[4711]: refused: no?continuity[1]: took over ?[2J??\xc3\xa4\n"});
}

TEST_CASE("nothing is logged above the level that was asked for", "[log]") {
  StandardError standard_error;
  Log log;
  log.open(standard_error.sys, LogLevel::warn, "");

  log.debug("no");
  log.info("no");
  CHECK(standard_error.writes.empty());

  log.warn("yes");
  log.error("yes");
  CHECK(standard_error.writes.size() == 2);
}

TEST_CASE("a log that was never opened is silent", "[log]") {
  Log log;
  CHECK_NOTHROW(log.error("nobody hears {}", "this"));
}

TEST_CASE("a line that is too long is cut and still ends with a newline", "[log]") {
  StandardError standard_error;
  Log log;
  log.open(standard_error.sys, LogLevel::info, "");

  for (const std::size_t length : {900U, 1000U, 1003U, 1004U, 1005U, 1006U, 1023U, 1024U, 9000U}) {
    standard_error.writes.clear();
    log.info("{}", std::string(length, 'x'));
    REQUIRE(standard_error.writes.size() == 1);
    CHECK(standard_error.writes[0].back() == '\n');
    CHECK(standard_error.writes[0].size() <= 1024 + 2);
    CHECK(std::count(standard_error.writes[0].begin(), standard_error.writes[0].end(), '\n') == 1);
  }
}

TEST_CASE("standard error that is a socket is never written to", "[log]") {
  StandardError standard_error;
  standard_error.status.st_mode = S_IFSOCK;
  Log log;
  log.open(standard_error.sys, LogLevel::info, "");

  log.error("this would reach a client");

  CHECK(standard_error.writes.empty());
}

TEST_CASE("descriptor 2 is written to only while it is the file it was", "[log]") {
  StandardError standard_error;
  Log log;
  log.open(standard_error.sys, LogLevel::info, "");

  standard_error.status.st_ino = 16;
  log.error("another file");
  CHECK(standard_error.writes.empty());

  standard_error.status.st_ino = 15;
  standard_error.status.st_dev = 9;
  log.error("the same number on another device");
  CHECK(standard_error.writes.empty());

  standard_error.sys.fail_next(Call::fstat, EBADF);
  log.error("closed");
  CHECK(standard_error.writes.empty());

  standard_error.status.st_dev = 8;
  log.error("the same file again");
  CHECK(standard_error.writes.size() == 1);
}

TEST_CASE("a program that starts without standard error has no log there", "[log]") {
  StandardError standard_error;
  standard_error.sys.fail_next(Call::fstat, EBADF);
  Log log;
  log.open(standard_error.sys, LogLevel::info, "");

  log.error("descriptor 2 is a database by now");

  CHECK(standard_error.writes.empty());
}

TEST_CASE("logging leaves errno alone", "[log]") {
  StandardError standard_error;
  Log log;
  log.open(standard_error.sys, LogLevel::info, "");
  standard_error.sys.hooks.write = [](int, const void*, std::size_t) -> ssize_t {
    errno = ENOSPC;
    return -1;
  };

  errno = ENOTTY;
  log.error("the disk is full");

  CHECK(errno == ENOTTY);
}

TEST_CASE("a log file is made, appended to and closed on exec", "[log]") {
  const TempDirectory directory;
  const std::string path = directory.path() + "/log";
  std::ofstream(path) << "before\n";
  FakeSys<0> sys;
  Log log;
  log.open(sys, LogLevel::info, path);

  log.info("one");
  log.info("two");

  REQUIRE(sys.open().size() == 1);
  const int fd = *sys.open().begin();
  CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::string head = "continuity[" + std::to_string(::getpid()) + "]: ";
  CHECK(text == "before\n" + head + "one\n" + head + "two\n");
  ::close(fd);
}

TEST_CASE("where the log file cannot be opened, standard error is used", "[log]") {
  StandardError standard_error;
  Log log;
  log.open(standard_error.sys, LogLevel::info, "/nowhere/at/all");

  log.info("here");

  REQUIRE(standard_error.writes.size() == 1);
  CHECK(standard_error.writes[0].rfind("2|", 0) == 0);
}

TEST_CASE("times are printed as milliseconds to three places and seconds to one", "[log]") {
  CHECK(in_milliseconds(0) == "0.000");
  CHECK(in_milliseconds(412'000) == "0.412");
  CHECK(in_milliseconds(412'999) == "0.412");
  CHECK(in_milliseconds(12'003'000) == "12.003");
  CHECK(in_seconds(0) == "0.0");
  CHECK(in_seconds(1'290'000'000) == "1.2");
  CHECK(in_seconds(60'000'000'000) == "60.0");
}

TEST_CASE("a time that is over is no time", "[log]") {
  CHECK(in_seconds(-1'290'000'000) == "0.0");
  CHECK(in_seconds(-300'000'000) == "0.0");
}

TEST_CASE("every errno has words", "[log]") {
  CHECK(error_text(EADDRINUSE) == std::string("Address already in use"));
  CHECK(error_text(123456) == std::string("unknown error"));
}

}  // namespace continuity::test
