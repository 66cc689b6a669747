// A worker that somebody has broken into has its master's rendezvous socket, too: what it says
// in the master's place is not acted upon.
#include "command.hpp"
#include "core/rendezvous.hpp"
#include "core/start.hpp"
#include "support/root.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <sys/wait.h>
#include <unistd.h>

namespace continuity::test {
namespace {

constexpr uid_t nobody = 65'534;

// Made by root, and answered by another user.
class BrokenInto {
 public:
  BrokenInto(const Place& place, const Message& report, const std::string& start) {
    std::string problem;
    rendezvous_ = Rendezvous::open(libc_sys(), place.rendezvous(), ::geteuid(), problem);
    door_ = std::move(*rendezvous_->publish(report.identity, 0xbad));
    worker_ = ::fork();
    if (worker_ == 0) {
      answer(report, start);
    }
  }
  ~BrokenInto() {
    ::kill(worker_, SIGKILL);
    ::waitpid(worker_, nullptr, 0);
  }
  BrokenInto(const BrokenInto&) = delete;
  BrokenInto& operator=(const BrokenInto&) = delete;

 private:
  [[noreturn]] void answer(const Message& report, const std::string& start) const {
    if (::setresuid(nobody, nobody, nobody) != 0) {
      ::_exit(1);
    }
    ::alarm(60);
    for (;;) {
      pollfd entry{.fd = door_.get(), .events = POLLIN, .revents = 0};
      ::poll(&entry, 1, -1);
      const int fd = ::accept4(door_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      Channel channel(libc_sys(), OwnedFd(libc_sys(), fd));
      while (fd >= 0) {
        const auto asked = channel.receive(after(libc_sys(), 10 * second));
        if (!asked) {
          break;
        }
        Message reply = report;
        if ((asked->message.features & wants_start) != 0) {
          reply = {.type = MessageType::report, .start = start};
        }
        static_cast<void>(channel.send(reply, after(libc_sys(), second)));
      }
    }
  }

  std::optional<Rendezvous> rendezvous_;
  OwnedFd door_;
  pid_t worker_ = -1;
};

}  // namespace

TEST_CASE("root starts nothing, and ends nobody, that a worker of another user names") {
  if (needs_root()) {
    return;
  }
  const Place place;
  const Process bystander = Process::start({"/bin/sleep", "100"});
  const std::string trace = place.directory / "was-here";
  const Start start{
      .program = "/usr/bin/touch", .directory = "/", .arguments = {"touch", trace}, .user = 0};
  Message report{.type = MessageType::report};
  report.identity = "shop";
  report.phase = ReportedPhase::active;
  report.pid = bystander.pid();
  const BrokenInto worker(place, report, write_start(start));

  const Said upgraded = run_command(place, {"upgrade", "shop"});
  CHECK(upgraded.status == 1);
  CHECK_THAT(upgraded.errors, Catch::Contains("is user 65534, and this is user 0"));
  CHECK(::access(trace.c_str(), F_OK) != 0);

  CHECK(run_command(place, {"stop", "shop", "--timeout", "100ms"}).status == 1);
  CHECK(bystander.is_running());
}

TEST_CASE("what is in a name reaches no terminal as a command") {
  const Place place;
  std::string problem;
  auto rendezvous = Rendezvous::open(libc_sys(), place.rendezvous(), ::geteuid(), problem);
  const auto door = rendezvous->publish("a\x1b[2Jb", 1);
  REQUIRE(door.has_value());
  const Said said = run_command(place, {"status", "nobody"});
  CHECK(said.errors.find('\x1b') == std::string::npos);
  CHECK_THAT(said.errors, Catch::Contains("a?[2Jb"));
}

}  // namespace continuity::test
