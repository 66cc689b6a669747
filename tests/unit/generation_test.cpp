// Several processes as one owner: what one decides reaches all, whoever comes
// late, sleeps, fails or dies. The processes are objects around one page, each
// with a kernel of its own; one that waits lets the others run.
#include "core/generation.hpp"

#include "fake_program.hpp"
#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <linux/futex.h>
#include <map>
#include <memory>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

namespace continuity::test {
namespace {

using Calls = std::vector<std::string>;

// No pid of this machine: nothing of it is in /proc.
constexpr pid_t first_pid = 5'000'000;
constexpr std::array<std::uint32_t, 1> id_1{1};
constexpr std::array<std::uint32_t, 1> id_2{2};
constexpr std::array<std::uint32_t, 2> both{1, 2};

// Remembers what it was told, and can be made to fail; touches no descriptor.
class Told : public LocalOwner {
 public:
  Told(const Sys& sys, Log& log, int proc, FakeProgram& program)
      : LocalOwner(sys, log, proc, -1, program, is_ours) {}

  std::vector<Item> inventory() override {
    std::vector<Item> items;
    for (const std::uint64_t inode : {101U, 102U}) {
      items.push_back({.listener = {}, .fd = -1, .inode = inode});
    }
    return items;
  }
  Status prepare(std::vector<Item> items) override {
    std::string text = "prepare";
    for (const Item& item : items) {
      text += " " + std::to_string(item.listener.id);
    }
    calls.push_back(text);
    if (fails != 0) {
      return Error{"prepare", fails};
    }
    return Done{};
  }
  void abandon() override { calls.emplace_back("abandon"); }
  bool retire(std::span<const std::uint32_t> ids, Nanoseconds) override {
    std::string text = "retire";
    for (const std::uint32_t id : ids) {
      text += " " + std::to_string(id);
    }
    calls.push_back(text);
    return clears;
  }
  void sweep() override { calls.emplace_back("sweep"); }
  void revive() override { calls.emplace_back("revive"); }
  void forget_listeners() override { calls.emplace_back("forget"); }
  unsigned connections() override { return live; }
  void finish_idle() override { calls.emplace_back("finish"); }
  void stop(int) override {}
  void withdraw() override { calls.emplace_back("withdraw"); }

  // What it was told since this was asked last.
  Calls take() { return std::exchange(calls, {}); }

  Calls calls;
  int fails = 0;
  bool clears = true;
  unsigned live = 0;
};

struct Scene;

struct Peer {
  Peer(Scene& scene, FakeKernel& its_kernel, const Sys& its_sys, pid_t its_pid);

  FakeKernel& kernel;
  const Sys* sys;
  pid_t pid;
  bool alive = true;
  bool stopped = false;
  FakeProgram program{};
  Told told;
  Generation generation;
};

struct Scene {
  FakeSys<20> first_sys;
  FakeSys<21> second_sys;
  FakeSys<22> third_sys;
  FakeSys<23> log_sys;
  std::vector<std::string> lines;
  Log log;
  OwnedFd proc = open_proc();
  OwnedFd bell = own(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  std::unique_ptr<Page> page = std::make_unique<Page>();
  Nanoseconds time = 1000 * second;
  bool runs_at_yield = false;  // the others, as when somebody waits
  std::vector<std::pair<pid_t, int>> signals;
  std::vector<std::unique_ptr<Peer>> peers;
  bool running = false;

  Scene() {
    log_sys.hooks.openat = [](int, const char*, int, mode_t) { return 1000; };
    log_sys.hooks.write = [this](int, const void* data, std::size_t size) {
      lines.emplace_back(static_cast<const char*>(data), size);
      return static_cast<ssize_t>(size);
    };
    log.open(log_sys, LogLevel::debug, "log");
    page->main.store(first_pid);
    add(first_sys, first_sys);
    add(second_sys, second_sys);
    add(third_sys, third_sys);
  }

  [[nodiscard]] Peer& at(std::size_t index) const { return *peers.at(index); }

  // All three run, and the first one leads.
  void begin() {
    for (const auto& peer : peers) {
      REQUIRE(peer->generation.join());
    }
    REQUIRE(at(0).generation.try_to_lead());
  }
  // Everybody but `who` and those that cannot.
  void let_run(const Peer* who) {
    if (std::exchange(running, true)) {
      return;
    }
    for (const auto& peer : peers) {
      if (peer.get() != who && peer->alive && !peer->stopped && has_joined(*peer)) {
        peer->generation.follow();
      }
    }
    running = false;
  }
  [[nodiscard]] bool has_joined(const Peer& peer) const {
    const auto& members = page->members;
    return std::any_of(members.begin(), members.end(), [&](const Member& member) {
      return member.agent.load().process == peer.pid;
    });
  }
  [[nodiscard]] bool lives(pid_t pid) const {
    return std::any_of(peers.begin(), peers.end(),
                       [&](const auto& peer) { return peer->pid == pid && peer->alive; });
  }
  [[nodiscard]] bool logged(std::string_view text) const {
    return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
      return line.find(text) != std::string::npos;
    });
  }
  [[nodiscard]] std::vector<Owner::Item> items() const {
    auto all = at(0).told.inventory();
    std::uint32_t id = 0;
    for (Owner::Item& item : all) {
      item.listener.id = ++id;
    }
    return all;
  }
  [[nodiscard]] Status prepare() const { return at(0).generation.prepare(items()); }
  [[nodiscard]] bool retire(std::span<const std::uint32_t> ids) const {
    return at(0).generation.retire(ids, time + 100 * millisecond);
  }
  // Deaf to the first listener, all of them.
  void retire_all() {
    begin();
    REQUIRE(prepare());
    REQUIRE(retire(id_1));
    for (const auto& peer : peers) {
      peer->told.take();
    }
  }
  void forget_all() {
    retire_all();
    at(0).generation.forget_listeners();
  }
  [[nodiscard]] bool was_rung() const {
    std::uint64_t rings = 0;
    return ::read(bell.get(), &rings, sizeof rings) == sizeof rings;
  }
  [[nodiscard]] Stage stage() const { return static_cast<Stage>(page->stage.load()); }

 private:
  void add(FakeKernel& kernel, const Sys& sys) {
    const pid_t pid = first_pid + static_cast<pid_t>(peers.size());
    peers.push_back(std::make_unique<Peer>(*this, kernel, sys, pid));
    Peer* self = peers.back().get();
    kernel.hooks.getpid = [pid] { return pid; };
    kernel.hooks.gettid = [pid] { return pid; };
    kernel.hooks.tgkill = [this](pid_t process, pid_t, int) { return answer(process); };
    kernel.hooks.kill = [this](pid_t process, int signal) {
      signals.emplace_back(process, signal);
      return answer(process);
    };
    kernel.hooks.pidfd_open = [this](pid_t process, unsigned) {
      return answer(process) == 0 ? ::eventfd(0, EFD_CLOEXEC) : -1;
    };
    play_clock(kernel, time);
    kernel.hooks.sched_yield = [this, self] {
      if (runs_at_yield) {
        let_run(self);
      }
      time += microsecond;
      return 0;
    };
    kernel.hooks.futex = [this, self](std::atomic<std::uint32_t>*, int, std::uint32_t,
                                      const timespec* timeout) {
      if (timeout != nullptr) {
        const std::uint32_t before = page->done.load();
        let_run(self);
        time +=
            page->done.load() != before ? microsecond : timeout->tv_sec * second + timeout->tv_nsec;
      }
      return 0;
    };
  }
  [[nodiscard]] int answer(pid_t process) const {
    errno = ESRCH;
    return lives(process) ? 0 : -1;
  }
};

Peer::Peer(Scene& scene, FakeKernel& its_kernel, const Sys& its_sys, pid_t its_pid)
    : kernel(its_kernel),
      sys(&its_sys),
      pid(its_pid),
      told(its_sys, scene.log, scene.proc.get(), program),
      generation(its_sys, scene.log, *scene.page, told, scene.proc.get(),
                 {.bell = scene.bell.get(), .offers = -1, .offering = -1, .page = -1, .door = -1}) {
}

}  // namespace

// ---- All of them ------------------------------------------------------------------

TEST_CASE("what is prepared, retired and swept is so in every process", "[generation]") {
  Scene scene;
  scene.begin();
  REQUIRE(scene.prepare());
  for (const auto& peer : scene.peers) {
    CHECK(peer->told.take() == Calls{"prepare 1 2"});
  }
  REQUIRE(scene.retire(id_2));
  scene.at(0).generation.sweep();
  for (const auto& peer : scene.peers) {
    CHECK(peer->told.take() == Calls{"retire 2", "sweep"});
  }
}

TEST_CASE("what is retired later is retired alone", "[generation]") {
  Scene scene;
  scene.retire_all();
  REQUIRE(scene.retire(id_2));
  CHECK(scene.at(1).told.take() == Calls{"retire 2", "sweep"});
  scene.at(1).generation.follow();  // rung for nothing
  CHECK(scene.at(1).told.take().empty());
}

TEST_CASE("every change rings the bell of all", "[generation]") {
  Scene scene;
  scene.begin();
  CHECK_FALSE(scene.was_rung());
  REQUIRE(scene.prepare());
  CHECK(scene.was_rung());
  REQUIRE(scene.retire(both));
  CHECK(scene.was_rung());
  scene.at(0).generation.revive();
  CHECK(scene.was_rung());
  scene.at(0).generation.forget_listeners();
  CHECK(scene.was_rung());
}

TEST_CASE("a revival reaches every process, once", "[generation]") {
  Scene scene;
  scene.retire_all();
  scene.at(0).generation.revive();
  for (const auto& peer : scene.peers) {
    CHECK(peer->told.take() == Calls{"revive"});
  }
  scene.at(1).generation.follow();
  CHECK(scene.at(1).told.take().empty());
  REQUIRE(scene.prepare());
  CHECK(scene.at(1).told.take() == Calls{"prepare 1 2"});
}

TEST_CASE("what is forgotten is forgotten by every process", "[generation]") {
  Scene scene;
  scene.forget_all();
  for (const auto& peer : scene.peers) {
    CHECK(peer->told.take() == Calls{"forget"});
  }
}

TEST_CASE("idle connections are told to end in every process, and in one that comes late",
          "[generation]") {
  Scene scene;
  REQUIRE(scene.at(0).generation.join());
  REQUIRE(scene.at(1).generation.join());
  REQUIRE(scene.at(0).generation.try_to_lead());
  REQUIRE(scene.prepare());
  REQUIRE(scene.retire(id_1));
  scene.at(0).generation.forget_listeners();
  scene.at(0).told.take();
  scene.at(1).told.take();

  scene.at(0).generation.finish_idle();
  CHECK(scene.at(0).told.take() == Calls{"finish"});
  scene.let_run(&scene.at(0));
  scene.at(1).generation.look();
  CHECK(scene.at(1).told.take() == Calls{"finish"});

  REQUIRE(scene.at(2).generation.join());
  scene.at(2).generation.follow();
  scene.at(2).generation.look();
  CHECK(scene.at(2).told.take() == Calls{"prepare 1 2", "retire 1", "sweep", "forget", "finish"});
}

TEST_CASE("a process that comes late is at once what the others are", "[generation]") {
  const auto stage = GENERATE(Stage::serving, Stage::prepared, Stage::retired, Stage::forgotten);
  const std::map<Stage, Calls> expected{
      {Stage::serving, {}},
      {Stage::prepared, {"prepare 1 2"}},
      {Stage::retired, {"prepare 1 2", "retire 1", "sweep"}},
      {Stage::forgotten, {"prepare 1 2", "retire 1", "sweep", "forget"}},
  };
  Scene scene;
  REQUIRE(scene.at(0).generation.join());
  REQUIRE(scene.at(1).generation.join());
  REQUIRE(scene.at(0).generation.try_to_lead());
  if (stage != Stage::serving) {
    REQUIRE(scene.prepare());
  }
  if (stage == Stage::retired || stage == Stage::forgotten) {
    REQUIRE(scene.retire(id_1));
  }
  if (stage == Stage::forgotten) {
    scene.at(0).generation.forget_listeners();
  }

  REQUIRE(scene.at(2).generation.join());
  scene.at(2).generation.follow();

  CHECK(scene.at(2).told.take() == expected.at(stage));
}

TEST_CASE("a process that comes late and cannot go deaf has not followed", "[generation]") {
  Scene scene;
  REQUIRE(scene.at(0).generation.join());
  REQUIRE(scene.at(0).generation.try_to_lead());
  REQUIRE(scene.prepare());
  REQUIRE(scene.retire(id_1));
  REQUIRE(scene.at(1).generation.join());

  scene.at(1).told.fails = ENOMEM;
  CHECK_FALSE(scene.at(1).generation.follow());
  scene.at(1).told.fails = 0;
  scene.at(1).told.take();
  CHECK(scene.at(1).generation.follow());

  CHECK(scene.at(1).told.take() == Calls{"prepare 1 2", "retire 1", "sweep"});
}

// ---- Who does not follow ------------------------------------------------------------

TEST_CASE("where one process cannot get ready, none is", "[generation]") {
  Scene scene;
  scene.begin();
  scene.at(2).told.fails = EMFILE;

  CHECK(code_of(scene.prepare()) == EMFILE);

  scene.let_run(&scene.at(0));
  CHECK(scene.stage() == Stage::serving);
  for (const auto& peer : scene.peers) {
    CHECK(peer->told.take() == Calls{"prepare 1 2", "abandon"});
  }
  scene.at(2).told.fails = 0;
  CHECK(scene.prepare());
}

TEST_CASE("a process that cannot get ready because it is ending holds nobody up", "[generation]") {
  Scene scene;
  scene.begin();
  scene.at(2).told.fails = ENOENT;
  // Its agent runs still, the process does not.
  scene.at(0).kernel.hooks.pidfd_open = [&](pid_t process, unsigned) {
    errno = ESRCH;
    return process == scene.at(2).pid ? -1 : ::eventfd(0, EFD_CLOEXEC);
  };
  CHECK(scene.prepare());
  CHECK(scene.stage() == Stage::prepared);
}

TEST_CASE("where the leader cannot get ready, nobody is told", "[generation]") {
  Scene scene;
  scene.begin();
  scene.at(0).told.fails = ENOMEM;
  CHECK(code_of(scene.prepare()) == ENOMEM);
  scene.let_run(&scene.at(0));
  CHECK(scene.at(1).told.take().empty());
  CHECK(scene.stage() == Stage::serving);
}

TEST_CASE("a process that is stopped makes getting ready fail, named, within two seconds",
          "[generation]") {
  Scene scene;
  scene.begin();
  scene.at(1).stopped = true;
  const Nanoseconds began = scene.time;

  CHECK(code_of(scene.prepare()) == ETIMEDOUT);

  CHECK(scene.time - began < 2 * second);
  CHECK(scene.logged("pid " + std::to_string(scene.at(1).pid)));
  CHECK_FALSE(scene.logged("pid " + std::to_string(scene.at(2).pid)));
  CHECK(scene.stage() == Stage::serving);
  scene.at(1).stopped = false;
  CHECK(scene.prepare());
}

namespace {

int file_with(const std::string& text) {
  const int file = ::memfd_create("text", MFD_CLOEXEC);
  REQUIRE(::pwrite(file, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  return file;
}

}  // namespace

TEST_CASE("a process that runs has three seconds to get ready, on a busy machine", "[generation]") {
  const Nanoseconds needed = GENERATE(2, 5) * second;
  CAPTURE(needed);
  Scene scene;
  scene.begin();
  Peer& slow = scene.at(1);
  slow.stopped = true;
  const std::string stat = std::to_string(slow.pid) + " (slow) R 1 ";
  scene.at(0).kernel.hooks.openat = [&, proc = scene.proc.get()](int directory, const char* path,
                                                                 int flags, mode_t mode) {
    return std::string_view(path) == std::to_string(slow.pid) + "/stat"
               ? file_with(stat)
               : libc_sys().openat(directory, path, flags, mode);
  };
  const Nanoseconds began = scene.time;
  scene.at(0).kernel.hooks.clock_gettime = [&](clockid_t, timespec* answered) {
    slow.stopped = scene.time < began + needed;
    *answered = to_timespec(scene.time);
    return 0;
  };

  const bool in_time = needed < 3 * second;
  CHECK(code_of(scene.prepare()) == (in_time ? 0 : ETIMEDOUT));
  CHECK(scene.time - began < 4 * second);
  CHECK(scene.logged("does not answer") == !in_time);
}

TEST_CASE("a process that is stopped or not clear makes a retirement unfinished", "[generation]") {
  const bool stopped = GENERATE(true, false);
  Scene scene;
  scene.begin();
  REQUIRE(scene.prepare());
  scene.at(1).stopped = stopped;
  scene.at(1).told.clears = false;
  const Nanoseconds began = scene.time;
  CHECK_FALSE(scene.retire(id_1));
  CHECK(scene.time - began < second);
}

TEST_CASE("a process that has died is not waited for, and its place is free", "[generation]") {
  Scene scene;
  scene.begin();
  scene.at(1).alive = false;
  const Nanoseconds began = scene.time;
  REQUIRE(scene.prepare());
  CHECK(scene.time - began < 10 * millisecond);
  CHECK_FALSE(scene.has_joined(scene.at(1)));
}

TEST_CASE("a process that dies while it is waited for is not waited for any longer",
          "[generation]") {
  Scene scene;
  scene.begin();
  scene.at(1).stopped = true;
  const auto wait = scene.at(0).kernel.hooks.futex;
  int waits = 0;
  Nanoseconds died = 0;
  scene.at(0).kernel.hooks.futex = [&](std::atomic<std::uint32_t>* word, int operation,
                                       std::uint32_t value, const timespec* timeout) {
    if (timeout != nullptr && ++waits == 4) {
      scene.at(1).alive = false;
      died = scene.time;
    }
    return wait(word, operation, value, timeout);
  };
  CHECK(scene.prepare());
  REQUIRE(died != 0);
  CHECK(scene.time - died <= 3 * millisecond);
}

TEST_CASE("answers that come soon are waited for awake", "[generation]") {
  Scene scene;
  scene.begin();
  scene.runs_at_yield = true;
  const auto call = scene.at(0).kernel.hooks.futex;
  int sleeps = 0;
  scene.at(0).kernel.hooks.futex = [&](std::atomic<std::uint32_t>* word, int operation,
                                       std::uint32_t value, const timespec* timeout) {
    sleeps += operation == FUTEX_WAIT ? 1 : 0;
    return call(word, operation, value, timeout);
  };
  CHECK(scene.prepare());
  CHECK(scene.retire(id_1));
  CHECK(sleeps == 0);

  scene.at(1).stopped = true;  // and those that do not are not
  CHECK_FALSE(scene.retire(id_2));
  CHECK(sleeps > 0);
}

TEST_CASE("who is deaf leaves the processors to the others until all are", "[generation]") {
  Scene scene;
  scene.begin();
  REQUIRE(scene.prepare());
  scene.at(1).told.take();
  const auto wait = scene.at(1).kernel.hooks.futex;
  std::vector<Calls> done_before;  // when it stepped aside
  scene.at(1).kernel.hooks.futex = [&](std::atomic<std::uint32_t>* word, int operation,
                                       std::uint32_t value, const timespec* timeout) {
    if (word == &scene.page->all_deaf && operation == FUTEX_WAIT) {
      done_before.push_back(scene.at(1).told.calls);
      return 0;
    }
    return wait(word, operation, value, timeout);
  };
  SECTION("first it goes deaf, and cleans up later") {
    REQUIRE(scene.retire(id_1));
    CHECK(done_before == std::vector<Calls>{{"retire 1"}});
    CHECK(scene.at(1).told.take() == Calls{"retire 1", "sweep"});
  }
  SECTION("one that comes when all are has nobody to wait for") {
    scene.at(1).stopped = true;
    scene.at(1).alive = false;
    REQUIRE(scene.retire(id_1));
    scene.at(0).generation.sweep();
    scene.at(1).alive = true;
    scene.at(1).generation.follow();
    CHECK(done_before.empty());
    CHECK(scene.at(1).told.take() == Calls{"retire 1", "sweep"});
  }
}

TEST_CASE("an inventory waits for a process that is about to join", "[generation]") {
  Scene scene;
  REQUIRE(scene.at(0).generation.join());
  REQUIRE(scene.at(0).generation.try_to_lead());
  scene.at(0).generation.expect(scene.at(1).pid);
  scene.at(0).generation.expect(scene.at(2).pid);
  scene.at(2).alive = false;  // not for one that has died
  const auto wait = scene.at(0).kernel.hooks.futex;
  int waits = 0;
  scene.at(0).kernel.hooks.futex = [&](std::atomic<std::uint32_t>* word, int operation,
                                       std::uint32_t value, const timespec* timeout) {
    if (timeout != nullptr && ++waits == 3) {
      REQUIRE(scene.at(1).generation.join());
    }
    return wait(word, operation, value, timeout);
  };

  scene.at(0).generation.inventory();

  CHECK(waits >= 3);
  CHECK(scene.has_joined(scene.at(1)));
  const int before = waits;
  scene.at(0).generation.inventory();
  CHECK(waits == before);  // nobody is expected any more
}

TEST_CASE("an inventory does not wait for ever for a process that does not join", "[generation]") {
  Scene scene;
  REQUIRE(scene.at(0).generation.join());
  REQUIRE(scene.at(0).generation.try_to_lead());
  scene.at(0).generation.expect(scene.at(1).pid);
  const Nanoseconds began = scene.time;
  scene.at(0).generation.inventory();
  CHECK(scene.time - began >= 200 * millisecond);
  CHECK(scene.time - began < 300 * millisecond);
}

// Between the look that finds a member dead and the step that frees its place,
// somebody else takes it: that one is a member all the same.
TEST_CASE("a place that is taken again is not freed by who saw its owner dead", "[generation]") {
  Scene scene;
  REQUIRE(scene.at(0).generation.join());
  REQUIRE(scene.at(1).generation.join());
  REQUIRE(scene.at(0).generation.try_to_lead());
  scene.at(1).alive = false;
  const auto look = scene.at(0).kernel.hooks.tgkill;
  bool taken = false;
  scene.at(0).kernel.hooks.tgkill = [&](pid_t process, pid_t thread, int signal) {
    const int result = look(process, thread, signal);
    if (result != 0 && !std::exchange(taken, true)) {
      REQUIRE(scene.at(2).generation.join());
      errno = ESRCH;
    }
    return result;
  };

  REQUIRE(scene.prepare());

  REQUIRE(taken);
  CHECK(scene.has_joined(scene.at(2)));
  CHECK(scene.at(2).told.take() == Calls{"prepare 1 2"});
}

TEST_CASE("a turn is one process's until its thread has ended, or gives it back", "[generation]") {
  const Scene scene;
  std::atomic<AgentId> turn{};
  const auto take = [&](std::size_t who) { return take_turn(*scene.at(who).sys, turn); };
  CHECK(take(0));
  CHECK(take(0));
  CHECK_FALSE(take(1));
  scene.at(0).alive = false;
  CHECK(take(1));
  CHECK_FALSE(take(2));
  turn.store({});
  CHECK(take(2));
}

// ---- Who slept ----------------------------------------------------------------------

TEST_CASE("who sleeps through a revival and the next attempt does both when it wakes",
          "[generation]") {
  Scene scene;
  scene.retire_all();
  scene.at(2).stopped = true;
  scene.at(0).generation.revive();
  CHECK(scene.at(2).told.take().empty());
  scene.at(2).stopped = false;

  REQUIRE(scene.prepare());
  CHECK(scene.at(2).told.take() == Calls{"revive", "prepare 1 2"});
  REQUIRE(scene.retire(id_2));
  CHECK(scene.at(2).told.take() == Calls{"retire 2", "sweep"});
}

TEST_CASE("who sleeps through the end of an attempt does not take its copies for the next one's",
          "[generation]") {
  Scene scene;
  scene.begin();
  REQUIRE(scene.prepare());
  scene.at(2).told.take();
  scene.at(2).stopped = true;
  scene.at(0).generation.abandon();
  scene.at(2).stopped = false;

  REQUIRE(scene.prepare());
  CHECK(scene.at(2).told.take() == Calls{"abandon", "prepare 1 2"});
}

TEST_CASE("who wakes when it is all over is deaf for good at once", "[generation]") {
  Scene scene;
  scene.begin();
  REQUIRE(scene.prepare());
  scene.at(2).told.take();
  scene.at(2).stopped = true;
  CHECK_FALSE(scene.retire(id_1));
  scene.at(0).generation.forget_listeners();
  CHECK(scene.at(2).told.take().empty());
  scene.at(2).stopped = false;
  scene.at(2).generation.follow();
  CHECK(scene.at(2).told.take() == Calls{"retire 1", "sweep", "forget"});
}

// ---- Who leads ----------------------------------------------------------------------

TEST_CASE("while the main process lives, nobody else leads", "[generation]") {
  Scene scene;
  REQUIRE(scene.at(1).generation.join());
  REQUIRE(scene.at(0).generation.join());
  CHECK(scene.at(1).generation.expected_leader() == scene.at(0).pid);
  CHECK_FALSE(scene.at(1).generation.try_to_lead());
  CHECK(scene.at(0).generation.try_to_lead());
  CHECK(scene.at(0).generation.is_leader());
  CHECK_FALSE(scene.at(1).generation.try_to_lead());
  CHECK_FALSE(scene.at(1).generation.is_leader());
}

TEST_CASE("when the leader has died one of the others leads, and one only", "[generation]") {
  Scene scene;
  scene.begin();
  scene.at(0).alive = false;
  REQUIRE(scene.at(1).generation.try_to_lead());
  CHECK_FALSE(scene.at(2).generation.try_to_lead());
  CHECK(scene.at(2).generation.expected_leader() == scene.at(1).pid);

  REQUIRE(scene.at(1).generation.prepare(scene.items()));
  CHECK(scene.at(2).told.take() == Calls{"prepare 1 2"});
}

TEST_CASE("a leader of that pid whose agent has gone, by exec, is followed by another",
          "[generation]") {
  Scene scene;
  scene.begin();
  // The agent that the page knows; its process is there still.
  for (Peer* peer : {&scene.at(1), &scene.at(2)}) {
    peer->kernel.hooks.tgkill = [&](pid_t process, pid_t, int) {
      errno = ESRCH;
      return process == scene.at(0).pid ? -1 : 0;
    };
  }
  CHECK(scene.at(1).generation.try_to_lead());
  CHECK(scene.at(1).generation.is_leader());
  CHECK_FALSE(scene.at(0).generation.is_leader());
}

TEST_CASE("what the dead leader had prepared or retired stays so, and is what the next one finds",
          "[generation]") {
  const bool retired = GENERATE(false, true);
  Scene scene;
  scene.begin();
  REQUIRE(scene.prepare());
  if (retired) {
    REQUIRE(scene.retire(id_1));
  }
  scene.at(0).alive = false;
  scene.at(2).told.take();
  REQUIRE(scene.at(1).generation.try_to_lead());
  REQUIRE(scene.at(1).generation.take_over());
  scene.let_run(&scene.at(1));

  CHECK(scene.stage() == (retired ? Stage::retired : Stage::prepared));
  CHECK(scene.at(2).told.take().empty());
  const auto found = scene.at(1).generation.prepared();
  REQUIRE(found.size() == 2);
  CHECK(found[0].item.listener.id == 1);
  CHECK(found[0].item.inode == 101);
  CHECK(found[0].retired == retired);
  CHECK_FALSE(found[1].retired);
  if (retired) {
    scene.at(1).generation.revive();
    CHECK(scene.at(1).told.take().back() == "revive");
    CHECK(scene.at(2).told.take() == Calls{"revive"});
  }
}

TEST_CASE("who leads from now on is deaf to what the dead leader had just begun to retire",
          "[generation]") {
  Scene scene;
  scene.begin();
  REQUIRE(scene.prepare());
  for (const std::size_t other : {1U, 2U}) {
    scene.at(other).stopped = true;
  }
  CHECK_FALSE(scene.retire(id_1));
  scene.at(0).alive = false;
  scene.at(1).stopped = false;
  scene.at(1).told.take();
  REQUIRE(scene.at(1).generation.try_to_lead());
  REQUIRE(scene.at(1).generation.take_over());
  CHECK(scene.at(1).told.take() == Calls{"retire 1", "sweep"});
}

TEST_CASE("who cannot get ready does not go on with what the dead leader had prepared",
          "[generation]") {
  Scene scene;
  scene.begin();
  scene.at(1).told.fails = ENOMEM;
  scene.at(1).stopped = true;
  CHECK_FALSE(scene.prepare());
  scene.page->stage.store(static_cast<std::uint32_t>(Stage::prepared));
  scene.page->attempt.fetch_add(1);
  scene.at(0).alive = false;
  scene.at(1).stopped = false;
  REQUIRE(scene.at(1).generation.try_to_lead());
  REQUIRE(scene.at(1).generation.take_over());
  CHECK(scene.stage() == Stage::serving);
}

TEST_CASE("a leader that dies in the middle of a change leaves a page that can be read",
          "[generation]") {
  Scene scene;
  scene.retire_all();
  scene.page->sequence.fetch_add(1);  // begun, and not ended
  scene.at(0).alive = false;
  REQUIRE(scene.at(1).generation.try_to_lead());
  // Who reads an odd sequence waits for an even one, for ever.
  scene.at(2).kernel.hooks.ppoll = [](pollfd*, nfds_t, const timespec*) -> int {
    throw std::runtime_error("the page cannot be read");
  };
  CHECK_NOTHROW(scene.at(1).generation.revive());
  CHECK(scene.page->sequence.load() % 2 == 0);
  CHECK(scene.at(2).told.take() == Calls{"revive"});
}

TEST_CASE("the first of those that do not lead is the deputy, and one only", "[generation]") {
  Scene scene;
  scene.begin();
  CHECK(scene.at(1).generation.is_deputy());
  CHECK_FALSE(scene.at(2).generation.is_deputy());
  scene.at(1).alive = false;
  CHECK(scene.at(2).generation.is_deputy());
}

// ---- Places, connections, signals -----------------------------------------------------

TEST_CASE("a process alone knows it, and a dead one is no company", "[generation]") {
  Scene scene;
  REQUIRE(scene.at(0).generation.join());
  CHECK(scene.at(0).generation.is_alone());
  REQUIRE(scene.at(1).generation.join());
  CHECK_FALSE(scene.at(0).generation.is_alone());
  scene.at(1).alive = false;
  CHECK(scene.at(0).generation.is_alone());
}

TEST_CASE("where all places are taken there is no room, and a dead one's is taken again",
          "[generation]") {
  Scene scene;
  for (Member& member : scene.page->members) {
    member.agent.store({.process = scene.at(0).pid, .thread = scene.at(0).pid});
  }
  CHECK_FALSE(scene.at(1).generation.join());
  Member& member = scene.page->members.at(77);
  member.agent.store({.process = scene.at(2).pid, .thread = scene.at(2).pid});
  scene.at(2).alive = false;
  REQUIRE(scene.at(1).generation.join());
  CHECK(member.agent.load().process == scene.at(1).pid);
}

TEST_CASE("more listeners than the page has room for are refused", "[generation]") {
  Scene scene;
  scene.begin();
  auto items = scene.items();
  items.resize(max_page_listeners + 1, items.front());
  CHECK(code_of(scene.at(0).generation.prepare(items)) == E2BIG);
  CHECK(scene.stage() == Stage::serving);
}

TEST_CASE("live connections are those of all processes, and who has not looked may have one",
          "[generation]") {
  Scene scene;
  scene.forget_all();
  scene.at(0).told.live = 2;
  scene.at(1).told.live = 3;
  CHECK(scene.at(0).generation.connections() == 2 + 1 + 1);
  scene.at(1).generation.look();
  scene.at(2).generation.look();
  CHECK(scene.at(0).generation.connections() == 2 + 3);
  scene.at(1).alive = false;
  scene.at(0).told.live = 0;
  CHECK(scene.at(0).generation.connections() == 0);
}

TEST_CASE("a process looks again when it is time, and not before", "[generation]") {
  Scene scene;
  scene.forget_all();
  scene.at(1).told.live = 1;
  const Nanoseconds next = scene.at(1).generation.look();
  REQUIRE(next > scene.time);
  scene.at(1).told.live = 0;
  scene.at(1).generation.look();
  scene.at(2).generation.look();
  CHECK(scene.at(0).generation.connections() == 1);
  scene.time = next;
  scene.at(1).generation.look();
  CHECK(scene.at(0).generation.connections() == 0);
}

TEST_CASE("who had no connection a while ago looks again before it is believed", "[generation]") {
  Scene scene;
  scene.forget_all();
  scene.at(1).told.live = 1;
  scene.at(1).generation.look();
  scene.at(2).generation.look();
  scene.time += 2 * second;
  // The one has given its connection to the other.
  scene.at(1).told.live = 0;
  scene.at(1).generation.look();
  scene.at(2).told.live = 1;
  CHECK(scene.at(0).generation.connections() == 1);  // the other is asked
  scene.at(2).generation.look();
  CHECK(scene.at(0).generation.connections() == 1);  // and has it

  scene.time += 2 * second;
  scene.at(2).told.live = 0;
  scene.at(2).generation.look();
  CHECK(scene.at(0).generation.connections() == 1);
  scene.at(1).generation.look();
  CHECK(scene.at(0).generation.connections() == 0);
}

TEST_CASE("told to leave is the main process alone, killed are all", "[generation]") {
  using Signals = std::vector<std::pair<pid_t, int>>;
  Scene scene;
  scene.begin();
  scene.at(0).generation.stop(SIGTERM);
  CHECK(std::exchange(scene.signals, {}) == Signals{{scene.at(0).pid, SIGTERM}});
  scene.at(0).generation.stop(SIGKILL);
  CHECK(scene.signals == Signals{{scene.at(1).pid, SIGKILL},
                                 {scene.at(2).pid, SIGKILL},
                                 {scene.at(0).pid, SIGKILL}});
}

TEST_CASE("when the main process has gone, the leader tells itself", "[generation]") {
  Scene scene;
  scene.begin();
  scene.at(0).alive = false;
  REQUIRE(scene.at(1).generation.try_to_lead());
  scene.at(1).generation.stop(SIGTERM);
  CHECK(scene.signals == std::vector<std::pair<pid_t, int>>{{scene.at(1).pid, SIGTERM}});
}

TEST_CASE("whatever call of the leader fails, all processes are where it says they are",
          "[generation][fault]") {
  const auto code = GENERATE(EMFILE, EINTR, EAGAIN);
  constexpr int most = 40;  // then they are calls for one process of this machine more
  int prepared = 0;
  int n = 1;
  for (bool failed = true; failed && n < most; ++n) {
    CAPTURE(code, n);
    Scene scene;
    scene.begin();
    scene.first_sys.fail_nth(n, code);
    const bool is_ready = scene.prepare().has_value();
    const bool is_deaf = is_ready && scene.retire(id_1);
    failed = scene.first_sys.has_failed();
    scene.first_sys.stop_failing();
    scene.let_run(&scene.at(0));  // the bell may not have been heard
    prepared += is_ready ? 1 : 0;
    CHECK(scene.stage() == (is_ready ? Stage::retired : Stage::serving));
    const Calls seen = scene.at(2).told.take();
    if (is_deaf) {
      CHECK(seen == Calls{"prepare 1 2", "retire 1", "sweep"});
    }
    scene.at(0).generation.revive();
    CHECK(scene.stage() == Stage::serving);
  }
  CHECK(n > 10);
  CHECK(prepared > 0);
}

}  // namespace continuity::test
