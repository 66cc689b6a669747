// How a process that is no child of ours has ended, by all that the kernel remembers.
#include "core/process_watch.hpp"

#include "child.hpp"
#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

namespace continuity::test {
namespace {

using How = ProcessEnd::How;

constexpr Nanoseconds patience = 10 * second;

// A child that is watched.
struct Watched {
  Watched() {
    REQUIRE(child.is_ready());
    watch.begin(child.pid(), child.pid());
  }
  [[nodiscard]] ProcessEnd await() { return watch.await(after(sys, patience)); }

  Child child;
  FakeSys<0> sys;
  OwnedFd proc = open_proc();
  ProcessWatch watch{sys, proc.get()};
};

// Kernels before 6.15 do not know the question.
void make_old(FakeKernel& sys) {
  sys.hooks.ioctl = [](int, unsigned long, int*) {
    errno = ENOTTY;
    return -1;
  };
}

// Whether this kernel remembers the end of who was waited for.
bool kernel_remembers() {
  Watched one;
  one.child.kill();
  one.child.reap();
  return one.await().how != How::unknown;
}

// A process that ends with this status when it is told to.
class Leaving {
 public:
  explicit Leaving(int status) {
    REQUIRE(::pipe(pipe_.data()) == 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      char byte = 0;
      static_cast<void>(::read(pipe_[0], &byte, 1));
      ::_exit(status);
    }
  }
  ~Leaving() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
    }
    reap();
    ::close(pipe_[0]);
    ::close(pipe_[1]);
  }
  Leaving(const Leaving&) = delete;
  Leaving& operator=(const Leaving&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  void leave() const { REQUIRE(::write(pipe_[1], "", 1) == 1); }
  void reap() {
    if (pid_ > 0) {
      ::waitpid(std::exchange(pid_, -1), nullptr, 0);
    }
  }

 private:
  std::array<int, 2> pipe_{};
  pid_t pid_ = -1;
};

// A main process and a process of the same server, which is the one that is met.
struct Family {
  explicit Family(int status) : parent(status) {
    REQUIRE(worker.is_ready());
    watch.begin(worker.pid(), parent.pid());
  }
  [[nodiscard]] ProcessEnd await() { return watch.await(after(sys, patience)); }

  FakeSys<0> sys;
  OwnedFd proc = open_proc();
  ProcessWatch watch{sys, proc.get()};
  Leaving parent;
  Child worker;
};

}  // namespace

TEST_CASE("how a process was killed is seen in its remains", "[watch]") {
  const int signal = GENERATE(SIGTERM, SIGKILL, SIGSEGV);
  const ProcessEnd killed{How::killed, signal};
  Watched one;
  make_old(one.sys);
  CHECK(one.watch.await(now(one.sys)).how == How::unknown);  // it lives
  one.child.kill(signal);
  CHECK(one.await() == killed);
  CHECK(one.watch.handle() < 0);
  one.child.reap();
  CHECK(one.await() == killed);  // it is remembered
}

TEST_CASE("with which status a process has ended is seen in its remains", "[watch]") {
  const int status = GENERATE(0, 1, 143);
  FakeSys<0> sys;
  make_old(sys);
  const OwnedFd proc = open_proc();
  ProcessWatch watch(sys, proc.get());
  Leaving one(status);
  watch.begin(one.pid(), one.pid());
  one.leave();
  CHECK(watch.await(after(sys, patience)) == ProcessEnd{How::exited, status});
}

TEST_CASE("of who was waited for a kernel before 6.15 knows nothing", "[watch]") {
  Watched one;
  make_old(one.sys);
  one.child.kill();
  one.child.reap();
  CHECK(one.await().how == How::unknown);
}

TEST_CASE("a kernel since 6.15 remembers who was waited for", "[watch]") {
  if (!kernel_remembers()) {
    WARN("skipped: this kernel forgets how a process has ended");
    return;
  }
  const int signal = GENERATE(SIGTERM, SIGKILL, SIGSEGV);
  const ProcessEnd killed{How::killed, signal};
  Watched one;
  one.child.kill(signal);
  one.child.reap();
  CHECK(one.await() == killed);
}

TEST_CASE("who may not look at the remains of another does not believe in a status of 0",
          "[watch]") {
  FakeSys<0> sys;
  make_old(sys);
  sys.hooks.geteuid = [] { return ::geteuid() + 1; };
  const OwnedFd proc = open_proc();
  ProcessWatch watch(sys, proc.get());
  Leaving one(0);
  watch.begin(one.pid(), one.pid());
  one.leave();
  CHECK(watch.await(after(sys, patience)).how == How::unknown);
}

TEST_CASE("without pidfd_open nothing is known, and nothing waits", "[watch]") {
  FakeSys<0> sys;
  sys.fail_next(Call::pidfd_open, ENOSYS);
  const OwnedFd proc = open_proc();
  ProcessWatch watch(sys, proc.get());
  watch.begin(::getpid(), ::getpid());
  CHECK(watch.handle() < 0);
  CHECK(watch.await(never).how == How::unknown);
}

TEST_CASE("nobody is watched until somebody is, and no more when nobody is", "[watch]") {
  FakeSys<0> sys;
  const OwnedFd proc = open_proc();
  ProcessWatch watch(sys, proc.get());
  CHECK(watch.handle() < 0);
  CHECK(watch.await(never).how == How::unknown);
  watch.begin(::getpid(), ::getpid());
  CHECK(watch.handle() >= 0);
  watch.begin(0, 0);
  CHECK(watch.handle() < 0);
  CHECK(watch.await(never).how == How::unknown);
}

TEST_CASE("once its parent has gone on purpose, the daemon is watched", "[watch]") {
  Family family(0);
  family.parent.leave();
  REQUIRE(family.await() == ProcessEnd{How::exited, 0});

  CHECK(family.watch.move_on());

  CHECK(family.watch.await(now(family.sys)).how == How::unknown);
}

TEST_CASE("a main process that has failed its workers is what has ended", "[watch]") {
  Family family(1);
  family.parent.leave();
  REQUIRE(family.await().how == How::exited);

  CHECK_FALSE(family.watch.move_on());

  family.worker.kill();
  CHECK(family.await() == ProcessEnd{How::exited, 1});
}

TEST_CASE("workers that are killed with their main process have ended as it did", "[watch]") {
  const bool later = GENERATE(false, true);
  Family family(0);
  Nanoseconds time = now(family.sys);
  play_clock(family.sys, time);
  family.parent.leave();
  REQUIRE(family.await().how == How::exited);
  REQUIRE(family.watch.move_on());
  time += later ? second : 0;
  family.worker.kill();
  CHECK(family.await() == (later ? ProcessEnd{How::killed, SIGKILL} : ProcessEnd{How::exited, 0}));
}

TEST_CASE("who is met again after its main process was killed has ended as that did", "[watch]") {
  Family family(0);
  ::kill(family.parent.pid(), SIGQUIT);
  REQUIRE(family.await() == ProcessEnd{How::killed, SIGQUIT});
  // It is nobody's worker any more, and about to be killed.
  family.watch.begin(family.worker.pid(), family.worker.pid());
  family.worker.kill();
  CHECK(family.await() == ProcessEnd{How::killed, SIGQUIT});
}

TEST_CASE("whom nobody finds any more is known by who was watched until then", "[watch]") {
  FakeSys<0> sys;
  const OwnedFd proc = open_proc();
  ProcessWatch watch(sys, proc.get());
  Child successor;
  REQUIRE(successor.is_ready());
  const pid_t pid = successor.pid();
  watch.begin(pid, pid);
  successor.kill(SIGTERM);
  sys.hooks.pidfd_open = [](pid_t, unsigned) {
    errno = ESRCH;
    return -1;
  };
  watch.begin(pid, pid);
  CHECK(watch.await(after(sys, patience)) == ProcessEnd{How::killed, SIGTERM});
}

TEST_CASE("a main process whose worker is gone too is what has ended", "[watch]") {
  FakeSys<0> sys;
  const OwnedFd proc = open_proc();
  ProcessWatch watch(sys, proc.get());
  Leaving parent(0);
  Leaving worker(1);
  watch.begin(worker.pid(), parent.pid());
  parent.leave();
  REQUIRE(watch.await(after(sys, patience)).how == How::exited);
  worker.leave();
  worker.reap();

  CHECK_FALSE(watch.move_on());

  CHECK(watch.await(now(sys)) == ProcessEnd{How::exited, 0});
}

}  // namespace continuity::test
