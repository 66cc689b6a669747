// continuity supervise: what whoever has started it sees, and what the clients of its server
// see, while runs of the server follow each other, fail, and end.
#include "manager.hpp"
#include "place.hpp"
#include "support/load_driver.hpp"
#include "support/root.hpp"
#include "support/waiting.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <netinet/in.h>
#include <set>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::test {
namespace {

// A supervisor, and the place that its server serves. The server is a script, which a test
// can have behave differently from one run to the next.
struct Supervised {
  explicit Supervised(Environment more = {}) : variables(place.variables()) {
    variables.insert(variables.end(), {"LD_PRELOAD=", "CONTINUITY_PROBATION=200ms"});
    variables.insert(variables.end(), more.begin(), more.end());
  }

  // What each run does before it becomes the server: lines of a shell's.
  void before_each_run(const std::string& lines) const {
    write_file(script, lines + "\nexec \"$@\"\n");
  }

  [[nodiscard]] Arguments command(const Arguments& options = {},
                                  const Arguments& loop = {"poll"}) const {
    Arguments result{CONTINUITY_COMMAND, "supervise"};
    result.insert(result.end(), options.begin(), options.end());
    result.insert(result.end(), {"--", "/bin/sh", script, TINY_SERVER});
    result.insert(result.end(), loop.begin(), loop.end());
    result.push_back(place.address());
    return result;
  }

  // Runs the supervisor and waits until its server answers.
  Process& start(const Arguments& options = {}, const Arguments& loop = {"poll"}) {
    supervisor = Process::start(command(options, loop), variables);
    supervisor.await_log("is started: ");
    next_server();
    REQUIRE(who_answers() == server);
    return supervisor;
  }

  // The pid that the next run says when it listens.
  pid_t next_server() {
    std::string line;
    do {
      line = supervisor.next_line();
    } while (line.rfind("listening ", 0) != 0);
    server = static_cast<pid_t>(number_in(line, "pid"));
    supervisor.await_log("pid " + std::to_string(server) + " serves");
    return server;
  }

  [[nodiscard]] pid_t who_answers() const {
    return static_cast<pid_t>(number_in(answer_from(place.address()), "pid"));
  }

  [[nodiscard]] Process reload() const {
    return Process::start(
        {CONTINUITY_COMMAND, "reload", "--supervisor", std::to_string(supervisor.pid())},
        variables);
  }

  // Ends it as an operator does, so that no server outlives the test.
  void stop() {
    supervisor.signal(SIGTERM);
    CHECK(supervisor.wait_exit() == 128 + SIGTERM);
  }

  Place place{};
  std::string script = place.directory / "run";
  Environment variables;
  Process supervisor{};
  pid_t server = 0;
};

struct Plain : Supervised {
  explicit Plain(Environment more = {}) : Supervised(std::move(more)) { before_each_run(""); }
};

// Of listeners on IPv4.
std::set<int> ports_of(const std::vector<int>& listeners) {
  std::set<int> ports;
  for (const int fd : listeners) {
    sockaddr_in address{};
    socklen_t length = sizeof address;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
    ports.insert(ntohs(address.sin_port));
  }
  return ports;
}

bool is_alive(pid_t pid) {
  return ::kill(pid, 0) == 0;
}

// At which it is asked to restart, in the abstract namespace.
std::string name_of_supervisor(pid_t pid) {
  struct stat space {};
  REQUIRE(::stat("/proc/self/ns/pid", &space) == 0);
  return "continuity-supervise-" + std::to_string(space.st_ino) + "-" + std::to_string(pid);
}

}  // namespace

TEST_CASE("a supervisor that is told to reload restarts its server, and nothing is lost") {
  Plain supervised;
  const bool by_signal = GENERATE(true, false);
  supervised.start({}, {"threads"});
  Load load(supervised.place.address());
  REQUIRE(load.await_ok(50));
  for (int i = 0; i < 3; ++i) {
    const pid_t before = supervised.server;
    if (by_signal) {
      supervised.supervisor.signal(SIGHUP);
    } else {
      CHECK(supervised.reload().wait_exit() == 0);
    }
    CHECK(supervised.next_server() != before);
    supervised.supervisor.await_log("the restart has succeeded: pid " +
                                    std::to_string(supervised.server));
    CHECK(supervised.who_answers() == supervised.server);
    CHECK(wait_until([&] { return !is_alive(before); }));
    REQUIRE(load.await_ok(50));
  }
  load.stats();
  CHECK(load.count("failed") == 0);
  supervised.stop();
}

TEST_CASE("a restart that fails before it is ready is told to who asked, and the old one serves") {
  Supervised supervised;
  const std::string flag = supervised.place.directory / "broken";
  supervised.before_each_run("[ ! -e " + flag + " ] || exit 7");
  supervised.start();
  write_file(flag, "");
  Process reload = supervised.reload();
  CHECK(reload.wait_exit() == 1);
  reload.await_log("exited with status 7 before it was ready");
  CHECK(supervised.who_answers() == supervised.server);

  std::filesystem::remove(flag);
  CHECK(supervised.reload().wait_exit() == 0);
  CHECK(supervised.who_answers() == supervised.next_server());
  supervised.stop();
}

TEST_CASE("a run that fails on probation is told as rolled back, and the one before serves") {
  Plain supervised({"CONTINUITY_PROBATION=20s"});
  supervised.start();
  const pid_t first = supervised.server;
  Process reload = supervised.reload();
  const pid_t second = supervised.next_server();
  REQUIRE(wait_until([&] { return supervised.who_answers() == second; }));
  ::kill(second, SIGSEGV);
  CHECK(reload.wait_exit() == 4);
  reload.await_log("pid " + std::to_string(first) + " serves again");
  CHECK(supervised.who_answers() == first);
  supervised.stop();
}

TEST_CASE("a run that does not come to serve in time is stopped, and the old one serves") {
  Supervised supervised;
  const std::string flag = supervised.place.directory / "hangs";
  const std::string fifo = supervised.place.directory / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  supervised.before_each_run("[ ! -e " + flag + " ] || read -r line <" + fifo);
  supervised.start({"--start-timeout", "500ms"});
  write_file(flag, "");
  Process reload = supervised.reload();
  CHECK(reload.wait_exit() == 1);
  reload.await_log("has not taken over within 0.5 s");
  CHECK(supervised.who_answers() == supervised.server);
  supervised.stop();
}

TEST_CASE("while a server that has crashed is started again its clients wait, unless told not to") {
  const bool keeps = GENERATE(true, false);
  CAPTURE(keeps);
  Supervised supervised;
  const std::string flag = supervised.place.directory / "waits";
  const std::string fifo = supervised.place.directory / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  // The second run comes to bind when the test lets it.
  supervised.before_each_run("[ ! -e " + flag + " ] || read -r line <" + fifo);
  NotifySocket manager;
  supervised.variables.push_back(manager.variable());
  supervised.start(keeps ? Arguments{} : Arguments{"--no-keep"});
  if (keeps) {
    manager.await("FDSTORE=1");  // the listener has been copied
  }
  write_file(flag, "");
  ::kill(supervised.server, SIGSEGV);
  supervised.supervisor.await_log("was killed by SIGSEGV");
  supervised.supervisor.await_log("is started: ");
  if (keeps) {
    Connection client(supervised.place.address());
    client.send("hello\n");
    std::ofstream(fifo) << "go\n";
    const pid_t second = supervised.next_server();
    CHECK(number_in(client.receive_line(), "pid") == second);
  } else {
    CHECK(answer_from(supervised.place.address()) == "ECONNREFUSED");
    std::ofstream(fifo) << "go\n";
    supervised.next_server();
  }
  std::filesystem::remove(flag);
  REQUIRE(wait_until([&] { return supervised.who_answers() == supervised.server; }));
  supervised.stop();
}

TEST_CASE("clients are refused by no crash of a server and no restart after one") {
  Plain supervised;
  NotifySocket manager;
  supervised.variables.push_back(manager.variable());
  supervised.start({}, {"threads"});
  manager.await("FDSTORE=1");  // the listener has been copied
  Load load(supervised.place.address());
  const auto crash = [&] {
    REQUIRE(load.await_ok(50));
    ::kill(supervised.server, SIGSEGV);
    supervised.next_server();
    manager.await("FDSTORE=1");  // ... and once more, from who has taken over from the copy
  };
  const auto reload = [&] {
    REQUIRE(load.await_ok(50));
    CHECK(supervised.reload().wait_exit() == 0);
    supervised.next_server();
    manager.await("FDSTORE=1");
    CHECK(supervised.who_answers() == supervised.server);
  };
  crash();
  reload();
  crash();
  crash();
  reload();
  REQUIRE(load.await_ok(50));
  load.stats();
  // What a crash had accepted itself is lost.
  CHECK(load.count("failed") == load.count("reset") + load.count("closed"));
  CHECK(load.count("failed") <= 24);  // three crashes, eight clients
  supervised.stop();
}

TEST_CASE("what no run takes over is let go of after two failures, by the manager as well") {
  Supervised supervised;
  NotifySocket manager;
  supervised.variables.push_back(manager.variable());
  const std::string flag = supervised.place.directory / "alone";
  supervised.before_each_run("[ ! -e " + flag + " ] || export CONTINUITY_DISABLE=1");
  supervised.start();
  manager.await("FDSTORE=1");
  write_file(flag, "");
  ::kill(supervised.server, SIGSEGV);
  manager.await("FDSTOREREMOVE=1");
  std::string line;
  do {  // those before cannot bind
    line = supervised.supervisor.next_line();
  } while (line.rfind("listening ", 0) != 0);
  CHECK(supervised.who_answers() == number_in(line, "pid"));
  supervised.stop();
}

TEST_CASE("a server is started again so often and no more, and its status is the supervisor's") {
  Plain supervised;
  supervised.start({"--again", "1"});
  ::kill(supervised.server, SIGSEGV);
  supervised.next_server();
  REQUIRE(wait_until([&] { return supervised.who_answers() == supervised.server; }));
  ::kill(supervised.server, SIGABRT);
  supervised.supervisor.await_log("it is not started again (1 times in a row)");
  CHECK(supervised.supervisor.wait_exit() == 128 + SIGABRT);
}

TEST_CASE("a supervisor ends as its server ends, and a first start that fails is not repeated") {
  Supervised supervised;
  const auto [line, status] = GENERATE(table<std::string, int>(
      {{"exit 0", 0}, {"exit 3", 3}, {"kill -KILL $$", 137}, {"kill -TERM $$", 143}}));
  supervised.before_each_run(line);
  Process supervisor = Process::start(supervised.command(), supervised.variables);
  CHECK(supervisor.wait_exit() == status);
  CHECK(supervisor.logged("is started: ") == 1);

  Process missing =
      Process::start({CONTINUITY_COMMAND, "supervise", "--", "/nonexistent"}, supervised.variables);
  CHECK(missing.wait_exit() == 127);
}

TEST_CASE("a supervisor hands signals on to its server, and kills what does not stop in time") {
  Supervised supervised;
  supervised.before_each_run("trap '' TERM");
  supervised.start({"--stop-timeout", "300ms"});
  supervised.supervisor.signal(SIGTERM);
  CHECK(supervised.supervisor.wait_exit() == 128 + SIGKILL);
  CHECK_FALSE(is_alive(supervised.server));

  Plain other;
  other.start();
  other.supervisor.signal(SIGUSR1);
  CHECK(other.supervisor.next_line() == "told of success");  // as it says when it gets that
  other.stop();
}

TEST_CASE("a server that crashes when it has only just begun to serve is started again") {
  Supervised supervised;
  // It is announced when it begins to serve, and dies before anybody can look.
  const std::string dies =
      "import os, socket, sys, threading\n"
      "def watch(directory):\n"
      "  while not any(name.startswith('dies.') for name in os.listdir(directory)): pass\n"
      "  os.kill(os.getpid(), 9)\n"
      "place = sys.argv[1] + '/' + str(os.getuid())\n"
      "threading.Thread(target=watch, args=[place]).start()\n"
      "s = socket.create_server(('127.0.0.1', int(sys.argv[2])))\n"
      "s.accept()\n";
  const std::string flag = supervised.place.directory / "died";
  const std::string program = supervised.place.directory / "dies.py";
  write_file(program, dies);
  supervised.before_each_run("[ -e " + flag + " ] || { touch " + flag +
                             "; CONTINUITY_NAME=dies exec python3 " + program + " " +
                             supervised.place.rendezvous() + " " +
                             std::to_string(supervised.place.port.number()) + "; }");
  supervised.supervisor = Process::start(supervised.command(), supervised.variables);
  supervised.supervisor.await_log("was killed by SIGKILL; it is started again");
  const pid_t second = supervised.next_server();
  CHECK(wait_until([&] { return supervised.who_answers() == second; }));
  CHECK(supervised.supervisor.logged("was killed by SIGKILL; it is started again") == 1);
  supervised.stop();
}

TEST_CASE(
    "a supervisor that is stopped tells what a run has left behind, and does not wait for it") {
  Supervised supervised;
  supervised.before_each_run("(exec >&- 2>&-; sleep 1000 &)");
  supervised.start({"--stop-timeout", "1h"});
  supervised.stop();
}

TEST_CASE("SIGHUP while a run starts is no refusal: another run follows it") {
  Supervised supervised;
  const std::string fifo = supervised.place.directory / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  supervised.before_each_run("read -r line <" + fifo);
  supervised.supervisor = Process::start(supervised.command(), supervised.variables);
  supervised.supervisor.await_log("is started: ");
  const auto hang_up = [&] {
    supervised.supervisor.signal(SIGHUP);
    supervised.supervisor.await_log("SIGHUP: restarted when");
  };
  const auto let_start = [&] {
    std::ofstream(fifo) << "go\n";
    return supervised.next_server();
  };
  hang_up();
  hang_up();  // however often
  const pid_t first = let_start();
  supervised.supervisor.await_log("is started: ");
  hang_up();  // and in the restart
  const pid_t second = let_start();
  CHECK(second != first);
  supervised.supervisor.await_log("the restart has succeeded: pid " + std::to_string(second));
  const pid_t third = let_start();
  supervised.supervisor.await_log("the restart has succeeded: pid " + std::to_string(third));
  CHECK(supervised.who_answers() == third);
  CHECK(supervised.supervisor.logged("is started: ") == 3);
  supervised.stop();
}

TEST_CASE("what the manager keeps for later is what the server serves after a reload") {
  Supervised supervised;
  const ReservedPort before;
  const ReservedPort after;
  const std::string flag = supervised.place.directory / "moved";
  write_file(supervised.script, "if [ -e " + flag + " ]; then set -- \"$@\" " + after.address() +
                                    "; else set -- \"$@\" " + before.address() +
                                    "; fi\nexec \"$@\"\n");
  NotifySocket manager;
  supervised.variables.insert(supervised.variables.end(),
                              {manager.variable(), "CONTINUITY_UNCLAIMED=100ms"});
  supervised.start();
  manager.await("FDSTORE=1");
  CHECK(ports_of(manager.stored()) == std::set{supervised.place.port.number(), before.number()});
  write_file(flag, "");
  CHECK(supervised.reload().wait_exit() == 0);
  supervised.next_server();
  manager.await("FDSTOREREMOVE=1");
  manager.await("FDSTORE=1");
  CHECK(ports_of(manager.stored()) == std::set{supervised.place.port.number(), after.number()});
  supervised.stop();
}

TEST_CASE("a run whose successor takes nothing over, since it serves elsewhere, is stopped") {
  Supervised supervised;
  const ReservedPort other;
  const std::string flag = supervised.place.directory / "moved";
  write_file(supervised.script, "[ ! -e " + flag + " ] || set -- " TINY_SERVER " poll " +
                                    other.address() + "\nexec \"$@\"\n");
  supervised.start();
  const pid_t first = supervised.server;
  write_file(flag, "");
  CHECK(supervised.reload().wait_exit() == 0);
  const pid_t second = supervised.next_server();
  CHECK(number_in(answer_from(other.address()), "pid") == second);
  CHECK(wait_until([&] { return !is_alive(first); }));
  CHECK(wait_until([&] { return answer_from(supervised.place.address()) == "ECONNREFUSED"; }));
  supervised.stop();
}

TEST_CASE("a daemon is followed, restarted and stopped like a server in the foreground") {
  Plain supervised;
  supervised.start({}, {"--daemon", "poll"});
  const pid_t first = supervised.server;
  CHECK(supervised.reload().wait_exit() == 0);
  CHECK(supervised.next_server() != first);
  CHECK(supervised.who_answers() == supervised.server);
  CHECK(wait_until([&] { return !is_alive(first); }));
  supervised.stop();
  CHECK_FALSE(is_alive(supervised.server));
}

TEST_CASE("a manager hears of a start, a restart and a stop from the supervisor alone") {
  Plain supervised;
  NotifySocket manager;
  supervised.variables.push_back(manager.variable());
  supervised.start();
  manager.believe(supervised.supervisor.pid());
  manager.await("READY=1");
  const std::string stored = manager.await("FDSTORE=1");
  CHECK(stored.find("FDNAME=continuity") != std::string::npos);
  CHECK(manager.stored().size() == 1);

  CHECK(supervised.reload().wait_exit() == 0);
  const std::string reloading = manager.await("RELOADING=1");
  CHECK(reloading.find("MONOTONIC_USEC=") != std::string::npos);
  manager.await("EXTEND_TIMEOUT_USEC=");
  manager.await("READY=1");
  supervised.stop();
  manager.await("STOPPING=1");
  CHECK_FALSE(manager.has_heard("MAINPID="));
}

TEST_CASE("what a server says of one of its runs does not reach the manager, the rest does") {
  Supervised supervised;
  const std::string tell =
      "python3 - <<'END'\n"
      "import os, socket\n"
      "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
      "s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:])\n"
      "s.send(b'STOPPING=1\\nMAINPID=1\\nRELOADING=1')\n"
      "s.send(b'STATUS=warm\\nWATCHDOG=1')\n"
      "assert 'WATCHDOG_PID' not in os.environ\n"
      "END";
  supervised.before_each_run(tell);
  NotifySocket manager;
  supervised.variables.insert(supervised.variables.end(),
                              {manager.variable(), "WATCHDOG_PID=1", "WATCHDOG_USEC=1000000"});
  supervised.start();
  CHECK(manager.await("STATUS=warm").find("WATCHDOG=1") != std::string::npos);
  CHECK_FALSE(manager.has_heard("MAINPID="));
  CHECK_FALSE(manager.has_heard("STOPPING=1"));
  CHECK_FALSE(manager.has_heard("RELOADING=1"));
  supervised.stop();
}

TEST_CASE("listeners that a manager has kept are taken over by the first run at its bind") {
  Supervised supervised;
  const std::string fifo = supervised.place.directory / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  supervised.before_each_run("read -r line <" + fifo);
  const std::string hand_over =
      "import os, socket, sys\n"
      "s = socket.socket()\n"
      "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
      "s.bind(('127.0.0.1', int(sys.argv[1])))\n"
      "s.listen(8)\n"
      "os.dup2(s.fileno(), 3)\n"
      "os.set_inheritable(3, True)\n"
      "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', CONTINUITY_NAME='kept')\n"
      "os.execv(sys.argv[2], sys.argv[2:])\n";
  Arguments command{"python3", "-c", hand_over, std::to_string(supervised.place.port.number())};
  const Arguments supervise = supervised.command();
  command.insert(command.end(), supervise.begin(), supervise.end());
  supervised.supervisor = Process::start(command, supervised.variables);
  supervised.supervisor.await_log("1 listeners are kept from before");
  // Before anybody serves.
  Connection client(supervised.place.address());
  client.send("hello\n");
  std::ofstream(fifo) << "go\n";
  const pid_t server = supervised.next_server();
  CHECK(number_in(client.receive_line(), "pid") == server);
  supervised.stop();
}

TEST_CASE("a listener that the server has closed does not stay open for long") {
  Supervised supervised;
  supervised.before_each_run("");
  const ReservedPort second;
  NotifySocket manager;
  supervised.variables.push_back(manager.variable());
  // The next run binds one address less.
  const std::string flag = supervised.place.directory / "less";
  write_file(supervised.script,
             "[ -e " + flag + " ] || set -- \"$@\" " + second.address() + "\nexec \"$@\"\n");
  supervised.variables.push_back("CONTINUITY_UNCLAIMED=100ms");
  supervised.start();
  manager.await("FDSTORE=1");
  REQUIRE(answer_from(second.address()).rfind("pid=", 0) == 0);
  write_file(flag, "");
  CHECK(supervised.reload().wait_exit() == 0);
  supervised.next_server();
  CHECK(wait_until([&] { return answer_from(second.address()) == "ECONNREFUSED"; }));
  CHECK(supervised.who_answers() == supervised.server);
  supervised.stop();
}

TEST_CASE("reload says when there is no supervisor, and a second one is refused") {
  Plain supervised({"CONTINUITY_PROBATION=20s"});
  Process nobody = Process::start({CONTINUITY_COMMAND, "reload", "--supervisor", "1"});
  CHECK(nobody.wait_exit() == 3);
  nobody.await_log("pid 1 is no continuity supervise");

  supervised.start();
  Process first = supervised.reload();
  supervised.next_server();
  Process second = supervised.reload();
  CHECK(second.wait_exit() == 1);
  second.await_log("another restart is under way");
  supervised.stop();
  CHECK(first.wait_exit() == 1);
}

TEST_CASE("reload does not believe who has taken the name of a supervisor") {
  // The name of the supervisor that this process would be, in the hands of its child.
  const std::string pid = std::to_string(::getpid());
  const std::string name = name_of_supervisor(::getpid());
  const std::string squat =
      "import socket, sys\n"
      "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
      "s.bind('\\0' + sys.argv[1])\n"
      "s.listen(1)\n"
      "print('taken', flush=True)\n"
      "c, _ = s.accept()\n"
      "c.send(b'0 all is well')\n"
      "c.recv(1)\n";
  Process squatter = Process::start({"python3", "-c", squat, name});
  REQUIRE(squatter.next_line() == "taken");
  Process reload = Process::start({CONTINUITY_COMMAND, "reload", "--supervisor", pid});
  CHECK(reload.wait_exit() == 1);
  reload.await_log("somebody else answers for pid " + pid);
}

// Says nothing at the supervisor's name, in so many connections; or comes again and again,
// for as long as the test runs.
Process come_to(const Supervised& supervised, int connections, bool floods = false,
                const Arguments& as = {}) {
  const std::string come =
      "import socket, sys\n"
      "def come():\n"
      "  s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
      "  s.setblocking(False)\n"
      "  try:\n"
      "    s.connect('\\0' + sys.argv[1])\n"
      "  except BlockingIOError:\n"
      "    pass\n"
      "  return s\n"
      "all = [come() for i in range(int(sys.argv[3]))]\n"
      "print('there', flush=True)\n"
      "while sys.argv[2] == 'flood':\n"
      "  come().close()\n"
      "sys.stdin.read()\n";
  Arguments command = as;
  command.insert(command.end(),
                 {"/usr/bin/python3", "-c", come, name_of_supervisor(supervised.supervisor.pid()),
                  floods ? "flood" : "sit", std::to_string(connections)});
  Process comer = Process::start(command);
  REQUIRE(comer.next_line() == "there");
  return comer;
}

TEST_CASE("another user who comes to the name of a supervisor keeps nobody from a reload") {
  if (needs_root()) {
    return;
  }
  const bool floods = GENERATE(false, true);
  CAPTURE(floods);
  Plain supervised;
  supervised.start();
  constexpr int more_than_wait = 20;
  const Process attacker = come_to(supervised, more_than_wait, floods,
                                   {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"});
  supervised.supervisor.await_log("user 65534 wants a restart; ignored");
  for (int i = 0; i < 3; ++i) {
    CHECK(supervised.reload().wait_exit() == 0);
    CHECK(supervised.next_server() == supervised.who_answers());
  }
  supervised.stop();
}

TEST_CASE("who comes to the name of a supervisor and says nothing keeps nobody from a reload") {
  Plain supervised;
  supervised.start();
  const Process silent = come_to(supervised, 1);
  CHECK(supervised.reload().wait_exit() == 0);
  CHECK(supervised.next_server() == supervised.who_answers());
  supervised.stop();
}

TEST_CASE("as the first process of a container a supervisor reaps orphans, restarts and stops") {
  if (needs_root()) {
    return;
  }
  Supervised supervised;
  // An orphan that ends: nobody but the first process can wait for it.
  supervised.before_each_run("(exec 2>&-; sh -c 'exit 5' &) ; :");
  Arguments command{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"};
  const Arguments supervise = supervised.command({}, {"prefork"});
  command.insert(command.end(), supervise.begin(), supervise.end());
  supervised.supervisor = Process::start(command, supervised.variables);
  supervised.next_server();
  supervised.supervisor.await_log("continuity[1]: pid ");
  REQUIRE(
      wait_until([&] { return answer_from(supervised.place.address()).rfind("pid=", 0) == 0; }));

  // Its pid as we see it: the only child of unshare.
  const std::string children = "/proc/" + std::to_string(supervised.supervisor.pid()) + "/task/" +
                               std::to_string(supervised.supervisor.pid()) + "/children";
  const pid_t first = std::stoi(read_file(children));
  const auto zombies = [&] {
    int count = 0;
    std::string text = read_file("/proc/" + std::to_string(first) + "/task/" +
                                 std::to_string(first) + "/children");
    std::istringstream words(text);
    for (pid_t child = 0; words >> child;) {
      count +=
          read_file("/proc/" + std::to_string(child) + "/stat").find(") Z ") != std::string::npos
              ? 1
              : 0;
    }
    return count;
  };
  CHECK(wait_until([&] { return zombies() == 0; }));
  ::kill(first, SIGHUP);
  supervised.next_server();
  supervised.supervisor.await_log("the restart has succeeded");
  ::kill(first, SIGTERM);
  CHECK(supervised.supervisor.wait_exit() == 0);  // as the server, which has a handler
}

}  // namespace continuity::test
